//! `INCLUDE field AS name`, `FORMAT PLAIN ENCODE JSON` and `WITH (key = value, …)`: an option with a mistake costs only itself.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    Diagnostic, Include, Spanned, SqlOption, SqlState,
    cursor::{Parsed, StatementParser},
};

impl StatementParser<'_> {
    /// `INCLUDE field [AS name] [, …]`, where it stands here.
    pub(super) fn include(&mut self, includes: &mut Vec<Include>) -> Parsed<bool> {
        if !self.eat_word("INCLUDE") {
            return Ok(false);
        }
        loop {
            let field = self.name("a field of the message, e.g. timestamp")?;
            let name = if self.eat_word("AS") {
                self.name("the name of the column")?
            } else {
                field.clone()
            };
            includes.push(Include { field, name });
            if !self.eat(&Token::Comma) {
                return Ok(true);
            }
            self.eat_word("INCLUDE");
        }
    }

    /// `FORMAT PLAIN ENCODE JSON [(…)]`, where it stands here.
    pub(super) fn format_encode(&mut self, options: &mut Vec<SqlOption>) -> Parsed<bool> {
        let start = self.at;
        if !self.eat_word("FORMAT") {
            return Ok(false);
        }
        if !self.eat_word("PLAIN") {
            let found = self.written().found(self.at);
            let mistake = Diagnostic::error(
                SqlState::Unsupported,
                format!("FORMAT {found} is not supported"),
                self.written().span(self.at),
            );
            return Err(mistake.help("FORMAT PLAIN ENCODE JSON is: a message is a row"));
        }
        let key = Spanned {
            value: "format".to_owned(),
            span: self.span_from(start),
        };
        self.expect_word("ENCODE")?;
        let value = self.name("an encoding, e.g. JSON")?;
        self.option(
            SqlOption {
                key,
                value: Spanned {
                    value: value.value.to_ascii_lowercase(),
                    span: value.span,
                },
            },
            options,
        );
        if self.peek_is(&Token::LParen) {
            self.option_list(false, options)?;
        }
        Ok(true)
    }

    /// `WITH (key = value, …)`, where it stands here.
    pub(super) fn with_options(&mut self, words: &[&str], options: &mut Vec<SqlOption>) -> Parsed<bool> {
        let Some(word) = self.peek_word().filter(|word| words.contains(&word.as_str())) else {
            return Ok(false);
        };
        self.at += 1;
        if !self.peek_is(&Token::LParen) {
            return Err(self
                .written()
                .expected(self.at, "`(` and options")
                .help(format!("write {word} (key = 'value', …)")));
        }
        self.option_list(word == "OPTIONS", options)?;
        Ok(true)
    }

    /// `(key = value, …)`; in OPTIONS the `=` may be left out, as DataFusion does.
    fn option_list(&mut self, may_leave_eq_out: bool, options: &mut Vec<SqlOption>) -> Parsed<()> {
        let open = self.at;
        let elements = self.elements();
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
                    self.diagnostics
                        .push(mistake.help(format!("a comma is missing before {}", self.written().found(self.at))));
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
        Err(self
            .written()
            .expected(self.at, &format!("`=` after `{}`", key.value))
            .help(format!("write {} = 'value'", key.value)))
    }

    /// `'bootstrap.servers'` as it is, `properties.bootstrap.server` in lower case.
    fn option_key(&mut self, end: usize) -> Parsed<Spanned<String>> {
        let start = self.at;
        if let Token::SingleQuotedString(key) = &self.tokens[start].token.token {
            self.at += 1;
            return Ok(Spanned {
                value: key.clone(),
                span: self.span_from(start),
            });
        }
        let mut key = String::new();
        loop {
            match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
                Some(Token::Word(word)) => {
                    key.push_str(&if word.quote_style.is_some() {
                        word.value.clone()
                    } else {
                        word.value.to_lowercase()
                    });
                }
                _ => return Err(self.written().expected(self.at, "the name of an option")),
            }
            self.at += 1;
            match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
                Some(Token::Period) => key.push('.'),
                Some(Token::Minus) => key.push('-'),
                _ => {
                    return Ok(Spanned {
                        value: key,
                        span: self.span_from(start),
                    });
                }
            }
            self.at += 1;
        }
    }

    fn option_value(&mut self, end: usize, key: &Spanned<String>) -> Parsed<Spanned<String>> {
        let start = self.at;
        let sign = if self.at < end && self.eat(&Token::Minus) {
            "-"
        } else {
            ""
        };
        let value = match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
            Some(Token::Number(number, _)) => Some(format!("{sign}{number}")),
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) if sign.is_empty() => {
                Some(text.clone())
            }
            Some(Token::Word(word))
                if sign.is_empty()
                    && word.quote_style.is_none()
                    && matches!(word.value.to_ascii_lowercase().as_str(), "true" | "false") =>
            {
                Some(word.value.to_ascii_lowercase())
            }
            _ => None,
        };
        match value {
            Some(value) => {
                self.at += 1;
                Ok(Spanned {
                    value,
                    span: self.span_from(start),
                })
            }
            None => {
                let mistake = self
                    .written()
                    .expected(self.at, &format!("a value for `{}`", key.value));
                Err(match self.tokens[..end].get(self.at).map(|tok| &tok.token.token) {
                    Some(Token::Word(_)) if mistake.message.starts_with("expected") => Diagnostic {
                        // As it was written: the word may be a secret that was filled in.
                        help: vec![format!(
                            "write it as text: {} = '{}'",
                            key.value,
                            self.written().raw(self.at)
                        )],
                        ..mistake
                    },
                    _ => mistake.help("a value is text in single quotes, a number, true or false"),
                })
            }
        }
    }

    fn option(&mut self, option: SqlOption, options: &mut Vec<SqlOption>) {
        if options
            .iter()
            .any(|other| other.key.value.eq_ignore_ascii_case(&option.key.value))
        {
            let mistake = Diagnostic::error(
                SqlState::Duplicate,
                format!("option `{}` is given twice", option.key.value),
                option.key.span,
            );
            self.diagnostics.push(mistake.help("leave one out"));
        }
        options.push(option);
    }
}
