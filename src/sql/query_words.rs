//! The words of a query and their places, for messages about clauses that the planner's tree knows no place of.
//!
//! ```text
//! SELECT sum(a) OVER (ORDER BY b) FROM (SELECT …) ORDER BY c
//!                     └ in brackets of a call      └ a query  └ a clause of a query: this one is found
//! ```

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    SourceText, Span,
    cursor::QUERY_WORDS,
    token::{Tok, tokenize},
    variables::Substituted,
};

/// Words that begin a part of a query.
const PARTS: [&str; 14] = [
    "SELECT",
    "FROM",
    "JOIN",
    "WHERE",
    "ON",
    "GROUP",
    "HAVING",
    "QUALIFY",
    "ORDER",
    "LIMIT",
    "WITH",
    "UNION",
    "EXCEPT",
    "INTERSECT",
];
/// Parts in which tables stand, or whole queries, and not expressions.
const PARTS_OF_TABLES: [&str; 6] = ["FROM", "JOIN", "WITH", "UNION", "EXCEPT", "INTERSECT"];

pub struct QueryWords {
    words: Vec<Word>,
    /// Where the query begins in its text.
    start: usize,
}

struct Word {
    tok: Tok,
    /// The part of the query that it stands in; none before the first.
    part: &'static str,
    /// The innermost brackets around it hold no query.
    is_in_call: bool,
}

struct Level {
    part: &'static str,
    is_in_call: bool,
}

impl QueryWords {
    /// Of the query that stands in `query` of a text; none where it cannot be read by itself.
    pub fn of(text: &str, query: Span) -> Self {
        let own = SourceText::new("", text.get(query.start..query.end).unwrap_or_default());
        let tokens: Vec<Tok> = tokenize(&own.text, &Substituted::unchanged(&own))
            .statements
            .into_iter()
            .flatten()
            .collect();
        let is_query = |open: usize| {
            let first = tokens[open..].iter().find(|tok| !tok.is(&Token::LParen));
            first.is_some_and(|tok| QUERY_WORDS.iter().any(|word| tok.is_word(word)))
        };
        let mut levels = vec![Level {
            part: "",
            is_in_call: false,
        }];
        let mut places = Vec::with_capacity(tokens.len());
        for (at, tok) in tokens.iter().enumerate() {
            if tok.is(&Token::RParen) && 1 < levels.len() {
                levels.pop();
            }
            let level = levels.last_mut().expect("the outermost one stays");
            if let Some(part) = PARTS
                .into_iter()
                .find(|part| tok.is_word(part))
                .filter(|_| !level.is_in_call)
            {
                level.part = part;
            }
            places.push((level.part, level.is_in_call));
            if tok.is(&Token::LParen) {
                let part = level.part;
                levels.push(Level {
                    part,
                    is_in_call: !is_query(at),
                });
            }
        }
        let words = tokens.into_iter().zip(places);
        Self {
            words: words
                .map(|(tok, (part, is_in_call))| Word { tok, part, is_in_call })
                .collect(),
            start: query.start,
        }
    }

    /// Where a clause of these words stands first: not one of a call, as ORDER BY of OVER is.
    pub fn clause(&self, words: &[&str]) -> Option<Span> {
        self.find(words, |word| !word.is_in_call)
    }

    /// Where these words follow each other first, wherever that is.
    pub fn words(&self, words: &[&str]) -> Option<Span> {
        self.find(words, |_| true)
    }

    /// The name of a function where it is called first.
    pub fn call(&self, function: &str) -> Option<Span> {
        let is_open = |at: usize| self.words.get(at + 1).is_some_and(|next| next.tok.is(&Token::LParen));
        let found = (0..self.words.len()).find(|at| self.is_name(*at, function) && is_open(*at))?;
        Some(self.place(found, found))
    }

    /// A name where it stands first, be it of a table, a column or a function.
    pub fn name(&self, name: &str) -> Option<Span> {
        let found = (0..self.words.len()).find(|at| self.is_name(*at, name))?;
        Some(self.place(found, found))
    }

    /// Whether a name stands anywhere but before a point, as that of a table in FROM does.
    pub fn has_table(&self, name: &str) -> bool {
        let is_before_point = |at: usize| self.words.get(at + 1).is_some_and(|next| next.tok.is(&Token::Period));
        (0..self.words.len()).any(|at| self.is_name(at, name) && !is_before_point(at))
    }

    /// The first query in brackets that stands for a value and not for a table.
    pub fn query_as_value(&self) -> Option<Span> {
        let is_query = |at: usize| {
            let next = self.words.get(at + 1);
            next.is_some_and(|next| QUERY_WORDS.iter().any(|word| next.tok.is_word(word)))
        };
        let found = self.words.iter().enumerate().find(|(at, word)| {
            word.tok.is(&Token::LParen)
                && is_query(*at)
                && !word.part.is_empty()
                && !PARTS_OF_TABLES.contains(&word.part)
        });
        let (open, _) = found?;
        let mut depth = 0usize;
        let close = self.words[open..].iter().position(|word| {
            depth += usize::from(word.tok.is(&Token::LParen));
            depth -= usize::from(word.tok.is(&Token::RParen)).min(depth);
            depth == 0
        });
        Some(self.place(open, open + close.unwrap_or(0)))
    }

    /// JOIN, or the second table of `FROM a, b`.
    pub fn join(&self) -> Option<Span> {
        let comma = || {
            let is_between = |word: &Word| word.tok.is(&Token::Comma) && word.part == "FROM" && !word.is_in_call;
            let at = self.words.iter().position(is_between)?;
            (at + 1 < self.words.len()).then(|| self.place(at + 1, at + 1))
        };
        self.words(&["JOIN"]).or_else(comma)
    }

    fn find(&self, words: &[&str], is_wanted: impl Fn(&Word) -> bool) -> Option<Span> {
        let at = self.words.windows(words.len()).position(|window| {
            is_wanted(&window[0]) && window.iter().zip(words).all(|(word, wanted)| word.tok.is_word(wanted))
        })?;
        Some(self.place(at, at + words.len() - 1))
    }

    fn is_name(&self, at: usize, name: &str) -> bool {
        match &self.words[at].tok.token.token {
            Token::Word(word) if word.quote_style.is_some() => word.value == name,
            Token::Word(word) => word.value.eq_ignore_ascii_case(name),
            _ => false,
        }
    }

    fn place(&self, first: usize, last: usize) -> Span {
        self.words[first]
            .tok
            .span
            .to(self.words[last].tok.span)
            .shifted(self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_is_found_where_it_is_one_of_a_query() {
        let text = "CREATE VIEW v AS SELECT sum(a) FILTER (WHERE b) OVER (ORDER BY b), coalesce((SELECT 1), 2) \
                    FROM (SELECT * FROM t WHERE a = (SELECT 2)) AS s, \"u\" WHERE a LIMIT 3";
        let start = text.find("SELECT").expect("it is there");
        let words = QueryWords::of(text, Span::new(start, text.len()));
        let at = |found: Option<Span>| found.map(|span| (&text[span.start..span.end], span.start));
        let of = |wanted: &'static str, after: &str| {
            let from = text.find(after).expect("it is there");
            Some((wanted, from + text[from..].find(wanted).expect("it is there")))
        };
        for (found, expected, why) in [
            (
                at(words.clause(&["ORDER", "BY"])),
                None,
                "that of OVER is none of the query",
            ),
            (
                at(words.words(&["ORDER", "BY"])),
                of("ORDER BY", "OVER"),
                "unless any will do",
            ),
            (
                at(words.clause(&["WHERE"])),
                of("WHERE", "FROM t"),
                "that of FILTER is passed over",
            ),
            (at(words.clause(&["LIMIT"])), of("LIMIT", "LIMIT"), "it is there once"),
            (at(words.call("sum")), of("sum", "sum"), "a function that is called"),
            (at(words.call("t")), None, "a table is not"),
            (at(words.name("U")), None, "a quoted name is taken to the letter"),
            (
                at(words.query_as_value()),
                of("(SELECT 1)", "coalesce"),
                "also inside a call",
            ),
            (
                at(words.join()),
                of("\"u\"", "AS s"),
                "a comma joins tables, and not columns",
            ),
        ] {
            assert_eq!(found, expected, "{why}");
        }
        assert!(words.has_table("t") && !words.has_table("nothing"));
    }

    #[test]
    fn a_query_that_cannot_be_read_has_no_words() {
        for text in ["", "'", "SELECT 'a"] {
            let words = QueryWords::of(text, Span::new(0, text.len()));
            assert_eq!(words.clause(&["SELECT"]), None, "{text}");
        }
        assert_eq!(
            QueryWords::of("ä", Span::new(1, 9)).name("ä"),
            None,
            "a place outside of the text"
        );
    }
}
