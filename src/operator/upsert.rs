//! Rows by key: a row that is added replaces the one of its key.
//!
//! ```text
//! +row, −row (its key) ─▶ newest row of each key ── end of epoch ──▶ −old, +new of the keys that changed
//! ```
//! A weight of −1 takes the row of its key away, whatever its other columns hold; none is there: nothing happens.

use std::collections::{BTreeMap, btree_map::Entry};

use ahash::HashMap;
use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
    row::{RowConverter, SortField},
};

use datafusion::common::utils::normalize_float_zero;

use crate::types::{Delta, Error, Result, Saved, Watermark};

use super::{EpochEnd, Flow, Operator, Output};

/// A key or a row as bytes: equal where they are.
type Encoded = Box<[u8]>;

pub struct Upsert {
    schema: SchemaRef,
    key: Vec<usize>,
    keys: RowConverter,
    values: RowConverter,
    /// Encoded key to encoded row.
    rows: HashMap<Encoded, Encoded>,
    /// The keys that this epoch touched, and the row that each had before.
    before: BTreeMap<Encoded, Option<Encoded>>,
    bytes: usize,
}

impl Upsert {
    /// `key`: columns of the schema.
    pub fn new(schema: SchemaRef, key: Vec<usize>) -> Result<Self> {
        let encoder = |columns: &mut dyn Iterator<Item = usize>| {
            RowConverter::new(
                columns
                    .map(|column| SortField::new(schema.field(column).data_type().clone()))
                    .collect(),
            )
            .map_err(Error::of_arrow)
        };
        Ok(Self {
            keys: encoder(&mut key.iter().copied())?,
            values: encoder(&mut (0..schema.fields().len()))?,
            rows: HashMap::default(),
            before: BTreeMap::new(),
            bytes: 0,
            schema,
            key,
        })
    }

    fn put(&mut self, key: Encoded, value: Option<Encoded>) {
        let added = value.as_ref().map_or(0, |value| key.len() + value.len());
        let old = match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(&key),
        };
        self.bytes = self.bytes + added - old.as_ref().map_or(0, |old| key.len() + old.len());
        if let Entry::Vacant(entry) = self.before.entry(key) {
            entry.insert(old);
        }
    }

    fn encoded(&self, rows: &RecordBatch) -> Result<Vec<(Encoded, Encoded)>> {
        // −0.0 and 0.0 are one key, as they are one group.
        let columns: Vec<ArrayRef> = (self.key.iter())
            .map(|column| normalize_float_zero(rows.column(*column)))
            .collect();
        let keys = self.keys.convert_columns(&columns).map_err(Error::of_arrow)?;
        let values = self.values.convert_columns(rows.columns()).map_err(Error::of_arrow)?;
        Ok(keys
            .iter()
            .zip(values.iter())
            .map(|(key, value)| (key.data().into(), value.data().into()))
            .collect())
    }

    fn decoded<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<RecordBatch> {
        let parser = self.values.parser();
        let columns = self
            .values
            .convert_rows(rows.map(|row| parser.parse(row)))
            .map_err(Error::of_arrow)?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(Error::of_arrow)
    }
}

impl Operator for Upsert {
    fn on_delta(&mut self, flow: Flow, _out: &mut Output) -> Result<()> {
        let Delta { rows, weights } = flow.delta;
        for (row, (key, value)) in self.encoded(&rows)?.into_iter().enumerate() {
            let is_added = weights.as_ref().is_none_or(|weights| 0 < weights.value(row));
            self.put(key, is_added.then_some(value));
        }
        Ok(())
    }

    fn on_epoch_end(&mut self, end: EpochEnd, out: &mut Output) -> Result<Watermark> {
        let changed: Vec<_> = std::mem::take(&mut self.before)
            .into_iter()
            .filter(|(key, old)| self.rows.get(key) != old.as_ref())
            .collect();
        if !changed.is_empty() {
            let retracted = self.decoded(changed.iter().filter_map(|(_, old)| old.as_deref()))?;
            let added = self.decoded(
                changed
                    .iter()
                    .filter_map(|(key, _)| self.rows.get(key).map(AsRef::as_ref)),
            )?;
            out.push(Flow::of(Delta::change(&self.schema, &retracted, &added)));
        }
        Ok(end.watermark)
    }

    fn snapshot(&mut self) -> Result<Saved> {
        let sorted: BTreeMap<_, _> = self.rows.iter().collect();
        let rows = self.decoded(sorted.into_values().map(AsRef::as_ref))?;
        Ok(Saved::now(vec![rows]))
    }

    fn restore(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        for rows in state {
            for (key, value) in self.encoded(&rows)? {
                self.put(key, Some(value));
            }
        }
        self.before.clear();
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{AsArray, Int64Array},
        datatypes::{DataType, Field, Int64Type, Schema},
    };

    use super::*;
    use crate::types::EventTime;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, false),
            Field::new("v", DataType::Int64, true),
        ]))
    }

    fn delta(rows: &[(i64, i64, i64)]) -> Flow {
        let column = |of: fn(&(i64, i64, i64)) -> i64| Arc::new(rows.iter().map(of).collect::<Int64Array>());
        Flow::of(Delta {
            rows: RecordBatch::try_new(schema(), vec![column(|row| row.0), column(|row| row.1)]).unwrap(),
            weights: Some(column(|row| row.2).as_ref().clone()),
        })
    }

    fn end(operator: &mut Upsert) -> Vec<(i64, i64, i64)> {
        let mut out = Output::default();
        let end = EpochEnd {
            watermark: Watermark::START,
            epoch_time: EventTime(0),
        };
        operator.on_epoch_end(end, &mut out).unwrap();
        let rows = out.flows.iter().flat_map(|flow| {
            let column = |index: usize| flow.delta.rows.column(index).as_primitive::<Int64Type>().clone();
            let weights = flow.delta.weights.clone();
            (0..flow.delta.rows.num_rows()).map(move |row| {
                let weight = weights.as_ref().map_or(1, |weights| weights.value(row));
                (column(0).value(row), column(1).value(row), weight)
            })
        });
        rows.collect()
    }

    #[test]
    fn a_row_replaces_the_one_of_its_key_and_only_the_last_of_an_epoch_is_seen() {
        let mut upsert = Upsert::new(schema(), vec![0]).unwrap();
        let out = &mut Output::default();
        upsert
            .on_delta(delta(&[(1, 10, 1), (2, 20, 1), (1, 11, 1)]), out)
            .unwrap();
        assert_eq!(end(&mut upsert), [(1, 11, 1), (2, 20, 1)]);
        upsert
            .on_delta(delta(&[(1, 12, 1), (2, 0, -1), (3, 0, -1)]), out)
            .unwrap();
        assert_eq!(
            end(&mut upsert),
            [(1, 11, -1), (2, 20, -1), (1, 12, 1)],
            "what is not there does not go"
        );
        upsert.on_delta(delta(&[(1, 0, -1), (1, 12, 1)]), out).unwrap();
        assert_eq!(end(&mut upsert), [], "back to what it was");
        assert!(out.flows.is_empty());
    }

    #[test]
    fn a_restored_one_goes_on_as_the_saved_one() {
        let mut upsert = Upsert::new(schema(), vec![0]).unwrap();
        upsert
            .on_delta(delta(&[(1, 10, 1), (2, 20, 1)]), &mut Output::default())
            .unwrap();
        end(&mut upsert);
        let mut restored = Upsert::new(schema(), vec![0]).unwrap();
        restored.restore(upsert.snapshot().unwrap().rows().unwrap()).unwrap();
        assert_eq!(restored.memory_bytes(), upsert.memory_bytes());
        for operator in [&mut upsert, &mut restored] {
            operator.on_delta(delta(&[(2, 21, 1)]), &mut Output::default()).unwrap();
            assert_eq!(end(operator), [(2, 20, -1), (2, 21, 1)]);
        }
    }
}
