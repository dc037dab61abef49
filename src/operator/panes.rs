//! Windows that overlap share their panes: each row is aggregated once, each window merges a few states.
//!
//! ```text
//! open panes ── window closes ──▶ sealed:   front (suffixes)            back (prefix)
//!                                           [a+b+c) [b+c) [c)           d+e
//! window [b, f) = [b+c) + (d+e): two merges, however many panes it covers
//! ```
//! The two stacks are those of a queue with an aggregate: a pane is merged about three times in its life.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};

use crate::types::{Error, PaneRange, Result, Saved, Windows};

use super::{
    Aggregation,
    aggregation::{Evaluated, GroupState, GroupTable, Results},
    merging::{OpenTable, merge},
    stragglers::Stragglers,
};

/// The states of all panes that some open window covers.
pub struct Panes {
    aggregation: Arc<Aggregation>,
    windows: Windows,
    /// Panes whose first window has not closed.
    open: BTreeMap<i64, OpenTable>,
    /// Rows that came when windows over their pane had closed for their split.
    stragglers: Stragglers,
    sealed: Sealed,
    /// All windows that end with this pane or before are closed.
    closed: i64,
}

/// Panes that take no more rows, as a queue.
#[derive(Default)]
struct Sealed {
    /// By pane, descending: the state of this pane and all later ones of the front.
    front: Vec<(i64, GroupState)>,
    /// By pane, ascending: each by itself, to become the front.
    back: Vec<(i64, GroupState)>,
    /// The state of the whole back.
    back_merged: Option<GroupState>,
}

impl Panes {
    pub fn new(aggregation: Arc<Aggregation>, windows: Windows) -> Self {
        Self {
            stragglers: Stragglers::new(Arc::clone(&aggregation), windows),
            aggregation,
            windows,
            open: BTreeMap::new(),
            sealed: Sealed::default(),
            closed: i64::MIN,
        }
    }

    /// Rows of one pane, of which windows that end before `first_end` take none.
    pub fn update(&mut self, pane: i64, first_end: i64, rows: &Evaluated) -> Result<()> {
        assert!(self.closed < first_end, "an accepted row never meets a closed window");
        let first = self.windows.next_covering(pane, i64::MIN);
        let is_open = first.is_some_and(|first| first.end == first_end);
        match is_open {
            true => open_at(&mut self.open, pane, &self.aggregation)?.update(rows),
            false => self.stragglers.update(pane, first_end, rows),
        }
    }

    /// Closes the next window with rows that ends at `time` or before.
    pub fn close_next(&mut self, time: i64) -> Result<Option<(PaneRange, Results)>> {
        let Some(range) = self.next_window() else {
            return Ok(None);
        };
        if time < self.windows.bounds(range).end {
            return Ok(None);
        }
        while let Some(entry) = self.open.first_entry()
            && *entry.key() < range.end
        {
            let (pane, table) = entry.remove_entry();
            self.sealed
                .push(pane, table.into_state(&self.aggregation)?, &self.aggregation)?;
        }
        self.sealed.drop_before(range.first, &self.aggregation)?;
        let mut merged = GroupTable::new(Arc::clone(&self.aggregation))?;
        let front = self.sealed.front.last().map(|(_, state)| state);
        for state in front.into_iter().chain(&self.sealed.back_merged) {
            merged.update_states(state)?;
        }
        self.stragglers.merge_into(range, &mut merged)?;
        self.closed = range.end;
        self.forget_covered()?;
        Ok(Some((range, merged.into_results()?)))
    }

    /// The state as it is now. Its rows: which part of the structure, pane, first end, group columns, state columns; a batch per piece of state.
    pub fn snapshot(&mut self) -> Result<Saved> {
        let schema = self.snapshot_schema();
        let mut parts = Vec::new();
        for (pane, table) in &mut self.open {
            let pieces = table.seal(&self.aggregation)?.iter();
            parts.extend(pieces.map(|piece| (Kind::Open, *pane, 0, piece.clone())));
        }
        for waiting in self.stragglers.waiting() {
            let (first_end, pane, state) = waiting?;
            parts.push((Kind::Straggler, pane, first_end, state));
        }
        let settled = self.stragglers.settled();
        parts.extend(settled.map(|(pane, state)| (Kind::SettledStraggler, pane, 0, state.clone())));
        let of = |kind: Kind| move |(pane, state): &(i64, GroupState)| (kind, *pane, 0, state.clone());
        parts.extend(self.sealed.front.iter().map(of(Kind::Front)));
        parts.extend(self.sealed.back.iter().map(of(Kind::Back)));
        let back_merged = self.sealed.back_merged.iter();
        parts.extend(back_merged.map(|state| (Kind::BackMerged, 0, 0, state.clone())));
        let closed = Schema::new(vec![Field::new("closed", DataType::Int64, false)]);
        let closed = RecordBatch::try_new(Arc::new(closed), vec![Arc::new(Int64Array::from(vec![self.closed]))]);
        let closed = closed.map_err(Error::of_arrow)?;
        Ok(Saved::later(move || {
            let part = |(kind, pane, first_end, state): (Kind, i64, i64, GroupState)| {
                part(&schema, kind, pane, first_end, &state)
            };
            let head = [closed, RecordBatch::new_empty(Arc::clone(&schema))].map(Ok);
            head.into_iter().chain(parts.into_iter().map(part)).collect()
        }))
    }

    pub fn restore(&mut self, state: &[RecordBatch]) -> Result<()> {
        let Some((closed, parts)) = state.split_first() else {
            return Err(Error::state("the checkpoint of panes has other parts than expected"));
        };
        self.closed = closed.column(0).as_primitive::<Int64Type>().value(0);
        parts.iter().try_for_each(|rows| self.restore_part(rows))?;
        // Older checkpoints know them by the first window that took them, however long ago it closed.
        self.stragglers.settle(self.closed)
    }

    fn restore_part(&mut self, rows: &RecordBatch) -> Result<()> {
        let column = |index: usize| rows.column(index).as_primitive::<Int64Type>().values().to_vec();
        let (kinds, panes, ends) = (column(0), column(1), column(2));
        let of = |row: usize| (kinds[row], panes[row], ends[row]);
        let states = rows
            .project(&(3..rows.num_columns()).collect::<Vec<_>>())
            .map_err(Error::of_arrow)?;
        let mut from = 0;
        while from < rows.num_rows() {
            let (kind, pane, first_end) = of(from);
            let to = (from..rows.num_rows())
                .find(|row| of(*row) != of(from))
                .unwrap_or(rows.num_rows());
            let state = GroupState::of_rows(&states.slice(from, to - from), &self.aggregation)?;
            from = to;
            match Kind::of(kind)? {
                Kind::Open => open_at(&mut self.open, pane, &self.aggregation)?.restore(state),
                Kind::Straggler => self.stragglers.restore_waiting(first_end, pane, &state)?,
                Kind::SettledStraggler => self.stragglers.restore_settled(pane, state),
                Kind::Front => self.sealed.front.push((pane, state)),
                Kind::Back => self.sealed.back.push((pane, state)),
                Kind::BackMerged => self.sealed.back_merged = Some(state),
            }
        }
        Ok(())
    }

    pub fn memory_bytes(&self) -> usize {
        let sealed = self
            .sealed
            .front
            .iter()
            .chain(&self.sealed.back)
            .map(|(_, state)| state);
        self.open.values().map(OpenTable::memory_bytes).sum::<usize>()
            + self.stragglers.memory_bytes()
            + sealed
                .chain(&self.sealed.back_merged)
                .map(GroupState::memory_bytes)
                .sum::<usize>()
    }

    /// The open windows with rows that end first and last.
    pub fn open_windows(&self) -> Option<(PaneRange, PaneRange)> {
        let first = self.next_window()?;
        let sealed = self.sealed.panes().last();
        let open = self.open.keys().next_back().copied();
        let last = [sealed, open, self.stragglers.last_pane()]
            .into_iter()
            .flatten()
            .max()?;
        Some((first, self.windows.last_covering(last).unwrap_or(first).max(first)))
    }

    /// The open window with rows that ends first.
    fn next_window(&self) -> Option<PaneRange> {
        let from = self.closed.saturating_add(1);
        // Of two panes, the earlier one is in the earlier window, as long as a window is left for it: the first such pane tells.
        let sealed = self
            .sealed
            .panes()
            .find_map(|pane| self.windows.next_covering(pane, from));
        let open = self
            .open
            .keys()
            .next()
            .and_then(|pane| self.windows.next_covering(*pane, from));
        [sealed, open, self.stragglers.next_window(from)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Drops panes whose last window is closed.
    fn forget_covered(&mut self) -> Result<()> {
        let (windows, from) = (self.windows, self.closed.saturating_add(1));
        self.stragglers.forget_covered(from);
        let first_needed = self
            .sealed
            .panes()
            .find(|pane| windows.next_covering(*pane, from).is_some());
        match first_needed {
            Some(pane) => self.sealed.drop_before(pane, &self.aggregation),
            None => {
                self.sealed = Sealed::default();
                Ok(())
            }
        }
    }

    fn snapshot_schema(&self) -> SchemaRef {
        let own = ["part", "pane", "first_end"].map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
        let fields = own
            .into_iter()
            .chain(self.aggregation.state_schema().fields().iter().cloned());
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

impl Sealed {
    /// Ascending.
    fn panes(&self) -> impl Iterator<Item = i64> {
        let front = self.front.iter().rev().map(|(pane, _)| *pane);
        front.chain(self.back.iter().map(|(pane, _)| *pane))
    }

    /// `pane` is later than all here.
    fn push(&mut self, pane: i64, state: GroupState, aggregation: &Arc<Aggregation>) -> Result<()> {
        debug_assert!(
            self.panes().all(|earlier| earlier < pane),
            "panes are sealed in their order"
        );
        self.back_merged = Some(match self.back_merged.take() {
            Some(merged) => merge(aggregation, &merged, &state)?,
            None => state.clone(),
        });
        self.back.push((pane, state));
        Ok(())
    }

    fn drop_before(&mut self, first: i64, aggregation: &Arc<Aggregation>) -> Result<()> {
        while self.front.last().is_some_and(|(pane, _)| *pane < first) {
            self.front.pop();
        }
        if self.front.is_empty() && self.back.first().is_some_and(|(pane, _)| *pane < first) {
            for (pane, state) in std::mem::take(&mut self.back).into_iter().rev() {
                if pane < first {
                    break;
                }
                let suffix = match self.front.last() {
                    Some((_, later)) => merge(aggregation, &state, later)?,
                    None => state,
                };
                self.front.push((pane, suffix));
            }
            self.back_merged = None;
        }
        Ok(())
    }
}

/// Which part of the structure a row of a snapshot belongs to.
#[derive(Clone, Copy)]
enum Kind {
    Open,
    Straggler,
    Front,
    Back,
    BackMerged,
    SettledStraggler,
}

impl Kind {
    fn of(number: i64) -> Result<Self> {
        let kinds = [
            Self::Open,
            Self::Straggler,
            Self::Front,
            Self::Back,
            Self::BackMerged,
            Self::SettledStraggler,
        ];
        kinds.into_iter().find(|kind| *kind as i64 == number).ok_or_else(|| {
            Error::state(format!(
                "the checkpoint of panes has a part {number}, which there is not"
            ))
        })
    }
}

fn open_at<'a>(
    open: &'a mut BTreeMap<i64, OpenTable>,
    pane: i64,
    aggregation: &Arc<Aggregation>,
) -> Result<&'a mut OpenTable> {
    Ok(match open.entry(pane) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(OpenTable::new(aggregation)?),
    })
}

fn part(schema: &SchemaRef, kind: Kind, pane: i64, first_end: i64, state: &GroupState) -> Result<RecordBatch> {
    let own =
        [kind as i64, pane, first_end].map(|value| Arc::new(Int64Array::from_value(value, state.count)) as ArrayRef);
    let columns = own
        .into_iter()
        .chain(state.groups.iter().chain(&state.states).cloned())
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(Error::of_arrow)
}
