//! Values in the type of the column that they are written to: each as it is, or the statement is refused.
//!
//! ```text
//! value ─▶ column's type ─▶ back again: another one? ─▶ refused, with column, row and both types
//! ```
//! Two roundings are meant by whoever declares the column: into a REAL from a DOUBLE, and into both from a DECIMAL or a text with a fraction.
//! Whole numbers are kept whole everywhere, and nothing finite becomes infinite.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, StringArray},
    compute::{CastOptions, cast_with_options, kernels::cmp::not_distinct},
    datatypes::{DataType, Field, Float32Type, Float64Type, TimeUnit},
    util::display::array_value_to_string,
};

use crate::{
    plan::takes,
    types::{Error, Result, type_name},
};

/// Below it every DOUBLE without a fraction stands for one integer alone.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
/// So many digits of a decimal number survive in a DOUBLE.
const DIGITS_MAX: usize = 15;
/// How much of a text that does not fit is shown.
const SHOWN_MAX: usize = 60;

/// The values in the type of their column. `first_row` is the number of the first of them, where people can count.
///
/// # Errors
/// [`Error::User`] where a value does not fit: then all are refused.
pub fn fitting(values: &ArrayRef, field: &Field, first_row: Option<usize>) -> Result<ArrayRef> {
    let (name, column) = (field.name(), field.data_type());
    let given = type_name(values.data_type());
    let values = plain(values)?;
    if values.data_type() == column {
        return Ok(values);
    }
    if *values.data_type() == DataType::Null {
        return Ok(arrow::array::new_null_array(column, values.len()));
    }
    let wanted = type_name(column);
    if !takes(column, values.data_type()) {
        return Err(Error::user(format!(
            "column `{name}` is {wanted} and takes no {given}; CAST it"
        )));
    }
    let fitted = cast(&values, column)?;
    let kept = kept(&values, &fitted)?;
    let does_not_fit = |row: &usize| values.is_valid(*row) && (fitted.is_null(*row) || !kept.value(*row));
    let Some(row) = (0..values.len()).find(does_not_fit) else {
        return Ok(fitted);
    };
    let is_text = *values.data_type() == DataType::Utf8;
    let shown = array_value_to_string(&values, row).map_err(Error::of_arrow)?;
    let shown = match (is_text, shown.char_indices().nth(SHOWN_MAX)) {
        (false, _) => shown,
        (true, None) => format!("'{shown}'"),
        (true, Some((end, _))) => format!("'{}…'", &shown[..end]),
    };
    let place = match first_row {
        Some(first) => format!("row {} has {shown} ({given})", first + row),
        None => format!("the new value is {shown} ({given})"),
    };
    let advice = match (column, values.data_type()) {
        (_, DataType::Utf8) => "write one that does",
        (DataType::Decimal128(..), DataType::Float64) => "round it, CAST it, or write its digits as text",
        _ => "round it or CAST it",
    };
    Err(Error::user(format!(
        "column `{name}` is {wanted}, and {place}, which does not fit unchanged; {advice}"
    )))
}

/// Texts as `Utf8`, times without a zone (they are UTC), what dictionaries stand for.
fn plain(values: &ArrayRef) -> Result<ArrayRef> {
    let wanted = match values.data_type() {
        DataType::Dictionary(_, of) => of.as_ref().clone(),
        other => other.clone(),
    };
    let wanted = match wanted {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(unit, None),
        DataType::Float16 => DataType::Float32,
        other => other,
    };
    arrow_cast(values, &wanted)
}

/// Null where a value has none of this type.
fn cast(values: &ArrayRef, column: &DataType) -> Result<ArrayRef> {
    let DataType::Decimal128(precision, scale) = *column else {
        return arrow_cast(values, column);
    };
    // Arrow rounds, and multiplies a DOUBLE before it does: the digits are what was meant.
    let decimals: Decimal128Array = match values.data_type() {
        DataType::Utf8 => (values.as_string::<i32>().iter())
            .map(|text| decimal_of(text?, precision, scale))
            .collect(),
        DataType::Float32 => (values.as_primitive::<Float32Type>().iter())
            .map(|number| decimal_of(&number?.to_string(), precision, scale))
            .collect(),
        DataType::Float64 => (values.as_primitive::<Float64Type>().iter())
            .map(|number| {
                decimal_of(
                    &number.filter(|number| says_its_digits(*number))?.to_string(),
                    precision,
                    scale,
                )
            })
            .collect(),
        _ => return arrow_cast(values, column),
    };
    let decimals = decimals
        .with_precision_and_scale(precision, scale)
        .map_err(Error::of_arrow)?;
    Ok(Arc::new(decimals))
}

fn arrow_cast(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    if values.data_type() == to {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    cast_with_options(values, to, &options).map_err(Error::of_arrow)
}

/// Whether the shortest decimal number of a DOUBLE is surely the one that was written.
fn says_its_digits(number: f64) -> bool {
    let digits = format!("{number:e}");
    let digits = digits.split('e').next().unwrap_or_default();
    number.abs() < WHOLE_MAX && digits.bytes().filter(u8::is_ascii_digit).count() <= DIGITS_MAX
}

/// The unscaled value of a decimal number, with all its digits; `None` where it is none, or has too many on either side of the point.
fn decimal_of(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let text = text.trim();
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, i64::from(exponent.parse::<i32>().ok()?)),
        None => (text, 0),
    };
    let (is_negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    let trimmed = (digits.len() - significant.len()) as i64;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    let zeros = exponent - fraction.len() as i64 + i64::from(scale) + trimmed;
    if zeros < 0 || i64::from(precision) < significant.len() as i64 + zeros {
        return None;
    }
    // At most 38 digits, which fit.
    let value = significant.parse::<i128>().ok()? * 10i128.pow(u32::try_from(zeros).ok()?);
    Some(if is_negative { -value } else { value })
}

/// Which values are what they were. Where one is null, on either side, it does not matter.
fn kept(values: &ArrayRef, fitted: &ArrayRef) -> Result<BooleanArray> {
    let (given, column) = (values.data_type(), fitted.data_type());
    Ok(match (given, column) {
        (DataType::Float32 | DataType::Float64, column) if column.is_integer() => {
            let numbers = arrow_cast(values, &DataType::Float64)?;
            let is_whole = |number: f64| number.fract() == 0.0 && number.abs() < WHOLE_MAX;
            by_row(values.len(), |row| {
                is_whole(numbers.as_primitive::<Float64Type>().value(row))
            })
        }
        (DataType::Utf8, DataType::Float32 | DataType::Float64) => {
            let (texts, numbers) = (values.as_string::<i32>(), arrow_cast(fitted, &DataType::Float64)?);
            by_row(values.len(), |row| {
                is_number_of(texts.value(row), numbers.as_primitive::<Float64Type>().value(row))
            })
        }
        (given, DataType::Float32 | DataType::Float64) if !given.is_integer() => {
            let (given, fitted) = (
                arrow_cast(values, &DataType::Float64)?,
                arrow_cast(fitted, &DataType::Float64)?,
            );
            let (given, fitted) = (
                given.as_primitive::<Float64Type>(),
                fitted.as_primitive::<Float64Type>(),
            );
            by_row(values.len(), |row| {
                fitted.value(row).is_finite() || !given.value(row).is_finite()
            })
        }
        (DataType::Utf8, DataType::Timestamp(..)) => {
            let texts = values.as_string::<i32>();
            by_row(values.len(), |row| has_nanoseconds_at_most(texts.value(row)))
        }
        (DataType::Utf8, DataType::Date32) => {
            let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
            let (times, midnights) = (arrow_cast(values, &nanos)?, arrow_cast(fitted, &nanos)?);
            let is_midnight = not_distinct(&times, &midnights).map_err(Error::of_arrow)?;
            let texts: &StringArray = values.as_string::<i32>();
            // Days before 1677 and behind 2262 are no such times, and a time of them is longer.
            by_row(values.len(), |row| match times.is_valid(row) {
                true => is_midnight.value(row),
                false => texts.value(row).len() <= 10 || texts.value(row).starts_with(['+', '-']),
            })
        }
        (DataType::Utf8, _) | (_, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => {
            by_row(values.len(), |_| true)
        }
        // Digits were read or refused as they are.
        (DataType::Float32 | DataType::Float64, DataType::Decimal128(..)) => by_row(values.len(), |_| true),
        (given, _) => not_distinct(&arrow_cast(fitted, given)?, values).map_err(Error::of_arrow)?,
    })
}

fn by_row(rows: usize, is_kept: impl FnMut(usize) -> bool) -> BooleanArray {
    BooleanArray::from((0..rows).map(is_kept).collect::<Vec<bool>>())
}

/// Whole numbers have to be met, and others to be near.
fn is_number_of(text: &str, number: f64) -> bool {
    let text = text.trim();
    if number.is_infinite() {
        return text.to_ascii_lowercase().contains("inf");
    }
    match text.parse::<i128>() {
        Ok(whole) => number as i128 == whole,
        Err(_) => true,
    }
}

fn has_nanoseconds_at_most(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    digits.skip(9).all(|digit| digit == b'0')
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Decimal256Array, Float64Array, Int64Array, NullArray, StringViewArray,
        TimestampMicrosecondArray, TimestampSecondArray, UInt64Array,
    };

    use super::*;

    fn time() -> DataType {
        DataType::Timestamp(TimeUnit::Nanosecond, None)
    }

    fn fitted(values: ArrayRef, column: &DataType) -> Result<String> {
        let fitted = fitting(&values, &Field::new("c", column.clone(), true), Some(1))?;
        assert_eq!(fitted.data_type(), column);
        Ok(array_value_to_string(&fitted, 0).unwrap())
    }

    fn text(value: &str) -> ArrayRef {
        Arc::new(StringViewArray::from(vec![value]))
    }

    fn double(value: f64) -> ArrayRef {
        Arc::new(Float64Array::from(vec![value]))
    }

    fn integer(value: i64) -> ArrayRef {
        Arc::new(Int64Array::from(vec![value]))
    }

    fn decimal(unscaled: i128, precision: u8, scale: i8) -> ArrayRef {
        let values = Decimal128Array::from(vec![unscaled]).with_precision_and_scale(precision, scale);
        Arc::new(values.unwrap())
    }

    #[test]
    fn a_value_that_a_column_can_hold_is_held() {
        use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Int8, Int64, Utf8View};
        let zone = TimestampMicrosecondArray::from(vec![1_000_000]).with_timezone("+02:00");
        let long = Decimal256Array::from(vec![arrow::datatypes::i256::from_i128(150)]);
        for (values, column, expected) in [
            (double(1.5), Decimal128(5, 2), "1.50"),
            (double(0.1), Decimal128(38, 10), "0.1000000000"),
            (double(123_456_789.123), Decimal128(38, 10), "123456789.1230000000"),
            (double(-0.0), Decimal128(5, 2), "0.00"),
            (double(0.1), Float32, "0.1"),
            (double(f64::INFINITY), Float32, "inf"),
            (double(3.0), Int8, "3"),
            (double(-0.0), Int64, "0"),
            (integer(16_777_216), Float32, "16777216.0"),
            (integer(-5), Decimal128(5, 2), "-5.00"),
            (decimal(1_050, 10, 3), Decimal128(5, 2), "1.05"),
            (
                Arc::new(long.with_precision_and_scale(50, 2).unwrap()),
                Decimal128(5, 1),
                "1.5",
            ),
            (decimal(300, 5, 2), Int8, "3"),
            (decimal(1, 5, 1), Float64, "0.1"),
            (text("1.50"), Decimal128(5, 1), "1.5"),
            (text(" -12e-1 "), Decimal128(5, 2), "-1.20"),
            (
                text("99999999999999999999999999999999999999"),
                Decimal128(38, 0),
                "99999999999999999999999999999999999999",
            ),
            (text("inf"), Float64, "inf"),
            (text("0.1"), Float32, "0.1"),
            (text("true"), Boolean, "true"),
            (text("2024-01-31"), Date32, "2024-01-31"),
            (text("2024-01-31T00:00:00"), Date32, "2024-01-31"),
            (text("9999-12-31"), Date32, "9999-12-31"),
            (
                text("2024-01-31 12:00:00.123456789"),
                time(),
                "2024-01-31T12:00:00.123456789",
            ),
            (
                Arc::new(TimestampSecondArray::from(vec![-86_400])),
                Date32,
                "1969-12-31",
            ),
            (Arc::new(Date32Array::from(vec![-1])), time(), "1969-12-31T00:00:00"),
            (Arc::new(zone), time(), "1970-01-01T00:00:01"),
            (integer(5), Utf8View, "5"),
            (Arc::new(NullArray::new(1)), Decimal128(5, 2), ""),
        ] {
            assert_eq!(
                fitted(Arc::clone(&values), &column).unwrap(),
                expected,
                "{values:?} into {column}"
            );
        }
    }

    #[test]
    fn a_value_that_would_become_another_one_is_refused() {
        use DataType::{Boolean, Date32, Decimal128, Float32, Float64, Int8, Int64, UInt8};
        for (values, column, why) in [
            (double(1.005), Decimal128(5, 2), "one digit too many"),
            (double(1.239), Decimal128(10, 2), "rounded"),
            (double(1000.0), Decimal128(5, 2), "too large"),
            (
                double(18_446_744_073_709_551_617.0),
                Decimal128(38, 0),
                "these were not its digits",
            ),
            (double(0.1 + 0.2), Decimal128(38, 20), "nor these"),
            (double(f64::NAN), Decimal128(5, 2), "no number"),
            (double(f64::INFINITY), Decimal128(5, 2), "no number"),
            (double(1e300), Float32, "infinite"),
            (double(1.5), Int64, "between two"),
            (double(1e17), Int64, "one of several"),
            (double(f64::NAN), Int64, "no number"),
            (integer(16_777_217), Float32, "the one below"),
            (integer(9_007_199_254_740_993), Float64, "the one below"),
            (integer(i64::MAX), Float64, "the one above"),
            (integer(128), Int8, "too large"),
            (integer(-1), UInt8, "too small"),
            (integer(1000), Decimal128(5, 2), "too large"),
            (Arc::new(UInt64Array::from(vec![u64::MAX])), Int64, "too large"),
            (decimal(1_005, 10, 3), Decimal128(5, 2), "rounded"),
            (decimal(301, 5, 2), Int8, "cut"),
            (text("1.239"), Decimal128(10, 2), "rounded"),
            (text("1e400"), Float64, "infinite"),
            (text("16777217"), Float32, "the one below"),
            (text("twelve"), Int64, "no number"),
            (text(""), Decimal128(5, 2), "no number"),
            (text("."), Decimal128(5, 2), "no number"),
            (text("1e999999999"), Decimal128(5, 2), "too large"),
            (text("yesterday"), time(), "no time"),
            (text("2024-01-31 12:00:00.1234567891"), time(), "cut"),
            (text("2024-01-31 12:00:00"), Date32, "the time is lost"),
            (text("9999-12-31T12:00:00"), Date32, "the time is lost"),
            (text("2"), Boolean, "neither"),
            (
                Arc::new(TimestampSecondArray::from(vec![1])),
                Date32,
                "the time is lost",
            ),
            (
                Arc::new(TimestampSecondArray::from(vec![i64::MAX / 2])),
                time(),
                "beyond 2262",
            ),
            (Arc::new(Date32Array::from(vec![i32::MAX])), time(), "beyond 2262"),
            (integer(5), time(), "of which unit?"),
            (integer(2), Boolean, "neither"),
            (Arc::new(BooleanArray::from(vec![true])), Int64, "no number"),
        ] {
            let error = fitted(Arc::clone(&values), &column).expect_err(why);
            assert!(
                matches!(error, Error::User(_)),
                "{values:?} into {column}, {why}: {error:?}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_column_row_and_types() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![None, Some(1.25), Some(1.239)]));
        let field = Field::new("price", DataType::Decimal128(10, 2), true);
        assert_eq!(
            fitting(&values, &field, Some(11)).unwrap_err().to_string(),
            "column `price` is DECIMAL(10, 2), and row 13 has 1.239 (DOUBLE), which does not fit unchanged; \
             round it, CAST it, or write its digits as text"
        );
        assert_eq!(
            fitting(&text(&"x".repeat(100)), &field, None).unwrap_err().to_string(),
            format!(
                "column `price` is DECIMAL(10, 2), and the new value is '{}…' (VARCHAR), which does not fit unchanged; \
                 write one that does",
                "x".repeat(60)
            )
        );
        assert_eq!(
            fitting(&(Arc::new(BooleanArray::from(vec![true])) as ArrayRef), &field, None)
                .unwrap_err()
                .to_string(),
            "column `price` is DECIMAL(10, 2) and takes no BOOLEAN; CAST it"
        );
    }
}
