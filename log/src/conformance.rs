//! What every log promises, in code. The same cases run against the log in memory, the embedded
//! log and Kafka; [`conformance_suite!`](crate::conformance_suite) makes a test of each.
//!
//! A case gets a [`Place`]: somewhere a log can be opened again and again, with names of its own so
//! that cases can share a broker.

// This is test code in a public module, so that other crates' logs could run it too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::missing_panics_doc)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{
    Assignment, Cleanup, Log, Output, Polled, Position, ReadLimits, Record, StageLog, StageSpec,
    StateDelta, Step, TopicSpec,
};

pub mod reading;
pub mod retention;
pub mod stepping;

/// Somewhere a log lives.
pub struct Place {
    /// Opens the log; again after everything of it was dropped.
    pub open: Box<dyn Fn() -> Arc<dyn Log>>,
    /// Goes before every topic and stage name.
    pub prefix: String,
    /// Whether a compacted topic holds one record per key at all times, not just in the end.
    pub compacts_at_once: bool,
    /// Whether timestamps keep their microseconds.
    pub keeps_microseconds: bool,
    /// Whether readers may see a step a moment after its commit has returned.
    pub commits_show_later: bool,
    /// Whether [`Cleanup::Delete::retention_bytes`] is enforced.
    pub trims_by_size: bool,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// How long something may take that must happen; generous, since a group on a broker needs
/// seconds to settle. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(90);

impl Place {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Opens the log with these topics of two partitions each.
    fn with_topics(&self, names: &[&str]) -> Arc<dyn Log> {
        let log = (self.open)();
        let specs: Vec<_> = names
            .iter()
            .map(|n| TopicSpec::new(self.name(n), 2))
            .collect();
        log.ensure_topics(&specs).unwrap();
        log
    }

    fn stage(&self, name: &str, inputs: &[&str]) -> StageSpec {
        let inputs: Vec<String> = inputs.iter().map(|input| self.name(input)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        StageSpec::new(self.name(name), &inputs)
    }

    fn output(&self, topic: &str, partition: u32, value: &str) -> Output {
        Output {
            topic: self.name(topic).into(),
            partition,
            key: Vec::new(),
            value: Some(value.as_bytes().to_vec()),
            timestamp_us: 1_700_000_000_000_000,
        }
    }

    fn position(&self, topic: &str, partition: u32, next: u64) -> Position {
        Position {
            topic: self.name(topic).into(),
            partition,
            next,
        }
    }

    /// Appends one record per value and returns the offsets.
    fn append(&self, log: &dyn Log, topic: &str, partition: u32, values: &[&str]) -> Vec<u64> {
        let records = values
            .iter()
            .map(|value| self.output(topic, partition, value))
            .collect();
        log.appender(&self.name("appender"))
            .unwrap()
            .append(records)
            .unwrap()
    }

    /// All records of a partition, read in one go from its first offset.
    fn all(&self, log: &dyn Log, topic: &str, partition: u32) -> Vec<Record> {
        let topic = self.name(topic);
        let (first, end) = log.range(&topic, partition).unwrap();
        let mut records = Vec::new();
        let mut next = first;
        let limits = ReadLimits {
            wait: Duration::from_secs(2),
            ..ReadLimits::default()
        };
        while next < end {
            let batch = log.read(&topic, partition, next, limits).unwrap();
            records.extend(batch.records);
            next = batch.next;
        }
        records
    }

    /// Waits until a partition holds exactly these values. A broker finishes a transaction a moment
    /// after it has accepted its commit; a log on one machine has done so when the call returns.
    fn holds(&self, log: &dyn Log, topic: &str, partition: u32, expected: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let values = self.values(log, topic, partition);
            if values == expected {
                return;
            }
            assert!(
                self.commits_show_later && Instant::now() < deadline,
                "{topic}/{partition} holds {values:?}, not {expected:?}"
            );
        }
    }

    /// The values of a partition.
    fn values(&self, log: &dyn Log, topic: &str, partition: u32) -> Vec<String> {
        self.all(log, topic, partition).iter().map(text).collect()
    }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default().to_vec()).unwrap()
}

fn delta(partition: u32, key: &str, value: Option<&str>) -> StateDelta {
    StateDelta {
        partition,
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

/// A member with what it was given so far.
struct Joined {
    log: Box<dyn StageLog>,
    assigned: Vec<Assignment>,
    records: Vec<Record>,
}

impl Joined {
    fn new(log: &dyn Log, spec: StageSpec) -> Self {
        Self {
            log: log.stage(spec).unwrap(),
            assigned: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Joins and waits until this many partitions are assigned.
    fn with(log: &dyn Log, spec: StageSpec, partitions: usize) -> Self {
        let mut joined = Self::new(log, spec);
        joined.until("assignment", |joined| joined.assigned.len() == partitions);
        joined
    }

    /// Takes one poll into account; whether anything came.
    fn turn(&mut self) -> bool {
        match self.log.poll(Duration::from_millis(50)) {
            Ok(Polled::Assigned(assigned)) => {
                for new in assigned {
                    assert!(
                        self.assigned
                            .iter()
                            .all(|old| old.partition != new.partition)
                    );
                    self.assigned.push(new);
                }
            }
            Ok(Polled::Revoked(partitions)) => {
                for partition in partitions {
                    let before = self.assigned.len();
                    self.assigned
                        .retain(|assigned| assigned.partition != partition);
                    assert_eq!(self.assigned.len() + 1, before, "revoked what was not held");
                    self.records.retain(|record| record.partition != partition);
                }
            }
            Ok(Polled::Records(records)) => {
                assert!(!records.is_empty());
                self.records.extend(records);
            }
            Ok(Polled::Idle { .. }) => return false,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
        true
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
            self.turn();
        }
    }

    /// Waits for this many records in all.
    fn read(&mut self, count: usize) -> &[Record] {
        self.until("records", |joined| joined.records.len() >= count);
        &self.records
    }

    /// Waits until everything is read.
    fn drain(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(
                Instant::now() < deadline,
                "not caught up within {PATIENCE:?}"
            );
            if let Ok(Polled::Idle { caught_up: true }) = self.poll_into() {
                return;
            }
        }
    }

    fn poll_into(&mut self) -> Result<Polled, crate::LogError> {
        let polled = self.log.poll(Duration::from_millis(50))?;
        if let Polled::Records(records) = &polled {
            self.records.extend(records.iter().cloned());
        }
        Ok(polled)
    }

    fn state(&self, partition: u32, key: &str) -> Option<String> {
        let assigned = self
            .assigned
            .iter()
            .find(|assigned| assigned.partition == partition)?;
        let value = assigned.state.get(key.as_bytes())?;
        Some(String::from_utf8(value.clone()).unwrap())
    }

    /// Offset at which an input of a partition goes on.
    fn next(&self, partition: u32, input: usize) -> u64 {
        let assigned = self
            .assigned
            .iter()
            .find(|assigned| assigned.partition == partition);
        assigned.unwrap().positions[input].next
    }

    fn values(&self) -> Vec<String> {
        self.records.iter().map(text).collect()
    }
}

/// Makes one test per case: `conformance_suite!(a_function_that_returns_a_place);`. The function
/// gets the case's name and may return `None`, having said why, to skip it.
#[macro_export]
macro_rules! conformance_suite {
    ($place:expr) => {
        $crate::conformance_suite!(@cases $place,
            reading: [
                keeps_order,
                pages_through,
                waits_for_news,
                knows_its_topics,
                refuses_other_partition_counts,
                refuses_large_records,
                reopens,
            ],
            stepping: [
                steps_are_atomic,
                state_comes_back,
                unfinished_steps_leave_no_trace,
                refused_steps_leave_no_trace,
                stages_are_independent,
                inputs_are_copartitioned,
                partitions_move_with_their_state,
                steps_without_records,
                seeks_once_assigned,
                refuses_steps_out_of_place,
            ],
            retention: [
                compaction_keeps_last_values,
                trim_waits_for_readers,
                trim_by_size,
                trimmed_partitions_go_on,
            ]
        );
    };
    (@cases $place:expr, $($group:ident: [$($case:ident),* $(,)?]),*) => {
        $(mod $group {
            $(#[test]
            fn $case() {
                if let Some(place) = ($place)(stringify!($case)) {
                    $crate::conformance::$group::$case(&place);
                }
            })*
        })*
    };
}
