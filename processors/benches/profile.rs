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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use driftline_log::memory::MemoryLog;
use driftline_log::runner::{Stage, StageError, StepInput};
use driftline_log::{Assignment, Log, Position, Record, TopicSpec};
use driftline_processors::bundles::Bundles;
use driftline_processors::profile::{ProfileConfig, ProfileStage, ProfileStats};
use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, FeatureType, MANIFEST_FILE, MODEL_FILE,
    Manifest, REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::packed::{PackedBuilder, PackedRecord, RecordHead, SchemaCache};
use driftline_schemas::profile::groups::ProfileGroups;
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{Binner, Layout, Profile, Reference, SignalLayout};
use driftline_schemas::rows::{Column, FieldType, Kind, Rows, Values};
use driftline_schemas::source::{FrameHead, Origin};
use driftline_schemas::topic;

const FEATURES: usize = 16;
const DEVICES: u32 = 2_000;
const ROWS_PER_RECORD: usize = 1_000;
const RECORDS: usize = 512;
const T0: i64 = 1_767_571_200_000_000;
const MEASURE_FOR: Duration = Duration::from_secs(3);

/// A small generator, so that the benchmark needs no crate for it (SplitMix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Roughly normal around 2,000 with a spread of 580.
    fn value(&mut self) -> i32 {
        (0..4).map(|_| (self.next() % 1_000) as i32).sum()
    }
}

fn bundle() -> Arc<Bundle> {
    let mut text =
        String::from("format = 1\nname = \"bench\"\nversion = \"1\"\ntask = \"classification\"\n");
    for feature in 0..FEATURES {
        text.push_str(&format!(
            "[[features]]\nname = \"f{feature}\"\ntype = \"numeric\"\nresolution = 0.01\nrange = [0.0, 40.0]\n"
        ));
    }
    text.push_str("[output]\nclasses = [\"a\", \"b\", \"c\", \"d\"]\n");
    let manifest = Manifest::parse(&text).unwrap();
    let signals = manifest.signals().into_iter().map(|signal| SignalLayout {
        edges: match signal.kind {
            FeatureType::Numeric { .. } => (0..31).map(|edge| 1_000 + edge * 70).collect(),
            FeatureType::Categorical { .. } => Vec::new(),
        },
        signal,
    });
    let layout = Layout::new(signals.collect()).unwrap();
    let reference = Reference {
        made_from: "bench".into(),
        season: Season::None,
        slots: vec![Profile::empty(&layout)],
        layout,
    };
    let mut files = BTreeMap::from([
        (MANIFEST_FILE.to_owned(), text.into_bytes()),
        (MODEL_FILE.to_owned(), Vec::new()),
        (REFERENCE_FILE.to_owned(), reference.encode()),
        (CALIBRATION_FILE.to_owned(), b"{}".to_vec()),
        (SBOM_FILE.to_owned(), b"{}".to_vec()),
    ]);
    let digest = serde_json::to_vec(&Digest::of(&files)).unwrap();
    files.insert(DIGEST_FILE.to_owned(), digest);
    Arc::new(Bundle::from_files(files).unwrap())
}

struct One(Arc<Bundle>);

impl Bundles for One {
    fn bundle(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &str,
    ) -> Result<Option<Arc<Bundle>>, StageError> {
        Ok(Some(Arc::clone(&self.0)))
    }
}

fn origin(device: u32) -> Arc<Origin> {
    let text = format!(
        r#"{{"tenant":"t","device":"d{device}","model":"bench","version":"1","site":"s{}","firmware":"{}"}}"#,
        device % 20,
        device % 3
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}

/// Records of frames with `rows_per_frame` rows, devices in turn.
fn records(bundle: &Bundle, rows_per_frame: usize) -> Vec<Record> {
    let origins: Vec<Arc<Origin>> = (0..DEVICES).map(origin).collect();
    let mut random = Random(7);
    let mut sequences = vec![0u64; origins.len()];
    let mut device = 0;
    let mut record = |offset: usize| {
        let head = RecordHead {
            tenant: "t".into(),
            model: "bench".into(),
            version: "1".into(),
            kind: Kind::Inferences,
            fingerprint: bundle.inferences.fingerprint(),
        };
        let mut builder = PackedBuilder::new(head, &bundle.inferences);
        let received_at_us = T0 + offset as i64 * 50_000;
        for _ in 0..ROWS_PER_RECORD / rows_per_frame {
            device = (device + 1) % origins.len();
            let columns = bundle.inferences.fields().iter().map(|field| {
                let rows = 0..rows_per_frame;
                match (field.ty, field.categories) {
                    (FieldType::Time, _) => Column::Time(
                        rows.map(|row| Some(received_at_us - row as i64 * 1_000))
                            .collect(),
                    ),
                    (_, Some(categories)) => Column::Int32(
                        rows.map(|_| Some((random.next() % u64::from(categories)) as i32))
                            .collect::<Values<i32>>(),
                    ),
                    _ => Column::Int32(rows.map(|_| Some(random.value())).collect()),
                }
            });
            let rows = Rows {
                columns: columns.collect(),
            };
            let head = FrameHead {
                boot: 1,
                sequence: sequences[device],
                sent_at_us: None,
                received_at_us,
                clock_correction_us: 0,
            };
            sequences[device] += 1;
            builder.push(&origins[device], head, &rows).unwrap();
        }
        Record {
            topic: topic::INFERENCES.into(),
            partition: 0,
            offset: offset as u64,
            key: Vec::new().into(),
            value: Some(builder.finish().unwrap().into()),
            timestamp_us: received_at_us,
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
    let bundle = bundle();
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
