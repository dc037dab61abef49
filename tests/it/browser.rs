//! The dashboard as it is served in production: Zeta behind nginx, in front of it a real browser.

use std::{path::Path, process::Command};

use crate::{
    services::Nginx,
    zeta::{Zeta, dataset, folder, until, zeta},
};

/// Tests of the browser that must have run, by a part of their names: the others skip what is not there.
const MUST_RUN: &[&str] = &[
    "a candle appears and moves",
    "history scrolls in at the left edge",
    "SQL joins the live view and its history",
    "the count per minute is a series",
    "the total is one large number that moves",
];

#[test]
fn a_browser_sees_moving_candles_history_and_joins_behind_nginx() {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    assert!(web.join("dist/index.html").exists(), "the page is not built: run make web");
    assert!(web.join("node_modules").exists(), "the page's tests have no packages: run make setup");
    // Ten days that were, and one that is happening now, sixty times as fast.
    let (history, live) = (dataset(3, 10, "2024-01-01"), folder("live"));
    zeta(&["generate", "--pairs", "3", "--days", "11", "--out", crate::zeta::text(&live)]).expect(0);
    let zeta = Zeta::run(Path::new("sql/candles.sql"))
        .arg("sql/trades_sum_per_event.sql")
        .env("HISTORY", crate::zeta::text(&history))
        .replay("candles", &live, ",speed=60x,from=2024-01-11")
        .replay("trades", &live, ",speed=60x,from=2024-01-11")
        .state(&folder("state"))
        .start();
    let nginx = Nginx::start(zeta.address());
    until("rows behind nginx", || {
        let status = ureq::get(format!("{}/readyz", nginx.url)).call().map(|answer| answer.status().as_u16());
        if status.as_ref().is_ok_and(|status| *status == 200) && 0 < zeta.source("candles").rows() { Ok(()) } else { Err(format!("{status:?}")) }
    });

    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    let output = Command::new("node")
        .args(["--test", "--test-reporter", "tap", "tests/browser/dashboard.test.mjs"])
        .current_dir(&web)
        .envs([("ZETA_URL", nginx.url.as_str()), ("CHROMIUM", &chromium)])
        .output()
        .expect("node runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for name in MUST_RUN {
        // `ok 3 - a candle appears and moves`
        let outcome = out.lines().map(str::trim_start).find(|line| line.starts_with("ok ") && line.contains(&format!(" - {name}")));
        let outcome = outcome.unwrap_or_else(|| panic!("no test of the browser that is fine: {name}\n{out}"));
        assert!(!outcome.contains("# SKIP"), "{outcome}");
    }
}
