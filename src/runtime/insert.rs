//! INSERT: rows of a query go to a table, or to a source that takes rows.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, TimestampNanosecondArray},
    datatypes::{Field, FieldRef, Schema},
};

use crate::{
    plan::Relation,
    types::{Error, Position, Result, SplitId},
};

use super::{
    engine::{Engine, Mode},
    fitting::fitting,
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
            _ => self.insert_into_source(name, columns, rows).await,
        }
    }

    async fn insert_into_source(&self, name: &str, columns: &[String], rows: Vec<RecordBatch>) -> Result<usize> {
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
        self.check_running(name)?;
        let mut end = None;
        for mut batch in taken {
            if let Some(column) = stamped {
                batch = self.stamp(&batch, column)?;
            }
            end = Some((self.0.registry.insert)(name, batch)?);
        }
        match (self.0.options.mode, end) {
            (Mode::Manual, _) => self.step(name, StepEnd::default())?,
            (Mode::Live, None) => {}
            (Mode::Live, Some((split, end))) => {
                let behind = self.note_inserted(name, split, end);
                let read = self.until_read(name, &behind.0, behind.1).await;
                read.map_err(|unread| unread.told("the rows were taken, and are in no view yet"))?;
            }
        }
        Ok(inserted)
    }

    /// Notes how far a source was written, for those who wait for it. Returns the furthest.
    fn note_inserted(&self, name: &str, split: SplitId, end: Position) -> (SplitId, Position) {
        let mut inserted = self.0.inserted.lock().expect("nobody panics while holding it");
        let furthest = inserted.entry(name.to_owned()).or_insert((split, end));
        furthest.1 = furthest.1.max(end);
        furthest.clone()
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
    let mut first_row = 1;
    rows.into_iter()
        .map(|batch| {
            let first = first_row;
            first_row += batch.num_rows();
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
                    Some(column) => fitting(batch.column(column), field, Some(first)),
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
