//! Compaction and trimming.

use std::collections::BTreeMap;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
/// When the records of these cases were written, and an instant two hours later.
const WRITTEN_US: i64 = 1_700_000_000_000_000;
const LATER_US: i64 = WRITTEN_US + 2 * 3_600 * 1_000_000;

/// Reading a compacted topic from its start gives the last value of each key, and a deletion last
/// where the key was deleted.
pub fn compaction_keeps_last_values(place: &Place) {
    let log = (place.open)();
    let spec = TopicSpec::new(place.name("c"), 1).with_cleanup(Cleanup::Compact);
    log.ensure_topics(&[spec]).unwrap();
    let record = |key: &str, value: Option<&str>| Output {
        key: key.as_bytes().to_vec(),
        value: value.map(|value| value.as_bytes().to_vec()),
        ..place.output("c", 0, "")
    };
    let mut appender = log.appender("test").unwrap();
    let first = vec![
        record("a", Some("1")),
        record("b", Some("2")),
        record("a", Some("3")),
    ];
    appender.append(first).unwrap();
    appender
        .append(vec![record("b", None), record("c", Some("4"))])
        .unwrap();
    assert!(appender.append(vec![record("", Some("no key"))]).is_err());

    let read = place.all(&*log, "c", 0);
    let last: BTreeMap<_, _> = read
        .iter()
        .map(|r| (r.key.to_vec(), r.value.clone()))
        .collect();
    let value = |key: &str| last[key.as_bytes()].as_ref().map(|value| value.to_vec());
    assert_eq!(value("a"), Some(b"3".to_vec()));
    assert_eq!(value("b"), None);
    assert_eq!(value("c"), Some(b"4".to_vec()));
    if place.compacts_at_once {
        assert_eq!(read.len(), 3);
        // Once the deletion is old enough it leaves too; values never do.
        log.trim(WRITTEN_US + 48 * 3_600 * 1_000_000).unwrap();
        assert_eq!(place.values(&*log, "c", 0), ["3", "4"]);
        assert_eq!(log.range(&place.name("c"), 0).unwrap().1, 5);
        appender.append(vec![record("b", Some("5"))]).unwrap();
        assert_eq!(place.values(&*log, "c", 0), ["3", "4", "5"]);
    }
}

fn by_age(place: &Place, topic: &str) -> Arc<dyn Log> {
    let log = (place.open)();
    let spec = TopicSpec::new(place.name(topic), 1);
    let cleanup = Cleanup::Delete {
        retention: Some(HOUR),
        retention_bytes: None,
    };
    log.ensure_topics(&[spec.with_cleanup(cleanup)]).unwrap();
    log
}

/// Old records stay for as long as a registered stage has not committed past them, whether it runs
/// or not; the trim says whom it waits for; a forgotten stage is not waited for.
pub fn trim_waits_for_readers(place: &Place) {
    let log = by_age(place, "t");
    let topic = place.name("t");
    let (fast, slow) = (place.stage("fast", &["t"]), place.stage("slow", &["t"]));
    // Registered before anything is there to be read, and then stopped.
    drop(Joined::with(&*log, slow.clone(), 1));
    let offsets = place.append(&*log, "t", 0, &["a", "b", "c"]);
    let mut stage = Joined::with(&*log, fast, 1);
    stage.read(3);
    let past = |n: usize| Step {
        offsets: vec![place.position("t", 0, offsets[n] + 1)],
        ..Step::default()
    };
    stage.log.commit(past(1)).unwrap();

    let trimmed = log.trim(LATER_US).unwrap();
    let held: Vec<_> = trimmed
        .held
        .iter()
        .filter(|held| *held.topic == *topic)
        .collect();
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(
        (&*held[0].stage, held[0].committed),
        (&*slow.name, offsets[0])
    );
    assert_eq!(place.values(&*log, "t", 0), ["a", "b", "c"]);

    assert!(
        log.forget_stage(&place.name("fast")).is_err(),
        "a running stage is not forgotten"
    );
    log.forget_stage(&slow.name).unwrap();
    log.trim(LATER_US).unwrap();
    assert_eq!(place.values(&*log, "t", 0), ["c"]);
    assert_eq!(log.range(&topic, 0).unwrap().0, offsets[2]);

    stage.log.commit(past(2)).unwrap();
    log.trim(WRITTEN_US).unwrap();
    assert_eq!(place.values(&*log, "t", 0), ["c"], "young records stay");
    log.trim(LATER_US).unwrap();
    assert!(place.values(&*log, "t", 0).is_empty());
    let (first, end) = log.range(&topic, 0).unwrap();
    assert_eq!(first, end);
}

/// A partition is cut down to its size, oldest records first.
pub fn trim_by_size(place: &Place) {
    if !place.trims_by_size {
        return;
    }
    let log = (place.open)();
    let cleanup = Cleanup::Delete {
        retention: None,
        retention_bytes: Some(10),
    };
    log.ensure_topics(&[TopicSpec::new(place.name("t"), 1).with_cleanup(cleanup)])
        .unwrap();
    place.append(&*log, "t", 0, &["12345", "67890", "abcde"]);
    let trimmed = log.trim(WRITTEN_US).unwrap();
    assert_eq!((trimmed.records, trimmed.bytes), (1, 5));
    assert_eq!(place.values(&*log, "t", 0), ["67890", "abcde"]);
    assert_eq!(log.trim(WRITTEN_US).unwrap().records, 0);
}

/// Offsets of an emptied partition go on where they were, also after reopening, and a reader that
/// asks for what is gone learns where the rest begins.
pub fn trimmed_partitions_go_on(place: &Place) {
    let log = by_age(place, "t");
    let topic = place.name("t");
    let before = place.append(&*log, "t", 0, &["a", "b"]);
    log.trim(LATER_US).unwrap();
    drop(log);
    let log = (place.open)();
    let after = place.append(&*log, "t", 0, &["c"]);
    assert!(after[0] > before[1]);
    let limits = ReadLimits {
        wait: Duration::from_secs(2),
        ..ReadLimits::default()
    };
    let batch = log.read(&topic, 0, 0, limits).unwrap();
    assert_eq!(batch.records.iter().map(text).collect::<Vec<_>>(), ["c"]);
    assert!(batch.first > before[1] && batch.first <= after[0]);
    let mut stage = Joined::with(&*log, place.stage("s", &["t"]), 1);
    stage.read(1);
    assert_eq!(stage.values(), ["c"]);
}
