//! What a run does otherwise than written, in ways that no result may show.
//!
//! ```text
//! as written   INSERT a b c │ INSERT d │ query                 │ ends an epoch
//! cut          INSERT a │ b c │ INSERT d │ query               after row 1; a checkpoint or a crash may stand there
//! waits        INSERT a │ (b c) INSERT d │ query               one epoch takes b, c and d
//! moved        INSERT d │ INSERT a b c │ query                 another split's rows first
//! behind       INSERT a b c │ crash, INSERT d │ query
//! ```

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    file::{Script, Vary},
    shape::Shape,
};

/// Records are named by their index in the script.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Perturbation {
    /// It happens when the record has run.
    Behind { record: usize, event: Event },
    /// An epoch ends behind the first `row` rows of an INSERT.
    Cut {
        record: usize,
        row: usize,
        event: Option<Event>,
    },
    /// The rows of an INSERT behind the first `row` run in the epoch of the next statement.
    Wait { record: usize, row: usize },
    /// A record runs directly before another one, which stands above it.
    Move { record: usize, before: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Checkpoint,
    Crash,
    CheckpointAndCrash,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Variation(pub Vec<Perturbation>);

/// What a record does otherwise while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Rows behind which an epoch ends, ascending, and what happens there.
    pub cuts: Vec<(usize, Option<Event>)>,
    /// Rows behind this one wait.
    pub wait: Option<usize>,
}

impl Variation {
    /// The same event behind every record.
    pub fn behind_each(event: Event, shape: &Shape) -> Self {
        Self(
            shape
                .runs()
                .map(|record| Perturbation::Behind { record, event })
                .collect(),
        )
    }

    /// What a seed makes of a script.
    pub fn random(seed: u64, vary: Vary, shape: &Shape) -> Self {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        // A run with few perturbations finds what many hide from each other.
        let mut chance = |is_wanted: bool, of: &[f64]| {
            let chance = *of.choose(rng).expect("there are some");
            if is_wanted { chance } else { 0.0 }
        };
        let cut = chance(vary.cuts, &[0.0, 0.3, 0.7, 1.0]);
        let wait = chance(vary.cuts, &[0.0, 0.2, 0.5]);
        let moved = chance(vary.order, &[0.0, 0.3, 0.6]);
        let event = chance(vary.crashes, &[0.0, 0.05, 0.3]);

        let mut variation = Self::default();
        let movable: Vec<usize> = shape.runs().filter(|record| shape.segment(*record).is_some()).collect();
        for record in movable {
            if rng.random_bool(moved) {
                let earlier = variation.reach(record, shape);
                if let Some(before) = earlier.choose(rng) {
                    variation.0.push(Perturbation::Move {
                        record,
                        before: *before,
                    });
                }
            }
        }
        let happens = |rng: &mut ChaCha8Rng| {
            rng.random_bool(event).then(|| {
                let events = [Event::Checkpoint, Event::Crash, Event::Crash, Event::CheckpointAndCrash];
                *events.choose(rng).expect("there are some")
            })
        };
        for record in shape.runs() {
            let rows = shape.inserted(record).map_or(0, |inserted| inserted.rows);
            if 1 < rows && rng.random_bool(cut) {
                // One epoch more, some, or one for each row.
                let only = rng.random_range(1..rows);
                let share = *[0.0, 0.5, 1.0].choose(rng).expect("there are some");
                for row in 1..rows {
                    if row == only || rng.random_bool(share) {
                        let event = happens(rng);
                        variation.0.push(Perturbation::Cut { record, row, event });
                    }
                }
            }
            if shape.can_wait(record) && rng.random_bool(wait) {
                let row = rng.random_range(0..rows.max(1));
                variation.0.push(Perturbation::Wait { record, row });
            }
            if let Some(event) = happens(rng) {
                variation.0.push(Perturbation::Behind { record, event });
            }
        }
        variation
    }

    /// The order in which records run. A move that would pass rows of the same split, or leave its segment, is none.
    pub fn order(&self, records: usize, shape: &Shape) -> Vec<usize> {
        let mut order: Vec<usize> = (0..records).collect();
        for perturbation in &self.0 {
            let Perturbation::Move { record, before } = perturbation else {
                continue;
            };
            let place = |record: &usize| order.iter().position(|other| other == record);
            if let (Some(from), Some(to)) = (place(record), place(before))
                && to < from
                && shape.segment(*record).is_some()
                && shape.segment(*record) == shape.segment(*before)
                && !order[to..from].iter().any(|passed| shape.share_split(*record, *passed))
            {
                order.remove(from);
                order.insert(to, *record);
            }
        }
        order
    }

    /// Records that `record` can be moved before, given the moves so far.
    fn reach(&self, record: usize, shape: &Shape) -> Vec<usize> {
        let order = self.order(record + 1, shape);
        let above = order.iter().rev().skip_while(|other| **other != record).skip(1);
        above
            .copied()
            .filter(|other| shape.runs().any(|run| run == *other))
            .take_while(|other| shape.segment(*other) == shape.segment(record) && !shape.share_split(*other, record))
            .collect()
    }

    pub fn turn(&self, record: usize) -> Turn {
        let mut turn = Turn::default();
        for perturbation in &self.0 {
            match perturbation {
                Perturbation::Cut { record: of, row, event } if *of == record => turn.cuts.push((*row, *event)),
                Perturbation::Wait { record: of, row } if *of == record => turn.wait = Some(*row),
                _ => {}
            }
        }
        let wait = turn.wait.unwrap_or(usize::MAX);
        turn.cuts.sort_by_key(|(row, _)| *row);
        turn.cuts.retain(|(row, _)| *row < wait);
        turn
    }

    pub fn behind(&self, record: usize) -> impl Iterator<Item = Event> {
        self.0.iter().filter_map(move |perturbation| match perturbation {
            Perturbation::Behind { record: of, event } if *of == record => Some(*event),
            _ => None,
        })
    }
}

impl Perturbation {
    /// The same with less in it.
    pub fn weaker(&self) -> Vec<Self> {
        let less = |event: &Event| match event {
            Event::CheckpointAndCrash => vec![Event::Crash, Event::Checkpoint],
            _ => vec![],
        };
        match self {
            Self::Behind { record, event } => less(event)
                .into_iter()
                .map(|event| Self::Behind { record: *record, event })
                .collect(),
            Self::Cut {
                record,
                row,
                event: Some(event),
            } => [None]
                .into_iter()
                .chain(less(event).into_iter().map(Some))
                .map(|event| Self::Cut {
                    record: *record,
                    row: *row,
                    event,
                })
                .collect(),
            _ => vec![],
        }
    }

    /// For people, with the lines of the script.
    pub fn words(&self, script: &Script) -> String {
        let line = |record: &usize| script.line(*record);
        match self {
            Self::Behind { record, event } => format!("{} behind line {}", event.words(), line(record)),
            Self::Cut { record, row, event } => {
                let there = event.map_or(String::new(), |event| format!(", with {} there", event.words()));
                format!("the INSERT of line {} is cut behind row {row}{there}", line(record))
            }
            Self::Wait { record, row: 0 } => {
                format!(
                    "the rows of line {} run in one epoch with those of the next INSERT",
                    line(record)
                )
            }
            Self::Wait { record, row } => {
                format!(
                    "the rows of line {} behind row {row} run in one epoch with those of the next INSERT",
                    line(record)
                )
            }
            Self::Move { record, before } => format!("line {} runs before line {}", line(record), line(before)),
        }
    }
}

impl Event {
    fn words(self) -> &'static str {
        match self {
            Self::Checkpoint => "a checkpoint",
            Self::Crash => "a crash",
            Self::CheckpointAndCrash => "a checkpoint and a crash",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::shape::tests::shape, *};

    const EVERYTHING: Vary = Vary {
        crashes: true,
        cuts: true,
        order: true,
    };

    /// A query, then three INSERTs of three rows each into two splits, then a query.
    fn three() -> (Script, Shape, Vec<usize>) {
        let (script, shape) = shape(&[
            "SELECT 1",
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (2)",
            "INSERT INTO t SPLIT 1 VALUES (3)",
            "SELECT 1",
        ]);
        let runs = shape.runs().collect();
        (script, shape, runs)
    }

    #[test]
    fn a_seed_gives_the_same_variation_and_others_give_all_kinds() {
        let (_, shape, _) = three();
        let of = |seed| Variation::random(seed, EVERYTHING, &shape);
        assert_eq!(of(7), of(7));
        let all: Vec<Perturbation> = (0..100).flat_map(|seed| of(seed).0).collect();
        let has = |wanted: fn(&Perturbation) -> bool| all.iter().any(wanted);
        assert!(has(|p| matches!(p, Perturbation::Cut { event: None, .. })));
        assert!(has(|p| matches!(p, Perturbation::Cut { event: Some(_), .. })));
        assert!(has(|p| matches!(p, Perturbation::Wait { row: 0, .. })));
        assert!(has(|p| matches!(p, Perturbation::Wait { row: 2, .. })));
        assert!(has(|p| matches!(p, Perturbation::Move { .. })));
        for event in [Event::Checkpoint, Event::Crash, Event::CheckpointAndCrash] {
            assert!(
                all.iter()
                    .any(|p| matches!(p, Perturbation::Behind { event: e, .. } if *e == event))
            );
        }
        let rows: BTreeSet<usize> = all
            .iter()
            .filter_map(|p| match p {
                Perturbation::Cut { row, .. } => Some(*row),
                _ => None,
            })
            .collect();
        assert_eq!(
            rows,
            BTreeSet::from([1, 2]),
            "between rows, never before the first or behind the last"
        );
    }

    #[test]
    fn what_may_not_be_varied_is_not() {
        let (_, shape, _) = three();
        for seed in 0..100 {
            let of = |vary| Variation::random(seed, vary, &shape).0;
            let (crashes, cuts, order) = (false, false, false);
            assert_eq!(of(Vary { crashes, cuts, order }), []);
            let only = of(Vary {
                crashes: true,
                cuts,
                order,
            });
            assert!(
                only.iter().all(|p| matches!(p, Perturbation::Behind { .. })),
                "{only:?}"
            );
            let only = of(Vary {
                crashes,
                cuts: true,
                order,
            });
            assert!(
                only.iter()
                    .all(|p| matches!(p, Perturbation::Cut { event: None, .. } | Perturbation::Wait { .. }))
            );
            let only = of(Vary {
                crashes,
                cuts,
                order: true,
            });
            assert!(only.iter().all(|p| matches!(p, Perturbation::Move { .. })));
        }
    }

    #[test]
    fn an_order_keeps_that_of_each_split_and_every_allowed_one_comes_up() {
        let (script, shape, runs) = three();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut order = Variation::random(seed, EVERYTHING, &shape).order(script.records.len(), &shape);
            order.retain(|record| runs.contains(record));
            let names: String = order
                .iter()
                .map(|record| (b'a' + runs.iter().position(|r| r == record).unwrap() as u8) as char)
                .collect();
            seen.insert(names);
        }
        let expected = ["abcde", "abdce", "adbce"].map(str::to_owned);
        assert_eq!(seen, BTreeSet::from(expected), "queries stay, and c never passes b");
    }

    #[test]
    fn a_move_that_is_not_allowed_without_another_one_is_none() {
        let (script, shape, runs) = three();
        for (record, before, why) in [
            (runs[2], runs[1], "it would pass rows of its own split"),
            (runs[3], runs[0], "a query does not take part"),
            (runs[4], runs[3], "nor does it move"),
            (runs[1], runs[2], "it stands above already"),
        ] {
            let variation = Variation(vec![Perturbation::Move { record, before }]);
            let as_written: Vec<usize> = (0..script.records.len()).collect();
            assert_eq!(variation.order(script.records.len(), &shape), as_written, "{why}");
        }
    }

    #[test]
    fn rows_that_wait_are_not_cut() {
        let cut = |row| Perturbation::Cut {
            record: 4,
            row,
            event: None,
        };
        let wait = Perturbation::Wait { record: 4, row: 2 };
        let variation = Variation(vec![cut(3), cut(1), wait, cut(2)]);
        let expected = Turn {
            cuts: vec![(1, None)],
            wait: Some(2),
        };
        assert_eq!(variation.turn(4), expected);
        assert_eq!(variation.turn(5), Turn::default());
    }

    #[test]
    fn words_name_lines_and_rows() {
        let (script, _, runs) = three();
        let (record, before, event) = (runs[3], runs[1], Event::Crash);
        for (perturbation, expected) in [
            (Perturbation::Behind { record, event }, "a crash behind line 12"),
            (
                Perturbation::Cut {
                    record,
                    row: 2,
                    event: Some(Event::CheckpointAndCrash),
                },
                "the INSERT of line 12 is cut behind row 2, with a checkpoint and a crash there",
            ),
            (Perturbation::Move { record, before }, "line 12 runs before line 6"),
            (
                Perturbation::Wait { record, row: 0 },
                "the rows of line 12 run in one epoch with those of the next INSERT",
            ),
        ] {
            assert_eq!(perturbation.words(&script), expected);
        }
    }
}
