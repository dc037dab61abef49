//! The project's scripts, run by what `zeta test` runs: as written, with a crash behind every statement, and varied.
//!
//! Nothing waits and nothing is retried. `SLT=late/` runs the scripts whose path contains it. For other variations, and to write what
//! comes into scripts, there are `zeta test tests/slt --seed N --runs N` and `--update`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use zeta::cli::{
    script::{End, Plan, scripts_below, try_script, try_scripts},
    test::told,
};

/// The same variations in every run of the tests.
const PLAN: Plan = Plan { seed: 1, runs: 6 };

fn scripts() -> Vec<PathBuf> {
    scripts_below(&["tests/slt".into(), "sql/tests".into()]).expect("the folders of scripts")
}

#[test]
fn scripts_give_what_they_say_also_in_other_epochs_and_orders_and_after_crashes() {
    let wanted = std::env::var("SLT").unwrap_or_default();
    let mut scripts = scripts();
    scripts.retain(|path| path.to_string_lossy().contains(&wanted));
    assert!(!scripts.is_empty(), "no script matches {wanted}");
    let (mut failures, mut statements, mut runs) = (Vec::new(), 0, 0);
    try_scripts(&scripts, PLAN, |outcome| {
        statements += outcome.statements * outcome.runs;
        runs += outcome.runs;
        if !matches!(outcome.end, End::Held) {
            failures.push(told(&outcome));
        }
    });
    println!("{} scripts, {runs} runs, {statements} statements", scripts.len());
    assert!(
        failures.is_empty(),
        "{} of {} scripts fail:\n\n{}",
        failures.len(),
        scripts.len(),
        failures.join("\n")
    );
}

#[test]
fn a_script_that_expects_something_else_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.slt");
    for (text, why) in [
        ("query I\nSELECT 1\n----\n2\n", "another value"),
        ("query T\nSELECT 1\n----\n1\n", "another type"),
        ("query I\nSELECT 1 WHERE false\n----\n1\n", "a missing row"),
        ("statement ok\nSELECT nothing\n", "an error"),
        ("statement error unknown thing\nSELECT nothing\n", "another error"),
        ("statement error\nSELECT 1\n", "no error"),
    ] {
        fs::write(&path, text).unwrap();
        assert!(matches!(try_script(&path, PLAN).end, End::Failed(_)), "{why}");
    }
}

/// Scripts by folder, so that a folder that lost its scripts is seen.
#[test]
fn every_folder_of_scripts_has_some() {
    let mut folders: BTreeMap<String, usize> = BTreeMap::new();
    for path in scripts() {
        let folder = path
            .parent()
            .and_then(Path::file_name)
            .expect("a script is in a folder");
        *folders.entry(folder.to_string_lossy().into_owned()).or_default() += 1;
    }
    for folder in [
        "emit",
        "errors",
        "late",
        "plan",
        "recovery",
        "table",
        "time",
        "views",
        "watermark",
        "window",
        "tests",
    ] {
        assert!(folders.contains_key(folder), "no script in a folder {folder}");
    }
}
