//! A sink into Parquet files: each epoch is in the folder once, whoever is killed when.
//!
//! ```text
//! recover   newest record of the log ─▶ finish what it says ─▶ claim: a record of ours behind it, which fences whoever wrote before
//! publish   rows ─▶ staged files ─▶ a record with marker and files, under the next number (the commit) ─▶ each file gets its name
//! doubt     any error of a store ─▶ recover: the record is there, or our claim takes its number and it never will be
//!
//! <path>/day=2024-01-02/<sink>-<epoch>-<record>-<part>.parquet
//!       /_zeta/<sink>/log/<record>.json
//!                    /staging/<claim>-<instance>/….tmp        names that no engine takes for data
//! ```
//! A record is written only after the files of the one before have their names. So only the newest one can be unfinished, and who finds it
//! finishes it.

mod compact;
mod local;
mod log;
mod partition;
mod remote;
mod rows;
mod store;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;

use self::{
    compact::{Compaction, Small},
    log::{Committed, File, Layout, Log, Record, Taken, Writer},
    partition::Partitioning,
    rows::{Digest, Encoded, Form},
};
use crate::{
    connector::{Marker, OptionKind, OptionSpec, Options, Publisher, Sink, SinkEpoch, SinkError},
    types::{Epoch, folder_name, limits, type_name},
};

pub use local::LocalStore;
pub use store::{Destination, Store};

/// How often a claim is tried while others claim too.
const CLAIMS: u32 = 5;
/// Where records are staged before anybody is the writer.
const CLAIMS_FOLDER: &str = "claims";

/// What `CREATE SINK … WITH (connector = 'parquet', …)` takes.
pub const SINK_OPTIONS: &[OptionSpec] = &[
    OptionSpec::text(
        "path",
        "the folder to write: a folder of this machine, file:// or hdfs://",
    )
    .required(),
    OptionSpec::text(
        "partition_by",
        "columns whose values name folders, e.g. 'day, symbol': such rows are read without reading others",
    ),
    OptionSpec::text(
        "target_file_size",
        "bytes after which a file is full and the next one begins",
    )
    .kind(OptionKind::Size)
    .default("128 MB"),
    OptionSpec::text("compression", "how the bytes in the files are made fewer")
        .kind(OptionKind::Choice(&["zstd", "snappy", "none"]))
        .default("zstd"),
    OptionSpec::text(
        "compact",
        "whether small files of one partition are merged; who lists the folder at that moment misses their rows",
    )
    .kind(OptionKind::Boolean)
    .default("false"),
];

/// Writes one folder as one sink.
pub struct ParquetSink {
    publisher: Publisher,
    destination: Destination,
    partitioning: Partitioning,
    /// Columns of the view that stand in the files.
    columns: Vec<usize>,
    form: Form,
    digest: Digest,
    layout: Layout,
    compaction: Option<Compaction>,
    /// The sink's name, as names of files have it.
    name: String,
    log_folder: String,
    staging_folder: String,
    /// Of this opening, and of no other one.
    instance: String,
    /// Whether it was the writer once: who took its place then has fenced it for good.
    was_writer: bool,
    /// `None` until recovered, and after any doubt.
    held: Option<Held>,
}

/// What the writer knows of its log.
struct Held {
    store: Box<dyn Store>,
    /// The newest record, whose files all have their names.
    sequence: u64,
    claim: u64,
    /// How often something was staged since then: no staged name is ever given twice.
    attempt: u64,
    marker: Option<Marker>,
    committed: Committed,
    /// Records that hold no list of all files, since the last one that does.
    since_whole: u64,
}

/// Files of a record that is not written yet.
#[derive(Default)]
struct Staged {
    files: Vec<File>,
    /// The last of them, by where they are staged.
    unwritten: Vec<(String, Bytes)>,
}

impl ParquetSink {
    /// `schema` is the view's. Nothing is asked of the store.
    ///
    /// # Errors
    /// A sentence about an option, or about a type that cannot be written.
    pub fn new(
        schema: &SchemaRef,
        options: &Options,
        publisher: Publisher,
        destination: Destination,
    ) -> Result<Self, String> {
        let partitioning = Partitioning::new(options.get("partition_by").unwrap_or_default(), schema)?;
        let columns = partitioning.others(schema);
        let of_files = Arc::new(schema.project(&columns).map_err(|e| e.to_string())?);
        let bytes_max = options.size("target_file_size").unwrap_or(128 << 20);
        let form = Form::new(of_files, options.text("compression"), bytes_max)?;
        let name = folder_name(&publisher.sink);
        let partition_by = partitioning
            .columns
            .iter()
            .map(|column| schema.field(*column).name().clone());
        let columns_of_files = form.schema().fields().iter();
        let layout = Layout {
            columns: columns_of_files
                .map(|field| (field.name().clone(), type_name(field.data_type())))
                .collect(),
            partition_by: partition_by.collect(),
        };
        Ok(Self {
            digest: Digest::new(schema)?,
            log_folder: format!("_zeta/{name}/log"),
            staging_folder: format!("_zeta/{name}/staging"),
            compaction: (options.boolean("compact") == Some(true)).then(|| Compaction::new(bytes_max)),
            instance: format!("{:016x}", rand::random::<u64>()),
            publisher,
            destination,
            partitioning,
            columns,
            form,
            layout,
            name,
            was_writer: false,
            held: None,
        })
    }

    fn marker(&self, epoch: Epoch, records: u64, hash: u64) -> Marker {
        Marker {
            sink: self.publisher.sink.clone(),
            state: self.publisher.state.clone(),
            generation: self.publisher.generation,
            instance: self.publisher.instance,
            epoch,
            records,
            hash,
        }
    }

    fn record(&self, held: &Held, marker: Option<Marker>) -> Record {
        Record {
            version: log::VERSION,
            sequence: held.sequence + 1,
            nonce: format!("{:016x}", rand::random::<u64>()),
            writer: Writer {
                generation: self.publisher.generation,
                instance: self.instance.clone(),
                claim: held.claim,
            },
            marker,
            layout: self.layout.clone(),
            before: (held.committed.records_until_whole() <= held.since_whole).then(|| held.committed.clone()),
            added: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Takes the next number of the log, and does what the record says.
    fn commit(&self, held: &mut Held, record: Record, unwritten: Vec<(String, Bytes)>) -> Result<(), SinkError> {
        let staging = self.staging(held);
        let taken = self.log(&*held.store).commit(&record, unwritten, &staging)?;
        if taken == Taken::Theirs {
            return Err(self.fenced());
        }
        self.finish(&*held.store, &record)?;
        self.note(held, record);
        Ok(())
    }

    /// A record is there, and what it says is done.
    fn note(&self, held: &mut Held, record: Record) {
        held.sequence = record.sequence;
        held.committed.apply(&record.added, &record.removed);
        held.since_whole += 1;
        held.marker = record.marker;
        if record.before.is_some() {
            held.since_whole = 1;
            if let Err(error) = self.log(&*held.store).trim(record.sequence) {
                tracing::debug!(sink = self.publisher.sink, %error, "old records of the log stay for now");
            }
        }
    }

    /// Gives the files of a record their names. Those whose rows are in others go first: no row is there twice at any moment.
    fn finish(&self, store: &dyn Store, record: &Record) -> Result<(), SinkError> {
        store.delete(&record.removed)?;
        let names = record.added.iter().map(|file| (file.staged.clone(), file.path.clone()));
        let answers = store.rename_each(&names.collect::<Vec<_>>());
        for (file, answer) in record.added.iter().zip(answers) {
            if let Err(error) = answer {
                self.look_for(store, file, error)?;
            }
        }
        Ok(())
    }

    /// Sees that all is there that the log says, up to its newest record, and finishes what is not.
    fn take_up(&self, store: &dyn Store, newest: &Record) -> Result<(Committed, u64), SinkError> {
        self.log(store).sync(newest)?;
        let (committed, since_whole) = self.log(store).committed_at(newest)?;
        self.check_layout(newest, &committed)?;
        self.finish(store, newest)?;
        Ok((committed, since_whole))
    }

    /// Looks what became of a file whose rename failed: that may have been carried out all the same, now or before, by us or by whoever wrote
    /// the record.
    fn look_for(&self, store: &dyn Store, file: &File, error: SinkError) -> Result<(), SinkError> {
        // Asked in the order in which it may be moving at this moment.
        let is_staged = store.length(&file.staged)?.is_some();
        let there = store.length(&file.path)?;
        let is_same_length = there == Some(file.bytes);
        let location = &self.destination.location;
        match (there, is_staged) {
            // Nothing but getting its name takes away what is staged and committed.
            (Some(_), false) if is_same_length => store.sync(&file.path),
            (Some(_), true) if is_same_length && checksum(store, &file.path)? == Some(file.crc32c) => {
                store.sync(&file.path)?;
                store.delete(std::slice::from_ref(&file.staged))
            }
            (Some(_), _) => Err(SinkError::Failed(format!(
                "{location} holds another file {}, where one of sink `{}` belongs; take it away and start again",
                file.path, self.publisher.sink
            ))),
            (None, true) => Err(error),
            (None, false) if self.publisher.takes_over => {
                tracing::warn!(
                    sink = self.publisher.sink,
                    file = file.path,
                    "a published file is missing"
                );
                Ok(())
            }
            (None, false) => Err(SinkError::Failed(format!(
                "the file {} of epoch {} is missing in {location}: sink `{}` published it last; put it back, or start over with \
                 --reset, which publishes all rows anew",
                file.path, file.epoch, self.publisher.sink
            ))),
        }
    }

    fn log<'a>(&'a self, store: &'a dyn Store) -> Log<'a> {
        Log {
            store,
            folder: &self.log_folder,
        }
    }

    /// Where the writer puts what it has not published. By the number of its claim everybody knows who is fenced.
    fn staging(&self, held: &Held) -> String {
        format!("{}/{:020}-{}", self.staging_folder, held.claim, self.instance)
    }

    /// Removes what writers before us left: none of them can commit any more, and what they committed has its name.
    fn sweep(&self, store: &dyn Store, claim: u64) -> Result<(), SinkError> {
        for entry in store.list(&self.staging_folder)? {
            let of_writer = entry
                .name
                .split('-')
                .next()
                .and_then(|number| number.parse::<u64>().ok());
            // A claim of somebody who is not the writer yet may be among them: it is tried once more then.
            let is_over = entry.name == CLAIMS_FOLDER || of_writer.is_some_and(|number| number < claim);
            if !entry.is_folder || !is_over {
                continue;
            }
            let folder = format!("{}/{}", self.staging_folder, entry.name);
            let files = store.list(&folder)?.into_iter().filter(|file| !file.is_folder);
            store.delete(&files.map(|file| format!("{folder}/{}", file.name)).collect::<Vec<_>>())?;
            if entry.name != CLAIMS_FOLDER {
                store.delete_folder(&folder)?;
            }
        }
        Ok(())
    }

    fn check_layout(&self, found: &Record, committed: &Committed) -> Result<(), SinkError> {
        let is_empty = committed.files.is_empty() && committed.unnamed.files == 0;
        if is_empty || found.layout == self.layout {
            return Ok(());
        }
        let shape = |layout: &Layout| {
            let columns: Vec<String> = layout.columns.iter().map(|(name, of)| format!("{name} {of}")).collect();
            match layout.partition_by.as_slice() {
                [] => format!("({})", columns.join(", ")),
                by => format!("({}) partitioned by {}", columns.join(", "), by.join(", ")),
            }
        };
        Err(SinkError::Failed(format!(
            "the files that sink `{}` has in {} are {}, and now it would write {}; choose another path",
            self.publisher.sink,
            self.destination.location,
            shape(&found.layout),
            shape(&self.layout)
        )))
    }

    fn fenced(&self) -> SinkError {
        SinkError::Fenced(format!(
            "another zeta publishes as sink `{}` into {} now; stop one of them, or give one another `path`",
            self.publisher.sink, self.destination.location
        ))
    }

    /// Writes the rows of epochs where nobody sees them; the last files are left to be written with the record.
    fn stage(&self, held: &Held, epochs: &[SinkEpoch]) -> Result<Staged, SinkError> {
        let mut parts: BTreeMap<String, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        for (index, epoch) in epochs.iter().enumerate() {
            for (folder, rows) in self.partitioning.part(&epoch.added)? {
                if !rows.is_empty() {
                    parts.entry(folder).or_default().push((index, rows));
                }
            }
        }
        if limits::SINK_PARTITIONS_MAX < parts.len() {
            return Err(SinkError::Failed(format!(
                "rows for {} partitions are to be published at once, and each has a file of its own (at most {}); partition by columns of \
                 fewer values",
                parts.len(),
                limits::SINK_PARTITIONS_MAX
            )));
        }
        let epoch = epochs.last().map_or(0, |epoch| epoch.epoch.0);
        let mut staged = Staged::default();
        for (folder, pieces) in &parts {
            let mut write = |encoded| self.stage_file(held, folder, epoch, &mut staged, encoded);
            let mut out = self.form.files(&mut write);
            for (index, rows) in pieces {
                out.write_some(&epochs[*index].added, &self.columns, rows)?;
            }
            out.finish()?;
        }
        Ok(staged)
    }

    fn stage_file(
        &self,
        held: &Held,
        folder: &str,
        epoch: u64,
        staged: &mut Staged,
        encoded: Encoded,
    ) -> Result<(), SinkError> {
        let (sequence, part) = (held.sequence + 1, staged.files.len());
        let separator = if folder.is_empty() { "" } else { "/" };
        let file = File {
            // No other record has this number: no name is ever given twice.
            path: format!(
                "{folder}{separator}{}-{epoch:010}-{sequence:06}-{part:03}.parquet",
                self.name
            ),
            staged: format!(
                "{}/{sequence:020}-{:06}-{part:03}.tmp",
                self.staging(held),
                held.attempt
            ),
            bytes: encoded.bytes.len() as u64,
            crc32c: crc32c::crc32c(&encoded.bytes),
            rows: encoded.rows,
            epoch,
        };
        staged.unwritten.push((file.staged.clone(), encoded.bytes));
        staged.files.push(file);
        let bytes: usize = staged.unwritten.iter().map(|(_, bytes)| bytes.len()).sum();
        if limits::STORE_BYTES_AT_ONCE <= bytes || limits::STORE_FILES_AT_ONCE <= staged.unwritten.len() {
            held.store.write(std::mem::take(&mut staged.unwritten))?;
        }
        Ok(())
    }

    /// Merges files that are small, where enough of them are there, as far as nobody sees it; with the paths of those files.
    ///
    /// # Errors
    /// Then nothing is in doubt: the writer goes on as it is.
    fn stage_merged(&mut self, held: &mut Held) -> Result<Option<(Staged, Vec<String>)>, SinkError> {
        let Some(compaction) = &mut self.compaction else {
            return Ok(None);
        };
        let Some(small) = compaction.due(&held.committed) else {
            return Ok(None);
        };
        let mut inputs = Vec::new();
        let mut removed = Vec::new();
        let mut rows = 0;
        for file in &small.0 {
            match held.store.read(&file.path)? {
                Some(bytes) if bytes.len() as u64 == file.bytes && crc32c::crc32c(&bytes) == file.crc32c => {
                    inputs.push(bytes);
                    rows += file.rows;
                }
                Some(_) => {
                    tracing::warn!(
                        sink = self.publisher.sink,
                        file = file.path,
                        "a published file was changed, and stays as it is"
                    );
                    compaction.leave_alone(&file.path);
                    return Ok(None);
                }
                // Somebody took it away, who may.
                None => {}
            }
            removed.push(file.path.clone());
        }
        held.attempt += 1;
        let mut staged = Staged::default();
        let outcome = match self.merge(held, &small, inputs, &mut staged) {
            Ok(()) if staged.files.iter().map(|file| file.rows).sum::<u64>() != rows => Err(SinkError::Failed(
                "internal error: merged files have other rows; please report it".into(),
            )),
            other => other,
        };
        if let Err(error) = outcome {
            let paths: Vec<String> = staged.files.into_iter().map(|file| file.staged).collect();
            if let Err(error) = held.store.delete(&paths) {
                tracing::debug!(sink = self.publisher.sink, %error, "what was staged stays for now");
            }
            return Err(error);
        }
        Ok(Some((staged, removed)))
    }

    fn merge(&self, held: &Held, small: &Small, inputs: Vec<Bytes>, staged: &mut Staged) -> Result<(), SinkError> {
        let mut write = |encoded| self.stage_file(held, small.folder(), small.epoch(), staged, encoded);
        let mut out = self.form.files(&mut write);
        inputs.into_iter().try_for_each(|bytes| out.write_file(bytes))?;
        out.finish()
    }

    fn merge_later(&mut self, error: &SinkError) {
        if let Some(compaction) = &mut self.compaction {
            compaction.put_off();
        }
        tracing::warn!(sink = self.publisher.sink, %error, "small files are not merged for now");
    }
}

impl Sink for ParquetSink {
    fn recover(&mut self) -> Result<Option<Marker>, SinkError> {
        // What the store before was asked is in doubt.
        self.held = None;
        let mut store = (self.destination.connect)()?;
        for _ in 0..CLAIMS {
            let newest = self.log(&*store).newest()?;
            let (mut committed, mut since_whole) = Default::default();
            if let Some(newest) = &newest {
                let state = newest.marker.as_ref().map_or("", |marker| &marker.state);
                let is_later = self.publisher.is_outdone_by(state, newest.writer.generation);
                if is_later || self.was_writer && newest.writer.instance != self.instance {
                    return Err(self.fenced());
                }
                let is_foreign = |marker: &&Marker| marker.state != self.publisher.state && !self.publisher.takes_over;
                if let Some(marker) = newest.marker.as_ref().filter(is_foreign) {
                    // Who publishes there is not to be fenced by a mistake of ours.
                    return Ok(Some(marker.clone()));
                }
                (committed, since_whole) = match self.take_up(&*store, newest) {
                    Ok(taken_up) => taken_up,
                    // The writer before is at work, and what this record says is not so any more.
                    Err(_) if self.log(&*store).is_followed(newest)? => continue,
                    Err(error) => return Err(error),
                };
            }
            let sequence = newest.as_ref().map_or(0, |newest| newest.sequence);
            let found = newest.and_then(|newest| newest.marker);
            let mut held = Held {
                store,
                sequence,
                claim: sequence + 1,
                attempt: 0,
                // Of another state that is taken over nothing counts, and the next start has to see that.
                marker: match found {
                    Some(marker) if marker.state != self.publisher.state => Some(self.marker(Epoch(0), 0, 0)),
                    found => found,
                },
                committed,
                since_whole,
            };
            let claim = self.record(&held, held.marker.clone());
            let staging = format!("{}/{CLAIMS_FOLDER}", self.staging_folder);
            if self.log(&*held.store).commit(&claim, Vec::new(), &staging)? == Taken::Theirs {
                // One more record of the writer before, or somebody else who claims.
                store = held.store;
                continue;
            }
            self.was_writer = true;
            self.note(&mut held, claim);
            if let Err(error) = self.sweep(&*held.store, held.claim) {
                tracing::debug!(sink = self.publisher.sink, %error, "what earlier writers staged stays for now");
            }
            let marker = held.marker.clone();
            self.held = Some(held);
            return Ok(marker);
        }
        Err(SinkError::Unreachable(format!(
            "others claim sink `{}` in {} again and again",
            self.publisher.sink, self.destination.location
        )))
    }

    fn publish(&mut self, epochs: &[SinkEpoch]) -> Result<(), SinkError> {
        let Some(mut held) = self.held.take() else {
            return Err(SinkError::Unreachable("it has to recover first".into()));
        };
        let Some(last) = epochs.last() else {
            return Err(SinkError::Failed(
                "internal error: nothing to publish; please report it".into(),
            ));
        };
        if let Some(epoch) = epochs.iter().find(|epoch| 0 < epoch.removed.num_rows()) {
            return Err(SinkError::Failed(format!(
                "epoch {} takes rows back, and files that are published stay as they are",
                epoch.epoch
            )));
        }
        let (records, hash) = self.digest.of(&last.added)?;
        let marker = self.marker(last.epoch, records, hash);
        held.attempt += 1;
        let staged = self.stage(&held, epochs)?;
        let record = Record {
            added: staged.files,
            ..self.record(&held, Some(marker))
        };
        self.commit(&mut held, record, staged.unwritten)?;
        // It is published, whatever becomes of merging.
        match self.stage_merged(&mut held) {
            Ok(None) => self.held = Some(held),
            Ok(Some((staged, removed))) => {
                let record = Record {
                    added: staged.files,
                    removed,
                    ..self.record(&held, held.marker.clone())
                };
                match self.commit(&mut held, record, staged.unwritten) {
                    Ok(()) => self.held = Some(held),
                    // It is in doubt: not held any more, it recovers before it goes on.
                    Err(error) => self.merge_later(&error),
                }
            }
            Err(error) => {
                self.merge_later(&error);
                self.held = Some(held);
            }
        }
        Ok(())
    }

    fn digest(&mut self, epoch: &SinkEpoch) -> Result<(u64, u64), SinkError> {
        self.digest.of(&epoch.added)
    }
}

fn checksum(store: &dyn Store, path: &str) -> Result<Option<u32>, SinkError> {
    Ok(store.read(path)?.map(|bytes| crc32c::crc32c(&bytes)))
}
