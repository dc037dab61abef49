//! The complete reader: any order of keys, any whitespace, all checks. It defines what a record means.
//!
//! ```text
//! {"symbol":"ADA-USDT", "open":1.5, "x":{…}}
//!  └ key ──▶ column ──▶ Columns::read
//!                              unknown ──▶ checked and skipped
//! ```
//! While it reads it can write down the record's layout, from which [`super::predict`] reads the next record faster.

use ahash::AHashMap;
use arrow::datatypes::Schema;

use super::{
    columns::{Columns, Refusal},
    predict::Layout,
    scan::{Quoted, Scanner},
};

pub struct General {
    columns_by_name: AHashMap<Box<str>, usize>,
    /// Keys of the record that name no column, one after another, and where each ends.
    other_keys: String,
    other_key_ends: Vec<usize>,
    /// Room for a key with escapes.
    unescaped: String,
}

impl General {
    pub fn new(schema: &Schema) -> Self {
        let columns_by_name = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(column, field)| (field.name().as_str().into(), column));
        Self {
            columns_by_name: columns_by_name.collect(),
            other_keys: String::new(),
            other_key_ends: Vec::new(),
            unescaped: String::new(),
        }
    }

    /// Reads `record` into an uncommitted row of `columns`, and its layout into `layout`, which means nothing
    /// after a refusal.
    pub fn read<'a>(&mut self, record: &'a str, columns: &mut Columns, layout: &mut Layout) -> Result<(), Refusal<'a>> {
        layout.clear();
        self.other_keys.clear();
        self.other_key_ends.clear();

        let mut scanner = Scanner::new(record);
        scanner.skip_whitespace();
        match scanner.peek() {
            Some(b'{') => scanner.take_byte(b'{'),
            Some(b'[') => return Err(Refusal::Whole("expected a JSON object, found an array")),
            Some(b'n') => {
                scanner.literal("null")?;
                return Err(Refusal::Whole("expected a JSON object, found null"));
            }
            Some(b'"' | b't' | b'f' | b'-' | b'0'..=b'9') => {
                return Err(Refusal::Whole("expected a JSON object, found a bare value"));
            }
            Some(0xef) if record.starts_with('\u{feff}') => {
                return Err(Refusal::Whole("it begins with a byte order mark"));
            }
            None => return Err(Refusal::Whole("empty")),
            _ => return Err(scanner.expected("a JSON object").into()),
        };

        scanner.skip_whitespace();
        let mut value_end = 0;
        if !scanner.take_byte(b'}') {
            loop {
                scanner.skip_whitespace();
                let key = scanner.key()?;
                let column = self.column(&key);
                if column.is_some_and(|column| columns.is_filled(column)) {
                    return Err(Refusal::Duplicate(key.raw));
                }
                layout.push(&record[value_end..scanner.position()], column);
                match column {
                    Some(column) => columns.read(column, &mut scanner)?,
                    None => scanner.skip_value(1)?,
                }
                value_end = scanner.position();
                scanner.skip_whitespace();
                if scanner.take_byte(b'}') {
                    break;
                }
                if !scanner.take_byte(b',') {
                    return Err(scanner.expected("`,` or `}`").into());
                }
            }
        }
        scanner.skip_whitespace();
        if !scanner.at_end() {
            return Err(Refusal::Whole("something follows the JSON object"));
        }
        if self.has_duplicate_keys() {
            return Err(Refusal::Whole("a key stands twice"));
        }
        for column in 0..columns.len() {
            if !columns.is_filled(column) {
                columns.read_missing(column)?;
                layout.push_missing(column);
            }
        }
        layout.finish(&record[value_end..]);
        Ok(())
    }

    /// Reads a record that is one bare scalar into the only column. Nothing else stands there than it and whitespace.
    pub fn read_bare<'a>(record: &'a str, columns: &mut Columns) -> Result<(), Refusal<'a>> {
        let mut scanner = Scanner::new(record);
        scanner.skip_whitespace();
        match columns.len() {
            0 => scanner.skip_value(1)?,
            _ => columns.read(0, &mut scanner)?,
        }
        scanner.skip_whitespace();
        if scanner.at_end() {
            Ok(())
        } else {
            Err(Refusal::Whole("something follows the JSON value"))
        }
    }

    fn column(&mut self, key: &Quoted<'_>) -> Option<usize> {
        let key = if key.has_escapes {
            self.unescaped.clear();
            key.unescape_into(&mut self.unescaped);
            self.unescaped.as_str()
        } else {
            key.raw
        };
        let column = self.columns_by_name.get(key).copied();
        if column.is_none() {
            self.other_keys.push_str(key);
            self.other_key_ends.push(self.other_keys.len());
        }
        column
    }

    /// Whether two of the keys that name no column are the same.
    fn has_duplicate_keys(&self) -> bool {
        const COMPARED_PAIRWISE_MAX: usize = 16;
        let key = |index: usize| {
            let start = if index == 0 { 0 } else { self.other_key_ends[index - 1] };
            &self.other_keys[start..self.other_key_ends[index]]
        };
        let keys = self.other_key_ends.len();
        if keys <= COMPARED_PAIRWISE_MAX {
            return (1..keys).any(|index| (0..index).any(|before| key(before) == key(index)));
        }
        let mut sorted: Vec<&str> = (0..keys).map(key).collect();
        sorted.sort_unstable();
        sorted.windows(2).any(|pair| pair[0] == pair[1])
    }
}
