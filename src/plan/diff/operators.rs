//! What operators with state are, and what they hand on.

use std::sync::Arc;

use datafusion::physical_expr::PhysicalExpr;

use crate::{
    operator::{Aggregation, FilteredFunction, OutputColumn, WindowResult},
    plan::stream::Stage,
};

use super::{
    OperatorShape, Term,
    drawing::{Drawing, Flow, emit_term, listed, plain, stage_has_groups},
    meaning::Meaning,
};

impl Drawing<'_> {
    pub(super) fn windowed(
        &mut self,
        number: usize,
        stage: &Stage,
        flow: Flow,
        (aggregation, result): (&Aggregation, &WindowResult),
        (window, time): (Term, Term),
        columns_before: usize,
    ) -> Flow {
        let (groups, calls) = self.aggregation(aggregation, &flow);
        if self.taken_by_windows.is_none() {
            self.taken_by_windows = Some(flow.columns.iter().map(|column| self.leaves.term(column)).collect());
        }
        let aspects = vec![
            ("window".to_owned(), window),
            ("event time".to_owned(), time),
            ("watermark".to_owned(), self.watermark()),
            (
                "allowed lateness".to_owned(),
                plain(format!("{} s", result.lateness_ns as f64 / 1e9)),
            ),
            ("emit".to_owned(), emit_term(result.emission)),
        ];
        let mut flow = self.operator(number, stage, &flow, aspects, (&groups, &calls), Some(columns_before));
        let ordinal = self.operators.len() - 1;
        flow.columns = (result.columns.iter())
            .map(|column| match column {
                OutputColumn::WindowStart => self.leaves.leaf(format!("#{ordinal}: window start"), "window_start"),
                OutputColumn::WindowEnd => self.leaves.leaf(format!("#{ordinal}: window end"), "window_end"),
                OutputColumn::Group(group) => self.result(&groups[*group]),
                OutputColumn::Function(function) => self.result(&calls[*function].0),
            })
            .collect();
        flow
    }

    /// An operator that hands on the rows that it takes, later or not at all.
    pub(super) fn passed_on(&mut self, number: usize, stage: &Stage, flow: Flow, aspects: Vec<(String, Term)>) -> Flow {
        let mut after = self.operator(number, stage, &flow, aspects, (&[], &[]), None);
        let ordinal = self.operators.len() - 1;
        after.columns = (flow.columns.iter())
            .map(|column| {
                let term = self.leaves.term(column);
                let is = format!("#{ordinal}: {}", term.is);
                self.leaves.leaf_of(is, &term.shown, column.may_fail)
            })
            .collect();
        after
    }

    /// Notes an operator with state. The columns of what it hands on are to be filled in.
    pub(super) fn operator(
        &mut self,
        number: usize,
        stage: &Stage,
        flow: &Flow,
        mut aspects: Vec<(String, Term)>,
        (groups, calls): (&[Term], &[(Term, usize)]),
        columns_before: Option<usize>,
    ) -> Flow {
        if stage_has_groups(stage) {
            aspects.insert(0, ("key".to_owned(), listed(groups)));
        }
        self.operators.push(OperatorShape {
            node: number,
            title: stage.title().to_owned(),
            rows: self.rows(flow),
            aspects,
            aggregates: calls.to_vec(),
            columns_before: columns_before.map(|before| before + groups.len()),
        });
        let base = Term {
            is: format!("#{}", self.operators.len() - 1),
            shown: stage.title().to_owned(),
        };
        Flow::of(base, Vec::new())
    }

    pub(super) fn results(&mut self, groups: &[Term], calls: &[(Term, usize)]) -> Vec<Meaning> {
        let terms = groups.iter().chain(calls.iter().map(|(call, _)| call));
        terms.map(|term| self.result(term)).collect()
    }

    /// A column that the last operator computes.
    pub(super) fn result(&mut self, term: &Term) -> Meaning {
        let ordinal = self.operators.len() - 1;
        self.leaves.leaf(format!("#{ordinal}: {}", term.is), &term.shown)
    }

    pub(super) fn aggregation(&mut self, aggregation: &Aggregation, flow: &Flow) -> (Vec<Term>, Vec<(Term, usize)>) {
        let of = |drawing: &mut Self, expr: &Arc<dyn PhysicalExpr>| {
            let meaning = drawing.leaves.over(expr, &flow.columns);
            drawing.leaves.term(&meaning)
        };
        let groups: Vec<Term> = aggregation.groups().iter().map(|group| of(self, group)).collect();
        let calls = aggregation.calls();
        let calls = calls.map(|((function, filter), width)| (self.call(&(function, filter), flow), width));
        (groups, calls.collect())
    }

    pub(super) fn call(&mut self, (function, filter): &FilteredFunction, flow: &Flow) -> Term {
        let mut of = |expr: &Arc<dyn PhysicalExpr>| {
            let meaning = self.leaves.over(expr, &flow.columns);
            self.leaves.term(&meaning)
        };
        let arguments = listed(&function.expressions().iter().map(&mut of).collect::<Vec<_>>());
        let order: Vec<Term> = (function.order_bys().iter())
            .map(|sort| {
                let term = of(&sort.expr);
                let direction = if sort.options.descending { " DESC" } else { "" };
                let nulls = if sort.options.nulls_first { " NULLS FIRST" } else { "" };
                Term {
                    is: format!("{}{direction}{nulls}", term.is),
                    shown: format!("{}{direction}", term.shown),
                }
            })
            .collect();
        let filter = filter.as_ref().map(&mut of);
        let distinct = if function.is_distinct() { "DISTINCT " } else { "" };
        let nulls = if function.ignore_nulls() { " IGNORE NULLS" } else { "" };
        let text = |arguments: &str, order: String, filter: Option<&str>| {
            let order = if order.is_empty() {
                order
            } else {
                format!(" ORDER BY {order}")
            };
            let filter = filter.map_or(String::new(), |filter| format!(" FILTER (WHERE {filter})"));
            format!("{}({distinct}{arguments}{order}){nulls}{filter}", function.fun().name())
        };
        let order = listed(&order);
        let state = function.state_fields().unwrap_or_default();
        let types: Vec<String> = state.iter().map(|field| field.data_type().to_string()).collect();
        Term {
            is: format!(
                "{} as {} kept as ({})",
                text(&arguments.is, order.is, filter.as_ref().map(|term| term.is.as_str())),
                function.field().data_type(),
                types.join(", ")
            ),
            shown: text(
                &arguments.shown,
                order.shown,
                filter.as_ref().map(|term| term.shown.as_str()),
            ),
        }
    }
}
