//! States of groups put together.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use crate::types::Result;

use super::{
    Aggregation,
    aggregation::{Evaluated, GroupState, GroupTable},
};

/// The table at a place, made where there is none.
pub fn table_at<'a, K: Ord>(
    tables: &'a mut BTreeMap<K, GroupTable>,
    place: K,
    aggregation: &Arc<Aggregation>,
) -> Result<&'a mut GroupTable> {
    Ok(match tables.entry(place) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(GroupTable::new(Arc::clone(aggregation))?),
    })
}

/// The rows of `earlier`, then those of `later`.
pub fn merge(aggregation: &Arc<Aggregation>, earlier: &GroupState, later: &GroupState) -> Result<GroupState> {
    let mut table = GroupTable::new(Arc::clone(aggregation))?;
    table.update_states(earlier)?;
    table.update_states(later)?;
    table.into_state()
}

/// Pieces of like size that are merged into one.
const PIECES_PER_MERGE: usize = 4;

/// A table that takes rows, in front of the pieces that earlier snapshots made of it: a snapshot copies nothing.
pub struct OpenTable {
    /// In the order in which they came; a group may be in several.
    pieces: Vec<GroupState>,
    recent: GroupTable,
}

impl OpenTable {
    pub fn new(aggregation: &Arc<Aggregation>) -> Result<Self> {
        Ok(Self {
            pieces: Vec::new(),
            recent: GroupTable::new(Arc::clone(aggregation))?,
        })
    }

    pub fn update(&mut self, rows: &Evaluated) -> Result<()> {
        self.recent.update(rows)
    }

    /// All pieces, of which what came last is one now.
    pub fn seal(&mut self, aggregation: &Arc<Aggregation>) -> Result<&[GroupState]> {
        if 0 < self.recent.len() {
            let fresh = GroupTable::new(Arc::clone(aggregation))?;
            self.pieces
                .push(std::mem::replace(&mut self.recent, fresh).into_state()?);
            self.merge_like(aggregation)?;
        }
        Ok(&self.pieces)
    }

    /// Takes up the next of the pieces that [`seal`](Self::seal) gave.
    pub fn restore(&mut self, piece: GroupState) {
        self.pieces.push(piece);
    }

    pub fn into_state(mut self, aggregation: &Arc<Aggregation>) -> Result<GroupState> {
        if self.pieces.is_empty() {
            return self.recent.into_state();
        }
        if 0 < self.recent.len() {
            self.pieces.push(self.recent.into_state()?);
        }
        merge_all(aggregation, &self.pieces)
    }

    pub fn memory_bytes(&self) -> usize {
        self.pieces.iter().map(GroupState::memory_bytes).sum::<usize>() + self.recent.memory_bytes()
    }

    /// Keeps pieces few: each group is merged O(log n) times.
    fn merge_like(&mut self, aggregation: &Arc<Aggregation>) -> Result<()> {
        loop {
            let tier = |piece: &GroupState| piece.count.max(1).ilog(PIECES_PER_MERGE);
            let last = self.pieces.last().map_or(0, tier);
            let like = self.pieces.iter().rev().take_while(|piece| tier(piece) <= last).count();
            if like < PIECES_PER_MERGE {
                return Ok(());
            }
            let merged = self.pieces.split_off(self.pieces.len() - like);
            self.pieces.push(merge_all(aggregation, &merged)?);
        }
    }
}

fn merge_all(aggregation: &Arc<Aggregation>, pieces: &[GroupState]) -> Result<GroupState> {
    if let [only] = pieces {
        return Ok(only.clone());
    }
    let mut table = GroupTable::new(Arc::clone(aggregation))?;
    pieces.iter().try_for_each(|piece| table.update_states(piece))?;
    table.into_state()
}

/// The state of a table, which goes on from it.
pub fn seal(table: &mut GroupTable, aggregation: &Arc<Aggregation>) -> Result<GroupState> {
    let fresh = GroupTable::new(Arc::clone(aggregation))?;
    let state = std::mem::replace(table, fresh).into_state()?;
    table.update_states(&state)?;
    Ok(state)
}
