//! Stock DataFusion's answer: the same query, windows written as joins and OVER, over the rows that are not late.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::{
    datasource::MemTable,
    prelude::{SessionConfig, SessionContext},
};

use super::{
    query::{Emit, Query, Windows},
    rows::{SECOND, shown},
};

/// What may not fit BIGINT, row by row: such rows are in no result.
const FALLIBLE: [&str; 3] = ["e * 2", "e + 1", "e + i"];
/// Sums that may not fit BIGINT: such groups are in no result.
const SUMS: [&str; 2] = ["sum(e)", "sum(DISTINCT e)"];

/// What stock DataFusion gives for the upper view, or the only one.
pub async fn by_batch(query: &Query, rows: RecordBatch, closed_at: Option<i64>) -> Vec<String> {
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

impl Query {
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

    fn session_key(&self) -> String {
        self.keys.join(", ")
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
