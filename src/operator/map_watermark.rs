//! What the watermark says about another column than the one it is about.

use arrow::array::RecordBatch;

use crate::types::{Result, Watermark, Windows};

use super::{EpochEnd, Flow, Operator, Output};

/// Turns the watermark of rows into that of one of their columns.
#[derive(Clone, Copy, Debug)]
pub enum MapWatermark {
    /// The column holds the start of these windows, whose rows are final once they are closed.
    StartsOf(Windows),
    /// Nothing is known about the column before the input ends.
    Unknown,
}

impl Operator for MapWatermark {
    fn on_delta(&mut self, mut flow: Flow, out: &mut Output) -> Result<()> {
        // What a row met was about the other column.
        flow.row_watermarks = None;
        out.push(flow);
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, _out: &mut Output) -> Result<Watermark> {
        Ok(match self {
            Self::StartsOf(windows) => windows.starts_complete_below(end.watermark),
            Self::Unknown if end.watermark == Watermark::END => Watermark::END,
            Self::Unknown => Watermark::START,
        })
    }

    fn snapshot(&mut self) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: Vec<RecordBatch>) -> Result<()> {
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
