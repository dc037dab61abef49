//! What operators hold: shown by EXPLAIN ANALYZE, and bounded by name.

use std::sync::Arc;

use arrow::array::AsArray;
use zeta::{
    cli::{MemoryTopics, registry},
    runtime::{
        Bounds, Engine, EngineOptions, Mode, StepEnd,
        clock::{ManualClock, SystemClock},
        query_environment,
    },
    types::EventTime,
};

use super::engine::{block_on, engine, sql};

const SOURCE: &str = "CREATE SOURCE src (k BIGINT, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'memory')";
const OTHER: &str = "CREATE SOURCE other (k BIGINT) WITH (connector = 'memory')";

fn start(bounds: Bounds, views: &[&str]) -> (Engine, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        state: Some(state.path().into()),
        mode: Mode::Manual,
        overrides: vec![],
    };
    let registry = registry(MemoryTopics::default(), query_environment());
    let clock = Arc::new(ManualClock::at(EventTime(1_700_000_000_000_000_000)));
    let engine = Engine::with_bounds(registry, options, clock, bounds);
    for statement in [SOURCE, OTHER].iter().chain(views) {
        block_on(sql(&engine, statement));
    }
    (engine, state)
}

fn lines(engine: &Engine, statement: &str) -> Vec<String> {
    let batches = block_on(sql(engine, statement));
    let text = batches
        .iter()
        .flat_map(|batch| batch.column(0).as_string_view().iter().flatten());
    text.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn explain_analyze_tells_what_each_operator_did_and_holds() {
    let view = "CREATE MATERIALIZED VIEW v AS SELECT k % 2 AS odd, count(*) AS n FROM src WHERE 0 < k GROUP BY k % 2";
    let (engine, _state) = start(Bounds::default(), &[view]);
    block_on(sql(
        &engine,
        "INSERT INTO src SELECT value, '2023-01-01' FROM generate_series(-1, 4) AS t(value)",
    ));
    engine
        .step(
            "src",
            StepEnd {
                checkpoint: true,
                ..StepEnd::default()
            },
        )
        .unwrap();
    let told = lines(&engine, "EXPLAIN ANALYZE v");
    let figures: Vec<&String> = told.iter().filter(|line| line.starts_with("so far")).collect();
    assert_eq!(figures.len(), 3, "filter, aggregate, project: {told:#?}");
    assert_eq!(figures[0], "so far: 6 rows in, 4 rows out");
    let aggregate = figures[1]
        .strip_prefix("so far: 4 rows in, 2 rows out; state: ")
        .expect(figures[1]);
    let bytes: usize = aggregate.strip_suffix(" bytes").unwrap().parse().unwrap();
    assert!((16..100_000).contains(&bytes), "two groups: {bytes} bytes");
    assert_eq!(figures[2], "so far: 2 rows in, 2 rows out");
}

#[test]
fn an_operator_that_holds_too_much_stops_its_source_by_name_and_others_go_on() {
    let bounds = Bounds {
        operator_state_bytes_max: 1 << 20,
        ..Bounds::default()
    };
    let views = [
        "CREATE MATERIALIZED VIEW v WITH (unbounded_state = 'allow') AS SELECT k, count(*) AS n, array_agg(ts ORDER BY ts) AS times FROM src GROUP BY k",
        "CREATE MATERIALIZED VIEW small AS SELECT count(*) AS n FROM other",
    ];
    let (engine, _state) = start(bounds, &views);
    let insert = |table: &str, columns: &str| {
        let text = format!("INSERT INTO {table} SELECT {columns} FROM generate_series(1, 50000) AS t(value)");
        block_on(engine.execute(zeta::runtime::SqlRequest {
            sql: text,
            timeout: std::time::Duration::from_secs(60),
            rows_max: None,
        }))
    };
    let Err(refused) = insert("src", "value, '2023-01-01'") else {
        panic!("50,000 groups do not fit a megabyte");
    };
    let refused = format!("{refused:?}");
    let parts = ["view `v`: its operator", "aggregate per key", "1 MB are the most"];
    for part in parts {
        assert!(refused.contains(part), "{refused}");
    }
    // Its state is half an epoch ahead: what comes after hears the same.
    let Err(again) = insert("src", "value, '2023-01-01'") else {
        panic!("the source has stopped");
    };
    let stepped = engine.step("src", StepEnd::default()).unwrap_err();
    for told in [format!("{again:?}"), stepped.to_string()] {
        for part in parts {
            assert!(told.contains(part), "{told}");
        }
    }
    assert!(insert("other", "value").is_ok(), "another source goes on");
}

#[test]
fn a_checkpoint_follows_when_a_restart_would_take_longer_than_it_may() {
    let checkpoints_after_some_epochs = |recovery: &str| {
        let state = tempfile::tempdir().unwrap();
        let engine = engine(
            &MemoryTopics::default(),
            state.path(),
            Mode::Live,
            Arc::new(SystemClock::default()),
        );
        let source = format!(
            "CREATE SOURCE src (k BIGINT) WITH (connector = 'memory', trigger = '0', recovery_time_max = '{recovery}')"
        );
        block_on(sql(&engine, &source));
        block_on(sql(&engine, "CREATE MATERIALIZED VIEW v AS SELECT k FROM src"));
        for row in 0..20 {
            block_on(sql(&engine, &format!("INSERT INTO src VALUES ({row})")));
            block_on(sql(&engine, "FLUSH"));
        }
        let folder = std::fs::read_dir(state.path().join("src/checkpoints")).unwrap();
        let count = folder.filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
        let count = count.count();
        engine.stop();
        count
    };
    assert!(0 < checkpoints_after_some_epochs("0"));
    assert_eq!(checkpoints_after_some_epochs("1 hour"), 0);
}
