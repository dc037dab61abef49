//! Rows whose columns equal given values: `symbol` is one of `ADA-USDT, BTC-USDT`, and `side` is `buy`.
//!
//! Values come as text and are read once, as the type of their column; a value that does not fit is the asker's mistake.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, Scalar, StringArray},
    compute::{CastOptions, cast_with_options, filter_record_batch, kernels::cmp, or},
    datatypes::{DataType, Field, Schema, TimeUnit},
};

use crate::types::{Error, Result, limits};

use super::{params::parse_time, problem::Refusal};

#[derive(Debug)]
pub struct Filter {
    conditions: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    column: usize,
    /// One row each, of the column's type; none of them matches nothing.
    values: Vec<Scalar<ArrayRef>>,
}

impl Filter {
    /// All columns must match, each by any of its values.
    ///
    /// # Errors
    /// For a column that is not there, and for a value that is not one of its type.
    pub fn new<'a>(
        schema: &Schema,
        conditions: impl IntoIterator<Item = (&'a str, Vec<String>)>,
    ) -> Result<Self, Refusal> {
        let conditions = conditions.into_iter().map(|(name, texts)| {
            let Some((column, field)) = schema.column_with_name(name) else {
                return Err(Refusal::unknown_column(
                    name,
                    schema.fields().iter().map(|field| field.name().as_str()),
                ));
            };
            if limits::FILTER_VALUES_MAX < texts.len() {
                return Err(Refusal::too_large(format!(
                    "{name} is compared with more than {} values",
                    limits::FILTER_VALUES_MAX
                )));
            }
            let values = texts.iter().map(|text| value(field, text)).collect::<Result<_, _>>()?;
            Ok(Condition { column, values })
        });
        Ok(Self {
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let bug = |error: arrow::error::ArrowError| Error::bug(format!("rows cannot be compared: {error}"));
        let mut kept = rows.clone();
        for condition in &self.conditions {
            let column = kept.column(condition.column);
            let mut mask = BooleanArray::from(vec![false; kept.num_rows()]);
            for value in &condition.values {
                mask = or(&mask, &cmp::eq(column, value).map_err(bug)?).map_err(bug)?;
            }
            kept = filter_record_batch(&kept, &mask).map_err(bug)?;
        }
        Ok(kept)
    }
}

/// Reads a text as one value of the column's type; a dictionary's values are compared by what they stand for.
fn value(field: &Field, text: &str) -> Result<Scalar<ArrayRef>, Refusal> {
    let data_type = match field.data_type() {
        DataType::Dictionary(_, values) => values,
        other => other,
    };
    let misfit = || {
        let type_name = crate::types::type_name(data_type);
        Refusal::parameter(format!(
            "{text} is not a value of {}, which is {type_name}",
            field.name()
        ))
    };
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = |array: ArrayRef, to: &DataType| cast_with_options(&array, to, &options).map_err(|_| misfit());
    let read = match data_type {
        DataType::Timestamp(..) => {
            let nanos: ArrayRef = Arc::new(Int64Array::from(vec![parse_time(text).ok_or_else(misfit)?]));
            // In UTC first: a time without a zone would be taken for a local one.
            let zone = match data_type {
                DataType::Timestamp(_, Some(_)) => Some("UTC".into()),
                _ => None,
            };
            cast(
                cast(nanos, &DataType::Timestamp(TimeUnit::Nanosecond, zone))?,
                data_type,
            )?
        }
        _ => cast(Arc::new(StringArray::from(vec![text])), data_type)?,
    };
    if read.is_null(0) || data_type.is_nested() {
        return Err(misfit());
    }
    Ok(Scalar::new(read))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{
            Decimal128Array, DictionaryArray, Float32Array, Int32Array, StringViewArray, TimestampNanosecondArray,
            types::Int32Type,
        },
        util::display::array_value_to_string,
    };

    use super::*;

    fn rows() -> RecordBatch {
        let symbols: DictionaryArray<Int32Type> = [Some("ADA"), Some("BTC"), None, Some("ADA")].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("row", Arc::new(Int32Array::from(vec![0, 1, 2, 3]))),
            ("symbol", Arc::new(symbols)),
            (
                "side",
                Arc::new(StringViewArray::from(vec!["buy", "buy", "sell", "sell"])),
            ),
            ("price", Arc::new(Float32Array::from(vec![0.1, 0.2, 0.1, f32::NAN]))),
            (
                "at",
                Arc::new(TimestampNanosecondArray::from(vec![0, 1_000_000, 2_000_000, 3_000_000])),
            ),
            (
                "paid",
                Arc::new(
                    Decimal128Array::from(vec![150, 250, 350, 450])
                        .with_precision_and_scale(10, 2)
                        .unwrap(),
                ),
            ),
            ("ok", Arc::new(BooleanArray::from(vec![true, false, true, false]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn matching(conditions: &[(&str, &[&str])]) -> Vec<String> {
        let rows = rows();
        let conditions = conditions
            .iter()
            .map(|(name, values)| (*name, values.iter().map(|v| (*v).to_owned()).collect()));
        let kept = Filter::new(rows.schema_ref(), conditions)
            .unwrap()
            .apply(&rows)
            .unwrap();
        (0..kept.num_rows())
            .map(|row| array_value_to_string(kept.column(0), row).unwrap())
            .collect()
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a case is read where the table stands")]
    fn rows_match_by_the_type_of_the_column() {
        let cases: &[(&[(&str, &[&str])], &[&str], &str)] = &[
            (&[], &["0", "1", "2", "3"], "no condition keeps all"),
            (
                &[("symbol", &["ADA"])],
                &["0", "3"],
                "a dictionary by its values, null by none",
            ),
            (&[("symbol", &["ADA", "BTC"])], &["0", "1", "3"], "any of the values"),
            (&[("symbol", &[])], &[], "none of no values"),
            (
                &[("symbol", &["ADA"]), ("side", &["sell"])],
                &["3"],
                "all of the conditions",
            ),
            (&[("price", &["0.1"])], &["0", "2"], "a REAL is compared as a REAL"),
            (&[("at", &["1970-01-01T00:00:00.001Z"])], &["1"], "a time"),
            (&[("at", &["2"])], &["2"], "a time in milliseconds"),
            (&[("paid", &["2.5"])], &["1"], "a decimal whatever its zeros"),
            (&[("ok", &["true"])], &["0", "2"], "a flag"),
        ];
        for (conditions, expected, why) in cases {
            assert_eq!(matching(conditions), *expected, "{why}");
        }
    }

    #[test]
    fn a_value_that_is_not_one_is_the_askers_mistake() {
        for (name, text) in [
            ("row", "1.5"),
            ("row", "x"),
            ("at", "yesterday"),
            ("price", "cheap"),
            ("ok", "perhaps"),
            ("row", "9999999999"),
        ] {
            let refusal = Filter::new(rows().schema_ref(), [(name, vec![text.to_owned()])]).unwrap_err();
            assert_eq!(refusal.status(), 400, "{name} = {text}");
        }
        let many = vec!["ADA".to_owned(); limits::FILTER_VALUES_MAX + 1];
        assert_eq!(
            Filter::new(rows().schema_ref(), [("symbol", many)])
                .unwrap_err()
                .status(),
            413
        );
    }
}
