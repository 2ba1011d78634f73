//! Topics as they are on the broker against what they should be.
//!
//! Partition counts never change, and copies are moved with Kafka's own tools, so a topic that
//! differs in these is a conflict that is told and left alone. All other settings are set. What
//! somebody else has set on a topic beside them stays.

use std::collections::BTreeMap;

use rdkafka::admin::{AlterConfig, ConfigEntry, ConfigSource, ResourceSpecifier};
use rdkafka::error::KafkaError;

use super::CALL_TIMEOUT;
use super::admin::{create, options, replication_on_broker, settings};
use super::client::{Clients, failed, wait};
use crate::api::{Cleanup, StageSpec, TopicSpec};
use crate::error::LogError;
use crate::limits::KAFKA_MESSAGE_BYTES_MAX;

/// Least `offsets.retention.minutes` that is advised: a stage that stands still for longer has to be
/// started over, and a month is longer than people leave a stage down by mistake.
pub const OFFSETS_RETENTION_MINUTES: i64 = 30 * 24 * 60;

/// A setting that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub setting: &'static str,
    /// Value on the broker; `None` when it says none.
    pub has: Option<String>,
    /// Value that it should have.
    pub wants: String,
}

/// What is to be done about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicState {
    /// It is not there and will be made.
    Missing,
    /// It is as it should be.
    Same,
    /// These settings will be set.
    Differs(Vec<Change>),
    /// It cannot be made right: what is the matter, and what helps.
    Conflict(String),
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPlan {
    /// Name on the broker.
    pub topic: String,
    /// As it should be.
    pub spec: TopicSpec,
    /// Its settings as they should be.
    pub settings: Vec<(&'static str, String)>,
    /// What is to be done.
    pub state: TopicState,
    /// All that was set on it, by whomever.
    set: BTreeMap<String, String>,
}

/// All topics, and what should be set on the broker itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The topics, changelogs last.
    pub topics: Vec<TopicPlan>,
    /// Advice on settings of the broker, which only its operator can change.
    pub advice: Vec<String>,
}

impl Plan {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.topics
            .iter()
            .all(|topic| topic.state == TopicState::Same)
    }

    /// The topics that cannot be made right.
    pub fn conflicts(&self) -> impl Iterator<Item = &TopicPlan> {
        self.topics
            .iter()
            .filter(|topic| matches!(topic.state, TopicState::Conflict(_)))
    }
}

pub(super) fn plan(
    clients: &Clients,
    topics: &[TopicSpec],
    stages: &[StageSpec],
) -> Result<Plan, LogError> {
    let (brokers, config) = broker(clients)?;
    let mut wanted: Vec<(String, TopicSpec)> = topics
        .iter()
        .map(|spec| (clients.name(&spec.name), spec.clone()))
        .collect();
    for stage in stages.iter().filter(|stage| stage.changelog) {
        // A changelog has the partitions and copies of its stage's first input.
        let input = topics.iter().find(|spec| spec.name == stage.inputs[0]);
        if let Some(input) = input {
            let spec = TopicSpec {
                name: stage.name.clone(),
                cleanup: Cleanup::Compact,
                ..input.clone()
            };
            wanted.push((clients.changelog(&stage.name), spec));
        }
    }
    let topics = wanted
        .into_iter()
        .map(|(name, spec)| topic(clients, name, spec, brokers))
        .collect::<Result<_, _>>()?;
    let options = clients.options();
    let advice = advice(
        &config,
        options.session_timeout.as_millis() as i64,
        options.transaction_timeout.as_millis() as i64,
    );
    Ok(Plan { topics, advice })
}

fn topic(
    clients: &Clients,
    name: String,
    spec: TopicSpec,
    brokers: usize,
) -> Result<TopicPlan, LogError> {
    let settings = settings(clients, &spec);
    let mut set = BTreeMap::new();
    let state = match clients.partitions_on_broker(&name)? {
        None if usize::from(spec.replication) > brokers => TopicState::Conflict(format!(
            "{} copies are wanted and there are {brokers} brokers: start more, or lower [log] \
             replication",
            spec.replication
        )),
        None => TopicState::Missing,
        Some(partitions) => {
            let replication = replication_on_broker(clients, &name)?;
            let entries = describe(clients, ResourceSpecifier::Topic(&name))?;
            for entry in &entries {
                if let (ConfigSource::DynamicTopic, Some(value)) = (&entry.source, &entry.value) {
                    set.insert(entry.name.clone(), value.clone());
                }
            }
            let has = |setting: &str| {
                let entry = entries.iter().find(|entry| entry.name == setting);
                entry.and_then(|entry| entry.value.clone())
            };
            compare((partitions, replication), &spec, &settings, has)
        }
    };
    Ok(TopicPlan {
        topic: name,
        spec,
        settings,
        state,
        set,
    })
}

/// What is to be done about a topic that is there: pure.
fn compare(
    (partitions, replication): (u32, u16),
    spec: &TopicSpec,
    settings: &[(&'static str, String)],
    has: impl Fn(&str) -> Option<String>,
) -> TopicState {
    if partitions != spec.partitions {
        return TopicState::Conflict(format!(
            "it has {partitions} partitions and {} are configured: keep {partitions} in [log] \
             partitions, since a device's partition never changes, or use another [log] prefix",
            spec.partitions
        ));
    }
    if replication != spec.replication {
        return TopicState::Conflict(format!(
            "it has {replication} copies and {} are configured: move it with \
             kafka-reassign-partitions, or correct [log] replication",
            spec.replication
        ));
    }
    let mut changes = Vec::new();
    for (setting, wants) in settings {
        let has = has(setting);
        if has.as_deref() == Some(wants) {
            continue;
        }
        if *setting == "cleanup.policy" {
            return TopicState::Conflict(format!(
                "its cleanup.policy is {} and has to be {wants}: what was deleted or compacted does \
                 not come back, so use another [log] prefix",
                has.unwrap_or_default()
            ));
        }
        changes.push(Change {
            setting,
            has,
            wants: wants.clone(),
        });
    }
    match changes.is_empty() {
        true => TopicState::Same,
        false => TopicState::Differs(changes),
    }
}

/// What the operator of the brokers should set: pure.
fn advice(broker: &BTreeMap<String, String>, session_ms: i64, transaction_ms: i64) -> Vec<String> {
    let number = |key: &str| broker.get(key).and_then(|value| value.parse::<i64>().ok());
    let mut advice = Vec::new();
    if let Some(minutes) = number("offsets.retention.minutes")
        && minutes < OFFSETS_RETENTION_MINUTES
    {
        advice.push(format!(
            "offsets.retention.minutes is {minutes}: a stage that stands still for longer forgets \
             where it was and has to be started over; set {OFFSETS_RETENTION_MINUTES}"
        ));
    }
    if let Some(most) = number("transaction.max.timeout.ms")
        && most < transaction_ms
    {
        advice.push(format!(
            "transaction.max.timeout.ms is {most}, below [log] transaction_timeout of \
             {transaction_ms} ms: no stage can start"
        ));
    }
    if let Some(least) = number("group.min.session.timeout.ms")
        && least > session_ms
    {
        advice.push(format!(
            "group.min.session.timeout.ms is {least}, above [log] session_timeout of {session_ms} \
             ms: no stage can join its group"
        ));
    }
    if let Some(bytes) = number("replica.fetch.response.max.bytes")
        && bytes < KAFKA_MESSAGE_BYTES_MAX as i64
    {
        advice.push(format!(
            "replica.fetch.response.max.bytes is {bytes}: set {KAFKA_MESSAGE_BYTES_MAX} at least"
        ));
    }
    advice
}

/// Number of brokers, and the settings of one of them.
fn broker(clients: &Clients) -> Result<(usize, BTreeMap<String, String>), LogError> {
    let metadata = clients
        .admin
        .inner()
        .fetch_metadata(None, CALL_TIMEOUT)
        .map_err(|error| failed("list brokers", &error))?;
    let first = metadata.brokers().first().map(|broker| broker.id());
    let entries = match first {
        Some(id) => describe(clients, ResourceSpecifier::Broker(id))?,
        None => Vec::new(),
    };
    let settings = entries
        .into_iter()
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect();
    Ok((metadata.brokers().len(), settings))
}

fn describe(
    clients: &Clients,
    resource: ResourceSpecifier<'_>,
) -> Result<Vec<ConfigEntry>, LogError> {
    let what = "read settings";
    let described = wait(clients.admin.describe_configs([&resource], &options()))
        .map_err(|error| failed(what, &error))?;
    let mut entries = Vec::new();
    for resource in described {
        let resource = resource.map_err(|code| failed(what, &KafkaError::AdminOp(code)))?;
        entries.extend(resource.entries);
    }
    Ok(entries)
}

pub(super) fn apply(clients: &Clients, plan: &Plan) -> Result<(), LogError> {
    for topic in &plan.topics {
        match &topic.state {
            TopicState::Missing => create(clients, &topic.topic, &topic.spec)?,
            TopicState::Differs(_) => alter(clients, topic)?,
            TopicState::Same | TopicState::Conflict(_) => {}
        }
    }
    Ok(())
}

/// Sets a topic's settings. The request replaces all that was set, so the others are named again.
fn alter(clients: &Clients, topic: &TopicPlan) -> Result<(), LogError> {
    let what = format!("change settings of topic {}", topic.topic);
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(&topic.topic));
    for (key, value) in &topic.set {
        config = config.set(key, value);
    }
    for (key, value) in &topic.settings {
        config = config.set(key, value);
    }
    let results = wait(clients.admin.alter_configs([&config], &options()))
        .map_err(|error| failed(&what, &error))?;
    for result in results {
        result.map_err(|(_, code)| failed(&what, &KafkaError::AdminOp(code)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [(&str, &str); 2] = [("cleanup.policy", "delete"), ("retention.ms", "-1")];

    fn state(shape: (u32, u16), has: &[(&str, &str)]) -> TopicState {
        let settings = WANTED.map(|(key, value)| (key, value.to_owned()));
        let has = |key: &str| {
            let found = has.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).to_owned())
        };
        compare(shape, &TopicSpec::new("t", 2), &settings, has)
    }

    /// What can be set is set; partitions, copies and the kind of clean-up are conflicts that name the
    /// remedy.
    #[test]
    fn differences_are_told_apart() {
        assert_eq!(state((2, 1), &WANTED), TopicState::Same);
        let TopicState::Differs(changes) = state(
            (2, 1),
            &[("cleanup.policy", "delete"), ("retention.ms", "7")],
        ) else {
            panic!("a retention can be set")
        };
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].setting, "retention.ms");
        for (conflict, says) in [
            (state((3, 1), &WANTED), "partitions"),
            (state((2, 3), &WANTED), "kafka-reassign-partitions"),
            (state((2, 1), &[("cleanup.policy", "compact")]), "prefix"),
        ] {
            let TopicState::Conflict(text) = conflict else {
                panic!("{says}: {conflict:?}")
            };
            assert!(text.contains(says), "{text}");
        }
    }

    /// Kafka's own defaults lead to one advice, what would stop every stage to another.
    #[test]
    fn brokers_are_advised() {
        let broker = |pairs: &[(&str, &str)]| {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect::<BTreeMap<_, _>>()
        };
        let defaults = broker(&[
            ("offsets.retention.minutes", "10080"),
            ("transaction.max.timeout.ms", "900000"),
            ("group.min.session.timeout.ms", "6000"),
        ]);
        let told = advice(&defaults, 10_000, 15_000);
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("offsets.retention.minutes"));
        let told = advice(&defaults, 2_000, 1_000_000);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(advice(&BTreeMap::new(), 1, 1).is_empty());
    }
}
