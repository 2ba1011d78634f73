//! One member of a group on Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::Offset;

use super::client::failed;
use super::decide::Class;
use super::events::{Event, Events};
use super::offsets::{self, TopicPartition};
use super::producer::Sender;
use super::reader::record;
use super::{Shared, admin, changelog, lock};
use crate::api::{Assignment, Committed, Polled, Position, Record, StageLog, StageSpec, Step};
use crate::check;
use crate::error::{CommitError, LogError};
use crate::holdings::{Cursor, Holdings};

mod step;

/// The group is served at least this often while a poll waits.
const SERVE_EVERY: Duration = Duration::from_millis(200);

/// An input partition's own queue.
struct Input {
    queue: PartitionQueue<Events>,
    /// Read to its end, as far as librdkafka has said.
    at_end: bool,
}

pub(super) struct KafkaMember {
    // Dropped in this order: queues before the consumer they belong to.
    inputs: BTreeMap<Cursor, Input>,
    consumer: Arc<BaseConsumer<Events>>,
    sender: Option<Sender>,
    shared: Arc<Shared>,
    holdings: Holdings,
    transactional_id: String,
    /// Highest number of a step tried or found.
    number: u64,
    /// What is held is void: revoke and take over again.
    void: bool,
}

impl KafkaMember {
    pub(super) fn join(shared: &Arc<Shared>, spec: StageSpec) -> Result<Self, LogError> {
        let partitions = check::stage(&spec, |topic| shared.partitions(topic))?;
        let clients = &shared.clients;
        let transactional_id = clients.name(&format!("{}.{}", spec.name, spec.instance));
        if !lock(&shared.open).insert(transactional_id.clone()) {
            return Err(LogError::invalid(format!(
                "stage {} already has an instance {}: give each member its own",
                spec.name, spec.instance
            )));
        }
        // First of all: it ends the transaction that a killed holder of the id left open. Until that
        // transaction ends, the broker answers nobody who asks for the group's offsets.
        let opened = Sender::open(clients, Some(&transactional_id))
            .and_then(|sender| Ok((sender, Self::open(shared, &spec, partitions)?)));
        if opened.is_err() {
            lock(&shared.open).remove(&transactional_id);
        }
        let (sender, consumer) = opened?;
        Ok(Self {
            inputs: BTreeMap::new(),
            consumer,
            sender: Some(sender),
            shared: Arc::clone(shared),
            holdings: Holdings::new(spec),
            transactional_id,
            number: 0,
            void: false,
        })
    }

    fn open(
        shared: &Shared,
        spec: &StageSpec,
        partitions: u32,
    ) -> Result<Arc<BaseConsumer<Events>>, LogError> {
        let clients = &shared.clients;
        if spec.changelog {
            admin::ensure_changelog(clients, &spec.name, &spec.inputs[0], partitions)?;
        }
        let places: Vec<TopicPartition> = spec
            .inputs
            .iter()
            .flat_map(|topic| (0..partitions).map(|partition| (Arc::clone(topic), partition)))
            .collect();
        let events = Events::default();
        let signal = Arc::clone(&events.signal);
        let mut consumer = clients.consumer(&clients.name(&spec.name), events)?;
        if let Err(error) = offsets::register(clients, &consumer, &places) {
            // Members that are running have registered the stage, and only they may commit.
            tracing::debug!(%error, stage = %spec.name, "registration left to the group");
        }
        consumer.set_nonempty_callback(move || signal.notify());
        let topics: Vec<String> = spec
            .inputs
            .iter()
            .map(|topic| clients.name(topic))
            .collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| failed(&format!("join the group of {}", spec.name), &error))?;
        Ok(Arc::new(consumer))
    }

    fn spec(&self) -> &StageSpec {
        &self.holdings.spec
    }

    /// Lets librdkafka deliver what is new about the group.
    fn serve(&self) -> Result<(), LogError> {
        while let Some(event) = self.consumer.poll(Duration::ZERO) {
            match event {
                // Every input has its own queue before anything is fetched for it.
                Ok(message) => {
                    tracing::warn!(offset = rdkafka::Message::offset(&message), "stray record")
                }
                Err(error) => self.judge(&error)?,
            }
        }
        Ok(())
    }

    /// Most consumer errors pass by themselves and are told for information.
    fn judge(&self, error: &KafkaError) -> Result<(), LogError> {
        let code = super::decide::code(error);
        let what = || format!("read the inputs of stage {}", self.spec().name);
        match code {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(LogError::storage(
                format!(
                    "kafka: records that stage {} has not read are gone: set retention.ms=-1 on \
                     its topics and leave deletion to driftline",
                    self.spec().name
                ),
                false,
            )),
            Some(code) if super::decide::class(code) == Class::Refused => {
                Err(failed(&what(), error))
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                Err(failed(&what(), error))
            }
            _ => {
                tracing::debug!(%error, stage = %self.spec().name, "kafka member");
                Ok(())
            }
        }
    }

    /// Takes partitions over: producer, offsets, state, and only then records.
    fn take_over(&mut self, partitions: &[u32]) -> Result<Vec<Assignment>, LogError> {
        let shared = Arc::clone(&self.shared);
        let clients = &shared.clients;
        if self.sender.is_none() {
            self.sender = Some(Sender::open(clients, Some(&self.transactional_id))?);
        }
        let spec = self.spec().clone();
        let places: Vec<TopicPartition> = partitions
            .iter()
            .flat_map(|partition| {
                spec.inputs
                    .iter()
                    .map(|topic| (Arc::clone(topic), *partition))
            })
            .collect();
        offsets::register(clients, &self.consumer, &places)?;
        let found = offsets::committed(clients, &self.consumer, &places)?;
        let mut assigned = Vec::with_capacity(partitions.len());
        for (&partition, found) in partitions.iter().zip(found.chunks(spec.inputs.len())) {
            let mut positions = Vec::with_capacity(found.len());
            for found in found {
                let next = found.next.ok_or_else(|| {
                    LogError::storage(format!("kafka: no offset for {}", found.at.0), true)
                })?;
                self.number = self.number.max(found.number);
                positions.push(Position {
                    topic: Arc::clone(&found.at.0),
                    partition,
                    next,
                });
            }
            let state = if spec.changelog {
                changelog::restore(clients, &spec.name, partition)?
            } else {
                BTreeMap::new()
            };
            if !state.is_empty() && found.iter().all(|found| found.number == 0) {
                return Err(expired(&spec.name, partition));
            }
            assigned.push(Assignment {
                partition,
                positions,
                state,
            });
        }
        for assignment in &assigned {
            for (input, position) in assignment.positions.iter().enumerate() {
                self.holdings
                    .add((assignment.partition, input), position.next);
            }
        }
        if let Err(error) = self.fetch() {
            self.holdings.remove(partitions);
            return Err(error);
        }
        Ok(assigned)
    }

    /// Starts to fetch what is held, from where it stands, each input into a queue of its own.
    fn fetch(&mut self) -> Result<(), LogError> {
        self.inputs.clear();
        let mut list = TopicPartitionList::with_capacity(self.holdings.places.len());
        for (cursor, place) in &self.holdings.places {
            let topic = self.shared.clients.name(self.holdings.topic(*cursor));
            let partition = cursor.0 as i32;
            let queue = self.consumer.split_partition_queue(&topic, partition);
            let mut queue = queue.ok_or_else(|| {
                LogError::storage(format!("kafka: no queue for {topic}/{partition}"), true)
            })?;
            let signal = Arc::clone(&self.consumer.context().signal);
            queue.set_nonempty_callback(move || signal.notify());
            self.inputs.insert(
                *cursor,
                Input {
                    queue,
                    at_end: false,
                },
            );
            list.add_partition_offset(&topic, partition, Offset::Offset(place.next as i64))
                .map_err(|error| failed("name an offset", &error))?;
        }
        self.consumer
            .assign(&list)
            .map_err(|error| failed("start to read", &error))
    }

    /// The next change of the assignment, if there is one.
    fn change(&mut self) -> Result<Option<Polled>, LogError> {
        let held = self.holdings.partitions();
        if std::mem::take(&mut self.void) && !held.is_empty() {
            // The group may be revoking them at the same time; then there is nothing to take over.
            if self.consumer.context().front() != Some(Event::Revoke) {
                self.consumer.context().again(held.clone());
            }
            self.give_up(&held);
            return Ok(Some(Polled::Revoked(held)));
        }
        while let Some(event) = self.consumer.context().front() {
            match event {
                Event::Revoke => {
                    self.consumer.context().pop();
                    if !held.is_empty() {
                        self.give_up(&held);
                        return Ok(Some(Polled::Revoked(held)));
                    }
                }
                Event::Assign(partitions) => {
                    let assigned = self.take_over(&partitions)?;
                    self.consumer.context().pop();
                    if !assigned.is_empty() {
                        return Ok(Some(Polled::Assigned(assigned)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn give_up(&mut self, partitions: &[u32]) {
        self.inputs.clear();
        self.holdings.remove(partitions);
    }

    /// Takes what is ready, in turn, up to the limits.
    fn records(&mut self) -> Result<Vec<Record>, LogError> {
        let limits = self.spec().limits;
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (at, cursor) in self.holdings.in_turn().into_iter().enumerate() {
            let partition = cursor.0;
            loop {
                let topic = Arc::clone(self.holdings.topic(cursor));
                let Some(input) = self.inputs.get_mut(&cursor) else {
                    break;
                };
                let next = match input.queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => Ok(record(&topic, &message)),
                    Some(Err(error)) => Err(error),
                };
                match next {
                    Ok(record) if self.holdings.is_before(cursor, record.offset) => {
                        tracing::warn!(
                            %topic, partition, offset = record.offset,
                            "a record from before the place that reading started at is left out"
                        );
                    }
                    Ok(record) => {
                        input.at_end = false;
                        bytes += record.size();
                        self.holdings.advance(cursor, record.offset + 1);
                        records.push(record);
                    }
                    Err(KafkaError::PartitionEOF(_)) => input.at_end = true,
                    // What was taken so far is handed out first; the error comes again or passes.
                    Err(error) if records.is_empty() => self.judge(&error)?,
                    Err(error) => tracing::debug!(%error, "kafka member"),
                }
                if records.len() >= limits.max_records.max(1) || bytes >= limits.max_bytes {
                    self.holdings.took(at + 1);
                    return Ok(records);
                }
            }
        }
        Ok(records)
    }

    fn check(&self, step: &Step) -> Result<(), LogError> {
        check::outputs(&step.outputs, |topic| self.shared.topic(topic))?;
        check::state(self.spec(), &step.state)?;
        self.holdings.check(step)
    }
}

/// A step with state always commits an offset, so state without one means that the broker has
/// forgotten the group.
fn expired(stage: &str, partition: u32) -> LogError {
    LogError::storage(
        format!(
            "kafka: the offsets of stage {stage} partition {partition} are gone but its state is \
             there, so it would count everything again: the broker forgets a group that stands \
             still for offsets.retention.minutes, raise it; then restore the group's offsets, or \
             forget the stage to start it over"
        ),
        false,
    )
}

impl StageLog for KafkaMember {
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError> {
        let deadline = Instant::now() + timeout;
        let signal = Arc::clone(&self.consumer.context().signal);
        loop {
            let seen = signal.version();
            self.serve()?;
            if let Some(change) = self.change()? {
                return Ok(change);
            }
            let records = self.records()?;
            if !records.is_empty() {
                return Ok(Polled::Records(records));
            }
            let now = Instant::now();
            if now >= deadline {
                let caught_up = self.inputs.values().all(|input| input.at_end);
                return Ok(Polled::Idle { caught_up });
            }
            signal.wait(seen, deadline.min(now + SERVE_EVERY));
        }
    }

    fn commit(&mut self, step: Step) -> Result<Committed, CommitError> {
        self.step(step)
    }

    fn rewind(&mut self) -> Result<(), LogError> {
        self.void = true;
        Ok(())
    }

    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        self.holdings.seek(positions)?;
        self.fetch()
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.inputs.clear();
        lock(&self.shared.open).remove(&self.transactional_id);
    }
}

#[cfg(test)]
mod tests;
