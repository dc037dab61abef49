//! `CREATE FUNCTION name (parameter TYPE, …) RETURNS TYPE [LANGUAGE SQL] AS expression`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    CreateFunction, Diagnostic, Parameter, Spanned, SqlState, StatementKind,
    cursor::{Parsed, StatementParser},
    shapes::check_expression,
};

impl StatementParser<'_> {
    /// Behind `CREATE FUNCTION`.
    pub(super) fn create_function(&mut self) -> Parsed<StatementKind> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name("the name of the function")?;
        let example = format!(
            "write CREATE FUNCTION {} (parameter TYPE, …) RETURNS TYPE AS …",
            name.value
        );
        if !self.peek_is(&Token::LParen) {
            return Err(self.written().expected(self.at, "`(` and the parameters").help(example));
        }
        let parameters = self.parameters()?;
        if !self.eat_word("RETURNS") {
            return Err(self.written().expected(self.at, "RETURNS and a type").help(example));
        }
        let at = self.at;
        let value = self.sqlparser(self.tokens.len(), |parser| parser.parse_data_type())?;
        let returns = Spanned {
            value,
            span: self.span_from(at),
        };
        if self.eat_word("LANGUAGE") {
            let language = self.name("a language, SQL")?;
            if language.value != "sql" {
                let message = format!("functions in {} are not supported", language.value);
                return Err(Diagnostic::error(SqlState::Unsupported, message, language.span)
                    .help("LANGUAGE SQL is: an expression behind AS"));
            }
        }
        if !self.eat_word("AS") {
            let words = &["LANGUAGE", "AS"];
            return Err(self.unknown_clause(words, "AS and an expression"));
        }
        let at = self.at;
        if let Some(word @ ("SELECT" | "WITH" | "BEGIN")) = self.peek_word().as_deref() {
            let message = format!("the body of a function is an expression, not {word}");
            return Err(
                Diagnostic::error(SqlState::Unsupported, message, self.written().span(at))
                    .help("write what stands behind SELECT: AS a + b"),
            );
        }
        let value = self.sqlparser(self.tokens.len(), |parser| parser.parse_expr())?;
        self.diagnostics.extend(check_expression(self.original, &value));
        Ok(StatementKind::CreateFunction(CreateFunction {
            name,
            if_not_exists,
            parameters,
            returns,
            body: Spanned {
                value,
                span: self.span_from(at),
            },
            body_text: self.text_from(at),
        }))
    }

    /// `(a DOUBLE, b INT)`, or `()`: a parameter with a mistake costs only itself.
    fn parameters(&mut self) -> Parsed<Vec<Parameter>> {
        let open = self.at;
        let close = self.closing(open);
        let mut parameters = Vec::new();
        if open + 1 < close {
            for (start, end) in self.elements() {
                self.at = start;
                match self.parameter(end) {
                    Ok(parameter) => parameters.push(parameter),
                    Err(mistake) => self.diagnostics.push(mistake),
                }
            }
        }
        self.at = close + 1;
        Ok(parameters)
    }

    fn parameter(&mut self, end: usize) -> Parsed<Parameter> {
        if self.at == end {
            return Err(self.written().expected(end, "a parameter").help("leave the comma out"));
        }
        let name = self.name("the name of a parameter")?;
        if self.at == end {
            let message = format!("parameter `{}` has no type", name.value);
            return Err(Diagnostic::error(SqlState::Syntax, message, name.span)
                .help(format!("write e.g. {} DOUBLE", name.value)));
        }
        let at = self.at;
        let value = self.sqlparser(end, |parser| parser.parse_data_type())?;
        let data_type = Spanned {
            value,
            span: self.span_from(at),
        };
        if self.at < end {
            let mistake = self.written().expected(self.at, "`,` or `)` behind a parameter");
            return Err(match self.peek_word().as_deref() {
                Some("NOT" | "NULL") => mistake.help("every parameter may be null"),
                Some("DEFAULT") => mistake.help("every call gives all arguments"),
                _ => mistake,
            });
        }
        Ok(Parameter { name, data_type })
    }
}
