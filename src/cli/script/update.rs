//! Writing what the engine answers into a script: to be read before it is believed.

use std::{fs, path::Path, sync::Arc};

use sqllogictest::{Runner, default_normalizer, default_validator, strict_column_validator, update_record_with_output};

use super::{file::Script, run::Connection, stage::Stage};

/// Runs a script as written and puts what came in place of what was expected. Returns whether anything changed.
///
/// # Errors
/// A sentence: the script cannot be read, run or written.
pub fn update(path: &Path) -> Result<bool, String> {
    let script = Script::read(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    let before = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", script.name))?;
    let after = runtime.block_on(updated(&script, &before))?;
    if before == after {
        return Ok(false);
    }
    fs::write(path, after).map_err(|error| format!("cannot write {}: {error}", script.name))?;
    Ok(true)
}

async fn updated(script: &Script, before: &str) -> Result<String, String> {
    let stage = Arc::new(Stage::open(script).await?);
    let mut runner = Runner::new(move || std::future::ready(Ok(Connection(Arc::clone(&stage)))));
    let mut text = String::new();
    for record in &script.records {
        let output = runner.apply_record(record.clone()).await;
        let changed = update_record_with_output(
            record,
            &output,
            " ",
            default_validator,
            default_normalizer,
            strict_column_validator,
        );
        text.push_str(&changed.unwrap_or_else(|| record.clone()).to_string());
        text.push('\n');
    }
    // Directives are comments among the records.
    let mut lines: Vec<&str> = text.trim_end().lines().collect();
    for (line, original) in lines.iter_mut().zip(before.lines()) {
        if line.strip_prefix('#') == Some(original) {
            *line = original;
        }
    }
    Ok(lines.join("\n") + "\n")
}
