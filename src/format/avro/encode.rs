//! Rows to Avro records of one schema, each behind the bytes that say which schema that is.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use arrow_avro::{
    schema::{FingerprintStrategy, SCHEMA_METADATA_KEY},
    writer::{self, WriterBuilder, format::AvroSoeFormat},
};

use super::schema::record_schema;
use crate::{
    format::Encoder,
    types::{Error, Result},
};

pub struct AvroEncoder {
    schema: SchemaRef,
    schema_text: String,
    writer: writer::Encoder,
}

impl AvroEncoder {
    /// `name` is that of the record.
    ///
    /// # Errors
    /// A column's name or type has no Avro form.
    pub fn new(name: &str, schema: &Schema, framing: FingerprintStrategy) -> Result<Self> {
        let schema_text = record_schema(name, schema)?;
        let metadata = HashMap::from([(SCHEMA_METADATA_KEY.to_owned(), schema_text.clone())]);
        let schema = Schema::new_with_metadata(schema.fields().clone(), metadata);
        let writer = WriterBuilder::new(schema.clone())
            .with_fingerprint_strategy(framing)
            .build_encoder::<AvroSoeFormat>()
            .map_err(|e| Error::bug(format!("rows cannot be written as Avro: {e}")))?;
        Ok(Self {
            schema: Arc::new(schema),
            schema_text,
            writer,
        })
    }

    /// As JSON.
    pub fn schema_text(&self) -> &str {
        &self.schema_text
    }
}

impl Encoder for AvroEncoder {
    /// # Panics
    /// Where `rows` have another schema than the encoder was made for: our mistake.
    fn encode(&mut self, rows: &RecordBatch, out: &mut Vec<u8>, ends: &mut Vec<usize>) {
        // The writer compares what is said about the columns too, and rows of an epoch may say less than their view.
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), rows.columns().to_vec())
            .expect("rows of the encoder's schema");
        self.writer
            .encode(&rows)
            .expect("every value of the types that were let in has an Avro form");
        let encoded = self.writer.flush();
        let start = out.len();
        out.extend_from_slice(encoded.bytes());
        ends.extend(encoded.offsets().iter().skip(1).map(|end| start + end));
    }
}
