//! How event time is cut into windows: a grid of panes, and windows that each cover some of them.
//!
//! ```text
//! panes     │ 0 │ 1 │ 2 │ 3 │ 4 │ 5 │      a row is in one pane, and a pane in all windows that cover it
//! tumble    [ 0 )[ 1 )[ 2 )
//! hop       [ 0 . 1 . 2 )                   size 3 panes, slide 1: pane 2 is in three windows
//!               [ 1 . 2 . 3 )
//! cumulate  [ 0 ) [ 0 . 1 ) [ 0 . 1 . 2 )   then anew from pane 3
//! ```
//! All arithmetic saturates at the first and last representable time.

use super::{Calendar, Watermark};

/// The interval of event time that a row of a windowed result stands for: `[start, end)`, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    pub start: i64,
    pub end: i64,
}

/// Where panes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grid {
    /// Panes of one length, one of which begins at `origin_ns`.
    Fixed { step_ns: i64, origin_ns: i64 },
    /// Panes of whole days or months of a time zone.
    Calendar(Calendar),
}

/// Which panes a window covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    Tumble,
    /// A window of `size` panes begins at every `slide`-th pane.
    Hop {
        slide: i64,
        size: i64,
    },
    /// From every `size`-th pane on, windows of 1, 2 … `size` panes.
    Cumulate {
        size: i64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    pub grid: Grid,
    pub shape: Shape,
}

/// A window by its panes: `[first, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaneRange {
    pub end: i64,
    pub first: i64,
}

impl Grid {
    /// The number of the pane that contains `time`.
    pub fn index(self, time: i64) -> i64 {
        match self {
            Self::Fixed { step_ns, origin_ns } => match time.checked_sub(origin_ns) {
                Some(distance) => distance.div_euclid(step_ns),
                None => (i128::from(time) - i128::from(origin_ns)).div_euclid(i128::from(step_ns)) as i64,
            },
            Self::Calendar(calendar) => calendar.index(time),
        }
    }

    /// Where pane `index` begins.
    pub fn start(self, index: i64) -> i64 {
        match self {
            Self::Fixed { step_ns, origin_ns } => {
                match index
                    .checked_mul(step_ns)
                    .and_then(|distance| distance.checked_add(origin_ns))
                {
                    Some(start) => start,
                    None if index < 0 => i64::MIN,
                    None => i64::MAX,
                }
            }
            Self::Calendar(calendar) => calendar.start(index),
        }
    }
}

impl Windows {
    /// Windows of one size that follow each other without a gap, aligned to 1970.
    pub fn tumble(size_ns: i64) -> Self {
        Self {
            grid: Grid::Fixed {
                step_ns: size_ns,
                origin_ns: 0,
            },
            shape: Shape::Tumble,
        }
    }

    /// The size of tumbling windows that begin at multiples of it.
    pub fn tumbling_ns(self) -> Option<i64> {
        match self {
            Self {
                grid: Grid::Fixed { step_ns, origin_ns },
                shape: Shape::Tumble,
            } if origin_ns % step_ns == 0 => Some(step_ns),
            _ => None,
        }
    }

    /// How long every window is, where all are as long.
    pub fn size_ns(self) -> Option<i64> {
        match (self.grid, self.shape) {
            (Grid::Fixed { step_ns, .. }, Shape::Tumble) => Some(step_ns),
            (Grid::Fixed { step_ns, .. }, Shape::Hop { size, .. }) => Some(step_ns * size),
            (Grid::Calendar(_), _) | (_, Shape::Cumulate { .. }) => None,
        }
    }

    /// Whether every pane is one window.
    pub fn is_tumbling(self) -> bool {
        self.shape == Shape::Tumble
    }

    pub fn bounds(self, range: PaneRange) -> Window {
        Window {
            start: self.grid.start(range.first),
            end: self.grid.start(range.end),
        }
    }

    /// The window of these bounds, one of which is enough where it tells windows apart; `None` without any.
    pub fn told_by(self, start: Option<i64>, end: Option<i64>) -> Option<PaneRange> {
        let size = match self.shape {
            Shape::Tumble => 1,
            Shape::Hop { size, .. } | Shape::Cumulate { size } => size,
        };
        let (first, end) = (
            start.map(|start| self.grid.index(start)),
            end.map(|end| self.grid.index(end)),
        );
        Some(match (first, end) {
            (Some(first), Some(end)) => PaneRange { first, end },
            (Some(first), None) => PaneRange {
                first,
                end: first + size,
            },
            (None, Some(end)) => {
                let first = match self.shape {
                    Shape::Tumble | Shape::Hop { .. } => end - size,
                    Shape::Cumulate { .. } => (end - 1).div_euclid(size) * size,
                };
                PaneRange { first, end }
            }
            (None, None) => return None,
        })
    }

    /// The windows that cover a pane, by their ends; none where hops leave a gap.
    pub fn covering(self, pane: i64) -> impl Iterator<Item = PaneRange> {
        std::iter::successors(self.next_covering(pane, i64::MIN), move |last| {
            self.next_covering(pane, last.end + 1)
        })
    }

    /// The first window that covers a pane and ends at pane `end_from` or later.
    pub fn next_covering(self, pane: i64, end_from: i64) -> Option<PaneRange> {
        match self.shape {
            Shape::Tumble => (end_from <= pane + 1).then_some(PaneRange {
                first: pane,
                end: pane + 1,
            }),
            Shape::Hop { slide, size } => {
                // Starts are multiples of the slide within (pane - size, pane].
                let earliest = (pane - size + 1).max(end_from.saturating_sub(size));
                let first = earliest.div_euclid(slide) * slide;
                let first = if first < earliest { first + slide } else { first };
                (first <= pane).then_some(PaneRange {
                    first,
                    end: first + size,
                })
            }
            Shape::Cumulate { size } => {
                let first = pane.div_euclid(size) * size;
                let end = (pane + 1).max(end_from);
                (end <= first + size).then_some(PaneRange { first, end })
            }
        }
    }

    /// The first window that covers a pane and ends after `watermark`: the first that still takes rows of it.
    pub fn first_open(self, pane: i64, watermark: Watermark) -> Option<PaneRange> {
        if watermark == Watermark::END {
            return None;
        }
        if watermark == Watermark::START {
            return self.next_covering(pane, i64::MIN);
        }
        // A window that ends with pane `index(watermark)` or before ends at or before the watermark.
        self.next_covering(pane, self.grid.index(watermark.0).saturating_add(1))
    }

    /// The last window that covers a pane.
    pub fn last_covering(self, pane: i64) -> Option<PaneRange> {
        match self.shape {
            Shape::Tumble => self.next_covering(pane, i64::MIN),
            Shape::Hop { slide, size } => {
                let first = pane.div_euclid(slide) * slide;
                (pane < first + size).then_some(PaneRange {
                    first,
                    end: first + size,
                })
            }
            Shape::Cumulate { size } => {
                let first = pane.div_euclid(size) * size;
                Some(PaneRange {
                    first,
                    end: first + size,
                })
            }
        }
    }

    /// No window that begins before this time takes further rows once input is complete below `watermark`.
    pub fn starts_complete_below(self, watermark: Watermark) -> Watermark {
        if watermark == Watermark::START || watermark == Watermark::END {
            return watermark;
        }
        let pane = self.grid.index(watermark.0);
        // Of the windows that cover the pane of the watermark all are open; the earliest of them begins first.
        let first = match self.shape {
            Shape::Tumble => pane,
            Shape::Hop { slide, size } => {
                let earliest = pane - size + 1;
                let first = earliest.div_euclid(slide) * slide;
                if first < earliest { first + slide } else { first }
            }
            Shape::Cumulate { size } => pane.div_euclid(size) * size,
        };
        Watermark(self.grid.start(first))
    }

    /// The lowest watermark with which [`starts_complete_below`](Self::starts_complete_below) gives `time` or more.
    pub fn starts_below_complete_at(self, time: i64) -> Watermark {
        let pane = self.grid.index(time.saturating_sub(1));
        // The last window that begins before `time` has to end.
        let end = match self.shape {
            Shape::Tumble => pane + 1,
            Shape::Hop { slide, size } => pane.div_euclid(slide) * slide + size,
            Shape::Cumulate { size } => pane.div_euclid(size) * size + size,
        };
        Watermark(self.grid.start(end).min(i64::MAX - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(slide: i64, size: i64) -> Windows {
        Windows {
            grid: Grid::Fixed {
                step_ns: 10,
                origin_ns: 0,
            },
            shape: Shape::Hop { slide, size },
        }
    }

    #[test]
    fn a_row_falls_into_the_pane_that_contains_it() {
        let grid = Windows::tumble(60).grid;
        for (time, expected, why) in [
            (0, 0, "the start is inside"),
            (59, 0, "the last instant is inside"),
            (60, 1, "the end is outside"),
            (-1, -1, "before 1970 rounds down, not towards zero"),
            (-60, -1, "a negative start is inside"),
        ] {
            assert_eq!(grid.index(time), expected, "{why}");
        }
        let shifted = Grid::Fixed {
            step_ns: 60,
            origin_ns: 15,
        };
        assert_eq!(shifted.index(14), -1);
        assert_eq!(shifted.start(shifted.index(15)), 15);
        for time in [i64::MIN, i64::MAX] {
            let pane = shifted.index(time);
            assert!(shifted.start(pane) <= time, "the ends of time are in a pane too");
        }
    }

    /// The definition, window by window.
    fn covering_by_definition(windows: Windows, pane: i64) -> Vec<PaneRange> {
        let mut found: Vec<PaneRange> = (-200..200)
            .flat_map(|first: i64| match windows.shape {
                Shape::Tumble => vec![(first, first + 1)],
                Shape::Hop { slide, size } if first.rem_euclid(slide) == 0 => vec![(first, first + size)],
                Shape::Cumulate { size } if first.rem_euclid(size) == 0 => {
                    (1..=size).map(|length| (first, first + length)).collect()
                }
                _ => vec![],
            })
            .filter(|(first, end)| (*first..*end).contains(&pane))
            .map(|(first, end)| PaneRange { first, end })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn the_windows_of_a_pane_are_those_that_cover_it() {
        let shapes = [
            Shape::Tumble,
            Shape::Hop { slide: 1, size: 3 },
            Shape::Hop { slide: 2, size: 5 },
            Shape::Hop { slide: 5, size: 5 },
            Shape::Hop { slide: 7, size: 3 },
            Shape::Cumulate { size: 4 },
        ];
        for shape in shapes {
            let windows = Windows { shape, ..hop(1, 1) };
            for pane in -20..20 {
                let expected = covering_by_definition(windows, pane);
                assert_eq!(windows.covering(pane).collect::<Vec<_>>(), expected, "{shape:?} {pane}");
                assert_eq!(
                    windows.last_covering(pane),
                    expected.last().copied(),
                    "{shape:?} {pane}"
                );
                for time in [-205, -7, 0, 3, 10, 15, 40, 99] {
                    let open = expected.iter().find(|range| time < windows.bounds(**range).end);
                    assert_eq!(
                        windows.first_open(pane, Watermark(time)).as_ref(),
                        open,
                        "{shape:?} {pane} at {time}"
                    );
                }
            }
            for time in -100..100 {
                let complete = windows.starts_complete_below(Watermark(time)).0;
                let open_starts = (-30..30)
                    .flat_map(|pane| covering_by_definition(windows, pane))
                    .map(|range| windows.bounds(range))
                    .filter(|window| time < window.end)
                    .map(|window| window.start);
                let earliest = open_starts.min().expect("some window is open");
                assert!(
                    complete <= earliest,
                    "{shape:?} at {time}: {complete} against {earliest}"
                );
            }
        }
    }
}
