//! Mistakes as a terminal shows them.

use super::*;

/// Four statements with a mistake and two without.
const BROKEN: &str = include_str!("../../../tests/fixtures/sql/broken.sql");

#[test]
fn a_first_word_that_is_unknown_is_answered_by_the_nearest() {
    insta::assert_snapshot!(rendered("CRATE SOURCE s (a INT)"), @r"
    error: unknown statement `CRATE`
     --> sql/test.sql:1:1
      |
    1 | CRATE SOURCE s (a INT)
      | ^^^^^
      = help: did you mean `CREATE`?
    ");
    insta::assert_snapshot!(rendered("CREATE SOURC s (a INT)"), @r"
    error: expected SOURCE, TABLE, EXTERNAL TABLE, VIEW, MATERIALIZED VIEW, FUNCTION or SINK, found `SOURC`
     --> sql/test.sql:1:8
      |
    1 | CREATE SOURC s (a INT)
      |        ^^^^^
      = help: did you mean `SOURCE`?
    ");
    insta::assert_snapshot!(rendered("DROP VEIW v"), @r"
    error: expected SOURCE, TABLE, VIEW, MATERIALIZED VIEW, FUNCTION or SINK, found `VEIW`
     --> sql/test.sql:1:6
      |
    1 | DROP VEIW v
      |      ^^^^
      = help: did you mean `VIEW`?
    ");
    insta::assert_snapshot!(rendered("SHOW SOURCE"), @r"
    error: expected SOURCES, TABLES, VIEWS, MATERIALIZED VIEWS, FUNCTIONS, SINKS or ALL, found `SOURCE`
     --> sql/test.sql:1:6
      |
    1 | SHOW SOURCE
      |      ^^^^^^
      = help: did you mean `SOURCES`?
    ");
    insta::assert_snapshot!(rendered("42"), @r"
    error: unknown statement `42`
     --> sql/test.sql:1:1
      |
    1 | 42
      | ^^
      = help: statements are CREATE, DROP, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, TRUNCATE, FLUSH and SELECT
    ");
}

#[test]
fn what_is_not_supported_is_answered_by_what_is() {
    insta::assert_snapshot!(rendered("CREATE SINK s WITH (connector = 'kafka')"), @r"
    error: expected AS and a query, found the end of the statement
     --> sql/test.sql:1:41
      |
    1 | CREATE SINK s WITH (connector = 'kafka')
      |                                         ^
      = help: write CREATE SINK s FROM view WITH (connector = 'kafka', …), or CREATE SINK s WITH (…) AS SELECT …
    ");
    insta::assert_snapshot!(rendered("CREATE INDEX i ON t (a)"), @r"
    error: CREATE INDEX is not supported yet
     --> sql/test.sql:1:8
      |
    1 | CREATE INDEX i ON t (a)
      |        ^^^^^
      = help: CREATE SOURCE, TABLE, EXTERNAL TABLE, VIEW, MATERIALIZED VIEW, FUNCTION and SINK are
    ");
    insta::assert_snapshot!(rendered("CREATE OR REPLACE VIEW v AS SELECT 1"), @r"
    error: CREATE OR REPLACE is not supported yet
     --> sql/test.sql:1:8
      |
    1 | CREATE OR REPLACE VIEW v AS SELECT 1
      |        ^^
      = help: DROP it first, or write IF NOT EXISTS
    ");
    insta::assert_snapshot!(rendered("CREATE TEMPORARY VIEW v AS SELECT 1"), @r"
    error: CREATE TEMPORARY is not supported yet
     --> sql/test.sql:1:8
      |
    1 | CREATE TEMPORARY VIEW v AS SELECT 1
      |        ^^^^^^^^^
      = help: leave it out, and DROP it when it is not needed any more
    ");
    insta::assert_snapshot!(rendered("COPY t TO 'x'"), @r"
    error: unsupported statement `COPY`
     --> sql/test.sql:1:1
      |
    1 | COPY t TO 'x'
      | ^^^^
      = help: statements are CREATE, DROP, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, TRUNCATE, FLUSH and SELECT
    ");
    insta::assert_snapshot!(rendered("MERGE INTO t USING s ON a = b"), @r"
    error: unsupported statement `MERGE`
     --> sql/test.sql:1:1
      |
    1 | MERGE INTO t USING s ON a = b
      | ^^^^^
      = help: INSERT INTO a table with a PRIMARY KEY replaces the rows of the same key
    ");
    insta::assert_snapshot!(rendered("SET a = 1"), @r"
    error: unsupported statement `SET`
     --> sql/test.sql:1:1
      |
    1 | SET a = 1
      | ^^^
      = help: statements are CREATE, DROP, SHOW, DESCRIBE, EXPLAIN, INSERT, UPDATE, DELETE, TRUNCATE, FLUSH and SELECT
    ");
    insta::assert_snapshot!(rendered("FROM t SELECT a"), @r"
    error: unsupported statement `FROM`
     --> sql/test.sql:1:1
      |
    1 | FROM t SELECT a
      | ^^^^
      = help: write SELECT … FROM …
    ");
    insta::assert_snapshot!(rendered("SHOW CREATE VIEW v"), @r"
    error: SHOW CREATE is not supported yet
     --> sql/test.sql:1:6
      |
    1 | SHOW CREATE VIEW v
      |      ^^^^^^
      = help: DESCRIBE shows the columns
    ");
}

#[test]
fn names_are_one_word_without_quotes_or_in_double_ones() {
    insta::assert_snapshot!(rendered("CREATE SOURCE (a INT)"), @r"
    error: expected the name of the source, found `(`
     --> sql/test.sql:1:15
      |
    1 | CREATE SOURCE (a INT)
      |               ^
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE a.b (a INT)"), @r"
    error: a name has one part
     --> sql/test.sql:1:15
      |
    1 | CREATE SOURCE a.b (a INT)
      |               ^^^
      = help: there are no schemas: write `b`
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE 's' (a INT)"), @r#"
    error: expected the name of the source, found `'s'`
     --> sql/test.sql:1:15
      |
    1 | CREATE SOURCE 's' (a INT)
      |               ^^^
      = help: a name stands without quotes or in double ones: "s"
    "#);
    insta::assert_snapshot!(rendered("CREATE VIEW AS SELECT 1"), @r#"
    error: expected the name of the view, found `AS`
     --> sql/test.sql:1:13
      |
    1 | CREATE VIEW AS SELECT 1
      |             ^^
      = help: write "AS" if that is the name
    "#);
    insta::assert_snapshot!(rendered("DESCRIBE"), @r"
    error: expected the name of a source, table or view, found the end of the statement
     --> sql/test.sql:1:9
      |
    1 | DESCRIBE
      |         ^
    ");
}

#[test]
fn every_mistake_in_a_list_of_columns_is_reported() {
    insta::assert_snapshot!(rendered("CREATE SOURCE s (\n  a INT b INT,\n  c VARCHAR d NOT NULL,\n  e,\n  g INT PRIMARY KEY,\n  PRIMARY KEY (a),\n  h DOUBLE NOT NUL,\n  i INT WATERMARK FOR,\n)"), @r"
    error: expected `,` or `)` after the column `a`, found `b`
     --> sql/test.sql:2:9
      |
    2 |   a INT b INT,
      |         ^
      = help: a comma is missing before `b`

    error: expected `,` or `)` after the column `c`, found `d`
     --> sql/test.sql:3:13
      |
    3 |   c VARCHAR d NOT NULL,
      |             ^
      = help: a comma is missing before `d`

    error: column `d` has no type
     --> sql/test.sql:3:13
      |
    3 |   c VARCHAR d NOT NULL,
      |             ^
      = help: write e.g. d VARCHAR

    error: column `e` has no type
     --> sql/test.sql:4:3
      |
    4 |   e,
      |   ^
      = help: write e.g. e VARCHAR

    error: `PRIMARY` is not supported in a list of columns
     --> sql/test.sql:5:9
      |
    5 |   g INT PRIMARY KEY,
      |         ^^^^^^^
      = help: a column is a name, a type and NOT NULL; compute others in a view

    error: `PRIMARY` is not supported in a list of columns
     --> sql/test.sql:6:3
      |
    6 |   PRIMARY KEY (a),
      |   ^^^^^^^
      = help: a column is a name, a type and NOT NULL; compute others in a view

    error: expected `NULL`, found `NUL`
     --> sql/test.sql:7:16
      |
    7 |   h DOUBLE NOT NUL,
      |                ^^^
      = help: did you mean `NULL`?

    error: expected `,` or `)` after the column `i`, found `WATERMARK`
     --> sql/test.sql:8:9
      |
    8 |   i INT WATERMARK FOR,
      |         ^^^^^^^^^
      = help: a comma is missing before `WATERMARK`

    error: expected the column of the watermark, found `,`
     --> sql/test.sql:8:22
      |
    8 |   i INT WATERMARK FOR,
      |                      ^

    error: expected a column, found `)`
     --> sql/test.sql:9:1
      |
    9 | )
      | ^
      = help: leave the comma out
    ");
}

#[test]
fn a_source_needs_columns() {
    insta::assert_snapshot!(rendered("CREATE SOURCE s"), @r"
    error: expected `(` and the columns, found the end of the statement
     --> sql/test.sql:1:16
      |
    1 | CREATE SOURCE s
      |                ^
      = help: write CREATE SOURCE s (column TYPE, …) WITH (…)
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s WITH (a = 'b')"), @r"
    error: expected `(` and the columns, found `WITH`
     --> sql/test.sql:1:17
      |
    1 | CREATE SOURCE s WITH (a = 'b')
      |                 ^^^^
      = help: write CREATE SOURCE s (column TYPE, …) WITH (…)
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s ()"), @r"
    error: expected a column, found `)`
     --> sql/test.sql:1:18
      |
    1 | CREATE SOURCE s ()
      |                  ^
      = help: name at least one column
    ");
}

#[test]
fn there_is_one_watermark_and_only_in_a_source() {
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT, WATERMARK FOR a AS a - )"), @r"
    error: expected an expression, found `)`
     --> sql/test.sql:1:48
      |
    1 | CREATE SOURCE s (a INT, WATERMARK FOR a AS a - )
      |                                                ^
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT, WATERMARK FOR a AS a - INTERVAL '5 seconds' b)"), @r"
    error: expected `,` or `)`, found `b`
     --> sql/test.sql:1:69
      |
    1 | CREATE SOURCE s (a INT, WATERMARK FOR a AS a - INTERVAL '5 seconds' b)
      |                                                                     ^
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (WATERMARK FOR a, WATERMARK FOR b)"), @r"
    error: a second watermark
     --> sql/test.sql:1:35
      |
    1 | CREATE SOURCE s (WATERMARK FOR a, WATERMARK FOR b)
      |                                   ^^^^^^^^^^^^^^^
      = help: there is one event time
    ");
    insta::assert_snapshot!(rendered("CREATE EXTERNAL TABLE t (a INT, WATERMARK FOR a) STORED AS PARQUET LOCATION 'x'"), @r"
    error: an external table has no watermark
     --> sql/test.sql:1:33
      |
    1 | CREATE EXTERNAL TABLE t (a INT, WATERMARK FOR a) STORED AS PARQUET LOCATION 'x'
      |                                 ^^^^^^^^^^^^^^^
      = help: only a SOURCE or a TABLE has; leave it out
    ");
}

#[test]
fn every_mistake_in_a_list_of_options_is_reported() {
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT) WITH (\n  a = 'b' c = 'd',\n  e 'f',\n  g = h,\n  i =,\n  = 1,\n  'j' = -'k',,\n  A = 'b'\n)"), @r"
    error: expected `,` or `)` after the value, found `c`
     --> sql/test.sql:2:11
      |
    2 |   a = 'b' c = 'd',
      |           ^
      = help: a comma is missing before `c`

    error: expected `=` after `e`, found `'f'`
     --> sql/test.sql:3:5
      |
    3 |   e 'f',
      |     ^^^
      = help: write e = 'value'

    error: expected a value for `g`, found `h`
     --> sql/test.sql:4:7
      |
    4 |   g = h,
      |       ^
      = help: write it as text: g = 'h'

    error: expected a value for `i`, found `,`
     --> sql/test.sql:5:6
      |
    5 |   i =,
      |      ^
      = help: a value is text in single quotes, a number, true or false

    error: expected the name of an option, found `=`
     --> sql/test.sql:6:3
      |
    6 |   = 1,
      |   ^

    error: expected a value for `j`, found `'k'`
     --> sql/test.sql:7:10
      |
    7 |   'j' = -'k',,
      |          ^^^
      = help: a value is text in single quotes, a number, true or false

    error: expected an option, found `,`
     --> sql/test.sql:7:14
      |
    7 |   'j' = -'k',,
      |              ^
      = help: leave the comma out

    error: option `a` is given twice
     --> sql/test.sql:8:3
      |
    8 |   A = 'b'
      |   ^
      = help: leave one out
    ");
}

#[test]
fn clauses_are_spelled_right_and_complete() {
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT) WIHT (a = 'b')"), @r"
    error: expected INCLUDE or WITH, found `WIHT`
     --> sql/test.sql:1:25
      |
    1 | CREATE SOURCE s (a INT) WIHT (a = 'b')
      |                         ^^^^
      = help: did you mean `WITH`?
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT) FORMAT DEBEZIUM ENCODE JSON"), @r"
    error: FORMAT `DEBEZIUM` is not supported
     --> sql/test.sql:1:32
      |
    1 | CREATE SOURCE s (a INT) FORMAT DEBEZIUM ENCODE JSON
      |                                ^^^^^^^^
      = help: FORMAT PLAIN ENCODE JSON is: a message is a row
    ");
    insta::assert_snapshot!(rendered("CREATE EXTERNAL TABLE t STORED AS PARQUET"), @r"
    error: expected LOCATION '…', found the end of the statement
     --> sql/test.sql:1:42
      |
    1 | CREATE EXTERNAL TABLE t STORED AS PARQUET
      |                                          ^
      = help: write CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '…'
    ");
    insta::assert_snapshot!(rendered("CREATE EXTERNAL TABLE t LOCATION 'x' STORED PARQUET"), @r"
    error: expected `AS`, found `PARQUET`
     --> sql/test.sql:1:45
      |
    1 | CREATE EXTERNAL TABLE t LOCATION 'x' STORED PARQUET
      |                                             ^^^^^^^
    ");
    insta::assert_snapshot!(rendered("CREATE EXTERNAL TABLE t LOCATION 'x' PARTITIONED BY (a)"), @r"
    error: PARTITIONED BY is not supported yet
     --> sql/test.sql:1:38
      |
    1 | CREATE EXTERNAL TABLE t LOCATION 'x' PARTITIONED BY (a)
      |                                      ^^^^^^^^^^^
      = help: INCLUDE file_name AS … names a column by the file
    ");
    insta::assert_snapshot!(rendered("CREATE VIEW v (a) AS SELECT 1"), @r"
    error: a list of columns after the name of a view is not supported yet
     --> sql/test.sql:1:15
      |
    1 | CREATE VIEW v (a) AS SELECT 1
      |               ^
      = help: name the columns in the query: SELECT … AS …
    ");
    insta::assert_snapshot!(rendered("INSERT INTO t"), @r"
    error: expected VALUES or SELECT, found the end of the statement
     --> sql/test.sql:1:14
      |
    1 | INSERT INTO t
      |              ^
    ");
    insta::assert_snapshot!(rendered("INSERT INTO t (a) VALUES (1) RETURNING a"), @r"
    error: `RETURNING` is not supported here
     --> sql/test.sql:1:30
      |
    1 | INSERT INTO t (a) VALUES (1) RETURNING a
      |                              ^^^^^^^^^
      = help: rows are not returned: SELECT them
    ");
    insta::assert_snapshot!(rendered("DROP SOURCE a, b"), @r"
    error: DROP takes one name
     --> sql/test.sql:1:14
      |
    1 | DROP SOURCE a, b
      |              ^
      = help: write one DROP for each
    ");
    insta::assert_snapshot!(rendered("EXPLAIN DROP VIEW v"), @r"
    error: there is nothing to explain here
     --> sql/test.sql:1:9
      |
    1 | EXPLAIN DROP VIEW v
      |         ^^^^
      = help: write EXPLAIN and the name of a view, a SELECT or a CREATE
    ");
}

#[test]
fn emit_says_when_and_only_of_a_materialized_view() {
    insta::assert_snapshot!(rendered("CREATE VIEW v AS SELECT 1 EMIT CHANGES"), @r"
    error: a view that is not materialized has no EMIT
     --> sql/test.sql:1:27
      |
    1 | CREATE VIEW v AS SELECT 1 EMIT CHANGES
      |                           ^^^^
      = help: write CREATE MATERIALIZED VIEW, or leave EMIT out
    ");
    insta::assert_snapshot!(rendered("CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT CHANGE"), @r"
    error: expected CHANGES, ON WINDOW CLOSE or EVERY, found `CHANGE`
     --> sql/test.sql:1:45
      |
    1 | CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT CHANGE
      |                                             ^^^^^^
      = help: did you mean `CHANGES`?
    ");
    insta::assert_snapshot!(rendered("CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT ON WINDOW CLOSED"), @r"
    error: expected `CLOSE`, found `CLOSED`
     --> sql/test.sql:1:55
      |
    1 | CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT ON WINDOW CLOSED
      |                                                       ^^^^^^
      = help: did you mean `CLOSE`?
    ");
    insta::assert_snapshot!(rendered("CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT EVERY '5 parsecs'"), @r"
    error: `5 parsecs` is not a duration: expected a duration such as '30 seconds', '5m' or '100 ms'
     --> sql/test.sql:1:51
      |
    1 | CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT EVERY '5 parsecs'
      |                                                   ^^^^^^^^^^^
    ");
    insta::assert_snapshot!(rendered("CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT EVERY '0'"), @r"
    error: EMIT EVERY takes more than 0 seconds
     --> sql/test.sql:1:51
      |
    1 | CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT EVERY '0'
      |                                                   ^^^
      = help: write EMIT CHANGES for every change
    ");
    insta::assert_snapshot!(rendered("CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT"), @r"
    error: expected CHANGES, ON WINDOW CLOSE or EVERY, found the end of the statement
     --> sql/test.sql:1:44
      |
    1 | CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT
      |                                            ^
    ");
    insta::assert_snapshot!(rendered("CREATE MATERIALIZED VIEW v AS SELECT 1 WITH (a = 'b')"), @r"
    error: unexpected `WITH`
     --> sql/test.sql:1:40
      |
    1 | CREATE MATERIALIZED VIEW v AS SELECT 1 WITH (a = 'b')
      |                                        ^^^^
      = help: WITH (…) stands before AS
    ");
}

#[test]
fn brackets_are_reported_where_they_open() {
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT"), @r"
    error: unclosed `(`
     --> sql/test.sql:1:17
      |
    1 | CREATE SOURCE s (a INT
      |                 ^ opened here
      = help: close it with `)`
    ");
    insta::assert_snapshot!(rendered("SELECT *\nFROM t\nWHERE (a = 1\n  AND b = 2\n"), @r"
    error: unclosed `(`
     --> sql/test.sql:3:7
      |
    3 | WHERE (a = 1
      |       ^ opened here
      = help: close it with `)`
    ");
    insta::assert_snapshot!(rendered("SELECT 1)\nFROM t"), @r"
    error: `)` closes nothing
     --> sql/test.sql:1:9
      |
    1 | SELECT 1)
      |         ^
      = help: leave it out
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT] WITH (b = 1)"), @r"
    error: `(` is closed by `]`
     --> sql/test.sql:1:23
      |
    1 | CREATE SOURCE s (a INT] WITH (b = 1)
      |                       ^
      = help: write `)`
    ");
}

#[test]
fn quotes_are_reported_where_they_open() {
    insta::assert_snapshot!(rendered("SELECT 'a"), @r"
    error: unclosed quote
     --> sql/test.sql:1:8
      |
    1 | SELECT 'a
      |        ^ opened here
      = help: close the text with `'`; a quote inside is written twice: `''`
    ");
    insta::assert_snapshot!(rendered("SELECT \"a"), @r#"
    error: unclosed quote
     --> sql/test.sql:1:8
      |
    1 | SELECT "a
      |        ^ opened here
      = help: close the name with `"`
    "#);
    insta::assert_snapshot!(rendered("SELECT /* a"), @r"
    error: unclosed comment
     --> sql/test.sql:1:8
      |
    1 | SELECT /* a
      |        ^ opened here
      = help: close it with `*/`
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT) WITH (topic = 'candles, format = 'json')"), @r"
    error: unclosed quote
     --> sql/test.sql:1:39
      |
    1 | CREATE SOURCE s (a INT) WITH (topic = 'candles, format = 'json')
      |                                       ^ opened here
      = help: close the text with `'`; a quote inside is written twice: `''`
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT)\n  WITH (topic = 'candles', format = 'json);\nSELECT 'x';"), @r"
    error: unclosed quote
     --> sql/test.sql:2:37
      |
    2 |   WITH (topic = 'candles', format = 'json);
      |                                     ^ opened here
      = help: close the text with `'`; a quote inside is written twice: `''`
    ");
    insta::assert_snapshot!(rendered("CREATE SOURCE s (a INT) WITH (a = 'x, b = 'y', c = 'z, d = 'w')"), @r"
    error: unclosed quote
     --> sql/test.sql:1:35
      |
    1 | CREATE SOURCE s (a INT) WITH (a = 'x, b = 'y', c = 'z, d = 'w')
      |                                   ^^^^^^^^^ closed here, right before `y`
      = help: close the text with `'`; a quote inside is written twice: `''`
    ");
}

#[test]
fn a_misspelled_clause_is_found_although_it_was_taken_for_a_name() {
    insta::assert_snapshot!(rendered("SELECT a FORM t"), @r"
    error: unexpected `FORM`
     --> sql/test.sql:1:10
      |
    1 | SELECT a FORM t
      |          ^^^^
      = help: did you mean `FROM`?
    ");
    insta::assert_snapshot!(rendered("SELECT a FROM t WERE b = 1"), @r"
    error: unexpected `WERE`
     --> sql/test.sql:1:17
      |
    1 | SELECT a FROM t WERE b = 1
      |                 ^^^^
      = help: did you mean `WHERE`?
    ");
    insta::assert_snapshot!(rendered("SELECT a FROM t GORUP BY a"), @r"
    error: unexpected `GORUP`
     --> sql/test.sql:1:17
      |
    1 | SELECT a FROM t GORUP BY a
      |                 ^^^^^
      = help: did you mean `GROUP`?
    ");
    insta::assert_snapshot!(rendered("SELECT ä, 'ö' FORM größe"), @r"
    error: unexpected `FORM`
     --> sql/test.sql:1:15
      |
    1 | SELECT ä, 'ö' FORM größe
      |               ^^^^
      = help: did you mean `FROM`?
    ");
    insta::assert_snapshot!(rendered("SELECT a\tFORM t"), @r"
    error: unexpected `FORM`
     --> sql/test.sql:1:10
      |
    1 | SELECT a    FORM t
      |             ^^^^
      = help: did you mean `FROM`?
    ");
}

#[test]
fn queries_that_end_too_early_or_too_late() {
    insta::assert_snapshot!(rendered("SELECT a, FROM t"), @r"
    error: expected an expression, found `FROM`
     --> sql/test.sql:1:11
      |
    1 | SELECT a, FROM t
      |           ^^^^
      = help: leave the comma in line 1 out
    ");
    insta::assert_snapshot!(rendered("SELECT a FROM t GROUP a"), @r"
    error: expected `BY` after `GROUP`, found `a`
     --> sql/test.sql:1:23
      |
    1 | SELECT a FROM t GROUP a
      |                       ^
    ");
    insta::assert_snapshot!(rendered("SELECT a b c FROM t"), @r"
    error: unexpected `c`
     --> sql/test.sql:1:12
      |
    1 | SELECT a b c FROM t
      |            ^
      = help: is a comma missing before `c`?
    ");
    insta::assert_snapshot!(rendered("SELECT a FROM"), @r"
    error: expected a name, found the end of the statement
     --> sql/test.sql:1:14
      |
    1 | SELECT a FROM
      |              ^
    ");
    insta::assert_snapshot!(rendered("SELECT a FROM t WHERE"), @r"
    error: expected an expression, found the end of the statement
     --> sql/test.sql:1:22
      |
    1 | SELECT a FROM t WHERE
      |                      ^
    ");
    insta::assert_snapshot!(rendered("SELECT a ? FROM t"), @r"
    error: unexpected `?`
     --> sql/test.sql:1:10
      |
    1 | SELECT a ? FROM t
      |          ^
    ");
    insta::assert_snapshot!(rendered("SELECT count( FROM t)"), @r"
    error: expected `)`, found `t`
     --> sql/test.sql:1:20
      |
    1 | SELECT count( FROM t)
      |                    ^
    ");
    insta::assert_snapshot!(rendered("SELECT INTERVAL INTERVAL '1 day'"), @r"
    error: `INTERVAL` stands here twice
     --> sql/test.sql:1:17
      |
    1 | SELECT INTERVAL INTERVAL '1 day'
      |                 ^^^^^^^^
      = help: write INTERVAL '5 minutes'
    ");
}

#[test]
fn one_broken_statement_costs_only_itself() {
    insta::assert_snapshot!(rendered(BROKEN), @r"
    error: column `b` has no type
     --> sql/test.sql:1:25
      |
    1 | CREATE SOURCE s (a INT, b);
      |                         ^
      = help: write e.g. b VARCHAR

    error: unexpected `FORM`
     --> sql/test.sql:2:27
      |
    2 | CREATE VIEW v AS SELECT a FORM s;
      |                           ^^^^
      = help: did you mean `FROM`?

    error: unclosed quote
     --> sql/test.sql:6:17
      |
    6 |   WITH (topic = 'candles, format = 'json');
      |                 ^ opened here
      = help: close the text with `'`; a quote inside is written twice: `''`

    error: expected SOURCE, TABLE, VIEW, MATERIALIZED VIEW, FUNCTION or SINK, found `VEIW`
     --> sql/test.sql:8:6
      |
    8 | DROP VEIW v;
      |      ^^^^
      = help: did you mean `VIEW`?
    ");
    insta::assert_snapshot!(rendered("CREATE VIEW v AS SELECT 1 CREATE VIEW w AS SELECT 2\nSELECT 3"), @r"
    error: expected `;` before `CREATE`
     --> sql/test.sql:1:27
      |
    1 | CREATE VIEW v AS SELECT 1 CREATE VIEW w AS SELECT 2
      |                           ^^^^^^ a new statement starts here
      = help: end each statement with `;`

    error: expected `;` before `SELECT`
     --> sql/test.sql:2:1
      |
    2 | SELECT 3
      | ^^^^^^ a new statement starts here
      = help: end each statement with `;`
    ");
}

#[test]
fn the_statements_beside_a_broken_one_are_there() {
    let texts = |parsed: &ParsedFile| {
        parsed
            .statements
            .iter()
            .map(|statement| statement.text.clone())
            .collect::<Vec<_>>()
    };
    let parsed = parse(&text(BROKEN));
    assert_eq!(texts(&parsed), ["SELECT 1", "SELECT 2"]);
    assert_eq!(
        parsed.unfinished,
        ["t", "s", "v"],
        "whoever reads one of these is not told that it is unknown"
    );
    let parsed = parse(&text("CREATE VIEW v AS SELECT 1 CREATE VIEW w AS SELECT 2\nSELECT 3"));
    assert_eq!(
        texts(&parsed),
        ["CREATE VIEW v AS SELECT 1", "CREATE VIEW w AS SELECT 2", "SELECT 3"],
        "only semicolons are missing"
    );
    assert!(parsed.has_errors() && parsed.unfinished.is_empty());
}

#[test]
fn of_very_many_mistakes_the_first_are_reported() {
    let parsed = parse(&text(&"SELECT;".repeat(1_000)));
    assert_eq!(parsed.diagnostics.len(), crate::types::limits::DIAGNOSTICS_MAX);
    assert_eq!(parsed.diagnostics[0].span, Some(Span::new(6, 6)));
}

/// What is said about a query, and what the caret points at.
fn refused(sql: &str) -> Vec<String> {
    let parsed = parse(&text(sql));
    assert!(parsed.statements.is_empty(), "{sql}");
    let show = |diagnostic: &Diagnostic| {
        assert_eq!(diagnostic.code, SqlState::Unsupported, "{sql}: {diagnostic:?}");
        let span = diagnostic.span.expect("it has a place");
        format!(
            "{} @ {}",
            diagnostic
                .message
                .strip_suffix(" is not supported")
                .expect("so it ends"),
            &sql[span.start..span.end]
        )
    };
    parsed.diagnostics.iter().map(show).collect()
}

#[test]
fn clauses_that_the_planner_would_pass_over_are_refused() {
    for (sql, expected) in [
        (
            "SELECT * FROM t FOR SYSTEM_TIME AS OF '2024-01-01'",
            &["`FOR SYSTEM_TIME AS OF` @ FOR SYSTEM_TIME AS OF"][..],
        ),
        (
            "SELECT * FROM t TABLESAMPLE (10 PERCENT)",
            &["`TABLESAMPLE` @ TABLESAMPLE"],
        ),
        ("SELECT * FROM t WITH (NOLOCK)", &["a table hint @ NOLOCK"]),
        (
            "SELECT * FROM t LATERAL VIEW explode(a) x AS y",
            &["`LATERAL VIEW` @ LATERAL VIEW"],
        ),
        ("SELECT a INTO b FROM t", &["`INTO` @ INTO"]),
        ("SELECT * FROM t FOR UPDATE", &["`FOR UPDATE` @ FOR UPDATE"]),
        ("SELECT * FROM t FETCH FIRST 5 ROWS WITH TIES", &["`FETCH` @ FETCH"]),
        ("SELECT TOP 5 * FROM t", &["`TOP` @ TOP"]),
        ("SELECT * FROM t PREWHERE a", &["`PREWHERE` @ PREWHERE"]),
        ("SELECT * FROM t SETTINGS a = 1", &["`SETTINGS` @ SETTINGS"]),
        ("SELECT * FROM t CLUSTER BY a", &["`CLUSTER BY` @ CLUSTER BY"]),
        ("SELECT * FROM t SORT BY a", &["`SORT BY` @ SORT BY"]),
        ("SELECT * FROM t DISTRIBUTE BY a", &["`DISTRIBUTE BY` @ DISTRIBUTE BY"]),
        (
            "SELECT * FROM t START WITH a = 1 CONNECT BY PRIOR a = b",
            &["`CONNECT BY` @ CONNECT BY"],
        ),
        (
            "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON a.k = b.k",
            &["`ASOF JOIN` @ ASOF JOIN"],
        ),
        ("SELECT a FROM t GLOBAL JOIN u ON a = b", &["`GLOBAL` @ GLOBAL"]),
        ("SELECT a FROM t CROSS APPLY f(x)", &["`CROSS APPLY` @ CROSS APPLY"]),
        ("SELECT a FROM t |> WHERE a", &["`|>` @ |>"]),
        ("SELECT * FROM t LIMIT 5 BY a", &["`LIMIT … BY` @ 5"]),
        ("SELECT a FROM t GROUP BY a WITH ROLLUP", &["WITH after GROUP BY @ a"]),
        ("SELECT * FROM TABLE(f(1))", &["TABLE(…) around a function @ f(1"]),
        ("SELECT * FROM t PIVOT (sum(a) FOR b IN ('x'))", &["`PIVOT` @ PIVOT"]),
        (
            "SELECT * FROM t MATCH_RECOGNIZE (PATTERN (A B) DEFINE A AS x > 1)",
            &["`MATCH_RECOGNIZE` @ MATCH_RECOGNIZE"],
        ),
        ("SELECT a FROM t AS x (a INT)", &["a type in a list of aliases @ a"]),
        ("SELECT * RENAME (a AS b) FROM t", &["`RENAME` @ RENAME"]),
        ("SELECT CAST(a AS DATE FORMAT 'x')", &["`FORMAT` @ FORMAT"]),
        ("SELECT f(1)(2)", &["a second list of arguments @ f"]),
        ("SELECT a FROM t ORDER BY a WITH FILL", &["`WITH FILL` @ WITH FILL"]),
        (
            "SELECT * FROM UNNEST([1]) WITH OFFSET",
            &["`WITH OFFSET` @ WITH OFFSET"],
        ),
        ("SELECT * FROM t FOR XML AUTO", &["`FOR` @ FOR"]),
        (
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            &["changing rows inside a query @ DELETE FROM t RETURNING *"],
        ),
        (
            "SELECT (SELECT TOP 1 a FROM t), b FROM (SELECT * FROM u FOR UPDATE) AS x",
            &["`TOP` @ TOP", "`FOR UPDATE` @ FOR UPDATE"],
        ),
        (
            "INSERT INTO t SELECT * FROM u FOR UPDATE",
            &["`FOR UPDATE` @ FOR UPDATE"],
        ),
        ("CREATE VIEW v AS SELECT TOP 1 a FROM t", &["`TOP` @ TOP"]),
    ] {
        assert_eq!(refused(sql), expected, "{sql}");
    }
}

#[test]
fn what_is_wrong_with_a_function_is_shown_at_its_word() {
    insta::assert_snapshot!(rendered("CREATE FUNCTION f(a DOUBLE, b) RETURNS DOUBLE AS a"), @r"
    error: parameter `b` has no type
     --> sql/test.sql:1:29
      |
    1 | CREATE FUNCTION f(a DOUBLE, b) RETURNS DOUBLE AS a
      |                             ^
      = help: write e.g. b DOUBLE
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f(a DOUBLE,) RETURNS DOUBLE AS a"), @r"
    error: expected a parameter, found `)`
     --> sql/test.sql:1:28
      |
    1 | CREATE FUNCTION f(a DOUBLE,) RETURNS DOUBLE AS a
      |                            ^
      = help: leave the comma out
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f(a DOUBLE NOT NULL) RETURNS DOUBLE AS a"), @r"
    error: expected `,` or `)` behind a parameter, found `NOT`
     --> sql/test.sql:1:28
      |
    1 | CREATE FUNCTION f(a DOUBLE NOT NULL) RETURNS DOUBLE AS a
      |                            ^^^
      = help: every parameter may be null
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f AS 1"), @r"
    error: expected `(` and the parameters, found `AS`
     --> sql/test.sql:1:19
      |
    1 | CREATE FUNCTION f AS 1
      |                   ^^
      = help: write CREATE FUNCTION f (parameter TYPE, …) RETURNS TYPE AS …
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f() AS 1"), @r"
    error: expected RETURNS and a type, found `AS`
     --> sql/test.sql:1:21
      |
    1 | CREATE FUNCTION f() AS 1
      |                     ^^
      = help: write CREATE FUNCTION f (parameter TYPE, …) RETURNS TYPE AS …
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f() RETURNS INT LANGUAGE python AS 1"), @r"
    error: functions in python are not supported
     --> sql/test.sql:1:42
      |
    1 | CREATE FUNCTION f() RETURNS INT LANGUAGE python AS 1
      |                                          ^^^^^^
      = help: LANGUAGE SQL is: an expression behind AS
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f() RETURNS INT AS SELECT 1"), @r"
    error: the body of a function is an expression, not SELECT
     --> sql/test.sql:1:36
      |
    1 | CREATE FUNCTION f() RETURNS INT AS SELECT 1
      |                                    ^^^^^^
      = help: write what stands behind SELECT: AS a + b
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f(a INT) RETURNS INT AS a +"), @r"
    error: expected an expression, found the end of the statement
     --> sql/test.sql:1:44
      |
    1 | CREATE FUNCTION f(a INT) RETURNS INT AS a +
      |                                            ^
    ");
    insta::assert_snapshot!(rendered("CREATE FUNCTION f(a INT) RETURNS INT LANGUAGE SQL AZ a"), @r"
    error: expected AS and an expression, found `AZ`
     --> sql/test.sql:1:51
      |
    1 | CREATE FUNCTION f(a INT) RETURNS INT LANGUAGE SQL AZ a
      |                                                   ^^
    ");
}
