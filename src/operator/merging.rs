//! States of groups put together.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use crate::types::Result;

use super::{
    Aggregation,
    aggregation::{GroupState, GroupTable},
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

/// The state of a table, which goes on from it.
pub fn seal(table: &mut GroupTable, aggregation: &Arc<Aggregation>) -> Result<GroupState> {
    let fresh = GroupTable::new(Arc::clone(aggregation))?;
    let state = std::mem::replace(table, fresh).into_state()?;
    table.update_states(&state)?;
    Ok(state)
}
