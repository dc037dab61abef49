//! The manual of `sum`: what fits, what counts, and in any cut the same.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Decimal128Array, Int64Array, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{
    common::ScalarValue,
    logical_expr::{AggregateUDF, EmitTo},
    physical_expr::{
        PhysicalExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
        expressions::Column,
    },
};

use crate::types::reason_of;

use super::ExactSum;

const NO_FILTER: Option<&BooleanArray> = None;

fn sum(data_type: &DataType, is_distinct: bool) -> AggregateFunctionExpr {
    let schema = Arc::new(Schema::new(vec![Field::new("x", data_type.clone(), true)]));
    let column = Arc::new(Column::new("x", 0)) as Arc<dyn PhysicalExpr>;
    let function = Arc::new(AggregateUDF::from(ExactSum::default()));
    let builder = AggregateExprBuilder::new(function, vec![column])
        .schema(schema)
        .alias("s");
    let builder = if is_distinct { builder.distinct() } else { builder };
    builder.build().unwrap()
}

fn integers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    let values = Decimal128Array::from(values.to_vec());
    Arc::new(values.with_precision_and_scale(precision, scale).unwrap())
}

/// Of one group, by both kinds of accumulator.
fn total(values: &[ArrayRef], data_type: &DataType, is_distinct: bool) -> Result<ScalarValue, String> {
    let function = sum(data_type, is_distinct);
    let mut one = function.create_accumulator().unwrap();
    for values in values {
        one.update_batch(std::slice::from_ref(values)).unwrap();
    }
    let found = one.evaluate().map_err(|error| reason_of(&error));
    // A group is met by a row of its own.
    let has_rows = values.iter().any(|values| !values.is_empty());
    if function.groups_accumulator_supported() && has_rows {
        let mut groups = function.create_groups_accumulator().unwrap();
        for values in values {
            let of_rows = vec![0; values.len()];
            groups
                .update_batch(std::slice::from_ref(values), &of_rows, NO_FILTER, 1)
                .unwrap();
        }
        let of_groups = groups.evaluate(EmitTo::All).map_err(|error| reason_of(&error));
        let of_groups = of_groups.map(|array| ScalarValue::try_from_array(&array, 0).unwrap());
        assert_eq!(of_groups, found);
    }
    found
}

#[test]
fn only_the_whole_sum_has_to_fit() {
    let (least, most) = (Some(i64::MIN), Some(i64::MAX));
    for (parts, expected) in [
        (vec![integers(&[most]), integers(&[Some(1), Some(-1)])], Ok(i64::MAX)),
        (vec![integers(&[Some(1), most, Some(-1)])], Ok(i64::MAX)),
        (vec![integers(&[least, least, most, most])], Ok(-2)),
        (
            vec![integers(&[most]), integers(&[Some(1)])],
            Err("the sum 9223372036854775808 does not fit BIGINT"),
        ),
        (
            vec![integers(&[least, Some(-1)])],
            Err("the sum -9223372036854775809 does not fit BIGINT"),
        ),
    ] {
        let expected = expected.map(|sum| ScalarValue::Int64(Some(sum))).map_err(str::to_owned);
        assert_eq!(total(&parts, &DataType::Int64, false), expected);
    }
}

#[test]
fn nulls_count_for_nothing() {
    for (values, expected) in [
        (vec![], None),
        (vec![None, None], None),
        (vec![None, Some(3), None], Some(3)),
        (vec![Some(0)], Some(0)),
    ] {
        let found = total(&[integers(&values)], &DataType::Int64, false);
        assert_eq!(found, Ok(ScalarValue::Int64(expected)), "{values:?}");
    }
}

#[test]
fn unsigned_numbers_and_decimals_have_their_own_bounds() {
    let most: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
    assert_eq!(
        total(&[most], &DataType::UInt64, false),
        Err("the sum 18446744073709551616 does not fit BIGINT UNSIGNED".to_owned())
    );
    let widest = 10_i128.pow(38) - 1;
    let data_type = DataType::Decimal128(38, 2);
    assert_eq!(
        total(&[decimals(&[widest, widest], 38, 2)], &data_type, false),
        Err("the sum 1999999999999999999999999999999999999.98 does not fit DECIMAL(38, 2)".to_owned())
    );
    assert_eq!(
        total(&[decimals(&[widest, widest, -widest], 38, 2)], &data_type, false),
        Ok(ScalarValue::Decimal128(Some(widest), 38, 2))
    );
    // Ten digits more than what is summed up.
    assert_eq!(
        total(&[decimals(&[99, 2], 2, 1)], &DataType::Decimal128(2, 1), false),
        Ok(ScalarValue::Decimal128(Some(101), 12, 1))
    );
}

#[test]
fn a_value_is_in_a_distinct_sum_once() {
    let most = Some(i64::MAX);
    for (values, expected) in [
        (vec![most, most, Some(-1), None], Ok(Some(i64::MAX - 1))),
        (
            vec![most, most, Some(1)],
            Err("the sum 9223372036854775808 does not fit BIGINT"),
        ),
        (vec![None], Ok(None)),
    ] {
        let expected = expected.map(ScalarValue::Int64).map_err(str::to_owned);
        assert_eq!(
            total(&[integers(&values)], &DataType::Int64, true),
            expected,
            "{values:?}"
        );
    }
}

#[test]
fn states_merge_in_any_order_and_a_group_that_fails_keeps_its_state() {
    let function = sum(&DataType::Int64, false);
    let state = |values: &[Option<i64>]| {
        let mut groups = function.create_groups_accumulator().unwrap();
        let of_rows: Vec<usize> = (0..values.len()).collect();
        groups
            .update_batch(&[integers(values)], &of_rows, NO_FILTER, values.len())
            .unwrap();
        groups.state(EmitTo::All).unwrap()
    };
    let parts = [
        state(&[Some(i64::MAX), None, Some(1)]),
        state(&[Some(1), None, None]),
        state(&[Some(-1), None, Some(2)]),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut groups = function.create_groups_accumulator().unwrap();
        for part in order {
            groups.merge_batch(&parts[part], &[0, 1, 2], 3).unwrap();
        }
        let expected = integers(&[Some(i64::MAX), None, Some(3)]);
        assert_eq!(&groups.evaluate(EmitTo::All).unwrap(), &expected, "{order:?}");
    }
    let mut groups = function.create_groups_accumulator().unwrap();
    groups.merge_batch(&parts[0], &[0, 1, 2], 3).unwrap();
    groups.merge_batch(&parts[1], &[0, 1, 2], 3).unwrap();
    assert!(
        groups.evaluate(EmitTo::All).is_err(),
        "the first group is one too large"
    );
    groups.merge_batch(&parts[2], &[0, 1, 2], 3).unwrap();
    assert_eq!(
        &groups.evaluate(EmitTo::First(1)).unwrap(),
        &integers(&[Some(i64::MAX)])
    );
    assert_eq!(&groups.evaluate(EmitTo::All).unwrap(), &integers(&[None, Some(3)]));
}

#[test]
fn what_left_a_frame_is_in_no_sum() {
    for is_distinct in [false, true] {
        let function = sum(&DataType::Int64, is_distinct);
        let mut frame = function.create_sliding_accumulator().unwrap();
        frame
            .update_batch(&[integers(&[Some(i64::MAX), Some(7), None])])
            .unwrap();
        assert!(frame.evaluate().is_err());
        frame.retract_batch(&[integers(&[Some(i64::MAX)])]).unwrap();
        assert_eq!(frame.evaluate().unwrap(), ScalarValue::Int64(Some(7)));
        frame.retract_batch(&[integers(&[Some(7), None])]).unwrap();
        assert_eq!(frame.evaluate().unwrap(), ScalarValue::Int64(None));
    }
}

#[test]
fn carries_stay_with_their_groups() {
    let function = sum(&DataType::Int64, false);
    let mut groups = function.create_groups_accumulator().unwrap();
    let values = integers(&[
        Some(1),
        Some(i64::MIN),
        Some(i64::MIN),
        Some(2),
        Some(i64::MAX),
        Some(1),
    ]);
    groups
        .update_batch(&[values], &[0, 1, 1, 2, 3, 3], NO_FILTER, 4)
        .unwrap();
    assert_eq!(&groups.evaluate(EmitTo::First(1)).unwrap(), &integers(&[Some(1)]));
    let back = integers(&[Some(i64::MAX), Some(1), Some(-2)]);
    groups.update_batch(&[back], &[0, 0, 2], NO_FILTER, 3).unwrap();
    let expected = integers(&[Some(i64::MIN), Some(2), Some(i64::MAX - 1)]);
    assert_eq!(&groups.evaluate(EmitTo::All).unwrap(), &expected);
}
