//! What the watermark says about another column than the one it is about.

use std::sync::Arc;

use arrow::{
    array::{AsArray, BooleanArray, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
};

use crate::types::{Error, Result, Saved, Watermark, Windows};

use super::{EpochEnd, Flow, Operator, Output};

#[derive(Clone, Copy, Debug)]
pub enum Mapping {
    /// The column holds the start of these windows, whose rows are final once they are closed.
    StartsOf(Windows),
    /// Nothing is known about the column before the input ends.
    Unknown,
}

/// Turns the watermark of rows into that of one of their columns.
pub struct MapWatermark {
    mapping: Mapping,
    has_ended: bool,
}

impl MapWatermark {
    pub fn new(mapping: Mapping) -> Self {
        Self {
            mapping,
            has_ended: false,
        }
    }
}

impl Operator for MapWatermark {
    fn on_delta(&mut self, mut flow: Flow, out: &mut Output) -> Result<()> {
        // What a row met was about the other column; behind the end of the input every row is late for every window.
        flow.row_watermarks = self
            .has_ended
            .then(|| Int64Array::from_value(Watermark::END.0, flow.delta.rows.num_rows()));
        out.push(flow);
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, _out: &mut Output) -> Result<Watermark> {
        self.has_ended = end.watermark == Watermark::END;
        Ok(match self.mapping {
            Mapping::StartsOf(windows) => windows.starts_complete_below(end.watermark),
            Mapping::Unknown if self.has_ended => Watermark::END,
            Mapping::Unknown => Watermark::START,
        })
    }

    fn input_watermark(&self, watermark: Watermark) -> Option<Watermark> {
        match self.mapping {
            _ if watermark == Watermark::START => Some(watermark),
            Mapping::StartsOf(windows) => Some(windows.starts_below_complete_at(watermark.0)),
            Mapping::Unknown => None,
        }
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let schema = Schema::new(vec![Field::new("has_ended", DataType::Boolean, false)]);
        let state = RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(BooleanArray::from(vec![self.has_ended]))],
        );
        Ok(Saved::now(vec![state.map_err(|e| Error::bug(e.to_string()))?]))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let [state] = state.as_slice() else {
            return Err(Error::state(
                "the checkpoint of a mapped watermark has other parts than expected",
            ));
        };
        self.has_ended = state.column(0).as_boolean().value(0);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        0
    }
}
