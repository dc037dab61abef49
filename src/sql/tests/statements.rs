//! One table per kind of statement: what is written, what it means.

use std::time::Duration;

use datafusion::sql::sqlparser::ast;

use super::*;

fn source(sql: &str) -> CreateSource {
    match one(sql).kind {
        StatementKind::CreateSource(source) => source,
        other => panic!("{sql}: {other:?}"),
    }
}

fn options(options: &[SqlOption]) -> String {
    options
        .iter()
        .map(|option| format!("{}={}", option.key.value, option.value.value))
        .collect::<Vec<_>>()
        .join(" ")
}

fn includes(includes: &[Include]) -> String {
    includes
        .iter()
        .map(|include| format!("{}>{}", include.field.value, include.name.value))
        .collect::<Vec<_>>()
        .join(" ")
}

fn columns(columns: &[Column]) -> String {
    let column = |column: &Column| {
        format!(
            "{} {}{}",
            column.name.value,
            column.data_type.value,
            if column.is_nullable { "" } else { " !" }
        )
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

const CANDLES: &str = "CREATE SOURCE candles (
  symbol VARCHAR NOT NULL, open_time TIMESTAMP NOT NULL, open REAL, high REAL NULL,
  number_of_trades INT,
  WATERMARK FOR open_time AS open_time - INTERVAL '5 seconds'
) INCLUDE timestamp AS kafka_time
  WITH (connector = 'kafka', topic = 'candles', 'bootstrap.servers' = 'localhost:9092', format = 'json', limit = 10, deep = true)";

#[test]
fn a_source_has_columns_a_watermark_included_fields_and_options() {
    let source = source(CANDLES);
    assert_eq!(source.name.value, "candles");
    assert!(!source.if_not_exists);
    assert_eq!(
        columns(&source.columns),
        "symbol VARCHAR !, open_time TIMESTAMP !, open REAL, high REAL, number_of_trades INT"
    );
    let watermark = source.watermark.unwrap();
    assert_eq!(watermark.column.value, "open_time");
    assert_eq!(
        watermark.expression.unwrap().value.to_string(),
        "open_time - INTERVAL '5 seconds'"
    );
    assert_eq!(includes(&source.includes), "timestamp>kafka_time");
    assert_eq!(
        options(&source.options),
        "connector=kafka topic=candles bootstrap.servers=localhost:9092 format=json limit=10 deep=true",
        "numbers and booleans as their text"
    );
}

#[test]
fn every_word_of_a_source_knows_its_place() {
    let source = source(CANDLES);
    let at = |span: Span| &CANDLES[span.start..span.end];
    assert_eq!(at(source.name.span), "candles");
    assert_eq!(at(source.columns[1].name.span), "open_time");
    assert_eq!(at(source.columns[1].data_type.span), "TIMESTAMP");
    let watermark = source.watermark.unwrap();
    assert_eq!(at(watermark.column.span), "open_time");
    assert_eq!(
        at(watermark.expression.unwrap().span),
        "open_time - INTERVAL '5 seconds'"
    );
    assert_eq!(at(source.includes[0].field.span), "timestamp");
    assert_eq!(at(source.includes[0].name.span), "kafka_time");
    assert_eq!(at(source.options[2].key.span), "'bootstrap.servers'");
    assert_eq!(at(source.options[2].value.span), "'localhost:9092'");
}

#[test]
fn columns_are_read_as_they_are_written_elsewhere() {
    for (written, expected, why) in [
        ("a INT", "a INT", "the shortest"),
        (
            "A INT, \"B c\" INT",
            "a INT, B c INT",
            "names are lower case unless quoted",
        ),
        (
            "a DOUBLE PRECISION NOT NULL",
            "a DOUBLE PRECISION !",
            "a type of two words",
        ),
        (
            "a TIMESTAMP(3) WITH TIME ZONE",
            "a TIMESTAMP(3) WITH TIME ZONE",
            "Flink's times",
        ),
        (
            "a DECIMAL(10, 2), b VARCHAR(5)",
            "a DECIMAL(10,2), b VARCHAR(5)",
            "commas inside of a type",
        ),
        (
            "a STRUCT<x INT, y INT>, b ARRAY<INT>",
            "a STRUCT<x INT, y INT>, b ARRAY<INT>",
            "and in angle brackets",
        ),
        ("a INT[] NULL", "a INT[]", "NULL is what a column is anyway"),
        (
            "timestamp TIMESTAMP, open REAL, watermark INT",
            "timestamp TIMESTAMP, open REAL, watermark INT",
            "words of the language are names",
        ),
        ("größe REAL", "größe REAL", "letters of any language"),
    ] {
        assert_eq!(
            columns(&source(&format!("CREATE SOURCE s ({written}) WITH (a = 1)")).columns),
            expected,
            "{why}"
        );
    }
}

#[test]
fn a_watermark_may_be_the_column_itself() {
    for (written, expected) in [
        ("WATERMARK FOR t", None),
        ("WATERMARK FOR T AS t", Some("t")),
        (
            "WATERMARK FOR t AS t - INTERVAL '5' SECOND",
            Some("t - INTERVAL '5' SECOND"),
        ),
    ] {
        let watermark = source(&format!("CREATE SOURCE s (t TIMESTAMP, {written})"))
            .watermark
            .unwrap();
        assert_eq!(watermark.column.value, "t");
        assert_eq!(
            watermark
                .expression
                .map(|expression| expression.value.to_string())
                .as_deref(),
            expected,
            "{written}"
        );
    }
}

#[test]
fn clauses_of_a_source_stand_in_any_order() {
    for (written, expected_includes, expected_options, why) in [
        (
            "INCLUDE offset WITH (a = 'b')",
            "offset>offset",
            "a=b",
            "INCLUDE before WITH; the field is the name",
        ),
        (
            "WITH (a = 'b') INCLUDE key AS k INCLUDE partition",
            "key>k partition>partition",
            "a=b",
            "INCLUDE after WITH",
        ),
        (
            "WITH (a = 'b') INCLUDE key, headers AS h",
            "key>key headers>h",
            "a=b",
            "a list",
        ),
        (
            "WITH (properties.bootstrap.server = 'x') FORMAT PLAIN ENCODE JSON",
            "",
            "properties.bootstrap.server=x format=json",
            "RisingWave's",
        ),
        (
            "APPEND ONLY WITH (a = -1.5, B = FALSE, \"C\" = 'it''s')",
            "",
            "a=-1.5 b=false C=it's",
            "values of all kinds",
        ),
        ("WITH ()", "", "", "no options"),
        (
            "FORMAT PLAIN ENCODE JSON (x = 'y')",
            "",
            "format=json x=y",
            "options of the format",
        ),
    ] {
        let source = source(&format!("CREATE SOURCE IF NOT EXISTS s (a INT) {written}"));
        assert!(source.if_not_exists);
        assert_eq!(includes(&source.includes), expected_includes, "{why}");
        assert_eq!(options(&source.options), expected_options, "{why}");
    }
}

#[test]
fn an_external_table_says_where_its_files_are() {
    for (sql, expected, why) in [
        (
            "CREATE EXTERNAL TABLE h STORED AS PARQUET LOCATION 'hdfs://n:8020/d/'",
            "h [] parquet hdfs://n:8020/d/ [] []",
            "the files say the rest",
        ),
        (
            "CREATE EXTERNAL TABLE h (a INT NOT NULL) INCLUDE file_name AS symbol STORED AS parquet LOCATION 'd'",
            "h [a INT !] parquet d [file_name>symbol] []",
            "INCLUDE first",
        ),
        (
            "CREATE EXTERNAL TABLE h LOCATION 'd' STORED AS PARQUET INCLUDE file_name WITH (a = 'b')",
            "h [] parquet d [file_name>file_name] [a=b]",
            "any order",
        ),
        (
            "CREATE EXTERNAL TABLE h STORED AS PARQUET LOCATION 'd' OPTIONS ('a' 'b', c = 1)",
            "h [] parquet d [] [a=b c=1]",
            "DataFusion's",
        ),
    ] {
        let StatementKind::CreateExternalTable(table) = one(sql).kind else {
            panic!("{sql}")
        };
        let got = format!(
            "{} [{}] {} {} [{}] [{}]",
            table.name.value,
            columns(&table.columns),
            table.format.value,
            table.location.value,
            includes(&table.includes),
            options(&table.options)
        );
        assert_eq!(got, expected, "{why}");
    }
}

#[test]
fn a_materialized_view_says_when_its_rows_appear() {
    for (written, expected, why) in [
        ("", None, "nothing is EMIT CHANGES"),
        ("EMIT CHANGES", Some(Emit::Changes), "ksqlDB's words"),
        ("emit on window close", Some(Emit::OnWindowClose), "RisingWave's"),
        (
            "EMIT EVERY INTERVAL '1 second'",
            Some(Emit::Every(Duration::from_secs(1))),
            "an interval",
        ),
        (
            "EMIT EVERY '100 ms'",
            Some(Emit::Every(Duration::from_millis(100))),
            "its text",
        ),
        (
            "EMIT EVERY INTERVAL '2' MINUTE",
            Some(Emit::Every(Duration::from_secs(120))),
            "the standard's interval",
        ),
    ] {
        for query in [
            "SELECT a FROM t",
            "SELECT a",
            "SELECT a b FROM t GROUP BY a",
            "SELECT * FROM t JOIN u",
            "(SELECT a FROM t u)",
            "VALUES (1)",
        ] {
            let sql = format!("CREATE MATERIALIZED VIEW v AS {query} {written}");
            let StatementKind::CreateMaterializedView(view) = one(&sql).kind else {
                panic!("{sql}")
            };
            assert_eq!(
                view.emit.as_ref().map(|emit| emit.value.clone()),
                expected,
                "{sql}: {why}"
            );
            assert_eq!(
                &sql[view.query_span.start..view.query_span.end],
                query,
                "EMIT is not part of the query"
            );
            if let Some(emit) = view.emit {
                assert_eq!(&sql[emit.span.start..emit.span.end], written);
            }
        }
    }
}

#[test]
fn a_materialized_view_takes_options_before_its_query() {
    let sql = "CREATE MATERIALIZED VIEW IF NOT EXISTS V WITH (history = 'h') AS SELECT 1 AS emit";
    let StatementKind::CreateMaterializedView(view) = one(sql).kind else {
        panic!()
    };
    assert_eq!(
        (
            view.name.value.as_str(),
            view.if_not_exists,
            options(&view.options).as_str()
        ),
        ("v", true, "history=h")
    );
    assert_eq!(view.query.to_string(), "SELECT 1 AS emit", "with AS any word is a name");
}

#[test]
fn a_view_is_a_name_for_a_query() {
    let StatementKind::CreateView(view) = one("CREATE VIEW v AS WITH a AS (SELECT 1) SELECT * FROM a").kind else {
        panic!()
    };
    assert_eq!((view.name.value.as_str(), view.if_not_exists), ("v", false));
    assert_eq!(view.query.to_string(), "WITH a AS (SELECT 1) SELECT * FROM a");
}

#[test]
fn what_is_dropped_has_a_kind_and_a_name() {
    for (sql, kind, name, if_exists) in [
        ("DROP SOURCE candles", DropKind::Source, "candles", false),
        ("DROP TABLE IF EXISTS t", DropKind::Table, "t", true),
        ("DROP EXTERNAL TABLE T", DropKind::Table, "t", false),
        ("DROP VIEW \"V\"", DropKind::View, "V", false),
        (
            "drop materialized view if exists v",
            DropKind::MaterializedView,
            "v",
            true,
        ),
    ] {
        let StatementKind::Drop(drop) = one(sql).kind else {
            panic!("{sql}")
        };
        assert_eq!(
            (drop.kind, drop.name.value.as_str(), drop.if_exists),
            (kind, name, if_exists),
            "{sql}"
        );
    }
}

#[test]
fn what_is_shown_is_in_upper_case() {
    for (sql, expected) in [
        ("SHOW SOURCES", "SOURCES"),
        ("show tables", "TABLES"),
        ("SHOW VIEWS", "VIEWS"),
        ("SHOW materialized  views", "MATERIALIZED VIEWS"),
        ("SHOW ALL", "ALL"),
    ] {
        let StatementKind::Show(what) = one(sql).kind else {
            panic!("{sql}")
        };
        assert_eq!(what.value, expected);
    }
    for sql in ["DESCRIBE candles$bad", "DESC candles$bad"] {
        let StatementKind::Describe(name) = one(sql).kind else {
            panic!("{sql}")
        };
        assert_eq!(name.value, "candles$bad", "side outputs have names like any other");
    }
}

#[test]
fn a_name_a_query_or_a_create_is_explained() {
    for (sql, is_verbose, expected) in [
        ("EXPLAIN v", false, "name v"),
        ("EXPLAIN verbose", false, "name verbose"),
        ("EXPLAIN VERBOSE v", true, "name v"),
        ("EXPLAIN watermark", false, "name watermark"),
        ("EXPLAIN WATERMARK v", false, "watermark of v"),
        ("EXPLAIN SELECT 1", false, "SELECT 1"),
        ("EXPLAIN VERBOSE (SELECT 1)", true, "(SELECT 1)"),
        ("EXPLAIN CREATE VIEW v AS SELECT 1", false, "CREATE VIEW v AS SELECT 1"),
        ("EXPLAIN ANALYZE v", false, "analyze v"),
        ("EXPLAIN analyze", false, "name analyze"),
        ("EXPLAIN ANALYZE SELECT 1", false, "run SELECT 1"),
    ] {
        let StatementKind::Explain(explain) = one(sql).kind else {
            panic!("{sql}")
        };
        assert_eq!(explain.is_verbose, is_verbose, "{sql}");
        let target = match explain.target {
            ExplainTarget::Name(name) => format!("name {}", name.value),
            ExplainTarget::Analyze(name) => format!("analyze {}", name.value),
            ExplainTarget::AnalyzeQuery(query) => format!("run {query}"),
            ExplainTarget::Watermark(name) => format!("watermark of {}", name.value),
            ExplainTarget::Statement(statement) => statement.text,
        };
        assert_eq!(target, expected);
    }
}

#[test]
fn rows_are_inserted_from_values_or_a_query() {
    for (sql, columns, source) in [
        (
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
            "",
            "VALUES (1, 'a'), (2, 'b')",
        ),
        ("INSERT INTO t (a, B) VALUES (1, 2)", "a b", "VALUES (1, 2)"),
        ("INSERT INTO t SELECT * FROM u", "", "SELECT * FROM u"),
        ("INSERT INTO t (SELECT 1)", "", "(SELECT 1)"),
        ("INSERT INTO t (a) (SELECT 1)", "a", "(SELECT 1)"),
    ] {
        let StatementKind::Insert(insert) = one(sql).kind else {
            panic!("{sql}")
        };
        assert_eq!(insert.table.value, "t");
        assert_eq!(
            insert
                .columns
                .iter()
                .map(|column| column.value.as_str())
                .collect::<Vec<_>>()
                .join(" "),
            columns,
            "{sql}"
        );
        assert_eq!(insert.source.to_string(), source, "{sql}");
    }
}

fn query(sql: &str) -> Box<ast::Query> {
    match one(sql).kind {
        StatementKind::Query(query) => query,
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn queries_may_say_what_the_planner_understands() {
    for sql in [
        "SELECT 1",
        "VALUES (1), (2)",
        "(SELECT 1) UNION ALL (SELECT 2) ORDER BY 1 LIMIT 1 OFFSET 1",
        "WITH RECURSIVE a AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM a WHERE n < 5) SELECT * FROM a",
        "SELECT symbol, first_value(open ORDER BY open_time) AS open, count(*) FILTER (WHERE a > 1) FROM t GROUP BY ROLLUP (symbol) HAVING count(*) > 1",
        "SELECT *, row_number() OVER w FROM t WINDOW w AS (PARTITION BY a ORDER BY b) QUALIFY row_number() OVER w = 1",
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b NULLS LAST",
        "SELECT * EXCLUDE (a) FROM t LEFT JOIN u USING (k) CROSS JOIN LATERAL (SELECT 1) AS l (x)",
        "SELECT a FROM t WHERE a IN (SELECT b FROM u) AND EXISTS (SELECT 1) AND a BETWEEN 1 AND 2 AND b LIKE 'x%' OR NOT c",
        "SELECT CASE WHEN a > 1 THEN 'x' ELSE 'y' END, a::INT, CAST(a AS VARCHAR), EXTRACT(hour FROM t), INTERVAL '1 day' FROM t",
        "SELECT date_bin(INTERVAL '5 minutes', t), arr[1], {'a': 1}, [1, 2] FROM UNNEST([1, 2]) AS u (a)",
        "SELECT * FROM (VALUES (1, 'a')) AS t (a, b), generate_series(1, 10) AS g (n)",
        "SELECT * FROM TUMBLE(candles, open_time, INTERVAL '5 minutes') AS w WHERE symbol = 'ADA-USDT'",
        "SELECT * FROM SESSION(t, ts, gap => INTERVAL '5 minutes', key => k)",
        "SELECT * FROM \"candles$bad\", candles$late",
        "SELECT -- a comment; with a semicolon\n 1 /* and /* another */ ; */",
    ] {
        query(sql);
    }
}

#[test]
fn flinks_spelling_of_windows_means_the_same() {
    for (written, expected) in [
        (
            "TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTES))",
            "TUMBLE(t, ts, INTERVAL '5' MINUTES)",
        ),
        (
            "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTES) AS w",
            "TUMBLE(t, ts, INTERVAL '5' MINUTES) AS w",
        ),
        (
            "table(hop(table t, descriptor(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)) w",
            "hop(t, ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE) w",
        ),
        (
            "TABLE(CUMULATE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts)))",
            "CUMULATE(DATA => t, TIMECOL => ts)",
        ),
    ] {
        assert_eq!(
            query(&format!("SELECT * FROM {written} WHERE a")).to_string(),
            format!("SELECT * FROM {expected} WHERE a"),
            "{written}"
        );
    }
    let written = "SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts)))";
    assert_eq!(one(written).text, written, "the text stays as it was written");
    for (written, why) in [
        (
            "SELECT descriptor(a) FROM t",
            "outside of a window function it is a function like any other",
        ),
        ("SELECT tumble FROM t", "a column may have the name"),
    ] {
        assert_eq!(query(written).to_string(), written, "{why}");
    }
}

#[test]
fn places_in_the_tree_are_places_in_the_whole_file() {
    let sql = "CREATE VIEW ä AS\n  SELECT 'ö', größe FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(öffnung)));\n\nSELECT nope";
    let text = text(sql);
    let parsed = parse(&text);
    let mut seen = Vec::new();
    for statement in &parsed.statements {
        let query = match &statement.kind {
            StatementKind::CreateView(view) => &view.query,
            StatementKind::Query(query) => query,
            other => panic!("{other:?}"),
        };
        let _: std::ops::ControlFlow<()> = ast::visit_expressions(query.as_ref(), |expression| {
            if let ast::Expr::Identifier(name) = expression {
                let span = byte_span(&text, name.span).unwrap();
                seen.push((name.value.clone(), sql[span.start..span.end].to_owned()));
            }
            std::ops::ControlFlow::Continue(())
        });
    }
    let same = |name: &str| (name.to_owned(), name.to_owned());
    assert_eq!(seen, [same("größe"), same("t"), same("öffnung"), same("nope")]);
    assert_eq!(
        byte_span(&text, datafusion::sql::sqlparser::tokenizer::Span::empty()),
        None,
        "a place that is none"
    );
}

#[test]
fn a_file_is_cut_at_semicolons() {
    for (sql, expected, why) in [
        ("", &[][..], "an empty file has no statements"),
        (" ; ;; -- only a comment\n", &[], "nor has one of comments"),
        ("SELECT 1", &["SELECT 1"], "the last semicolon may be missing"),
        (
            "SELECT ';'; SELECT \";\"",
            &["SELECT ';'", "SELECT \";\""],
            "quotes hide them",
        ),
        (
            "SELECT 1; -- SELECT 2;\n SELECT 3;",
            &["SELECT 1", "SELECT 3"],
            "comments hide them",
        ),
        (
            "SELECT 1\r\n;\r\nSELECT\t2\r\n",
            &["SELECT 1", "SELECT\t2"],
            "line breaks of any system",
        ),
    ] {
        let parsed = parse(&text(sql));
        assert!(parsed.diagnostics.is_empty(), "{why}: {:?}", parsed.diagnostics);
        let texts: Vec<&str> = parsed
            .statements
            .iter()
            .map(|statement| statement.text.as_str())
            .collect();
        assert_eq!(texts, expected, "{why}");
        for statement in &parsed.statements {
            assert_eq!(&sql[statement.span.start..statement.span.end], statement.text);
        }
    }
}

#[test]
fn a_sink_of_its_own_query_is_a_view_and_a_sink_of_it() {
    let text = "CREATE SINK \"S s\" WITH (connector = 'parquet', path = '/x') AS SELECT a FROM t EMIT ON WINDOW CLOSE";
    let StatementKind::CreateSink(sink) = one(text).kind else {
        panic!("a sink");
    };
    let own = sink.own_view.expect("a view of its own");
    assert_eq!(sink.view.value, "S s$rows");
    assert_eq!(own.create.name.value, "S s$rows");
    assert_eq!(own.create.emit.map(|emit| emit.value), Some(Emit::OnWindowClose));
    assert_eq!(sink.options.len(), 2);
    let view = "CREATE MATERIALIZED VIEW \"S s$rows\" AS SELECT a FROM t EMIT ON WINDOW CLOSE";
    assert_eq!(own.view_text, view);
    for text in [text, view] {
        assert_eq!(one(text).text, text, "each is a statement");
    }
}

#[test]
fn what_is_inserted_into_a_sink_without_rows_is_its_query() {
    let create = "CREATE SINK s (a BIGINT, b VARCHAR) WITH (connector = 'kafka')";
    let parsed = parse(&text(&format!(
        "{create};\nSELECT 1;\nINSERT INTO s (a, b) SELECT a, b FROM t EMIT ON WINDOW CLOSE"
    )));
    assert_eq!(parsed.diagnostics, []);
    let [_, statement] = parsed.statements.as_slice() else {
        panic!("{:?}", parsed.statements);
    };
    let StatementKind::CreateSink(sink) = &statement.kind else {
        panic!("a sink");
    };
    let names: Vec<&str> = sink.columns.iter().map(|column| column.name.value.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let own = sink.own_view.as_ref().expect("a view of its own");
    assert_eq!(
        own.view_text,
        "CREATE MATERIALIZED VIEW \"s$rows\" AS SELECT a, b FROM t EMIT ON WINDOW CLOSE"
    );
    assert_eq!(one(&statement.text).text, statement.text, "alone it is the same");

    for (behind, mistake) in [
        ("", "nothing is published into sink `s`"),
        ("INSERT INTO t SELECT a, b FROM s", "nothing is published into sink `s`"),
        (
            "INSERT INTO s (b, a) SELECT a, b FROM t",
            "a sink is given all its columns in their order: a, b",
        ),
        (
            "INSERT INTO s (a) SELECT a, b FROM t",
            "a sink is given all its columns in their order: a, b",
        ),
    ] {
        let parsed = parse(&text(&format!("{create};\n{behind}")));
        let messages: Vec<&str> = parsed
            .diagnostics
            .iter()
            .map(|mistake| mistake.message.as_str())
            .collect();
        assert_eq!(messages, [mistake], "{behind}");
    }
}
