//! The labels stage on the log in memory, with the archive's lake in a folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_log::memory::{Fault, MemoryLog};
use driftline_schemas::clock::{DAY_US, MINUTE_US, ManualClock, SECOND_US};
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::packed::{PackedBuilder, RecordHead};
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::profile::{Cell, Profile, ProfileKey};
use driftline_schemas::rows::{Column, Rows};
use driftline_schemas::source::inference_id_text;
use driftline_schemas::units::Span;
use driftline_schemas::wanted::WantedIds;

use super::*;
use crate::archive::{ArchiveConfig, ArchiveStage, ArchiveStats};
use crate::testing::*;
use driftline_lake::LakeConfig;

struct World {
    _folder: tempfile::TempDir,
    log: MemoryLog,
    lake: Lake,
    clock: Arc<ManualClock>,
    stats: LabelsStats,
    config: LabelsConfig,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::new(&LakeConfig {
            url: folder.path().to_str().unwrap().into(),
            ..LakeConfig::default()
        });
        Self {
            _folder: folder,
            log: log(2),
            lake,
            clock: Arc::new(ManualClock::new(T0 + MINUTE_US)),
            stats: LabelsStats::default(),
            config: LabelsConfig {
                look_every: Span::default(),
                ..LabelsConfig::default()
            },
        }
    }

    fn send(&self, frame: &Frame) -> Vec<u128> {
        let at = topic::device_partition(origin(frame.device).device_hash(), 2);
        let value = packed(&bundle(), std::slice::from_ref(frame));
        let ids = PackedRecord::decode(value.clone(), &SchemaCache::default())
            .unwrap()
            .inference_ids();
        append(
            &self.log,
            vec![output(topic::INFERENCES, at, value, frame.received_at_us)],
        );
        ids
    }

    /// A probe labels inferences of a device.
    fn label(&self, sequence: u64, device: u32, labels: &[(u128, Option<i32>)]) {
        let bundle = bundle();
        let probe = origin(99);
        let head = RecordHead {
            tenant: TENANT.into(),
            model: MODEL.into(),
            version: VERSION.into(),
            kind: Kind::Outcomes,
            fingerprint: bundle.outcomes.fingerprint(),
        };
        let mut builder = PackedBuilder::new(head, &bundle.outcomes);
        let name: Arc<str> = format!("d{device}").into();
        let rows = Rows {
            columns: vec![
                Column::Time(labels.iter().map(|_| Some(T0)).collect()),
                Column::Id(labels.iter().map(|(id, _)| Some(*id)).collect()),
                Column::Int32(labels.iter().map(|(_, truth)| *truth).collect()),
                Column::Text(labels.iter().map(|_| None).collect()),
                Column::Text(labels.iter().map(|_| Some(Arc::clone(&name))).collect()),
            ],
        };
        let frame = Frame {
            device: 99,
            sequence,
            received_at_us: T0,
            rows: vec![],
        };
        builder.push(&probe, frame.head(), &rows).unwrap();
        let at = topic::device_partition(probe.device_hash(), 2);
        append(
            &self.log,
            vec![output(topic::OUTCOMES, at, builder.finish().unwrap(), T0)],
        );
    }

    fn archive(&self) {
        let config = ArchiveConfig {
            linger: Span::default(),
            ..ArchiveConfig::default()
        };
        let mut stage = ArchiveStage::new(
            config,
            self.lake.clone(),
            Arc::new(self.log.clone()),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::new(Shelf::with(bundle())),
            ArchiveStats::default(),
        )
        .unwrap();
        runner(&self.log, &self.clock)
            .run_until_idle(ArchiveStage::spec(), &mut stage)
            .unwrap();
    }

    /// A process that comes, does what there is to do, and goes.
    fn run(&self) {
        let mut stage = LabelsStage::new(
            self.config.clone(),
            ProfileConfig::default(),
            self.lake.clone(),
            Arc::new(self.log.clone()),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::new(Shelf::with(bundle())),
            self.stats.clone(),
        )
        .unwrap();
        runner(&self.log, &self.clock)
            .run_until_idle(LabelsStage::spec(), &mut stage)
            .unwrap();
    }

    fn errors(&self) -> BTreeMap<ProfileKey, Profile> {
        let mut merged: BTreeMap<ProfileKey, Profile> = BTreeMap::new();
        for record in self.log.all(topic::PROFILES).unwrap() {
            let batch = ProfileBatch::decode(&record.value.unwrap()).unwrap();
            assert_eq!(batch.watermark_us, i64::MIN);
            for cell in batch.cells {
                let to = topic::model_partition(&cell.key.tenant, &cell.key.model, 2);
                assert_eq!(record.partition, to);
                match merged.get_mut(&cell.key) {
                    Some(profile) => profile.merge(&cell.profile).unwrap(),
                    None => drop(merged.insert(cell.key, cell.profile)),
                }
            }
        }
        merged
    }

    /// Right, wrong and unknown in all.
    fn counts(&self) -> [u64; 3] {
        let (error, _) = bundle()
            .reference
            .layout
            .signal("error")
            .map(|(at, _)| (at, ()))
            .unwrap();
        self.errors()
            .values()
            .fold([0; 3], |[right, wrong, none], profile| {
                let signal = &profile.signals[error];
                [
                    right + signal.bins[0],
                    wrong + signal.bins[1],
                    none + signal.nulls,
                ]
            })
    }
}

/// Predictions of class 1 at one second from each other.
fn frame(device: u32, sequence: u64, rows: usize) -> Frame {
    let rows = (0..rows).map(|row| (T0 - row as i64 * SECOND_US, Some(5), Some(1), 1));
    Frame {
        device,
        sequence,
        received_at_us: T0,
        rows: rows.collect(),
    }
}

/// Labels wait until the archive has passed what was there when they came; then they count, in the
/// pane and cell of their inference and in nothing but the error signal, once, whatever fails on the
/// way and however often they are sent.
#[test]
fn labels_wait_for_the_archive_and_count_once() {
    let world = World::new();
    let ids = world.send(&frame(1, 0, 4));
    world.label(
        0,
        1,
        &[(ids[0], Some(1)), (ids[1], Some(0)), (ids[2], None)],
    );
    world.run();
    assert_eq!(world.counts(), [0, 0, 0]);
    assert_eq!(world.stats.looks.get(), 0);
    world.archive();
    world.log.fail_next_commit(Fault::Before);
    world.log.fail_next_commit(Fault::After);
    world.run();
    assert_eq!(world.counts(), [1, 1, 0]);
    // The same frame again; and the same inference labelled otherwise, beside a new one.
    world.label(
        0,
        1,
        &[(ids[0], Some(1)), (ids[1], Some(0)), (ids[2], None)],
    );
    world.label(1, 1, &[(ids[1], Some(1)), (ids[3], Some(1))]);
    world.run();
    assert_eq!(world.counts(), [2, 1, 0]);
    assert_eq!(world.stats.duplicates.get(), 1);
    assert_eq!(world.stats.empty.get(), 1);
    let errors = world.errors();
    // T0 is where a pane begins: the inferences before it belong to the one before.
    assert_eq!(errors.len(), 2);
    for (key, profile) in &errors {
        assert_eq!(key.cell, Cell::of(&origin(1)));
        assert_eq!(key.pane_length_us, 15 * MINUTE_US);
        assert_eq!((profile.rows, profile.devices.count()), (0, 0.0));
        let rows: Vec<u64> = profile.signals.iter().map(|signal| signal.rows()).collect();
        assert_eq!(rows[..4], [0, 0, 0, 0]);
    }
}

/// A label that is ahead of its inference finds it when the device comes back; one whose inference
/// never comes is told after the time for it is over, once.
#[test]
fn labels_without_an_inference_wait_and_are_given_up() {
    let world = World::new();
    let known = world.send(&frame(1, 0, 1));
    let other = World::new();
    let ahead = other.send(&frame(2, 7, 1));
    world.label(0, 2, &[(ahead[0], Some(0)), (ahead[0] + 1, Some(1))]);
    world.label(1, 1, &[(known[0], Some(1))]);
    world.archive();
    world.run();
    assert_eq!(world.counts(), [1, 0, 0]);
    let looks = world.stats.looks.get();
    world.run();
    assert_eq!(
        world.stats.looks.get(),
        looks,
        "not looked for again at once"
    );
    world.send(&frame(2, 7, 1));
    world.archive();
    world.clock.advance(2 * MINUTE_US);
    world.run();
    assert_eq!(world.counts(), [1, 1, 0]);
    world.clock.advance(8 * DAY_US);
    world.run();
    world.run();
    let letters = world.log.all(topic::DEADLETTERS).unwrap();
    assert_eq!(letters.len(), 1);
    let letter = DeadLetter::decode(letters[0].value.as_ref().unwrap()).unwrap();
    assert_eq!(letter.reason, "label_unmatched");
    assert_eq!(letter.payload, inference_id_text(ahead[0] + 1));
    assert_eq!(world.stats.unmatched.get(), 1);
    let at = topic::device_partition(origin(99).device_hash(), 2);
    let waiting = world.log.state(STAGE, at);
    assert!(
        !waiting.keys().any(|key| key[0] == b'p'),
        "nothing waits any more"
    );
}

/// Labels beyond the bound are given up, the longest waiting first, and told; labels of inferences
/// beyond the age are counted and not looked for.
#[test]
fn waiting_is_bounded() {
    let mut world = World::new();
    world.config.pending_max = 2;
    let ids = world.send(&frame(1, 0, 4));
    let mut old = frame(1, 1, 1);
    old.rows[0].0 = T0 - 40 * DAY_US;
    let old = world.send(&old);
    let labels: Vec<_> = ids.iter().chain(&old).map(|id| (*id, Some(1))).collect();
    world.label(0, 1, &labels);
    world.run();
    assert_eq!(world.stats.overflowed.get(), 2);
    assert_eq!(world.stats.too_old.get(), 1);
    let letters = world.log.all(topic::DEADLETTERS).unwrap();
    let reasons = letters.iter().map(|letter| {
        let letter = DeadLetter::decode(letter.value.as_ref().unwrap()).unwrap();
        (letter.reason, letter.payload)
    });
    let expected = ids[..2]
        .iter()
        .map(|id| ("label_overflow".to_owned(), inference_id_text(*id)));
    assert_eq!(reasons.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    world.archive();
    world.run();
    assert_eq!(world.counts(), [2, 0, 0]);
}

/// Many labels among many rows: all are found, in one look, and files of other times are not opened.
#[test]
fn files_of_other_times_are_not_opened() {
    let world = World::new();
    let mut ids = Vec::new();
    for batch in 0..6u64 {
        let mut frame = frame(1, batch, 500);
        // Each batch an hour from the next, in one day, and archived by itself.
        for (row, at) in frame.rows.iter_mut().enumerate() {
            at.0 = T0 + batch as i64 * 60 * MINUTE_US + row as i64 * 1_000;
        }
        frame.received_at_us = T0 + batch as i64 * 60 * MINUTE_US + SECOND_US;
        ids.push(world.send(&frame));
        world.archive();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let wanted = Arc::new(WantedIds::new(ids[2].iter().chain(&ids[4]).copied()));
    let (batches, looked) = runtime.block_on(async {
        let table = world.lake.open(topic::INFERENCES).await.unwrap().unwrap();
        lookup::inferences(&table, TENANT, &wanted).await.unwrap()
    });
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!(rows, 1_000);
    assert_eq!((looked.files, looked.opened), (6, 2));
    let labels: Vec<_> = ids[2]
        .iter()
        .chain(&ids[4])
        .map(|id| (*id, Some(0)))
        .collect();
    world.label(0, 1, &labels);
    world.run();
    assert_eq!(world.counts(), [0, 1_000, 0]);
}
