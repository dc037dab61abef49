//! DuckDB as the second opinion, and the comparison of its rows with Zeta's.
//!
//! ```text
//! Zeta ── Arrow stream ──▶ Table ┐
//!                                ├─ equal: text, integers and times exactly, floats within 1e-9 relative
//! DuckDB ── NDJSON ──────▶ Table ┘
//! ```

use std::{path::Path, process::Command};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type, Schema, TimeUnit, TimestampNanosecondType},
};
use serde_json::Value;

use crate::zeta::text;

const RELATIVE_ERROR_MAX: f64 = 1e-9;

/// Candles of five minutes over one-minute candles, as `sql/candles.sql` makes them.
pub const CANDLES: &str = "candles.sql";

#[derive(Clone, Debug)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug)]
pub enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Float(f64),
    /// Nanoseconds since 1970.
    Time(i64),
}

impl Cell {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) | (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a == b || (a - b).abs() <= RELATIVE_ERROR_MAX * a.abs().max(b.abs()),
            _ => false,
        }
    }
}

impl Table {
    /// Zeta's rows.
    pub fn of(batches: &[RecordBatch]) -> Self {
        let schema = batches[0].schema();
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut rows = Vec::new();
        for batch in batches {
            let cells: Vec<Vec<Cell>> = batch.columns().iter().map(|column| cells(column)).collect();
            rows.extend((0..batch.num_rows()).map(|row| cells.iter().map(|column| column[row].clone()).collect::<Vec<_>>()));
        }
        Self { columns, rows }
    }

    /// Says at which row and column two tables part.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        assert_eq!(self.columns, other.columns);
        for (index, (a, b)) in self.rows.iter().zip(&other.rows).enumerate() {
            for ((column, a_cell), b_cell) in self.columns.iter().zip(a).zip(b) {
                assert!(a_cell.is_same(b_cell), "row {index}, column {column}: {a_cell:?} is not {b_cell:?}\n  {a:?}\n  {b:?}");
            }
        }
        assert_eq!(self.rows.len(), other.rows.len(), "the rows of both, as far as they go, are the same");
    }
}

fn cells(column: &dyn Array) -> Vec<Cell> {
    let as_type = |data_type: &DataType| cast(column, data_type).expect("a wider type");
    let cell = |row: usize, value: &dyn Fn(usize) -> Cell| if column.is_null(row) { Cell::Null } else { value(row) };
    let all = |value: &dyn Fn(usize) -> Cell| (0..column.len()).map(|row| cell(row, value)).collect();
    match column.data_type() {
        DataType::Float32 | DataType::Float64 => {
            let values = as_type(&DataType::Float64);
            all(&|row| Cell::Float(values.as_primitive::<Float64Type>().value(row)))
        }
        DataType::Timestamp(..) => {
            let values = as_type(&DataType::Timestamp(TimeUnit::Nanosecond, None));
            all(&|row| Cell::Time(values.as_primitive::<TimestampNanosecondType>().value(row)))
        }
        integer if integer.is_integer() => {
            let values = as_type(&DataType::Int64);
            assert_eq!(values.null_count(), column.null_count(), "all values fit 64 bits");
            all(&|row| Cell::Integer(values.as_primitive::<Int64Type>().value(row)))
        }
        _ => {
            let values = as_type(&DataType::Utf8);
            all(&|row| Cell::Text(values.as_string::<i32>().value(row).to_owned()))
        }
    }
}

/// DuckDB's answer to a file beside oracle.mjs, or to SQL, over the Parquet files of a folder; its columns have the types of `like`.
pub fn ask(sql: &str, dataset: &Path, like: &Schema) -> Table {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    assert!(folder.join("node_modules").exists(), "the oracle has no packages: run make setup");
    let mut command = Command::new("node");
    command.arg("oracle.mjs").current_dir(folder);
    match sql.ends_with(".sql") {
        true => command.arg(sql),
        false => command.args(["--sql", sql]),
    };
    let output = command.args(["--set", &format!("dataset={}", text(dataset))]).output().expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut table = Table { columns: like.fields().iter().map(|field| field.name().clone()).collect(), rows: Vec::new() };
    for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
        let row: serde_json::Map<String, Value> = serde_json::from_str(line).expect("an object per line");
        assert_eq!(row.keys().collect::<Vec<_>>(), table.columns.iter().collect::<Vec<_>>(), "the same columns in the same order");
        table.rows.push(like.fields().iter().map(|field| parse(&row[field.name()], field.data_type())).collect());
    }
    table
}

fn parse(value: &Value, data_type: &DataType) -> Cell {
    let number = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match data_type {
        _ if value.is_null() => Cell::Null,
        DataType::Float32 | DataType::Float64 => Cell::Float(number().parse().expect("a number")),
        DataType::Timestamp(..) => Cell::Time(nanos(value.as_str().expect("text"))),
        integer if integer.is_integer() => Cell::Integer(number().parse().expect("an integer")),
        _ => Cell::Text(value.as_str().expect("text").to_owned()),
    }
}

/// Nanoseconds since 1970 of RFC 3339.
pub fn nanos(time: &str) -> i64 {
    let time = chrono::DateTime::parse_from_rfc3339(time).unwrap_or_else(|error| panic!("{time}: {error}"));
    time.timestamp_nanos_opt().expect("a time of our days")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, f64)]) -> Table {
        let row = |(name, value): &(&str, f64)| vec![Cell::Text((*name).to_owned()), Cell::Float(*value)];
        Table { columns: vec!["name".into(), "value".into()], rows: rows.iter().map(row).collect() }
    }

    #[test]
    fn sums_that_were_added_in_another_order_are_the_same() {
        table(&[("a", 1e6), ("b", f64::NEG_INFINITY)]).assert_same(&table(&[("a", 1e6 * (1.0 + 1e-10)), ("b", f64::NEG_INFINITY)]));
    }

    #[test]
    fn each_difference_is_found() {
        let one = table(&[("a", 1e6), ("b", 0.0)]);
        for (other, why) in [
            (table(&[("a", 1e6 * (1.0 + 1e-8)), ("b", 0.0)]), "a number that is too far off"),
            (table(&[("a", 1e6), ("b", 1e-300)]), "nearly nothing is not nothing"),
            (table(&[("a", 1e6), ("c", 0.0)]), "another text"),
            (table(&[("a", 1e6)]), "a row less"),
            (table(&[("a", 1e6), ("b", 0.0), ("b", 0.0)]), "a row more"),
            (Table { columns: vec!["name".into(), "sum".into()], ..one.clone() }, "another name"),
        ] {
            assert!(std::panic::catch_unwind(|| one.assert_same(&other)).is_err(), "{why}");
        }
    }
}
