//! No text makes the parser panic, overflow its stack or take long.

use proptest::prelude::*;

use super::*;

const WORDS: &[&str] = &[
    "CREATE",
    "SOURCE",
    "EXTERNAL",
    "TABLE",
    "MATERIALIZED",
    "VIEW",
    "IF",
    "NOT",
    "EXISTS",
    "AS",
    "SELECT",
    "FROM",
    "WHERE",
    "WITH",
    "INCLUDE",
    "WATERMARK",
    "FOR",
    "EMIT",
    "CHANGES",
    "ON",
    "WINDOW",
    "CLOSE",
    "EVERY",
    "INTERVAL",
    "'1 second'",
    "DROP",
    "SHOW",
    "EXPLAIN",
    "INSERT",
    "INTO",
    "VALUES",
    "(",
    ")",
    "(",
    ")",
    ",",
    ";",
    "=",
    "'",
    "\"",
    "''",
    "a",
    "b",
    "t",
    "1",
    "1.5",
    "*",
    "-",
    "+",
    ".",
    "::",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    "${A}",
    "${",
    "${A:-x}",
    "${file:k}",
    "$$",
    "$",
    "--",
    "/*",
    "*/",
    "\n",
    "ä",
    "🕯",
    "TUMBLE",
    "DESCRIPTOR",
    "CASE",
    "WHEN",
    "END",
    "CAST",
    "STRUCT",
    "ARRAY",
    "E'",
    "STORED",
    "LOCATION",
    "FORMAT",
    "PLAIN",
    "ENCODE",
    "JSON",
    "NULL",
    "UNION",
    "JOIN",
    "BETWEEN",
    "AND",
    "IN",
    "\\",
    "\0",
    "@",
    "#",
];

const VALID: &[&str] = &[
    "CREATE SOURCE candles (symbol VARCHAR NOT NULL, open_time TIMESTAMP, WATERMARK FOR open_time AS open_time - INTERVAL '5 seconds')
      INCLUDE timestamp AS kafka_time WITH (connector = 'kafka', 'bootstrap.servers' = '${KAFKA:-localhost:9092}', n = 1.5) FORMAT PLAIN ENCODE JSON;",
    "CREATE EXTERNAL TABLE history (a INT) STORED AS PARQUET LOCATION 'hdfs://namenode:8020/' INCLUDE file_name AS symbol OPTIONS ('a' 'b');",
    "CREATE MATERIALIZED VIEW v WITH (a = 'b') AS SELECT a, max(b) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE))
      WHERE a = 'ä🕯' GROUP BY a EMIT EVERY INTERVAL '1 second'; -- ${B}\n",
    "DROP VIEW IF EXISTS v; SHOW ALL; DESCRIBE t; EXPLAIN VERBOSE SELECT CASE WHEN a THEN b END FROM t; INSERT INTO t (a) VALUES (1);",
];

/// Parses and renders in all ways, and checks that all places lie in the text.
fn survives(sql: &str) {
    let text = text(sql);
    let values = |name: &str| (name == "A").then(|| "1, 'x".to_owned());
    let files = |_: &str| Ok("it's\n".to_owned());
    for parsed in [parse(&text), parse_file(&text, &values, &files)] {
        let mut spans: Vec<Span> = parsed
            .diagnostics
            .iter()
            .filter_map(|diagnostic| diagnostic.span)
            .collect();
        spans.extend(parsed.statements.iter().map(|statement| statement.span));
        for span in spans {
            assert!(
                sql.get(span.start..span.end).is_some(),
                "{span:?} lies outside of {sql:?}"
            );
        }
        render(&text, &parsed.diagnostics, Color::Never);
        render(&text, &parsed.diagnostics, Color::Always);
        for diagnostic in &parsed.diagnostics {
            assert!(diagnostic.span.is_some(), "{diagnostic:?} has no place in {sql:?}");
            let first = diagnostic.message.chars().next().expect("a message says something");
            assert!(
                !diagnostic.message.ends_with('.')
                    && (!first.is_uppercase() || diagnostic.message.starts_with(char::is_uppercase)),
                "{diagnostic:?}"
            );
        }
        // What the engine keeps of a statement can be read again.
        for statement in &parsed.statements {
            let again = parse_file(&super::text(&statement.text), &values, &files);
            assert_eq!(
                again.statements.len(),
                1,
                "{:?}: {:?}",
                statement.text,
                again.diagnostics
            );
            assert_eq!(again.statements[0].text, statement.text);
        }
    }
    if let Err(refused) = guard(sql) {
        assert!(refused.is_error());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn words_in_any_order_do_not_make_it_panic(words in prop::collection::vec((0..WORDS.len(), any::<bool>()), 0..60)) {
        let sql: String = words.iter().map(|(word, space)| format!("{}{}", WORDS[*word], if *space { " " } else { "" })).collect();
        survives(&sql);
    }

    #[test]
    fn a_file_with_any_damage_does_not_make_it_panic(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..WORDS.len()), 1..6),
    ) {
        let mut characters: Vec<char> = VALID.concat().chars().collect();
        for (start, length, word) in &damages {
            let start = start.index(characters.len() + 1);
            let end = (start + length.index(12)).min(characters.len());
            characters.splice(start..end, WORDS[*word].chars());
        }
        survives(&characters.into_iter().collect::<String>());
    }

    #[test]
    fn any_text_does_not_make_it_panic(sql in any::<String>()) {
        survives(&sql);
    }
}

#[test]
fn a_valid_file_is_valid() {
    let (text, parsed) = parse_with(&VALID.concat(), &[], &[]);
    assert_eq!(render(&text, &parsed.diagnostics, Color::Never), "");
    assert_eq!(parsed.statements.len(), 8);
}

/// Threads of tests have 2 MiB of stack, as those of tokio: deep recursion would end the process.
#[test]
fn no_word_repeated_exhausts_the_stack_or_the_clock() {
    use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
    let signs = [
        "(",
        "[",
        "{",
        "-",
        "+",
        "~",
        "!",
        "NOT ",
        "a.",
        "a::",
        "a + ",
        "a IS NULL ",
        "((",
        "([",
        "{'a':",
        "ARRAY<",
        "STRUCT<a ",
        "MAP<INT,",
        "f(",
        "CASE WHEN ",
        "CAST(",
        "a[",
        "INTERVAL - ",
        "(SELECT ",
        "SELECT * FROM (",
        "x IN (",
        "EXISTS (",
        "WITH a AS (",
        "a AND ",
        "a UNION SELECT ",
        "::INT",
        "[1]",
        "[]",
        " COLLATE x",
        ",",
        "a,",
        "'",
        "\"",
        "/*",
        "/*!",
        "';\n",
        "${A}",
        "${",
        "${A:-",
        "$$",
        "a = 1 AND ",
        "TUMBLE(",
        "TABLE(",
        "TRIM(",
        "EXTRACT(day FROM ",
        "SUBSTRING(",
        "a BETWEEN ",
        "LATERAL (",
        "(a JOIN ",
        "a JOIN b ON ",
    ];
    for word in ALL_KEYWORDS.iter().copied().chain(signs) {
        for start in [
            "",
            "SELECT ",
            "SELECT * FROM ",
            "SELECT 1 ",
            "CREATE SOURCE s (a ",
            "CREATE SOURCE s (a INT, WATERMARK FOR a AS ",
            "INSERT INTO t ",
        ] {
            let many = format!("{word} ").repeat(300);
            survives(&format!("{start}{many}"));
            // Balanced, so that the brackets are not refused before they are parsed.
            let few = word.repeat(40);
            let closing: String = few
                .chars()
                .rev()
                .filter_map(|c| match c {
                    '(' => Some(')'),
                    '[' => Some(']'),
                    '{' => Some('}'),
                    '<' => Some('>'),
                    _ => None,
                })
                .collect();
            survives(&format!("{start}{few}1{closing}"));
            survives(&format!("{start}{few} AS AS{closing}"));
        }
    }
}

#[test]
fn a_long_text_is_read_in_the_time_of_a_short_one() {
    for sign in [
        "(",
        "[",
        "a + ",
        "'",
        "a,",
        "INTERVAL ",
        "a UNION SELECT ",
        "[]",
        "ARRAY<",
        "\"",
        "';\n",
        "/*",
        "${A}",
        "ä",
        "CASE ",
        "CAST(",
        "TUMBLE(",
        "TABLE(TUMBLE(",
    ] {
        let many = sign.repeat(60_000 / sign.len());
        survives(&format!("SELECT {many}"));
        survives(&format!("CREATE SOURCE s (a {many})"));
    }
}
