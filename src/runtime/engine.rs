//! stub of the face

use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::{
    types::{Epoch, Result},
    view::Change,
};

use super::face::*;

/// A running engine; clones share it.
#[derive(Clone)]
pub struct Engine {}

impl Engine {
    pub fn relations(&self) -> Vec<RelationInfo> {
        todo!()
    }

    pub fn relation(&self, _name: &str) -> Option<RelationInfo> {
        todo!()
    }

    pub fn sources(&self) -> Vec<SourceStatus> {
        todo!()
    }

    /// Runs one statement, a query or a definition.
    pub async fn execute(&self, _request: SqlRequest) -> Result<Answer, Problem> {
        todo!()
    }

    /// Reads a page of a view or side output, continued into its history.
    pub async fn page(&self, _request: PageRequest) -> Result<Page, Problem> {
        todo!()
    }

    /// A materialized view or side output to follow.
    pub fn follow(&self, _view: &str) -> Result<ViewReader, Problem> {
        todo!()
    }

    /// Resolves when the engine begins to shut down.
    pub async fn stopping(&self) {
        todo!()
    }

    /// Prometheus text.
    pub fn metrics(&self) -> &super::Metrics {
        todo!()
    }
}

/// One view, read at its newest epoch and followed from there. Each reader has its own.
#[derive(Clone)]
pub struct ViewReader {}

impl ViewReader {
    pub fn name(&self) -> &str {
        todo!()
    }

    pub fn schema(&self) -> &SchemaRef {
        todo!()
    }

    /// The columns that name a row; empty when rows are only appended.
    pub fn key(&self) -> &[usize] {
        todo!()
    }

    pub fn time(&self) -> Option<usize> {
        todo!()
    }

    /// Changes with every start of the engine on its state: part of a token.
    pub fn generation(&self) -> u64 {
        todo!()
    }

    pub fn published(&self) -> Published {
        todo!()
    }

    /// All changes after `epoch` up to the newest published, or `None` where they are not kept any more.
    pub fn changes_after(&self, _epoch: Epoch) -> Option<Vec<Arc<Change>>> {
        todo!()
    }

    /// Waits until an epoch after the one last seen by this reader is published; `false` when the view is dropped or the engine stops.
    pub async fn changed(&mut self) -> bool {
        todo!()
    }
}
