//! Flink's spelling of window functions, rewritten on tokens: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), …))` becomes `TUMBLE(t, c, …)`.
//!
//! Tokens are only left out, so places stay those of the text.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::token::Tok;

const WINDOW_FUNCTIONS: &[&str] = &["TUMBLE", "HOP", "CUMULATE", "SESSION"];

pub(super) fn rewrite(mut tokens: Vec<Tok>) -> Vec<Tok> {
    let mut left_out = vec![false; tokens.len()];
    for at in 0..tokens.len() {
        let opens_call = |at: usize| {
            tokens
                .get(at)
                .and_then(Tok::word)
                .is_some_and(|word| WINDOW_FUNCTIONS.contains(&word.as_str()))
                && tokens.get(at + 1).is_some_and(|tok| tok.is(&Token::LParen))
        };
        if tokens[at].is_word("TABLE")
            && tokens.get(at + 1).is_some_and(|tok| tok.is(&Token::LParen))
            && opens_call(at + 2)
        {
            // `TABLE(TUMBLE(…))`, not `TABLE(TUMBLE(…) + 1)`.
            let inner = closing(&tokens, at + 3);
            if let Some(outer) = inner
                .map(|inner| inner + 1)
                .filter(|outer| tokens.get(*outer).is_some_and(|tok| tok.is(&Token::RParen)))
            {
                left_out[at] = true;
                left_out[at + 1] = true;
                left_out[outer] = true;
                // What the bracket closes still ends where it stood, so that no text of a statement loses it.
                tokens[outer - 1].span.end = tokens[outer].span.end;
                tokens[outer - 1].new_span.end = tokens[outer].new_span.end;
            }
        } else if opens_call(at)
            && let Some(end) = closing(&tokens, at + 1)
        {
            arguments(&tokens, at + 2, end, &mut left_out);
        }
    }
    let mut kept = left_out.iter().map(|left_out| !left_out);
    tokens
        .into_iter()
        .filter(|_| kept.next().expect("a mark for each token"))
        .collect()
}

/// Marks `TABLE` before a name and `DESCRIPTOR(` `)` around one, in arguments between `start` and `end`.
fn arguments(tokens: &[Tok], start: usize, end: usize, left_out: &mut [bool]) {
    let mut depth = 0;
    for at in start..end {
        let tok = &tokens[at];
        if tok.is(&Token::LParen) {
            depth += 1;
        } else if tok.is(&Token::RParen) {
            depth -= 1;
        } else if depth == 0 && tok.is_word("TABLE") && matches!(tokens[at + 1].token.token, Token::Word(_)) {
            left_out[at] = true;
        } else if depth == 0 && tok.is_word("DESCRIPTOR") && tokens[at + 1].is(&Token::LParen) {
            let holds_a_name = at + 3 < end
                && matches!(tokens[at + 2].token.token, Token::Word(_))
                && tokens[at + 3].is(&Token::RParen);
            if holds_a_name {
                left_out[at] = true;
                left_out[at + 1] = true;
                left_out[at + 3] = true;
            }
        }
    }
}

/// The bracket that closes the one at `open`.
fn closing(tokens: &[Tok], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (index, tok) in tokens.iter().enumerate().skip(open) {
        if tok.is(&Token::LParen) {
            depth += 1;
        } else if tok.is(&Token::RParen) {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(index);
            }
        }
    }
    None
}
