//! Tables that take rows: `CREATE TABLE`, and what changes their rows.
//!
//! UPDATE and DELETE are read as the query of the rows that they concern: what is wrong in them is told as in any query.

use datafusion::sql::sqlparser::{
    ast::{self, SelectItem, SetExpr},
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::Token,
};

use super::{
    CreateTable, Delete, Diagnostic, Spanned, SqlState, StatementKind, Update,
    columns::MayHold,
    cursor::{Parsed, StatementParser},
    shapes::check_query,
};

impl StatementParser<'_> {
    pub(super) fn create_table(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name("the name of the table")?;
        if !self.peek_is(&Token::LParen) {
            let mistake = self.written().expected(self.at, "`(` and the columns");
            return Err(mistake.help(format!(
                "write CREATE TABLE {} (column TYPE, …, PRIMARY KEY (column))",
                name.value
            )));
        }
        let list = self.columns(MayHold {
            watermark: true,
            key: true,
        })?;
        let (mut append_only, mut options) = (None, Vec::new());
        while self.at < self.tokens.len() {
            let start = self.at;
            if self.eat_words(&["APPEND", "ONLY"]) {
                append_only = Some(self.span_from(start));
                continue;
            }
            if self.with_options(&["WITH"], &mut options)? {
                continue;
            }
            if self.a_statement_follows() {
                break;
            }
            return Err(self.unknown_clause(&["APPEND", "WITH"], "APPEND ONLY"));
        }
        Ok(StatementKind::CreateTable(CreateTable {
            name,
            if_not_exists,
            columns: list.columns,
            key: list.key,
            watermark: list.watermark,
            append_only,
            options,
        }))
    }

    pub(super) fn update(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        let table = self.name("the name of the table")?;
        self.expect_word("SET")?;
        let (mut columns, mut values) = (Vec::new(), Vec::new());
        loop {
            let column = self.name("the column to set")?;
            if !self.eat(&Token::Eq) {
                return Err(self.written().expected(self.at, "`=`"));
            }
            values.push(self.sqlparser(self.tokens.len(), |parser| parser.parse_expr())?);
            columns.push(column);
            if !self.eat(&Token::Comma) {
                break;
            }
        }
        let new = values
            .into_iter()
            .enumerate()
            .map(|(index, expr)| SelectItem::ExprWithAlias {
                expr,
                alias: ast::Ident::with_quote('"', format!("$set_{index}")),
            });
        let items = [all_columns()].into_iter().chain(new).collect();
        let rows = self.concerned(&table, items)?;
        Ok(StatementKind::Update(Update { table, columns, rows }))
    }

    pub(super) fn delete(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        self.expect_word("FROM")?;
        let table = self.name("the name of the table")?;
        let rows = self.concerned(&table, vec![all_columns()])?;
        Ok(StatementKind::Delete(Delete { table, rows }))
    }

    pub(super) fn truncate(&mut self) -> Parsed<StatementKind> {
        self.at += 1;
        self.eat_word("TABLE");
        let table = self.name("the name of the table")?;
        let rows = query_over(&table, vec![all_columns()], None);
        Ok(StatementKind::Delete(Delete { table, rows }))
    }

    /// The query of the rows that `[WHERE …]` names.
    fn concerned(&mut self, table: &Spanned<String>, items: Vec<SelectItem>) -> Parsed<Box<ast::Query>> {
        if let Some(word @ ("FROM" | "USING")) = self.peek_word().as_deref() {
            let mistake = Diagnostic::error(
                SqlState::Unsupported,
                format!("{word} is not supported here"),
                self.written().span(self.at),
            );
            return Err(mistake.help("name other tables in a sub-query: WHERE key IN (SELECT …)"));
        }
        let selection = match self.eat_word("WHERE") {
            true => Some(self.sqlparser(self.tokens.len(), |parser| parser.parse_expr())?),
            false => None,
        };
        let query = query_over(table, items, selection);
        let refused = check_query(self.original, &query);
        self.diagnostics.extend(refused);
        Ok(query)
    }
}

fn all_columns() -> SelectItem {
    SelectItem::Wildcard(ast::WildcardAdditionalOptions::default())
}

fn query_over(table: &Spanned<String>, items: Vec<SelectItem>, selection: Option<ast::Expr>) -> Box<ast::Query> {
    let name = table.value.replace('"', "\"\"");
    let mut query = Parser::new(&GenericDialect {})
        .try_with_sql(&format!("SELECT * FROM \"{name}\""))
        .and_then(|mut parser| parser.parse_query())
        .expect("a quoted name is a table");
    let SetExpr::Select(select) = query.body.as_mut() else {
        unreachable!("it begins with SELECT");
    };
    select.projection = items;
    select.selection = selection;
    query
}
