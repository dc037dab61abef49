//! Totals: what holds the sum of any rows of a type, in two parts, and whether it fits the result.

use std::fmt::Debug;

use arrow::{
    array::{ArrowNativeTypeOp, ArrowNumericType},
    datatypes::{
        ArrowPrimitiveType, DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType,
        Int64Type, UInt64Type, i256,
    },
};
use datafusion::common::{DataFusionError, Result};

use crate::types::{Error, type_name};

/// A type of numbers and what holds their totals.
///
/// A total is also `low + carry * 2^bits`, where `low` has the numbers' own type: a carry is rare, and adding to `low` is fast.
pub trait Exact: ArrowNumericType + Debug + Send {
    type Total: DecimalType + Debug + Send;

    fn widen(value: Self::Native) -> Native<Self>;

    /// Adds to `low`, and gives what is to be carried.
    fn add(low: &mut Self::Native, value: Self::Native) -> i64;

    fn split(total: Native<Self>) -> (Self::Native, i64);

    fn join(low: Self::Native, carry: i64) -> Native<Self>;

    /// Whether a number of this type has as many digits as the type of the result.
    fn fits(value: Self::Native, data_type: &DataType) -> bool;

    fn plus(total: Native<Self>, other: Native<Self>) -> Native<Self> {
        total.add_wrapping(other)
    }

    fn minus(total: Native<Self>, other: Native<Self>) -> Native<Self> {
        total.sub_wrapping(other)
    }
}

pub type Native<V> = <<V as Exact>::Total as ArrowPrimitiveType>::Native;

// 2^63 rows of 64 bits stay below 2^127, so totals of 128 bits do not wrap.
macro_rules! exact_in_128_bits {
    ($of:ty, $native:ty, $fits:expr) => {
        impl Exact for $of {
            type Total = Decimal128Type;

            fn widen(value: $native) -> i128 {
                value.into()
            }

            fn add(low: &mut $native, value: $native) -> i64 {
                let (sum, wraps) = low.overflowing_add(value);
                // Only numbers of one sign wrap, and then the sum is on the other side.
                let carry = if sum < value { 1 } else { -1 };
                *low = sum;
                if wraps { carry } else { 0 }
            }

            fn split(total: i128) -> ($native, i64) {
                let low = total as $native;
                (low, ((total - i128::from(low)) >> <$native>::BITS) as i64)
            }

            fn join(low: $native, carry: i64) -> i128 {
                i128::from(low) + (i128::from(carry) << <$native>::BITS)
            }

            fn fits(value: $native, data_type: &DataType) -> bool {
                let fits: fn($native, &DataType) -> bool = $fits;
                fits(value, data_type)
            }
        }
    };
}

exact_in_128_bits!(Int64Type, i64, |_, _| true);
exact_in_128_bits!(UInt64Type, u64, |_, _| true);
exact_in_128_bits!(Decimal32Type, i32, within::<Decimal32Type>);
exact_in_128_bits!(Decimal64Type, i64, within::<Decimal64Type>);

// 2^63 rows of 38 digits stay far below 2^255.
impl Exact for Decimal128Type {
    type Total = Decimal256Type;

    fn widen(value: i128) -> i256 {
        i256::from_i128(value)
    }

    fn add(low: &mut i128, value: i128) -> i64 {
        let (sum, wraps) = low.overflowing_add(value);
        let carry = if sum < value { 1 } else { -1 };
        *low = sum;
        if wraps { carry } else { 0 }
    }

    fn split(total: i256) -> (i128, i64) {
        let (low, high) = total.to_parts();
        let low = low as i128;
        // What `low` lacks where its highest bit is taken for a sign.
        (low, (high + i128::from(low < 0)) as i64)
    }

    fn join(low: i128, carry: i64) -> i256 {
        i256::from_parts(0, carry.into()).wrapping_add(i256::from_i128(low))
    }

    fn fits(value: i128, data_type: &DataType) -> bool {
        within::<Self>(value, data_type)
    }
}

/// There is nothing wider: a total that leaves 256 bits, five times what any result may be, is out for good once it is saved.
impl Exact for Decimal256Type {
    type Total = Decimal256Type;

    fn widen(value: i256) -> i256 {
        value
    }

    fn add(low: &mut i256, value: i256) -> i64 {
        match low.checked_add(value) {
            Some(sum) => {
                *low = sum;
                0
            }
            None => {
                *low = low.wrapping_add(value);
                if value < i256::ZERO { -1 } else { 1 }
            }
        }
    }

    fn split(total: i256) -> (i256, i64) {
        (total, 0)
    }

    fn join(low: i256, carry: i64) -> i256 {
        if carry == 0 { low } else { i256::MAX }
    }

    fn fits(value: i256, data_type: &DataType) -> bool {
        within::<Self>(value, data_type)
    }

    fn plus(total: i256, other: i256) -> i256 {
        match total == i256::MAX || other == i256::MAX {
            true => i256::MAX,
            false => total.checked_add(other).unwrap_or(i256::MAX),
        }
    }

    fn minus(total: i256, other: i256) -> i256 {
        match total == i256::MAX || other == i256::MAX {
            true => i256::MAX,
            false => total.checked_sub(other).unwrap_or(i256::MAX),
        }
    }
}

/// The types of what is summed up and of the result; DataFusion gives both the same, but for digits.
macro_rules! of_type {
    ($data_type:expr, $make:ident, $arguments:tt) => {
        match $data_type {
            DataType::Int64 => Some($make::<Int64Type>$arguments),
            DataType::UInt64 => Some($make::<UInt64Type>$arguments),
            DataType::Decimal32(..) => Some($make::<Decimal32Type>$arguments),
            DataType::Decimal64(..) => Some($make::<Decimal64Type>$arguments),
            DataType::Decimal128(..) => Some($make::<Decimal128Type>$arguments),
            DataType::Decimal256(..) => Some($make::<Decimal256Type>$arguments),
            _ => None,
        }
    };
}
pub(super) use of_type;

/// What a total is kept and saved as, of a result of this type; `None` where DataFusion sums up.
pub fn total_type(data_type: &DataType) -> Option<DataType> {
    fn of<V: Exact>(data_type: &DataType) -> DataType {
        V::Total::TYPE_CONSTRUCTOR(V::Total::MAX_PRECISION, digits(data_type).1)
    }
    of_type!(data_type, of, (data_type))
}

pub fn fitting<V: Exact>(total: Native<V>, data_type: &DataType) -> Result<V::Native> {
    let (low, carry) = V::split(total);
    match carry == 0 && V::fits(low, data_type) {
        true => Ok(low),
        false => Err(misfit::<V>(total, data_type)),
    }
}

pub fn misfit<V: Exact>(total: Native<V>, data_type: &DataType) -> DataFusionError {
    let (_, scale) = digits(data_type);
    let shown = V::Total::format_decimal(total, V::Total::MAX_PRECISION, scale);
    let sentence = format!("the sum {shown} does not fit {}", type_name(data_type));
    DataFusionError::External(Box::new(Error::user(sentence)))
}

fn within<T: DecimalType>(value: T::Native, data_type: &DataType) -> bool {
    T::is_valid_decimal_precision(value, digits(data_type).0)
}

/// Precision and scale; integers have no digits behind the point.
fn digits(data_type: &DataType) -> (u8, i8) {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (*precision, *scale),
        _ => (38, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_the_same_in_two_parts() {
        for total in [
            0,
            1,
            -1,
            i128::from(i64::MAX) + 1,
            i128::from(i64::MIN) - 1,
            5 << 64,
            -(5 << 64),
            (1 << 100) + 7,
        ] {
            let (low, carry) = Int64Type::split(total);
            assert_eq!(Int64Type::join(low, carry), total);
            let (low, carry) = UInt64Type::split(total);
            assert_eq!(UInt64Type::join(low, carry), total);
        }
        for total in [
            i256::ZERO,
            i256::MINUS_ONE,
            i256::from_i128(i128::MAX) + i256::ONE,
            i256::from_i128(i128::MIN) - i256::ONE,
            i256::from_parts(u128::MAX, 3),
            i256::from_parts(1 << 127, -3),
        ] {
            let (low, carry) = Decimal128Type::split(total);
            assert_eq!(Decimal128Type::join(low, carry), total);
        }
    }
}
