//! `zeta checkpoints`: what lies in a state folder, and whether every byte of it is right.

use clap::{Args, Subcommand};

use crate::{
    plan::Shapes,
    state::{Inspection, Place, folders, inspection_of},
    types::{Error, Result, folder_name},
};

use super::{
    assemble::state_place,
    told::complain,
    topics::{aligned, print},
};

/// Look at the kept state: its checkpoints and its journal
#[derive(Args, Debug)]
pub struct CheckpointsArgs {
    /// Folder of the state, of this machine or hdfs://host:port/folder
    #[arg(
        long,
        env = "ZETA_STATE",
        default_value = ".zeta/state",
        global = true,
        value_name = "DIR"
    )]
    state: String,
    #[command(subcommand)]
    command: CheckpointsCommand,
}

#[derive(Subcommand, Debug)]
enum CheckpointsCommand {
    /// List the checkpoints of all sources and tables
    #[command(visible_alias = "list")]
    Ls,
    /// Show what a checkpoint holds
    Show {
        /// Name of the source or table
        source: String,
        /// Epoch of the checkpoint; the newest where it is not given
        epoch: Option<u64>,
    },
    /// Read every byte, and say what is wrong
    Verify {
        /// Name of the source or table; all where it is not given
        source: Option<String>,
    },
}

/// Whether what was looked at is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    Whole,
    Damaged,
}

/// # Errors
/// Where there is no such state, source or checkpoint, or it cannot be read.
pub fn run(args: &CheckpointsArgs) -> Result<Verified> {
    let state = state_place(&args.state)?;
    match &args.command {
        CheckpointsCommand::Ls => {
            let mut table = vec![
                [
                    "source",
                    "epoch",
                    "generation",
                    "bytes",
                    "epochs in the journal behind it",
                ]
                .map(str::to_owned),
            ];
            let all = of(&state, None)?;
            for state in &all {
                for checkpoint in &state.checkpoints {
                    let bytes: u64 = checkpoint.parts.iter().map(|(_, bytes)| bytes).sum();
                    let behind = state
                        .journal
                        .map_or(0, |(_, last)| last.0.saturating_sub(checkpoint.epoch.0));
                    table.push([
                        state.folder.clone(),
                        checkpoint.epoch.to_string(),
                        checkpoint.generation.to_string(),
                        bytes.to_string(),
                        behind.to_string(),
                    ]);
                }
                if state.checkpoints.is_empty() {
                    let epochs = state.journal.map_or(0, |(first, last)| last.0 - first.0 + 1);
                    table.push([&state.folder, "-", "-", "0", &epochs.to_string()].map(str::to_owned));
                }
            }
            print(&aligned(&table))?;
            Ok(told(&all))
        }
        CheckpointsCommand::Show { source, epoch } => {
            let all = of(&state, Some(source))?;
            let checkpoint = all[0].checkpoint(*epoch)?;
            let header = serde_json::to_string_pretty(&checkpoint.header)
                .map_err(|e| Error::bug(format!("a header cannot be shown: {e}")))?;
            // What another version wrote is shown as it is.
            let definition = Shapes::of_text(&checkpoint.definition)
                .map_or_else(|_| checkpoint.definition.clone(), |shapes| shapes.to_string());
            let mut text = format!(
                "checkpoint of `{source}` at epoch {}, written by zeta {} in generation {}\n\n{}\n\n{header}\n\n",
                checkpoint.epoch, checkpoint.engine_version, checkpoint.generation, definition
            );
            let mut table = vec![["part", "bytes"].map(str::to_owned)];
            table.extend((checkpoint.parts.iter()).map(|(part, bytes)| [part.clone(), bytes.to_string()]));
            text.push_str(&aligned(&table));
            print(&text)?;
            Ok(told(&all))
        }
        CheckpointsCommand::Verify { source } => {
            let all = of(&state, source.as_deref())?;
            let verified = told(&all);
            if verified == Verified::Whole {
                let checkpoints: usize = all.iter().map(|state| state.checkpoints.len()).sum();
                let journal: u64 = all.iter().map(|state| state.journal_bytes).sum();
                complain(format_args!(
                    "every byte is right: {checkpoints} checkpoints, {journal} bytes of journal"
                ));
            }
            Ok(verified)
        }
    }
}

/// The states in a folder, or that of one source.
fn of(state: &Place, source: Option<&str>) -> Result<Vec<Inspection>> {
    if !state.is_there()? {
        return Err(Error::user(format!(
            "there is no state in {}; name its folder with --state",
            state.root.display()
        )));
    }
    let all = folders(state)?;
    let Some(source) = source else {
        return all.iter().map(inspection_of).collect();
    };
    let wanted = state.join(&folder_name(source));
    if !all.iter().any(|folder| folder.root == wanted.root) {
        let names: Vec<&str> = (all.iter())
            .filter_map(|folder| folder.root.file_name()?.to_str())
            .collect();
        return Err(Error::user(match names.as_slice() {
            [] => format!("there is no state of any source in {}", state.root.display()),
            names => format!(
                "there is no state of `{source}` in {}; there are {}",
                state.root.display(),
                names.join(", ")
            ),
        }));
    }
    Ok(vec![inspection_of(&wanted)?])
}

fn told(all: &[Inspection]) -> Verified {
    let mut verified = Verified::Whole;
    for problem in all.iter().flat_map(|state| &state.problems) {
        verified = Verified::Damaged;
        complain(format_args!("damaged: {problem}"));
    }
    verified
}
