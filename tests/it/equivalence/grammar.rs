//! The grammar of random queries: its words, and what a seed picks of them.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::query::{Above, Emit, Input, Query, Sets, Windows};

pub const KEYS: [&str; 7] = [
    "k",
    "s",
    "b",
    "k % 2",
    "CASE WHEN i > 0 THEN 'up' ELSE 'down' END",
    "upper(s)",
    "e * 2 > 0",
];
pub const FILTERS: [&str; 7] = [
    "i > 0",
    "s IS NOT NULL",
    "b",
    "k = 1 OR s = 's2'",
    "f < 10 AND f > -10",
    "CAST(i AS DOUBLE) / 2 < 3",
    "e + 1 > 0",
];
const HAVINGS: [&str; 3] = ["count(*) > 1", "min(i) IS NOT NULL", "max(e) > 0 OR count(k) = 0"];
const AGGREGATES: [&str; 43] = [
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
    "count(*) FILTER (WHERE i > 5 - 3)",
    "first_value(i ORDER BY -u)",
    "count(DISTINCT s)",
];

impl Query {
    pub fn of(seed: u64) -> Self {
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

    /// A query whose rows are told while they change, over rows that are never late.
    pub fn over_a_table(seed: u64) -> Self {
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

    /// Sessions, which are no view over a table yet.
    pub fn of_sessions(seed: u64) -> Self {
        let of = |turn| Self {
            lateness: 0,
            above: None,
            ..Self::of(seed.wrapping_add(turn))
        };
        let is_of_sessions = |query: &Self| matches!(query.windows, Windows::Session { .. });
        (0u64..).map(of).find(is_of_sessions).expect("some query is so")
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
}

fn aliased(columns: &str) -> String {
    columns
        .split(", ")
        .filter(|column| !column.is_empty())
        .enumerate()
        .map(|(index, column)| format!(", {column} AS x{index}"))
        .collect()
}

pub fn some<T: Copy>(random: &mut StdRng, of: &[T], at_most: usize) -> Vec<T> {
    let count = random.random_range(0..=at_most);
    of.choose_multiple(random, count).copied().collect()
}
