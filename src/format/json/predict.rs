//! The fast reader: expects the next record to be laid out as the last one was.
//!
//! ```text
//! last record   {"symbol":"ADA-USDT","open":1.5}      learned by the general reader
//! layout        {"symbol": ▢ ,"open": ▢ }             bytes between the values, and the column of each value
//! next record   {"symbol":"BTC-USDT","open":64000.0}  bytes compared, values read by Columns::read
//! ```
//! The bytes between the values stood in a good record, so a record with the same bytes around readable values is good
//! too and has the same keys. Any surprise ends the attempt, and the general reader reads the record from its beginning.

use super::{columns::Columns, scan::Scanner};

/// How a good record was laid out.
#[derive(Default)]
pub struct Layout {
    /// The bytes before each value (with its key), one after another, then those after the last value.
    between: Vec<u8>,
    values: Vec<ValueLayout>,
    /// Nullable columns that the record does not name.
    missing: Vec<usize>,
    is_complete: bool,
}

struct ValueLayout {
    /// Where the bytes before the value end in `between`.
    between_end: usize,
    /// `None`: the value is checked and skipped.
    column: Option<usize>,
}

/// The record is laid out otherwise, or has a value that does not fit: the general reader knows which.
#[derive(Debug)]
pub struct Surprise;

impl Layout {
    pub fn clear(&mut self) {
        self.between.clear();
        self.values.clear();
        self.missing.clear();
        self.is_complete = false;
    }

    pub fn push(&mut self, before: &str, column: Option<usize>) {
        self.between.extend_from_slice(before.as_bytes());
        self.values.push(ValueLayout {
            between_end: self.between.len(),
            column,
        });
    }

    pub fn push_missing(&mut self, column: usize) {
        self.missing.push(column);
    }

    pub fn finish(&mut self, after: &str) {
        self.between.extend_from_slice(after.as_bytes());
        self.is_complete = true;
    }

    /// Reads `record` into an uncommitted row of `columns`.
    ///
    /// # Errors
    /// Leaves a half-read row behind, to be rolled back.
    #[inline]
    pub fn read(&self, record: &str, columns: &mut Columns) -> Result<(), Surprise> {
        if !self.is_complete {
            return Err(Surprise);
        }
        let mut scanner = Scanner::new(record);
        let mut start = 0;
        for value in &self.values {
            if !scanner.take(&self.between[start..value.between_end]) {
                return Err(Surprise);
            }
            match value.column {
                Some(column) => columns.read(column, &mut scanner).map_err(|_| Surprise)?,
                None => scanner.skip_value(1).map_err(|_| Surprise)?,
            }
            start = value.between_end;
        }
        if !scanner.take(&self.between[start..]) || !scanner.at_end() {
            return Err(Surprise);
        }
        for &column in &self.missing {
            columns.read_missing(column).map_err(|_| Surprise)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::format::json::{columns::TimestampFormat, general::General};

    #[test]
    fn only_a_record_laid_out_alike_is_read() {
        let fields = vec![
            Field::new("s", DataType::Utf8View, false),
            Field::new("n", DataType::Int32, true),
            Field::new("z", DataType::Int8, true),
        ];
        let schema = Arc::new(Schema::new(fields));
        let mut columns = Columns::new(schema.clone(), TimestampFormat::Rfc3339, 0);
        let mut layout = Layout::default();
        assert!(layout.read("{}", &mut columns).is_err(), "nothing is learned yet");

        let first = r#"{"s": "a","n":1,"x":[1]}"#;
        General::new(&schema)
            .read(first, &mut columns, &mut layout)
            .expect("a good record");
        columns.commit(first);
        for (record, is_read, why) in [
            (first, true, "the record itself"),
            (
                r#"{"s": "longer","n":null,"x":{"s":2}}"#,
                true,
                "other values of any length",
            ),
            (r#"{"s": "\n","n":-7,"x":"}"}"#, true, "escapes"),
            (r#"{"s":"a","n":1,"x":[1]}"#, false, "other whitespace"),
            (r#"{"n":1,"s": "a","x":[1]}"#, false, "another order"),
            (r#"{"s": "a","n":1}"#, false, "a key less"),
            (r#"{"s": "a","n":1,"x":[1],"z":1}"#, false, "a key more"),
            (r#"{"s": "a","n":1,"x":[1]} "#, false, "something behind"),
            (r#"{"s": "a","n":1.0,"x":[1]}"#, false, "a value that does not fit"),
            (r#"{"s": "a","n":1,"x":[1}"#, false, "a skipped value that is no JSON"),
            (r#"{"s": "a","n""#, false, "the end in the middle"),
            ("", false, "nothing"),
        ] {
            assert_eq!(layout.read(record, &mut columns).is_ok(), is_read, "{why}");
            columns.roll_back();
        }
        assert_eq!(columns.finish().num_rows(), 1);
    }
}
