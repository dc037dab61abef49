//! `(column TYPE [NOT NULL], …, WATERMARK FOR column [AS expression], PRIMARY KEY (column, …))`: a column with a mistake costs only itself.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    Column, Diagnostic, Spanned, SqlState, WatermarkClause,
    cursor::{Parsed, StatementParser},
};
use crate::types::limits::DIAGNOSTICS_MAX;

/// What stands in the brackets behind the name of a source or table.
#[derive(Default)]
pub(super) struct ColumnList {
    pub columns: Vec<Column>,
    pub watermark: Option<WatermarkClause>,
    pub key: Vec<Spanned<String>>,
}

/// What a list may hold beside columns.
#[derive(Clone, Copy)]
pub(super) struct MayHold {
    pub watermark: bool,
    pub key: bool,
}

impl StatementParser<'_> {
    /// `(column TYPE [NOT NULL], …, WATERMARK FOR …, PRIMARY KEY (…))`; the last two only where there is a place for them.
    pub(super) fn columns(&mut self, may_hold: MayHold) -> Parsed<ColumnList> {
        let open = self.at;
        let mut list = ColumnList::default();
        for (start, end) in self.elements() {
            self.at = start;
            if start == end {
                let found = self.written().expected(end, "a column");
                // After a last comma; `()` has none.
                let help = if end == open + 1 {
                    "name at least one column"
                } else {
                    "leave the comma out"
                };
                self.diagnostics.push(found.help(help));
                continue;
            }
            if let Err(mistake) = self.element(end, may_hold, &mut list) {
                self.diagnostics.push(mistake);
            }
        }
        self.at = self.closing(open) + 1;
        Ok(list)
    }

    fn watermark(&mut self, end: usize, may_hold: MayHold, list: &mut ColumnList) -> Parsed<()> {
        let start = self.at;
        self.at += 2;
        let column = self.name("the column of the watermark")?;
        let expression = if self.at < end && self.eat_word("AS") {
            let at = self.at;
            let value = self.sqlparser(end, |parser| parser.parse_expr())?;
            Some(Spanned {
                value,
                span: self.span_from(at),
            })
        } else {
            None
        };
        if self.at < end {
            return Err(self.written().expected(
                self.at,
                if expression.is_none() {
                    "AS, `,` or `)`"
                } else {
                    "`,` or `)`"
                },
            ));
        }
        let span = self.span_from(start);
        if !may_hold.watermark {
            return Err(
                Diagnostic::error(SqlState::Unsupported, "an external table has no watermark", span)
                    .help("only a SOURCE or a TABLE has; leave it out"),
            );
        }
        if list.watermark.is_some() {
            return Err(
                Diagnostic::error(SqlState::Duplicate, "a second watermark", span).help("there is one event time")
            );
        }
        list.watermark = Some(WatermarkClause { column, expression });
        Ok(())
    }

    /// `PRIMARY KEY (column, …)`
    fn primary_key(&mut self, end: usize, list: &mut ColumnList) -> Parsed<()> {
        let start = self.at;
        self.at += 2;
        if !self.peek_is(&Token::LParen) {
            return Err(self.written().expected(self.at, "`(` and the columns of the key"));
        }
        let open = self.at;
        let mut key = Vec::new();
        for (first, last) in self.elements() {
            self.at = first;
            key.push(self.name("a column of the key")?);
            if self.at != last {
                return Err(self.written().expected(self.at, "`,` or `)`"));
            }
        }
        self.at = self.closing(open) + 1;
        if self.at < end {
            return Err(self.written().expected(self.at, "`,` or `)`"));
        }
        self.key(key, start, list)
    }

    fn key(&mut self, key: Vec<Spanned<String>>, start: usize, list: &mut ColumnList) -> Parsed<()> {
        if list.key.is_empty() {
            list.key = key;
            return Ok(());
        }
        Err(
            Diagnostic::error(SqlState::Duplicate, "a second primary key", self.span_from(start))
                .help("name all its columns in one: PRIMARY KEY (a, b)"),
        )
    }

    /// A column or a watermark; more than one where a comma is missing.
    fn element(&mut self, end: usize, may_hold: MayHold, list: &mut ColumnList) -> Parsed<()> {
        loop {
            let start = self.at;
            // Every element is followed by a comma or a bracket, so there is a next token.
            if self.tokens[start].is_word("WATERMARK") && self.tokens[start + 1].is_word("FOR") {
                return self.watermark(end, may_hold, list);
            }
            if may_hold.key && self.tokens[start].is_word("PRIMARY") && self.tokens[start + 1].is_word("KEY") {
                return self.primary_key(end, list);
            }
            if let Some(constraint @ ("PRIMARY" | "CONSTRAINT" | "UNIQUE" | "CHECK" | "FOREIGN")) =
                self.peek_word().as_deref()
                && self.tokens[..end]
                    .get(self.at + 1)
                    .is_some_and(|next| next.is_word("KEY") || next.is(&Token::LParen) || constraint == "CONSTRAINT")
            {
                return Err(self.unsupported_constraint(start));
            }
            let name = self.name("the name of a column")?;
            if self.at == end || matches!(self.peek_word().as_deref(), Some("NOT" | "NULL")) {
                let mistake = Diagnostic::error(
                    SqlState::Syntax,
                    format!("column `{}` has no type", name.value),
                    name.span,
                );
                return Err(mistake.help(format!("write e.g. {} VARCHAR", name.value)));
            }
            let type_start = self.at;
            let value = self.sqlparser(end, |parser| parser.parse_data_type())?;
            let data_type = Spanned {
                value,
                span: self.span_from(type_start),
            };
            let mut is_nullable = true;
            if self.at < end && self.eat_word("NOT") {
                self.expect_word("NULL")?;
                is_nullable = false;
            } else if self.at < end {
                self.eat_word("NULL");
            }
            let column = name.value.clone();
            if may_hold.key && self.at < end && self.eat_words(&["PRIMARY", "KEY"]) {
                is_nullable = false;
                self.key(vec![name.clone()], start, list)?;
            }
            list.columns.push(Column {
                name,
                data_type,
                is_nullable,
            });
            if self.at == end {
                return Ok(());
            }
            if let Some(
                "PRIMARY" | "UNIQUE" | "DEFAULT" | "CHECK" | "REFERENCES" | "GENERATED" | "COMMENT" | "METADATA"
                | "COLLATE" | "AS" | "CONSTRAINT",
            ) = self.peek_word().as_deref()
            {
                return Err(self.unsupported_constraint(self.at));
            }
            let two_words = matches!(self.tokens[self.at].token.token, Token::Word(_)) && self.at + 1 < end;
            let mistake = self
                .written()
                .expected(self.at, &format!("`,` or `)` after the column `{column}`"));
            if !two_words || !mistake.message.starts_with("expected") || DIAGNOSTICS_MAX <= self.diagnostics.len() {
                return Err(mistake);
            }
            // Like another column: report the comma and read on.
            self.diagnostics
                .push(mistake.help(format!("a comma is missing before {}", self.written().found(self.at))));
        }
    }

    fn unsupported_constraint(&self, at: usize) -> Diagnostic {
        let found = self.written().found(at);
        let mistake = Diagnostic::error(
            SqlState::Unsupported,
            format!("{found} is not supported in a list of columns"),
            self.written().span(at),
        );
        mistake.help("a column is a name, a type and NOT NULL; compute others in a view")
    }

    /// Start and end of what stands between the commas of the bracket at `self.at`.
    pub(super) fn elements(&self) -> Vec<(usize, usize)> {
        let close = self.closing(self.at);
        let mut elements = Vec::new();
        let (mut start, mut depth) = (self.at + 1, 0usize);
        let mut angles = 0usize;
        for index in self.at + 1..close {
            match self.tokens[index].token.token {
                Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
                Token::RParen | Token::RBracket | Token::RBrace => depth -= 1,
                // STRUCT<a INT, b INT>
                Token::Lt
                    if ["ARRAY", "STRUCT", "MAP"]
                        .iter()
                        .any(|word| self.tokens[index - 1].is_word(word)) =>
                {
                    angles += 1
                }
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
        elements
    }

    /// The bracket that closes the one at `open`: there is one, brackets were checked.
    pub(super) fn closing(&self, open: usize) -> usize {
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
}
