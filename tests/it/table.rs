//! Tables in a running engine: what is answered is seen, survives kill -9, and is in every view.

use super::zeta::{Zeta, folder, written};

const PIPELINE: &str = "\
CREATE TABLE limits (symbol VARCHAR PRIMARY KEY, most DOUBLE NOT NULL);
CREATE TABLE notes (symbol VARCHAR, note VARCHAR);
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(most) AS most FROM limits;
CREATE MATERIALIZED VIEW per_symbol AS SELECT symbol, count(*) AS notes FROM notes GROUP BY symbol;
";

fn only(zeta: &Zeta, sql: &str) -> String {
    let rows = zeta.rows(sql);
    assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
    rows[0].to_string()
}

#[test]
fn a_write_that_was_answered_is_seen_at_once_and_after_kill_9() {
    let file = written(PIPELINE);
    let state = folder("table_state");
    let mut zeta = Zeta::run(&file).state(&state).start();
    let mut expected = 0.0;
    for turn in 0..3 {
        for row in 0..20 {
            let key = turn * 10 + row;
            zeta.query(&format!("INSERT INTO limits VALUES ('s{key}', {key})"));
            let seen = only(&zeta, &format!("SELECT most FROM limits WHERE symbol = 's{key}'"));
            assert_eq!(seen, format!("[{key}.0]"), "who writes reads it back");
        }
        zeta.query("INSERT INTO notes VALUES ('s1', 'a'), ('s1', 'a'), ('s2', NULL)");
        zeta.query(&format!(
            "UPDATE limits SET most = most + 1 WHERE symbol = 's{}'",
            turn * 10
        ));
        zeta.query(&format!("DELETE FROM limits WHERE symbol = 's{}'", turn * 10 + 19));
        // Keys 0 to 10 * turn + 19, less those that went, and one more for each update that no later insert took back.
        let rows = zeta.rows("SELECT most FROM limits");
        expected = rows.iter().map(|row| row[0].as_f64().unwrap()).sum::<f64>();
        assert_eq!(
            only(&zeta, "SELECT n, most FROM total"),
            format!("[{},{expected:?}]", rows.len())
        );
        assert_eq!(
            only(&zeta, "SELECT notes FROM per_symbol WHERE symbol = 's1'"),
            format!("[{}]", 2 * (turn + 1))
        );
        zeta.kill();
        zeta = Zeta::run(&file).state(&state).start();
        zeta.query("FLUSH");
        assert_eq!(
            only(&zeta, "SELECT n, most FROM total"),
            format!("[{},{expected:?}]", rows.len()),
            "after kill -9"
        );
    }
    assert!(0.0 < expected);
    assert!(zeta.stop().success());
    let zeta = Zeta::run(&file).state(&state).start();
    zeta.query("FLUSH");
    assert_eq!(
        only(&zeta, "SELECT notes FROM per_symbol WHERE symbol = 's2'"),
        "[3]",
        "after a clean stop"
    );
    zeta.query("TRUNCATE notes");
    assert!(zeta.rows("SELECT * FROM per_symbol").is_empty());
}

#[test]
fn writers_beside_each_other_lose_nothing() {
    let file = written(PIPELINE);
    let zeta = Zeta::run(&file).state(&folder("table_writers")).start();
    zeta.query("INSERT INTO limits VALUES ('counter', 0)");
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let zeta = &zeta;
            scope.spawn(move || {
                for row in 0..10 {
                    zeta.query("UPDATE limits SET most = most + 1 WHERE symbol = 'counter'");
                    zeta.query(&format!("INSERT INTO notes VALUES ('w{writer}', '{row}')"));
                }
            });
        }
    });
    assert_eq!(only(&zeta, "SELECT most FROM limits"), "[40.0]");
    assert_eq!(only(&zeta, "SELECT count(*) FROM per_symbol WHERE notes = 10"), "[4]");
}
