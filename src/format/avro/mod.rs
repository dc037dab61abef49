//! Rows as Avro records for others: the value is the row, the key its key's columns, a key that went a record without a value.
//!
//! ```text
//! fingerprint   C3 01 │ 8 bytes, little end first: the Rabin fingerprint of the schema │ row      single-object encoding
//! registry      00    │ 4 bytes, big end first: the number of the schema              │ row      value_schema_id, key_schema_id
//! ```
//! No registry is asked: whoever registers the schemas (`DESCRIBE sink` shows them) knows their numbers.

mod encode;
mod schema;

#[cfg(test)]
mod tests;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use arrow_avro::schema::FingerprintStrategy;

use self::{encode::AvroEncoder, schema::allowed};
use super::{
    ChangeEncoder,
    change_records::{ChangeRecords, key_schema},
};
use crate::types::{Error, OptionKind, OptionSpec, Options, RecordSchema, Records, Result};

/// The options of a sink with `format = 'avro'`.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::text(
        "value_schema_id",
        "the number that a schema registry gave the schema of values; without it each value carries the schema's fingerprint",
    )
    .kind(OptionKind::Integer),
    OptionSpec::text(
        "key_schema_id",
        "the number that a schema registry gave the schema of keys",
    )
    .kind(OptionKind::Integer),
];

/// Registries count from 1, in 32 bits with a sign.
const SCHEMA_ID_MAX: u32 = 0x7fff_ffff;

pub struct AvroChanges {
    records: ChangeRecords<AvroEncoder>,
    schemas: Vec<RecordSchema>,
}

impl AvroChanges {
    /// `name` is that of the records, `key` the columns that name a row; without them records have no key.
    ///
    /// # Errors
    /// A column's name or type has no Avro form, or the numbers of schemas are not those of these records.
    pub fn new(name: &str, schema: &SchemaRef, key: &[usize], options: &Options) -> Result<Self> {
        let (of_value, of_key) = framings(options, !key.is_empty())?;
        let name = allowed(name);
        let rows = AvroEncoder::new(&name, schema, of_value)?;
        let keys = match key_schema(schema, key)? {
            Some(columns) => Some(AvroEncoder::new(&format!("{name}_key"), &columns, of_key)?),
            None => None,
        };
        let schema_of = |part, encoder: &AvroEncoder| RecordSchema {
            part,
            text: encoder.schema_text().to_owned(),
        };
        let schemas = keys
            .iter()
            .map(|keys| schema_of("key", keys))
            .chain([schema_of("value", &rows)])
            .collect();
        Ok(Self {
            records: ChangeRecords::new(key, keys, rows, None),
            schemas,
        })
    }
}

impl ChangeEncoder for AvroChanges {
    fn records(&mut self, added: &RecordBatch, removed: &RecordBatch) -> Result<Records> {
        self.records.records(added, removed)
    }

    fn schemas(&self) -> Vec<RecordSchema> {
        self.schemas.clone()
    }
}

/// How values and keys say which schema they are of.
fn framings(options: &Options, has_key: bool) -> Result<(FingerprintStrategy, FingerprintStrategy)> {
    let (value, key) = (
        schema_id(options, "value_schema_id")?,
        schema_id(options, "key_schema_id")?,
    );
    let framing = |id: Option<u32>| id.map_or(FingerprintStrategy::Rabin, FingerprintStrategy::Id);
    match (value, key) {
        (_, Some(_)) if !has_key => Err(Error::user(
            "rows of this sink have no key, so there is no schema for `key_schema_id`; leave it out",
        )),
        (Some(_), None) | (None, Some(_)) if has_key => Err(Error::user(
            "records of this sink have a key and a value: give both `key_schema_id` and `value_schema_id`, or neither",
        )),
        _ => Ok((framing(value), framing(key))),
    }
}

fn schema_id(options: &Options, name: &str) -> Result<Option<u32>> {
    let Some(given) = options.integer(name) else {
        return Ok(None);
    };
    match u32::try_from(given) {
        Ok(id) if (1..=SCHEMA_ID_MAX).contains(&id) => Ok(Some(id)),
        _ => Err(Error::user(format!(
            "`{name}` takes the number of a schema in a registry, from 1 to {SCHEMA_ID_MAX}, not {given}"
        ))),
    }
}
