//! Members that come and go while others have steps under way. Needs a broker, see `tests/kafka/start`.

use rdkafka::config::ClientConfig;
use rdkafka::producer::Producer as _;

use super::tests::values;
use super::*;
use crate::api::{Log, Output, Record, StateDelta, TopicSpec};
use crate::error::CommitError;
use crate::kafka::client::Quiet;
use crate::kafka::producer::Outgoing;
use crate::kafka::tests::{broker_of, next};
use crate::kafka::{CALL_TIMEOUT, GroupProtocol, KafkaLog};

const PARTITIONS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

fn topics(log: &KafkaLog) {
    log.ensure_topics(&[TopicSpec::new("in", PARTITIONS), TopicSpec::new("out", 1)])
        .unwrap();
}

fn member(log: &KafkaLog, instance: &str) -> KafkaMember {
    let spec = StageSpec::new("s", &["in"]).with_instance(instance);
    KafkaMember::join(&log.shared, spec).unwrap()
}

fn append(log: &KafkaLog, partition: u32, values: &[&str]) {
    let records = values.iter().map(|value| Output {
        topic: "in".into(),
        partition,
        key: Vec::new(),
        value: Some(value.as_bytes().to_vec()),
        timestamp_us: 0,
    });
    let mut appender = log.appender("test").unwrap();
    appender.append(records.collect()).unwrap();
}

/// A step that moves these partitions on by what was read of them, and keeps how far they got.
fn step(told: &str, next: &BTreeMap<u32, u64>) -> Step {
    Step {
        outputs: vec![Output {
            topic: "out".into(),
            partition: 0,
            key: Vec::new(),
            value: Some(told.as_bytes().to_vec()),
            timestamp_us: 0,
        }],
        state: next
            .iter()
            .map(|(partition, next)| StateDelta {
                partition: *partition,
                key: b"next".to_vec(),
                value: Some(next.to_be_bytes().to_vec()),
            })
            .collect(),
        offsets: next
            .iter()
            .map(|(partition, next)| Position {
                topic: "in".into(),
                partition: *partition,
                next: *next,
            })
            .collect(),
    }
}

/// Polls until all partitions are assigned to it.
fn alone(member: &mut KafkaMember) {
    let mut held = 0;
    while held < PARTITIONS as usize {
        match next(member).unwrap() {
            Polled::Assigned(assigned) => held += assigned.len(),
            other => panic!("{other:?}"),
        }
    }
}

/// Lets both members poll until the newcomer has partitions; what the other gave up, and what both read.
fn settle(one: &mut KafkaMember, two: &mut KafkaMember) -> (Vec<u32>, Vec<Record>) {
    let deadline = Instant::now() + PATIENCE;
    let (mut gone, mut records, mut came) = (Vec::new(), Vec::new(), Vec::new());
    while came.is_empty() || came != gone {
        assert!(Instant::now() < deadline, "the group did not settle");
        match one.poll(Duration::from_millis(20)).unwrap() {
            Polled::Revoked(partitions) => gone.extend(partitions),
            Polled::Records(more) => records.extend(more),
            Polled::Idle { .. } => {}
            Polled::Assigned(assigned) => panic!("kept partitions came again: {assigned:?}"),
        }
        match two.poll(Duration::from_millis(20)).unwrap() {
            Polled::Assigned(assigned) => came.extend(assigned.iter().map(|a| a.partition)),
            Polled::Records(more) => records.extend(more),
            _ => {}
        }
        gone.sort_unstable();
        came.sort_unstable();
    }
    (gone, records)
}

const BOTH: [GroupProtocol; 2] = [GroupProtocol::Classic, GroupProtocol::Consumer];

/// Scenario: a second member joins while the first has read records of all partitions that it has not
/// committed; it commits those of the partitions that it keeps.
/// Guarantee: only the partitions that move are taken away, the others are never assigned again, none of their
/// records comes twice, and what the first had read of those that moved is read by the second.
#[test]
fn keeps_what_stays() {
    for protocol in BOTH {
        let Some(log) = broker_of("stays", protocol) else {
            return;
        };
        topics(&log);
        (0..PARTITIONS).for_each(|partition| append(&log, partition, &["a", "b"]));
        let mut one = member(&log, "one");
        alone(&mut one);
        let mut read: BTreeMap<u32, u64> = BTreeMap::new();
        while read.values().sum::<u64>() < 2 * u64::from(PARTITIONS) {
            if let Polled::Records(records) = next(&mut one).unwrap() {
                read.extend(records.iter().map(|r| (r.partition, r.offset + 1)));
            }
        }
        let mut two = member(&log, "two");
        let (gone, mut records) = settle(&mut one, &mut two);
        assert_eq!(gone.len(), PARTITIONS as usize / 2);
        read.retain(|partition, _| !gone.contains(partition));
        one.commit(step("kept", &read)).unwrap();
        for partition in 0..PARTITIONS {
            append(&log, partition, &["c"]);
        }
        // Three of each that moved, one of each that stayed.
        let wanted = 3 * gone.len() + (PARTITIONS as usize - gone.len());
        let deadline = Instant::now() + PATIENCE;
        while records.len() < wanted {
            assert!(Instant::now() < deadline, "{records:?}");
            for member in [&mut one, &mut two] {
                if let Polled::Records(more) = member.poll(Duration::from_millis(20)).unwrap() {
                    records.extend(more);
                }
            }
        }
        for partition in 0..PARTITIONS {
            let of = records
                .iter()
                .filter(|record| record.partition == partition);
            let offsets: Vec<u64> = of.map(|record| record.offset).collect();
            let wanted: &[u64] = if gone.contains(&partition) {
                &[0, 1, 2]
            } else {
                &[2]
            };
            assert_eq!(offsets, wanted, "partition {partition}");
        }
        drop((one, two));
        assert_eq!(values(&log), ["kept"]);
    }
}

/// Scenario: a second member joins while the first does nothing but commit steps that touch every partition,
/// and hears of the group in no other way.
/// Guarantee: its steps are committed as long as it has not been asked to give anything up in a poll, in whatever
/// generation; the newcomer gets nothing before, and then the state of the last of these steps.
#[test]
fn commits_while_generations_pass() {
    for protocol in BOTH {
        let Some(log) = broker_of("passing", protocol) else {
            return;
        };
        topics(&log);
        (0..PARTITIONS).for_each(|partition| append(&log, partition, &["a"; 200]));
        let mut one = member(&log, "one");
        alone(&mut one);
        let before = one.consumer.context().generation();
        let mut two = member(&log, "two");
        let deadline = Instant::now() + PATIENCE;
        let mut at = 0;
        while one.consumer.context().generation() == before {
            assert!(Instant::now() < deadline, "no generation has passed");
            at += 1;
            let next = (0..PARTITIONS).map(|partition| (partition, at)).collect();
            one.commit(step(&at.to_string(), &next)).unwrap();
            let polled = two.poll(Duration::from_millis(20)).unwrap();
            assert!(!matches!(polled, Polled::Assigned(_)), "{polled:?}");
        }
        // The revocation is known to it now, and not answered.
        at += 1;
        let next = (0..PARTITIONS).map(|partition| (partition, at)).collect();
        one.commit(step(&at.to_string(), &next)).unwrap();
        let mut came = Vec::new();
        while came.is_empty() {
            assert!(Instant::now() < deadline, "nothing was given up");
            if let Polled::Assigned(assigned) = one.poll(Duration::from_millis(20)).unwrap() {
                panic!("{assigned:?}");
            }
            if let Polled::Assigned(assigned) = two.poll(Duration::from_millis(20)).unwrap() {
                came.extend(assigned);
            }
        }
        for assignment in &came {
            assert_eq!(assignment.positions[0].next, at);
            assert_eq!(assignment.state[&b"next"[..]], at.to_be_bytes());
        }
        let wanted: Vec<String> = (1..=at).map(|step| step.to_string()).collect();
        drop((one, two));
        assert_eq!(values(&log), wanted);
    }
}

/// Scenario: somebody else has had a partition in between and moved it on, without the member's being told: played
/// by a transaction of a producer that the group cannot check. Then a second member joins, so that a
/// generation passes.
/// Guarantee: the next step of the member is refused without a trace, and everything is taken over as the other has
/// left it.
#[test]
fn notices_that_others_have_had_it() {
    for protocol in BOTH {
        let Some(log) = broker_of("had", protocol) else {
            return;
        };
        topics(&log);
        let clients = &log.shared.clients;
        append(&log, 0, &["a", "b", "c"]);
        let mut one = member(&log, "one");
        alone(&mut one);
        one.commit(step("first", &BTreeMap::from([(0, 1)])))
            .unwrap();

        let other = Sender::open(clients, Some("other")).unwrap();
        let nobody = clients.consumer(&clients.name("s"), Quiet).unwrap();
        other.producer.begin_transaction().unwrap();
        other.reset(1);
        let outgoing = Outgoing {
            topic: &clients.changelog("s"),
            partition: 0,
            key: b"next",
            value: Some(b"other"),
            timestamp_ms: None,
        };
        other.send(outgoing, 0).unwrap();
        let moved = [((Arc::from("in"), 0), 2)];
        let list = offsets::list(clients, &moved, 77).unwrap();
        let metadata = nobody.group_metadata().unwrap();
        other
            .producer
            .send_offsets_to_transaction(&list, &metadata, CALL_TIMEOUT)
            .unwrap();
        other.settle().unwrap();
        other.producer.commit_transaction(CALL_TIMEOUT).unwrap();

        let before = one.consumer.context().generation();
        let two = member(&log, "two");
        let deadline = Instant::now() + PATIENCE;
        while one.consumer.context().generation() == before {
            assert!(Instant::now() < deadline, "no generation has passed");
            one.serve().unwrap();
        }
        let error = one
            .commit(step("late", &BTreeMap::from([(0, 3)])))
            .unwrap_err();
        assert!(matches!(error, CommitError::Fenced(_)), "{error}");
        drop(two);
        let mut found = None;
        while found.is_none() {
            if let Polled::Assigned(assigned) = next(&mut one).unwrap() {
                found = assigned
                    .into_iter()
                    .find(|assigned| assigned.partition == 0);
            }
        }
        let found = found.unwrap();
        assert_eq!(found.positions[0].next, 2);
        assert_eq!(found.state[&b"next"[..]], b"other");
        drop(one);
        assert_eq!(values(&log), ["first"]);
    }
}

/// Scenario: the group has a member of an older release, which deals out everything at once.
/// Guarantee: the new one is not let in and says what to do; when the old one is gone, it goes on by itself.
#[test]
fn says_that_the_group_deals_in_another_way() {
    let Some(log) = broker_of("mixed", GroupProtocol::Classic) else {
        return;
    };
    topics(&log);
    let clients = &log.shared.clients;
    let old: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &clients.options().brokers)
        .set("group.id", clients.name("s"))
        .set("partition.assignment.strategy", "range")
        .create()
        .unwrap();
    old.subscribe(&[&clients.name("in")]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while old.assignment().unwrap().count() == 0 {
        assert!(Instant::now() < deadline, "the old member has nothing");
        let _ = old.poll(Duration::from_millis(100));
    }
    let mut new = member(&log, "new");
    let error = loop {
        assert!(Instant::now() < deadline, "nothing was said");
        let _ = old.poll(Duration::from_millis(10));
        match new.poll(Duration::from_millis(100)) {
            Ok(polled) => assert!(matches!(polled, Polled::Idle { .. }), "{polled:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable());
    assert!(error.to_string().contains("stop all processes"), "{error}");
    drop(old);
    alone(&mut new);
}
