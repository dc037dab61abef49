//! Sinks into Parquet files, on disk and on HDFS: DuckDB reads the folder as anybody would, and finds each row once, whoever is killed when.
//!
//! ```text
//! history ─▶ replay ─▶ zeta run, killed again and again ─▶ every row, closed windows ─▶ folders ─▶ DuckDB: lost, twice, wrong
//!                                                            └─▶ a reader that lists all the time: only whole files, no row twice
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Field, Schema, TimestampNanosecondType},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    oracle::{self, Cell},
    services::Hdfs,
    zeta::{Zeta, dataset, folder, signal, text, until, written, zeta_with},
};

pub const PAIRS: u32 = 8;
/// Event minutes pass in this time, about: a day in five seconds.
pub const PACED: &str = "17280x";

/// Every row as it is, by symbol; and windows once they are closed, by day and symbol.
pub fn pipeline(dataset: &Path, speed: &str, out: &str, more: &str) -> PathBuf {
    written(&format!(
        "CREATE SOURCE candles (symbol VARCHAR NOT NULL, open_time TIMESTAMP NOT NULL, close REAL, volume REAL,
           WATERMARK FOR open_time AS open_time - INTERVAL '5 seconds')
         WITH (connector = 'replay', path = '{}', speed = '{speed}', trigger = '20 ms', idle_timeout = '1 hour');
         CREATE MATERIALIZED VIEW every AS SELECT symbol, open_time, close, volume FROM candles;
         CREATE MATERIALIZED VIEW closed AS
         SELECT CAST(window_start AS DATE) AS day, symbol, window_start, count(*) AS n, max(close) AS high, min(close) AS low
         FROM TUMBLE(candles, open_time, INTERVAL '30 minutes') GROUP BY symbol, window_start, window_end EMIT ON WINDOW CLOSE;
         CREATE SINK every_files FROM every
         WITH (connector = 'parquet', path = '{out}/every', partition_by = 'symbol'{more});
         CREATE SINK closed_files FROM closed
         WITH (connector = 'parquet', path = '{out}/closed', partition_by = 'day, symbol'{more});",
        text(dataset)
    ))
}

pub fn start(file: &Path, state: &Path) -> Zeta {
    Zeta::run(file).state(state).start()
}

/// Waits until everything was read and is published.
#[track_caller]
pub fn until_published(zeta: &Zeta) {
    zeta.until_source("candles", "the end", |source| source.state() == "finished");
    until("all is published", || {
        let sinks = zeta.rows("SHOW SINKS");
        let metrics = zeta.get("/metrics").expect(200);
        let staged: f64 = (metrics.text().lines())
            .filter(|line| line.starts_with("zeta_sink_staged_epochs{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        let is_running =
            (sinks.iter()).all(|sink| sink[3] == "running" && sink[4].as_u64().is_some_and(|epoch| 0 < epoch));
        match is_running && staged == 0.0 {
            true => Ok(()),
            false => Err(format!("{staged} epochs staged, {sinks:?}")),
        }
    });
}

/// What is wrong with the rows in a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    published: i64,
    lost: i64,
    duplicated: i64,
    wrong: i64,
}

/// What DuckDB says of files in `out/every` and `out/closed`.
pub fn verdicts(dataset: &Path, out: &Path) -> [Verdict; 2] {
    let rows = "(SELECT parse_filename(filename, true) AS symbol, open_time, close, volume
                 FROM read_parquet(getvariable('dataset') || '/*.parquet', filename = true))";
    let windows = format!(
        "(SELECT symbol, CAST(time_bucket(INTERVAL '30 minutes', open_time) AS TIMESTAMP_NS) AS window_start,
                 count(*) AS n, max(close) AS high, min(close) AS low FROM {rows} GROUP BY ALL)"
    );
    let of = |expected: &str, view: &str, columns: &str| {
        let sql = format!(
            "WITH expected AS (SELECT {columns} FROM {expected}),
                  found AS (SELECT {columns}, count(*) AS times
                            FROM read_parquet('{}/{view}/**/*.parquet', hive_partitioning = true) GROUP BY ALL),
                  both_of AS (SELECT e.symbol AS e, f.symbol AS f, f.times
                              FROM expected e FULL JOIN found f USING ({columns}))
             SELECT CAST(coalesce(sum(times), 0) AS BIGINT) AS published, count(*) FILTER (WHERE f IS NULL) AS lost,
                    count(*) FILTER (WHERE 1 < times) AS duplicated, count(*) FILTER (WHERE e IS NULL) AS wrong FROM both_of",
            text(out)
        );
        let names = ["published", "lost", "duplicated", "wrong"];
        let like = Schema::new(names.map(|name| Field::new(name, DataType::Int64, true)).to_vec());
        let answer = oracle::ask(&sql, dataset, &like);
        let [
            Cell::Integer(published),
            Cell::Integer(lost),
            Cell::Integer(duplicated),
            Cell::Integer(wrong),
        ] = answer.rows[0].as_slice()
        else {
            panic!("four numbers, not {:?}", answer.rows);
        };
        Verdict {
            published: *published,
            lost: *lost,
            duplicated: *duplicated,
            wrong: *wrong,
        }
    };
    [
        of(rows, "every", "symbol, open_time, close, volume"),
        of(&windows, "closed", "symbol, window_start, n, high, low"),
    ]
}

#[track_caller]
pub fn assert_right(dataset: &Path, out: &Path, days: u32) {
    let [every, closed] = verdicts(dataset, out);
    let right = |published| Verdict {
        published,
        ..Verdict::default()
    };
    assert_eq!(every, right(i64::from(PAIRS * days * 1_440)), "rows as they are");
    assert_eq!(closed, right(i64::from(PAIRS * days * 48)), "windows");
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // One that is not there yet, or not any more.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry.expect("an entry");
            match entry.file_type().expect("a type").is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// A line for the campaign, on standard output and in the file that `ZETA_CHAOS_CSV` names.
pub fn report(place: &str, seed: u64, kills: u64, interrupted: u64, rows_in: u32, verdicts: &[Verdict; 2]) {
    let sum = |of: fn(&Verdict) -> i64| verdicts.iter().map(of).sum::<i64>();
    let line = format!(
        "{place},{seed},{kills},{interrupted},{rows_in},{},{},{},{}",
        verdicts[0].published,
        sum(|v| v.lost),
        sum(|v| v.duplicated),
        sum(|v| v.wrong)
    );
    println!("place,seed,kills,interrupted,rows_in,rows_out,lost,duplicated,wrong\n{line}");
    if let Some(path) = std::env::var_os("ZETA_CHAOS_CSV") {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("the campaign's file"), "{line}").expect("a line is written");
    }
}

/// Lists the folder again and again while a sink without merging writes it: every file is whole at once, and no row is there twice.
fn read_on(folder: PathBuf, is_over: Arc<AtomicBool>) -> u64 {
    let (mut seen, mut rows, mut listings) = (BTreeSet::new(), BTreeSet::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        listings += 1;
        for path in files(&folder) {
            if path.extension().is_none_or(|ending| ending != "parquet") || !seen.insert(path.clone()) {
                continue;
            }
            let file = fs::File::open(&path).expect("a file stays");
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
            let batches = reader.unwrap_or_else(|error| panic!("{} is not whole: {error}", path.display()));
            let symbol = path.parent().expect("a folder").file_name().expect("a name").to_owned();
            for batch in batches {
                let batch: RecordBatch = batch.expect("a whole file");
                let times = batch.column_by_name("open_time").expect("a column");
                for time in times.as_primitive::<TimestampNanosecondType>().values() {
                    assert!(
                        rows.insert((symbol.clone(), *time)),
                        "{time} of {symbol:?} is there twice"
                    );
                }
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    listings
}

/// Kills a pipeline again and again while rows come, then lets it finish. Returns how many kills left something staged behind them.
pub fn killed(kills: u64, seed: u64, paced: &Path, unpaced: &Path, state: &Path, has_staged: impl Fn() -> bool) -> u64 {
    let mut interrupted = 0;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..kills {
        let zeta = start(paced, state);
        // Some die while they recover, some in the middle of their work.
        std::thread::sleep(Duration::from_millis(random.random_range(0..1500)));
        zeta.kill();
        interrupted += u64::from(has_staged());
    }
    let zeta = start(unpaced, state);
    until_published(&zeta);
    assert!(zeta.stop().success());
    interrupted
}

/// So many days of history that they do not end before the kills do.
pub fn days_for(kills: u64) -> u32 {
    u32::try_from(kills / 5 + 1).expect("not that many")
}

/// Whether the log of a sink tells of files that went into another one.
fn has_merged(files: &[PathBuf]) -> bool {
    let mut records = files.iter().filter(|path| text(path).contains("/log/"));
    // Old ones go meanwhile.
    records.any(|path| fs::read_to_string(path).is_ok_and(|record| record.contains("\"removed\":[")))
}

/// Returns whether files were merged in between.
fn killed_on_disk(kills: u64, more: &str, is_listed: bool) -> bool {
    let seed = number("ZETA_SEED", 2024);
    println!("ZETA_SEED={seed} ZETA_KILLS={kills}");
    let days = days_for(kills);
    let (dataset, out) = (dataset(PAIRS, days, "2024-01-01"), folder("out"));
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = is_listed.then(|| {
        let (folder, is_over) = (out.join("every"), Arc::clone(&is_over));
        std::thread::spawn(move || read_on(folder, is_over))
    });
    let (paced, unpaced) = (
        pipeline(&dataset, PACED, text(&out), more),
        pipeline(&dataset, "max", text(&out), more),
    );
    let merged = std::cell::Cell::new(false);
    let staged = || {
        let all = files(&out);
        merged.set(merged.get() || has_merged(&all));
        all.iter().any(|path| text(path).contains("/staging/"))
    };
    let interrupted = killed(kills, seed, &paced, &unpaced, &folder("state"), staged);
    is_over.store(true, Ordering::Relaxed);
    if let Some(reader) = reader {
        println!(
            "{} listings by a reader",
            reader.join().expect("the reader sees whole files, and rows once")
        );
    }
    let found = verdicts(&dataset, &out);
    report("disk", seed, kills, interrupted, PAIRS * days * 1_440, &found);
    assert_right(&dataset, &out, days);
    assert!(!staged(), "nothing is left over");
    // About one kill in twenty meets the moment in which files have no names yet.
    assert!(
        kills < 300 || 0 < interrupted,
        "no kill came while something was published"
    );
    merged.get()
}

#[test]
fn killed_on_disk_at_any_moment_each_row_is_published_once() {
    let has_merged = killed_on_disk(number("ZETA_KILLS", 15), "", true);
    assert!(!has_merged, "files are merged where that was asked for");
}

#[test]
fn killed_on_disk_while_it_merges_files_each_row_is_there_once_in_the_end() {
    let kills = number("ZETA_KILLS", 5);
    let has_merged = killed_on_disk(kills, ", compact = true", false);
    assert!(has_merged, "files are merged in between");
}

#[test]
fn killed_on_hdfs_at_any_moment_each_row_is_published_once() {
    let kills = number("ZETA_KILLS", 5);
    let seed = number("ZETA_SEED", 2024);
    println!("ZETA_SEED={seed} ZETA_KILLS={kills}");
    let hdfs = Hdfs::start();
    let days = days_for(kills);
    let dataset = dataset(PAIRS, days, "2024-01-01");
    let url = format!("{}/lake", hdfs.url);
    let (paced, unpaced) = (pipeline(&dataset, PACED, &url, ""), pipeline(&dataset, "max", &url, ""));
    let staged = || {
        ["every", "closed"].iter().any(|sink| {
            let staging = format!("/lake/{sink}/_zeta/{sink}_files/staging");
            let writers = hdfs.names(&staging);
            writers
                .iter()
                .any(|writer| !hdfs.names(&format!("{staging}/{writer}")).is_empty())
        })
    };
    let interrupted = killed(kills, seed, &paced, &unpaced, &folder("state"), staged);
    let out = folder("out");
    hdfs.get("/lake/every", &out);
    hdfs.get("/lake/closed", &out);
    let found = verdicts(&dataset, &out);
    report("hdfs", seed, kills, interrupted, PAIRS * days * 1_440, &found);
    assert_right(&dataset, &out, days);
    assert!(!staged(), "nothing is left over");
    // Three kills in four do.
    assert!(
        kills < 5 || 0 < interrupted,
        "no kill came while something was published"
    );
}

#[test]
fn while_the_name_node_is_down_or_the_data_node_files_wait_and_then_come() {
    let mut hdfs = Hdfs::start();
    let days = 3;
    let dataset = dataset(PAIRS, days, "2024-01-01");
    let out = folder("out");
    let url = format!("{}/lake", hdfs.url);
    let zeta = start(&pipeline(&dataset, PACED, &url, ""), &folder("state"));
    for node in ["namenode", "datanode"] {
        let published = |zeta: &Zeta| zeta.rows("SHOW SINKS")[0][4].as_u64().unwrap_or(0);
        let before = published(&zeta);
        until("it publishes", || match published(&zeta) {
            now if before + 3 < now => Ok(()),
            now => Err(format!("{now}")),
        });
        hdfs.kill(node);
        until("a sink says that nobody answers", || {
            let sinks = zeta.rows("SHOW SINKS");
            let is_told = |sink: &serde_json::Value| {
                sink[3] == "unreachable" && sink[5].to_string().contains("unreachable since")
            };
            match sinks.iter().any(is_told) {
                true => Ok(()),
                false => Err(format!("{sinks:?}")),
            }
        });
        hdfs.up();
    }
    until_published(&zeta);
    assert!(zeta.stop().success());
    hdfs.get("/lake/every", &out);
    hdfs.get("/lake/closed", &out);
    assert_right(&dataset, &out, days);
}

#[test]
fn a_name_node_that_freezes_and_a_quota_are_told_and_waited_for() {
    let mut hdfs = Hdfs::start();
    let days = 6;
    let dataset = dataset(PAIRS, days, "2024-01-01");
    let out = folder("out");
    let url = format!("{}/lake", hdfs.url);
    let zeta = start(&pipeline(&dataset, PACED, &url, ""), &folder("state"));
    let until_more_is_published = || {
        let published = || zeta.rows("SHOW SINKS")[0][4].as_u64().unwrap_or(0);
        let before = published();
        until("it publishes", || match published() {
            now if before + 3 < now => Ok(()),
            now => Err(format!("{now}")),
        });
    };
    let until_told = |words: &str| {
        until("a sink says what is wrong", || {
            let sinks = zeta.rows("SHOW SINKS");
            match sinks.iter().any(|sink| sink[5].to_string().contains(words)) {
                true => Ok(()),
                false => Err(format!("{words} in {sinks:?}")),
            }
        });
    };
    until_more_is_published();
    hdfs.admin(&["-setQuota", "1", "/lake"]);
    until_told("quota");
    hdfs.admin(&["-clrQuota", "/lake"]);
    until_more_is_published();
    hdfs.pause("namenode");
    until_told("no answer within 20 s");
    hdfs.resume("namenode");
    until_published(&zeta);
    assert!(zeta.stop().success());
    hdfs.get("/lake/every", &out);
    hdfs.get("/lake/closed", &out);
    assert_right(&dataset, &out, days);
}

#[test]
fn a_zeta_that_sleeps_while_another_takes_its_place_publishes_nothing_more() {
    let dataset = dataset(PAIRS, 2, "2024-01-01");
    let (state, out) = (folder("state"), folder("out"));
    let sleeper = start(&pipeline(&dataset, PACED, text(&out), ""), &state);
    until("it publishes", || match sleeper.rows("SHOW SINKS")[0][4].as_u64() {
        Some(epoch) if 3 < epoch => Ok(()),
        other => Err(format!("{other:?}")),
    });
    signal(&sleeper, "STOP");
    // A copy of the state, which the lock of the other cannot guard.
    let copy = folder("copy").join("state");
    let copied = Command::new("cp").arg("-r").arg(&state).arg(&copy).status();
    assert!(copied.expect("cp runs").success());
    let newer = start(&pipeline(&dataset, "max", text(&out), ""), &copy);
    until_published(&newer);
    signal(&sleeper, "CONT");
    let failed = until("the sleeper is told", || {
        let source = sleeper.source("candles");
        match source.state() {
            "failed" => Ok(source),
            _ => Err(source.0.to_string()),
        }
    });
    let reason = failed.reason().to_owned();
    assert!(reason.contains("another zeta publishes as sink"), "{reason}");
    assert_right(&dataset, &out, 2);
    assert!(newer.stop().success());
}

/// Rows in the Parquet files of a folder.
fn rows_in(folder: &Path) -> i64 {
    let parquet = files(folder)
        .into_iter()
        .filter(|path| text(path).ends_with(".parquet"));
    let rows = |path: PathBuf| {
        let file = fs::File::open(path).expect("a file stays");
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).expect("a whole file");
        builder.metadata().file_metadata().num_rows()
    };
    parquet.map(rows).sum()
}

#[test]
fn a_sink_of_its_own_query_comes_and_goes_with_its_view() {
    let (state, out) = (folder("state"), folder("out"));
    let sink = |name: &str, rest: &str| {
        let path = out.join(name);
        format!(
            "CREATE SINK {name} WITH (connector = 'parquet', path = '{}') AS SELECT k, id FROM t WHERE id % 2 = {rest}",
            text(&path)
        )
    };
    let file = written(&format!(
        "CREATE TABLE t (id BIGINT, k VARCHAR) APPEND ONLY;\n{};",
        sink("even", "0")
    ));
    let insert = |zeta: &Zeta, from: i64| {
        let rows: Vec<String> = (from..from + 10).map(|id| format!("({id}, 'k{id}')")).collect();
        zeta.query(&format!("INSERT INTO t VALUES {}", rows.join(", ")));
    };
    let until_rows = |name: &str, expected: i64| {
        until(&format!("{expected} rows of {name}"), || {
            match rows_in(&out.join(name)) {
                rows if rows == expected => Ok(()),
                rows => Err(format!("{rows}")),
            }
        });
    };
    let views = |zeta: &Zeta| zeta.rows("SHOW MATERIALIZED VIEWS").len();
    let zeta = start(&file, &state);
    insert(&zeta, 0);
    until_rows("even", 5);
    assert_eq!(views(&zeta), 1);
    zeta.query(&sink("odd", "1"));
    until_rows("odd", 5);
    insert(&zeta, 10);
    until_rows("even", 10);
    until_rows("odd", 10);
    assert_eq!(
        zeta.rows("SELECT count(*) FROM \"odd$rows\""),
        [serde_json::json!([10])]
    );
    zeta.query("DROP SINK odd");
    assert_eq!(views(&zeta), 1, "its view went with it");
    insert(&zeta, 20);
    until_rows("even", 15);
    zeta.kill();
    let zeta = start(&file, &state);
    insert(&zeta, 30);
    until_rows("even", 20);
    assert_eq!(rows_in(&out.join("odd")), 10);
    zeta.query("DROP SINK even");
    assert_eq!(views(&zeta), 0);
}

#[test]
fn a_sink_of_an_edited_view_goes_on_where_its_rows_are_the_same_and_is_refused_where_they_are_others() {
    let (state, out) = (folder("state"), folder("out"));
    let pipeline = |filter: &str, every: &str, name: &str| {
        written(&format!(
            "CREATE TABLE t (id BIGINT, k VARCHAR) APPEND ONLY;
             CREATE MATERIALIZED VIEW few AS SELECT k, id FROM t WHERE id % {filter} = 0 EMIT EVERY INTERVAL '{every}';
             CREATE SINK few_files FROM few WITH (connector = 'parquet', path = '{}');",
            text(&out.join(name))
        ))
    };
    let insert = |zeta: &Zeta, ids: std::ops::Range<i64>| {
        let rows: Vec<String> = ids.map(|id| format!("({id}, 'k{id}')")).collect();
        zeta.query(&format!("INSERT INTO t VALUES {}", rows.join(", ")));
    };
    let until_rows = |name: &str, expected: i64| {
        until(&format!("{expected} rows of {name}"), || {
            match rows_in(&out.join(name)) {
                rows if rows == expected => Ok(()),
                rows => Err(format!("{rows}")),
            }
        });
    };
    let zeta = start(&pipeline("2", "50 milliseconds", "one"), &state);
    insert(&zeta, 0..10);
    until_rows("one", 5);
    assert!(zeta.stop().success());

    // Rows of before would make it 20.
    let zeta = start(&pipeline("2", "100 milliseconds", "one"), &state);
    insert(&zeta, 10..30);
    until_rows("one", 15);
    assert!(zeta.stop().success());
    assert_eq!(rows_in(&out.join("one")), 15);

    let other = pipeline("4", "100 milliseconds", "one");
    let arguments = ["run", text(&other), "--listen", "127.0.0.1:0", "--state", text(&state)];
    let refused = zeta_with(&[], &arguments);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    for part in ["sink `few_files` would publish all of them again", "another `path`"] {
        assert!(refused.err.contains(part), "{part} in {}", refused.err);
    }
    let zeta = start(&pipeline("2", "100 milliseconds", "one"), &state);
    insert(&zeta, 30..40);
    until_rows("one", 20);
    assert!(zeta.stop().success());
    let zeta = start(&pipeline("4", "100 milliseconds", "two"), &state);
    until_rows("two", 10);
    assert_eq!(rows_in(&out.join("one")), 20, "files of before stay");
    assert!(zeta.stop().success());
}

#[test]
fn what_cannot_be_published_as_files_is_refused_with_what_to_do() {
    let source = "CREATE SOURCE t (id BIGINT, k VARCHAR, x DOUBLE, at TIMESTAMP, WATERMARK FOR at AS at) WITH (connector = 'memory');
         CREATE MATERIALIZED VIEW rows AS SELECT id, k, x, at FROM t;
         CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n FROM t GROUP BY k;";
    let of: BTreeMap<&str, [&str; 2]> = BTreeMap::from([
        (
            "FROM totals WITH (connector = 'parquet', path = '/tmp/x')",
            [
                "rows of `totals` change, and connector 'parquet' takes none back",
                "EMIT ON WINDOW CLOSE",
            ],
        ),
        (
            "FROM rows WITH (connector = 'parquet', path = '/tmp/x', partition_by = 'day')",
            ["names a column `day` that is not there", "there are id, k, x, at"],
        ),
        (
            "FROM rows WITH (connector = 'parquet', path = '/tmp/x', partition_by = 'x')",
            ["`x` is DOUBLE", "CAST(x AS DATE)"],
        ),
        (
            "FROM rows WITH (connector = 'parquet', path = 's3://bucket/x')",
            ["s3:// is not supported", "hdfs://"],
        ),
        (
            "FROM rows WITH (connector = 'parquet', path = 'hdfs:///x')",
            ["a name node is missing", "hdfs://host:port/folder"],
        ),
        (
            "FROM rows WITH (connector = 'parquet', path = '/tmp/x', target_file_size = 'big')",
            ["`big` is not a size", "'128 MB'"],
        ),
        (
            "FROM rows WITH (connector = 'parquet', path = '/tmp/x', compression = 'gzip')",
            ["takes 'zstd', 'snappy' or 'none'", "how the bytes"],
        ),
        (
            "FROM rows WITH (connector = 'parquet')",
            ["has no option `path`", "add to WITH: 'path'"],
        ),
    ]);
    for (sink, parts) in of {
        let file = written(&format!("{source}\nCREATE SINK s {sink};"));
        let outcome = zeta_with(&[], &["check", text(&file)]);
        assert_ne!(outcome.code, Some(0), "{sink}");
        for part in parts {
            assert!(outcome.err.contains(part), "{sink}: {}", outcome.err);
        }
    }
}
