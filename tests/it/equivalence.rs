//! Stream equals query: random queries over random rows, in random epochs with crashes, against stock DataFusion.
//!
//! ```text
//! a seed ─▶ query ─┬─▶ engine: rows by split, epochs, checkpoints, crashes ─▶ view
//!                  └─▶ stock DataFusion: the rows that are not late, windows written as joins and OVER ─▶ rows   (both must agree)
//! ```
//! `ZETA_CASES=…` runs so many other cases (`make fuzz`), `ZETA_SEED=…` repeats them.

mod grammar;
mod model;
mod query;
mod rows;
mod run;
mod stock;
mod tables;

mod duckdb;
#[cfg(feature = "planted-bugs")]
mod planted;

use proptest::{prelude::*, test_runner::RngSeed};
use zeta::runtime::StepEnd;

use super::engine::{block_on, sql};

use model::with_met;
use query::{Emit, Query, Windows};
use rows::{Row, rows, shown};
use run::{Ran, Turn, run, turns};
use stock::by_batch;
use tables::{check_table, writes};

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
        check_table(&Query::over_a_table(seed), &Query::of_sessions(seed), has_key, &splits.concat(), &writes);
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
