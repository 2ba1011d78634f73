//! Appending and reading outside any group.

use super::*;
use crate::error::LogError;
use crate::limits::RECORD_BYTES_MAX;

/// Records of a partition come back in the order they were appended, whole, at the offsets that
/// the append returned, and in no other partition.
pub fn keeps_order(place: &Place) {
    let log = place.with_topics(&["a"]);
    let mut first = place.output("a", 0, "one");
    first.key = b"key".to_vec();
    first.timestamp_us = 1_700_000_000_123_456;
    let mut second = place.output("a", 0, "two");
    second.value = None;
    second.key = b"gone".to_vec();
    let records = vec![first, place.output("a", 1, "other"), second];
    let offsets = log.appender("test").unwrap().append(records).unwrap();
    assert_eq!(offsets.len(), 3);
    assert!(offsets[0] < offsets[2]);

    let read = place.all(&*log, "a", 0);
    assert_eq!(
        read.iter().map(|r| r.offset).collect::<Vec<_>>(),
        [offsets[0], offsets[2]]
    );
    assert_eq!(
        (&read[0].key[..], text(&read[0])),
        (&b"key"[..], "one".to_owned())
    );
    assert_eq!(
        (&read[1].key[..], read[1].value.clone()),
        (&b"gone"[..], None)
    );
    let kept = if place.keeps_microseconds {
        1_700_000_000_123_456
    } else {
        1_700_000_000_123_000
    };
    assert_eq!(read[0].timestamp_us, kept);
    assert_eq!(place.values(&*log, "a", 1), ["other"]);

    assert!(
        log.appender("test")
            .unwrap()
            .append(Vec::new())
            .unwrap()
            .is_empty()
    );
}

/// A reader with small limits gets everything once, in order, and never stands still, even when
/// one record is larger than its byte limit.
pub fn pages_through(place: &Place) {
    let log = place.with_topics(&["a"]);
    let long = "x".repeat(5_000);
    let values: Vec<&str> = (0..20)
        .map(|n| if n % 7 == 3 { &*long } else { "short" })
        .collect();
    place.append(&*log, "a", 0, &values);
    let topic = place.name("a");
    let (mut next, end) = log.range(&topic, 0).unwrap();
    let limits = ReadLimits {
        max_records: 3,
        max_bytes: 1_000,
        wait: Duration::from_secs(2),
    };
    let mut read = Vec::new();
    while next < end {
        let batch = log.read(&topic, 0, next, limits).unwrap();
        assert!(batch.next > next, "stands still at {next}");
        assert!(batch.records.len() <= 3);
        let bytes: usize = batch.records.iter().map(Record::size).sum();
        assert!(bytes <= 1_000 || batch.records.len() == 1, "{bytes} bytes");
        read.extend(batch.records.iter().map(text));
        next = batch.next;
    }
    assert_eq!(read, values);
    let batch = log.read(&topic, 0, next, ReadLimits::default()).unwrap();
    assert!(batch.records.is_empty() && batch.next >= batch.end);
}

/// A read that waits is woken by an append.
pub fn waits_for_news(place: &Place) {
    let log = place.with_topics(&["a"]);
    let topic = place.name("a");
    let reader = {
        let (log, topic) = (Arc::clone(&log), topic.clone());
        let limits = ReadLimits {
            wait: PATIENCE,
            ..ReadLimits::default()
        };
        std::thread::spawn(move || log.read(&topic, 0, 0, limits).unwrap())
    };
    // Another partition must not end the wait.
    place.append(&*log, "a", 1, &["elsewhere"]);
    place.append(&*log, "a", 0, &["here"]);
    let batch = reader.join().unwrap();
    assert_eq!(batch.records.iter().map(text).collect::<Vec<_>>(), ["here"]);
}

/// Topics are listed with their counts; what does not exist is named in the error.
pub fn knows_its_topics(place: &Place) {
    let log = place.with_topics(&["a", "b"]);
    let topics = log.topics().unwrap();
    for name in ["a", "b"] {
        let name = place.name(name);
        assert!(
            topics
                .iter()
                .any(|(topic, count)| **topic == *name && *count == 2)
        );
        assert_eq!(log.partitions(&name).unwrap(), 2);
        assert_eq!(log.range(&name, 1).unwrap().0, 0);
    }
    let missing = place.name("missing");
    let error = log.partitions(&missing).unwrap_err();
    assert!(matches!(error, LogError::UnknownTopic { ref topic } if **topic == *missing));
    let error = log.range(&place.name("a"), 2).unwrap_err();
    assert!(matches!(
        error,
        LogError::UnknownPartition {
            partition: 2,
            partitions: 2,
            ..
        }
    ));
    let mut appender = log.appender("test").unwrap();
    let error = appender
        .append(vec![place.output("missing", 0, "x")])
        .unwrap_err();
    assert!(matches!(error, LogError::UnknownTopic { .. }), "{error}");
    let error = appender
        .append(vec![place.output("a", 9, "x")])
        .unwrap_err();
    assert!(
        matches!(error, LogError::UnknownPartition { .. }),
        "{error}"
    );
}

/// A topic may be ensured again, with another retention, but not with another partition count; the
/// error says both counts, and nothing else of the call was done.
pub fn refuses_other_partition_counts(place: &Place) {
    let log = place.with_topics(&["a"]);
    let again = TopicSpec::new(place.name("a"), 2).with_cleanup(Cleanup::Delete {
        retention: Some(Duration::from_secs(60)),
        retention_bytes: None,
    });
    log.ensure_topics(&[again]).unwrap();
    let specs = [
        TopicSpec::new(place.name("new"), 1),
        TopicSpec::new(place.name("a"), 3),
    ];
    let error = log.ensure_topics(&specs).unwrap_err();
    assert!(
        matches!(
            error,
            LogError::PartitionsChanged {
                existing: 2,
                wanted: 3,
                ..
            }
        ),
        "{error}"
    );
    assert!(log.partitions(&place.name("new")).is_err());
    let compact = TopicSpec::new(place.name("a"), 2).with_cleanup(Cleanup::Compact);
    assert!(log.ensure_topics(&[compact]).is_err());
}

/// The largest record goes through; one byte more is refused before anything is written.
pub fn refuses_large_records(place: &Place) {
    let log = place.with_topics(&["a"]);
    let mut largest = place.output("a", 0, "");
    largest.key = b"k".to_vec();
    largest.value = Some(vec![7; RECORD_BYTES_MAX - 1]);
    let mut over = largest.clone();
    over.value = Some(vec![7; RECORD_BYTES_MAX]);
    let mut appender = log.appender("test").unwrap();
    let error = appender
        .append(vec![place.output("a", 0, "with it"), over])
        .unwrap_err();
    assert!(
        matches!(error, LogError::TooLarge { bytes, limit, .. } if bytes == limit + 1),
        "{error}"
    );
    appender.append(vec![largest]).unwrap();
    let read = place.all(&*log, "a", 0);
    assert_eq!(
        read.iter().map(Record::size).collect::<Vec<_>>(),
        [RECORD_BYTES_MAX]
    );
}

/// After everything is dropped and the log is opened again, topics and records are there and
/// offsets go on.
pub fn reopens(place: &Place) {
    let log = place.with_topics(&["a"]);
    let before = place.append(&*log, "a", 0, &["one", "two"]);
    drop(log);
    let log = (place.open)();
    assert_eq!(log.partitions(&place.name("a")).unwrap(), 2);
    let after = place.append(&*log, "a", 0, &["three"]);
    assert!(after[0] > before[1]);
    assert_eq!(place.values(&*log, "a", 0), ["one", "two", "three"]);
}
