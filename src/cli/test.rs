//! `zeta test DIR|FILE…`: scripts that test pipelines, on logical time, as written and varied.

use std::path::PathBuf;

use rand::Rng;

use crate::{runtime::clock::Stopwatch, types::Result};

use super::{
    counted,
    script::{self, Broken, End, Outcome, Plan},
    told::{complain, tell},
};

/// Test pipelines with scripts: rows in, rows expected; again with other epochs, orders and crashes
#[derive(clap::Args, Clone, Debug)]
pub struct TestArgs {
    /// Scripts, and folders with scripts (*.slt)
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Only scripts whose path contains this
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub filter: String,
    /// Varied runs of each script, besides the run as written and those with crashes everywhere
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub runs: u32,
    /// Where variations begin; the same number gives the same runs [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write the rows that come into the scripts in place of those that were expected, to be read before they are believed
    #[arg(long, conflicts_with_all = ["runs", "seed"])]
    pub update: bool,
}

/// In the order of what weighs more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tested {
    Held,
    Failed,
    /// A script or pipeline could not be run at all.
    Unusable,
}

/// Tries all scripts and tells about each on standard output.
pub fn run(args: &TestArgs) -> Result<Tested> {
    let watch = Stopwatch::start();
    let mut paths = match script::scripts_below(&args.paths) {
        Ok(paths) => paths,
        Err(mistakes) => {
            mistakes
                .iter()
                .for_each(|mistake| complain(format_args!("error: {mistake}")));
            return Ok(Tested::Unusable);
        }
    };
    paths.retain(|path| path.to_string_lossy().contains(&args.filter));
    if paths.is_empty() {
        complain(format_args!("error: no script has `{}` in its path", args.filter));
        return Ok(Tested::Unusable);
    }
    if args.update {
        return Ok(update(&paths));
    }
    let plan = Plan {
        // Short enough to be typed.
        seed: args.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000)),
        runs: args.runs,
    };
    let (mut counts, mut runs) = ([0; 3], 0);
    script::try_scripts(&paths, plan, |outcome| {
        tell(told(&outcome));
        counts[tested(&outcome) as usize] += 1;
        runs += outcome.runs;
    });
    let [held, failed, unusable] = counts;
    let seed = if args.runs == 0 {
        String::new()
    } else {
        format!(", seed {}", plan.seed)
    };
    let broken = match unusable {
        0 => String::new(),
        _ => format!(", {unusable} cannot be run"),
    };
    tell(format_args!(
        "{}: {held} ok, {failed} failed{broken}; {} in {:.1} s{seed}\n",
        counted(paths.len(), "script"),
        counted(runs, "run"),
        watch.elapsed().as_secs_f64()
    ));
    Ok(match (unusable, failed) {
        (0, 0) => Tested::Held,
        (0, _) => Tested::Failed,
        _ => Tested::Unusable,
    })
}

fn update(paths: &[PathBuf]) -> Tested {
    let mut gravest = Tested::Held;
    for path in paths {
        match script::update(path) {
            Ok(true) => tell(format_args!("changed {}\n", path.display())),
            Ok(false) => tell(format_args!("same    {}\n", path.display())),
            Err(end) => {
                let outcome = Outcome {
                    script: path.display().to_string(),
                    statements: 0,
                    runs: 1,
                    end,
                };
                tell(told(&outcome));
                gravest = gravest.max(tested(&outcome));
            }
        }
    }
    gravest
}

fn tested(outcome: &Outcome) -> Tested {
    match outcome.end {
        End::Held => Tested::Held,
        End::Failed(_) => Tested::Failed,
        End::Unusable(_) => Tested::Unusable,
    }
}

/// A line for a script that holds, a paragraph for one that does not.
pub fn told(outcome: &Outcome) -> String {
    let script = &outcome.script;
    match &outcome.end {
        End::Held => format!(
            "ok      {script}: {}, {}\n",
            counted(outcome.statements, "statement"),
            counted(outcome.runs, "run")
        ),
        End::Unusable(mistake) => format!("error   {script}\n\n{}\n", indented(mistake)),
        End::Failed(broken) => format!("failed  {script}\n\n{}\n", indented(&paragraph(script, broken))),
    }
}

fn paragraph(script: &str, broken: &Broken) -> String {
    let failure = &broken.failure;
    let place = match failure.line {
        0 => script.to_owned(),
        line => format!("{script}:{line}"),
    };
    let mut text = format!("{place}: {}\n", failure.sentence);
    for line in &failure.details {
        text.push_str(&format!("{line}\n"));
    }
    if !broken.perturbations.is_empty() {
        text.push_str("\nIt holds as written, and does not when only this is done otherwise:\n");
        for words in &broken.perturbations {
            text.push_str(&format!("  - {words}\n"));
        }
    }
    text.push_str(&format!("\nAgain: {}\n", broken.command));
    text
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| match line {
            "" => "\n".to_owned(),
            line => format!("    {line}\n"),
        })
        .collect()
}
