//! Kafka under fault: topics that change behind a state, brokers and networks that fail, logins that are refused.
//!
//! The rows of the matrix in docs/reliability.md (B1 to B20) name the tests in here.

mod broker;
mod login;
mod network;
mod topic;

pub use network::number_of;

use crate::zeta::{Source, Zeta, until};

/// A source of numbers over a topic of the same name, and a view of all of them; `more` are options of the source.
fn numbers(brokers: &str, name: &str, more: &str) -> String {
    format!(
        "CREATE SOURCE {name} (n BIGINT) INCLUDE partition
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = '{brokers}', trigger = '20 ms'{more});
         CREATE MATERIALIZED VIEW seen AS SELECT n, partition FROM {name};"
    )
}

/// What the view holds, in order.
#[track_caller]
fn seen(zeta: &Zeta) -> Vec<u64> {
    let rows = zeta.rows("SELECT n FROM seen ORDER BY n");
    rows.iter().map(|row| row[0].as_u64().expect("a number")).collect()
}

#[track_caller]
fn until_rows(zeta: &Zeta, name: &str, count: u64) {
    zeta.until_source(name, "all rows", |source| count <= source.rows());
}

/// Waits until the source says that it needs a person, and why.
#[track_caller]
fn until_failed(zeta: &Zeta, name: &str) -> String {
    let failed = zeta.until_source(name, "a failure", |source| source.state() == "failed");
    failed.reason().to_owned()
}

#[track_caller]
fn until_state(zeta: &Zeta, name: &str, state: &str) -> Source {
    zeta.until_source(name, state, |source| source.state() == state)
}

/// The sum of a metric over all its labels.
#[track_caller]
fn metric(zeta: &Zeta, name: &str) -> f64 {
    let metrics = zeta.get("/metrics").expect(200);
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let values = metrics.text().lines().filter(of_name);
    values
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Waits until the log has a line that holds all of these.
#[track_caller]
fn until_logged(zeta: &Zeta, parts: &[&str]) -> String {
    until("a line of the log", || {
        let log = zeta.log();
        let line = log.lines().find(|line| parts.iter().all(|part| line.contains(part)));
        line.map(str::to_owned).ok_or(log)
    })
}
