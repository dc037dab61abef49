//! `zeta check FILE…`: everything that is wrong with pipeline files, without starting anything and without the network.

use std::{path::PathBuf, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;

use crate::{
    plan::{ExternalFuture, OpenExternal, StreamRelation},
    runtime::{Engine, EngineOptions, Mode, SourceOverride, clock::SystemClock, query_environment},
    types::Result,
};

use super::{
    assemble::{MemoryTopics, registry},
    counted,
    pipeline::{self, Verdict},
    told::tell,
};

/// Find all mistakes of pipeline files
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// Pipeline files, or '-' for standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
}

/// The gravest verdict of all files.
pub fn run(args: &CheckArgs) -> Result<Verdict> {
    let runtime = super::run::runtime()?;
    let mut verdict = Verdict::Right;
    for file in &args.files {
        let text = pipeline::read(file)?;
        let parsed = pipeline::parse(&text);
        let engine = engine_on_paper(&[]);
        let statements = parsed.statements.len();
        match runtime.block_on(engine.apply(&text, parsed)) {
            Ok(warnings) => {
                pipeline::show(&text, &warnings);
                tell(format_args!(
                    "{}: {}, all right\n",
                    text.name,
                    counted(statements, "statement")
                ));
            }
            Err(diagnostics) => {
                pipeline::show(&text, &diagnostics);
                verdict = verdict.max(Verdict::of(&diagnostics));
            }
        }
    }
    Ok(verdict)
}

/// One that defines and starts nothing, without the network; with sources from elsewhere than the file says.
pub(super) fn engine_on_paper(overrides: &[SourceOverride]) -> Engine {
    let mut registry = registry(MemoryTopics::default(), query_environment());
    // A file server may be far away: its tables are taken on trust.
    registry.open_external = offline(registry.open_external);
    let options = EngineOptions {
        state: None,
        mode: Mode::Manual,
        overrides: overrides.to_vec(),
    };
    Engine::new(registry, options, Arc::new(SystemClock::default()))
}

type Open = Arc<dyn Fn(OpenExternal) -> ExternalFuture + Send + Sync>;

/// Local folders are looked at; what is elsewhere, or not there yet, is bound without columns of its own.
fn offline(open: Open) -> Open {
    Arc::new(move |table| {
        let is_local = !table.location.contains("://") || table.location.starts_with("file://");
        let path = table.location.strip_prefix("file://").unwrap_or(&table.location);
        if is_local && std::path::Path::new(path).exists() {
            return open(table);
        }
        Box::pin(async move {
            tracing::info!("{}", not_looked_at(&table));
            Ok(on_trust(&table))
        })
    })
}

/// A table without looking at its files: it has no columns but that of their name.
pub(super) fn on_trust(table: &OpenExternal) -> Arc<dyn TableProvider> {
    let columns = table
        .file_name_column
        .iter()
        .map(|name| Field::new(name, DataType::Utf8View, false));
    let schema = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
    Arc::new(StreamRelation::new(&table.name, schema, not_looked_at(table)))
}

fn not_looked_at(table: &OpenExternal) -> String {
    format!("the files of `{}` in {} were not looked at", table.name, table.location)
}
