//! Stream equals query: random queries over random rows, in random epochs with crashes, against stock DataFusion.
//!
//! ```text
//! a seed ─▶ query ─┬─▶ engine: rows by split, epochs, checkpoints, crashes ─▶ view
//!                  └─▶ stock DataFusion: the rows that are not late, windows written as joins and OVER ─▶ rows   (both must agree)
//! ```
//! `ZETA_CASES=…` runs so many other cases (`make fuzz`), `ZETA_SEED=…` repeats them.

mod duckdb;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
        StringViewArray, TimestampNanosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::{
    datasource::MemTable,
    prelude::{SessionConfig, SessionContext},
};
use proptest::{prelude::*, test_runner::RngSeed};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use zeta::{
    cli::MemoryTopics,
    runtime::{Engine, Mode, StepEnd, clock::ManualClock},
    types::{EventTime, SplitId},
};

use super::engine::{Step, block_on, engine, sql, steps};

const SECOND: i64 = 1_000_000_000;
const DISORDER: i64 = 5 * SECOND;

const SOURCE: &str = "CREATE SOURCE src (k INT, s VARCHAR, i BIGINT, e BIGINT, f DOUBLE, d DECIMAL(18, 4), b BOOLEAN, u BIGINT, \
    ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'memory', trigger = '0')";

#[derive(Clone, Debug)]
struct Row {
    k: Option<i32>,
    s: Option<u8>,
    i: Option<i64>,
    e: Option<i64>,
    f: Option<f64>,
    d: Option<i128>,
    b: Option<bool>,
    /// Unique, in the order of time: what a function orders by.
    u: i64,
    ts: i64,
}

/// What windows a query is over, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Windows {
    None,
    Tumble {
        size: i64,
        offset: i64,
    },
    /// `GROUP BY date_bin(…)` in place of a function in FROM.
    Bin {
        size: i64,
    },
    Hop {
        slide: i64,
        size: i64,
    },
    Cumulate {
        step: i64,
        size: i64,
    },
    Session {
        gap: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sets {
    One,
    Cube,
    Rollup,
    /// The keys, and all together.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Emit {
    Changes,
    OnWindowClose,
    Every,
}

/// What a query is over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Input {
    Plain,
    /// Some rows of the source, and others of it with other values.
    Union,
}

/// A view over the source, and perhaps one over it.
#[derive(Clone, Debug)]
struct Query {
    input: Input,
    windows: Windows,
    lateness: i64,
    keys: Vec<&'static str>,
    aggregates: Vec<&'static str>,
    filter: Option<&'static str>,
    having: Option<&'static str>,
    /// How the keys are grouped by, beside the bounds of the window.
    sets: Sets,
    emit: Emit,
    above: Option<Above>,
}

#[derive(Clone, Debug)]
struct Above {
    sql: String,
    emit: Emit,
}

const KEYS: [&str; 7] = [
    "k",
    "s",
    "b",
    "k % 2",
    "CASE WHEN i > 0 THEN 'up' ELSE 'down' END",
    "upper(s)",
    "e * 2 > 0",
];
const FILTERS: [&str; 7] = [
    "i > 0",
    "s IS NOT NULL",
    "b",
    "k = 1 OR s = 's2'",
    "f < 10 AND f > -10",
    "CAST(i AS DOUBLE) / 2 < 3",
    "e + 1 > 0",
];
const HAVINGS: [&str; 3] = ["count(*) > 1", "min(i) IS NOT NULL", "max(e) > 0 OR count(k) = 0"];
const AGGREGATES: [&str; 40] = [
    "count(*)",
    "count(i)",
    "sum(i)",
    "sum(i * 0.5)",
    "min(e)",
    "max(e)",
    // With NaN they depend on the order of rows, in DataFusion itself.
    "min(f) FILTER (WHERE NOT isnan(f))",
    "max(f) FILTER (WHERE NOT isnan(f))",
    "avg(i)",
    "sum(d)",
    "avg(d)",
    "min(d)",
    "min(s)",
    "max(s)",
    "min(ts)",
    "max(ts)",
    "bool_and(b)",
    "bool_or(b)",
    "first_value(i ORDER BY u)",
    "last_value(s ORDER BY u)",
    "first_value(f ORDER BY ts DESC, u)",
    "nth_value(i, 2 ORDER BY u)",
    "count(DISTINCT k)",
    "sum(DISTINCT i)",
    "stddev(i)",
    "var_pop(i)",
    "corr(i, u)",
    "covar_samp(i, k)",
    "median(i)",
    "approx_distinct(k)",
    "array_agg(i ORDER BY u)",
    "string_agg(s, ',' ORDER BY u)",
    "count(*) FILTER (WHERE b)",
    "sum(i) FILTER (WHERE i > 0)",
    "bit_xor(i)",
    "sum(CASE WHEN b THEN 1 ELSE 0 END)",
    "sum(e)",
    "sum(e + i)",
    "sum(DISTINCT e)",
    "sum(e) FILTER (WHERE b)",
];
/// What may not fit BIGINT, row by row: such rows are in no result.
const FALLIBLE: [&str; 3] = ["e * 2", "e + 1", "e + i"];
/// Sums that may not fit BIGINT: such groups are in no result.
const SUMS: [&str; 2] = ["sum(e)", "sum(DISTINCT e)"];

/// The same in numbers of 38 digits, which hold everything here.
fn wide(sql: &str) -> String {
    let patterns = FALLIBLE.iter().chain(&SUMS);
    patterns.fold(sql.to_owned(), |sql, pattern| {
        let (before, after) = pattern.split_at(pattern.find('e').expect("it computes with e"));
        sql.replace(pattern, &format!("{before}CAST(e AS DECIMAL(38, 0)){}", &after[1..]))
    })
}

/// Whether a number fits BIGINT, or is null.
fn fits(number: &str) -> String {
    format!("({number} IS NULL OR {number} BETWEEN {} AND {})", i64::MIN, i64::MAX)
}

impl Query {
    fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let random = &mut random;
        let windows = match random.random_range(0..10) {
            0 => Windows::None,
            1..4 => Windows::Tumble {
                size: *[10, 60].choose(random).unwrap(),
                offset: *[0, 0, 7, -3].choose(random).unwrap(),
            },
            4 => Windows::Bin { size: 30 },
            5 | 6 => {
                let (slide, size) = *[(10, 30), (20, 50), (15, 10), (7, 21), (10, 10)]
                    .choose(random)
                    .unwrap();
                Windows::Hop { slide, size }
            }
            7 => Windows::Cumulate { step: 10, size: 40 },
            _ => Windows::Session {
                gap: *[3, 15].choose(random).unwrap(),
            },
        };
        let keys: Vec<&str> = match windows {
            Windows::Session { .. } => some(random, &KEYS[..3], 2),
            _ => some(random, &KEYS, 2),
        };
        let aggregates = {
            let mut found = some(random, &AGGREGATES, 5);
            if found.is_empty() && keys.is_empty() && windows == Windows::None {
                found.push("count(*)");
            }
            found
        };
        let emit = match windows {
            Windows::None | Windows::Bin { .. } => *[Emit::Changes, Emit::Changes, Emit::Every].choose(random).unwrap(),
            _ => *[Emit::Changes, Emit::OnWindowClose, Emit::OnWindowClose, Emit::Every]
                .choose(random)
                .unwrap(),
        };
        let mut query = Self {
            input: *[Input::Plain, Input::Plain, Input::Plain, Input::Union]
                .choose(random)
                .unwrap(),
            windows,
            lateness: match windows {
                Windows::None => 0,
                _ => *[0, 0, 0, 20].choose(random).unwrap(),
            },
            having: random.random_bool(0.2).then(|| *HAVINGS.choose(random).unwrap()),
            filter: random.random_bool(0.3).then(|| *FILTERS.choose(random).unwrap()),
            sets: match (windows, keys.is_empty()) {
                // Of no rows at all a set without columns has a row in a query, and none in a view.
                (Windows::Session { .. } | Windows::None, _) | (_, true) => Sets::One,
                _ => *[Sets::One, Sets::One, Sets::One, Sets::Cube, Sets::Rollup, Sets::Both]
                    .choose(random)
                    .unwrap(),
            },
            keys,
            aggregates,
            emit,
            above: None,
        };
        if query.having.is_some() && query.aggregates.is_empty() {
            query.aggregates.push("count(*)");
        }
        query.above = random.random_bool(0.35).then(|| query.above(random)).flatten();
        query
    }

    fn above(&self, random: &mut StdRng) -> Option<Above> {
        let numbers: Vec<String> = (0..self.aggregates.len())
            .filter(|index| self.aggregates[*index].starts_with("count") || self.aggregates[*index] == "sum(i)")
            .map(|index| format!("a{index}"))
            .collect();
        let columns = numbers
            .iter()
            .map(|name| format!(", sum({name}), min({name}), max({name})"))
            .collect::<String>();
        let bounds = self.bounds();
        let emit = |random: &mut StdRng| *[Emit::Changes, Emit::OnWindowClose].choose(random).unwrap();
        match random.random_range(0..6) {
            5 => numbers.first().map(|name| Above {
                sql: format!(
                    "SELECT count({name}) AS n, {name} % 2 AS g FROM (SELECT {name} FROM below UNION ALL \
                     SELECT {name} + 1 FROM below WHERE 0 < {name}) GROUP BY {name} % 2 UNION ALL SELECT {name}, -1 FROM below"
                ),
                emit: Emit::Changes,
            }),
            0 => numbers.first().map(|name| Above {
                sql: format!("SELECT * FROM below WHERE {name} % 2 = 0"),
                emit: Emit::Changes,
            }),
            1 => Some(Above {
                sql: format!("SELECT count(*) AS n{} FROM below", aliased(&columns)),
                emit: Emit::Changes,
            }),
            2 if !self.keys.is_empty() => Some(Above {
                sql: format!("SELECT g0, count(*) AS n{} FROM below GROUP BY g0", aliased(&columns)),
                emit: Emit::Changes,
            }),
            3 if bounds.len() == 2 => Some(Above {
                sql: format!(
                    "SELECT window_start, window_end, count(*) AS n{} FROM below GROUP BY window_start, window_end",
                    aliased(&columns)
                ),
                emit: emit(random),
            }),
            4 if bounds.len() == 2 => {
                let time = match self.windows {
                    // Nothing says when sessions that begin at some time are complete.
                    Windows::Session { .. } => "window_end",
                    _ => *bounds.choose(random).unwrap(),
                };
                let others = numbers.iter().map(|name| format!(", {name}")).collect::<String>();
                Some(Above {
                    sql: format!(
                        "SELECT window_start, window_end, count(*) AS n{} FROM \
                         TUMBLE((SELECT {time} AS time{others} FROM below), time, INTERVAL '60 seconds') \
                         GROUP BY window_start, window_end",
                        aliased(&columns)
                    ),
                    emit: emit(random),
                })
            }
            _ => None,
        }
    }

    fn bounds(&self) -> &'static [&'static str] {
        match self.windows {
            Windows::None => &[],
            Windows::Bin { .. } => &["window_start"],
            _ => &["window_start", "window_end"],
        }
    }

    /// The query over rows that stand in `from`.
    fn select(&self, from: &str) -> String {
        let bin = match self.windows {
            Windows::Bin { size } => format!("date_bin(INTERVAL '{size} seconds', ts)"),
            _ => String::new(),
        };
        let bound = |name: &&str| match self.windows {
            Windows::Bin { .. } => bin.clone(),
            _ => name.to_string(),
        };
        let groups: Vec<String> = self.bounds().iter().map(bound).collect();
        let keys = self
            .keys
            .iter()
            .enumerate()
            .map(|(index, key)| format!("{key} AS g{index}"));
        let bounds = self.bounds().iter().map(|name| format!("{} AS {name}", bound(name)));
        let aggregates = self
            .aggregates
            .iter()
            .enumerate()
            .map(|(index, sql)| format!("{sql} AS a{index}"));
        let columns: Vec<String> = keys.chain(bounds).chain(aggregates).collect();
        let filter = match (self.windows, self.filter) {
            // Below the windows: see `views` and `below_for_batch`.
            (Windows::Session { .. }, _) | (_, None) => String::new(),
            (_, Some(filter)) => format!(" WHERE {filter}"),
        };
        let keys_of = |all: &str, none: &[String]| match (self.sets, self.keys.is_empty()) {
            (_, true) => none.join(", "),
            (Sets::One, _) => [all.to_owned()]
                .iter()
                .chain(none)
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
            (Sets::Cube, _) => [format!("CUBE ({all})")]
                .iter()
                .chain(none)
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
            (Sets::Rollup, _) => [format!("ROLLUP ({all})")]
                .iter()
                .chain(none)
                .cloned()
                .collect::<Vec<_>>()
                .join(", "),
            (Sets::Both, _) => {
                let with = [all.to_owned()]
                    .iter()
                    .chain(none)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ");
                format!("GROUPING SETS (({with}), ({}))", none.join(", "))
            }
        };
        let group = match keys_of(&self.keys.join(", "), &groups) {
            none if none.is_empty() => String::new(),
            groups => format!(" GROUP BY {groups}"),
        };
        let having = self
            .having
            .map(|having| format!(" HAVING {having}"))
            .unwrap_or_default();
        format!("SELECT {} FROM {from}{filter}{group}{having}", columns.join(", "))
    }

    /// The rows that it is over, of `src`; `more` are columns beside those of the source.
    fn input(&self, more: &str) -> String {
        match self.input {
            Input::Plain => "src".to_owned(),
            Input::Union => format!(
                "(SELECT k, s, i, e, f, d, b, u, ts{more} FROM src WHERE u % 3 <> 0 UNION ALL \
                 SELECT k + 1, upper(s), i, e, -f, d, NOT b, u + 1000000, ts{more} FROM src WHERE 0 < i)"
            ),
        }
    }

    fn session_key(&self) -> String {
        self.keys.join(", ")
    }

    /// As Zeta takes it.
    fn views(&self) -> Vec<String> {
        let input = self.input("");
        let from = match self.windows {
            Windows::None | Windows::Bin { .. } => input,
            Windows::Tumble { size, offset: 0 } => format!("TUMBLE({input}, ts, INTERVAL '{size} seconds')"),
            Windows::Tumble { size, offset } => {
                format!("TUMBLE({input}, ts, INTERVAL '{size} seconds', INTERVAL '{offset} seconds')")
            }
            Windows::Hop { slide, size } => {
                format!("HOP({input}, ts, INTERVAL '{slide} seconds', INTERVAL '{size} seconds')")
            }
            Windows::Cumulate { step, size } => {
                format!("CUMULATE({input}, ts, INTERVAL '{step} seconds', INTERVAL '{size} seconds')")
            }
            Windows::Session { gap } => {
                let key: String = self.keys.iter().map(|key| format!(", {key}")).collect();
                let from = match self.filter {
                    Some(filter) => format!("(SELECT * FROM {input} WHERE {filter})"),
                    None => input,
                };
                format!("SESSION({from}, ts, INTERVAL '{gap} seconds'{key})")
            }
        };
        let with = match self.lateness {
            0 => String::new(),
            lateness => format!(" WITH (allowed_lateness = '{lateness} seconds')"),
        };
        let below = format!(
            "CREATE MATERIALIZED VIEW below{with} AS {}{}",
            self.select(&from),
            self.emit.sql()
        );
        let above = self
            .above
            .iter()
            .map(|above| format!("CREATE MATERIALIZED VIEW above AS {}{}", above.sql, above.emit.sql()));
        std::iter::once(below).chain(above).collect()
    }

    /// Which rows the query can compute.
    fn is_computable(&self) -> String {
        let parts = self.keys.iter().chain(&self.aggregates).chain(&self.filter);
        let parts: Vec<&&str> = parts.collect();
        let used = FALLIBLE
            .iter()
            .filter(|number| parts.iter().any(|part| part.contains(**number)));
        let conditions = used.map(|number| fits(&format!("({})", wide(number))));
        std::iter::once("true".to_owned())
            .chain(conditions)
            .collect::<Vec<_>>()
            .join(" AND ")
    }

    /// As stock DataFusion takes it, over `src` with a column `met`: how far the split was when the row came.
    fn below_for_batch(&self, closed_at: Option<i64>) -> String {
        let lateness = self.lateness;
        let input = self.input(", met");
        let in_time = |end: &str| format!("(met IS NULL OR {end} + INTERVAL '{lateness} seconds' > met)");
        let from = match self.windows {
            Windows::None => input,
            Windows::Bin { size } => format!(
                "(SELECT * FROM {input} WHERE {})",
                in_time(&format!(
                    "date_bin(INTERVAL '{size} seconds', ts) + INTERVAL '{size} seconds'"
                ))
            ),
            Windows::Tumble { size, offset } => each_window(&input, size, size, &[0], offset, &in_time),
            Windows::Hop { slide, size } => {
                let back: Vec<i64> = (0..size.div_euclid(slide) + 1).collect();
                each_window(&input, slide, size, &back, 0, &in_time)
            }
            Windows::Cumulate { step, size } => {
                let steps: Vec<String> = (1..=size / step)
                    .map(|n| format!("(INTERVAL '{} seconds')", n * step))
                    .collect();
                format!(
                    "(SELECT *, start AS window_start FROM (SELECT *, start + n AS window_end \
                     FROM (SELECT *, date_bin(INTERVAL '{size} seconds', ts) AS start FROM {input}) \
                     CROSS JOIN (VALUES {}) AS steps(n)) WHERE ts < window_end AND {})",
                    steps.join(", "),
                    in_time("window_end")
                )
            }
            Windows::Session { gap } => {
                let key = self.session_key();
                let by = |more: &str| match (key.is_empty(), more.is_empty()) {
                    (true, true) => String::new(),
                    (true, false) => format!("PARTITION BY {more}"),
                    (false, true) => format!("PARTITION BY {key}"),
                    (false, false) => format!("PARTITION BY {key}, {more}"),
                };
                let gap_ns = gap * SECOND;
                format!(
                    "(SELECT *, min(ts) OVER ({of}) AS window_start, max(ts) OVER ({of}) + INTERVAL '{gap} seconds' AS window_end \
                     FROM (SELECT *, sum(begins) OVER ({key} ORDER BY ts) AS session FROM \
                     (SELECT *, CASE WHEN before IS NULL OR CAST(ts AS BIGINT) - CAST(before AS BIGINT) >= {gap_ns} THEN 1 ELSE 0 END AS begins \
                     FROM (SELECT *, lag(ts) OVER ({key} ORDER BY ts) AS before FROM {input} \
                     WHERE {is_computable} AND ({filter}) AND (met IS NULL OR ts + INTERVAL '{lateness} seconds' >= met)))))",
                    filter = wide(self.filter.unwrap_or("true")),
                    is_computable = self.is_computable(),
                    of = by("session"),
                    key = by(""),
                )
            }
        };
        let from = match self.windows {
            Windows::Session { .. } => from,
            _ => format!("(SELECT * FROM {from} WHERE {})", self.is_computable()),
        };
        let sums = (0..self.aggregates.len()).filter(|index| {
            let aggregate = self.aggregates[*index];
            aggregate == "sum(e + i)" || SUMS.iter().any(|sum| aggregate.starts_with(sum))
        });
        let are_told = sums.map(|index| format!(" AND {}", fits(&format!("a{index}"))));
        let select = format!(
            "SELECT * FROM ({}) WHERE true{}",
            wide(&self.select(&from)),
            are_told.collect::<String>()
        );
        match closed_at {
            Some(closed_at) => format!(
                "SELECT * FROM ({select}) WHERE window_end + INTERVAL '{lateness} seconds' <= arrow_cast({closed_at}, 'Timestamp(Nanosecond, None)')"
            ),
            None => select,
        }
    }
}

impl Emit {
    fn sql(self) -> &'static str {
        match self {
            Self::Changes => "",
            Self::OnWindowClose => " EMIT ON WINDOW CLOSE",
            Self::Every => " EMIT EVERY INTERVAL '1 second'",
        }
    }
}

/// Windows of a size that begin every slide, each so many slides back: a row for each that covers the time.
fn each_window(
    input: &str,
    slide: i64,
    size: i64,
    back: &[i64],
    offset: i64,
    in_time: &dyn Fn(&str) -> String,
) -> String {
    let back: Vec<String> = back
        .iter()
        .map(|n| format!("(INTERVAL '{} seconds')", n * slide))
        .collect();
    let origin = format!("arrow_cast({}, 'Timestamp(Nanosecond, None)')", offset * SECOND);
    format!(
        "(SELECT * FROM (SELECT *, window_start + INTERVAL '{size} seconds' AS window_end FROM \
         (SELECT *, date_bin(INTERVAL '{slide} seconds', ts, {origin}) - n AS window_start \
         FROM {input} CROSS JOIN (VALUES {}) AS back(n))) WHERE ts < window_end AND {})",
        back.join(", "),
        in_time("window_end")
    )
}

fn aliased(columns: &str) -> String {
    columns
        .split(", ")
        .filter(|column| !column.is_empty())
        .enumerate()
        .map(|(index, column)| format!(", {column} AS x{index}"))
        .collect()
}

fn some<T: Copy>(random: &mut StdRng, of: &[T], at_most: usize) -> Vec<T> {
    let count = random.random_range(0..=at_most);
    of.choose_multiple(random, count).copied().collect()
}

fn rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let optional = |strategy: BoxedStrategy<i64>| proptest::option::weighted(0.85, strategy);
    let extremes = prop_oneof![3 => -5i64..5, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => any::<i64>()].boxed();
    let floats = prop_oneof![
        6 => (-80i64..80).prop_map(|quarters| quarters as f64 / 4.0),
        1 => Just(f64::NAN), 1 => Just(-0.0), 1 => Just(f64::INFINITY), 1 => Just(f64::MIN_POSITIVE),
    ];
    let row = (
        // How far event time goes on, in seconds; back is disorder within the watermark's delay and beyond.
        prop_oneof![4 => 0i64..6, 2 => -4i64..1, 1 => -90i64..-4, 1 => 15i64..70],
        (
            optional((0i64..3).boxed()),
            optional((0i64..3).boxed()),
            optional((-9i64..10).boxed()),
            optional(extremes),
            optional((-99_999i64..99_999).boxed()),
        ),
        proptest::option::weighted(0.85, floats),
        proptest::option::weighted(0.85, any::<bool>()),
    );
    let split = proptest::collection::vec(row, 0..30);
    (1usize..4, -200i64..200).prop_flat_map(move |(splits, start)| {
        proptest::collection::vec(split.clone(), splits).prop_map(move |splits| {
            let mut unique = 0;
            splits
                .into_iter()
                .map(|split| {
                    let mut now = start * SECOND;
                    split
                        .into_iter()
                        .map(|(step, (k, s, i, e, d), f, b)| {
                            let ts = now + step * SECOND;
                            now = now.max(ts);
                            unique += 1;
                            // Whole seconds are edges of windows: most rows stand a little behind them, some on them.
                            let ts = ts + if unique % 4 == 0 { 0 } else { unique * 1_000 };
                            Row {
                                k: k.map(|k| k as i32),
                                s: s.map(|s| s as u8),
                                i,
                                e,
                                f,
                                d: d.map(i128::from),
                                b,
                                u: unique,
                                ts,
                            }
                        })
                        .collect()
                })
                .collect()
        })
    })
}

fn schema() -> SchemaRef {
    let fields = [
        ("k", DataType::Int32),
        ("s", DataType::Utf8View),
        ("i", DataType::Int64),
        ("e", DataType::Int64),
        ("f", DataType::Float64),
        ("d", DataType::Decimal128(18, 4)),
        ("b", DataType::Boolean),
        ("u", DataType::Int64),
        ("ts", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ];
    Arc::new(Schema::new(
        fields
            .map(|(name, data_type)| Field::new(name, data_type, true))
            .to_vec(),
    ))
}

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    vec![
        Arc::new(rows.iter().map(|row| row.k).collect::<Int32Array>()),
        Arc::new(
            rows.iter()
                .map(|row| row.s.map(|s| format!("s{s}")))
                .collect::<StringViewArray>(),
        ),
        Arc::new(rows.iter().map(|row| row.i).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.e).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.f).collect::<Float64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| row.d)
                .collect::<Decimal128Array>()
                .with_precision_and_scale(18, 4)
                .unwrap(),
        ),
        Arc::new(rows.iter().map(|row| row.b).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| Some(row.u)).collect::<Int64Array>()),
        Arc::new(TimestampNanosecondArray::from_iter_values(
            rows.iter().map(|row| row.ts),
        )),
    ]
}

fn batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(schema(), columns(rows)).unwrap()
}

/// All rows, each with the watermark of the lower positions of its own split.
fn with_met(splits: &[Vec<Row>]) -> RecordBatch {
    let mut met = Vec::new();
    for split in splits {
        let mut watermark = None::<i64>;
        for row in split {
            met.push(watermark);
            watermark = watermark.max(Some(row.ts - DISORDER));
        }
    }
    having_met(&splits.concat(), met)
}

fn never_late(rows: &[Row]) -> RecordBatch {
    having_met(rows, vec![None; rows.len()])
}

fn having_met(all: &[Row], met: Vec<Option<i64>>) -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let fields = schema()
        .fields()
        .iter()
        .cloned()
        .chain([Arc::new(Field::new("met", time, true))])
        .collect::<Vec<_>>();
    let met: ArrayRef = Arc::new(met.into_iter().collect::<TimestampNanosecondArray>());
    let columns = columns(all).into_iter().chain([met]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// Rows as text in any order, columns by name; floating numbers as far as they must agree.
fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let mut rows = Vec::new();
    for batch in batches {
        let by_name: BTreeMap<&str, &ArrayRef> = batch
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .zip(batch.columns())
            .collect();
        for row in 0..batch.num_rows() {
            let cells = by_name.iter().map(|(name, column)| {
                let text = ArrayFormatter::try_new(column.as_ref(), &options)
                    .unwrap()
                    .value(row)
                    .to_string();
                match (column.data_type(), text.parse::<f64>()) {
                    (DataType::Float64, Ok(number)) if number.abs() < 1e-6 => format!("{name}=0"),
                    // Away from where rounding may go either way.
                    (DataType::Float64, Ok(number)) => format!("{name}={:.7e}", number * (1.0 + 3e-10)),
                    _ => format!("{name}={text}"),
                }
            });
            rows.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    rows.sort();
    rows
}

/// What stock DataFusion gives for the upper view, or the only one.
async fn by_batch(query: &Query, rows: RecordBatch, closed_at: Option<i64>) -> Vec<String> {
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config(config);
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    context.register_table("src", Arc::new(table)).unwrap();
    let below = query.below_for_batch(closed_at.filter(|_| query.emit == Emit::OnWindowClose));
    let sql = match &query.above {
        None => below,
        Some(above) => {
            let bounds = "SELECT *, date_bin(INTERVAL '60 seconds', time) AS window_start, \
                date_bin(INTERVAL '60 seconds', time) + INTERVAL '60 seconds' AS window_end FROM";
            let upper = above
                .sql
                .replace("TUMBLE(", &format!("({bounds} "))
                .replace(", time, INTERVAL '60 seconds')", ")");
            format!("WITH below AS ({below}) {upper}")
        }
    };
    let frame = context.sql(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    shown(&frame.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}")))
}

/// What an epoch more than the steps of the engine's own test does.
#[derive(Clone, Debug)]
enum Turn {
    Step(Step),
    /// An epoch in which every split that is caught up counts as idle.
    Idle {
        rows_max: Option<usize>,
    },
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    // Most epochs are as they come, and in some every silent split counts as idle.
    let idle = proptest::option::weighted(0.1, proptest::option::weighted(0.7, 1usize..15));
    steps().prop_flat_map(move |steps| {
        let turns: Vec<_> = steps
            .into_iter()
            .map(|step| {
                idle.clone().prop_map(move |idle| match idle {
                    Some(rows_max) => Turn::Idle { rows_max },
                    None => Turn::Step(step.clone()),
                })
            })
            .collect();
        turns
    })
}

/// How far time is complete, told by what was read when: a second reading of the rule, in other words.
struct Model<'a> {
    splits: &'a [Vec<Row>],
    read: Vec<usize>,
    complete: Vec<Option<i64>>,
    combined: Option<i64>,
    /// By split and row: how far its split was when it came.
    met: Vec<Vec<Option<i64>>>,
}

impl<'a> Model<'a> {
    fn new(splits: &'a [Vec<Row>]) -> Self {
        Self {
            read: vec![0; splits.len()],
            complete: vec![None; splits.len()],
            combined: None,
            met: vec![Vec::new(); splits.len()],
            splits,
        }
    }

    /// An epoch has read up to `read`, of the rows up to `written`.
    fn epoch(&mut self, read: &[usize], written: &[usize], counts_idle: bool) {
        let mut active = Vec::new();
        let mut idle = Vec::new();
        for split in 0..self.splits.len() {
            for row in &self.splits[split][self.read[split]..read[split]] {
                self.met[split].push(self.complete[split]);
                self.complete[split] = self.complete[split].max(Some(row.ts - DISORDER));
            }
            let is_idle = counts_idle && read[split] == self.read[split] && read[split] == written[split];
            if is_idle {
                idle.push(split)
            } else {
                active.push(split)
            }
            self.read[split] = read[split];
        }
        let slowest = active.iter().map(|split| self.complete[*split]).min().flatten();
        self.combined = self.combined.max(slowest);
        for split in idle {
            self.complete[split] = self.complete[split].max(self.combined);
        }
    }

    fn rows(&self) -> RecordBatch {
        having_met(&self.splits.concat(), self.met.concat())
    }
}

/// An engine that has read all rows, but does not know that they are all.
struct Ran {
    engine: Engine,
    /// All rows, each with how far its split was when it came.
    rows: RecordBatch,
    /// How far all splits are.
    combined: Option<i64>,
    _state: tempfile::TempDir,
}

fn run(query: &Query, splits: &[Vec<Row>], turns: &[Turn]) -> Ran {
    let state = tempfile::tempdir().unwrap();
    let topics = MemoryTopics::default();
    let clock = Arc::new(ManualClock::at(EventTime(1_000_000 * SECOND)));
    let engine = engine(&topics, state.path(), Mode::Manual, clock);
    let topic = topics.of("src");
    for split in 0..splits.len() {
        topic.append(&SplitId::from(split as i32), batch(&[]));
    }
    block_on(async {
        sql(&engine, SOURCE).await;
        for view in query.views() {
            sql(&engine, &view).await;
        }
    });
    let mut written = vec![0; splits.len()];
    let mut model = Model::new(splits);
    let mut epoch = |end: StepEnd, written: &[usize]| {
        let counts_idle = !end.idle_splits.is_empty();
        engine.step("src", end).unwrap();
        let status = engine.sources();
        let source = status.iter().find(|source| source.name == "src").unwrap();
        let positions: BTreeMap<_, _> = source
            .splits
            .iter()
            .map(|status| (status.split.clone(), status.position.0 as usize))
            .collect();
        let read: Vec<usize> = (0..splits.len())
            .map(|split| positions[&SplitId::from(split as i32)])
            .collect();
        model.epoch(&read, written, counts_idle);
    };
    let all: Vec<SplitId> = (0..splits.len()).map(|split| SplitId::from(split as i32)).collect();
    for turn in turns {
        let end = match turn {
            Turn::Step(Step::Append { split, rows }) => {
                let split = split % splits.len();
                let to = splits[split].len().min(written[split] + rows);
                topic.append(&SplitId::from(split as i32), batch(&splits[split][written[split]..to]));
                written[split] = to;
                continue;
            }
            Turn::Step(Step::Crash) => {
                engine.crash_and_restore().unwrap();
                continue;
            }
            Turn::Step(Step::Epoch { rows_max }) => StepEnd {
                rows_max: *rows_max,
                ..StepEnd::default()
            },
            Turn::Step(Step::Checkpoint) => StepEnd {
                checkpoint: true,
                ..StepEnd::default()
            },
            Turn::Idle { rows_max } => StepEnd {
                rows_max: *rows_max,
                idle_splits: all.clone(),
                ..StepEnd::default()
            },
        };
        epoch(end, &written);
    }
    for (split, rows) in splits.iter().enumerate() {
        topic.append(&SplitId::from(split as i32), batch(&rows[written[split]..]));
    }
    let written: Vec<usize> = splits.iter().map(Vec::len).collect();
    epoch(StepEnd::default(), &written);
    Ran {
        rows: model.rows(),
        combined: model.combined,
        engine,
        _state: state,
    }
}

fn check(query: &Query, splits: &[Vec<Row>], turns: &[Turn]) {
    let Ran {
        engine,
        rows,
        combined,
        _state,
    } = run(query, splits, turns);
    let name = if query.above.is_some() { "above" } else { "below" };
    let found = || shown(&block_on(sql(&engine, &format!("SELECT * FROM {name}"))));
    let is_told_before_the_end =
        query.emit != Emit::Every && query.above.as_ref().is_none_or(|above| above.emit == Emit::Changes);
    if is_told_before_the_end {
        let closed_at = Some(combined.unwrap_or(i64::MIN / 2));
        let expected = block_on(by_batch(query, rows.clone(), closed_at));
        assert_eq!(found(), expected, "while rows may come: {:#?}", query.views());
    }
    let end = StepEnd {
        is_last: true,
        ..StepEnd::default()
    };
    engine.step("src", end).unwrap();
    let expected = block_on(by_batch(query, rows, None));
    assert_eq!(found(), expected, "when all rows are there: {:#?}", query.views());
}

/// Without idle splits lateness depends on the lower positions of the own split alone.
fn check_lateness(query: &Query, splits: &[Vec<Row>], turns: &[Turn]) {
    let without_idle: Vec<Turn> = turns
        .iter()
        .filter(|turn| matches!(turn, Turn::Step(_)))
        .cloned()
        .collect();
    let cut = run(query, splits, &without_idle);
    let whole = run(query, splits, &[]);
    assert_eq!(cut.rows, with_met(splits), "the rule, whatever the cuts");
    let late = |ran: &Ran| shown(&block_on(sql(&ran.engine, "SELECT * FROM \"below$late\"")));
    assert_eq!(late(&cut), late(&whole), "{:#?}", query.views());
}

/// What is done to a table.
#[derive(Clone, Debug)]
enum Write {
    /// Rows of the feed, by their unique numbers.
    Insert {
        from: i64,
        to: i64,
    },
    Delete {
        modulus: i64,
    },
    Update {
        modulus: i64,
    },
    Truncate,
    Checkpoint,
    Crash,
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        6 => (0i64..60, 1i64..20).prop_map(|(from, count)| Write::Insert { from, to: from + count }),
        3 => (2i64..6).prop_map(|modulus| Write::Delete { modulus }),
        3 => (2i64..6).prop_map(|modulus| Write::Update { modulus }),
        1 => Just(Write::Truncate),
        1 => Just(Write::Checkpoint),
        1 => Just(Write::Crash),
    ];
    proptest::collection::vec(write, 1..12)
}

/// The same queries over a table whose rows come, change and go.
fn check_table(query: &Query, has_key: bool, feed: &[Row], writes: &[Write]) {
    let state = tempfile::tempdir().unwrap();
    let topics = MemoryTopics::default();
    let clock = Arc::new(ManualClock::at(EventTime(1_000_000 * SECOND)));
    let engine = engine(&topics, state.path(), Mode::Manual, clock);
    let run = |text: &str| block_on(sql(&engine, text));
    run(&SOURCE.replace("SOURCE src", "SOURCE feed"));
    run("CREATE MATERIALIZED VIEW rows_to_insert AS SELECT * FROM feed");
    topics.of("feed").append(&SplitId::from(0), batch(feed));
    engine.step("feed", StepEnd::default()).unwrap();
    let columns = "k INT, s VARCHAR, i BIGINT, e BIGINT, f DOUBLE, d DECIMAL(18, 4), b BOOLEAN, u BIGINT, ts TIMESTAMP";
    let key = if has_key { ", PRIMARY KEY (u)" } else { "" };
    run(&format!("CREATE TABLE src ({columns}{key})"));
    for view in query.views() {
        run(&view);
    }
    // As a running engine does by itself for a view that has a row of no rows.
    engine.step("src", StepEnd::default()).unwrap();
    let mut rows: Vec<Row> = Vec::new();
    for write in writes {
        match write {
            Write::Insert { from, to } => {
                let is_new = |row: &&Row| has_key || !rows.iter().any(|other| other.u == row.u);
                let new: Vec<Row> = feed
                    .iter()
                    .filter(|row| (*from..*to).contains(&row.u))
                    .filter(is_new)
                    .cloned()
                    .collect();
                let numbers: Vec<String> = new.iter().map(|row| row.u.to_string()).collect();
                if numbers.is_empty() {
                    continue;
                }
                rows.retain(|row| !new.iter().any(|new| new.u == row.u));
                rows.extend(new);
                run(&format!(
                    "INSERT INTO src SELECT * FROM rows_to_insert WHERE u IN ({})",
                    numbers.join(", ")
                ));
            }
            Write::Delete { modulus } => {
                rows.retain(|row| row.u % modulus != 0);
                run(&format!("DELETE FROM src WHERE u % {modulus} = 0"));
            }
            Write::Update { modulus } => {
                for row in rows.iter_mut().filter(|row| row.u % modulus == 1) {
                    row.k = row.k.map(|k| k + 1);
                    row.b = None;
                    row.ts += 7 * SECOND;
                }
                run(&format!(
                    "UPDATE src SET k = k + 1, b = NULL, ts = ts + INTERVAL '7 seconds' WHERE u % {modulus} = 1"
                ));
            }
            Write::Truncate => {
                rows.clear();
                run("TRUNCATE src");
            }
            Write::Checkpoint => engine
                .step(
                    "src",
                    StepEnd {
                        checkpoint: true,
                        ..StepEnd::default()
                    },
                )
                .unwrap(),
            Write::Crash => engine.crash_and_restore().unwrap(),
        }
        // What EMIT EVERY holds back comes with the end, and a table has none.
        let name = if query.above.is_some() { "above" } else { "below" };
        let found = shown(&run(&format!("SELECT * FROM {name}")));
        let expected = block_on(by_batch(query, never_late(&rows), None));
        assert_eq!(found, expected, "after {write:?}: {:#?}", query.views());
    }
}

impl Query {
    /// A query whose rows are told while they change, over rows that are never late.
    fn over_a_table(seed: u64) -> Self {
        (0u64..)
            .map(|turn| {
                let mut query = Self::of(seed.wrapping_add(turn));
                query.lateness = 0;
                query.emit = Emit::Changes;
                query
            })
            .find(|query| {
                !matches!(query.windows, Windows::Session { .. })
                    && query.above.as_ref().is_none_or(|above| {
                        // Nothing says when windows of a table are complete, so windows over them are not asked for.
                        above.emit == Emit::Changes && !above.sql.contains("TUMBLE")
                    })
            })
            .expect("some query is so")
    }
}

fn config() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    // The same cases in every test run, so that a change is what makes one fail; others by `make fuzz`.
    let seed = number("ZETA_SEED").unwrap_or_else(|| match number("ZETA_CASES") {
        Some(_) => rand::random::<u64>(),
        None => 2_024,
    });
    println!("ZETA_SEED={seed}");
    ProptestConfig {
        cases: number("ZETA_CASES").unwrap_or(1_000) as u32,
        failure_persistence: None,
        max_shrink_iters: 300,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_view_holds_what_its_query_says(seed in any::<u64>().no_shrink(), splits in rows(), turns in turns()) {
        check(&Query::of(seed), &splits, &turns);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases / 4, ..config() })]

    #[test]
    fn which_rows_are_late_depends_neither_on_cuts_nor_on_how_splits_interleave(
        seed in any::<u64>().no_shrink(), splits in rows(), turns in turns()
    ) {
        let query = Query::of(seed);
        if query.windows != Windows::None {
            check_lateness(&query, &splits, &turns);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases / 4, ..config() })]

    #[test]
    fn a_view_of_a_table_holds_what_its_query_says(
        seed in any::<u64>().no_shrink(), has_key in any::<bool>(), splits in rows(), writes in writes()
    ) {
        check_table(&Query::over_a_table(seed), has_key, &splits.concat(), &writes);
    }
}

/// Other engines' bugs, planted: each must be found.
#[cfg(feature = "planted-bugs")]
mod planted {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::atomic::{AtomicU32, Ordering},
    };

    use proptest::test_runner::{TestCaseError, TestRunner};
    use zeta::types::planted::{Bug, plant};

    use super::*;

    const CASES_MAX: u32 = 5_000;

    /// How many cases it takes until one shows the bug.
    fn cases_until_found(bug: Option<Bug>, cases_max: u32) -> Option<u32> {
        let config = ProptestConfig {
            cases: cases_max,
            max_shrink_iters: 0,
            ..config()
        };
        let ran = AtomicU32::new(0);
        plant(bug);
        let found = |check: &dyn Fn()| {
            ran.fetch_add(1, Ordering::Relaxed);
            catch_unwind(AssertUnwindSafe(check)).map_err(|_| TestCaseError::fail("found"))
        };
        let cases = (any::<u64>(), rows(), turns(), any::<bool>(), writes());
        let result = TestRunner::new(config).run(&cases, |(seed, splits, turns, has_key, writes)| {
            found(&|| check(&Query::of(seed), &splits, &turns))?;
            // As in a usual run: a table for every four streams.
            match seed % 4 {
                0 => found(&|| check_table(&Query::over_a_table(seed), has_key, &splits.concat(), &writes)),
                _ => Ok(()),
            }
        });
        plant(None);
        result.is_err().then(|| ran.into_inner())
    }

    #[test]
    fn every_planted_bug_is_found() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let found: Vec<(Bug, Option<u32>)> = Bug::ALL
            .map(|bug| (bug, cases_until_found(Some(bug), CASES_MAX)))
            .to_vec();
        // The same cases, up to the last that was needed: without a bug none of them fails.
        let needed = found.iter().filter_map(|(_, cases)| *cases).max().unwrap_or_default();
        let without = cases_until_found(None, needed);
        std::panic::set_hook(hook);
        for (bug, cases) in &found {
            match cases {
                Some(cases) => println!("{bug:?}: found in case {cases}"),
                None => println!("{bug:?}: NOT found in {CASES_MAX} cases"),
            }
        }
        assert_eq!(without, None, "a case fails without a planted bug");
        assert!(
            found.iter().all(|(_, cases)| cases.is_some()),
            "a planted bug was not found"
        );
    }
}
