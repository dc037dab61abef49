//! What a person sees who runs `zeta`: exit codes, sentences, and what it does when the world is not as it should be.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    services::{Kafka, free_port},
    zeta::{Start, Zeta, dataset, edited, folder, now, text, written, zeta, zeta_fed, zeta_with},
};

#[test]
fn check_reports_all_mistakes_of_a_file_at_once_each_with_a_caret() {
    let outcome = zeta(&["check", "tests/fixtures/sql/six_mistakes.sql"]).expect(3);
    let expected = include_str!("../fixtures/sql/six_mistakes.txt");
    assert_eq!(
        outcome.err, expected,
        "if it is better now, put it into tests/fixtures/sql/six_mistakes.txt"
    );
    assert_eq!(
        expected.matches("\nerror: ").count() + 1,
        6,
        "six mistakes of six kinds"
    );
    assert_eq!(outcome.out, "", "nothing is right, so standard output says nothing");

    let fed = zeta_fed(
        &fs::read_to_string("tests/fixtures/sql/six_mistakes.sql").expect("a file"),
        &[],
        &["check", "-"],
    )
    .expect(3);
    assert!(fed.err.ends_with("\n6 errors\n"), "{}", fed.err);
}

#[test]
fn a_log_level_that_is_none_is_refused() {
    let file = written("CREATE TABLE t (n BIGINT);");
    let outcome = zeta(&["--log-level", "wran", "check", text(&file)]).expect(2);
    assert!(outcome.err.contains("did you mean `warn`?"), "{}", outcome.err);
}

#[test]
fn check_takes_what_runs_and_needs_no_network() {
    let began = now();
    // Addresses that nobody answers at, not even with a refusal.
    let env = [
        ("KAFKA", "10.255.255.1:9092"),
        ("HISTORY", "hdfs://10.255.255.1:8020/user/dataset/"),
    ];
    let outcome = zeta_with(
        &env,
        &[
            "check",
            "sql/candles.sql",
            "sql/trades_sum.sql",
            "sql/trades_sum_per_event.sql",
        ],
    )
    .expect(0);
    assert_eq!(outcome.out.matches("all right").count(), 3, "{}", outcome.out);
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

#[test]
fn a_file_defines_and_what_is_of_use_later_is_refused_at_its_place() {
    let table = "CREATE TABLE t (n INT);\nCREATE MATERIALIZED VIEW v AS SELECT n FROM t;\n";
    for (statement, word) in [
        ("INSERT INTO t VALUES (1)", "INSERT"),
        ("UPDATE t SET n = 2", "UPDATE"),
        ("DELETE FROM t", "DELETE"),
        ("truncate t", "truncate"),
        ("FLUSH", "FLUSH"),
        ("SHOW TABLES", "SHOW"),
        ("DESC t", "DESC"),
        ("DESCRIBE t", "DESCRIBE"),
        ("EXPLAIN v", "EXPLAIN"),
    ] {
        let file = written(&format!("{table}{statement};\n"));
        for verb in [&["check"][..], &["run", "--no-state"]] {
            let arguments: Vec<&str> = verb.iter().copied().chain([text(&file)]).collect();
            let outcome = zeta(&arguments).expect(3);
            for expected in [
                format!("error: a pipeline file defines what runs, and {word} defines nothing"),
                ":3:1\n".to_owned(),
                format!("  | {}\n", "^".repeat(word.len())),
                "POST /api/v1/sql".to_owned(),
            ] {
                assert!(outcome.err.contains(&expected), "{statement}: {}", outcome.err);
            }
            assert_eq!(outcome.out, "", "{statement}");
        }
    }
    let dropped = written(&format!("{table}DROP MATERIALIZED VIEW v;\n"));
    let outcome = zeta(&["check", text(&dropped)]).expect(0);
    assert!(outcome.out.ends_with(": 3 statements, all right\n"), "{}", outcome.out);
}

#[test]
fn a_file_without_statements_is_noticed_and_a_mark_of_an_editor_is_not() {
    for (pipeline, expected, is_noticed) in [
        ("", "0 statements", true),
        ("-- CREATE SOURCE s (a INT);\n/* and more */ ;\n", "0 statements", true),
        ("\u{feff}", "0 statements", true),
        ("\u{feff}CREATE TABLE t (n INT);", "1 statement", false),
    ] {
        let outcome = zeta(&["check", text(&written(pipeline))]).expect(0);
        assert!(
            outcome.out.ends_with(&format!(": {expected}, all right\n")),
            "{}",
            outcome.out
        );
        assert_eq!(
            outcome.err.contains("warning: there is nothing in this file"),
            is_noticed,
            "{pipeline:?}: {}",
            outcome.err
        );
    }
    let outcome = zeta(&["check", text(&written("\u{feff}CREATE TABEL t (n INT);"))]).expect(3);
    assert!(
        outcome.err.contains(":1:8\n"),
        "columns are those that people see: {}",
        outcome.err
    );
}

#[test]
fn exit_codes_and_sentences_tell_mistakes_apart() {
    let unset = written("CREATE EXTERNAL TABLE history STORED AS PARQUET LOCATION '${ZETA_TEST_IS_NOT_SET}';\n");
    let broken = written("CREATE SOURCE");
    let port = free_port();
    let nobody = format!("127.0.0.1:{port}");
    for (arguments, code, words) in [
        (
            vec!["check", "sql/candels.sql"],
            1,
            vec!["cannot read sql/candels.sql", "did you mean sql/candles.sql?"],
        ),
        (
            vec!["run", "nowhere.sql", "--no-state"],
            1,
            vec!["cannot read nowhere.sql"],
        ),
        (
            vec!["check", text(&unset)],
            3,
            vec![
                "variable ZETA_TEST_IS_NOT_SET is not set",
                "^^^",
                "${ZETA_TEST_IS_NOT_SET:-",
            ],
        ),
        (
            vec!["run", text(&unset), "--no-state"],
            3,
            vec!["variable ZETA_TEST_IS_NOT_SET is not set"],
        ),
        (vec!["run", text(&broken), "--no-state"], 3, vec!["1 error"]),
        (vec!["fly"], 2, vec!["unrecognized subcommand 'fly'"]),
        (vec!["run"], 2, vec!["FILES"]),
        (vec!["run", "sql/candles.sql", "--sate", "x"], 2, vec!["--state"]),
        (
            vec!["topics", "ls", "--brokers", &nobody],
            4,
            vec![nobody.as_str(), "connection refused"],
        ),
        (
            vec!["replay", "nowhere/", "--topic", "t"],
            1,
            vec!["there is no nowhere/", "zeta generate"],
        ),
        (vec!["generate", "--out", "/proc/nowhere"], 4, vec!["/proc/nowhere"]),
        (vec!["--version"], 0, vec![]),
    ] {
        let outcome = zeta(&arguments).expect(code);
        for word in words {
            assert!(
                outcome.err.contains(word),
                "zeta {} says nothing of {word}: {}",
                arguments.join(" "),
                outcome.err
            );
        }
        assert!(outcome.err.lines().count() < 15, "a paragraph at most: {}", outcome.err);
    }
    let no_history = zeta_with(
        &[("HISTORY", "/nowhere/dataset")],
        &["run", "sql/candles.sql", "--no-state"],
    )
    .expect(3);
    assert!(
        no_history.err.contains("/nowhere/dataset") && no_history.err.contains("zeta generate"),
        "{}",
        no_history.err
    );
}

#[test]
fn a_port_that_is_taken_is_said_before_anything_is_touched() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (dataset, state) = (dataset(1, 1, "2024-01-01"), folder("state"));
    let arguments = ["run", "sql/candles.sql", "--listen", &address, "--state", text(&state)];
    let outcome = zeta_with(&[("HISTORY", text(&dataset))], &arguments);
    assert!(matches!(outcome.code, Some(1 | 4)), "{:?}", outcome.code);
    assert!(
        outcome.err.contains(&address) && outcome.err.contains("--listen"),
        "{}",
        outcome.err
    );
    assert_eq!(fs::read_dir(&state).expect("a folder").count(), 0, "no state was begun");
}

#[test]
fn data_can_be_made_sent_and_looked_at_without_other_tools() {
    let out = folder("made");
    let made = zeta(&[
        "generate",
        "--pairs",
        "2",
        "--days",
        "1",
        "--seed",
        "9",
        "--out",
        text(&out),
    ])
    .expect(0);
    assert!(made.err.contains("generate: 2880 rows"), "{}", made.err);
    let mut names: Vec<_> = fs::read_dir(&out)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["BTC-USDT.parquet", "ETH-USDT.parquet"]);
    let again = folder("made");
    zeta(&[
        "generate",
        "--pairs",
        "2",
        "--days",
        "1",
        "--seed",
        "9",
        "--out",
        text(&again),
    ])
    .expect(0);
    for name in &names {
        assert_eq!(
            fs::read(out.join(name)).expect("a file"),
            fs::read(again.join(name)).expect("a file"),
            "a seed gives the same bytes"
        );
    }

    let brokers = Kafka::shared().brokers.as_str();
    let topics = |arguments: &[&str]| zeta(&[&["topics"], arguments, &["--brokers", brokers]].concat()).expect(0);
    topics(&[
        "create",
        "looked-at",
        "--partitions",
        "3",
        "--config",
        "retention.ms=-1",
    ]);
    let again = zeta(&["topics", "create", "looked-at", "--brokers", brokers]).expect(1);
    assert!(again.err.contains("`looked-at` exists already"), "{}", again.err);
    assert!(
        topics(&["ls"])
            .out
            .lines()
            .any(|line| line.split_whitespace().eq(["looked-at", "3", "1"]))
    );
    let sent = zeta(&[
        "replay",
        text(&out),
        "--topic",
        "looked-at",
        "--brokers",
        brokers,
        "--max",
        "--limit",
        "100",
    ])
    .expect(0);
    assert!(sent.err.contains("replay: 100 rows"), "{}", sent.err);
    let described = topics(&["describe", "looked-at"]).out;
    let rows: u64 = described
        .lines()
        .skip(1)
        .map(|line| {
            line.split_whitespace()
                .last()
                .expect("rows")
                .parse::<u64>()
                .expect("a number")
        })
        .sum();
    assert_eq!((described.lines().count(), rows), (4, 100), "{described}");
    let tail = topics(&["tail", "looked-at", "-n", "2"]).out;
    assert_eq!(tail.lines().count(), 2);
    assert!(
        tail.lines()
            .all(|line| line.contains(r#"{"symbol":"#) && line.contains("2024-01-01T00:49:00Z")),
        "the newest: {tail}"
    );
    assert!(topics(&["drain", "looked-at"]).out.starts_with("100 rows"));
    topics(&["delete", "looked-at"]);
    let gone = zeta(&["topics", "describe", "looked-at", "--brokers", brokers]).expect(1);
    assert!(gone.err.contains("`looked-at` does not exist"), "{}", gone.err);
}

#[test]
fn the_demo_shows_moving_candles_and_cleans_up() {
    let zeta = Zeta::verb("demo")
        .arg("--pairs")
        .arg("2")
        .arg("--days")
        .arg("1")
        .start();
    let made = std::env::temp_dir().join(format!("zeta-demo-{}", zeta.pid()));
    assert!(made.exists());
    let first = zeta.until_source("candles", "the first rows", |source| 0 < source.rows());
    zeta.until_source("candles", "more rows", |source| first.rows() < source.rows());
    assert!(!zeta.rows("SELECT * FROM candles_5m").is_empty());
    let page = zeta
        .get("/api/v1/views/candles_5m/rows?symbol=BTC-USDT&limit=200")
        .expect(200)
        .json();
    assert_eq!(page["row_count"], 200, "most of it out of history");
    assert!(zeta.stop().success());
    assert!(!made.exists(), "what it made is gone");
}

fn candles(topic: &str) -> PathBuf {
    edited(
        "sql/candles.sql",
        &[("topic = 'candles'", &format!("topic = '{topic}'"))],
    )
}

fn readiness(zeta: &Zeta) -> (u16, String) {
    let reply = zeta.get("/readyz");
    (
        reply.status,
        reply.json()["checks"][0]["detail"]
            .as_str()
            .expect("a detail")
            .to_owned(),
    )
}

#[test]
fn while_kafka_is_away_it_says_so_and_goes_on_by_itself() {
    let mut kafka = Kafka::absent();
    let dataset = dataset(3, 1, "2024-01-01");
    let zeta = Zeta::run(&candles("comes-and-goes"))
        .env("KAFKA", &kafka.brokers)
        .env("HISTORY", text(&dataset))
        .state(&folder("state"))
        .start();
    let unreachable = |words: &str| {
        let source = zeta.until_source("candles", words, |source| {
            source.state() == "unreachable" && source.reason().contains(words)
        });
        assert!(
            source.reason().starts_with("unreachable since 2") && source.reason().ends_with("trying again"),
            "{}",
            source.reason()
        );
        let (status, detail) = readiness(&zeta);
        assert_eq!(status, 503);
        assert!(detail.contains(words), "{detail}");
        zeta.get("/livez").expect(200);
        assert_eq!(
            zeta.rows("SELECT count(*) FROM history"),
            [json!([3 * 1_440])],
            "everything else goes on"
        );
    };
    unreachable(&format!(
        "Kafka at {} does not answer: connection refused",
        kafka.brokers
    ));

    kafka.up();
    unreachable(&format!("topic `comes-and-goes` does not exist on {}", kafka.brokers));

    let replay = |limits: &[&str]| {
        let arguments = [
            "replay",
            text(&dataset),
            "--topic",
            "comes-and-goes",
            "--brokers",
            &kafka.brokers,
            "--max",
            "--create-topic",
            "2",
        ];
        zeta_with(&[], &[&arguments, limits].concat()).expect(0);
    };
    replay(&["--to", "2024-01-01T12:00:00Z"]);
    zeta.until_source("candles", "the first half", |source| {
        source.rows() == 3 * 720 && source.state() == "running"
    });
    assert_eq!(readiness(&zeta), (200, "running".into()));

    kafka.kill();
    unreachable(&format!("Kafka at {} does not answer", kafka.brokers));
    kafka.up();
    zeta.until_source("candles", "the broker", |source| source.state() == "running");
    let arguments = [
        "replay",
        text(&dataset),
        "--topic",
        "comes-and-goes",
        "--brokers",
        &kafka.brokers,
        "--max",
    ];
    zeta_with(&[], &[&arguments[..], &["--from", "2024-01-01T12:00:00Z"]].concat()).expect(0);
    let source = zeta.until_source("candles", "the second half", |source| 3 * 1_440 <= source.rows());
    assert_eq!((source.rows(), source.number("late_rows")), (3 * 1_440, 0));
    assert_eq!(zeta.rows("SELECT count(*) FROM candles_5m"), [json!([3 * 288])]);
}

/// A run over made-up rows that needs no service.
fn replayed(file: &Path, dataset: &Path, speed: &str, state: &Path) -> Start {
    Zeta::run(file)
        .env("HISTORY", text(dataset))
        .replay("candles", dataset, &format!(",speed={speed}"))
        .state(state)
}

/// The same as arguments, for runs that end by themselves.
fn refused(file: &Path, dataset: &Path, state: &Path, more: &[&str]) -> String {
    let source = format!("candles=connector=replay,path={},speed=max", text(dataset));
    let arguments = [
        "run",
        text(file),
        "--listen",
        "127.0.0.1:0",
        "--state",
        text(state),
        "--source",
        &source,
    ];
    zeta_with(&[("HISTORY", text(dataset))], &[&arguments, more].concat())
        .expect(1)
        .err
}

#[test]
fn a_second_zeta_on_the_same_state_is_told_so() {
    let (dataset, state) = (dataset(1, 1, "2024-01-01"), folder("state"));
    let file = Path::new("sql/candles.sql");
    let first = replayed(file, &dataset, "max", &state).start();
    let sentence = format!("another zeta uses the state in {}", text(&state.join("candles")));
    for more in [&[][..], &["--reset"]] {
        let said = refused(file, &dataset, &state, more);
        assert!(said.contains(&sentence) && said.contains("--state"), "{said}");
    }
    first.until_source("candles", "the end, undisturbed", |source| {
        source.state() == "finished" && source.rows() == 1_440
    });
}

#[test]
fn state_of_another_definition_is_refused_with_the_difference_and_reset_starts_over() {
    let (dataset, state) = (dataset(1, 1, "2024-01-01"), folder("state"));
    let file = Path::new("sql/candles.sql");
    let other = edited("sql/candles.sql", &[("max(high) AS high", "max(close) AS high")]);
    let zeta = replayed(file, &dataset, "20000x", &state).start();
    zeta.until_source("candles", "some rows", |source| 0 < source.rows());
    // Without a checkpoint there is only the journal, and it is of a definition too.
    zeta.kill();
    let check = |said: String| {
        assert!(said.contains("was made by another definition"), "{said}");
        let line = |sign: &str, word: &str| {
            said.lines()
                .any(|line| line.trim_start().starts_with(sign) && line.contains(word))
        };
        assert!(
            line("-", "max(high) AS high") && line("+", "max(close) AS high"),
            "{said}"
        );
        assert!(said.contains("--reset") && said.contains("--state"), "{said}");
    };
    check(refused(&other, &dataset, &state, &[]));

    let zeta = replayed(file, &dataset, "max", &state).start();
    let first = zeta.until_source("candles", "the end", |source| source.state() == "finished");
    assert_eq!(first.rows(), 1_440, "the old definition goes on");
    assert!(zeta.stop().success());
    check(refused(&other, &dataset, &state, &[]));

    let zeta = replayed(&other, &dataset, "max", &state).arg("--reset").start();
    let over = zeta.until_source("candles", "the end, again", |source| source.state() == "finished");
    assert_eq!(over.rows(), 1_440, "from the start");
    assert!(
        over.epoch() < first.epoch(),
        "{} is after {}",
        over.epoch(),
        first.epoch()
    );
    assert_eq!(zeta.rows("SELECT count(*) FROM candles_5m"), [json!([288])]);
    let high = zeta.rows("SELECT max(high) FROM candles_5m");
    assert_eq!(
        high,
        zeta.rows("SELECT max(close) FROM history"),
        "by the new definition"
    );
}

#[test]
fn a_full_disk_is_said_and_waited_for_and_nothing_is_lost() {
    let (dataset, state) = (dataset(3, 1, "2024-01-01"), folder("disk"));
    let file = edited(
        "sql/candles.sql",
        &[(
            "idle_timeout = '30 seconds'",
            "idle_timeout = '30 seconds', trigger = '0'",
        )],
    );
    let start = replayed(&file, &dataset, "10000x", &state);
    let disk = SmallDisk::of(&state);
    let zeta = start.wrapped(&disk.wrapper()).start();
    let full = zeta.until_source("candles", "a full disk", |source| {
        source.state() == "unreachable" && source.reason().contains(disk.sentence())
    });
    assert!(
        full.reason()
            .contains("nothing is lost, and it goes on as soon as the state can be written"),
        "{}",
        full.reason()
    );
    let (status, detail) = readiness(&zeta);
    assert!(status == 503 && detail.contains(disk.sentence()), "{status} {detail}");
    let shown = zeta.rows("SELECT count(*), max(window_end) FROM candles_5m");
    assert_eq!(
        zeta.source("candles").epoch(),
        full.epoch(),
        "what is not committed is not shown"
    );
    assert_eq!(zeta.rows("SELECT count(*), max(window_end) FROM candles_5m"), shown);

    disk.make_room(&zeta);
    let source = zeta.until_source("candles", "the end", |source| source.state() == "finished");
    assert_eq!((source.rows(), source.number("late_rows")), (3 * 1_440, 0));
    assert_eq!(zeta.rows("SELECT count(*) FROM candles_5m"), [json!([3 * 288])]);

    // And what is on the disk is good.
    let copy = folder("copy").join("state");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(disk.seen_from_here(&zeta))
        .arg(&copy)
        .status()
        .expect("cp runs");
    assert!(copied.success());
    let candles = zeta.rows("SELECT * FROM candles_5m ORDER BY symbol, window_start");
    zeta.kill();
    let zeta = replayed(&file, &dataset, "10000x", &copy).start();
    let again = zeta.until_source("candles", "the end, from the state", |source| {
        source.state() == "finished"
    });
    assert!(
        source.epoch() <= again.epoch() && again.rows() == 3 * 1_440,
        "{}",
        again.0
    );
    assert_eq!(
        zeta.rows("SELECT * FROM candles_5m ORDER BY symbol, window_start"),
        candles
    );
}

/// A disk that is nearly full until room is made: a tmpfs that only the process sees, and that ends with it; where that is
/// not allowed, a limit on the size of files.
struct SmallDisk {
    folder: PathBuf,
    is_tmpfs: bool,
}

impl SmallDisk {
    fn of(folder: &Path) -> Self {
        let mut probe = Command::new("unshare");
        probe
            .args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs"])
            .arg(folder);
        let is_tmpfs = probe.output().is_ok_and(|output| output.status.success());
        Self {
            folder: folder.into(),
            is_tmpfs,
        }
    }

    /// What becomes the zeta that follows it.
    fn wrapper(&self) -> Vec<&str> {
        let folder = text(&self.folder);
        // The ballast leaves some pages: enough to begin with.
        let tmpfs = r#"mount -t tmpfs -o size=4m tmpfs "$0" && head -c 4136960 /dev/zero >"$0/ballast" && exec "$@""#;
        // dash counts in blocks of 512 bytes; the signal would end the process.
        let limit = r#"trap "" XFSZ; ulimit -S -f 40; exec "$@""#;
        match self.is_tmpfs {
            true => vec!["unshare", "--map-root-user", "--mount", "sh", "-c", tmpfs, folder],
            false => vec!["sh", "-c", limit, folder],
        }
    }

    /// A part of the reason.
    fn sentence(&self) -> &'static str {
        if self.is_tmpfs {
            "No space left on device"
        } else {
            "File too large"
        }
    }

    fn seen_from_here(&self, zeta: &Zeta) -> PathBuf {
        match self.is_tmpfs {
            true => PathBuf::from(format!("/proc/{}/root{}", zeta.pid(), text(&self.folder))),
            false => self.folder.clone(),
        }
    }

    fn make_room(&self, zeta: &Zeta) {
        match self.is_tmpfs {
            true => fs::remove_file(self.seen_from_here(zeta).join("ballast")).expect("the ballast is there"),
            false => {
                let limit = Command::new("prlimit")
                    .args(["--pid", &zeta.pid().to_string(), "--fsize=unlimited:"])
                    .status();
                assert!(limit.expect("prlimit runs").success());
            }
        }
    }
}
