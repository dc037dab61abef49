//! Options of statements: all of a `WITH (…)` checked at once, and those of a source sorted by who takes them.

use arrow::datatypes::Schema;

use crate::{
    sql::{CreateSink, CreateSource, Diagnostic, Span, Spanned, SqlOption, SqlState, Statement, suggest},
    types::{OptionKind, OptionSpec, Options, one_of, parse_duration},
};

use super::{
    mistakes::Mistakes,
    registry::{ConnectorSpec, Registry, SinkSpec},
};

/// Options that every source takes, whatever its connector and format.
pub const SOURCE_OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("connector", "where the rows come from").required(),
    OptionSpec::text("format", "how a record becomes a row").default("json"),
    OptionSpec::text(
        "trigger",
        "how often an epoch starts: '60 seconds', or '0' as soon as a row is there",
    )
    .kind(OptionKind::Duration)
    .default("100 ms"),
    OptionSpec::text(
        "idle_timeout",
        "after how long a caught-up, silent split no longer holds the watermark back",
    )
    .kind(OptionKind::Duration)
    .default("30 seconds"),
    OptionSpec::text(
        "close_after",
        "after how long without a row, all of them read, every open window is closed",
    )
    .kind(OptionKind::Duration),
    OptionSpec::text(
        "recovery_time_max",
        "how long a restart may compute again what ran since the last checkpoint: the less, the more checkpoints",
    )
    .kind(OptionKind::Duration)
    .default("2 seconds"),
    OptionSpec::text(
        "on_bad_record",
        "what happens to a record that cannot become a row: it is kept in <source>$bad",
    )
    .kind(OptionKind::Choice(&["keep"]))
    .default("keep"),
    OptionSpec::text(
        "event_time_ahead_max",
        "a row whose event time is further ahead of now is a bad record",
    )
    .kind(OptionKind::Duration)
    .default("1 hour"),
];

/// Options of a materialized view: how the dashboard draws it.
pub const VIEW_OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("panel", "how the dashboard draws it").kind(OptionKind::Choice(&[
        "candlestick",
        "series",
        "stat",
        "table",
    ])),
    OptionSpec::text("panel.title", "what stands above it"),
    OptionSpec::text("panel.unit", "the unit of its numbers"),
    OptionSpec::text(
        "allowed_lateness",
        "how long after its end a window still takes rows, e.g. '1 minute'",
    )
    .kind(OptionKind::Duration),
    OptionSpec::text(
        "unbounded_state",
        "'allow' takes state that grows for ever, 'refuse' does not",
    )
    .kind(OptionKind::Choice(&["allow", "refuse"]))
    .default("refuse"),
];

/// A source's options by who takes them.
pub struct SourceOptions<'a> {
    /// `None` where it is not named or unknown.
    pub connector: Option<&'a ConnectorSpec>,
    pub of_connector: Options,
    pub of_format: Options,
    /// What every source takes.
    pub general: Options,
}

impl<'a> SourceOptions<'a> {
    /// Checks all options of a source; those that no one takes are left out.
    pub fn of(create: &CreateSource, statement: &Statement, registry: &'a Registry, mistakes: &mut Mistakes) -> Self {
        let value = |name: &str| given(&create.options, name).map(|option| &option.value);
        let connector_names: Vec<&str> = registry.connectors.iter().map(|connector| connector.name).collect();
        let connector = value("connector").and_then(|given| {
            let found = registry.connector(&given.value);
            if found.is_none() {
                mistakes.push(unknown_choice("connector", given, &connector_names));
            }
            found
        });
        let format = match value("format") {
            None => registry.format("json"),
            Some(given) => {
                let found = registry.format(&given.value);
                if found.is_none() {
                    let names: Vec<&str> = registry.formats.iter().map(|format| format.name).collect();
                    mistakes.push(unknown_choice("format", given, &names));
                }
                found
            }
        };
        let connector_specs: &'static [OptionSpec] = connector.map_or(&[], |connector| connector.options);
        let format_specs: &'static [OptionSpec] = format.map_or(&[], |format| format.options);
        let known: Vec<&OptionSpec> = SOURCE_OPTIONS
            .iter()
            .chain(connector_specs)
            .chain(format_specs)
            .collect();
        let prefixes: &[&str] = connector.map_or(&[], |connector| connector.open_prefixes);
        let is_open = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        // Without its connector an option cannot be told wrong.
        let is_judged = connector.is_some() && format.is_some();
        check_options(&create.options, &known, |key| is_open(key) || !is_judged, mistakes);
        let whose = format!("source `{}`", create.name.value);
        let asked = Asked {
            whose: &whose,
            options: &create.options,
            name: create.name.span,
            statement: statement.span,
        };
        asked.check_required(&known, &connector_names, connector.is_some(), mistakes);
        let taken = |specs: &'static [OptionSpec], takes_open: bool| {
            let given = create
                .options
                .iter()
                .filter(|option| {
                    specs.iter().any(|spec| spec.answers_to(&option.key.value))
                        || (takes_open && is_open(&option.key.value))
                })
                .map(|option| (option.key.value.clone(), option.value.value.clone()));
            Options::resolve(specs, given)
        };
        Self {
            connector,
            of_connector: taken(connector_specs, true),
            of_format: taken(format_specs, false),
            general: taken(SOURCE_OPTIONS, false),
        }
    }
}

/// What a statement says of an option; its first word on it.
fn given<'o>(options: &'o [SqlOption], name: &str) -> Option<&'o SqlOption> {
    options
        .iter()
        .find(|option| option.key.value.eq_ignore_ascii_case(name))
}

/// Options that every sink takes, whatever its connector.
pub const SINK_OPTIONS: &[OptionSpec] = &[
    OptionSpec::text("connector", "where the rows go").required(),
    OptionSpec::text("format", "how a row becomes a record"),
];

/// The options of a statement, and where it says so.
struct Asked<'a> {
    whose: &'a str,
    options: &'a [SqlOption],
    name: Span,
    statement: Span,
}

impl Asked<'_> {
    /// A mistake for each option that has to be there and is not. Without its connector nobody knows which those are.
    fn check_required(&self, known: &[&OptionSpec], connectors: &[&str], has_connector: bool, mistakes: &mut Mistakes) {
        for spec in known.iter().filter(|spec| spec.is_required) {
            let is_given = self.options.iter().any(|option| spec.answers_to(&option.key.value));
            if is_given || (spec.name != "connector" && !has_connector) {
                continue;
            }
            let message = format!("{} has no option `{}`: {}", self.whose, spec.name, spec.help);
            let help = match spec.name {
                "connector" => format!("add to WITH: connector = {}", one_of(connectors)),
                name => format!("add to WITH: '{name}' = '…'"),
            };
            let span = match self.options.is_empty() {
                true => self.statement,
                false => self.name,
            };
            mistakes.push(Diagnostic::error(SqlState::InvalidOption, message, span).help(help));
        }
    }
}

/// A sink's options by who takes them.
pub struct SinkOptions<'a> {
    /// `None` where it is not named or unknown.
    pub connector: Option<&'a SinkSpec>,
    pub of_connector: Options,
    pub format: String,
    pub of_format: Options,
}

impl<'a> SinkOptions<'a> {
    /// Checks all options of a sink; those that no one takes are left out.
    pub fn of(create: &CreateSink, statement: &Statement, registry: &'a Registry, mistakes: &mut Mistakes) -> Self {
        let value = |name: &str| given(&create.options, name).map(|option| &option.value);
        let names: Vec<&str> = registry.sinks.iter().map(|sink| sink.name).collect();
        let connector = value("connector").and_then(|given| {
            let found = registry.sink(&given.value);
            if found.is_none() {
                mistakes.push(unknown_choice("connector of sinks", given, &names));
            }
            found
        });
        let formats: &[&str] = connector.map_or(&[], |connector| connector.formats);
        let format = match (value("format"), formats.first()) {
            (Some(given), Some(_)) if !formats.contains(&given.value.as_str()) => {
                mistakes.push(unknown_choice("format of this sink", given, formats));
                String::new()
            }
            (Some(given), _) => given.value.clone(),
            (None, first) => first.copied().unwrap_or_default().to_owned(),
        };
        let specs: &'static [OptionSpec] = connector.map_or(&[], |connector| connector.options);
        let format_specs: &'static [OptionSpec] =
            connector.map_or(&[], |connector| (connector.format_options)(&format));
        let known: Vec<&OptionSpec> = SINK_OPTIONS.iter().chain(specs).chain(format_specs).collect();
        let prefixes: &[&str] = connector.map_or(&[], |connector| connector.open_prefixes);
        let is_open = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        check_options(
            &create.options,
            &known,
            // Without its connector and format an option cannot be told wrong.
            |key| is_open(key) || connector.is_none() || format.is_empty(),
            mistakes,
        );
        let whose = format!("sink `{}`", create.name.value);
        let asked = Asked {
            whose: &whose,
            options: &create.options,
            name: create.name.span,
            statement: statement.span,
        };
        asked.check_required(&known, &names, connector.is_some(), mistakes);
        let taken = |specs: &'static [OptionSpec], takes_open: bool| {
            let given = create
                .options
                .iter()
                .filter(|option| {
                    specs.iter().any(|spec| spec.answers_to(&option.key.value))
                        || (takes_open && is_open(&option.key.value))
                })
                .map(|option| (option.key.value.clone(), option.value.value.clone()));
            Options::resolve(specs, given)
        };
        Self {
            connector,
            of_connector: taken(specs, true),
            of_format: taken(format_specs, false),
            format,
        }
    }
}

/// The options of a materialized view.
pub fn view_options(given: &[SqlOption], mistakes: &mut Mistakes) -> Options {
    check_options(given, &VIEW_OPTIONS.iter().collect::<Vec<_>>(), |_| false, mistakes);
    Options::resolve(
        VIEW_OPTIONS,
        given
            .iter()
            .map(|option| (option.key.value.clone(), option.value.value.clone())),
    )
}

/// Refuses a panel that cannot be drawn from these columns.
pub fn check_panel(options: &[SqlOption], schema: &Schema, has_time: bool, mistakes: &mut Mistakes) {
    let Some(panel) = given(options, "panel") else { return };
    let is_number = |name: &str| {
        schema
            .field_with_name(name)
            .is_ok_and(|field| field.data_type().is_numeric())
    };
    let (is_drawn, needs) = match panel.value.value.as_str() {
        "candlestick" => (
            has_time && ["open", "high", "low", "close"].into_iter().all(is_number),
            "a window or an event time, and numbers named open, high, low and close",
        ),
        "series" => (
            has_time && schema.fields().iter().any(|field| is_number(field.name())),
            "a window or an event time, and a number to draw along it",
        ),
        _ => return,
    };
    if !is_drawn {
        let message = format!("this view cannot be drawn as '{}'", panel.value.value);
        mistakes.push(
            Diagnostic::error(SqlState::InvalidOption, message, panel.value.span)
                .help(format!("panel '{}' needs {needs}", panel.value.value)),
        );
    }
}

/// Refuses `close_after` where there is nothing to close, or no time to wait.
pub fn check_close_after(create: &CreateSource, mistakes: &mut Mistakes) {
    let Some(option) = given(&create.options, "close_after") else {
        return;
    };
    if create.watermark.is_none() {
        let message = "`close_after` closes windows, and without a watermark there are none to close";
        mistakes.push(
            Diagnostic::error(SqlState::InvalidOption, message, option.key.span)
                .help("add WATERMARK FOR column AS column - INTERVAL '5 seconds', or leave the option out"),
        );
    } else if parse_duration(&option.value.value).is_ok_and(|after| after.is_zero()) {
        let message = "`close_after` must be longer than 0: every pause would close the windows";
        mistakes.push(
            Diagnostic::error(SqlState::InvalidOption, message, option.value.span)
                .help("choose it longer than the source ever pauses in the middle of a window, e.g. '30 seconds'"),
        );
    }
}

/// An external table takes none.
pub fn no_options(given: &[SqlOption], mistakes: &mut Mistakes) {
    check_options(given, &[], |_| false, mistakes);
}

/// `is_let_through` says of a key that is not known whether it is fine all the same.
fn check_options(
    given: &[SqlOption],
    known: &[&OptionSpec],
    is_let_through: impl Fn(&str) -> bool,
    mistakes: &mut Mistakes,
) {
    for (index, option) in given.iter().enumerate() {
        let key = &option.key.value;
        let spec = known.iter().find(|spec| spec.answers_to(key));
        match spec {
            Some(spec) => {
                let is_twice = given[..index].iter().any(|earlier| spec.answers_to(&earlier.key.value));
                if is_twice {
                    let message = format!("option `{}` is given twice", spec.name);
                    mistakes.push(
                        Diagnostic::error(SqlState::InvalidOption, message, option.key.span).help("remove one of them"),
                    );
                }
                if let Err(reason) = spec.check(&option.value.value) {
                    let mistake = Diagnostic::error(SqlState::InvalidOption, reason, option.value.span);
                    let words = match spec.kind {
                        OptionKind::Choice(words) => words,
                        _ => &[],
                    };
                    mistakes.push(match suggest::nearest(&option.value.value, words.iter().copied()) {
                        Some(near) => mistake.help(format!("did you mean '{near}'?")),
                        None => mistake.help(format!("`{}`: {}", spec.name, spec.help)),
                    });
                }
            }
            None if is_let_through(key) => {}
            None => {
                let names: Vec<&str> = known.iter().map(|spec| spec.name).collect();
                let mistake = Diagnostic::error(
                    SqlState::InvalidOption,
                    format!("no option named `{key}`"),
                    option.key.span,
                );
                mistakes.push(match suggest::nearest(key, names.iter().copied()) {
                    Some(near) => mistake.help(format!("did you mean `{near}`?")),
                    None if names.is_empty() => mistake.help("this statement takes no options"),
                    None => mistake.help(format!("options: {}", names.join(", "))),
                });
            }
        }
    }
}

fn unknown_choice(what: &str, given: &Spanned<String>, names: &[&str]) -> Diagnostic {
    let mistake = Diagnostic::error(
        SqlState::InvalidOption,
        format!("no {what} named '{}'", given.value),
        given.span,
    );
    match suggest::nearest(&given.value, names.iter().copied()) {
        Some(near) => mistake.help(format!("did you mean '{near}'?")),
        None => mistake.help(format!("there are: {}", names.join(", "))),
    }
}
