//! The Avro schema of rows, as JSON.
//!
//! | column | in Avro |
//! | --- | --- |
//! | BOOLEAN, REAL, DOUBLE, VARCHAR, BINARY | `boolean`, `float`, `double`, `string`, `bytes` |
//! | TINYINT to INTEGER, SMALLINT UNSIGNED | `int` |
//! | BIGINT, INTEGER UNSIGNED | `long` |
//! | TIMESTAMP, which is UTC whether or not its type says so | `long`, `timestamp-nanos` (`-micros`, `-millis` of coarser ones) |
//! | DATE, TIME of microseconds | `int`, `date`; `long`, `time-micros` |
//! | DECIMAL(p, s) | `bytes`, `decimal` |
//! | differences of times | `long` with their `unit` |
//! | lists, structs | `array`, `record` |
//!
//! Where a column may be null it is a union of `null` and its type, and null is its default. What is not listed is refused: `BIGINT UNSIGNED`
//! does not fit into a `long`, times of whole seconds may not fit into milliseconds, times of day of nanoseconds would be cut.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use serde_json::{Value, json};

use crate::types::{Error, Result, type_name};

/// The schema of a record that holds all columns, in their order.
///
/// # Errors
/// Which column has a name or a type that Avro has not, and what to write in its place.
pub fn record_schema(name: &str, schema: &Schema) -> Result<String> {
    let mut taken = BTreeSet::new();
    match record(name, schema.fields(), &mut taken) {
        Ok(record) => Ok(record.to_string()),
        Err(unfit) => Err(Error::user(unfit.told())),
    }
}

/// A name as Avro takes it: what is no letter of ASCII, no digit and no `_` becomes `_`, and no digit comes first.
pub fn allowed(name: &str) -> String {
    let mut allowed: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if allowed.chars().next().is_none_or(|first| first.is_ascii_digit()) {
        allowed.insert(0, '_');
    }
    allowed
}

/// A field without an Avro form, and the fields around it, from inside to outside.
struct Unfit<'a> {
    path: Vec<&'a str>,
    why: Why<'a>,
}

enum Why<'a> {
    Name,
    Type(&'a DataType),
}

impl Unfit<'_> {
    fn told(&self) -> String {
        let path: Vec<&str> = self.path.iter().rev().copied().collect();
        let (name, path) = (path[0], path.join("."));
        let is_nested = 1 < self.path.len();
        match &self.why {
            Why::Name => {
                let way_out = match is_nested {
                    true => "take it out of its struct as a column of its own".to_owned(),
                    false => format!("give it another name in the query: \"{name}\" AS {}", allowed(name)),
                };
                format!(
                    "column {path}: names in Avro are letters of ASCII, digits and _, and do not begin with a digit; {way_out}"
                )
            }
            Why::Type(data_type) => {
                let way_out = match is_nested {
                    true => "take what is needed of it as columns of their own".to_owned(),
                    false => {
                        // What is not quoted is folded.
                        let name = match name.contains(|c: char| c.is_ascii_uppercase()) {
                            true => format!("\"{name}\""),
                            false => name.to_owned(),
                        };
                        format!("write CAST({name} AS {}) AS {name} in the query", instead_of(data_type))
                    }
                };
                format!(
                    "column {path}: {} cannot be written as Avro; {way_out}",
                    told_type(data_type)
                )
            }
        }
    }
}

fn told_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => "TIMESTAMP(0)".to_owned(),
        other => type_name(other),
    }
}

/// A type with an Avro form that holds the same values.
fn instead_of(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::UInt64 => "DECIMAL(20, 0)",
        DataType::Date64 => "DATE",
        DataType::Timestamp(..) => "TIMESTAMP",
        DataType::Float16 => "REAL",
        DataType::Decimal128(..) | DataType::Decimal256(..) => "DECIMAL(38, 0)",
        _ => "VARCHAR",
    }
}

fn record<'a>(name: &str, fields: &'a Fields, taken: &mut BTreeSet<String>) -> std::result::Result<Value, Unfit<'a>> {
    let mut name = name.to_owned();
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    let mut written = Vec::with_capacity(fields.len());
    for field in fields {
        let own = field.name().as_str();
        if allowed(own) != own {
            return Err(Unfit {
                path: vec![own],
                why: Why::Name,
            });
        }
        let form = site(&format!("{name}_{own}"), field, taken).map_err(|mut unfit| {
            unfit.path.push(own);
            unfit
        })?;
        written.push(match field.is_nullable() {
            true => json!({"name": own, "type": form, "default": null}),
            false => json!({"name": own, "type": form}),
        });
    }
    Ok(json!({"type": "record", "name": name, "fields": written}))
}

/// The type of a field or of a list's items, null among its values where it may be.
fn site<'a>(name: &str, field: &'a Field, taken: &mut BTreeSet<String>) -> std::result::Result<Value, Unfit<'a>> {
    let form = form(name, field.data_type(), taken)?;
    Ok(match field.is_nullable() {
        true => json!(["null", form]),
        false => form,
    })
}

/// `name` is that of a record, where the type is one or holds one.
fn form<'a>(
    name: &str,
    data_type: &'a DataType,
    taken: &mut BTreeSet<String>,
) -> std::result::Result<Value, Unfit<'a>> {
    let logical = |of: &str, kind: &str| json!({"type": of, "logicalType": kind});
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => json!("int"),
        DataType::Int64 | DataType::UInt32 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => json!("bytes"),
        DataType::Date32 => logical("int", "date"),
        DataType::Time32(TimeUnit::Millisecond) => logical("int", "time-millis"),
        DataType::Time64(TimeUnit::Microsecond) => logical("long", "time-micros"),
        DataType::Timestamp(TimeUnit::Millisecond, _) => logical("long", "timestamp-millis"),
        DataType::Timestamp(TimeUnit::Microsecond, _) => logical("long", "timestamp-micros"),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => logical("long", "timestamp-nanos"),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale)
            if u8::try_from(*scale).is_ok_and(|scale| scale <= *precision) =>
        {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        DataType::Duration(unit) => json!({"type": "long", "unit": unit_name(*unit)}),
        // Of lists of BOOLEAN whose values are a part of others, the writer takes the wrong ones.
        DataType::List(items) | DataType::LargeList(items) if *items.data_type() != DataType::Boolean => {
            json!({"type": "array", "items": site(name, items, taken)?})
        }
        DataType::Struct(fields) if !fields.is_empty() => record(name, fields, taken)?,
        unfit => {
            return Err(Unfit {
                path: Vec::new(),
                why: Why::Type(unfit),
            });
        }
    })
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "second",
        TimeUnit::Millisecond => "millisecond",
        TimeUnit::Microsecond => "microsecond",
        TimeUnit::Nanosecond => "nanosecond",
    }
}
