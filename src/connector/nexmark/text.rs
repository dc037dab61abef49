//! Random numbers and texts of one event: the same for the same seed on every machine.

/// A sequence of numbers that its seed decides (SplitMix64).
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub struct Random(u64);

impl Random {
    /// The numbers of item `number` in the world of `seed`.
    pub fn of(seed: u64, number: u64) -> Self {
        let mut seeds = Self(seed ^ 0x6e65_786d_6172_6b00);
        Self(seeds.next() ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, end)`; `end` is above 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// True but for one time in `ratio`.
    pub fn mostly(&mut self, ratio: u64) -> bool {
        0 < self.below(ratio)
    }

    pub fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    /// In cents, from 1 to a million, each power of ten as likely as another.
    pub fn price(&mut self) -> u64 {
        // Tenths of a power of ten, between them straight lines: a library's `pow` is not the same everywhere.
        const TENTHS: [f64; 11] = [
            1.0,
            1.2589254117941673,
            1.5848931924611136,
            1.9952623149688795,
            2.51188643150958,
            3.1622776601683795,
            3.9810717055349722,
            5.011872336272722,
            6.30957344480193,
            7.943282347242816,
            10.0,
        ];
        let power = 100 * 10u64.pow(self.below(6) as u32);
        let tenth = self.below(10) as usize;
        let between = self.below(1 << 20) as f64 / (1u64 << 20) as f64;
        let factor = TENTHS[tenth] + (TENTHS[tenth + 1] - TENTHS[tenth]) * between;
        (factor * power as f64).round() as u64
    }

    /// Appends three letters or more, fewer than `end`, some of them `special`.
    pub fn word(&mut self, end: u64, special: char, out: &mut String) {
        let length = 3 + self.below(end - 3);
        let first = out.len();
        for _ in 0..length {
            // At the edges a blank would be lost.
            let is_special = self.below(13) == 0 && first < out.len();
            out.push(if is_special { special } else { self.letter() });
        }
        if out.ends_with(special) {
            out.pop();
            out.push('z');
        }
    }

    /// Appends exactly `length` letters.
    pub fn letters(&mut self, length: u64, out: &mut String) {
        let mut left = length;
        while 0 < left {
            // Twelve letters of a number: 26^12 < 2^57.
            let mut number = self.next();
            for _ in 0..left.min(12) {
                out.push(char::from(b'a' + (number % 26) as u8));
                number /= 26;
            }
            left = left.saturating_sub(12);
        }
    }

    /// Letters that fill an event up to about `average` bytes.
    pub fn extra(&mut self, bytes: u64, average: u64) -> String {
        let mut out = String::new();
        if bytes < average {
            let wanted = average - bytes;
            let spread = wanted / 5;
            let length = wanted - spread + if spread == 0 { 0 } else { self.below(2 * spread) };
            self.letters(length, &mut out);
        }
        out
    }

    fn letter(&mut self) -> char {
        char::from(b'a' + self.below(26) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_seed_and_item_alone() {
        let numbers = |seed, number| {
            let mut random = Random::of(seed, number);
            [random.next(), random.next()]
        };
        assert_eq!(numbers(1, 7), numbers(1, 7), "the same again");
        assert_ne!(numbers(1, 7), numbers(2, 7), "another seed");
        assert_ne!(numbers(1, 7), numbers(1, 8), "another item");
    }

    #[test]
    fn prices_are_spread_over_the_powers_of_ten() {
        let mut random = Random::of(1, 1);
        let mut found = [0; 6];
        for _ in 0..6_000 {
            let price = random.price();
            assert!(
                (100..=100_000_000).contains(&price),
                "{price} is 1 to a million, in cents"
            );
            found[(price.ilog10() as usize - 2).min(5)] += 1;
        }
        assert!(found.iter().all(|count| (800..1200).contains(count)), "{found:?}");
    }

    #[test]
    fn texts_have_the_lengths_that_are_asked_for() {
        let mut random = Random::of(1, 1);
        for length in [0, 1, 12, 13, 100] {
            let mut out = String::new();
            random.letters(length, &mut out);
            assert_eq!(out.len() as u64, length);
        }
        for _ in 0..1_000 {
            let mut out = String::new();
            random.word(5, '_', &mut out);
            assert!((3..5).contains(&out.len()), "{out}");
            assert!(!out.starts_with('_') && !out.ends_with('_'), "{out}");
            let extra = random.extra(32, 100);
            assert!((55..=81).contains(&extra.len()), "{}", extra.len());
        }
        assert_eq!(random.extra(200, 100), "", "an event that is long enough");
    }
}
