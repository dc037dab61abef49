//! `first_value` and `last_value`, ordered by one column of whole numbers or times: a flat slot per group.
//!
//! ```text
//! value, order ─▶ slot of the group { order, value } ── is the order before (after) it? ─▶ replaced
//! ```
//! DataFusion's own keeps a list of scalars per group, which costs more than the rows where groups are read out every epoch. The
//! meaning and the state (value, order, is set) are the same: of rows that are equal in order the one that came first stays.

use std::{cmp::Ordering, mem::size_of, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray},
    buffer::{BooleanBuffer, NullBuffer, ScalarBuffer},
    compute::SortOptions,
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use datafusion::{
    common::{DataFusionError, Result},
    logical_expr::{EmitTo, GroupsAccumulator},
    physical_expr::aggregate::AggregateFunctionExpr,
};

/// The accumulator of a function over a value and an order of these types; `None` where DataFusion's own has to do.
pub fn accumulator(function: &AggregateFunctionExpr, types: &[DataType]) -> Option<Box<dyn GroupsAccumulator>> {
    let is_first = match function.fun().name() {
        "first_value" => true,
        "last_value" => false,
        _ => return None,
    };
    let ([order], [value_type, order_type]) = (function.order_bys(), types) else {
        return None;
    };
    if function.is_distinct() || function.is_reversed() || !is_whole(order_type) {
        return None;
    }
    let rule = Rule {
        is_first,
        options: order.options,
        ignores_nulls: function.ignore_nulls(),
    };
    macro_rules! of {
        ($type:ty) => {
            Some(Box::new(OrderedValue::<$type>::new(
                rule,
                value_type.clone(),
                order_type.clone(),
            )))
        };
    }
    match value_type {
        DataType::Int8 => of!(Int8Type),
        DataType::Int16 => of!(Int16Type),
        DataType::Int32 => of!(Int32Type),
        DataType::Int64 => of!(Int64Type),
        DataType::UInt8 => of!(UInt8Type),
        DataType::UInt16 => of!(UInt16Type),
        DataType::UInt32 => of!(UInt32Type),
        DataType::UInt64 => of!(UInt64Type),
        DataType::Float32 => of!(Float32Type),
        DataType::Float64 => of!(Float64Type),
        DataType::Decimal128(..) => of!(Decimal128Type),
        DataType::Date32 => of!(Date32Type),
        DataType::Timestamp(TimeUnit::Second, _) => of!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => of!(TimestampNanosecondType),
        _ => None,
    }
}

/// Whether values of this type are 64-bit integers in memory.
fn is_whole(order_type: &DataType) -> bool {
    matches!(order_type, DataType::Int64 | DataType::Timestamp(..))
}

fn wholes(orders: &ArrayRef) -> &ScalarBuffer<i64> {
    match orders.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => orders.as_primitive::<TimestampSecondType>().values(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => orders.as_primitive::<TimestampMillisecondType>().values(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => orders.as_primitive::<TimestampMicrosecondType>().values(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => orders.as_primitive::<TimestampNanosecondType>().values(),
        _ => orders.as_primitive::<Int64Type>().values(),
    }
}

#[derive(Clone, Copy)]
struct Rule {
    is_first: bool,
    options: SortOptions,
    ignores_nulls: bool,
}

impl Rule {
    /// Whether a row takes the place of one that was there before it.
    fn wins(self, new: Option<i64>, old: Option<i64>) -> bool {
        let ordering = match (new, old) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) if self.options.nulls_first => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) if self.options.nulls_first => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(new), Some(old)) if self.options.descending => old.cmp(&new),
            (Some(new), Some(old)) => new.cmp(&old),
        };
        ordering
            == if self.is_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
    }

    /// Whether, of numbers, the lower one wins.
    fn wants_lowest(self) -> bool {
        self.is_first != self.options.descending
    }
}

struct OrderedValue<T: ArrowPrimitiveType> {
    rule: Rule,
    value_type: DataType,
    order_type: DataType,
    slots: Vec<Slot<T::Native>>,
    /// Some slot has no number as its order.
    has_null_order: bool,
}

#[derive(Clone, Copy, Default)]
struct Slot<V> {
    order: i64,
    value: V,
    is_set: bool,
    has_order: bool,
    has_value: bool,
}

impl<T: ArrowPrimitiveType> OrderedValue<T> {
    fn new(rule: Rule, value_type: DataType, order_type: DataType) -> Self {
        Self {
            rule,
            value_type,
            order_type,
            slots: Vec::new(),
            has_null_order: false,
        }
    }

    fn take(
        &mut self,
        values: &ArrayRef,
        orders: &ArrayRef,
        groups: &[usize],
        counts: Option<&BooleanArray>,
        total: usize,
    ) {
        self.slots.resize(total, Slot::default());
        let values = values.as_primitive::<T>();
        let is_plain = counts.is_none() && values.null_count() == 0 && orders.null_count() == 0;
        let (values, value_nulls, order_nulls) = (values.values(), values.nulls(), orders.nulls());
        let orders = wholes(orders);
        if is_plain && !self.has_null_order {
            // The loop that nearly all rows go through.
            if self.rule.wants_lowest() {
                take_plain(&mut self.slots, values, orders, groups, |new, old| new < old);
            } else {
                take_plain(&mut self.slots, values, orders, groups, |new, old| old < new);
            }
            return;
        }
        for (row, group) in groups.iter().enumerate() {
            let has_value = value_nulls.is_none_or(|nulls| nulls.is_valid(row));
            let is_counted = counts.is_none_or(|counts| counts.is_valid(row) && counts.value(row));
            if !is_counted || self.rule.ignores_nulls && !has_value {
                continue;
            }
            let order = order_nulls.is_none_or(|nulls| nulls.is_valid(row)).then(|| orders[row]);
            let slot = &mut self.slots[*group];
            if slot.is_set && !self.rule.wins(order, slot.has_order.then_some(slot.order)) {
                continue;
            }
            self.has_null_order |= order.is_none();
            *slot = Slot {
                order: order.unwrap_or_default(),
                value: values[row],
                is_set: true,
                has_order: order.is_some(),
                has_value,
            };
        }
    }

    fn emit(&mut self, emit_to: EmitTo) -> Vec<Slot<T::Native>> {
        let slots = emit_to.take_needed(&mut self.slots);
        self.has_null_order = self.slots.iter().any(|slot| slot.is_set && !slot.has_order);
        slots
    }

    fn values(&self, slots: &[Slot<T::Native>]) -> ArrayRef {
        let values: ScalarBuffer<T::Native> = slots.iter().map(|slot| slot.value).collect();
        let nulls = NullBuffer::from_iter(slots.iter().map(|slot| slot.has_value));
        Arc::new(PrimitiveArray::<T>::new(values, Some(nulls)).with_data_type(self.value_type.clone()))
    }

    fn orders(&self, slots: &[Slot<T::Native>]) -> ArrayRef {
        let orders: ScalarBuffer<i64> = slots.iter().map(|slot| slot.order).collect();
        let nulls = NullBuffer::from_iter(slots.iter().map(|slot| slot.has_order));
        let orders = Int64Array::new(orders, Some(nulls));
        match &self.order_type {
            DataType::Timestamp(unit, zone) => {
                macro_rules! of {
                    ($type:ty) => {
                        Arc::new(
                            orders
                                .reinterpret_cast::<$type>()
                                .with_timezone_opt(zone.clone()),
                        )
                    };
                }
                match unit {
                    TimeUnit::Second => of!(TimestampSecondType),
                    TimeUnit::Millisecond => of!(TimestampMillisecondType),
                    TimeUnit::Microsecond => of!(TimestampMicrosecondType),
                    TimeUnit::Nanosecond => of!(TimestampNanosecondType),
                }
            }
            _ => Arc::new(orders),
        }
    }
}

fn take_plain<V: Copy>(
    slots: &mut [Slot<V>],
    values: &[V],
    orders: &[i64],
    groups: &[usize],
    wins: impl Fn(i64, i64) -> bool,
) {
    for ((group, order), value) in groups.iter().zip(orders).zip(values) {
        let slot = &mut slots[*group];
        if !slot.is_set || wins(*order, slot.order) {
            *slot = Slot {
                order: *order,
                value: *value,
                is_set: true,
                has_order: true,
                has_value: true,
            };
        }
    }
}

impl<T: ArrowPrimitiveType + Send> GroupsAccumulator for OrderedValue<T> {
    fn update_batch(
        &mut self,
        columns: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.take(&columns[0], &columns[1], groups, filter, total);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        let is_set = states[2].as_boolean();
        let counts = (is_set.null_count() != 0 || is_set.has_false()).then_some(is_set);
        self.take(&states[0], &states[1], groups, counts, total);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let slots = self.emit(emit_to);
        Ok(self.values(&slots))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let slots = self.emit(emit_to);
        let is_set: BooleanBuffer = slots.iter().map(|slot| slot.is_set).collect();
        Ok(vec![
            self.values(&slots),
            self.orders(&slots),
            Arc::new(BooleanArray::new(is_set, None)),
        ])
    }

    fn convert_to_state(&self, _values: &[ArrayRef], _filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        Err(DataFusionError::Internal(
            "rows are aggregated before they are a state".into(),
        ))
    }

    fn size(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<T::Native>>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Float64Array, TimestampNanosecondArray},
        datatypes::{Field, Schema},
    };
    use datafusion::{
        functions_aggregate::first_last::{first_value_udaf, last_value_udaf},
        physical_expr::{PhysicalExpr, PhysicalSortExpr, aggregate::AggregateExprBuilder, expressions::Column},
    };
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn function(is_first: bool, options: SortOptions, ignores_nulls: bool) -> AggregateFunctionExpr {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let schema = Arc::new(Schema::new(vec![
            Field::new("value", DataType::Float64, true),
            Field::new("time", time, true),
        ]));
        let column = |index: usize| Arc::new(Column::new(schema.field(index).name(), index)) as Arc<dyn PhysicalExpr>;
        let udaf = if is_first {
            first_value_udaf()
        } else {
            last_value_udaf()
        };
        let order = PhysicalSortExpr::new(column(1), options);
        AggregateExprBuilder::new(udaf, vec![column(0)])
            .schema(Arc::clone(&schema))
            .alias("f")
            .order_by(vec![order])
            .with_ignore_nulls(ignores_nulls)
            .build()
            .unwrap()
    }

    /// Few distinct orders, nulls and filters, so that there are ties and groups without a row.
    fn rows(random: &mut StdRng, count: usize, has_nulls: bool) -> (Vec<ArrayRef>, Vec<usize>, BooleanArray) {
        let maybe = |value: i64, random: &mut StdRng| (!has_nulls || random.random_bool(0.7)).then_some(value);
        let values: Float64Array = (0..count)
            .map(|row| maybe(row as i64, random).map(|v| v as f64))
            .collect();
        let orders: TimestampNanosecondArray = (0..count)
            .map(|_| {
                let order = random.random_range(-3..3);
                maybe(order, random)
            })
            .collect();
        let groups = (0..count).map(|_| random.random_range(0..6)).collect();
        let filter = (0..count)
            .map(|_| maybe(1, random).map(|_| random.random_bool(0.7)))
            .collect();
        let columns = vec![Arc::new(values) as ArrayRef, Arc::new(orders.with_timezone("UTC"))];
        (columns, groups, filter)
    }

    #[test]
    fn values_and_states_are_those_of_datafusion() {
        let mut random = StdRng::seed_from_u64(7);
        for case in 0..400 {
            let options = SortOptions {
                descending: case & 1 != 0,
                nulls_first: case & 2 != 0,
            };
            let function = function(case & 4 != 0, options, case & 8 != 0);
            let has_nulls = case & 16 != 0;
            let types = [
                DataType::Float64,
                DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            ];
            let ours = || accumulator(&function, &types).expect("a float by a time is one of ours");
            let theirs = || function.create_groups_accumulator().unwrap();
            let (mut a, mut b, mut a_merged, mut b_merged) = (ours(), theirs(), ours(), theirs());
            for _ in 0..3 {
                let (mut a_part, mut b_part) = (ours(), theirs());
                let count = random.random_range(1..20);
                let (columns, groups, filter) = rows(&mut random, count, has_nulls);
                let filter = (case & 32 != 0).then_some(&filter);
                for all in [&mut a, &mut b, &mut a_part, &mut b_part] {
                    all.update_batch(&columns, &groups, filter, 6).unwrap();
                }
                let state = a_part.state(EmitTo::All).unwrap();
                assert_eq!(state, b_part.state(EmitTo::All).unwrap(), "state, case {case}");
                for merged in [&mut a_merged, &mut b_merged] {
                    merged.merge_batch(&state, &[0, 1, 2, 3, 4, 5], 6).unwrap();
                }
            }
            let value = b.evaluate(EmitTo::All).unwrap();
            assert_eq!(&a.evaluate(EmitTo::All).unwrap(), &value, "value, case {case}");
            assert_eq!(&a_merged.evaluate(EmitTo::All).unwrap(), &value, "merged, case {case}");
            assert_eq!(
                &b_merged.evaluate(EmitTo::All).unwrap(),
                &value,
                "merged by DataFusion, case {case}"
            );
        }
    }
}
