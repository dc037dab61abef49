//! Definitions made over HTTP: there after kill -9 once they were answered, gone once they were dropped, and behind what the files say.

use std::{fs, path::Path};

use serde_json::json;

use super::zeta::{Outcome, Zeta, folder, text, until, written, zeta};

const PIPELINE: &str = "\
CREATE TABLE limits (symbol VARCHAR PRIMARY KEY, most BIGINT NOT NULL);
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(most) AS most FROM limits;
";

/// A run that ends by itself.
fn run(file: &Path, state: &Path, more: &[&str]) -> Outcome {
    let arguments = ["run", text(file), "--listen", "127.0.0.1:0", "--state", text(state)];
    zeta(&[&arguments, more].concat())
}

fn names(zeta: &Zeta) -> Vec<String> {
    let rows = zeta.rows("SHOW VIEWS").into_iter().chain(zeta.rows("SHOW TABLES"));
    let mut names: Vec<String> = rows.map(|row| row[0].as_str().expect("a name").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_was_answered_is_there_after_kill_9_and_what_failed_is_not() {
    let (file, state) = (written(PIPELINE), folder("kept"));
    let mut zeta = Zeta::run(&file).state(&state).start();
    zeta.query("INSERT INTO limits VALUES ('a', 1), ('b', 20), ('c', 300)");
    let statements = [
        "CREATE FUNCTION twice(n BIGINT) RETURNS BIGINT AS n * 2;",
        "CREATE MATERIALIZED VIEW doubled AS SELECT symbol, twice(most) AS most FROM limits",
        "CREATE MATERIALIZED VIEW highest AS SELECT max(most) AS most FROM doubled",
        "CREATE VIEW plain AS SELECT symbol FROM doubled",
        "CREATE TABLE notes (symbol VARCHAR, note VARCHAR)",
        "CREATE MATERIALIZED VIEW noted AS SELECT count(*) AS n FROM notes",
    ];
    for statement in statements {
        zeta.post_sql(statement, "application/json").expect(200);
        zeta.kill();
        zeta = Zeta::run(&file).state(&state).start();
    }
    for broken in [
        "CREATE MATERIALIZED VIEW broken AS SELECT nothing FROM limits",
        "CREATE TABLE notes (other BIGINT)",
        "DROP TABLE limits",
        "DROP MATERIALIZED VIEW doubled",
    ] {
        let reply = zeta.post_sql(broken, "application/json");
        assert!(400 <= reply.status, "{broken}: {}", reply.status);
    }
    zeta.query("INSERT INTO notes VALUES ('a', 'x'), ('b', 'y')");
    zeta.kill();
    zeta = Zeta::run(&file).state(&state).start();
    assert_eq!(
        names(&zeta),
        ["doubled", "highest", "limits", "noted", "notes", "plain", "total"]
    );
    let shows = |sql: &str, expected: serde_json::Value| {
        until(sql, || match zeta.post_sql(sql, "application/json") {
            reply if reply.status == 200 && reply.json()["rows"] == expected => Ok(()),
            reply => Err(reply.text().to_owned()),
        });
    };
    shows("SELECT most FROM highest", json!([[600]]));
    shows("SELECT count(*) FROM plain", json!([[3]]));
    shows("SELECT n FROM noted", json!([[2]]));

    for dropped in [
        "DROP MATERIALIZED VIEW noted",
        "DROP TABLE notes",
        "DROP MATERIALIZED VIEW highest",
    ] {
        zeta.post_sql(dropped, "application/json").expect(200);
    }
    zeta.kill();
    zeta = Zeta::run(&file).state(&state).start();
    assert_eq!(names(&zeta), ["doubled", "limits", "plain", "total"]);
    assert!(
        !state.join("notes").join("table.log").exists(),
        "a dropped table leaves no rows"
    );
    assert!(zeta.stop().success());
}

#[test]
fn a_sink_with_a_query_of_its_own_is_there_after_kill_9() {
    let file = written("CREATE TABLE log (id BIGINT, k VARCHAR) APPEND ONLY;");
    let (state, out) = (folder("kept"), folder("out"));
    let mut zeta = Zeta::run(&file).state(&state).start();
    let made = format!(
        "CREATE SINK even WITH (connector = 'parquet', path = '{}') AS SELECT id, k FROM log WHERE id % 2 = 0",
        text(&out)
    );
    zeta.post_sql(&made, "application/json").expect(200);
    zeta.query("INSERT INTO log VALUES (1, 'a'), (2, 'b'), (4, 'c')");
    for rows in [2, 3] {
        zeta.kill();
        zeta = Zeta::run(&file).state(&state).start();
        let sinks = zeta.rows("SHOW SINKS");
        assert_eq!(sinks.len(), 1, "{sinks:?}");
        assert_eq!(names(&zeta), ["even$rows", "log"]);
        let count = "SELECT count(*) FROM \"even$rows\"";
        until(count, || match zeta.post_sql(count, "application/json") {
            reply if reply.status == 200 && reply.json()["rows"] == json!([[rows]]) => Ok(()),
            reply => Err(reply.text().to_owned()),
        });
        if rows == 2 {
            zeta.query("INSERT INTO log VALUES (6, 'd'), (7, 'e')");
        }
    }
    let counted = "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM \"even$rows\"";
    zeta.post_sql(counted, "application/json").expect(200);
    let refused = zeta.post_sql("DROP SINK even", "application/json");
    assert!(400 <= refused.status, "{}", refused.text());
    assert!(
        refused.text().contains("`even$rows` is read by counted"),
        "{}",
        refused.text()
    );
    zeta.post_sql("DROP MATERIALIZED VIEW counted", "application/json")
        .expect(200);
    zeta.post_sql("DROP SINK even", "application/json").expect(200);
    zeta.kill();
    zeta = Zeta::run(&file).state(&state).start();
    assert_eq!(names(&zeta), ["log"], "both are forgotten");
    assert!(zeta.stop().success());
}

#[test]
fn the_file_wins_and_says_so_where_both_define_a_name() {
    let (file, state) = (written(PIPELINE), folder("kept"));
    let zeta = Zeta::run(&file).state(&state).start();
    zeta.query("INSERT INTO limits VALUES ('a', 1), ('b', 20)");
    for made in [
        "CREATE MATERIALIZED VIEW one AS SELECT min(most) AS most FROM limits",
        "CREATE MATERIALIZED VIEW other AS SELECT min(most) AS most FROM limits",
    ] {
        zeta.post_sql(made, "application/json").expect(200);
    }
    assert!(zeta.stop().success());

    let more = format!(
        "{PIPELINE}CREATE MATERIALIZED VIEW one AS SELECT max(most) AS most FROM limits;\n\
         CREATE MATERIALIZED VIEW other AS\n  SELECT min(most) AS most FROM limits; -- put into the file"
    );
    let zeta = Zeta::run(&written(&more)).state(&state).start();
    let log = zeta.log();
    assert!(
        log.contains("`one` was made over HTTP, and the file defines it otherwise: the file wins"),
        "{log}"
    );
    assert!(
        !log.contains("`other` was made over HTTP"),
        "what is the same needs no word: {log}"
    );
    until("the view of the file", || {
        let reply = zeta.post_sql("SELECT most FROM one", "application/json");
        (reply.status == 200 && reply.json()["rows"] == json!([[20]]))
            .then_some(())
            .ok_or(reply.text().to_owned())
    });
    assert!(zeta.stop().success());

    let zeta = Zeta::run(&file).state(&state).start();
    assert_eq!(
        names(&zeta),
        ["limits", "total"],
        "what the file took over is gone with it"
    );
    assert!(zeta.stop().success());
}

#[test]
fn what_does_not_fit_the_file_any_more_is_said_and_can_be_forgotten() {
    let (file, state) = (written(PIPELINE), folder("kept"));
    let zeta = Zeta::run(&file).state(&state).start();
    let made = "CREATE MATERIALIZED VIEW over AS SELECT most AS most FROM total";
    zeta.post_sql(made, "application/json").expect(200);
    assert!(zeta.stop().success());

    let without = written("CREATE TABLE limits (symbol VARCHAR PRIMARY KEY, most BIGINT NOT NULL);");
    let refused = run(&without, &state, &[]).expect(1).err;
    for part in ["`over` was made over HTTP", "`total`", "--forget over", made] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    let unknown = run(&without, &state, &["--forget", "ower"]).expect(1).err;
    assert!(
        unknown.contains("--forget ower: it was not made over HTTP; over were"),
        "{unknown}"
    );
    let zeta = Zeta::run(&without).state(&state).arg("--forget").arg("over").start();
    assert_eq!(names(&zeta), ["limits"]);
    assert!(zeta.stop().success());
    assert!(
        Zeta::run(&without).state(&state).start().stop().success(),
        "it stays forgotten"
    );
}

#[test]
fn a_table_that_was_forgotten_leaves_no_rows_to_the_next_one_of_its_name() {
    let (file, state) = (written(PIPELINE), folder("kept"));
    let mut zeta = Zeta::run(&file).state(&state).start();
    for arguments in [["--forget", "notes"].as_slice(), &["--reset"]] {
        zeta.query("CREATE TABLE notes (symbol VARCHAR, note VARCHAR)");
        zeta.query("INSERT INTO notes VALUES ('a', 'x')");
        assert!(zeta.stop().success());
        let run = Zeta::run(&file).state(&state);
        zeta = arguments.iter().fold(run, |run, argument| run.arg(*argument)).start();
        assert_eq!(names(&zeta), ["limits", "total"], "{arguments:?}");
        zeta.query("CREATE TABLE notes (symbol VARCHAR, note VARCHAR)");
        let rows = zeta.rows("SELECT count(*) AS n FROM notes");
        assert_eq!(rows[0][0], json!(0), "{arguments:?}");
        zeta.query("DROP TABLE notes");
    }
    assert!(zeta.stop().success());
}

#[test]
fn a_damaged_catalog_stops_the_start_and_reset_forgets_it() {
    let (file, state) = (written(PIPELINE), folder("kept"));
    let zeta = Zeta::run(&file).state(&state).start();
    zeta.query("INSERT INTO limits VALUES ('a', 1)");
    let made = "CREATE MATERIALIZED VIEW over AS SELECT max(most) AS most FROM limits";
    zeta.post_sql(made, "application/json").expect(200);
    assert!(zeta.stop().success());

    let path = state.join("catalog.jnl");
    let whole = fs::read(&path).expect("the catalog");
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    fs::write(&path, &damaged).expect("a flip");
    let refused = run(&file, &state, &[]).expect(1).err;
    assert!(
        refused.contains("catalog.jnl") && refused.contains("--reset"),
        "{refused}"
    );
    assert_eq!(fs::read(&path).expect("the catalog"), damaged, "nothing was changed");

    fs::write(&path, &whole).expect("a copy");
    let zeta = Zeta::run(&file).state(&state).start();
    assert_eq!(names(&zeta), ["limits", "over", "total"], "a copy helps");
    assert!(zeta.stop().success());
    let zeta = Zeta::run(&file).state(&state).arg("--reset").start();
    assert_eq!(names(&zeta), ["limits", "total"]);
    assert_eq!(
        zeta.rows("SELECT most FROM limits"),
        [json!([1])],
        "rows of tables stay"
    );
    assert!(zeta.stop().success());
    fs::write(&path, &damaged).expect("a flip");
    let zeta = Zeta::run(&file).state(&state).arg("--reset").start();
    assert_eq!(names(&zeta), ["limits", "total"], "unread");
    assert!(zeta.stop().success());
}
