//! How large a query becomes once the views, functions and queries of WITH in it are unfolded: each may name several others, and so on
//! below them.

use std::{convert::Infallible, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{self, Expr, Ident, ObjectName, Query, Visit as _, Visitor};

use crate::{
    sql::{Diagnostic, Span, SqlState},
    types::limits,
};

use super::{
    catalog::{Catalog, Relation},
    function::Functions,
    function_call::{called_name, folded},
};

/// The query itself, and what each view, function and query of WITH that it names is made of, as often as it names it.
pub fn parts_of_query(query: &Query, catalog: &Catalog) -> usize {
    let mut counter = Counter {
        catalog,
        around: Vec::new(),
        parts: 0,
    };
    let ControlFlow::Continue(()) = query.visit(&mut counter);
    counter.parts
}

struct Counter<'a> {
    catalog: &'a Catalog,
    /// The queries around what is read, outermost first.
    around: Vec<Counted>,
    /// Of the last query that was read to its end.
    parts: usize,
}

#[derive(Default)]
struct Counted {
    parts: usize,
    /// Names of the queries of its WITH that are not read yet, the next one last.
    unread: Vec<String>,
    /// Those that are read, and how large they are: each name stands for what it was given last.
    with: Vec<(String, usize)>,
    /// The largest of them, which is planned even if nothing names it.
    largest: usize,
}

impl Counter<'_> {
    fn add(&mut self, parts: usize) {
        if let Some(query) = self.around.last_mut() {
            query.parts = query.parts.saturating_add(parts);
        }
    }

    /// Of a query of WITH, the innermost of that name, or else of a view.
    fn parts_of_name(&self, ident: &Ident) -> usize {
        let name = folded(ident);
        let mut known = self.around.iter().rev().flat_map(|query| query.with.iter().rev());
        match (known.find(|(known, _)| *known == name), self.catalog.get(&name)) {
            (Some((_, parts)), _) => *parts,
            (None, Some(Relation::View(view))) => view.parts,
            (None, _) => 0,
        }
    }
}

impl Visitor for Counter<'_> {
    type Break = Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Infallible> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        let mut unread: Vec<String> = with.map(|cte| folded(&cte.alias.name)).collect();
        unread.reverse();
        self.around.push(Counted {
            parts: 1,
            unread,
            ..Counted::default()
        });
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Infallible> {
        let query = self.around.pop().expect("pushed before");
        self.parts = query.parts.max(query.largest);
        // Those of WITH are read before all else.
        match self.around.last_mut().map(|above| (above.unread.pop(), above)) {
            Some((Some(name), above)) => {
                above.largest = above.largest.max(self.parts);
                above.with.push((name, self.parts));
            }
            _ => self.add(self.parts),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Infallible> {
        let last = relation.0.last().and_then(|part| part.as_ident());
        self.add(last.map_or(0, |ident| self.parts_of_name(ident)));
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Infallible> {
        self.add(match expr {
            // The table of a window function stands where a column would.
            Expr::Identifier(ident) => self.parts_of_name(ident),
            other => parts_of_call(other, &self.catalog.functions),
        });
        ControlFlow::Continue(())
    }
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
            "with all views, functions and queries of WITH unfolded this has {parts} parts, at most {} are possible",
            limits::PLAN_PARTS_MAX
        );
        Diagnostic::error(SqlState::TooComplex, message, span)
            .help("let it name fewer of them that are made of others, or make one of them a materialized view")
    })
}
