//! Created functions across restarts: a state is of no use to a view that calls another function.

use std::{path::Path, sync::Arc};

use zeta::{
    cli::MemoryTopics,
    runtime::{Engine, Mode, StepEnd, clock::ManualClock},
    sql::{SourceText, parse},
    types::EventTime,
};

use super::engine::{block_on, engine, sql};

fn pipeline(fee: &str) -> SourceText {
    SourceText::new(
        "fees.sql",
        format!(
            "CREATE SOURCE trades (price DOUBLE, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'memory');
             CREATE FUNCTION fee(price DOUBLE) RETURNS DOUBLE AS {fee};
             CREATE FUNCTION net(price DOUBLE) RETURNS DOUBLE AS price - fee(price);
             CREATE FUNCTION unused(n INT) RETURNS INT AS n;
             CREATE MATERIALIZED VIEW total AS SELECT sum(net(price)) AS net FROM trades;"
        ),
    )
}

fn over(state: &Path, mode: Mode) -> Engine {
    let clock = Arc::new(ManualClock::at(EventTime(2_000_000_000_000_000_000)));
    engine(&MemoryTopics::default(), state, mode, clock)
}

/// Starts and stops the pipeline over a state, and what it says.
fn started(state: &Path, fee: &str) -> Result<(), String> {
    let text = pipeline(fee);
    let engine = over(state, Mode::Live);
    block_on(engine.apply(&text, parse(&text))).expect("the file is right");
    let started = engine.start().map_err(|error| error.to_string());
    engine.stop();
    started
}

#[test]
fn a_state_is_refused_when_a_function_that_its_views_call_is_another() {
    let state = tempfile::tempdir().unwrap();
    let first = over(state.path(), Mode::Manual);
    for statement in parse(&pipeline("price / 100")).statements {
        block_on(sql(&first, &statement.text));
    }
    // Of a state without any epoch nothing is lost.
    first.step("trades", StepEnd::default()).unwrap();
    drop(first);

    started(state.path(), "price / 100").expect("the same definition goes on");
    let refusal = started(state.path(), "price / 50").expect_err("the rows so far were counted with another fee");
    for line in [
        "made by another definition",
        "- function fee: CREATE FUNCTION fee(price DOUBLE) RETURNS DOUBLE AS price / 100",
        "+ function fee: CREATE FUNCTION fee(price DOUBLE) RETURNS DOUBLE AS price / 50",
    ] {
        assert!(refusal.contains(line), "{line} in {refusal}");
    }
    assert!(
        !refusal.contains("unused") && !refusal.contains("function net"),
        "what is the same or not called is not told: {refusal}"
    );
}
