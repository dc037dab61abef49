//! `CREATE …`: sources, external tables, views and materialized views.

use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    CreateExternalTable, CreateMaterializedView, CreateSink, CreateSource, CreateView, Diagnostic, Emit,
    OWN_VIEW_SUFFIX, OwnView, SinkWithoutRows, Spanned, SqlState, StatementKind,
    columns::MayHold,
    cursor::{Parsed, StatementParser},
    shapes::FETCH_HELP,
    suggest::nearest,
};
use crate::types::parse_duration;

impl StatementParser<'_> {
    pub(super) fn create(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        let at = self.at;
        if self.eat_words(&["OR", "REPLACE"]) {
            return Err(self
                .unsupported(at, "CREATE OR REPLACE")
                .help("DROP it first, or write IF NOT EXISTS"));
        }
        if let Some(word @ ("TEMPORARY" | "TEMP")) = self.peek_word().as_deref() {
            return Err(self
                .unsupported(at, &format!("CREATE {word}"))
                .help("leave it out, and DROP it when it is not needed any more"));
        }
        if self.eat_word("SOURCE") {
            return self.create_source();
        }
        if self.eat_word("EXTERNAL") {
            self.expect_word("TABLE")?;
            return self.create_external_table();
        }
        if self.eat_word("VIEW") {
            return self.create_view();
        }
        if self.eat_word("MATERIALIZED") {
            self.expect_word("VIEW")?;
            return self.create_materialized_view();
        }
        if self.eat_word("TABLE") {
            return self.create_table();
        }
        if self.eat_word("FUNCTION") {
            return self.create_function();
        }
        if self.eat_word("SINK") {
            return self.create_sink();
        }
        const KINDS: &[&str] = &[
            "SOURCE",
            "TABLE",
            "EXTERNAL",
            "VIEW",
            "MATERIALIZED",
            "FUNCTION",
            "SINK",
        ];
        let usable = "CREATE SOURCE, TABLE, EXTERNAL TABLE, VIEW, MATERIALIZED VIEW, FUNCTION and SINK are";
        Err(match self.peek_word().as_deref() {
            Some(
                kind @ ("INDEX" | "SCHEMA" | "DATABASE" | "TYPE" | "USER" | "ROLE" | "SECRET" | "CONNECTION"
                | "TRIGGER" | "SEQUENCE"),
            ) => self.unsupported(at, &format!("CREATE {kind}")).help(usable),
            word => {
                let meant = word.and_then(|word| nearest(word, KINDS.iter().copied()));
                let mistake = Diagnostic::error(
                    SqlState::Syntax,
                    format!(
                        "expected SOURCE, TABLE, EXTERNAL TABLE, VIEW, MATERIALIZED VIEW, FUNCTION or SINK, found {}",
                        self.written().found(at)
                    ),
                    self.written().span(at),
                );
                match meant {
                    Some(meant) => mistake.help(format!("did you mean `{meant}`?")),
                    None => mistake,
                }
            }
        })
    }

    pub(super) fn unsupported(&self, at: usize, what: &str) -> Diagnostic {
        Diagnostic::error(
            SqlState::Unsupported,
            format!("{what} is not supported yet"),
            self.written().span(at),
        )
    }

    fn create_source(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name("the name of the source")?;
        if !self.peek_is(&Token::LParen) {
            let mistake = self.written().expected(self.at, "`(` and the columns");
            return Err(mistake.help(format!("write CREATE SOURCE {} (column TYPE, …) WITH (…)", name.value)));
        }
        let list = self.columns(MayHold {
            watermark: true,
            key: false,
        })?;
        let (mut includes, mut options) = (Vec::new(), Vec::new());
        while self.at < self.tokens.len() {
            if self.include(&mut includes)?
                || self.with_options(&["WITH"], &mut options)?
                || self.format_encode(&mut options)?
            {
                continue;
            }
            if self.eat_words(&["APPEND", "ONLY"]) {
                continue;
            }
            if self.a_statement_follows() {
                break;
            }
            return Err(self.unknown_clause(&["INCLUDE", "WITH", "FORMAT", "APPEND"], "INCLUDE or WITH"));
        }
        Ok(StatementKind::CreateSource(CreateSource {
            name,
            if_not_exists,
            columns: list.columns,
            watermark: list.watermark,
            includes,
            options,
        }))
    }

    fn create_sink(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name("the name of the sink")?;
        let example = format!(
            "write CREATE SINK {0} FROM view WITH (connector = 'kafka', …), or CREATE SINK {0} WITH (…) AS SELECT …",
            name.value
        );
        let mut options = Vec::new();
        let columns = match self.peek_is(&Token::LParen) {
            true => {
                let may_hold = MayHold {
                    watermark: false,
                    key: false,
                };
                self.columns(may_hold)?.columns
            }
            false => Vec::new(),
        };
        let view = match self.peek_word().as_deref() {
            Some("FROM") => {
                self.at += 1;
                Some(self.name("the name of the view")?)
            }
            Some("AS" | "WITH" | "FORMAT") => None,
            _ => {
                return Err(self
                    .written()
                    .expected(self.at, "FROM and the name of a view, or AS and a query")
                    .help(example));
            }
        };
        while self.at < self.tokens.len() {
            if self.with_options(&["WITH"], &mut options)? || self.format_encode(&mut options)? {
                continue;
            }
            if self.a_statement_follows() || (view.is_none() && self.peek_word().as_deref() == Some("AS")) {
                break;
            }
            return Err(self.unknown_clause(&["WITH", "FORMAT"], "WITH"));
        }
        if let Some(view) = view {
            return Ok(StatementKind::CreateSink(CreateSink {
                name,
                if_not_exists,
                columns,
                view,
                options,
                own_view: None,
            }));
        }
        let is_fed_later = !columns.is_empty() && self.peek_word().as_deref() != Some("AS");
        let sink = SinkWithoutRows {
            name,
            if_not_exists,
            columns,
            options,
            text: self.text_from(0),
        };
        if is_fed_later {
            return Ok(StatementKind::CreateSinkWithoutRows(sink));
        }
        if !self.eat_word("AS") {
            let mistake = self.written().expected(self.at, "AS and a query");
            return Err(mistake.help(example));
        }
        Ok(StatementKind::CreateSink(self.sink_of_query(sink)?))
    }

    /// What stands here is the query of a sink.
    pub(super) fn sink_of_query(&mut self, sink: SinkWithoutRows) -> Parsed<CreateSink> {
        let query_at = self.at;
        let query = self.view_query()?;
        let view = Spanned {
            value: format!("{}{OWN_VIEW_SUFFIX}", sink.name.value),
            span: query.query_span,
        };
        let view_name = view.value.replace('"', "\"\"");
        let own_view = OwnView {
            view_text: format!(
                "CREATE MATERIALIZED VIEW \"{view_name}\" AS {}",
                self.text_from(query_at)
            ),
            create: Box::new(CreateMaterializedView {
                name: view.clone(),
                ..query
            }),
        };
        Ok(CreateSink {
            name: sink.name,
            if_not_exists: sink.if_not_exists,
            columns: sink.columns,
            view,
            options: sink.options,
            own_view: Some(own_view),
        })
    }

    fn create_external_table(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name("the name of the table")?;
        let columns = if self.peek_is(&Token::LParen) {
            let may_hold = MayHold {
                watermark: false,
                key: false,
            };
            self.columns(may_hold)?.columns
        } else {
            Vec::new()
        };
        let (mut format, mut location, mut includes, mut options) = (None, None, Vec::new(), Vec::new());
        while self.at < self.tokens.len() {
            if self.include(&mut includes)? || self.with_options(&["WITH", "OPTIONS"], &mut options)? {
                continue;
            }
            let at = self.at;
            if self.eat_word("STORED") {
                self.expect_word("AS")?;
                let Some(value) = self.peek_word() else {
                    return Err(self.written().expected(self.at, "the format of the files, PARQUET"));
                };
                self.once(format.is_some(), "STORED AS", at);
                format = Some(Spanned {
                    value: value.to_ascii_lowercase(),
                    span: self.written().span(self.at),
                });
                self.at += 1;
                continue;
            }
            if self.eat_word("LOCATION") {
                let value = self.string("the location of the files, e.g. 'data/history/'")?;
                self.once(location.is_some(), "LOCATION", at);
                location = Some(value);
                continue;
            }
            if self.eat_word("PARTITIONED") {
                return Err(self
                    .unsupported(at, "PARTITIONED BY")
                    .help("INCLUDE file_name AS … names a column by the file"));
            }
            if self.a_statement_follows() {
                break;
            }
            return Err(self.unknown_clause(
                &["STORED", "LOCATION", "INCLUDE", "WITH", "OPTIONS"],
                "STORED AS, LOCATION, INCLUDE or WITH",
            ));
        }
        let example = format!(
            "write CREATE EXTERNAL TABLE {} STORED AS PARQUET LOCATION '…'",
            name.value
        );
        let Some(format) = format else {
            return Err(self.written().expected(self.at, "STORED AS PARQUET").help(example));
        };
        let Some(location) = location else {
            return Err(self.written().expected(self.at, "LOCATION '…'").help(example));
        };
        Ok(StatementKind::CreateExternalTable(CreateExternalTable {
            name,
            if_not_exists,
            columns,
            format,
            location,
            includes,
            options,
        }))
    }

    fn create_view(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.view_name()?;
        if self.peek_word().as_deref() == Some("WITH") {
            let mistake = Diagnostic::error(
                SqlState::Unsupported,
                "a view has no options",
                self.written().span(self.at),
            );
            return Err(mistake.help("a MATERIALIZED VIEW has"));
        }
        self.expect_word("AS")?;
        let (query, query_span) = self.query()?;
        if self.peek_word().as_deref() == Some("EMIT") {
            let mistake = Diagnostic::error(
                SqlState::Unsupported,
                "a view that is not materialized has no EMIT",
                self.written().span(self.at),
            );
            return Err(mistake.help("write CREATE MATERIALIZED VIEW, or leave EMIT out"));
        }
        Ok(StatementKind::CreateView(CreateView {
            name,
            if_not_exists,
            query,
            query_span,
        }))
    }

    fn create_materialized_view(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.view_name()?;
        let mut options = Vec::new();
        self.with_options(&["WITH"], &mut options)?;
        self.expect_word("AS")?;
        Ok(StatementKind::CreateMaterializedView(CreateMaterializedView {
            name,
            if_not_exists,
            options,
            ..self.view_query()?
        }))
    }

    /// What stands behind AS: a query and how it is emitted. The view has no name and no options yet.
    fn view_query(&mut self) -> Parsed<CreateMaterializedView> {
        let before = self.diagnostics.len();
        let (query, query_span) = self.query()?;
        // What stands for it in other queries is refused here too.
        for refused in &mut self.diagnostics[before..] {
            if refused.help.iter().any(|help| help == FETCH_HELP) {
                refused.help = vec!["limit in the query that reads the view".into()];
            }
        }
        let emit = if self.peek_word().as_deref() == Some("EMIT") {
            Some(self.emit()?)
        } else {
            None
        };
        Ok(CreateMaterializedView {
            name: Spanned {
                value: String::new(),
                span: query_span,
            },
            if_not_exists: false,
            options: Vec::new(),
            query,
            query_span,
            emit,
        })
    }

    fn view_name(&mut self) -> Parsed<Spanned<String>> {
        let name = self.name("the name of the view")?;
        if self.peek_is(&Token::LParen) {
            let mistake = self.unsupported(self.at, "a list of columns after the name of a view");
            return Err(mistake.help("name the columns in the query: SELECT … AS …"));
        }
        Ok(name)
    }

    fn emit(&mut self) -> Parsed<Spanned<Emit>> {
        let start = self.at;
        self.at += 1;
        let emit = if self.eat_word("CHANGES") {
            Emit::Changes
        } else if self.eat_word("ON") {
            self.expect_word("WINDOW")?;
            self.expect_word("CLOSE")?;
            Emit::OnWindowClose
        } else if self.eat_word("EVERY") {
            self.eat_word("INTERVAL");
            let mut every = self.string("a duration, e.g. '1 second'")?;
            // INTERVAL '1' SECOND
            if let Some(unit) = self
                .peek_word()
                .filter(|unit| parse_duration(&format!("1 {unit}")).is_ok())
            {
                every = Spanned {
                    value: format!("{} {unit}", every.value),
                    span: every.span.to(self.written().span(self.at)),
                };
                self.at += 1;
            }
            match parse_duration(&every.value) {
                Ok(Duration::ZERO) => {
                    let mistake =
                        Diagnostic::error(SqlState::Invalid, "EMIT EVERY takes more than 0 seconds", every.span);
                    return Err(mistake.help("write EMIT CHANGES for every change"));
                }
                Ok(every) => Emit::Every(every),
                Err(reason) => return Err(Diagnostic::error(SqlState::Invalid, reason, every.span)),
            }
        } else {
            return Err(self.unknown_clause(&["CHANGES", "ON", "EVERY"], "CHANGES, ON WINDOW CLOSE or EVERY"));
        };
        Ok(Spanned {
            value: emit,
            span: self.span_from(start),
        })
    }

    /// A word that starts none of these clauses.
    pub(super) fn unknown_clause(&self, words: &[&str], expected: &str) -> Diagnostic {
        let mistake = Diagnostic::error(
            SqlState::Syntax,
            format!("expected {expected}, found {}", self.written().found(self.at)),
            self.written().span(self.at),
        );
        match self
            .peek_word()
            .and_then(|word| nearest(&word, words.iter().copied()).map(str::to_owned))
        {
            Some(meant) => mistake.help(format!("did you mean `{meant}`?")),
            None => mistake,
        }
    }

    /// Reports a clause that was written before.
    pub(super) fn once(&mut self, is_second: bool, clause: &str, at: usize) {
        if is_second {
            let span = self.written().span(at);
            self.diagnostics.push(
                Diagnostic::error(SqlState::Duplicate, format!("`{clause}` is written twice"), span)
                    .help("leave one out"),
            );
        }
    }
}
