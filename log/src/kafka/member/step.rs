//! One step: its transaction, and what is done when it did not simply work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;

use super::{KafkaMember, SERVE_EVERY};
use crate::api::{Committed, Step};
use crate::error::{CommitError, LogError};
use crate::failpoint;
use crate::holdings::Cursor;
use crate::kafka::CALL_TIMEOUT;
use crate::kafka::client::{Membership, failed};
use crate::kafka::decide::{Circumstances, Class, Decision, Phase, decide, facts};
use crate::kafka::events::Ownership;
use crate::kafka::offsets::{self, TopicPartition};
use crate::kafka::producer::{Outgoing, Sender};

/// How long a step that the group has refused waits for the next generation before everything is taken over
/// anew: the members have to be dealt with once more, which takes as long as the slowest needs to answer.
const NEXT_GENERATION: Duration = Duration::from_secs(10);

/// With KIP-848 a new epoch comes without a word: a step that was refused asks for it after this time.
const NEXT_EPOCH: Duration = Duration::from_millis(100);

/// What became of one transaction of a step.
enum Outcome {
    Done(Committed),
    /// The group did not take it, it is rolled back, and the producer is as good as before.
    Refused(Option<KafkaError>),
    Failed(Option<KafkaError>),
}

impl KafkaMember {
    pub(super) fn step(&mut self, step: Step) -> Result<Committed, CommitError> {
        self.check(&step).map_err(CommitError::Fatal)?;
        let deadline = Instant::now() + NEXT_GENERATION;
        let mut refused = None;
        loop {
            let written = self
                .ownership(refused, deadline)
                .and_then(|ownership| Ok((self.attempt(&step, &ownership)?, ownership)));
            let error = match written {
                Ok((Outcome::Done(committed), _)) => {
                    self.holdings.committed(&step.offsets);
                    return Ok(committed);
                }
                // Nothing is lost as far as is known, so it stays right: once more, as who this is now.
                Ok((Outcome::Refused(error), ownership)) if Instant::now() < deadline => {
                    tracing::debug!(?error, stage = %self.spec().name, "a generation has passed");
                    refused = Some(ownership.generation);
                    continue;
                }
                Ok((Outcome::Refused(error) | Outcome::Failed(error), _)) => self.refusal(error),
                Err(error) => error,
            };
            self.void = true;
            return Err(error);
        }
    }

    /// Who this step is written as. The group is heard first: what it wants back is still this member's
    /// until the next poll, but of what was lost nothing is written any more.
    fn ownership(
        &mut self,
        refused: Option<u64>,
        deadline: Instant,
    ) -> Result<Ownership, CommitError> {
        let context = Arc::clone(self.consumer.context());
        let silent = context.membership() == Membership::Consumer;
        if refused.is_some() && silent {
            context
                .signal
                .wait(context.signal.version(), Instant::now() + NEXT_EPOCH);
        }
        loop {
            let seen = context.signal.version();
            self.serve().map_err(aborted)?;
            let fenced = |why: &str| {
                let name = &self.spec().name;
                CommitError::Fenced(format!("stage {name} {why}: poll for the next assignment"))
            };
            if self.void || self.holdings.places.is_empty() || self.sender.is_none() {
                return Err(fenced("has given its partitions up"));
            }
            if context.is_lost() {
                return Err(fenced("was put out of its group"));
            }
            let ownership = context.ownership(&self.consumer);
            if let Some(ownership) =
                ownership.filter(|found| silent || refused.is_none_or(|at| found.generation > at))
            {
                if self.confirmed != ownership.generation || refused.is_some() {
                    if !self.is_as_left().map_err(aborted)? {
                        return Err(fenced("had partitions that others have had since"));
                    }
                    self.confirmed = ownership.generation;
                }
                return Ok(ownership);
            }
            let now = Instant::now();
            if now >= deadline || context.is_asked_back() {
                return Err(fenced(
                    "has not heard of the group's next generation in time",
                ));
            }
            context.signal.wait(seen, deadline.min(now + SERVE_EVERY));
        }
    }

    /// One transaction of a step.
    fn attempt(&mut self, step: &Step, ownership: &Ownership) -> Result<Outcome, CommitError> {
        let offsets = self.offsets(step);
        let Some(sender) = self.sender.take() else {
            return Err(CommitError::Fenced("the producer is gone".into()));
        };
        self.number += 1;
        let number = self.number;
        let list = offsets::list(&self.shared.clients, &offsets, number);
        let list = list.map_err(CommitError::Fatal)?;
        let started = Instant::now();
        let (decision, error) = self.transact(&sender, step, &list, ownership, started);
        let done = match decision {
            Decision::GoOn => {
                self.sender = Some(sender);
                true
            }
            Decision::Abort => {
                if self.roll_back(&sender, started) {
                    self.sender = Some(sender);
                    let by_group = |error: &KafkaError| facts(error).class == Class::Group;
                    if error.as_ref().is_some_and(by_group) {
                        return Ok(Outcome::Refused(error));
                    }
                }
                false
            }
            Decision::Rebuild => false,
            Decision::Doubt => {
                tracing::warn!(stage = %self.spec().name, number, ?error, "commit in doubt");
                drop(sender);
                self.happened(&offsets, number).unwrap_or_else(|error| {
                    // The next assignment begins with a new producer and reads what is true.
                    tracing::warn!(%error, "a doubtful commit could not be looked up yet");
                    self.sender = None;
                    false
                })
            }
        };
        if !done {
            return Ok(Outcome::Failed(error));
        }
        for ((topic, partition), _) in &offsets {
            let input = self.spec().inputs.iter().position(|name| name == topic);
            if let Some(input) = input {
                self.numbers.insert((*partition, input), number);
            }
        }
        Ok(Outcome::Done(Committed { number }))
    }

    /// The offsets that a step commits. They carry its number, by which a doubtful commit is told
    /// from none, and by which a partition with state is known to have offsets: where a step moves
    /// none, it commits those of its partitions again as they are.
    fn offsets(&self, step: &Step) -> Vec<(TopicPartition, u64)> {
        let moved = step.offsets.iter();
        let mut offsets: BTreeMap<TopicPartition, u64> = moved
            .map(|p| ((Arc::clone(&p.topic), p.partition), p.next))
            .collect();
        let with_state: BTreeSet<u32> = step.state.iter().map(|delta| delta.partition).collect();
        let untouched = with_state.into_iter().filter(|partition| {
            !step
                .offsets
                .iter()
                .any(|position| position.partition == *partition)
        });
        let mut again: Vec<Cursor> = untouched.map(|partition| (partition, 0)).collect();
        if offsets.is_empty() && again.is_empty() {
            again.extend(self.holdings.places.keys().next());
        }
        for cursor in again {
            if let Some(place) = self.holdings.places.get(&cursor) {
                let at = (Arc::clone(self.holdings.topic(cursor)), cursor.0);
                offsets.insert(at, place.committed);
            }
        }
        offsets.into_iter().collect()
    }

    /// Everything of a transaction before its end.
    fn fill(
        &self,
        sender: &Sender,
        step: &Step,
        offsets: &TopicPartitionList,
        ownership: &Ownership,
    ) -> Result<(), KafkaError> {
        let clients = &self.shared.clients;
        sender.reset(0);
        sender.producer.begin_transaction()?;
        for output in &step.outputs {
            let outgoing = Outgoing {
                topic: &clients.name(&output.topic),
                partition: output.partition,
                key: &output.key,
                value: output.value.as_deref(),
                timestamp_ms: Some(output.timestamp_us.div_euclid(1_000)),
            };
            sender.send(outgoing, 0)?;
        }
        let changelog = clients.changelog(&self.spec().name);
        for delta in &step.state {
            let outgoing = Outgoing {
                topic: &changelog,
                partition: delta.partition,
                key: &delta.key,
                value: delta.value.as_deref(),
                timestamp_ms: None,
            };
            sender.send(outgoing, 0)?;
        }
        sender
            .producer
            .send_offsets_to_transaction(offsets, &ownership.metadata, CALL_TIMEOUT)?;
        failpoint::hit("kafka.step.sent");
        sender.settle()
    }

    /// Runs the step's transaction; says what to do now, and the error that led to it.
    fn transact(
        &self,
        sender: &Sender,
        step: &Step,
        offsets: &TopicPartitionList,
        ownership: &Ownership,
        started: Instant,
    ) -> (Decision, Option<KafkaError>) {
        // Time and disturbances count from the transaction's first request on: a copy of its offsets that
        // was left behind can meet the next transaction just as a copy of its end can.
        let judge = |phase, result: &Result<(), KafkaError>| {
            decide(
                phase,
                result.as_ref().map_err(facts).copied(),
                self.circumstances(sender, started),
            )
        };
        let filled = self.fill(sender, step, offsets, ownership);
        let decision = judge(Phase::Before, &filled);
        if decision != Decision::GoOn {
            return (decision, filled.err());
        }
        failpoint::hit("kafka.commit.before");
        let committed = sender.producer.commit_transaction(CALL_TIMEOUT);
        failpoint::hit("kafka.commit.after");
        (judge(Phase::Commit, &committed), committed.err())
    }

    fn circumstances(&self, sender: &Sender, started: Instant) -> Circumstances {
        let options = self.shared.clients.options();
        let disturbed = sender.disturbed();
        Circumstances {
            took: match options.without_guard {
                true => Duration::ZERO,
                false => started.elapsed(),
            },
            request_max: options.request_timeout,
            disturbed: disturbed && !options.without_guard,
        }
    }

    /// Rolls back; `false` when the producer is of no more use.
    fn roll_back(&self, sender: &Sender, started: Instant) -> bool {
        // An abort waits for what became of every record, and nobody else asks librdkafka for that.
        let patience = self.shared.clients.options().request_timeout;
        if let Err(error) = sender.settle_within(patience) {
            tracing::debug!(%error, "records of a step that is rolled back");
        }
        let aborted = sender.producer.abort_transaction(CALL_TIMEOUT);
        let circumstances = self.circumstances(sender, started);
        let outcome = aborted.as_ref().map_err(facts).copied();
        decide(Phase::Abort, outcome, circumstances) == Decision::GoOn
    }

    /// After a doubtful commit: with a new producer, nothing of the old one can happen any more;
    /// then the committed offsets tell.
    pub(super) fn happened(
        &mut self,
        offsets: &[(TopicPartition, u64)],
        number: u64,
    ) -> Result<bool, LogError> {
        let shared = Arc::clone(&self.shared);
        self.sender = Some(Sender::open(&shared.clients, Some(&self.transactional_id))?);
        let asked: Vec<TopicPartition> = offsets.iter().map(|(at, _)| at.clone()).collect();
        let found = offsets::committed(&shared.clients, &self.consumer, &asked)?;
        let same = |(found, (_, next)): (&offsets::Found, &(TopicPartition, u64))| {
            found.number == number && found.next == Some(*next)
        };
        Ok(!found.is_empty() && found.iter().zip(offsets).all(same))
    }

    /// What the caller is told about a step that did not happen.
    fn refusal(&self, error: Option<KafkaError>) -> CommitError {
        let Some(error) = error else {
            return CommitError::Aborted(LogError::storage("kafka: the commit was in doubt", true));
        };
        let class = facts(&error).class;
        let what = format!("commit a step of stage {}", self.spec().name);
        match class {
            Class::Group | Class::Fenced => {
                if class == Class::Fenced {
                    tracing::warn!(
                        stage = %self.spec().name, instance = %self.spec().instance,
                        "another producer has this instance's transactional id: if this goes on, \
                         two processes run the same instance"
                    );
                }
                CommitError::Fenced(error.to_string())
            }
            Class::Refused => CommitError::Fatal(failed(&what, &error)),
            Class::Passing => CommitError::Aborted(failed(&what, &error)),
        }
    }
}

/// What a failure before the transaction is to the caller.
fn aborted(error: LogError) -> CommitError {
    match error.is_retryable() {
        true => CommitError::Aborted(error),
        false => CommitError::Fatal(error),
    }
}
