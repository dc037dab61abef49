//! All runs of a script: as written, with crashes everywhere, then as many varied ones as are wanted, up to the first that fails.

use std::{
    any::Any,
    collections::{BTreeMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use super::{
    failure::Failure,
    file::Script,
    run::{Stop, run},
    shape::{Inserted, Shape},
    shrink::shrink,
    variation::{Event, Perturbation, Variation},
};

/// Runs that shrinking may take.
const TRIES_MAX: usize = 400;

/// Binding plans queries, and these nest.
const STACK_BYTES: usize = 8 << 20;

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first varied run takes this seed, the next one the number behind it.
    pub seed: u64,
    /// Varied runs of each script, besides those that need no seed.
    pub runs: u32,
}

/// What became of a script.
#[derive(Debug)]
pub struct Outcome {
    /// As messages call it.
    pub script: String,
    pub statements: usize,
    pub runs: usize,
    pub end: End,
}

#[derive(Debug)]
pub enum End {
    Held,
    Failed(Box<Broken>),
    /// It could not be run: the text says why.
    Unusable(String),
}

/// A run that gave something else than its script says.
#[derive(Debug)]
pub struct Broken {
    pub failure: Failure,
    /// What was done otherwise than written and cannot be left out, in words; nothing where it fails as written.
    pub perturbations: Vec<String>,
    /// What to type to see it again.
    pub command: String,
}

/// Tries scripts on as many threads as there are processors, and tells each outcome in the order of `paths`.
pub fn try_scripts(paths: &[PathBuf], plan: Plan, mut told: impl FnMut(Outcome)) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let threads = std::thread::available_parallelism()
        .map_or(2, |count| count.get())
        .min(paths.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (next, sender) = (&next, sender.clone());
            let work = move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(path) = paths.get(index) else { return };
                    if sender.send((index, try_script(path, plan))).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, work)
                .expect("a system without threads runs no engine");
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut turn = 0;
        for (index, outcome) in receiver {
            early.insert(index, outcome);
            while let Some(outcome) = early.remove(&turn) {
                told(outcome);
                turn += 1;
            }
        }
    });
}

/// Needs the stack of a main thread.
pub fn try_script(path: &Path, plan: Plan) -> Outcome {
    let mut outcome = Outcome {
        script: path.to_string_lossy().into_owned(),
        statements: 0,
        runs: 0,
        end: End::Held,
    };
    match Script::read(path) {
        Ok(script) => {
            outcome.statements = script.statements();
            let mut trial = Trial::new(&script, &attempt);
            outcome.end = trial.end(plan);
            outcome.runs = trial.runs;
        }
        Err(mistake) => outcome.end = End::Unusable(mistake),
    }
    outcome
}

type Attempt<'a> = dyn Fn(&Script, &Variation, &Shape) -> Result<Vec<Option<Inserted>>, Stop> + 'a;

struct Trial<'a> {
    script: &'a Script,
    attempt: &'a Attempt<'a>,
    shape: Shape,
    runs: usize,
}

impl<'a> Trial<'a> {
    fn new(script: &'a Script, attempt: &'a Attempt<'a>) -> Self {
        Self {
            script,
            attempt,
            shape: Shape::default(),
            runs: 0,
        }
    }

    fn end(&mut self, plan: Plan) -> End {
        let command = |rest: String| format!("zeta test {} {rest}", shell_word(&self.script.name));
        let without_seed = as_written(&self.script.name);
        match self.run(&Variation::default()) {
            Ok(inserted) => self.shape = Shape::of(self.script, inserted),
            Err(Stop::Unusable(text)) => return End::Unusable(text),
            Err(Stop::Failed(failure)) => {
                return End::Failed(Box::new(Broken {
                    failure,
                    perturbations: Vec::new(),
                    command: without_seed,
                }));
            }
        }
        let vary = self.script.vary;
        let mut variations = Vec::new();
        if vary.crashes {
            for event in [Event::Crash, Event::CheckpointAndCrash] {
                variations.push((Variation::behind_each(event, &self.shape), without_seed.clone()));
            }
        }
        for run in 0..u64::from(plan.runs) {
            let seed = plan.seed.wrapping_add(run);
            let variation = Variation::random(seed, vary, &self.shape);
            variations.push((variation, command(format!("--seed {seed} --runs 1"))));
        }
        let mut done = HashSet::from([Variation::default()]);
        for (variation, command) in variations {
            // A short script has few variations.
            if !done.insert(variation.clone()) {
                continue;
            }
            if let Err(stop) = self.run(&variation) {
                return self.shrunk(variation, stop, command);
            }
        }
        End::Held
    }

    /// The least of a variation that still fails, and how it does.
    fn shrunk(&self, variation: Variation, stop: Stop, command: String) -> End {
        let mut last = stop;
        let fails = |parts: &[Perturbation]| match (self.attempt)(self.script, &Variation(parts.to_vec()), &self.shape)
        {
            Ok(_) => false,
            Err(stop) => {
                last = stop;
                true
            }
        };
        let left = shrink(variation.0, Perturbation::weaker, fails, TRIES_MAX);
        match last {
            Stop::Unusable(text) => End::Unusable(text),
            Stop::Failed(failure) => End::Failed(Box::new(Broken {
                failure,
                perturbations: left.iter().map(|part| part.words(self.script)).collect(),
                command,
            })),
        }
    }

    fn run(&mut self, variation: &Variation) -> Result<Vec<Option<Inserted>>, Stop> {
        self.runs += 1;
        (self.attempt)(self.script, variation, &self.shape)
    }
}

/// A run; a panic in it is a failure like others.
fn attempt(script: &Script, variation: &Variation, shape: &Shape) -> Result<Vec<Option<Inserted>>, Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Unusable(format!("cannot start: {error}")))?;
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(script, variation, shape)))).unwrap_or_else(|panic| {
        let message = format!("this is a bug in zeta, please report it: {}", words_of(&*panic));
        Err(Stop::Failed(Failure::new(0, message)))
    })
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

/// What to type to run a script again as it is written.
pub(super) fn as_written(script: &str) -> String {
    format!("zeta test {} --runs 0", shell_word(script))
}

/// As a shell takes it for one word.
fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SplitId;

    const PLAN: Plan = Plan { seed: 1, runs: 20 };

    fn script() -> Script {
        let text = "statement ok\nINSERT INTO t VALUES (1), (2), (3), (4)\n\n\
                    statement ok\nINSERT INTO t SPLIT 1 VALUES (5), (6), (7), (8)\n\nquery I\nSELECT 1\n----\n1\n";
        Script::parse("a b.slt", text, &|_| Err("no file".into())).unwrap()
    }

    /// Four rows into each of two splits.
    fn inserted(script: &Script) -> Vec<Option<Inserted>> {
        let split_of = |record| match script.line(record) {
            1 => Some("0"),
            4 => Some("1"),
            _ => None,
        };
        let inserted = |split| Inserted {
            source: "t".into(),
            split: SplitId::new(split),
            rows: 4,
            split_is_known: true,
        };
        (0..script.records.len())
            .map(|record| split_of(record).map(inserted))
            .collect()
    }

    /// Tries the script against an engine that fails where `breaks`.
    fn end(breaks: impl Fn(&Script, &Variation, &Shape) -> bool) -> (End, usize) {
        let script = script();
        let attempt = |script: &Script, variation: &Variation, shape: &Shape| {
            if breaks(script, variation, shape) {
                return Err(Stop::Failed(Failure::new(7, "it broke")));
            }
            Ok(inserted(script))
        };
        let mut trial = Trial::new(&script, &attempt);
        (trial.end(PLAN), trial.runs)
    }

    fn broken(end: End) -> Broken {
        match end {
            End::Failed(broken) => *broken,
            other => panic!("{other:?}"),
        }
    }

    fn record(script: &Script, line: u32) -> usize {
        (0..script.records.len())
            .find(|record| script.line(*record) == line)
            .unwrap()
    }

    #[test]
    fn what_only_a_cut_at_one_place_shows_is_shrunk_to_that_cut() {
        let (end, _) = end(|script, variation, _| {
            let turn = variation.turn(record(script, 4));
            turn.cuts.iter().any(|(row, _)| *row == 2)
        });
        let broken = broken(end);
        assert_eq!(broken.perturbations, ["the INSERT of line 4 is cut behind row 2"]);
        let words: Vec<&str> = broken.command.split(' ').collect();
        assert_eq!(words[..4], ["zeta", "test", "'a", "b.slt'"]);
        assert_eq!((words[4], words[6], words[7]), ("--seed", "--runs", "1"));
    }

    #[test]
    fn the_command_finds_the_same_again() {
        let fails = |script: &Script, variation: &Variation, shape: &Shape| {
            let order = variation.order(script.records.len(), shape);
            let place = |line| order.iter().position(|other| *other == record(script, line));
            place(4) < place(1)
        };
        let broken = broken(end(fails).0);
        assert_eq!(broken.perturbations, ["line 4 runs before line 1"]);
        let seed = broken.command.split(' ').nth(5).unwrap().parse().unwrap();
        let script = script();
        let shape = Shape::of(&script, inserted(&script));
        let alone = Variation::random(seed, script.vary, &shape);
        assert!(fails(&script, &alone, &shape), "{}", broken.command);
    }

    #[test]
    fn a_crash_that_matters_is_found_without_a_seed() {
        let (end, runs) = end(|script, variation, _| {
            variation
                .behind(record(script, 4))
                .any(|event| event != Event::Checkpoint)
        });
        let broken = broken(end);
        assert_eq!(broken.perturbations, ["a crash behind line 4"]);
        assert_eq!(broken.command, "zeta test 'a b.slt' --runs 0");
        assert_eq!(runs, 2, "as written, and with a crash behind every statement");
    }

    #[test]
    fn what_fails_as_written_is_not_varied() {
        let (end, runs) = end(|_, _, _| true);
        let broken = broken(end);
        assert_eq!((broken.perturbations.len(), runs), (0, 1));
        assert_eq!((broken.failure.line, broken.failure.sentence.as_str()), (7, "it broke"));
    }

    #[test]
    fn runs_that_would_be_equal_are_one() {
        let (end, runs) = end(|_, _, _| false);
        assert!(matches!(end, End::Held));
        assert!((10..=23).contains(&runs), "{runs}");
    }
}
