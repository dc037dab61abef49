//! Rows by the folder that they belong into: `day=2024-01-02/symbol=ADA-USDT`, named as Hive and Spark name them.

use std::{collections::BTreeMap, fmt::Write};

use ahash::AHashMap;
use arrow::{
    array::{Array, RecordBatch},
    datatypes::{DataType, Field, Schema},
    row::{RowConverter, SortField},
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::{
    connector::SinkError,
    types::{limits, type_name},
};

/// What stands for null, and for a text without letters: a folder cannot be named so.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Folder of partitions, and the rows in it.
pub type RowsByFolder = BTreeMap<String, Vec<u32>>;

/// The columns that rows are parted by.
pub struct Partitioning {
    /// In the view.
    pub columns: Vec<usize>,
    /// Escaped.
    names: Vec<String>,
}

impl Partitioning {
    /// Reads `a, b`, names of columns.
    ///
    /// # Errors
    /// A sentence about a column that is not there or has values that no folder is named by.
    pub fn new(text: &str, schema: &Schema) -> Result<Self, String> {
        let mut columns = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let Ok(column) = schema.index_of(name) else {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                return Err(format!(
                    "`partition_by` names a column `{name}` that is not there; there are {}",
                    names.join(", ")
                ));
            };
            if columns.contains(&column) {
                return Err(format!("`partition_by` names the column `{name}` twice"));
            }
            let field = schema.field(column);
            if !names_folders(field) {
                return Err(format!(
                    "`partition_by` takes columns of text, whole numbers, dates or true and false, and `{name}` is {}; \
                     give the view a column of one of these, e.g. CAST({name} AS DATE)",
                    type_name(field.data_type())
                ));
            }
            columns.push(column);
        }
        if columns.len() == schema.fields().len() {
            return Err("`partition_by` names all columns: their values stand in the names of folders, and nothing is left for the files".into());
        }
        let names = columns
            .iter()
            .map(|column| escaped(schema.field(*column).name()))
            .collect();
        Ok(Self { columns, names })
    }

    /// The columns that stand in the files.
    pub fn others(&self, schema: &Schema) -> Vec<usize> {
        (0..schema.fields().len())
            .filter(|column| !self.columns.contains(column))
            .collect()
    }

    /// Rows keep their order.
    pub fn part(&self, rows: &RecordBatch) -> Result<RowsByFolder, SinkError> {
        let count =
            u32::try_from(rows.num_rows()).map_err(|_| bug("an epoch of more than four thousand million rows"))?;
        let mut folders = RowsByFolder::new();
        if self.columns.is_empty() {
            folders.insert(String::new(), (0..count).collect());
            return Ok(folders);
        }
        let columns: Vec<_> = self.columns.iter().map(|column| rows.column(*column).clone()).collect();
        let fields = columns
            .iter()
            .map(|column| SortField::new(column.data_type().clone()))
            .collect();
        let keys = RowConverter::new(fields)
            .and_then(|converter| converter.convert_columns(&columns))
            .map_err(bug)?;
        let mut by_key: AHashMap<&[u8], Vec<u32>> = AHashMap::new();
        for (row, key) in (0..count).zip(keys.iter()) {
            by_key.entry(key.data()).or_default().push(row);
        }
        for rows_of in by_key.into_values() {
            let folder = self.folder(&columns, rows_of[0] as usize)?;
            // Null and a text without letters share one.
            folders.entry(folder).or_default().extend(rows_of);
        }
        folders.values_mut().for_each(|rows| rows.sort_unstable());
        Ok(folders)
    }

    fn folder(&self, columns: &[arrow::array::ArrayRef], row: usize) -> Result<String, SinkError> {
        let mut folder = String::new();
        for (name, column) in self.names.iter().zip(columns) {
            let text = match column.is_null(row) {
                true => String::new(),
                false => ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default())
                    .map_err(bug)?
                    .value(row)
                    .to_string(),
            };
            let value = match text.as_str() {
                "" => NULL.to_owned(),
                text => escaped(text),
            };
            if limits::PARTITION_VALUE_BYTES_MAX < value.len() {
                return Err(SinkError::Failed(format!(
                    "a value of column `{name}` is too long to name a folder ({} bytes, at most {}): {}…; partition by something shorter",
                    value.len(),
                    limits::PARTITION_VALUE_BYTES_MAX,
                    text.chars().take(40).collect::<String>()
                )));
            }
            let separator = if folder.is_empty() { "" } else { "/" };
            write!(folder, "{separator}{name}={value}").expect("text takes text");
        }
        Ok(folder)
    }
}

fn names_folders(field: &Field) -> bool {
    let data_type = field.data_type();
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Date32 | DataType::Boolean
        )
}

/// As Hive and Spark write it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\0'..='\x1f'
            | '\x7f'
            | '"'
            | '#'
            | '%'
            | '\''
            | '*'
            | '/'
            | ':'
            | '='
            | '?'
            | '\\'
            | '{'
            | '['
            | ']'
            | '^' => {
                write!(escaped, "%{:02X}", u32::from(letter)).expect("text takes text");
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn bug(error: impl std::fmt::Display) -> SinkError {
    SinkError::Failed(format!("internal error: {error}; please report it"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Date32Array, Int64Array, StringViewArray, TimestampNanosecondArray};

    use super::*;

    fn rows() -> RecordBatch {
        let text = StringViewArray::from(vec![
            Some("ADA-USDT"),
            Some("a/b=c%"),
            None,
            Some(""),
            Some("ADA-USDT"),
            Some("Zürich ok"),
        ]);
        RecordBatch::try_from_iter_with_nullable([
            ("s", Arc::new(text) as ArrayRef, true),
            ("n", Arc::new(Int64Array::from(vec![1, -2, 3, 4, 1, 6])), true),
            ("d", Arc::new(Date32Array::from(vec![0, 1, -1, 19_723, 0, 5])), true),
            (
                "b",
                Arc::new(BooleanArray::from(vec![true, false, true, true, true, false])),
                true,
            ),
            ("t", Arc::new(TimestampNanosecondArray::from(vec![0; 6])), true),
        ])
        .unwrap()
    }

    fn folders(by: &str) -> Vec<(String, Vec<u32>)> {
        let rows = rows();
        let partitioning = Partitioning::new(by, &rows.schema()).unwrap();
        partitioning.part(&rows).unwrap().into_iter().collect()
    }

    #[test]
    fn a_row_lies_in_the_folder_of_its_values() {
        let expected = [
            ("s=ADA-USDT", vec![0, 4]),
            ("s=Zürich ok", vec![5]),
            ("s=__HIVE_DEFAULT_PARTITION__", vec![2, 3]),
            ("s=a%2Fb%3Dc%25", vec![1]),
        ];
        assert_eq!(folders("s"), expected.map(|(folder, rows)| (folder.to_owned(), rows)));
        let first = |by| folders(by)[0].0.clone();
        assert_eq!(first("n"), "n=-2");
        assert_eq!(first("d"), "d=1969-12-31");
        assert_eq!(first(" b , d "), "b=false/d=1970-01-02", "in the order they are named");
        assert_eq!(folders(""), [(String::new(), (0..6).collect::<Vec<u32>>())]);
    }

    #[test]
    fn what_cannot_name_a_folder_is_refused_by_name() {
        let schema = rows().schema();
        for (by, part) in [
            ("x", "names a column `x` that is not there; there are s, n"),
            ("s, s", "twice"),
            ("t", "`t` is TIMESTAMP"),
            ("s, n, d, b, t", "`t` is TIMESTAMP"),
        ] {
            let error = Partitioning::new(by, &schema).err().unwrap();
            assert!(error.contains(part), "{by}: {error}");
        }
        let some = schema.project(&[0, 1]).unwrap();
        assert!(Partitioning::new("s, n", &some).err().unwrap().contains("all columns"));
    }

    #[test]
    fn a_value_that_no_file_system_takes_is_told() {
        let long = StringViewArray::from(vec!["é".repeat(100)]);
        let rows = RecordBatch::try_from_iter([
            ("s", Arc::new(long) as ArrayRef),
            ("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ])
        .unwrap();
        let error = Partitioning::new("s", &rows.schema()).unwrap().part(&rows).unwrap_err();
        assert!(
            error.to_string().contains("too long to name a folder (200 bytes"),
            "{error}"
        );
    }
}
