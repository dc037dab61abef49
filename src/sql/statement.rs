//! What a statement says, with the place of every word that a mistake may be about.

use datafusion::sql::sqlparser::ast;

use super::Span;

/// A name or a value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Statement {
    pub kind: StatementKind,
    /// From its first word to its last, without the semicolon.
    pub span: Span,
    /// Its text after `${NAME}` was filled in, secrets excepted: this is what the journal and `SHOW CREATE` hold. Parsed alone it is this
    /// statement again: before what is inserted into a sink stands what created that.
    pub text: String,
}

#[derive(Clone, Debug)]
// There are a few of them at a time, and a box around one would stand in every match.
#[allow(clippy::large_enum_variant)]
pub enum StatementKind {
    CreateSource(CreateSource),
    CreateTable(CreateTable),
    CreateExternalTable(CreateExternalTable),
    CreateView(CreateView),
    CreateMaterializedView(CreateMaterializedView),
    CreateFunction(CreateFunction),
    CreateSink(CreateSink),
    /// Only while a text is parsed: what is inserted into it makes it whole.
    CreateSinkWithoutRows(SinkWithoutRows),
    Drop(Drop),
    /// `SHOW SOURCES | TABLES | VIEWS | MATERIALIZED VIEWS | FUNCTIONS | ALL`… as written, in upper case.
    Show(Spanned<String>),
    Describe(Spanned<String>),
    Explain(Explain),
    /// `INSERT INTO table VALUES …`
    Insert(Insert),
    /// `UPDATE table SET column = expression, … [WHERE …]`
    Update(Update),
    /// `DELETE FROM table [WHERE …]`, and `TRUNCATE [TABLE] table`.
    Delete(Delete),
    /// Waits until what was written to tables is in every view.
    Flush,
    /// A bare SELECT, or anything else that reads.
    Query(Box<ast::Query>),
}

/// What a statement does to what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Names come and go.
    Defines,
    /// Rows come and go, or are waited for.
    Writes,
    Reads,
}

impl StatementKind {
    pub fn effect(&self) -> Effect {
        match self {
            Self::CreateSource(_)
            | Self::CreateTable(_)
            | Self::CreateExternalTable(_)
            | Self::CreateView(_)
            | Self::CreateMaterializedView(_)
            | Self::CreateFunction(_)
            | Self::CreateSink(_)
            | Self::CreateSinkWithoutRows(_)
            | Self::Drop(_) => Effect::Defines,
            Self::Insert(_) | Self::Update(_) | Self::Delete(_) | Self::Flush => Effect::Writes,
            Self::Query(_) | Self::Show(_) | Self::Describe(_) | Self::Explain(_) => Effect::Reads,
        }
    }
}

/// `CREATE SINK name [(columns)] FROM view WITH (…)`, or `CREATE SINK name [(columns)] WITH (…) AS SELECT … [EMIT …]`, or
/// `CREATE SINK name (columns) WITH (…)` and `INSERT INTO name SELECT … [EMIT …]`, which are one statement here.
#[derive(Clone, Debug)]
pub struct CreateSink {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    /// What its rows are to be; empty where that was not said.
    pub columns: Vec<Column>,
    /// That of its own query where it has one.
    pub view: Spanned<String>,
    pub options: Vec<SqlOption>,
    pub own_view: Option<OwnView>,
}

/// `CREATE SINK name (columns) WITH (…)`
#[derive(Clone, Debug)]
pub struct SinkWithoutRows {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    pub columns: Vec<Column>,
    pub options: Vec<SqlOption>,
    /// The whole statement as written.
    pub text: String,
}

/// Behind the name of a sink, the name of the view of its own query.
pub const OWN_VIEW_SUFFIX: &str = "$rows";

/// The materialized view of a sink's own query, also as a statement of its own.
#[derive(Clone, Debug)]
pub struct OwnView {
    pub create: Box<CreateMaterializedView>,
    /// `CREATE MATERIALIZED VIEW "s$rows" AS …`
    pub view_text: String,
}

/// `CREATE SOURCE name (columns, WATERMARK FOR column AS expression) INCLUDE … WITH (…)`
#[derive(Clone, Debug)]
pub struct CreateSource {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    pub columns: Vec<Column>,
    pub watermark: Option<WatermarkClause>,
    pub includes: Vec<Include>,
    pub options: Vec<SqlOption>,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: Spanned<String>,
    pub data_type: Spanned<ast::DataType>,
    pub is_nullable: bool,
}

/// `WATERMARK FOR open_time AS open_time - INTERVAL '5 seconds'`; without `AS` the column itself.
#[derive(Clone, Debug)]
pub struct WatermarkClause {
    pub column: Spanned<String>,
    pub expression: Option<Spanned<ast::Expr>>,
}

/// `INCLUDE timestamp AS kafka_time`, `INCLUDE file_name AS symbol`; without `AS` the name of the field.
#[derive(Clone, Debug)]
pub struct Include {
    pub field: Spanned<String>,
    pub name: Spanned<String>,
}

/// `key = 'value'` of a WITH clause; numbers and booleans as their text.
#[derive(Clone, Debug)]
pub struct SqlOption {
    pub key: Spanned<String>,
    pub value: Spanned<String>,
}

/// `CREATE TABLE name (columns, PRIMARY KEY (…), WATERMARK FOR column AS expression) [APPEND ONLY]`
#[derive(Clone, Debug)]
pub struct CreateTable {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    pub columns: Vec<Column>,
    /// Empty: rows have no name, and equal ones may stand side by side.
    pub key: Vec<Spanned<String>>,
    pub watermark: Option<WatermarkClause>,
    /// Rows are only inserted.
    pub append_only: Option<Span>,
    pub options: Vec<SqlOption>,
}

/// `CREATE EXTERNAL TABLE name [(columns)] [INCLUDE …] STORED AS PARQUET LOCATION '…' [INCLUDE …] [WITH (…)]`
#[derive(Clone, Debug)]
pub struct CreateExternalTable {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    /// Empty: the files say.
    pub columns: Vec<Column>,
    pub format: Spanned<String>,
    pub location: Spanned<String>,
    pub includes: Vec<Include>,
    pub options: Vec<SqlOption>,
}

#[derive(Clone, Debug)]
pub struct CreateView {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    pub query: Box<ast::Query>,
    pub query_span: Span,
}

#[derive(Clone, Debug)]
pub struct CreateMaterializedView {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    pub options: Vec<SqlOption>,
    pub query: Box<ast::Query>,
    pub query_span: Span,
    /// `None` where nothing was written: EMIT CHANGES.
    pub emit: Option<Spanned<Emit>>,
}

/// `CREATE FUNCTION name (parameter TYPE, …) RETURNS TYPE AS expression`
#[derive(Clone, Debug)]
pub struct CreateFunction {
    pub name: Spanned<String>,
    pub if_not_exists: bool,
    pub parameters: Vec<Parameter>,
    pub returns: Spanned<ast::DataType>,
    pub body: Spanned<ast::Expr>,
    /// The expression as written, secrets excepted.
    pub body_text: String,
}

#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: Spanned<String>,
    pub data_type: Spanned<ast::DataType>,
}

/// When rows of a view appear; never which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Upserts at each epoch.
    Changes,
    /// Once per window, when it is final.
    OnWindowClose,
    /// Upserts, at most this often.
    Every(std::time::Duration),
}

#[derive(Clone, Debug)]
pub struct Drop {
    pub kind: DropKind,
    pub name: Spanned<String>,
    pub if_exists: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropKind {
    Source,
    Table,
    View,
    MaterializedView,
    Function,
    Sink,
}

/// `EXPLAIN [VERBOSE] view | SELECT … | CREATE …`, `EXPLAIN ANALYZE view | SELECT …`, `EXPLAIN WATERMARK view`
#[derive(Clone, Debug)]
pub struct Explain {
    pub is_verbose: bool,
    pub target: ExplainTarget,
}

#[derive(Clone, Debug)]
pub enum ExplainTarget {
    Name(Spanned<String>),
    /// With what its operators did and hold.
    Analyze(Spanned<String>),
    /// The query is run, and how that went is told.
    AnalyzeQuery(Box<ast::Query>),
    /// How far the watermark of a source or view has come, and why no further.
    Watermark(Spanned<String>),
    Statement(Box<Statement>),
}

#[derive(Clone, Debug)]
pub struct Insert {
    pub table: Spanned<String>,
    pub columns: Vec<Spanned<String>>,
    pub source: Box<ast::Query>,
}

#[derive(Clone, Debug)]
pub struct Update {
    pub table: Spanned<String>,
    /// The columns that get new values.
    pub columns: Vec<Spanned<String>>,
    /// The rows to change: all columns of the table, then the new values in the order of `columns`.
    pub rows: Box<ast::Query>,
}

#[derive(Clone, Debug)]
pub struct Delete {
    pub table: Spanned<String>,
    /// The rows to delete, with all columns of the table.
    pub rows: Box<ast::Query>,
}
