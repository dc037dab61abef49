//! What an epoch did to rows, as JSON records for others.
//!
//! ```text
//! plain     key {"symbol":"ADA"} │ value {"symbol":"ADA","n":3}         a key that went: a record without a value
//! debezium  key {"symbol":"ADA"} │ value {"before":{…},"after":{…},"op":"u"}
//! ```

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::JsonEncoder;
use crate::{
    format::{
        ChangeEncoder,
        change_records::{ChangeRecords, Envelope, key_schema},
    },
    types::{Records, Result},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeStyle {
    /// The row itself.
    Plain,
    /// The row before and after, and what happened.
    Debezium,
}

pub struct JsonChanges(ChangeRecords<JsonEncoder>);

impl JsonChanges {
    /// `key`: the columns that name a row; without them records have no key.
    ///
    /// # Errors
    /// A column's type has no JSON form.
    pub fn new(style: ChangeStyle, schema: SchemaRef, key: &[usize]) -> Result<Self> {
        let keys = key_schema(&schema, key)?.map(JsonEncoder::new).transpose()?;
        let told: Option<Envelope> = match style {
            ChangeStyle::Plain => None,
            ChangeStyle::Debezium => Some(envelope),
        };
        Ok(Self(ChangeRecords::new(key, keys, JsonEncoder::new(schema)?, told)))
    }
}

impl ChangeEncoder for JsonChanges {
    fn records(&mut self, added: &RecordBatch, removed: &RecordBatch) -> Result<Records> {
        self.0.records(added, removed)
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
