//! The real stages under the simulator: frames of a small estate become partial profiles and measures.
//!
//! What comes out in the end must be, byte for byte, what comes out when nothing goes wrong and everything comes
//! in order.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use driftline_drift::calibrate::Learner;
use driftline_log::kafka::simulation::{BEGIN_US, Random, SimulatedLog, Simulation};
use driftline_log::{Log, Output, ReadLimits, TopicSpec};
use driftline_schemas::bundle::{Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, REFERENCE_FILE};
use driftline_schemas::clock::{HOUR_US, MINUTE_US};
use driftline_schemas::measure::MeasureBatch;
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::profile::binning::Counter;
use driftline_schemas::profile::{Profile, ProfileKey};
use driftline_schemas::topic;

use super::{Outcome, seeds};
use crate::detect::{DetectConfig, DetectStage, DetectStats};
use crate::profile::{ProfileConfig, ProfileStage, ProfileStats};
use crate::testing::{Frame, Shelf, origin, output, packed};

const DEVICES: u32 = 6;
const HOURS: i64 = 4;
/// Frames of a device in an hour, and rows of a frame.
const FRAMES: i64 = 3;
const ROWS: i64 = 8;
const CHAOS_MS: u64 = 60_000;
/// A frame is received this long after its last row at most.
const LATE_US: i64 = 2 * HOUR_US;

/// Partial profiles merged, and of each window the measures of its last revision, as bytes.
#[derive(Debug, Default, PartialEq)]
struct Answers {
    profiles: BTreeMap<ProfileKey, Profile>,
    measures: BTreeMap<i64, Vec<u8>>,
}

/// Frames in the order of their rows; all of them, and when they are received, are made by the seed.
fn frames(random: &mut Random) -> Vec<Frame> {
    let begin_us = BEGIN_US - (HOURS + 4) * HOUR_US;
    let mut frames = Vec::new();
    for at in 0..HOURS * FRAMES {
        for device in 0..DEVICES {
            let start_us = begin_us + at * HOUR_US / FRAMES;
            let rows = (0..ROWS).map(|row| {
                let (temp, mode, class) = values_of(random);
                (start_us + row * MINUTE_US, temp, mode, class)
            });
            let rows: Vec<_> = rows.collect();
            let late_us = random.below(LATE_US as u64) as i64;
            frames.push(Frame {
                device,
                sequence: at as u64,
                received_at_us: start_us + ROWS * MINUTE_US + late_us,
                rows,
            });
        }
    }
    frames
}

/// A value row as the estate makes them: temperature, mode, class.
fn values_of(random: &mut Random) -> (Option<i32>, Option<i32>, i32) {
    let temp = Some(random.below(3_000) as i32 - 500);
    (temp, Some(random.below(3) as i32), random.below(2) as i32)
}

/// The model of the tests, with a reference and a calibration of two weeks, so that windows are judged.
fn bundle() -> Arc<Bundle> {
    static BUNDLE: OnceLock<Arc<Bundle>> = OnceLock::new();
    let make = || {
        let blank = crate::testing::bundle();
        let layout = blank.reference.layout.clone();
        let mut reference = blank.reference.clone();
        let (mut random, mut all) = (Random::new(1), Vec::new());
        for hour in -14 * 24..0 {
            let start_us = BEGIN_US + (hour - 24) * HOUR_US;
            for device in 0..DEVICES {
                let hash = origin(device).device_hash();
                let mut counter = Counter::new(&layout);
                for _ in 0..FRAMES * ROWS {
                    let (temp, mode, class) = values_of(&mut random);
                    counter.rows(hash, 1);
                    let values = [temp, mode, Some(class), Some(9_000 + class)];
                    for (signal, value) in values.into_iter().enumerate() {
                        counter.value(signal, value).unwrap();
                    }
                }
                let profile = counter.finish();
                reference.slots[0].merge(&profile).unwrap();
                all.push((start_us, hash, profile));
            }
        }
        let mut learner = Learner::new(&reference).unwrap();
        for (start_us, device, profile) in &all {
            learner.add(*start_us, *device, profile).unwrap();
        }
        let calibration = learner.finish().to_json().into_bytes();
        let mut files = blank.files().clone();
        files.insert(REFERENCE_FILE.to_owned(), reference.encode());
        files.insert(CALIBRATION_FILE.to_owned(), calibration);
        files.remove(DIGEST_FILE);
        let digest = serde_json::to_vec(&Digest::of(&files)).unwrap();
        files.insert(DIGEST_FILE.to_owned(), digest);
        Arc::new(Bundle::from_files(files).unwrap())
    };
    Arc::clone(BUNDLE.get_or_init(make))
}

fn record(frame: &Frame, partitions: u32) -> Output {
    let at = topic::device_partition(origin(frame.device).device_hash(), partitions);
    let bytes = packed(&bundle(), std::slice::from_ref(frame));
    output(topic::INFERENCES, at, bytes, frame.received_at_us)
}

fn topics(log: &SimulatedLog, partitions: u32) {
    let names = topic::TELEMETRY
        .into_iter()
        .chain(topic::DERIVED)
        .chain([topic::DEADLETTERS]);
    let mut specs: Vec<_> = names.map(|name| TopicSpec::new(name, partitions)).collect();
    specs.push(TopicSpec::new(topic::REGISTRY, 1));
    log.ensure_topics(&specs).unwrap();
}

fn processes(simulation: &Simulation, instances: &[&str]) {
    let shelf = Arc::new(Shelf::with(bundle()));
    for instance in instances {
        let (log, bundles) = (simulation.log(), Arc::clone(&shelf));
        simulation.process(ProfileStage::spec().with_instance(*instance), move || {
            let config = ProfileConfig::default();
            let stats = ProfileStats::default();
            let bundles = Arc::clone(&bundles);
            Ok(Box::new(ProfileStage::new(config, &*log, bundles, stats)?))
        });
        let (log, bundles) = (simulation.log(), Arc::clone(&shelf));
        simulation.process(DetectStage::spec().with_instance(*instance), move || {
            let config = DetectConfig::default();
            let stats = DetectStats::default();
            let bundles = Arc::clone(&bundles);
            Ok(Box::new(DetectStage::new(config, &*log, bundles, stats)?))
        });
    }
}

fn values(log: &SimulatedLog, topic: &str) -> Vec<Vec<u8>> {
    let limits = ReadLimits {
        max_records: usize::MAX,
        ..ReadLimits::default()
    };
    let read = |partition| log.read(topic, partition, 0, limits).unwrap().records;
    let all = (0..log.partitions(topic).unwrap()).flat_map(read);
    all.filter_map(|record| Some(record.value?.to_vec()))
        .collect()
}

fn answers(log: &SimulatedLog) -> Result<Answers, String> {
    let mut answers = Answers::default();
    for value in values(log, topic::PROFILES) {
        for cell in ProfileBatch::decode(&value).unwrap().cells {
            match answers.profiles.get_mut(&cell.key) {
                Some(profile) => profile.merge(&cell.profile).unwrap(),
                None => {
                    answers.profiles.insert(cell.key, cell.profile);
                }
            }
        }
    }
    let mut revisions: BTreeMap<i64, u32> = BTreeMap::new();
    for value in values(log, topic::MEASURES) {
        let mut measures = MeasureBatch::decode(&value).unwrap();
        let (window, revision) = (measures[0].window_start_us, measures[0].revision);
        let before = revisions.insert(window, revision);
        if before.is_some_and(|before| before >= revision) {
            return Err(format!(
                "window {window}: revision {revision} after {before:?}"
            ));
        }
        measures.iter_mut().for_each(|measure| measure.revision = 0);
        answers
            .measures
            .insert(window, serde_json::to_vec(&measures).unwrap());
    }
    Ok(answers)
}

fn run(simulation: &Simulation, seed: u64) -> Outcome {
    let mut random = Random::new(!seed);
    // Every estate has a calm run of its own to be held against, so there are few of them.
    let estate = seed % ESTATES as u64;
    let partitions = [1, 3][(seed / ESTATES as u64 % 2) as usize];
    topics(&simulation.log(), partitions);
    let mut records = Vec::new();
    for frame in frames(&mut Random::new(estate)) {
        let times = 1 + u64::from(random.per_mille(200));
        for _ in 0..times {
            records.push((random.below(CHAOS_MS), record(&frame, partitions)));
        }
    }
    simulation.arrives(records);
    processes(simulation, &["0", "1"]);
    let counts = simulation.run(CHAOS_MS)?;
    let (found, wanted) = (answers(&simulation.log())?, calm(estate as usize));
    if found.profiles != wanted.profiles {
        return Err("the profiles are not those of a calm run".into());
    }
    let differs = |(window, bytes): &(&i64, &Vec<u8>)| found.measures.get(window) != Some(bytes);
    if let Some((window, _)) = wanted.measures.iter().find(differs) {
        return Err(format!(
            "the measures of window {window} are not those of a calm run"
        ));
    }
    if found.measures.len() != wanted.measures.len() {
        return Err("there are measures of windows that a calm run has not".into());
    }
    Ok(counts)
}

const ESTATES: usize = 4;

/// What comes of an estate when nothing goes wrong: one process a stage, one partition, frames in order.
fn calm(estate: usize) -> &'static Answers {
    static CALM: [OnceLock<Answers>; ESTATES] = [const { OnceLock::new() }; ESTATES];
    CALM[estate].get_or_init(|| {
        let simulation = Simulation::new(0, None);
        simulation.calm();
        topics(&simulation.log(), 1);
        let frames = frames(&mut Random::new(estate as u64));
        let records = frames.iter().enumerate();
        simulation.arrives(
            records
                .map(|(at, frame)| (at as u64, record(frame, 1)))
                .collect(),
        );
        processes(&simulation, &["0"]);
        simulation.run(1_000).unwrap();
        let answers = answers(&simulation.log()).unwrap();
        let rows: u64 = answers.profiles.values().map(|profile| profile.rows).sum();
        assert_eq!(rows as i64, i64::from(DEVICES) * HOURS * FRAMES * ROWS);
        assert_eq!(answers.measures.len() as i64, HOURS, "one for each window");
        answers
    })
}

/// Scenario: two processes each of profile and detect, killed, stopped, cut off and fenced in the middle of
/// requests, with 1 and with 3 partitions, while frames come up to two hours late, in any order, and twice.
/// Guarantee: partial profiles merge to the same bytes, and every window's last measures are the same bytes,
/// as when one process reads everything in order and nothing goes wrong.
#[test]
fn measures_do_not_depend_on_what_goes_wrong() {
    seeds("profile and detect", 100, run);
}
