//! Created functions across restarts: a state is of no use to a view that calls another function.

use std::{path::Path, sync::Arc};

use zeta::{
    cli::MemoryTopics,
    runtime::{Engine, Mode, SqlRequest, StepEnd, clock::ManualClock},
    types::EventTime,
};

use super::engine::{block_on, engine, sql};

fn started(topics: &MemoryTopics, state: &Path, fee: &str) -> (Engine, Result<(), String>) {
    let clock = Arc::new(ManualClock::at(EventTime(2_000_000_000_000_000_000)));
    let engine = engine(topics, state, Mode::Manual, clock);
    let made = block_on(async {
        sql(
            &engine,
            "CREATE SOURCE trades (price DOUBLE, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'memory')",
        )
        .await;
        sql(
            &engine,
            &format!("CREATE FUNCTION fee(price DOUBLE) RETURNS DOUBLE AS {fee}"),
        )
        .await;
        sql(
            &engine,
            "CREATE FUNCTION net(price DOUBLE) RETURNS DOUBLE AS price - fee(price)",
        )
        .await;
        sql(&engine, "CREATE FUNCTION unused(n INT) RETURNS INT AS n").await;
        let view = SqlRequest {
            sql: "CREATE MATERIALIZED VIEW total AS SELECT sum(net(price)) AS net FROM trades".into(),
            timeout: std::time::Duration::from_secs(60),
            rows_max: None,
        };
        match engine.execute(view).await {
            Ok(_) => Ok(()),
            Err(problem) => Err(format!("{:?}", problem.kind)),
        }
    });
    (engine, made)
}

#[test]
fn a_state_is_refused_when_a_function_that_its_views_call_is_another() {
    let (topics, state) = (MemoryTopics::default(), tempfile::tempdir().unwrap());
    let (engine, made) = started(&topics, state.path(), "price / 100");
    made.unwrap();
    block_on(sql(&engine, "INSERT INTO trades VALUES (100, '2024-01-01T00:00:00')"));
    engine.step("trades", StepEnd::default()).unwrap();
    drop(engine);

    let (engine, made) = started(&topics, state.path(), "price / 100");
    made.expect("the same definition goes on");
    drop(engine);

    let (_engine, made) = started(&topics, state.path(), "price / 50");
    let refusal = made.expect_err("the rows so far were counted with another fee");
    for line in [
        "made by another definition",
        "- function fee: CREATE FUNCTION fee(price DOUBLE) RETURNS DOUBLE AS price / 100",
        "+ function fee: CREATE FUNCTION fee(price DOUBLE) RETURNS DOUBLE AS price / 50",
    ] {
        assert!(refusal.contains(line), "{line} in {refusal}");
    }
    assert!(
        !refusal.contains("unused"),
        "what no view calls does not matter: {refusal}"
    );
}
