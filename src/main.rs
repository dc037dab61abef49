//! Arguments to a verb, and its outcome to an exit code: 0 ok, 1 failure, 2 usage, 3 SQL invalid, 4 dependency unreachable.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;
use zeta::{
    cli::{
        arguments::{Arguments, Verb},
        check,
        checkpoints::{self, Verified},
        demo,
        diff::{self, Compared},
        generate,
        pipeline::Verdict,
        replay, run,
        test::{self, Tested},
        told::complain,
        topics,
    },
    types::Error,
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(&arguments);
    let outcome = match &arguments.verb {
        Verb::Run(args) => run::run(args).map(code),
        Verb::Demo(args) => demo::run(args).map(code),
        Verb::Check(args) => check::run(args).map(code),
        Verb::Diff(args) => diff::run(args).map(|compared| match compared {
            Compared::GoesOn => ExitCode::SUCCESS,
            Compared::NeedsRebuild => ExitCode::from(1),
            Compared::Unusable(verdict) => code(verdict),
        }),
        Verb::Test(args) => test::run(args).map(|tested| match tested {
            Tested::Held => ExitCode::SUCCESS,
            Tested::Failed => ExitCode::from(1),
            Tested::Unusable => ExitCode::from(3),
        }),
        Verb::Generate(args) => generate::run(args).map(|()| ExitCode::SUCCESS),
        Verb::Replay(args) => replay::run(args, replay::connect).map(|()| ExitCode::SUCCESS),
        Verb::Topics(args) => topics::run(args).map(|()| ExitCode::SUCCESS),
        Verb::Checkpoints(args) => checkpoints::run(args).map(|verified| match verified {
            Verified::Whole => ExitCode::SUCCESS,
            Verified::Damaged => ExitCode::from(1),
        }),
    };
    outcome.unwrap_or_else(|error| {
        complain(format_args!("error: {error}"));
        match error {
            Error::External { .. } => ExitCode::from(4),
            _ => ExitCode::from(1),
        }
    })
}

fn code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Right => ExitCode::SUCCESS,
        Verdict::Wrong => ExitCode::from(3),
        Verdict::Unavailable => ExitCode::from(4),
    }
}

/// Events go to standard error; standard output is for data.
fn start_log(arguments: &Arguments) {
    // Libraries speak up only when something is wrong; ours as asked.
    let level = &arguments.log_level;
    let filter = match ["error", "warn", "info", "debug", "trace"].contains(&level.as_str()) {
        true => EnvFilter::new(format!("warn,zeta={level}")),
        false => EnvFilter::new(level),
    };
    // Colours are for people, not for files.
    let is_colourful = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_colourful)
        .with_target(false)
        // There is nowhere else to say that nobody reads the log any more.
        .log_internal_errors(false);
    match arguments.log_format.as_str() {
        "json" => log.json().init(),
        _ => log.init(),
    }
}
