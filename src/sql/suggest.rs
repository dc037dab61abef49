//! "Did you mean": the nearest of the names that exist.

/// The candidate that is most likely meant, where one is near enough: a letter wrong in a short word, up to a third of a long one.
///
/// Case does not matter; two letters swapped count as one mistake. Of equally near ones the first wins. A word that is a candidate
/// is its own nearest.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = word.to_lowercase().chars().collect();
    // Nothing that long is a misspelled name, and the distance costs the product of the lengths.
    if wanted.is_empty() || 64 < wanted.len() {
        return None;
    }
    let mut best: Option<(usize, &'a str)> = None;
    for candidate in candidates {
        let letters: Vec<char> = candidate.to_lowercase().chars().collect();
        let allowed = allowed_distance(wanted.len().min(letters.len()));
        if allowed < wanted.len().abs_diff(letters.len()) {
            continue;
        }
        let distance = strsim::generic_damerau_levenshtein(&wanted, &letters);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How many letters may be wrong in a word of this length.
fn allowed_distance(length: usize) -> usize {
    match length {
        0..=2 => 0,
        3..=5 => 1,
        6..=8 => 2,
        _ => length / 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_far_ones_are_not() {
        let names = ["open", "open_time", "close", "symbol", "number_of_trades", "a1"];
        for (word, expected, why) in [
            ("opne", Some("open"), "two letters swapped are one mistake"),
            ("OPEN", Some("open"), "case does not matter"),
            ("opentime", Some("open_time"), "a letter is missing"),
            (
                "numer_of_trade",
                Some("number_of_trades"),
                "a long word may have more mistakes",
            ),
            ("a2", None, "a short word has to be right"),
            ("cl", None, "too short to guess"),
            ("volume", None, "nothing is near"),
            ("", None, "nothing was written"),
            ("ÖPEN", Some("open"), "letters are counted, not bytes"),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}: {why}");
        }
    }

    #[test]
    fn the_first_of_equally_near_names_wins() {
        assert_eq!(nearest("hat", ["cat", "bat"]), Some("cat"));
        assert_eq!(nearest("bat", ["cat", "bat"]), Some("bat"), "an equal name is nearer");
    }
}
