//! A state on HDFS: killed again and again, taken over by another process, and while nodes are down.
//!
//! ```text
//! history ─▶ replay ─▶ zeta run --state hdfs://… ─▶ files on this machine ─▶ DuckDB: lost, twice, wrong
//! ```

use std::path::PathBuf;

use crate::{
    parquet_sink::{
        PACED, PAIRS, assert_right, days_for, killed, number, pipeline, report, start, until_published, verdicts,
    },
    services::Hdfs,
    zeta::{Zeta, dataset, folder, signal, text, until, written, zeta},
};

fn published(zeta: &Zeta) -> u64 {
    zeta.rows("SHOW SINKS")[0][4].as_u64().unwrap_or(0)
}

#[track_caller]
fn until_more_is_published(zeta: &Zeta) {
    let before = published(zeta);
    until("it publishes", || match published(zeta) {
        now if before + 3 < now => Ok(()),
        now => Err(format!("{now}")),
    });
}

#[test]
fn killed_at_any_moment_a_state_on_hdfs_gives_each_row_once() {
    let (kills, seed) = (number("ZETA_KILLS", 5), number("ZETA_SEED", 2024));
    println!("ZETA_SEED={seed} ZETA_KILLS={kills}");
    let hdfs = Hdfs::start();
    let days = days_for(kills);
    let (dataset, out) = (dataset(PAIRS, days, "2024-01-01"), folder("out"));
    let state = PathBuf::from(format!("{}/zeta/state", hdfs.url));
    let (paced, unpaced) = (
        pipeline(&dataset, PACED, text(&out), ""),
        pipeline(&dataset, "max", text(&out), ""),
    );
    killed(kills, seed, &paced, &unpaced, &state, || false);
    let found = verdicts(&dataset, &out);
    report("state on hdfs", seed, kills, 0, PAIRS * days * 1_440, &found);
    assert_right(&dataset, &out, days);

    let state = text(&state);
    let verified = zeta(&["checkpoints", "verify", "--state", state]).expect(0);
    assert!(verified.err.contains("every byte is right"), "{}", verified.err);
    let listed = zeta(&["checkpoints", "ls", "--state", state]).expect(0);
    assert!(listed.out.contains("candles"), "{}", listed.out);
    let changes = zeta(&["diff", "--state", state, text(&paced)]).expect(0);
    assert!(changes.out.contains("every"), "{}", changes.out);
    let left: Vec<String> = hdfs.names("/zeta/state/candles/journal");
    assert!(left.iter().all(|name| name.ends_with(".jnl")), "{left:?}");
}

#[test]
fn who_starts_on_a_state_on_hdfs_takes_it_from_the_one_before() {
    let hdfs = Hdfs::start();
    let (dataset, out) = (dataset(PAIRS, 2, "2024-01-01"), folder("out"));
    let state = PathBuf::from(format!("{}/state", hdfs.url));
    let sleeper = start(&pipeline(&dataset, PACED, text(&out), ""), &state);
    until_more_is_published(&sleeper);
    signal(&sleeper, "STOP");
    let newer = start(&pipeline(&dataset, "max", text(&out), ""), &state);
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
    let is_told = reason.contains("has taken over the state") || reason.contains("another zeta publishes as sink");
    assert!(is_told, "{reason}");
    assert_right(&dataset, &out, 2);
    assert!(newer.stop().success());
}

#[test]
fn while_nodes_are_down_epochs_wait_and_then_go_on() {
    let mut hdfs = Hdfs::start();
    let days = 3;
    let (dataset, out) = (dataset(PAIRS, days, "2024-01-01"), folder("out"));
    let state = PathBuf::from(format!("{}/state", hdfs.url));
    let zeta = start(&pipeline(&dataset, PACED, text(&out), ""), &state);
    for node in ["namenode", "datanode"] {
        until_more_is_published(&zeta);
        hdfs.kill(node);
        until("it says that the state cannot be written", || {
            let source = zeta.source("candles");
            let is_told = source.state() == "unreachable" && source.reason().contains("nothing is lost");
            match is_told {
                true => Ok(()),
                false => Err(source.0.to_string()),
            }
        });
        hdfs.up();
    }
    until_published(&zeta);
    assert!(zeta.stop().success());
    assert_right(&dataset, &out, days);
}

#[test]
fn a_table_is_refused_on_a_state_that_is_not_of_this_machine() {
    let hdfs = Hdfs::start();
    let file =
        written("CREATE TABLE t (k BIGINT NOT NULL); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM t;");
    let state = format!("{}/state", hdfs.url);
    let refused = zeta(&["run", text(&file), "--listen", "127.0.0.1:0", "--state", &state]).expect(1);
    assert!(
        refused.err.contains("needs a folder of this machine"),
        "{}",
        refused.err
    );
}
