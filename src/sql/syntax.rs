//! Syntax errors as people want them: what was expected, what stands there, and the likely slip.

use datafusion::sql::sqlparser::{parser::ParserError, tokenizer::Token};

use super::{
    Diagnostic, Span, SqlState,
    suggest::nearest,
    token::{Tok, lower_first, runs_into_word},
};

/// Words that are likely meant where something near them stands in a wrong place.
#[rustfmt::skip] // one line each would fill the page
const CLAUSE_WORDS: &[&str] = &[
    "SELECT", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "OFFSET", "UNION", "INTERSECT", "EXCEPT", "JOIN",
    "INNER", "LEFT", "RIGHT", "CROSS", "USING", "BETWEEN", "INTERVAL", "PARTITION", "OVER", "VALUES", "WITH",
    "INCLUDE", "WATERMARK", "EMIT", "QUALIFY", "WINDOW", "LIKE", "CASE", "WHEN", "THEN", "ELSE", "DISTINCT", "STORED",
    "LOCATION", "OPTIONS", "CHANGES", "CLOSE", "EVERY",
];

/// The tokens of one statement, for messages about them.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub original: &'a str,
    pub tokens: &'a [Tok],
}

impl<'a> Written<'a> {
    /// Where token `index` stands; behind the last one, where the statement ends.
    pub fn span(&self, index: usize) -> Span {
        match self.tokens.get(index) {
            Some(tok) => tok.span,
            None => self
                .tokens
                .last()
                .map_or_else(Span::default, |tok| Span::new(tok.span.end, tok.span.end)),
        }
    }

    /// Token `index` as it was written: a variable as its name, never its value.
    pub fn raw(&self, index: usize) -> &'a str {
        self.tokens
            .get(index)
            .map_or("", |tok| &self.original[tok.span.start..tok.span.end])
    }

    /// Token `index` as it was written, short enough for a sentence.
    pub fn found(&self, index: usize) -> String {
        if self.tokens.len() <= index {
            return "the end of the statement".into();
        }
        let written = self.raw(index);
        let mut first: String = written.lines().next().unwrap_or_default().chars().take(40).collect();
        if first.len() < written.len() {
            first.push('…');
        }
        format!("`{first}`")
    }

    /// `expected …, found …` at token `index`.
    pub fn expected(&self, index: usize, expected: &str) -> Diagnostic {
        // A text that runs into a word was closed by the quote that should have opened the next one.
        if let Some(index) = index.checked_sub(1)
            && let [literal, word, ..] = &self.tokens[index..]
            && runs_into_word(literal, word)
        {
            return Diagnostic::error(SqlState::Syntax, "unclosed quote", literal.span)
                .label(format!("closed here, right before {}", self.found(index + 1)))
                .help("close the text with `'`; a quote inside is written twice: `''`");
        }
        // `SELECT a, FROM t`: FROM was taken for a column.
        let is_comma = |at: usize| self.tokens[at].is(&Token::Comma);
        if let Some(from) = [Some(index), index.checked_sub(1)]
            .into_iter()
            .flatten()
            .find(|at| self.word_is(*at, "FROM"))
            && let Some(comma) = from.checked_sub(1).filter(|before| is_comma(*before))
        {
            return Diagnostic::error(
                SqlState::Syntax,
                format!("expected an expression, found {}", self.found(from)),
                self.span(from),
            )
            .help(format!(
                "leave the comma in line {} out",
                self.tokens[comma].token.span.start.line
            ));
        }
        let mistake = Diagnostic::error(
            SqlState::Syntax,
            format!("expected {expected}, found {}", self.found(index)),
            self.span(index),
        );
        match self.misspelled(index, expected) {
            Some((_, meant)) => mistake.help(format!("did you mean `{meant}`?")),
            None => mistake,
        }
    }

    /// Something that cannot follow what was read up to token `index`.
    pub fn unexpected(&self, index: usize) -> Diagnostic {
        if let Some((misspelled, meant)) = self.misspelled(index, "") {
            let at = self.span(misspelled);
            return Diagnostic::error(SqlState::Syntax, format!("unexpected {}", self.found(misspelled)), at)
                .help(format!("did you mean `{meant}`?"));
        }
        if ["GROUP", "ORDER", "PARTITION"]
            .iter()
            .any(|word| self.word_is(index, word))
            && !self.word_is(index + 1, "BY")
        {
            return self.expected(index + 1, &format!("`BY` after {}", self.found(index)));
        }
        match self.expected(index, "the end of the statement") {
            mistake if !mistake.message.contains("the end of the statement") => mistake,
            mistake => {
                let mistake = Diagnostic {
                    message: format!("unexpected {}", self.found(index)),
                    ..mistake
                };
                let is_word = |at: usize| {
                    self.tokens
                        .get(at)
                        .is_some_and(|tok| matches!(tok.token.token, Token::Word(_)))
                };
                if is_word(index) && index.checked_sub(1).is_some_and(is_word) {
                    return mistake.help(format!("is a comma missing before {}?", self.found(index)));
                }
                mistake
            }
        }
    }

    fn word_is(&self, index: usize, word: &str) -> bool {
        self.tokens.get(index).is_some_and(|tok| tok.is_word(word))
    }

    /// A word at token `index` or right before it that is nearly one that `expected` names, or the word of a clause.
    fn misspelled(&self, index: usize, expected: &str) -> Option<(usize, String)> {
        let expected: Vec<String> = expected
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| 2 < word.len() && is_upper(word))
            .map(str::to_owned)
            .collect();
        for at in [Some(index), index.checked_sub(1)].into_iter().flatten() {
            let Some(word) = self.tokens.get(at).and_then(Tok::word) else {
                continue;
            };
            if CLAUSE_WORDS.contains(&word.as_str()) || expected.contains(&word) {
                continue;
            }
            // The word before was taken for a name: only where a clause word is one slip away it is likely none.
            let candidates = expected.iter().map(String::as_str).chain(CLAUSE_WORDS.iter().copied());
            if let Some(meant) = nearest(&word, candidates) {
                return Some((at, meant.to_owned()));
            }
        }
        None
    }

    /// What sqlparser says about the tokens from `start` to `end`.
    pub fn translated(&self, error: ParserError, start: usize, end: usize) -> Diagnostic {
        let message = match error {
            ParserError::RecursionLimitExceeded => {
                return Diagnostic::error(SqlState::TooComplex, "nested too deeply", self.span(start))
                    .help("split the query, e.g. by a view");
            }
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => message,
        };
        let (message, place) = split_place(&message);
        let at = place.and_then(|(line, column)| {
            let found = self.tokens[start..end]
                .iter()
                .position(|tok| (tok.token.span.start.line, tok.token.span.start.column) == (line, column));
            found.map(|index| start + index)
        });
        // Without a place the tokens came to an end.
        let index = at.unwrap_or(if message.contains("found: EOF") || place.is_none() {
            end
        } else {
            start
        });
        match message.split_once(", found: ") {
            Some((expected, _)) => {
                let expected = expected
                    .strip_prefix("Expected: ")
                    .or_else(|| expected.strip_prefix("Expected "))
                    .unwrap_or(expected);
                self.expected(index, &readable(expected))
            }
            None => Diagnostic::error(
                SqlState::Syntax,
                lower_first(message.trim_end_matches('.')),
                self.span(index),
            ),
        }
    }

    /// The first bracket that is not closed or closes nothing.
    pub fn unbalanced(&self) -> Option<Diagnostic> {
        let mut open: Vec<(usize, char)> = Vec::new();
        for (index, tok) in self.tokens.iter().enumerate() {
            let closes = match tok.token.token {
                Token::LParen => {
                    open.push((index, ')'));
                    continue;
                }
                Token::LBracket => {
                    open.push((index, ']'));
                    continue;
                }
                Token::LBrace => {
                    open.push((index, '}'));
                    continue;
                }
                Token::RParen => ')',
                Token::RBracket => ']',
                Token::RBrace => '}',
                _ => continue,
            };
            match open.pop() {
                Some((_, expected)) if expected == closes => {}
                Some((opened, expected)) => {
                    return Some(
                        Diagnostic::error(
                            SqlState::Syntax,
                            format!("{} is closed by `{closes}`", self.found(opened)),
                            tok.span,
                        )
                        .help(format!("write `{expected}`")),
                    );
                }
                None => {
                    return Some(
                        Diagnostic::error(SqlState::Syntax, format!("`{closes}` closes nothing"), tok.span)
                            .help("leave it out"),
                    );
                }
            }
        }
        // The outermost one: the others are likely closed by what was meant for it.
        let (opened, closes) = *open.first()?;
        Some(
            Diagnostic::error(
                SqlState::Syntax,
                format!("unclosed {}", self.found(opened)),
                self.span(opened),
            )
            .label("opened here")
            .help(format!("close it with `{closes}`")),
        )
    }
}

fn is_upper(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase())
}

/// What sqlparser expected, in our words.
fn readable(expected: &str) -> String {
    match expected {
        "identifier" => "a name".into(),
        "a SELECT, VALUES, or a query in parentheses" | "SELECT, VALUES, or a subquery in the query body" => {
            "SELECT or VALUES".into()
        }
        "an expression" | "joined table" => expected.into(),
        _ if expected.chars().any(|c| c.is_ascii_lowercase()) || expected.contains('`') => expected.into(),
        _ => format!("`{expected}`"),
    }
}

/// Splits ` at Line: 1, Column: 2` off a message.
fn split_place(message: &str) -> (&str, Option<(u64, u64)>) {
    let parsed = message.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, (line.parse().ok()?, column.trim().parse().ok()?)))
    });
    match parsed {
        Some((message, place)) => (message, Some(place)),
        None => (message, None),
    }
}
