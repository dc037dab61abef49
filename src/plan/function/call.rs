//! A created function as DataFusion calls it.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, FieldRef, Schema},
};
use datafusion::{
    common::{DFSchema, Result, ScalarValue},
    logical_expr::{
        ColumnarValue, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature,
        Volatility,
    },
};

use crate::plan::function_call::WrongArgument;

use super::FunctionDefinition;

/// A function as DataFusion calls it.
#[derive(Debug)]
pub struct Call {
    pub(super) definition: Arc<FunctionDefinition>,
    signature: Signature,
}

impl Call {
    pub fn of(definition: Arc<FunctionDefinition>) -> Self {
        // Any arguments: those that do not fit are told in our own words, with their place.
        let any = TypeSignature::OneOf(vec![TypeSignature::VariadicAny, TypeSignature::Nullary]);
        Self {
            definition,
            signature: Signature::new(any, Volatility::Immutable),
        }
    }
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        (&self.definition.name, &self.definition.sql) == (&other.definition.name, &other.definition.sql)
    }
}

impl Eq for Call {}

impl Hash for Call {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl ScalarUDFImpl for Call {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.definition.returns.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let FunctionDefinition {
            name,
            parameters,
            returns,
            logical,
            ..
        } = self.definition.as_ref();
        let given: Vec<&DataType> = args.arg_fields.iter().map(|field| field.data_type()).collect();
        WrongArgument::check(name, parameters, &given)?;
        // Null where its expression may be, over arguments such as these.
        let fields: Vec<Field> = parameters
            .fields()
            .iter()
            .zip(args.arg_fields)
            .map(|(parameter, argument)| parameter.as_ref().clone().with_nullable(argument.is_nullable()))
            .collect();
        let is_nullable = logical.nullable(&DFSchema::try_from(Schema::new(fields))?)?;
        Ok(Arc::new(Field::new(name, returns.clone(), is_nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let parameters = &self.definition.parameters;
        let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { args.number_rows };
        let columns = args
            .args
            .into_iter()
            .zip(parameters.fields())
            .map(|(argument, parameter)| as_declared(argument.into_array(rows)?, parameter.data_type()))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(parameters), columns, &options)?;
        match self.definition.expression.evaluate(&batch)? {
            ColumnarValue::Array(values) if is_constant => {
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?))
            }
            value => Ok(value),
        }
    }
}

/// A value that does not fit is an error, never null.
fn as_declared(values: ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if values.data_type() == data_type {
        return Ok(values);
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(&values, data_type, &options)?)
}
