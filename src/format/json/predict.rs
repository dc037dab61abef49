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
        self.values.push(ValueLayout { between_end: self.between.len(), column });
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
