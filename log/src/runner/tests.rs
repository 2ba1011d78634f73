//! A counting stage, run over the log in memory with every kind of failure in its way.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use driftline_schemas::clock::ManualClock;
use proptest::prelude::*;

use super::*;
use crate::api::TopicSpec;
use crate::memory::{Fault, MemoryLog};

/// Sums the values it reads, per partition, in state; every step also writes the sum out.
#[derive(Default)]
struct Sum {
    sums: BTreeMap<u32, u64>,
    /// Fail the n-th step (from 0) of the stage's own accord.
    fail_at: Vec<u64>,
    steps: u64,
    ticks: u64,
    committed: u64,
}

impl Stage for Sum {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let sum = assignment
            .state
            .get(b"sum".as_slice())
            .map_or(0, |value| number(value));
        assert!(
            self.sums.insert(assignment.partition, sum).is_none(),
            "assigned twice"
        );
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        assert!(
            self.sums.remove(&partition).is_some(),
            "revoked but not assigned"
        );
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        self.steps += 1;
        let mut out = StepOutput::default();
        for record in input.records {
            let sum = self.sums.get_mut(&record.partition).unwrap();
            *sum += record.value.as_ref().map_or(0, |value| number(value));
            let value = sum.to_be_bytes().to_vec();
            out.outputs.push(output("sums", record.partition, *sum));
            out.state.push(StateDelta {
                partition: record.partition,
                key: b"sum".to_vec(),
                value: Some(value),
            });
        }
        if input.records.is_empty() {
            self.ticks += 1;
        }
        if self.fail_at.contains(&(self.steps - 1)) {
            return Err(StageError::Retry("asked to fail".into()));
        }
        Ok(out)
    }

    fn committed(&mut self, committed: Committed) {
        assert!(committed.number > self.committed, "step numbers rise");
        self.committed = committed.number;
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

fn output(topic: &str, partition: u32, value: u64) -> Output {
    Output {
        topic: topic.into(),
        partition,
        key: Vec::new(),
        value: Some(value.to_be_bytes().to_vec()),
        timestamp_us: 0,
    }
}

fn runner(log: &MemoryLog) -> Runner {
    let mut runner = Runner::new(Arc::new(log.clone()), Arc::new(ManualClock::new(0)));
    runner.options.linger = Duration::ZERO;
    runner.options.idle_tick = Duration::ZERO;
    runner.options.pause_min = Duration::ZERO;
    runner.options.pause_max = Duration::ZERO;
    runner
}

fn spec(max_records: usize) -> StageSpec {
    let mut spec = StageSpec::new("sum", &["numbers"]);
    spec.limits.max_records = max_records;
    spec
}

fn log_with(values: &[(u32, u64)]) -> MemoryLog {
    let log = MemoryLog::new();
    log.ensure_topics(&[TopicSpec::new("numbers", 2), TopicSpec::new("sums", 2)])
        .unwrap();
    let records = values
        .iter()
        .map(|(p, v)| output("numbers", *p, *v))
        .collect();
    log.appender("test").unwrap().append(records).unwrap();
    log
}

proptest! {
    /// Whatever fails, before or after its effect, in the log or in the stage, in the middle of what
    /// is gathered for a step too, and however records are cut into steps: each record counts once,
    /// in state and in the outputs.
    #[test]
    fn counts_each_record_once(
        values in prop::collection::vec((0u32..2, 1u64..1000), 1..40),
        max_records in 1usize..7,
        faults in prop::collection::vec(prop::option::of(prop::bool::ANY), 0..30),
        fail_at in prop::collection::vec(0u64..30, 0..6),
        reads in prop::collection::vec(prop::bool::ANY, 0..20),
        gathers in prop::bool::ANY,
    ) {
        let log = log_with(&values);
        for fault in &faults {
            match fault {
                Some(true) => log.fail_next_commit(Fault::Before),
                Some(false) => log.fail_next_commit(Fault::After),
                None => {}
            }
        }
        for passes in reads {
            log.fail_next_read(passes);
        }
        let mut stage = Sum { fail_at, ..Sum::default() };
        let mut runner = runner(&log);
        if gathers {
            runner.options.linger = Duration::from_millis(1);
        }
        runner.run_until_idle(spec(max_records), &mut stage).unwrap();
        for partition in 0..2 {
            let mut sum = 0;
            let mut expected = Vec::new();
            for (_, value) in values.iter().filter(|(p, _)| *p == partition) {
                sum += value;
                expected.push(sum);
            }
            let state = log.state("sum", partition);
            prop_assert_eq!(state.get(b"sum".as_slice()).map_or(0, |v| number(v)), sum);
            let written: Vec<u64> = log.all("sums").unwrap().iter()
                .filter(|record| record.partition == partition)
                .map(|record| number(record.value.as_ref().unwrap()))
                .collect();
            prop_assert_eq!(written, expected);
        }
    }
}

/// A step that decides nothing on an idle tick commits nothing; the tick itself happens.
#[test]
fn idle_ticks_commit_nothing() {
    let log = log_with(&[]);
    let mut stage = Sum::default();
    assert_eq!(
        runner(&log).run_until_idle(spec(10), &mut stage).unwrap(),
        0
    );
    assert!(stage.ticks > 0);
}

/// Held offsets are not committed until a later step releases them.
#[test]
fn hold_keeps_offsets_back() {
    struct Hold {
        release: bool,
    }
    impl Stage for Hold {
        fn assigned(&mut self, _: Assignment) -> Result<(), StageError> {
            Ok(())
        }
        fn revoked(&mut self, _: u32) {}
        fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
            let release = self.release && input.caught_up;
            let offsets = if release {
                Offsets::Read
            } else {
                Offsets::Hold
            };
            Ok(StepOutput {
                offsets,
                ..StepOutput::default()
            })
        }
    }
    let log = log_with(&[(0, 1), (0, 2)]);
    let steps = runner(&log)
        .run_until_idle(spec(1), &mut Hold { release: false })
        .unwrap();
    assert_eq!(
        (steps, log.committed("sum", "numbers", 0).unwrap()),
        (0, None)
    );
    let steps = runner(&log)
        .run_until_idle(spec(1), &mut Hold { release: true })
        .unwrap();
    assert_eq!(
        (steps, log.committed("sum", "numbers", 0).unwrap()),
        (1, Some(2))
    );
}

/// A fatal commit ends the run with the stage's name; a shutdown ends it cleanly.
#[test]
fn ends_on_fatal_and_on_shutdown() {
    let log = log_with(&[(0, 1)]);
    log.fail_next_commit(Fault::Fatal);
    let runner = runner(&log);
    let error = runner
        .run_until_idle(spec(1), &mut Sum::default())
        .unwrap_err();
    assert!(
        matches!(error, RunError::Log { ref stage, .. } if &**stage == "sum"),
        "{error}"
    );

    let counters = Arc::new(Counters::default());
    let runner = Runner {
        observer: Arc::clone(&counters) as Arc<dyn RunObserver>,
        ..runner
    };
    let thread = runner.spawn(spec(1), Box::new(Sum::default())).unwrap();
    while counters.commits.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    runner.shutdown.request();
    thread.join().unwrap().unwrap();
    assert_eq!(log.committed("sum", "numbers", 0).unwrap(), Some(1));
}
