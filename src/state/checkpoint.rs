//! Checkpoints: parts with checksums, and a manifest that names them all.

use std::{
    fs,
    path::{Path, PathBuf},
};

use arrow::array::RecordBatch;

use crate::types::{Epoch, Error, Result, limits};

use super::{
    codec,
    files::{cannot, create_folder, sync_folder, write_atomic, write_synced},
    journal,
};

const FORMAT_VERSION: u32 = 1;
const MANIFEST: &str = "MANIFEST";

/// The state at the end of an epoch.
pub struct Checkpoint {
    pub epoch: Epoch,
    /// Everything small, as JSON: positions, watermarks, counters.
    pub header: serde_json::Value,
    /// What the state was made by; a start with another one refuses it.
    pub definition: String,
    pub parts: Vec<Part>,
}

/// Named rows.
pub struct Part {
    pub name: String,
    pub batches: Vec<RecordBatch>,
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Manifest {
    format_version: u32,
    pub engine_version: String,
    pub generation: u64,
    pub epoch: Epoch,
    pub definition: String,
    pub header: serde_json::Value,
    pub files: Vec<ManifestFile>,
    /// Of the previous manifest's bytes: a chain that shows a manifest swapped for another.
    pub previous_crc32c: Option<u32>,
}

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct ManifestFile {
    name: String,
    pub part: String,
    pub bytes: u64,
    crc32c: u32,
}

/// Writes checkpoints, beside the running epochs if wanted.
#[derive(Clone)]
pub struct CheckpointWriter {
    pub(super) root: PathBuf,
    pub(super) generation: u64,
}

impl CheckpointWriter {
    /// Writes and publishes a checkpoint, then removes what is older than the kept ones and than `needed`.
    pub fn write(&self, checkpoint: &Checkpoint, needed: Option<Epoch>) -> Result<u64> {
        let folder = self.root.join("checkpoints");
        let target = folder.join(format!("{:020}", checkpoint.epoch.0));
        let staged = folder.join(format!("{:020}.tmp", checkpoint.epoch.0));
        if staged.exists() {
            fs::remove_dir_all(&staged).map_err(|e| cannot("remove", &staged, e))?;
        }
        if target.exists() {
            // Written by a run that died before it was told so; its epoch has not changed since.
            return Ok(0);
        }
        create_folder(&staged)?;
        let mut total = 0;
        let mut files = Vec::new();
        for (index, part) in checkpoint.parts.iter().enumerate() {
            let bytes = codec::encode(&part.batches)?;
            let name = format!("{index:04}.arrow");
            write_synced(&staged.join(&name), &bytes)?;
            total += bytes.len() as u64;
            files.push(ManifestFile {
                name,
                part: part.name.clone(),
                bytes: bytes.len() as u64,
                crc32c: crc32c::crc32c(&bytes),
            });
        }
        let previous = list(&folder)?.into_iter().next_back();
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            engine_version: env!("CARGO_PKG_VERSION").into(),
            generation: self.generation,
            epoch: checkpoint.epoch,
            definition: checkpoint.definition.clone(),
            header: checkpoint.header.clone(),
            files,
            previous_crc32c: previous
                .and_then(|(_, path)| fs::read(path.join(MANIFEST)).ok())
                .map(|bytes| crc32c::crc32c(&bytes)),
        };
        let body = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::bug(format!("a manifest cannot be written: {e}")))?;
        let mut bytes = format!("{:08x}\n", crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        write_atomic(&staged.join(MANIFEST), &bytes)?;
        sync_folder(&staged)?;
        fs::rename(&staged, &target).map_err(|e| cannot("publish", &staged, e))?;
        sync_folder(&folder)?;
        self.remove_old(&folder, needed)?;
        Ok(total)
    }

    fn remove_old(&self, folder: &Path, needed: Option<Epoch>) -> Result<()> {
        let all = list(folder)?;
        let Some(first_kept) = all.len().checked_sub(limits::CHECKPOINTS_KEPT) else {
            return Ok(());
        };
        let first_kept = match needed {
            Some(needed) => first_kept.min(all.partition_point(|(epoch, _)| *epoch < needed)),
            None => first_kept,
        };
        for (_, path) in &all[..first_kept] {
            fs::remove_dir_all(path).map_err(|e| cannot("remove", path, e))?;
        }
        // The oldest kept checkpoint needs the plans after it.
        journal::remove_before(&self.root.join("journal"), all[first_kept].0)
    }
}

/// The newest checkpoint whose every byte is right and that `takes` takes; damaged ones are passed over with a warning.
///
/// # Errors
/// When there are checkpoints but none is right.
pub fn newest(root: &Path, takes: impl Fn(&Checkpoint) -> bool) -> Result<Option<Checkpoint>> {
    let mut reasons = Vec::new();
    for (epoch, path) in list(&root.join("checkpoints"))?.into_iter().rev() {
        match load(&path) {
            Ok(checkpoint) if checkpoint.epoch == epoch && takes(&checkpoint) => return Ok(Some(checkpoint)),
            Ok(checkpoint) if checkpoint.epoch == epoch => continue,
            Ok(_) => reasons.push(format!("{}: it is of another epoch", path.display())),
            Err(error) => reasons.push(error.to_string()),
        }
        tracing::warn!(
            reason = reasons.last(),
            "a checkpoint is damaged, trying the one before"
        );
    }
    if reasons.is_empty() {
        Ok(None)
    } else {
        Err(Error::state(format!(
            "no checkpoint can be read, so nothing was started: {}. Restore the folder from a copy, or start over with --reset",
            reasons.join("; ")
        )))
    }
}

fn load(path: &Path) -> Result<Checkpoint> {
    let (manifest, _) = read_manifest(path)?;
    let parts = load_parts(path, &manifest)?;
    Ok(Checkpoint {
        epoch: manifest.epoch,
        header: manifest.header,
        definition: manifest.definition,
        parts,
    })
}

/// With the checksum of its bytes.
pub(super) fn read_manifest(path: &Path) -> Result<(Manifest, u32)> {
    let damaged = |what: &str| Error::state(format!("{}: {what}", path.display()));
    let manifest_path = path.join(MANIFEST);
    let bytes = fs::read(&manifest_path).map_err(|e| cannot("read", &manifest_path, e))?;
    let (checksum, body) = bytes
        .split_at_checked(9)
        .ok_or_else(|| damaged("the manifest is cut short"))?;
    let checksum = std::str::from_utf8(checksum)
        .ok()
        .and_then(|text| u32::from_str_radix(text.strip_suffix('\n')?, 16).ok());
    if checksum != Some(crc32c::crc32c(body)) {
        return Err(damaged("the manifest's checksum is wrong"));
    }
    let manifest: Manifest =
        serde_json::from_slice(body).map_err(|e| damaged(&format!("the manifest cannot be read ({e})")))?;
    if manifest.format_version != FORMAT_VERSION {
        return Err(damaged(&format!(
            "written in format {}, this version reads {FORMAT_VERSION}",
            manifest.format_version
        )));
    }
    Ok((manifest, crc32c::crc32c(&bytes)))
}

pub(super) fn load_parts(path: &Path, manifest: &Manifest) -> Result<Vec<Part>> {
    let damaged = |what: &str| Error::state(format!("{}: {what}", path.display()));
    let parts = manifest
        .files
        .iter()
        .map(|file| {
            let file_path = path.join(&file.name);
            let bytes = fs::read(&file_path).map_err(|e| cannot("read", &file_path, e))?;
            if bytes.len() as u64 != file.bytes || crc32c::crc32c(&bytes) != file.crc32c {
                return Err(damaged(&format!("{} is damaged", file.name)));
            }
            Ok(Part {
                name: file.part.clone(),
                batches: codec::decode(&bytes)?,
            })
        })
        .collect::<Result<_>>()?;
    Ok(parts)
}

/// Epoch and folder of every published checkpoint, oldest first.
pub(super) fn list(folder: &Path) -> Result<Vec<(Epoch, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| cannot("list", folder, e))? {
        let path = entry.map_err(|e| cannot("list", folder, e))?.path();
        let epoch = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        found.extend(epoch.map(|epoch| (Epoch(epoch), path)));
    }
    found.sort();
    Ok(found)
}
