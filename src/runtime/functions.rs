//! Created functions as tables: SHOW FUNCTIONS and DESCRIBE.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringViewArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use crate::{
    plan::{Catalog, FunctionDefinition},
    types::{Error, Result, type_name},
};

/// A row for each function, in the order of creation.
pub fn show(catalog: &Catalog) -> Result<(SchemaRef, RecordBatch)> {
    let functions: Vec<&FunctionDefinition> = catalog.functions.iter().map(AsRef::as_ref).collect();
    let text = |of: &dyn Fn(&FunctionDefinition) -> String| functions.iter().map(|function| of(function)).collect();
    texts([
        ("name", text(&|function| function.name.clone())),
        ("parameters", text(&FunctionDefinition::parameter_list)),
        ("returns", text(&|function| type_name(&function.returns))),
        ("expression", text(&|function| function.body.clone())),
    ])
}

/// A row for each parameter, and a last one for what is returned.
pub fn describe(function: &FunctionDefinition) -> Result<(SchemaRef, RecordBatch)> {
    let parameters = function.parameters.fields();
    let names = parameters.iter().map(|field| field.name().clone());
    let types = parameters.iter().map(|field| field.data_type());
    texts([
        ("parameter", names.chain(["RETURNS".to_owned()]).collect()),
        ("type", types.chain([&function.returns]).map(type_name).collect()),
    ])
}

fn texts<const N: usize>(columns: [(&str, Vec<String>); N]) -> Result<(SchemaRef, RecordBatch)> {
    let field = |name: &str| Field::new(name, DataType::Utf8View, false);
    let schema = Arc::new(Schema::new(
        columns.iter().map(|(name, _)| field(name)).collect::<Vec<_>>(),
    ));
    let columns = columns
        .into_iter()
        .map(|(_, values)| Arc::new(StringViewArray::from_iter_values(values)) as ArrayRef)
        .collect();
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(|e| Error::bug(e.to_string()))?;
    Ok((schema, rows))
}
