//! `zeta test` as people run it: what it prints, and how it ends.

use std::fs;

use crate::zeta::{folder, text, written, zeta, zeta_unread};

/// What is printed, without the time that it took.
fn timeless(out: &str) -> String {
    let lines = out.lines().map(|line| match line.split_once(" runs in ") {
        Some((before, after)) => {
            let rest = after.split_once(" s").map_or("", |(_, rest)| rest);
            format!("{before} runs in … s{rest}\n")
        }
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[test]
fn scripts_that_fail_show_what_differs_and_what_it_takes() {
    let outcome = zeta(&["test", "tests/fixtures/script/mixed", "--seed", "1"]).expect(1);
    let expected = fs::read_to_string("tests/fixtures/script/mixed.txt").expect("a file");
    assert_eq!(
        timeless(&outcome.out),
        expected,
        "if it is better now, put it into tests/fixtures/script/mixed.txt"
    );
    assert_eq!(outcome.err, "", "what a test finds is data");
}

#[test]
fn the_command_of_a_failure_shows_it_again() {
    let first = zeta(&[
        "test",
        "tests/fixtures/script/mixed",
        "--seed",
        "1",
        "--filter",
        "a_cut",
    ])
    .expect(1);
    let command = first
        .out
        .lines()
        .find_map(|line| line.trim().strip_prefix("Again: zeta "));
    let words: Vec<&str> = command.expect("it says how to see it again").split(' ').collect();
    let again = zeta(&words).expect(1);
    let report = |out: &str| {
        out.lines()
            .take_while(|line| !line.contains(" runs in "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(report(&again.out), report(&first.out));
}

#[test]
fn exit_codes_tell_a_script_that_fails_from_one_that_cannot_be_run() {
    let empty = folder("scripts");
    let mixed = "tests/fixtures/script/mixed";
    for (arguments, code, words) in [
        (vec![mixed, "--filter", "right"], 0, vec!["1 script: 1 ok, 0 failed;"]),
        (vec![mixed, "--runs", "0"], 1, vec!["3 scripts: 2 ok, 1 failed;"]),
        (
            vec!["tests/fixtures/script/typo.slt"],
            3,
            vec![
                "tests/fixtures/script/typo.slt:4: `statment ok` begins no record",
                "1 cannot be run",
            ],
        ),
        (
            vec!["tests/fixtures/script/wrong_pipeline.slt"],
            3,
            vec!["tests/fixtures/script/wrong.sql:1:64", "did you mean `topic`?"],
        ),
        (
            vec!["tests/fixtures/script", "--runs", "0"],
            3,
            vec!["5 scripts: 2 ok, 1 failed, 2 cannot be run;"],
        ),
        (vec!["nowhere/"], 3, vec!["cannot read nowhere/"]),
        (vec![text(&empty)], 3, vec!["no script in", ".slt"]),
        (
            vec![mixed, "--filter", "nothing"],
            3,
            vec!["no script has `nothing` in its path"],
        ),
        (vec![], 2, vec!["PATHS"]),
        (vec![mixed, "--runs", "some"], 2, vec!["--runs"]),
    ] {
        let outcome = zeta(&[vec!["test"], arguments.clone()].concat()).expect(code);
        for word in words {
            let said = format!("{}{}", outcome.out, outcome.err);
            assert!(said.contains(word), "{arguments:?} says nothing of {word}: {said}");
        }
    }
}

#[test]
fn who_stops_reading_hinders_nothing() {
    let (right, wrong) = (
        written("CREATE TABLE t (n BIGINT);"),
        written("CREATE TABLE t (n BIGNT);"),
    );
    for (arguments, code) in [
        (vec!["test", "tests/fixtures/script/mixed", "--runs", "0"], 1),
        (vec!["test", "nowhere/"], 3),
        (vec!["check", text(&right)], 0),
        (vec!["check", text(&wrong)], 3),
        (vec!["check", "nowhere.sql"], 1),
    ] {
        assert_eq!(zeta_unread(&arguments), Some(code), "{arguments:?}");
    }
}

#[test]
fn update_writes_what_comes_and_keeps_the_rest() {
    let folder = folder("scripts");
    for name in ["counts.sql", "other_rows.slt"] {
        fs::copy(format!("tests/fixtures/script/mixed/{name}"), folder.join(name)).expect("a copy");
    }
    let script = folder.join("other_rows.slt");
    let before = fs::read_to_string(&script).expect("a file");
    zeta(&["test", text(&script), "--update"]).expect(0);
    let after = fs::read_to_string(&script).expect("a file");
    assert_eq!(after, before.replace("a    2\nb    2\n", "a 2\nb 1\n"));
    let again = zeta(&["test", text(&script), "--update"]).expect(0);
    assert!(again.out.starts_with("same "), "{}", again.out);
    zeta(&["test", text(&script)]).expect(0);
}

#[test]
fn update_writes_rows_and_nothing_else() {
    let folder = folder("scripts");
    let script = folder.join("a.slt");
    let source = "statement ok\nCREATE TABLE t (n INT)\n\n";
    for (wrong, line, words) in [
        (
            "statement ok\nINSERT INTO u VALUES (1)\n",
            4,
            "no table or view named `u`",
        ),
        ("query I\nSELECT m FROM t\n----\n1\n", 4, "no column named `m`"),
        ("query I\nINSERT INTO t VALUES (1)\n----\n1\n", 4, "INSERT INTO t"),
        ("statement error no such\nSELECT m FROM t\n", 4, "no column named `m`"),
        ("statement error\nSELECT n FROM t\n", 4, "it works, and not as expected"),
        (
            "statement count 3\nSELECT n FROM t\n",
            4,
            "it works, and not as expected",
        ),
    ] {
        let before = format!("{source}{wrong}\nquery I\nSELECT 1\n----\n2\n");
        fs::write(&script, &before).expect("a new file");
        for _ in 0..2 {
            let outcome = zeta(&["test", text(&script), "--update"]).expect(1);
            let place = format!("a.slt:{line}: ");
            assert!(
                outcome.out.contains(&place) && outcome.out.contains(words),
                "{wrong:?} says {}",
                outcome.out
            );
            assert_eq!(
                fs::read_to_string(&script).expect("a file"),
                before,
                "{wrong:?}: nothing is written behind what fails"
            );
        }
    }
}

#[test]
fn a_script_runs_where_its_variables_and_files_are() {
    let folder = folder("scripts");
    let script = "pipeline there.sql\n\nquery T\nSELECT 'said'\n----\nsaid\n";
    fs::write(folder.join("a.slt"), script).expect("a new file");
    let unset = "CREATE SOURCE s (n INT) WITH (connector = 'kafka', topic = '${ZETA_TEST_IS_NOT_SET}', 'bootstrap.servers' = 'x:1');";
    fs::write(folder.join("there.sql"), unset).expect("a new file");
    let outcome = zeta(&["test", text(&folder)]).expect(3);
    assert!(
        outcome.out.contains("variable ZETA_TEST_IS_NOT_SET is not set"),
        "{}",
        outcome.out
    );
    fs::write(folder.join("there.sql"), unset.replace("IS_NOT_SET}", "IS_NOT_SET:-t}")).expect("a new file");
    zeta(&["test", text(&folder)]).expect(0);
    fs::remove_file(folder.join("there.sql")).expect("it is there");
    let outcome = zeta(&["test", text(&folder)]).expect(3);
    assert!(outcome.out.contains("a.slt:1: cannot read"), "{}", outcome.out);
}
