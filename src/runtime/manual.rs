//! The manual mode of scripts: no threads, an epoch runs when a statement says so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    connector::Source,
    plan::Relation,
    types::{
        EpochPlan, Error, EventTime, PlannedRange, Result, SplitId,
        planted::{Bug, has},
    },
};

use super::{
    engine::{Engine, Mode},
    face::*,
    intake::{Intake, SplitRows},
    silence::Silence,
    timeline::Timeline,
    view_change::ViewChange,
};

/// A source whose epochs a script runs.
pub struct ManualSource {
    timeline: Timeline,
    source: Box<dyn Source>,
    intake: Intake,
    silence: Silence,
    /// Why an epoch failed. Its timeline is half an epoch ahead: none follows before it is opened anew.
    failure: Option<String>,
}

/// How an epoch of a script ends.
#[derive(Clone, Debug, Default)]
pub struct StepEnd {
    /// Rows that the epoch takes at most; all where absent.
    pub rows_max: Option<usize>,
    pub idle_splits: Vec<SplitId>,
    /// Input is taken as complete below it.
    pub complete_below: Option<EventTime>,
    pub is_last: bool,
    pub checkpoint: bool,
}

impl Engine {
    /// Opens the timeline of a source that was defined, or of the source of a view that was, anew.
    pub(super) fn open_manual(&self, relation: &Relation) -> Result<()> {
        if self.0.options.mode != Mode::Manual {
            return Ok(());
        }
        let catalog = self.catalog();
        let source = match relation {
            Relation::Source(source) => Arc::clone(source),
            Relation::Table(table) => Arc::clone(&table.source),
            Relation::Materialized(view) => Arc::clone(catalog.source(&view.source).expect("a view's source is there")),
            _ => return Ok(()),
        };
        let mut manual = self.0.manual.lock().expect("nobody panics while holding it");
        // The state folder is locked by the one that is there.
        manual.remove(&source.name);
        let folder = self.folder(&source.name);
        let mut timeline = Timeline::open(
            Arc::clone(&source),
            &catalog,
            folder,
            Arc::clone(&self.0.metrics),
            &self.0.bounds,
            self.rebuild_of(),
        )?;
        let mut input = (self.connector_of(&source)?)(&source.name, &source.connector_options)?;
        let mut intake = Intake::new(&source, timeline.needed(), &self.0.registry)?;
        let bounds = input.discover().map_err(|e| Error::user(e.to_string()))?;
        input
            .seek(&timeline.replay_positions())
            .map_err(|e| Error::user(e.to_string()))?;
        while let Some(plan) = timeline.next_replay() {
            let rows = read_ranges(&plan, &mut *input, &mut intake)?;
            let ran = timeline.run(&plan, rows)?;
            let is_checkpoint = plan.checkpoint;
            timeline.publish(ran);
            if is_checkpoint {
                drop(timeline.checkpoint()?);
            }
        }
        if let Some(mut rebuilding) = timeline.begin_rebuild(&bounds)? {
            while let Some((split, range)) = rebuilding.next_piece() {
                let rows = read_range(&split, range, &mut *input, &mut intake)?;
                timeline.rebuild_rows(&mut rebuilding, rows)?;
            }
            timeline.end_rebuild(rebuilding)?;
            let plan = timeline.empty_plan(self.0.clock.now());
            run(&mut timeline, &plan, Vec::new())?;
        }
        timeline.silence_begins(self.0.clock.now());
        timeline.publish_state();
        timeline.shared().set_state(SourceState::Running, None);
        self.adopt(timeline.shared());
        manual.insert(
            source.name.clone(),
            ManualSource {
                timeline,
                source: input,
                intake,
                silence: Silence::new(self.0.clock.elapsed()),
                failure: None,
            },
        );
        Ok(())
    }

    /// Opens the sources of pipeline files, which `apply` only defined: what `start` is to live ones.
    pub fn open(&self) -> Result<()> {
        for relation in self.catalog().iter() {
            if matches!(relation, Relation::Source(_) | Relation::Table(_)) {
                self.open_manual(relation)?;
            }
        }
        Ok(())
    }

    /// Adds or removes a view between two epochs of a script.
    pub(super) fn change_manual_views(&self, source: &str, change: ViewChange) -> Result<()> {
        let mut manual = self.0.manual.lock().expect("nobody panics while holding it");
        let manual = manual
            .get_mut(source)
            .ok_or_else(|| Error::bug("a source whose epochs ran is open"))?;
        manual.refuse_after_failure()?;
        let timeline = &mut manual.timeline;
        match change {
            ViewChange::Add(definition) => timeline.add_view(definition)?,
            ViewChange::Remove(name) => timeline.remove_view(&name),
            // A script publishes nothing.
            ViewChange::AddSink(_) | ViewChange::RemoveSink(_) => return Ok(()),
        }
        let plan = timeline.empty_plan(self.0.clock.now());
        manual.run(&plan, Vec::new())
    }

    /// What was dropped before the first epoch of its source is not read or shown any more.
    pub(super) fn close_manual(&self, dropped: &Relation) -> Result<()> {
        match (self.0.options.mode, dropped) {
            (Mode::Manual, Relation::Materialized(view)) => {
                let source = Arc::clone(self.catalog().source(&view.source).expect("a view's source is there"));
                self.open_manual(&Relation::Source(source))
            }
            _ => Ok(()),
        }
    }

    /// Runs one epoch over all rows that wait.
    pub fn step(&self, source: &str, end: StepEnd) -> Result<()> {
        let mut manual = self.0.manual.lock().expect("nobody panics while holding it");
        let Some(manual) = manual.get_mut(source) else {
            return Ok(());
        };
        manual.refuse_after_failure()?;
        let ManualSource {
            timeline,
            source: input,
            intake,
            silence,
            failure: _,
        } = &mut *manual;
        let bounds = input.discover().map_err(|e| Error::user(e.to_string()))?;
        let new_splits: BTreeMap<_, _> = bounds
            .iter()
            .filter(|bounds| !timeline.positions().contains_key(&bounds.split))
            .map(|bounds| (bounds.split.clone(), bounds.start))
            .collect();
        let mut positions = timeline.positions().clone();
        positions.extend(new_splits.clone());
        input.seek(&positions).map_err(|e| Error::user(e.to_string()))?;
        let mut rows = Vec::new();
        let mut ranges: BTreeMap<_, PlannedRange> = BTreeMap::new();
        loop {
            let rows_max = end.rows_max.unwrap_or(usize::MAX);
            let polled = input
                .poll(rows_max, usize::MAX, Duration::ZERO)
                .map_err(|e| Error::user(e.to_string()))?;
            if polled.is_empty() {
                break;
            }
            for chunk in polled {
                ranges
                    .entry(chunk.split.clone())
                    .and_modify(|range| range.to = chunk.to)
                    .or_insert(PlannedRange {
                        from: chunk.from,
                        to: chunk.to,
                    });
                rows.push(intake.take(chunk)?);
            }
            if end.rows_max.is_some() {
                break;
            }
        }
        // Who has rows that were not read is slow, not idle.
        let is_caught_up = |split: &SplitId| {
            let end = bounds
                .iter()
                .find(|bounds| bounds.split == *split)
                .map(|bounds| bounds.end);
            let is_read = end.is_none_or(|end| positions.get(split).is_none_or(|position| end <= *position));
            !ranges.contains_key(split) && (is_read || has(Bug::SlowSplitCountsAsIdle))
        };
        let now = self.0.clock.elapsed();
        ranges.keys().for_each(|split| silence.heard(split, now));
        let close_after = timeline.source().close_after;
        let is_over = ranges.is_empty() && close_after.is_some_and(|after| after <= silence.of_all(now));
        let closes_below = match is_over && !end.is_last {
            true => timeline.closes_all_at(),
            false => None,
        };
        let plan = EpochPlan {
            number: timeline.epoch().next(),
            idle_splits: end.idle_splits.into_iter().filter(is_caught_up).collect(),
            ranges,
            epoch_time: self.0.clock.now().max(timeline.epoch_time()),
            new_splits,
            complete_below: end.complete_below.max(closes_below),
            is_last: end.is_last,
            checkpoint: end.checkpoint,
            anchors: timeline.anchors_of(&rows),
        };
        manual.run(&plan, rows)
    }

    /// What a crash at this moment leaves is taken up again: everything that was only in memory is gone.
    pub fn crash_and_restore(&self) -> Result<()> {
        let names: Vec<String> = self
            .0
            .manual
            .lock()
            .expect("nobody panics while holding it")
            .keys()
            .cloned()
            .collect();
        for name in names {
            let source = Arc::clone(self.catalog().source(&name).expect("a manual source is in the catalog"));
            self.open_manual(&Relation::Source(source))?;
        }
        Ok(())
    }
}

impl ManualSource {
    /// # Errors
    /// That of the epoch that failed, where one has.
    fn refuse_after_failure(&self) -> Result<()> {
        match &self.failure {
            Some(failure) => Err(Error::user(failure)),
            None => Ok(()),
        }
    }

    fn run(&mut self, plan: &EpochPlan, rows: Vec<SplitRows>) -> Result<()> {
        run(&mut self.timeline, plan, rows).inspect_err(|error| self.failure = Some(error.to_string()))
    }
}

fn run(timeline: &mut Timeline, plan: &EpochPlan, rows: Vec<SplitRows>) -> Result<()> {
    let ran = timeline.run(plan, rows)?;
    timeline.commit(&ran)?;
    timeline.publish(ran);
    if plan.checkpoint
        && let Some((writer, checkpoint)) = timeline.checkpoint()?
    {
        writer.write(checkpoint, None)?;
    }
    Ok(())
}

/// The rows of a committed plan, read again.
fn read_ranges(plan: &EpochPlan, input: &mut dyn Source, intake: &mut Intake) -> Result<Vec<SplitRows>> {
    let mut rows = Vec::new();
    for (split, range) in &plan.ranges {
        rows.extend(read_range(split, *range, input, intake)?);
    }
    Ok(rows)
}

fn read_range(
    split: &SplitId,
    range: PlannedRange,
    input: &mut dyn Source,
    intake: &mut Intake,
) -> Result<Vec<SplitRows>> {
    let mut rows = Vec::new();
    input
        .seek(&BTreeMap::from([(split.clone(), range.from)]))
        .map_err(|e| Error::user(e.to_string()))?;
    let mut next = range.from;
    while next < range.to {
        let polled = input
            .poll(usize::MAX, usize::MAX, Duration::ZERO)
            .map_err(|e| Error::user(e.to_string()))?;
        if polled.is_empty() {
            return Err(Error::user(format!(
                "rows {next} to {} of split {split} are gone",
                range.to
            )));
        }
        for mut chunk in polled {
            if range.to <= chunk.from {
                break;
            }
            if range.to < chunk.to {
                drop(chunk.split_off(range.to));
            }
            next = chunk.to;
            rows.push(intake.take(chunk)?);
        }
    }
    Ok(rows)
}
