//! INSERT: rows of a query go to a table, or to a source that takes rows.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch},
    compute::{CastOptions, cast_with_options, kernels::cmp::distinct},
    datatypes::{Field, FieldRef, Schema},
    util::display::array_value_to_string,
};

use crate::{
    plan::Relation,
    types::{Error, Result},
};

use super::{
    engine::{Engine, Mode},
    manual::StepEnd,
};

impl Engine {
    /// Appends rows to a source that takes them: all of them, or none where a value does not fit its column.
    pub(super) async fn insert(&self, name: &str, columns: &[String], rows: Vec<RecordBatch>) -> Result<usize> {
        match self.catalog().get(name).expect("checked when it was bound") {
            Relation::Table(table) => {
                let taken = taken(table.schema().fields(), columns, rows)?;
                self.add(table, taken).await
            }
            _ => self.insert_into_source(name, columns, rows),
        }
    }

    fn insert_into_source(&self, name: &str, columns: &[String], rows: Vec<RecordBatch>) -> Result<usize> {
        let catalog = self.catalog();
        let source = catalog.source(name).expect("checked when it was bound");
        let taken = taken(&source.schema.fields()[..source.declared], columns, rows)?;
        let inserted = taken.iter().map(RecordBatch::num_rows).sum();
        for batch in taken {
            (self.0.registry.insert)(name, batch)?;
        }
        if self.0.options.mode == Mode::Manual {
            self.step(name, StepEnd::default())?;
        }
        Ok(inserted)
    }
}

/// The rows with all declared columns, in their types. Every column may hold a null.
fn taken(declared: &[FieldRef], columns: &[String], rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    rows.into_iter()
        .map(|batch| {
            let names: Vec<String> = match columns.is_empty() {
                true => declared.iter().map(|field| field.name().clone()).collect(),
                false => columns.to_vec(),
            };
            if names.len() != batch.num_columns() {
                return Err(Error::user(format!(
                    "{} values for {} columns ({})",
                    batch.num_columns(),
                    names.len(),
                    names.join(", ")
                )));
            }
            if let Some(unknown) = names
                .iter()
                .find(|name| !declared.iter().any(|field| field.name() == *name))
            {
                let known: Vec<&str> = declared.iter().map(|field| field.name().as_str()).collect();
                return Err(Error::user(format!(
                    "no column named `{unknown}` to insert into; columns: {}",
                    known.join(", ")
                )));
            }
            if let Some(twice) = names
                .iter()
                .enumerate()
                .find_map(|(index, name)| names[..index].contains(name).then_some(name))
            {
                return Err(Error::user(format!("column `{twice}` is named twice")));
            }
            let columns = declared
                .iter()
                .map(|field| match names.iter().position(|name| name == field.name()) {
                    Some(column) => fitting(batch.column(column), field),
                    // Columns that were left out are null.
                    None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
                })
                .collect::<Result<Vec<_>>>()?;
            let fields: Vec<Field> = declared
                .iter()
                .map(|field| field.as_ref().clone().with_nullable(true))
                .collect();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| Error::user(e.to_string()))
        })
        .collect()
}

/// The values in the type of their column. A value never becomes another one, nor null.
pub(super) fn fitting(values: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let name = field.name();
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let cast = cast_with_options(values, field.data_type(), &options)
        .map_err(|e| Error::user(format!("column `{name}`: {e}")))?;
    if field.data_type().is_integer() && !values.data_type().is_integer() && values.data_type().is_numeric() {
        let back = cast_with_options(&cast, values.data_type(), &options)
            .map_err(|e| Error::user(format!("column `{name}`: {e}")))?;
        let differs = distinct(&back, values).map_err(|e| Error::bug(e.to_string()))?;
        if let Some(row) = differs.iter().position(|differs| differs == Some(true)) {
            let shown = array_value_to_string(values, row).unwrap_or_default();
            return Err(Error::user(format!(
                "column `{name}`: {shown} is no {}",
                crate::types::type_name(field.data_type())
            )));
        }
    }
    Ok(cast)
}
