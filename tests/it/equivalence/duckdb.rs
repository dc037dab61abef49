//! DuckDB as the second opinion, on the queries that it reads as DataFusion does.
//!
//! ```text
//! a seed ─▶ rows, query ─┬─▶ engine, in cuts of its own ─▶ view ──────────────┐
//!                        └─▶ rows with what each met (Parquet) ─▶ DuckDB ─────┴─ rows of one shape: all cases in one go
//! ```

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    datatypes::DataType,
};
use parquet::arrow::ArrowWriter;
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{RngSeed, TestRunner},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    engine::{block_on, sql},
    oracle::{self, Table},
};

use super::{
    config,
    grammar::{FILTERS, KEYS, some},
    query::{Emit, Input, Query, Sets, Windows},
    rows::{SECOND, rows},
    run::{run, turns},
};

const CASES: i64 = 100;

/// As DataFusion writes it, and as DuckDB does.
const BOTH: [(&str, &str); 16] = [
    ("count(*)", "count(*)"),
    ("count(i)", "count(i)"),
    ("sum(i)", "sum(i)"),
    ("min(i)", "min(i)"),
    ("max(i)", "max(i)"),
    ("avg(i)", "avg(i)"),
    ("count(DISTINCT k)", "count(DISTINCT k)"),
    ("sum(DISTINCT i)", "sum(DISTINCT i)"),
    ("var_pop(i)", "var_pop(i)"),
    ("stddev(i)", "stddev_samp(i)"),
    ("max(u)", "max(u)"),
    ("first_value(i ORDER BY u)", "first(i ORDER BY u)"),
    ("last_value(i ORDER BY u)", "last(i ORDER BY u)"),
    ("count(*) FILTER (WHERE b)", "count(*) FILTER (WHERE b)"),
    ("sum(i) FILTER (WHERE i > 0)", "sum(i) FILTER (WHERE i > 0)"),
    (
        "sum(CASE WHEN b THEN 1 ELSE 0 END)",
        "sum(CASE WHEN b THEN 1 ELSE 0 END)",
    ),
];
const KEYS_MAX: usize = 2;
const AGGREGATES_MAX: usize = 4;

/// A query of what both can say.
fn query(random: &mut StdRng) -> Query {
    let both: Vec<&str> = BOTH.iter().map(|(zeta, _)| *zeta).collect();
    let mut aggregates = some(random, &both, AGGREGATES_MAX);
    if aggregates.is_empty() {
        aggregates.push("count(*)");
    }
    let windows = match random.random_range(0..5) {
        0 => Windows::None,
        1 | 2 => Windows::Tumble {
            size: *[10, 60].choose(random).unwrap(),
            offset: 0,
        },
        _ => {
            let (slide, size) = *[(10, 30), (20, 50), (15, 10), (7, 21)].choose(random).unwrap();
            Windows::Hop { slide, size }
        }
    };
    Query {
        input: *[Input::Plain, Input::Union].choose(random).unwrap(),
        lateness: match windows {
            Windows::None => 0,
            _ => *[0, 20].choose(random).unwrap(),
        },
        windows,
        // Those behind may fail on a value, which is not the same in both.
        keys: some(random, &KEYS[..6], KEYS_MAX),
        aggregates,
        // The filters on floats order NaN as each engine likes.
        filter: random.random_bool(0.5).then(|| *FILTERS[..4].choose(random).unwrap()),
        having: None,
        sets: Sets::One,
        emit: Emit::Changes,
        above: None,
    }
}

/// The columns of every case: its number, its keys as text, its window in nanoseconds, its results as floats.
fn shape(
    case: i64,
    keys: &[String],
    bounds: Option<[String; 2]>,
    results: &[String],
    cast: impl Fn(&str, &str) -> String,
) -> String {
    let mut columns = vec![format!("{} AS a_case", cast(&case.to_string(), "BIGINT"))];
    let padded = |given: &[String], index: usize| given.get(index).cloned().unwrap_or_else(|| "NULL".into());
    for index in 0..KEYS_MAX {
        columns.push(format!("{} AS g{index}", cast(&padded(keys, index), "VARCHAR")));
    }
    let bounds = bounds.map_or_else(Vec::new, Vec::from);
    for (index, name) in ["window_start", "window_end"].iter().enumerate() {
        columns.push(format!("{} AS {name}", cast(&padded(&bounds, index), "BIGINT")));
    }
    for index in 0..AGGREGATES_MAX {
        columns.push(format!("{} AS a{index}", cast(&padded(results, index), "DOUBLE")));
    }
    columns.join(", ")
}

fn cast(expression: &str, data_type: &str) -> String {
    format!("CAST({expression} AS {data_type})")
}

/// The case as DuckDB takes it, over `rows` with times in nanoseconds.
fn for_duckdb(query: &Query, case: i64) -> String {
    let rows = format!("(SELECT * FROM rows WHERE a_case = {case})");
    let input = match query.input {
        Input::Plain => rows,
        Input::Union => format!(
            "(SELECT k, s, i, b, u, ts, met FROM {rows} WHERE u % 3 <> 0 UNION ALL \
             SELECT k + 1, upper(s), i, NOT b, u + 1000000, ts, met FROM {rows} WHERE 0 < i)"
        ),
    };
    let (slide, size) = match query.windows {
        Windows::Tumble { size, .. } => (size * SECOND, size * SECOND),
        Windows::Hop { slide, size } => (slide * SECOND, size * SECOND),
        _ => (0, 0),
    };
    let is_windowed = query.windows != Windows::None;
    let from = match is_windowed {
        false => input,
        true => format!(
            "(SELECT * FROM (SELECT *, ts - ((ts % {slide}) + {slide}) % {slide} - n * {slide} AS starts \
             FROM {input}, (SELECT unnest(generate_series(0, {back})) AS n)) \
             WHERE ts < starts + {size} AND (met IS NULL OR met < starts + {size} + {lateness}))",
            back = size / slide,
            lateness = query.lateness * SECOND,
        ),
    };
    let bounds = is_windowed.then(|| ["starts".to_owned(), format!("starts + {size}")]);
    let keys: Vec<String> = query.keys.iter().map(|key| format!("({key})")).collect();
    let results: Vec<String> = query
        .aggregates
        .iter()
        .map(|aggregate| BOTH.iter().find(|(zeta, _)| zeta == aggregate).unwrap().1.to_owned())
        .collect();
    let groups: Vec<String> = keys
        .iter()
        .cloned()
        .chain(is_windowed.then(|| "starts".to_owned()))
        .collect();
    let group_by = match groups.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", groups.join(", ")),
    };
    let filter = query.filter.map_or(String::new(), |filter| format!(" WHERE {filter}"));
    format!(
        "SELECT {} FROM {from}{filter}{group_by}",
        shape(case, &keys, bounds, &results, cast)
    )
}

/// The rows of the case's view, in the same shape.
fn from_view(query: &Query, case: i64) -> String {
    let names =
        |prefix: &str, count: usize| -> Vec<String> { (0..count).map(|index| format!("{prefix}{index}")).collect() };
    let bounds = (query.windows != Windows::None).then(|| ["window_start".to_owned(), "window_end".to_owned()]);
    let columns = shape(
        case,
        &names("g", query.keys.len()),
        bounds,
        &names("a", query.aggregates.len()),
        cast,
    );
    format!("SELECT {columns} FROM below")
}

/// What DuckDB reads: whole numbers of nanoseconds in place of times.
fn for_parquet(case: i64, rows: &RecordBatch) -> RecordBatch {
    let numbers = |name: &str| {
        let times = rows.column_by_name(name).unwrap();
        arrow::compute::cast(times, &DataType::Int64).unwrap()
    };
    let plain = |name: &str| Arc::clone(rows.column_by_name(name).unwrap());
    RecordBatch::try_from_iter_with_nullable([
        (
            "a_case",
            Arc::new(Int64Array::from_value(case, rows.num_rows())) as ArrayRef,
            false,
        ),
        ("k", plain("k"), true),
        ("s", plain("s"), true),
        ("i", plain("i"), true),
        ("b", plain("b"), true),
        ("u", plain("u"), true),
        ("ts", numbers("ts"), true),
        ("met", numbers("met"), true),
    ])
    .unwrap()
}

#[test]
fn duckdb_says_the_same() {
    let config = config();
    let RngSeed::Fixed(seed) = config.rng_seed else {
        unreachable!("the seed is printed, so that it can be given again");
    };
    let mut runner = TestRunner::new(config);
    let random = &mut StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let (mut found, mut asked) = (Vec::new(), Vec::new());
    let mut writer = None;
    for case in 0..CASES {
        let query = query(random);
        let splits = rows().new_tree(&mut runner).unwrap().current();
        let turns = turns().new_tree(&mut runner).unwrap().current();
        let ran = run(&query, &splits, &turns);
        let batch = for_parquet(case, &ran.rows);
        writer
            .get_or_insert_with(|| {
                let file = std::fs::File::create(folder.path().join("rows.parquet")).unwrap();
                ArrowWriter::try_new(file, batch.schema(), None).unwrap()
            })
            .write(&batch)
            .unwrap();
        found.extend(block_on(sql(&ran.engine, &from_view(&query, case))));
        asked.push(for_duckdb(&query, case));
    }
    writer.unwrap().close().unwrap();
    let text = format!(
        "CREATE TABLE rows AS SELECT * FROM read_parquet(getvariable('dataset') || '/rows.parquet'); {}",
        asked.join(" UNION ALL ")
    );
    let duckdb = oracle::ask(&text, folder.path(), &found[0].schema());
    let sorted = |mut table: Table| {
        // Case, keys and window name a row.
        table.rows.sort_by_key(|row| format!("{:?}", &row[..KEYS_MAX + 3]));
        table
    };
    let found = Table::of(&found);
    assert!(300 < found.rows.len(), "enough to compare");
    sorted(found).assert_same(&sorted(duckdb));
}
