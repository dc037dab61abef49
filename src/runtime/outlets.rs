//! The sinks of a timeline: where each of them began, how far it is, and which checkpoints they need.
//!
//! ```text
//! checkpoint 40 ── 41 ── 42 ── 43 ── 44 ── checkpoint 45 ── 46
//!                         └ published           a sink that is here needs 40: the rows of 43 and 44 are made again from there
//! ```

use std::{collections::BTreeMap, time::Duration};

use crate::{
    plan::{Registry, SinkDefinition},
    types::{Epoch, Error, Result},
};

use super::{
    host::{Host, Worker},
    outlet::Outlet,
};

/// How a sink stands to the state, as a checkpoint has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SinkProgress {
    /// It was made of the whole view as it was at this epoch, and follows it from there.
    pub since: Epoch,
    /// The last epoch that changed its view.
    pub last_change: Epoch,
    pub view: String,
    /// What it publishes and where.
    pub definition: String,
}

pub type SinkProgresses = BTreeMap<String, SinkProgress>;

/// What makes it another sink.
pub fn definition_of(sink: &SinkDefinition) -> String {
    let option = |name: &str| sink.connector_options.get(name).unwrap_or_default().to_owned();
    let (topic, path) = (option("topic"), option("path"));
    // They are in the bytes of each record.
    let of_format: String = sink
        .format_options
        .iter()
        .map(|(name, value)| format!(", {name} {value}"))
        .collect();
    format!(
        "{} as {}{of_format} of {} to {topic}{path}",
        sink.view.name, sink.format, sink.connector
    )
}

/// Whether a sink may publish all rows of its view though it has published some before.
///
/// # Errors
/// [`Error::User`] with what to do, where these would stand there twice.
pub fn check_published_again(sink: &SinkDefinition, registry: &Registry) -> Result<()> {
    if registry.sink(&sink.connector).is_none_or(|spec| spec.takes_changes) {
        return Ok(());
    }
    let (name, view) = (&sink.name, &sink.view.name);
    Err(Error::user(format!(
        "`{view}` has other rows now, so that sink `{name}` would publish all of them again, and connector '{}' takes back none of those \
         that are there: give the sink another `path` or another name, or put the definition of `{view}` back",
        sink.connector
    )))
}

/// Those of one timeline.
#[derive(Default)]
pub struct Outlets {
    pub all: Vec<Outlet>,
    /// Threads of those that were let go, by name.
    leaving: Vec<(String, Box<dyn Worker>)>,
    /// Checkpoints that are there and may be needed, oldest first.
    checkpoints: Vec<(Epoch, SinkProgresses)>,
}

impl Outlets {
    pub fn of(&self, name: &str) -> Option<&Outlet> {
        self.all.iter().find(|outlet| outlet.name() == name)
    }

    /// Lets those of these names go; what they are at is not waited for.
    pub fn let_go(&mut self, is_gone: impl Fn(&str) -> bool) {
        self.leaving.retain(|(_, worker)| !worker.is_finished());
        for outlet in self.all.extract_if(.., |outlet| is_gone(outlet.name())) {
            let name = outlet.name().to_owned();
            self.leaving.extend(outlet.leave().map(|worker| (name, worker)));
        }
    }

    /// The threads of those of a name that were let go: who takes their place waits for them.
    pub fn take_leaving(&mut self, name: &str) -> Vec<Box<dyn Worker>> {
        let of_name = self.leaving.extract_if(.., |(leaving, _)| leaving == name);
        of_name.map(|(_, worker)| worker).collect()
    }

    /// Of those that are known to the state, by name, once they were asked.
    ///
    /// # Errors
    /// Why one of them will publish nothing any more.
    pub fn published_of(&self, known: &SinkProgresses) -> Result<Option<BTreeMap<String, Epoch>>> {
        let mut published = BTreeMap::new();
        for outlet in self.all.iter().filter(|outlet| known.contains_key(outlet.name())) {
            let Some(epoch) = outlet.published()? else {
                return Ok(None);
            };
            published.insert(outlet.name().to_owned(), epoch);
        }
        Ok(Some(published))
    }

    /// One of those that are known to the state, and that were not asked yet how far they are.
    pub fn first_unasked(&self, known: &SinkProgresses) -> Option<&str> {
        let mut known = self.all.iter().filter(|outlet| known.contains_key(outlet.name()));
        let unasked = known.find(|outlet| matches!(outlet.published(), Ok(None)));
        unasked.map(Outlet::name)
    }

    /// Nothing more is published; what is under way is not waited for longer than `wait`.
    pub fn end(&mut self, wait: Duration, host: &dyn Host) {
        self.all.iter().for_each(Outlet::ask_to_end);
        let until = host.elapsed() + wait;
        for outlet in &mut self.all {
            outlet.end(until.saturating_sub(host.elapsed()), host);
        }
    }

    pub fn have_room(&self) -> bool {
        self.all.iter().all(Outlet::has_room)
    }

    /// Whether those that have begun have published all.
    pub fn are_drained(&self, begun: &SinkProgresses) -> bool {
        let mut begun = self.all.iter().filter(|outlet| begun.contains_key(outlet.name()));
        begun.all(Outlet::is_drained)
    }

    /// A checkpoint is there, or will be.
    pub fn note_checkpoint(&mut self, epoch: Epoch, progresses: &SinkProgresses) {
        self.checkpoints.push((epoch, progresses.clone()));
    }

    /// The oldest checkpoint that is still needed; `None` where the sinks need none.
    pub fn needed_checkpoint(&mut self) -> Option<Epoch> {
        let newest = self.checkpoints.last().map(|(_, progresses)| progresses.clone())?;
        let published = match self.published_of(&newest) {
            Ok(Some(published)) => published,
            // Who does not know keeps everything.
            Ok(None) | Err(_) => return self.checkpoints.first().map(|(epoch, _)| *epoch),
        };
        if published.is_empty() {
            self.checkpoints.clear();
            return None;
        }
        let newest_enough =
            (self.checkpoints.iter()).rposition(|(epoch, progresses)| is_enough(*epoch, progresses, &published));
        self.checkpoints.drain(..newest_enough.unwrap_or(0));
        self.checkpoints.first().map(|(epoch, _)| *epoch)
    }
}

/// Whether everything that is not published can be made again from a checkpoint.
pub fn is_enough(checkpoint: Epoch, progresses: &SinkProgresses, published: &BTreeMap<String, Epoch>) -> bool {
    progresses.iter().all(|(sink, progress)| match published.get(sink) {
        // It begins with the view as this checkpoint has it.
        Some(published) if *published < progress.since => checkpoint == progress.since,
        Some(published) => progress.last_change <= *published,
        // It is not there any more.
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_enough_where_all_before_it_is_published_or_it_is_where_a_sink_begins() {
        let progress = |since, last_change| SinkProgress {
            since: Epoch(since),
            last_change: Epoch(last_change),
            view: String::new(),
            definition: String::new(),
        };
        let published = |epoch| BTreeMap::from([("s".to_owned(), Epoch(epoch))]);
        for (checkpoint, since, last_change, is_at, expected) in [
            (45, 0, 44, 42, false),
            (45, 0, 42, 42, true),
            (45, 0, 40, 42, true),
            (45, 45, 45, 42, true),
            (46, 45, 45, 42, false),
            (46, 45, 45, 45, true),
        ] {
            let progresses = BTreeMap::from([("s".to_owned(), progress(since, last_change))]);
            let found = is_enough(Epoch(checkpoint), &progresses, &published(is_at));
            assert_eq!(
                found, expected,
                "checkpoint {checkpoint}, since {since}, last {last_change}, at {is_at}"
            );
        }
        assert!(is_enough(Epoch(1), &BTreeMap::new(), &published(0)));
    }
}
