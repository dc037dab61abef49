//! How a start gets to where the journal ends: the newest checkpoint that does, and the committed plans after it once more.
//!
//! ```text
//! checkpoint ─▶ plan n+1 … plan m, on the same rows ─▶ go on        sinks get the epochs that they do not have
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    connector::{LostRows, Source, SplitBounds},
    runtime::{
        face::SourceState,
        gathered::Gathered,
        intake::Intake,
        reader::{POLL_BYTES, TICK},
    },
    types::{Chunk, Epoch, Error, PlannedRange, Position, Result, SplitId, limits},
};

use super::{Run, held::Held};

impl Run {
    /// Goes back to where all can be made again that the sinks of before did not publish; `false` when the engine stops meanwhile.
    pub(super) fn stand_where_sinks_do(&mut self) -> Result<bool> {
        let mut is_waiting = false;
        let published = loop {
            if let Some(published) = self.outlets.published_of(self.timeline.sinks())? {
                break published;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if let Some(sink) = self.outlets.first_unasked(self.timeline.sinks()) {
                let reason = format!("waits for sink `{sink}`, which has not said yet how far it is");
                self.timeline.shared().set_state(SourceState::Starting, Some(reason));
                is_waiting = true;
            }
            self.let_views_go();
            self.sleep(TICK);
        };
        if is_waiting {
            self.timeline.shared().set_state(SourceState::Starting, None);
        }
        self.timeline.go_back_for(&published)?;
        self.outlets
            .note_checkpoint(self.timeline.epoch(), self.timeline.sinks());
        let epoch = self.timeline.epoch();
        let beginning: Vec<String> = (self.timeline.sinks().iter())
            .filter(|(sink, progress)| Epoch(0) < epoch && progress.since == epoch && published[*sink] < epoch)
            .map(|(sink, _)| sink.clone())
            .collect();
        self.stage_views(&beginning)?;
        Ok(true)
    }

    /// Splits that the state does not know, and where they start: those that came after the others did, with their first row.
    pub(super) fn new_splits(&self, bounds: &[SplitBounds]) -> Result<BTreeMap<SplitId, Position>> {
        let known = self.timeline.replay_positions();
        for split in known.keys() {
            if !bounds.iter().any(|bounds| bounds.split == *split) {
                return Err(Error::user(format!(
                    "split {split} of source `{}` is gone: was it made anew? start over with --reset",
                    self.timeline.source().name
                )));
            }
        }
        let new = bounds.iter().filter(|bounds| !known.contains_key(&bounds.split));
        let start = |bounds: &SplitBounds| if known.is_empty() { bounds.start } else { bounds.first };
        Ok(new.map(|bounds| (bounds.split.clone(), start(bounds))).collect())
    }

    /// Runs the committed plans after the checkpoint again, on the same rows.
    pub(super) fn replay(&mut self, source: &mut dyn Source, intake: &mut Intake) -> Result<()> {
        // The life before may have counted some of it.
        self.effort = Duration::ZERO;
        let positions = self.timeline.replay_positions();
        let committed = self.timeline.committed_positions();
        let Some(mut plan) = self.timeline.next_replay() else {
            self.timeline.publish_state();
            return Ok(());
        };
        if self.patiently(|| source.seek(&positions))?.is_none() {
            return Ok(());
        }
        let mut held = Held::new(positions, committed.clone(), self.timeline.bounds().read_ahead_bytes);
        let mut epochs = 0u64;
        loop {
            let mut rows = Vec::new();
            for (split, range) in &plan.ranges {
                let mut left = *range;
                while left.from < left.to {
                    let Some(chunk) = self.next_chunk(source, split, left, &mut held)? else {
                        return Ok(());
                    };
                    left.from = chunk.to;
                    let began = self.host.elapsed();
                    rows.push(intake.take(chunk)?);
                    self.effort += self.host.elapsed().saturating_sub(began);
                }
            }
            self.refuse_lost(source, &committed)?;
            let began = self.host.elapsed();
            let ran = self.timeline.run(&plan, rows)?;
            self.effort += self.host.elapsed().saturating_sub(began);
            let is_checkpoint = plan.checkpoint;
            self.stage(&ran);
            self.timeline.publish(ran);
            if is_checkpoint {
                self.timeline.repeat_checkpoint()?;
            }
            while !self.sinks_have_room()? {
                if self.stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                self.let_views_go();
                self.sleep(TICK);
            }
            epochs += 1;
            match self.timeline.next_replay() {
                Some(next) => plan = next,
                None => break,
            }
        }
        tracing::info!(
            source = self.timeline.source().name,
            epochs,
            epoch = self.timeline.epoch().0,
            "journal replayed"
        );
        Ok(())
    }

    /// # Errors
    /// Where the source passed over rows that committed plans have.
    fn refuse_lost(&self, source: &mut dyn Source, committed: &BTreeMap<SplitId, Position>) -> Result<()> {
        let is_needed = |lost: &LostRows| committed.get(&lost.split).is_some_and(|to| lost.from < *to);
        let Some(LostRows { split, from, to }) = source.lost().into_iter().find(is_needed) else {
            return Ok(());
        };
        Err(Error::user(format!(
            "rows {from} to {} of split {split} of source `{}` are gone, and some of them were read since the last checkpoint and \
             would have to be read again; start over with --reset",
            to.0 - 1,
            self.timeline.source().name
        )))
    }

    /// Computes views anew whose state was of no use; `false` when the engine stops meanwhile.
    pub(super) fn rebuild(
        &mut self,
        source: &mut dyn Source,
        intake: &mut Intake,
        bounds: &[SplitBounds],
    ) -> Result<bool> {
        let Some(mut rebuilding) = self.timeline.begin_rebuild(bounds)? else {
            return Ok(true);
        };
        while let Some((split, range)) = rebuilding.next_piece() {
            let from = BTreeMap::from([(split.clone(), range.from)]);
            if self.patiently(|| source.seek(&from))?.is_none() {
                return Ok(false);
            }
            let until = BTreeMap::from([(split.clone(), range.to)]);
            let mut held = Held::new(from, until, self.timeline.bounds().read_ahead_bytes);
            // A piece may be large: no more of it is in memory at once than an epoch takes.
            let mut gathered = Gathered::new(self.timeline.bounds());
            let mut left = range;
            while left.from < left.to {
                let Some(chunk) = self.next_chunk(source, &split, left, &mut held)? else {
                    return Ok(false);
                };
                left.from = chunk.to;
                gathered.push(intake.take(chunk)?);
                if gathered.is_full() || left.from == left.to {
                    self.timeline.rebuild_rows(&mut rebuilding, gathered.take())?;
                }
            }
        }
        self.timeline.end_rebuild(rebuilding)?;
        // Who would go back behind this checkpoint would meet the definition of before.
        while !self.outlets.are_drained(self.timeline.sinks()) {
            self.sinks_have_room()?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            self.let_views_go();
            self.sleep(TICK);
        }
        self.run_empty()?;
        Ok(true)
    }

    /// The first chunk of `range`, cut at its end; `None` when the engine stops meanwhile.
    fn next_chunk(
        &mut self,
        source: &mut dyn Source,
        split: &SplitId,
        range: PlannedRange,
        held: &mut Held,
    ) -> Result<Option<Chunk>> {
        loop {
            if let Some(chunk) = held.take(split, range.to) {
                return match chunk.from == range.from {
                    true => Ok(Some(chunk)),
                    false => Err(self.gone(split, range.from, chunk.from)),
                };
            }
            if let Some(positions) = held.seek_for(split) {
                // A seek forgets what was lost.
                self.refuse_lost(source, held.until())?;
                if self.patiently(|| source.seek(&positions))?.is_none() {
                    return Ok(None);
                }
            }
            let host = Arc::clone(&self.host);
            let mut reading = Duration::ZERO;
            let polled = self.patiently(|| {
                let began = host.elapsed();
                let polled = source.poll(limits::CHUNK_ROWS, POLL_BYTES, TICK * 4);
                if polled.is_ok() {
                    reading += host.elapsed().saturating_sub(began);
                }
                polled
            })?;
            self.effort += reading;
            let Some(polled) = polled else {
                return Ok(None);
            };
            if polled.is_empty() && source.is_finished() {
                return Err(self.gone(split, range.from, range.to));
            }
            polled.into_iter().for_each(|chunk| held.push(chunk));
        }
    }

    fn gone(&self, split: &SplitId, from: Position, to: Position) -> Error {
        Error::user(format!(
            "rows {from} to {to} of split {split} of source `{}` are gone; start over with --reset",
            self.timeline.source().name
        ))
    }

    /// What is published was committed: where the journal does not know it, a part of it was lost.
    pub(super) fn check_journal(&self, sink: &str, published: Epoch) -> Result<()> {
        let epoch = self.timeline.epoch();
        if published <= epoch {
            return Ok(());
        }
        Err(Error::user(format!(
            "sink `{sink}` has published epoch {published}, and the state ends at epoch {epoch}: a part of its journal is gone, and other rows \
             would be published under the numbers of those; restore the state from a copy, or start over with --reset, which publishes all rows anew"
        )))
    }
}
