//! The operators of one view, put together: a tree whose leaves are its inputs.
//!
//! ```text
//! input 0 ─▶ filter ─▶ aggregate ─┐
//! input 1 ─▶ project ─────────────┴─▶ filter ─▶ rows of the view
//! ```
//! An operator with several feeds takes the rows of all of them, and is as far as the slowest of them.

use arrow::array::RecordBatch;

use crate::types::{Error, EventTime, Result, Saved, Watermark, limits};

use super::{EpochEnd, Flow, OpenWindows, Operator, Output};

/// Where an operator's rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    Input(usize),
    /// What the operator of this number hands on; numbers follow the rows.
    Operator(usize),
}

pub struct Dataflow {
    nodes: Vec<Node>,
    /// The operator that takes each input; `None` where nothing is between an input and the view.
    takers: Vec<Option<usize>>,
    /// By the epoch at hand, of deltas without retractions.
    rows_added: usize,
}

/// What an operator did since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub rows_in: u64,
    /// Rows handed on, added or retracted.
    pub rows_out: u64,
    pub state_bytes: usize,
}

struct Node {
    operator: Box<dyn Operator>,
    rows_in: u64,
    rows_out: u64,
    feeds: Vec<Feed>,
    /// `None` for the last one.
    taker: Option<usize>,
}

impl Dataflow {
    /// Operators in the order of the rows, each with its feeds. Every input and every operator but the last feeds one operator;
    /// without operators there is one input, and it is the result.
    pub fn new(inputs: usize, operators: Vec<(Box<dyn Operator>, Vec<Feed>)>) -> Self {
        let taker = |feed: Feed| operators.iter().position(|(_, feeds)| feeds.contains(&feed));
        let takers: Vec<_> = (0..inputs).map(|input| taker(Feed::Input(input))).collect();
        let of_operators: Vec<_> = (0..operators.len()).map(|index| taker(Feed::Operator(index))).collect();
        assert!(
            of_operators.iter().enumerate().all(|(index, taker)| match taker {
                Some(taker) => index < *taker,
                None => index + 1 == operators.len(),
            }),
            "rows go forward, to the last operator"
        );
        assert!(
            inputs == 1 || takers.iter().all(Option::is_some),
            "several inputs meet in an operator"
        );
        let nodes = operators
            .into_iter()
            .zip(of_operators)
            .map(|((operator, feeds), taker)| Node {
                operator,
                rows_in: 0,
                rows_out: 0,
                feeds,
                taker,
            })
            .collect();
        Self {
            nodes,
            takers,
            rows_added: 0,
        }
    }

    pub fn on_delta(&mut self, input: usize, flow: Flow, out: &mut Output) -> Result<()> {
        self.push(self.takers[input], vec![flow], out)
    }

    /// Ends an epoch in which `inputs` are complete up to these watermarks. Returns how far the result is.
    pub fn on_epoch_end(&mut self, inputs: &[Watermark], epoch_time: EventTime, out: &mut Output) -> Result<Watermark> {
        let mut handed_on: Vec<Watermark> = Vec::with_capacity(self.nodes.len());
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let of_feed = |feed: &Feed| match feed {
                Feed::Input(input) => inputs[*input],
                Feed::Operator(operator) => handed_on[*operator],
            };
            let watermark = node.feeds.iter().map(of_feed).min().expect("an operator has a feed");
            let end = EpochEnd { watermark, epoch_time };
            let mut step = Output::default();
            let reached = node.operator.on_epoch_end(end, &mut step)?;
            handed_on.push(reached);
            node.rows_out += rows_of(&step.flows);
            let taker = node.taker;
            out.late.append(&mut step.late);
            out.failed.append(&mut step.failed);
            self.push(taker, step.flows, out)?;
        }
        self.rows_added = 0;
        Ok(handed_on.last().copied().unwrap_or_else(|| inputs[0]))
    }

    pub fn wakes_at(&self) -> Option<EventTime> {
        self.nodes.iter().filter_map(|node| node.operator.wakes_at()).min()
    }

    /// The open windows of all operators, by the watermark of the source: `of_input` gives it for one at an input.
    pub fn open_windows(&self, of_input: &dyn Fn(usize, Watermark) -> Option<Watermark>) -> Option<OpenWindows> {
        self.nodes.iter().fold(None, |open, node| {
            let own = node.operator.open_windows().and_then(|own| {
                own.before(|watermark| {
                    let of_feed = |feed: &Feed| self.source_watermark(*feed, watermark, of_input);
                    node.feeds
                        .iter()
                        .map(of_feed)
                        .try_fold(Watermark::START, |all, of_feed| Some(all.max(of_feed?)))
                })
            });
            match own {
                Some(own) => Some(own.and(open)),
                None => open,
            }
        })
    }

    /// The lowest watermark of the source with which the result is complete up to `watermark` or more.
    pub fn source_watermark_of_result(
        &self,
        watermark: Watermark,
        of_input: &dyn Fn(usize, Watermark) -> Option<Watermark>,
    ) -> Option<Watermark> {
        let last = self.nodes.len().checked_sub(1).map_or(Feed::Input(0), Feed::Operator);
        self.source_watermark(last, watermark, of_input)
    }

    fn source_watermark(
        &self,
        feed: Feed,
        watermark: Watermark,
        of_input: &dyn Fn(usize, Watermark) -> Option<Watermark>,
    ) -> Option<Watermark> {
        match feed {
            Feed::Input(input) => of_input(input, watermark),
            Feed::Operator(operator) => {
                let node = &self.nodes[operator];
                let watermark = node.operator.input_watermark(watermark)?;
                let of_feed = |feed: &Feed| self.source_watermark(*feed, watermark, of_input);
                node.feeds
                    .iter()
                    .map(of_feed)
                    .try_fold(Watermark::START, |all, of_feed| Some(all.max(of_feed?)))
            }
        }
    }

    /// Hands on all rows of the view, where the last operator with state holds them; `false` where it does not.
    pub fn hand_on_all(&mut self, out: &mut Output) -> Result<bool> {
        for index in (0..self.nodes.len()).rev() {
            let mut step = Output::default();
            if self.nodes[index].operator.hand_on_all(&mut step)? {
                let taker = self.nodes[index].taker;
                self.push(taker, step.flows, out)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The state of each operator, in their order.
    pub fn snapshot(&mut self) -> Result<Vec<Saved>> {
        self.nodes.iter_mut().map(|node| node.operator.snapshot()).collect()
    }

    /// Takes the state of operator `index`.
    pub fn restore(&mut self, index: usize, state: Vec<RecordBatch>) -> Result<()> {
        self.nodes[index].operator.restore(state)
    }

    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Of each operator, in their order. Measuring its state may take as long as the state is large.
    pub fn figures(&self) -> Vec<Figures> {
        let of = |node: &Node| Figures {
            rows_in: node.rows_in,
            rows_out: node.rows_out,
            state_bytes: node.operator.memory_bytes(),
        };
        self.nodes.iter().map(of).collect()
    }

    /// Brings the rows of figures up to date, and leaves the state as it was measured.
    pub fn count(&self, figures: &mut [Figures]) {
        for (figures, node) in figures.iter_mut().zip(&self.nodes) {
            (figures.rows_in, figures.rows_out) = (node.rows_in, node.rows_out);
        }
    }

    /// Sends rows through the operators from `taker` on, each part of them to the end before the next.
    fn push(&mut self, taker: Option<usize>, flows: Vec<Flow>, out: &mut Output) -> Result<()> {
        let Some(index) = taker else {
            return self.hand_on(flows, out);
        };
        self.nodes[index].rows_in += rows_of(&flows);
        for flow in flows {
            let mut step = Output::default();
            self.nodes[index].operator.on_delta(flow, &mut step)?;
            loop {
                let node = &mut self.nodes[index];
                let flows = std::mem::take(&mut step.flows);
                out.late.append(&mut step.late);
                out.failed.append(&mut step.failed);
                node.rows_out += rows_of(&flows);
                let taker = node.taker;
                self.push(taker, flows, out)?;
                if !self.nodes[index].operator.go_on(&mut step)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Rows of the view.
    ///
    /// # Errors
    /// [`Error::User`] where rows that are only added are more than any view may hold, before they fill the memory.
    fn hand_on(&mut self, mut flows: Vec<Flow>, out: &mut Output) -> Result<()> {
        let added = flows.iter().filter(|flow| flow.delta.weights.is_none());
        self.rows_added += added.map(|flow| flow.delta.rows.num_rows()).sum::<usize>();
        if limits::VIEW_ROWS_MAX < self.rows_added {
            return Err(Error::user(format!(
                "one epoch would add more than {} rows to a view, and so many are the most that it may hold; let it hold fewer, \
                 e.g. by rows in fewer windows, an aggregate or a filter in WHERE, and start again with --reset",
                limits::VIEW_ROWS_MAX
            )));
        }
        out.flows.append(&mut flows);
        Ok(())
    }
}

fn rows_of(flows: &[Flow]) -> u64 {
    flows.iter().map(|flow| flow.delta.rows.num_rows() as u64).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{array::RecordBatchOptions, datatypes::Schema};

    use crate::types::Delta;

    use super::*;

    /// A row without columns, over and over.
    fn rows(count: usize) -> Flow {
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let rows = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options).unwrap();
        Flow::of(Delta::append(rows))
    }

    /// Makes three rows of one, one after another.
    struct Parts {
        left: usize,
    }

    impl Operator for Parts {
        fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
            self.left = 2;
            out.push(flow);
            Ok(())
        }

        fn go_on(&mut self, out: &mut Output) -> Result<bool> {
            if self.left == 0 {
                return Ok(false);
            }
            self.left -= 1;
            out.push(rows(1));
            Ok(true)
        }

        fn on_epoch_end(&mut self, end: EpochEnd, _out: &mut Output) -> Result<Watermark> {
            Ok(end.watermark)
        }

        fn snapshot(&mut self) -> Result<Saved> {
            Ok(Saved::now(Vec::new()))
        }

        fn restore(&mut self, _state: Vec<RecordBatch>) -> Result<()> {
            Ok(())
        }

        fn memory_bytes(&self) -> usize {
            0
        }
    }

    /// Takes one row at a time.
    struct OneAtATime;

    impl Operator for OneAtATime {
        fn on_delta(&mut self, flow: Flow, out: &mut Output) -> Result<()> {
            assert!(
                out.flows.is_empty() && flow.delta.rows.num_rows() == 1,
                "the last part went on"
            );
            out.push(flow);
            Ok(())
        }

        fn on_epoch_end(&mut self, end: EpochEnd, _out: &mut Output) -> Result<Watermark> {
            Ok(end.watermark)
        }

        fn snapshot(&mut self) -> Result<Saved> {
            Ok(Saved::now(Vec::new()))
        }

        fn restore(&mut self, _state: Vec<RecordBatch>) -> Result<()> {
            Ok(())
        }

        fn memory_bytes(&self) -> usize {
            0
        }
    }

    #[test]
    fn each_part_of_a_delta_goes_to_the_end_before_the_next_one_is_made() {
        let operators: Vec<(Box<dyn Operator>, Vec<Feed>)> = vec![
            (Box::new(Parts { left: 0 }), vec![Feed::Input(0)]),
            (Box::new(Parts { left: 0 }), vec![Feed::Operator(0)]),
            (Box::new(OneAtATime), vec![Feed::Operator(1)]),
        ];
        let mut dataflow = Dataflow::new(1, operators);
        let mut out = Output::default();
        dataflow.on_delta(0, rows(1), &mut out).unwrap();
        assert_eq!(out.flows.len(), 9, "three of each of three");
        let figures: Vec<_> = dataflow.figures().iter().map(|of| (of.rows_in, of.rows_out)).collect();
        assert_eq!(figures, [(1, 3), (3, 9), (9, 9)]);
    }

    #[test]
    fn more_rows_than_a_view_may_hold_are_refused_as_they_come() {
        let mut dataflow = Dataflow::new(1, vec![]);
        let mut out = Output::default();
        dataflow.on_delta(0, rows(limits::VIEW_ROWS_MAX), &mut out).unwrap();
        let refused = dataflow.on_delta(0, rows(1), &mut out).unwrap_err();
        assert!(matches!(refused, Error::User(_)), "{refused}");
        assert_eq!(out.flows.len(), 1, "it is not taken");
        let end = [Watermark::START];
        dataflow.on_epoch_end(&end, EventTime(0), &mut out).unwrap();
        dataflow
            .on_delta(0, rows(1), &mut Output::default())
            .expect("the next epoch counts anew");
    }
}
