//! Floats with one zero: −0.0 and 0.0 are equal, so what is distinct has one of them.

use arrow::datatypes::DataType;
use datafusion::{
    common::{Result, utils::normalize_float_zero},
    logical_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility},
};

/// The value of a float, and 0.0 for −0.0; null for null. Called what its argument is called.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OneZero {
    signature: Signature,
}

impl Default for OneZero {
    fn default() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for OneZero {
    fn name(&self) -> &str {
        "one_zero"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, arguments: &[Expr]) -> Result<String> {
        Ok(arguments[0].schema_name().to_string())
    }

    fn display_name(&self, arguments: &[Expr]) -> Result<String> {
        Ok(arguments[0].to_string())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = arguments.args[0].to_array(arguments.number_rows)?;
        Ok(ColumnarValue::Array(normalize_float_zero(&values)))
    }
}
