//! INSERT: rows of a query go to a table, or to a source that takes rows.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, TimestampNanosecondArray},
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
                let fields = table.schema().fields();
                let taken = taken(fields, fields.len(), columns, rows)?;
                self.add(table, taken).await
            }
            _ => self.insert_into_source(name, columns, rows),
        }
    }

    fn insert_into_source(&self, name: &str, columns: &[String], rows: Vec<RecordBatch>) -> Result<usize> {
        let catalog = self.catalog();
        let source = catalog.source(name).expect("checked when it was bound");
        // Where a row stands is not for it to say: `partition` and `offset` follow from where it is appended.
        let includes = source.includes.iter().map(String::as_str);
        let (settable, includes): (Vec<FieldRef>, Vec<&str>) = (source.schema.fields().iter().cloned())
            .zip(std::iter::repeat_n("", source.declared).chain(includes))
            .filter(|(_, include)| !matches!(*include, "partition" | "offset"))
            .unzip();
        let taken = taken(&settable, source.declared, columns, rows)?;
        let inserted = taken.iter().map(RecordBatch::num_rows).sum();
        let stamped = includes.iter().position(|include| *include == "timestamp");
        let stamped = stamped.filter(|column| !columns.contains(settable[*column].name()));
        for mut batch in taken {
            if let Some(column) = stamped {
                batch = self.stamp(&batch, column)?;
            }
            (self.0.registry.insert)(name, batch)?;
        }
        if self.0.options.mode == Mode::Manual {
            self.step(name, StepEnd::default())?;
        }
        Ok(inserted)
    }

    /// The rows with the time of their append in `column`, in milliseconds, as a broker would do it.
    fn stamp(&self, rows: &RecordBatch, column: usize) -> Result<RecordBatch> {
        let nanos = self.0.clock.now().0.div_euclid(1_000_000) * 1_000_000;
        let mut columns = rows.columns().to_vec();
        columns[column] = Arc::new(TimestampNanosecondArray::from_value(nanos, rows.num_rows()));
        RecordBatch::try_new(rows.schema(), columns).map_err(|e| Error::bug(e.to_string()))
    }
}

/// The rows with all fields, in their types. Every column may hold a null. Without `columns`, the rows hold the declared ones, which
/// are the first.
fn taken(fields: &[FieldRef], declared: usize, columns: &[String], rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    rows.into_iter()
        .map(|batch| {
            let names: Vec<String> = match columns.is_empty() {
                true => fields[..declared].iter().map(|field| field.name().clone()).collect(),
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
                .find(|name| !fields.iter().any(|field| field.name() == *name))
            {
                let known: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
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
            let columns = fields
                .iter()
                .map(|field| match names.iter().position(|name| name == field.name()) {
                    Some(column) => fitting(batch.column(column), field),
                    // Columns that were left out are null.
                    None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
                })
                .collect::<Result<Vec<_>>>()?;
            let fields: Vec<Field> = fields
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
