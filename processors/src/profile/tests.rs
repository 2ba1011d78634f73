//! The profile stage on the log in memory, against counting row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftline_log::memory::{Fault, MemoryLog};
use driftline_schemas::bundle::Bundle;
use driftline_schemas::clock::{DAY_US, HOUR_US, MINUTE_US, ManualClock, SECOND_US};
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::packed::{PackedBuilder, RecordHead};
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::profile::binning::Counter;
use driftline_schemas::profile::cell::pane_start_us;
use driftline_schemas::profile::{Cell, Profile};
use driftline_schemas::units::Span;
use proptest::prelude::*;

use super::*;
use crate::testing::*;

mod together;

type Merged = BTreeMap<ProfileKey, Profile>;

fn merged(log: &MemoryLog) -> Merged {
    let mut all = Merged::new();
    for record in log.all(topic::PROFILES).unwrap() {
        let batch = ProfileBatch::decode(&record.value.unwrap()).unwrap();
        for cell in batch.cells {
            match all.get_mut(&cell.key) {
                Some(profile) => profile.merge(&cell.profile).unwrap(),
                None => {
                    all.insert(cell.key, cell.profile);
                }
            }
        }
    }
    all
}

/// Row by row, each frame once, with the rules for age written down again.
fn naive(frames: &[Frame], pane_us: i64) -> Merged {
    naive_of(&bundle(), frames, pane_us)
}

fn naive_of(bundle: &Bundle, frames: &[Frame], pane_us: i64) -> Merged {
    let layout = bundle.reference.layout.clone();
    let mut counters: BTreeMap<ProfileKey, Counter> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for frame in frames {
        if !seen.insert((frame.device, frame.sequence)) {
            continue;
        }
        let origin = origin(frame.device);
        for &(time, temp, mode, class) in &frame.rows {
            let age = frame.received_at_us - time;
            if !(-HOUR_US..=7 * DAY_US).contains(&age) {
                continue;
            }
            let key = ProfileKey {
                tenant: TENANT.into(),
                model: MODEL.into(),
                version: VERSION.into(),
                pane_start_us: pane_start_us(time, pane_us),
                pane_length_us: pane_us,
                cell: Cell::of(&origin),
            };
            let counter = counters.entry(key).or_insert_with(|| Counter::new(&layout));
            counter.rows(origin.device_hash(), 1);
            let mut values = vec![temp, mode, Some(class), Some(9_000 + class)];
            let features = [temp, mode];
            let joint = bundle.joint.as_ref();
            values.extend(joint.map(|joint| joint.value(time, |it| features[it.at])));
            for (signal, value) in values.into_iter().enumerate() {
                counter.value(signal, value).unwrap();
            }
        }
    }
    let finish = |(key, counter): (ProfileKey, Counter)| (key, counter.finish());
    counters.into_iter().map(finish).collect()
}

fn stage(log: &MemoryLog, config: ProfileConfig) -> ProfileStage {
    let shelf = Arc::new(Shelf::with(bundle()));
    ProfileStage::new(config, log, shelf, ProfileStats::default()).unwrap()
}

/// Appends records of the given frames, each device to its partition, and runs the stage.
fn run(
    frames: &[Frame],
    partitions: u32,
    per_record: usize,
    max_records: usize,
    faults: &[Fault],
    pane: Span,
) -> Merged {
    let log = log(partitions);
    let bundle = bundle();
    let mut by_partition: BTreeMap<u32, Vec<Frame>> = BTreeMap::new();
    for frame in frames {
        let at = topic::device_partition(origin(frame.device).device_hash(), partitions);
        by_partition.entry(at).or_default().push(frame.clone());
    }
    for (at, frames) in by_partition {
        for frames in frames.chunks(per_record) {
            let at_us = frames.last().unwrap().received_at_us;
            append(
                &log,
                vec![output(
                    topic::INFERENCES,
                    at,
                    packed(&bundle, frames),
                    at_us,
                )],
            );
        }
    }
    for fault in faults {
        log.fail_next_commit(*fault);
    }
    let clock = Arc::new(ManualClock::new(T0));
    let mut spec = ProfileStage::spec();
    spec.limits.max_records = max_records;
    let config = ProfileConfig {
        pane,
        ..ProfileConfig::default()
    };
    // The first process reads a part and ends, the next one goes on from what was committed.
    let mut first = stage(&log, config.clone());
    runner(&log, &clock)
        .run_until_idle(spec.clone(), &mut first)
        .unwrap();
    let mut second = stage(&log, config);
    runner(&log, &clock)
        .run_until_idle(spec, &mut second)
        .unwrap();
    merged(&log)
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let value = prop_oneof![
        6 => (-3_000i32..5_000).prop_map(Some),
        1 => any::<i32>().prop_map(Some),
        1 => Just(None),
    ];
    let row = (
        prop_oneof![8 => 0i64..3 * HOUR_US, 1 => -8 * DAY_US..3 * DAY_US],
        value,
        prop::option::of(-1i32..5),
        0i32..2,
    );
    let frame = (
        0u32..5,
        0u64..6,
        0i64..2 * HOUR_US,
        prop::collection::vec(row, 0..12),
    );
    prop::collection::vec(frame, 1..24).prop_map(|frames| {
        // A resend is the same frame with another receipt.
        let mut known: BTreeMap<(u32, u64), Frame> = BTreeMap::new();
        frames
            .into_iter()
            .map(|(device, sequence, received, rows)| {
                let rows = rows
                    .into_iter()
                    .map(|(at, a, b, c)| (T0 + at, a, b, c))
                    .collect();
                let frame = Frame {
                    device,
                    sequence,
                    received_at_us: T0 + received,
                    rows,
                };
                known.entry((device, sequence)).or_insert(frame).clone()
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However frames are packed into records, cut into steps, spread over partitions, sent again,
    /// reordered, and whatever fails on the way: the merged profiles are those that counting row by
    /// row gives, byte by byte.
    #[test]
    fn profiles_do_not_depend_on_how_they_came(
        mut frames in frames(),
        per_record in 1usize..7,
        partitions in 1u32..4,
        max_records in 1usize..5,
        faults in prop::collection::vec(prop::sample::select(vec![Fault::Before, Fault::After]), 0..4),
        swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..10),
    ) {
        let pane = Span::from_mins(15);
        let expected = naive(&frames, pane.us());
        prop_assert_eq!(&run(&frames, 1, 1, 100, &[], pane), &expected);
        for (a, b) in swaps {
            let (a, b) = (a.index(frames.len()), b.index(frames.len()));
            frames.swap(a, b);
        }
        prop_assert_eq!(&run(&frames, partitions, per_record, max_records, &faults, pane), &expected);
    }
}

fn frame(device: u32, sequence: u64, received_at_us: i64, rows: usize) -> Frame {
    let rows = (0..rows).map(|row| {
        (
            received_at_us - row as i64 * SECOND_US,
            Some(row as i32),
            Some(1),
            0,
        )
    });
    Frame {
        device,
        sequence,
        received_at_us,
        rows: rows.collect(),
    }
}

/// The latest watermark that each output partition was told for an input partition.
fn watermarks(log: &MemoryLog, input_partition: u32) -> BTreeMap<u32, i64> {
    let mut told = BTreeMap::new();
    for record in log.all(topic::PROFILES).unwrap() {
        let batch = ProfileBatch::decode(&record.value.unwrap()).unwrap();
        if batch.input_partition == input_partition {
            let at = told.entry(record.partition).or_insert(i64::MIN);
            *at = batch.watermark_us.max(*at);
        }
    }
    told
}

/// Every output partition hears of every input partition, those without data included; the latest
/// receipt counts, not the event times (one of them lies a day ahead), and when all is read the
/// clock takes over at its distance. A second run says nothing new.
#[test]
fn every_output_partition_is_told_the_time() {
    let log = log(3);
    let bundle = bundle();
    let mut ahead = frame(1, 0, T0, 4);
    ahead.rows[0].0 = T0 + DAY_US;
    let at = topic::device_partition(origin(1).device_hash(), 3);
    append(
        &log,
        vec![output(topic::INFERENCES, at, packed(&bundle, &[ahead]), T0)],
    );
    let clock = Arc::new(ManualClock::new(T0));
    let config = ProfileConfig::default();
    let mut first = stage(&log, config.clone());
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut first)
        .unwrap();
    for input in 0..3 {
        let expected = if input == at {
            T0
        } else {
            T0 - config.idle_slack.us()
        };
        assert_eq!(
            watermarks(&log, input),
            (0..3).map(|out| (out, expected)).collect()
        );
    }
    let before = log.all(topic::PROFILES).unwrap().len();
    let mut again = stage(&log, config.clone());
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut again)
        .unwrap();
    assert_eq!(log.all(topic::PROFILES).unwrap().len(), before);
    clock.advance(MINUTE_US);
    let mut later = stage(&log, config.clone());
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut later)
        .unwrap();
    let expected = T0 + MINUTE_US - config.idle_slack.us();
    assert_eq!(
        watermarks(&log, at),
        (0..3).map(|out| (out, expected)).collect()
    );
}

/// Rows are told apart by their age at the gateway, and each kind is counted.
#[test]
fn rows_are_counted_by_age() {
    let log = log(1);
    let mut mixed = frame(1, 0, T0, 5);
    mixed.rows[1].0 = T0 - 2 * HOUR_US;
    mixed.rows[2].0 = T0 - 8 * DAY_US;
    mixed.rows[3].0 = T0 + 2 * HOUR_US;
    let records = vec![
        output(
            topic::INFERENCES,
            0,
            packed(&bundle(), &[mixed.clone()]),
            T0,
        ),
        output(topic::INFERENCES, 0, packed(&bundle(), &[mixed]), T0),
        output(topic::INFERENCES, 0, b"no record".to_vec(), T0),
    ];
    append(&log, records);
    let clock = Arc::new(ManualClock::new(T0));
    let stats = ProfileStats::default();
    let shelf = Arc::new(Shelf::with(bundle()));
    let mut stage =
        ProfileStage::new(ProfileConfig::default(), &log, shelf, stats.clone()).unwrap();
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut stage)
        .unwrap();
    assert_eq!(stats.rows_on_time.get(), 2);
    assert_eq!(stats.rows_late.get(), 1);
    assert_eq!(stats.rows_too_old.get(), 1);
    assert_eq!(stats.rows_future.get(), 1);
    assert_eq!(stats.frames_resent.get(), 1);
    assert_eq!(stats.records_damaged.get(), 1);
    let rows: u64 = merged(&log).values().map(|profile| profile.rows).sum();
    assert_eq!(rows, 3);
    let letters = log.all(topic::DEADLETTERS).unwrap();
    let letter = DeadLetter::decode(letters[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((letters.len(), letter.reason.as_str()), (1, DAMAGED));
    assert!(
        letter.detail.starts_with("inferences/0@2: "),
        "{}",
        letter.detail
    );
}

/// A profile that a device made in place of rows comes out as if the rows had been counted here; a
/// resend of it counts once, and one of another layout goes to the dead letters.
#[test]
fn device_profiles_merge_like_rows() {
    let rows = frame(2, 0, T0 + 899 * SECOND_US, 600);
    let expected = naive(std::slice::from_ref(&rows), 15 * MINUTE_US);
    let (key, profile) = expected.first_key_value().unwrap();
    assert_eq!(expected.len(), 1);

    let bundle = bundle();
    let record = |profile: &Profile, sequence| {
        let head = RecordHead {
            tenant: TENANT.into(),
            model: MODEL.into(),
            version: VERSION.into(),
            kind: Kind::Profiles,
            fingerprint: bundle.inferences.fingerprint(),
        };
        let mut builder = PackedBuilder::new(head, &bundle.inferences);
        let made = driftline_schemas::frame::DeviceProfile {
            version: VERSION.into(),
            pane_start_us: key.pane_start_us,
            pane_length_us: key.pane_length_us,
            profile: profile.clone(),
        };
        let head = Frame {
            sequence,
            ..rows.clone()
        }
        .head();
        builder.push_profile(&origin(2), head, &made).unwrap();
        output(topic::INFERENCES, 0, builder.finish().unwrap(), T0)
    };
    let mut other = profile.clone();
    other.layout += 1;
    let log = log(1);
    append(
        &log,
        vec![record(profile, 0), record(profile, 0), record(&other, 1)],
    );
    // The same sequence as rows is another frame: every kind counts for itself.
    append(
        &log,
        vec![output(
            topic::INFERENCES,
            0,
            packed(&bundle, std::slice::from_ref(&rows)),
            T0,
        )],
    );
    let clock = Arc::new(ManualClock::new(T0));
    let mut stage = stage(&log, ProfileConfig::default());
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut stage)
        .unwrap();
    let mut twice = profile.clone();
    twice.merge(profile).unwrap();
    assert_eq!(merged(&log), Merged::from([(key.clone(), twice)]));
    assert_eq!(log.all(topic::DEADLETTERS).unwrap().len(), 1);
}

/// Rows of a version that nobody registered are counted as such, and the stage goes on.
#[test]
fn a_version_without_a_bundle_does_not_stop_the_stage() {
    let log = log(1);
    append(
        &log,
        vec![output(
            topic::INFERENCES,
            0,
            packed(&bundle(), &[frame(1, 0, T0, 3)]),
            T0,
        )],
    );
    let stats = ProfileStats::default();
    let shelf = Arc::new(Shelf::default());
    let mut stage =
        ProfileStage::new(ProfileConfig::default(), &log, shelf, stats.clone()).unwrap();
    let clock = Arc::new(ManualClock::new(T0));
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut stage)
        .unwrap();
    assert_eq!(stats.rows_without_bundle.get(), 3);
    assert!(merged(&log).is_empty());
    assert_eq!(log.committed(STAGE, topic::INFERENCES, 0).unwrap(), Some(1));
}

/// Steps with more rows than one run of the aggregation takes are cut between batches.
#[test]
fn runs_are_cut_between_batches() {
    let batch = |rows: usize| {
        let column: arrow::array::ArrayRef =
            Arc::new(arrow::array::Int32Array::from(vec![0; rows]));
        RecordBatch::try_from_iter([("a", column)]).unwrap()
    };
    let runs = cut([5, 4, 1, 30, 2, 2].map(batch).to_vec(), 10);
    let sizes: Vec<Vec<usize>> = runs
        .iter()
        .map(|run| run.iter().map(RecordBatch::num_rows).collect())
        .collect();
    assert_eq!(sizes, [vec![5, 4, 1], vec![30], vec![2, 2]]);
}
