//! One step of a member in a simulation: its transaction, and what is done when it did not simply work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::Bug;
use super::broker::{At, Metadata, Moved, Producer, Request};
use super::member::{Ownership, Refused, SimulatedMember, changelog, passing};
use super::network::{Called, Ended, REQUEST_TIMEOUT_MS};
use crate::api::{Committed, Output, Step};
use crate::error::{CommitError, LogError};
use crate::holdings::Cursor;
use crate::kafka::decide::{Circumstances, Class, Decision, Facts, Phase, class, decide};

/// How long a step that the group has refused waits for the next generation.
const NEXT_GENERATION_MS: u64 = 10_000;

/// What became of one transaction of a step.
enum Outcome {
    Done(Committed),
    Refused(Code),
    Failed(Code),
}

fn fatal(ended: Ended) -> CommitError {
    CommitError::Fatal(Refused::from(ended).0)
}

impl SimulatedMember {
    pub(super) fn step(&mut self, mut step: Step) -> Result<Committed, CommitError> {
        self.check(&step).map_err(CommitError::Fatal)?;
        if self.bug(Bug::DoubledDelta) {
            let kept = std::mem::take(&mut self.kept);
            step.outputs.extend(kept.outputs);
            step.state.extend(kept.state);
        }
        let deadline_ms = self.shared.world().now_ms + NEXT_GENERATION_MS;
        let mut refused = None;
        loop {
            let written = self
                .ownership(refused, deadline_ms)
                .and_then(|ownership| Ok((self.attempt(&step, ownership)?, ownership)));
            if self.shared.world().session(&self.name).crashed {
                return Err(CommitError::Fatal(LogError::Closed));
            }
            let late = self.shared.world().now_ms >= deadline_ms;
            let error = match written {
                Ok((Outcome::Done(committed), _)) => {
                    let counts = &mut self.shared.world().counts;
                    counts.steps += 1;
                    counts.renewed += u64::from(refused.is_some());
                    self.holdings.committed(&step.offsets);
                    return Ok(committed);
                }
                Ok((Outcome::Refused(_), ownership)) if !late => {
                    refused = Some(ownership.generation);
                    continue;
                }
                Ok((Outcome::Refused(code) | Outcome::Failed(code), _)) => refusal(code),
                Err(error) => error,
            };
            if matches!(error, CommitError::Fenced(_)) {
                self.shared.world().counts.fenced += 1;
            }
            self.void = true;
            return Err(error);
        }
    }

    /// Who this step is written as; the group is heard first.
    fn ownership(
        &mut self,
        refused: Option<u64>,
        deadline_ms: u64,
    ) -> Result<Ownership, CommitError> {
        let fenced = |why: &str| Err(CommitError::Fenced(why.to_owned()));
        let heedless = self.bug(Bug::LostWrite);
        loop {
            self.serve();
            if self.void || self.holdings.places.is_empty() || self.producer.is_none() {
                return fenced("partitions were given up");
            }
            if self.is_lost() && heedless {
                self.obey();
            } else if self.is_lost() {
                return fenced("put out of the group");
            }
            let ownership = self.ownership;
            if let Some(ownership) =
                ownership.filter(|found| refused.is_none_or(|at| found.generation > at))
            {
                if self.confirmed != ownership.generation {
                    if !heedless && !self.is_as_left().map_err(CommitError::Aborted)? {
                        return fenced("others had partitions in between");
                    }
                    self.confirmed = ownership.generation;
                }
                return Ok(ownership);
            }
            if self.shared.world().now_ms >= deadline_ms || self.is_asked_back() {
                return fenced("the next generation has not come in time");
            }
            let waited = self.shared.wait(100).map_err(Ended);
            waited.map_err(fatal)?;
            self.look_around().map_err(CommitError::Fatal)?;
        }
    }

    /// One transaction of a step.
    fn attempt(&mut self, step: &Step, ownership: Ownership) -> Result<Outcome, CommitError> {
        let mut offsets = self.offsets(step);
        let Some(producer) = self.producer.take() else {
            return Err(CommitError::Fenced("the producer is gone".into()));
        };
        self.number += 1;
        let number = self.number;
        for moved in &mut offsets {
            moved.number = number;
        }
        if self.bug(Bug::DroppedOffset) && self.shared.world().random.per_mille(100) {
            offsets.pop();
        }
        let started_ms = self.shared.world().now_ms;
        let (decision, code, disturbed) = self
            .transact(&producer, step, &offsets, ownership.metadata, started_ms)
            .map_err(fatal)?;
        let code = code.unwrap_or(Code::OperationTimedOut);
        let done = match decision {
            Decision::GoOn => {
                self.producer = Some(producer);
                true
            }
            Decision::Abort => {
                self.kept = step.clone();
                if self
                    .roll_back(&producer, started_ms, disturbed)
                    .map_err(fatal)?
                {
                    self.producer = Some(producer);
                    if class(code) == Class::Group {
                        return Ok(Outcome::Refused(code));
                    }
                }
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
        if !done {
            return Ok(Outcome::Failed(code));
        }
        for moved in &offsets {
            let inputs = &self.holdings.spec.inputs;
            if let Some(input) = inputs.iter().position(|topic| *topic == moved.at.0) {
                self.numbers.insert((moved.at.1, input), number);
            }
        }
        Ok(Outcome::Done(Committed { number }))
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
        metadata: Metadata,
        started_ms: u64,
    ) -> Result<(Decision, Option<Code>, bool), Ended> {
        let filled = self.fill(producer, step, offsets, metadata)?;
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
        metadata: Metadata,
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
            false => metadata,
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

/// What the caller is told about a step that did not happen.
fn refusal(code: Code) -> CommitError {
    match class(code) {
        Class::Group | Class::Fenced => CommitError::Fenced(code.to_string()),
        Class::Refused => CommitError::Fatal(passing("commit")),
        Class::Passing => CommitError::Aborted(passing("commit")),
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
