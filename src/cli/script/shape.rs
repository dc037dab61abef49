//! What a run as written tells about a script: which rows each statement brought, and which statements may change places.
//!
//! ```text
//! INSERT split 0 ┐
//! INSERT split 1 ├─ segment: nothing between them looks, and every split is known ─▶ may change places, may wait for each other
//! INSERT split 0 ┘
//! query              ends it, and so does every other statement, and rows that make a split or read what the rows before made
//! ```

use sqllogictest::{Record, StatementExpect};

use crate::types::SplitId;

use super::file::{Script, ScriptRecord, is_run};

/// Rows that a statement appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    pub source: String,
    pub split: SplitId,
    pub rows: usize,
    /// The source had the split before.
    pub split_is_known: bool,
}

#[derive(Debug, Default)]
pub struct Shape(Vec<Place>);

#[derive(Debug, Default)]
struct Place {
    is_run: bool,
    inserted: Option<Inserted>,
    can_wait: bool,
    segment: Option<usize>,
}

impl Shape {
    /// `inserted` holds what each record appended where it did.
    pub fn of(script: &Script, mut inserted: Vec<Option<Inserted>>) -> Self {
        inserted.resize(script.records.len(), None);
        let (mut places, mut segment) = (Vec::new(), 0);
        for (record, inserted) in script.records.iter().zip(inserted) {
            let is_run = is_run(record);
            let is_free = inserted.as_ref().is_some_and(|inserted| inserted.split_is_known) && is_of_values(record);
            if is_run && !is_free {
                segment += 1;
            }
            places.push(Place {
                is_run,
                can_wait: is_free && words(record).first().is_some_and(|word| word == "INSERT"),
                inserted,
                segment: (is_run && is_free).then_some(segment),
            });
        }
        Self(places)
    }

    /// Records that the engine is given.
    pub fn runs(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len()).filter(|record| self.0[*record].is_run)
    }

    pub fn inserted(&self, record: usize) -> Option<&Inserted> {
        self.0.get(record)?.inserted.as_ref()
    }

    /// Statements of one segment may change places with those of other splits; `None` for one that stays.
    pub fn segment(&self, record: usize) -> Option<usize> {
        self.0.get(record)?.segment
    }

    /// Whether rows of the record may wait for the epoch of the next statement: there is one, and nothing looks before.
    pub fn can_wait(&self, record: usize) -> bool {
        let Some(place) = self.0.get(record).filter(|place| place.can_wait) else {
            return false;
        };
        let source = |place: &Place| place.inserted.as_ref().map(|inserted| inserted.source.clone());
        self.0[record + 1..]
            .iter()
            .any(|other| other.segment == place.segment && source(other) == source(place))
    }

    /// Whether two statements append to the same split: their order is a meaning.
    pub fn share_split(&self, one: usize, other: usize) -> bool {
        let lane = |record| {
            self.inserted(record)
                .map(|inserted| (&inserted.source, &inserted.split))
        };
        lane(one).is_some() && lane(one) == lane(other)
    }
}

/// Whether what the record appends is in its text: then it is the same wherever it runs.
fn is_of_values(record: &ScriptRecord) -> bool {
    let is_expected_to_work = matches!(
        record,
        Record::Statement {
            expected: StatementExpect::Ok | StatementExpect::Count(_),
            ..
        }
    );
    let words = words(record);
    is_expected_to_work
        && match words.first().map(String::as_str) {
            Some("RECORD") => true,
            Some("INSERT") => {
                words.iter().any(|word| word == "VALUES")
                    && !words.iter().any(|word| word == "SELECT" || word == "(SELECT")
            }
            _ => false,
        }
}

fn words(record: &ScriptRecord) -> Vec<String> {
    match record {
        Record::Statement { sql, .. } => sql.split_whitespace().map(str::to_uppercase).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A script of such statements, and its shape where each INSERT brought three rows; `SPLIT 9` is new each time.
    pub fn shape(statements: &[&str]) -> (Script, Shape) {
        let text: String = statements
            .iter()
            .map(|sql| match sql.starts_with("SELECT") {
                true => format!("query I\n{sql}\n----\n1\n\n"),
                false => format!("statement ok\n{sql}\n\n"),
            })
            .collect();
        let script = Script::parse("a.slt", &text, &|_| Err("no file".into())).unwrap();
        let inserted = script.records.iter().map(|record| {
            let words = words(record);
            let split = words
                .iter()
                .position(|word| word == "SPLIT")
                .map_or("0", |at| &words[at + 1]);
            let is_record = words.first().is_some_and(|word| word == "RECORD");
            let is_insert = words.first().is_some_and(|word| word == "INSERT");
            (is_insert || is_record).then(|| Inserted {
                source: words[if is_insert { 2 } else { 1 }].clone(),
                split: SplitId::new(split),
                rows: if is_insert { 3 } else { 1 },
                split_is_known: split != "9",
            })
        });
        let shape = Shape::of(&script, inserted.collect());
        (script, shape)
    }

    #[test]
    fn only_rows_that_nothing_tells_apart_may_change_places() {
        for (statements, expected, why) in [
            (
                vec!["INSERT INTO t VALUES (1)", "INSERT INTO t SPLIT 1 VALUES (1)"],
                vec![Some(0), Some(0)],
                "nothing between them",
            ),
            (
                vec!["INSERT INTO t VALUES (1)", "SELECT 1", "RECORD t SPLIT 1 {}"],
                vec![Some(0), None, Some(1)],
                "a query looks",
            ),
            (
                vec![
                    "INSERT INTO t VALUES (1)",
                    "IDLE t 1",
                    "INSERT INTO t SPLIT 1 VALUES (1)",
                ],
                vec![Some(0), None, Some(1)],
                "idleness is a matter of order",
            ),
            (
                vec![
                    "INSERT INTO t VALUES (1)",
                    "INSERT INTO t SPLIT 9 VALUES (1)",
                    "INSERT INTO t VALUES (1)",
                ],
                vec![Some(0), None, Some(1)],
                "a new split starts from the watermark",
            ),
            (
                vec![
                    "INSERT INTO t VALUES (1)",
                    "insert into t (a) select n from v",
                    "INSERT INTO t SELECT 1",
                ],
                vec![Some(0), None, None],
                "it reads what the rows before made",
            ),
        ] {
            let (_, shape) = shape(&statements);
            let segments: Vec<_> = shape.runs().map(|record| shape.segment(record)).collect();
            assert_eq!(segments, expected, "{why}");
        }
    }

    #[test]
    fn rows_wait_only_where_a_statement_of_their_source_follows_before_anything_looks() {
        let (_, shape) = shape(&[
            "INSERT INTO t VALUES (1)",
            "RECORD t SPLIT 0 {}",
            "INSERT INTO u VALUES (1)",
            "INSERT INTO t VALUES (1)",
            "SELECT 1",
            "INSERT INTO t VALUES (1)",
        ]);
        let waiting: Vec<_> = shape.runs().map(|record| shape.can_wait(record)).collect();
        assert_eq!(waiting, [true, false, false, false, false, false]);
    }
}
