//! Rows to bytes and back: Arrow IPC, one stream per schema, each with its length.

use std::io::Cursor;

use arrow::{
    array::RecordBatch,
    ipc::{reader::StreamReader, writer::StreamWriter},
};

use crate::types::{Error, Result};

/// A part of a checkpoint: streams, each a length in 8 bytes (little endian) and its bytes.
pub fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for run in batches.chunk_by(|a, b| a.schema() == b.schema()) {
        let at = bytes.len();
        bytes.extend_from_slice(&[0; 8]);
        let mut writer = StreamWriter::try_new(&mut bytes, &run[0].schema()).map_err(bug)?;
        for batch in run {
            writer.write(batch).map_err(bug)?;
        }
        writer.finish().map_err(bug)?;
        drop(writer);
        let length = (bytes.len() - at - 8) as u64;
        bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
    }
    Ok(bytes)
}

/// What `encode` gave. Only for bytes whose checksum was verified.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        if rest.len() < length {
            return Err(damaged());
        }
        let (stream, rest) = rest.split_at(length);
        let reader = StreamReader::try_new(Cursor::new(stream), None).map_err(|_| damaged())?;
        for batch in reader {
            batches.push(batch.map_err(|_| damaged())?);
        }
        bytes = rest;
    }
    Ok(batches)
}

fn damaged() -> Error {
    Error::state("a part of a checkpoint is not what was written, though its checksum is right")
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::bug(format!("state cannot be encoded: {error}"))
}
