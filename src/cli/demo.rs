//! `zeta demo`: the main job without any service. The pipeline is production's; only its source is another.
//!
//! ```text
//! seed ─▶ generate ─┬─ all but the last hours ─▶ Parquet: the history
//!                   └─ the last hours, at 60x ─▶ connector 'replay' ─▶ sql/candles.sql ─▶ API and dashboard
//! ```

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    connector::parquet::generate::{History, generate},
    runtime::SourceOverride,
    sql::SourceText,
    types::{Error, Result, format_event_time},
};

use super::{
    pipeline::{EMBEDDED, Verdict},
    run::{RunArgs, run_texts},
    told::complain,
};

const HOUR_NS: i64 = 3_600_000_000_000;
/// A Monday, so that the numbers look like a week that was.
const START_NS: i64 = 1_704_067_200_000_000_000;

/// Show moving candles without Kafka and HDFS, from data that is made up
#[derive(clap::Args, Clone, Debug)]
pub struct DemoArgs {
    /// Address of API and dashboard
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8088",
        env = "ZETA_LISTEN"
    )]
    pub listen: SocketAddr,
    /// Trading pairs
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=999))]
    pub pairs: u32,
    /// Days of history before the live part
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=365))]
    pub days: u32,
    /// The same seed gives the same candles
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// How much faster than it happened: 60x, or 'max'
    #[arg(long, default_value = "60x")]
    pub speed: String,
}

/// Whether it ran.
pub fn run(args: &DemoArgs) -> Result<Verdict> {
    let folder = std::env::temp_dir().join(format!("zeta-demo-{}", std::process::id()));
    let outcome = run_in(args, &folder);
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(folder = %folder.display(), %error, "the demo's folder stays");
    }
    outcome
}

fn run_in(args: &DemoArgs, folder: &std::path::Path) -> Result<Verdict> {
    let (history, live): (PathBuf, PathBuf) = (folder.join("history"), folder.join("live"));
    let live_start_ns = START_NS + i64::from(args.days) * 24 * HOUR_NS;
    // A day of minutes at 60x lasts 24 minutes of watching.
    let made = |start_ns, end_ns| History {
        pairs: args.pairs as usize,
        start_ns,
        end_ns,
        seed: args.seed,
    };
    complain(format_args!(
        "zeta: making {} pairs, {} days of history",
        args.pairs, args.days
    ));
    generate(&made(START_NS, live_start_ns + 24 * HOUR_NS), &live, |_| {})?;
    generate(&made(START_NS, live_start_ns), &history, |_| {})?;
    let (name, text) = EMBEDDED[0];
    let text = text.replace("${HISTORY:-dataset/}", &history.to_string_lossy());
    if text == EMBEDDED[0].1 {
        return Err(Error::bug("the demo's pipeline has no place for its history"));
    }
    let source = SourceOverride {
        source: "candles".into(),
        options: [
            ("connector", "replay".to_owned()),
            ("path", live.to_string_lossy().into_owned()),
            ("speed", args.speed.clone()),
            ("from", format_event_time(live_start_ns)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec(),
    };
    let run = RunArgs {
        files: vec![],
        listen: args.listen,
        state: folder.join("state").to_string_lossy().into_owned(),
        no_state: false,
        reset: false,
        rebuild: vec![],
        forget: vec![],
        rebuild_partial: false,
        sources: vec![source],
        allowed_origins: vec![],
    };
    run_texts(&[SourceText::new(name, text)], &run)
}
