//! Topics, retention and groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::Offset;

use super::CALL_TIMEOUT;
use super::client::{CHANGELOG_SUFFIX, Clients, failed, wait, watermarks};
use super::offsets::{self, TopicPartition};
use crate::api::{Cleanup, Held, TopicSpec, Trimmed};
use crate::check;
use crate::error::LogError;
use crate::limits::KAFKA_MESSAGE_BYTES_MAX;

/// Whole segments leave the disk, so this is how coarse retention is.
const DELETE_SEGMENT_BYTES: &str = "134217728";

/// The newest segment is not compacted, so this much is read back beyond the state itself.
const COMPACT_SEGMENT_BYTES: &str = "16777216";

pub(super) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(CALL_TIMEOUT))
        .operation_timeout(Some(CALL_TIMEOUT))
}

pub(super) fn ensure_topics(clients: &Clients, specs: &[TopicSpec]) -> Result<(), LogError> {
    let mut missing = Vec::new();
    for spec in specs {
        if spec.name.ends_with(CHANGELOG_SUFFIX) {
            return Err(LogError::invalid(format!(
                "the topic name {} ends with {CHANGELOG_SUFFIX}, which is for the state of stages",
                spec.name
            )));
        }
        let name = clients.name(&spec.name);
        match clients.partitions_on_broker(&name)? {
            None => missing.push(spec),
            Some(partitions) => {
                let cleanup = cleanup_on_broker(clients, &name)?;
                let existing = TopicSpec {
                    partitions,
                    cleanup,
                    ..spec.clone()
                };
                check::same_shape(&existing, spec)?;
            }
        }
        if let Cleanup::Delete {
            retention_bytes: Some(_),
            ..
        } = spec.cleanup
        {
            tracing::warn!(topic = %spec.name, "kafka does not enforce a retention by size");
        }
    }
    for spec in missing {
        create(clients, &clients.name(&spec.name), spec)?;
    }
    Ok(())
}

/// Makes a stage's changelog, with the copies of its first input.
pub(super) fn ensure_changelog(
    clients: &Clients,
    stage: &str,
    input: &str,
    partitions: u32,
) -> Result<(), LogError> {
    let name = clients.changelog(stage);
    match clients.partitions_on_broker(&name)? {
        Some(existing) if existing == partitions => Ok(()),
        Some(existing) => Err(LogError::PartitionsChanged {
            topic: Arc::from(name),
            existing,
            wanted: partitions,
        }),
        None => {
            let replication = replication_on_broker(clients, &clients.name(input))?;
            let spec = TopicSpec {
                replication,
                ..TopicSpec::new(stage, partitions).with_cleanup(Cleanup::Compact)
            };
            create(clients, &name, &spec)
        }
    }
}

/// Settings of a topic on the broker. The broker itself deletes nothing: [`trim`] does.
pub(super) fn settings(clients: &Clients, spec: &TopicSpec) -> Vec<(&'static str, String)> {
    let copies = spec.replication.max(1);
    // With three copies an acknowledged record survives the loss of one broker, and one may be away.
    let in_sync = match clients.options().min_insync_replicas {
        Some(wanted) => wanted.clamp(1, copies),
        None if copies >= 3 => 2,
        None => 1,
    };
    let mut settings: Vec<(&'static str, String)> = vec![
        ("max.message.bytes", KAFKA_MESSAGE_BYTES_MAX.to_string()),
        // A device may be far ahead, and a simulation is: the gateway judges time, not the broker.
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
        // Segments must not roll by time: records carry event time, the mark that ends a transaction
        // carries the broker's, and the gap between them would end a segment at every step.
        ("segment.ms", i64::MAX.to_string()),
        ("retention.ms", "-1".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("min.insync.replicas", in_sync.to_string()),
    ];
    let own: &[(&str, &str)] = match spec.cleanup {
        Cleanup::Delete { .. } => &[
            ("cleanup.policy", "delete"),
            ("segment.bytes", DELETE_SEGMENT_BYTES),
        ],
        Cleanup::Compact => &[
            ("cleanup.policy", "compact"),
            ("segment.bytes", COMPACT_SEGMENT_BYTES),
            ("min.cleanable.dirty.ratio", "0.1"),
        ],
    };
    settings.extend(own.iter().map(|(key, value)| (*key, (*value).to_owned())));
    settings
}

pub(super) fn create(clients: &Clients, name: &str, spec: &TopicSpec) -> Result<(), LogError> {
    let settings = settings(clients, spec);
    let copies = i32::from(spec.replication.max(1));
    let mut topic = NewTopic::new(
        name,
        spec.partitions as i32,
        TopicReplication::Fixed(copies),
    );
    for (key, value) in &settings {
        topic = topic.set(key, value);
    }
    let what = format!("create topic {name}");
    let results = wait(clients.admin.create_topics([&topic], &options()))
        .map_err(|error| failed(&what, &error))?;
    for result in results {
        match result {
            // Somebody else was faster; its shape is checked at the next start.
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(failed(&what, &rdkafka::error::KafkaError::AdminOp(code)));
            }
        }
    }
    // The answer comes before all brokers know the topic.
    let deadline = Instant::now() + CALL_TIMEOUT;
    while clients.partitions_on_broker(name)?.is_none() {
        if Instant::now() >= deadline {
            return Err(LogError::storage(
                format!("kafka: topic {name} does not show up"),
                true,
            ));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

fn cleanup_on_broker(clients: &Clients, name: &str) -> Result<Cleanup, LogError> {
    let what = format!("read the settings of topic {name}");
    let resource = ResourceSpecifier::Topic(name);
    let configs = wait(clients.admin.describe_configs([&resource], &options()))
        .map_err(|error| failed(&what, &error))?;
    for config in configs {
        let config =
            config.map_err(|code| failed(&what, &rdkafka::error::KafkaError::AdminOp(code)))?;
        if let Some(entry) = config.get("cleanup.policy")
            && entry.value.as_deref() == Some("compact")
        {
            return Ok(Cleanup::Compact);
        }
    }
    Ok(Cleanup::keep())
}

pub(super) fn replication_on_broker(clients: &Clients, name: &str) -> Result<u16, LogError> {
    let metadata = clients
        .admin
        .inner()
        .fetch_metadata(Some(name), CALL_TIMEOUT)
        .map_err(|error| failed(&format!("look up topic {name}"), &error))?;
    let copies = metadata
        .topics()
        .first()
        .and_then(|topic| topic.partitions().first());
    Ok(copies.map_or(1, |partition| partition.replicas().len().max(1) as u16))
}

/// Deletes what is older than each topic's retention, up to the least committed offset of any
/// registered group.
pub(super) fn trim(
    clients: &Clients,
    specs: &[Arc<TopicSpec>],
    now_us: i64,
) -> Result<Trimmed, LogError> {
    let mut trimmed = Trimmed::default();
    let mut readers = None;
    let mut delete = TopicPartitionList::new();
    for spec in specs {
        let Cleanup::Delete {
            retention: Some(retention),
            ..
        } = spec.cleanup
        else {
            continue;
        };
        let keep_us = i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
        let before_ms = now_us.saturating_sub(keep_us).div_euclid(1_000);
        if before_ms <= 0 {
            continue;
        }
        if readers.is_none() {
            readers = Some(registered(clients, specs)?);
        }
        let readers = readers.as_ref().map_or(&[][..], Vec::as_slice);
        for partition in 0..spec.partitions {
            let at = (Arc::clone(&spec.name), partition);
            let (first, wanted) = old(clients, &at, before_ms)?;
            if wanted <= first {
                continue;
            }
            let waiting = readers.iter().filter(|(_, place, _)| *place == at);
            let floor = waiting
                .clone()
                .map(|(_, _, next)| *next)
                .min()
                .unwrap_or(u64::MAX);
            if floor < wanted {
                let waiting = waiting.filter(|(_, _, next)| *next == floor);
                trimmed
                    .held
                    .extend(waiting.map(|(stage, (topic, partition), next)| Held {
                        stage: Arc::clone(stage),
                        topic: Arc::clone(topic),
                        partition: *partition,
                        committed: *next,
                    }));
            }
            let to = wanted.min(floor);
            if to > first {
                trimmed.records += to - first;
                let name = clients.name(&at.0);
                delete
                    .add_partition_offset(&name, partition as i32, Offset::Offset(to as i64))
                    .map_err(|error| failed("name an offset", &error))?;
            }
        }
    }
    if delete.count() > 0 {
        let done = wait(clients.admin.delete_records(&delete, &options()))
            .map_err(|error| failed("delete old records", &error))?;
        for element in done.elements() {
            element
                .error()
                .map_err(|error| failed("delete old records", &error))?;
        }
    }
    Ok(trimmed)
}

/// First offset, and the offset of the first record that is not older than `before_ms`.
fn old(clients: &Clients, at: &TopicPartition, before_ms: i64) -> Result<(u64, u64), LogError> {
    let reader = clients.reader()?;
    let name = clients.name(&at.0);
    let (first, end) = watermarks(&reader, &name, at.1)?;
    let mut asked = TopicPartitionList::with_capacity(1);
    asked
        .add_partition_offset(&name, at.1 as i32, Offset::Offset(before_ms))
        .map_err(|error| failed("name a time", &error))?;
    let found = reader
        .offsets_for_times(asked, CALL_TIMEOUT)
        .map_err(|error| failed(&format!("look for a time in {name}"), &error))?;
    clients.put_back(reader);
    let offset = found
        .find_partition(&name, at.1 as i32)
        .map(|element| element.offset());
    let wanted = match offset {
        Some(Offset::Offset(offset)) if offset >= 0 => offset as u64,
        // No record is that young.
        _ => end,
    };
    Ok((first, wanted))
}

/// Who has committed what: every group of this log, with its committed offsets.
fn registered(
    clients: &Clients,
    specs: &[Arc<TopicSpec>],
) -> Result<Vec<(Arc<str>, TopicPartition, u64)>, LogError> {
    let reader = clients.reader()?;
    let groups = reader
        .fetch_group_list(None, CALL_TIMEOUT)
        .map_err(|error| failed("list groups", &error))?;
    clients.put_back(reader);
    let places: Vec<TopicPartition> = specs
        .iter()
        .flat_map(|spec| (0..spec.partitions).map(|p| (Arc::clone(&spec.name), p)))
        .collect();
    let mut registered = Vec::new();
    for group in groups.groups() {
        let Some(stage) = clients.stage_of(group.name()) else {
            continue;
        };
        let consumer = clients.bystander(stage)?;
        let name: Arc<str> = Arc::from(stage);
        for found in offsets::committed(clients, &consumer, &places)? {
            if let Some(next) = found.next {
                registered.push((Arc::clone(&name), found.at, next));
            }
        }
    }
    Ok(registered)
}

/// Deletes a stage's group and changelog.
pub(super) fn forget_stage(clients: &Clients, stage: &str) -> Result<(), LogError> {
    let group = clients.name(stage);
    let what = format!("forget stage {stage}");
    let results = wait(clients.admin.delete_groups(&[&group], &options()))
        .map_err(|error| failed(&what, &error))?;
    for result in results {
        match result {
            Ok(_) | Err((_, Code::GroupIdNotFound)) => {}
            Err((_, Code::NonEmptyGroup)) => {
                return Err(LogError::invalid(format!(
                    "stage {stage} is running: stop it before it is forgotten"
                )));
            }
            Err((_, code)) => {
                return Err(failed(&what, &rdkafka::error::KafkaError::AdminOp(code)));
            }
        }
    }
    let changelog = clients.changelog(stage);
    if clients.partitions_on_broker(&changelog)?.is_some() {
        let results = wait(clients.admin.delete_topics(&[&changelog], &options()))
            .map_err(|error| failed(&what, &error))?;
        let by_name: BTreeMap<_, _> = results.into_iter().filter_map(Result::err).collect();
        if let Some((_, code)) = by_name.into_iter().next() {
            return Err(failed(&what, &rdkafka::error::KafkaError::AdminOp(code)));
        }
    }
    Ok(())
}
