//! Every crash, error, late answer and zombie at every call that the sink makes: each row is there once.
//!
//! ```text
//! writer ─ call n ─▶ killed before it, after it; an error though it was done; done only later; another writer takes over meanwhile
//!                     └─▶ the next writer recovers and goes on ─▶ rows in the folder = rows of all epochs, each once
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringViewArray},
    datatypes::Int64Type,
};
use bytes::Bytes;
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::remote::{Entry, RemoteFolder};

type Done = Box<dyn FnOnce(&mut World) + Send>;

/// Files in memory, and what was asked for and is not done yet.
#[derive(Default)]
struct World {
    files: BTreeMap<String, Bytes>,
    /// Of what a plain listing shows as data.
    ids: BTreeMap<String, Vec<i64>>,
    calls: u64,
    late: Vec<(u64, Done)>,
}

impl World {
    fn put(&mut self, path: &str, bytes: Bytes) {
        if is_data(path) {
            self.ids.insert(path.to_owned(), ids_in(bytes.clone()));
        }
        self.files.insert(path.to_owned(), bytes);
        let mut all: Vec<i64> = self.ids.values().flatten().copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a listing shows a row twice: {:?}", self.ids);
    }

    fn remove(&mut self, path: &str) -> Option<Bytes> {
        self.ids.remove(path);
        self.files.remove(path)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), SinkError> {
        if self.files.contains_key(to) {
            return Err(SinkError::Unreachable(format!("{to} is there")));
        }
        let bytes = self.remove(from);
        let bytes = bytes.ok_or_else(|| SinkError::Unreachable(format!("{from} is not there")))?;
        self.put(to, bytes);
        Ok(())
    }
}

fn is_data(path: &str) -> bool {
    path.ends_with(".parquet")
}

fn ids_in(bytes: Bytes) -> Vec<i64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap();
    let column = |batch: RecordBatch| {
        let ids = arrow::array::AsArray::as_primitive::<Int64Type>(batch.column_by_name("id").unwrap());
        ids.values().to_vec()
    };
    reader.flat_map(|batch| column(batch.unwrap())).collect()
}

/// What happens to one call of a writer.
enum Fault {
    None,
    KilledBefore,
    KilledAfter,
    ErrorBefore,
    ErrorAfter,
    /// An error, and so many calls later it is done.
    Late(u64),
    /// Something happens before it is done.
    Meanwhile(Box<dyn FnOnce() + Send>),
}

/// One writer's way to the world.
struct Line {
    world: Arc<Mutex<World>>,
    calls: u64,
    at: u64,
    fault: Fault,
    is_dead: bool,
}

struct TestStore(Arc<Mutex<Line>>);

impl TestStore {
    fn call<T: Default>(
        &self,
        work: impl FnOnce(&mut World) -> Result<T, SinkError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let error = || SinkError::Unreachable("no answer".into());
        let (world, fault) = {
            let mut line = self.0.lock().unwrap();
            if line.is_dead {
                return Err(error());
            }
            line.calls += 1;
            let is_now = line.calls - 1 == line.at;
            let fault = if is_now {
                std::mem::replace(&mut line.fault, Fault::None)
            } else {
                Fault::None
            };
            line.is_dead = matches!(fault, Fault::KilledBefore | Fault::KilledAfter);
            (Arc::clone(&line.world), fault)
        };
        if let Fault::Meanwhile(happens) = fault {
            happens();
            return work(&mut world.lock().unwrap());
        }
        let mut world = world.lock().unwrap();
        world.calls += 1;
        let now = world.calls;
        let due = world.late.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>();
        due.into_iter().for_each(|(_, done)| done(&mut world));
        match fault {
            Fault::None | Fault::Meanwhile(_) => work(&mut world),
            Fault::KilledBefore | Fault::ErrorBefore => Err(error()),
            Fault::KilledAfter | Fault::ErrorAfter => work(&mut world).and(Err(error())),
            Fault::Late(calls) => {
                // Nobody hears what becomes of it.
                world.late.push((now + calls, Box::new(move |world| drop(work(world)))));
                Err(error())
            }
        }
    }
}

impl Store for TestStore {
    fn read(&self, path: &str) -> Result<Option<Bytes>, SinkError> {
        let path = path.to_owned();
        self.call(move |world| Ok(world.files.get(&path).cloned()))
    }

    fn length(&self, path: &str) -> Result<Option<u64>, SinkError> {
        let path = path.to_owned();
        self.call(move |world| Ok(world.files.get(&path).map(|bytes| bytes.len() as u64)))
    }

    fn write(&self, files: Vec<(String, Bytes)>) -> Result<(), SinkError> {
        // All of them are tried: they run beside each other.
        let write = |(path, bytes): (String, Bytes)| {
            self.call(move |world| {
                assert!(!is_data(&path), "data gets its name when it is whole");
                assert!(!world.files.contains_key(&path), "{path} is written twice");
                world.put(&path, bytes);
                Ok(())
            })
        };
        files.into_iter().map(write).fold(Ok(()), Result::and)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), SinkError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.call(move |world| world.rename(&from, &to))
    }

    fn rename_each(&self, names: &[(String, String)]) -> Vec<Result<(), SinkError>> {
        names.iter().map(|(from, to)| self.rename(from, to)).collect()
    }

    fn delete(&self, paths: &[String]) -> Result<(), SinkError> {
        // One call each, as a store does it.
        for path in paths {
            let path = path.clone();
            self.call(move |world| {
                world.remove(&path);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn delete_folder(&self, _: &str) -> Result<(), SinkError> {
        self.call(|_| Ok(()))
    }

    fn list(&self, folder: &str) -> Result<Vec<Entry>, SinkError> {
        let prefix = format!("{folder}/");
        self.call(move |world| {
            let inside = world.files.keys().filter_map(|path| path.strip_prefix(&prefix));
            let mut entries: Vec<Entry> = inside
                .map(|rest| match rest.split_once('/') {
                    Some((name, _)) => Entry {
                        name: name.into(),
                        is_folder: true,
                    },
                    None => Entry {
                        name: rest.into(),
                        is_folder: false,
                    },
                })
                .collect();
            entries.dedup();
            Ok(entries)
        })
    }

    fn sync(&self, _: &str) -> Result<(), SinkError> {
        self.call(|_| Ok(()))
    }
}

fn epoch(number: u64) -> SinkEpoch {
    let ids: Vec<i64> = (0..7).map(|row| number as i64 * 100 + row).collect();
    let days = ids.iter().map(|id| (id % 3 != 0).then(|| format!("day {}", id % 2)));
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(ids.clone())) as ArrayRef, true),
        ("day", Arc::new(days.collect::<StringViewArray>()), true),
        (
            "v",
            Arc::new(Int64Array::from(ids.iter().map(|id| id * id).collect::<Vec<_>>())),
            true,
        ),
    ])
    .unwrap();
    SinkEpoch {
        epoch: Epoch(number),
        removed: RecordBatch::new_empty(rows.schema()),
        added: rows,
    }
}

fn options(more: &[(&str, &str)]) -> Options {
    let given = [("path", "/out")].iter().chain(more);
    Options::resolve(
        SINK_OPTIONS,
        given.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

fn publisher(state: &str) -> Publisher {
    Publisher {
        sink: "s".into(),
        state: state.into(),
        generation: 1,
        instance: 1,
        takes_over: false,
        shares_state: false,
    }
}

struct Writer {
    sink: ParquetSink,
    line: Arc<Mutex<Line>>,
}

impl Writer {
    fn with(world: &Arc<Mutex<World>>, at: u64, fault: Fault, publisher: Publisher, more: &[(&str, &str)]) -> Self {
        let line = Arc::new(Mutex::new(Line {
            world: Arc::clone(world),
            calls: 0,
            at,
            fault,
            is_dead: false,
        }));
        let destination = Destination {
            location: "/out".into(),
            connect: {
                let line = Arc::clone(&line);
                Box::new(move || Ok(Box::new(TestStore(Arc::clone(&line)))))
            },
        };
        let sink = ParquetSink::new(&epoch(1).added.schema(), &options(more), publisher, destination).unwrap();
        Self { sink, line }
    }

    fn new(world: &Arc<Mutex<World>>, at: u64, fault: Fault, more: &[(&str, &str)]) -> Self {
        Self::with(world, at, fault, publisher("a"), more)
    }

    /// Publishes epochs `1..=last` in pairs as a runtime does, until that is done or it cannot go on.
    fn run(&mut self, last: u64) -> Result<(), SinkError> {
        let published = self.recover()?;
        self.go_on(published, last)
    }

    fn go_on(&mut self, mut published: u64, last: u64) -> Result<(), SinkError> {
        while published < last {
            let epochs: Vec<SinkEpoch> = (published + 1..=last).take(2).map(epoch).collect();
            match self.sink.publish(&epochs) {
                Ok(()) => published += epochs.len() as u64,
                Err(SinkError::Unreachable(_)) if !self.line.lock().unwrap().is_dead => published = self.recover()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn recover(&mut self) -> Result<u64, SinkError> {
        loop {
            match self.sink.recover() {
                Ok(None) => return Ok(0),
                Ok(Some(marker)) => {
                    let rows = self.sink.digest(&epoch(marker.epoch.0)).unwrap();
                    assert_eq!((marker.records, marker.hash), rows, "the marker is of its epoch");
                    return Ok(marker.epoch.0);
                }
                Err(SinkError::Unreachable(_)) if !self.line.lock().unwrap().is_dead => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn calls(&self) -> u64 {
        self.line.lock().unwrap().calls
    }
}

/// Each row of epochs `1..=last` is there once; the log names what is there; nothing staged is left.
#[track_caller]
fn assert_each_once(world: &Arc<Mutex<World>>, last: u64, what: &str) {
    let world = world.lock().unwrap();
    let mut ids: Vec<i64> = world.ids.values().flatten().copied().collect();
    ids.sort_unstable();
    let expected: Vec<i64> = (1..=last as i64)
        .flat_map(|epoch| (0..7).map(move |row| epoch * 100 + row))
        .collect();
    assert_eq!(ids, expected, "{what}");
    let line = Line {
        world: Arc::default(),
        calls: 0,
        at: 0,
        fault: Fault::None,
        is_dead: false,
    };
    *line.world.lock().unwrap() = World {
        files: world.files.clone(),
        ..World::default()
    };
    let store = TestStore(Arc::new(Mutex::new(line)));
    let log = Log {
        store: &store,
        folder: "_zeta/s/log",
    };
    let newest = log.newest().unwrap().unwrap();
    let (committed, _) = log.committed_at(&newest).unwrap();
    let mut named: Vec<&str> = committed.files.iter().map(|file| file.path.as_str()).collect();
    named.sort_unstable();
    assert_eq!(
        named,
        world.ids.keys().collect::<Vec<_>>(),
        "{what}: the log names what is there"
    );
    assert_eq!(
        committed.files.iter().map(|file| file.rows).sum::<u64>(),
        7 * last,
        "{what}"
    );
}

const PARTED: &[(&str, &str)] = &[("partition_by", "day")];

#[test]
fn killed_at_any_call_and_again_while_it_recovers_each_row_is_published_once() {
    let fault = |after| if after { Fault::KilledAfter } else { Fault::KilledBefore };
    for after in [false, true] {
        for first in 0.. {
            let mut cases = 0;
            for second in 0.. {
                let world = Arc::default();
                let mut writer = Writer::new(&world, first, fault(after), PARTED);
                if writer.run(6).is_ok() {
                    assert!(30 < first, "a run makes more calls than {first}");
                    assert_each_once(&world, 6, "nobody was killed");
                    break;
                }
                cases += 1;
                let mut next = Writer::new(&world, second, fault(!after), PARTED);
                let is_done = next.run(6).is_ok();
                let mut last = Writer::new(&world, 0, Fault::None, PARTED);
                last.run(6).unwrap();
                let what = format!("killed at call {first} and, recovering, at {second}");
                assert_each_once(&world, 6, &what);
                let staged = |path: &&String| path.contains("/staging/");
                assert_eq!(
                    world.lock().unwrap().files.keys().find(staged),
                    None,
                    "{what}: nothing is left over"
                );
                if is_done {
                    break;
                }
            }
            if cases == 0 {
                break;
            }
        }
    }
}

#[test]
fn a_call_that_fails_or_is_done_later_publishes_nothing_twice() {
    for kind in 0..6 {
        for at in 0.. {
            let fault = match kind {
                0 => Fault::ErrorBefore,
                1 => Fault::ErrorAfter,
                2 => Fault::Late(1),
                3 => Fault::Late(2),
                4 => Fault::Late(4),
                _ => Fault::Late(9),
            };
            let world = Arc::default();
            let mut writer = Writer::new(&world, at, fault, PARTED);
            writer.run(6).unwrap();
            assert_each_once(&world, 6, &format!("kind {kind} at call {at}"));
            if writer.calls() <= at {
                break;
            }
        }
    }
}

#[test]
fn a_writer_that_sleeps_while_another_takes_over_publishes_nothing_more() {
    // The other one goes on by a few records, or by so many that the numbers which the sleeper knows are free again.
    for last in [6, 200] {
        for at in 0.. {
            let world: Arc<Mutex<World>> = Arc::default();
            let other = {
                let world = Arc::clone(&world);
                move || Writer::new(&world, 0, Fault::None, PARTED).run(last).unwrap()
            };
            let mut sleeper = Writer::new(&world, at, Fault::Meanwhile(Box::new(other)), PARTED);
            let outcome = sleeper.run(6);
            let what = format!("asleep at call {at} while {last} epochs pass");
            match outcome {
                // It slept before it was the writer, and took over itself; or it did not sleep at all.
                Ok(()) => {}
                Err(SinkError::Fenced(_)) => {
                    let next = sleeper.sink.recover();
                    assert!(
                        matches!(next, Err(SinkError::Fenced(_))),
                        "{what}: fenced for good, not {next:?}"
                    );
                }
                Err(error) => panic!("{what}: {error}"),
            }
            if sleeper.calls() <= at {
                assert_each_once(&world, 6, "it never slept");
                break;
            }
            assert_each_once(&world, last, &what);
        }
    }
}

const MERGED: &[(&str, &str)] = &[("compact", "true")];

#[test]
fn killed_or_failing_at_any_call_of_a_merge_no_row_is_lost_or_twice() {
    let last = 2 * limits::SINK_FILES_MERGED as u64 + 8;
    let world = Arc::default();
    let mut whole = Writer::new(&world, 0, Fault::None, MERGED);
    whole.run(last).unwrap();
    assert_each_once(&world, last, "nothing happens");
    let files = world.lock().unwrap().ids.len() as u64;
    assert!(files < last / 2 - 8, "{files} files: none were merged");
    for kind in 0..5 {
        for at in 0..whole.calls() {
            let fault = match kind {
                0 => Fault::KilledBefore,
                1 => Fault::KilledAfter,
                2 => Fault::ErrorBefore,
                3 => Fault::ErrorAfter,
                _ => Fault::Late(3),
            };
            let world = Arc::default();
            let outcome = Writer::new(&world, at, fault, MERGED).run(last);
            assert_eq!(outcome.is_ok(), 2 <= kind, "only who is killed stops");
            Writer::new(&world, 0, Fault::None, MERGED).run(last).unwrap();
            assert_each_once(&world, last, &format!("kind {kind} at call {at}"));
        }
    }
}

#[test]
fn a_merge_that_cannot_read_its_files_is_put_off_and_nothing_else() {
    let world: Arc<Mutex<World>> = Arc::default();
    let mut writer = Writer::new(&world, u64::MAX, Fault::None, MERGED);
    writer.recover().unwrap();
    let merged = limits::SINK_FILES_MERGED as u64;
    let mut calls = Vec::new();
    for number in 1..merged {
        let before = writer.calls();
        writer.sink.publish(&[epoch(number)]).unwrap();
        calls.push(writer.calls() - before);
    }
    let of_one = calls[0];
    assert!(
        calls.iter().all(|calls| *calls == of_one),
        "{calls:?}: nothing is merged yet"
    );
    {
        // Behind the next publishing.
        let mut line = writer.line.lock().unwrap();
        (line.at, line.fault) = (line.calls + of_one, Fault::ErrorBefore);
    }
    let before = writer.calls();
    writer.sink.publish(&[epoch(merged)]).unwrap();
    assert_eq!(writer.calls() - before, of_one + 1, "the first call of a merge fails");
    let before = writer.calls();
    writer.sink.publish(&[epoch(merged + 1)]).unwrap();
    assert_eq!(
        writer.calls() - before,
        of_one,
        "it neither recovers nor merges at once"
    );
    assert_each_once(&world, merged + 1, "not merged");
}

#[test]
fn who_takes_over_from_a_writer_at_work_finds_the_end_of_its_log() {
    let last = 2 * limits::SINK_FILES_MERGED as u64 + 8;
    for at in 0.. {
        let world = Arc::default();
        let mut older = Writer::new(&world, 0, Fault::None, MERGED);
        older.run(4).unwrap();
        // Files that the newcomer looks for are merged under its eyes.
        let works = Fault::Meanwhile(Box::new(move || drop(older.go_on(4, last))));
        let mut newer = Writer::new(&world, at, works, MERGED);
        newer.run(last).unwrap();
        assert_each_once(&world, last, &format!("at call {at}"));
        if newer.calls() <= at {
            break;
        }
    }
}

#[test]
fn the_log_stays_short_and_says_all() {
    let world = Arc::default();
    Writer::new(&world, 0, Fault::None, &[]).run(400).unwrap();
    assert_each_once(&world, 400, "200 records");
    let records = world
        .lock()
        .unwrap()
        .files
        .keys()
        .filter(|path| path.contains("/log/"))
        .count() as u64;
    assert!(records <= limits::SINK_LOG_RECORDS + 1, "{records} records are there");
    for _ in 0..3 * limits::SINK_LOG_RECORDS {
        Writer::new(&world, 0, Fault::None, &[]).run(400).unwrap();
    }
    let records = world
        .lock()
        .unwrap()
        .files
        .keys()
        .filter(|path| path.contains("/log/"))
        .count() as u64;
    assert!(
        records <= limits::SINK_LOG_RECORDS + 1,
        "{records} records are there after many starts"
    );
    assert_each_once(&world, 400, "many starts");
}

#[test]
fn what_another_state_published_is_left_alone_unless_it_is_taken_over() {
    let world = Arc::default();
    let mut first = Writer::new(&world, 0, Fault::None, &[]);
    first.run(4).unwrap();
    let mut foreign = Writer::with(&world, 0, Fault::None, publisher("b"), &[]);
    assert_eq!(foreign.sink.recover().unwrap().unwrap().state, "a");
    assert!(foreign.sink.publish(&[epoch(9)]).is_err(), "it was not asked to");
    first.run(6).unwrap();
    assert_each_once(&world, 6, "the first one goes on");
    let taker = Publisher {
        takes_over: true,
        ..publisher("b")
    };
    let mut taker = Writer::with(&world, 0, Fault::None, taker, &[]);
    let claimed = taker.sink.recover().unwrap().unwrap();
    assert_eq!((claimed.state.as_str(), claimed.epoch), ("b", Epoch(0)));
    // It ends before it has published anything, and the next start was told nothing of a reset.
    let mut again = Writer::with(&world, 0, Fault::None, publisher("b"), &[]);
    let marker = again.sink.recover().unwrap().unwrap();
    assert_eq!((marker.state.as_str(), marker.epoch), ("b", Epoch(0)));
    again.sink.publish(&[epoch(9)]).unwrap();
    let mut again = Writer::with(&world, 0, Fault::None, publisher("b"), &[]);
    assert_eq!(again.sink.recover().unwrap().unwrap().epoch, Epoch(9));
    assert!(matches!(first.sink.publish(&[epoch(7)]), Err(SinkError::Fenced(_))));
}

#[test]
fn an_earlier_start_on_a_state_that_others_may_take_fences_nobody() {
    let world = Arc::default();
    let start = |generation| Publisher {
        generation,
        instance: generation,
        shares_state: true,
        ..publisher("a")
    };
    let mut later = Writer::with(&world, 0, Fault::None, start(2), &[]);
    later.run(4).unwrap();
    let mut earlier = Writer::with(&world, 0, Fault::None, start(1), &[]);
    assert!(matches!(earlier.sink.recover(), Err(SinkError::Fenced(_))));
    later.go_on(4, 6).unwrap();
    Writer::with(&world, 0, Fault::None, start(3), &[]).run(8).unwrap();
    assert_each_once(&world, 8, "whoever starts later goes on");
}

#[test]
fn a_file_in_the_way_is_named_and_never_overwritten() {
    let world: Arc<Mutex<World>> = Arc::default();
    let in_the_way = "s-0000000002-000002-000.parquet";
    world
        .lock()
        .unwrap()
        .files
        .insert(in_the_way.into(), Bytes::from_static(b"mine"));
    let error = Writer::new(&world, 0, Fault::None, &[]).run(2).unwrap_err();
    assert!(
        matches!(error, SinkError::Failed(_)) && error.to_string().contains(in_the_way),
        "{error}"
    );
    assert_eq!(world.lock().unwrap().files[in_the_way], Bytes::from_static(b"mine"));
    world.lock().unwrap().files.remove(in_the_way);
    Writer::new(&world, 0, Fault::None, &[]).run(2).unwrap();
    assert_each_once(&world, 2, "it is out of the way");
}

#[test]
fn a_log_that_is_damaged_or_of_other_columns_stops_the_sink_and_names_what_is_wrong() {
    let world: Arc<Mutex<World>> = Arc::default();
    Writer::new(&world, 0, Fault::None, &[]).run(2).unwrap();
    let error = Writer::new(&world, 0, Fault::None, PARTED).run(2).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("(id BIGINT, v BIGINT) partitioned by day; choose another path"),
        "{error}"
    );
    let newest = {
        let world = world.lock().unwrap();
        world.files.keys().rfind(|path| path.contains("/log/")).unwrap().clone()
    };
    let whole = world.lock().unwrap().files[&newest].clone();
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.to_vec();
        bytes[at / 8] ^= 1 << (at % 8);
        world.lock().unwrap().files.insert(newest.clone(), bytes.into());
        let error = Writer::new(&world, 0, Fault::None, &[]).run(2).unwrap_err();
        assert!(error.to_string().contains(&newest), "bit {at}: {error}");
    }
}

#[test]
fn a_file_that_was_taken_away_is_missed_only_where_it_may_not_have_been_published() {
    let world: Arc<Mutex<World>> = Arc::default();
    Writer::new(&world, 0, Fault::None, &[]).run(6).unwrap();
    let (first, last) = {
        let world = world.lock().unwrap();
        let mut names = world.ids.keys().cloned();
        (names.next().unwrap(), names.next_back().unwrap())
    };
    world.lock().unwrap().remove(&first);
    Writer::new(&world, 0, Fault::None, &[]).run(8).unwrap();
    // What the newest record names has to be there: it may be that its writer died before it had its name.
    let newest = world.lock().unwrap().ids.keys().next_back().unwrap().clone();
    assert_ne!(last, newest);
    world.lock().unwrap().remove(&newest);
    let error = Writer::new(&world, 0, Fault::None, &[]).run(8).unwrap_err();
    assert!(error.to_string().contains(&newest), "{error}");
}

#[test]
fn files_are_cut_at_their_size_and_keep_the_order_of_rows() {
    let world: Arc<Mutex<World>> = Arc::default();
    let mut writer = Writer::new(
        &world,
        0,
        Fault::None,
        &[("target_file_size", "64 kB"), ("compression", "none")],
    );
    writer.sink.recover().unwrap();
    let ids: Vec<i64> = (0..100_000).collect();
    let rows = RecordBatch::try_new(
        epoch(1).added.schema(),
        vec![
            Arc::new(Int64Array::from(ids.clone())),
            Arc::new(StringViewArray::from_iter(ids.iter().map(|_| None::<&str>))),
            Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| id * 7_919 % 100_003))),
        ],
    )
    .unwrap();
    let whole = SinkEpoch {
        epoch: Epoch(1),
        removed: rows.slice(0, 0),
        added: rows,
    };
    writer.sink.publish(&[whole]).unwrap();
    let world = world.lock().unwrap();
    assert!(5 < world.ids.len(), "{} files", world.ids.len());
    assert_eq!(world.ids.values().flatten().copied().collect::<Vec<_>>(), ids);
}

/// What every store has to do.
fn check_store(store: &dyn Store) {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(store.list("a/b").unwrap(), []);
    assert_eq!(store.read("a/b/x").unwrap(), None);
    assert_eq!(store.length("a/b/x").unwrap(), None);
    store.write(vec![("a/b/x.tmp".into(), bytes("one"))]).unwrap();
    assert_eq!(store.length("a/b/x.tmp").unwrap(), Some(3));
    store.rename("a/b/x.tmp", "a/day=2024%3A01/x").unwrap();
    assert_eq!(store.read("a/b/x.tmp").unwrap(), None);
    assert_eq!(store.read("a/day=2024%3A01/x").unwrap(), Some(bytes("one")));
    let files = ["y", "z"].map(|name| (format!("a/b/{name}.tmp"), bytes("two")));
    store.write(files.to_vec()).unwrap();
    assert!(
        store.rename("a/b/y.tmp", "a/day=2024%3A01/x").is_err(),
        "no name is given twice"
    );
    assert_eq!(store.read("a/day=2024%3A01/x").unwrap(), Some(bytes("one")));
    assert_eq!(store.read("a/b/y.tmp").unwrap(), Some(bytes("two")));
    store.sync("a/day=2024%3A01/x").unwrap();
    assert!(store.rename("a/b/nothing", "a/z").is_err());
    let mut entries = store.list("a").unwrap();
    entries.sort();
    let folder = |name: &str| Entry {
        name: name.into(),
        is_folder: true,
    };
    assert_eq!(entries, [folder("b"), folder("day=2024%3A01")]);
    let answers = store.rename_each(&[
        ("a/b/y.tmp".into(), "a/day=2024%3A01/x".into()),
        ("a/b/z.tmp".into(), "a/day=2024%3A01/z".into()),
    ]);
    assert!(answers[0].is_err() && answers[1].is_ok(), "an answer for each");
    store.delete(&["a/b/y.tmp".into(), "a/b/never".into()]).unwrap();
    assert_eq!(store.list("a/b").unwrap(), []);
    store.delete_folder("a/b").unwrap();
    store.delete_folder("a/b").unwrap();
}

#[test]
fn every_store_keeps_to_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    check_store(&LocalStore::new(folder.path().join("not/there/yet")));
    let memory: Arc<dyn object_store::ObjectStore> = Arc::new(InMemory::new());
    let remote = RemoteFolder::connect("memory", "base/folder".into(), |_| Ok(memory)).unwrap();
    check_store(&remote);
    check_store(&TestStore(Arc::new(Mutex::new(Line {
        world: Arc::default(),
        calls: 0,
        at: 0,
        fault: Fault::None,
        is_dead: false,
    }))));
}

#[test]
fn on_a_disk_the_files_are_there_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let sink = |name: &str| {
        let root = folder.path().to_owned();
        let destination = Destination {
            location: root.display().to_string(),
            connect: Box::new(move || Ok(Box::new(LocalStore::new(root.clone())))),
        };
        let publisher = Publisher {
            sink: name.into(),
            ..publisher("a")
        };
        ParquetSink::new(&epoch(1).added.schema(), &options(PARTED), publisher, destination).unwrap()
    };
    for first in [1, 3] {
        // Two sinks may share a folder.
        for name in ["s", "other sink"] {
            let mut sink = sink(name);
            let marker = sink.recover().unwrap();
            assert_eq!(marker.map_or(0, |marker| marker.epoch.0), first - 1);
            sink.publish(&[epoch(first), epoch(first + 1)]).unwrap();
        }
    }
    let mut found = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    let data = found
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "parquet"));
    let mut ids: Vec<i64> = data
        .clone()
        .flat_map(|path| ids_in(std::fs::read(path).unwrap().into()))
        .collect();
    ids.sort_unstable();
    let expected = (1..=4).flat_map(|epoch| (0..7).flat_map(move |row| [epoch * 100 + row; 2]));
    assert_eq!(ids, expected.collect::<Vec<i64>>());
    assert_eq!(data.count(), 2 * 2 * 3, "a file of each partition");
    assert!(
        found.iter().all(|path| !path.to_string_lossy().contains("/staging/")),
        "{found:?}"
    );
    assert!(folder.path().join("day=__HIVE_DEFAULT_PARTITION__").is_dir());
    assert!(folder.path().join("day=day 1").is_dir());
}
