//! Arithmetic of integers and decimals that never wraps.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Datum},
    compute::kernels::numeric::{add, div, mul, neg, rem, sub},
    datatypes::{
        DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType,
        Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field, FieldRef,
    },
    error::ArrowError,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    common::{DataFusionError, Result},
    logical_expr::{
        ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
        binary::BinaryTypeCoercer,
    },
    physical_expr_common::datum::apply,
};

use crate::types::{Error, type_name};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    /// The only one of one argument.
    Negate,
}

impl Operation {
    fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract | Self::Negate => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }

    fn operator(self) -> Operator {
        match self {
            Self::Add => Operator::Plus,
            Self::Subtract | Self::Negate => Operator::Minus,
            Self::Multiply => Operator::Multiply,
            Self::Divide => Operator::Divide,
            Self::Remainder => Operator::Modulo,
        }
    }
}

/// One operation over integers or decimals: null where an argument is null, in the type that DataFusion gives it.
///
/// # Errors
/// [`Error::User`] with the numbers, where the result does not fit its type or a divisor is zero.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Arithmetic {
    operation: Operation,
    signature: Signature,
}

impl Arithmetic {
    pub fn new(operation: Operation) -> Self {
        let arguments = if operation == Operation::Negate { 1 } else { 2 };
        Self {
            operation,
            signature: Signature::any(arguments, Volatility::Immutable),
        }
    }

    /// Whether numbers of this type are computed here.
    pub fn takes(data_type: &DataType) -> bool {
        data_type.is_integer() || data_type.is_decimal()
    }

    fn compute(&self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
        within_precision(match self.operation {
            Operation::Add => add(left, right),
            Operation::Subtract => sub(left, right),
            Operation::Multiply => mul(left, right),
            Operation::Divide => div(left, right),
            Operation::Remainder => rem(left, right),
            Operation::Negate => neg(left.get().0),
        }?)
    }

    fn apply(&self, arguments: &[ColumnarValue]) -> Result<ColumnarValue> {
        match arguments {
            [only] => apply(only, only, |value, _| self.compute(value, value)),
            [left, right] => apply(left, right, |left, right| self.compute(left, right)),
            _ => unreachable!("the signature allows one or two arguments"),
        }
    }

    /// Names the numbers of the first row that fails.
    fn failure(&self, arguments: &ScalarFunctionArgs, error: DataFusionError) -> DataFusionError {
        let mut rows: Vec<ArrayRef> = match ColumnarValue::values_to_arrays(&arguments.args) {
            Ok(rows) => rows,
            Err(error) => return error,
        };
        let fails = |rows: &[ArrayRef]| {
            let values: Vec<_> = rows.iter().cloned().map(ColumnarValue::Array).collect();
            self.apply(&values).is_err()
        };
        let part = |rows: &[ArrayRef], from: usize, length: usize| -> Vec<ArrayRef> {
            rows.iter().map(|column| column.slice(from, length)).collect()
        };
        while 1 < rows[0].len() {
            let half = rows[0].len() / 2;
            let first = part(&rows, 0, half);
            rows = match fails(&first) {
                true => first,
                false => part(&rows, half, rows[0].len() - half),
            };
        }
        if rows[0].is_empty() || !fails(&rows) {
            return error;
        }
        let shown: Vec<String> = rows.iter().map(text_of).collect();
        let sign = self.operation.sign();
        let term = match shown.as_slice() {
            [only] => format!("-({only})"),
            [left, right] => format!("{left} {sign} {right}"),
            _ => unreachable!("the signature allows one or two arguments"),
        };
        let sentence = match error.find_root() {
            DataFusionError::ArrowError(cause, _) if matches!(**cause, ArrowError::DivideByZero) => {
                format!("{term} divides by zero")
            }
            _ => format!("{term} does not fit {}", type_name(arguments.return_field.data_type())),
        };
        DataFusionError::External(Box::new(Error::user(sentence)))
    }
}

/// The first value, as people read it.
fn text_of(column: &ArrayRef) -> String {
    match ArrayFormatter::try_new(column, &FormatOptions::default()) {
        Ok(formatter) => formatter.value(0).to_string(),
        Err(error) => error.to_string(),
    }
}

/// Decimals of the widest types may have more digits than their type says; narrower ones are given room by their type.
fn within_precision(values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    match values.data_type() {
        DataType::Decimal32(precision @ DECIMAL32_MAX_PRECISION, _) => {
            values
                .as_primitive::<Decimal32Type>()
                .validate_decimal_precision(*precision)?;
        }
        DataType::Decimal64(precision @ DECIMAL64_MAX_PRECISION, _) => {
            values
                .as_primitive::<Decimal64Type>()
                .validate_decimal_precision(*precision)?;
        }
        DataType::Decimal128(precision @ DECIMAL128_MAX_PRECISION, _) => {
            values
                .as_primitive::<Decimal128Type>()
                .validate_decimal_precision(*precision)?;
        }
        DataType::Decimal256(precision @ DECIMAL256_MAX_PRECISION, _) => {
            values
                .as_primitive::<Decimal256Type>()
                .validate_decimal_precision(*precision)?;
        }
        _ => {}
    }
    Ok(values)
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "add",
            Operation::Subtract => "subtract",
            Operation::Multiply => "multiply",
            Operation::Divide => "divide",
            Operation::Remainder => "remainder",
            Operation::Negate => "negate",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What the operator in its place was called: columns keep their names.
    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        Ok(match arguments {
            [only] => format!("(- {})", only.schema_name()),
            [left, right] => format!(
                "{} {} {}",
                left.schema_name(),
                self.operation.sign(),
                right.schema_name()
            ),
            _ => unreachable!("the signature allows one or two arguments"),
        })
    }

    fn display_name(&self, arguments: &[Expr]) -> Result<String> {
        Ok(match arguments {
            [only] => format!("(- {only})"),
            [left, right] => format!("({left} {} {right})", self.operation.sign()),
            _ => unreachable!("the signature allows one or two arguments"),
        })
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [only] => Ok(only.clone()),
            [left, right] => BinaryTypeCoercer::new(left, &self.operation.operator(), right).get_result_type(),
            _ => unreachable!("the signature allows one or two arguments"),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = arguments
            .arg_fields
            .iter()
            .map(|field| field.data_type().clone())
            .collect();
        let is_nullable = arguments.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(
            self.name(),
            self.return_type(&types)?,
            is_nullable,
        )))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.apply(&arguments.args)
            .map_err(|error| self.failure(&arguments, error))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int8Array, Int64Array, UInt64Array};
    use datafusion::common::{ScalarValue, config::ConfigOptions};

    use super::*;

    fn compute(operation: Operation, arguments: Vec<ColumnarValue>) -> Result<ArrayRef, String> {
        let function = Arithmetic::new(operation);
        let rows = arguments
            .iter()
            .find_map(|argument| match argument {
                ColumnarValue::Array(array) => Some(array.len()),
                ColumnarValue::Scalar(_) => None,
            })
            .unwrap_or(1);
        let arg_fields: Vec<FieldRef> = arguments
            .iter()
            .map(|argument| Arc::new(Field::new("a", argument.data_type(), true)))
            .collect();
        let types: Vec<DataType> = arguments.iter().map(ColumnarValue::data_type).collect();
        let return_field = Arc::new(Field::new("r", function.return_type(&types).unwrap(), true));
        function
            .invoke_with_args(ScalarFunctionArgs {
                args: arguments,
                arg_fields,
                number_rows: rows,
                return_field,
                config_options: Arc::new(ConfigOptions::default()),
            })
            .map(|value| value.into_array(rows).unwrap())
            .map_err(|error| crate::types::reason_of(&error))
    }

    fn array(values: impl Array + 'static) -> ColumnarValue {
        ColumnarValue::Array(Arc::new(values))
    }

    #[test]
    fn a_number_that_does_not_fit_is_a_sentence_with_its_terms() {
        use Operation::{Add, Divide, Multiply, Negate, Remainder, Subtract};
        let decimal = |value: i128, precision, scale| {
            ColumnarValue::Scalar(ScalarValue::Decimal128(Some(value), precision, scale))
        };
        let widest = 10_i128.pow(38) - 1;
        for (operation, arguments, expected) in [
            (
                Add,
                vec![
                    array(Int64Array::from(vec![1, 2, i64::MAX])),
                    array(Int64Array::from(vec![1, 1, 1])),
                ],
                "9223372036854775807 + 1 does not fit BIGINT",
            ),
            (
                Subtract,
                vec![array(UInt64Array::from(vec![0])), array(UInt64Array::from(vec![1]))],
                "0 - 1 does not fit BIGINT UNSIGNED",
            ),
            (
                Multiply,
                vec![
                    array(Int8Array::from(vec![100])),
                    ColumnarValue::Scalar(ScalarValue::Int8(Some(2))),
                ],
                "100 * 2 does not fit TINYINT",
            ),
            (
                Divide,
                vec![
                    array(Int64Array::from(vec![i64::MIN])),
                    array(Int64Array::from(vec![-1])),
                ],
                "-9223372036854775808 / -1 does not fit BIGINT",
            ),
            (
                Remainder,
                vec![array(Int64Array::from(vec![7])), array(Int64Array::from(vec![0]))],
                "7 % 0 divides by zero",
            ),
            (
                Negate,
                vec![array(Int64Array::from(vec![i64::MIN]))],
                "-(-9223372036854775808) does not fit BIGINT",
            ),
            (
                Add,
                vec![decimal(widest, 38, 0), decimal(1, 38, 0)],
                "99999999999999999999999999999999999999 + 1 does not fit DECIMAL(38, 0)",
            ),
        ] {
            assert_eq!(compute(operation, arguments).unwrap_err(), expected, "{operation:?}");
        }
    }

    #[test]
    fn a_null_is_never_computed() {
        let left = array(Int64Array::from(vec![Some(i64::MAX), None, Some(6)]));
        let right = array(Int64Array::from(vec![None, Some(0), Some(3)]));
        for (operation, expected) in [(Operation::Add, 9), (Operation::Divide, 2), (Operation::Remainder, 0)] {
            let found = compute(operation, vec![left.clone(), right.clone()]).unwrap();
            let expected = Int64Array::from(vec![None, None, Some(expected)]);
            assert_eq!(found.as_ref(), &expected as &dyn Array, "{operation:?}");
        }
    }
}
