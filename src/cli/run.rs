//! `zeta run FILE…`: pipelines, API and dashboard in one process, until it is told to stop.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    plan::Change,
    runtime::{Engine, EngineOptions, Mode, Rebuild, SourceOverride, clock::SystemClock, query_environment},
    serve::{self, ServeOptions},
    sql::{Diagnostic, SourceText, SqlState, StatementKind},
    state::Place,
    types::{Error, Result},
};

use super::{
    assemble::{MemoryTopics, registry, state_place},
    pipeline::{self, Verdict},
    told::complain,
};

/// Run pipelines, with their API and dashboard
#[derive(clap::Args, Clone, Debug)]
pub struct RunArgs {
    /// Pipeline files, or names of those that the binary carries, e.g. sql/candles.sql
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Address of API and dashboard
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8088",
        env = "ZETA_LISTEN"
    )]
    pub listen: SocketAddr,
    /// Folder for journals and checkpoints, of this machine or hdfs://host:port/folder
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".zeta/state",
        env = "ZETA_STATE",
        conflicts_with = "no_state"
    )]
    pub state: String,
    /// Keep nothing over a restart: read every source from its start
    #[arg(long)]
    pub no_state: bool,
    /// Forget what was computed, and read every source from its start; rows of tables of the files are kept
    #[arg(long)]
    pub reset: bool,
    /// Compute a view anew, and those that read it: from the rows that its source still has
    #[arg(long = "rebuild", value_name = "VIEW", conflicts_with_all = ["reset", "no_state"])]
    pub rebuild: Vec<String>,
    /// Forget what was made over HTTP under this name, with the rows of a table
    #[arg(long = "forget", value_name = "NAME", conflicts_with_all = ["reset", "no_state"])]
    pub forget: Vec<String>,
    /// With --rebuild: also where the source does not have all of its rows any more
    #[arg(long, requires = "rebuild")]
    pub rebuild_partial: bool,
    /// Read a source from elsewhere: NAME=connector=replay,path=dataset/,speed=60x
    #[arg(long = "source", value_name = "NAME=OPTIONS", value_parser = parse_override)]
    pub sources: Vec<SourceOverride>,
    /// Origin of pages that may use the API besides the dashboard, e.g. https://charts.example
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    pub allowed_origins: Vec<String>,
}

/// Runs pipelines that are right until it is told to stop.
pub fn run(args: &RunArgs) -> Result<Verdict> {
    let texts = args
        .files
        .iter()
        .map(|file| pipeline::read(file))
        .collect::<Result<Vec<_>>>()?;
    run_texts(&texts, args)
}

/// Runs pipelines whose text is at hand.
pub fn run_texts(texts: &[SourceText], args: &RunArgs) -> Result<Verdict> {
    let runtime = runtime()?;
    let state = match args.no_state {
        true => None,
        false => Some(state_place(&args.state)?),
    };
    let options = EngineOptions {
        state: state.clone(),
        mode: Mode::Live,
        overrides: args.sources.clone(),
    };
    let engine = Engine::new(
        registry(MemoryTopics::default(), query_environment()),
        options,
        Arc::new(SystemClock::default()),
    );
    for text in texts {
        let parsed = pipeline::parse(text);
        match runtime.block_on(engine.apply(text, parsed)) {
            Ok(warnings) => pipeline::show(text, &warnings),
            Err(diagnostics) => {
                pipeline::show(text, &diagnostics);
                return Ok(Verdict::of(&diagnostics));
            }
        }
    }
    check_sources(&engine, &args.sources)?;
    let serve_options = ServeOptions {
        listen: args.listen,
        allowed_origins: args.allowed_origins.clone(),
    };
    // The port first: nothing is read or written when it is taken.
    let listener = runtime.block_on(serve::bind(&serve_options))?;
    let recalled = match &state {
        None => None,
        Some(state) => {
            if args.reset {
                engine.forget_all_made(state)?;
                engine.reset()?;
            }
            for name in &args.forget {
                engine.forget_made(state, name)?;
            }
            Some(runtime.block_on(engine.recall(state))?)
        }
    };
    for told in recalled.iter().flat_map(|recalled| &recalled.told) {
        complain(format_args!("warning: {told}"));
    }
    let rebuild = Rebuild {
        views: args.rebuild.iter().cloned().collect(),
        takes_what_is_left: args.rebuild_partial,
    };
    engine.rebuild(rebuild.clone())?;
    engine.start().inspect_err(|error| {
        if let (Error::State(_), Some(state)) = (error, &state) {
            show_places(&engine, texts, state, &rebuild);
        }
    })?;
    if let (Some(recalled), Some(state)) = (recalled, &state) {
        engine.keep_definitions(state, recalled)?;
    }
    let address = listener
        .local_addr()
        .map_err(|e| Error::caused("cannot read the address", e))?;
    complain(format_args!("zeta: http://{address}"));
    let shutdown = CancellationToken::new();
    let serving = runtime.spawn(serve::serve(engine.clone(), serve_options, listener, shutdown.clone()));
    runtime.block_on(async {
        wait_for_signal().await;
        tracing::info!("stopping: the last epochs are finished and a checkpoint is written; once more to stop at once");
        tokio::spawn(async {
            wait_for_signal().await;
            std::process::exit(130);
        });
    });
    shutdown.cancel();
    engine.stop();
    match runtime.block_on(serving) {
        Ok(outcome) => outcome?,
        Err(panic) => return Err(Error::bug(panic.to_string())),
    }
    Ok(Verdict::Right)
}

/// Sources that are to be read from elsewhere are there.
pub(super) fn check_sources(engine: &Engine, wanted: &[SourceOverride]) -> Result<()> {
    let catalog = engine.catalog();
    let Some(missing) = (wanted.iter()).find(|wanted| catalog.source(&wanted.source).is_none()) else {
        return Ok(());
    };
    let near = crate::sql::suggest::nearest(&missing.source, catalog.names());
    let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
    Err(Error::user(format!(
        "--source {}: there is no such source{hint}",
        missing.source
    )))
}

/// Where the definitions stand that a kept state does not go on with. What cannot be compared is told by the error itself.
fn show_places(engine: &Engine, texts: &[SourceText], state: &Place, rebuild: &Rebuild) {
    let Ok(before) = engine.kept_shapes(state) else { return };
    let changes: Vec<Change> = (engine.changes_since(&before, rebuild).into_iter())
        .filter(|changes| !changes.is_new)
        .flat_map(|changes| changes.outcome.unwrap_or_default())
        .filter(|change| change.verdict.needs_rebuild() && !rebuild.views.contains(&change.view))
        .collect();
    for text in texts {
        let parsed = pipeline::parse(text);
        let place = |change: &Change| {
            let statement = parsed.statements.iter().find(|statement| match &statement.kind {
                StatementKind::CreateMaterializedView(view) => view.name.value == change.view,
                StatementKind::CreateSink(sink) => {
                    let own = sink.own_view.as_ref();
                    own.is_some_and(|own| own.create.name.value == change.view)
                }
                _ => false,
            })?;
            let message = match change.reasons.as_slice() {
                [] => format!("`{}` is new, and the rows that it reads were read already", change.view),
                reasons => reasons.join("; "),
            };
            let help = format!(
                "put back what was there, or compute it anew with --rebuild {}",
                change.view
            );
            Some(Diagnostic::error(SqlState::Unsupported, message, statement.span).help(help))
        };
        let places: Vec<Diagnostic> = changes.iter().filter_map(place).collect();
        pipeline::show(text, &places);
    }
}

pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Binding plans queries, and these nest.
        .thread_stack_size(8 << 20)
        .build()
        .map_err(|e| Error::caused("cannot start threads", e))
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupt), Ok(terminate)) => (interrupt, terminate),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be caught; stop it with kill -9, the state is safe");
            return std::future::pending().await;
        }
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// `candles=connector=replay,path=dataset/,speed=60x`
pub(super) fn parse_override(text: &str) -> Result<SourceOverride, String> {
    let usage = "write NAME=connector=replay,path=dataset/,speed=60x";
    let (source, options) = text.split_once('=').ok_or(usage)?;
    let options: Vec<(String, String)> = options
        .split(',')
        .map(|option| {
            option
                .split_once('=')
                .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
                .ok_or(usage)
        })
        .collect::<Result<_, _>>()?;
    if source.is_empty() || !options.iter().any(|(key, _)| key == "connector") {
        return Err(usage.into());
    }
    Ok(SourceOverride {
        source: source.to_owned(),
        options,
    })
}
