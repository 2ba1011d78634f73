//! One step: its transaction, and what is done when it did not simply work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::Producer;

use super::KafkaMember;
use crate::api::{Committed, Step};
use crate::error::{CommitError, LogError};
use crate::failpoint;
use crate::holdings::Cursor;
use crate::kafka::CALL_TIMEOUT;
use crate::kafka::client::failed;
use crate::kafka::decide::{Circumstances, Class, Decision, Phase, decide, facts};
use crate::kafka::offsets::{self, TopicPartition};
use crate::kafka::producer::{Outgoing, Sender};

impl KafkaMember {
    pub(super) fn step(&mut self, step: Step) -> Result<Committed, CommitError> {
        self.check(&step).map_err(CommitError::Fatal)?;
        let offsets = self.offsets(&step);
        let (false, false, Some(sender)) = (self.void, offsets.is_empty(), self.sender.take())
        else {
            return Err(CommitError::Fenced(format!(
                "stage {} has given its partitions up: poll for the next assignment",
                self.spec().name
            )));
        };
        self.number += 1;
        let number = self.number;
        let list = offsets::list(&self.shared.clients, &offsets, number);
        let list = list.map_err(CommitError::Fatal)?;
        let started = Instant::now();
        let (decision, error) = self.transact(&sender, &step, &list, started);
        let done = match decision {
            Decision::GoOn => {
                self.sender = Some(sender);
                true
            }
            Decision::Abort => {
                if self.roll_back(&sender, started) {
                    self.sender = Some(sender);
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
        if done {
            self.holdings.committed(&step.offsets);
            return Ok(Committed { number });
        }
        self.void = true;
        Err(self.refusal(error))
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
        let group = self.consumer.context().ownership();
        let group = group.ok_or(KafkaError::Global(Code::UnknownGroup))?;
        sender
            .producer
            .send_offsets_to_transaction(offsets, &group, CALL_TIMEOUT)?;
        failpoint::hit("kafka.step.sent");
        sender.settle()
    }

    /// Runs the step's transaction; says what to do now, and the error that led to it.
    fn transact(
        &self,
        sender: &Sender,
        step: &Step,
        offsets: &TopicPartitionList,
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
        let filled = self.fill(sender, step, offsets);
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
