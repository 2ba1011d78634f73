//! What the group tells a member, noted for its next poll or commit.
//!
//! librdkafka tells of changes within the member's own calls, and waits for an answer to each before it
//! goes on: that partitions are taken over, or given up. Until the answer the group gives nobody else what
//! this member has. Assignments are answered at once where they come one by one (then the partitions are
//! only begun to be read when their state is there); revocations are answered by the next poll, so that a
//! step under way can still be committed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::{Membership, log_line};
use super::lock;
use crate::local::signal::Signal;

/// A change of the assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// These partitions are the member's; it has to take them over.
    Assign(Vec<u32>),
    /// These are to be given up; the group waits for the answer, unless they are lost already.
    Revoke { partitions: Vec<u32>, lost: bool },
}

/// Who a member is in its group: what its steps commit offsets as.
#[derive(Clone)]
pub(super) struct Ownership {
    /// Rises whenever the group tells of a change: the generation of what the member has.
    pub(super) generation: u64,
    pub(super) metadata: Arc<ConsumerGroupMetadata>,
}

#[derive(Default)]
struct Known {
    queue: VecDeque<Event>,
    generation: u64,
    ownership: Option<Ownership>,
    /// What the group says is the member's: (partition, index of the input).
    owned: BTreeSet<(u32, usize)>,
    /// What librdkafka was told to read, by its names.
    reading: BTreeSet<(String, i32)>,
    /// An assignment of everything at once has not been answered.
    unanswered: bool,
    /// Nobody polls any more: everything is answered at once.
    closing: bool,
}

/// Context of a member's consumer.
pub(super) struct Events {
    membership: Membership,
    /// Names of the inputs on the broker.
    topics: Vec<String>,
    known: Mutex<Known>,
    pub(super) signal: Arc<Signal>,
}

impl Events {
    pub(super) fn new(membership: Membership, topics: Vec<String>) -> Self {
        Self {
            membership,
            topics,
            known: Mutex::default(),
            signal: Arc::default(),
        }
    }

    pub(super) fn membership(&self) -> Membership {
        self.membership
    }

    pub(super) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Rises with every change that the group tells of.
    pub(super) fn generation(&self) -> u64 {
        lock(&self.known).generation
    }

    /// Who the member may write as, if the group has not put it out.
    ///
    /// With the classic protocol, as it was when the group last told of a change: everything that the
    /// member holds was its own then, and the broker refuses the generation once it is over. Asked at a
    /// step's end instead, a member that the group has put out meanwhile may name neither itself nor a
    /// generation, and then the broker checks neither.
    ///
    /// With KIP-848 the epoch moves on without a word, so it is asked for; the member's name is its own
    /// for good there, so the broker always checks, and the epoch moves on only when what was revoked has
    /// been given up.
    pub(super) fn ownership(&self, consumer: &BaseConsumer<Self>) -> Option<Ownership> {
        if self.is_lost() {
            return None;
        }
        let known = lock(&self.known);
        if self.membership != Membership::Consumer {
            return known.ownership.clone();
        }
        let generation = known.generation;
        let metadata = consumer.group_metadata().map(Arc::new);
        metadata.map(|metadata| Ownership {
            generation,
            metadata,
        })
    }

    /// Whether partitions are gone without the member's having given them up.
    pub(super) fn is_lost(&self) -> bool {
        let lost = |event: &Event| matches!(event, Event::Revoke { lost: true, .. });
        lock(&self.known).queue.iter().any(lost)
    }

    /// Whether the group waits for partitions to be given up: until then nothing changes in it.
    pub(super) fn is_asked_back(&self) -> bool {
        let revoke = |event: &Event| matches!(event, Event::Revoke { .. });
        lock(&self.known).queue.iter().any(revoke)
    }

    /// Partitions that wait to be taken over.
    pub(super) fn assigned(&self) -> Option<Vec<u32>> {
        match lock(&self.known).queue.front() {
            Some(Event::Assign(partitions)) => Some(partitions.clone()),
            _ => None,
        }
    }

    /// They are.
    pub(super) fn taken_over(&self) {
        lock(&self.known).queue.pop_front();
    }

    /// Has partitions that are still the member's taken over again.
    pub(super) fn again(&self, partitions: Vec<u32>) {
        let mut known = lock(&self.known);
        known.queue.push_front(Event::Assign(partitions));
    }

    /// Gives up all that the group wants back, and says so to it; which partitions.
    pub(super) fn obey(&self, consumer: &BaseConsumer<Self>) -> Vec<u32> {
        let mut known = lock(&self.known);
        let mut gone = BTreeSet::new();
        let mut kept = VecDeque::new();
        for event in std::mem::take(&mut known.queue) {
            match event {
                Event::Revoke { partitions, .. } => {
                    self.give_up(&mut known, consumer, &partitions);
                    gone.extend(partitions);
                }
                assign @ Event::Assign(_) => kept.push_back(assign),
            }
        }
        known.queue = kept;
        gone.into_iter().collect()
    }

    fn give_up(&self, known: &mut Known, consumer: &BaseConsumer<Self>, partitions: &[u32]) {
        let answered = if self.membership == Membership::Range {
            known.reading.clear();
            known.unanswered = false;
            consumer.unassign()
        } else {
            let is_gone = |at: &(String, i32)| partitions.contains(&(at.1.max(0) as u32));
            let list = list(known.reading.iter().filter(|at| is_gone(at)));
            known.reading.retain(|at| !is_gone(at));
            consumer.incremental_unassign(&list)
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "partitions could not be given up");
        }
    }

    /// Notes what librdkafka was told to read; that answers an assignment of everything at once.
    pub(super) fn reads(&self, list: &TopicPartitionList) {
        let mut known = lock(&self.known);
        known.unanswered = false;
        for element in list.elements() {
            let at = (element.topic().to_owned(), element.partition());
            known.reading.insert(at);
        }
    }

    /// Nobody polls any more: answers what is open, and from now on everything at once. Otherwise
    /// librdkafka would wait for the answers when the consumer is closed.
    pub(super) fn close(&self, consumer: &BaseConsumer<Self>) {
        let unanswered = {
            let mut known = lock(&self.known);
            known.closing = true;
            std::mem::take(&mut known.unanswered)
        };
        if unanswered && let Err(error) = consumer.assign(&TopicPartitionList::new()) {
            tracing::debug!(%error, "kafka member");
        }
        self.obey(consumer);
    }

    fn places(&self, list: &TopicPartitionList) -> Vec<(u32, usize)> {
        let place = |topic: &str, partition: i32| {
            let input = self.topics.iter().position(|name| name == topic)?;
            Some((partition.max(0) as u32, input))
        };
        list.elements()
            .iter()
            .filter_map(|element| place(element.topic(), element.partition()))
            .collect()
    }

    fn gained(&self, known: &mut Known, list: &TopicPartitionList) -> Vec<u32> {
        let before = known.whole(self.topics.len());
        if self.membership == Membership::Range {
            known.owned.clear();
        }
        known.owned.extend(self.places(list));
        let now = known.whole(self.topics.len());
        let parts: BTreeSet<u32> = known
            .owned
            .iter()
            .map(|(partition, _)| *partition)
            .collect();
        if parts.len() > now.len() {
            let parts: Vec<_> = parts.difference(&now).collect();
            // The rest of their inputs may still come; until then nobody reads them.
            tracing::warn!(partitions = ?parts, "assigned with some of their inputs only");
        }
        match self.membership {
            Membership::Range => now.into_iter().collect(),
            _ => now.difference(&before).copied().collect(),
        }
    }

    fn assigns(&self, known: &mut Known, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        known.ownership = captured(known.generation, consumer);
        let gained = self.gained(known, list);
        let nothing = TopicPartitionList::new();
        let answered = match (self.membership, gained.is_empty()) {
            (Membership::Range, false) => {
                known.unanswered = true;
                Ok(())
            }
            (Membership::Range, true) => consumer.assign(&nothing),
            _ => consumer.incremental_assign(&nothing),
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "an assignment could not be answered");
        }
        if !gained.is_empty() {
            known.queue.push_back(Event::Assign(gained));
        }
    }

    fn revokes(&self, known: &mut Known, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let before = known.whole(self.topics.len());
        for place in self.places(list) {
            known.owned.remove(&place);
        }
        let all = known.owned.is_empty();
        let eager = self.membership == Membership::Range;
        if eager {
            known.owned.clear();
        }
        // One by one, everything goes at once only from a member that the group has put out.
        let lost = consumer.assignment_lost() || (all && !eager);
        if lost {
            known.ownership = None;
        } else if !eager {
            known.ownership = captured(known.generation, consumer);
        }
        let now = known.whole(self.topics.len());
        let partitions: Vec<u32> = before.difference(&now).copied().collect();
        // What was assigned but not taken over yet is gone too.
        for event in &mut known.queue {
            if let Event::Assign(waiting) = event {
                waiting.retain(|partition| !partitions.contains(partition));
            }
        }
        let gone = |event: &Event| matches!(event, Event::Assign(waiting) if waiting.is_empty());
        known.queue.retain(|event| !gone(event));
        if known.closing {
            self.give_up(known, consumer, &partitions);
        } else {
            known.queue.push_back(Event::Revoke { partitions, lost });
        }
    }
}

impl Known {
    /// Partitions of which every input is the member's.
    fn whole(&self, inputs: usize) -> BTreeSet<u32> {
        let parts: BTreeSet<u32> = self.owned.iter().map(|(partition, _)| *partition).collect();
        let of = |partition: u32| {
            self.owned
                .range((partition, 0)..=(partition, inputs))
                .count()
        };
        parts
            .into_iter()
            .filter(|partition| of(*partition) == inputs)
            .collect()
    }
}

/// Who the member is now. Of a member that was put out, the name or the generation is not known any more;
/// librdkafka forgets them one at a time, and the broker refuses what lacks one of them.
fn captured(generation: u64, consumer: &BaseConsumer<Events>) -> Option<Ownership> {
    let metadata = consumer
        .group_metadata()
        .filter(|_| !consumer.assignment_lost())
        .map(Arc::new);
    metadata.map(|metadata| Ownership {
        generation,
        metadata,
    })
}

fn list<'a>(places: impl Iterator<Item = &'a (String, i32)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    list
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
    /// Runs inside the member's own poll or commit.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let mut known = lock(&self.known);
        known.generation += 1;
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigns(&mut known, consumer, list);
        } else {
            self.revokes(&mut known, consumer, list);
        }
        drop(known);
        self.signal.notify();
    }
}
