//! The command line: verbs, and what goes with all of them.

use clap::{CommandFactory, Parser, Subcommand};

use super::{
    check::CheckArgs, demo::DemoArgs, generate::GenerateArgs, replay::ReplayArgs, run::RunArgs, test::TestArgs,
    topics::TopicsArgs,
};

/// Streaming SQL: Kafka topics become continuously maintained views, beside Parquet history
#[derive(Parser, Debug)]
#[command(name = "zeta", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
    /// What to log: error, warn, info, debug, or a filter such as zeta=debug
    #[arg(long, global = true, default_value = "info", env = "ZETA_LOG")]
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
    Test(TestArgs),
    Generate(GenerateArgs),
    Replay(ReplayArgs),
    Topics(TopicsArgs),
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
}
