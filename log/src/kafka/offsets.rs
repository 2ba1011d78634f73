//! What groups have committed, with the step's number as metadata.

use std::sync::Arc;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::Offset;

use super::CALL_TIMEOUT;
use super::client::{Clients, failed, watermarks};
use crate::error::LogError;

/// Topic (without the prefix) and partition.
pub(super) type TopicPartition = (Arc<str>, u32);

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) at: TopicPartition,
    /// `None`: never committed.
    pub(super) next: Option<u64>,
    /// Number of the step that committed it; 0 for the registration of a stage.
    pub(super) number: u64,
}

impl Found {
    /// The offset, if a step has committed it.
    pub(super) fn stepped(&self) -> Option<u64> {
        self.next.filter(|_| self.number > 0)
    }
}

/// Offsets to be committed under a number.
pub(super) fn list(
    clients: &Clients,
    offsets: &[(TopicPartition, u64)],
    number: u64,
) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for ((topic, partition), next) in offsets {
        // Offsets on Kafka are signed and never come near the limit.
        let mut element = list.add_partition(&clients.name(topic), *partition as i32);
        element
            .set_offset(Offset::Offset(*next as i64))
            .map_err(|error| failed("name an offset", &error))?;
        element.set_metadata(number.to_string());
    }
    Ok(list)
}

/// What the consumer's group has committed, in the order asked. While a transaction on these
/// offsets is open, the broker makes this wait.
pub(super) fn committed<C: ConsumerContext>(
    clients: &Clients,
    consumer: &BaseConsumer<C>,
    asked: &[TopicPartition],
) -> Result<Vec<Found>, LogError> {
    let mut list = TopicPartitionList::with_capacity(asked.len());
    for (topic, partition) in asked {
        list.add_partition(&clients.name(topic), *partition as i32);
    }
    let list = consumer
        .committed_offsets(list, CALL_TIMEOUT)
        .map_err(|error| match super::decide::code(&error) {
            // The broker makes them wait while a transaction on them is open.
            Some(Code::OperationTimedOut) => LogError::storage(
                "kafka: committed offsets were not told in time; where this goes on, a transaction \
                 that nobody ends holds them: kafka-transactions.sh find-hanging names it",
                true,
            ),
            _ => failed("read committed offsets", &error),
        })?;
    let mut found = Vec::with_capacity(asked.len());
    for at in asked {
        let element = list
            .find_partition(&clients.name(&at.0), at.1 as i32)
            .ok_or_else(|| {
                LogError::storage(
                    format!("kafka: no answer about {} partition {}", at.0, at.1),
                    true,
                )
            })?;
        element
            .error()
            .map_err(|error| failed("read committed offsets", &error))?;
        let next = match element.offset() {
            Offset::Offset(next) if next >= 0 => Some(next as u64),
            _ => None,
        };
        let number = element.metadata().parse().unwrap_or(0);
        found.push(Found {
            at: at.clone(),
            next,
            number,
        });
    }
    Ok(found)
}

/// Commits the first offset where nothing is committed yet, so that retention waits for the group
/// from now on. Refused while the group has members: then one of them has done it.
pub(super) fn register<C: ConsumerContext>(
    clients: &Clients,
    consumer: &BaseConsumer<C>,
    inputs: &[TopicPartition],
) -> Result<(), LogError> {
    let mut missing = Vec::new();
    for found in committed(clients, consumer, inputs)? {
        if found.next.is_none() {
            let first = watermarks(consumer, &clients.name(&found.at.0), found.at.1)?.0;
            missing.push((found.at, first));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list = list(clients, &missing, 0)?;
    consumer
        .commit(&list, CommitMode::Sync)
        .map_err(|error| failed("register a stage", &error))
}
