//! Definitions that were made while the pipeline ran: kept until they are dropped, and taken up behind those of the files.
//!
//! ```text
//! CREATE ─▶ it runs ─▶ kept, synced ─▶ answer           DROP ─▶ forgotten, synced ─▶ it ends ─▶ answer
//! start: files ─▶ those kept, in the order in which they were made; where both define a name, the file wins
//! ```

use crate::{
    connector::TableLog,
    plan::Relation,
    sql::{self, SourceText, StatementKind},
    state::{KeptCatalog, KeptStatement, Place, Store},
    types::{Error, Result},
};

use super::engine::Engine;

/// Where definitions are kept that are made from now on.
pub(super) struct Kept {
    catalog: KeptCatalog,
    /// The sources and tables of the files.
    sources: Vec<String>,
}

/// What was taken up.
#[derive(Debug, Default)]
pub struct Recalled {
    /// Names, in the order in which they were made.
    pub taken: Vec<String>,
    /// What the files define otherwise, as sentences.
    pub told: Vec<String>,
    /// What the files define: to be forgotten once the pipeline runs.
    superseded: Vec<KeptStatement>,
    /// The sources and tables of the files.
    sources: Vec<String>,
}

impl Engine {
    /// The sources and tables that are defined.
    pub(super) fn source_names(&self) -> Vec<String> {
        let catalog = self.catalog();
        let sources = catalog
            .iter()
            .filter(|relation| matches!(relation, Relation::Source(_) | Relation::Table(_)));
        sources.map(|relation| relation.name().to_owned()).collect()
    }

    /// Takes up what was defined while the pipeline ran before. Behind the files, before `start`.
    ///
    /// # Errors
    /// Where that is damaged, or does not fit what the files define now.
    pub async fn recall(&self, state: &Place) -> Result<Recalled> {
        let mut recalled = Recalled {
            sources: self.source_names(),
            ..Recalled::default()
        };
        for kept in KeptCatalog::of(state).statements()? {
            if !kept.belongs_to(&recalled.sources) {
                continue;
            }
            if let Some((kind, sql)) = self.defined_as(&kept) {
                if sql::normalized(&sql) != sql::normalized(&kept.sql) {
                    recalled.told.push(format!(
                        "{kind} `{}` was made over HTTP, and the file defines it otherwise: the file wins, and what was made is forgotten: {}",
                        kept.name,
                        sql::on_one_line(&kept.sql)
                    ));
                }
                recalled.superseded.push(kept);
                continue;
            }
            let text = SourceText::new("a statement made over HTTP", kept.sql.clone());
            if let Err(diagnostics) = self.apply(&text, sql::parse(&text)).await {
                let wrong: Vec<&str> = diagnostics
                    .iter()
                    .map(|diagnostic| diagnostic.message.as_str())
                    .collect();
                return Err(Error::user(format!(
                    "`{}` was made over HTTP, and cannot be defined any more: {}; put back into the file what it needs, \
                     or forget it with --forget {}: {}",
                    kept.name,
                    wrong.join("; "),
                    kept.name,
                    sql::on_one_line(&kept.sql)
                )));
            }
            recalled.taken.push(kept.name);
        }
        Ok(recalled)
    }

    /// From now on keeps what is defined, and forgets what the files define that was taken up. Behind `start`.
    ///
    /// # Errors
    /// Where the files of the state cannot be written.
    pub fn keep_definitions(&self, state: &Place, recalled: Recalled) -> Result<()> {
        let sources = recalled.sources;
        let catalog = KeptCatalog::of(state);
        for kept in &recalled.superseded {
            catalog.forget(&kept.name, kept.is_function, &sources)?;
        }
        *self.0.kept.lock().expect("nobody panics while holding it") = Some(Kept { catalog, sources });
        Ok(())
    }

    /// Forgets what was defined while the pipeline ran before, and what was computed for it. Behind the files, before `start`.
    ///
    /// # Errors
    /// Where the files of the state cannot be written, or another process uses what they are of.
    pub fn forget_all_made(&self, state: &Place) -> Result<()> {
        let catalog = KeptCatalog::of(state);
        let sources = self.source_names();
        let statements = match catalog.statements() {
            Ok(statements) => statements,
            Err(error @ Error::State(_)) => {
                tracing::warn!(%error, "what was defined while pipelines ran is forgotten unread");
                return catalog.remove();
            }
            Err(error) => return Err(error),
        };
        for kept in statements.iter().filter(|kept| kept.belongs_to(&sources)) {
            if self.has_folder(kept) {
                self.forget_folder(&kept.name, None)?;
            }
            catalog.forget(&kept.name, kept.is_function, &sources)?;
            tracing::info!(name = kept.name, "what was made over HTTP is forgotten");
        }
        Ok(())
    }

    /// Forgets one thing that was defined while the pipeline ran before, and what was computed for it. Behind the files, before `recall`.
    ///
    /// # Errors
    /// Where there is none of that name, or another process uses what it is of.
    pub fn forget_made(&self, state: &Place, name: &str) -> Result<()> {
        let (catalog, sources) = (KeptCatalog::of(state), self.source_names());
        let is_it = |kept: &KeptStatement| kept.name == name && kept.belongs_to(&sources) && self.has_folder(kept);
        if catalog.statements()?.iter().any(is_it) {
            self.forget_folder(name, None)?;
        }
        let relation = catalog.forget(name, false, &sources)?;
        let function = catalog.forget(name, true, &sources)?;
        if relation.is_some() || function.is_some() {
            return Ok(());
        }
        let kept = catalog.statements()?;
        let names: Vec<&str> = (kept.iter())
            .filter(|kept| kept.belongs_to(&sources))
            .map(|kept| kept.name.as_str())
            .collect();
        Err(Error::user(match names.as_slice() {
            [] => format!("--forget {name}: nothing was made over HTTP"),
            names => format!("--forget {name}: it was not made over HTTP; {} were", names.join(", ")),
        }))
    }

    /// Whether it is a source or table, which have folders, and not one that the files define by now: what is in the folder is theirs then.
    fn has_folder(&self, kept: &KeptStatement) -> bool {
        let parsed = sql::parse(&SourceText::new("a statement made over HTTP", kept.sql.clone()));
        let is_of_rows = parsed.statements.iter().any(|statement| {
            matches!(
                statement.kind,
                StatementKind::CreateSource(_) | StatementKind::CreateTable(_)
            )
        });
        is_of_rows && !kept.is_function && self.defined_as(kept).is_none()
    }

    /// Forgets what was computed for a source or table that is not there any more, and what was written to it: the next one of its name has
    /// nothing of it.
    /// `generation` is that of its timeline, where it ran.
    pub(super) fn forget_folder(&self, name: &str, generation: Option<u64>) -> Result<()> {
        let Some(folder) = self.folder(name) else {
            return Ok(());
        };
        Store::reset(&folder, generation)?;
        // A table is kept on this machine only.
        folder.on_this_machine().map_or(Ok(()), TableLog::remove)
    }

    /// Keeps a definition that runs. After an error it is not kept.
    pub(super) fn keep_made(&self, name: &str, is_function: bool, sql: &str) -> Result<()> {
        let kept = self.0.kept.lock().expect("nobody panics while holding it");
        let Some(Kept { catalog, sources }) = &*kept else {
            return Ok(());
        };
        catalog.make(&KeptStatement {
            name: name.to_owned(),
            is_function,
            sql: sql.to_owned(),
            beside: sources.clone(),
        })
    }

    /// Forgets one that is being dropped; returns it where it was kept.
    pub(super) fn keep_gone(&self, name: &str, is_function: bool) -> Result<Option<KeptStatement>> {
        let kept = self.0.kept.lock().expect("nobody panics while holding it");
        match &*kept {
            Some(Kept { catalog, sources }) => catalog.forget(name, is_function, sources),
            None => Ok(None),
        }
    }

    /// What has the name of a kept statement by now: its kind and text.
    fn defined_as(&self, kept: &KeptStatement) -> Option<(&'static str, String)> {
        let catalog = self.catalog();
        match kept.is_function {
            true => catalog
                .functions
                .get(&kept.name)
                .map(|function| ("function", function.sql.clone())),
            false => catalog
                .get(&kept.name)
                .map(|relation| (relation.kind(), relation.sql().to_owned())),
        }
    }
}
