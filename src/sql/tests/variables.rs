//! Values of the environment in a text, and the way back to what was written.

use super::*;

/// The text with `A=1`, `Q=it's`, `EMPTY=` and the file `key` = `s3cr'et\n` filled in.
fn filled_in(sql: &str) -> String {
    let (filled, diagnostics) = substitute(
        &text(sql),
        &|name| match name {
            "A" => Some("1".into()),
            "Q" => Some("it's".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        },
        &|path| {
            if path == "key" {
                Ok("s3cr'et\n".into())
            } else {
                Err("no such file".into())
            }
        },
    );
    assert!(diagnostics.is_empty(), "{sql}: {diagnostics:?}");
    filled.text
}

#[test]
fn variables_are_filled_in_wherever_they_stand() {
    for (written, expected, why) in [
        ("", "", "nothing stays nothing"),
        ("SELECT ${A}, 'x${A}y'", "SELECT 1, 'x1y'", "in a literal and outside"),
        (
            "'${NONE:-localhost:9092}'",
            "'localhost:9092'",
            "a default with a colon",
        ),
        ("'${A:-2}'", "'1'", "a value wins over the default"),
        ("'${NONE:-}'", "''", "an empty default"),
        ("'${EMPTY:-2}'", "''", "an empty value is a value"),
        (
            "'${Q}' \"${Q}\"",
            "'it''s' \"it's\"",
            "a value does not end the text it stands in",
        ),
        (
            "E'${Q}\\'' '${Q}'",
            "E'it''s\\'' 'it''s'",
            "nor behind an escaped quote",
        ),
        ("'$$' $${A} '$${A}'", "'$' ${A} '${A}'", "two dollars are one"),
        ("candles$bad '$1' $", "candles$bad '$1' $", "a dollar alone is a dollar"),
        (
            "-- ${NONE}\n/* ${NONE} /* */ $$ */ '-- ${A}'",
            "-- ${NONE}\n/* ${NONE} /* */ $$ */ '-- 1'",
            "comments stay, and a literal holds none",
        ),
        ("'${file:key}'", "'s3cr''et'", "a secret without its line break"),
    ] {
        assert_eq!(filled_in(written), expected, "{why}");
    }
}

#[test]
fn a_variable_that_is_missing_is_reported_where_it_stands() {
    let (text, parsed) = parse_with(
        "CREATE SOURCE s (a INT)\n  WITH (topic = 'candles', 'bootstrap.servers' = '${KAFKA}', key = '${file:nope}');\nSELECT ${X Y}, '${Z', '${A:-${B}}'",
        &[],
        &[],
    );
    assert!(
        parsed.statements.is_empty(),
        "what stands in for the value is not taken for it"
    );
    insta::assert_snapshot!(render(&text, &parsed.diagnostics, Color::Never), @r"
    error: variable KAFKA is not set
     --> sql/test.sql:2:51
      |
    2 |   WITH (topic = 'candles', 'bootstrap.servers' = '${KAFKA}', key = '${file:nope}');
      |                                                   ^^^^^^^^
      = help: set it, or give a default: ${KAFKA:-…}

    error: cannot read the secret `nope`: no such file
     --> sql/test.sql:2:69
      |
    2 |   WITH (topic = 'candles', 'bootstrap.servers' = '${KAFKA}', key = '${file:nope}');
      |                                                                     ^^^^^^^^^^^^
      = help: the file must exist and be readable by this process

    error: `X Y` is not the name of a variable
     --> sql/test.sql:3:8
      |
    3 | SELECT ${X Y}, '${Z', '${A:-${B}}'
      |        ^^^^^^
      = help: write `${NAME}`, `${NAME:-default}` or `${file:PATH}`; `$$` is a dollar

    error: unclosed `${`
     --> sql/test.sql:3:17
      |
    3 | SELECT ${X Y}, '${Z', '${A:-${B}}'
      |                 ^^
      = help: close it with `}`, or write `$${` for a dollar and a brace

    error: the default of `A` holds another variable
     --> sql/test.sql:3:24
      |
    3 | SELECT ${X Y}, '${Z', '${A:-${B}}'
      |                        ^^^^^^^^^
      = help: a default is plain text; it reads `${B`
    ");
}

#[test]
fn places_behind_a_variable_are_those_of_the_file() {
    let (text, parsed) = parse_with(
        "CREATE SOURCE s (a INT) WITH (a = '${LONG}', b = '${LONG}' c = 1);\nCREATE VIEW v AS SELECT ${COLUMNS} FORM t;\nSELECT '${LONG}', nope;",
        &[("LONG", "a value that is\nlonger than its name"), ("COLUMNS", "a, b")],
        &[],
    );
    insta::assert_snapshot!(render(&text, &parsed.diagnostics, Color::Never), @r"
    error: expected `,` or `)` after the value, found `c`
     --> sql/test.sql:1:60
      |
    1 | CREATE SOURCE s (a INT) WITH (a = '${LONG}', b = '${LONG}' c = 1);
      |                                                            ^
      = help: a comma is missing before `c`

    error: unexpected `FORM`
     --> sql/test.sql:2:36
      |
    2 | CREATE VIEW v AS SELECT ${COLUMNS} FORM t;
      |                                    ^^^^
      = help: did you mean `FROM`?
    ");
    let StatementKind::Query(query) = &parsed.statements[0].kind else {
        panic!()
    };
    let name = query.body.as_select().unwrap().projection[1].clone();
    let span = byte_span(&text, datafusion::sql::sqlparser::ast::Spanned::span(&name)).unwrap();
    assert_eq!(
        &text.text[span.start..span.end],
        "nope",
        "the tree knows the place in the file"
    );
}

#[test]
fn a_statement_shows_values_but_no_secrets() {
    let sql = "CREATE SOURCE s (a INT) WITH (a = '${A}', password = '${file:key}', c = '$${A} $$$$ $5') -- ${A} $$";
    let values = [("A", "$$ {${B}")];
    let files = [("key", "s3cr'et\n")];
    let (_, parsed) = parse_with(sql, &values, &files);
    let statement = &parsed.statements[0];
    assert_eq!(
        statement.text,
        "CREATE SOURCE s (a INT) WITH (a = '$$$ {$${B}', password = '${file:key}', c = '$${A} $$$ $5')"
    );
    let (_, again) = parse_with(&statement.text, &[], &files);
    assert_eq!(
        again.statements[0].text, statement.text,
        "filling it in again changes nothing"
    );
    let values = |statement: &Statement| match &statement.kind {
        StatementKind::CreateSource(source) => source
            .options
            .iter()
            .map(|option| option.value.value.clone())
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(values(statement), ["$$ {${B}", "s3cr'et", "${A} $$ $5"]);
    assert_eq!(
        values(&again.statements[0]),
        values(statement),
        "and gives the same options"
    );
}

#[test]
fn a_mistake_never_quotes_a_secret() {
    let (text, parsed) = parse_with(
        "CREATE SOURCE s (a INT) WITH (a = 1 '${file:key}', b = ${file:key}, c '${file:key}' ${file:key})",
        &[],
        &[("key", "hunter2")],
    );
    let shown = format!(
        "{}{:?}",
        render(&text, &parsed.diagnostics, Color::Never),
        parsed.diagnostics
    );
    assert!(!parsed.diagnostics.is_empty());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn without_variables_a_text_is_taken_as_it_is() {
    let statement = one("SELECT '${A}', '$$'");
    let StatementKind::Query(query) = &statement.kind else {
        panic!()
    };
    assert_eq!(
        query.to_string(),
        "SELECT '${A}', '$$'",
        "the engine reads no variables from a request"
    );
    assert_eq!(
        statement.text, "SELECT '$${A}', '$$$'",
        "and its text gives the same when it is read as a file"
    );
}
