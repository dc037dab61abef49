//! Options of connectors and formats: `WITH (key = 'value', …)` checked against tables of what exists.

use std::{collections::BTreeMap, time::Duration};

use super::parse_duration;

/// One option: its name, other spellings, what it takes and what it does.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpec {
    pub name: &'static str,
    /// Spellings of other systems that mean the same.
    pub aliases: &'static [&'static str],
    pub kind: OptionKind,
    pub is_required: bool,
    pub default: Option<&'static str>,
    pub help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    Text,
    Integer,
    Boolean,
    Duration,
    /// Bytes: `128 MB`.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl OptionSpec {
    pub const fn text(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            kind: OptionKind::Text,
            is_required: false,
            default: None,
            help,
        }
    }

    pub const fn kind(self, kind: OptionKind) -> Self {
        Self { kind, ..self }
    }

    pub const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub const fn required(self) -> Self {
        Self {
            is_required: true,
            ..self
        }
    }

    pub const fn default(self, value: &'static str) -> Self {
        Self {
            default: Some(value),
            ..self
        }
    }

    pub fn answers_to(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    }

    /// # Errors
    /// A sentence about what the option takes.
    pub fn check(&self, value: &str) -> Result<(), String> {
        match self.kind {
            OptionKind::Text => Ok(()),
            OptionKind::Integer => value
                .parse::<i64>()
                .map(|_| ())
                .map_err(|_| format!("`{}` takes a whole number, not '{value}'", self.name)),
            OptionKind::Boolean => match value {
                "true" | "false" => Ok(()),
                _ => Err(format!("`{}` takes true or false, not '{value}'", self.name)),
            },
            OptionKind::Duration => parse_duration(value)
                .map(|_| ())
                .map_err(|reason| format!("`{}`: {reason}", self.name)),
            OptionKind::Size => parse_size(value)
                .map(|_| ())
                .map_err(|reason| format!("`{}`: {reason}", self.name)),
            OptionKind::Choice(words) => match words.contains(&value) {
                true => Ok(()),
                false => Err(format!("`{}` takes {}, not '{value}'", self.name, one_of(words))),
            },
        }
    }
}

/// `'a', 'b' or 'c'`
pub fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => format!("'{only}'"),
        [first @ .., last] => {
            format!(
                "{} or '{last}'",
                first
                    .iter()
                    .map(|word| format!("'{word}'"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        }
    }
}

/// Reads `128 MB`, `1 GB`, `64 kB`, `4096`: a kB is 1,024 bytes.
///
/// # Errors
/// A sentence about what was expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: expected a number of bytes such as '128 MB' or '1 GB'");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim();
    let unit = text.trim().trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    // More would not fit into a file.
    let is_possible = 0 < number && number <= (1 << 40) >> shift;
    is_possible
        .then(|| number << shift)
        .ok_or_else(|| format!("`{text}`: a size is from 1 byte to 1024 GB"))
}

/// Checked options by their own names (not by their aliases).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<String, String>);

impl Options {
    /// Takes pairs that were checked before, by name or alias; fills in defaults. What no spec knows is kept as it is.
    pub fn resolve(specs: &[OptionSpec], given: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut values: BTreeMap<String, String> = specs
            .iter()
            .filter_map(|spec| Some((spec.name.to_owned(), spec.default?.to_owned())))
            .collect();
        for (name, value) in given {
            let name = specs
                .iter()
                .find(|spec| spec.answers_to(&name))
                .map_or(name, |spec| spec.name.to_owned());
            values.insert(name, value);
        }
        Self(values)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// # Panics
    /// Where the option is neither required nor has a default, or was not checked: our mistake.
    pub fn text(&self, name: &str) -> &str {
        self.get(name)
            .unwrap_or_else(|| panic!("option {name} is required or has a default"))
    }

    pub fn duration(&self, name: &str) -> Option<Duration> {
        self.get(name)
            .map(|value| parse_duration(value).expect("durations are checked at CREATE"))
    }

    /// In bytes.
    pub fn size(&self, name: &str) -> Option<u64> {
        self.get(name)
            .map(|value| parse_size(value).expect("sizes are checked at CREATE"))
    }

    pub fn integer(&self, name: &str) -> Option<i64> {
        self.get(name)
            .map(|value| value.parse().expect("integers are checked at CREATE"))
    }

    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name).map(|value| value == "true")
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("128 MB", 128 << 20),
            ("1GB", 1 << 30),
            ("64 kB", 64 << 10),
            ("4096", 4096),
            ("7 MiB", 7 << 20),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "0", "-1 MB", "1.5 GB", "1 TB 2", "9999999999 GB", "5 parsecs"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
