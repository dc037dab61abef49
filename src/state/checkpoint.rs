//! Checkpoints: parts with checksums, and a manifest that names them all.

use std::path::{Path, PathBuf};

use crate::types::{
    Epoch, Error, Result, Saved, limits,
    planted::{Bug, has},
};

use super::{
    codec,
    files::{Files, Place, cannot, write_atomic},
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
    pub rows: Saved,
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
    pub(super) place: Place,
    pub(super) generation: u64,
}

impl CheckpointWriter {
    /// Writes and publishes a checkpoint, then removes what is older than the kept ones and than `needed`.
    pub fn write(&self, checkpoint: Checkpoint, needed: Option<Epoch>) -> Result<u64> {
        let files = &*self.place.files;
        let folder = self.place.root.join("checkpoints");
        let target = folder.join(format!("{:020}", checkpoint.epoch.0));
        let staged = folder.join(format!("{:020}.tmp", checkpoint.epoch.0));
        // Of one that failed, and could not be removed then.
        remove_unfinished(files, &folder)?;
        if files.exists(&target) {
            // Written by a run that died before it was told so; its epoch has not changed since.
            return Ok(0);
        }
        let written = self.stage(checkpoint, &folder, &staged);
        let published = written.and_then(|total| {
            files
                .rename(&staged, &target)
                .map_err(|e| cannot("publish", &staged, e))?;
            Ok(total)
        });
        if published.is_err() && files.exists(&staged) {
            // Where there is no room, what was begun takes up more of it. If that fails too, the next one removes it.
            drop(files.remove_folder(&staged));
        }
        let total = published?;
        files.sync_folder(&folder).map_err(|e| cannot("sync", &folder, e))?;
        self.remove_old(&folder, needed)?;
        Ok(total)
    }

    /// Writes all files of a checkpoint into a folder of their own; returns how many bytes the parts have.
    fn stage(&self, checkpoint: Checkpoint, folder: &Path, staged: &Path) -> Result<u64> {
        let files = &*self.place.files;
        files.create_folder(staged).map_err(|e| cannot("create", staged, e))?;
        let mut total = 0;
        let mut listed = Vec::new();
        for (index, part) in checkpoint.parts.into_iter().enumerate() {
            let bytes = codec::encode(&part.rows.rows()?)?;
            let name = format!("{index:04}.arrow");
            let path = staged.join(&name);
            files
                .write_synced(&path, &bytes)
                .map_err(|e| cannot("write", &path, e))?;
            total += bytes.len() as u64;
            listed.push(ManifestFile {
                name,
                part: part.name,
                bytes: bytes.len() as u64,
                crc32c: crc32c::crc32c(&bytes),
            });
        }
        let previous = list(files, folder)?.into_iter().next_back();
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            engine_version: env!("CARGO_PKG_VERSION").into(),
            generation: self.generation,
            epoch: checkpoint.epoch,
            definition: checkpoint.definition,
            header: checkpoint.header,
            files: listed,
            previous_crc32c: previous
                .and_then(|(_, path)| files.read(&path.join(MANIFEST)).ok())
                .map(|bytes| crc32c::crc32c(&bytes)),
        };
        let body = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::bug(format!("a manifest cannot be written: {e}")))?;
        let mut bytes = format!("{:08x}\n", crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        write_atomic(files, &staged.join(MANIFEST), &bytes)?;
        Ok(total)
    }

    fn remove_old(&self, folder: &Path, needed: Option<Epoch>) -> Result<()> {
        let files = &*self.place.files;
        let all = list(files, folder)?;
        let (kept, needed) = match has(Bug::CheckpointGoneTooEarly) {
            true => (1, None),
            false => (limits::CHECKPOINTS_KEPT, needed),
        };
        let Some(first_kept) = all.len().checked_sub(kept) else {
            return Ok(());
        };
        let first_kept = match needed {
            Some(needed) => first_kept.min(all.partition_point(|(epoch, _)| *epoch < needed)),
            None => first_kept,
        };
        for (_, path) in &all[..first_kept] {
            files.remove_folder(path).map_err(|e| cannot("remove", path, e))?;
        }
        // The oldest kept checkpoint needs the plans after it.
        journal::remove_before(files, &self.place.root.join("journal"), all[first_kept].0)
    }
}

/// Removes what writers left that were killed, or failed: only while nobody else writes one.
pub fn remove_unfinished(files: &dyn Files, folder: &Path) -> Result<()> {
    for path in files.list(folder).map_err(|e| cannot("list", folder, e))? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            files.remove_folder(&path).map_err(|e| cannot("remove", &path, e))?;
        }
    }
    Ok(())
}

/// The newest checkpoint whose every byte is right and that `takes` takes; damaged ones are passed over with a warning.
///
/// # Errors
/// When there are checkpoints but none is right.
pub fn newest(place: &Place, takes: impl Fn(&Checkpoint) -> bool) -> Result<Option<Checkpoint>> {
    let mut reasons = Vec::new();
    let files = &*place.files;
    for (epoch, path) in list(files, &place.root.join("checkpoints"))?.into_iter().rev() {
        match load(files, &path) {
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

fn load(files: &dyn Files, path: &Path) -> Result<Checkpoint> {
    let (manifest, _) = read_manifest(files, path)?;
    let parts = load_parts(files, path, &manifest)?;
    Ok(Checkpoint {
        epoch: manifest.epoch,
        header: manifest.header,
        definition: manifest.definition,
        parts,
    })
}

/// With the checksum of its bytes.
pub(super) fn read_manifest(files: &dyn Files, path: &Path) -> Result<(Manifest, u32)> {
    let damaged = |what: &str| Error::state(format!("{}: {what}", path.display()));
    let manifest_path = path.join(MANIFEST);
    let bytes = files
        .read(&manifest_path)
        .map_err(|e| cannot("read", &manifest_path, e))?;
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

pub(super) fn load_parts(files: &dyn Files, path: &Path, manifest: &Manifest) -> Result<Vec<Part>> {
    let damaged = |what: &str| Error::state(format!("{}: {what}", path.display()));
    let parts = manifest
        .files
        .iter()
        .map(|file| {
            let file_path = path.join(&file.name);
            let bytes = files.read(&file_path).map_err(|e| cannot("read", &file_path, e))?;
            if bytes.len() as u64 != file.bytes || crc32c::crc32c(&bytes) != file.crc32c {
                return Err(damaged(&format!("{} is damaged", file.name)));
            }
            Ok(Part {
                name: file.part.clone(),
                rows: Saved::now(codec::decode(&bytes)?),
            })
        })
        .collect::<Result<_>>()?;
    Ok(parts)
}

/// Epoch and folder of every published checkpoint, oldest first.
pub(super) fn list(files: &dyn Files, folder: &Path) -> Result<Vec<(Epoch, PathBuf)>> {
    let mut found = Vec::new();
    for path in files.list(folder).map_err(|e| cannot("list", folder, e))? {
        let epoch = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        found.extend(epoch.map(|epoch| (Epoch(epoch), path)));
    }
    found.sort();
    Ok(found)
}
