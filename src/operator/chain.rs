//! Operators one behind the other, as one.

use arrow::array::RecordBatch;

use crate::types::{EventTime, Result, Watermark};

use super::{EpochEnd, Flow, OpenWindows, Operator, Output};

/// The dataflow of one view: what the first operator hands on goes into the second, and so on.
pub struct Chain {
    operators: Vec<Box<dyn Operator>>,
}

impl Chain {
    pub fn new(operators: Vec<Box<dyn Operator>>) -> Self {
        Self { operators }
    }

    pub fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
        self.push_from(0, vec![flow], out)
    }

    pub fn on_epoch_end(&mut self, mut end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        for index in 0..self.operators.len() {
            let mut step = Output::default();
            end.watermark = self.operators[index].on_epoch_end(end, &mut step)?;
            out.late.append(&mut step.late);
            self.push_from(index + 1, step.flows, out)?;
        }
        Ok(end.watermark)
    }

    pub fn wakes_at(&self) -> Option<EventTime> {
        self.operators.iter().filter_map(|operator| operator.wakes_at()).min()
    }

    /// The open windows of all operators, by the watermark at the input of the first.
    pub fn open_windows(&self) -> Option<OpenWindows> {
        self.operators.iter().rev().fold(None, |behind, operator| {
            let behind =
                behind.and_then(|open: OpenWindows| open.before(|watermark| operator.input_watermark(watermark)));
            match operator.open_windows() {
                Some(own) => Some(own.and(behind)),
                None => behind,
            }
        })
    }

    /// The lowest watermark at the input of the first operator with which the last hands on `watermark` or more.
    pub fn input_watermark(&self, watermark: Watermark) -> Option<Watermark> {
        let mut operators = self.operators.iter().rev();
        operators.try_fold(watermark, |watermark, operator| operator.input_watermark(watermark))
    }

    /// The state of each operator, in their order.
    pub fn snapshot(&mut self) -> Result<Vec<Vec<RecordBatch>>> {
        self.operators.iter_mut().map(|operator| operator.snapshot()).collect()
    }

    /// Takes the state of operator `index`.
    pub fn restore(&mut self, index: usize, state: Vec<RecordBatch>) -> Result<()> {
        self.operators[index].restore(state)
    }

    pub fn len(&self) -> usize {
        self.operators.len()
    }

    pub fn is_empty(&self) -> bool {
        self.operators.is_empty()
    }

    pub fn memory_bytes(&self) -> usize {
        self.operators.iter().map(|operator| operator.memory_bytes()).sum()
    }

    fn push_from(&mut self, first: usize, mut flows: Vec<Flow>, out: &mut Output) -> Result<()> {
        for operator in &mut self.operators[first..] {
            let mut step = Output::default();
            for flow in flows {
                operator.on_delta(flow, &mut step)?;
            }
            out.late.append(&mut step.late);
            flows = step.flows;
        }
        out.flows.append(&mut flows);
        Ok(())
    }
}
