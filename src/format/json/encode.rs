//! Rows to compact JSON records, an object each, or the bare value of the only column.
//!
//! ```text
//! ADA-USDT │ 1.5 │ null   ──▶   {"symbol":"ADA-USDT","open":1.5,"volume":null}
//! ```
//! Floats are the shortest text that reads back as the same float of their width, times RFC 3339 in UTC, decimals
//! plain numbers. NaN and infinities, which JSON has not, are `null`, as nulls are.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use super::{
    scan::plain_length,
    time::{write_days, write_timestamp},
};
use crate::{
    format::Encoder,
    types::{Error, Result},
};

pub struct JsonEncoder {
    schema: SchemaRef,
    /// What stands before each value; nothing in bare mode.
    before: Vec<Vec<u8>>,
    after: &'static [u8],
}

impl JsonEncoder {
    /// An object per row, keys in the order of the columns.
    ///
    /// # Errors
    /// A column's type has no JSON form.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        check(&schema)?;
        let before = schema.fields().iter().enumerate().map(|(column, field)| {
            let mut before = if column == 0 { b"{".to_vec() } else { b",".to_vec() };
            write_text(field.name(), &mut before);
            before.push(b':');
            before
        });
        let after = if schema.fields().is_empty() {
            b"{}".as_slice()
        } else {
            b"}"
        };
        Ok(Self {
            before: before.collect(),
            after,
            schema,
        })
    }

    /// The value of the only column per row, without an object around it.
    ///
    /// # Errors
    /// Not one column, or its type has no JSON form.
    pub fn bare(schema: SchemaRef) -> Result<Self> {
        check(&schema)?;
        match schema.fields().len() {
            1 => Ok(Self {
                before: vec![Vec::new()],
                after: b"",
                schema,
            }),
            columns => Err(Error::user(format!("a bare record holds one column, not {columns}"))),
        }
    }
}

fn check(schema: &SchemaRef) -> Result<()> {
    let is_written = |data_type: &DataType| {
        data_type.is_integer()
            || matches!(
                data_type,
                DataType::Null
                    | DataType::Boolean
                    | DataType::Float32
                    | DataType::Float64
                    | DataType::Utf8
                    | DataType::Utf8View
                    | DataType::LargeUtf8
                    | DataType::Timestamp(_, _)
                    | DataType::Date32
                    | DataType::Decimal128(_, _)
            )
    };
    match schema.fields().iter().find(|field| !is_written(field.data_type())) {
        Some(field) => Err(Error::user(format!(
            "column {}: {} cannot be written as JSON",
            field.name(),
            field.data_type()
        ))),
        None => Ok(()),
    }
}

impl Encoder for JsonEncoder {
    /// # Panics
    /// Where `rows` have another schema than the encoder was made for: our mistake.
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        assert_eq!(rows.num_columns(), self.before.len(), "rows of the encoder's schema");
        let cells: Vec<Cell<'_>> = rows
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(array, field)| {
                assert_eq!(
                    array.data_type(),
                    field.data_type(),
                    "column {} of the encoder's schema",
                    field.name()
                );
                writer(array.as_ref())
            })
            .collect();
        for row in 0..rows.num_rows() {
            for ((before, cell), array) in self.before.iter().zip(&cells).zip(rows.columns()) {
                out.extend_from_slice(before);
                if array.is_valid(row) {
                    cell(row, out)
                } else {
                    out.extend_from_slice(b"null")
                }
            }
            out.extend_from_slice(self.after);
            ends.push(out.len());
        }
    }
}

/// Appends the value of a row, which is not null.
type Cell<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

fn writer(array: &dyn Array) -> Cell<'_> {
    macro_rules! integer {
        ($type:ty) => {{
            let values = array.as_primitive::<$type>().values();
            Box::new(move |row, out| write_number(values[row], out))
        }};
    }
    macro_rules! float {
        ($type:ty) => {{
            let values = array.as_primitive::<$type>().values();
            Box::new(move |row, out| match values[row] {
                value if value.is_finite() => write_number(value, out),
                _ => out.extend_from_slice(b"null"),
            })
        }};
    }
    macro_rules! timestamp {
        ($type:ty, $per_second:expr) => {{
            let values = array.as_primitive::<$type>().values();
            Box::new(move |row, out| write_quoted(out, |out| write_timestamp(values[row], $per_second, out)))
        }};
    }
    macro_rules! text {
        ($values:expr) => {{
            let values = $values;
            Box::new(move |row, out| write_text(values.value(row), out))
        }};
    }
    match array.data_type() {
        DataType::Null => Box::new(|_, out| out.extend_from_slice(b"null")),
        DataType::Boolean => {
            let values = array.as_boolean();
            Box::new(move |row, out| out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }))
        }
        DataType::Int8 => integer!(Int8Type),
        DataType::Int16 => integer!(Int16Type),
        DataType::Int32 => integer!(Int32Type),
        DataType::Int64 => integer!(Int64Type),
        DataType::UInt8 => integer!(UInt8Type),
        DataType::UInt16 => integer!(UInt16Type),
        DataType::UInt32 => integer!(UInt32Type),
        DataType::UInt64 => integer!(UInt64Type),
        DataType::Float32 => float!(Float32Type),
        DataType::Float64 => float!(Float64Type),
        DataType::Utf8 => text!(array.as_string::<i32>()),
        DataType::LargeUtf8 => text!(array.as_string::<i64>()),
        DataType::Utf8View => text!(array.as_string_view()),
        DataType::Timestamp(TimeUnit::Second, _) => timestamp!(TimestampSecondType, 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => timestamp!(TimestampMillisecondType, 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamp!(TimestampMicrosecondType, 1_000_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => timestamp!(TimestampNanosecondType, 1_000_000_000),
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>().values();
            Box::new(move |row, out| write_quoted(out, |out| write_days(i64::from(values[row]), out)))
        }
        DataType::Decimal128(_, _) => {
            let values = array.as_primitive::<Decimal128Type>();
            Box::new(move |row, out| out.extend_from_slice(values.value_as_string(row).as_bytes()))
        }
        other => unreachable!("{other} was refused when the encoder was made"),
    }
}

#[inline(always)]
fn write_number<T: lexical_core::ToLexical>(value: T, out: &mut Vec<u8>) {
    let mut text = [0; lexical_core::BUFFER_SIZE];
    out.extend_from_slice(lexical_core::write(value, &mut text));
}

fn write_quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, after) = rest.split_at(plain_length(rest));
        out.extend_from_slice(plain);
        let Some((special, after)) = after.split_first() else {
            break;
        };
        match special {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
        rest = after;
    }
    out.push(b'"');
}
