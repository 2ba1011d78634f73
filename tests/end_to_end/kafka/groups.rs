//! Members of one stage that come and go while records come, with either protocol of groups.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use driftline_log::kafka::{GroupProtocol, KafkaLog, KafkaOptions};
use driftline_log::runner::{Runner, Shutdown, Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Log, Output, ReadLimits, StageSpec, StateDelta, TopicSpec};
use driftline_schemas::clock::SystemClock;

use super::super::harness::until;
use super::{alone, broker};

const PARTITIONS: u32 = 6;
const TIMES: u64 = 3;
/// Records of each partition that come in while a member joins, and while one leaves.
const EACH: u64 = 60;

/// Which partitions came to which member, in order.
type Came = Arc<Mutex<Vec<(&'static str, u32)>>>;

/// Passes every record on with its number in its partition, by what it has counted so far.
struct Count {
    name: &'static str,
    came: Came,
    counts: BTreeMap<u32, u64>,
}

impl Stage for Count {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let count = assignment.state.get(&b"count"[..]);
        let count = count.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()));
        self.counts.insert(assignment.partition, count);
        let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        came.push((self.name, assignment.partition));
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.counts.remove(&partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut out = StepOutput::default();
        for record in input.records {
            let count = self.counts.get_mut(&record.partition);
            let count = count.ok_or_else(|| StageError::Fatal("not its partition".into()))?;
            *count += 1;
            let value = String::from_utf8_lossy(record.value.as_deref().unwrap());
            out.outputs.push(Output {
                topic: "out".into(),
                partition: record.partition,
                key: Vec::new(),
                value: Some(format!("{value} is {count}").into_bytes()),
                timestamp_us: 0,
            });
            out.state.push(StateDelta {
                partition: record.partition,
                key: b"count".to_vec(),
                value: Some(count.to_be_bytes().to_vec()),
            });
        }
        Ok(out)
    }
}

fn append(log: &KafkaLog, from: u64) {
    let mut appender = log.appender("test").unwrap();
    for at in from..from + EACH {
        let records = (0..PARTITIONS).map(|partition| Output {
            topic: "in".into(),
            partition,
            key: Vec::new(),
            value: Some(format!("record {at}").into_bytes()),
            timestamp_us: 0,
        });
        appender.append(records.collect()).unwrap();
    }
}

fn values(log: &KafkaLog, partition: u32) -> Vec<String> {
    let limits = ReadLimits {
        max_records: usize::MAX,
        ..ReadLimits::default()
    };
    let read = log.read("out", partition, 0, limits).unwrap().records;
    read.iter()
        .map(|record| String::from_utf8(record.value.as_deref().unwrap().to_vec()).unwrap())
        .collect()
}

fn come_and_go(group_protocol: GroupProtocol) {
    let Some((brokers, prefix)) = broker("groups") else {
        return;
    };
    let _alone = alone();
    let mut options = KafkaOptions::new(brokers);
    (options.prefix, options.group_protocol) = (prefix, group_protocol);
    let log = KafkaLog::open(options).unwrap();
    log.ensure_topics(&["in", "out"].map(|name| TopicSpec::new(name, PARTITIONS)))
        .unwrap();
    let came = Came::default();
    let start = |name: &'static str| {
        let mut runner = Runner::new(Arc::new(log.clone()), Arc::new(SystemClock));
        runner.shutdown = Shutdown::default();
        let stage = Box::new(Count {
            name,
            came: Arc::clone(&came),
            counts: BTreeMap::new(),
        });
        let spec = StageSpec::new("count", &["in"]).with_instance(name);
        (runner.shutdown.clone(), runner.spawn(spec, stage).unwrap())
    };
    let had = |name: &str| {
        let came = came.lock().unwrap_or_else(PoisonError::into_inner);
        came.iter().filter(|(who, _)| *who == name).count()
    };
    let mut sent = 0;
    let (stays, stayed) = start("stays");
    until("the first assignment", || match had("stays") {
        0 => Err("nothing".to_owned()),
        count => Ok(count),
    });
    for time in 1..=TIMES {
        let before = had("comes");
        let (leave, left) = start("comes");
        append(&log, sent);
        sent += EACH;
        until("partitions for who came", || match had("comes") > before {
            true => Ok(()),
            false => Err(format!("time {time}: {before}")),
        });
        leave.request();
        append(&log, sent);
        sent += EACH;
        left.join().unwrap().unwrap();
    }
    let wanted: Vec<String> = (0..sent)
        .map(|at| format!("record {at} is {}", at + 1))
        .collect();
    for partition in 0..PARTITIONS {
        until("every record", || {
            let found = values(&log, partition);
            match found.len() < wanted.len() {
                true => Err(format!("{} of {}", found.len(), wanted.len())),
                false => Ok(()),
            }
        });
    }
    stays.request();
    stayed.join().unwrap().unwrap();
    for partition in 0..PARTITIONS {
        assert_eq!(values(&log, partition), wanted, "partition {partition}");
    }
}

/// Scenario: two members of one stage on six partitions; one joins and leaves three times while records come.
/// Guarantee: every record is passed on once, in order, with the count that the state has at it: no record
/// is lost or doubled, and no state.
#[test]
fn nothing_is_lost_or_doubled_when_members_come_and_go() {
    come_and_go(GroupProtocol::Classic);
}

/// The same where the broker deals out the partitions (KIP-848).
#[test]
fn nothing_is_lost_or_doubled_where_the_broker_deals_out() {
    come_and_go(GroupProtocol::Consumer);
}
