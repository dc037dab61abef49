//! Values that cannot be computed: their rows are found and set aside, and the others go on.
//!
//! ```text
//! all rows ── fails ──▶ first half │ second half ── … ──▶ single rows: those that fail by themselves
//! ```
//! Whether a row fails depends on that row alone, so the same rows fail however they were cut. k failing rows of n cost O(k log n)
//! evaluations; none cost nothing.

use std::{
    cell::Cell,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array},
    compute::{concat, take_record_batch},
};

use crate::types::{Error, Result};

/// Rows without a result, with their reasons.
#[derive(Debug)]
pub struct FailedRows {
    /// What was to be computed, as EXPLAIN calls it.
    pub operator: &'static str,
    pub rows: RecordBatch,
    /// One per row.
    pub reasons: Vec<String>,
}

/// Columns over the rows that gave them.
pub struct Computed {
    /// A row for each good one. Without any good row there is no column.
    pub columns: Vec<ArrayRef>,
    /// Which rows failed, ascending, and why.
    pub failures: Vec<(usize, String)>,
    /// How many rows there were.
    count: usize,
}

/// Columns over `count` rows: `compute` gives those of a range.
///
/// # Errors
/// Our own, and the world's. What the data did not allow is a failure of its row.
pub fn compute(count: usize, compute: impl Fn(Range<usize>) -> Result<Vec<ArrayRef>>) -> Result<Computed> {
    let (mut parts, mut failures) = (Vec::new(), Vec::new());
    let mut ranges: Vec<Range<usize>> = std::iter::once(0..count).collect();
    while let Some(range) = ranges.pop() {
        match guarded(|| compute(range.clone())) {
            Ok(columns) => parts.push(columns),
            Err(Error::User(reason)) => match range.len() {
                // Without rows there is nothing to lose.
                0 => {}
                1 => failures.push((range.start, reason)),
                length => {
                    let middle = range.start + length / 2;
                    ranges.extend([middle..range.end, range.start..middle]);
                }
            },
            Err(error) => return Err(error),
        }
    }
    let columns = match parts.len() {
        1 => parts.pop().expect("one part"),
        _ => (0..parts.first().map_or(0, Vec::len))
            .map(|column| {
                let parts: Vec<&dyn Array> = parts.iter().map(|part| part[column].as_ref()).collect();
                concat(&parts).map_err(Error::of_arrow)
            })
            .collect::<Result<_>>()?,
    };
    Ok(Computed {
        columns,
        failures,
        count,
    })
}

/// A function that panics over some value fails the value's row, and nothing else.
pub fn guarded<T>(compute: impl FnOnce() -> Result<T>) -> Result<T> {
    silence_expected_panics();
    IS_EXPECTED.set(true);
    // Nothing that a panic could leave half done is used behind it: expressions are without state.
    let outcome = catch_unwind(AssertUnwindSafe(compute));
    IS_EXPECTED.set(false);
    outcome.unwrap_or_else(|panic| {
        let message =
            (panic.downcast_ref::<String>().map(String::as_str)).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::user(match message {
            Some(message) => format!("a function broke on it: {message}"),
            None => "a function broke on it".to_owned(),
        }))
    })
}

thread_local! {
    /// Whether a panic on this thread becomes the failure of a row.
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// The failure of a row is told where the row is set aside; nobody needs the stack of each.
fn silence_expected_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_EXPECTED.get() {
                tell(panic);
            }
        }));
    });
}

impl Computed {
    /// Columns of rows that are all good.
    pub fn all(columns: Vec<ArrayRef>, count: usize) -> Self {
        Self {
            columns,
            failures: Vec::new(),
            count,
        }
    }

    /// Which rows are good; `None` where all are.
    pub fn is_good(&self) -> Option<BooleanArray> {
        if self.failures.is_empty() {
            return None;
        }
        let mut is_good = vec![true; self.count];
        for (row, _) in &self.failures {
            is_good[*row] = false;
        }
        Some(BooleanArray::from(is_good))
    }
}

impl FailedRows {
    /// Those of `failures` among `rows`. A row with a weight of −1 was never handed on, and was told when it came.
    pub fn of(
        operator: &'static str,
        rows: &RecordBatch,
        failures: &[(usize, String)],
        weights: Option<&Int64Array>,
    ) -> Result<Option<Self>> {
        let is_new = |row: usize| weights.is_none_or(|weights| 0 < weights.value(row));
        let (indices, reasons): (Vec<u32>, Vec<String>) = failures
            .iter()
            .filter(|(row, _)| is_new(*row))
            .map(|(row, reason)| (*row as u32, reason.clone()))
            .unzip();
        if indices.is_empty() {
            return Ok(None);
        }
        let rows = take_record_batch(rows, &UInt32Array::from(indices)).map_err(Error::of_arrow)?;
        Ok(Some(Self {
            operator,
            rows,
            reasons,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{array::AsArray, datatypes::Int64Type};

    use super::*;

    /// The numbers of a range, where none of `bad` is in it.
    fn numbers(range: Range<usize>, bad: &[usize]) -> Result<Vec<ArrayRef>> {
        match bad.iter().find(|row| range.contains(row)) {
            Some(row) => Err(Error::user(format!("{row} is bad"))),
            None => Ok(vec![Arc::new(Int64Array::from_iter_values(
                range.map(|row| row as i64),
            ))]),
        }
    }

    #[test]
    fn the_rows_that_fail_by_themselves_are_found_and_no_others() {
        for bad in [vec![], vec![0], vec![9], vec![3, 4], (0..10).collect()] {
            let found = compute(10, |range| numbers(range, &bad)).unwrap();
            let rows: Vec<usize> = found.failures.iter().map(|(row, _)| *row).collect();
            assert_eq!(rows, bad);
            let good: Vec<i64> = (0..10).filter(|row| !bad.contains(&(*row as usize))).collect();
            match found.columns.as_slice() {
                [column] => assert_eq!(column.as_primitive::<Int64Type>().values(), good.as_slice()),
                none => assert!(none.is_empty() && good.is_empty()),
            }
        }
    }

    #[test]
    fn a_few_bad_rows_cost_a_few_evaluations() {
        let evaluations = Cell::new(0);
        let found = compute(32_768, |range| {
            evaluations.set(evaluations.get() + 1);
            numbers(range, &[17, 20_000])
        });
        assert_eq!(found.unwrap().failures.len(), 2);
        assert!(evaluations.get() <= 2 * 2 * 16, "{}", evaluations.get());
    }

    #[test]
    fn a_row_on_which_a_function_panics_fails_alone() {
        let found = compute(10, |range| {
            assert!(!range.contains(&7), "capacity overflow");
            numbers(range, &[])
        });
        assert_eq!(
            found.unwrap().failures,
            [(7, "a function broke on it: capacity overflow".to_owned())]
        );
    }

    #[test]
    fn an_error_of_ours_is_no_failure_of_a_row() {
        let found = compute(4, |_| Err(Error::bug("broken")));
        assert!(matches!(found, Err(Error::Bug(_))));
    }
}
