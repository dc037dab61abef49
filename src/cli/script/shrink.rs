//! Taking away what a failure does not need.

/// The parts of `all` without which it fails no more, each as weak as it fails with.
///
/// `all` fails. `fails` is asked at most `tries_max` times; then what is left is what was found.
pub fn shrink<T: Clone>(
    all: Vec<T>,
    weaker: impl Fn(&T) -> Vec<T>,
    mut fails: impl FnMut(&[T]) -> bool,
    tries_max: usize,
) -> Vec<T> {
    let mut left = all;
    let mut tries = 0;
    let mut still_fails = |parts: &[T]| {
        tries += 1;
        tries <= tries_max && fails(parts)
    };
    // Large pieces first: most of what there is has nothing to do with it.
    let mut size = left.len().div_ceil(2);
    while 0 < size && !left.is_empty() {
        let mut at = 0;
        let mut was_any_taken = false;
        while at < left.len() {
            let mut fewer = left.clone();
            fewer.drain(at..(at + size).min(left.len()));
            if still_fails(&fewer) {
                left = fewer;
                was_any_taken = true;
            } else {
                at += size;
            }
        }
        // A single part may have become needless since it was tried.
        if !(size == 1 && was_any_taken) {
            size /= 2;
        }
    }
    for at in 0..left.len() {
        while let Some(less) = weaker(&left[at]).into_iter().find_map(|part| {
            let mut less = left.clone();
            less[at] = part;
            still_fails(&less).then_some(less)
        }) {
            left = less;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_it_needs() {
        let all: Vec<u32> = (0..100).collect();
        for needed in [vec![], vec![0], vec![99], vec![41], vec![3, 77], vec![0, 50, 51, 99]] {
            let fails = |parts: &[u32]| needed.iter().all(|part| parts.contains(part));
            assert_eq!(shrink(all.clone(), |_| vec![], fails, 10_000), needed);
        }
    }

    #[test]
    fn one_of_two_that_do_alone_is_enough() {
        let fails = |parts: &[u32]| parts.contains(&10) || parts.contains(&90);
        assert_eq!(shrink((0..100).collect(), |_| vec![], fails, 10_000).len(), 1);
    }

    #[test]
    fn a_part_becomes_as_weak_as_it_fails_with() {
        let weaker = |part: &u32| part.checked_sub(1).into_iter().collect();
        let fails = |parts: &[u32]| parts.iter().any(|part| 3 <= *part);
        assert_eq!(shrink(vec![9, 1], weaker, fails, 10_000), [3]);
    }

    #[test]
    fn it_stops_asking_and_keeps_what_fails() {
        let mut asked = 0;
        let left = shrink(
            (0..1_000).collect::<Vec<u32>>(),
            |_| vec![],
            |parts| {
                asked += 1;
                parts.contains(&500)
            },
            7,
        );
        assert_eq!(asked, 7);
        assert!(left.contains(&500));
    }
}
