//! The command line: verbs, and what goes with all of them.

use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::sql::suggest::nearest;

use super::{
    check::CheckArgs, checkpoints::CheckpointsArgs, demo::DemoArgs, diff::DiffArgs, generate::GenerateArgs,
    replay::ReplayArgs, run::RunArgs, test::TestArgs, topics::TopicsArgs,
};

/// Streaming SQL: Kafka topics become continuously maintained views, beside Parquet history
#[derive(Parser, Debug)]
#[command(name = "zeta", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
    /// What to log: error, warn, info, debug, or a filter such as zeta=debug
    #[arg(long, global = true, default_value = "info", env = "ZETA_LOG", value_parser = log_filter)]
    pub log_level: String,
    /// How to log
    #[arg(long, global = true, default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
}

#[derive(Subcommand, Debug)]
pub enum Verb {
    Run(RunArgs),
    Demo(DemoArgs),
    Check(CheckArgs),
    Diff(DiffArgs),
    Test(TestArgs),
    Generate(GenerateArgs),
    Replay(ReplayArgs),
    Topics(TopicsArgs),
    Checkpoints(CheckpointsArgs),
}

const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// Takes a level, or a filter of `tracing` whose every part says a level: a word that is none would be taken for the name of a part of
/// the program, and turn off all others.
fn log_filter(text: &str) -> Result<String, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    for part in parts {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level.trim());
        if LOG_LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            continue;
        }
        return Err(match nearest(level, LOG_LEVELS) {
            Some(near) => format!("`{level}` is no level; did you mean `{near}`?"),
            None => format!(
                "`{level}` is no level; write one of {}, or a filter such as zeta=debug",
                LOG_LEVELS.join(", ")
            ),
        });
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; write a filter such as zeta=debug")),
    }
}

/// All verbs with their arguments, for whoever wants to know them without running one.
pub fn command() -> clap::Command {
    Arguments::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_says_what_each_verb_does() {
        fn silent(command: &clap::Command, path: &str) -> Vec<String> {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let path = format!("{path} {}", command.get_name());
            let under = command.get_subcommands().flat_map(|verb| silent(verb, &path));
            under.chain(about.is_empty().then(|| path.clone())).collect()
        }
        assert_eq!(silent(&command(), ""), Vec::<String>::new());
    }

    #[test]
    fn a_log_level_that_is_none_is_refused_with_the_nearest() {
        for (text, expected) in [
            ("warn", None),
            ("INFO", None),
            ("off", None),
            ("zeta=debug", None),
            ("warn,zeta::runtime=trace", None),
            ("", None),
            ("wran", Some("`wran` is no level; did you mean `warn`?")),
            ("zeta=dbug", Some("`dbug` is no level; did you mean `debug`?")),
            ("warn,zeta", Some("`zeta` is no level; write one of error, warn, info")),
        ] {
            match (log_filter(text), expected) {
                (Ok(filter), None) => assert_eq!(filter, text),
                (Err(error), Some(expected)) => assert!(error.starts_with(expected), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
