//! Checkpoints, written beside the epochs that run.

use std::sync::{Arc, OnceLock};

use crate::{
    runtime::{clock::Stopwatch, host::Worker, outlets::SinkProgresses, reader::TICK},
    types::{Epoch, Result, limits},
};

use super::Run;

/// A checkpoint that is being written.
pub struct WrittenCheckpoint {
    worker: Box<dyn Worker>,
    /// Whether it stands, or why it does not, once it was tried.
    outcome: Arc<OnceLock<Result<(), String>>>,
    epoch: Epoch,
    sinks: SinkProgresses,
}

impl Run {
    /// The state as it is now, where there is a folder to keep it in.
    pub(super) fn write_checkpoint(&mut self) -> Result<()> {
        let stall = Stopwatch::start();
        let Some((writer, checkpoint)) = self.timeline.checkpoint()? else {
            return Ok(());
        };
        let metrics = self.timeline.metrics();
        let source = self.timeline.source().name.clone();
        self.wait_for_checkpoint();
        let stall = stall.elapsed();
        metrics
            .checkpoint_stall_seconds
            .with_label_values(&[&source])
            .observe(stall.as_secs_f64());
        let needed = self.outlets.needed_checkpoint();
        let epoch = checkpoint.epoch;
        let outcome = Arc::new(OnceLock::new());
        let told = Arc::clone(&outcome);
        let work = move || {
            let stopwatch = Stopwatch::start();
            let written = writer.write(checkpoint, needed);
            let outcome = match written {
                Ok(bytes) => {
                    let seconds = stopwatch.elapsed().as_secs_f64();
                    metrics
                        .checkpoint_duration_seconds
                        .with_label_values(&[&source])
                        .observe(seconds);
                    let stall_ms = stall.as_millis() as u64;
                    tracing::info!(source, epoch = epoch.0, bytes, seconds, stall_ms, "checkpoint written");
                    Ok(())
                }
                // The journal still has everything since the one before.
                Err(error) => {
                    tracing::warn!(source, epoch = epoch.0, %error, "checkpoint not written");
                    Err(error.to_string())
                }
            };
            told.get_or_init(|| outcome);
        };
        let name = format!("checkpoint {}", self.timeline.source().name);
        match self.host.spawn(&name, Box::new(work)) {
            Ok(worker) => {
                self.checkpoint = Some(WrittenCheckpoint {
                    worker,
                    outcome,
                    epoch,
                    sinks: self.timeline.sinks().clone(),
                });
            }
            // Another one is due later, and the journal has everything until then.
            Err(error) => {
                tracing::warn!(epoch = epoch.0, %error, "checkpoint not written");
                self.checkpoint_failure = Some(error.to_string());
            }
        }
        Ok(())
    }

    /// A replay reads and decodes in one thread what came in two, and may find a slower machine: half of the time is left for that.
    pub(super) fn would_recover_too_long(&self) -> bool {
        self.timeline.source().recovery_time_max <= 2 * self.effort
    }

    pub(super) fn checkpoint_is_free(&self) -> bool {
        (self.checkpoint.as_ref()).is_none_or(|checkpoint| checkpoint.worker.is_finished())
    }

    /// Returns whether the last one stands.
    pub(super) fn wait_for_checkpoint(&mut self) -> bool {
        let Some(WrittenCheckpoint {
            worker,
            outcome,
            epoch,
            sinks,
        }) = self.checkpoint.take()
        else {
            return false;
        };
        if let Err(reason) = worker.join() {
            tracing::error!(reason, "writing a checkpoint ended by a panic");
        }
        self.checkpoint_failure = match outcome.get() {
            Some(Ok(())) => None,
            Some(Err(reason)) => Some(reason.clone()),
            None => Some("internal error: its thread ended by a panic; please report it".to_owned()),
        };
        let stands = self.checkpoint_failure.is_none();
        if stands {
            self.outlets.note_checkpoint(epoch, &sinks);
        }
        stands
    }

    /// A clean stop leaves nothing to replay.
    pub(super) fn last_checkpoint(&mut self) -> Result<()> {
        if self.timeline.has_uncheckpointed_epochs() {
            self.run_empty()?;
        }
        self.wait_for_checkpoint();
        let until = self.host.elapsed() + limits::SINK_DRAIN_MAX;
        while !self.outlets.are_drained(self.timeline.sinks()) && self.host.elapsed() < until {
            if self.sinks_have_room().is_err() {
                break;
            }
            self.host.sleep(TICK / 4);
        }
        self.outlets.end(limits::SINK_END_MAX, &*self.host);
        Ok(())
    }
}
