//! Statements from tokens: a thin parser of our clauses, with sqlparser for types, expressions and queries.
//!
//! ```text
//! tokens of one statement ──▶ first words ──┬─▶ CREATE SOURCE | EXTERNAL TABLE | VIEW | MATERIALIZED VIEW, DROP, SHOW, … (here)
//!                                           └─▶ SELECT | WITH | VALUES | (… ──▶ sqlparser ──▶ check_query
//! ```
//! A statement with a mistake costs only itself, and a column or option with a mistake only itself.

use std::time::Duration;

use datafusion::sql::sqlparser::{
    ast,
    parser::{Parser, ParserError},
    tokenizer::{Span as AstSpan, Token},
};

use super::{
    Column, CreateExternalTable, CreateMaterializedView, CreateSource, CreateView, Diagnostic, Drop, DropKind, Emit, Explain, ExplainTarget,
    Include, Insert, LineColumn, Lookup, ReadFile, SourceText, Span, Spanned, SqlOption, SqlState, Statement, StatementKind,
    WatermarkClause, check_query,
    dialect::Zeta,
    flink,
    guard::check_depth,
    suggest::nearest,
    syntax::Written,
    token::{Tok, tokenize},
    variables::Substituted,
};
use crate::types::parse_duration;

/// The statements of a text and everything that is wrong with it, both in the order of the text.
#[derive(Clone, Debug, Default)]
pub struct ParsedFile {
    pub statements: Vec<Statement>,
    pub diagnostics: Vec<Diagnostic>,
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
    let place = |line: u64, column: u64| LineColumn { line: line as usize, column: column as usize };
    let start = text.offset(place(span.start.line, span.start.column));
    let end = text.offset(place(span.end.line, span.end.column));
    Some(Span::new(start, end.max(start)))
}

fn parse_substituted(original: &SourceText, mut substituted: Substituted) -> ParsedFile {
    let unset = std::mem::take(&mut substituted.diagnostics);
    let tokens = tokenize(&original.text, &substituted);
    let mut file = ParsedFile { statements: Vec::new(), diagnostics: tokens.diagnostics };
    for tokens_of_statement in tokens.statements {
        let tokens_of_statement = flink::rewrite(tokens_of_statement);
        let mut rest = &tokens_of_statement[..];
        // More than one turn where a semicolon is missing.
        while !rest.is_empty() {
            let mut parser =
                StatementParser { original, substituted: &substituted, comments: &tokens.comments, tokens: rest, at: 0, diagnostics: Vec::new() };
            let statement = parser.statement();
            let (at, mut diagnostics) = (parser.at, parser.diagnostics);
            let is_last = statement.is_err() || rest.len() <= at;
            let span = rest[0].span.to(rest[if is_last { rest.len() } else { at } - 1].span);
            match statement {
                Ok(statement) if diagnostics.is_empty() => file.statements.push(statement),
                Ok(_) => {}
                Err(diagnostic) => diagnostics.push(diagnostic),
            }
            // What stands in for a missing value may well be wrong, and is not what is to be mended.
            if unset.iter().any(|unset| unset.span.is_some_and(|place| span.start <= place.start && place.end <= span.end)) {
                diagnostics.clear();
                file.statements.retain(|statement| statement.span != span);
            }
            file.diagnostics.append(&mut diagnostics);
            if is_last {
                break;
            }
            rest = &rest[at..];
        }
    }
    file.diagnostics.extend(unset);
    file.diagnostics.sort_by_key(|diagnostic| diagnostic.span.map_or(usize::MAX, |span| span.start));
    file
}

type Parsed<T> = Result<T, Diagnostic>;

const QUERY_WORDS: &[&str] = &["SELECT", "WITH", "VALUES"];
const STATEMENT_WORDS: &[&str] = &["CREATE", "DROP", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "INSERT", "SELECT", "WITH", "VALUES"];
/// First words of statements that other systems know.
const FOREIGN_WORDS: &[&str] = &[
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "CACHE", "CALL", "CLOSE", "COMMENT", "COMMIT", "COPY", "DEALLOCATE", "DECLARE", "DELETE", "DENY",
    "DETACH", "DISCARD", "EXECUTE", "EXPORT", "FETCH", "FLUSH", "FROM", "GRANT", "INSTALL", "KILL", "LISTEN", "LOAD", "LOCK", "MERGE", "MSCK",
    "NOTIFY", "OPEN", "OPTIMIZE", "PRAGMA", "PREPARE", "RELEASE", "RENAME", "REPLACE", "RESET", "REVOKE", "ROLLBACK", "SAVEPOINT", "SET",
    "START", "SUBSCRIBE", "TABLE", "TRUNCATE", "UNCACHE", "UNLISTEN", "UNLOAD", "UPDATE", "USE", "VACUUM",
];
const USABLE: &str = "statements are CREATE, DROP, SHOW, DESCRIBE, EXPLAIN, INSERT and SELECT";
/// What cannot be a name without quotes.
const RESERVED_NAMES: &[&str] = &[
    "AS", "CREATE", "DROP", "EMIT", "EXISTS", "FROM", "GROUP", "IF", "INCLUDE", "INSERT", "INTO", "JOIN", "NOT", "ON", "ORDER", "SELECT", "UNION",
    "VALUES", "WHERE", "WITH",
];

struct StatementParser<'a> {
    original: &'a SourceText,
    substituted: &'a Substituted,
    comments: &'a [Span],
    /// Of this statement, up to where a semicolon stands.
    tokens: &'a [Tok],
    /// The next token to read.
    at: usize,
    /// Mistakes that did not end the statement.
    diagnostics: Vec<Diagnostic>,
}

impl<'a> StatementParser<'a> {
    fn statement(&mut self) -> Parsed<Statement> {
        if let Some(unbalanced) = self.written().unbalanced() {
            // An unclosed bracket takes the next statement in; the position of the end is unknown.
            return Err(unbalanced);
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
            word if QUERY_WORDS.contains(&word) => StatementKind::Query(self.query()?.0),
            _ if self.tokens[start].is(&Token::LParen) => StatementKind::Query(self.query()?.0),
            _ => return Err(self.unknown_statement(start, &first)),
        };
        let span = self.span_from(start);
        Ok(Statement { kind, span, text: self.text_from(start) })
    }

    fn unknown_statement(&self, at: usize, word: &str) -> Diagnostic {
        let found = self.written().found(at);
        let span = self.written().span(at);
        if FOREIGN_WORDS.contains(&word) {
            let mistake = Diagnostic::error(SqlState::Unsupported, format!("unsupported statement {found}"), span);
            return match word {
                "ALTER" | "REPLACE" => mistake.help("DROP it and CREATE it again"),
                "DELETE" | "UPDATE" | "MERGE" | "TRUNCATE" => mistake.help("rows come from sources; write INSERT INTO … VALUES … to add some"),
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

    /// Nothing may follow. Where another statement does, only a semicolon is missing.
    fn statement_end(&mut self) -> Parsed<()> {
        let Some(next) = self.peek_word() else {
            return if self.at == self.tokens.len() { Ok(()) } else { Err(self.written().unexpected(self.at)) };
        };
        if STATEMENT_WORDS.contains(&next.as_str()) && next != "WITH" {
            let missing = Diagnostic::error(SqlState::Syntax, format!("expected `;` before `{next}`"), self.written().span(self.at))
                .label("a new statement starts here")
                .help("end each statement with `;`");
            self.diagnostics.push(missing);
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
            Some(help) => Diagnostic::error(SqlState::Unsupported, format!("`{next}` is not supported here"), self.written().span(self.at)).help(help),
            None if next == "WITH" => self.written().unexpected(self.at).help("WITH (…) stands before AS"),
            None => self.written().unexpected(self.at),
        })
    }

    // ── CREATE ───────────────────────────────────────────────────────────────────────────────────────────────

    fn create(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        let at = self.at;
        if self.eat_words(&["OR", "REPLACE"]) {
            return Err(self.unsupported(at, "CREATE OR REPLACE").help("DROP it first, or write IF NOT EXISTS"));
        }
        if let Some(word @ ("TEMPORARY" | "TEMP")) = self.peek_word().as_deref() {
            return Err(self.unsupported(at, &format!("CREATE {word}")).help("leave it out, and DROP it when it is not needed any more"));
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
        const KINDS: &[&str] = &["SOURCE", "EXTERNAL", "VIEW", "MATERIALIZED"];
        let usable = "CREATE SOURCE, EXTERNAL TABLE, VIEW and MATERIALIZED VIEW are";
        Err(match self.peek_word().as_deref() {
            Some("TABLE") => self
                .unsupported(at, "CREATE TABLE")
                .help("write CREATE SOURCE for rows that arrive, or CREATE EXTERNAL TABLE … STORED AS PARQUET LOCATION '…' for files"),
            Some("SINK") => self.unsupported(at, "CREATE SINK").help("write CREATE MATERIALIZED VIEW, and read it over HTTP or WebSocket"),
            Some(
                kind @ ("FUNCTION" | "INDEX" | "SCHEMA" | "DATABASE" | "TYPE" | "USER" | "ROLE" | "SECRET" | "CONNECTION" | "TRIGGER" | "SEQUENCE"),
            ) => self.unsupported(at, &format!("CREATE {kind}")).help(usable),
            word => {
                let meant = word.and_then(|word| nearest(word, KINDS.iter().copied().chain(["SINK", "TABLE", "FUNCTION"])));
                let mistake = Diagnostic::error(
                    SqlState::Syntax,
                    format!("expected SOURCE, EXTERNAL TABLE, VIEW or MATERIALIZED VIEW, found {}", self.written().found(at)),
                    self.written().span(at),
                );
                match meant {
                    Some(meant) => mistake.help(format!("did you mean `{meant}`?")),
                    None => mistake,
                }
            }
        })
    }

    fn unsupported(&self, at: usize, what: &str) -> Diagnostic {
        Diagnostic::error(SqlState::Unsupported, format!("{what} is not supported yet"), self.written().span(at))
    }

    fn create_source(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name("the name of the source")?;
        if !self.peek_is(&Token::LParen) {
            let mistake = self.written().expected(self.at, "`(` and the columns");
            return Err(mistake.help(format!("write CREATE SOURCE {} (column TYPE, …) WITH (…)", name.value)));
        }
        let mut watermark = None;
        let columns = self.columns(Some(&mut watermark))?;
        let (mut includes, mut options) = (Vec::new(), Vec::new());
        while self.at < self.tokens.len() {
            if self.include(&mut includes)? || self.with_options(&["WITH"], &mut options)? || self.format_encode(&mut options)? {
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
        Ok(StatementKind::CreateSource(CreateSource { name, if_not_exists, columns, watermark, includes, options }))
    }

    fn create_external_table(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name("the name of the table")?;
        let columns = if self.peek_is(&Token::LParen) { self.columns(None)? } else { Vec::new() };
        let (mut format, mut location, mut includes, mut options) = (None, None, Vec::new(), Vec::new());
        while self.at < self.tokens.len() {
            if self.include(&mut includes)? || self.with_options(&["WITH", "OPTIONS"], &mut options)? {
                continue;
            }
            let at = self.at;
            if self.eat_word("STORED") {
                self.expect_word("AS")?;
                let Some(value) = self.peek_word() else { return Err(self.written().expected(self.at, "the format of the files, PARQUET")) };
                self.once(format.is_some(), "STORED AS", at);
                format = Some(Spanned { value: value.to_ascii_lowercase(), span: self.written().span(self.at) });
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
                return Err(self.unsupported(at, "PARTITIONED BY").help("INCLUDE file_name AS … names a column by the file"));
            }
            if self.a_statement_follows() {
                break;
            }
            return Err(self.unknown_clause(&["STORED", "LOCATION", "INCLUDE", "WITH", "OPTIONS"], "STORED AS, LOCATION, INCLUDE or WITH"));
        }
        let example = format!("write CREATE EXTERNAL TABLE {} STORED AS PARQUET LOCATION '…'", name.value);
        let Some(format) = format else { return Err(self.written().expected(self.at, "STORED AS PARQUET").help(example)) };
        let Some(location) = location else { return Err(self.written().expected(self.at, "LOCATION '…'").help(example)) };
        Ok(StatementKind::CreateExternalTable(CreateExternalTable { name, if_not_exists, columns, format, location, includes, options }))
    }

    fn create_view(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.view_name()?;
        if self.peek_word().as_deref() == Some("WITH") {
            let mistake = Diagnostic::error(SqlState::Unsupported, "a view has no options", self.written().span(self.at));
            return Err(mistake.help("a MATERIALIZED VIEW has"));
        }
        self.expect_word("AS")?;
        let (query, query_span) = self.query()?;
        if self.peek_word().as_deref() == Some("EMIT") {
            let mistake = Diagnostic::error(SqlState::Unsupported, "a view that is not materialized has no EMIT", self.written().span(self.at));
            return Err(mistake.help("write CREATE MATERIALIZED VIEW, or leave EMIT out"));
        }
        Ok(StatementKind::CreateView(CreateView { name, if_not_exists, query, query_span }))
    }

    fn create_materialized_view(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.view_name()?;
        let mut options = Vec::new();
        self.with_options(&["WITH"], &mut options)?;
        self.expect_word("AS")?;
        let (query, query_span) = self.query()?;
        let emit = if self.peek_word().as_deref() == Some("EMIT") { Some(self.emit()?) } else { None };
        Ok(StatementKind::CreateMaterializedView(CreateMaterializedView { name, if_not_exists, options, query, query_span, emit }))
    }

    fn view_name(&mut self) -> Parsed<Spanned<String>> {
        let name = self.name("the name of the view")?;
        if self.peek_is(&Token::LParen) {
            let mistake = Diagnostic::error(SqlState::Unsupported, "a list of columns after the name of a view", self.written().span(self.at));
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
            if let Some(unit) = self.peek_word().filter(|unit| parse_duration(&format!("1 {unit}")).is_ok()) {
                every = Spanned { value: format!("{} {unit}", every.value), span: every.span.to(self.written().span(self.at)) };
                self.at += 1;
            }
            match parse_duration(&every.value) {
                Ok(Duration::ZERO) => {
                    let mistake = Diagnostic::error(SqlState::Invalid, "EMIT EVERY takes more than 0 seconds", every.span);
                    return Err(mistake.help("write EMIT CHANGES for every change"));
                }
                Ok(every) => Emit::Every(every),
                Err(reason) => return Err(Diagnostic::error(SqlState::Invalid, reason, every.span)),
            }
        } else {
            return Err(self.unknown_clause(&["CHANGES", "ON", "EVERY"], "CHANGES, ON WINDOW CLOSE or EVERY"));
        };
        Ok(Spanned { value: emit, span: self.span_from(start) })
    }

    /// A word that starts none of these clauses.
    fn unknown_clause(&self, words: &[&str], expected: &str) -> Diagnostic {
        let mistake = Diagnostic::error(
            SqlState::Syntax,
            format!("expected {expected}, found {}", self.written().found(self.at)),
            self.written().span(self.at),
        );
        match self.peek_word().and_then(|word| nearest(&word, words.iter().copied()).map(str::to_owned)) {
            Some(meant) => mistake.help(format!("did you mean `{meant}`?")),
            None => mistake,
        }
    }

    /// Reports a clause that was written before.
    fn once(&mut self, is_second: bool, clause: &str, at: usize) {
        if is_second {
            let span = self.written().span(at);
            self.diagnostics.push(Diagnostic::error(SqlState::Duplicate, format!("`{clause}` is written twice"), span).help("leave one out"));
        }
    }

    // ── Columns ──────────────────────────────────────────────────────────────────────────────────────────────

    /// `(column TYPE [NOT NULL], …, WATERMARK FOR …)`; a watermark only where there is a place for it.
    fn columns(&mut self, mut watermark: Option<&mut Option<WatermarkClause>>) -> Parsed<Vec<Column>> {
        let open = self.at;
        let mut columns = Vec::new();
        for (start, end) in self.elements()? {
            self.at = start;
            if start == end {
                let found = self.written().expected(end, "a column");
                // After a last comma; `()` has none.
                let help = if end == open + 1 { "name at least one column" } else { "leave the comma out" };
                self.diagnostics.push(found.help(help));
                continue;
            }
            let result = if self.tokens[start].is_word("WATERMARK") && self.tokens[start + 1].is_word("FOR") {
                self.watermark(end, &mut watermark)
            } else {
                self.columns_of_element(end, &mut columns)
            };
            if let Err(mistake) = result {
                self.diagnostics.push(mistake);
            }
        }
        self.at = self.closing(open) + 1;
        Ok(columns)
    }

    fn watermark(&mut self, end: usize, target: &mut Option<&mut Option<WatermarkClause>>) -> Parsed<()> {
        let start = self.at;
        self.at += 2;
        let column = self.name("the column of the watermark")?;
        let expression = if self.at < end && self.eat_word("AS") {
            let at = self.at;
            let value = self.sqlparser(end, |parser| parser.parse_expr())?;
            Some(Spanned { value, span: self.span_from(at) })
        } else {
            None
        };
        if self.at < end {
            return Err(self.written().expected(self.at, if expression.is_none() { "AS, `,` or `)`" } else { "`,` or `)`" }));
        }
        let span = self.span_from(start);
        match target {
            None => Err(Diagnostic::error(SqlState::Unsupported, "a table has no watermark", span).help("only a SOURCE has; leave it out")),
            Some(Some(_)) => Err(Diagnostic::error(SqlState::Duplicate, "a second watermark", span).help("a source has one event time")),
            Some(target) => {
                **target = Some(WatermarkClause { column, expression });
                Ok(())
            }
        }
    }

    /// The column of an element; more than one where a comma is missing.
    fn columns_of_element(&mut self, end: usize, columns: &mut Vec<Column>) -> Parsed<()> {
        loop {
            let start = self.at;
            if let Some(constraint @ ("PRIMARY" | "CONSTRAINT" | "UNIQUE" | "CHECK" | "FOREIGN")) = self.peek_word().as_deref()
                && self.tokens[..end].get(self.at + 1).is_some_and(|next| next.is_word("KEY") || next.is(&Token::LParen) || constraint == "CONSTRAINT")
            {
                return Err(self.unsupported_constraint(start));
            }
            let name = self.name("the name of a column")?;
            if self.at == end || matches!(self.peek_word().as_deref(), Some("NOT" | "NULL")) {
                let mistake = Diagnostic::error(SqlState::Syntax, format!("column `{}` has no type", name.value), name.span);
                return Err(mistake.help(format!("write e.g. {} VARCHAR", name.value)));
            }
            let type_start = self.at;
            let value = self.sqlparser(end, |parser| parser.parse_data_type())?;
            let data_type = Spanned { value, span: self.span_from(type_start) };
            let mut is_nullable = true;
            if self.at < end && self.eat_words(&["NOT", "NULL"]) {
                is_nullable = false;
            } else if self.at < end {
                self.eat_word("NULL");
            }
            let column = name.value.clone();
            columns.push(Column { name, data_type, is_nullable });
            if self.at == end {
                return Ok(());
            }
            if let Some(
                "PRIMARY" | "UNIQUE" | "DEFAULT" | "CHECK" | "REFERENCES" | "GENERATED" | "COMMENT" | "METADATA" | "COLLATE" | "AS" | "CONSTRAINT",
            ) = self.peek_word().as_deref()
            {
                return Err(self.unsupported_constraint(self.at));
            }
            let two_words = matches!(self.tokens[self.at].token.token, Token::Word(_)) && self.at + 1 < end;
            let mistake = self.written().expected(self.at, &format!("`,` or `)` after the column `{column}`"));
            if !two_words || !mistake.message.starts_with("expected") {
                return Err(mistake);
            }
            // Like another column: report the comma and read on.
            self.diagnostics.push(mistake.help(format!("a comma is missing before {}", self.written().found(self.at))));
        }
    }

    fn unsupported_constraint(&self, at: usize) -> Diagnostic {
        let found = self.written().found(at);
        let mistake = Diagnostic::error(SqlState::Unsupported, format!("{found} of a column is not supported"), self.written().span(at));
        mistake.help("a column is a name, a type and NOT NULL; compute others in a view")
    }

    /// Start and end of what stands between the commas of the bracket at `self.at`.
    fn elements(&self) -> Parsed<Vec<(usize, usize)>> {
        let close = self.closing(self.at);
        let mut elements = Vec::new();
        let (mut start, mut depth) = (self.at + 1, 0usize);
        let mut angles = 0usize;
        for index in self.at + 1..close {
            match self.tokens[index].token.token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::RParen | Token::RBracket | Token::RBrace => depth -= 1,
                // STRUCT<a INT, b INT>
                Token::Lt if ["ARRAY", "STRUCT", "MAP"].iter().any(|word| self.tokens[index - 1].is_word(word)) => angles += 1,
                Token::Gt => angles = angles.saturating_sub(1),
                Token::ShiftRight => angles = angles.saturating_sub(2),
                Token::Comma if depth == 0 && angles == 0 => {
                    elements.push((start, index));
                    start = index + 1;
                }
                _ => {}
            }
        }
        elements.push((start, close));
        Ok(elements)
    }

    /// The bracket that closes the one at `open`: there is one, brackets were checked.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (index, tok) in self.tokens.iter().enumerate().skip(open) {
            match tok.token.token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::RParen | Token::RBracket | Token::RBrace => {
                    depth -= 1;
                    if depth == 0 {
                        return index;
                    }
                }
                _ => {}
            }
        }
        unreachable!("brackets were found to be balanced")
    }

    // ── Clauses ──────────────────────────────────────────────────────────────────────────────────────────────

    /// `INCLUDE field [AS name] [, …]`, where it stands here.
    fn include(&mut self, includes: &mut Vec<Include>) -> Parsed<bool> {
        if !self.eat_word("INCLUDE") {
            return Ok(false);
        }
        loop {
            let field = self.name("a field of the message, e.g. timestamp")?;
            let name = if self.eat_word("AS") { self.name("the name of the column")? } else { field.clone() };
            includes.push(Include { field, name });
            if !self.eat(&Token::Comma) {
                return Ok(true);
            }
            self.eat_word("INCLUDE");
        }
    }

    /// `FORMAT PLAIN ENCODE JSON [(…)]`, where it stands here.
    fn format_encode(&mut self, options: &mut Vec<SqlOption>) -> Parsed<bool> {
        let start = self.at;
        if !self.eat_word("FORMAT") {
            return Ok(false);
        }
        if !self.eat_word("PLAIN") {
            let found = self.written().found(self.at);
            let mistake = Diagnostic::error(SqlState::Unsupported, format!("FORMAT {found} is not supported"), self.written().span(self.at));
            return Err(mistake.help("FORMAT PLAIN ENCODE JSON is: a message is a row"));
        }
        let key = Spanned { value: "format".to_owned(), span: self.span_from(start) };
        self.expect_word("ENCODE")?;
        let value = self.name("an encoding, e.g. JSON")?;
        self.option(SqlOption { key, value: Spanned { value: value.value.to_ascii_lowercase(), span: value.span } }, options);
        if self.peek_is(&Token::LParen) {
            self.option_list(false, options)?;
        }
        Ok(true)
    }

    /// `WITH (key = value, …)`, where it stands here.
    fn with_options(&mut self, words: &[&str], options: &mut Vec<SqlOption>) -> Parsed<bool> {
        let Some(word) = self.peek_word().filter(|word| words.contains(&word.as_str())) else { return Ok(false) };
        self.at += 1;
        if !self.peek_is(&Token::LParen) {
            return Err(self.written().expected(self.at, "`(` and options").help(format!("write {word} (key = 'value', …)")));
        }
        self.option_list(word == "OPTIONS", options)?;
        Ok(true)
    }

    /// `(key = value, …)`; in OPTIONS the `=` may be left out, as DataFusion does.
    fn option_list(&mut self, may_leave_eq_out: bool, options: &mut Vec<SqlOption>) -> Parsed<()> {
        let open = self.at;
        let elements = self.elements()?;
        if let [(start, end)] = elements[..]
            && start == end
        {
            self.at = end + 1;
            return Ok(());
        }
        for (start, end) in elements {
            self.at = start;
            if start == end {
                let mistake = self.written().expected(end, "an option").help("leave the comma out");
                self.diagnostics.push(mistake);
                continue;
            }
            while self.at < end {
                let before = self.at;
                match self.key_and_value(end, may_leave_eq_out) {
                    Ok(option) => self.option(option, options),
                    Err(mistake) => {
                        self.diagnostics.push(mistake);
                        break;
                    }
                }
                if self.at == end {
                    break;
                }
                let mistake = self.written().expected(self.at, "`,` or `)` after the value");
                let is_option = mistake.message.starts_with("expected") && before < self.at;
                // Like another option: report the comma and read on.
                let looks_like_one = self.tokens[self.at..end].iter().any(|tok| tok.is(&Token::Eq));
                if is_option && looks_like_one {
                    self.diagnostics.push(mistake.help(format!("a comma is missing before {}", self.written().found(self.at))));
                } else {
                    self.diagnostics.push(mistake);
                    break;
                }
            }
        }
        self.at = self.closing(open) + 1;
        Ok(())
    }

    fn key_and_value(&mut self, end: usize, may_leave_eq_out: bool) -> Parsed<SqlOption> {
        let key = self.option_key(end)?;
        if self.at < end && (self.eat(&Token::Eq) || may_leave_eq_out) {
            let value = self.option_value(end, &key)?;
            return Ok(SqlOption { key, value });
        }
        Err(self.written().expected(self.at, &format!("`=` after `{}`", key.value)).help(format!("write {} = 'value'", key.value)))
    }

    /// `'bootstrap.servers'` as it is, `properties.bootstrap.server` in lower case.
    fn option_key(&mut self, end: usize) -> Parsed<Spanned<String>> {
        let start = self.at;
        if let Token::SingleQuotedString(key) = &self.tokens[start].token.token {
            self.at += 1;
            return Ok(Spanned { value: key.clone(), span: self.span_from(start) });
        }
        let mut key = String::new();
        loop {
            match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
                Some(Token::Word(word)) => {
                    key.push_str(&if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() });
                }
                _ => return Err(self.written().expected(self.at, "the name of an option")),
            }
            self.at += 1;
            match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
                Some(Token::Period) => key.push('.'),
                Some(Token::Minus) => key.push('-'),
                _ => return Ok(Spanned { value: key, span: self.span_from(start) }),
            }
            self.at += 1;
        }
    }

    fn option_value(&mut self, end: usize, key: &Spanned<String>) -> Parsed<Spanned<String>> {
        let start = self.at;
        let sign = if self.at < end && self.eat(&Token::Minus) { "-" } else { "" };
        let value = match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
            Some(Token::Number(number, _)) => Some(format!("{sign}{number}")),
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) if sign.is_empty() => Some(text.clone()),
            Some(Token::Word(word)) if sign.is_empty() && word.quote_style.is_none() && matches!(word.value.to_ascii_lowercase().as_str(), "true" | "false") => {
                Some(word.value.to_ascii_lowercase())
            }
            _ => None,
        };
        match value {
            Some(value) => {
                self.at += 1;
                Ok(Spanned { value, span: self.span_from(start) })
            }
            None => {
                let mistake = self.written().expected(self.at, &format!("a value for `{}`", key.value));
                Err(match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
                    Some(Token::Word(word)) if mistake.message.starts_with("expected") => {
                        Diagnostic { help: vec![format!("write it as text: {} = '{}'", key.value, word.value)], ..mistake }
                    }
                    _ => mistake.help("a value is text in single quotes, a number, true or false"),
                })
            }
        }
    }

    fn option(&mut self, option: SqlOption, options: &mut Vec<SqlOption>) {
        if options.iter().any(|other| other.key.value.eq_ignore_ascii_case(&option.key.value)) {
            let mistake = Diagnostic::error(SqlState::Duplicate, format!("option `{}` is given twice", option.key.value), option.key.span);
            self.diagnostics.push(mistake.help("leave one out"));
        }
        options.push(option);
    }

    // ── The other statements ─────────────────────────────────────────────────────────────────────────────────

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
        } else {
            let words = &["SOURCE", "TABLE", "EXTERNAL", "VIEW", "MATERIALIZED"];
            return Err(self.unknown_clause(words, "SOURCE, TABLE, VIEW or MATERIALIZED VIEW"));
        };
        let if_exists = if self.eat_word("IF") {
            self.expect_word("EXISTS")?;
            true
        } else {
            false
        };
        let name = self.name("the name of what to drop")?;
        if self.peek_is(&Token::Comma) {
            let mistake = Diagnostic::error(SqlState::Unsupported, "DROP takes one name", self.written().span(self.at));
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
            (&["ALL"], "ALL"),
        ] {
            if self.eat_words(words) {
                return Ok(StatementKind::Show(Spanned { value: value.into(), span: self.span_from(start) }));
            }
        }
        if self.peek_word().as_deref() == Some("CREATE") {
            return Err(self.unsupported(start, "SHOW CREATE").help("DESCRIBE shows the columns"));
        }
        let words = &["SOURCES", "TABLES", "VIEWS", "MATERIALIZED", "ALL"];
        Err(self.unknown_clause(words, "SOURCES, TABLES, VIEWS, MATERIALIZED VIEWS or ALL"))
    }

    fn explain(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        let at = self.at;
        if let Some("ANALYZE") = self.peek_word().as_deref() {
            return Err(self.unsupported(at, "EXPLAIN ANALYZE").help("EXPLAIN and EXPLAIN VERBOSE are"));
        }
        // A view may well be called `verbose`.
        let is_verbose = self.peek_word().as_deref() == Some("VERBOSE") && self.at + 1 < self.tokens.len();
        if is_verbose {
            self.at += 1;
        }
        let starts_statement = self.peek_word().is_some_and(|word| STATEMENT_WORDS.contains(&word.as_str())) || self.peek_is(&Token::LParen);
        let target = if starts_statement {
            let at = self.at;
            let statement = self.statement_here(false)?;
            match statement.kind {
                StatementKind::Query(_)
                | StatementKind::CreateView(_)
                | StatementKind::CreateMaterializedView(_)
                | StatementKind::CreateSource(_)
                | StatementKind::CreateExternalTable(_) => {}
                _ => {
                    let mistake = Diagnostic::error(SqlState::Unsupported, "there is nothing to explain here", self.written().span(at));
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
        let mut columns = Vec::new();
        let query_follows =
            |at: usize| self.tokens.get(at).is_some_and(|tok| tok.is(&Token::LParen) || QUERY_WORDS.iter().any(|word| tok.is_word(word)));
        if self.peek_is(&Token::LParen) && !query_follows(self.at + 1) {
            let open = self.at;
            for (start, end) in self.elements()? {
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
        let (source, _) = self.query()?;
        Ok(StatementKind::Insert(Insert { table, columns, source }))
    }

    /// Everything that sqlparser takes as a query from here on.
    fn query(&mut self) -> Parsed<(Box<ast::Query>, Span)> {
        let start = self.at;
        if !self.peek_is(&Token::LParen) && !self.peek_word().is_some_and(|word| QUERY_WORDS.contains(&word.as_str())) {
            return Err(self.written().expected(self.at, "SELECT"));
        }
        let query = self.sqlparser(self.tokens.len(), |parser| parser.parse_query())?;
        let refused = check_query(self.original, &query);
        self.diagnostics.extend(refused);
        Ok((query, self.span_from(start)))
    }

    // ── Tokens ───────────────────────────────────────────────────────────────────────────────────────────────

    fn written(&self) -> Written<'a> {
        Written { original: &self.original.text, tokens: self.tokens }
    }

    /// Lets sqlparser read from here, at most to token `end`, and goes on behind what it took.
    fn sqlparser<T>(&mut self, end: usize, read: impl FnOnce(&mut Parser) -> Result<T, ParserError>) -> Parsed<T> {
        let tokens: Vec<_> = self.tokens[self.at..end].iter().map(|tok| tok.token.clone()).collect();
        let dialect = Zeta::new(tokens.len());
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
        let value = read(&mut parser).map_err(|error| self.written().translated(error, self.at, end))?;
        // Of an empty reading there is none: all that is read here takes one token at least.
        self.at = (self.at + parser.get_current_index() + 1).min(end);
        Ok(value)
    }

    fn if_not_exists(&mut self) -> Parsed<bool> {
        if !self.eat_word("IF") {
            return Ok(false);
        }
        self.expect_word("NOT")?;
        self.expect_word("EXISTS")?;
        Ok(true)
    }

    /// A name of one part: lower case unless it is quoted.
    fn name(&mut self, what: &str) -> Parsed<Spanned<String>> {
        let start = self.at;
        let value = match self.tokens.get(start).map(|tok| &tok.token.token) {
            Some(Token::Word(word)) if word.quote_style.is_some() => word.value.clone(),
            Some(Token::Word(word)) if !RESERVED_NAMES.contains(&word.value.to_ascii_uppercase().as_str()) => word.value.to_lowercase(),
            Some(Token::Word(word)) => {
                return Err(self.written().expected(start, what).help(format!("write \"{}\" if that is the name", word.value)));
            }
            Some(Token::SingleQuotedString(text)) => {
                let mistake = self.written().expected(start, what);
                return Err(mistake.help(format!("a name stands without quotes or in double ones: \"{text}\"")));
            }
            _ => return Err(self.written().expected(start, what)),
        };
        if value.is_empty() {
            return Err(Diagnostic::error(SqlState::Syntax, "a name is not empty", self.written().span(start)));
        }
        self.at += 1;
        if self.peek_is(&Token::Period) {
            let last = self.tokens.get(self.at + 1).filter(|tok| matches!(tok.token.token, Token::Word(_)));
            let mistake = Diagnostic::error(SqlState::Unsupported, "a name has one part", self.written().span(start).to(self.written().span(self.at + usize::from(last.is_some()))));
            return Err(match last {
                Some(_) => mistake.help(format!("there are no schemas: write {}", self.written().found(self.at + 1))),
                None => mistake,
            });
        }
        Ok(Spanned { value, span: self.span_from(start) })
    }

    fn string(&mut self, what: &str) -> Parsed<Spanned<String>> {
        match self.tokens.get(self.at).map(|tok| &tok.token.token) {
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => {
                let value = text.clone();
                self.at += 1;
                Ok(Spanned { value, span: self.written().span(self.at - 1) })
            }
            _ => Err(self.written().expected(self.at, what)),
        }
    }

    /// From token `start` to the last one read.
    fn span_from(&self, start: usize) -> Span {
        let last = self.at.max(start + 1).min(self.tokens.len()) - 1;
        self.tokens[start.min(last)].span.to(self.tokens[last].span)
    }

    fn text_from(&self, start: usize) -> String {
        let last = self.at.max(start + 1).min(self.tokens.len()) - 1;
        let span = Span::new(self.tokens[start.min(last)].new_span.start, self.tokens[last].new_span.end);
        self.substituted.text_without_secrets(&self.original.text, span, self.comments)
    }

    fn peek_word(&self) -> Option<String> {
        self.tokens.get(self.at).and_then(Tok::word)
    }

    fn peek_is(&self, token: &Token) -> bool {
        self.tokens.get(self.at).is_some_and(|tok| tok.is(token))
    }

    fn a_statement_follows(&self) -> bool {
        self.peek_word().is_some_and(|word| STATEMENT_WORDS.contains(&word.as_str()) && word != "WITH")
    }

    fn eat(&mut self, token: &Token) -> bool {
        let is_there = self.peek_is(token);
        self.at += usize::from(is_there);
        is_there
    }

    fn eat_word(&mut self, word: &str) -> bool {
        self.eat_words(&[word])
    }

    fn eat_words(&mut self, words: &[&str]) -> bool {
        let are_there = words.iter().enumerate().all(|(index, word)| self.tokens.get(self.at + index).is_some_and(|tok| tok.is_word(word)));
        self.at += if are_there { words.len() } else { 0 };
        are_there
    }

    fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.eat_word(word) {
            return Ok(());
        }
        let mistake = self.written().expected(self.at, &format!("`{word}`"));
        let near = self.peek_word().filter(|found| nearest(found, [word]).is_some());
        Err(match near {
            Some(_) if mistake.help.is_empty() => mistake.help(format!("did you mean `{word}`?")),
            _ => mistake,
        })
    }
}
