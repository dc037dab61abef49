//! Which scripts are meant: the files that were named, and every `*.slt` below the folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Files as they are named and the scripts below folders, each once, in the order of their names.
///
/// # Errors
/// A sentence for each path that cannot be read or holds no script.
pub fn scripts_below(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Vec<String>> {
    let (mut found, mut mistakes) = (Vec::new(), Vec::new());
    for path in paths {
        match below(path) {
            Ok(scripts) if scripts.is_empty() => mistakes.push(format!(
                "no script in {}: their names end in .slt (see docs/testing.md)",
                path.display()
            )),
            Ok(scripts) => found.extend(scripts),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn below(path: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if !fs::metadata(path).map_err(cannot)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(cannot)?);
        if kind.is_dir() {
            found.extend(below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
    Ok(found)
}
