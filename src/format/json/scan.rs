//! Strict scanning of one JSON text: whitespace, literals, strings, numbers, and values that are only checked.
//!
//! Accepts what RFC 8259 accepts, less what no value stands for: lone surrogates, numbers beyond every double, and
//! nesting below [`JSON_DEPTH_MAX`]. Nothing in here allocates; what is wrong is a small [`Flaw`], put into words only
//! where somebody reads it. What runs per value is inlined by hand: the profile of tests and demos does so by itself only rarely.

use crate::types::limits::JSON_DEPTH_MAX;

/// What makes a text no JSON, and where (in bytes from its beginning).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub at: usize,
    pub kind: FlawKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlawKind {
    End,
    Expected(&'static str),
    ControlCharacter,
    Escape,
    LoneSurrogate,
    LeadingZero,
    Digit,
    NoDouble,
    TooDeep,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.at;
        match self.kind {
            FlawKind::End => write!(f, "not JSON: it ends in the middle of a value"),
            FlawKind::Expected(what) => write!(f, "not JSON: expected {what} at byte {at}"),
            FlawKind::ControlCharacter => write!(f, "not JSON: a control character in text at byte {at}"),
            FlawKind::Escape => write!(f, "not JSON: an unknown escape at byte {at}"),
            FlawKind::LoneSurrogate => write!(f, "half of a surrogate pair at byte {at}"),
            FlawKind::LeadingZero => write!(f, "not JSON: a number with a leading zero at byte {at}"),
            FlawKind::Digit => write!(f, "not JSON: expected a digit at byte {at}"),
            FlawKind::NoDouble => write!(f, "the number at byte {at} is out of range"),
            FlawKind::TooDeep => write!(f, "nested deeper than {JSON_DEPTH_MAX} levels"),
        }
    }
}

/// A string as it stands between its quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a> {
    pub raw: &'a str,
    /// Where `raw` begins in the record.
    pub start: usize,
    pub has_escapes: bool,
}

impl Quoted<'_> {
    /// Appends the text that the string stands for.
    pub fn unescape_into(&self, out: &mut String) {
        const CHECKED: &str = "the scanner has checked the escapes";
        let mut rest = self.raw;
        while let Some(backslash) = memchr::memchr(b'\\', rest.as_bytes()) {
            out.push_str(&rest[..backslash]);
            let escape = rest.as_bytes()[backslash + 1];
            rest = &rest[backslash + 2..];
            out.push(match escape {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let unit = hex4(rest.as_bytes()).expect(CHECKED);
                    rest = &rest[4..];
                    let code = match unit {
                        0xd800..=0xdbff => {
                            let low = hex4(&rest.as_bytes()[2..]).expect(CHECKED);
                            rest = &rest[6..];
                            0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)
                        }
                        code => code,
                    };
                    char::from_u32(code).expect(CHECKED)
                }
                itself => char::from(itself),
            });
        }
        out.push_str(rest);
    }
}

/// A number, taken apart while it was scanned.
#[derive(Clone, Copy, Debug)]
pub struct Number<'a> {
    pub text: &'a str,
    pub is_negative: bool,
    /// Whether it is written without a point and without an exponent.
    pub is_whole: bool,
    /// The number is `mantissa * 10^exponent`, if `is_exact`.
    pub mantissa: u64,
    pub exponent: i64,
    /// Whether the mantissa holds all digits.
    pub is_exact: bool,
}

pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    #[inline(always)]
    pub fn position(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Steps over `expected` if it stands here, byte for byte.
    #[inline(always)]
    pub fn take(&mut self, expected: &[u8]) -> bool {
        let is_there = self.bytes.get(self.at..self.at + expected.len()) == Some(expected);
        if is_there {
            self.at += expected.len();
        }
        is_there
    }

    /// Steps over `byte` if it stands here.
    #[inline(always)]
    pub fn take_byte(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    #[inline(always)]
    pub fn at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline(always)]
    pub fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// The flaw that something else stands here than `what`.
    #[cold]
    pub fn expected(&self, what: &'static str) -> Flaw {
        self.flaw(if self.at_end() {
            FlawKind::End
        } else {
            FlawKind::Expected(what)
        })
    }

    #[cold]
    fn flaw(&self, kind: FlawKind) -> Flaw {
        Flaw { at: self.at, kind }
    }

    /// Steps over `true`, `false` or `null`.
    #[inline(always)]
    pub fn literal(&mut self, word: &'static str) -> Result<(), Flaw> {
        if self.take(word.as_bytes()) {
            Ok(())
        } else {
            Err(self.expected(word))
        }
    }

    /// A string; the opening quote stands here.
    #[inline(always)]
    pub fn string(&mut self) -> Result<Quoted<'a>, Flaw> {
        debug_assert_eq!(self.peek(), Some(b'"'));
        self.at += 1;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.at += plain_length(&self.bytes[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    // Both ends are ASCII quotes, so they lie between characters.
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Quoted {
                        raw,
                        start,
                        has_escapes,
                    });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.flaw(FlawKind::ControlCharacter)),
                None => return Err(self.flaw(FlawKind::End)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Flaw> {
        let rest = &self.bytes[self.at..];
        match rest.get(1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match hex4(&rest[2..]) {
                Some(0xd800..=0xdbff) => {
                    let has_low = rest.get(6..8) == Some(b"\\u") && matches!(hex4(&rest[8..]), Some(0xdc00..=0xdfff));
                    if !has_low {
                        return Err(self.flaw(FlawKind::LoneSurrogate));
                    }
                    self.at += 12;
                }
                Some(0xdc00..=0xdfff) => return Err(self.flaw(FlawKind::LoneSurrogate)),
                Some(_) => self.at += 6,
                None => return Err(self.flaw(FlawKind::Escape)),
            },
            Some(_) => return Err(self.flaw(FlawKind::Escape)),
            None => return Err(self.flaw(FlawKind::End)),
        }
        Ok(())
    }

    /// A number; a minus sign or a digit stands here.
    #[inline(always)]
    pub fn number(&mut self) -> Result<Number<'a>, Flaw> {
        let (bytes, start) = (self.bytes, self.at);
        let mut at = start;
        let is_negative = bytes[at] == b'-';
        at += usize::from(is_negative);

        // Wraps beyond 19 digits, where it does not count.
        let mut mantissa = 0u64;
        let from = at;
        at = digit_run(bytes, at, &mut mantissa);
        let whole_digits = at - from;
        if whole_digits == 0 {
            self.at = at;
            return Err(self.expected_digit());
        }
        if 1 < whole_digits && bytes[from] == b'0' {
            return Err(self.flaw(FlawKind::LeadingZero));
        }
        let mut is_whole = true;
        let mut fraction_digits = 0;
        if at < bytes.len() && bytes[at] == b'.' {
            is_whole = false;
            at += 1;
            let from = at;
            at = digit_run(bytes, at, &mut mantissa);
            fraction_digits = at - from;
            if fraction_digits == 0 {
                self.at = at;
                return Err(self.expected_digit());
            }
        }
        let mut written = 0i64;
        if at < bytes.len() && matches!(bytes[at], b'e' | b'E') {
            is_whole = false;
            at += 1;
            let sign = bytes.get(at).copied();
            at += usize::from(matches!(sign, Some(b'+' | b'-')));
            let from = at;
            while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
                written = written.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
                at += 1;
            }
            if at == from {
                self.at = at;
                return Err(self.expected_digit());
            }
            if sign == Some(b'-') {
                written = -written;
            }
        }
        let number = Number {
            text: &self.text[start..at],
            is_negative,
            is_whole,
            mantissa,
            exponent: written.saturating_sub(fraction_digits as i64),
            is_exact: whole_digits + fraction_digits <= 19,
        };
        // Below 10^308 for sure, or so large that parsing it once more to see does not matter.
        if 308 < written.saturating_add(whole_digits as i64) && number.double().is_infinite() {
            return Err(self.flaw(FlawKind::NoDouble));
        }
        self.at = at;
        Ok(number)
    }

    #[cold]
    fn expected_digit(&self) -> Flaw {
        self.flaw(if self.at_end() { FlawKind::End } else { FlawKind::Digit })
    }

    /// Steps over a value of any kind, checking it. `depth` counts the arrays and objects around it.
    pub fn skip_value(&mut self, depth: usize) -> Result<(), Flaw> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number().map(|_| ()),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'[') => self.skip_items(depth + 1, b']', "`,` or `]`", |scanner| scanner.skip_value(depth + 1)),
            Some(b'{') => self.skip_items(depth + 1, b'}', "`,` or `}`", |scanner| {
                scanner.key()?;
                scanner.skip_value(depth + 1)
            }),
            _ => Err(self.expected("a value")),
        }
    }

    fn skip_items(
        &mut self,
        depth: usize,
        close: u8,
        expected: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<(), Flaw>,
    ) -> Result<(), Flaw> {
        if JSON_DEPTH_MAX < depth {
            return Err(self.flaw(FlawKind::TooDeep));
        }
        self.at += 1;
        self.skip_whitespace();
        if self.take_byte(close) {
            return Ok(());
        }
        loop {
            self.skip_whitespace();
            item(self)?;
            self.skip_whitespace();
            if self.take_byte(close) {
                return Ok(());
            }
            if !self.take_byte(b',') {
                return Err(self.expected(expected));
            }
        }
    }

    /// A key, its colon and the whitespace up to the value.
    pub fn key(&mut self) -> Result<Quoted<'a>, Flaw> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a key in quotes"));
        }
        let key = self.string()?;
        self.skip_whitespace();
        if !self.take_byte(b':') {
            return Err(self.expected("`:`"));
        }
        self.skip_whitespace();
        Ok(key)
    }
}

impl Number<'_> {
    /// The nearest double; infinite beyond the largest one.
    #[inline(always)]
    pub fn double(&self) -> f64 {
        match self.short_double() {
            Some(double) => double,
            None => lexical_core::parse(self.text.as_bytes()).expect("a JSON number is a number"),
        }
    }

    /// The float nearest to the decimal text (not to its double); infinite beyond the largest one.
    #[inline(always)]
    pub fn float(&self) -> f32 {
        /// Bits that a double has below the last bit of a float, and their value half-way between two floats.
        const BELOW: u64 = (1 << 29) - 1;
        const HALF_WAY: u64 = 1 << 28;
        match self.short_double() {
            // A double that is not half-way between two floats lies on the same side of every half-way point as the
            // decimal does, so rounding twice is rounding once. Below the normal floats the half-way points differ.
            Some(double)
                if double.to_bits() & BELOW != HALF_WAY
                    && (double == 0.0 || f64::from(f32::MIN_POSITIVE) <= double.abs()) =>
            {
                double as f32
            }
            _ => lexical_core::parse(self.text.as_bytes()).expect("a JSON number is a number"),
        }
    }

    /// The nearest double where mantissa and power of ten are doubles themselves: then one division or
    /// multiplication rounds correctly (Clinger, "How to read floating point numbers accurately", 1990).
    #[inline(always)]
    fn short_double(&self) -> Option<f64> {
        const POWERS: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
            1e19, 1e20, 1e21, 1e22,
        ];
        if !self.is_exact || 1 << 53 < self.mantissa || !(-22..=22).contains(&self.exponent) {
            return None;
        }
        let power = POWERS[self.exponent.unsigned_abs() as usize];
        let mantissa = self.mantissa as f64;
        let size = if self.exponent < 0 {
            mantissa / power
        } else {
            mantissa * power
        };
        Some(if self.is_negative { -size } else { size })
    }
}

/// Steps over digits, putting them behind the mantissa.
#[inline(always)]
fn digit_run(bytes: &[u8], mut at: usize, mantissa: &mut u64) -> usize {
    while at < bytes.len() {
        let digit = bytes[at].wrapping_sub(b'0');
        if 9 < digit {
            break;
        }
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        at += 1;
    }
    at
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes
        .get(..4)?
        .iter()
        .try_fold(0, |unit, byte| Some(unit << 4 | char::from(*byte).to_digit(16)?))
}

/// How many bytes stand before the first quote, backslash or control character; eight at a time.
#[inline(always)]
pub fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // The top bit of each byte that is 0; bytes above the first 0 may be marked wrongly, and do not count.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let mut at = 0;
    while let Some(eight) = bytes.get(at..at + 8) {
        let word = u64::from_le_bytes(eight.try_into().expect("eight bytes"));
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let special = control | zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while at < bytes.len() && !matches!(bytes[at], b'"' | b'\\' | 0..0x20) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number<'_> {
        let mut scanner = Scanner::new(text);
        let number = scanner.number().expect("a number");
        assert!(scanner.at_end(), "{text}");
        number
    }

    #[test]
    fn floats_are_rounded_once_from_the_decimal_text() {
        for (text, why) in [
            ("1.00000017881393432617187499", "just below half-way between two floats"),
            ("1.00000017881393432617187501", "just above"),
            ("1.000000178813934326171875", "exactly half-way: to even"),
            ("16777217", "half-way as a double too"),
            ("16777217.0000001", "above half-way by less than a double shows"),
            ("1e-40", "below the normal floats"),
            ("7.006492321624085e-46", "half of the smallest float"),
            ("3.4028235677973366e38", "where floats end"),
            ("-0.0", "the sign of zero stays"),
            ("12345678901234567890123", "more digits than fit"),
        ] {
            assert_eq!(
                number(text).float().to_bits(),
                text.parse::<f32>().unwrap().to_bits(),
                "{text}: {why}"
            );
            assert_eq!(
                number(text).double().to_bits(),
                text.parse::<f64>().unwrap().to_bits(),
                "{text}: {why}"
            );
        }
    }

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for special in [0, 0x1f, b'"', b'\\', b'\n'] {
            for before in 0..20 {
                let mut bytes = vec![b'a'; before];
                bytes.extend([special, b'"', 0x80, 0xff, b'a', b'a', b'a', b'a', b'a']);
                assert_eq!(plain_length(&bytes), before, "{special} after {before}");
            }
        }
        assert_eq!(
            plain_length("é\u{7f} !#[]~".as_bytes()),
            9,
            "only quote, backslash and what is below a space is special"
        );
    }

    proptest! {
        #[test]
        fn numbers_are_what_the_standard_library_reads(text in "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,22})?([eE][+-]?[0-9]{1,2})?") {
            let number = number(&text);
            prop_assert_eq!(number.double().to_bits(), text.parse::<f64>().unwrap().to_bits());
            prop_assert_eq!(number.float().to_bits(), text.parse::<f32>().unwrap().to_bits());
        }

        #[test]
        fn floats_come_back_as_they_were(bits: u32) {
            let float = f32::from_bits(bits);
            prop_assume!(float.is_finite());
            prop_assert_eq!(number(&format!("{float:e}")).float().to_bits(), bits);
            prop_assert_eq!(number(&float.to_string()).float().to_bits(), bits);
        }

        #[test]
        fn plain_bytes_are_counted_as_one_by_one(bytes: Vec<u8>) {
            let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len());
            prop_assert_eq!(plain_length(&bytes), expected);
        }
    }
}
