//! Which small files of a partition are merged next: many of about one size, so that a row is written few times over.

use std::collections::{BTreeMap, BTreeSet};

use super::log::{Committed, File};
use crate::types::limits;

/// Files of one size have as many bytes as others, up to this factor (a power of two).
const CLASS_BITS: u32 = 4;

pub struct Compaction {
    /// Bytes after which a file is full.
    bytes_max: u64,
    /// Publishings until it is worth looking again.
    until_look: usize,
    left_alone: BTreeSet<String>,
}

/// Files of one partition, oldest first.
pub struct Small(pub Vec<File>);

impl Small {
    pub fn folder(&self) -> &str {
        folder_of(&self.0[0].path)
    }

    /// The last one that they have rows of.
    pub fn epoch(&self) -> u64 {
        self.0.iter().map(|file| file.epoch).max().unwrap_or(0)
    }
}

impl Compaction {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            until_look: 0,
            left_alone: BTreeSet::new(),
        }
    }

    /// After a merge that failed: what was in its way may be there for long.
    pub fn put_off(&mut self) {
        self.until_look = limits::SINK_FILES_MERGED;
    }

    /// A file that is not what was published.
    pub fn leave_alone(&mut self, path: &str) {
        self.left_alone.insert(path.to_owned());
    }

    /// Files to merge now; called after each publishing.
    pub fn due(&mut self, committed: &Committed) -> Option<Small> {
        if 0 < self.until_look {
            self.until_look -= 1;
            return None;
        }
        let mut classes: BTreeMap<(&str, u32), Vec<&File>> = BTreeMap::new();
        for file in &committed.files {
            if file.bytes < self.bytes_max / 2 && !self.left_alone.contains(&file.path) {
                let class = file.bytes.max(1).ilog2() / CLASS_BITS;
                classes.entry((folder_of(&file.path), class)).or_default().push(file);
            }
        }
        // What is merged together fits into one file.
        let fitting = |files: &[&File]| {
            let mut bytes = 0;
            let fits = |file: &&&File| {
                bytes += file.bytes;
                bytes <= self.bytes_max
            };
            files.iter().take_while(fits).copied().cloned().collect::<Vec<_>>()
        };
        let most = classes.values().max_by_key(|files| files.len())?;
        if most.len() < limits::SINK_FILES_MERGED {
            self.until_look = limits::SINK_FILES_MERGED / 4;
            return None;
        }
        let files = fitting(most);
        (1 < files.len()).then_some(Small(files))
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> File {
        File {
            path: path.into(),
            staged: String::new(),
            bytes,
            crc32c: 0,
            rows: 1,
            epoch: bytes,
        }
    }

    fn committed(files: impl IntoIterator<Item = File>) -> Committed {
        Committed {
            files: files.into_iter().collect(),
            ..Committed::default()
        }
    }

    #[test]
    fn many_files_of_a_size_in_one_partition_are_merged() {
        let many = limits::SINK_FILES_MERGED as u64;
        let of = |folder: &str, count: u64, bytes: u64| {
            let folder = folder.to_owned();
            (0..count).map(move |index| file(&format!("{folder}/{index}"), bytes + index))
        };
        let due = |files: Vec<File>| Compaction::new(1 << 20).due(&committed(files));
        assert!(due(vec![]).is_none());
        assert!(due(of("a", many - 1, 300).collect()).is_none(), "too few");
        let split = of("a", many / 2, 300).chain(of("b", many / 2, 300));
        assert!(due(split.collect()).is_none(), "of two partitions");
        let sizes = of("a", many / 2, 300).chain(of("a", many / 2, 70_000));
        assert!(
            due(sizes.collect()).is_none(),
            "of two sizes: the large ones would be written again and again"
        );
        assert!(due(of("a", many, 600_000).collect()).is_none(), "large enough");
        let small = due(of("a", many, 300).chain(of("b", 3, 300)).collect()).unwrap();
        assert_eq!(
            (small.folder(), small.0.len() as u64, small.epoch()),
            ("a", many, 299 + many)
        );
        let fitting = due(of("a", many, 100_000).collect()).unwrap();
        assert_eq!(fitting.0.len(), 10, "a megabyte of them");
    }

    #[test]
    fn a_merge_that_failed_is_tried_again_later() {
        let many = committed((0..limits::SINK_FILES_MERGED as u64).map(|index| file(&format!("a/{index}"), 300)));
        let mut compaction = Compaction::new(1 << 20);
        assert!(compaction.due(&many).is_some());
        compaction.put_off();
        for _ in 0..limits::SINK_FILES_MERGED {
            assert!(compaction.due(&many).is_none());
        }
        assert!(compaction.due(&many).is_some());
    }
}
