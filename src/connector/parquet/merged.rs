//! A directory of pair files as one stream of rows in the order of event time, ties by symbol.
//!
//! ```text
//! ADA-USDT.parquet ─▶ some thousand rows ─┐
//! BTC-USDT.parquet ─▶ some thousand rows ─┼─▶ heap by (open_time, file) ─▶ interleave ─▶ symbol, columns …
//! SOL-USDT.parquet    not begun yet       ┘   (a file waits at the lower bound of its first row group)
//! ```
//! Columns are found by name. Memory does not grow with the length of the files: each holds one small batch, and only as
//! many readers as fit stay open between batches; the others open again where they stood.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewBuilder, TimestampNanosecondArray},
    buffer::ScalarBuffer,
    compute::{CastOptions, cast_with_options, interleave},
    datatypes::{
        DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType,
    },
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
            statistics::StatisticsConverter,
        },
    },
    file::metadata::PageIndexPolicy,
};

use crate::types::{Error, Result};

/// The column of event time, as Binance's history names it.
pub const TIME_COLUMN: &str = "open_time";
/// The column of the pair, which stands in the name of the file.
pub const SYMBOL_COLUMN: &str = "symbol";
/// What pandas calls an index without a name.
const PANDAS_INDEX: &str = "__index_level_0__";

/// Decoded rows that all files hold together, about.
const BUFFER_BYTES: usize = 256 << 20;
/// What open readers hold together at most, by the size of their pages.
const READER_BYTES_MAX: usize = 256 << 20;
/// Files open at once.
const READERS_OPEN_MAX: usize = 128;
/// Rows that a file holds at most, and at least.
const READ_ROWS_MAX: usize = 8_192;
const READ_ROWS_MIN: usize = 512;
/// The largest page, with its dictionary, that a writer is expected to have made.
const PAGE_BYTES: usize = 2 << 20;

/// Which rows and columns.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// In this order; `None`: event time, then all others as they stand in the first file.
    pub columns: Option<Vec<String>>,
    /// Whether the symbol stands first.
    pub with_symbol: bool,
    /// Event times in `[from_ns, to_ns)`.
    pub from_ns: Option<i64>,
    pub to_ns: Option<i64>,
    pub limit: Option<u64>,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            columns: None,
            with_symbol: true,
            from_ns: None,
            to_ns: None,
            limit: None,
        }
    }
}

/// Consecutive rows of the merged order.
#[derive(Debug)]
pub struct MergedRows {
    /// `symbol` (if wanted, Utf8View), then the chosen columns; times are Timestamp(ns) without a zone.
    pub rows: RecordBatch,
    /// Nanoseconds since 1970, as long as `rows`; never descending.
    pub event_times: Vec<i64>,
    /// The file of each row: see [`MergedReader::symbol`].
    pub files: Vec<u32>,
}

pub struct MergedReader {
    schema: SchemaRef,
    with_symbol: bool,
    from_ns: i64,
    to_ns: Option<i64>,
    /// In the order of their symbols.
    files: Vec<PairFile>,
    /// For each file with rows left the time of its next row, or a lower bound of it while the file holds no rows.
    heap: BinaryHeap<Reverse<(i64, u32)>>,
    /// Rows that may still come.
    rows_left: u64,
    /// Why reading failed: it does not go on behind the place.
    broken: Option<String>,
}

struct PairFile {
    path: PathBuf,
    symbol: String,
    metadata: ArrowReaderMetadata,
    /// The columns that are decoded, in the order of the file.
    mask: ProjectionMask,
    /// Where event time and the output's columns (without the symbol) stand among those.
    time_index: usize,
    column_indexes: Vec<usize>,
    /// Row groups that may hold rows of the range, and all their rows.
    row_groups: Vec<usize>,
    rows: usize,
    /// Rows decoded so far.
    rows_read: usize,
    read_rows: usize,
    stays_open: bool,
    reader: Option<ParquetRecordBatchReader>,
    /// Rows in memory, from `at` on not yet given.
    held: Vec<ArrayRef>,
    held_times: ScalarBuffer<i64>,
    at: usize,
    last_time: i64,
}

impl MergedReader {
    /// Reads the footers of all `*.parquet` files in `path` (or of the one file that it names), no rows.
    ///
    /// # Errors
    /// No such files, a file that is no Parquet or lacks a column: the sentence names the file.
    pub fn open(path: &Path, options: &MergeOptions) -> Result<Self> {
        let mut found = Vec::new();
        for path in pair_files(path)? {
            let symbol = path
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default();
            let file = open_file(&path)?;
            // The offset index lets a reader that opens again step over pages; it is used where a writer has left one.
            let reader_options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
            let metadata = ArrowReaderMetadata::load(&file, reader_options).map_err(|cause| of_file(&path, cause))?;
            found.push((symbol, path, metadata));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));

        let (_, first_path, first) = found.first().expect("pair_files gives at least one");
        let columns = output_columns(first_path, first, options)?;
        let mut fields = Vec::new();
        if options.with_symbol {
            fields.push(Field::new(SYMBOL_COLUMN, DataType::Utf8View, false));
        }
        for (name, data_type) in &columns {
            fields.push(Field::new(name, data_type.clone(), name != TIME_COLUMN));
        }
        let row_bytes = columns
            .iter()
            .map(|(_, data_type)| data_type.primitive_width().unwrap_or(32))
            .sum::<usize>()
            + 8;
        let read_rows = (BUFFER_BYTES / found.len() / row_bytes).clamp(READ_ROWS_MIN, READ_ROWS_MAX);

        let mut reader = Self {
            schema: Arc::new(Schema::new(fields)),
            with_symbol: options.with_symbol,
            from_ns: options.from_ns.unwrap_or(i64::MIN),
            to_ns: options.to_ns,
            files: Vec::new(),
            heap: BinaryHeap::new(),
            rows_left: 0,
            broken: None,
        };
        let mut reader_bytes = 0;
        for (symbol, path, metadata) in found {
            let (mut file, first_time_min) =
                PairFile::new(symbol, path, metadata, &columns, reader.from_ns, reader.to_ns)?;
            file.read_rows = read_rows;
            file.stays_open =
                reader.files.len() < READERS_OPEN_MAX && reader_bytes + file.reader_bytes() <= READER_BYTES_MAX;
            reader_bytes += if file.stays_open { file.reader_bytes() } else { 0 };
            reader.rows_left += file.rows as u64;
            if 0 < file.rows {
                reader.heap.push(Reverse((first_time_min, reader.files.len() as u32)));
            }
            reader.files.push(file);
        }
        reader.rows_left = reader.rows_left.min(options.limit.unwrap_or(u64::MAX));
        Ok(reader)
    }

    /// Of [`MergedRows::rows`].
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// The pair that `file` holds: its name without `.parquet`.
    pub fn symbol(&self, file: u32) -> &str {
        &self.files[file as usize].symbol
    }

    /// How many rows may still come: exact where neither end of the time range cuts through a row group.
    pub fn rows_at_most(&self) -> u64 {
        self.rows_left
    }

    /// The next rows, at most `rows_max` of them, which is more than 0; `None` at the end.
    ///
    /// # Errors
    /// A file cannot be read on, or its rows are not in the order of event time. The same error comes ever after.
    pub fn next_rows(&mut self, rows_max: usize) -> Result<Option<MergedRows>> {
        assert!(0 < rows_max, "a batch has rows");
        self.unless_broken(|reader| reader.merge(rows_max))
    }

    /// Steps over `rows` rows, or all that are left; says how many it were.
    ///
    /// # Errors
    /// As [`Self::next_rows`].
    pub fn skip_rows(&mut self, rows: u64) -> Result<u64> {
        self.unless_broken(|reader| reader.step_over(rows))
    }

    fn unless_broken<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(reason) = &self.broken {
            return Err(Error::external(reason.as_str()));
        }
        read(self).inspect_err(|error| self.broken = Some(error.to_string()))
    }

    fn merge(&mut self, rows_max: usize) -> Result<Option<MergedRows>> {
        let rows_max = usize::try_from(self.rows_left).unwrap_or(usize::MAX).min(rows_max);
        let (mut event_times, mut files, mut picks) = (Vec::new(), Vec::new(), Vec::new());
        // Batches that rows were picked from, and for each file the place of the one it holds now.
        let mut sources: Vec<Vec<ArrayRef>> = Vec::new();
        let mut source_of_file: Vec<Option<usize>> = vec![None; self.files.len()];
        while picks.len() < rows_max {
            let Some(mut top) = self.heap.peek_mut() else { break };
            let Reverse((_, index)) = *top;
            let file = &mut self.files[index as usize];
            if file.at == file.held_times.len() {
                source_of_file[index as usize] = None;
                match file.load(self.from_ns, self.to_ns, &self.schema)? {
                    Some(time) => *top = Reverse((time, index)),
                    None => {
                        PeekMut::pop(top);
                    }
                }
                continue;
            }
            let source = *source_of_file[index as usize].get_or_insert_with(|| {
                sources.push(file.held.clone());
                sources.len() - 1
            });
            event_times.push(file.held_times[file.at]);
            files.push(index);
            picks.push((source, file.at));
            *top = Reverse((file.step(), index));
        }
        if picks.is_empty() {
            self.rows_left = 0;
            return Ok(None);
        }
        self.rows_left -= picks.len() as u64;

        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        if self.with_symbol {
            let mut symbols = StringViewBuilder::with_capacity(files.len());
            files.iter().for_each(|file| symbols.append_value(self.symbol(*file)));
            columns.push(Arc::new(symbols.finish()));
        }
        for column in 0..self.schema.fields().len() - columns.len() {
            let arrays: Vec<&dyn Array> = sources.iter().map(|source| source[column].as_ref()).collect();
            columns.push(
                interleave(&arrays, &picks).map_err(|cause| Error::bug(format!("rows do not interleave: {cause}")))?,
            );
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|cause| Error::bug(format!("merged rows do not fit their schema: {cause}")))?;
        Ok(Some(MergedRows {
            rows,
            event_times,
            files,
        }))
    }

    fn step_over(&mut self, rows: u64) -> Result<u64> {
        let rows = rows.min(self.rows_left);
        let mut skipped = 0;
        while skipped < rows {
            let Some(mut top) = self.heap.peek_mut() else {
                self.rows_left = 0;
                return Ok(skipped);
            };
            let Reverse((_, index)) = *top;
            let file = &mut self.files[index as usize];
            if file.at < file.held_times.len() {
                *top = Reverse((file.step(), index));
                skipped += 1;
                continue;
            }
            match file.load(self.from_ns, self.to_ns, &self.schema)? {
                Some(time) => *top = Reverse((time, index)),
                None => {
                    PeekMut::pop(top);
                }
            }
        }
        self.rows_left -= skipped;
        Ok(skipped)
    }
}

/// All `*.parquet` files of a directory, or the file itself.
fn pair_files(path: &Path) -> Result<Vec<PathBuf>> {
    let shown = path.display();
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries =
        std::fs::read_dir(path).map_err(|cause| Error::caused(format!("cannot read the directory {shown}"), cause))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|cause| Error::caused(format!("cannot read the directory {shown}"), cause))?
            .path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
        if path.extension().is_some_and(|extension| extension == "parquet") && !is_hidden && path.is_file() {
            paths.push(path);
        }
    }
    match paths.is_empty() {
        true => Err(Error::user(format!(
            "no .parquet files in {shown}; `zeta generate --out {shown}` makes some"
        ))),
        false => Ok(paths),
    }
}

fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|cause| Error::caused(format!("cannot open {}", path.display()), cause))
}

fn of_file(path: &Path, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::caused(format!("{} cannot be read as Parquet", path.display()), cause)
}

/// The names and types of the output, without the symbol: by what the first file has.
fn output_columns(path: &Path, first: &ArrowReaderMetadata, options: &MergeOptions) -> Result<Vec<(String, DataType)>> {
    let time_index = time_index(path, first)?;
    let time_type = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let others = first
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter(|(index, field)| *index != time_index && field.name() != SYMBOL_COLUMN);
    let mut all = vec![(TIME_COLUMN.to_owned(), time_type.clone())];
    all.extend(others.map(|(_, field)| {
        let data_type = match field.data_type() {
            DataType::Timestamp(_, _) => time_type.clone(),
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            other => other.clone(),
        };
        (field.name().clone(), data_type)
    }));
    let Some(wanted) = &options.columns else { return Ok(all) };
    let mut chosen: Vec<(String, DataType)> = Vec::new();
    for name in wanted.iter().filter(|name| *name != SYMBOL_COLUMN) {
        let Some(column) = all.iter().find(|(column, _)| column == name) else {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::user(format!(
                "{} has no column {name}; it has {}",
                path.display(),
                names.join(", ")
            )));
        };
        if !chosen.contains(column) {
            chosen.push(column.clone());
        }
    }
    Ok(chosen)
}

/// Where event time stands in a file: an ordinary column, or the index that pandas has written.
fn time_index(path: &Path, metadata: &ArrowReaderMetadata) -> Result<usize> {
    let schema = metadata.schema();
    let index = schema.index_of(TIME_COLUMN).ok().or_else(|| {
        let index = schema.index_of(PANDAS_INDEX).ok()?;
        let pandas = metadata
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .and_then(|pairs| {
                let text = pairs.iter().find(|pair| pair.key == "pandas")?.value.as_deref()?;
                serde_json::from_str::<serde_json::Value>(text).ok()
            });
        // pandas says how the index is called; without it, or without a name, the only index is taken for the time.
        let name = pandas.as_ref().and_then(|pandas| {
            let columns = pandas.get("columns")?.as_array()?;
            columns
                .iter()
                .find(|column| column["field_name"] == PANDAS_INDEX)?
                .get("name")?
                .as_str()
        });
        name.is_none_or(|name| name == TIME_COLUMN || name == PANDAS_INDEX)
            .then_some(index)
    });
    match index.filter(|index| matches!(schema.field(*index).data_type(), DataType::Timestamp(_, _))) {
        Some(index) => Ok(index),
        None => Err(Error::user(format!(
            "{} has no column {TIME_COLUMN} of a timestamp type",
            path.display()
        ))),
    }
}

impl PairFile {
    /// The file, and a lower bound of its first event time.
    fn new(
        symbol: String,
        path: PathBuf,
        metadata: ArrowReaderMetadata,
        columns: &[(String, DataType)],
        from_ns: i64,
        to_ns: Option<i64>,
    ) -> Result<(Self, i64)> {
        let time_root = time_index(&path, &metadata)?;
        let mut roots = vec![time_root];
        let mut root_of_column = Vec::new();
        for (name, _) in columns {
            let root = if name == TIME_COLUMN {
                Ok(time_root)
            } else {
                metadata.schema().index_of(name)
            };
            let root = root.map_err(|_| {
                Error::user(format!(
                    "{} has no column {name}, which other files have",
                    path.display()
                ))
            })?;
            root_of_column.push(root);
            roots.push(root);
        }
        roots.sort_unstable();
        roots.dedup();
        let place = |root: usize| roots.binary_search(&root).expect("every root was put in");
        let (row_groups, first_time_min) = groups_in_range(&path, &metadata, time_root, from_ns, to_ns)?;
        let rows = row_groups
            .iter()
            .map(|group| metadata.metadata().row_group(*group).num_rows().max(0) as usize)
            .sum();
        let file = Self {
            mask: ProjectionMask::roots(metadata.parquet_schema(), roots.iter().copied()),
            time_index: place(time_root),
            column_indexes: root_of_column.into_iter().map(place).collect(),
            row_groups,
            rows,
            rows_read: 0,
            read_rows: READ_ROWS_MIN,
            stays_open: false,
            reader: None,
            held: Vec::new(),
            held_times: ScalarBuffer::default(),
            at: 0,
            last_time: i64::MIN,
            symbol,
            path,
            metadata,
        };
        Ok((file, first_time_min))
    }

    /// What an open reader of this file holds at most, about: a page and a dictionary of each column.
    fn reader_bytes(&self) -> usize {
        let groups = self
            .row_groups
            .iter()
            .map(|group| self.metadata.metadata().row_group(*group));
        groups
            .map(|group| {
                let columns = group
                    .columns()
                    .iter()
                    .enumerate()
                    .filter(|(leaf, _)| self.mask.leaf_included(*leaf));
                columns
                    .map(|(_, column)| (column.uncompressed_size().max(0) as usize).min(PAGE_BYTES))
                    .sum()
            })
            .max()
            .unwrap_or(0)
    }

    /// Steps over the row at hand; gives the time of the next, or of this one as its lower bound.
    #[inline]
    fn step(&mut self) -> i64 {
        self.at += 1;
        self.held_times.get(self.at).copied().unwrap_or(self.last_time)
    }

    /// Reads the next rows of the range into memory; gives the time of the first, or `None` at the end.
    fn load(&mut self, from_ns: i64, to_ns: Option<i64>, schema: &SchemaRef) -> Result<Option<i64>> {
        loop {
            self.held = Vec::new();
            self.held_times = ScalarBuffer::default();
            self.at = 0;
            let batch = if self.rows_read < self.rows { self.read()? } else { None };
            let Some(batch) = batch else {
                self.finish();
                return Ok(None);
            };
            let first_row = self.rows_read;
            self.rows_read += batch.num_rows();

            let times = in_nanoseconds(batch.column(self.time_index)).map_err(|reason| self.bad(first_row, &reason))?;
            if times.null_count() != 0 {
                return Err(self.bad(first_row, &format!("{TIME_COLUMN} is null")));
            }
            let mut last = self.last_time;
            for (row, time) in times.values().iter().enumerate() {
                if *time < last {
                    return Err(self.bad(first_row + row, &format!("rows are not in the order of {TIME_COLUMN}")));
                }
                last = *time;
            }
            self.last_time = last;

            let start = times.values().partition_point(|time| *time < from_ns);
            let end = to_ns.map_or(times.len(), |to_ns| {
                times.values().partition_point(|time| *time < to_ns)
            });
            if end < times.len() {
                // What follows is later still.
                self.rows_read = self.rows;
            }
            if end <= start {
                continue;
            }
            let with_symbol = schema.fields().len() - self.column_indexes.len();
            for (column, &index) in self.column_indexes.iter().enumerate() {
                let field = schema.field(with_symbol + column);
                let array = if index == self.time_index {
                    Arc::new(times.clone())
                } else {
                    as_type(batch.column(index), field.data_type())
                        .map_err(|reason| self.bad(first_row, &format!("column {}: {reason}", field.name())))?
                };
                self.held.push(array.slice(start, end - start));
            }
            self.held_times = times.values().slice(start, end - start);
            return Ok(Some(self.held_times[0]));
        }
    }

    /// The next rows as they stand in the file; `None` at its end.
    fn read(&mut self) -> Result<Option<RecordBatch>> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let builder =
                    ParquetRecordBatchReaderBuilder::new_with_metadata(open_file(&self.path)?, self.metadata.clone())
                        .with_projection(self.mask.clone())
                        .with_row_groups(self.row_groups.clone())
                        .with_batch_size(self.read_rows);
                let builder = match self.stays_open {
                    true => builder,
                    false => builder.with_offset(self.rows_read).with_limit(self.read_rows),
                };
                builder.build().map_err(|cause| of_file(&self.path, cause))?
            }
        };
        let batch = reader.next().transpose().map_err(|cause| of_file(&self.path, cause))?;
        if self.stays_open {
            self.reader = Some(reader);
        }
        match batch {
            Some(batch) if 0 < batch.num_rows() => Ok(Some(batch)),
            _ => Err(self.bad(self.rows_read, "the file ends before its last row")),
        }
    }

    fn finish(&mut self) {
        self.rows_read = self.rows;
        self.reader = None;
    }

    /// An error about a row, counted over the row groups of the range.
    fn bad(&self, row: usize, reason: &str) -> Error {
        Error::external(format!("{}: {reason} (at row {row})", self.path.display()))
    }
}

/// The row groups that may hold event times in `[from_ns, to_ns)`, and a lower bound of the first time in them.
fn groups_in_range(
    path: &Path,
    metadata: &ArrowReaderMetadata,
    time_root: usize,
    from_ns: i64,
    to_ns: Option<i64>,
) -> Result<(Vec<usize>, i64)> {
    let groups = metadata.metadata().row_groups();
    let name = metadata.schema().field(time_root).name();
    let converter = StatisticsConverter::try_new(name, metadata.schema(), metadata.parquet_schema())
        .map_err(|cause| of_file(path, cause))?;
    let bounds = |array: ArrayRef| {
        in_nanoseconds(&array).map_err(|reason| Error::external(format!("{}: {reason}", path.display())))
    };
    let mins = bounds(converter.row_group_mins(groups).map_err(|cause| of_file(path, cause))?)?;
    let maxes = bounds(
        converter
            .row_group_maxes(groups)
            .map_err(|cause| of_file(path, cause))?,
    )?;
    let bound = |array: &TimestampNanosecondArray, group: usize| array.is_valid(group).then(|| array.value(group));
    let is_in_range = |group: &usize| {
        bound(&maxes, *group).is_none_or(|max| from_ns <= max)
            && bound(&mins, *group).is_none_or(|min| to_ns.is_none_or(|to_ns| min < to_ns))
    };
    let in_range: Vec<usize> = (0..groups.len()).filter(is_in_range).collect();
    let first_time_min = in_range
        .first()
        .and_then(|group| bound(&mins, *group))
        .unwrap_or(i64::MIN);
    Ok((in_range, first_time_min.max(from_ns)))
}

/// A time column of any unit and zone in nanoseconds since 1970 UTC. (A column with a zone holds UTC already.)
fn in_nanoseconds(array: &ArrayRef) -> Result<TimestampNanosecondArray, String> {
    let (values, factor): (&ScalarBuffer<i64>, i64) = match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => (array.as_primitive::<TimestampNanosecondType>().values(), 1),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (array.as_primitive::<TimestampMicrosecondType>().values(), 1_000)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (array.as_primitive::<TimestampMillisecondType>().values(), 1_000_000)
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            (array.as_primitive::<TimestampSecondType>().values(), 1_000_000_000)
        }
        other => return Err(format!("{other} is no time")),
    };
    if factor == 1 {
        return Ok(TimestampNanosecondArray::new(values.clone(), array.nulls().cloned()));
    }
    // Goes over the optional values: what stands under a null does not count.
    let values = Int64Array::new(values.clone(), array.nulls().cloned());
    let nanos = values.iter().map(|value| match value {
        Some(value) => value
            .checked_mul(factor)
            .map(Some)
            .ok_or("a time is beyond the range of nanoseconds"),
        None => Ok(None),
    });
    Ok(nanos.collect::<Result<TimestampNanosecondArray, _>>()?)
}

/// The column in the output's type, unchanged in value.
fn as_type(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, String> {
    if array.data_type() == data_type {
        return Ok(array.clone());
    }
    if let DataType::Timestamp(_, _) = array.data_type() {
        return Ok(Arc::new(in_nanoseconds(array)?));
    }
    cast_with_options(
        array,
        data_type,
        &CastOptions {
            safe: false,
            ..CastOptions::default()
        },
    )
    .map_err(|cause| cause.to_string())
}

#[cfg(test)]
mod tests;
