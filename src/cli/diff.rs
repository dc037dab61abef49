//! `zeta diff OLD NEW`: what a start would do with the state of a pipeline that was edited.

use std::path::{Path, PathBuf};

use crate::{
    plan::{Change, Shapes, Verdict as ViewVerdict},
    runtime::{Engine, Rebuild, SourceChanges, SourceOverride},
    types::{Error, Result},
};

use super::{
    assemble::state_place,
    check::engine_on_paper,
    pipeline::{self, Verdict},
    run::{check_sources, parse_override},
    told::complain,
    topics::{aligned, print},
};

/// Say what becomes of each view when a pipeline is edited: exit code 1 where a start would refuse the kept state
#[derive(clap::Args, Clone, Debug)]
pub struct DiffArgs {
    /// The pipeline as it was and as it is now; with --state as it is now
    #[arg(required = true, num_args = 1..=2, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Compare with what the state in this folder is of
    #[arg(long, value_name = "DIR")]
    pub state: Option<String>,
    /// Read a source from elsewhere, as the start will: NAME=connector=replay,path=dataset/,speed=60x
    #[arg(long = "source", value_name = "NAME=OPTIONS", value_parser = parse_override)]
    pub sources: Vec<SourceOverride>,
    /// As JSON: an object per view
    #[arg(long)]
    pub json: bool,
}

/// What a start would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    GoesOn,
    /// It would refuse the state.
    NeedsRebuild,
    /// A file is not right.
    Unusable(Verdict),
}

/// # Errors
/// Where a file or state cannot be read.
pub fn run(args: &DiffArgs) -> Result<Compared> {
    let state = args.state.as_deref().map(state_place).transpose()?;
    let (before, now) = match (&state, args.files.as_slice()) {
        (Some(state), [file]) => {
            if !state.is_there()? {
                return Err(Error::user(format!("there is no state in {}", state.root.display())));
            }
            let now = match defined(file, &args.sources)? {
                Ok(engine) => engine,
                Err(verdict) => return Ok(Compared::Unusable(verdict)),
            };
            // What was made over HTTP is there after a start, too.
            let recalled = super::run::runtime()?.block_on(now.recall(state))?;
            recalled
                .told
                .iter()
                .for_each(|told| complain(format_args!("warning: {told}")));
            (now.kept_shapes(state)?, now)
        }
        (None, [old, new]) => {
            let (old, now) = match (defined(old, &args.sources)?, defined(new, &args.sources)?) {
                (Ok(old), Ok(now)) => (old, now),
                (Err(verdict), _) | (_, Err(verdict)) => return Ok(Compared::Unusable(verdict)),
            };
            // Without a view nothing was read: whatever comes begins with its source.
            let was_read = |shapes: &Shapes| !shapes.views.is_empty();
            (old.shapes().into_iter().filter(was_read).collect(), now)
        }
        (Some(_), _) => return Err(Error::user("with --state there is one file: the pipeline as it is now")),
        (None, _) => {
            return Err(Error::user(
                "name two files, the pipeline as it was and as it is now, or one and the folder of its state with --state",
            ));
        }
    };
    check_sources(&now, &args.sources)?;
    let changes = now.changes_since(&before, &Rebuild::default());
    print(&if args.json {
        as_json(&changes)?
    } else {
        as_text(&changes)
    })?;
    match changes.iter().all(SourceChanges::is_taken_up) {
        true => Ok(Compared::GoesOn),
        false => Ok(Compared::NeedsRebuild),
    }
}

/// The pipeline of a file, on paper.
fn defined(file: &Path, sources: &[SourceOverride]) -> Result<std::result::Result<Engine, Verdict>> {
    let text = pipeline::read(file)?;
    let engine = engine_on_paper(sources);
    let applied = super::run::runtime()?.block_on(engine.apply(&text, pipeline::parse(&text)));
    Ok(match applied {
        Ok(_) => Ok(engine),
        Err(diagnostics) => {
            pipeline::show(&text, &diagnostics);
            Err(Verdict::of(&diagnostics))
        }
    })
}

fn as_text(changes: &[SourceChanges]) -> String {
    let mut table = Vec::new();
    for SourceChanges {
        source,
        outcome,
        is_new,
    } in changes
    {
        match outcome {
            Err(differences) => table.push([
                source.clone(),
                "another source".to_owned(),
                format!("{}; only --reset starts over", differences.join("; ")),
            ]),
            Ok(changes) => table.extend((changes.iter()).map(|change| {
                [
                    change.view.clone(),
                    change.verdict.to_string(),
                    what_happens(change, *is_new),
                ]
            })),
        }
    }
    if table.is_empty() {
        return "there is no materialized view\n".to_owned();
    }
    aligned(&table)
}

fn what_happens(change: &Change, is_new: bool) -> String {
    let told = match change.verdict {
        ViewVerdict::Same => "goes on where it was".to_owned(),
        ViewVerdict::Resumes => "goes on with its state".to_owned(),
        ViewVerdict::Anew => "takes up what the views that it reads hold".to_owned(),
        ViewVerdict::New if is_new => "begins with its source".to_owned(),
        ViewVerdict::New => format!(
            "the rows that it reads were read already: --rebuild {} reads them again",
            change.view
        ),
        ViewVerdict::Dropped => "is forgotten".to_owned(),
        ViewVerdict::Rebuild => format!("refused without --rebuild {}", change.view),
    };
    match change.reasons.as_slice() {
        [] => told,
        reasons => format!("{told}: {}", reasons.join("; ")),
    }
}

fn as_json(changes: &[SourceChanges]) -> Result<String> {
    let mut all = Vec::new();
    for of_source in changes {
        let source = &of_source.source;
        match &of_source.outcome {
            Err(differences) => all.push(serde_json::json!({
                "source": source, "view": null, "verdict": "another source", "goes_on": false, "reasons": differences,
            })),
            Ok(changes) => all.extend(changes.iter().map(|change| {
                serde_json::json!({
                    "source": source,
                    "view": change.view,
                    "verdict": change.verdict.to_string(),
                    "goes_on": of_source.goes_on(change),
                    "reasons": change.reasons,
                })
            })),
        }
    }
    let text = serde_json::to_string_pretty(&all).map_err(|e| Error::bug(e.to_string()))?;
    Ok(text + "\n")
}
