//! The archive stage on the log in memory and a lake in a folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use driftline_log::memory::{Fault, MemoryLog};
use driftline_schemas::clock::{DAY_US, ManualClock, SECOND_US};
use driftline_schemas::measure::{
    Cohort, CohortMeasures, MEASURE_BATCH_FORMAT, Measure, MeasureBatch, MethodMeasure,
    SignalMeasures,
};
use driftline_schemas::tables::Table;
use driftline_schemas::units::{Size, Span};
use proptest::prelude::*;

use super::*;
use crate::profile::{ProfileConfig, ProfileStage, ProfileStats};
use crate::testing::*;
use driftline_lake::LakeConfig;

fn config() -> ArchiveConfig {
    ArchiveConfig {
        linger: Span::default(),
        compact_commits: 3,
        ..ArchiveConfig::default()
    }
}

fn lake(folder: &tempfile::TempDir) -> Lake {
    Lake::new(&LakeConfig {
        url: folder.path().to_str().unwrap().into(),
        ..LakeConfig::default()
    })
}

fn stage(log: &MemoryLog, lake: &Lake, config: ArchiveConfig) -> ArchiveStage {
    ArchiveStage::new(
        config,
        lake.clone(),
        Arc::new(log.clone()),
        Arc::new(ManualClock::new(T0)),
        Arc::new(Shelf::with(bundle())),
        ArchiveStats::default(),
    )
    .unwrap()
}

fn archive(log: &MemoryLog, lake: &Lake, max_records: usize) -> Result<u64, String> {
    let clock = Arc::new(ManualClock::new(T0));
    let mut spec = ArchiveStage::spec();
    spec.limits.max_records = max_records;
    let mut stage = stage(log, lake, config());
    let mut runner = runner(log, &clock);
    runner.observer = Arc::new(Patience);
    let ran = runner.run_until_idle(spec, &mut stage);
    ran.map_err(|error| error.to_string())
}

/// Ends a test whose stage fails again and again with what it fails of.
struct Patience;

impl driftline_log::runner::RunObserver for Patience {
    fn failed(&self, _: &str, error: &dyn std::fmt::Display, attempt: u32) {
        assert!(attempt < 20, "{error}");
    }
}

fn query(lake: &Lake, sql: &str) -> Vec<RecordBatch> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let context = datafusion::prelude::SessionContext::new();
        for topic in TOPICS {
            if let Some(table) = lake.open(topic).await.unwrap() {
                let provider = table.delta().table_provider().await.unwrap();
                context.register_table(topic, provider).unwrap();
            }
        }
        context.sql(sql).await.unwrap().collect().await.unwrap()
    })
}

fn count(lake: &Lake, sql: &str) -> i64 {
    query(lake, sql)[0]
        .column(0)
        .as_primitive::<Int64Type>()
        .value(0)
}

fn frame(device: u32, sequence: u64, rows: usize) -> Frame {
    let received_at_us = T0 + sequence as i64 * SECOND_US;
    let rows = (0..rows).map(|row| {
        (
            received_at_us - row as i64,
            Some(row as i32 * 10),
            Some(1),
            1,
        )
    });
    Frame {
        device,
        sequence,
        received_at_us,
        rows: rows.collect(),
    }
}

fn send(log: &MemoryLog, partitions: u32, frames: &[Frame]) {
    for frame in frames {
        let at = topic::device_partition(origin(frame.device).device_hash(), partitions);
        let value = packed(&bundle(), std::slice::from_ref(frame));
        append(
            log,
            vec![output(topic::INFERENCES, at, value, frame.received_at_us)],
        );
    }
}

/// Who sent how many rows, by device and sequence, as the lake has them.
fn in_lake(lake: &Lake) -> BTreeMap<(String, i64), i64> {
    let sql = "select device, sequence, count(*), count(distinct inference_id) from inferences group by device, sequence";
    let mut rows = BTreeMap::new();
    for batch in query(lake, sql) {
        let text =
            arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        for row in 0..batch.num_rows() {
            let number =
                |column: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
            assert_eq!(number(2), number(3), "an identity is there twice");
            rows.insert(
                (text.as_string::<i32>().value(row).to_owned(), number(1)),
                number(2),
            );
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Frames sent again and steps that fail, before or after their effect on the log: every frame
    /// is in the lake once, although the lake's commits stay when the log's do not.
    #[test]
    fn every_row_is_in_the_lake_once(
        sent in prop::collection::vec((0u32..4, 0u64..5), 1..14),
        faults in prop::collection::vec(prop::sample::select(vec![Fault::Before, Fault::After]), 0..4),
        max_records in 1usize..6,
        half in 0usize..14,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (log, lake) = (log(2), lake(&folder));
        let frames: Vec<Frame> = sent.iter()
            .map(|(device, sequence)| frame(*device, *sequence, 1 + *sequence as usize))
            .collect();
        let (first, second) = frames.split_at(half.min(frames.len()));
        send(&log, 2, first);
        for fault in &faults {
            log.fail_next_commit(*fault);
        }
        archive(&log, &lake, max_records).unwrap();
        send(&log, 2, second);
        archive(&log, &lake, max_records).unwrap();
        let expected: BTreeMap<(String, i64), i64> = sent.iter()
            .map(|(device, sequence)| ((format!("d{device}"), *sequence as i64), 1 + *sequence as i64))
            .collect();
        prop_assert_eq!(in_lake(&lake), expected);
        for partition in 0..2 {
            let end = log.range(topic::INFERENCES, partition).unwrap().1;
            let committed = log.committed(STAGE, topic::INFERENCES, partition).unwrap();
            prop_assert_eq!(committed.unwrap_or(0), end);
        }
    }
}

/// A process that ends between the lake's commit and the log's: the next one finds the table ahead,
/// does not write the rows again, and still knows their frames when they are sent once more.
#[test]
fn a_table_ahead_of_the_log_is_caught_up_with() {
    let folder = tempfile::tempdir().unwrap();
    let (log, lake) = (log(1), lake(&folder));
    send(&log, 1, &[frame(1, 0, 3), frame(1, 1, 2)]);
    log.fail_next_commit(Fault::Fatal);
    assert!(archive(&log, &lake, 100).is_err());
    assert_eq!(log.committed(STAGE, topic::INFERENCES, 0).unwrap(), None);
    assert_eq!(count(&lake, "select count(*) from inferences"), 5);
    // The labels stage waits for the log's offsets, so they must not wait for another record.
    archive(&log, &lake, 100).unwrap();
    assert_eq!(log.committed(STAGE, topic::INFERENCES, 0).unwrap(), Some(2));
    assert_eq!(count(&lake, "select count(*) from inferences"), 5);
    send(&log, 1, &[frame(1, 1, 2), frame(1, 2, 4)]);
    archive(&log, &lake, 100).unwrap();
    assert_eq!(count(&lake, "select count(*) from inferences"), 9);
    assert_eq!(log.committed(STAGE, topic::INFERENCES, 0).unwrap(), Some(4));
    send(&log, 1, &[frame(1, 0, 3), frame(1, 2, 4)]);
    archive(&log, &lake, 1).unwrap();
    assert_eq!(count(&lake, "select count(*) from inferences"), 9);
}

/// A table that was removed, or replaced by an older copy, is said to be, and nothing is archived
/// beside the hole.
#[test]
fn a_lost_table_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (log, lake) = (log(1), lake(&folder));
    send(&log, 1, &[frame(1, 0, 3)]);
    archive(&log, &lake, 100).unwrap();
    std::fs::remove_dir_all(folder.path().join("inferences")).unwrap();
    send(&log, 1, &[frame(1, 1, 3)]);
    let error = archive(&log, &lake, 100).unwrap_err();
    assert!(error.contains("offset 1 was archived"), "{error}");
}

/// The folder cannot be written: the step is tried again until it can, and nothing is lost.
#[test]
fn a_store_that_fails_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, lake) = (log(1), lake(&folder));
    send(&log, 1, &[frame(1, 0, 3)]);
    // A file where the table's folder should be.
    let blocked = folder.path().join("inferences");
    std::fs::write(&blocked, b"in the way").unwrap();
    let clock = Arc::new(ManualClock::new(T0));
    let mut failing = runner(&log, &clock);
    let counters = Arc::new(driftline_log::runner::Counters::default());
    failing.observer = Arc::clone(&counters) as Arc<_>;
    let shutdown = failing.shutdown.clone();
    let (thread_log, thread_lake) = (log.clone(), lake.clone());
    let thread = std::thread::spawn(move || {
        let mut stage = stage(&thread_log, &thread_lake, config());
        failing.run(ArchiveStage::spec(), &mut stage)
    });
    while counters.failures.load(std::sync::atomic::Ordering::Relaxed) < 3 {
        std::thread::yield_now();
    }
    assert_eq!(log.committed(STAGE, topic::INFERENCES, 0).unwrap(), None);
    std::fs::remove_file(&blocked).unwrap();
    while log.committed(STAGE, topic::INFERENCES, 0).unwrap() != Some(1) {
        std::thread::yield_now();
    }
    shutdown.request();
    thread.join().unwrap().unwrap();
    assert_eq!(count(&lake, "select count(*) from inferences"), 3);
}

/// Rows wait for company until there are enough: a commit for many records, not one for each, and
/// the log's offsets stand still meanwhile.
#[test]
fn rows_wait_until_there_are_enough() {
    let folder = tempfile::tempdir().unwrap();
    let (log, lake) = (log(1), lake(&folder));
    let mut stage = stage(
        &log,
        &lake,
        ArchiveConfig {
            rows_max: 10,
            linger: Span::from_secs(60),
            ..config()
        },
    );
    // A clock that a minute passes on in a minute.
    stage.clock = Arc::new(driftline_schemas::clock::SystemClock);
    let positions = TOPICS.map(|name| Position {
        topic: name.into(),
        partition: 0,
        next: 0,
    });
    let assignment = Assignment {
        partition: 0,
        positions: positions.to_vec(),
        state: BTreeMap::new(),
    };
    stage.assigned(assignment).unwrap();
    send(
        &log,
        1,
        &[
            frame(1, 0, 3),
            frame(1, 1, 3),
            frame(1, 2, 3),
            frame(1, 3, 3),
        ],
    );
    let records = log.all(topic::INFERENCES).unwrap();
    let mut step = |records: &[Record], now_us| {
        stage
            .step(StepInput {
                records,
                now_us,
                caught_up: false,
            })
            .unwrap()
    };
    for at in 0..3 {
        assert_eq!(step(&records[at..=at], T0).offsets, Offsets::Hold);
    }
    let flushed = step(&records[3..], T0 + SECOND_US);
    let next = Position {
        topic: topic::INFERENCES.into(),
        partition: 0,
        next: 4,
    };
    assert_eq!(flushed.offsets, Offsets::To(vec![next]));
    assert_eq!(flushed.state.len(), 1);
    let mut again = records[3].clone();
    again.offset = 4;
    assert_eq!(step(&[again], T0 + 2 * SECOND_US).offsets, Offsets::Hold);
    assert_eq!(step(&[], T0 + 61 * SECOND_US).offsets, Offsets::Hold);
    assert!(matches!(
        step(&[], T0 + 63 * SECOND_US).offsets,
        Offsets::To(_)
    ));
    assert_eq!(count(&lake, "select count(*) from inferences"), 12);
}

/// Every topic finds its table, partitioned by tenant and day; what cannot be read becomes a dead
/// letter, which is archived in turn.
#[test]
fn all_topics_are_archived() {
    let folder = tempfile::tempdir().unwrap();
    let (log, lake) = (log(1), lake(&folder));
    let mut yesterday = frame(1, 0, 2);
    yesterday.rows[1].0 = T0 - DAY_US;
    send(&log, 1, &[yesterday]);
    let clock = Arc::new(ManualClock::new(T0));
    let shelf = Arc::new(Shelf::with(bundle()));
    let mut profile = ProfileStage::new(
        ProfileConfig::default(),
        &log,
        shelf,
        ProfileStats::default(),
    )
    .unwrap();
    runner(&log, &clock)
        .run_until_idle(ProfileStage::spec(), &mut profile)
        .unwrap();
    let measures = serde_json::to_vec(&[measure("psi"), measure("js")]).unwrap();
    append(
        &log,
        vec![
            output(topic::MEASURES, 0, measures, T0),
            output(topic::MEASURES, 0, batch("ks").encode().remove(0), T0),
            output(topic::HEALTH, 0, b"no record".to_vec(), T0),
        ],
    );
    archive(&log, &lake, 100).unwrap();
    assert_eq!(count(&lake, "select count(*) from inferences"), 2);
    assert_eq!(
        count(
            &lake,
            "select count(*) from inferences where date = '2026-01-04'"
        ),
        1
    );
    // Five signals, in the panes of two days.
    assert_eq!(
        count(&lake, "select count(*) from profiles where rows = 1"),
        10
    );
    assert_eq!(
        count(&lake, "select count(distinct method) from measures"),
        3
    );
    archive(&log, &lake, 100).unwrap();
    assert_eq!(
        count(
            &lake,
            "select count(*) from deadletters where reason = 'record_damaged'"
        ),
        1
    );
    let sizes = query(&lake, "select log_partition, log_offset from inferences");
    assert_eq!(sizes[0].column(0).as_primitive::<Int32Type>().value(0), 0);
    for table in Table::ALL {
        assert!(TOPICS.contains(&table.name()));
    }
}

/// As this release writes them; [`measure`] makes what earlier ones wrote lists of.
fn batch(method: &'static str) -> MeasureBatch {
    MeasureBatch {
        format: MEASURE_BATCH_FORMAT,
        tenant: TENANT.into(),
        model: MODEL.into(),
        version: VERSION.into(),
        window_start_us: T0,
        window_end_us: T0 + 60 * SECOND_US,
        revision: 0,
        reference: "abc".into(),
        config: "def".into(),
        cohorts: vec![CohortMeasures {
            cohort: Cohort::default(),
            signals: vec![SignalMeasures {
                signal: "temp".into(),
                rows: 10,
                devices: 2.0,
                reference_rows: 100,
                threshold: 0.01,
                methods: vec![MethodMeasure {
                    method: method.into(),
                    version: 1,
                    value: Some(0.1),
                    p_value: Some(0.5),
                    crossed: false,
                }],
            }],
        }],
    }
}

fn measure(method: &str) -> Measure {
    Measure {
        format: 1,
        tenant: TENANT.into(),
        model: MODEL.into(),
        version: VERSION.into(),
        cohort: Cohort::default(),
        signal: "temp".into(),
        window_start_us: T0,
        window_end_us: T0 + 60 * SECOND_US,
        revision: 0,
        method: method.into(),
        method_version: 1,
        value: Some(0.1),
        p_value: None,
        threshold: Some(0.2),
        crossed: false,
        rows: 10,
        devices: 2.0,
        reference_rows: 100,
        reference: "0".into(),
        config: "0".into(),
    }
}

/// The configuration refuses what cannot be.
#[test]
fn the_configuration_is_checked() {
    assert_eq!(ArchiveConfig::default().check(), Ok(()));
    let none = ArchiveConfig {
        bytes_max: Size(0),
        ..ArchiveConfig::default()
    };
    assert!(none.check().is_err());
    assert!(serde_json::from_str::<ArchiveConfig>(r#"{"lingers": "1s"}"#).is_err());
}
