//! What lies in a state folder, for people who look: nothing is locked, changed or started.

use crate::types::{Epoch, Error, Result};

use super::{
    checkpoint::{self, Manifest},
    claim, journal,
    place::{Place, cannot},
};

/// The state of one source or table.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The name of its folder.
    pub folder: String,
    pub generation: Option<u64>,
    /// Oldest first.
    pub checkpoints: Vec<InspectedCheckpoint>,
    /// Epochs whose plans the journal holds, from the first to the last.
    pub journal: Option<(Epoch, Epoch)>,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// What is wrong, each with its file.
    pub problems: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct InspectedCheckpoint {
    pub epoch: Epoch,
    pub generation: u64,
    pub engine_version: String,
    /// Name and bytes of each part.
    pub parts: Vec<(String, u64)>,
    pub header: serde_json::Value,
    pub definition: String,
}

/// The folders of sources and tables in a state folder, in order.
pub fn folders(state: &Place) -> Result<Vec<Place>> {
    let mut folders = Vec::new();
    for path in state.list(&state.root).map_err(|e| cannot("list", &state.root, e))? {
        if state.has_folder(&path.join(checkpoint::FOLDER))? || state.has_folder(&path.join(journal::FOLDER))? {
            folders.push(Place {
                root: path,
                ..state.clone()
            });
        }
    }
    Ok(folders)
}

/// What a state is of, as its newest checkpoint says it; `None` where nothing was ever computed.
///
/// # Errors
/// Where a manifest cannot be read.
pub fn definition_of(place: &Place) -> Result<Option<String>> {
    if let Some((_, newest)) = checkpoint::list(place)?.pop() {
        let (manifest, _) = checkpoint::read_manifest(place, &newest)?;
        return Ok(Some(manifest.definition));
    }
    let journal = place.root.join(journal::FOLDER);
    let has_journal = place.list(&journal).is_ok_and(|files| !files.is_empty());
    let path = place.root.join(super::store::DEFINITION);
    match place.read(&path) {
        Ok(text) if has_journal => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", &path, error)),
    }
}

/// Reads every byte of a state and tells what is there and what is wrong with it.
pub fn inspection_of(place: &Place) -> Result<Inspection> {
    let mut problems = Vec::new();
    let generation = match claim::newest(place) {
        Ok(Some(number)) => Some(number),
        Ok(None) => {
            problems.push(format!("{}: it has no number of its last start", place.root.display()));
            None
        }
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    let mut checkpoints = Vec::new();
    let mut before: Option<u32> = None;
    for (_, path) in checkpoint::list(place)? {
        match checkpoint::read_manifest(place, &path).and_then(|(manifest, checksum)| {
            checkpoint::load_parts(place, &path, &manifest)?;
            Ok((manifest, checksum))
        }) {
            Ok((manifest, checksum)) => {
                if let (Some(before), Some(named)) = (before, manifest.previous_crc32c)
                    && before != named
                {
                    problems.push(format!(
                        "{}: it follows another checkpoint than the one before it",
                        path.display()
                    ));
                }
                before = Some(checksum);
                checkpoints.push(inspected(manifest));
            }
            Err(error) => {
                before = None;
                problems.push(error.to_string());
            }
        }
    }
    let journal_folder = place.root.join(journal::FOLDER);
    let mut epochs = Vec::new();
    let mut journal_bytes = 0;
    match journal::read_all(place) {
        Ok((plans, bytes)) => {
            epochs = plans;
            journal_bytes = bytes;
        }
        Err(error) => problems.push(error.to_string()),
    }
    if let Some(gap) = epochs.windows(2).find(|pair| pair[1] != pair[0].next()) {
        problems.push(format!(
            "{}: epoch {} is followed by {}",
            journal_folder.display(),
            gap[0],
            gap[1]
        ));
    }
    let name = place
        .root
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    Ok(Inspection {
        folder: name.to_owned(),
        generation,
        checkpoints,
        journal: epochs.first().copied().zip(epochs.last().copied()),
        journal_bytes,
        problems,
    })
}

fn inspected(manifest: Manifest) -> InspectedCheckpoint {
    InspectedCheckpoint {
        epoch: manifest.epoch,
        generation: manifest.generation,
        engine_version: manifest.engine_version,
        parts: (manifest.files.into_iter())
            .map(|file| (file.part, file.bytes))
            .collect(),
        header: manifest.header,
        definition: manifest.definition,
    }
}

impl Inspection {
    /// The newest checkpoint, or the one of an epoch.
    ///
    /// # Errors
    /// Where there is no such checkpoint, with those that there are.
    pub fn checkpoint(&self, epoch: Option<u64>) -> Result<&InspectedCheckpoint> {
        let found = match epoch {
            Some(epoch) => self.checkpoints.iter().find(|checkpoint| checkpoint.epoch.0 == epoch),
            None => self.checkpoints.last(),
        };
        found.ok_or_else(|| {
            let epochs: Vec<String> = self
                .checkpoints
                .iter()
                .map(|checkpoint| checkpoint.epoch.to_string())
                .collect();
            Error::user(match epochs.as_slice() {
                [] => format!("`{}` has no checkpoint that can be read", self.folder),
                epochs => format!(
                    "`{}` has no such checkpoint; there are those of epochs {}",
                    self.folder,
                    epochs.join(", ")
                ),
            })
        })
    }
}
