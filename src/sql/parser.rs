//! Statements from tokens: a thin parser of our clauses, with sqlparser for types, expressions and queries.
//!
//! ```text
//! tokens of one statement ──▶ first words ──┬─▶ CREATE SOURCE | EXTERNAL TABLE | VIEW | MATERIALIZED VIEW, DROP, SHOW, … (here)
//!                                           └─▶ SELECT | WITH | VALUES | (… ──▶ sqlparser ──▶ check_query
//! ```
//! A statement with a mistake costs only itself, and a column or option with a mistake only itself.

use datafusion::sql::sqlparser::{
    ast,
    tokenizer::{Span as AstSpan, Token},
};

use super::{
    Diagnostic, Drop, DropKind, Explain, ExplainTarget, Insert, LineColumn, Lookup, ReadFile, SinkWithoutRows,
    SourceText, Span, Spanned, SqlState, Statement, StatementKind, check_query,
    cursor::{Parsed, QUERY_WORDS, STATEMENT_WORDS, StatementParser},
    flink,
    guard::check_depth,
    suggest::nearest,
    token::{created_name, foreign_character, tokenize},
    variables::Substituted,
};
use crate::types::limits::DIAGNOSTICS_MAX;

/// The statements of a text and everything that is wrong with it, both in the order of the text.
///
/// Of very many mistakes only the first `DIAGNOSTICS_MAX` are kept.
#[derive(Clone, Debug, Default)]
pub struct ParsedFile {
    pub statements: Vec<Statement>,
    pub diagnostics: Vec<Diagnostic>,
    /// Names that statements with mistakes would have created: that they are unknown further on is no mistake of its own.
    pub unfinished: Vec<String>,
}

impl ParsedFile {
    /// Whether anything is an error and not just a warning.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Parses all statements of a text without variables: `${NAME}` stands for itself. One that cannot be parsed costs only itself.
///
/// Places are those of `text`, in spans as in the trees of sqlparser: see [`byte_span`].
pub fn parse(text: &SourceText) -> ParsedFile {
    parse_substituted(text, Substituted::unchanged(text))
}

/// Fills in the variables of a file and parses it. Places are those of `original`, in spans as in the trees of sqlparser.
///
/// A statement in which a variable could not be filled in is left out.
pub fn parse_file(original: &SourceText, lookup: Lookup, read_file: ReadFile) -> ParsedFile {
    parse_substituted(original, Substituted::new(original, lookup, read_file))
}

/// The bytes of `text` that a span of sqlparser's tree stands for, where it stands for any.
///
/// `text` is the whole original text that was given to [`parse`] or [`parse_file`], also for trees inside one of its statements.
pub fn byte_span(text: &SourceText, span: AstSpan) -> Option<Span> {
    if span.start.line == 0 || span.end.line == 0 {
        return None;
    }
    let place = |line: u64, column: u64| LineColumn {
        line: line as usize,
        column: column as usize,
    };
    let start = text.offset(place(span.start.line, span.start.column));
    let end = text.offset(place(span.end.line, span.end.column));
    Some(Span::new(start, end.max(start)))
}

fn parse_substituted(original: &SourceText, mut substituted: Substituted) -> ParsedFile {
    let unset = std::mem::take(&mut substituted.diagnostics);
    let tokens = tokenize(&original.text, &substituted);
    let mut sinks_without_rows = Vec::new();
    let mut file = ParsedFile {
        statements: Vec::new(),
        diagnostics: tokens.diagnostics,
        unfinished: tokens.lost,
    };
    for tokens_of_statement in tokens.statements {
        let tokens_of_statement = flink::rewrite(tokens_of_statement);
        let mut rest = &tokens_of_statement[..];
        // More than one turn where a semicolon is missing.
        while !rest.is_empty() {
            let mut parser = StatementParser {
                original,
                substituted: &substituted,
                comments: &tokens.comments,
                tokens: rest,
                at: 0,
                diagnostics: Vec::new(),
                sinks_without_rows: &mut sinks_without_rows,
                text_before: None,
            };
            let statement = parser.statement();
            let missing_semicolon = statement.as_ref().is_ok().then(|| parser.missing_semicolon()).flatten();
            let (at, mut diagnostics) = (parser.at, parser.diagnostics);
            let is_last = statement.is_err() || rest.len() <= at;
            let span = rest[0].span.to(rest[if is_last { rest.len() } else { at } - 1].span);
            let is_inside = |place: Span| span.start <= place.start && place.end <= span.end;
            let has_unset = unset.iter().any(|unset| unset.span.is_some_and(is_inside));
            if let Err(mistake) = &statement {
                diagnostics.push(mistake.clone());
            }
            match statement {
                Ok(statement) if diagnostics.is_empty() && !has_unset => match statement.kind {
                    StatementKind::CreateSinkWithoutRows(sink) => sinks_without_rows.push(sink),
                    _ => file.statements.push(statement),
                },
                _ => file.unfinished.extend(created_name(rest)),
            }
            // What stands in for a missing value may well be wrong, and is not what is to be mended.
            if !has_unset {
                file.diagnostics.append(&mut diagnostics);
            }
            file.diagnostics.extend(missing_semicolon);
            if is_last || DIAGNOSTICS_MAX <= file.diagnostics.len() {
                break;
            }
            rest = &rest[at..];
        }
    }
    file.diagnostics.extend(sinks_without_rows.iter().map(nothing_inserted));
    file.diagnostics.extend(unset);
    file.diagnostics
        .sort_by_key(|diagnostic| diagnostic.span.map_or(usize::MAX, |span| span.start));
    file.diagnostics.truncate(DIAGNOSTICS_MAX);
    file
}

/// What is wrong with a sink that is not made whole.
pub fn nothing_inserted(sink: &SinkWithoutRows) -> Diagnostic {
    let name = &sink.name.value;
    let message = format!("nothing is published into sink `{name}`");
    Diagnostic::error(SqlState::Syntax, message, sink.name.span).help(format!(
        "write INSERT INTO {name} SELECT … behind it, in the same text; or FROM and a view, or AS SELECT …, in it"
    ))
}

/// The names behind `INSERT INTO sink`.
fn check_order(sink: &SinkWithoutRows, columns: &[Spanned<String>]) -> Parsed<()> {
    let declared: Vec<&str> = sink.columns.iter().map(|column| column.name.value.as_str()).collect();
    let given: Vec<&str> = columns.iter().map(|column| column.value.as_str()).collect();
    if given.is_empty() || given == declared {
        return Ok(());
    }
    let wrong = std::iter::zip(columns, &declared).find(|(given, declared)| given.value != **declared);
    let at = wrong.map_or(columns[0].span, |(given, _)| given.span);
    let message = format!(
        "a sink is given all its columns in their order: {}",
        declared.join(", ")
    );
    Err(Diagnostic::error(SqlState::Invalid, message, at).help("leave the list out, or write it so"))
}

/// First words of statements that other systems know.
#[rustfmt::skip] // one line each would fill the page
const FOREIGN_WORDS: &[&str] = &[
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "CACHE", "CALL", "CLOSE", "COMMENT", "COMMIT", "COPY", "DEALLOCATE",
    "DECLARE", "DENY", "DETACH", "DISCARD", "EXECUTE", "EXPORT", "FETCH", "FROM", "GRANT",
    "INSTALL", "KILL", "LISTEN", "LOAD", "LOCK", "MERGE", "MSCK", "NOTIFY", "OPEN", "OPTIMIZE", "PRAGMA", "PREPARE",
    "RELEASE", "RENAME", "REPLACE", "RESET", "REVOKE", "ROLLBACK", "SAVEPOINT", "SET", "START", "SUBSCRIBE", "TABLE",
    "UNCACHE", "UNLISTEN", "UNLOAD", "USE", "VACUUM",
];
const USABLE: &str =
    "statements are CREATE, DROP, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, TRUNCATE, FLUSH and SELECT";

impl StatementParser<'_> {
    fn statement(&mut self) -> Parsed<Statement> {
        if let Some(unbalanced) = self.written().unbalanced() {
            // An unclosed bracket takes the next statement in; the position of the end is unknown.
            return Err(unbalanced);
        }
        if let Some(foreign) = foreign_character(self.tokens) {
            return Err(foreign);
        }
        check_depth(self.tokens)?;
        let statement = self.statement_here(true)?;
        self.statement_end()?;
        Ok(statement)
    }

    fn statement_here(&mut self, may_explain: bool) -> Parsed<Statement> {
        let start = self.at;
        let first = self.peek_word().unwrap_or_default();
        let kind = match first.as_str() {
            "CREATE" => self.create()?,
            "DROP" => self.drop_object()?,
            "SHOW" => self.show()?,
            "DESCRIBE" | "DESC" => {
                self.at += 1;
                StatementKind::Describe(self.name("the name of a source, table or view")?)
            }
            "EXPLAIN" if may_explain => self.explain()?,
            "INSERT" => self.insert()?,
            "UPDATE" => self.update()?,
            "DELETE" => self.delete()?,
            "TRUNCATE" => self.truncate()?,
            "FLUSH" => {
                self.at += 1;
                StatementKind::Flush
            }
            word if QUERY_WORDS.contains(&word) => StatementKind::Query(self.query()?.0),
            _ if self.tokens[start].is(&Token::LParen) => StatementKind::Query(self.query()?.0),
            _ => return Err(self.unknown_statement(start, &first)),
        };
        let (span, text) = (self.span_from(start), self.text_from(start));
        Ok(Statement {
            kind,
            span,
            text: match self.text_before.take() {
                Some(before) => format!("{before};\n{text}"),
                None => text,
            },
        })
    }

    fn unknown_statement(&self, at: usize, word: &str) -> Diagnostic {
        let found = self.written().found(at);
        let span = self.written().span(at);
        if FOREIGN_WORDS.contains(&word) {
            let mistake = Diagnostic::error(SqlState::Unsupported, format!("unsupported statement {found}"), span);
            return match word {
                "ALTER" | "REPLACE" => mistake.help("DROP it and CREATE it again"),
                "MERGE" => mistake.help("INSERT INTO a table with a PRIMARY KEY replaces the rows of the same key"),
                "FROM" | "TABLE" => mistake.help("write SELECT … FROM …"),
                "SUBSCRIBE" => mistake.help("subscribe over WebSocket: /api/v1/ws"),
                _ => mistake.help(USABLE),
            };
        }
        let mistake = Diagnostic::error(SqlState::Syntax, format!("unknown statement {found}"), span);
        match nearest(word, STATEMENT_WORDS.iter().copied()) {
            Some(meant) => mistake.help(format!("did you mean `{meant}`?")),
            None => mistake.help(USABLE),
        }
    }

    /// What is to be said where another statement follows without a semicolon.
    fn missing_semicolon(&self) -> Option<Diagnostic> {
        self.a_statement_follows().then(|| {
            let next = self.written().found(self.at);
            Diagnostic::error(
                SqlState::Syntax,
                format!("expected `;` before {next}"),
                self.written().span(self.at),
            )
            .label("a new statement starts here")
            .help("end each statement with `;`")
        })
    }

    /// Nothing may follow but another statement.
    fn statement_end(&self) -> Parsed<()> {
        let Some(next) = self.peek_word() else {
            return if self.at == self.tokens.len() {
                Ok(())
            } else {
                Err(self.written().unexpected(self.at))
            };
        };
        if self.a_statement_follows() {
            return Ok(());
        }
        let unsupported = match next.as_str() {
            "RETURNING" => Some("rows are not returned: SELECT them"),
            "CASCADE" | "RESTRICT" => Some("drop what reads it first"),
            "TABLESAMPLE" => Some("write LIMIT"),
            "LATERAL" => Some("write CROSS JOIN LATERAL (…)"),
            "FORMAT" | "INTO" => Some("the format of an answer is chosen by the request"),
            _ => None,
        };
        Err(match unsupported {
            Some(help) => Diagnostic::error(
                SqlState::Unsupported,
                format!("`{next}` is not supported here"),
                self.written().span(self.at),
            )
            .help(help),
            None if next == "WITH" => self.written().unexpected(self.at).help("WITH (…) stands before AS"),
            None => self.written().unexpected(self.at),
        })
    }

    fn drop_object(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        let kind = if self.eat_word("SOURCE") {
            DropKind::Source
        } else if self.eat_word("TABLE") {
            DropKind::Table
        } else if self.eat_word("VIEW") {
            DropKind::View
        } else if self.eat_word("EXTERNAL") {
            self.expect_word("TABLE")?;
            DropKind::Table
        } else if self.eat_word("MATERIALIZED") {
            self.expect_word("VIEW")?;
            DropKind::MaterializedView
        } else if self.eat_word("FUNCTION") {
            DropKind::Function
        } else if self.eat_word("SINK") {
            DropKind::Sink
        } else {
            let words = &[
                "SOURCE",
                "TABLE",
                "EXTERNAL",
                "VIEW",
                "MATERIALIZED",
                "FUNCTION",
                "SINK",
            ];
            return Err(self.unknown_clause(words, "SOURCE, TABLE, VIEW, MATERIALIZED VIEW, FUNCTION or SINK"));
        };
        let if_exists = if self.eat_word("IF") {
            self.expect_word("EXISTS")?;
            true
        } else {
            false
        };
        let name = self.name("the name of what to drop")?;
        if self.peek_is(&Token::Comma) {
            let mistake = Diagnostic::error(
                SqlState::Unsupported,
                "DROP takes one name",
                self.written().span(self.at),
            );
            return Err(mistake.help("write one DROP for each"));
        }
        Ok(StatementKind::Drop(Drop { kind, name, if_exists }))
    }

    fn show(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        let start = self.at;
        for (words, value) in [
            (&["SOURCES"][..], "SOURCES"),
            (&["TABLES"], "TABLES"),
            (&["VIEWS"], "VIEWS"),
            (&["MATERIALIZED", "VIEWS"], "MATERIALIZED VIEWS"),
            (&["FUNCTIONS"], "FUNCTIONS"),
            (&["SINKS"], "SINKS"),
            (&["ALL"], "ALL"),
        ] {
            if self.eat_words(words) {
                return Ok(StatementKind::Show(Spanned {
                    value: value.into(),
                    span: self.span_from(start),
                }));
            }
        }
        if self.peek_word().as_deref() == Some("CREATE") {
            return Err(self
                .unsupported(start, "SHOW CREATE")
                .help("DESCRIBE shows the columns"));
        }
        let words = &[
            "SOURCES",
            "TABLES",
            "VIEWS",
            "MATERIALIZED",
            "FUNCTIONS",
            "SINKS",
            "ALL",
        ];
        Err(self.unknown_clause(
            words,
            "SOURCES, TABLES, VIEWS, MATERIALIZED VIEWS, FUNCTIONS, SINKS or ALL",
        ))
    }

    fn explain(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        // A view may well be called `analyze`.
        if self.peek_word().as_deref() == Some("ANALYZE") && self.at + 1 < self.tokens.len() {
            self.at += 1;
            let target = match self.peek_word() {
                Some(word) if QUERY_WORDS.contains(&word.as_str()) => ExplainTarget::AnalyzeQuery(self.query()?.0),
                _ => ExplainTarget::Analyze(self.name("the name of a materialized view, or a SELECT")?),
            };
            return Ok(StatementKind::Explain(Explain {
                is_verbose: false,
                target,
            }));
        }
        // A view may well be called `watermark`.
        if self.peek_word().as_deref() == Some("WATERMARK") && self.at + 1 < self.tokens.len() {
            self.at += 1;
            let name = self.name("the name of a source or materialized view")?;
            return Ok(StatementKind::Explain(Explain {
                is_verbose: false,
                target: ExplainTarget::Watermark(name),
            }));
        }
        // A view may well be called `verbose`.
        let is_verbose = self.peek_word().as_deref() == Some("VERBOSE") && self.at + 1 < self.tokens.len();
        if is_verbose {
            self.at += 1;
        }
        let starts_statement = self
            .peek_word()
            .is_some_and(|word| STATEMENT_WORDS.contains(&word.as_str()))
            || self.peek_is(&Token::LParen);
        let target = if starts_statement {
            let at = self.at;
            let statement = self.statement_here(false)?;
            match statement.kind {
                StatementKind::Query(_)
                | StatementKind::CreateView(_)
                | StatementKind::CreateMaterializedView(_)
                | StatementKind::CreateSource(_)
                | StatementKind::CreateTable(_)
                | StatementKind::CreateExternalTable(_) => {}
                _ => {
                    let mistake = Diagnostic::error(
                        SqlState::Unsupported,
                        "there is nothing to explain here",
                        self.written().span(at),
                    );
                    return Err(mistake.help("write EXPLAIN and the name of a view, a SELECT or a CREATE"));
                }
            }
            ExplainTarget::Statement(Box::new(statement))
        } else {
            ExplainTarget::Name(self.name("the name of a view, a SELECT or a CREATE")?)
        };
        Ok(StatementKind::Explain(Explain { is_verbose, target }))
    }

    fn insert(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        self.expect_word("INTO")?;
        self.eat_word("TABLE");
        let table = self.name("the name of the table")?;
        let sink = self
            .sinks_without_rows
            .iter()
            .position(|sink| sink.name.value == table.value);
        let mut columns = Vec::new();
        let query_follows = |at: usize| {
            self.tokens
                .get(at)
                .is_some_and(|tok| tok.is(&Token::LParen) || QUERY_WORDS.iter().any(|word| tok.is_word(word)))
        };
        if self.peek_is(&Token::LParen) && !query_follows(self.at + 1) {
            let open = self.at;
            for (start, end) in self.elements() {
                self.at = start;
                columns.push(self.name("the name of a column")?);
                if self.at != end {
                    return Err(self.written().expected(self.at, "`,` or `)`"));
                }
            }
            self.at = self.closing(open) + 1;
        }
        if !query_follows(self.at) {
            return Err(self.written().expected(self.at, "VALUES or SELECT"));
        }
        if let Some(index) = sink {
            let sink = self.sinks_without_rows.remove(index);
            check_order(&sink, &columns)?;
            self.text_before = Some(sink.text.clone());
            return Ok(StatementKind::CreateSink(self.sink_of_query(sink)?));
        }
        let (source, _) = self.query()?;
        Ok(StatementKind::Insert(Insert { table, columns, source }))
    }

    /// Everything that sqlparser takes as a query from here on.
    pub(super) fn query(&mut self) -> Parsed<(Box<ast::Query>, Span)> {
        let start = self.at;
        if !self.peek_is(&Token::LParen)
            && !self
                .peek_word()
                .is_some_and(|word| QUERY_WORDS.contains(&word.as_str()))
        {
            return Err(self.written().expected(self.at, "SELECT"));
        }
        let query = self.sqlparser(self.tokens.len(), |parser| parser.parse_query())?;
        let refused = check_query(self.original, &query);
        self.diagnostics.extend(refused);
        Ok((query, self.span_from(start)))
    }
}
