//! How many grouping sets a GROUP BY asks for: a row stands once for each of them, so they have a bound.

use datafusion::sql::sqlparser::ast::{Expr, GroupByExpr, Spanned as _};

use crate::types::limits;

use super::{Diagnostic, SourceText, SqlState, byte_span};

/// A mistake where they are too many. The planner below would write all of them out before it counts.
pub fn check(text: &SourceText, group_by: &GroupByExpr) -> Option<Diagnostic> {
    let GroupByExpr::Expressions(groups, _) = group_by else {
        return None;
    };
    // Each set of one goes with each set of the next.
    let count = groups.iter().map(sets_of).fold(1, usize::saturating_mul);
    (limits::GROUPING_SETS_MAX < count).then(|| {
        let message = format!(
            "GROUP BY asks for more than {} grouping sets, and a row stands once for each",
            limits::GROUPING_SETS_MAX
        );
        Diagnostic::error(SqlState::TooComplex, message, byte_span(text, group_by.span()))
            .help("group by fewer columns, or write the sets that are wanted: GROUPING SETS ((a, b), (a), ())")
    })
}

fn sets_of(group: &Expr) -> usize {
    match group {
        Expr::GroupingSets(sets) => sets.len(),
        Expr::Rollup(columns) => columns.len() + 1,
        Expr::Cube(columns) => u32::try_from(columns.len())
            .ok()
            .and_then(|columns| 1usize.checked_shl(columns))
            .unwrap_or(usize::MAX),
        _ => 1,
    }
}
