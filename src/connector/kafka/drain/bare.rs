//! How fast librdkafka hands a topic over, when nothing is done with it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{BATCH_MAX, CALL_TIMEOUT, Deadline, Drain, Event, bounds_of};
use crate::{
    connector::kafka::{config, connection::Connection},
    types::{Error, Result},
};

/// How fast a topic can be read on this machine, when nothing is done with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrainReport {
    pub rows: u64,
    /// Of keys and values.
    pub bytes: u64,
    /// From the first question to the brokers to the last row.
    pub seconds: f64,
    /// Until the first row.
    pub first_row_seconds: f64,
}

/// Reads a topic from its start to where it ends now, as fast as librdkafka hands it over: counts and copies nothing.
///
/// # Errors
/// Where the brokers do not answer, there is no such topic, or a partition cannot be read.
#[allow(clippy::disallowed_methods, reason = "measures the machine")]
pub fn bare_drain(brokers: &str, topic: &str) -> Result<DrainReport> {
    let connection = Connection::new(brokers);
    let mut drain = Drain::connect(&config::consumer(brokers), connection)
        .map_err(|error| Error::user(config::sentence(&error)))?;
    let started = Instant::now();
    let bounds = bounds_of(&drain, topic)?;
    drain
        .assign(topic, bounds.iter().map(|(partition, (low, _))| (*partition, *low)))
        .map_err(|error| drain.connection().explain_call(topic, &error))?;

    let mut open: BTreeMap<i32, i64> = bounds
        .iter()
        .filter(|(_, (low, high))| low < high)
        .map(|(partition, (_, high))| (*partition, *high))
        .collect();
    let (mut rows, mut bytes, mut first, mut trouble) = (0, 0, None, None);
    let mut silence = Deadline::after(CALL_TIMEOUT);
    // Where a partition ends is looked up only where its record may be the last.
    while !open.is_empty() && trouble.is_none() {
        let lowest_high = open.values().copied().min().unwrap_or_default();
        let taken = drain.take(BATCH_MAX, Duration::from_millis(100), |event| match event {
            Event::Record(record) => {
                rows += 1;
                bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
                if lowest_high <= record.offset + 1
                    && open
                        .get(&record.partition)
                        .is_some_and(|high| *high <= record.offset + 1)
                {
                    open.remove(&record.partition);
                }
            }
            Event::End { partition, .. } => {
                open.remove(&partition);
            }
            Event::Trouble { error, detail, .. } => trouble = Some((error, detail)),
        });
        drain.serve();
        if 0 < taken {
            first.get_or_insert_with(|| started.elapsed());
            silence = Deadline::after(CALL_TIMEOUT);
        } else if silence.left().is_zero() {
            return Err(drain.connection().failure().into());
        }
    }
    if let Some((error, detail)) = trouble {
        return Err(drain.connection().explain(topic, error, &detail).into());
    }
    Ok(DrainReport {
        rows,
        bytes,
        seconds: started.elapsed().as_secs_f64(),
        first_row_seconds: first.unwrap_or_default().as_secs_f64(),
    })
}
