//! Changes that wait: what cancels out of them is dropped, so that rows are held and not their history.
//!
//! ```text
//! +a +b  −a +c  −c +d  −z +e ─▶ −z, +b +d +e      retractions first, each side in the order in which it came
//! ```
//! Takes any weights: a retraction takes back the last addition of the same row, an addition the last retraction, else it waits itself.

use ahash::HashMap;
use arrow::{
    array::{Array, Int64Array, RecordBatch, UInt32Array},
    compute::take_record_batch,
    row::{RowConverter, SortField},
};

use crate::types::{Delta, Error, Result};

/// Changes are settled when they are so many more than twice those that the last settling left.
const ROWS_PER_SETTLING: usize = 16_384;

/// Deltas in the order in which they came, held as what they come to.
#[derive(Default)]
pub struct Pending {
    deltas: Vec<Delta>,
    rows: usize,
    /// Rows that were left by the last settling.
    rows_settled: usize,
}

impl Pending {
    /// Nothing came. It may come to nothing and not be empty.
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    pub fn push(&mut self, delta: Delta) -> Result<()> {
        self.rows += delta.rows.num_rows();
        self.deltas.push(delta);
        // So each change is looked at twice or so, however many come.
        if 2 * self.rows_settled + ROWS_PER_SETTLING <= self.rows {
            self.settle()?;
        }
        Ok(())
    }

    /// What is there, for a checkpoint.
    pub fn settled(&mut self) -> Result<&[Delta]> {
        self.settle()?;
        Ok(&self.deltas)
    }

    pub fn take(&mut self) -> Result<Vec<Delta>> {
        self.settle()?;
        Ok(std::mem::take(self).deltas)
    }

    pub fn memory_bytes(&self) -> usize {
        let of = |delta: &Delta| {
            let weights = delta.weights.as_ref().map_or(0, Int64Array::get_array_memory_size);
            delta.rows.get_array_memory_size() + weights
        };
        self.deltas.iter().map(of).sum()
    }

    fn settle(&mut self) -> Result<()> {
        // One delta never retracts what it adds.
        if 1 < self.deltas.len() && self.deltas.iter().any(|delta| delta.weights.is_some()) {
            let all = Delta::concat(&self.deltas[0].rows.schema(), &self.deltas)?;
            if let Some(encoder) = encoder_of(&all.rows)? {
                let net = Net::of(&encoder, &all)?;
                let pick =
                    |rows: Vec<u32>| take_record_batch(&all.rows, &UInt32Array::from(rows)).map_err(Error::of_arrow);
                let (retracted, added) = (pick(net.retracted)?, pick(net.added)?);
                self.deltas = vec![Delta::change(&all.rows.schema(), &retracted, &added)];
            }
        }
        self.rows = self.deltas.iter().map(|delta| delta.rows.num_rows()).sum();
        self.rows_settled = self.rows;
        Ok(())
    }
}

/// `None` where rows cannot be compared: those are held as they came.
fn encoder_of(rows: &RecordBatch) -> Result<Option<RowConverter>> {
    let schema = rows.schema();
    let fields = schema.fields().iter();
    let fields: Vec<SortField> = fields.map(|field| SortField::new(field.data_type().clone())).collect();
    match !fields.is_empty() && RowConverter::supports_fields(&fields) {
        true => RowConverter::new(fields).map(Some).map_err(Error::of_arrow),
        false => Ok(None),
    }
}

/// The rows of a delta that are left where additions and retractions of the same row cancel: their places, ascending.
pub struct Net {
    pub retracted: Vec<u32>,
    pub added: Vec<u32>,
}

impl Net {
    pub fn of(encoder: &RowConverter, delta: &Delta) -> Result<Self> {
        let count = delta.rows.num_rows();
        let Some(weights) = &delta.weights else {
            return Ok(Self {
                retracted: Vec::new(),
                added: (0..count as u32).collect(),
            });
        };
        let rows = encoder.convert_columns(delta.rows.columns()).map_err(Error::of_arrow)?;
        // Of equal rows the open ones are all of one sign.
        let mut open: HashMap<&[u8], Vec<u32>> = HashMap::default();
        let mut is_left = vec![true; count];
        for (place, row) in rows.iter().enumerate() {
            let is_added = 0 < weights.value(place);
            let places = open.entry(row.data()).or_default();
            let cancels = |last: &u32| (0 < weights.value(*last as usize)) != is_added;
            match places.pop_if(|last| cancels(last)) {
                Some(other) => (is_left[place], is_left[other as usize]) = (false, false),
                None => places.push(place as u32),
            }
        }
        let left = |is_added: bool| {
            let of_sign = move |place: &u32| (0 < weights.value(*place as usize)) == is_added;
            (0..count as u32)
                .filter(|place| is_left[*place as usize])
                .filter(of_sign)
                .collect()
        };
        Ok(Self {
            retracted: left(false),
            added: left(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::AsArray,
        datatypes::{DataType, Field, Int64Type, Schema},
    };

    use super::*;

    fn delta(rows: &[(i64, i64)]) -> Delta {
        let schema = Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, true)]));
        let (values, weights): (Vec<i64>, Vec<i64>) = rows.iter().copied().unzip();
        Delta {
            rows: RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values))]).unwrap(),
            weights: weights.contains(&-1).then(|| Int64Array::from(weights)),
        }
    }

    fn rows_of(deltas: &[Delta]) -> Vec<(i64, i64)> {
        let of = |delta: &Delta| -> Vec<(i64, i64)> {
            let values = delta.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
            let weights = delta.weights.as_ref().map(|weights| weights.values().to_vec());
            let weights = weights.unwrap_or_else(|| vec![1; values.len()]);
            std::iter::zip(values, weights).collect()
        };
        deltas.iter().flat_map(of).collect()
    }

    #[test]
    fn what_cancels_is_dropped_and_the_rest_stays_in_its_order() {
        for (deltas, expected, why) in [
            (vec![], vec![], "nothing"),
            (
                vec![vec![(1, 1)], vec![(1, -1)]],
                vec![],
                "an addition that was taken back",
            ),
            (
                vec![vec![(1, -1)], vec![(1, 1)]],
                vec![],
                "a retraction that was taken back",
            ),
            (
                vec![vec![(7, 1)], vec![(7, 1), (1, 1)], vec![(7, -1), (2, 1)]],
                vec![(7, 1), (1, 1), (2, 1)],
                "of equal rows the last goes",
            ),
            (
                vec![vec![(1, -1), (2, 1)], vec![(2, -1), (3, 1)], vec![(3, -1), (4, 1)]],
                vec![(1, -1), (4, 1)],
                "of a history its ends",
            ),
            (
                vec![vec![(1, 1)], vec![(1, 1)], vec![(0, 1)]],
                vec![(1, 1), (1, 1), (0, 1)],
                "without retractions all of it",
            ),
        ] {
            // Settled in between or not, it comes to the same.
            for settles in [false, true] {
                let mut pending = Pending::default();
                for rows in &deltas {
                    pending.push(delta(rows)).unwrap();
                    if settles {
                        pending.settled().unwrap();
                    }
                }
                assert_eq!(pending.is_empty(), deltas.is_empty(), "{why}");
                assert_eq!(rows_of(&pending.take().unwrap()), expected, "{why}, settles: {settles}");
                assert!(pending.is_empty(), "{why}");
            }
        }
    }

    #[test]
    fn memory_is_about_what_the_changes_come_to_and_not_their_history() {
        let mut pending = Pending::default();
        let groups = 4_000;
        let epoch = |number: i64| -> Vec<(i64, i64)> {
            let of = |number: i64, weight| (0..groups).map(move |group| (number * groups + group, weight));
            of(number - 1, -1).chain(of(number, 1)).collect()
        };
        let mut most = 0;
        for number in 1..=100 {
            pending.push(delta(&epoch(number))).unwrap();
            most = most.max(pending.memory_bytes());
        }
        // 800,000 changes of 16 bytes came; 8,000 are left.
        assert!(most < 1_500_000, "{most}");
        let left = pending.take().unwrap();
        assert_eq!(left.iter().map(|delta| delta.rows.num_rows()).sum::<usize>(), 8_000);
    }
}
