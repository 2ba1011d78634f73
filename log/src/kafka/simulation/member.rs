//! One member of a group in a simulation: what the one on Kafka does, call by call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::broker::{At, Broker, Metadata, Moved, Producer, Request};
use super::network::{Called, Ended, REQUEST_TIMEOUT_MS};
use super::{Bug, Event, Name, Session, Shared};
use crate::api::{
    Assignment, Committed, Output, Polled, Position, Record, StageLog, StageSpec, Step, TopicSpec,
};
use crate::check;
use crate::error::{CommitError, LogError};
use crate::holdings::{Cursor, Holdings};
use crate::kafka::client::CHANGELOG_SUFFIX;
use crate::kafka::decide::{Circumstances, Class, Decision, Facts, Phase, class, decide};

/// Most records of one poll, so that the seed cuts the log into steps.
const POLL_RECORDS_MAX: u64 = 12;

pub(super) struct SimulatedMember {
    shared: Arc<Shared>,
    name: Name,
    holdings: Holdings,
    producer: Option<Producer>,
    /// As the group knew it when the partitions held were assigned.
    metadata: Metadata,
    batch: u64,
    number: u64,
    void: bool,
    /// What a planted bug keeps of an aborted step.
    kept: Step,
}

fn changelog(stage: &str) -> Arc<str> {
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

fn passing(what: &str) -> LogError {
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
        *shared.world().session(&name) = Session {
            topics,
            ..Session::default()
        };
        let mut member = Self {
            shared: Arc::clone(shared),
            name,
            holdings: Holdings::new(spec),
            producer: None,
            metadata: Metadata::default(),
            batch: 0,
            number: 0,
            void: false,
            kept: Step::default(),
        };
        member.open_producer()?;
        member.join_group();
        Ok(member)
    }

    /// As the group asks for it: joins, or joins again.
    fn join_group(&self) {
        let mut world = self.shared.world();
        let session = world.session(&self.name);
        let (member, topics) = (session.known.member, session.topics.clone());
        let member = world.broker.join(&self.name.0, member, &topics);
        let session = world.session(&self.name);
        session.known.member = Some(member);
        session.joined = true;
    }

    /// An end of the process comes as an error that nothing is made of.
    fn open_producer(&mut self) -> Result<(), Refused> {
        let id: Arc<str> = Arc::from(format!("{}.{}", self.name.0, self.name.1));
        let called = self.call(Request::Init(Arc::clone(&id)))?;
        let epoch = called
            .answer
            .map_err(|_| Refused(passing("open a producer")))?;
        self.producer = Some(Producer { id, epoch });
        Ok(())
    }

    fn call(&self, request: Request) -> Result<Called, Ended> {
        self.shared.call(&self.name, &request)
    }

    fn bug(&self, bug: Bug) -> bool {
        self.shared.world().bug == Some(bug)
    }

    /// What the background thread has heard; a revocation is obeyed at once.
    fn serve(&self) {
        let mut world = self.shared.world();
        let session = world.session(&self.name);
        if !std::mem::take(&mut session.revoke) {
            return;
        }
        session.events.clear();
        session.events.push_back(Event::Revoke);
        drop(world);
        self.join_group();
    }

    fn front(&self) -> Option<Event> {
        self.shared
            .world()
            .session(&self.name)
            .events
            .front()
            .cloned()
    }

    fn pop(&self) {
        self.shared.world().session(&self.name).events.pop_front();
    }

    fn change(&mut self) -> Result<Option<Polled>, LogError> {
        let held = self.holdings.partitions();
        if std::mem::take(&mut self.void) && !held.is_empty() {
            if self.front() != Some(Event::Revoke) {
                let again = Event::Assign(held.clone(), self.metadata);
                self.shared
                    .world()
                    .session(&self.name)
                    .events
                    .push_front(again);
            }
            self.holdings.remove(&held);
            return Ok(Some(Polled::Revoked(held)));
        }
        while let Some(event) = self.front() {
            match event {
                Event::Revoke => {
                    self.pop();
                    if !held.is_empty() {
                        self.holdings.remove(&held);
                        return Ok(Some(Polled::Revoked(held)));
                    }
                }
                Event::Assign(partitions, metadata) => {
                    let assigned = self.take_over(&partitions)?;
                    self.metadata = metadata;
                    self.pop();
                    if !assigned.is_empty() {
                        return Ok(Some(Polled::Assigned(assigned)));
                    }
                }
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
        let mut found = Vec::new();
        for &partition in partitions {
            let mut positions = Vec::with_capacity(spec.inputs.len());
            for topic in &spec.inputs {
                let at = (Arc::clone(topic), partition);
                let committed = self.shared.world().broker.committed(&spec.name, &at);
                let committed = committed.map_err(|_| passing("read committed offsets"))?;
                let (next, number) = committed.unwrap_or((0, 0));
                self.number = self.number.max(number);
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
        for assignment in &assigned {
            for (input, position) in assignment.positions.iter().enumerate() {
                self.holdings
                    .add((assignment.partition, input), position.next);
            }
        }
        Ok(assigned)
    }

    fn look_around(&self) -> Result<(), LogError> {
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

    fn check(&self, step: &Step) -> Result<(), LogError> {
        check::outputs(&step.outputs, |topic| {
            self.shared.world().broker.topic(topic)
        })?;
        check::state(&self.holdings.spec, &step.state)?;
        self.holdings.check(step)
    }

    fn step(&mut self, mut step: Step) -> Result<Committed, CommitError> {
        self.check(&step).map_err(CommitError::Fatal)?;
        let mut offsets = self.offsets(&step);
        let (false, false, Some(producer)) = (self.void, offsets.is_empty(), self.producer.take())
        else {
            return Err(CommitError::Fenced("partitions were given up".into()));
        };
        self.number += 1;
        let number = self.number;
        for moved in &mut offsets {
            moved.number = number;
        }
        let moved = step.offsets.clone();
        if self.bug(Bug::DroppedOffset) && self.shared.world().random.per_mille(100) {
            offsets.pop();
        }
        if self.bug(Bug::DoubledDelta) {
            let kept = std::mem::take(&mut self.kept);
            step.outputs.extend(kept.outputs);
            step.state.extend(kept.state);
        }
        let started_ms = self.shared.world().now_ms;
        let (decision, code, disturbed) = self
            .transact(&producer, &step, &offsets, started_ms)
            .map_err(|ended| CommitError::Fatal(Refused::from(ended).0))?;
        let done = match decision {
            Decision::GoOn => {
                self.producer = Some(producer);
                true
            }
            Decision::Abort => {
                let rolled_back = self.roll_back(&producer, started_ms, disturbed);
                if rolled_back.map_err(|ended| CommitError::Fatal(Refused::from(ended).0))? {
                    self.producer = Some(producer);
                }
                self.kept = step;
                false
            }
            Decision::Rebuild => false,
            Decision::Doubt => {
                self.shared.world().counts.doubts += 1;
                self.happened(&offsets).unwrap_or_else(|_| {
                    self.producer = None;
                    false
                })
            }
        };
        if self.shared.world().session(&self.name).crashed {
            return Err(CommitError::Fatal(LogError::Closed));
        }
        if done {
            self.shared.world().counts.steps += 1;
            self.holdings.committed(&moved);
            return Ok(Committed { number });
        }
        self.void = true;
        let code = code.unwrap_or(Code::OperationTimedOut);
        Err(match class(code) {
            Class::Group | Class::Fenced => {
                self.shared.world().counts.fenced += 1;
                CommitError::Fenced(code.to_string())
            }
            Class::Refused => CommitError::Fatal(passing("commit")),
            Class::Passing => CommitError::Aborted(passing("commit")),
        })
    }

    fn offsets(&self, step: &Step) -> Vec<Moved> {
        let moved = step.offsets.iter();
        let mut offsets: BTreeMap<At, u64> = moved
            .map(|p| ((Arc::clone(&p.topic), p.partition), p.next))
            .collect();
        let with_state: BTreeSet<u32> = step.state.iter().map(|delta| delta.partition).collect();
        let mut again: Vec<Cursor> = with_state
            .into_iter()
            .filter(|partition| !step.offsets.iter().any(|p| p.partition == *partition))
            .map(|partition| (partition, 0))
            .collect();
        if offsets.is_empty() && again.is_empty() {
            again.extend(self.holdings.places.keys().next());
        }
        for cursor in again {
            if let Some(place) = self.holdings.places.get(&cursor) {
                let at = (Arc::clone(self.holdings.topic(cursor)), cursor.0);
                offsets.insert(at, place.committed);
            }
        }
        let moved = offsets.into_iter();
        moved
            .map(|(at, next)| Moved {
                at,
                next,
                number: 0,
            })
            .collect()
    }

    fn transact(
        &mut self,
        producer: &Producer,
        step: &Step,
        offsets: &[Moved],
        started_ms: u64,
    ) -> Result<(Decision, Option<Code>, bool), Ended> {
        let filled = self.fill(producer, step, offsets)?;
        let decision = self.judge(Phase::Before, &filled, started_ms);
        if decision != Decision::GoOn {
            return Ok((decision, filled.answer.err(), filled.disturbed));
        }
        let mut started_ms = started_ms;
        let late_ms = self.shared.world().now_ms;
        let mut ended = self.call(Request::End(producer.clone(), true))?;
        if self.bug(Bug::LateGuard) {
            started_ms = late_ms;
        } else {
            // What was left behind on the way here can meet the next transaction just as well.
            ended.disturbed |= filled.disturbed;
        }
        let decision = self.judge(Phase::Commit, &ended, started_ms);
        Ok((decision, ended.answer.err(), ended.disturbed))
    }

    fn fill(
        &mut self,
        producer: &Producer,
        step: &Step,
        offsets: &[Moved],
    ) -> Result<Called, Ended> {
        let mut by_partition: BTreeMap<At, Vec<Output>> = BTreeMap::new();
        let state = step.state.iter().map(|delta| Output {
            topic: changelog(&self.name.0),
            partition: delta.partition,
            key: delta.key.clone(),
            value: delta.value.clone(),
            timestamp_us: 0,
        });
        for output in step.outputs.iter().cloned().chain(state) {
            let at = (Arc::clone(&output.topic), output.partition);
            by_partition.entry(at).or_default().push(output);
        }
        let group = Arc::clone(&self.name.0);
        let partitions = by_partition.keys().cloned().collect();
        let mut requests = vec![Request::Add(
            producer.clone(),
            partitions,
            Arc::clone(&group),
        )];
        for (at, outputs) in by_partition {
            self.batch += 1;
            let outputs = Arc::new(outputs);
            requests.push(Request::Produce(producer.clone(), at, self.batch, outputs));
        }
        let mut disturbed = false;
        for request in requests {
            let called = self.call(request)?;
            disturbed |= called.disturbed;
            if called.answer.is_err() {
                return Ok(Called {
                    disturbed,
                    ..called
                });
            }
        }
        let metadata = match self.bug(Bug::ZombieWrite) {
            true => self.shared.world().session(&self.name).known,
            false => self.metadata,
        };
        let request = Request::Offsets(producer.clone(), group, metadata, offsets.to_vec());
        let called = self.call(request)?;
        Ok(Called {
            disturbed: disturbed || called.disturbed,
            ..called
        })
    }

    fn judge(&self, phase: Phase, called: &Called, started_ms: u64) -> Decision {
        let guarded = !self.bug(Bug::StrayEnd);
        let took_ms = self.shared.world().now_ms - started_ms;
        let circumstances = Circumstances {
            took: Duration::from_millis(if guarded { took_ms } else { 0 }),
            request_max: Duration::from_millis(REQUEST_TIMEOUT_MS),
            disturbed: guarded && called.disturbed,
        };
        decide(
            phase,
            called.answer.map(|_| ()).map_err(facts),
            circumstances,
        )
    }

    fn roll_back(
        &self,
        producer: &Producer,
        started_ms: u64,
        disturbed: bool,
    ) -> Result<bool, Ended> {
        let mut aborted = self.call(Request::End(producer.clone(), false))?;
        aborted.disturbed |= disturbed;
        Ok(self.judge(Phase::Abort, &aborted, started_ms) == Decision::GoOn)
    }

    fn happened(&mut self, offsets: &[Moved]) -> Result<bool, LogError> {
        self.open_producer().map_err(|refused| refused.0)?;
        let world = self.shared.world();
        for moved in offsets {
            let found = world.broker.committed(&self.name.0, &moved.at);
            let found = found.map_err(|_| passing("read committed offsets"))?;
            if found != Some((moved.next, moved.number)) {
                return Ok(false);
            }
        }
        Ok(!offsets.is_empty())
    }
}

/// What librdkafka says of an error.
fn facts(code: Code) -> Facts {
    let class = class(code);
    let fatal = class == Class::Fenced || code == Code::InvalidTransactionalState;
    Facts {
        class,
        fatal,
        requires_abort: !fatal && code != Code::OperationTimedOut,
    }
}

/// An error on its way to the stage's loop.
struct Refused(LogError);

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
        let (records, caught_up) = self.records();
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
