//! Speed of the profile stage on Kafka, every step a transaction.
//!
//! Not run by itself: `tests/kafka/speed.py` builds it, runs its parts beside bare clients and Kafka Streams on one
//! broker, and prints the ratios. Arguments are `name=value`: `do` is `fill` (stored records into a fresh
//! log), `stage` (the profile stage over them) or `windows` (the same, and a second stage that merges what it put
//! out into final windows); `brokers`, `prefix`, `rows`, `partitions`, `members`, `pane`, `run` (name), `reference` (file
//! that the layout is written to). Prints one JSON document.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints, and stops at the first surprise"
)]

#[path = "../../tests/kafka/part.rs"]
mod part;
mod rows;
mod windows;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use driftline_log::kafka::KafkaLog;
use driftline_log::runner::{Counters, Runner, Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Committed, Log, Output, StageSpec, TopicSpec};
use driftline_processors::profile::{ProfileConfig, ProfileStage, ProfileStats};
use driftline_schemas::bundle::Bundle;
use driftline_schemas::clock::ManualClock;
use driftline_schemas::topic;
use part::Arguments;
use rows::{Estate, One, ROWS_PER_RECORD, T0};
use windows::{WINDOWS, Windows};

/// Rows of a frame.
const FRAME_ROWS: usize = 250;
/// Event time from record to record: 240 records a minute, so that millions of rows are many windows.
const SPACING_US: i64 = 250_000;
/// Records of one append while the log is filled.
const APPEND_RECORDS: usize = 64;

fn main() {
    let Some(arguments) = Arguments::of_process() else {
        println!("run by tests/kafka/speed.py");
        return;
    };
    let log = arguments.log();
    // 66 bins, as many as the job beside it has.
    let edges: Vec<i32> = (0..65).map(|edge| 400 + edge * 50).collect();
    let bundle = rows::bundle(&edges);
    match arguments.text("do") {
        "fill" => fill(&log, &bundle, &arguments),
        "stage" => stage(log, &bundle, &arguments, false),
        "windows" => stage(log, &bundle, &arguments, true),
        other => println!("do={other}: fill, stage or windows"),
    }
}

fn fill(log: &KafkaLog, bundle: &Bundle, arguments: &Arguments) {
    let partitions = arguments.number("partitions");
    let records = arguments.number("rows") / ROWS_PER_RECORD;
    log.ensure_topics(&[TopicSpec::new(topic::INFERENCES, partitions as u32)])
        .unwrap();
    std::fs::write(arguments.text("reference"), bundle.reference.encode()).unwrap();
    let mut appender = log.appender("fill").unwrap();
    let mut estate = Estate::new(bundle, FRAME_ROWS, SPACING_US, partitions);
    let (mut bytes, mut left) = (0, records);
    while left > 0 {
        let count = left.min(APPEND_RECORDS);
        let outputs: Vec<Output> = (0..count)
            .map(|_| {
                let made = estate.record();
                Output {
                    topic: topic::INFERENCES.into(),
                    partition: made.partition,
                    key: Vec::new(),
                    value: Some(made.value),
                    timestamp_us: made.received_at_us,
                }
            })
            .collect();
        bytes += outputs.iter().map(Output::size).sum::<usize>();
        appender.append(outputs).unwrap();
        left -= count;
    }
    println!(
        "{{\"rows\": {}, \"bytes_per_row\": {:.1}}}",
        records * ROWS_PER_RECORD,
        bytes as f64 / (records * ROWS_PER_RECORD) as f64
    );
}

/// When the first partition was there, and when the last commit that had records in it was done.
#[derive(Debug, Default)]
struct Span {
    begin: Option<(Instant, f64)>,
    end: Option<Instant>,
}

/// A stage that is timed.
struct Timed<S> {
    stage: S,
    span: Arc<Mutex<Span>>,
    /// Whether the step under way has records.
    records: bool,
}

impl<S: Stage> Stage for Timed<S> {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        self.stage.assigned(assignment)?;
        let now = (Instant::now(), part::process_s());
        self.span.lock().unwrap().begin.get_or_insert(now);
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.stage.revoked(partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        self.records = !input.records.is_empty();
        self.stage.step(input)
    }

    fn committed(&mut self, committed: Committed) {
        self.stage.committed(committed);
        if self.records {
            self.span.lock().unwrap().end = Some(Instant::now());
        }
    }
}

/// The same stage under a name of its own.
fn named(mut spec: StageSpec, run: &str) -> StageSpec {
    spec.name = format!("{}{run}", spec.name).into();
    spec
}

/// Runs the profile stage over all records, from its join to its last commit; with `windows`, until the
/// last window is out as well.
fn stage(log: KafkaLog, bundle: &Arc<Bundle>, arguments: &Arguments, windows: bool) {
    let partitions = log.partitions(topic::INFERENCES).unwrap();
    // Every run has groups of its own, and so reads everything.
    let run = arguments.text("run");
    let topics = [
        TopicSpec::new(topic::PROFILES, 1),
        TopicSpec::new(topic::DEADLETTERS, 1),
        TopicSpec::new(WINDOWS, 1),
    ];
    log.ensure_topics(&topics).unwrap();
    let config = ProfileConfig {
        pane: arguments.text("pane").parse().unwrap(),
        ..ProfileConfig::default()
    };
    let log: Arc<dyn Log> = Arc::new(log);
    let from = log.range(topic::PROFILES, 0).unwrap().1;
    let counters = Arc::new(Counters::default());
    let runner = Runner {
        observer: Arc::clone(&counters) as _,
        ..Runner::new(Arc::clone(&log), Arc::new(ManualClock::new(T0)))
    };
    let stats = ProfileStats::default();
    let span = Arc::new(Mutex::new(Span::default()));
    let merged = Arc::new(AtomicU64::new(0));
    let done = Arc::new(Mutex::new(windows::Done::default()));
    let merging = windows.then(|| {
        let stage = Windows::new(from, partitions, Arc::clone(&merged), Arc::clone(&done));
        let runner = Runner {
            shutdown: driftline_log::runner::Shutdown::default(),
            observer: Arc::new(Counters::default()),
            ..runner.clone()
        };
        let thread = runner.spawn(named(Windows::spec(), run), Box::new(stage));
        (runner.shutdown, thread.unwrap())
    });
    std::thread::scope(|scope| {
        for member in 0..arguments.number("members") {
            let (runner, log, stats) = (&runner, &log, stats.clone());
            let (config, span) = (config.clone(), Arc::clone(&span));
            scope.spawn(move || {
                let bundles = Arc::new(One(Arc::clone(bundle)));
                let stage = ProfileStage::new(config, &**log, bundles, stats).unwrap();
                let mut timed = Timed {
                    stage,
                    span,
                    records: false,
                };
                let spec = named(ProfileStage::spec(), run).with_instance(format!("m{member}"));
                runner.run_until_idle(spec, &mut timed).unwrap();
            });
        }
    });
    let mut end = span.lock().unwrap().end.unwrap();
    if let Some((shutdown, thread)) = merging {
        while merged.load(Ordering::SeqCst) < stats.profiles.get() {
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
        shutdown.request();
        thread.join().unwrap().unwrap();
        end = end.max(done.lock().unwrap().at.unwrap());
    }
    let rows = stats.rows_on_time.get() + stats.rows_late.get();
    let (begin, cpu_before_s) = span.lock().unwrap().begin.unwrap();
    let took = (end - begin).as_secs_f64();
    let done = done.lock().unwrap();
    println!(
        "{{\"rows\": {rows}, \"seconds\": {took:.3}, \"rate\": {:.0}, \"cpu_s\": {:.2}, \"transactions\": {}, \"partial_profiles\": {}, \
         \"failures\": {}, \"windows\": {}, \"rows_in_windows\": {}}}",
        rows as f64 / took,
        part::process_s() - cpu_before_s,
        counters.commits.load(Ordering::Relaxed),
        stats.profiles.get(),
        counters.failures.load(Ordering::Relaxed),
        done.windows,
        done.rows
    );
}
