//! A state that an earlier version left, kept as files in `tests/golden`: this version goes on with it, and shows the right rows.
//!
//! ```text
//! ZETA_GOLDEN=make: rows, epochs, a checkpoint, more epochs ─▶ tests/golden/<format>/   committed with the release
//! each test run:    a copy of it ─▶ start, more rows ─▶ the same rows as without any restart
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use zeta::{
    cli::MemoryTopics,
    runtime::{Engine, StepEnd, clock::ManualClock},
    types::{EventTime, RecordsBuilder, SplitId},
};

use super::engine::{block_on, copy_folder, defined, sql, try_sql};

/// 2023-11-14T20:00:00Z
const START: i64 = 1_699_992_000_000_000_000;

/// Of every kind of state and side output.
const QUERIES: [&str; 14] = [
    "SELECT * FROM plain",
    "SELECT * FROM per_minute",
    "SELECT * FROM \"per_minute$late\"",
    "SELECT * FROM closed",
    "SELECT * FROM shared",
    "SELECT * FROM groups",
    "SELECT operator, reason, row FROM \"groups$errors\"",
    "SELECT * FROM calm",
    "SELECT * FROM visits",
    "SELECT * FROM recent",
    "SELECT * FROM best",
    "SELECT * FROM gate",
    "SELECT * FROM names",
    "SELECT * FROM \"s$bad\"",
];

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1")
}

fn open(state: &Path, topics: &MemoryTopics, clock: &Arc<ManualClock>) -> Result<Engine, String> {
    let pipeline = fs::read_to_string(golden().join("pipeline.sql")).expect("the pipeline of the state");
    let engine = defined(&pipeline, topics, state, clock);
    engine.open().map_err(|error| error.to_string())?;
    Ok(engine)
}

/// Rows of two splits, of which some are late, one cannot be read and one cannot be computed.
fn write(topics: &MemoryTopics, part: u64) {
    for split in 0..2u64 {
        let mut records = RecordsBuilder::default();
        for row in 0..10u64 {
            let number = part * 10 + row;
            let key = ["a", "b", "c"][(number * 7 % 3) as usize];
            let back = if number % 9 == 4 { 150 } else { number % 4 };
            let ts = EventTime(START + ((number * 4 + split) as i64 - back as i64) * 1_000_000_000);
            let (v, w) = ((number * 37 % 90) as i64 - 9, (number % 7) as i64);
            let record = match number % 13 {
                6 => "no record".to_owned(),
                _ => format!(
                    r#"{{"k":"{key}","v":{v},"w":{w},"price":{}.25,"ts":"{ts}"}}"#,
                    number % 50
                ),
            };
            records.push(number, None, None, Some(record.as_bytes()));
        }
        topics
            .of("s")
            .append_records(&SplitId::from(split as i32), records.finish());
    }
}

fn step(engine: &Engine, clock: &ManualClock, checkpoint: bool) {
    clock.advance(Duration::from_secs(47));
    for source in ["s", "names"] {
        let end = StepEnd {
            checkpoint,
            ..StepEnd::default()
        };
        engine.step(source, end).expect("an epoch");
    }
}

/// Rows of some parts, and an epoch behind each; one of them ends with a checkpoint.
fn feed(
    engine: &Engine,
    topics: &MemoryTopics,
    clock: &ManualClock,
    parts: std::ops::Range<u64>,
    checkpoint: u64,
    name: impl Fn(u64) -> (u64, String),
) {
    for part in parts {
        write(topics, part);
        let (key, name) = name(part);
        block_on(sql(engine, &format!("INSERT INTO names VALUES ('k{key}', '{name}')")));
        step(engine, clock, part == checkpoint);
    }
}

/// What the state holds: two epochs in a checkpoint, and two in the journal behind it.
fn first_half(engine: &Engine, topics: &MemoryTopics, clock: &ManualClock) {
    feed(engine, topics, clock, 0..4, 1, |part| (part, format!("n{}", part % 2)));
}

fn second_half(engine: &Engine, topics: &MemoryTopics, clock: &ManualClock) {
    feed(engine, topics, clock, 4..8, 6, |part| (part % 3, "other".to_owned()));
    step(engine, clock, false);
}

fn rows(engine: &Engine) -> Vec<String> {
    let of = |query: &&str| {
        let batches = block_on(try_sql(engine, query)).unwrap_or_else(|problem| panic!("{query}: {problem}"));
        let text = arrow::util::pretty::pretty_format_batches(&batches)
            .expect("rows")
            .to_string();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        format!("{query}\n{}", lines.join("\n"))
    };
    QUERIES.iter().map(of).collect()
}

#[test]
fn a_state_of_the_release_before_goes_on_with_the_right_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = || (MemoryTopics::default(), Arc::new(ManualClock::at(EventTime(START))));
    if std::env::var("ZETA_GOLDEN").is_ok_and(|wish| wish == "make") {
        let state = golden().join("state");
        if state.exists() {
            fs::remove_dir_all(&state).expect("the state of before");
        }
        let (topics, clock) = start();
        let engine = open(&state, &topics, &clock).expect("a new state");
        first_half(&engine, &topics, &clock);
    }

    let (topics, clock) = start();
    let always = open(&folder.path().join("always"), &topics, &clock).expect("a new state");
    first_half(&always, &topics, &clock);
    let half_way = rows(&always);
    second_half(&always, &topics, &clock);
    let wanted = rows(&always);
    for rows in &wanted {
        assert!(4 < rows.lines().count(), "there is something of each kind: {rows}");
    }

    // The same rows in the topic, and the state as it was left.
    let (topics, clock) = start();
    (0..4).for_each(|part| write(&topics, part));
    clock.advance(Duration::from_secs(4 * 47));
    let state = folder.path().join("state");
    copy_folder(&golden().join("state"), &state);
    let engine = open(&state, &topics, &clock).unwrap_or_else(|error| {
        panic!("a state of format 1 does not load any more: {error}; see \"Versions\" in docs/operations.md before it is made anew")
    });
    assert_eq!(rows(&engine), half_way, "as it was left");
    second_half(&engine, &topics, &clock);
    assert_eq!(rows(&engine), wanted, "and further on");
}

#[test]
fn without_its_manifests_a_state_is_refused_and_nothing_of_it_is_deleted() {
    let manifest = |folder: &Path| {
        for checkpoint in fs::read_dir(folder.join("s/checkpoints")).expect("checkpoints") {
            fs::remove_file(checkpoint.expect("a checkpoint").path().join("MANIFEST")).expect("a manifest");
        }
    };
    let checkpoints = |folder: &Path| {
        fs::remove_dir_all(folder.join("s/checkpoints")).expect("checkpoints");
    };
    let first_plans = |folder: &Path| {
        fs::remove_file(folder.join(format!("s/journal/{:020}.jnl", 1))).expect("the first file of the journal");
    };
    let cases: [(&str, &[&dyn Fn(&Path)], &str); 3] = [
        (
            "manifests",
            &[&manifest],
            "no checkpoint can be read, so nothing was started",
        ),
        (
            "manifests and plans",
            &[&manifest, &first_plans],
            "no checkpoint can be read, so nothing was started",
        ),
        (
            "checkpoints and plans",
            &[&checkpoints, &first_plans],
            "a file is missing or was changed, so nothing was started",
        ),
    ];
    for (what, removals, expected) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        copy_folder(&golden().join("state"), folder.path());
        removals.iter().for_each(|remove| remove(folder.path()));
        let before = files(folder.path());
        let (topics, clock) = (MemoryTopics::default(), Arc::new(ManualClock::at(EventTime(START))));
        (0..4).for_each(|part| write(&topics, part));
        let refused = open(folder.path(), &topics, &clock)
            .err()
            .unwrap_or_else(|| panic!("without {what} it starts"));
        assert!(refused.contains(expected), "{what}: {refused}");
        assert!(refused.ends_with("or start over with --reset"), "{what}: {refused}");
        let after = files(folder.path());
        let gone: Vec<_> = before.iter().filter(|file| !after.contains(file)).collect();
        assert!(gone.is_empty(), "{what}: {gone:?}");
    }
}

/// All files and their bytes, but for what counts starts.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path
            .file_name()
            .is_some_and(|name| name != "generation" && name != "LOCK")
        {
            let bytes = fs::read(&path).expect("a file");
            found.push((path, bytes));
        }
    }
    found
}
