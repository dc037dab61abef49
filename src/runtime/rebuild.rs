//! Views computed anew from the rows that their source still has, while the others keep their state.
//!
//! ```text
//! journal replayed ─▶ [first row, position): pieces of all splits in turn ─▶ fresh operators ─▶ what the watermark of now closes
//!                  ─▶ views over them take up what they hold ─▶ an epoch of no rows, with a checkpoint
//! ```
//! Until that checkpoint stands nothing on disk has changed. Rows come in the order of their splits and positions, as ever; but
//! epochs are cut otherwise than they were, all splits count from the beginning, and none is idle: a row that was late only because
//! its split had been silent, or was new, counts now.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use arrow::array::Int64Array;

use crate::{
    connector::SplitBounds,
    operator::{EpochEnd, SplitWatermarks},
    plan::MaterializedDefinition,
    types::{Error, EventTime, PlannedRange, Position, Result, SplitId, limits},
};

use super::{
    intake::SplitRows,
    maintained::{MaintainedView, Slice, Step},
    timeline::{Timeline, faces_of},
};

/// Of each split, how many parts its rows are read in: about so far are splits apart in time.
const PIECES: u64 = 16;

/// What is under way.
pub struct Rebuilding {
    pieces: VecDeque<(SplitId, PlannedRange)>,
    /// As if these rows were the first.
    watermarks: SplitWatermarks,
    rows: u64,
}

impl Rebuilding {
    /// The rows to read next.
    pub fn next_piece(&mut self) -> Option<(SplitId, PlannedRange)> {
        self.pieces.pop_front()
    }
}

impl Timeline {
    /// Makes the views that are to be computed anew, where there are any.
    ///
    /// # Errors
    /// [`Error::User`] where rows are gone that they would be made of, and the start was not told to do without.
    pub fn begin_rebuild(&mut self, bounds: &[SplitBounds]) -> Result<Option<Rebuilding>> {
        if self.to_rebuild.is_empty() {
            return Ok(None);
        }
        let pieces = self.pieces(bounds)?;
        for definition in self.to_rebuild.clone() {
            let view = MaintainedView::new(definition, &self.needed, &self.views, &self.bounds)?;
            self.views.push(view);
        }
        let mut watermarks = SplitWatermarks::default();
        self.positions.keys().for_each(|split| watermarks.add_split(split));
        tracing::info!(
            source = self.source.name,
            views = self.names_to_rebuild(),
            "views are computed anew from the rows of their source"
        );
        Ok(Some(Rebuilding {
            pieces,
            watermarks,
            rows: 0,
        }))
    }

    fn names_to_rebuild(&self) -> String {
        let names: Vec<&str> = self.to_rebuild.iter().map(|view| view.name.as_str()).collect();
        names.join(", ")
    }

    /// All rows that were read so far, in parts; those of the splits in turn.
    fn pieces(&self, bounds: &[SplitBounds]) -> Result<VecDeque<(SplitId, PlannedRange)>> {
        let mut gone = Vec::new();
        let mut left: BTreeMap<SplitId, (PlannedRange, u64)> = BTreeMap::new();
        for (split, position) in &self.positions {
            let first = (bounds.iter())
                .find(|bounds| bounds.split == *split)
                .map(|bounds| bounds.first);
            let first = first.unwrap_or(Position(0)).min(*position);
            let start = self.starts.get(split).copied().unwrap_or(first);
            if start < first {
                gone.push(format!("rows {start} to {first} of split {split}"));
            }
            let range = PlannedRange {
                from: start.max(first),
                to: *position,
            };
            let count = range.to.0.saturating_sub(range.from.0);
            let piece = (count / PIECES).max(limits::CHUNK_ROWS as u64);
            left.insert(split.clone(), (range, piece));
        }
        if !gone.is_empty() && !self.rebuild.takes_what_is_left {
            return Err(Error::user(format!(
                "{} are gone from source `{}`: {} would be computed without them; start with --rebuild-partial as well to take what is left, \
                 or put the definition of before back",
                gone.join(", "),
                self.source.name,
                self.names_to_rebuild()
            )));
        }
        let mut pieces = VecDeque::new();
        while left.values().any(|(range, _)| range.from < range.to) {
            for (split, (range, piece)) in left.iter_mut().filter(|(_, (range, _))| range.from < range.to) {
                let to = Position(range.to.0.min(range.from.0 + *piece));
                pieces.push_back((split.clone(), PlannedRange { from: range.from, to }));
                range.from = to;
            }
        }
        Ok(pieces)
    }

    /// Takes the next rows of a piece, in the order of their positions.
    pub fn rebuild_rows(&mut self, rebuilding: &mut Rebuilding, input: Vec<SplitRows>) -> Result<()> {
        if input.is_empty() {
            return Ok(());
        }
        let mut rows = SplitRows::join(input)?;
        let split = rows.split.clone();
        let met = match &self.watermark_rule {
            None => None,
            Some(rule) => {
                // What was too far ahead when it came still is, or the watermark of now would be behind that of then.
                let epoch_time = match (self.has_other_watermark, self.watermarks.highest(&split)) {
                    (true, _) => self.epoch_time,
                    (false, Some(highest)) => rule.epoch_time_that_takes(highest),
                    (false, None) => EventTime(i64::MIN),
                };
                rule.refuse_far_ahead(&mut rows, epoch_time)?;
                if let Some(highest) = rule.highest(&rows.rows) {
                    rebuilding.watermarks.saw(&split, highest);
                }
                let mut met = rule.complete_until(&rows.rows)?;
                rebuilding.watermarks.observe(&split, &mut met);
                Some(Int64Array::from(met))
            }
        };
        let count = rows.rows.num_rows();
        rebuilding.rows += count as u64;
        let slices: Vec<Slice> = (0..count)
            .step_by(limits::CHUNK_ROWS)
            .map(|from| {
                let length = limits::CHUNK_ROWS.min(count - from);
                let met = met.as_ref().map(|met| met.slice(from, length));
                (rows.rows.slice(from, length), met)
            })
            .collect();
        let end = EpochEnd {
            watermark: rebuilding.watermarks.end_epoch(&Default::default(), false),
            epoch_time: self.epoch_time,
        };
        let mut steps: Vec<Step> = Vec::with_capacity(self.views.len());
        for view in &mut self.views {
            // One over others comes when these are complete.
            let step = match is_among(&self.to_rebuild, view) && view.reads_source() {
                true => view
                    .step(self.epoch, end, &slices, &steps, &self.metrics)?
                    .without_flows(),
                false => Step::nothing(),
            };
            steps.push(step);
        }
        Ok(())
    }

    /// Closes what is closed by now, and lets views over those that were computed take up what they hold. An epoch of no rows with a
    /// checkpoint is to come at once.
    pub fn end_rebuild(&mut self, rebuilding: Rebuilding) -> Result<()> {
        if self.has_other_watermark {
            self.watermarks = rebuilding.watermarks;
        }
        let end = EpochEnd {
            watermark: self.watermarks.combined(),
            epoch_time: self.epoch_time,
        };
        let next = self.epoch.next();
        for index in 0..self.views.len() {
            let (before, rest) = self.views.split_at_mut(index);
            let view = &mut rest[0];
            if !is_among(&self.to_rebuild, view) {
                continue;
            }
            match view.reads_source() {
                true => view.take_up_at(before, self.epoch, end, &self.metrics)?,
                false => view.take_up(before, self.epoch, self.epoch_time, &self.metrics)?,
            }
            self.shared.add_faces(faces_of(&self.views[index], next));
        }
        tracing::info!(
            source = self.source.name,
            views = self.names_to_rebuild(),
            rows = rebuilding.rows,
            "views were computed anew"
        );
        self.to_rebuild.clear();
        self.has_other_watermark = false;
        self.rebuilt_at = Some(next);
        self.redefine();
        Ok(())
    }
}

/// By their names: while rows are read a view may be dropped, and the others move up.
fn is_among(definitions: &[Arc<MaterializedDefinition>], view: &MaintainedView) -> bool {
    definitions.iter().any(|definition| definition.name == view.name())
}
