//! A statement's text without what means nothing: comments, spaces, and capitals outside quotes.

use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::dialect::Zeta;

/// Equal for texts that differ only in comments, spaces and capitals of words without quotes.
pub fn normalized(sql: &str) -> String {
    let Some(tokens) = tokens(sql) else {
        return sql.to_owned();
    };
    let words = tokens.into_iter().filter_map(|token| match token {
        Token::Whitespace(_) => None,
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        other => Some(other.to_string()),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// As it is written, on one line and without comments.
pub fn on_one_line(sql: &str) -> String {
    let Some(tokens) = tokens(sql) else {
        return sql.replace('\n', " ");
    };
    let mut line = String::new();
    let mut is_apart = false;
    for token in tokens {
        if let Token::Whitespace(_) = token {
            is_apart = !line.is_empty();
            continue;
        }
        if std::mem::take(&mut is_apart) {
            line.push(' ');
        }
        line.push_str(&token.to_string().replace('\n', "\\n"));
    }
    line
}

/// With literals as they are written; `None` of a text that was never parsed.
fn tokens(sql: &str) -> Option<Vec<Token>> {
    let dialect = Zeta::new(0);
    Tokenizer::new(&dialect, sql).with_unescape(false).tokenize().ok()
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
        assert_eq!(on_one_line(written), "SELECT a AS Hi, 'It''s  A' FROM \"T\"");
        assert_eq!(normalized(&on_one_line(written)), normalized(written));
        for other in [
            "SELECT a AS hi, 'it''s  A' FROM \"T\"",
            "SELECT a AS hi, 'It''s  A' FROM \"t\"",
        ] {
            assert_ne!(normalized(written), normalized(other));
        }
        assert_ne!(normalized("SELECT 'a\nb'"), normalized("SELECT 'a b'"));
    }
}
