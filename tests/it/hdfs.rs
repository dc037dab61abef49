//! History on a real HDFS: the same answers as from disk, and what is said when it is not there.

use std::{net::TcpListener, path::Path};

use crate::{
    services::{Hdfs, free_port},
    zeta::{Outcome, Zeta, dataset, edited, folder, now, text, zeta_with},
};

#[test]
fn history_on_hdfs_answers_as_the_same_files_on_disk() {
    let hdfs = Hdfs::start();
    let dataset = dataset(3, 2, "2024-01-01");
    hdfs.put(&dataset, "/user/dataset/");
    let local = format!(
        "CREATE EXTERNAL TABLE local INCLUDE file_name AS symbol STORED AS PARQUET LOCATION '{}';\nCREATE MATERIALIZED VIEW candles_5m AS",
        text(&dataset)
    );
    let file = edited("sql/candles.sql", &[("CREATE MATERIALIZED VIEW candles_5m AS", &local)]);
    let zeta = Zeta::run(&file)
        .env("HISTORY", format!("{}/user/dataset/", hdfs.url))
        .replay("candles", &dataset, ",speed=max,from=2024-01-02")
        .state(&folder("state"))
        .start();
    for columns in [
        "count(*), avg(close)",
        "symbol, count(*), avg(close), min(open_time), max(open_time)",
    ] {
        let of = |table: &str| {
            let group = if columns.starts_with("symbol") {
                "GROUP BY symbol ORDER BY symbol"
            } else {
                ""
            };
            zeta.rows(&format!("SELECT {columns} FROM {table} {group}"))
        };
        let (remote, local) = (of("history"), of("local"));
        assert_eq!(remote, local);
        assert!(!remote.is_empty());
    }
    assert_eq!(
        zeta.rows("SELECT count(*) FROM history"),
        [serde_json::json!([3 * 2 * 1_440])]
    );
    let symbols = zeta.rows("SELECT DISTINCT symbol FROM history ORDER BY symbol");
    assert_eq!(
        symbols,
        [["ADA-USDT"], ["BTC-USDT"], ["ETH-USDT"]].map(|row| serde_json::json!(row)),
        "from the names of the files"
    );

    // The view goes on into HDFS.
    zeta.until_source("candles", "the end", |source| source.state() == "finished");
    let page = zeta
        .get("/api/v1/views/candles_5m/rows?symbol=ADA-USDT&limit=576&shape=objects")
        .expect(200);
    let page = page.json();
    let rows = page["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2 * 288, "both days");
    assert_eq!(rows[0]["window_start"], "2024-01-01T00:00:00Z");
    drop(zeta);

    let outcome = refused(&format!("{}/user/nowhere/", hdfs.url), 3);
    assert!(outcome.err.contains("/user/nowhere"), "{}", outcome.err);
}

#[test]
fn a_name_node_that_is_not_there_is_said_within_seconds() {
    let port = free_port();
    let outcome = refused(&format!("hdfs://127.0.0.1:{port}/user/dataset/"), 4);
    assert!(outcome.err.contains(&format!("127.0.0.1:{port}")), "{}", outcome.err);
}

#[test]
fn a_name_node_that_takes_connections_and_says_nothing_is_given_up() {
    // The kernel accepts; nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let outcome = refused(&format!("hdfs://{address}/user/dataset/"), 4);
    assert!(outcome.err.contains(&address.to_string()), "{}", outcome.err);
}

/// A run whose history cannot be opened: it ends within 30 seconds with this code, and says why in a paragraph.
#[track_caller]
fn refused(history: &str, code: i32) -> Outcome {
    let began = now();
    let state = folder("state");
    let dataset = dataset(1, 1, "2024-01-01");
    let source = format!("candles=connector=replay,path={},speed=max", text(&dataset));
    let arguments = [
        "run",
        text(Path::new("sql/candles.sql")),
        "--listen",
        "127.0.0.1:0",
        "--state",
        text(&state),
        "--source",
        &source,
    ];
    let outcome = zeta_with(&[("HISTORY", history)], &arguments);
    assert!(
        began.elapsed().as_secs() < 30,
        "it took {:?}: {}",
        began.elapsed(),
        outcome.err
    );
    assert_eq!(outcome.code, Some(code), "{}", outcome.err);
    assert!(
        !outcome.err.contains("panicked") && !outcome.err.contains("stack backtrace"),
        "{}",
        outcome.err
    );
    assert!(
        outcome.err.lines().count() < 15 && outcome.err.contains("history"),
        "{}",
        outcome.err
    );
    outcome
}
