//! The suite that every source passes: what [`Source`] promises, asked of a real one.
//!
//! ```text
//! discover twice ▸ recognise ▸ read all ▸ read again ▸ from the middle ▸ in small polls ▸ some splits ▸ none ▸ from the end
//! ```
//! It runs over a topic, table or folder that does not change meanwhile.

use std::{collections::BTreeMap, time::Duration};

use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Source, SourceError, SplitBounds};
use crate::types::{Anchor, Anchors, Chunk, Payload, Position, SplitId};

/// How long one poll waits.
const WAIT: Duration = Duration::from_millis(200);
/// Polls in a row that may bring nothing while there is something: ten seconds of a source that waits.
const EMPTY_POLLS_MAX: usize = 50;
/// Polls that must bring nothing where there is nothing.
const QUIET_POLLS: usize = 3;

/// Each row of each split: its position and its text.
type Reading = BTreeMap<SplitId, Vec<(u64, String)>>;

/// Checks sources that `make` makes, all over the same world. `expected` holds the [`texts`] of the rows of every split, in their order.
///
/// # Panics
/// Where a promise is broken, with which one.
pub fn check(make: &mut dyn FnMut() -> Box<dyn Source>, expected: &BTreeMap<SplitId, Vec<String>>) {
    let bounds = discovery_is_stable(make, expected);
    let starts: BTreeMap<SplitId, Position> = bounds
        .iter()
        .map(|bounds| (bounds.split.clone(), bounds.start))
        .collect();
    let ends: BTreeMap<SplitId, Position> = bounds.iter().map(|bounds| (bounds.split.clone(), bounds.end)).collect();

    let all = everything_is_read_in_order(make, expected, &starts, &ends);
    what_was_read_is_recognised_and_nothing_else(make, &starts, &ends);
    seeking_back_gives_the_same_bytes(make, &all, &starts, &ends);
    seeking_between_polls_forgets_what_was_ahead(make, &all, &starts, &ends);
    small_polls_give_the_same_rows(make, &all, &starts, &ends);
    splits_that_were_not_asked_for_are_not_read(make, &all, &starts, &ends);
    at_the_end_there_is_nothing(make, &ends);
}

/// A text for each row, which is the same only for the same bytes.
pub fn texts(payload: &Payload) -> Vec<String> {
    match payload {
        Payload::Records(records) => (0..records.len())
            .map(|index| {
                let text = |bytes: Option<&[u8]>| bytes.map(|bytes| bytes.escape_ascii().to_string());
                format!(
                    "{:?} {:?} {:?}",
                    records.timestamps_ms()[index],
                    text(records.key(index)),
                    text(records.value(index))
                )
            })
            .collect(),
        Payload::Rows(rows) => {
            let options = FormatOptions::new().with_null("NULL");
            let columns: Vec<ArrayFormatter<'_>> = rows
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options).expect("every type has a text"))
                .collect();
            (0..rows.num_rows())
                .map(|row| {
                    columns
                        .iter()
                        .map(|column| column.value(row).to_string())
                        .collect::<Vec<_>>()
                        .join(" | ")
                })
                .collect()
        }
    }
}

fn discovery_is_stable(
    make: &mut dyn FnMut() -> Box<dyn Source>,
    expected: &BTreeMap<SplitId, Vec<String>>,
) -> Vec<SplitBounds> {
    let mut source = make();
    let bounds = source.discover().expect("a source that is there is discovered");
    assert_eq!(source.discover().as_ref(), Ok(&bounds), "a second look sees the same");
    assert_eq!(make().discover().as_ref(), Ok(&bounds), "another source sees the same");
    assert!(
        bounds.is_sorted_by(|a, b| a.split < b.split),
        "splits come in their order, each once"
    );
    assert!(
        bounds
            .iter()
            .all(|bounds| bounds.first <= bounds.start && bounds.start <= bounds.end),
        "no split ends before it starts, or starts before its first row"
    );
    assert!(
        bounds.iter().map(|bounds| &bounds.split).eq(expected.keys()),
        "all splits are discovered, and no other"
    );
    bounds
}

fn everything_is_read_in_order(
    make: &mut dyn FnMut() -> Box<dyn Source>,
    expected: &BTreeMap<SplitId, Vec<String>>,
    starts: &BTreeMap<SplitId, Position>,
    ends: &BTreeMap<SplitId, Position>,
) -> Reading {
    let mut source = make();
    source.seek(starts).expect("seek");
    let all = read(source.as_mut(), starts, ends, Limits::NONE);
    for (split, rows) in expected {
        let texts: Vec<&String> = all[split].iter().map(|(_, text)| text).collect();
        assert!(
            texts.iter().copied().eq(rows),
            "split {split} holds its {} rows in their order, and {} were read",
            rows.len(),
            texts.len()
        );
    }
    all
}

fn what_was_read_is_recognised_and_nothing_else(
    make: &mut dyn FnMut() -> Box<dyn Source>,
    starts: &BTreeMap<SplitId, Position>,
    ends: &BTreeMap<SplitId, Position>,
) {
    let mut source = make();
    source.discover().expect("discover");
    let identity = source.recognise(&Anchors::default()).expect("nothing was read before");
    source.seek(starts).expect("seek");
    let (mut positions, mut read) = (starts.clone(), Anchors::default());
    while positions != *ends {
        for chunk in source.poll(100, usize::MAX, WAIT).expect("poll") {
            positions.insert(chunk.split.clone(), chunk.to);
            if let Payload::Records(records) = &chunk.payload {
                let last = Anchor::of_last(records).map(|anchor| (chunk.split, anchor));
                read.records.extend(last);
            }
        }
    }
    assert_eq!(source.lost(), [], "nothing is gone");
    let mut recognised = |read: &Anchors| {
        let mut source = make();
        source.discover().expect("discover");
        source.recognise(read)
    };
    read.identity.clone_from(&identity);
    assert_eq!(recognised(&read), Ok(identity.clone()), "it is the one that was read");
    let another = Anchors {
        identity: Some("another".into()),
        ..Anchors::default()
    };
    if identity.is_none() {
        assert_eq!(recognised(&another), Ok(None), "who knows no identity compares none");
        return;
    }
    assert!(
        matches!(recognised(&another), Err(SourceError::Failed(_))),
        "another of its name is refused"
    );
    let Some((split, anchor)) = read.records.first_key_value() else {
        return;
    };
    let with = |anchor: Anchor| Anchors {
        identity: None,
        records: BTreeMap::from([(split.clone(), anchor)]),
    };
    let other_row = with(Anchor {
        crc32c: !anchor.crc32c,
        ..*anchor
    });
    let behind_the_end = with(Anchor {
        position: ends[split],
        ..*anchor
    });
    for (read, why) in [
        (other_row, "another row in the place of the last one"),
        (behind_the_end, "an end before what was read"),
    ] {
        assert!(
            matches!(recognised(&read), Err(SourceError::Failed(_))),
            "{why} is refused"
        );
    }
}

fn seeking_back_gives_the_same_bytes(
    make: &mut dyn FnMut() -> Box<dyn Source>,
    all: &Reading,
    starts: &BTreeMap<SplitId, Position>,
    ends: &BTreeMap<SplitId, Position>,
) {
    let mut source = make();
    for (round, why) in [
        (0, "for the first time"),
        (1, "again by the same source"),
        (2, "from the middle"),
        (3, "from the last row"),
    ] {
        let from: BTreeMap<SplitId, Position> = starts
            .iter()
            .map(|(split, start)| {
                let rows = &all[split];
                let row = match round {
                    2 => rows.get(rows.len() / 2),
                    3 => rows.last(),
                    _ => None,
                };
                (split.clone(), row.map_or(*start, |(position, _)| Position(*position)))
            })
            .collect();
        source.seek(&from).expect("seek");
        assert_same(
            &read(source.as_mut(), &from, ends, Limits::NONE),
            &since(all, &from),
            why,
        );
    }
}

fn seeking_between_polls_forgets_what_was_ahead(
    make: &mut dyn FnMut() -> Box<dyn Source>,
    all: &Reading,
    starts: &BTreeMap<SplitId, Position>,
    ends: &BTreeMap<SplitId, Position>,
) {
    let mut source = make();
    for _ in 0..3 {
        source.seek(starts).expect("seek");
        // A few rows are taken, more may have been read ahead.
        source.poll(3, usize::MAX, WAIT).expect("poll");
    }
    source.seek(starts).expect("seek");
    assert_same(
        &read(source.as_mut(), starts, ends, Limits::NONE),
        all,
        "after seeking back between polls",
    );
}

fn small_polls_give_the_same_rows(
    make: &mut dyn FnMut() -> Box<dyn Source>,
    all: &Reading,
    starts: &BTreeMap<SplitId, Position>,
    ends: &BTreeMap<SplitId, Position>,
) {
    let mut source = make();
    // The last hundred rows of each split are enough: polls of one row are slow.
    let from: BTreeMap<SplitId, Position> = starts
        .iter()
        .map(|(split, start)| {
            let rows = &all[split];
            (
                split.clone(),
                rows.get(rows.len().saturating_sub(100))
                    .map_or(*start, |(position, _)| Position(*position)),
            )
        })
        .collect();
    for (limits, why) in [
        (
            Limits {
                rows_max: 7,
                bytes_max: usize::MAX,
            },
            "in polls of seven rows",
        ),
        (
            Limits {
                rows_max: 1,
                bytes_max: usize::MAX,
            },
            "in polls of one row",
        ),
        (
            Limits {
                rows_max: usize::MAX,
                bytes_max: 1,
            },
            "in polls of one byte, which still make progress",
        ),
    ] {
        source.seek(&from).expect("seek");
        assert_same(&read(source.as_mut(), &from, ends, limits), &since(all, &from), why);
    }
}

fn splits_that_were_not_asked_for_are_not_read(
    make: &mut dyn FnMut() -> Box<dyn Source>,
    all: &Reading,
    starts: &BTreeMap<SplitId, Position>,
    ends: &BTreeMap<SplitId, Position>,
) {
    let mut source = make();
    source.seek(starts).expect("seek");
    source.poll(1, usize::MAX, WAIT).expect("poll");
    let some: BTreeMap<SplitId, Position> = starts
        .iter()
        .step_by(2)
        .map(|(split, start)| (split.clone(), *start))
        .collect();
    source.seek(&some).expect("seek");
    let of_some: Reading = all
        .iter()
        .filter(|(split, _)| some.contains_key(split))
        .map(|(split, rows)| (split.clone(), rows.clone()))
        .collect();
    let ends_of_some = ends
        .iter()
        .filter(|(split, _)| some.contains_key(split))
        .map(|(split, end)| (split.clone(), *end))
        .collect();
    assert_same(
        &read(source.as_mut(), &some, &ends_of_some, Limits::NONE),
        &of_some,
        "of every second split",
    );

    source.seek(&BTreeMap::new()).expect("seek to no split");
    for _ in 0..QUIET_POLLS {
        assert_eq!(
            rows_of(&source.poll(100, usize::MAX, WAIT).expect("poll")),
            0,
            "without splits there is nothing to read"
        );
    }
}

fn at_the_end_there_is_nothing(make: &mut dyn FnMut() -> Box<dyn Source>, ends: &BTreeMap<SplitId, Position>) {
    let mut source = make();
    source.seek(ends).expect("seek to the ends");
    for _ in 0..QUIET_POLLS {
        let chunks = source.poll(100, usize::MAX, WAIT).expect("poll at the end");
        assert_eq!(rows_of(&chunks), 0, "behind the last row there is nothing");
    }
    source.discover().expect("discover");
    for (split, end) in source.ends() {
        assert_eq!(Some(&end), ends.get(&split), "the end of split {split} is where it was");
    }
}

#[derive(Clone, Copy)]
struct Limits {
    rows_max: usize,
    bytes_max: usize,
}

impl Limits {
    const NONE: Self = Self {
        rows_max: 1_000_000,
        bytes_max: usize::MAX,
    };
}

/// Polls until every split of `from` is at its end, and holds each chunk against the contract.
fn read(
    source: &mut dyn Source,
    from: &BTreeMap<SplitId, Position>,
    ends: &BTreeMap<SplitId, Position>,
    limits: Limits,
) -> Reading {
    let mut positions = from.clone();
    let mut reading: Reading = from.keys().map(|split| (split.clone(), Vec::new())).collect();
    let mut empty_polls = 0;
    while positions.iter().any(|(split, position)| *position < ends[split]) {
        let chunks = source.poll(limits.rows_max, limits.bytes_max, WAIT).expect("poll");
        empty_polls = if chunks.is_empty() { empty_polls + 1 } else { 0 };
        assert!(
            empty_polls <= EMPTY_POLLS_MAX,
            "{EMPTY_POLLS_MAX} polls brought nothing at {positions:?}, before {ends:?}"
        );
        // "About": twice as much is still about, a whole file is not.
        assert!(
            rows_of(&chunks) <= limits.rows_max.saturating_mul(2),
            "{} rows in a poll of at most {}",
            rows_of(&chunks),
            limits.rows_max
        );
        for chunk in &chunks {
            keep(chunk, &mut positions, &mut reading);
        }
        for (split, end) in source.ends() {
            let Some(position) = positions.get(&split) else {
                continue;
            };
            assert!(
                *position <= end,
                "split {split} was read up to {position}, behind its end {end}"
            );
        }
    }
    assert!(
        positions.iter().all(|(split, position)| *position == ends[split]),
        "{positions:?} is behind the ends {ends:?}"
    );
    reading
}

fn keep(chunk: &Chunk, positions: &mut BTreeMap<SplitId, Position>, reading: &mut Reading) {
    let split = &chunk.split;
    let position = positions
        .get_mut(split)
        .unwrap_or_else(|| panic!("split {split} was not asked for"));
    assert_eq!(
        chunk.from, *position,
        "a chunk of split {split} begins where the one before ended"
    );
    assert!(chunk.from < chunk.to, "a chunk of split {split} moves its position");
    let rows: Vec<u64> = match &chunk.payload {
        Payload::Records(records) => records.positions().to_vec(),
        Payload::Rows(rows) => (chunk.from.0..).take(rows.num_rows()).collect(),
    };
    assert!(
        rows.iter().all(|row| (chunk.from.0..chunk.to.0).contains(row)),
        "rows of split {split} lie inside their chunk"
    );
    assert!(rows.is_sorted_by(|a, b| a < b), "positions of split {split} go up");
    *position = chunk.to;
    reading
        .get_mut(split)
        .expect("as many splits as positions")
        .extend(rows.into_iter().zip(texts(&chunk.payload)));
}

fn rows_of(chunks: &[Chunk]) -> usize {
    chunks.iter().map(|chunk| chunk.payload.len()).sum()
}

/// The rows at or behind `from`.
fn since(all: &Reading, from: &BTreeMap<SplitId, Position>) -> Reading {
    all.iter()
        .map(|(split, rows)| {
            (
                split.clone(),
                rows.iter()
                    .filter(|(position, _)| from[split].0 <= *position)
                    .cloned()
                    .collect(),
            )
        })
        .collect()
}

/// Says where two readings part, instead of printing both.
fn assert_same(read: &Reading, expected: &Reading, why: &str) {
    assert!(read.keys().eq(expected.keys()), "{why}: other splits");
    for (split, rows) in expected {
        let found = &read[split];
        if let Some(at) = (0..rows.len().max(found.len())).find(|at| rows.get(*at) != found.get(*at)) {
            panic!(
                "{why}: split {split}, row {at}: expected {:?}, read {:?}",
                rows.get(at),
                found.get(at)
            );
        }
    }
}
