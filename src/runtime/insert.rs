//! INSERT: rows of a query go to a source that takes rows.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, TimestampNanosecondArray},
    compute::{CastOptions, cast_with_options, kernels::cmp::distinct},
    datatypes::{Field, Schema},
    util::display::array_value_to_string,
};

use crate::types::{Error, Result};

use super::{
    engine::{Engine, Mode},
    manual::StepEnd,
};

impl Engine {
    /// Appends rows to a source that takes them: all of them, or none where a value does not fit its column.
    pub(super) fn insert(&self, table: &str, columns: &[String], rows: Vec<RecordBatch>) -> Result<usize> {
        let mut inserted = 0;
        let catalog = self.catalog();
        let source = Arc::clone(catalog.source(table).expect("checked when it was bound"));
        let mut taken = Vec::new();
        for batch in rows {
            let fields = source.schema.fields();
            let names: Vec<String> = match columns.is_empty() {
                true => fields[..source.declared]
                    .iter()
                    .map(|field| field.name().clone())
                    .collect(),
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
            // Where a row stands is not for it to say: `partition` and `offset` follow from where it is appended.
            let includes = source.includes.iter().map(|name| Some(name.as_str()));
            let settable: Vec<(&Arc<Field>, Option<&str>)> = fields
                .iter()
                .zip(std::iter::repeat_n(None, source.declared).chain(includes))
                .filter(|(_, include)| !matches!(include, Some("partition" | "offset")))
                .collect();
            if let Some(unknown) = names
                .iter()
                .find(|name| !settable.iter().any(|(field, _)| field.name() == *name))
            {
                let known: Vec<&str> = settable.iter().map(|(field, _)| field.name().as_str()).collect();
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
            let columns = settable
                .iter()
                .map(
                    |(field, include)| match names.iter().position(|name| name == field.name()) {
                        Some(column) => fitting(batch.column(column), field),
                        // As a broker does it.
                        None if *include == Some("timestamp") => Ok(self.stamps(batch.num_rows())),
                        // Columns that were left out are null.
                        None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
                    },
                )
                .collect::<Result<Vec<_>>>()?;
            let fields: Vec<Field> = settable
                .iter()
                .map(|(field, _)| field.as_ref().clone().with_nullable(true))
                .collect();
            inserted += batch.num_rows();
            taken.push(
                RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| Error::user(e.to_string()))?,
            );
        }
        for batch in taken {
            (self.0.registry.insert)(table, batch)?;
        }
        if self.0.options.mode == Mode::Manual {
            self.step(table, StepEnd::default())?;
        }
        Ok(inserted)
    }

    /// The time of append, in the milliseconds of a broker.
    fn stamps(&self, count: usize) -> ArrayRef {
        let millis = self.0.clock.now().0.div_euclid(1_000_000);
        Arc::new(TimestampNanosecondArray::from_value(millis * 1_000_000, count))
    }
}

/// The values in the type of their column. A value never becomes another one, nor null.
fn fitting(values: &ArrayRef, field: &Field) -> Result<ArrayRef> {
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
