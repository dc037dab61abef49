//! A script file: directives at the top, then records of sqllogictest.
//!
//! ```text
//! # what it shows              comments and blank lines anywhere
//! pipeline ../candles.sql      definitions to test; relative to the script
//! vary crashes                 what may be varied, where not everything may
//!
//! statement ok                 records
//! …
//! ```

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use sqllogictest::{DefaultColumnType, ParseErrorKind, Record};

use crate::{
    cli::pipeline,
    sql::{BYTE_ORDER_MARK, SourceText},
};

pub type ScriptRecord = Record<DefaultColumnType>;

/// A script that was read: what it tests, and what it says about that.
pub struct Script {
    /// As messages call it.
    pub name: String,
    /// Files whose statements run first.
    pub pipelines: Vec<SourceText>,
    pub vary: Vary,
    pub records: Vec<ScriptRecord>,
}

/// What runs after the first one may do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vary {
    /// Checkpoints and crashes.
    pub crashes: bool,
    /// Where rows are cut into epochs.
    pub cuts: bool,
    /// Which split's rows come first.
    pub order: bool,
}

const EVERYTHING: Vary = Vary {
    crashes: true,
    cuts: true,
    order: true,
};

const NOTHING: Vary = Vary {
    crashes: false,
    cuts: false,
    order: false,
};

impl Script {
    /// # Errors
    /// The place and a sentence: the file cannot be read, or its text is no script.
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = path.to_string_lossy().into_owned();
        let text = fs::read_to_string(path).map_err(|error| format!("cannot read {name}: {error}"))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&name, &text, &|file| {
            pipeline::read(&plain(&folder.join(file))).map_err(|error| error.to_string())
        })
    }

    /// Reads what `text` says; `read` gives the files that it names.
    pub fn parse(name: &str, text: &str, read: &dyn Fn(&str) -> Result<SourceText, String>) -> Result<Self, String> {
        let mut script = Self {
            name: name.to_owned(),
            pipelines: Vec::new(),
            vary: EVERYTHING,
            records: Vec::new(),
        };
        // Directives are comments to the parser of records, so that its lines are those of the file.
        let mut plain_text = String::new();
        let mut is_head = true;
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        for (number, line) in (1..).zip(text.lines()) {
            let at = |mistake: String| format!("{name}:{number}: {mistake}");
            let line = line.trim_end();
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["pipeline", file] if is_head => {
                    script.pipelines.push(read(file).map_err(at)?);
                    plain_text.push('#');
                }
                ["vary", ref what @ ..] if is_head => {
                    script.vary = vary(what).map_err(at)?;
                    plain_text.push('#');
                }
                _ => is_head &= line.is_empty() || line.starts_with('#'),
            }
            plain_text.push_str(line);
            plain_text.push('\n');
        }
        let records = sqllogictest::parse_with_name::<DefaultColumnType>(&plain_text, name).map_err(|error| {
            // Where text is missing it is the record that wants some.
            let is_behind = matches!(error.kind(), ParseErrorKind::UnexpectedEOF);
            let line = error.location().line().saturating_sub(u32::from(is_behind));
            format!("{name}:{line}: {}", sentence(&error.kind()))
        })?;
        for record in records {
            let refused = |line: u32, reason: &str| Err(format!("{name}:{line}: {reason}"));
            match &record {
                Record::Halt { .. } => break,
                Record::Include { loc, .. } => {
                    return refused(
                        loc.line(),
                        "include is not taken; share definitions with `pipeline FILE`",
                    );
                }
                Record::System { loc, .. } => return refused(loc.line(), "a script runs no commands of the system"),
                Record::Sleep { loc, .. } => {
                    return refused(
                        loc.line(),
                        "nothing happens while a script sleeps: move its clock with ADVANCE CLOCK INTERVAL '1 minute'",
                    );
                }
                Record::Statement {
                    loc, retry: Some(_), ..
                }
                | Record::Query {
                    loc, retry: Some(_), ..
                } => {
                    return refused(
                        loc.line(),
                        "nothing is retried: what a statement does is there behind it",
                    );
                }
                Record::Query { loc, .. } => {
                    let line = text.lines().nth(loc.line() as usize - 1).unwrap_or_default();
                    let types = line.split_whitespace().nth(1).filter(|types| *types != "error");
                    let unknown = types.and_then(|types| types.chars().find(|letter| !"IRTB?".contains(*letter)));
                    if let Some(letter) = unknown {
                        let letters = "I for integers, R for other numbers, T for texts and times, B or ? for others";
                        return refused(
                            loc.line(),
                            &format!("there is no type of columns `{letter}`: {letters}"),
                        );
                    }
                    script.records.push(record);
                }
                _ => script.records.push(record),
            }
        }
        if script.statements() == 0 {
            return Err(format!("{name}: there is nothing to run in it"));
        }
        Ok(script)
    }

    /// How many statements and queries it has.
    pub fn statements(&self) -> usize {
        self.records.iter().filter(|record| is_run(record)).count()
    }

    /// Where a record that runs begins, from 1.
    pub fn line(&self, record: usize) -> u32 {
        match &self.records[record] {
            Record::Statement { loc, .. } | Record::Query { loc, .. } | Record::Let { loc, .. } => loc.line(),
            _ => 0,
        }
    }
}

/// Whether a record is given to the engine.
pub fn is_run(record: &ScriptRecord) -> bool {
    matches!(
        record,
        Record::Statement { .. } | Record::Query { .. } | Record::Let { .. }
    )
}

fn vary(what: &[&str]) -> Result<Vary, String> {
    let mut vary = NOTHING;
    for word in what {
        match *word {
            "nothing" if what.len() == 1 => {}
            "crashes" => vary.crashes = true,
            "cuts" => vary.cuts = true,
            "order" => vary.order = true,
            _ => {
                return Err(format!(
                    "cannot vary `{word}`; write `vary nothing`, or some of crashes, cuts, order"
                ));
            }
        }
    }
    match what.is_empty() {
        true => Err("what may be varied is missing: `vary nothing`, or some of crashes, cuts, order".into()),
        false => Ok(vary),
    }
}

fn sentence(mistake: &ParseErrorKind) -> String {
    match mistake {
        ParseErrorKind::InvalidLine(line) => {
            let word = line.split_whitespace().next().unwrap_or_default();
            match word {
                "pipeline" | "vary" => format!("`{line}` stands above the first record, with one value"),
                "control" => format!("there is no `{line}`"),
                "statement" => {
                    format!("`{line}` is none of `statement ok`, `statement count N`, `statement error [REGEX]`")
                }
                _ => format!(
                    "`{line}` begins no record; a record is `statement ok`, `statement error` or `query TYPES`, the SQL below it, and a blank line"
                ),
            }
        }
        ParseErrorKind::StatementHasResults => "rows are expected of a `query`, not of a `statement`".into(),
        ParseErrorKind::UnexpectedEOF => "the SQL of this record is missing".into(),
        other => other.to_string(),
    }
}

/// The path without `..` where a name before it can be left out.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match (part, plain.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                plain.pop();
            }
            (Component::CurDir, _) => {}
            _ => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Script, String> {
        Script::parse("a.slt", text, &|file| match file {
            "../there.sql" => Ok(SourceText::new("there.sql", "")),
            _ => Err(format!("cannot read {file}: not there")),
        })
    }

    #[test]
    fn directives_stand_above_the_first_record_and_change_no_line() {
        let script = parse("# words\n\npipeline ../there.sql\nvary crashes order\n\nstatement ok\nSELECT 1\n").unwrap();
        assert_eq!(script.pipelines[0].name, "there.sql");
        assert_eq!(
            script.vary,
            Vary {
                crashes: true,
                cuts: false,
                order: true
            }
        );
        let record = script.records.iter().position(is_run).unwrap();
        assert_eq!(script.line(record), 6);
        assert_eq!(parse("statement ok\nSELECT 1\n").unwrap().vary, EVERYTHING);
        assert_eq!(parse("vary nothing\n\nstatement ok\nSELECT 1\n").unwrap().vary, NOTHING);
    }

    #[test]
    fn every_mistake_has_its_line_and_a_sentence() {
        for (text, expected) in [
            ("", "a.slt: there is nothing to run in it"),
            ("# nothing\n", "a.slt: there is nothing to run in it"),
            ("vary\n", "a.slt:1: what may be varied is missing"),
            ("\nvary crases\n", "a.slt:2: cannot vary `crases`"),
            ("vary nothing cuts\n", "a.slt:1: cannot vary `nothing`"),
            ("pipeline gone.sql\n", "a.slt:1: cannot read gone.sql: not there"),
            (
                "statement ok\nSELECT 1\n\npipeline ../there.sql\n",
                "a.slt:4: `pipeline ../there.sql` stands above the first record",
            ),
            (
                "pipeline\n",
                "a.slt:1: `pipeline` stands above the first record, with one value",
            ),
            ("statment ok\nSELECT 1\n", "a.slt:1: `statment ok` begins no record"),
            ("statement okay\nSELECT 1\n", "a.slt:1: `statement okay` is none of"),
            (
                "query X\nSELECT 1\n----\n1\n",
                "a.slt:1: there is no type of columns `X`",
            ),
            (
                "statement ok\nSELECT 1\n----\n1\n",
                "a.slt:1: rows are expected of a `query`",
            ),
            ("\nstatement ok\n", "a.slt:2: the SQL of this record is missing"),
            ("include b.slt\n", "a.slt:1: include is not taken"),
            ("system ok\nrm -rf x\n", "a.slt:1: a script runs no commands"),
            ("sleep 1s\n", "a.slt:1: nothing happens while a script sleeps"),
            (
                "query I retry 3 backoff 1s\nSELECT 1\n----\n1\n",
                "a.slt:1: nothing is retried",
            ),
        ] {
            let mistake = parse(text).err().unwrap_or_default();
            assert!(mistake.starts_with(expected), "{text:?} says {mistake}");
        }
    }

    #[test]
    fn what_stands_behind_halt_is_not_run() {
        let script = parse("statement ok\nSELECT 1\n\nhalt\n\nstatement ok\nSELECT 2\n").unwrap();
        assert_eq!(script.statements(), 1);
    }

    #[test]
    fn a_path_is_said_without_detours() {
        for (path, expected) in [
            ("sql/tests/../candles.sql", "sql/candles.sql"),
            ("./a.sql", "a.sql"),
            ("../a.sql", "../a.sql"),
            ("a/../../b.sql", "../b.sql"),
            ("/a/./b.sql", "/a/b.sql"),
        ] {
            assert_eq!(plain(Path::new(path)), Path::new(expected));
        }
    }
}
