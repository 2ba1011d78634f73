//! What a broker keeps and what it answers: topics, transactions and groups, as far as the loop of a stage
//! depends on them. It follows Kafka 4 with clients that lack KIP-890: a producer's epoch stays the same
//! from one transaction to the next, so a request that was left behind can meet a later transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::group::Group;
use super::random::Random;
use crate::api::{Output, Record, TopicSpec};
use crate::error::LogError;

/// Topic and partition.
pub(super) type At = (Arc<str>, u32);

/// After this time a transaction whose producer is gone is aborted.
pub(super) const TRANSACTION_TIMEOUT_MS: u64 = 15_000;
/// Marks of an ended transaction are written this much later at most.
const MARKS_LATER_MS: u64 = 300;

/// A transactional id with an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) id: Arc<str>,
    pub(super) epoch: u64,
}

/// Who commits offsets, as the group knows it. Without a member and without a generation nobody is asked
/// for either: the broker takes it for a consumer without a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Metadata {
    pub(super) member: Option<u64>,
    pub(super) generation: u64,
}

/// An offset to be committed, with the number of its step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) at: At,
    pub(super) next: u64,
    pub(super) number: u64,
}

/// What clients ask for.
#[derive(Debug, Clone)]
pub(super) enum Request {
    /// Takes over a transactional id.
    Init(Arc<str>),
    /// Begins a transaction, or adds to it.
    Add(Producer, BTreeSet<At>, Arc<str>),
    /// Records for one partition; a batch that comes again is known by its number.
    Produce(Producer, At, u64, Arc<Vec<Output>>),
    /// Offsets within a transaction.
    Offsets(Producer, Arc<str>, Metadata, Vec<Moved>),
    /// Ends a transaction.
    End(Producer, bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug)]
struct Entry {
    /// `None`: the mark that ends a transaction.
    record: Option<Record>,
    writer: Option<Arc<str>>,
    fate: Fate,
}

#[derive(Debug, Default)]
struct Partition {
    entries: Vec<Entry>,
    /// Nothing before it is open.
    settled: usize,
}

impl Partition {
    /// Last stable offset: readers of committed records see what lies before it.
    fn stable(&mut self) -> u64 {
        while self
            .entries
            .get(self.settled)
            .is_some_and(|entry| entry.fate != Fate::Open)
        {
            self.settled += 1;
        }
        self.settled as u64
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Empty,
    Ongoing,
    /// The end is decided; marks are still to be written.
    Ending(bool),
    Complete(bool),
}

#[derive(Debug, Default)]
struct Transaction {
    epoch: u64,
    state: State,
    since_ms: u64,
    partitions: BTreeSet<At>,
    groups: BTreeSet<Arc<str>>,
    offsets: BTreeMap<Arc<str>, Vec<Moved>>,
    /// Last batch by partition, in this epoch.
    batches: BTreeMap<At, u64>,
    /// When the marks are written.
    marks_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Broker {
    pub(super) specs: BTreeMap<Arc<str>, Arc<TopicSpec>>,
    partitions: BTreeMap<At, Partition>,
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    transactions: BTreeMap<Arc<str>, Transaction>,
    pub(super) members: u64,
    pub(super) now_ms: u64,
}

impl Broker {
    pub(super) fn ensure(&mut self, spec: &TopicSpec) {
        for partition in 0..spec.partitions {
            let at = (Arc::clone(&spec.name), partition);
            self.partitions.entry(at).or_default();
        }
        let spec = Arc::new(spec.clone());
        self.specs.insert(Arc::clone(&spec.name), spec);
    }

    pub(super) fn topic(&self, name: &str) -> Result<Arc<TopicSpec>, LogError> {
        let unknown = || LogError::UnknownTopic {
            topic: Arc::from(name),
        };
        self.specs.get(name).cloned().ok_or_else(unknown)
    }

    /// Appends without a transaction; the offset.
    pub(super) fn append(&mut self, output: Output) -> u64 {
        self.write(output, None)
    }

    fn write(&mut self, output: Output, writer: Option<&Arc<str>>) -> u64 {
        let at = (output.topic, output.partition);
        let partition = self.partitions.entry(at.clone()).or_default();
        let offset = partition.entries.len() as u64;
        let record = Record {
            topic: at.0,
            partition: at.1,
            offset,
            key: Bytes::from(output.key),
            value: output.value.map(Bytes::from),
            timestamp_us: output.timestamp_us,
        };
        partition.entries.push(Entry {
            record: Some(record),
            writer: writer.cloned(),
            fate: match writer {
                Some(_) => Fate::Open,
                None => Fate::Committed,
            },
        });
        offset
    }

    /// End of what is written, and of what readers see.
    pub(super) fn ends(&mut self, at: &At) -> (u64, u64) {
        let Some(partition) = self.partitions.get_mut(at) else {
            return (0, 0);
        };
        (partition.entries.len() as u64, partition.stable())
    }

    /// Committed records from an offset on, and where to read on.
    pub(super) fn read(&mut self, at: &At, from: u64, most: usize) -> (Vec<Record>, u64) {
        let Some(partition) = self.partitions.get_mut(at) else {
            return (Vec::new(), from);
        };
        let stable = partition.stable();
        let (mut records, mut next) = (Vec::new(), from);
        while next < stable && records.len() < most {
            let entry = &partition.entries[next as usize];
            if entry.fate == Fate::Committed {
                records.extend(entry.record.clone());
            }
            next += 1;
        }
        (records, next)
    }

    /// What a group has committed: the next offset and the step's number. `Err` while a transaction on
    /// it is open.
    pub(super) fn committed(&self, group: &str, at: &At) -> Result<Option<(u64, u64)>, Code> {
        let open = |transaction: &Transaction| {
            let pending = transaction.offsets.get(group);
            pending.is_some_and(|moved| moved.iter().any(|moved| moved.at == *at))
        };
        if self.transactions.values().any(open) {
            return Err(Code::OperationTimedOut);
        }
        let found = self.groups.get(group);
        Ok(found.and_then(|group| group.offsets.get(at).copied()))
    }

    /// Lets time pass: sessions and transactions run out, marks are written.
    pub(super) fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.end_sessions();
        let ids: Vec<Arc<str>> = self.transactions.keys().cloned().collect();
        for id in ids {
            let Some(transaction) = self.transactions.get_mut(&id) else {
                continue;
            };
            match transaction.state {
                State::Ongoing if transaction.since_ms + TRANSACTION_TIMEOUT_MS <= now_ms => {
                    transaction.epoch += 1;
                    transaction.batches.clear();
                    transaction.state = State::Ending(false);
                    transaction.marks_ms = now_ms;
                }
                State::Ending(_) if transaction.marks_ms <= now_ms => self.finish(&id),
                _ => {}
            }
        }
    }

    /// Writes the marks of a transaction whose end is decided.
    fn finish(&mut self, id: &Arc<str>) {
        let Some(transaction) = self.transactions.get_mut(id) else {
            return;
        };
        let State::Ending(commit) = transaction.state else {
            return;
        };
        transaction.state = State::Complete(commit);
        transaction.groups.clear();
        for at in std::mem::take(&mut transaction.partitions) {
            let Some(partition) = self.partitions.get_mut(&at) else {
                continue;
            };
            let fate = if commit {
                Fate::Committed
            } else {
                Fate::Aborted
            };
            let settled = partition.settled;
            for entry in &mut partition.entries[settled..] {
                if entry.fate == Fate::Open && entry.writer.as_ref() == Some(id) {
                    entry.fate = fate;
                }
            }
            partition.entries.push(Entry {
                record: None,
                writer: None,
                fate: Fate::Committed,
            });
        }
        for (group, moved) in std::mem::take(&mut transaction.offsets) {
            let group = self.groups.entry(group).or_default();
            for moved in moved.into_iter().filter(|_| commit) {
                group.offsets.insert(moved.at, (moved.next, moved.number));
            }
        }
    }

    /// Answers a request; the epoch, where one is asked for.
    pub(super) fn answer(&mut self, request: Request, random: &mut Random) -> Result<u64, Code> {
        match request {
            Request::Init(id) => Ok(self.init(&id)),
            Request::Add(producer, partitions, group) => {
                // A client asks again until the marks of the last transaction are written.
                self.finish(&producer.id);
                let now_ms = self.now_ms;
                let transaction = self.of(&producer)?;
                if !matches!(transaction.state, State::Ongoing) {
                    transaction.state = State::Ongoing;
                    transaction.since_ms = now_ms;
                }
                transaction.partitions.extend(partitions);
                transaction.groups.insert(group);
                Ok(0)
            }
            Request::Produce(producer, at, batch, outputs) => {
                let transaction = self.of(&producer)?;
                if transaction
                    .batches
                    .get(&at)
                    .is_some_and(|last| batch <= *last)
                {
                    return Ok(0);
                }
                transaction.ongoing()?;
                if !transaction.partitions.contains(&at) {
                    return Err(Code::InvalidTransactionalState);
                }
                transaction.batches.insert(at, batch);
                for output in outputs.iter() {
                    self.write(output.clone(), Some(&producer.id));
                }
                Ok(0)
            }
            Request::Offsets(producer, group, metadata, moved) => {
                self.of(&producer)?.ongoing()?;
                self.admit(&group, metadata)?;
                let transaction = self.of(&producer)?;
                if !transaction.groups.contains(&group) {
                    return Err(Code::InvalidTransactionalState);
                }
                transaction.offsets.insert(group, moved);
                Ok(0)
            }
            Request::End(producer, commit) => {
                let marks_ms = self.now_ms + random.below(MARKS_LATER_MS);
                let transaction = self.of(&producer)?;
                match transaction.state {
                    State::Ongoing => {
                        transaction.state = State::Ending(commit);
                        transaction.marks_ms = marks_ms;
                        Ok(0)
                    }
                    State::Ending(other) | State::Complete(other) if other == commit => Ok(0),
                    _ => Err(Code::InvalidTransactionalState),
                }
            }
        }
    }

    /// Ends what an id left open, and gives out the next epoch.
    fn init(&mut self, id: &Arc<str>) -> u64 {
        let transaction = self.transactions.entry(Arc::clone(id)).or_default();
        if matches!(transaction.state, State::Ongoing) {
            transaction.state = State::Ending(false);
        }
        transaction.epoch += 1;
        transaction.batches.clear();
        let epoch = transaction.epoch;
        self.finish(id);
        epoch
    }

    fn of(&mut self, producer: &Producer) -> Result<&mut Transaction, Code> {
        let transaction = self.transactions.get_mut(&producer.id);
        let mine = transaction.filter(|transaction| transaction.epoch == producer.epoch);
        mine.ok_or(Code::ProducerFenced)
    }
}

impl Transaction {
    fn ongoing(&self) -> Result<(), Code> {
        match self.state {
            State::Ongoing => Ok(()),
            _ => Err(Code::InvalidTransactionalState),
        }
    }
}
