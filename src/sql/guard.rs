//! Counts before anything is parsed or planned: no text may exhaust the stack or keep the planner busy for minutes.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    Diagnostic, SourceText, SqlState,
    token::{Tok, tokenize},
    variables::Substituted,
};
use crate::types::limits::{SQL_BYTES_MAX, SQL_NESTING_MAX, SQL_OPERATORS_MAX, SQL_TOKENS_MAX};

/// Whether an ad-hoc text is small enough to be parsed and planned: bytes, tokens, nesting, operators chained.
///
/// Says nothing about whether it is SQL.
///
/// # Errors
/// A diagnostic with the limit, at the place where it is passed.
pub fn guard(sql: &str) -> Result<(), Diagnostic> {
    if SQL_BYTES_MAX < sql.len() {
        return Err(too_much(
            format!("the text has {} bytes, at most {SQL_BYTES_MAX} are taken", sql.len()),
            None,
        ));
    }
    let text = SourceText::new("", sql);
    let tokens = tokenize(sql, &Substituted::unchanged(&text));
    let mut count = 0;
    for statement in &tokens.statements {
        count += statement.len();
        if let Some(first_over) =
            (count.checked_sub(SQL_TOKENS_MAX + 1)).map(|over| &statement[statement.len() - 1 - over])
        {
            return Err(too_much(
                format!("the text has more than {SQL_TOKENS_MAX} words and signs"),
                Some(first_over),
            ));
        }
        check_depth(statement)?;
    }
    Ok(())
}

fn too_much(message: String, at: Option<&Tok>) -> Diagnostic {
    Diagnostic::error(SqlState::TooComplex, message, at.map(|tok| tok.span)).help("split the query, e.g. by a view")
}

/// One level of brackets.
#[derive(Default)]
struct Level {
    /// Operators since the last comma: each makes the tree one deeper.
    operators: usize,
    /// The deepest bracket since the last comma, in operators.
    inner: usize,
    /// The deepest of what stands before the last comma.
    before_comma: usize,
    /// Opened by the `<` of `ARRAY<…>`, which may turn out to be a comparison.
    is_angle: bool,
}

impl Level {
    fn depth(&self) -> usize {
        self.before_comma.max(self.operators + self.inner)
    }
}

/// Bounds the depth of the tree that these tokens can become: brackets inside each other, and operators along one path.
pub(super) fn check_depth(tokens: &[Tok]) -> Result<(), Diagnostic> {
    let mut levels = vec![Level::default()];
    let mut previous: Option<&Tok> = None;
    for tok in tokens {
        match &tok.token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                // `int[][][]…` and `a[1][2]…` are chains.
                if tok.is(&Token::LBracket) {
                    operator(&mut levels, tok)?;
                }
                levels.push(Level::default());
            }
            Token::Lt
                if previous.is_some_and(|tok| ["ARRAY", "STRUCT", "MAP"].iter().any(|word| tok.is_word(word))) =>
            {
                levels.push(Level {
                    is_angle: true,
                    ..Level::default()
                });
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                while levels.last().is_some_and(|level| level.is_angle) {
                    close(&mut levels, tok)?;
                }
                close(&mut levels, tok)?;
            }
            Token::Gt if levels.last().is_some_and(|level| level.is_angle) => close(&mut levels, tok)?,
            Token::Comma => {
                let level = top(&mut levels);
                *level = Level {
                    before_comma: level.depth(),
                    is_angle: level.is_angle,
                    ..Level::default()
                };
            }
            Token::Word(_) if tok.is_word("INTERVAL") && previous.is_some_and(|tok| tok.is_word("INTERVAL")) => {
                return Err(
                    Diagnostic::error(SqlState::Syntax, "`INTERVAL` stands here twice", tok.span)
                        .help("write INTERVAL '5 minutes'"),
                );
            }
            Token::Word(_) if tok.word().is_some_and(|word| CHAINING_WORDS.contains(&word.as_str())) => {
                operator(&mut levels, tok)?;
            }
            Token::Word(_) => {}
            Token::Period | Token::SemiColon => {}
            token if is_sign(token) => operator(&mut levels, tok)?,
            _ => {}
        }
        if SQL_NESTING_MAX + 1 < levels.len() {
            return Err(too_much(
                format!("more than {SQL_NESTING_MAX} brackets inside each other"),
                Some(tok),
            ));
        }
        previous = Some(tok);
    }
    Ok(())
}

/// Words that take what stands before them as an operand.
#[rustfmt::skip] // one line each would fill the page
const CHAINING_WORDS: &[&str] = &[
    "AND", "OR", "XOR", "IS", "ISNULL", "NOTNULL", "IN", "LIKE", "ILIKE", "RLIKE", "REGEXP", "SIMILAR", "BETWEEN",
    "COLLATE", "AT", "DIV", "MEMBER", "OVERLAPS", "OPERATOR", "UNION", "EXCEPT", "INTERSECT", "MINUS", "JOIN",
    "PIVOT", "UNPIVOT", "MATCH_RECOGNIZE",
];

fn is_sign(token: &Token) -> bool {
    use Token::*;
    !matches!(
        token,
        EOF | Word(_)
            | Number(..)
            | SingleQuotedString(_)
            | DoubleQuotedString(_)
            | TripleSingleQuotedString(_)
            | TripleDoubleQuotedString(_)
            | DollarQuotedString(_)
            | NationalStringLiteral(_)
            | EscapedStringLiteral(_)
            | UnicodeStringLiteral(_)
            | HexStringLiteral(_)
            | Placeholder(_)
    )
}

fn top(levels: &mut [Level]) -> &mut Level {
    levels.last_mut().expect("the outermost level is never closed")
}

fn operator(levels: &mut [Level], tok: &Tok) -> Result<(), Diagnostic> {
    let level = top(levels);
    level.operators += 1;
    check_chain(level, tok)
}

fn check_chain(level: &Level, tok: &Tok) -> Result<(), Diagnostic> {
    if level.operators + level.inner <= SQL_OPERATORS_MAX {
        return Ok(());
    }
    Err(too_much(
        format!("more than {SQL_OPERATORS_MAX} operators in one expression"),
        Some(tok),
    ))
}

fn close(levels: &mut Vec<Level>, tok: &Tok) -> Result<(), Diagnostic> {
    // A bracket that closes nothing is the parser's to report.
    if levels.len() == 1 {
        return Ok(());
    }
    let closed = levels.pop().expect("there are two levels at least");
    let level = top(levels);
    level.inner = level.inner.max(closed.depth());
    check_chain(level, tok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_refused_by_what_it_would_cost() {
        let list = |item: &str, count: usize| vec![item; count].join(", ");
        let chain = |count: usize| vec!["1"; count].join(" + ");
        for (sql, expected, why) in [
            (String::new(), None, "nothing costs nothing"),
            (
                format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX - 9)),
                None,
                "as many bytes as are taken",
            ),
            (
                format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX - 8)),
                Some("65537 bytes"),
                "a byte more",
            ),
            (
                format!("SELECT {}", list("1", 5_000)),
                None,
                "as many tokens as are taken",
            ),
            (
                format!("SELECT 1 {}", list("1", 5_000)),
                Some("more than 10000 words"),
                "a token more",
            ),
            (
                format!("SELECT {}", chain(SQL_OPERATORS_MAX + 1)),
                None,
                "as many operators as are taken",
            ),
            (
                format!("SELECT {}", chain(SQL_OPERATORS_MAX + 2)),
                Some("more than 300 operators"),
                "an operator more",
            ),
            (
                format!("SELECT {}, {}", chain(200), chain(200)),
                None,
                "in two expressions",
            ),
            (
                format!("SELECT ({}) + {}", chain(200), chain(200)),
                Some("operators"),
                "brackets make no new one",
            ),
            (
                format!("SELECT (({}), 1) + {}", chain(200), chain(200)),
                Some("operators"),
                "nor does a comma inside of them",
            ),
            (
                format!("SELECT {}1{}", "(".repeat(50), ")".repeat(50)),
                None,
                "as many brackets as are taken",
            ),
            (
                format!("SELECT {}1{}", "(".repeat(51), ")".repeat(51)),
                Some("more than 50 brackets"),
                "a bracket more",
            ),
            (format!("SELECT {}", "[".repeat(51)), Some("brackets"), "closed or not"),
            (format!("SELECT '{}'", "(".repeat(100)), None, "in a text they are text"),
            (
                format!("SELECT a::INT{}", "[]".repeat(301)),
                Some("operators"),
                "arrays of arrays",
            ),
            (
                format!("SELECT 1{}", " UNION SELECT 1".repeat(301)),
                Some("operators"),
                "queries are chained too",
            ),
            ("this is (not SQL".into(), None, "whether it is SQL is not asked here"),
        ] {
            match (guard(&sql), expected) {
                (Ok(()), None) => {}
                (Err(refused), Some(expected)) => {
                    assert!(refused.message.contains(expected), "{why}: {}", refused.message)
                }
                (result, _) => panic!("{why}: {result:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_points_at_where_the_limit_is_passed() {
        let sql = format!("SELECT {}", vec!["1"; 400].join("+"));
        let refused = guard(&sql).unwrap_err();
        let span = refused.span.unwrap();
        // The sign behind `SELECT ` and 301 numbers with 300 signs between.
        assert_eq!((span.start, &sql[span.start..span.end]), (7 + 601, "+"));
        assert_eq!(refused.code, SqlState::TooComplex);
    }
}
