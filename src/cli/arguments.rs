//! The command line: verbs, and what goes with all of them.

use clap::{CommandFactory, Parser, Subcommand};

use super::{
    check::CheckArgs, demo::DemoArgs, generate::GenerateArgs, replay::ReplayArgs, run::RunArgs, topics::TopicsArgs,
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
    Generate(GenerateArgs),
    Replay(ReplayArgs),
    Topics(TopicsArgs),
}

/// All verbs with their arguments, for whoever wants to know them without running one.
pub fn command() -> clap::Command {
    Arguments::command()
}
