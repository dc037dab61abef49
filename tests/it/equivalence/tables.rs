//! Tables: the same queries over rows that come, change and go.

use std::sync::Arc;

use proptest::prelude::*;
use zeta::{
    cli::MemoryTopics,
    runtime::{Mode, StepEnd, clock::ManualClock},
    types::{EventTime, SplitId},
};

use crate::engine::{block_on, engine, sql, try_sql};

use super::{
    model::never_late,
    query::Query,
    rows::{Row, SECOND, SOURCE, batch, shown},
    stock::by_batch,
};

/// What is done to a table.
#[derive(Clone, Debug)]
pub enum Write {
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

pub fn writes() -> impl Strategy<Value = Vec<Write>> {
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
pub fn check_table(query: &Query, sessions: &Query, has_key: bool, feed: &[Row], writes: &[Write]) {
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
    // A query over the rows that a table has now means what a view of the same text means.
    for query in [query, sessions] {
        let found = block_on(try_sql(&engine, &query.ad_hoc()));
        let expected = block_on(by_batch(
            &Query {
                above: None,
                ..query.clone()
            },
            never_late(&rows),
            None,
        ));
        match found {
            Ok(found) => assert_eq!(shown(&found), expected, "{}", query.ad_hoc()),
            // A view sets aside what a query fails on.
            Err(problem) => assert!(problem.contains("does not fit"), "{}: {problem}", query.ad_hoc()),
        }
    }
}
