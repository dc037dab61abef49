//! How far a long verb has come: a bar on a terminal, a log line now and then elsewhere. All of it on stderr.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

use crate::{runtime::clock::Stopwatch, types::EventTime};

use super::told::complain;

/// How often a line is logged where there is no terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

pub struct Progress {
    verb: &'static str,
    watch: Stopwatch,
    rows: u64,
    rows_total: Option<u64>,
    /// On a terminal.
    bar: Option<ProgressBar>,
    /// When the last line was logged, and the rows by then.
    logged: (Duration, u64),
}

impl Progress {
    /// `rows_total`: how many rows there will be, if that is known and finite.
    pub fn start(verb: &'static str, rows_total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match rows_total {
                Some(rows) => (
                    ProgressBar::new(rows),
                    "{prefix} {wide_bar} {human_pos}/{human_len} rows  {per_sec}  {msg}  {eta} left",
                ),
                None => (
                    ProgressBar::no_length(),
                    "{prefix} {spinner} {human_pos} rows  {per_sec}  {msg}",
                ),
            };
            bar.with_style(ProgressStyle::with_template(template).expect("a template that indicatif knows"))
                .with_prefix(verb)
        });
        Self {
            verb,
            watch: Stopwatch::start(),
            rows: 0,
            rows_total,
            bar,
            logged: (Duration::ZERO, 0),
        }
    }

    /// `rows` more are done, up to `event_time` where they have one.
    pub fn advance(&mut self, rows: u64, event_time: Option<EventTime>) {
        self.rows += rows;
        if let Some(bar) = &self.bar {
            bar.inc(rows);
            if let Some(event_time) = event_time {
                bar.set_message(event_time.to_string());
            }
            return;
        }
        let elapsed = self.watch.elapsed();
        let (logged_at, logged_rows) = self.logged;
        if logged_at + LOG_INTERVAL <= elapsed {
            let rows_per_second = rate(self.rows - logged_rows, elapsed - logged_at);
            let event_time = event_time.map(|event_time| event_time.to_string());
            info!(
                verb = self.verb,
                rows = self.rows,
                rows_total = self.rows_total,
                rows_per_second,
                event_time,
                "progress"
            );
            self.logged = (elapsed, self.rows);
        }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }

    /// Takes the bar away and says what was done: `replay: 1440000 rows in 2.51 s, 573705 rows/s`.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        complain(summary(self.verb, self.rows, self.watch.elapsed()));
    }
}

fn summary(verb: &str, rows: u64, elapsed: Duration) -> String {
    format!(
        "{verb}: {rows} rows in {:.2} s, {} rows/s",
        elapsed.as_secs_f64(),
        rate(rows, elapsed)
    )
}

/// Rows per second, rounded.
fn rate(rows: u64, elapsed: Duration) -> u64 {
    // At least a microsecond, so that a rate stays a number.
    (rows as f64 / elapsed.as_secs_f64().max(1e-6)).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_rows_seconds_and_rate() {
        assert_eq!(
            summary("replay", 1_440_000, Duration::from_millis(2_500)),
            "replay: 1440000 rows in 2.50 s, 576000 rows/s"
        );
        assert_eq!(
            summary("generate", 0, Duration::ZERO),
            "generate: 0 rows in 0.00 s, 0 rows/s"
        );
    }

    #[test]
    fn rows_add_up() {
        let mut progress = Progress::start("test", Some(10));
        progress.advance(3, None);
        progress.advance(4, Some(EventTime(0)));
        assert_eq!(progress.rows(), 7);
    }
}
