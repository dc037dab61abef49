//! Changes to a result: rows with weights, a Z-set.

use arrow::{
    array::{Array, Int64Array, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::SchemaRef,
};

use super::{Error, Result};

/// Rows that change a result. No weights: every row is added once, the fast path of append-only data.
/// A weight of 1 adds its row, −1 retracts one that is there.
#[derive(Clone, Debug)]
pub struct Delta {
    pub rows: RecordBatch,
    /// As long as `rows`, without nulls.
    pub weights: Option<Int64Array>,
}

impl Delta {
    pub fn append(rows: RecordBatch) -> Self {
        Self { rows, weights: None }
    }

    /// Retracts `retracted`, then adds `added`; both of one schema.
    pub fn change(schema: &SchemaRef, retracted: &RecordBatch, added: &RecordBatch) -> Self {
        if retracted.num_rows() == 0 {
            return Self::append(added.clone());
        }
        let rows = concat_batches(schema, [retracted, added]).expect("both sides have the operator's schema");
        let weights = std::iter::repeat_n(-1, retracted.num_rows())
            .chain(std::iter::repeat_n(1, added.num_rows()))
            .collect();
        Self {
            rows,
            weights: Some(weights),
        }
    }

    /// All of them as one, in their order. Where a row is retracted by one, no other may add it.
    pub fn concat(schema: &SchemaRef, deltas: &[Self]) -> Result<Self> {
        if let [only] = deltas {
            return Ok(only.clone());
        }
        let rows =
            concat_batches(schema, deltas.iter().map(|delta| &delta.rows)).map_err(|e| Error::bug(e.to_string()))?;
        let weights = deltas.iter().any(|delta| delta.weights.is_some()).then(|| {
            let of = |delta: &Self| match &delta.weights {
                Some(weights) => weights.values().to_vec(),
                None => vec![1; delta.rows.num_rows()],
            };
            deltas.iter().flat_map(of).collect()
        });
        Ok(Self { rows, weights })
    }

    pub fn is_empty(&self) -> bool {
        self.rows.num_rows() == 0
    }

    /// The rows that are added, and those that are retracted.
    pub fn split(&self) -> (RecordBatch, RecordBatch) {
        let Some(weights) = &self.weights else {
            return (self.rows.clone(), self.rows.slice(0, 0));
        };
        assert_eq!(weights.null_count(), 0, "a weight is never null");
        let pick = |positive: bool| {
            let mask = weights
                .values()
                .iter()
                .map(|weight| Some((0 < *weight) == positive))
                .collect();
            filter_record_batch(&self.rows, &mask).expect("a mask as long as the rows")
        };
        (pick(true), pick(false))
    }
}
