//! The documents against the program: what they tell people to write is run, and what they list is complete.
//!
//! ```text
//! README.md, ARCHITECTURE.md, docs/*.md ─┬─ ```sql   ─▶ one engine per document, statement by statement
//!                                        ├─ ```sh    ─▶ bash, with the built zeta and a real Kafka
//!                                        ├─ ```text behind one of them ─▶ its output, to the letter
//!                                        └─ tables, links ─▶ options, metrics, verbs, files
//! ```
//! A block that starts with `-- error: …` must fail and say this. One that names a file, `-- NAME.sql`, is there as that file for what
//! follows. A command behind which `# exit code N` stands ends with that.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use zeta::{
    cli::{MemoryTopics, arguments, generate, registry},
    connector::{OptionSpec, Options, kafka, nexmark, parquet, replay},
    format::{avro, json},
    plan::{Registry, SINK_OPTIONS, SOURCE_OPTIONS, VIEW_OPTIONS},
    runtime::{Engine, EngineOptions, Metrics, Mode, ProblemKind, SqlRequest, clock::ManualClock, query_environment},
    sql::{self, Color, Diagnostic, SourceText, StatementKind},
    types::{EventTime, limits},
};

use crate::services::Kafka;

/// 2024-01-01T00:00:00Z: what `now()` says while a document is read.
const NOW: EventTime = EventTime(1_704_067_200_000_000_000);
/// Ports that documents name; each is another one here.
const PORT: &str = "8088";
/// What stands in a block where the output differs from run to run.
const ANYTHING: &str = "…";

struct Document {
    /// Relative to the repository.
    path: String,
    text: String,
}

struct Block {
    language: String,
    text: String,
    /// Where it stands, for people.
    place: String,
    /// The text block that follows it.
    output: Option<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<Document> {
    let mut paths = vec![
        "README.md".to_owned(),
        "ARCHITECTURE.md".to_owned(),
        "CHANGELOG.md".to_owned(),
        "dataset/README.md".to_owned(),
        "benches/README.md".to_owned(),
    ];
    let listed = fs::read_dir(root().join("docs")).expect("docs is a folder");
    let names = listed.map(|entry| {
        entry
            .expect("a file")
            .file_name()
            .into_string()
            .expect("a name that is text")
    });
    paths.extend(
        names
            .filter(|name| name.ends_with(".md"))
            .map(|name| format!("docs/{name}")),
    );
    paths.sort();
    paths
        .into_iter()
        .map(|path| Document {
            text: fs::read_to_string(root().join(&path)).expect("a document is text"),
            path,
        })
        .collect()
}

fn document(path: &str) -> Document {
    documents()
        .into_iter()
        .find(|document| document.path == path)
        .expect("it is there")
}

impl Document {
    fn blocks(&self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut open: Option<(String, usize, String)> = None;
        let mut is_behind_block = false;
        for (index, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => open = Some((language.trim().to_owned(), index + 1, String::new())),
                (Some(_), Some(_)) => {
                    let (language, number, text) = open.take().expect("it is open");
                    match blocks.last_mut() {
                        Some(before) if language == "text" && is_behind_block => before.output = Some(text),
                        _ => blocks.push(Block {
                            language,
                            text,
                            place: format!("{}:{number}", self.path),
                            output: None,
                        }),
                    }
                    is_behind_block = true;
                }
                (Some((_, _, text)), None) => {
                    text.push_str(line);
                    text.push('\n');
                }
                (None, None) => is_behind_block &= line.trim().is_empty(),
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path);
        blocks
    }
}

/// The cells of all tables, row by row.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|line| line.starts_with('|')).map(|line| {
        // A bar inside backquotes is no border.
        let mut is_code = false;
        let border = move |c: char| {
            is_code ^= c == '`';
            c == '|' && !is_code
        };
        line.trim_matches('|').split(border).map(str::trim).collect()
    })
}

impl Block {
    fn comment(&self, wanted: impl Fn(&str) -> Option<&str>) -> Option<&str> {
        let comments = self.text.lines().map_while(|line| line.strip_prefix("-- "));
        comments.into_iter().find_map(wanted)
    }

    fn error(&self) -> Option<&str> {
        self.comment(|comment| comment.strip_prefix("error: "))
    }

    fn file_name(&self) -> Option<&str> {
        self.comment(|comment| comment.ends_with(".sql").then_some(comment))
    }

    fn check_output(&self, given: &str) {
        let Some(expected) = &self.output else { return };
        let (given, expected): (Vec<&str>, Vec<&str>) = (
            given.trim_end().lines().collect(),
            expected.trim_end().lines().collect(),
        );
        let is_same = given.len() == expected.len()
            && given
                .iter()
                .zip(&expected)
                .all(|(given, expected)| match expected.split_once(ANYTHING) {
                    None => given.trim_end() == expected.trim_end(),
                    Some((before, after)) => {
                        given.starts_with(before)
                            && given.ends_with(after.rsplit(ANYTHING).next().expect("one part at least"))
                    }
                });
        assert!(
            is_same,
            "{} says that this comes out:\n{}\nbut it is:\n{}",
            self.place,
            expected.join("\n"),
            given.join("\n")
        );
    }
}

/// An engine in which every connector and option is the real one, but topics are in memory and folders hold made-up candles.
struct Reader {
    engine: Engine,
}

impl Reader {
    fn new(dataset: &Path) -> Self {
        let topics = MemoryTopics::default();
        let mut registry = registry(topics.clone(), query_environment());
        Self::stand_in(&mut registry, topics, dataset);
        let options = EngineOptions {
            state: None,
            mode: Mode::Manual,
            overrides: vec![],
        };
        Self {
            engine: Engine::new(registry, options, Arc::new(ManualClock::at(NOW))),
        }
    }

    fn stand_in(registry: &mut Registry, topics: MemoryTopics, dataset: &Path) {
        let folder = dataset.to_str().expect("a name that is text").to_owned();
        for connector in &mut registry.connectors {
            let (make, topics, folder) = (Arc::clone(&connector.make), topics.clone(), folder.clone());
            match connector.name {
                "kafka" => {
                    connector.make = Arc::new(move |source, options| {
                        // It connects only when it is read.
                        drop(make(source, options)?);
                        Ok(Box::new(topics.of(source).source()))
                    });
                }
                "replay" => {
                    connector.make = Arc::new(move |source, options| {
                        let own = options
                            .iter()
                            .filter(|(name, _)| *name != "path")
                            .map(|(name, value)| (name.to_owned(), value.to_owned()));
                        make(
                            source,
                            &Options::resolve(&[], own.chain([("path".to_owned(), folder.clone())])),
                        )
                    });
                }
                _ => {}
            }
        }
        let open = Arc::clone(&registry.open_external);
        registry.open_external = Arc::new(move |mut table| {
            if table.location.starts_with("hdfs://") || table.location.ends_with("dataset/") {
                table.location.clone_from(&folder);
            }
            open(table)
        });
    }

    /// What the last statement gave, as people see it; or what is wrong, with carets.
    async fn run(&self, block: &Block) -> Result<String, String> {
        let text = SourceText::new(block.file_name().unwrap_or("query"), block.text.clone());
        let parsed = sql::parse_file(&text, &|_| None, &|path| Err(format!("{path} is not read here")));
        let rendered = |diagnostics: &[Diagnostic]| sql::render(&text, diagnostics, Color::Never);
        if parsed.has_errors() {
            return Err(rendered(&parsed.diagnostics));
        }
        let mut shown = String::new();
        for statement in parsed.statements {
            let request = SqlRequest {
                sql: statement.text.clone(),
                timeout: limits::QUERY_TIMEOUT,
                rows_max: None,
            };
            let answer = self
                .engine
                .execute(request)
                .await
                .map_err(|problem| match problem.kind {
                    ProblemKind::Text { text, diagnostics } => sql::render(&text, &diagnostics, Color::Never),
                    other => format!("{other:?}"),
                })?;
            let told = matches!(statement.kind, StatementKind::Explain(_));
            let rows: Vec<_> = answer.rows.try_collect().await.map_err(|error| error.to_string())?;
            shown = match told {
                true => rows.iter().flat_map(lines_of).collect::<Vec<_>>().join("\n"),
                false => pretty_format_batches(&rows).expect("rows can be shown").to_string(),
            };
        }
        Ok(shown)
    }
}

/// The texts of a single column.
fn lines_of(rows: &arrow::array::RecordBatch) -> Vec<String> {
    let text = |row| arrow::util::display::array_value_to_string(rows.column(0), row).expect("text");
    (0..rows.num_rows()).map(text).collect()
}

fn dataset() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let args = generate::GenerateArgs {
        pairs: 3,
        days: 2,
        seed: 1,
        out: folder.path().into(),
        start: NOW.0,
        end: None,
    };
    generate::run(&args).expect("candles can be made up");
    folder
}

#[test]
fn every_sql_block_does_what_its_document_says() {
    let dataset = dataset();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut count = 0;
    for document in documents() {
        let reader = Reader::new(dataset.path());
        for block in document.blocks().iter().filter(|block| block.language == "sql") {
            count += 1;
            match (runtime.block_on(reader.run(block)), block.error()) {
                (Ok(shown), None) => block.check_output(&shown),
                (Err(said), Some(expected)) => {
                    assert!(
                        said.contains(expected),
                        "{} fails with\n{said}\nand not with: {expected}",
                        block.place
                    );
                    block.check_output(&said);
                }
                (Ok(_), Some(_)) => panic!("{} works, though it says that it does not", block.place),
                (Err(said), None) => panic!("{} does not work:\n{said}\n{}", block.place, block.text),
            }
        }
    }
    assert!(20 < count, "the documents have examples; found {count}");
}

/// Whatever a document's commands left running.
struct Groups(Vec<u32>);

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            // It may have ended long ago.
            let killed = Command::new("kill")
                .args(["-KILL", "--", &format!("-{group}")])
                .stderr(Stdio::null())
                .status();
            if let Err(error) = killed {
                eprintln!("kill: {error}");
            }
        }
    }
}

#[test]
fn every_sh_block_runs_as_it_is_written() {
    let mut count = 0;
    for document in documents() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut groups = Groups(Vec::new());
        // Not one of `free_port`: of those, other tests expect that nobody answers.
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = (20_000..30_000)
            .find(is_free)
            .expect("one of thousands of ports is free")
            .to_string();
        for block in document.blocks() {
            if let (Some(name), "sql") = (block.file_name(), block.language.as_str()) {
                fs::write(folder.path().join(name), &block.text).expect("a new file");
            }
            if block.language == "sh" {
                check_targets(&block);
                if !block.text.lines().any(|line| line.trim_start().starts_with("make ")) {
                    run_block(&block, folder.path(), &port, &mut groups);
                }
                count += 1;
            }
        }
    }
    assert!(5 < count, "the documents have commands; found {count}");
}

/// `make demo` would build the program that is being tested: its targets have to be there.
fn check_targets(block: &Block) {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("a Makefile");
    let commands = block
        .text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("make "));
    for target in commands.map(|rest| rest.split_whitespace().next().expect("a target")) {
        assert!(
            makefile.lines().any(|line| line.starts_with(&format!("{target}: "))),
            "{}: make has no {target}",
            block.place
        );
    }
}

fn run_block(block: &Block, folder: &Path, port: &str, groups: &mut Groups) {
    let binary = std::env::var_os("ZETA_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_zeta")), PathBuf::from);
    let path = format!(
        "{}:{}",
        binary.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let expected = block
        .text
        .lines()
        .find_map(|line| line.split_once("# exit code "))
        .map_or(0, |(_, code)| code.trim().parse().expect("a number"));
    let (out, err) = (folder.join(".out"), folder.join(".err"));
    let create = |path: &Path| File::create(path).expect("a new file");
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail", "-c", &block.text.replace(PORT, port)])
        .current_dir(folder)
        .env("PATH", path)
        .env("ZETA_LISTEN", format!("127.0.0.1:{port}"))
        .env("ZETA_LOG", "error")
        .stdin(Stdio::null())
        .stdout(create(&out))
        .stderr(create(&err))
        .process_group(0);
    for name in ["KAFKA", "HISTORY", "ZETA_STATE"] {
        command.env_remove(name);
    }
    if ["topics", "replay", "zeta run"]
        .iter()
        .any(|word| block.text.contains(word))
    {
        // Documents use the topics that pipelines name, and so do other tests: a broker of their own keeps them apart.
        static BROKER: std::sync::OnceLock<Kafka> = std::sync::OnceLock::new();
        command.env("KAFKA", &BROKER.get_or_init(Kafka::start).brokers);
    }
    let mut child = command.spawn().expect("bash starts");
    groups.0.push(child.id());
    let status = child.wait().expect("bash ends");
    let read = |path: &Path| fs::read_to_string(path).expect("text").replace(port, PORT);
    let (out, err) = (read(&out), read(&err));
    assert_eq!(
        status.code(),
        Some(expected),
        "{}:\n{}\n--- out\n{out}\n--- err\n{err}",
        block.place,
        block.text
    );
    // What zeta says of mistakes is on standard error, and data on standard output.
    block.check_output(if expected == 0 { &out } else { &err });
}

#[test]
fn every_zeta_command_in_the_text_is_one_that_the_binary_takes() {
    for document in documents() {
        // `zeta topics ls` inside a sentence.
        for code in document
            .text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.starts_with("zeta ") && !code.contains('\n'))
        {
            // Verbs that are named with what they take, not as they are typed.
            if code.contains(['…', '|', '<']) || code.chars().any(char::is_uppercase) {
                continue;
            }
            let words = code.split_whitespace();
            let outcome = arguments::command().try_get_matches_from(words);
            let is_known = match outcome {
                Ok(_) => true,
                Err(error) => matches!(
                    error.kind(),
                    clap::error::ErrorKind::MissingRequiredArgument
                        | clap::error::ErrorKind::DisplayHelp
                        | clap::error::ErrorKind::DisplayVersion
                        | clap::error::ErrorKind::MissingSubcommand
                        | clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                ),
            };
            assert!(is_known, "{}: `{code}` is no command of zeta", document.path);
        }
    }
}

#[test]
fn the_manual_of_operations_has_every_verb_argument_and_variable() {
    let operations = document("docs/operations.md");
    let root = arguments::command();
    for verb in root.get_subcommands() {
        let name = verb.get_name();
        assert!(
            operations.text.contains(&format!("`zeta {name}")),
            "docs/operations.md does not mention zeta {name}"
        );
        for inner in verb.get_subcommands() {
            assert!(
                operations.text.contains(&format!("`zeta {name} {}", inner.get_name())),
                "no zeta {name} {}",
                inner.get_name()
            );
        }
        let below = verb.get_subcommands().flat_map(clap::Command::get_arguments);
        for argument in verb.get_arguments().chain(below).chain(root.get_arguments()) {
            if let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) {
                assert!(
                    operations.text.contains(&format!("`--{long}")),
                    "docs/operations.md does not explain --{long} of zeta {name}"
                );
            }
            if let Some(variable) = argument.get_env() {
                let variable = variable.to_str().expect("a name that is text");
                assert!(
                    rows(&operations.text).any(|row| row[0] == format!("`{variable}`")),
                    "no row for the variable {variable}"
                );
            }
        }
    }
}

#[test]
fn the_reference_has_every_option_with_its_default_and_its_other_names() {
    let reference = document("docs/sql.md");
    for (what, options) in [
        ("sources", SOURCE_OPTIONS),
        ("kafka", kafka::OPTIONS),
        ("replay", replay::OPTIONS),
        ("nexmark", nexmark::OPTIONS),
        ("json", json::OPTIONS),
        ("views", VIEW_OPTIONS),
        ("sinks", SINK_OPTIONS),
        ("kafka sink", kafka::SINK_OPTIONS),
        ("avro", avro::OPTIONS),
        ("parquet sink", parquet::SINK_OPTIONS),
    ] {
        let section = section(&reference.text, what);
        let rows: Vec<Vec<&str>> = rows(section).collect();
        let named: BTreeSet<&str> = rows
            .iter()
            .filter_map(|row| row[0].strip_prefix('`')?.strip_suffix('`'))
            .collect();
        assert_eq!(
            named,
            options.iter().map(|option| option.name).collect(),
            "options of {what} in docs/sql.md and in the program"
        );
        for OptionSpec {
            name,
            aliases,
            is_required,
            default,
            ..
        } in options
        {
            let row = rows
                .iter()
                .find(|row| row[0] == format!("`{name}`"))
                .expect("compared above");
            let expected = match (default, is_required) {
                (Some(default), _) => format!("`{default}`"),
                (None, true) => "required".to_owned(),
                (None, false) => "none".to_owned(),
            };
            assert_eq!(row[2], expected, "the default of {name} of {what}");
            for alias in *aliases {
                assert!(
                    section.contains(&format!("`{alias}`")),
                    "docs/sql.md does not name {alias}, which is {name}"
                );
            }
        }
    }
}

/// From the heading that ends in `(what)` to the next.
fn section<'a>(text: &'a str, what: &str) -> &'a str {
    let marker = format!("({what})\n");
    let start = text
        .find(&marker)
        .unwrap_or_else(|| panic!("docs/sql.md has no section ({what})"));
    let rest = &text[start + marker.len()..];
    &rest[..rest.find("\n#").unwrap_or(rest.len())]
}

#[test]
fn the_manual_of_operations_has_every_metric() {
    let operations = document("docs/operations.md");
    let listed: BTreeSet<String> = rows(&operations.text)
        .filter_map(|row| Some(row[0].strip_prefix('`')?.strip_suffix('`')?.to_owned()))
        .filter(|name| name.starts_with("zeta_"))
        .collect();
    let metrics = Metrics::default();
    // A metric with labels shows only once it was touched.
    let touched = [
        metrics.source_rows_total.with_label_values(&["s", "0"]).get(),
        metrics.source_rows_lost_total.with_label_values(&["s", "0"]).get(),
        metrics.bad_records_total.with_label_values(&["s"]).get(),
        metrics.rows_late_total.with_label_values(&["v"]).get(),
        metrics.rows_failed_total.with_label_values(&["v"]).get(),
        metrics.epochs_total.with_label_values(&["s"]).get(),
        metrics.source_restarts_total.with_label_values(&["s"]).get(),
        metrics.rows_evicted_total.with_label_values(&["v"]).get(),
        metrics.ws_merged_total.with_label_values(&["v"]).get(),
        metrics.sink_rows_total.with_label_values(&["s"]).get(),
        metrics.sink_recoveries_total.with_label_values(&["s"]).get(),
    ];
    assert!(touched.iter().all(|count| *count == 0));
    metrics.source_lag_rows.with_label_values(&["s", "0"]).set(0);
    metrics.watermark_lag_seconds.with_label_values(&["s"]).set(0.0);
    metrics.state_bytes.with_label_values(&["v"]).set(0);
    metrics.view_rows.with_label_values(&["v"]).set(0);
    metrics.ws_subscriptions.with_label_values(&["v"]).set(0);
    metrics.sink_published_epoch.with_label_values(&["s"]).set(0);
    metrics.sink_staged_epochs.with_label_values(&["s"]).set(0);
    for histogram in [
        &metrics.epoch_duration_seconds,
        &metrics.commit_stall_seconds,
        &metrics.checkpoint_stall_seconds,
        &metrics.checkpoint_duration_seconds,
    ] {
        histogram.with_label_values(&["s"]).observe(0.0);
    }
    metrics
        .http_request_duration_seconds
        .with_label_values(&["/", "GET", "200"])
        .observe(0.0);
    metrics.query_duration_seconds.with_label_values(&["ok"]).observe(0.0);
    let text = metrics.text();
    let known: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(listed, known, "metrics in docs/operations.md and in the program");
    // One that is added to the program and not above would be overlooked: its name stands in the source.
    let source = fs::read_to_string(root().join("src/runtime/metrics.rs")).expect("a file");
    let written: BTreeSet<String> = source
        .split('"')
        .filter(|word| word.starts_with("zeta_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(written, known);
}

#[test]
fn every_relative_link_leads_somewhere() {
    for document in documents() {
        let folder = root()
            .join(&document.path)
            .parent()
            .expect("a file lies in a folder")
            .to_owned();
        for link in document
            .text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link
                .split_once('#')
                .map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() {
                root().join(&document.path)
            } else {
                folder.join(file)
            };
            assert!(target.exists(), "{} links to {link}, which is not there", document.path);
            if let Some(anchor) = anchor {
                let text = fs::read_to_string(&target).expect("an anchor is in a text");
                let headings = text.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(
                    headings.into_iter().any(|heading| heading == anchor),
                    "{} links to {link}, which has no such heading",
                    document.path
                );
            }
        }
    }
}

/// As code forges make it: letters and digits in lower case, spaces as hyphens, the rest left out.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn blocks_and_tables_are_found() {
    let text = "# A\n\n```sql\n-- error: no\nSELECT\n```\n\n```text\nout\n```\n\nwords\n\n```text\npicture\n```\n| `a|b` | c |\n";
    let document = Document {
        path: "d.md".into(),
        text: text.into(),
    };
    let blocks = document.blocks();
    assert_eq!(blocks.len(), 2, "the second text block follows words");
    assert_eq!(
        (blocks[0].error(), blocks[0].output.as_deref(), blocks[0].place.as_str()),
        (Some("no"), Some("out\n"), "d.md:3")
    );
    assert_eq!(rows(&document.text).collect::<Vec<_>>(), [["`a|b`", "c"]]);
    assert_eq!(
        anchor_of("## States of a source, and `errors`"),
        "states-of-a-source-and-errors"
    );
}
