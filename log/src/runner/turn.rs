//! One turn of the loop: poll, gather, step, commit, or recover.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Offsets, RunError, Runner, Stage, StageError, StepInput, StepOutput};
use crate::api::{Assignment, Polled, Position, Record, StageLog, StageSpec, Step};
use crate::error::{CommitError, LogError};
use crate::{failpoint, trace};

/// Longest single wait, so that a shutdown is seen soon whatever the idle tick.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Something happened, or something is still to come.
    Busy,
    /// Everything is read and an idle tick had nothing to do.
    Quiet,
}

/// A member under way: one turn at a time, so that a simulator can run many on one thread.
pub(crate) struct Turns<P> {
    runner: Runner,
    name: Arc<str>,
    /// Borrowed or owned.
    stage: P,
    log: Box<dyn StageLog>,
    held: BTreeSet<u32>,
    /// Read but not committed: next offset by topic and partition.
    read: BTreeMap<(Arc<str>, u32), u64>,
    /// When the next idle step is due.
    tick: Instant,
    /// Failures in a row.
    failures: u32,
    steps: u64,
}

/// What ended an attempt before its step was durable.
enum Failure {
    Again(String),
    Stop(RunError),
}

impl<P: DerefMut<Target: Stage>> Turns<P> {
    pub(crate) fn join(runner: &Runner, spec: StageSpec, stage: P) -> Result<Self, RunError> {
        let name = Arc::clone(&spec.name);
        let log = runner.log.stage(spec).map_err(|source| RunError::Log {
            stage: Arc::clone(&name),
            source,
        })?;
        let tick = Instant::now() + runner.options.idle_tick;
        let (held, read) = (BTreeSet::new(), BTreeMap::new());
        Ok(Self {
            runner: runner.clone(),
            name,
            stage,
            log,
            held,
            read,
            tick,
            failures: 0,
            steps: 0,
        })
    }

    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    pub(crate) fn turn(&mut self) -> Result<Turn, RunError> {
        match self.attempt() {
            Ok(turn) => Ok(turn),
            Err(Failure::Stop(error)) => Err(error),
            Err(Failure::Again(reason)) => {
                self.pause(&reason);
                Ok(Turn::Busy)
            }
        }
    }

    fn attempt(&mut self) -> Result<Turn, Failure> {
        let wait = self
            .tick
            .saturating_duration_since(Instant::now())
            .min(WAIT_MAX);
        match self.poll(wait)? {
            Polled::Records(records) => {
                let records = self.gather(records)?;
                self.step(&records, false)?;
                self.tick = Instant::now() + self.runner.options.idle_tick;
                Ok(Turn::Busy)
            }
            Polled::Idle { caught_up } if Instant::now() >= self.tick => {
                self.tick = Instant::now() + self.runner.options.idle_tick;
                // With nothing assigned there is nothing to keep time for.
                let worked = !self.held.is_empty() && self.step(&[], caught_up)?;
                let quiet = caught_up && !worked && !self.held.is_empty();
                Ok(if quiet { Turn::Quiet } else { Turn::Busy })
            }
            Polled::Idle { .. } => Ok(Turn::Busy),
            event => {
                self.rebalance(event, &mut Vec::new())?;
                Ok(Turn::Busy)
            }
        }
    }

    /// Adds records until the linger is over, enough are there, or the assignment changes.
    fn gather(&mut self, mut records: Vec<Record>) -> Result<Vec<Record>, Failure> {
        let options = self.runner.options;
        let deadline = Instant::now() + options.linger;
        let mut bytes: usize = records.iter().map(Record::size).sum();
        while records.len() < options.records_max && bytes < options.bytes_max {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.runner.shutdown.is_requested() {
                break;
            }
            match self.poll(left)? {
                Polled::Records(more) => {
                    bytes += more.iter().map(Record::size).sum::<usize>();
                    records.extend(more);
                }
                Polled::Idle { .. } => break,
                event => {
                    self.rebalance(event, &mut records)?;
                    break;
                }
            }
        }
        Ok(records)
    }

    /// Takes over or gives up partitions, and drops what was gathered for those given up.
    fn rebalance(&mut self, event: Polled, gathered: &mut Vec<Record>) -> Result<(), Failure> {
        match event {
            Polled::Assigned(assignments) => {
                let assigned = self.assign(assignments);
                self.stage_result(assigned)?;
            }
            Polled::Revoked(partitions) => {
                gathered.retain(|record| !partitions.contains(&record.partition));
                self.read
                    .retain(|(_, partition), _| !partitions.contains(partition));
                for partition in partitions {
                    self.held.remove(&partition);
                    self.stage.revoked(partition);
                }
            }
            Polled::Records(_) | Polled::Idle { .. } => {}
        }
        self.runner.observer.holding(&self.name, self.held.len());
        Ok(())
    }

    fn assign(&mut self, assignments: Vec<Assignment>) -> Result<(), StageError> {
        for assignment in assignments {
            let partition = assignment.partition;
            tracing::info!(stage = %self.name, partition, "partition assigned");
            self.held.insert(partition);
            self.stage.assigned(assignment)?;
            let start = self.stage.start(partition)?;
            if !start.is_empty() {
                self.log
                    .seek(&start)
                    .map_err(|error| match error.is_retryable() {
                        true => StageError::Retry(error.to_string()),
                        false => StageError::Fatal(error.to_string()),
                    })?;
            }
        }
        Ok(())
    }

    /// Returns whether anything was committed.
    fn step(&mut self, records: &[Record], caught_up: bool) -> Result<bool, Failure> {
        for record in records {
            self.read.insert(
                (Arc::clone(&record.topic), record.partition),
                record.offset + 1,
            );
        }
        let now_us = self.runner.clock.now_us();
        let started = Instant::now();
        let span = tracing::info_span!("step", stage = %self.name, records = records.len());
        trace::link(&span, records);
        let decided = span.in_scope(|| {
            self.stage.step(StepInput {
                records,
                now_us,
                caught_up,
            })
        });
        let decided = self.stage_result(decided)?;
        let bytes = records.iter().map(Record::size).sum();
        self.runner
            .observer
            .stepped(&self.name, records.len(), bytes, started.elapsed());
        let step = self.take_step(decided);
        if step.is_empty() {
            self.failures = 0;
            return Ok(false);
        }
        self.commit(step)?;
        Ok(true)
    }

    fn take_step(&mut self, decided: StepOutput) -> Step {
        let offsets = match decided.offsets {
            Offsets::Hold => Vec::new(),
            Offsets::Read => std::mem::take(&mut self.read)
                .into_iter()
                .map(|((topic, partition), next)| Position {
                    topic,
                    partition,
                    next,
                })
                .collect(),
            Offsets::To(positions) => {
                for position in &positions {
                    let key = (Arc::clone(&position.topic), position.partition);
                    if self
                        .read
                        .get(&key)
                        .is_some_and(|next| *next <= position.next)
                    {
                        self.read.remove(&key);
                    }
                }
                positions
            }
        };
        Step {
            outputs: decided.outputs,
            state: decided.state,
            offsets,
        }
    }

    fn commit(&mut self, step: Step) -> Result<(), Failure> {
        let outputs = step.outputs.len();
        let started = Instant::now();
        failpoint::hit("runner.commit.before");
        let span = tracing::debug_span!("commit", stage = %self.name, outputs);
        match span.in_scope(|| self.log.commit(step)) {
            Ok(committed) => {
                self.failures = 0;
                self.steps += 1;
                failpoint::hit("runner.commit.after");
                self.stage.committed(committed);
                let took = started.elapsed();
                self.runner
                    .observer
                    .committed(&self.name, committed, outputs, took);
                Ok(())
            }
            Err(error @ (CommitError::Aborted(_) | CommitError::Fenced(_))) => {
                Err(Failure::Again(error.to_string()))
            }
            Err(CommitError::Fatal(source)) => Err(self.stop(source)),
        }
    }

    /// What a failed poll, or those gathered before it, had read is read again: nothing of it was
    /// stepped.
    fn poll(&mut self, wait: Duration) -> Result<Polled, Failure> {
        match self.log.poll(wait) {
            Ok(polled) => Ok(polled),
            Err(error) if error.is_retryable() => {
                self.log.rewind().map_err(|source| self.stop(source))?;
                Err(Failure::Again(error.to_string()))
            }
            Err(error) => Err(self.stop(error)),
        }
    }

    /// A stage that failed for now has its partitions taken away and given again.
    fn stage_result<T>(&mut self, result: Result<T, StageError>) -> Result<T, Failure> {
        match result {
            Ok(value) => Ok(value),
            Err(StageError::Retry(reason)) => {
                self.log.rewind().map_err(|source| self.stop(source))?;
                Err(Failure::Again(reason))
            }
            Err(source @ StageError::Fatal(_)) => Err(Failure::Stop(RunError::Stage {
                stage: Arc::clone(&self.name),
                source,
            })),
        }
    }

    fn stop(&self, source: LogError) -> Failure {
        Failure::Stop(RunError::Log {
            stage: Arc::clone(&self.name),
            source,
        })
    }

    fn pause(&mut self, reason: &str) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(&self.runner.options, self.failures);
        tracing::warn!(
            stage = %self.name,
            attempt = self.failures,
            pause_ms = pause.as_millis() as u64,
            reason,
            "step failed and is tried again"
        );
        self.runner
            .observer
            .failed(&self.name, &reason, self.failures);
        self.runner.shutdown.wait(pause);
    }
}

/// Pause before the next attempt after `failures` in a row: doubled each time, within its bounds.
fn pause(options: &super::RunOptions, failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    options
        .pause_min
        .saturating_mul(doubled)
        .min(options.pause_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::RunOptions;

    /// Pauses double from the shortest to the longest and stay there, for any number of failures.
    #[test]
    fn pauses_are_bounded() {
        let options = RunOptions::default();
        assert_eq!(pause(&options, 1), options.pause_min);
        assert_eq!(pause(&options, 2), options.pause_min * 2);
        assert_eq!(pause(&options, 30), options.pause_max);
        assert_eq!(pause(&options, u32::MAX), options.pause_max);
    }
}
