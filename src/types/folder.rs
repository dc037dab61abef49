//! Names of relations as names of folders.

use std::fmt::Write;

/// The folder of a relation: letters of ASCII, digits, `_` and `-` as they are, any other byte as `%` and two hexadecimal digits.
///
/// Different names have different folders, and none of them is a path, hidden or empty.
pub fn folder_name(name: &str) -> String {
    if name.is_empty() {
        // No byte is written so.
        return "%".to_owned();
    }
    let mut folder = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'_' | b'-' => folder.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => folder.push(byte.into()),
            byte => write!(folder, "%{byte:02X}").expect("text takes text"),
        }
    }
    folder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_folder_whatever_it_holds() {
        for (name, expected, why) in [
            ("candles_5m", "candles_5m", "plain names stay"),
            ("Trades-2", "Trades-2", "capitals and a dash too"),
            ("..", "%2E%2E", "not the folder above"),
            (".", "%2E", "not the folder itself"),
            ("../escaped", "%2E%2E%2Fescaped", "not a path"),
            ("a\\b\0c", "a%5Cb%00c", "nothing that a system reads in its own way"),
            ("a%2Fb", "a%252Fb", "what looks encoded is another name than `a/b`"),
            ("ä", "%C3%A4", "byte by byte"),
            ("", "%", "and never empty"),
        ] {
            assert_eq!(folder_name(name), expected, "{why}");
        }
    }
}
