//! What a dataflow cannot do yet, or not with one meaning, and what to do instead.

use datafusion::{
    common::{
        JoinType, NullEquality,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Distinct, Expr, LogicalPlan, Volatility},
};

use crate::{
    plan::mistakes::Scene,
    sql::{Diagnostic, QueryWords, Span, SqlState},
};

use super::{
    build::{Builder, Built, Role},
    temporal,
};

/// What cannot mean the same on a stream, wherever it stands in an expression: all that there is, each kind once.
pub(super) fn refuse_expressions(plan: &LogicalPlan, scene: &Scene<'_>) -> Result<(), Vec<Diagnostic>> {
    let mut found: Vec<Diagnostic> = Vec::new();
    let refused = plan.apply_with_subqueries(|node| {
        let may_name_now = matches!(node, LogicalPlan::Filter(_));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                // What stands in a condition on time is looked at where that is taken apart.
                if may_name_now && temporal::is_now(expr) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                let refused = refused_expression(expr).filter(|refused| {
                    let is_known = |known: &Diagnostic| known.message == refused.message;
                    !found.iter().any(is_known)
                });
                found.extend(refused);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    if let Err(error) = refused {
        found.push(Diagnostic::error(
            SqlState::Invalid,
            error.strip_backtrace(),
            scene.statement,
        ));
    }
    if found.is_empty() {
        return Ok(());
    }
    found.extend(refused_nodes(plan));
    Err(in_order(found, scene))
}

fn refused_expression(expr: &Expr) -> Option<Diagnostic> {
    let (message, help) = match expr {
        Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
            let name = function.func.name();
            let help = match name {
                "now" | "current_date" => temporal::possible(),
                "current_time" => "compare a time of the row with now()",
                _ => "its value would change when the stream is read again",
            };
            (format!("{name}() is not supported in a materialized view"), help)
        }
        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => (
            "sub-queries in expressions of a materialized view are not supported yet".to_owned(),
            "compute it in a view of its own",
        ),
        _ => return None,
    };
    Some(Diagnostic::error(SqlState::Unsupported, message, None).help(help))
}

/// What a dataflow was refused for, and whatever else of the plan no dataflow takes: so that all is told at once.
pub(super) fn with_all_others(first: Diagnostic, plan: &LogicalPlan, scene: &Scene<'_>) -> Vec<Diagnostic> {
    let mut all = refused_nodes(plan);
    if !all.iter().any(|refused| refused.message == first.message) {
        all.push(first);
    }
    in_order(all, scene)
}

/// Parts of the plan that no operator stands for, each kind once.
fn refused_nodes(plan: &LogicalPlan) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = Vec::new();
    let visited = plan.apply(|node| {
        let is_taken = matches!(
            node,
            LogicalPlan::TableScan(_)
                | LogicalPlan::SubqueryAlias(_)
                | LogicalPlan::Projection(_)
                | LogicalPlan::Filter(_)
                | LogicalPlan::Extension(_)
                | LogicalPlan::Aggregate(_)
                | LogicalPlan::Distinct(Distinct::All(_))
                | LogicalPlan::Union(_)
        );
        let refused = (!is_taken).then(|| unsupported(node));
        let refused = refused
            .map(|(what, instead)| Diagnostic::error(SqlState::Unsupported, not_yet(what), None).help(instead))
            .filter(|refused| !found.iter().any(|known| known.message == refused.message));
        found.extend(refused);
        Ok(TreeNodeRecursion::Continue)
    });
    visited.expect("looking at a plan cannot fail");
    found
}

pub(super) fn not_yet(what: &str) -> String {
    format!("{what} in a materialized view is not supported yet")
}

fn in_order(refused: Vec<Diagnostic>, scene: &Scene<'_>) -> Vec<Diagnostic> {
    let mut refused: Vec<Diagnostic> = refused.into_iter().map(|refused| placed(refused, scene)).collect();
    refused.sort_by_key(|refused| refused.span.map(|span| span.start));
    refused
}

/// At the clause, call or name that it is about, where it points at no less than the whole query.
pub(super) fn placed(refused: Diagnostic, scene: &Scene<'_>) -> Diagnostic {
    if refused.span.is_some_and(|span| span != scene.statement) {
        return refused;
    }
    let words = QueryWords::of(scene.text, scene.statement);
    let place = place_of(&refused.message, &words);
    Diagnostic {
        span: place.or(Some(scene.statement)),
        ..refused
    }
}

/// What a message is about stands at its beginning, or in backquotes.
fn place_of(message: &str, words: &QueryWords) -> Option<Span> {
    let begins = |with: &str| message.starts_with(with);
    let clause = match () {
        () if begins("a join") => words.join(),
        () if begins("sub-queries") => words.query_as_value(),
        () if begins("a recursive query") => words.words(&["RECURSIVE"]),
        () if begins("sessions") => words.call("session"),
        () if begins("OVER") => words.words(&["OVER"]),
        () if begins("LIMIT") => words.clause(&["LIMIT"]).or_else(|| words.clause(&["OFFSET"])),
        () if begins("now()") => words.call("now").or_else(|| words.name("current_timestamp")),
        () => None,
    };
    let capitals = || {
        let is_word = |word: &&str| 1 < word.len() && word.chars().all(|c| c.is_ascii_uppercase());
        let clause: Vec<&str> = message.split(' ').take_while(is_word).collect();
        (!clause.is_empty()).then(|| words.clause(&clause))?
    };
    let call = || {
        let name = message.split([' ', '(']).next()?;
        words
            .call(name)
            .or_else(|| message.starts_with(&format!("{name}()")).then(|| words.name(name))?)
    };
    let name = || message.split('`').skip(1).step_by(2).find_map(|name| words.name(name));
    clause.or_else(capitals).or_else(call).or_else(name)
}

impl Builder<'_> {
    /// What windows over a view or a table can be over instead.
    pub(super) fn times_to_use(&self, built: &Built, name: &str) -> String {
        let upstream = built.names_of_inputs();
        let views = built
            .inputs
            .iter()
            .filter_map(|input| self.catalog.materialized(&input.relation));
        let mut times: Vec<&str> = Vec::new();
        for stream in views.map(|view| &view.stream) {
            let told = stream.schema.fields().iter().zip(&stream.roles);
            let is_told = |role: &Role| matches!(role, Role::EventTime | Role::WindowEnd | Role::WindowStart(Some(_)));
            times.extend(
                told.filter(|(_, role)| is_told(role))
                    .map(|(field, _)| field.name().as_str()),
            );
        }
        match times.as_slice() {
            [] if built.is_of_tables => {
                format!("create the table with WATERMARK FOR {name} AS {name} - INTERVAL '5 seconds', and APPEND ONLY")
            }
            [] => format!("let `{upstream}` show its window_end or its event time, and use that"),
            some => format!("use `{}` of `{upstream}`", some.join("` or `")),
        }
    }
}

/// What it is called, and what to do instead.
pub(super) fn unsupported(plan: &LogicalPlan) -> (&'static str, &'static str) {
    match plan {
        // EXCEPT and INTERSECT take nulls for equal, which no ON does.
        LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull => match join.join_type {
            JoinType::LeftAnti => ("EXCEPT", "use it in the query that reads the view"),
            _ => ("INTERSECT", "use it in the query that reads the view"),
        },
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
