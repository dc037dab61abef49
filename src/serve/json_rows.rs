//! Arrow rows as JSON text, cell by cell into a byte buffer: the one place that says how a value looks.
//!
//! ```text
//! RecordBatch ── one writer per column ──▶ [v, v, …]  or  {"name":v, …}
//! ```
//! Integers beyond 2^53 and decimals are strings, NaN and infinities `null`, times RFC 3339 in UTC or milliseconds since 1970,
//! dates `2024-01-02`, binary base64. A reader that parses numbers as doubles loses nothing.

use arrow::{
    array::{Array, ArrayRef, AsArray, OffsetSizeTrait, RecordBatch, StringArray, StringBuilder},
    datatypes::{
        ArrowPrimitiveType, ArrowTimestampType, DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type,
        Decimal128Type, Decimal256Type, DecimalType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type,
        Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::types::{Error, Result, Watermark};

/// The largest integer up to which a double holds all: 2^53.
const EXACT_MAX: u64 = 1 << 53;
const DAY_SECONDS: i64 = 86_400;
/// 9999-12-31T23:59:59.999Z, the last that RFC 3339 and JavaScript both know how to write.
const END_MS: i64 = 253_402_300_799_999;

/// How times are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
pub enum TimeFormat {
    #[default]
    #[serde(rename = "rfc3339")]
    Rfc3339,
    /// Milliseconds since 1970, rounded down.
    #[serde(rename = "ms")]
    Millis,
}

type Writer<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

/// The rows of one batch, ready to be written in any order.
pub struct Encoder<'a> {
    columns: Vec<Column<'a>>,
}

struct Column<'a> {
    /// `"name":`
    name: Vec<u8>,
    write: Writer<'a>,
}

impl<'a> Encoder<'a> {
    /// # Errors
    /// [`Error::Bug`] where a column is of a type that Arrow itself cannot show.
    pub fn new(batch: &'a RecordBatch, time: TimeFormat) -> Result<Self> {
        let schema = batch.schema_ref();
        let columns = schema.fields().iter().zip(batch.columns());
        let columns = columns
            .map(|(field, array)| column(field.name(), array, time))
            .collect::<Result<_>>()?;
        Ok(Self { columns })
    }

    /// `[v,v]`
    pub fn array(&self, row: usize, out: &mut Vec<u8>) {
        separated(out, b'[', b']', &self.columns, |column, out| (column.write)(row, out));
    }

    /// `{"name":v,"name":v}`
    pub fn object(&self, row: usize, out: &mut Vec<u8>) {
        object(&self.columns, row, out);
    }

    pub fn cell(&self, column: usize, row: usize, out: &mut Vec<u8>) {
        (self.columns[column].write)(row, out);
    }
}

/// Appends `[…],[…]` for all rows of the batch, without the brackets around.
pub fn rows_as_arrays(batch: &RecordBatch, time: TimeFormat, out: &mut Vec<u8>) -> Result<()> {
    let encoder = Encoder::new(batch, time)?;
    for row in 0..batch.num_rows() {
        if 0 < row {
            out.push(b',');
        }
        encoder.array(row, out);
    }
    Ok(())
}

/// A column as text, as JSON would show it but without quotes around; for formats that only know text.
pub fn text_column(array: &ArrayRef, time: TimeFormat) -> Result<StringArray> {
    let write = writer(array, time)?;
    let mut texts = StringBuilder::new();
    let mut cell = Vec::new();
    for row in 0..array.len() {
        cell.clear();
        write(row, &mut cell);
        let text = std::str::from_utf8(&cell).expect("JSON is text");
        match text {
            "null" => texts.append_null(),
            _ => texts.append_value(
                text.strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'))
                    .unwrap_or(text),
            ),
        }
    }
    Ok(texts.finish())
}

/// A watermark as a JSON value: `null` before the first, and the last instant of the year 9999 once everything is complete,
/// so that every window that a reader knows is at or before it.
pub fn watermark(watermark: Watermark, time: TimeFormat, out: &mut Vec<u8>) {
    match watermark {
        Watermark::START => out.extend_from_slice(b"null"),
        Watermark::END => timestamp(END_MS, TimeUnit::Millisecond, time, out),
        Watermark(at) => timestamp(at, TimeUnit::Nanosecond, time, out),
    }
}

/// A JSON string.
pub fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (index, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x00..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..index]);
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        written = index + 1;
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

fn column<'a>(name: &str, array: &'a ArrayRef, time: TimeFormat) -> Result<Column<'a>> {
    let mut quoted = Vec::with_capacity(name.len() + 3);
    string(name, &mut quoted);
    quoted.push(b':');
    Ok(Column {
        name: quoted,
        write: writer(array, time)?,
    })
}

fn object(columns: &[Column<'_>], row: usize, out: &mut Vec<u8>) {
    separated(out, b'{', b'}', columns, |column, out| {
        out.extend_from_slice(&column.name);
        (column.write)(row, out);
    });
}

/// Items between two brackets, with commas.
fn separated<T>(
    out: &mut Vec<u8>,
    open: u8,
    close: u8,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if 0 < index {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(close);
}

fn writer(array: &ArrayRef, time: TimeFormat) -> Result<Writer<'_>> {
    let write = value_writer(array, time)?;
    if array.null_count() == 0 {
        return Ok(write);
    }
    Ok(Box::new(move |row, out| match array.is_null(row) {
        true => out.extend_from_slice(b"null"),
        false => write(row, out),
    }))
}

/// Writes values of rows that are not null.
fn value_writer(array: &ArrayRef, time: TimeFormat) -> Result<Writer<'_>> {
    Ok(match array.data_type() {
        DataType::Null => Box::new(|_, out| out.extend_from_slice(b"null")),
        DataType::Boolean => {
            let values = array.as_boolean();
            Box::new(move |row, out| out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }))
        }
        DataType::Int8 => integers::<Int8Type>(array),
        DataType::Int16 => integers::<Int16Type>(array),
        DataType::Int32 => integers::<Int32Type>(array),
        DataType::Int64 => integers::<Int64Type>(array),
        DataType::UInt8 => integers::<UInt8Type>(array),
        DataType::UInt16 => integers::<UInt16Type>(array),
        DataType::UInt32 => integers::<UInt32Type>(array),
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>().values();
            Box::new(move |row, out| exact(values[row], values[row] <= EXACT_MAX, out))
        }
        DataType::Float16 => {
            let values = array.as_primitive::<Float16Type>().values();
            Box::new(move |row, out| float(values[row].to_f32(), out))
        }
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values();
            Box::new(move |row, out| float(values[row], out))
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>().values();
            Box::new(move |row, out| float(values[row], out))
        }
        DataType::Decimal32(..) => decimals::<Decimal32Type>(array),
        DataType::Decimal64(..) => decimals::<Decimal64Type>(array),
        DataType::Decimal128(..) => decimals::<Decimal128Type>(array),
        DataType::Decimal256(..) => decimals::<Decimal256Type>(array),
        DataType::Timestamp(TimeUnit::Second, _) => timestamps::<TimestampSecondType>(array, time),
        DataType::Timestamp(TimeUnit::Millisecond, _) => timestamps::<TimestampMillisecondType>(array, time),
        DataType::Timestamp(TimeUnit::Microsecond, _) => timestamps::<TimestampMicrosecondType>(array, time),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => timestamps::<TimestampNanosecondType>(array, time),
        DataType::Date32 => {
            let values = array.as_primitive::<Date32Type>().values();
            Box::new(move |row, out| quoted(out, |out| date(i64::from(values[row]), out)))
        }
        DataType::Date64 => {
            let values = array.as_primitive::<Date64Type>().values();
            Box::new(move |row, out| quoted(out, |out| date(values[row].div_euclid(DAY_SECONDS * 1_000), out)))
        }
        DataType::Time32(TimeUnit::Second) => times_of_day::<Time32SecondType>(array, TimeUnit::Second),
        DataType::Time32(TimeUnit::Millisecond) => times_of_day::<Time32MillisecondType>(array, TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Microsecond) => times_of_day::<Time64MicrosecondType>(array, TimeUnit::Microsecond),
        DataType::Time64(TimeUnit::Nanosecond) => times_of_day::<Time64NanosecondType>(array, TimeUnit::Nanosecond),
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            Box::new(move |row, out| string(values.value(row), out))
        }
        DataType::LargeUtf8 => {
            let values = array.as_string::<i64>();
            Box::new(move |row, out| string(values.value(row), out))
        }
        DataType::Utf8View => {
            let values = array.as_string_view();
            Box::new(move |row, out| string(values.value(row), out))
        }
        DataType::Binary => {
            let values = array.as_binary::<i32>();
            Box::new(move |row, out| binary(values.value(row), out))
        }
        DataType::LargeBinary => {
            let values = array.as_binary::<i64>();
            Box::new(move |row, out| binary(values.value(row), out))
        }
        DataType::BinaryView => {
            let values = array.as_binary_view();
            Box::new(move |row, out| binary(values.value(row), out))
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            Box::new(move |row, out| binary(values.value(row), out))
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            // An empty dictionary has only null rows, and no key could be looked up in it.
            if dictionary.values().is_empty() {
                return Ok(Box::new(|_, out| out.extend_from_slice(b"null")));
            }
            let keys = dictionary.normalized_keys();
            let write = writer(dictionary.values(), time)?;
            Box::new(move |row, out| write(keys[row], out))
        }
        DataType::List(_) => lists::<i32>(array, time)?,
        DataType::LargeList(_) => lists::<i64>(array, time)?,
        DataType::ListView(_) => list_views::<i32>(array, time)?,
        DataType::LargeListView(_) => list_views::<i64>(array, time)?,
        DataType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            let write = writer(list.values(), time)?;
            Box::new(move |row, out| {
                let start = list.value_offset(row) as usize;
                separated(out, b'[', b']', start..start + list.value_length() as usize, &write);
            })
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let columns: Vec<_> = columns
                .map(|(field, array)| column(field.name(), array, time))
                .collect::<Result<_>>()?;
            Box::new(move |row, out| object(&columns, row, out))
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let (key, value) = (writer(map.keys(), time)?, writer(map.values(), time)?);
            Box::new(move |row, out| {
                let offsets = map.value_offsets();
                separated(
                    out,
                    b'{',
                    b'}',
                    offsets[row] as usize..offsets[row + 1] as usize,
                    |entry, out| {
                        let start = out.len();
                        key(entry, out);
                        // Names of an object are strings: a number becomes one.
                        if out[start] != b'"' {
                            let name = String::from_utf8(out.split_off(start)).expect("JSON is text");
                            string(&name, out);
                        }
                        out.push(b':');
                        value(entry, out);
                    },
                );
            })
        }
        _ => {
            let options = FormatOptions::new();
            let shown = array.as_ref();
            // Built here once to find out whether Arrow can show it, and below per cell: it borrows its options.
            ArrayFormatter::try_new(shown, &options).map_err(|e| Error::bug(e.to_string()))?;
            Box::new(move |row, out| {
                let options = FormatOptions::new();
                let text = ArrayFormatter::try_new(shown, &options).map(|formatter| formatter.value(row).to_string());
                string(&text.expect("the same array was shown before"), out);
            })
        }
    })
}

fn integers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Writer<'_>
where
    T::Native: Into<i64>,
{
    let values = array.as_primitive::<T>().values();
    Box::new(move |row, out| {
        let value: i64 = values[row].into();
        exact(value, value.unsigned_abs() <= EXACT_MAX, out);
    })
}

fn decimals<T: DecimalType>(array: &ArrayRef) -> Writer<'_> {
    let values = array.as_primitive::<T>();
    Box::new(move |row, out| quoted(out, |out| out.extend_from_slice(values.value_as_string(row).as_bytes())))
}

fn timestamps<T: ArrowTimestampType>(array: &ArrayRef, time: TimeFormat) -> Writer<'_> {
    let values = array.as_primitive::<T>().values();
    Box::new(move |row, out| timestamp(values[row], T::UNIT, time, out))
}

fn times_of_day<T: ArrowPrimitiveType>(array: &ArrayRef, unit: TimeUnit) -> Writer<'_>
where
    T::Native: Into<i64>,
{
    let values = array.as_primitive::<T>().values();
    Box::new(move |row, out| quoted(out, |out| time_of_day(values[row].into(), unit, out)))
}

fn lists<O: OffsetSizeTrait>(array: &ArrayRef, time: TimeFormat) -> Result<Writer<'_>> {
    let list = array.as_list::<O>();
    let write = writer(list.values(), time)?;
    Ok(Box::new(move |row, out| {
        let offsets = list.value_offsets();
        separated(
            out,
            b'[',
            b']',
            offsets[row].as_usize()..offsets[row + 1].as_usize(),
            &write,
        );
    }))
}

fn list_views<O: OffsetSizeTrait>(array: &ArrayRef, time: TimeFormat) -> Result<Writer<'_>> {
    let list = array.as_list_view::<O>();
    let write = writer(list.values(), time)?;
    Ok(Box::new(move |row, out| {
        let start = list.value_offset(row).as_usize();
        separated(out, b'[', b']', start..start + list.value_size(row).as_usize(), &write);
    }))
}

fn number<N: lexical_core::ToLexical>(number: N, out: &mut Vec<u8>) {
    let mut buffer = [0; lexical_core::BUFFER_SIZE];
    out.extend_from_slice(lexical_core::write(number, &mut buffer));
}

/// A number, as a string where a double could not hold it.
fn exact<N: lexical_core::ToLexical>(value: N, is_exact: bool, out: &mut Vec<u8>) {
    match is_exact {
        true => number(value, out),
        false => quoted(out, |out| number(value, out)),
    }
}

fn float<N: lexical_core::ToLexical + Into<f64> + Copy>(value: N, out: &mut Vec<u8>) {
    match value.into().is_finite() {
        true => number(value, out),
        false => out.extend_from_slice(b"null"),
    }
}

fn binary(bytes: &[u8], out: &mut Vec<u8>) {
    quoted(out, |out| {
        out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes())
    });
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Parts of a second, and how many digits tell them.
fn parts_per_second(unit: TimeUnit) -> (i64, usize) {
    match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1_000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    }
}

fn timestamp(value: i64, unit: TimeUnit, time: TimeFormat, out: &mut Vec<u8>) {
    let (parts, _) = parts_per_second(unit);
    match time {
        TimeFormat::Rfc3339 => quoted(out, |out| {
            let seconds = value.div_euclid(parts);
            date(seconds.div_euclid(DAY_SECONDS), out);
            out.push(b'T');
            time_of_day(
                seconds.rem_euclid(DAY_SECONDS) * parts + value.rem_euclid(parts),
                unit,
                out,
            );
            out.push(b'Z');
        }),
        TimeFormat::Millis => {
            let millis = (i128::from(value) * 1_000).div_euclid(i128::from(parts));
            exact(millis, millis.unsigned_abs() <= u128::from(EXACT_MAX), out);
        }
    }
}

/// `03:04:05.5`, with as many digits after the point as needed.
fn time_of_day(value: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    let (parts, digits) = parts_per_second(unit);
    let seconds = value.div_euclid(parts);
    padded(seconds / 3_600, 2, out);
    out.push(b':');
    padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    padded(seconds % 60, 2, out);
    let fraction = value.rem_euclid(parts);
    if 0 < fraction {
        out.push(b'.');
        padded(fraction, digits, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// `2024-01-02` of days since 1970, in the calendar of today for all of time; years of more than four digits carry a sign.
///
/// Source: Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
fn date(days: i64, out: &mut Vec<u8>) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(0..=9_999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
    }
    padded(year.abs(), 4, out);
    out.push(b'-');
    padded(month, 2, out);
    out.push(b'-');
    padded(day, 2, out);
}

/// Digits of a number that is not negative, with zeros in front up to `width`.
fn padded(value: i64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = [0; lexical_core::BUFFER_SIZE];
    let digits = lexical_core::write(value, &mut buffer);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{
            BinaryViewArray, BooleanArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray,
            DurationSecondArray, FixedSizeListArray, Float32Array, Float64Array, Int32Array, Int64Array,
            LargeListArray, ListArray, ListViewArray, MapBuilder, NullArray, StringViewArray, StructArray,
            Time64NanosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
            UInt64Array,
        },
        datatypes::Field,
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use crate::types::format_event_time;

    use super::*;

    fn text(array: impl Array + 'static, time: TimeFormat) -> String {
        let array: ArrayRef = Arc::new(array);
        let write = writer(&array, time).unwrap();
        let mut out = Vec::new();
        separated(&mut out, b'[', b']', 0..array.len(), |row, out| write(row, out));
        String::from_utf8(out).unwrap()
    }

    fn json_of(array: impl Array + 'static) -> Value {
        let text = text(array, TimeFormat::Rfc3339);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn numbers_that_a_double_cannot_hold_are_strings() {
        let two_53 = 1i64 << 53;
        assert_eq!(
            json_of(Int64Array::from(vec![
                Some(two_53),
                Some(two_53 + 1),
                Some(-two_53 - 1),
                Some(i64::MIN),
                None,
                Some(0)
            ])),
            json!([
                9007199254740992i64,
                "9007199254740993",
                "-9007199254740993",
                "-9223372036854775808",
                null,
                0
            ])
        );
        assert_eq!(
            json_of(UInt64Array::from(vec![7, u64::MAX])),
            json!([7, "18446744073709551615"])
        );
        let decimals = Decimal128Array::from(vec![Some(-150), None, Some(0)])
            .with_precision_and_scale(38, 2)
            .unwrap();
        assert_eq!(json_of(decimals), json!(["-1.50", null, "0.00"]));
    }

    #[test]
    fn what_json_has_no_number_for_is_null() {
        let values = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 1e300, 5e-324, 0.1];
        assert_eq!(
            json_of(Float64Array::from(values)),
            json!([null, null, null, -0.0, 1e300, 5e-324, 0.1])
        );
        assert_eq!(
            text(Float32Array::from(vec![0.1, f32::NAN]), TimeFormat::Rfc3339),
            "[0.1,null]",
            "a REAL has its own digits"
        );
    }

    #[test]
    fn times_are_utc_with_as_many_digits_as_needed() {
        let nanos = vec![Some(0), Some(1_500_000_000), Some(-1), None];
        let expected = json!([
            "1970-01-01T00:00:00Z",
            "1970-01-01T00:00:01.5Z",
            "1969-12-31T23:59:59.999999999Z",
            null
        ]);
        assert_eq!(json_of(TimestampNanosecondArray::from(nanos.clone())), expected);
        let zoned = TimestampNanosecondArray::from(nanos.clone()).with_timezone("+05:00");
        assert_eq!(
            json_of(zoned),
            expected,
            "the instant, whatever zone its type shows it in"
        );
        assert_eq!(
            text(TimestampNanosecondArray::from(nanos), TimeFormat::Millis),
            "[0,1500,-1,null]",
            "rounded down"
        );
        let seconds = TimestampSecondArray::from(vec![253_402_300_800, -62_167_219_201, i64::MAX]);
        let years = [
            "\"+10000-01-01T00:00:00Z\"",
            "\"-0001-12-31T23:59:59Z\"",
            "\"+292277026596-12-04T15:30:07Z\"",
        ];
        assert_eq!(text(seconds, TimeFormat::Rfc3339), format!("[{}]", years.join(",")));
        let far = TimestampSecondArray::from(vec![i64::MAX]);
        assert_eq!(text(far, TimeFormat::Millis), "[\"9223372036854775807000\"]");
    }

    #[test]
    fn days_and_hours_are_no_instants() {
        assert_eq!(
            json_of(Date32Array::from(vec![0, 19_782, -1])),
            json!(["1970-01-01", "2024-02-29", "1969-12-31"])
        );
        assert_eq!(json_of(Date64Array::from(vec![86_400_000])), json!(["1970-01-02"]));
        assert_eq!(text(Date32Array::from(vec![0]), TimeFormat::Millis), "[\"1970-01-01\"]");
        assert_eq!(
            json_of(Time64NanosecondArray::from(vec![0, 86_399_000_000_001])),
            json!(["00:00:00", "23:59:59.000000001"])
        );
    }

    #[test]
    fn texts_and_bytes() {
        assert_eq!(
            json_of(StringViewArray::from(vec![Some("a \"b\" \\ \n\u{1} é 🦀"), None])),
            json!(["a \"b\" \\ \n\u{1} é 🦀", null])
        );
        assert_eq!(
            json_of(BinaryViewArray::from(vec![b"\x00\xff".as_slice(), b""])),
            json!(["AP8=", ""])
        );
        assert_eq!(
            json_of(BooleanArray::from(vec![Some(true), None, Some(false)])),
            json!([true, null, false])
        );
        assert_eq!(json_of(NullArray::new(2)), json!([null, null]));
        assert_eq!(
            json_of(DurationSecondArray::from(vec![90])).as_array().unwrap().len(),
            1,
            "what JSON has no form for is text"
        );
    }

    #[test]
    fn a_dictionary_is_what_it_stands_for() {
        let words: DictionaryArray<arrow::datatypes::Int8Type> =
            [Some("b"), None, Some("a"), Some("b")].into_iter().collect();
        assert_eq!(json_of(words), json!(["b", null, "a", "b"]));
        let empty: DictionaryArray<arrow::datatypes::Int8Type> = [None::<&str>, None].into_iter().collect();
        assert_eq!(json_of(empty), json!([null, null]));
        let values: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let null_value = DictionaryArray::new(arrow::array::Int8Array::from(vec![0, 1]), values);
        assert_eq!(json_of(null_value), json!(["a", null]), "a null among the values");
    }

    #[test]
    fn lists_and_structs_hold_any_value() {
        let rows = || vec![Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(2)])];
        let expected = json!([[1, null], null, [], [2]]);
        assert_eq!(
            json_of(ListArray::from_iter_primitive::<Int32Type, _, _>(rows())),
            expected
        );
        assert_eq!(
            json_of(ListArray::from_iter_primitive::<Int32Type, _, _>(rows()).slice(1, 3)),
            json!([null, [], [2]]),
            "a slice"
        );
        assert_eq!(
            json_of(LargeListArray::from_iter_primitive::<Int32Type, _, _>(rows())),
            expected
        );
        assert_eq!(
            json_of(ListViewArray::from_iter_primitive::<Int32Type, _, _>(rows())),
            expected
        );
        let pairs = vec![Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(4)])];
        let pairs = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2);
        assert_eq!(json_of(pairs.slice(1, 2)), json!([null, [null, 4]]));

        let inner: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows()));
        let big: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1, 2, 3]));
        let fields = vec![
            (Arc::new(Field::new("li\"st", inner.data_type().clone(), true)), inner),
            (Arc::new(Field::new("big", DataType::Int64, true)), big),
        ];
        let first = json_of(StructArray::from(fields))[0].clone();
        assert_eq!(first, json!({"li\"st": [1, null], "big": "9223372036854775807"}));
    }

    #[test]
    fn a_map_is_an_object_whatever_its_keys() {
        let mut maps = MapBuilder::new(None, arrow::array::Int32Builder::new(), StringBuilder::new());
        maps.keys().append_value(7);
        maps.values().append_value("seven");
        maps.append(true).unwrap();
        maps.append(false).unwrap();
        assert_eq!(json_of(maps.finish()), json!([{"7": "seven"}, null]));
    }

    #[test]
    fn rows_are_arrays_or_objects() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a \"b\"", Arc::new(Int32Array::from(vec![1, 2]))),
            ("c", Arc::new(StringArray::from(vec![None, Some("x")]))),
        ];
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
                .unwrap();
        let encoder = Encoder::new(&batch, TimeFormat::Rfc3339).unwrap();
        let mut out = Vec::new();
        encoder.object(0, &mut out);
        assert_eq!(out, br#"{"a \"b\"":1,"c":null}"#);
        out.clear();
        rows_as_arrays(&batch, TimeFormat::Rfc3339, &mut out).unwrap();
        assert_eq!(out, br#"[1,null],[2,"x"]"#);
    }

    #[test]
    fn text_columns_carry_no_quotes() {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(0), None]));
        let texts = text_column(&times, TimeFormat::Rfc3339).unwrap();
        assert_eq!((texts.value(0), texts.is_null(1)), ("1970-01-01T00:00:00Z", true));
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])]));
        assert_eq!(text_column(&list, TimeFormat::Rfc3339).unwrap().value(0), "[1]");
    }

    #[test]
    fn a_watermark_is_a_time_or_null() {
        let of = |mark, time| {
            let mut out = Vec::new();
            watermark(mark, time, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(of(Watermark::START, TimeFormat::Millis), "null");
        assert_eq!(of(Watermark(1_000_000), TimeFormat::Millis), "1");
        assert_eq!(of(Watermark::END, TimeFormat::Millis), "253402300799999");
        assert_eq!(
            of(Watermark::END, TimeFormat::Rfc3339),
            "\"9999-12-31T23:59:59.999Z\"",
            "every window is closed"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_back(text: String) {
            let mut out = Vec::new();
            string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_integer_is_read_back(value: i64) {
            let read = json_of(Int64Array::from(vec![value]))[0].clone();
            let expected = if value.unsigned_abs() <= 1 << 53 { json!(value) } else { json!(value.to_string()) };
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_finite_float_is_read_back(double in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL, real in proptest::num::f32::NORMAL) {
            let written = text(Float64Array::from(vec![double]), TimeFormat::Rfc3339);
            prop_assert!(serde_json::from_str::<Value>(&written).is_ok(), "{}", written);
            prop_assert_eq!(written[1..written.len() - 1].parse::<f64>().unwrap().to_bits(), double.to_bits());
            let written = text(Float32Array::from(vec![real]), TimeFormat::Rfc3339);
            prop_assert_eq!(written[1..written.len() - 1].parse::<f32>().unwrap().to_bits(), real.to_bits());
        }

        #[test]
        fn any_instant_is_written_as_elsewhere(nanos: i64) {
            prop_assert_eq!(json_of(TimestampNanosecondArray::from(vec![nanos])), json!([format_event_time(nanos)]));
        }

        #[test]
        fn any_instant_is_read_back(millis in -62_135_596_800_000i64..253_402_300_800_000) {
            let written = json_of(TimestampMillisecondArray::from(vec![millis]));
            let read = chrono::DateTime::parse_from_rfc3339(written[0].as_str().unwrap()).unwrap();
            prop_assert_eq!(read.timestamp_millis(), millis);
        }
    }
}
