//! Checkpoints: parts with checksums, and a manifest that names them all.

use std::path::{Path, PathBuf};

use crate::types::{
    Epoch, Error, Result, Saved, limits,
    planted::{Bug, has},
};

use super::{
    claim, codec,
    files::Files,
    journal,
    place::{Created, Medium, Place, cannot, create, write_atomic},
};
use crate::remote::RemoteFolder;

const FORMAT_VERSION: u32 = 1;
pub const FOLDER: &str = "checkpoints";
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
    /// Writes and publishes a checkpoint, then removes what is older than the kept ones and than `needed`; returns how many bytes its parts have.
    pub fn write(&self, checkpoint: Checkpoint, needed: Option<Epoch>) -> Result<u64> {
        let target = path_of(&self.place, checkpoint.epoch);
        claim::check(&self.place, self.generation)?;
        // Of one that failed, and could not be removed then.
        remove_unfinished(&self.place, self.generation)?;
        let total = match &self.place.medium {
            Medium::Disk(files) => self.write_to_disk(&**files, checkpoint, &target)?,
            Medium::Remote(remote) => self.write_to_remote(remote, checkpoint, &target)?,
        };
        let Some(total) = total else {
            // Written by a run that died before it was told so; its epoch has not changed since.
            return Ok(0);
        };
        self.remove_old(needed)?;
        Ok(total)
    }

    /// `None` where it is there.
    fn write_to_disk(&self, files: &dyn Files, checkpoint: Checkpoint, target: &Path) -> Result<Option<u64>> {
        let staged = target.with_extension("tmp");
        if files.exists(target) {
            return Ok(None);
        }
        let written = self.stage(files, checkpoint, &staged);
        let published = written.and_then(|total| {
            files
                .rename(&staged, target)
                .map_err(|e| cannot("publish", &staged, e))?;
            Ok(total)
        });
        if published.is_err() && files.exists(&staged) {
            // Where there is no room, what was begun takes up more of it. If that fails too, the next one removes it.
            drop(files.remove_folder(&staged));
        }
        let total = published?;
        let folder = self.place.root.join(FOLDER);
        files.sync_folder(&folder).map_err(|e| cannot("sync", &folder, e))?;
        Ok(Some(total))
    }

    /// Writes all files of a checkpoint into a folder of their own; returns how many bytes the parts have.
    fn stage(&self, files: &dyn Files, checkpoint: Checkpoint, staged: &Path) -> Result<u64> {
        files.create_folder(staged).map_err(|e| cannot("create", staged, e))?;
        let (manifest, total) = self.write_parts(checkpoint, "", |name, bytes| {
            let path = staged.join(name);
            files.write_synced(&path, &bytes).map_err(|e| cannot("write", &path, e))
        })?;
        write_atomic(files, &staged.join(MANIFEST), &manifest)?;
        Ok(total)
    }

    /// `None` where it is there. Parts of two writers do not meet: each has its number in the names of his.
    fn write_to_remote(&self, remote: &RemoteFolder, checkpoint: Checkpoint, target: &Path) -> Result<Option<u64>> {
        let manifest_path = target.join(MANIFEST);
        if self.place.has_file(&manifest_path)? {
            return Ok(None);
        }
        let (manifest, total) = self.write_parts(checkpoint, &format!("{:06}-", self.generation), |name, bytes| {
            self.place.write_part(&target.join(name), bytes)
        })?;
        // Nobody reads the parts before there is a manifest, and nobody publishes one who has lost the state.
        claim::check(&self.place, self.generation)?;
        match create(remote, &manifest_path, &manifest).map_err(|e| cannot("publish", target, e))? {
            Created::Ours => Ok(Some(total)),
            Created::Others(_) => Ok(None),
        }
    }

    /// Hands each part to `write` with its name; returns the manifest that names them, and how many bytes they have.
    fn write_parts(
        &self,
        checkpoint: Checkpoint,
        prefix: &str,
        write: impl Fn(&str, Vec<u8>) -> Result<()>,
    ) -> Result<(Vec<u8>, u64)> {
        let mut total = 0;
        let mut listed = Vec::new();
        for (index, part) in checkpoint.parts.into_iter().enumerate() {
            let bytes = codec::encode(&part.rows.rows()?)?;
            let name = format!("{prefix}{index:04}.arrow");
            total += bytes.len() as u64;
            listed.push(ManifestFile {
                name: name.clone(),
                part: part.name,
                bytes: bytes.len() as u64,
                crc32c: crc32c::crc32c(&bytes),
            });
            write(&name, bytes)?;
        }
        let previous = list(&self.place)?.into_iter().next_back();
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            engine_version: env!("CARGO_PKG_VERSION").into(),
            generation: self.generation,
            epoch: checkpoint.epoch,
            definition: checkpoint.definition,
            header: checkpoint.header,
            files: listed,
            previous_crc32c: previous
                .and_then(|(_, path)| self.place.read(&path.join(MANIFEST)).ok())
                .map(|bytes| crc32c::crc32c(&bytes)),
        };
        let body = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::bug(format!("a manifest cannot be written: {e}")))?;
        let mut bytes = format!("{:08x}\n", crc32c::crc32c(&body)).into_bytes();
        bytes.extend_from_slice(&body);
        Ok((bytes, total))
    }

    fn remove_old(&self, needed: Option<Epoch>) -> Result<()> {
        let all = list(&self.place)?;
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
        // What sinks need is known to who has the state.
        claim::check(&self.place, self.generation)?;
        for (_, path) in &all[..first_kept] {
            if let Medium::Remote(_) = self.place.medium {
                // What is removed file by file is none from the first on.
                self.place.remove_files(&[path.join(MANIFEST)])?;
            }
            self.place.remove_folder(path)?;
        }
        // The oldest kept checkpoint needs the plans after it.
        journal::remove_before(&self.place, all[first_kept].0)
    }
}

/// Removes what writers left that were killed, or failed: only while nobody else writes one.
pub fn remove_unfinished(place: &Place, generation: u64) -> Result<()> {
    let folder = place.root.join(FOLDER);
    for path in place.list(&folder).map_err(|e| cannot("list", &folder, e))? {
        match place.medium {
            Medium::Disk(_) if path.extension().is_some_and(|extension| extension == "tmp") => {
                place.remove_folder(&path)?;
            }
            Medium::Remote(_) if !is_published(place, &path)? => {
                // Who came later may be writing there.
                let mut parts = place.list(&path).map_err(|e| cannot("list", &path, e))?;
                parts.retain(|part| writer_of(part).is_none_or(|writer| writer <= generation));
                place.remove_files(&parts)?;
            }
            _ => {}
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
    for (epoch, path) in list(place)?.into_iter().rev() {
        match load(place, &path) {
            Ok(checkpoint) if checkpoint.epoch == epoch && takes(&checkpoint) => return Ok(Some(checkpoint)),
            Ok(checkpoint) if checkpoint.epoch == epoch => continue,
            Ok(_) => reasons.push(format!("{}: it is of another epoch", path.display())),
            // That nobody answers says nothing about it.
            Err(error) if place.is_unreachable(&error) => return Err(error),
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

fn load(place: &Place, path: &Path) -> Result<Checkpoint> {
    let (manifest, _) = read_manifest(place, path)?;
    let parts = load_parts(place, path, &manifest)?;
    Ok(Checkpoint {
        epoch: manifest.epoch,
        header: manifest.header,
        definition: manifest.definition,
        parts,
    })
}

/// With the checksum of its bytes.
pub(super) fn read_manifest(place: &Place, path: &Path) -> Result<(Manifest, u32)> {
    let damaged = |what: &str| Error::state(format!("{}: {what}", path.display()));
    let manifest_path = path.join(MANIFEST);
    let bytes = place
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

pub(super) fn load_parts(place: &Place, path: &Path, manifest: &Manifest) -> Result<Vec<Part>> {
    let damaged = |what: &str| Error::state(format!("{}: {what}", path.display()));
    let parts = manifest
        .files
        .iter()
        .map(|file| {
            let file_path = path.join(&file.name);
            let bytes = place.read(&file_path).map_err(|e| cannot("read", &file_path, e))?;
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

/// The generation that wrote a part into a remote store.
fn writer_of(part: &Path) -> Option<u64> {
    part.file_name()?.to_str()?.split('-').next()?.parse().ok()
}

/// Epoch and folder of every published checkpoint, oldest first.
pub(super) fn list(place: &Place) -> Result<Vec<(Epoch, PathBuf)>> {
    let folder = place.root.join(FOLDER);
    let mut found = Vec::new();
    for path in place.list(&folder).map_err(|e| cannot("list", &folder, e))? {
        let epoch = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        if let Some(epoch) = epoch
            && is_published(place, &path)?
        {
            found.push((Epoch(epoch), path));
        }
    }
    found.sort();
    Ok(found)
}

/// On a disk a checkpoint has its name once it is whole, and one without a manifest is damaged.
fn is_published(place: &Place, path: &Path) -> Result<bool> {
    match place.medium {
        Medium::Disk(_) => Ok(true),
        Medium::Remote(_) => place.has_file(&path.join(MANIFEST)),
    }
}

fn path_of(place: &Place, epoch: Epoch) -> PathBuf {
    place.root.join(FOLDER).join(format!("{:020}", epoch.0))
}
