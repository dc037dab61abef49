//! One view, followed from its inputs up.
//!
//! ```text
//! columns of an input ─▶ steps put one into the other ─▶ operator with state: a shape ─▶ its results are the next leaves
//! ```

use datafusion::physical_expr::split_conjunction;

use crate::{
    operator::{Assignment, ClosedBy, Emission, Feed, Step},
    plan::{
        MaterializedDefinition, OF_LATENESS, SourceDefinition,
        stream::{Node, Stage, StreamPlan},
        window::Cut,
    },
    sql::{Emit, on_one_line},
};

use super::{
    ColumnShape, OperatorShape, RowsShape, Term, ViewShape, digest,
    meaning::{Leaves, Meaning},
};

/// Rows on their way up.
#[derive(Clone)]
pub(super) struct Flow {
    pub(super) base: Term,
    pub(super) columns: Vec<Meaning>,
    pub(super) filters: Vec<Meaning>,
    pub(super) steps: Vec<Term>,
    pub(super) is_held_by_state: bool,
}

impl Flow {
    /// All that there is of something.
    pub(super) fn of(base: Term, columns: Vec<Meaning>) -> Self {
        Self {
            base,
            columns,
            filters: Vec::new(),
            steps: Vec::new(),
            is_held_by_state: false,
        }
    }
}

/// One view being read.
pub(super) struct Drawing<'a> {
    pub(super) source: &'a SourceDefinition,
    pub(super) before: &'a [ViewShape],
    pub(super) leaves: Leaves,
    pub(super) operators: Vec<OperatorShape>,
    pub(super) hold: Option<(usize, Term)>,
    /// What the rows hold that the first windows take.
    pub(super) taken_by_windows: Option<Vec<Term>>,
}

impl<'a> Drawing<'a> {
    pub(super) fn of(source: &'a SourceDefinition, before: &'a [ViewShape]) -> Self {
        Self {
            source,
            before,
            leaves: Leaves::default(),
            operators: Vec::new(),
            hold: None,
            taken_by_windows: None,
        }
    }

    pub(super) fn view(&mut self, stream: &StreamPlan) -> Flow {
        let inputs: Vec<Flow> = (0..stream.inputs.len())
            .map(|input| self.input(stream, input))
            .collect();
        let mut flows: Vec<Flow> = Vec::new();
        for (number, node) in stream.nodes.iter().enumerate() {
            let feeds: Vec<Flow> = (node.feeds.iter())
                .map(|feed| match feed {
                    Feed::Input(input) => inputs[*input].clone(),
                    Feed::Operator(operator) => flows[*operator].clone(),
                })
                .collect();
            let flow = self.union(feeds);
            flows.push(self.node(number, node, flow));
        }
        flows.pop().unwrap_or_else(|| inputs[0].clone())
    }

    pub(super) fn shape(mut self, view: &MaterializedDefinition, top: &Flow) -> ViewShape {
        let stream = &view.stream;
        let top_rows = self.rows(top);
        let columns = (stream.schema.fields().iter())
            .zip(&top.columns)
            .map(|(field, meaning)| ColumnShape {
                name: field.name().clone(),
                data_type: field.data_type().to_string(),
                meaning: self.leaves.term(meaning),
                may_fail: meaning.may_fail,
            })
            .collect();
        let emit = match &view.emit {
            Emit::Changes => "changes",
            Emit::OnWindowClose => "on window close",
            Emit::Every(_) => "every",
        };
        let operators = self
            .operators
            .iter()
            .map(OperatorShape::text)
            .collect::<Vec<_>>()
            .join("\n");
        let rows = digest(&format!("{operators}\n{}\nemit {emit}", top_rows.text()));
        let late_columns = self.late_columns(stream);
        let late = stream.late_rows.iter().flat_map(|schema| schema.fields().iter());
        ViewShape {
            name: view.name.clone(),
            sql: on_one_line(&view.sql),
            reads_source: stream.inputs.iter().any(|input| input.is_source),
            reads: (stream.inputs.iter())
                .filter(|input| !input.is_source)
                .map(|input| input.relation.clone())
                .collect(),
            operators: std::mem::take(&mut self.operators),
            hold: self.hold.take(),
            top: top_rows,
            columns,
            key: key_names(stream),
            rows,
            late: late
                .map(|field| (field.name().clone(), field.data_type().to_string()))
                .collect(),
            late_columns,
        }
    }

    /// What late rows hold, column by column. Those of several branches have the columns of all.
    fn late_columns(&self, stream: &StreamPlan) -> Vec<String> {
        let is_one_branch = stream.nodes.iter().all(|node| node.feeds.len() == 1);
        let (Some(schema), Some(terms), true) = (&stream.late_rows, &self.taken_by_windows, is_one_branch) else {
            return Vec::new();
        };
        if schema.fields().len() != terms.len() {
            return Vec::new();
        }
        let columns = schema.fields().iter().zip(terms);
        columns
            .filter(|(field, _)| !OF_LATENESS.contains(&field.name().as_str()))
            .map(|(field, term)| format!("{} {}", digest(&term.is), field.data_type()))
            .collect()
    }

    /// A source, or a view below.
    pub(super) fn input(&mut self, stream: &StreamPlan, input: usize) -> Flow {
        let input = &stream.inputs[input];
        let base;
        let mut columns = Vec::new();
        if input.is_source {
            let source = self.source;
            let options: Vec<String> = (source.format_options.iter())
                .map(|(name, value)| format!("{name} = '{value}'"))
                .collect();
            base = Term {
                is: format!("source {} as {} {}", source.name, source.format, options.join(", ")),
                shown: format!("`{}` as {} ({})", source.name, source.format, options.join(", ")),
            };
            for column in &input.columns {
                let field = source.schema.field(*column);
                let null = if field.is_nullable() { "" } else { " not null" };
                let of = (column
                    .checked_sub(source.declared)
                    .and_then(|at| source.includes.get(at)))
                .map_or(String::new(), |field| format!(" from {field}"));
                let is = format!("{}.{} {}{null}{of}", source.name, field.name(), field.data_type());
                columns.push(self.leaves.leaf(is, field.name()));
            }
        } else {
            let view = self.before.iter().find(|view| view.name == input.relation);
            let view = view.expect("what a view reads was made before it");
            base = Term {
                is: format!("view {} of rows {}", view.name, view.rows),
                shown: format!("`{}`", view.name),
            };
            for column in &input.columns {
                let column = &view.columns[*column];
                let is = format!("{}.{} {}", view.name, digest(&column.meaning.is), column.data_type);
                columns.push(self.leaves.leaf(is, &column.name));
            }
        }
        Flow::of(base, columns)
    }

    /// Rows of several branches, which have the same columns by place.
    pub(super) fn union(&mut self, mut feeds: Vec<Flow>) -> Flow {
        if feeds.len() == 1 {
            return feeds.remove(0);
        }
        let rows: Vec<RowsShape> = feeds.iter().map(|feed| self.rows(feed)).collect();
        let join = |of: &dyn Fn(&RowsShape) -> String| rows.iter().map(of).collect::<Vec<_>>().join("; ");
        let base = Term {
            is: format!("union of ({})", join(&RowsShape::text)),
            shown: format!("all of {}", join(&|rows| rows.base.shown.clone())),
        };
        let width = feeds[0].columns.len();
        let columns = (0..width)
            .map(|column| {
                let of: Vec<Term> = feeds
                    .iter()
                    .map(|feed| self.leaves.term(&feed.columns[column]))
                    .collect();
                let is = of.iter().map(|term| term.is.as_str()).collect::<Vec<_>>().join(" | ");
                let may_fail = feeds.iter().any(|feed| feed.columns[column].may_fail);
                self.leaves.leaf_of(format!("union: {is}"), &of[0].shown, may_fail)
            })
            .collect();
        Flow::of(base, columns)
    }

    pub(super) fn rows(&self, flow: &Flow) -> RowsShape {
        let mut filters: Vec<Term> = flow.filters.iter().map(|filter| self.leaves.term(filter)).collect();
        filters.sort_by(|one, other| one.is.cmp(&other.is));
        filters.dedup();
        RowsShape {
            base: flow.base.clone(),
            filters,
            steps: flow.steps.clone(),
        }
    }

    pub(super) fn node(&mut self, number: usize, node: &Node, mut flow: Flow) -> Flow {
        let stage = &node.stage;
        match stage {
            Stage::Segment(steps) => {
                steps.iter().for_each(|step| self.step(step, &mut flow));
                flow
            }
            Stage::MapWatermark(mapping) => {
                let aspects = vec![("watermark of another column".to_owned(), plain(format!("{mapping:?}")))];
                self.passed_on(number, stage, flow, aspects)
            }
            // Behind all others: what it holds back is what the view shows next.
            Stage::EmitEvery(interval) => {
                self.hold = Some((number, plain(format!("every {interval:?}"))));
                flow
            }
            Stage::TemporalFilter { bounds, .. } => {
                let bounds = bounds.iter().map(|bound| {
                    let time = self.leaves.over(&bound.time, &flow.columns);
                    let of = |time: &str| {
                        format!(
                            "{:?} {time} + {} ns, after {}, in steps of {} ns with {} ns",
                            bound.end, bound.plus_ns, bound.is_after, bound.step_ns, bound.minus_ns
                        )
                    };
                    let term = self.leaves.term(&time);
                    Term {
                        is: of(&term.is),
                        shown: of(&term.shown),
                    }
                });
                let bounds: Vec<Term> = bounds.collect();
                let aspects = vec![
                    ("bound by now()".to_owned(), listed(&bounds)),
                    ("columns".to_owned(), self.all(&flow)),
                ];
                self.passed_on(number, stage, flow, aspects)
            }
            Stage::WindowCloseGate { window_end, .. } => {
                let aspects = vec![
                    ("window end".to_owned(), self.leaves.term(&flow.columns[*window_end])),
                    ("watermark".to_owned(), self.watermark()),
                    ("columns".to_owned(), self.all(&flow)),
                ];
                self.passed_on(number, stage, flow, aspects)
            }
            Stage::Upsert { key, .. } => {
                let key: Vec<Term> = key
                    .iter()
                    .map(|column| self.leaves.term(&flow.columns[*column]))
                    .collect();
                let aspects = vec![
                    ("key".to_owned(), listed(&key)),
                    ("columns".to_owned(), self.all(&flow)),
                ];
                self.passed_on(number, stage, flow, aspects)
            }
            Stage::GroupAggregate { aggregation, .. } => {
                let (groups, calls) = self.aggregation(aggregation, &flow);
                let mut flow = self.operator(number, stage, &flow, Vec::new(), (&groups, &calls), Some(0));
                flow.columns = self.results(&groups, &calls);
                flow.is_held_by_state = true;
                flow
            }
            Stage::RecomputeAggregate {
                aggregation,
                closed_by,
                emission,
                ..
            } => {
                let (groups, calls) = self.aggregation(aggregation, &flow);
                let mut aspects = vec![("emit".to_owned(), emit_term(*emission))];
                aspects.extend(closed_by.map(|closed_by| {
                    let (column, closing) = match closed_by {
                        ClosedBy::End(column) => (column, plain("the end of a window".to_owned())),
                        ClosedBy::Start(column, windows) => {
                            let shown = format!("the start of {}", Cut::Aligned(windows));
                            (
                                column,
                                Term {
                                    is: format!("{windows:?}"),
                                    shown,
                                },
                            )
                        }
                    };
                    ("closing column".to_owned(), listed(&[groups[column].clone(), closing]))
                }));
                aspects.extend(closed_by.map(|_| ("watermark".to_owned(), self.watermark())));
                let mut flow = self.operator(number, stage, &flow, aspects, (&groups, &calls), None);
                flow.columns = self.results(&groups, &calls);
                flow
            }
            Stage::WindowAggregate {
                aggregation,
                assignment,
                windows,
                result,
            } => {
                let time = match assignment {
                    Assignment::Time(column) => self.leaves.term(&flow.columns[*column]),
                    Assignment::Bounds { start, end } => {
                        let bounds: Vec<Term> = (start.iter().chain(end))
                            .map(|column| self.leaves.term(&flow.columns[*column]))
                            .collect();
                        listed(&bounds)
                    }
                };
                let by = match assignment {
                    Assignment::Time(_) => "time",
                    Assignment::Bounds { .. } => "bounds",
                };
                let window = Term {
                    is: format!("{windows:?} by {by}"),
                    shown: Cut::Aligned(*windows).to_string(),
                };
                // Overlapping windows that wait for their end share panes.
                let is_shared = result.emission == Emission::OnWindowClose
                    && matches!(assignment, Assignment::Time(_))
                    && !windows.is_tumbling();
                let before = if is_shared { 3 } else { 2 };
                self.windowed(number, stage, flow, (aggregation, result), (window, time), before)
            }
            Stage::SessionAggregate {
                aggregation,
                time,
                gap_ns,
                result,
            } => {
                let cut = Cut::Sessions {
                    gap_ns: *gap_ns,
                    key: Vec::new(),
                };
                let time = self.leaves.term(&flow.columns[*time]);
                let window = plain(cut.to_string());
                self.windowed(number, stage, flow, (aggregation, result), (window, time), 2)
            }
        }
    }

    pub(super) fn step(&mut self, step: &Step, flow: &mut Flow) {
        match step {
            Step::Filter(predicate) => {
                for condition in split_conjunction(predicate) {
                    let meaning = self.leaves.over(condition, &flow.columns);
                    flow.filters.push(meaning);
                }
            }
            Step::Project { columns, .. } => {
                flow.columns = columns
                    .iter()
                    .map(|column| self.leaves.over(column, &flow.columns))
                    .collect();
            }
            Step::Select { columns, .. } => {
                flow.columns = columns.iter().map(|column| flow.columns[*column].clone()).collect();
            }
            Step::Windows { time, windows, .. } => {
                let time = self.leaves.term(&flow.columns[*time]);
                let shown = format!("{} of {}", Cut::Aligned(*windows), time.shown);
                let is = format!("{windows:?} of {}", time.is);
                for (bound, name) in [("start", "window_start"), ("end", "window_end")] {
                    flow.columns.push(self.leaves.leaf(format!("{bound} of {is}"), name));
                }
                flow.steps.push(Term { is, shown });
            }
            Step::CarryTime { time, .. } => {
                let time = flow.columns[*time].clone();
                flow.columns.extend([time.clone(), time]);
            }
            Step::EachSet { columns, sets, .. } => {
                let meanings: Vec<Meaning> = (columns.iter())
                    .map(|column| self.leaves.over(column, &flow.columns))
                    .collect();
                let terms: Vec<Term> = meanings.iter().map(|meaning| self.leaves.term(meaning)).collect();
                let of = listed(&terms);
                let is = format!("sets {sets:?} of {}", of.is);
                for (place, (term, meaning)) in terms.iter().zip(&meanings).enumerate() {
                    let is = format!("{place} of {is}");
                    flow.columns
                        .push(self.leaves.leaf_of(is, &term.shown, meaning.may_fail));
                }
                flow.columns.push(self.leaves.leaf(format!("set of {is}"), "grouping"));
                flow.steps.push(Term {
                    is,
                    shown: format!("{} grouping sets of {}", sets.len(), of.shown),
                });
            }
            Step::Weigh { .. } => {
                flow.columns.pop();
                flow.steps.push(plain("rows that are added and retracted".to_owned()));
            }
        }
    }

    pub(super) fn all(&self, flow: &Flow) -> Term {
        let terms: Vec<Term> = flow.columns.iter().map(|column| self.leaves.term(column)).collect();
        listed(&terms)
    }

    pub(super) fn watermark(&mut self) -> Term {
        watermark(self.source, &mut self.leaves)
    }
}

/// Up to where a source is complete once a row is in.
pub(super) fn watermark(source: &SourceDefinition, leaves: &mut Leaves) -> Term {
    let Some(watermark) = &source.watermark else {
        return plain("none".to_owned());
    };
    let columns: Vec<Meaning> = (source.schema.fields().iter())
        .map(|field| leaves.leaf(format!("{} {}", field.name(), field.data_type()), field.name()))
        .collect();
    let meaning = leaves.over(&watermark.expression, &columns);
    let term = leaves.term(&meaning);
    Term {
        is: format!("{} for {}", term.is, source.schema.field(watermark.column).name()),
        shown: watermark.text.clone(),
    }
}

pub(super) fn stage_has_groups(stage: &Stage) -> bool {
    matches!(
        stage,
        Stage::WindowAggregate { .. }
            | Stage::SessionAggregate { .. }
            | Stage::GroupAggregate { .. }
            | Stage::RecomputeAggregate { .. }
    )
}

pub(super) fn emit_term(emission: Emission) -> Term {
    plain(match emission {
        Emission::Changes => "changes".to_owned(),
        Emission::OnWindowClose => "on window close".to_owned(),
    })
}

/// One that people read as it is.
pub(super) fn plain(text: String) -> Term {
    Term {
        is: text.clone(),
        shown: text,
    }
}

pub(super) fn listed(terms: &[Term]) -> Term {
    let join = |of: &dyn Fn(&Term) -> &str| terms.iter().map(of).collect::<Vec<_>>().join(", ");
    Term {
        is: join(&|term| &term.is),
        shown: join(&|term| &term.shown),
    }
}

pub(super) fn key_names(stream: &StreamPlan) -> Vec<String> {
    let name = |column: &usize| stream.schema.field(*column).name().clone();
    stream.key.iter().map(name).collect()
}
