//! What a dataflow cannot do yet, or not with one meaning, and what to do instead.

use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    logical_expr::{Expr, LogicalPlan, Volatility},
};

use crate::sql::{Diagnostic, Span, SqlState};

use super::temporal;

/// What cannot mean the same on a stream, wherever it stands in an expression.
pub(super) fn refuse_expressions(plan: &LogicalPlan, statement: Span) -> Result<(), Vec<Diagnostic>> {
    let mut found = None;
    let refused = plan.apply_with_subqueries(|node| {
        let may_name_now = matches!(node, LogicalPlan::Filter(_));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found = match expr {
                    expr if may_name_now && temporal::is_now(expr) => None,
                    Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
                        let name = function.func.name();
                        let help = match name {
                            "now" | "current_date" => temporal::possible(),
                            "current_time" => "compare a time of the row with now()",
                            _ => "its value would change when the stream is read again",
                        };
                        Some(
                            Diagnostic::error(
                                SqlState::Unsupported,
                                format!("{name}() is not supported in a materialized view"),
                                statement,
                            )
                            .help(help),
                        )
                    }
                    Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => Some(
                        Diagnostic::error(
                            SqlState::Unsupported,
                            "sub-queries in expressions of a materialized view are not supported yet",
                            statement,
                        )
                        .help("compute it in a view of its own"),
                    ),
                    _ => None,
                };
                Ok(if found.is_some() {
                    TreeNodeRecursion::Stop
                } else {
                    TreeNodeRecursion::Continue
                })
            })
        })
    });
    match (refused, found) {
        (_, Some(diagnostic)) => Err(vec![diagnostic]),
        (Err(error), None) => Err(vec![Diagnostic::error(
            SqlState::Invalid,
            error.strip_backtrace(),
            statement,
        )]),
        (Ok(_), None) => Ok(()),
    }
}

pub(super) fn unsupported(plan: &LogicalPlan) -> (&'static str, &'static str) {
    match plan {
        LogicalPlan::Join(_) => ("a join", "join the view with tables in the query that reads it"),
        LogicalPlan::Sort(_) => ("ORDER BY", "order in the query that reads the view"),
        LogicalPlan::Limit(_) => ("LIMIT", "limit in the query that reads the view"),
        LogicalPlan::Window(_) => ("OVER", "use it in the query that reads the view"),
        LogicalPlan::Distinct(_) => ("DISTINCT ON", "use first_value(x ORDER BY t) and GROUP BY"),
        LogicalPlan::RecursiveQuery(_) => ("a recursive query", "use it in the query that reads the view"),
        LogicalPlan::Unnest(_) => ("UNNEST", "use it in the query that reads the view"),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => ("a query without a source", "use CREATE VIEW"),
        _ => ("this", "use it in the query that reads the view"),
    }
}
