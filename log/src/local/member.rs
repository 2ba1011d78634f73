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

/// Where reading stands: (partition, index of the input).
type Cursor = (u32, usize);

pub(crate) struct Member<S: Store> {
    shared: Arc<Shared<S>>,
    spec: StageSpec,
    /// Next offset to hand out.
    positions: BTreeMap<Cursor, u64>,
    /// Next offset that a restart would go on from; offsets never go back.
    committed: BTreeMap<Cursor, u64>,
    /// Where the next poll starts to look, so that a busy partition does not starve the others.
    turn: usize,
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
            spec,
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
            turn: 0,
        })
    }

    fn group<T>(&self, f: impl FnOnce(&mut Group) -> T) -> T {
        self.shared
            .groups(|groups| f(groups.entry(Arc::clone(&self.spec.name)).or_default()))
    }

    fn revoke(&mut self, partitions: &[u32]) {
        self.positions
            .retain(|(partition, _), _| !partitions.contains(partition));
        self.committed
            .retain(|(partition, _), _| !partitions.contains(partition));
        self.shared.signal.notify();
    }

    fn assign(&mut self, partitions: &[u32]) -> Result<Vec<Assignment>, LogError> {
        let mut assigned = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let resumed =
                self.shared
                    .store
                    .resume(&self.spec.name, &self.spec.inputs, partition)?;
            let positions = self
                .spec
                .inputs
                .iter()
                .zip(&resumed.next)
                .map(|(topic, &next)| Position {
                    topic: Arc::clone(topic),
                    partition,
                    next,
                });
            assigned.push(Assignment {
                partition,
                positions: positions.collect(),
                state: if self.spec.changelog {
                    resumed.state
                } else {
                    BTreeMap::new()
                },
            });
        }
        for assignment in &assigned {
            for (input, position) in assignment.positions.iter().enumerate() {
                self.positions
                    .insert((assignment.partition, input), position.next);
                self.committed
                    .insert((assignment.partition, input), position.next);
            }
        }
        Ok(assigned)
    }

    fn records(&mut self) -> Result<Vec<Record>, LogError> {
        let mut limits = self.spec.limits;
        limits.max_records = limits.max_records.max(1);
        let mut records = Vec::new();
        let cursors: Vec<Cursor> = self.positions.keys().copied().collect();
        for at in 0..cursors.len() {
            let cursor = cursors[(self.turn + at) % cursors.len()];
            let topic = &self.spec.inputs[cursor.1];
            let from = self.positions.get(&cursor).copied().unwrap_or(0);
            if self.shared.store.range(topic, cursor.0)?.1 <= from {
                continue;
            }
            let batch = self.shared.store.read(topic, cursor.0, from, limits)?;
            self.positions.insert(cursor, batch.next);
            let bytes: usize = batch.records.iter().map(Record::size).sum();
            limits.max_records = limits.max_records.saturating_sub(batch.records.len());
            limits.max_bytes = limits.max_bytes.saturating_sub(bytes);
            records.extend(batch.records);
            if limits.max_records == 0 || limits.max_bytes == 0 {
                self.turn = (self.turn + at + 1) % cursors.len();
                break;
            }
        }
        Ok(records)
    }

    /// Index of the input that a position belongs to, when this member holds its partition.
    fn cursor(&self, position: &Position) -> Option<Cursor> {
        let input = self
            .spec
            .inputs
            .iter()
            .position(|topic| *topic == position.topic)?;
        let cursor = (position.partition, input);
        self.positions.contains_key(&cursor).then_some(cursor)
    }

    fn not_assigned(&self, topic: &str, partition: u32) -> LogError {
        LogError::invalid(format!(
            "partition {partition} of {topic} is not assigned to stage {} instance {}",
            self.spec.name, self.spec.instance
        ))
    }

    fn check(&self, step: &Step) -> Result<(), LogError> {
        check::outputs(&step.outputs, |topic| self.shared.store.topic(topic))?;
        check::state(&self.spec, &step.state)?;
        for delta in &step.state {
            if !self.positions.contains_key(&(delta.partition, 0)) {
                return Err(self.not_assigned("the state", delta.partition));
            }
        }
        for position in &step.offsets {
            let Some(cursor) = self.cursor(position) else {
                return Err(self.not_assigned(&position.topic, position.partition));
            };
            let committed = self.committed.get(&cursor).copied().unwrap_or(0);
            if position.next < committed {
                return Err(LogError::invalid(format!(
                    "stage {} would go back from offset {committed} to {} in {} partition {}",
                    self.spec.name, position.next, position.topic, position.partition
                )));
            }
        }
        Ok(())
    }

    /// Whether a reset or a lost membership voided what the member holds.
    fn is_void(&self) -> bool {
        let mut held = self.positions.keys().map(|(partition, _)| *partition);
        self.group(|group| !held.all(|p| group.holds(&self.spec.instance, p)))
    }
}

impl<S: Store> StageLog for Member<S> {
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError> {
        let deadline = Instant::now() + timeout;
        loop {
            let seen = self.shared.signal.version();
            match self.group(|group| group.turn(&self.spec.instance)) {
                Turn::Revoke(partitions) => {
                    self.revoke(&partitions);
                    return Ok(Polled::Revoked(partitions));
                }
                Turn::Assign(partitions) => {
                    let assigned = self.assign(&partitions);
                    if assigned.is_err() {
                        self.group(|group| group.give_back(&self.spec.instance, &partitions));
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
                self.spec.name
            )));
        }
        self.check(&step).map_err(CommitError::Fatal)?;
        let moved = step.offsets.clone();
        let write = Write {
            outputs: step.outputs,
            step: Some(StepWrite {
                stage: Arc::clone(&self.spec.name),
                state: step.state,
                offsets: step.offsets,
            }),
        };
        match self.shared.write(write) {
            Ok(written) => {
                for position in &moved {
                    if let Some(cursor) = self.cursor(position) {
                        self.committed.insert(cursor, position.next);
                    }
                }
                Ok(Committed {
                    number: written.number,
                })
            }
            Err(error) => {
                self.group(|group| group.reset(&self.spec.instance));
                Err(if error.is_retryable() {
                    CommitError::Aborted(error)
                } else {
                    CommitError::Fatal(error)
                })
            }
        }
    }

    fn rewind(&mut self) -> Result<(), LogError> {
        self.group(|group| group.reset(&self.spec.instance));
        Ok(())
    }

    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        for position in positions {
            let cursor = self
                .cursor(position)
                .ok_or_else(|| self.not_assigned(&position.topic, position.partition))?;
            self.positions.insert(cursor, position.next);
        }
        Ok(())
    }
}

impl<S: Store> Drop for Member<S> {
    fn drop(&mut self) {
        self.group(|group| group.leave(&self.spec.instance));
        self.shared.signal.notify();
    }
}
