//! Other engines' bugs, planted: each must be found.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU32, Ordering},
};

use proptest::{
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};
use zeta::types::planted::{Bug, plant};

use super::{
    check, config,
    query::Query,
    rows::rows,
    run::turns,
    tables::{check_table, writes},
};

const CASES_MAX: u32 = 5_000;

#[test]
fn every_planted_bug_is_found() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = Bug::ALL.map(|bug| {
        let cases = cases_until_found(Some(bug), CASES_MAX);
        match cases {
            Some(cases) => println!("{bug:?}: found in case {cases}"),
            None => println!("{bug:?}: NOT found in {CASES_MAX} cases"),
        }
        (bug, cases)
    });
    // The same cases, up to the last that was needed: without a bug none of them fails.
    let needed = found.iter().filter_map(|(_, cases)| *cases).max().unwrap_or_default();
    let without = cases_until_found(None, needed);
    std::panic::set_hook(hook);
    assert_eq!(without, None, "a case fails without a planted bug");
    assert!(
        found.iter().all(|(_, cases)| cases.is_some()),
        "a planted bug was not found"
    );
}

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
            0 => found(&|| {
                check_table(
                    &Query::over_a_table(seed),
                    &Query::of_sessions(seed),
                    has_key,
                    &splits.concat(),
                    &writes,
                )
            }),
            _ => Ok(()),
        }
    });
    plant(None);
    result.is_err().then(|| ran.into_inner())
}
