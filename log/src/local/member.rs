//! One member of a group: what it holds, where it reads, and its steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::group::{Group, Turn};
use super::store::{StepWrite, Store, Write};
use crate::api::{Assignment, Committed, Polled, Position, Record, StageLog, StageSpec, Step};
use crate::check;
use crate::error::{CommitError, LogError};
use crate::holdings::Holdings;

pub(crate) struct Member<S: Store> {
    shared: Arc<Shared<S>>,
    holdings: Holdings,
}

impl<S: Store> Member<S> {
    pub(crate) fn join(shared: &Arc<Shared<S>>, spec: StageSpec) -> Result<Self, LogError> {
        let partitions = check::stage(&spec, |topic| Ok(shared.store.topic(topic)?.partitions))?;
        shared.groups(|groups| {
            let group = groups.entry(Arc::clone(&spec.name)).or_default();
            if group.is_empty() {
                *group = Group::new(spec.inputs.clone(), partitions);
            }
            if group.inputs != spec.inputs {
                return Err(LogError::invalid(format!(
                    "stage {} has members with other inputs: all members read the same topics",
                    spec.name
                )));
            }
            // Registered first: from the moment it may read, retention must wait for it.
            shared.store.register(&spec.name, &spec.inputs)?;
            if group.join(&spec.instance) {
                return Ok(());
            }
            Err(LogError::invalid(format!(
                "stage {} already has an instance {}: give each member its own",
                spec.name, spec.instance
            )))
        })?;
        shared.signal.notify();
        Ok(Self {
            shared: Arc::clone(shared),
            holdings: Holdings::new(spec),
        })
    }

    fn spec(&self) -> &StageSpec {
        &self.holdings.spec
    }

    fn group<T>(&self, f: impl FnOnce(&mut Group) -> T) -> T {
        self.shared
            .groups(|groups| f(groups.entry(Arc::clone(&self.spec().name)).or_default()))
    }

    fn assign(&mut self, partitions: &[u32]) -> Result<Vec<Assignment>, LogError> {
        let mut assigned = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let spec = self.spec();
            let resumed = self
                .shared
                .store
                .resume(&spec.name, &spec.inputs, partition)?;
            let positions = spec
                .inputs
                .iter()
                .zip(&resumed.next)
                .map(|(topic, &next)| Position {
                    topic: Arc::clone(topic),
                    partition,
                    next,
                });
            let state = if spec.changelog {
                resumed.state
            } else {
                BTreeMap::new()
            };
            assigned.push(Assignment {
                partition,
                positions: positions.collect(),
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

    fn records(&mut self) -> Result<Vec<Record>, LogError> {
        let mut limits = self.spec().limits;
        limits.max_records = limits.max_records.max(1);
        let mut records = Vec::new();
        for (at, cursor) in self.holdings.in_turn().into_iter().enumerate() {
            let topic = self.holdings.topic(cursor);
            let from = self.holdings.places[&cursor].next;
            if self.shared.store.range(topic, cursor.0)?.1 <= from {
                continue;
            }
            let batch = self.shared.store.read(topic, cursor.0, from, limits)?;
            self.holdings.advance(cursor, batch.next);
            let bytes: usize = batch.records.iter().map(Record::size).sum();
            limits.max_records = limits.max_records.saturating_sub(batch.records.len());
            limits.max_bytes = limits.max_bytes.saturating_sub(bytes);
            records.extend(batch.records);
            if limits.max_records == 0 || limits.max_bytes == 0 {
                self.holdings.took(at + 1);
                break;
            }
        }
        Ok(records)
    }

    fn check(&self, step: &Step) -> Result<(), LogError> {
        check::outputs(&step.outputs, |topic| self.shared.store.topic(topic))?;
        check::state(self.spec(), &step.state)?;
        self.holdings.check(step)
    }

    /// Whether a reset voided what the member holds.
    fn is_void(&self) -> bool {
        let held = self.holdings.partitions();
        self.group(|group| !held.iter().all(|p| group.holds(&self.spec().instance, *p)))
    }
}

impl<S: Store> StageLog for Member<S> {
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError> {
        let deadline = Instant::now() + timeout;
        loop {
            let seen = self.shared.signal.version();
            match self.group(|group| group.turn(&self.spec().instance)) {
                Turn::Revoke(partitions) => {
                    self.holdings.remove(&partitions);
                    self.shared.signal.notify();
                    return Ok(Polled::Revoked(partitions));
                }
                Turn::Assign(partitions) => {
                    let assigned = self.assign(&partitions);
                    if assigned.is_err() {
                        self.group(|group| group.give_back(&self.spec().instance, &partitions));
                    }
                    return Ok(Polled::Assigned(assigned?));
                }
                Turn::Stay => {}
            }
            let records = self.records()?;
            if !records.is_empty() {
                return Ok(Polled::Records(records));
            }
            if !self.shared.signal.wait(seen, deadline) {
                return Ok(Polled::Idle { caught_up: true });
            }
        }
    }

    fn commit(&mut self, step: Step) -> Result<Committed, CommitError> {
        if self.is_void() {
            return Err(CommitError::Fenced(format!(
                "stage {} has given its partitions up: poll for the next assignment",
                self.spec().name
            )));
        }
        self.check(&step).map_err(CommitError::Fatal)?;
        let moved = step.offsets.clone();
        let write = Write {
            outputs: step.outputs,
            step: Some(StepWrite {
                stage: Arc::clone(&self.spec().name),
                state: step.state,
                offsets: step.offsets,
            }),
        };
        match self.shared.write(write) {
            Ok(written) => {
                self.holdings.committed(&moved);
                Ok(Committed {
                    number: written.number,
                })
            }
            Err(error) => {
                self.group(|group| group.reset(&self.spec().instance));
                Err(if error.is_retryable() {
                    CommitError::Aborted(error)
                } else {
                    CommitError::Fatal(error)
                })
            }
        }
    }

    fn rewind(&mut self) -> Result<(), LogError> {
        self.group(|group| group.reset(&self.spec().instance));
        Ok(())
    }

    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        self.holdings.seek(positions)
    }
}

impl<S: Store> Drop for Member<S> {
    fn drop(&mut self) {
        self.group(|group| group.leave(&self.spec().instance));
        self.shared.signal.notify();
    }
}
