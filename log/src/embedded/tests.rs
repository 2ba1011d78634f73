//! What only the embedded log does: one process, group commit, full disks, lost power.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use redb::ReadableTable;

use super::backend::{Change, Journal, Watch};
use super::*;
use crate::api::{Log, Output, Polled, Position, StageSpec, StateDelta, Step};
use crate::error::CommitError;

const CACHE: usize = 8 * 1024 * 1024;

fn open(folder: &Path) -> (EmbeddedLog, Arc<Watch>) {
    let disk = Disk::open(folder, CACHE).unwrap();
    let watch = Arc::clone(&disk.watch);
    (EmbeddedLog::open_on(disk).unwrap(), watch)
}

fn output(value: Vec<u8>) -> Output {
    Output {
        topic: "t".into(),
        partition: 0,
        key: vec![],
        value: Some(value),
        timestamp_us: 0,
    }
}

fn values(log: &EmbeddedLog) -> Vec<Vec<u8>> {
    let limits = ReadLimits {
        max_records: usize::MAX,
        ..ReadLimits::default()
    };
    let batch = log.read("t", 0, 0, limits).unwrap();
    batch
        .records
        .into_iter()
        .map(|record| record.value.unwrap().to_vec())
        .collect()
}

/// A second open of the same folder is refused, with the remedy; after the first is dropped it
/// works.
#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).unwrap();
    let appender = first.appender("test").unwrap();
    let error = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, LogError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("[log] kafka"), "{error}");
    drop(first);
    assert!(EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).is_err());
    drop(appender);
    EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).unwrap();
}

/// While one group syncs, the next gathers: many appenders need far fewer syncs than appends, and
/// a lone append needs exactly one.
#[test]
fn groups_share_a_sync() {
    let folder = tempfile::tempdir().unwrap();
    let (log, watch) = open(folder.path());
    log.ensure_topics(&[TopicSpec::new("t", 1)]).unwrap();
    let before = watch.syncs.load(Ordering::Relaxed);
    log.appender("lone")
        .unwrap()
        .append(vec![output(vec![0])])
        .unwrap();
    assert_eq!(watch.syncs.load(Ordering::Relaxed) - before, 1);

    let jobs: Vec<_> = (0..64)
        .map(|n| {
            let (answer, answered) = std::sync::mpsc::sync_channel(1);
            let write = Write {
                outputs: vec![output(vec![n])],
                step: None,
            };
            (writer::waiting(write, answer), answered)
        })
        .collect();
    let (jobs, answers): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    let before = watch.syncs.load(Ordering::Relaxed);
    let store = &log.local.shared.store;
    writer::commit(jobs, &store.disk, &store.catalog);
    assert_eq!(watch.syncs.load(Ordering::Relaxed) - before, 1);
    let offsets: BTreeSet<u64> = answers
        .iter()
        .map(|answered| answered.recv().unwrap().unwrap().offsets[0])
        .collect();
    assert_eq!(offsets, (1..65).collect());
}

/// On a full disk nothing is acknowledged, what was there can be read, and when there is room again
/// the log goes on by itself: for appends and for steps, which start from a fresh assignment.
#[test]
fn goes_on_after_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (log, watch) = open(folder.path());
    log.ensure_topics(&[TopicSpec::new("t", 1)]).unwrap();
    let mut appender = log.appender("test").unwrap();
    appender.append(vec![output(vec![1; 100_000])]).unwrap();
    let mut stage = log.stage(StageSpec::new("s", &["t"])).unwrap();
    let polled = stage.poll(Duration::ZERO).unwrap();
    assert!(matches!(polled, Polled::Assigned(_)), "{polled:?}");

    let length = fs::metadata(folder.path().join("log.redb")).unwrap().len();
    watch.capacity.store(length, Ordering::Relaxed);
    for _ in 0..3 {
        let error = appender
            .append(vec![output(vec![2; 4_000_000])])
            .unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(values(&log), [vec![1; 100_000]]);
    }
    let step = || Step {
        state: vec![StateDelta {
            partition: 0,
            key: vec![1],
            value: Some(vec![3; 4_000_000]),
        }],
        ..Step::default()
    };
    let error = stage.commit(step()).unwrap_err();
    assert!(matches!(error, CommitError::Aborted(_)), "{error}");

    watch.capacity.store(u64::MAX, Ordering::Relaxed);
    let polled = stage.poll(Duration::ZERO).unwrap();
    assert!(matches!(polled, Polled::Revoked(_)), "{polled:?}");
    let Polled::Assigned(assigned) = stage.poll(Duration::ZERO).unwrap() else {
        panic!("not assigned again");
    };
    assert!(assigned[0].state.is_empty());
    stage.commit(step()).unwrap();
    assert_eq!(appender.append(vec![output(vec![2])]).unwrap(), [1]);
    assert_eq!(values(&log).len(), 2);
}

/// After a sync that failed nothing is written any more, since the kernel may have dropped what
/// was to be synced; the error says so and is not retryable.
#[test]
fn stops_after_a_failed_sync() {
    let folder = tempfile::tempdir().unwrap();
    let (log, watch) = open(folder.path());
    log.ensure_topics(&[TopicSpec::new("t", 1)]).unwrap();
    let mut appender = log.appender("test").unwrap();
    watch.fail_sync.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let error = appender.append(vec![output(vec![1])]).unwrap_err();
        assert!(!error.is_retryable(), "{error}");
        assert!(error.to_string().contains("start again"), "{error}");
    }
}

/// A record that changed on disk is reported, not handed out.
#[test]
fn finds_damage() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path());
    log.ensure_topics(&[TopicSpec::new("t", 1)]).unwrap();
    log.appender("test")
        .unwrap()
        .append(vec![output(b"valuable".to_vec())])
        .unwrap();
    log.local
        .shared
        .store
        .disk
        .write(|tables| {
            let stored = tables
                .records
                .get((0, 0, 0))?
                .map(|stored| stored.value().to_vec());
            let mut stored = stored.unwrap();
            *stored.last_mut().unwrap() ^= 1;
            tables.records.insert((0, 0, 0), &*stored)?;
            Ok(())
        })
        .unwrap();
    let error = log.read("t", 0, 0, ReadLimits::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("record 0 of t partition 0 is damaged"),
        "{error}"
    );
}

/// A log of a later format is refused with both versions.
#[test]
fn refuses_other_formats() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = open(folder.path());
    log.local
        .shared
        .store
        .disk
        .write(|tables| tables.stamp(FORMAT_VERSION + 1))
        .unwrap();
    drop(log);
    let error = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).unwrap_err();
    assert!(
        matches!(error, LogError::Format { found, supported, .. } if found == supported + 1),
        "{error}"
    );
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/embedded-v1.redb")
}

/// What the golden log holds.
fn golden_log(log: &EmbeddedLog) {
    let compact = TopicSpec::new("registry", 1).with_cleanup(crate::api::Cleanup::Compact);
    log.ensure_topics(&[TopicSpec::new("t", 2), compact])
        .unwrap();
    let mut keyed = output(b"device".to_vec());
    (keyed.topic, keyed.key) = ("registry".into(), b"k".to_vec());
    let records = vec![output(b"one".to_vec()), output(b"two".to_vec()), keyed];
    log.appender("golden").unwrap().append(records).unwrap();
    let mut stage = log.stage(StageSpec::new("s", &["t"])).unwrap();
    stage.poll(Duration::ZERO).unwrap();
    let step = Step {
        outputs: vec![],
        state: vec![StateDelta {
            partition: 1,
            key: b"k".to_vec(),
            value: Some(b"v".to_vec()),
        }],
        offsets: vec![Position {
            topic: "t".into(),
            partition: 0,
            next: 1,
        }],
    };
    stage.commit(step).unwrap();
}

/// A log that version 1 wrote stays readable. `DRIFTLINE_WRITE_GOLDEN=1` writes it anew, which is
/// right only together with a new format version.
#[test]
fn reads_the_golden_log() {
    if std::env::var_os("DRIFTLINE_WRITE_GOLDEN").is_some() {
        let folder = tempfile::tempdir().unwrap();
        golden_log(&open(folder.path()).0);
        fs::create_dir_all(golden().parent().unwrap()).unwrap();
        fs::copy(folder.path().join("log.redb"), golden()).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    fs::copy(golden(), folder.path().join("log.redb")).unwrap();
    let (log, _) = open(folder.path());
    assert_eq!(values(&log), [b"one", b"two"]);
    assert_eq!(log.range("registry", 0).unwrap(), (0, 1));
    assert_eq!(log.committed("s", "t", 0).unwrap(), Some(1));
    let mut stage = log.stage(StageSpec::new("s", &["t"])).unwrap();
    let Polled::Assigned(assigned) = stage.poll(Duration::ZERO).unwrap() else {
        panic!("not assigned");
    };
    assert_eq!(assigned[1].state[b"k".as_slice()], b"v");
    assert_eq!(stage.commit(Step::default()).unwrap().number, 2);
}

/// The file that a loss of power leaves: as of the last sync, with any part of what was done since,
/// and at most one write torn.
fn after_power_loss(journal: &Journal, made: &[bool], torn: usize) -> Vec<u8> {
    let mut file = journal.synced.clone();
    for (at, change) in journal.since.iter().enumerate() {
        if !made.get(at % made.len()).copied().unwrap_or(true) {
            continue;
        }
        match change {
            Change::Length(length) => file.resize(*length as usize, 0),
            Change::Bytes(offset, bytes) => {
                let bytes = if at == torn {
                    &bytes[..bytes.len() / 2]
                } else {
                    bytes
                };
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[start..end].copy_from_slice(bytes);
            }
        }
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Power fails during the sync of a write, with any part of its pages on disk: everything that
    /// was acknowledged is there, the write under way is there in full or not at all, and the log
    /// goes on.
    #[test]
    fn survives_lost_power(
        sizes in prop::collection::vec(prop::collection::vec(1usize..20_000, 1..4), 1..8),
        made in prop::collection::vec(any::<bool>(), 1..20),
        torn in 0usize..20,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (log, watch) = open(folder.path());
        log.ensure_topics(&[TopicSpec::new("t", 1)]).unwrap();
        *watch.journal.lock().unwrap() = Some(Journal::default());
        let mut appender = log.appender("test").unwrap();
        // The first write after the journal began is synced, so that the journal has a whole file.
        appender.append(vec![output(vec![0])]).unwrap();
        let mut acknowledged = vec![vec![0]];
        let (last, before) = sizes.split_last().unwrap();
        let fill = |sizes: &[usize], tag: u8| -> Vec<Vec<u8>> {
            sizes.iter().map(|size| vec![tag; *size]).collect()
        };
        for (tag, sizes) in before.iter().enumerate() {
            let values = fill(sizes, tag as u8);
            appender.append(values.iter().cloned().map(output).collect()).unwrap();
            acknowledged.extend(values);
        }
        watch.fail_sync.store(true, Ordering::Relaxed);
        let doubtful = fill(last, 255);
        prop_assert!(appender.append(doubtful.iter().cloned().map(output).collect()).is_err());
        let journal = watch.journal.lock().unwrap().take().unwrap();
        drop((appender, log));
        fs::write(folder.path().join("log.redb"), after_power_loss(&journal, &made, torn)).unwrap();

        let (log, _) = open(folder.path());
        let found = values(&log);
        let with_doubtful = [acknowledged.clone(), doubtful].concat();
        prop_assert!(found == acknowledged || found == with_doubtful, "{} records", found.len());
        let offset = log.appender("test").unwrap().append(vec![output(vec![1])]).unwrap()[0];
        prop_assert_eq!(offset as usize, found.len());
    }
}
