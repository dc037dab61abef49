//! Columns that grow row by row and can take a half-read row back.
//!
//! ```text
//! scanner ──▶ read (one value into one column) ──▶ … ──▶ commit   the row stays
//!                                                  └───▶ roll_back   as if it had never been begun
//! ```
//! Both readers, the general and the predicting one, put values in by [`Columns::read`] alone: what a value means is
//! decided here and nowhere else.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, PrimitiveArray, RecordBatch, RecordBatchOptions,
        StringBuilder, StringViewBuilder, TimestampMicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
    },
    buffer::NullBuffer,
    datatypes::{
        ArrowPrimitiveType, DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef,
        TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use super::{
    scan::{Flaw, Number, Quoted, Scanner},
    time::{NoTime, parse_days, parse_timestamp},
};

/// How times stand in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    /// Text, as RFC 3339 has it.
    Rfc3339,
    /// Whole numbers since 1970; each unit is so many nanoseconds.
    Epoch { unit_ns: i64 },
}

/// Why a record becomes no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// The record is no JSON.
    Flaw(Flaw),
    /// A value does not fit its column.
    Misfit { column: usize, misfit: Misfit<'a> },
    /// The text of a key that stands there twice, between its quotes.
    Duplicate(&'a str),
    /// The record as a whole, in words.
    Whole(&'static str),
}

impl From<Flaw> for Refusal<'_> {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit<'a> {
    Missing,
    Null,
    NotWhole(&'a str),
    OutOfRange(&'a str),
    NoTime(&'a str),
    TooFine(&'a str),
    /// Expected, found.
    Kind(&'static str, &'static str),
}

impl std::fmt::Display for Misfit<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => write!(f, "missing"),
            Self::Null => write!(f, "null in a NOT NULL column"),
            Self::NotWhole(text) => write!(f, "{} is not an integer", Shown(text)),
            Self::OutOfRange(text) => write!(f, "{} is out of range", Shown(text)),
            Self::NoTime(text) => write!(f, "'{}' is not a time", Shown(text)),
            Self::TooFine(text) => write!(f, "{} is finer than the column", Shown(text)),
            Self::Kind(expected, found) => write!(f, "expected {expected}, found {found}"),
        }
    }
}

/// A piece of the record in a message: not more than the eye takes in.
pub struct Shown<'a>(pub &'a str);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const CHARACTERS_MAX: usize = 40;
        match self.0.char_indices().nth(CHARACTERS_MAX) {
            Some((end, _)) => write!(f, "{}…", &self.0[..end]),
            None => f.write_str(self.0),
        }
    }
}

pub struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Columns whose text waits in the record for the commit.
    text_columns: Vec<usize>,
    timestamp_format: TimestampFormat,
    rows: usize,
}

struct Column {
    cells: Cells,
    is_nullable: bool,
    /// Rows that have their value: one more than are committed, once the row that is being read has its.
    filled: usize,
    /// Rows without a value, ascending; their cells hold some value that does not count.
    null_rows: Vec<usize>,
}

enum Cells {
    Boolean(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Timestamp {
        ticks: Vec<i64>,
        unit: TimeUnit,
    },
    Date32(Vec<i32>),
    Decimal128 {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Text {
        texts: Box<Texts>,
        pending: Pending,
        unescaped: String,
    },
}

enum Texts {
    View(StringViewBuilder),
    Plain(StringBuilder),
}

/// Where the text of the row that is being read stands until the row is complete.
#[derive(Clone, Copy)]
enum Pending {
    Null,
    Record { start: usize, end: usize },
    Unescaped,
}

/// Whether records can hold values of this type.
pub fn is_supported(data_type: &DataType) -> bool {
    Cells::new(data_type).is_some()
}

impl Cells {
    fn new(data_type: &DataType) -> Option<Self> {
        let text = |texts| Self::Text {
            texts: Box::new(texts),
            pending: Pending::Null,
            unescaped: String::new(),
        };
        Some(match data_type {
            DataType::Boolean => Self::Boolean(Vec::new()),
            DataType::Int8 => Self::Int8(Vec::new()),
            DataType::Int16 => Self::Int16(Vec::new()),
            DataType::Int32 => Self::Int32(Vec::new()),
            DataType::Int64 => Self::Int64(Vec::new()),
            DataType::UInt8 => Self::UInt8(Vec::new()),
            DataType::UInt16 => Self::UInt16(Vec::new()),
            DataType::UInt32 => Self::UInt32(Vec::new()),
            DataType::UInt64 => Self::UInt64(Vec::new()),
            DataType::Float32 => Self::Float32(Vec::new()),
            DataType::Float64 => Self::Float64(Vec::new()),
            DataType::Timestamp(unit, None) => Self::Timestamp {
                ticks: Vec::new(),
                unit: *unit,
            },
            DataType::Date32 => Self::Date32(Vec::new()),
            DataType::Decimal128(precision, scale) if 0 <= *scale => Self::Decimal128 {
                values: Vec::new(),
                precision: *precision,
                scale: *scale,
            },
            DataType::Utf8View => text(Texts::View(StringViewBuilder::new())),
            DataType::Utf8 => text(Texts::Plain(StringBuilder::new())),
            _ => return None,
        })
    }

    /// What a value of the column looks like, for messages.
    fn kind(&self, timestamp_format: TimestampFormat) -> &'static str {
        match self {
            Self::Boolean(_) => "true or false",
            Self::Float32(_) | Self::Float64(_) | Self::Decimal128 { .. } => "a number",
            Self::Timestamp { .. } => match timestamp_format {
                TimestampFormat::Rfc3339 => "a time as text",
                TimestampFormat::Epoch { .. } => "a time as an integer",
            },
            Self::Date32(_) => "a day as text",
            Self::Text { .. } => "text",
            _ => "an integer",
        }
    }
}

impl Columns {
    /// # Panics
    /// Where a type is not supported: see [`is_supported`].
    pub fn new(schema: SchemaRef, timestamp_format: TimestampFormat, rows: usize) -> Self {
        let mut columns = Self {
            columns: Vec::new(),
            text_columns: Vec::new(),
            timestamp_format,
            rows: 0,
            schema,
        };
        for field in columns.schema.fields() {
            let mut cells = Cells::new(field.data_type()).expect("the types were checked when the decoder was made");
            match &mut cells {
                Cells::Boolean(values) => values.reserve(rows),
                Cells::Int8(values) => values.reserve(rows),
                Cells::Int16(values) => values.reserve(rows),
                Cells::Int32(values) => values.reserve(rows),
                Cells::Int64(values) => values.reserve(rows),
                Cells::UInt8(values) => values.reserve(rows),
                Cells::UInt16(values) => values.reserve(rows),
                Cells::UInt32(values) => values.reserve(rows),
                Cells::UInt64(values) => values.reserve(rows),
                Cells::Float32(values) => values.reserve(rows),
                Cells::Float64(values) => values.reserve(rows),
                Cells::Timestamp { ticks, .. } => ticks.reserve(rows),
                Cells::Date32(values) => values.reserve(rows),
                Cells::Decimal128 { values, .. } => values.reserve(rows),
                Cells::Text { texts, .. } => match texts.as_mut() {
                    Texts::View(texts) => *texts = StringViewBuilder::with_capacity(rows),
                    Texts::Plain(texts) => *texts = StringBuilder::with_capacity(rows, rows * 8),
                },
            }
            if matches!(cells, Cells::Text { .. }) {
                columns.text_columns.push(columns.columns.len());
            }
            columns.columns.push(Column {
                cells,
                is_nullable: field.is_nullable(),
                filled: 0,
                null_rows: Vec::new(),
            });
        }
        columns
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    #[inline(always)]
    pub fn is_filled(&self, column: usize) -> bool {
        self.rows < self.columns[column].filled
    }

    /// Reads the value that stands at the scanner into the row. The column must not have one yet.
    #[inline(always)]
    pub fn read<'a>(&mut self, column: usize, scanner: &mut Scanner<'a>) -> Result<(), Refusal<'a>> {
        let (rows, format) = (self.rows, self.timestamp_format);
        let target = &mut self.columns[column];
        debug_assert_eq!(target.filled, rows, "the row has its value already");
        let misfit = |misfit| Refusal::Misfit { column, misfit };
        // Marked first: a roll-back then also takes back what a failed read may have left.
        target.filled = rows + 1;
        match scanner.peek() {
            Some(b'-' | b'0'..=b'9') => target.cells.push_number(&scanner.number()?, format).map_err(misfit),
            Some(b'"') => target.cells.push_string(&scanner.string()?, format).map_err(misfit),
            Some(b'n') => {
                scanner.literal("null")?;
                if !target.is_nullable {
                    return Err(misfit(Misfit::Null));
                }
                target.push_null(rows);
                Ok(())
            }
            Some(first @ (b't' | b'f')) => {
                scanner.literal(if first == b't' { "true" } else { "false" })?;
                match &mut target.cells {
                    Cells::Boolean(values) => values.push(first == b't'),
                    cells => return Err(misfit(Misfit::Kind(cells.kind(format), "true or false"))),
                }
                Ok(())
            }
            Some(b'{') => Err(misfit(Misfit::Kind(target.cells.kind(format), "an object"))),
            Some(b'[') => Err(misfit(Misfit::Kind(target.cells.kind(format), "an array"))),
            _ => Err(scanner.expected("a value").into()),
        }
    }

    /// Fills a column that the record does not name.
    #[inline(always)]
    pub fn read_missing(&mut self, column: usize) -> Result<(), Refusal<'static>> {
        let target = &mut self.columns[column];
        if !target.is_nullable {
            return Err(Refusal::Misfit {
                column,
                misfit: Misfit::Missing,
            });
        }
        target.filled = self.rows + 1;
        target.push_null(self.rows);
        Ok(())
    }

    /// The row stays. Every column has its value; `record` is the text that was scanned.
    #[inline(always)]
    pub fn commit(&mut self, record: &str) {
        for &column in &self.text_columns {
            let Cells::Text {
                texts,
                pending,
                unescaped,
            } = &mut self.columns[column].cells
            else {
                unreachable!("listed as a text column")
            };
            match *pending {
                Pending::Null => texts.push_null(),
                Pending::Record { start, end } => texts.push(&record[start..end]),
                Pending::Unescaped => texts.push(unescaped),
            }
        }
        self.rows += 1;
        debug_assert!(
            self.columns.iter().all(|column| column.filled == self.rows),
            "a committed row is complete"
        );
    }

    /// The row is forgotten.
    pub fn roll_back(&mut self) {
        let rows = self.rows;
        for column in &mut self.columns {
            column.filled = rows;
            if column.null_rows.last() == Some(&rows) {
                column.null_rows.pop();
            }
            match &mut column.cells {
                Cells::Boolean(values) => values.truncate(rows),
                Cells::Int8(values) => values.truncate(rows),
                Cells::Int16(values) => values.truncate(rows),
                Cells::Int32(values) => values.truncate(rows),
                Cells::Int64(values) => values.truncate(rows),
                Cells::UInt8(values) => values.truncate(rows),
                Cells::UInt16(values) => values.truncate(rows),
                Cells::UInt32(values) => values.truncate(rows),
                Cells::UInt64(values) => values.truncate(rows),
                Cells::Float32(values) => values.truncate(rows),
                Cells::Float64(values) => values.truncate(rows),
                Cells::Timestamp { ticks, .. } => ticks.truncate(rows),
                Cells::Date32(values) => values.truncate(rows),
                Cells::Decimal128 { values, .. } => values.truncate(rows),
                // Text reaches its builder only with the commit.
                Cells::Text { .. } => {}
            }
        }
    }

    /// The committed rows.
    pub fn finish(self) -> RecordBatch {
        let rows = self.rows;
        let arrays = self.columns.into_iter().map(|column| column.finish(rows)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema, arrays, &options)
            .expect("columns of the schema's types and one length")
    }
}

impl Texts {
    #[inline(always)]
    fn push(&mut self, text: &str) {
        match self {
            Self::View(texts) => texts.append_value(text),
            Self::Plain(texts) => texts.append_value(text),
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::View(texts) => texts.append_null(),
            Self::Plain(texts) => texts.append_null(),
        }
    }
}

impl Column {
    fn push_null(&mut self, row: usize) {
        match &mut self.cells {
            Cells::Boolean(values) => values.push(false),
            Cells::Int8(values) => values.push(0),
            Cells::Int16(values) => values.push(0),
            Cells::Int32(values) => values.push(0),
            Cells::Int64(values) => values.push(0),
            Cells::UInt8(values) => values.push(0),
            Cells::UInt16(values) => values.push(0),
            Cells::UInt32(values) => values.push(0),
            Cells::UInt64(values) => values.push(0),
            Cells::Float32(values) => values.push(0.0),
            Cells::Float64(values) => values.push(0.0),
            Cells::Timestamp { ticks, .. } => ticks.push(0),
            Cells::Date32(values) => values.push(0),
            Cells::Decimal128 { values, .. } => values.push(0),
            // Text keeps its own account of nulls.
            Cells::Text { pending, .. } => {
                *pending = Pending::Null;
                return;
            }
        }
        self.null_rows.push(row);
    }

    fn finish(self, rows: usize) -> ArrayRef {
        let nulls = (!self.null_rows.is_empty()).then(|| {
            let mut is_valid = vec![true; rows];
            for row in self.null_rows {
                is_valid[row] = false;
            }
            NullBuffer::from(is_valid)
        });
        fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
            Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
        }
        match self.cells {
            Cells::Boolean(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Cells::Int8(values) => primitive::<Int8Type>(values, nulls),
            Cells::Int16(values) => primitive::<Int16Type>(values, nulls),
            Cells::Int32(values) => primitive::<Int32Type>(values, nulls),
            Cells::Int64(values) => primitive::<Int64Type>(values, nulls),
            Cells::UInt8(values) => primitive::<UInt8Type>(values, nulls),
            Cells::UInt16(values) => primitive::<UInt16Type>(values, nulls),
            Cells::UInt32(values) => primitive::<UInt32Type>(values, nulls),
            Cells::UInt64(values) => primitive::<UInt64Type>(values, nulls),
            Cells::Float32(values) => primitive::<Float32Type>(values, nulls),
            Cells::Float64(values) => primitive::<Float64Type>(values, nulls),
            Cells::Timestamp { ticks, unit } => match unit {
                TimeUnit::Second => Arc::new(TimestampSecondArray::new(ticks.into(), nulls)),
                TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::new(ticks.into(), nulls)),
                TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::new(ticks.into(), nulls)),
                TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::new(ticks.into(), nulls)),
            },
            Cells::Date32(values) => Arc::new(Date32Array::new(values.into(), nulls)),
            Cells::Decimal128 {
                values,
                precision,
                scale,
            } => Arc::new(
                Decimal128Array::new(values.into(), nulls)
                    .with_precision_and_scale(precision, scale)
                    .expect("precision and scale of a declared type"),
            ),
            Cells::Text { texts, .. } => match *texts {
                Texts::View(mut texts) => Arc::new(texts.finish()),
                Texts::Plain(mut texts) => Arc::new(texts.finish()),
            },
        }
    }
}

impl Cells {
    #[inline(always)]
    fn push_number<'a>(&mut self, number: &Number<'a>, format: TimestampFormat) -> Result<(), Misfit<'a>> {
        match self {
            Self::Int8(values) => values.push(whole(number)?),
            Self::Int16(values) => values.push(whole(number)?),
            Self::Int32(values) => values.push(whole(number)?),
            Self::Int64(values) => values.push(whole(number)?),
            Self::UInt8(values) => values.push(whole(number)?),
            Self::UInt16(values) => values.push(whole(number)?),
            Self::UInt32(values) => values.push(whole(number)?),
            Self::UInt64(values) => values.push(whole(number)?),
            Self::Float32(values) => match number.float() {
                float if float.is_finite() => values.push(float),
                _ => return Err(Misfit::OutOfRange(number.text)),
            },
            // The scanner has refused what no double holds.
            Self::Float64(values) => values.push(number.double()),
            Self::Timestamp { ticks, unit } => {
                let TimestampFormat::Epoch { unit_ns } = format else {
                    return Err(Misfit::Kind(self.kind(format), "a number"));
                };
                let nanos = whole::<i64>(number)?
                    .checked_mul(unit_ns)
                    .ok_or(Misfit::OutOfRange(number.text))?;
                ticks.push(in_unit(nanos, *unit).ok_or(Misfit::TooFine(number.text))?);
            }
            Self::Decimal128 {
                values,
                precision,
                scale,
            } => values.push(decimal(number, *precision, *scale)?),
            Self::Boolean(_) | Self::Date32(_) | Self::Text { .. } => {
                return Err(Misfit::Kind(self.kind(format), "a number"));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn push_string<'a>(&mut self, string: &Quoted<'a>, format: TimestampFormat) -> Result<(), Misfit<'a>> {
        match self {
            Self::Text { pending, unescaped, .. } => {
                *pending = if string.has_escapes {
                    unescaped.clear();
                    string.unescape_into(unescaped);
                    Pending::Unescaped
                } else {
                    Pending::Record {
                        start: string.start,
                        end: string.start + string.raw.len(),
                    }
                };
                Ok(())
            }
            Self::Timestamp { ticks, unit } if format == TimestampFormat::Rfc3339 => {
                let parsed = if string.has_escapes {
                    let mut text = String::new();
                    string.unescape_into(&mut text);
                    parse_timestamp(text.as_bytes())
                } else {
                    parse_timestamp(string.raw.as_bytes())
                };
                let nanos = parsed.map_err(|why| match why {
                    NoTime::Form => Misfit::NoTime(string.raw),
                    NoTime::OutOfRange => Misfit::OutOfRange(string.raw),
                })?;
                ticks.push(in_unit(nanos, *unit).ok_or(Misfit::TooFine(string.raw))?);
                Ok(())
            }
            Self::Date32(values) => {
                let mut text = String::new();
                string.unescape_into(&mut text);
                let days = parse_days(text.as_bytes()).map_err(|_| Misfit::NoTime(string.raw))?;
                values.push(i32::try_from(days).expect("four-digit years lie within 32 bits of days"));
                Ok(())
            }
            _ => Err(Misfit::Kind(self.kind(format), "text")),
        }
    }
}

/// The number as an integer type; `1.0` and `1e2` are not integers.
#[inline(always)]
fn whole<'a, T: TryFrom<i128>>(number: &Number<'a>) -> Result<T, Misfit<'a>> {
    if !number.is_whole {
        return Err(Misfit::NotWhole(number.text));
    }
    let value = match number.is_exact {
        true if number.is_negative => -i128::from(number.mantissa),
        true => i128::from(number.mantissa),
        false => number.text.parse().map_err(|_| Misfit::OutOfRange(number.text))?,
    };
    T::try_from(value).map_err(|_| Misfit::OutOfRange(number.text))
}

/// Nanoseconds in a coarser unit; `None` where something would be lost.
#[inline(always)]
fn in_unit(nanos: i64, unit: TimeUnit) -> Option<i64> {
    let unit_ns = match unit {
        TimeUnit::Nanosecond => return Some(nanos),
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Second => 1_000_000_000,
    };
    (nanos % unit_ns == 0).then_some(nanos / unit_ns)
}

/// The number as `value * 10^-scale` with at most `precision` digits, exactly.
fn decimal<'a>(number: &Number<'a>, precision: u8, scale: i8) -> Result<i128, Misfit<'a>> {
    let out_of_range = Misfit::OutOfRange(number.text);
    // Digits without the point; `exponent` already counts those behind it.
    let mut value = 0i128;
    let mut pending_zeros = 0i64;
    for digit in number
        .text
        .bytes()
        .take_while(|byte| !matches!(byte, b'e' | b'E'))
        .filter(u8::is_ascii_digit)
    {
        // Zeros are held back until a digit follows, so that `1.500000…0` fits as `1.5` does.
        if digit == b'0' {
            pending_zeros += i64::from(value != 0);
            continue;
        }
        let shift = u32::try_from(pending_zeros + 1)
            .ok()
            .and_then(|zeros| 10i128.checked_pow(zeros))
            .ok_or(out_of_range)?;
        value = value
            .checked_mul(shift)
            .and_then(|value| value.checked_add(i128::from(digit - b'0')))
            .ok_or(out_of_range)?;
        pending_zeros = 0;
    }
    if value == 0 {
        return Ok(0);
    }
    let shift = number
        .exponent
        .saturating_add(pending_zeros)
        .saturating_add(i64::from(scale));
    if shift < 0 {
        return Err(Misfit::TooFine(number.text));
    }
    let power = u32::try_from(shift)
        .ok()
        .and_then(|shift| 10i128.checked_pow(shift))
        .ok_or(out_of_range)?;
    let value = value.checked_mul(power).ok_or(out_of_range)?;
    if 10i128.pow(u32::from(precision)) <= value {
        return Err(out_of_range);
    }
    Ok(if number.is_negative { -value } else { value })
}
