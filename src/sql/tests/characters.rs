//! Characters that editors and word processors put into a text, and what is told of them.

use super::*;

#[test]
fn what_an_editor_puts_before_a_text_is_passed_over() {
    for (sql, expected, why) in [
        ("\u{feff}SELECT 1", 1, "right before the first word"),
        (
            "\u{feff}\n-- words\nSELECT 1; SELECT 2",
            2,
            "before blanks and comments",
        ),
        ("\u{feff}", 0, "and nothing else"),
    ] {
        let text = text(sql);
        let parsed = parse(&text);
        assert_eq!(parsed.diagnostics, [], "{why}");
        assert_eq!(parsed.statements.len(), expected, "{why}");
        assert!(guard(sql).is_ok(), "{why}");
        for statement in parsed.statements {
            assert!(
                sql[statement.span.start..].starts_with("SELECT"),
                "places are those of the text: {why}"
            );
        }
    }
    let mistakes = parse(&text("\u{feff}SELECT ;\u{feff}SELECT 1")).diagnostics;
    let said: Vec<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
    assert_eq!(
        said,
        [
            "expected an expression, found the end of the statement",
            "the invisible character U+FEFF cannot stand here"
        ],
        "further on it is a character like others"
    );
}

#[test]
fn signs_of_word_processors_are_answered_by_those_of_sql() {
    insta::assert_snapshot!(rendered("SELECT * FROM t WHERE a = ‘b’"), @r"
    error: `‘` cannot stand here
     --> sql/test.sql:1:27
      |
    1 | SELECT * FROM t WHERE a = ‘b’
      |                           ^
      = help: write '…' around a text
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (“a” INT);\nSELECT 1 – 2"), @r#"
    error: `“` cannot stand here
     --> sql/test.sql:1:18
      |
    1 | CREATE SOURCE s (“a” INT);
      |                  ^
      = help: write '…' around a text, and "…" around a name

    error: `–` cannot stand here
     --> sql/test.sql:2:10
      |
    2 | SELECT 1 – 2
      |          ^
      = help: write `-`
    "#);
    assert_eq!(rendered("SELECT '’“–' AS \"’\""), "", "in quotes anything may stand");
}

#[test]
fn fetch_in_a_materialized_view_is_not_answered_by_what_is_refused_next() {
    for (sql, help) in [
        ("SELECT a FROM t FETCH FIRST 3 ROWS ONLY", "write LIMIT n"),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT a FROM t FETCH FIRST 3 ROWS ONLY",
            "limit in the query that reads the view",
        ),
    ] {
        let diagnostics = parse(&text(sql)).diagnostics;
        let [mistake] = diagnostics.as_slice() else {
            panic!("{diagnostics:?}")
        };
        assert_eq!(mistake.help, [help], "{sql}");
    }
}
