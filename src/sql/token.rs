//! Text to tokens with their places, one list per statement.
//!
//! ```text
//! text ── tokenize ──▶ tokens ── cut at `;` ──▶ statements
//!            └─ unclosed quote: one diagnostic, that statement is lost, go on after the next `;` at the end of a line
//! ```
//! A token's line and column are those of the original text, so every place in sqlparser's trees and messages is one of the original.

use datafusion::sql::sqlparser::tokenizer::{Location, Span as AstSpan, Token, TokenWithSpan, Tokenizer};

use super::{Diagnostic, SourceText, Span, SqlState, dialect::Zeta, variables::Substituted};

/// What some editors put before a text; it says nothing.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// How often the text is taken up again after something that is no token; what is behind the last one is not looked at.
const RESUMED_MAX: usize = 20;

/// A word, sign or literal; never a space or a comment.
#[derive(Clone, Debug)]
pub(super) struct Tok {
    /// For sqlparser, at its place in the original text.
    pub token: TokenWithSpan,
    /// In the original text.
    pub span: Span,
    /// In the text after variables were filled in.
    pub new_span: Span,
}

impl Tok {
    /// The word in upper case, where it is one without quotes.
    pub fn word(&self) -> Option<String> {
        match &self.token.token {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
            _ => None,
        }
    }

    pub fn is_word(&self, expected: &str) -> bool {
        matches!(&self.token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
    }

    pub fn is(&self, token: &Token) -> bool {
        self.token.token == *token
    }
}

pub(super) struct Tokens {
    /// Without the semicolons; empty ones are left out.
    pub statements: Vec<Vec<Tok>>,
    /// Places of comments in the text after variables were filled in.
    pub comments: Vec<Span>,
    /// Names that the statements which could not be read would have created.
    pub lost: Vec<String>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Cuts `text`, which came from `original`, into statements.
pub(super) fn tokenize(original: &str, text: &Substituted) -> Tokens {
    let mut out = Tokens {
        statements: Vec::new(),
        comments: Vec::new(),
        lost: Vec::new(),
        diagnostics: Vec::new(),
    };
    let mut lines = Lines::new(original);
    let mut current: Vec<Tok> = Vec::new();
    let mut base = if text.text.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len_utf8()
    } else {
        0
    };
    for resumed in 0..=RESUMED_MAX {
        let rest = &text.text[base..];
        let dialect = Zeta::new(0);
        let mut tokens = Vec::new();
        let failure = Tokenizer::new(&dialect, rest)
            .tokenize_with_location_into_buf(&mut tokens)
            .err();
        let mut places = Places::new(rest);
        // Where the token that could not be read starts.
        let mut end = 0;
        for token in &tokens {
            let start = places.offset(token.span.start);
            end = places.offset(token.span.end).max(start);
            let new_span = Span::new(base + start, base + end);
            match &token.token {
                Token::Whitespace(space) => {
                    use datafusion::sql::sqlparser::tokenizer::Whitespace;
                    if matches!(
                        space,
                        Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_)
                    ) {
                        out.comments.push(new_span);
                    }
                }
                Token::SemiColon => {
                    if !current.is_empty() {
                        out.statements.push(std::mem::take(&mut current));
                    }
                }
                token => {
                    let span = text.original(new_span);
                    let place = AstSpan::new(lines.location(span.start), lines.location(span.end));
                    current.push(Tok {
                        token: TokenWithSpan::new(token.clone(), place),
                        span,
                        new_span,
                    });
                }
            }
        }
        let Some(failure) = failure else { break };
        let failed_at = base + end;
        let opening = opening_of(&text.text, failed_at, base, &out, &current);
        out.diagnostics.push(unreadable(text, opening, &failure.message));
        // Whatever stood after the wrong quote was read inside out.
        let is_lost = |statement: &[Tok]| statement.iter().any(|tok| opening < tok.new_span.end);
        let lost = out
            .statements
            .iter()
            .filter(|statement| is_lost(statement))
            .chain([&current]);
        out.lost.extend(lost.filter_map(|statement| created_name(statement)));
        out.statements.retain(|statement| !is_lost(statement));
        current.clear();
        let Some(next) = statement_end_after(&text.text, opening).filter(|_| resumed < RESUMED_MAX) else {
            break;
        };
        out.comments.retain(|comment| comment.end <= next);
        base = next;
    }
    if !current.is_empty() {
        out.statements.push(current);
    }
    out
}

/// The name that a CREATE would give, lower case unless it is quoted.
pub(super) fn created_name(statement: &[Tok]) -> Option<String> {
    #[rustfmt::skip] // one line each would fill the page
    const BEFORE_NAME: &[&str] = &[
        "CREATE", "OR", "REPLACE", "TEMPORARY", "TEMP", "SOURCE", "EXTERNAL", "TABLE", "MATERIALIZED",
        "VIEW", "SINK", "FUNCTION", "IF", "NOT", "EXISTS",
    ];
    let is_before = |tok: &&Tok| tok.word().is_some_and(|word| BEFORE_NAME.contains(&word.as_str()));
    if !statement.first()?.is_word("CREATE") {
        return None;
    }
    match &statement.iter().find(|tok| !is_before(tok))?.token.token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

/// Where the quote, comment or sign starts that makes the rest of the text unreadable.
///
/// With an odd number of quotes the last one looks open. The wrong one is rather a literal that runs into a word
/// (`'candles, format = 'json'`) or over the end of its line.
fn opening_of(text: &str, failed_at: usize, base: usize, tokens: &Tokens, current: &[Tok]) -> usize {
    // `'…`, or with the letters that may stand before a quote: `E'…`, `X'…`, `U&'…`.
    let is_literal =
        text[failed_at..].chars().take(3).any(|c| c == '\'') && !text[failed_at..].starts_with(['"', '`', '/']);
    if !is_literal {
        return failed_at;
    }
    let read: Vec<&Tok> = tokens
        .statements
        .iter()
        .flatten()
        .chain(current)
        .filter(|tok| base <= tok.new_span.start)
        .collect();
    let literal = |tok: &Tok| matches!(tok.token.token, Token::SingleQuotedString(_));
    let before_failure = || {
        read.last()
            .copied()
            .filter(|tok| literal(tok) && tok.new_span.end == failed_at)
    };
    let runs_into = read
        .windows(2)
        .find(|pair| runs_into_word(pair[0], pair[1]))
        .map(|pair| pair[0])
        .or_else(before_failure);
    let over_line_end = || {
        read.iter()
            .copied()
            .find(|tok| literal(tok) && text[tok.new_span.start..tok.new_span.end].contains('\n'))
    };
    runs_into
        .or_else(over_line_end)
        .map_or(failed_at, |tok| tok.new_span.start)
}

/// Whether a word starts right behind a literal: the sign of a quote that is missing before.
pub(super) fn runs_into_word(literal: &Tok, next: &Tok) -> bool {
    matches!(literal.token.token, Token::SingleQuotedString(_))
        && matches!(next.token.token, Token::Word(_))
        && literal.new_span.end == next.new_span.start
}

/// After the first semicolon behind `from` that ends a line.
fn statement_end_after(text: &str, from: usize) -> Option<usize> {
    text[from..]
        .match_indices(';')
        .map(|(index, _)| from + index + 1)
        .find(|after| {
            let line = text[*after..].split('\n').next().unwrap_or_default().trim_start();
            line.is_empty() || line.starts_with("--")
        })
}

/// What to do about a character that no SQL has outside of quotes, as word processors put in the place of others.
pub(super) fn foreign_character(statement: &[Tok]) -> Option<Diagnostic> {
    let (character, span) = statement.iter().find_map(|tok| match tok.token.token {
        Token::Char(character) if !character.is_ascii() => Some((character, tok.span)),
        _ => None,
    })?;
    let is_invisible = character.is_whitespace()
        || matches!(
            character,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | BYTE_ORDER_MARK
        );
    let message = match is_invisible {
        true => format!(
            "the invisible character U+{:04X} cannot stand here",
            u32::from(character)
        ),
        false => format!("`{character}` cannot stand here"),
    };
    let mistake = Diagnostic::error(SqlState::Syntax, message, span);
    Some(match character {
        _ if is_invisible => mistake.help("delete it, or write a blank"),
        '‘' | '’' | '‚' | '‛' | '′' | '´' | '＇' => mistake.help("write '…' around a text"),
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' | '＂' => {
            mistake.help("write '…' around a text, and \"…\" around a name")
        }
        '‐' | '‑' | '–' | '—' | '−' => mistake.help("write `-`"),
        _ => mistake,
    })
}

fn unreadable(text: &Substituted, at: usize, message: &str) -> Diagnostic {
    let first = text.text[at..].chars().next();
    let span = text.original(Span::new(at, at + first.map_or(0, char::len_utf8)));
    let error = |message: &str, help: &str| {
        Diagnostic::error(SqlState::Syntax, message, span)
            .label("opened here")
            .help(help)
    };
    match first {
        Some('\'') => error(
            "unclosed quote",
            "close the text with `'`; a quote inside is written twice: `''`",
        ),
        Some(quote @ ('"' | '`')) => error("unclosed quote", &format!("close the name with `{quote}`")),
        Some('/') => error("unclosed comment", "close it with `*/`"),
        _ if message.contains("nterminated") => error("unclosed quote", "close the text with the same quote"),
        Some(character) if !character.is_whitespace() => {
            Diagnostic::error(SqlState::Syntax, format!("`{character}` cannot stand here"), span)
        }
        _ => Diagnostic::error(SqlState::Syntax, lower_first(message.trim_end_matches('.')), span),
    }
}

pub(super) fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// Byte offsets of the tokenizer's places, which only go forward.
struct Places<'a> {
    text: &'a str,
    line: u64,
    column: u64,
    offset: usize,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            line: 1,
            column: 1,
            offset: 0,
        }
    }

    fn offset(&mut self, place: Location) -> usize {
        while (self.line, self.column) < (place.line, place.column) {
            let Some(character) = self.text[self.offset..].chars().next() else {
                break;
            };
            self.offset += character.len_utf8();
            if character == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.offset
    }
}

/// Lines and columns of byte offsets; cheap where they go forward.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// The last place that was asked for, and the number of characters before it on its line.
    last: (usize, u64),
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(index, _)| index + 1))
            .collect();
        Self {
            text,
            starts,
            last: (0, 0),
        }
    }

    fn location(&mut self, offset: usize) -> Location {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let (from, before) = if start <= self.last.0 && self.last.0 <= offset {
            self.last
        } else {
            (start, 0)
        };
        let column = before + self.text[from..offset].chars().count() as u64;
        self.last = (offset, column);
        Location::new(line as u64, column + 1)
    }
}

/// Where `words` stand one behind the other, in any case, at or behind the byte offset `from` of `text`.
pub(super) fn find_words(text: &SourceText, from: usize, words: &[&str]) -> Option<Span> {
    let tokens = tokenize(&text.text, &Substituted::unchanged(text));
    let tokens: Vec<&Tok> = tokens
        .statements
        .iter()
        .flatten()
        .filter(|tok| from <= tok.span.start)
        .collect();
    let matches = |tok: &Tok, word: &str| text.text[tok.span.start..tok.span.end].eq_ignore_ascii_case(word);
    let found = tokens
        .windows(words.len())
        .find(|window| window.iter().zip(words).all(|(tok, word)| matches(tok, word)))?;
    Some(found.first()?.span.to(found.last()?.span))
}
