//! A stage's state, read back from its changelog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::client::{Clients, Quiet, failed, range_of, watermarks};
use super::reader::{assign, record};
use super::{CALL_TIMEOUT, POLL_INTERVAL_MAX};
use crate::error::LogError;

/// State of one partition.
pub(super) type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Between two looks at whether an open transaction has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Reads the state of one partition as of now: everything that had been written when this was
/// called, once its transactions have ended.
pub(super) fn restore(clients: &Clients, stage: &str, partition: u32) -> Result<State, LogError> {
    restore_within(clients, stage, partition, CALL_TIMEOUT)
}

/// The same, with so much patience for transactions that are open.
pub(super) fn restore_within(
    clients: &Clients,
    stage: &str,
    partition: u32,
    patience: Duration,
) -> Result<State, LogError> {
    let reader = clients.reader()?;
    let state = restore_with(&reader, clients, stage, partition, patience)?;
    let _ = reader.unassign();
    clients.put_back(reader);
    Ok(state)
}

fn restore_with(
    reader: &BaseConsumer<Quiet>,
    clients: &Clients,
    stage: &str,
    partition: u32,
    patience: Duration,
) -> Result<State, LogError> {
    let topic = clients.changelog(stage);
    // The administrative client reads uncommitted, so this is the high watermark. The last stable
    // offset would not do: what was committed behind somebody else's open transaction lies beyond.
    let (_, written) = range_of(clients.admin.inner(), &topic, partition)
        .map_err(|error| failed(&format!("look at changelog {topic}/{partition}"), &error))?;
    let first = settled(reader, &topic, partition, written, patience)?;
    let mut state = State::new();
    if first >= written {
        return Ok(state);
    }
    assign(reader, &topic, partition, first)?;
    let name: Arc<str> = Arc::from(&*topic);
    let is_of = |of: &str, at: i32| of == topic && at == partition as i32;
    let deadline = Instant::now() + POLL_INTERVAL_MAX / 2;
    loop {
        match reader.poll(CALL_TIMEOUT) {
            // A reader serves one changelog after another: what is of the one before is not ours.
            Some(Ok(message)) if !is_of(message.topic(), message.partition()) => {}
            Some(Ok(message)) => {
                let record = record(&name, &message);
                match record.value {
                    Some(value) => state.insert(record.key.to_vec(), value.to_vec()),
                    None => state.remove(&record.key[..]),
                };
            }
            Some(Err(KafkaError::PartitionEOF(at))) if at == partition as i32 => return Ok(state),
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => {
                return Err(failed(
                    &format!("read changelog {topic}/{partition}"),
                    &error,
                ));
            }
            None => return Err(too_slow(&topic, partition)),
        }
        if Instant::now() >= deadline {
            return Err(too_slow(&topic, partition));
        }
    }
}

/// Waits until no open transaction hides what was `written`; returns the first offset.
fn settled(
    reader: &BaseConsumer<Quiet>,
    topic: &str,
    partition: u32,
    written: u64,
    patience: Duration,
) -> Result<u64, LogError> {
    let deadline = Instant::now() + patience;
    loop {
        let (first, stable) = watermarks(reader, topic, partition)?;
        if stable >= written {
            return Ok(first);
        }
        if Instant::now() >= deadline {
            return Err(too_slow(topic, partition));
        }
        // Nothing is assigned, so this only waits and serves the client's events.
        let _ = reader.poll(LOOK_AGAIN);
    }
}

fn too_slow(topic: &str, partition: u32) -> LogError {
    LogError::storage(
        format!("kafka: changelog {topic}/{partition} could not be read in time"),
        true,
    )
}
