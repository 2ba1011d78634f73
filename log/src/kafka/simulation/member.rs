//! One member of a group in a simulation: what the one on Kafka does, call by call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::broker::{Broker, Metadata, Producer, Request};
use super::network::{Called, Ended};
use super::session::Told;
use super::{Bug, Name, Session, Shared};
use crate::api::{
    Assignment, Committed, Polled, Position, Record, StageLog, StageSpec, Step, TopicSpec,
};
use crate::check;
use crate::error::{CommitError, LogError};
use crate::holdings::{Cursor, Holdings};
use crate::kafka::client::CHANGELOG_SUFFIX;

/// Most records of one poll, so that the seed cuts the log into steps.
const POLL_RECORDS_MAX: u64 = 12;

/// A change of a member's assignment, noted for its next poll.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Assign(Vec<u32>),
    Revoke { partitions: Vec<u32>, lost: bool },
}

/// Who a member was in its group when it last heard of a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ownership {
    pub(super) generation: u64,
    pub(super) metadata: Metadata,
}

pub(super) struct SimulatedMember {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Name,
    pub(super) holdings: Holdings,
    pub(super) numbers: BTreeMap<Cursor, u64>,
    pub(super) producer: Option<Producer>,
    events: VecDeque<Event>,
    /// Changes heard of.
    generation: u64,
    pub(super) ownership: Option<Ownership>,
    pub(super) confirmed: u64,
    pub(super) batch: u64,
    pub(super) number: u64,
    pub(super) void: bool,
    /// What a planted bug keeps of an aborted step.
    pub(super) kept: Step,
}

pub(super) fn changelog(stage: &str) -> Arc<str> {
    Arc::from(format!("{stage}{CHANGELOG_SUFFIX}"))
}

/// The state that a changelog leads to.
pub(super) fn restored(
    broker: &mut Broker,
    stage: &str,
    partition: u32,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    let (records, _) = broker.read(&(changelog(stage), partition), 0, usize::MAX);
    for record in records {
        match record.value {
            Some(value) => state.insert(record.key.to_vec(), value.to_vec()),
            None => state.remove(&record.key[..]),
        };
    }
    state
}

pub(super) fn passing(what: &str) -> LogError {
    LogError::storage(format!("simulated kafka: could not {what}"), true)
}

impl SimulatedMember {
    pub(super) fn join(shared: &Arc<Shared>, spec: StageSpec) -> Result<Self, LogError> {
        let partitions = check::stage(&spec, |topic| {
            Ok(shared.world().broker.topic(topic)?.partitions)
        })?;
        let name = (Arc::clone(&spec.name), Arc::clone(&spec.instance));
        if spec.changelog {
            let topic = TopicSpec::new(changelog(&spec.name), partitions);
            shared.world().broker.ensure(&topic);
        }
        let topics = spec.inputs.clone();
        let eager = shared.world().eager;
        *shared.world().session(&name) = Session::new(topics, eager);
        let mut member = Self {
            shared: Arc::clone(shared),
            name,
            holdings: Holdings::new(spec),
            numbers: BTreeMap::new(),
            producer: None,
            events: VecDeque::new(),
            generation: 0,
            ownership: None,
            confirmed: 0,
            batch: 0,
            number: 0,
            void: false,
            kept: Step::default(),
        };
        member.open_producer()?;
        let world = &mut *shared.world();
        let session = world.sessions.entry(member.name.clone()).or_default();
        session.join(&mut world.broker, &member.name.0);
        Ok(member)
    }

    /// An end of the process comes as an error that nothing is made of.
    pub(super) fn open_producer(&mut self) -> Result<(), Refused> {
        let id: Arc<str> = Arc::from(format!("{}.{}", self.name.0, self.name.1));
        let called = self.call(Request::Init(Arc::clone(&id)))?;
        let epoch = called
            .answer
            .map_err(|_| Refused(passing("open a producer")))?;
        self.producer = Some(Producer { id, epoch });
        Ok(())
    }

    pub(super) fn call(&self, request: Request) -> Result<Called, Ended> {
        self.shared.call(&self.name, &request)
    }

    pub(super) fn bug(&self, bug: Bug) -> bool {
        self.shared.world().bug == Some(bug)
    }

    /// Hears what the background thread tells.
    pub(super) fn serve(&mut self) {
        let shared = Arc::clone(&self.shared);
        let world = &mut *shared.world();
        let session = world.sessions.entry(self.name.clone()).or_default();
        while let Some(told) = session.told.pop_front() {
            self.generation += 1;
            let now = Ownership {
                generation: self.generation,
                metadata: session.known,
            };
            match told {
                Told::Assign(partitions) => {
                    self.ownership = Some(now);
                    session.answer(&mut world.broker, &self.name.0);
                    if !partitions.is_empty() {
                        let partitions = partitions.into_iter().collect();
                        self.events.push_back(Event::Assign(partitions));
                    }
                }
                Told::Revoke { partitions, lost } => {
                    if lost {
                        self.ownership = None;
                    } else if !session.eager {
                        self.ownership = Some(now);
                    }
                    for event in &mut self.events {
                        if let Event::Assign(waiting) = event {
                            waiting.retain(|partition| !partitions.contains(partition));
                        }
                    }
                    self.events.retain(
                        |event| !matches!(event, Event::Assign(waiting) if waiting.is_empty()),
                    );
                    let partitions = partitions.into_iter().collect();
                    self.events.push_back(Event::Revoke { partitions, lost });
                }
            }
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        let lost = |event: &Event| matches!(event, Event::Revoke { lost: true, .. });
        self.events.iter().any(lost)
    }

    pub(super) fn is_asked_back(&self) -> bool {
        let revoke = |event: &Event| matches!(event, Event::Revoke { .. });
        self.events.iter().any(revoke)
    }

    /// Gives up what the group wants back, and tells it so; which partitions.
    pub(super) fn obey(&mut self) -> BTreeSet<u32> {
        let shared = Arc::clone(&self.shared);
        let world = &mut *shared.world();
        let session = world.sessions.entry(self.name.clone()).or_default();
        let mut gone = BTreeSet::new();
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Revoke { partitions, .. } => {
                    session.answer(&mut world.broker, &self.name.0);
                    gone.extend(partitions);
                }
                assign @ Event::Assign(_) => self.events.push_back(assign),
            }
        }
        gone
    }

    fn change(&mut self) -> Result<Option<Polled>, LogError> {
        let held = self.holdings.partitions();
        let answered = self.obey();
        let mut gone: Vec<u32> = held
            .iter()
            .copied()
            .filter(|p| answered.contains(p))
            .collect();
        if !gone.is_empty() && gone.len() < held.len() {
            self.shared.world().counts.moved += gone.len() as u64;
        }
        if std::mem::take(&mut self.void) {
            let kept: Vec<u32> = held.iter().copied().filter(|p| !gone.contains(p)).collect();
            if !kept.is_empty() {
                self.events.push_front(Event::Assign(kept));
            }
            gone = held;
        }
        if !gone.is_empty() {
            self.holdings.remove(&gone);
            self.numbers
                .retain(|(partition, _), _| !gone.contains(partition));
            return Ok(Some(Polled::Revoked(gone)));
        }
        while let Some(Event::Assign(partitions)) = self.events.front().cloned() {
            match self.take_over(&partitions) {
                Ok(assigned) => {
                    self.events.pop_front();
                    if !assigned.is_empty() {
                        return Ok(Some(Polled::Assigned(assigned)));
                    }
                }
                // What is held goes on meanwhile.
                Err(error) if !self.holdings.places.is_empty() && error.is_retryable() => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Producer, offsets, state, and only then records.
    fn take_over(&mut self, partitions: &[u32]) -> Result<Vec<Assignment>, LogError> {
        if self.producer.is_none() {
            self.open_producer().map_err(|refused| refused.0)?;
        }
        self.look_around()?;
        let spec = self.holdings.spec.clone();
        let generation = self.generation;
        let (mut found, mut numbers) = (Vec::new(), BTreeMap::new());
        for &partition in partitions {
            let mut positions = Vec::with_capacity(spec.inputs.len());
            for (input, topic) in spec.inputs.iter().enumerate() {
                let at = (Arc::clone(topic), partition);
                let committed = self.shared.world().broker.committed(&spec.name, &at);
                let committed = committed.map_err(|_| passing("read committed offsets"))?;
                let (next, number) = committed.unwrap_or((0, 0));
                self.number = self.number.max(number);
                numbers.insert((partition, input), number);
                positions.push(Position {
                    topic: Arc::clone(topic),
                    partition,
                    next,
                });
            }
            found.push((partition, positions));
        }
        self.look_around()?;
        let mut assigned = Vec::with_capacity(found.len());
        for (partition, positions) in found {
            let mut state = BTreeMap::new();
            if spec.changelog {
                let broker = &mut self.shared.world().broker;
                let (written, stable) = broker.ends(&(changelog(&spec.name), partition));
                if stable < written {
                    return Err(passing("read the changelog to its end"));
                }
                state = restored(broker, &spec.name, partition);
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
        self.numbers.extend(numbers);
        for assignment in &assigned {
            for (input, position) in assignment.positions.iter().enumerate() {
                self.holdings
                    .add((assignment.partition, input), position.next);
            }
        }
        Ok(assigned)
    }

    /// Whether nobody else has had any of what is held in between.
    pub(super) fn is_as_left(&self) -> Result<bool, LogError> {
        let world = self.shared.world();
        for (cursor, place) in &self.holdings.places {
            let at = (Arc::clone(self.holdings.topic(*cursor)), cursor.0);
            let found = world.broker.committed(&self.name.0, &at);
            let (next, number) = found
                .map_err(|_| passing("read committed offsets"))?
                .unwrap_or((0, 0));
            if next != place.committed || self.numbers.get(cursor) != Some(&number) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn look_around(&self) -> Result<(), LogError> {
        let waited = self.shared.meanwhile(&self.name);
        waited.map_err(|ended| Refused::from(ended).0)
    }

    /// Some of what is ready; the seed says how much.
    fn records(&mut self) -> (Vec<Record>, bool) {
        let shared = Arc::clone(&self.shared);
        let mut world = shared.world();
        let (mut records, mut at_end) = (Vec::new(), true);
        for cursor in self.holdings.in_turn() {
            let at = (Arc::clone(self.holdings.topic(cursor)), cursor.0);
            let from = self.holdings.places[&cursor].next;
            let most = match world.chaos.lost {
                0 => POLL_RECORDS_MAX,
                _ => world.random.below(POLL_RECORDS_MAX),
            };
            let (some, next) = world.broker.read(&at, from, most as usize);
            at_end &= next >= world.broker.ends(&at).1;
            self.holdings.advance(cursor, next);
            records.extend(some);
        }
        (records, at_end)
    }

    pub(super) fn check(&self, step: &Step) -> Result<(), LogError> {
        check::outputs(&step.outputs, |topic| {
            self.shared.world().broker.topic(topic)
        })?;
        check::state(&self.holdings.spec, &step.state)?;
        self.holdings.check(step)
    }
}

/// An error on its way to the stage's loop.
pub(super) struct Refused(pub(super) LogError);

impl From<Ended> for Refused {
    fn from(ended: Ended) -> Self {
        Self(LogError::storage(ended.0, false))
    }
}

impl From<Refused> for LogError {
    fn from(refused: Refused) -> Self {
        refused.0
    }
}

impl StageLog for SimulatedMember {
    fn poll(&mut self, _timeout: Duration) -> Result<Polled, LogError> {
        self.look_around()?;
        self.serve();
        if let Some(change) = self.change()? {
            return Ok(change);
        }
        let (records, read) = self.records();
        let caught_up = read && self.events.is_empty();
        if records.is_empty() {
            return Ok(Polled::Idle { caught_up });
        }
        Ok(Polled::Records(records))
    }

    fn commit(&mut self, step: Step) -> Result<Committed, CommitError> {
        self.step(step)
    }

    fn rewind(&mut self) -> Result<(), LogError> {
        self.void = true;
        Ok(())
    }

    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        self.holdings.seek(positions)
    }
}

impl Drop for SimulatedMember {
    fn drop(&mut self) {
        let mut world = self.shared.world();
        let session = world.session(&self.name);
        session.joined = false;
        if let (false, Some(member)) = (session.crashed, session.known.member) {
            world.broker.leave(&self.name.0, member);
        }
    }
}
