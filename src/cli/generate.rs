//! `zeta generate`: a directory of made-up candle history, for demos and measurements.

use std::path::PathBuf;

use clap::Args;

use super::progress::Progress;
use crate::{
    connector::{
        parquet::generate::{History, generate},
        replay::parse_time,
    },
    types::{Error, Result},
};

const DAY_NS: i64 = 86_400_000_000_000;

/// Make up history: one Parquet file of 1-minute candles per trading pair
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Trading pairs, a file each
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub pairs: u32,
    /// Days of candles from the start on
    #[arg(long, default_value_t = 30, conflicts_with = "end", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
    /// The same seed gives the same candles
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Directory for the files; made where it does not exist
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Time of the first candle, e.g. 2024-01-02 or 2024-01-02T03:04:05Z
    #[arg(long, value_name = "TIME", default_value = "2024-01-01", value_parser = parse_time)]
    pub start: i64,
    /// Time to stop before, in place of --days
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub end: Option<i64>,
}

impl GenerateArgs {
    /// # Errors
    /// The range holds no minute.
    pub fn history(&self) -> Result<History> {
        let days_end = || self.start.checked_add(i64::from(self.days) * DAY_NS);
        let end_ns = self
            .end
            .or_else(days_end)
            .ok_or_else(|| Error::user("the last day is out of range: years 1678 to 2262"))?;
        let history = History {
            pairs: self.pairs as usize,
            start_ns: self.start,
            end_ns,
            seed: self.seed,
        };
        match history.minutes() {
            0 => Err(Error::user("--end must lie at least a minute after --start")),
            _ => Ok(history),
        }
    }
}

/// # Errors
/// An empty range, or files that cannot be written.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let history = args.history()?;
    let mut progress = Progress::start("generate", Some(history.minutes() * u64::from(args.pairs)));
    generate(&history, &args.out, |rows| progress.advance(rows, None))?;
    progress.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn history(line: &str) -> Result<History, String> {
        let line = Line::try_parse_from(std::iter::once("generate").chain(line.split(' ')))
            .map_err(|error| error.to_string())?;
        line.args.history().map_err(|error| error.to_string())
    }

    #[test]
    fn the_range_is_given_by_days_or_an_end() {
        let start_ns = 1_704_067_200_000_000_000;
        let made = history("--out x --pairs 3 --days 2 --seed 9").unwrap();
        assert_eq!(
            made,
            History {
                pairs: 3,
                start_ns,
                end_ns: start_ns + 2 * DAY_NS,
                seed: 9
            }
        );
        assert_eq!(
            history("--out x --start 2024-01-01T00:00:00Z --end 2024-01-02")
                .unwrap()
                .minutes(),
            1_440
        );
        assert_eq!(
            history("--out x --end 2024-01-01").unwrap_err(),
            "--end must lie at least a minute after --start"
        );
        assert!(
            history("--out x --end 2024-02-01 --days 3")
                .unwrap_err()
                .contains("cannot be used with")
        );
        assert!(
            history("--out x --start yesterday")
                .unwrap_err()
                .contains("'yesterday' is not a time")
        );
        assert!(
            history("--out x --start 2262-01-01 --days 36500")
                .unwrap_err()
                .contains("out of range")
        );
        assert!(history("--pairs 3").unwrap_err().contains("--out"));
    }
}
