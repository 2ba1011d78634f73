//! One member of a group on Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::client::{Membership, failed};
use super::decide::Class;
use super::events::Events;
use super::offsets::{self, TopicPartition};
use super::producer::Sender;
use super::{Shared, admin, changelog, lock};
use crate::api::{Assignment, Committed, Polled, Position, StageLog, StageSpec, Step};
use crate::check;
use crate::error::{CommitError, LogError};
use crate::holdings::{Cursor, Holdings};

mod reading;
mod step;

/// The group is served at least this often while a poll waits.
const SERVE_EVERY: Duration = Duration::from_millis(200);

/// Partitions that could not be taken over are tried again after this time, while others are held: whoever
/// had them may have left a transaction open, which the broker ends.
const TAKE_OVER_AGAIN: Duration = Duration::from_secs(1);

/// An input partition's own queue.
struct Input {
    queue: PartitionQueue<Events>,
    /// Read to its end, as far as librdkafka has said.
    at_end: bool,
    /// Reading has to go on from elsewhere.
    moved: bool,
}

pub(super) struct KafkaMember {
    // Dropped in this order: queues before the consumer they belong to.
    inputs: BTreeMap<Cursor, Input>,
    consumer: Arc<BaseConsumer<Events>>,
    sender: Option<Sender>,
    shared: Arc<Shared>,
    holdings: Holdings,
    /// Number of the step that committed what is held last, as the broker has it beside the offset.
    numbers: BTreeMap<Cursor, u64>,
    transactional_id: String,
    /// Highest number of a step tried or found.
    number: u64,
    /// Generation of ownership in which what is held was last seen to be nobody else's.
    confirmed: u64,
    /// What is held is void: revoke and take over again.
    void: bool,
    /// What is held is not yet read from where it should be.
    unread: bool,
    /// When partitions that could not be taken over are tried again.
    again: Instant,
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
            numbers: BTreeMap::new(),
            transactional_id,
            number: 0,
            confirmed: 0,
            void: false,
            unread: false,
            again: Instant::now(),
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
        let topics: Vec<String> = spec
            .inputs
            .iter()
            .map(|topic| clients.name(topic))
            .collect();
        let membership = Membership::of(clients.options().group_protocol, topics.len());
        let events = Events::new(membership, topics);
        let signal = Arc::clone(&events.signal);
        let mut consumer = clients.member(&clients.name(&spec.name), events)?;
        if let Err(error) = offsets::register(clients, &consumer, &places) {
            // Members that are running have registered the stage, and only they may commit.
            tracing::debug!(%error, stage = %spec.name, "registration left to the group");
        }
        consumer.set_nonempty_callback(move || signal.notify());
        let topics = consumer.context().topics().iter();
        let topics: Vec<&str> = topics.map(String::as_str).collect();
        consumer
            .subscribe(&topics)
            .map_err(|error| failed(&format!("join the group of {}", spec.name), &error))?;
        Ok(Arc::new(consumer))
    }

    fn spec(&self) -> &StageSpec {
        &self.holdings.spec
    }

    /// Lets librdkafka deliver all that is new about the group.
    fn serve(&self) -> Result<(), LogError> {
        loop {
            let before = self.consumer.context().generation();
            match self.consumer.poll(Duration::ZERO) {
                // Every input has its own queue before anything is fetched for it.
                Some(Ok(message)) => {
                    tracing::warn!(offset = rdkafka::Message::offset(&message), "stray record")
                }
                Some(Err(error)) => self.judge(&error)?,
                // A change of the group comes without a message.
                None if self.consumer.context().generation() == before => return Ok(()),
                None => {}
            }
        }
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
            Some(Code::InconsistentGroupProtocol) => Err(LogError::storage(
                format!(
                    "kafka: the group of stage {} has members that deal out partitions in another way, \
                     of an older release or with another [log] group_protocol: stop all processes that \
                     run it, then start them",
                    self.spec().name
                ),
                true,
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

    /// Takes partitions over: producer, offsets, state. Records are read from the next poll on.
    fn take_over(&mut self, partitions: &[u32]) -> Result<Vec<Assignment>, LogError> {
        let shared = Arc::clone(&self.shared);
        let clients = &shared.clients;
        if self.sender.is_none() {
            self.sender = Some(Sender::open(clients, Some(&self.transactional_id))?);
        }
        let spec = self.spec().clone();
        let generation = self.consumer.context().generation();
        let of = |partition: u32| {
            spec.inputs
                .iter()
                .map(move |at| (Arc::clone(at), partition))
        };
        let places: Vec<TopicPartition> = partitions.iter().flat_map(|at| of(*at)).collect();
        offsets::register(clients, &self.consumer, &places)?;
        let found = offsets::committed(clients, &self.consumer, &places)?;
        let mut assigned = Vec::with_capacity(partitions.len());
        for (&partition, found) in partitions.iter().zip(found.chunks(spec.inputs.len())) {
            let mut positions = Vec::with_capacity(found.len());
            for found in found {
                let next = found.next.ok_or_else(|| {
                    LogError::storage(format!("kafka: no offset for {}", found.at.0), true)
                })?;
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
        if self.holdings.places.is_empty() {
            self.confirmed = generation;
        }
        for (&partition, found) in partitions.iter().zip(found.chunks(spec.inputs.len())) {
            for (input, found) in found.iter().enumerate() {
                self.number = self.number.max(found.number);
                self.numbers.insert((partition, input), found.number);
                self.holdings
                    .add((partition, input), found.next.unwrap_or(0));
            }
        }
        self.unread = true;
        Ok(assigned)
    }

    /// Whether what is held is still as it was left: nobody else has had any of it in between.
    fn is_as_left(&self) -> Result<bool, LogError> {
        let cursors: Vec<Cursor> = self.holdings.places.keys().copied().collect();
        let at = |cursor: &Cursor| (Arc::clone(self.holdings.topic(*cursor)), cursor.0);
        let asked: Vec<TopicPartition> = cursors.iter().map(at).collect();
        let found = offsets::committed(&self.shared.clients, &self.consumer, &asked)?;
        let same = |(cursor, found): (&Cursor, &offsets::Found)| {
            let place = self.holdings.places.get(cursor);
            found.next == place.map(|place| place.committed)
                && self.numbers.get(cursor) == Some(&found.number)
        };
        Ok(cursors.iter().zip(&found).all(same))
    }

    /// The next change of the assignment, if there is one.
    fn change(&mut self) -> Result<Option<Polled>, LogError> {
        let context = Arc::clone(self.consumer.context());
        let held = self.holdings.partitions();
        let mut gone = context.obey(&self.consumer);
        self.inputs
            .retain(|(partition, _), _| !gone.contains(partition));
        gone.retain(|partition| held.contains(partition));
        if std::mem::take(&mut self.void) {
            let kept: Vec<u32> = held.iter().copied().filter(|p| !gone.contains(p)).collect();
            if !kept.is_empty() {
                context.again(kept);
            }
            self.inputs
                .values_mut()
                .for_each(|input| input.moved = true);
            gone = held;
        }
        if !gone.is_empty() {
            self.holdings.remove(&gone);
            self.numbers
                .retain(|(partition, _), _| !gone.contains(partition));
            return Ok(Some(Polled::Revoked(gone)));
        }
        while let Some(partitions) = context.assigned() {
            let holds = !self.holdings.places.is_empty();
            if holds && Instant::now() < self.again {
                return Ok(None);
            }
            match self.take_over(&partitions) {
                Ok(assigned) => {
                    context.taken_over();
                    if !assigned.is_empty() {
                        return Ok(Some(Polled::Assigned(assigned)));
                    }
                }
                // What is held goes on meanwhile.
                Err(error) if holds && error.is_retryable() => {
                    tracing::warn!(%error, ?partitions, "partitions are taken over later");
                    self.again = Instant::now() + TAKE_OVER_AGAIN;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
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
            self.fetch()?;
            let records = self.records()?;
            if !records.is_empty() {
                return Ok(Polled::Records(records));
            }
            let now = Instant::now();
            if now >= deadline {
                let caught_up = self.inputs.values().all(|input| input.at_end)
                    && self.consumer.context().assigned().is_none();
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
        for position in positions {
            let cursor = self.holdings.cursor(position)?;
            if let Some(input) = self.inputs.get_mut(&cursor) {
                input.moved = true;
            }
        }
        self.unread = true;
        Ok(())
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.inputs.clear();
        self.consumer.context().close(&self.consumer);
        lock(&self.shared.open).remove(&self.transactional_id);
    }
}

#[cfg(test)]
mod generations;
#[cfg(test)]
mod tests;
