//! What an epoch did to rows, as JSON records for others.
//!
//! ```text
//! plain     key {"symbol":"ADA"} │ value {"symbol":"ADA","n":3}         a key that went: a record without a value
//! debezium  key {"symbol":"ADA"} │ value {"before":{…},"after":{…},"op":"u"}
//! ```

use std::collections::HashMap;

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::JsonEncoder;
use crate::{
    format::{ChangeEncoder, Encoder},
    types::{Error, Records, RecordsBuilder, Result},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeStyle {
    /// The row itself.
    Plain,
    /// The row before and after, and what happened.
    Debezium,
}

pub struct JsonChanges {
    style: ChangeStyle,
    key: Vec<usize>,
    keys: Option<JsonEncoder>,
    rows: JsonEncoder,
}

impl JsonChanges {
    /// `key`: the columns that name a row; without them records have no key.
    ///
    /// # Errors
    /// A column's type has no JSON form.
    pub fn new(style: ChangeStyle, schema: SchemaRef, key: &[usize]) -> Result<Self> {
        let keys = match key.is_empty() {
            true => None,
            false => {
                let projected = schema
                    .project(key)
                    .map_err(|e| Error::bug(format!("a key is not in its rows: {e}")))?;
                Some(JsonEncoder::new(projected.into())?)
            }
        };
        Ok(Self {
            style,
            key: key.to_vec(),
            keys,
            rows: JsonEncoder::new(schema)?,
        })
    }

    fn key_texts(&mut self, rows: &RecordBatch) -> Result<Texts> {
        match &mut self.keys {
            None => Ok(Texts::default()),
            Some(keys) => {
                let rows = rows.project(&self.key).map_err(Error::of_arrow)?;
                Ok(Texts::of(keys, &rows))
            }
        }
    }
}

impl ChangeEncoder for JsonChanges {
    fn records(&mut self, added: &RecordBatch, removed: &RecordBatch) -> Result<Records> {
        let (added_keys, removed_keys) = (self.key_texts(added)?, self.key_texts(removed)?);
        let added_rows = Texts::of(&mut self.rows, added);
        let removed_rows = match self.style {
            // A record without a value says it all.
            ChangeStyle::Plain => Texts::default(),
            ChangeStyle::Debezium => Texts::of(&mut self.rows, removed),
        };
        if self.keys.is_none() && self.style == ChangeStyle::Plain && 0 < removed.num_rows() {
            return Err(Error::bug("a sink without a key got a retraction"));
        }
        // By key: the row that a new one replaces.
        let mut replaced: HashMap<&[u8], usize> = match self.keys {
            Some(_) => (0..removed.num_rows())
                .map(|row| (removed_keys.get(row), row))
                .collect(),
            None => HashMap::new(),
        };
        let mut out = RecordsBuilder::default();
        let mut push = |key: Option<&[u8]>, value: Option<&[u8]>| {
            out.push(out.len() as u64, None, key, value);
        };
        let mut value = Vec::new();
        let has_keys = self.keys.is_some();
        // What goes without a successor leaves first.
        let stays: Vec<bool> = {
            let mut stays = vec![false; removed.num_rows()];
            if has_keys {
                for row in 0..added.num_rows() {
                    if let Some(old) = replaced.get(added_keys.get(row)) {
                        stays[*old] = true;
                    }
                }
            }
            stays
        };
        for row in (0..removed.num_rows()).filter(|row| !stays[*row]) {
            let key = has_keys.then(|| removed_keys.get(row));
            match self.style {
                ChangeStyle::Plain => push(key, None),
                ChangeStyle::Debezium => {
                    envelope(Some(removed_rows.get(row)), None, &mut value);
                    push(key, Some(&value));
                }
            }
        }
        for row in 0..added.num_rows() {
            let key = has_keys.then(|| added_keys.get(row));
            match self.style {
                ChangeStyle::Plain => push(key, Some(added_rows.get(row))),
                ChangeStyle::Debezium => {
                    let before = key
                        .and_then(|key| replaced.remove(key))
                        .map(|row| removed_rows.get(row));
                    envelope(before, Some(added_rows.get(row)), &mut value);
                    push(key, Some(&value));
                }
            }
        }
        Ok(out.finish())
    }
}

fn envelope(before: Option<&[u8]>, after: Option<&[u8]>, out: &mut Vec<u8>) {
    let op: &[u8] = match (before, after) {
        (None, _) => b"c",
        (Some(_), Some(_)) => b"u",
        (Some(_), None) => b"d",
    };
    out.clear();
    for (part, text) in [(b"{\"before\":".as_slice(), before), (b",\"after\":".as_slice(), after)] {
        out.extend_from_slice(part);
        out.extend_from_slice(text.unwrap_or(b"null"));
    }
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(op);
    out.extend_from_slice(b"\"}");
}

/// Encoded rows in one buffer.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Texts {
    fn of(encoder: &mut JsonEncoder, rows: &RecordBatch) -> Self {
        let mut texts = Self::default();
        encoder.encode(rows, &mut texts.bytes, &mut texts.ends);
        texts
    }

    fn get(&self, row: usize) -> &[u8] {
        let from = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[from..self.ends[row]]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, StringViewArray},
        datatypes::{DataType, Field, Schema},
    };

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("k", DataType::Utf8View, false),
            Field::new("n", DataType::Int64, true),
        ]))
    }

    fn rows(of: &[(&str, i64)]) -> RecordBatch {
        let keys = StringViewArray::from_iter_values(of.iter().map(|(key, _)| *key));
        let numbers = Int64Array::from_iter_values(of.iter().map(|(_, number)| *number));
        RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(numbers)]).unwrap()
    }

    fn texts(records: &Records) -> Vec<String> {
        let text = |bytes: Option<&[u8]>| bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into());
        (0..records.len())
            .map(|index| format!("{} = {}", text(records.key(index)), text(records.value(index))))
            .collect()
    }

    #[test]
    fn a_key_that_went_is_a_tombstone_and_one_that_changed_is_its_new_row() {
        let mut plain = JsonChanges::new(ChangeStyle::Plain, schema(), &[0]).unwrap();
        let records = plain
            .records(&rows(&[("a", 2), ("c", 1)]), &rows(&[("a", 1), ("b", 5)]))
            .unwrap();
        assert_eq!(
            texts(&records),
            [
                r#"{"k":"b"} = -"#,
                r#"{"k":"a"} = {"k":"a","n":2}"#,
                r#"{"k":"c"} = {"k":"c","n":1}"#
            ]
        );
    }

    #[test]
    fn debezium_tells_rows_before_and_after() {
        let mut debezium = JsonChanges::new(ChangeStyle::Debezium, schema(), &[0]).unwrap();
        let records = debezium
            .records(&rows(&[("a", 2), ("c", 1)]), &rows(&[("a", 1), ("b", 5)]))
            .unwrap();
        assert_eq!(
            texts(&records),
            [
                r#"{"k":"b"} = {"before":{"k":"b","n":5},"after":null,"op":"d"}"#,
                r#"{"k":"a"} = {"before":{"k":"a","n":1},"after":{"k":"a","n":2},"op":"u"}"#,
                r#"{"k":"c"} = {"before":null,"after":{"k":"c","n":1},"op":"c"}"#
            ]
        );
    }

    #[test]
    fn rows_without_a_key_have_records_without_one() {
        let mut plain = JsonChanges::new(ChangeStyle::Plain, schema(), &[]).unwrap();
        let records = plain.records(&rows(&[("a", 2), ("a", 2)]), &rows(&[])).unwrap();
        assert_eq!(texts(&records), [r#"- = {"k":"a","n":2}"#, r#"- = {"k":"a","n":2}"#]);
        let mut debezium = JsonChanges::new(ChangeStyle::Debezium, schema(), &[]).unwrap();
        let records = debezium.records(&rows(&[]), &rows(&[("a", 2)])).unwrap();
        assert_eq!(
            texts(&records),
            [r#"- = {"before":{"k":"a","n":2},"after":null,"op":"d"}"#]
        );
    }
}
