//! What the group tells a member, noted for its next poll.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::log_line;
use super::lock;
use crate::local::signal::Signal;

/// A change of the assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// These partitions are the member's; it has to take them over.
    Assign(Vec<u32>),
    /// All partitions are gone.
    Revoke,
}

/// Context of a member's consumer.
#[derive(Default)]
pub(super) struct Events {
    queue: Mutex<VecDeque<Event>>,
    ownership: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
    pub(super) signal: Arc<Signal>,
}

impl Events {
    pub(super) fn front(&self) -> Option<Event> {
        lock(&self.queue).front().cloned()
    }

    pub(super) fn pop(&self) {
        lock(&self.queue).pop_front();
    }

    /// Who the member was in the group, and of which generation, when its partitions were assigned: what
    /// its steps commit offsets as. Asked at a step's end instead, a member that the group has put out
    /// meanwhile may name neither itself nor a generation, and then the broker checks neither.
    pub(super) fn ownership(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        lock(&self.ownership).clone()
    }

    /// Has partitions that are still the member's taken over again.
    pub(super) fn again(&self, partitions: Vec<u32>) {
        lock(&self.queue).push_front(Event::Assign(partitions));
    }
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka member");
    }
}

impl ConsumerContext for Events {
    /// Runs inside the member's own poll. Revocations are obeyed at once, since nothing of a step
    /// is under way during a poll; assignments are answered when the member has what it needs.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let mut queue = lock(&self.queue);
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let mut partitions: Vec<u32> = list
                .elements()
                .iter()
                .map(|element| element.partition().max(0) as u32)
                .collect();
            partitions.sort_unstable();
            partitions.dedup();
            *lock(&self.ownership) = consumer
                .group_metadata()
                .filter(|_| !consumer.assignment_lost())
                .map(Arc::new);
            queue.push_back(Event::Assign(partitions));
        } else {
            if let Err(error) = consumer.unassign() {
                tracing::warn!(%error, "partitions could not be given up");
            }
            *lock(&self.ownership) = None;
            // What was assigned but not taken over yet is gone too.
            queue.clear();
            queue.push_back(Event::Revoke);
        }
        drop(queue);
        self.signal.notify();
    }
}
