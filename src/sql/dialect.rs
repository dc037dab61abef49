//! Which spellings the parser of expressions and queries takes: sqlparser's generic ones, except words that start a clause of ours.

use std::{any::TypeId, cell::Cell};

use datafusion::sql::sqlparser::{
    ast::Expr,
    dialect::{Dialect, GenericDialect},
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::Token,
};

/// The generic dialect, with a bound on the work for one statement.
///
/// Some clauses are taken here only to be refused with a good message: see `check_query`.
#[derive(Debug)]
pub(super) struct Zeta {
    generic: GenericDialect,
    /// Expressions that may still be started. sqlparser goes back and tries again where a reading fails, at worst twice per nesting,
    /// so that a few hundred bytes could keep it busy for hours.
    expressions_left: Cell<usize>,
}

impl Zeta {
    /// For a statement of so many tokens.
    pub fn new(tokens: usize) -> Self {
        Self {
            generic: GenericDialect {},
            expressions_left: Cell::new(1_000 + 20 * tokens),
        }
    }
}

/// Whether the parser's current token is an unquoted word that starts a clause or a statement of ours, and so is no alias.
fn at_stop_word(parser: &Parser) -> bool {
    let Token::Word(word) = &parser.get_current_token().token else {
        return false;
    };
    if word.quote_style.is_some() {
        return false;
    }
    let next = match &parser.peek_token_ref().token {
        Token::Word(next) => next.value.to_ascii_uppercase(),
        _ => String::new(),
    };
    match word.value.to_ascii_uppercase().as_str() {
        "EMIT" | "INCLUDE" | "QUALIFY" => true,
        "CREATE" => matches!(
            next.as_str(),
            "SOURCE" | "EXTERNAL" | "VIEW" | "MATERIALIZED" | "SINK" | "TABLE" | "OR" | "FUNCTION"
        ),
        "DROP" => matches!(
            next.as_str(),
            "SOURCE" | "EXTERNAL" | "VIEW" | "MATERIALIZED" | "SINK" | "TABLE" | "FUNCTION"
        ),
        "INSERT" => next == "INTO",
        "DELETE" => next == "FROM",
        _ => false,
    }
}

impl Dialect for Zeta {
    fn dialect(&self) -> TypeId {
        TypeId::of::<GenericDialect>()
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.generic.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.generic.is_identifier_part(ch)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.generic.is_delimited_identifier_start(ch)
    }

    fn is_column_alias(&self, kw: &Keyword, parser: &mut Parser) -> bool {
        self.generic.is_column_alias(kw, parser) && !at_stop_word(parser)
    }

    fn is_table_alias(&self, kw: &Keyword, parser: &mut Parser) -> bool {
        self.generic.is_table_alias(kw, parser) && !at_stop_word(parser)
    }

    fn parse_prefix(&self, _parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        match self.expressions_left.get().checked_sub(1) {
            Some(left) => {
                self.expressions_left.set(left);
                None
            }
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }

    // Expressions and queries.
    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }
    fn supports_group_by_expr(&self) -> bool {
        true
    }
    fn supports_window_clause_named_window_reference(&self) -> bool {
        true
    }
    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }
    fn supports_left_associative_joins_without_parens(&self) -> bool {
        true
    }
    fn supports_parens_around_table_factor(&self) -> bool {
        true
    }
    fn supports_values_as_table_factor(&self) -> bool {
        true
    }
    fn supports_select_wildcard_except(&self) -> bool {
        true
    }
    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }
    fn supports_select_wildcard_ilike(&self) -> bool {
        true
    }
    fn supports_select_wildcard_replace(&self) -> bool {
        true
    }
    fn supports_limit_comma(&self) -> bool {
        true
    }
    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }
    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        true
    }
    fn supports_struct_literal(&self) -> bool {
        true
    }
    fn support_map_literal_syntax(&self) -> bool {
        true
    }
    fn supports_dictionary_syntax(&self) -> bool {
        true
    }
    fn allow_extract_custom(&self) -> bool {
        true
    }
    fn allow_extract_single_quotes(&self) -> bool {
        true
    }
    fn supports_interval_options(&self) -> bool {
        true
    }
    fn supports_string_escape_constant(&self) -> bool {
        true
    }
    fn supports_unicode_string_literal(&self) -> bool {
        true
    }
    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }
    fn supports_nested_comments(&self) -> bool {
        true
    }
    fn supports_comma_separated_trim(&self) -> bool {
        true
    }

    // Taken so that `check_query` can name them.
    fn supports_table_versioning(&self) -> bool {
        true
    }
    fn supports_match_recognize(&self) -> bool {
        true
    }
    fn supports_group_by_with_modifier(&self) -> bool {
        true
    }
    fn supports_connect_by(&self) -> bool {
        true
    }
    fn supports_prewhere(&self) -> bool {
        true
    }
    fn supports_settings(&self) -> bool {
        true
    }
    fn supports_with_fill(&self) -> bool {
        true
    }
    fn supports_limit_by(&self) -> bool {
        true
    }
    fn supports_interpolate(&self) -> bool {
        true
    }
    fn supports_pipe_operator(&self) -> bool {
        true
    }
    fn supports_select_wildcard_rename(&self) -> bool {
        true
    }
    fn supports_select_item_multi_column_alias(&self) -> bool {
        true
    }
}
