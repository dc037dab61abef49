//! Writing what the engine answers into a script: to be read before it is believed.

use std::{fs, path::Path, sync::Arc};

use sqllogictest::{
    Record, RecordOutput, Runner, StatementExpect, default_normalizer, default_validator, strict_column_validator,
    update_record_with_output,
};

use crate::sql::BYTE_ORDER_MARK;

use super::{
    failure::Failure,
    file::{Script, ScriptRecord, is_run},
    run::{Connection, Stop},
    stage::Stage,
    trial::{Broken, End, as_written},
};

type Output = RecordOutput<sqllogictest::DefaultColumnType>;

/// Runs a script as written and puts the rows that came in place of those that its queries expected. Returns whether anything changed.
///
/// # Errors
/// The script cannot be read, run or written; or something else than the rows of a query is not as expected: then it stays as it is, since
/// what follows a statement that fails says nothing.
pub fn update(path: &Path) -> Result<bool, End> {
    let script = Script::read(path).map_err(End::Unusable)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| End::Unusable(format!("cannot start: {error}")))?;
    let before =
        fs::read_to_string(path).map_err(|error| End::Unusable(format!("cannot read {}: {error}", script.name)))?;
    let after = runtime.block_on(updated(&script, &before)).map_err(|stop| match stop {
        Stop::Unusable(text) => End::Unusable(text),
        Stop::Failed(failure) => End::Failed(Box::new(Broken {
            failure,
            perturbations: Vec::new(),
            command: as_written(&script.name),
        })),
    })?;
    if before == after {
        return Ok(false);
    }
    fs::write(path, after).map_err(|error| End::Unusable(format!("cannot write {}: {error}", script.name)))?;
    Ok(true)
}

async fn updated(script: &Script, before: &str) -> Result<String, Stop> {
    let stage = Arc::new(Stage::open(script).await.map_err(Stop::Unusable)?);
    let mut runner = Runner::new(move || std::future::ready(Ok(Connection(Arc::clone(&stage)))));
    let mut text = String::new();
    for (index, record) in script.records.iter().enumerate() {
        let output = runner.apply_record(record.clone()).await;
        let record = updated_record(record, &output).map_err(|mut failure| {
            failure.line = script.line(index);
            Stop::Failed(failure)
        })?;
        text.push_str(&record.to_string());
        text.push('\n');
    }
    let (mark, before) = match before.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => (BYTE_ORDER_MARK.to_string(), rest),
        None => (String::new(), before),
    };
    // Directives are comments among the records.
    let mut lines: Vec<&str> = text.trim_end().lines().collect();
    for (line, original) in lines.iter_mut().zip(before.lines()) {
        if line.strip_prefix('#') == Some(original) {
            *line = original;
        }
    }
    Ok(mark + &lines.join("\n") + "\n")
}

/// The record with the rows that came, where it is a query that expects some; as it is, where it holds.
fn updated_record(record: &ScriptRecord, output: &Output) -> Result<ScriptRecord, Failure> {
    let changed = update_record_with_output(
        record,
        output,
        " ",
        default_validator,
        default_normalizer,
        strict_column_validator,
    );
    match changed {
        Some(changed) if changed.to_string() != record.to_string() => match (record, output) {
            (
                Record::Query {
                    expected: sqllogictest::QueryExpect::Results { .. },
                    ..
                },
                RecordOutput::Query { error: None, .. },
            ) => Ok(changed),
            _ if is_run(record) => Err(failure(record, output)),
            _ => Ok(record.clone()),
        },
        _ if expects_error(record) && error_of(output).is_none() => Err(failure(record, output)),
        _ => Ok(record.clone()),
    }
}

fn expects_error(record: &ScriptRecord) -> bool {
    matches!(
        record,
        Record::Statement {
            expected: StatementExpect::Error(_),
            ..
        }
    )
}

fn error_of(output: &Output) -> Option<&(dyn std::error::Error + Send + Sync)> {
    match output {
        RecordOutput::Query { error, .. } | RecordOutput::Statement { error, .. } => error.as_deref(),
        _ => None,
    }
}

fn failure(record: &ScriptRecord, output: &Output) -> Failure {
    let error = error_of(output);
    let sql = match record {
        Record::Statement { sql, .. } | Record::Query { sql, .. } => sql.as_str(),
        _ => "",
    };
    let mut failure = Failure::new(
        0,
        match error {
            Some(_) => "it fails, and not as expected: only rows of queries are written",
            None => "it works, and not as expected: only rows of queries are written",
        },
    );
    failure.details = sql.lines().map(|line| format!("  {line}")).collect();
    failure.details.extend(error.map(|error| format!("error: {error}")));
    failure
}
