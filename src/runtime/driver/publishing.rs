//! The sinks of a timeline while its epochs run.
//!
//! ```text
//! a new sink ─▶ an epoch of no rows, with a checkpoint ─▶ its whole view as of that epoch ─▶ what each epoch after it changes
//! ```

use std::sync::{Arc, atomic::Ordering};

use arrow::array::RecordBatch;

use crate::{
    connector::{Publisher, SinkEpoch},
    plan::SinkDefinition,
    runtime::{
        face::SourceState,
        outlet::Outlet,
        outlets::{check_published_again, definition_of},
        reader::TICK,
        timeline::Ran,
    },
    types::{Error, Result},
};

use super::Run;

impl Run {
    pub(super) fn start_sink(&mut self, definition: Arc<SinkDefinition>) -> Result<()> {
        let Some(state) = self.timeline.identity().map(str::to_owned) else {
            return Err(Error::user(format!(
                "sink `{}` needs a state folder, which says after a crash what is published; start without --no-state",
                definition.name
            )));
        };
        let before = self.timeline.sinks().get(&definition.name);
        if before.is_some_and(|progress| progress.definition != definition_of(&definition)) {
            // Another sink of this name: it begins with all rows.
            self.timeline.forget_sink(&definition.name);
        }
        let publisher = Publisher {
            sink: definition.name.clone(),
            state,
            generation: self.timeline.shared().generation,
            instance: self.host.nonce(),
            takes_over: self.resets_sinks,
            shares_state: self.timeline.shares_state(),
        };
        let before = self.outlets.take_leaving(&definition.name);
        let outlet = Outlet::start(
            definition,
            before,
            &self.registry,
            publisher,
            Arc::clone(self.timeline.shared()),
            self.timeline.metrics(),
            Arc::clone(&self.host),
        )?;
        self.outlets.all.push(outlet);
        Ok(())
    }

    pub(super) fn remove_sink(&mut self, name: &str) {
        self.sinks.retain(|sink| sink.name != name);
        self.outlets.let_go(|outlet| outlet == name);
        self.timeline.forget_sink(name);
        let shared = self.timeline.shared();
        shared
            .sinks
            .lock()
            .expect("nobody panics while holding it")
            .remove(name);
    }

    /// Lets new sinks begin, with their views as they are; `false` where that waits for others, or the engine stops.
    pub(super) fn begin_sinks(&mut self) -> Result<bool> {
        if self.host.elapsed() < self.sinks_begin_from {
            return Ok(true);
        }
        let is_new = |outlet: &&Outlet| !self.timeline.sinks().contains_key(outlet.name());
        let mut new = Vec::new();
        for outlet in self.outlets.all.iter().filter(is_new) {
            // One that does not answer yet begins later.
            if let Some(published) = outlet.published()? {
                self.check_journal(outlet.name(), published)?;
                new.push(Arc::clone(&outlet.definition));
            }
        }
        if new.is_empty() {
            return Ok(true);
        }
        // Going back for others may have met the definition of before.
        for sink in new.iter().filter(|sink| self.timeline.publishes_again(sink)) {
            check_published_again(sink, &self.registry)?;
        }
        // Its first checkpoint must do for the others too.
        if !self.outlets.are_drained(self.timeline.sinks()) {
            // Epochs go on where the others do not answer: then it begins later.
            return Ok(!self.sinks_are_running());
        }
        let epoch = self.timeline.epoch().next();
        for sink in &new {
            self.timeline.begin_sink(sink, epoch);
        }
        if !self.run_empty()? {
            // Nothing was published: it begins at a later epoch. A full disk keeps nobody else waiting.
            let interval = self.timeline.bounds().checkpoint_interval;
            self.sinks_begin_from = self.host.elapsed().saturating_add(interval);
            let reason = format!(
                "it begins with a checkpoint, which is not written: {}; tried again every {} s",
                self.checkpoint_failure.as_deref().unwrap_or("no reason is known"),
                interval.as_secs()
            );
            for sink in &new {
                self.timeline.forget_sink(&sink.name);
                self.show_sink(&sink.name, SourceState::Starting, Some(reason.clone()));
            }
            return Ok(true);
        }
        // That epoch may have changed the views of others.
        while !self.outlets.are_drained(self.timeline.sinks()) {
            self.sinks_have_room()?;
            if self.stop.load(Ordering::Relaxed) {
                // Its view is not staged, so that no later epoch may be: the next start begins with that checkpoint.
                for sink in &new {
                    self.timeline.forget_sink(&sink.name);
                }
                return Ok(false);
            }
            self.sleep(TICK);
        }
        for sink in &new {
            self.show_sink(&sink.name, SourceState::Running, None);
        }
        self.stage_views(&new.iter().map(|sink| sink.name.clone()).collect::<Vec<_>>())?;
        Ok(true)
    }

    /// Of one that has begun to publish nothing yet: its own thread waits, and shows nothing.
    fn show_sink(&self, name: &str, state: SourceState, reason: Option<String>) {
        let shared = self.timeline.shared();
        let mut sinks = shared.sinks.lock().expect("nobody panics while holding it");
        if let Some(status) = sinks.get_mut(name) {
            (status.state, status.reason) = (state, reason);
        }
    }

    /// All rows of their views, as this epoch left them.
    pub(super) fn stage_views(&self, sinks: &[String]) -> Result<()> {
        for name in sinks {
            let outlet = self.outlets.of(name).expect("asked above");
            let added = self.timeline.rows_of(&outlet.definition.view.name)?;
            let removed = RecordBatch::new_empty(added.schema());
            let epoch = self.timeline.epoch();
            tracing::info!(
                sink = name,
                epoch = epoch.0,
                rows = added.num_rows(),
                "sink begins with its view"
            );
            outlet.stage_epoch(SinkEpoch { epoch, added, removed });
        }
        Ok(())
    }

    /// What a committed epoch did to the views of sinks is theirs to publish.
    pub(super) fn stage(&mut self, ran: &Ran) {
        for outlet in &self.outlets.all {
            let change = self
                .timeline
                .change_for_sink(outlet.name(), &outlet.definition.view.name, ran);
            if let Some(change) = change {
                outlet.stage(change);
            }
        }
    }

    pub(super) fn sinks_are_running(&self) -> bool {
        let sinks = self
            .timeline
            .shared()
            .sinks
            .lock()
            .expect("nobody panics while holding it");
        sinks.values().all(|sink| sink.state == SourceState::Running)
    }

    /// # Errors
    /// Where a sink will publish nothing any more.
    pub(super) fn sinks_have_room(&self) -> Result<bool> {
        for outlet in &self.outlets.all {
            outlet.published()?;
        }
        Ok(self.outlets.have_room())
    }
}
