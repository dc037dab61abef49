//! Tables in a running engine: what is answered is seen, survives kill -9, and is in every view.

use std::{fs, path::Path, sync::Arc, time::Duration};

use arrow::util::display::array_value_to_string;
use zeta::{
    cli::{MemoryTopics, registry},
    runtime::{
        Bounds, Engine, EngineOptions, Mode, ProblemKind, SourceState, SqlRequest, clock::SystemClock,
        query_environment,
    },
};

use super::{
    engine::{block_on, sql, try_sql},
    zeta::{Zeta, folder, written},
};

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

#[test]
fn reset_computes_the_views_anew_and_keeps_the_rows_of_tables() {
    let file = written(PIPELINE);
    let state = folder("table_reset");
    let zeta = Zeta::run(&file).state(&state).start();
    zeta.query("INSERT INTO limits VALUES ('a', 1), ('b', 2)");
    zeta.query("UPDATE limits SET most = 5 WHERE symbol = 'b'");
    zeta.query("INSERT INTO notes VALUES ('a', 'first')");
    assert!(zeta.stop().success());

    let zeta = Zeta::run(&file).state(&state).arg("--reset").start();
    zeta.query("FLUSH");
    assert_eq!(only(&zeta, "SELECT n, most FROM total"), "[2,6.0]");
    assert_eq!(only(&zeta, "SELECT note FROM notes"), r#"["first"]"#);
    zeta.query("INSERT INTO limits VALUES ('c', 10)");
    zeta.kill();

    // A column more, which may be null, and another view: what was written still fits.
    let wider = PIPELINE
        .replace("most DOUBLE NOT NULL", "since DATE, most DOUBLE")
        .replace("count(*) AS n,", "count(since) AS since, count(*) AS n,");
    let zeta = Zeta::run(&written(&wider)).state(&state).arg("--reset").start();
    zeta.query("FLUSH");
    assert_eq!(only(&zeta, "SELECT since, n, most FROM total"), "[0,3,16.0]");
    assert_eq!(
        only(&zeta, "SELECT * FROM limits WHERE symbol = 'c'"),
        r#"["c",null,10.0]"#
    );
    assert!(zeta.stop().success());

    let other = PIPELINE.replace("most DOUBLE", "most BIGINT");
    let outcome = super::zeta::zeta(&[
        "run",
        super::zeta::text(&written(&other)),
        "--state",
        super::zeta::text(&state),
        "--reset",
        "--listen",
        "127.0.0.1:0",
    ])
    .expect(1);
    let log = state.join("limits").join("table.log");
    for part in [
        log.to_str().unwrap(),
        "record 0 has column `most` as DOUBLE, and it is BIGINT now",
        "put the definition of the table back, or remove the file",
    ] {
        assert!(outcome.err.contains(part), "{}", outcome.err);
    }
    let zeta = Zeta::run(&written(&wider)).state(&state).arg("--reset").start();
    zeta.query("FLUSH");
    assert_eq!(
        only(&zeta, "SELECT n FROM total"),
        "[3]",
        "a refusal takes nothing away"
    );
    zeta.query("INSERT INTO notes VALUES ('a', 'second')");
    zeta.query("DROP MATERIALIZED VIEW per_symbol");
    zeta.query("DROP TABLE notes");
    assert!(!state.join("notes").join("table.log").exists(), "DROP does");
    assert!(log.exists());
}

/// Definitions of a pipeline, run on threads with other bounds.
async fn live(state: &Path, bounds: Bounds, definitions: &str) -> Engine {
    let options = EngineOptions {
        state: Some(state.into()),
        mode: Mode::Live,
        overrides: vec![],
    };
    let registry = registry(MemoryTopics::default(), query_environment());
    let engine = Engine::with_bounds(registry, options, Arc::new(SystemClock::default()), bounds);
    let text = zeta::sql::SourceText::new("live.sql", definitions);
    engine.apply(&text, zeta::sql::parse(&text)).await.unwrap();
    engine.start().unwrap();
    engine
}

async fn refused(engine: &Engine, sql: &str) -> ProblemKind {
    let request = SqlRequest {
        sql: sql.into(),
        timeout: Duration::from_secs(60),
        rows_max: None,
    };
    match engine.execute(request).await {
        Err(problem) => problem.kind,
        Ok(_) => panic!("{sql} is done"),
    }
}

async fn value(engine: &Engine, query: &str) -> String {
    let batches = sql(engine, query).await;
    assert_eq!(
        batches.iter().map(|batch| batch.num_rows()).sum::<usize>(),
        1,
        "{query}"
    );
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).unwrap();
    array_value_to_string(batch.column(0), 0).unwrap()
}

#[track_caller]
fn assert_unavailable(problem: &ProblemKind, parts: &[&str]) {
    let ProblemKind::Unavailable(told) = problem else {
        panic!("nobody who writes is to blame: {problem:?}");
    };
    for part in parts {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn no_name_of_a_table_leaves_the_state_folder() {
    let above = tempfile::tempdir().unwrap();
    let state = above.path().join("state");
    fs::create_dir(&state).unwrap();
    block_on(async {
        let engine = live(&state, Bounds::default(), "").await;
        for name in ["../escaped", ".", "..", "a/b", "plain_1", "zwei\u{e4}"] {
            sql(&engine, &format!(r#"CREATE TABLE "{name}" (a INT)"#)).await;
            sql(&engine, &format!(r#"INSERT INTO "{name}" VALUES (7)"#)).await;
            assert_eq!(
                value(&engine, &format!(r#"SELECT a FROM "{name}""#)).await,
                "7",
                "{name}"
            );
        }
        engine.stop();
    });
    let entries = |folder: &Path| {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(entries(above.path()), ["state"]);
    assert_eq!(
        entries(&state),
        ["%2E", "%2E%2E", "%2E%2E%2Fescaped", "a%2Fb", "plain_1", "zwei%C3%A4"]
    );
}

const TWO_TABLES: &str = "\
CREATE TABLE items (id BIGINT PRIMARY KEY, at TIMESTAMP);
CREATE MATERIALIZED VIEW spread AS SELECT id, window_start FROM HOP(items, at, INTERVAL '1 second', INTERVAL '4 seconds');
CREATE TABLE limits (symbol VARCHAR PRIMARY KEY, most DOUBLE);
CREATE SOURCE trades (at TIMESTAMP, WATERMARK FOR at) WITH (connector = 'memory', trigger = '0');
CREATE MATERIALIZED VIEW times AS SELECT at, window_start FROM HOP(trades, at, INTERVAL '1 second', INTERVAL '4 seconds');
";

fn small() -> Bounds {
    Bounds {
        view_rows_max: 10,
        ..Bounds::default()
    }
}

/// From then on no epoch runs before something is written.
async fn until_running(engine: &Engine) {
    let there = async {
        while !(engine.sources().iter()).all(|source| source.state == SourceState::Running) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), there)
        .await
        .expect("it comes within a minute");
}

#[test]
fn a_view_that_stopped_its_table_can_be_dropped_and_the_table_runs_at_the_next_start() {
    let state = tempfile::tempdir().unwrap();
    block_on(async {
        let engine = live(state.path(), small(), TWO_TABLES).await;
        let three = "INSERT INTO items VALUES (1, '2024-01-01'), (2, '2024-01-01'), (3, '2024-01-01')";
        refused(&engine, three).await;
        sql(&engine, "DROP MATERIALIZED VIEW spread").await;
        let problem = refused(&engine, "SELECT * FROM spread").await;
        assert!(
            format!("{problem:?}").contains("no table or view named `spread`"),
            "{problem:?}"
        );
        engine.stop();

        let without: String = (TWO_TABLES.lines())
            .filter(|line| !line.contains("spread"))
            .collect::<Vec<_>>()
            .join("\n");
        let engine = live(state.path(), small(), &without).await;
        sql(&engine, "INSERT INTO items VALUES (4, '2024-01-01')").await;
        assert_eq!(value(&engine, "SELECT count(*) FROM items").await, "4");
        engine.stop();
    });
}

#[test]
fn a_view_of_a_source_that_does_not_answer_shows_its_row_over_nothing_and_can_be_dropped() {
    let state = tempfile::tempdir().unwrap();
    // Nothing listens there.
    let source = "CREATE SOURCE s (k VARCHAR) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = '127.0.0.1:1');\n\
        CREATE MATERIALIZED VIEW first AS SELECT k FROM s;\n\
        CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM s;\n";
    block_on(async {
        let engine = live(state.path(), small(), source).await;
        assert_eq!(value(&engine, "SELECT n FROM total").await, "0");
        sql(&engine, "DROP MATERIALIZED VIEW first").await;
        let problem = refused(&engine, "SELECT * FROM first").await;
        assert!(
            format!("{problem:?}").contains("no table or view named `first`"),
            "{problem:?}"
        );
        assert_eq!(value(&engine, "SELECT n FROM total").await, "0");
        engine.stop();

        let without: String = source
            .lines()
            .filter(|line| !line.contains("first"))
            .collect::<Vec<_>>()
            .join("\n");
        let engine = live(state.path(), small(), &without).await;
        assert_eq!(value(&engine, "SELECT n FROM total").await, "0");
        engine.stop();
    });
}

#[test]
fn a_table_that_does_not_run_says_what_became_of_the_rows_and_hinders_no_other() {
    let state = tempfile::tempdir().unwrap();
    block_on(async {
        let engine = live(state.path(), small(), TWO_TABLES).await;
        sql(&engine, "INSERT INTO limits VALUES ('a', 1.0)").await;
        sql(&engine, "INSERT INTO items VALUES (1, '2024-01-01'), (2, '2024-01-01')").await;
        // A third row is in four windows more than the view may hold.
        let problem = refused(&engine, "INSERT INTO items VALUES (3, '2024-01-01')").await;
        let reason = "`items` does not run: view `spread` would hold 12 rows";
        assert_unavailable(&problem, &["what was written is kept, and is in no view yet: ", reason]);
        let problem = refused(&engine, "INSERT INTO items VALUES (4, '2024-01-01')").await;
        assert_unavailable(&problem, &["nothing was written: ", reason]);
        let problem = refused(&engine, "DELETE FROM items").await;
        assert_unavailable(&problem, &["nothing was changed, ", reason]);
        let problem = refused(&engine, "FLUSH").await;
        assert_unavailable(
            &problem,
            &[
                "what was written is kept, and not all of it is in every view yet: ",
                reason,
            ],
        );

        sql(&engine, "UPDATE limits SET most = most + 1").await;
        sql(&engine, "INSERT INTO limits VALUES ('b', 7.0)").await;
        sql(&engine, "DELETE FROM limits WHERE symbol = 'b'").await;
        assert_eq!(value(&engine, "SELECT most FROM limits").await, "2.0");
        engine.stop();

        let engine = live(state.path(), Bounds::default(), TWO_TABLES).await;
        sql(&engine, "FLUSH").await;
        assert_eq!(
            value(&engine, "SELECT count(*) FROM items").await,
            "3",
            "the third was kept, the fourth was not"
        );
        engine.stop();
    });
}

#[test]
fn a_table_takes_no_more_rows_than_it_may_hold_and_runs_on() {
    let state = tempfile::tempdir().unwrap();
    block_on(async {
        let text = "CREATE TABLE notes (note VARCHAR); CREATE TABLE limits (symbol VARCHAR PRIMARY KEY, most DOUBLE);";
        let engine = live(state.path(), small(), text).await;
        let rows = |count: usize| {
            (0..count)
                .map(|row| format!("('s{row}')"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let problem = refused(&engine, &format!("INSERT INTO notes VALUES {}", rows(11))).await;
        let ProblemKind::Parameter(told) = problem else {
            panic!("it is for the writer to mend: {problem:?}");
        };
        assert!(
            told.contains("nothing was written: table `notes` would hold 11 rows, and 10 are the most"),
            "{told}"
        );
        sql(&engine, &format!("INSERT INTO notes VALUES {}", rows(10))).await;
        refused(&engine, "INSERT INTO notes VALUES ('more')").await;
        sql(&engine, "DELETE FROM notes WHERE note = 's1'").await;
        sql(&engine, "INSERT INTO notes VALUES ('more')").await;
        assert_eq!(value(&engine, "SELECT count(*) FROM notes").await, "10");

        sql(&engine, &format!("INSERT INTO limits (symbol) VALUES {}", rows(10))).await;
        sql(&engine, &format!("INSERT INTO limits (symbol) VALUES {}", rows(10))).await;
        refused(&engine, "INSERT INTO limits VALUES ('s1', 1.0), ('other', 1.0)").await;
        assert_eq!(
            value(&engine, "SELECT count(*) FROM limits WHERE most IS NULL").await,
            "10"
        );
        assert!(
            engine
                .sources()
                .iter()
                .all(|source| source.state == SourceState::Running)
        );
        engine.stop();
    });
}

#[test]
fn a_table_whose_epochs_cannot_be_committed_is_waited_for_and_no_longer_than_that() {
    let state = tempfile::tempdir().unwrap();
    block_on(async {
        let engine = live(state.path(), Bounds::default(), TWO_TABLES).await;
        sql(&engine, "INSERT INTO limits VALUES ('a', 1.0)").await;
        sql(&engine, "INSERT INTO items VALUES (0, NULL)").await;
        sql(&engine, "DELETE FROM items").await;
        engine.stop();
        let bounds = Bounds {
            write_visible_timeout: Duration::from_secs(2),
            ..Bounds::default()
        };
        let engine = live(state.path(), bounds, TWO_TABLES).await;
        sql(&engine, "FLUSH").await;
        until_running(&engine).await;
        // No plan can be written where a file stands in the place of the journal's folder.
        let journal = state.path().join("items").join("journal");
        fs::remove_dir_all(&journal).unwrap();
        fs::write(&journal, "").unwrap();
        let problem = refused(&engine, "INSERT INTO items VALUES (1, '2024-01-01')").await;
        assert_unavailable(
            &problem,
            &[
                "what was written is kept, and is in no view yet: `items` took longer than",
                "journal",
            ],
        );
        let problem = refused(&engine, "DELETE FROM items").await;
        assert_unavailable(&problem, &["nothing was changed, ", "`items` took longer than"]);
        sql(&engine, "UPDATE limits SET most = most + 1").await;
        assert_eq!(value(&engine, "SELECT most FROM limits").await, "2.0");

        fs::remove_file(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
        let there = async {
            while !sql(&engine, "SELECT id FROM items")
                .await
                .iter()
                .any(|batch| 0 < batch.num_rows())
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there)
            .await
            .expect("the disk takes it again");
        sql(&engine, "DELETE FROM items").await;
        engine.stop();
    });
}

#[test]
fn a_view_that_is_dropped_while_its_table_takes_no_change_goes_as_soon_as_that_does() {
    let state = tempfile::tempdir().unwrap();
    block_on(async {
        let engine = live(state.path(), Bounds::default(), TWO_TABLES).await;
        sql(&engine, "INSERT INTO items VALUES (0, NULL)").await;
        engine.stop();
        let bounds = Bounds {
            write_visible_timeout: Duration::from_secs(2),
            view_change_timeout: Duration::from_secs(2),
            ..Bounds::default()
        };
        let engine = live(state.path(), bounds, TWO_TABLES).await;
        sql(&engine, "FLUSH").await;
        until_running(&engine).await;
        let journal = state.path().join("items").join("journal");
        fs::remove_dir_all(&journal).unwrap();
        fs::write(&journal, "").unwrap();
        refused(&engine, "INSERT INTO items VALUES (1, '2024-01-01')").await;

        let told = value(&engine, "DROP MATERIALIZED VIEW spread").await;
        assert!(
            told.starts_with("dropped spread: source `items` took no change for 2 s")
                && told.ends_with("goes as soon as that takes one"),
            "{told}"
        );
        let views = sql(&engine, "SHOW MATERIALIZED VIEWS").await;
        let views = arrow::util::pretty::pretty_format_batches(&views).unwrap().to_string();
        assert!(!views.contains("spread"), "nobody makes a view of it any more: {views}");
        fs::remove_file(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
        let gone = async {
            while try_sql(&engine, "SELECT id FROM spread").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone)
            .await
            .expect("the table takes the change");
        sql(&engine, "FLUSH").await;
        sql(&engine, "CREATE MATERIALIZED VIEW spread AS SELECT id FROM items").await;
        assert_eq!(value(&engine, "SELECT count(*) FROM spread").await, "2");
        engine.stop();
    });
}

/// State, published epoch and reason of the one sink that there is.
async fn sink_of(engine: &Engine) -> [String; 3] {
    let batches = sql(engine, "SHOW SINKS").await;
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).expect("one sink");
    ["state", "published_epoch", "reason"]
        .map(|name| array_value_to_string(batch.column_by_name(name).unwrap(), 0).unwrap())
}

/// Waits until the one sink is so; its reason.
async fn until_sink(engine: &Engine, is_so: impl Fn(&[String; 3]) -> bool) -> String {
    let there = async {
        loop {
            let sink = sink_of(engine).await;
            if is_so(&sink) {
                let [_, _, reason] = sink;
                return reason;
            }
            tokio::task::yield_now().await;
        }
    };
    let there = tokio::time::timeout(Duration::from_secs(60), there);
    there.await.expect("it comes within a minute")
}

const NUMBERS: &str = "\
CREATE SOURCE numbers (n BIGINT) WITH (connector = 'memory', trigger = '0');
CREATE MATERIALIZED VIEW all_of AS SELECT n FROM numbers;
";

#[test]
fn a_sink_that_failed_can_be_dropped() {
    let (states, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pipeline = format!(
        "{NUMBERS}CREATE SINK files FROM all_of WITH (connector = 'parquet', path = '{}');",
        out.path().display()
    );
    block_on(async {
        let engine = live(&states.path().join("one"), Bounds::default(), &pipeline).await;
        sql(&engine, "INSERT INTO numbers VALUES (1)").await;
        until_sink(&engine, |[state, published, _]| state == "running" && published != "0").await;
        engine.stop();
        // What one state has published there is not another's.
        let engine = live(&states.path().join("other"), Bounds::default(), &pipeline).await;
        let reason = until_sink(&engine, |[state, ..]| state == "failed").await;
        assert!(reason.contains("of another state is published there"), "{reason}");
        let stopped = async {
            while engine.sources()[0].state != SourceState::Failed {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), stopped)
            .await
            .expect("its source stops");
        let reason = engine.sources()[0].reason.clone().unwrap();
        assert!(reason.contains("DROP SINK files"), "{reason}");
        assert_eq!(value(&engine, "DROP SINK files").await, "dropped files");
        let left = sql(&engine, "SHOW SINKS").await;
        assert_eq!(left.iter().map(|batch| batch.num_rows()).sum::<usize>(), 0);
        engine.stop();
    });
}

#[test]
fn a_sink_that_cannot_begin_holds_nobody_up_and_begins_later() {
    let (state, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bounds = Bounds {
        checkpoint_interval: Duration::from_secs(1),
        ..Bounds::default()
    };
    block_on(async {
        let engine = live(state.path(), bounds, NUMBERS).await;
        sql(&engine, "INSERT INTO numbers VALUES (1)").await;
        until_running(&engine).await;
        // No checkpoint can be written where a file stands in the place of their folder.
        let checkpoints = state.path().join("numbers").join("checkpoints");
        let away = state.path().join("away");
        fs::rename(&checkpoints, &away).unwrap();
        fs::write(&checkpoints, "").unwrap();
        let create = format!(
            "CREATE SINK files FROM all_of WITH (connector = 'parquet', path = '{}')",
            out.path().display()
        );
        sql(&engine, &create).await;
        let reason = until_sink(&engine, |[state, _, reason]| state == "starting" && !reason.is_empty()).await;
        assert!(
            reason.contains("it begins with a checkpoint") && reason.contains("checkpoints"),
            "{reason}"
        );
        sql(&engine, "INSERT INTO numbers VALUES (2)").await;
        fs::remove_file(&checkpoints).unwrap();
        fs::rename(&away, &checkpoints).unwrap();
        let reason = until_sink(&engine, |[state, published, _]| state == "running" && published != "0").await;
        assert_eq!(reason, "", "it is over");
        engine.stop();
    });
}

#[test]
fn rows_that_are_inserted_into_a_source_are_seen_when_it_is_answered() {
    let state = tempfile::tempdir().unwrap();
    block_on(async {
        let text = "\
            CREATE SOURCE slow (n BIGINT) WITH (connector = 'memory', trigger = '150ms');
            CREATE SOURCE unread (n BIGINT) WITH (connector = 'memory');
            CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM slow;";
        let engine = live(state.path(), Bounds::default(), text).await;
        for row in 1..=10 {
            sql(&engine, &format!("INSERT INTO slow VALUES ({row})")).await;
            assert_eq!(value(&engine, "SELECT n FROM total").await, row.to_string());
        }
        sql(&engine, "INSERT INTO unread VALUES (1)").await;
        // Who writes beside the one that waits is waited for.
        let (writes, flush) = (
            sql(&engine, "INSERT INTO slow VALUES (11), (12)"),
            sql(&engine, "FLUSH"),
        );
        tokio::join!(writes, async {
            tokio::task::yield_now().await;
            flush.await
        });
        assert_eq!(value(&engine, "SELECT n FROM total").await, "12");
        engine.stop();

        let engine = live(&state.path().join("small"), small(), TWO_TABLES).await;
        let problem = refused(
            &engine,
            "INSERT INTO trades SELECT CAST('2024-01-01' AS TIMESTAMP) FROM generate_series(1, 3)",
        )
        .await;
        let reason = "`trades` does not run: view `times` would hold 12 rows";
        assert_unavailable(&problem, &["the rows were taken, and are in no view yet: ", reason]);
        assert_unavailable(
            &refused(&engine, "FLUSH").await,
            &["not all of it is in every view yet: ", reason],
        );
        let problem = refused(&engine, "INSERT INTO trades VALUES ('2024-01-01')").await;
        assert_unavailable(&problem, &["nothing was written: ", reason]);
        engine.stop();
    });
}
