//! How large a query becomes once the views and functions in it are unfolded: each may name several others, and so on below them.

use std::{convert::Infallible, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{self, Expr, ObjectName, Query};

use crate::{
    sql::{Diagnostic, Span, SqlState},
    types::limits,
};

use super::{
    catalog::{Catalog, Relation},
    function::Functions,
    function_call::{called_name, folded},
};

/// The query itself, and what each view and function that it names is made of, as often as it names it.
pub fn parts_of_query(query: &Query, catalog: &Catalog) -> usize {
    let mut parts = 1usize;
    let of_view = |name: &str| match catalog.get(name) {
        Some(Relation::View(view)) => view.parts,
        _ => 0,
    };
    let last_name = |name: &ObjectName| {
        let last = name.0.last().and_then(|part| part.as_ident());
        last.map_or(0, |ident| of_view(&folded(ident)))
    };
    let ControlFlow::<Infallible>::Continue(()) = ast::visit_relations(query, |name| {
        parts = parts.saturating_add(last_name(name));
        ControlFlow::Continue(())
    });
    let ControlFlow::<Infallible>::Continue(()) = ast::visit_expressions(query, |expr| {
        let of_expr = match expr {
            // The table of a window function stands where a column would.
            Expr::Identifier(ident) => of_view(&folded(ident)),
            other => parts_of_call(other, &catalog.functions),
        };
        parts = parts.saturating_add(of_expr);
        ControlFlow::Continue(())
    });
    parts
}

/// The expression itself, and what each function that it calls is made of, as often as it calls it.
pub fn parts_of_body(body: &Expr, functions: &Functions) -> usize {
    let mut parts = 1usize;
    let ControlFlow::<Infallible>::Continue(()) = ast::visit_expressions(body, |expr| {
        parts = parts.saturating_add(parts_of_call(expr, functions));
        ControlFlow::Continue(())
    });
    parts
}

fn parts_of_call(expr: &Expr, functions: &Functions) -> usize {
    let called = match expr {
        Expr::Function(function) => called_name(function).and_then(|name| functions.get(&name)),
        _ => None,
    };
    called.map_or(0, |function| function.parts)
}

/// What to say where `parts` are more than can be planned.
pub fn too_many(parts: usize, span: Span) -> Option<Diagnostic> {
    (limits::PLAN_PARTS_MAX < parts).then(|| {
        let message = format!(
            "with all views and functions unfolded this has {parts} parts, at most {} are possible",
            limits::PLAN_PARTS_MAX
        );
        Diagnostic::error(SqlState::TooComplex, message, span).help(
            "let it name fewer views and functions that are made of others, or make one of them a materialized view",
        )
    })
}
