//! Speed of the profile stage's hot path: rows per second of the whole step beside a bare loop that
//! only decodes and counts, and values per second of binning alone.
//!
//! `cargo bench -p driftline-processors --bench profile`. Every line says what it measured; the
//! ratio that matters is that of `profile step` to `decode and count`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark prints, and stops at the first surprise"
)]

mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use driftline_log::memory::MemoryLog;
use driftline_log::runner::{Stage, StepInput};
use driftline_log::{Assignment, Log, Position, Record, TopicSpec};
use driftline_processors::profile::{ProfileConfig, ProfileStage, ProfileStats};
use driftline_schemas::bundle::Bundle;
use driftline_schemas::packed::{PackedRecord, SchemaCache};
use driftline_schemas::profile::Binner;
use driftline_schemas::profile::groups::ProfileGroups;
use driftline_schemas::topic;
use rows::{DEVICES, Estate, FEATURES, One, ROWS_PER_RECORD, Random, T0};

const RECORDS: usize = 512;
/// Event time from record to record.
const SPACING_US: i64 = 50_000;
const MEASURE_FOR: Duration = Duration::from_secs(3);

/// Records of frames with `rows_per_frame` rows, devices in turn.
fn records(bundle: &Bundle, rows_per_frame: usize) -> Vec<Record> {
    let mut estate = Estate::new(bundle, rows_per_frame, SPACING_US, 1);
    let mut record = |offset: usize| {
        let made = estate.record();
        Record {
            topic: topic::INFERENCES.into(),
            partition: made.partition,
            offset: offset as u64,
            key: Vec::new().into(),
            value: Some(made.value.into()),
            timestamp_us: made.received_at_us,
        }
    };
    (0..RECORDS).map(&mut record).collect()
}

fn stage(bundle: &Arc<Bundle>) -> ProfileStage {
    let log = MemoryLog::new();
    let topics = [topic::INFERENCES, topic::PROFILES, topic::DEADLETTERS];
    log.ensure_topics(&topics.map(|name| TopicSpec::new(name, 1)))
        .unwrap();
    let bundles = Arc::new(One(Arc::clone(bundle)));
    let config = ProfileConfig::default();
    ProfileStage::new(config, &log, bundles, ProfileStats::default()).unwrap()
}

fn assign(stage: &mut ProfileStage) {
    stage
        .assigned(Assignment {
            partition: 0,
            positions: vec![Position {
                topic: topic::INFERENCES.into(),
                partition: 0,
                next: 0,
            }],
            state: BTreeMap::new(),
        })
        .unwrap();
}

/// Runs `once` until the time is over; the best of the runs counts, as the machine is shared.
fn best(mut once: impl FnMut() -> usize) -> (usize, Duration) {
    let started = Instant::now();
    let mut best = (once(), Duration::MAX);
    while started.elapsed() < MEASURE_FOR {
        let at = Instant::now();
        let done = once();
        let took = at.elapsed();
        if took < best.1 {
            best = (done, took);
        }
    }
    best
}

fn rate((done, took): (usize, Duration)) -> f64 {
    done as f64 / took.as_secs_f64()
}

/// What no implementation can do without: decode, and count every value into its bin. No resends,
/// no ages, no panes, no cells, no devices, no sums.
fn decode_and_count(bundle: &Bundle, records: &[Record]) -> usize {
    let schemas = SchemaCache::default();
    let layout = &bundle.reference.layout;
    let binners: Vec<Binner> = layout
        .signals()
        .iter()
        .map(|signal| Binner::new(&signal.edges))
        .collect();
    let mut counts: Vec<Vec<u64>> = layout
        .signals()
        .iter()
        .map(|signal| vec![0; signal.bins()])
        .collect();
    let mut rows = 0;
    for record in records {
        let packed = PackedRecord::decode(record.value.clone().unwrap(), &schemas).unwrap();
        rows += packed.rows();
        for ((signal, binner), counts) in layout.signals().iter().zip(&binners).zip(&mut counts) {
            let Some(column) = packed.batch.column_by_name(&signal.signal.name) else {
                continue;
            };
            let values = column.as_primitive::<Int32Type>().values();
            if signal.is_numeric() {
                binner.for_each(values, |_, bin| counts[bin] += 1);
            } else {
                values.iter().for_each(|code| counts[*code as usize] += 1);
            }
        }
    }
    std::hint::black_box(&counts);
    rows
}

/// One step of the stage over all records, from a fresh assignment.
fn step(stage: &mut ProfileStage, records: &[Record]) -> usize {
    assign(stage);
    let step = stage
        .step(StepInput {
            records,
            now_us: T0,
            caught_up: false,
        })
        .unwrap();
    std::hint::black_box(step.outputs.len());
    RECORDS * ROWS_PER_RECORD
}

fn binning(bundle: &Bundle) -> usize {
    const ROWS: usize = 1 << 16;
    let mut random = Random(3);
    let values: Vec<i32> = (0..ROWS).map(|_| random.value()).collect();
    let groups = vec![0; ROWS];
    let layout = Arc::new(bundle.reference.layout.clone());
    let mut counts = ProfileGroups::new(layout);
    counts.grow(1);
    let mut done = 0;
    let started = Instant::now();
    let mut fastest = Duration::MAX;
    while started.elapsed() < MEASURE_FOR {
        let at = Instant::now();
        counts.begin(&groups, None);
        for signal in 0..FEATURES {
            counts.column(signal, std::hint::black_box(&values), None);
        }
        fastest = fastest.min(at.elapsed());
        done += 1;
    }
    std::hint::black_box(counts.take_all());
    println!(
        "binning, {FEATURES} signals of 32 bins in one group: {:.0} M values/s (best of {done})",
        (ROWS * FEATURES) as f64 / fastest.as_secs_f64() / 1e6
    );
    done
}

fn main() {
    let edges: Vec<i32> = (0..31).map(|edge| 1_000 + edge * 70).collect();
    let bundle = rows::bundle(&edges);
    println!("{FEATURES} features, {DEVICES} devices, {ROWS_PER_RECORD} rows a record, one core");
    // Divisors of a record's rows, so that records are full.
    for rows_per_frame in [1, 10, 250] {
        let records = records(&bundle, rows_per_frame);
        let bytes: usize = records.iter().map(Record::size).sum();
        let bare = rate(best(|| decode_and_count(&bundle, &records)));
        let mut stage = stage(&bundle);
        let whole = rate(best(|| step(&mut stage, &records)));
        println!(
            "{rows_per_frame:>4} rows a frame ({} bytes a row): profile step {:.2} M rows/s, decode and count {:.2} M rows/s, ratio {:.2}",
            bytes / (RECORDS * ROWS_PER_RECORD),
            whole / 1e6,
            bare / 1e6,
            whole / bare
        );
    }
    binning(&bundle);
}
