//! The real engine in a simulated world: clock, threads, disk, source and brokers, all by a seed.
//!
//! ```text
//! seed ─▶ scheduler (one thread at a time) ─▶ driver, reader, sinks, checkpoints  ── as they are
//!                    └─▶ disk (unsynced is lost) · topic · brokers (late EndTxn, aborts, fencing) · kills, power cuts, pauses
//! ```
//! `ZETA_SEEDS=100000 ZETA_SEED=1 cargo test --lib simulation::` runs many; a seed that fails says so, and runs alone with
//! `ZETA_SEED=<seed> ZETA_SEEDS=1`, with its trace.

mod brokers;
mod disk;
mod pipeline;
mod scheduler;
mod topic;
mod world;

use world::{Figures, Outcome, run};

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |given| given.parse().expect("a number"))
}

fn told(seed: u64, outcome: &Outcome, error: &str) -> String {
    let last: Vec<&str> = outcome.lines.iter().rev().take(60).rev().map(String::as_str).collect();
    if let Ok(path) = std::env::var("ZETA_TRACE") {
        std::fs::write(path, outcome.lines.join("\n")).expect("the trace can be written");
    }
    format!("seed {seed}: {error}\n{}", last.join("\n"))
}

#[test]
fn every_row_comes_out_once_whatever_fails_when() {
    let (first, count) = (number("ZETA_SEED", 1), number("ZETA_SEEDS", 1_000));
    let mut sum = Figures::default();
    for seed in first..first + count {
        let outcome = run(seed);
        match &outcome.verdict {
            Ok(figures) => sum.add(figures),
            Err(error) => panic!("{}", told(seed, &outcome, error)),
        }
    }
    println!("{count} seeds from {first}: {sum:?}");
    if 100 <= count {
        // Without these nothing would have been tried.
        let Figures {
            kills,
            power_cuts,
            stops,
            pauses,
            brokers,
            ..
        } = sum;
        for (what, times) in [
            ("kills", kills),
            ("power cuts", power_cuts),
            ("stops", stops),
            ("pauses", pauses),
            ("aborted transactions", brokers.aborted),
            ("fenced producers", brokers.fenced),
            ("late commits", brokers.late),
            ("lost answers", brokers.unanswered),
        ] {
            assert!(0 < times, "no {what}");
        }
    }
}

/// Each bug is found; and without it the same seeds find nothing, as above.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found() {
    use crate::types::planted::{Bug, plant};

    let (first, count) = (number("ZETA_SEED", 1), number("ZETA_SEEDS", 500));
    let mut unfound = Vec::new();
    // What a bug breaks may be an assertion of the engine, which is told by its thread.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for bug in Bug::OF_FAULTS {
        plant(Some(bug));
        let found = (first..first + count).find_map(|seed| run(seed).verdict.err().map(|error| (seed, error)));
        plant(None);
        match found {
            Some((seed, error)) => {
                let error: String = error.chars().take(160).collect();
                println!("{bug:?}: found by seed {seed}, number {}: {error}", seed - first + 1);
            }
            None => unfound.push(bug),
        }
    }
    std::panic::set_hook(hook);
    assert!(unfound.is_empty(), "not found in {count} seeds: {unfound:?}");
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    let (first, count) = (number("ZETA_SEED", 1), number("ZETA_SEEDS", 1_000) / 10);
    for seed in first..first + count {
        let (a, b) = (run(seed), run(seed));
        let first_difference = a.lines.iter().zip(&b.lines).find(|(a, b)| a != b);
        assert!(a.trace == b.trace, "seed {seed}: {first_difference:?}");
    }
}
