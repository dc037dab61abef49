//! Windows that still take rows, and how far the watermark has to come to close them.

use crate::types::Watermark;

/// The windows that an operator has not closed yet: at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenWindows {
    /// Of the one that closes first; `None` where only ends are kept.
    pub first_start: Option<i64>,
    pub first_end: i64,
    /// The lowest watermark that closes the first.
    pub first_closes_at: Watermark,
    /// The lowest watermark that closes all of them.
    pub all_close_at: Watermark,
}

impl OpenWindows {
    /// The same windows as seen from before an operator: `input` gives the watermark at its input for one behind it. `None` where no
    /// watermark closes them before the input ends.
    pub fn before(self, input: impl Fn(Watermark) -> Option<Watermark>) -> Option<Self> {
        Some(Self {
            first_closes_at: input(self.first_closes_at)?,
            all_close_at: input(self.all_close_at)?,
            ..self
        })
    }

    /// These and others, by the same watermark.
    pub fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        let first = match self.first_closes_at <= other.first_closes_at {
            true => self,
            false => other,
        };
        Self {
            all_close_at: self.all_close_at.max(other.all_close_at),
            ..first
        }
    }
}
