//! Rows as Parquet files in memory, cut where one is large enough, and what rows hash to.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::{Schema, SchemaRef},
    row::{RowConverter, SortField},
};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use crate::connector::SinkError;

/// Rows between two looks at the size.
const SLICE_ROWS: usize = 8_192;
const ROW_GROUP_ROWS: usize = 262_144;

/// A file that is not written anywhere yet.
pub struct Encoded {
    pub bytes: Bytes,
    pub rows: u64,
}

/// How files are written.
#[derive(Clone)]
pub struct Form {
    /// Of the files.
    schema: SchemaRef,
    properties: WriterProperties,
    /// Bytes after which a file is full.
    bytes_max: u64,
}

impl Form {
    /// # Errors
    /// A sentence about a type that Parquet does not have.
    pub fn new(schema: SchemaRef, compression: &str, bytes_max: u64) -> Result<Self, String> {
        let compression = match compression {
            "zstd" => Compression::ZSTD(ZstdLevel::default()),
            "snappy" => Compression::SNAPPY,
            _ => Compression::UNCOMPRESSED,
        };
        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(format!("zeta version {}", env!("CARGO_PKG_VERSION")))
            .build();
        let form = Self {
            schema,
            properties,
            bytes_max,
        };
        ArrowWriter::try_new(Vec::new(), Arc::clone(&form.schema), Some(form.properties.clone()))
            .map_err(|e| format!("a column cannot be written as Parquet: {e}"))?;
        Ok(form)
    }

    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Writes the files of a partition one after another.
    pub fn files<'a>(&'a self, full: &'a mut dyn FnMut(Encoded) -> Result<(), SinkError>) -> Files<'a> {
        Files {
            form: self,
            writer: None,
            rows: 0,
            full,
        }
    }
}

pub struct Files<'a> {
    form: &'a Form,
    writer: Option<ArrowWriter<Vec<u8>>>,
    /// In the writer.
    rows: u64,
    full: &'a mut dyn FnMut(Encoded) -> Result<(), SinkError>,
}

impl Files<'_> {
    /// Takes the rows of these numbers. `columns` are those of the files, in the batch.
    pub fn write_some(&mut self, batch: &RecordBatch, columns: &[usize], rows: &[u32]) -> Result<(), SinkError> {
        let batch = batch.project(columns).map_err(bug)?;
        for slice in rows.chunks(SLICE_ROWS) {
            let slice = match is_run(slice) {
                true => batch.slice(slice[0] as usize, slice.len()),
                false => take_record_batch(&batch, &UInt32Array::from(slice.to_vec())).map_err(bug)?,
            };
            self.write(&slice)?;
        }
        Ok(())
    }

    /// Takes the rows of a file that was written in this form.
    pub fn write_file(&mut self, bytes: Bytes) -> Result<(), SinkError> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .and_then(|builder| builder.with_batch_size(SLICE_ROWS).build())
            .map_err(bug)?;
        for batch in reader {
            self.write(&batch.map_err(bug)?)?;
        }
        Ok(())
    }

    fn write(&mut self, rows: &RecordBatch) -> Result<(), SinkError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let (schema, properties) = (Arc::clone(&self.form.schema), self.form.properties.clone());
                none.insert(ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(bug)?)
            }
        };
        // The names and types of its columns; whether one may be null is not said by every batch.
        let rows = RecordBatch::try_new(Arc::clone(&self.form.schema), rows.columns().to_vec()).map_err(bug)?;
        writer.write(&rows).map_err(bug)?;
        self.rows += rows.num_rows() as u64;
        match self.form.bytes_max <= (writer.bytes_written() + writer.in_progress_size()) as u64 {
            true => self.finish(),
            false => Ok(()),
        }
    }

    /// Hands over the last one.
    pub fn finish(&mut self) -> Result<(), SinkError> {
        let Some(writer) = self.writer.take() else {
            return Ok(());
        };
        let bytes = writer.into_inner().map_err(bug)?.into();
        let rows = std::mem::take(&mut self.rows);
        (self.full)(Encoded { bytes, rows })
    }
}

fn is_run(rows: &[u32]) -> bool {
    rows.is_empty() || rows[rows.len() - 1] - rows[0] == rows.len() as u32 - 1
}

/// Number and hash of rows, whatever their order.
pub struct Digest(RowConverter);

impl Digest {
    /// # Errors
    /// A sentence about a type whose values cannot be compared.
    pub fn new(schema: &Schema) -> Result<Self, String> {
        let fields = schema
            .fields()
            .iter()
            .map(|field| SortField::new(field.data_type().clone()));
        RowConverter::new(fields.collect())
            .map(Self)
            .map_err(|e| format!("a column cannot be published: {e}"))
    }

    pub fn of(&self, batch: &RecordBatch) -> Result<(u64, u64), SinkError> {
        let mut hash = 0u64;
        for from in (0..batch.num_rows()).step_by(SLICE_ROWS) {
            let slice = batch.slice(from, SLICE_ROWS.min(batch.num_rows() - from));
            let rows = self.0.convert_columns(slice.columns()).map_err(bug)?;
            for row in &rows {
                let (one, other) = (crc32c::crc32c(row.data()), crc32c::crc32c_append(!0x5a7a, row.data()));
                let number = u64::from(one) << 32 | u64::from(other);
                hash = hash.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ number);
            }
        }
        Ok((batch.num_rows() as u64, hash))
    }
}

fn bug(error: impl std::fmt::Display) -> SinkError {
    SinkError::Failed(format!("internal error: {error}; please report it"))
}
