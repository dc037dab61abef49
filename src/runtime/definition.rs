//! What a state is of, kept with it as text, and what becomes of the views of now when they meet it.
//!
//! ```text
//! kept text ─┬─▶ another source ──────────────────▶ refused
//! views now ─┴─▶ a view whose state is of no use ─▶ refused, unless the start was told to compute it anew
//!               └ the others ─────────────────────▶ go on, or take up what the views below them hold
//! ```

use std::{collections::BTreeSet, path::Path, sync::Arc};

use crate::{
    plan::{Change, Outlines, Relation, Shapes, SinkDefinition, changes_of},
    state::{Place, definition_of, folders},
    types::{Error, Result, folder_name},
};

use super::engine::Engine;

/// Which views a start computes anew from the rows of their source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuild {
    pub views: BTreeSet<String>,
    /// Also where the source does not have all of its rows any more.
    pub takes_what_is_left: bool,
}

/// What becomes of the views of a source.
pub struct Changes {
    /// Of now in the order of creation, those that are gone behind.
    pub views: Vec<Change>,
    pub has_other_watermark: bool,
}

/// What becomes of each view on the state of `before`, in which those of `failed` have set rows aside.
///
/// # Errors
/// [`Error::State`] with the difference and the ways out, where the source is another one, or a view would have to be computed anew
/// and the start was not told so.
pub fn changes(
    before: &str,
    now: &Outlines,
    rebuild: &Rebuild,
    failed: &BTreeSet<String>,
    folder: &Path,
) -> Result<Changes> {
    let before = Shapes::of_text(before).map_err(|error| Error::state(format!("{}: {error}", folder.display())))?;
    let views = changes_of(&before, now, &rebuild.views, Some(failed)).map_err(|differences| {
        let kept = match now.shapes.source.is_table {
            true => ", which keeps the rows of tables",
            false => "",
        };
        Error::state(format!(
            "the state in {} was made by another definition:\n  {}\nput the definition back, choose another folder with --state, or start over with --reset{kept}",
            folder.display(),
            differences.join("\n  ")
        ))
    })?;
    let refused: Vec<&Change> = (views.iter())
        .filter(|change| change.verdict.needs_rebuild() && !rebuild.views.contains(&change.view))
        .collect();
    if !refused.is_empty() {
        return Err(refusal(&refused, &before, &now.shapes, folder));
    }
    Ok(Changes {
        views,
        has_other_watermark: before.source.watermark.is != now.shapes.source.watermark.is,
    })
}

/// What becomes of a source that an edited pipeline has, or had.
pub struct SourceChanges {
    pub source: String,
    /// Of each view; an error with what differs, where the source is another one.
    pub outcome: Result<Vec<Change>, Vec<String>>,
    /// It was not there before: nothing is kept of it.
    pub is_new: bool,
}

impl SourceChanges {
    /// Whether a start goes on without being told more.
    pub fn is_taken_up(&self) -> bool {
        let changes = self.outcome.as_ref();
        changes.is_ok_and(|changes| changes.iter().all(|change| self.goes_on(change)))
    }

    /// Whether it does so with one of the views.
    pub fn goes_on(&self, change: &Change) -> bool {
        self.is_new || !change.verdict.needs_rebuild()
    }
}

impl Engine {
    fn outlines(&self) -> Vec<Outlines> {
        let catalog = self.catalog();
        let sources = catalog.iter().filter_map(|relation| match relation {
            Relation::Source(source) => Some(source),
            Relation::Table(table) => Some(&table.source),
            _ => None,
        });
        let outlines = sources.map(|source| Outlines::of(source, &catalog.views_of(&source.name)));
        outlines.collect()
    }

    /// What is defined, a source or table each, as a state keeps it.
    pub fn shapes(&self) -> Vec<Shapes> {
        self.outlines().into_iter().map(|outlines| outlines.shapes).collect()
    }

    /// Says which sinks have to publish all rows of their view again. Which of them have published any is not looked at.
    fn tell_of_sinks(&self, sinks: &[Arc<SinkDefinition>], before: &Shapes, changes: &mut [Change]) {
        for sink in sinks.iter().filter(|sink| before.view(&sink.view.name).is_some()) {
            let change = changes.iter_mut().find(|change| change.view == sink.view.name);
            let Some(change) = change.filter(|change| !change.lets_sinks_go_on(false)) else {
                continue;
            };
            let spec = self.0.registry.sink(&sink.connector);
            // What it published before is not kept, so that nobody knows which keys it would have to take back.
            let left = match sink.view.stream.is_append_only {
                true => "",
                false => ", and takes back none that are gone",
            };
            change.reasons.push(match spec.is_none_or(|spec| spec.takes_changes) {
                true => format!(
                    "sink `{}` publishes all rows again{left}, if it has published any",
                    sink.name
                ),
                false => format!(
                    "sink `{}` takes no rows back: if it has published any, a start is refused until it has another `path` or name",
                    sink.name
                ),
            });
        }
    }

    /// What becomes of what was defined `before`, by source, those that are gone behind.
    pub fn changes_since(&self, before: &[Shapes], rebuild: &Rebuild) -> Vec<SourceChanges> {
        let mut all = Vec::new();
        let outlines = self.outlines();
        for now in &outlines {
            let source = now.shapes.source.name.clone();
            let of_before = before.iter().find(|shapes| shapes.source.name == source);
            // Nothing of itself is what a new one begins with.
            let begins = now.shapes.without_views();
            let mut outcome = changes_of(of_before.unwrap_or(&begins), now, &rebuild.views, None);
            if let (Ok(changes), Some(before)) = (&mut outcome, of_before) {
                self.tell_of_sinks(&self.catalog().sinks_of(&source), before, changes);
            }
            all.push(SourceChanges {
                source,
                outcome,
                is_new: of_before.is_none(),
            });
        }
        let is_gone = |shapes: &&Shapes| !outlines.iter().any(|now| now.shapes.source.name == shapes.source.name);
        for gone in before.iter().filter(is_gone) {
            all.push(SourceChanges {
                source: gone.source.name.clone(),
                outcome: Ok(gone.views.iter().map(|view| Change::dropped(&view.name)).collect()),
                is_new: false,
            });
        }
        all
    }

    /// What the states of the sources and tables that are defined are of. Others in the folder are of other pipelines, and not looked at.
    ///
    /// # Errors
    /// Where one of them cannot be read, or was written by another version.
    pub fn kept_shapes(&self, state: &Place) -> Result<Vec<Shapes>> {
        let own: BTreeSet<String> = self.source_names().iter().map(|name| folder_name(name)).collect();
        let is_own = |folder: &Place| {
            let name = folder.root.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| own.contains(name))
        };
        let mut all = Vec::new();
        for folder in folders(state)?.into_iter().filter(is_own) {
            if let Some(text) = definition_of(&folder)? {
                let shapes = Shapes::of_text(&text);
                all.push(shapes.map_err(|error| Error::state(format!("{}: {error}", folder.root.display())))?);
            }
        }
        Ok(all)
    }
}

fn refusal(refused: &[&Change], before: &Shapes, now: &Shapes, folder: &Path) -> Error {
    let mut lines = Vec::new();
    for change in refused {
        match change.reasons.as_slice() {
            [] => lines.push(format!(
                "view `{}` is new, and reads rows of source `{}` that are read already",
                change.view, now.source.name
            )),
            reasons => lines.extend(reasons.iter().cloned()),
        }
    }
    let (was, is) = (texts(before, refused), texts(now, refused));
    lines.extend(was.difference(&is).map(|line| format!("- {line}")));
    lines.extend(is.difference(&was).map(|line| format!("+ {line}")));
    let rebuild: Vec<String> = refused
        .iter()
        .map(|change| format!("--rebuild {}", change.view))
        .collect();
    Error::state(format!(
        "the state in {} was made by another definition:\n  {}\nput the definition back, compute anew with {}, choose another folder with --state, or start over with --reset",
        folder.display(),
        lines.join("\n  "),
        rebuild.join(" ")
    ))
}

/// The texts that decide about these views.
fn texts(shapes: &Shapes, refused: &[&Change]) -> BTreeSet<String> {
    let is_refused = |name: &str| refused.iter().any(|change| change.view == name);
    let views = shapes.views.iter().filter(|view| is_refused(&view.name));
    let functions = shapes
        .functions
        .iter()
        .map(|(name, sql)| format!("function {name}: {sql}"));
    views
        .map(|view| format!("view {}: {}", view.name, view.sql))
        .chain(functions)
        .collect()
}
