//! Reading the tokens of one statement, one after the other: words, names, texts, and what sqlparser takes.

use datafusion::sql::sqlparser::{
    parser::{Parser, ParserError},
    tokenizer::Token,
};

use super::{
    Diagnostic, SinkWithoutRows, SourceText, Span, Spanned, SqlState, dialect::Zeta, suggest::nearest, syntax::Written,
    token::Tok, variables::Substituted,
};

pub(super) type Parsed<T> = Result<T, Diagnostic>;

pub(super) const QUERY_WORDS: &[&str] = &["SELECT", "WITH", "VALUES"];
pub(super) const STATEMENT_WORDS: &[&str] = &[
    "CREATE", "DROP", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "FLUSH",
    "SELECT", "WITH", "VALUES",
];
/// What cannot be a name without quotes.
#[rustfmt::skip] // one line each would fill the page
const RESERVED_NAMES: &[&str] = &[
    "AS", "CREATE", "DROP", "EMIT", "EXISTS", "FROM", "GROUP", "IF", "INCLUDE", "INSERT", "INTO", "JOIN", "NOT", "ON",
    "ORDER", "SELECT", "UNION", "VALUES", "WHERE", "WITH",
];

pub(super) struct StatementParser<'a> {
    pub original: &'a SourceText,
    pub substituted: &'a Substituted,
    pub comments: &'a [Span],
    /// Of this statement, up to where a semicolon stands.
    pub tokens: &'a [Tok],
    /// The next token to read.
    pub at: usize,
    /// Mistakes that did not end the statement.
    pub diagnostics: Vec<Diagnostic>,
    /// Created before this statement, and nothing inserted yet.
    pub sinks_without_rows: &'a mut Vec<SinkWithoutRows>,
    /// Of what this statement makes whole.
    pub text_before: Option<String>,
}

impl<'a> StatementParser<'a> {
    pub(super) fn written(&self) -> Written<'a> {
        Written {
            original: &self.original.text,
            tokens: self.tokens,
        }
    }

    /// Lets sqlparser read from here, at most to token `end`, and goes on behind what it took.
    pub(super) fn sqlparser<T>(
        &mut self,
        end: usize,
        read: impl FnOnce(&mut Parser) -> Result<T, ParserError>,
    ) -> Parsed<T> {
        let tokens: Vec<_> = self.tokens[self.at..end].iter().map(|tok| tok.token.clone()).collect();
        let dialect = Zeta::new(tokens.len());
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
        let value = read(&mut parser).map_err(|error| self.written().translated(error, self.at, end))?;
        // Of an empty reading there is none: all that is read here takes one token at least.
        self.at = (self.at + parser.get_current_index() + 1).min(end);
        Ok(value)
    }

    pub(super) fn if_not_exists(&mut self) -> Parsed<bool> {
        if !self.eat_word("IF") {
            return Ok(false);
        }
        self.expect_word("NOT")?;
        self.expect_word("EXISTS")?;
        Ok(true)
    }

    /// A name of one part: lower case unless it is quoted.
    pub(super) fn name(&mut self, what: &str) -> Parsed<Spanned<String>> {
        let start = self.at;
        let value = match self.tokens.get(start).map(|tok| &tok.token.token) {
            Some(Token::Word(word)) if word.quote_style.is_some() => word.value.clone(),
            Some(Token::Word(word)) if !RESERVED_NAMES.contains(&word.value.to_ascii_uppercase().as_str()) => {
                word.value.to_lowercase()
            }
            Some(Token::Word(word)) => {
                return Err(self
                    .written()
                    .expected(start, what)
                    .help(format!("write \"{}\" if that is the name", word.value)));
            }
            Some(Token::SingleQuotedString(_)) => {
                let mistake = self.written().expected(start, what);
                return Err(mistake.help(format!(
                    "a name stands without quotes or in double ones: \"{}\"",
                    self.written().raw(start).trim_matches('\'')
                )));
            }
            _ => return Err(self.written().expected(start, what)),
        };
        if value.is_empty() {
            return Err(Diagnostic::error(
                SqlState::Syntax,
                "a name is not empty",
                self.written().span(start),
            ));
        }
        self.at += 1;
        if self.peek_is(&Token::Period) {
            let last = self
                .tokens
                .get(self.at + 1)
                .filter(|tok| matches!(tok.token.token, Token::Word(_)));
            let mistake = Diagnostic::error(
                SqlState::Unsupported,
                "a name has one part",
                self.written()
                    .span(start)
                    .to(self.written().span(self.at + usize::from(last.is_some()))),
            );
            return Err(match last {
                Some(_) => mistake.help(format!(
                    "there are no schemas: write {}",
                    self.written().found(self.at + 1)
                )),
                None => mistake,
            });
        }
        Ok(Spanned {
            value,
            span: self.span_from(start),
        })
    }

    pub(super) fn string(&mut self, what: &str) -> Parsed<Spanned<String>> {
        match self.tokens.get(self.at).map(|tok| &tok.token.token) {
            Some(Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text)) => {
                let value = text.clone();
                self.at += 1;
                Ok(Spanned {
                    value,
                    span: self.written().span(self.at - 1),
                })
            }
            _ => Err(self.written().expected(self.at, what)),
        }
    }

    /// From token `start` to the last one read.
    pub(super) fn span_from(&self, start: usize) -> Span {
        let last = self.at.max(start + 1).min(self.tokens.len()) - 1;
        self.tokens[start.min(last)].span.to(self.tokens[last].span)
    }

    pub(super) fn text_from(&self, start: usize) -> String {
        let last = self.at.max(start + 1).min(self.tokens.len()) - 1;
        let span = Span::new(
            self.tokens[start.min(last)].new_span.start,
            self.tokens[last].new_span.end,
        );
        self.substituted
            .text_without_secrets(&self.original.text, span, self.comments)
    }

    pub(super) fn peek_word(&self) -> Option<String> {
        self.tokens.get(self.at).and_then(Tok::word)
    }

    pub(super) fn peek_is(&self, token: &Token) -> bool {
        self.tokens.get(self.at).is_some_and(|tok| tok.is(token))
    }

    pub(super) fn a_statement_follows(&self) -> bool {
        self.peek_word()
            .is_some_and(|word| STATEMENT_WORDS.contains(&word.as_str()) && word != "WITH")
    }

    pub(super) fn eat(&mut self, token: &Token) -> bool {
        let is_there = self.peek_is(token);
        self.at += usize::from(is_there);
        is_there
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        self.eat_words(&[word])
    }

    pub(super) fn eat_words(&mut self, words: &[&str]) -> bool {
        let are_there = words
            .iter()
            .enumerate()
            .all(|(index, word)| self.tokens.get(self.at + index).is_some_and(|tok| tok.is_word(word)));
        self.at += if are_there { words.len() } else { 0 };
        are_there
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Parsed<()> {
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
