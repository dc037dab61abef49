//! The wall between rooms: reads the paths and words of `src` and fails on a breach.
//!
//! ```text
//! src/**/*.rs ─▶ code without comments and texts ─▶ tokens ─▶ paths (`use` trees and `crate::a::B` in place) ─▶ rules ─▶ breaches
//! ```
//! A rule that has exceptions names each of them with its reason.

use std::{collections::BTreeMap, fs, path::Path};

/// Rooms from the top down; imports point down only, and rooms of one level do not know each other.
const LEVELS: &[(&str, u8)] = &[
    ("main", 6),
    ("cli", 6),
    ("serve", 5),
    ("runtime", 4),
    ("plan", 3),
    ("sql", 2),
    ("connector", 2),
    ("format", 2),
    ("function", 2),
    ("operator", 2),
    ("state", 2),
    ("view", 2),
    ("remote", 1),
    ("types", 0),
];

const LINES_MAX: usize = 1_000;

/// Words that a file may hold only where it is named here: the word, the file or folder, the reason.
const WORDS: &[(&str, &[(&str, &str)])] = &[
    (
        "unsafe",
        &[(
            "src/connector/kafka/drain/",
            "librdkafka's queue is drained in bulk, its answers are heard and topics have ids only through its C interface",
        )],
    ),
    ("SystemTime::now", CLOCK),
    ("Instant::now", CLOCK),
    ("Utc::now", CLOCK),
    ("Local::now", CLOCK),
    // A result that is thrown away.
    ("let _ =", &[]),
    ("todo!", &[]),
    ("unimplemented!", &[]),
    ("dbg!", &[]),
];

const CLOCK: &[(&str, &str)] = &[
    ("src/runtime/clock.rs", "the one place that reads a clock"),
    (
        "src/connector/replay.rs",
        "paces a replay and bounds a wait; no row depends on it",
    ),
    (
        "src/connector/kafka/",
        "deadlines of calls to brokers; no row depends on it",
    ),
];

/// Imports that break a rule of rooms: the file, the path's beginning, the reason.
const IMPORTS: &[(&str, &str, &str)] = &[];

#[test]
fn imports_point_down_and_rooms_are_entered_by_their_face() {
    let files = sources();
    assert!(30 < files.len(), "the sources were not found");
    let found = breaches(&files);
    assert!(found.is_empty(), "{} breaches:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_exception_is_still_needed() {
    let files = sources();
    for (word, allowed) in WORDS {
        for (path, _) in *allowed {
            let holds = |(file, text): (&String, &String)| file.starts_with(path) && has_word(&code(text), word);
            let used =
                files.iter().any(holds) || (CLOCK.iter().any(|(other, _)| other == path) && reads_clock(&files, path));
            assert!(used, "{path} has no `{word}` any more: take it off the list");
        }
    }
    for (file, path, _) in IMPORTS {
        let paths = paths(file, &code(&files[*file]));
        assert!(
            paths.iter().any(|found| found.join("::").starts_with(path)),
            "{file} does not name {path} any more"
        );
    }
}

/// Each clock exception stands for at least one of the clocks.
fn reads_clock(files: &BTreeMap<String, String>, path: &str) -> bool {
    let clocks = ["SystemTime::now", "Instant::now", "Utc::now", "Local::now"];
    files
        .iter()
        .any(|(file, text)| file.starts_with(path) && clocks.iter().any(|clock| has_word(&code(text), clock)))
}

#[test]
fn a_made_up_breach_is_found() {
    let face = "//! A room.\npub mod limits;\nmod time;\npub use time::EventTime;";
    for (file, text, expected) in [
        ("src/sql/a.rs", "//! A.\nuse crate::types::EventTime;", None),
        (
            "src/sql/a.rs",
            "//! A.\nuse crate::{types::{limits::ROWS, EventTime}, sql::b::C};",
            None,
        ),
        (
            "src/sql/a.rs",
            "//! A.\n// use crate::operator::Pane;\nconst A: &str = \"crate::operator::Pane\";",
            None,
        ),
        ("src/sql/a.rs", "//! A.\nuse super::super::types::EventTime;", None),
        (
            "src/sql/a.rs",
            "//! A.\nuse crate::operator::Chain;",
            Some("sql and operator are siblings"),
        ),
        (
            "src/sql/a.rs",
            "//! A.\nuse crate::{types::EventTime, operator::{Chain, Pane}};",
            Some("siblings"),
        ),
        (
            "src/sql/a.rs",
            "//! A.\nfn a() -> crate::runtime::Engine { todo() }",
            Some("points up"),
        ),
        (
            "src/sql/a.rs",
            "//! A.\nuse super::super::serve::App;",
            Some("points up"),
        ),
        (
            "src/sql/a.rs",
            "//! A.\nmod tests { use super::super::serve::App; }",
            None,
        ),
        ("src/types/delta.rs", "//! A.\nuse crate::sql::Span;", Some("points up")),
        (
            "src/runtime/a.rs",
            "//! A.\nuse crate::types::time::EventTime;",
            Some("not by its face"),
        ),
        (
            "src/runtime/a.rs",
            "//! A.\nuse crate::types::limits::deep::X;",
            Some("not by its face"),
        ),
        ("src/cli/a.rs", "//! A.\nuse crate::types::limits::deep::X;", None),
        (
            "src/cli/a.rs",
            "//! A.\nuse crate::types::time::EventTime;",
            Some("not by its face"),
        ),
        (
            "src/runtime/a.rs",
            "//! A.\nlet started = std::time::Instant::now();",
            Some("`Instant::now`"),
        ),
        (
            "src/runtime/a.rs",
            "//! A.\nfn a() { let _ = fails(); }",
            Some("`let _ =`"),
        ),
        (
            "src/runtime/a.rs",
            "//! A.\nfn a() { let _=fails(); }",
            Some("`let _ =`"),
        ),
        (
            "src/runtime/a.rs",
            "//! A.\nlet _lock = lock(); // let _ = x\nlet a = b\"let _ = '\\\"\";",
            None,
        ),
        (
            "src/runtime/a.rs",
            "//! A.\nlet a = '\"'; unsafe { b() }",
            Some("`unsafe`"),
        ),
        (
            "src/runtime/a.rs",
            "//! A.\nlet a = r#\"unsafe { \" }\"#; let b: &'a str = c;",
            None,
        ),
        (
            "src/runtime/a.rs",
            "//! A.\n/* todo!() /* nested */ todo!() */ fn todo() {}",
            None,
        ),
        ("src/runtime/a.rs", "//! A.\nfn a() { todo!() }", Some("`todo!`")),
        ("src/runtime/a.rs", "use std::fmt;", Some("does not open with")),
        ("src/helpers/a.rs", "//! A.", Some("is no room")),
    ] {
        let files = BTreeMap::from([
            ("src/types/mod.rs".to_owned(), face.to_owned()),
            ("src/types/limits.rs".to_owned(), "//! A.\npub mod deep;".to_owned()),
            ("src/types/limits/deep.rs".to_owned(), "//! A.".to_owned()),
            ("src/types/time.rs".to_owned(), "//! A.".to_owned()),
            (file.to_owned(), text.to_owned()),
        ]);
        let found = breaches(&files);
        match expected {
            None => assert!(found.is_empty(), "{text}: {found:?}"),
            Some(part) => assert!(found.iter().any(|breach| breach.contains(part)), "{text}: {found:?}"),
        }
    }
    let long = BTreeMap::from([("src/sql/a.rs".to_owned(), format!("//! A.{}", "\n".repeat(LINES_MAX)))]);
    assert!(breaches(&long).is_empty());
    let too_long = BTreeMap::from([("src/sql/a.rs".to_owned(), format!("//! A.{}//", "\n".repeat(LINES_MAX)))]);
    assert_eq!(breaches(&too_long).len(), 1);
}

fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("the folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source is text");
                files.insert(path.to_string_lossy().into_owned(), text);
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(Path::new("src"), &mut files);
    files
}

/// All breaches of these files, a line each.
fn breaches(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in files {
        if !text.starts_with("//!") {
            found.push(format!("{file}: does not open with a sentence `//!`"));
        }
        let lines = text.lines().count();
        if LINES_MAX < lines {
            found.push(format!("{file}: {lines} lines, more than {LINES_MAX}"));
        }
        let code = code(text);
        for (word, allowed) in WORDS {
            if has_word(&code, word) && !allowed.iter().any(|(path, _)| file.starts_with(path)) {
                found.push(format!("{file}: `{word}`"));
            }
        }
        let room = room_of(file);
        let Some(own) = level(&room) else {
            if file != "src/lib.rs" {
                found.push(format!("{file}: `{room}` is no room of LEVELS"));
            }
            continue;
        };
        for path in paths(file, &code) {
            let Some(other) = level(&path[0]) else { continue };
            if path[0] == room
                || IMPORTS
                    .iter()
                    .any(|(at, begin, _)| at == file && path.join("::").starts_with(begin))
            {
                continue;
            }
            let path_text = path.join("::");
            if own < other {
                found.push(format!("{file}: {path_text} points up"));
            } else if own == other && !(room == "main" || path[0] == "main") {
                found.push(format!("{file}: {path_text}, but {room} and {} are siblings", path[0]));
            } else if !enters_by_face(&path, files, if Some(own) == level("main") { 2 } else { 1 }) {
                found.push(format!("{file}: {path_text} is not by its face"));
            }
        }
    }
    found
}

/// `room::Item`, or `room::face::Item` where the room's `mod.rs` says `pub mod face`. The composition root, which names
/// concrete connectors and their tools, goes one face deeper: `connector::kafka::admin`.
fn enters_by_face(path: &[String], files: &BTreeMap<String, String>, faces: usize) -> bool {
    let text = |segments: &[String]| {
        let base = format!("src/{}", segments.join("/"));
        files
            .get(&format!("{base}/mod.rs"))
            .or_else(|| files.get(&format!("{base}.rs")))
    };
    let modules = (2..=path.len())
        .take_while(|length| text(&path[..*length]).is_some())
        .count();
    let is_public = |depth: usize| {
        text(&path[..depth]).is_some_and(|text| code(text).contains(&format!("pub mod {};", path[depth])))
    };
    modules <= faces && (1..=modules).all(is_public)
}

fn level(room: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == room).map(|(_, level)| *level)
}

/// The folder under `src`, or the file in it, without its ending.
fn room_of(file: &str) -> String {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    inside
        .split('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Where a word stands alone; spaces of the word match any number of them, also none before `=`.
fn has_word(code: &str, word: &str) -> bool {
    let squeezed = |text: &str| {
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace("_=", "_ =")
    };
    let (code, word) = (squeezed(code), squeezed(word));
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(&word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let last = word.chars().next_back().expect("a word");
        before.is_none_or(|c| !is_part(c)) && (!is_part(last) || after.is_none_or(|c| !is_part(c)))
    })
}

/// Every path from the root of the crate that the code names: `use` trees unfolded, `super` resolved.
fn paths(file: &str, code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut module: Vec<String> = file
        .trim_start_matches("src/")
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    if module.last().is_some_and(|last| last == "mod" || last == "main") {
        module.pop();
    }
    let mut found = Vec::new();
    let mut depth = 0usize;
    // Depths at which modules in place were opened.
    let mut opened: Vec<usize> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        match token {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                if opened.last() == Some(&depth) {
                    opened.pop();
                    module.pop();
                }
            }
            "mod" if tokens.get(at + 2).is_some_and(|next| next == "{") => {
                module.push(tokens[at + 1].clone());
                opened.push(depth);
            }
            "crate" | "zeta" | "super" if tokens.get(at + 1).is_some_and(|next| next == "::") => {
                let is_start = at == 0 || tokens[at - 1] != "::";
                // Outside of the binary `zeta` is a folder, a name, anything.
                if is_start && (token != "zeta" || file == "src/main.rs") {
                    let mut base = Vec::new();
                    let mut next = at + 2;
                    if token == "super" {
                        base = module.clone();
                        base.pop();
                        while tokens.get(next).is_some_and(|token| token == "super") {
                            base.pop();
                            next += 2;
                        }
                    }
                    tree(&tokens, &mut next, &base, &mut found);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found.retain(|path| !path.is_empty());
    found
}

/// Unfolds `a::{b, c::D as E, *}` from `at` on.
fn tree(tokens: &[String], at: &mut usize, base: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = base.to_vec();
    loop {
        match tokens.get(*at).map(String::as_str) {
            Some("{") => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token != "}") {
                    match tokens[*at].as_str() {
                        "," => *at += 1,
                        "as" => *at += 2,
                        _ => tree(tokens, at, &path, found),
                    }
                }
                *at += 1;
                return;
            }
            Some("self") => *at += 1,
            Some(name) if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                path.push(name.to_owned());
                *at += 1;
            }
            // `*`, or the end of a text that does not compile.
            _ => *at += 1,
        }
        if tokens.get(*at).is_some_and(|token| token == "::") {
            *at += 1;
            // A turbofish ends the path.
            if tokens.get(*at).is_some_and(|token| token == "<") {
                break;
            }
        } else {
            break;
        }
    }
    found.push(path);
}

fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("::") {
            2
        } else if first.is_alphanumeric() || first == '_' {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// The text without comments, and with texts and characters empty.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_in_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_length(rest)
        } else if let Some(length) = raw_length(rest).filter(|_| !is_in_word) {
            out.push_str("\"\"");
            length
        } else if first == '"' {
            out.push_str("\"\"");
            quoted_length(rest)
        } else if first == '\'' && is_character(rest) {
            out.push_str("' '");
            quoted_length(rest)
        } else {
            out.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    out
}

fn comment_length(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of `r"…"`, `r#"…"#`, `br"…"`, where one begins here.
fn raw_length(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let inside = after[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inside.find(&close)?;
    Some(text.len() - inside.len() + end + close.len())
}

/// A character, and not a lifetime.
fn is_character(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

fn quoted_length(text: &str) -> usize {
    let quote = text.chars().next().expect("begins with a quote");
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}
