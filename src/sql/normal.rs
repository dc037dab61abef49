//! A statement's text without what means nothing: comments, spaces, and capitals outside quotes.

use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::dialect::Zeta;

/// Equal for texts that differ only in comments, spaces and capitals of words without quotes.
pub fn normalized(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&Zeta::new(0), sql).tokenize() else {
        // Nothing that was parsed: then all of it counts.
        return sql.split_whitespace().collect::<Vec<_>>().join(" ");
    };
    let texts = tokens.into_iter().filter_map(|token| match token {
        Token::Whitespace(_) => None,
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        // A definition is kept as one line.
        other => Some(other.to_string().replace('\n', "\\n")),
    });
    texts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_spaces_and_capitals_mean_nothing_outside_quotes() {
        let written = "SELECT  a AS Hi, -- the first\n  'It''s  A' /* b */ FROM \"T\"";
        assert_eq!(
            normalized(written),
            normalized("select a as hi , 'It''s  A' from \"T\"")
        );
        assert!(!normalized(written).contains('\n'));
        for other in [
            "SELECT a AS hi, 'it''s  A' FROM \"T\"",
            "SELECT a AS hi, 'It''s  A' FROM \"t\"",
        ] {
            assert_ne!(normalized(written), normalized(other));
        }
        assert_ne!(normalized("SELECT 'a\nb'"), normalized("SELECT 'a b'"));
    }
}
