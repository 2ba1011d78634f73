//! Connections: their settings, and what can be asked of a broker without a group.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;

use super::decide::{self, Class};
use super::events::Events;
use super::{
    CALL_TIMEOUT, FETCH_PAUSE, FETCH_WAIT, GroupProtocol, KafkaOptions, LEADER_PAUSE,
    POLL_INTERVAL_MAX, PREFETCH_BYTES, PRODUCER_BYTES_MAX, lock,
};
use crate::error::LogError;
use crate::limits::KAFKA_MESSAGE_BYTES_MAX;

/// Ends the name of a changelog topic.
pub(super) const CHANGELOG_SUFFIX: &str = ".state";

/// Readers kept for the next [`crate::Log::read`]; more are made when more read at once.
const READERS_KEPT: usize = 4;

/// Consumers kept for asking what a stage has committed, one per stage.
const BYSTANDERS_KEPT: usize = 32;

/// How long to listen why no broker answers.
const WHY_TIMEOUT: Duration = Duration::from_secs(3);

/// Settings that the guarantees rest on.
const RESERVED: [&str; 14] = [
    "bootstrap.servers",
    "isolation.level",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "transactional.id",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "group.remote.assignor",
    "acks",
];

/// How a member's group deals out partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    /// The classic protocol, each topic's partitions in order: partition `i` of all inputs lands with one
    /// member. Every change takes everything away from everybody and deals it out anew.
    Range,
    /// The classic protocol, one by one: only what moves is taken away. It balances each member's total,
    /// so of several topics it would give partition `i` to different members.
    CooperativeSticky,
    /// KIP-848: the broker deals out, by its own `range`, and only what moves is taken away.
    Consumer,
}

impl Membership {
    pub(super) fn of(protocol: GroupProtocol, inputs: usize) -> Self {
        match (protocol, inputs) {
            (GroupProtocol::Consumer, _) => Self::Consumer,
            (GroupProtocol::Classic, 0 | 1) => Self::CooperativeSticky,
            (GroupProtocol::Classic, _) => Self::Range,
        }
    }

    fn set(self, config: &mut ClientConfig, session_timeout: Duration) {
        let strategy = match self {
            Self::Range => "range",
            Self::CooperativeSticky => "cooperative-sticky",
            // Sessions and heartbeats are the broker's settings then.
            Self::Consumer => {
                config.set("group.protocol", "consumer");
                config.set("group.remote.assignor", "range");
                return;
            }
        };
        config
            .set("partition.assignment.strategy", strategy)
            .set("session.timeout.ms", millis(session_timeout))
            .set("heartbeat.interval.ms", millis(session_timeout / 4));
    }
}

/// Passes librdkafka's log lines and errors on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Quiet {}

/// Keeps the last error: calls themselves only say that no broker could be reached.
#[derive(Debug, Default)]
struct Told {
    last: Mutex<Option<(Option<Code>, String)>>,
}

impl ClientContext for Told {
    fn error(&self, error: KafkaError, reason: &str) {
        // That all brokers are down follows from why each of them is.
        if decide::code(&error) != Some(Code::AllBrokersDown) {
            *lock(&self.last) = Some((decide::code(&error), reason.to_owned()));
        }
    }
}

impl ConsumerContext for Told {}

pub(super) fn log_line(level: RDKafkaLogLevel, fac: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::warn!(fac, message, "librdkafka"),
        _ => tracing::debug!(fac, message, "librdkafka"),
    }
}

/// The shared connections.
pub(super) struct Clients {
    options: KafkaOptions,
    pub(super) admin: AdminClient<DefaultClientContext>,
    readers: Mutex<Vec<BaseConsumer<Quiet>>>,
    bystanders: Mutex<BTreeMap<String, Arc<BaseConsumer<Quiet>>>>,
}

impl Clients {
    pub(super) fn new(options: KafkaOptions) -> Result<Self, LogError> {
        for setting in options.settings.keys() {
            if RESERVED.contains(&setting.as_str()) {
                return Err(LogError::invalid(format!(
                    "the kafka setting {setting} cannot be changed: the guarantees rest on it"
                )));
            }
        }
        if !options.prefix.is_empty() {
            crate::check::name("topic prefix", &options.prefix)?;
        }
        let admin = base(&options)
            // Of a partition it is asked where it ends, open transactions included; librdkafka asks
            // every client for the last stable offset otherwise, those without a consumer too.
            .set("isolation.level", "read_uncommitted")
            .create()
            .map_err(|error| failed("connect to kafka", &error))?;
        Ok(Self {
            options,
            admin,
            readers: Mutex::default(),
            bystanders: Mutex::default(),
        })
    }

    /// Waits until a broker answers.
    pub(super) fn ping(&self) -> Result<(), LogError> {
        let answer = self
            .admin
            .inner()
            .fetch_metadata(Some("__ping"), self.options.request_timeout);
        let Err(error) = answer else { return Ok(()) };
        let brokers = &self.options.brokers;
        let told = self.why()?;
        let reason = told
            .as_ref()
            .map_or_else(|| error.to_string(), |(_, reason)| reason.clone());
        let (what, retryable) = match told.and_then(|(code, _)| code) {
            Some(Code::Authentication) => (
                format!(
                    "the kafka broker at {brokers} does not let this process in ({reason}): correct \
                     [log.sasl]"
                ),
                false,
            ),
            Some(Code::SSL) => (
                format!("no TLS with the kafka broker at {brokers} ({reason}): correct [log.tls]"),
                false,
            ),
            _ => (
                format!(
                    "no kafka broker answers at {brokers} ({reason}): start it or correct [log] \
                     kafka, and [log.tls] where it speaks TLS"
                ),
                true,
            ),
        };
        Err(LogError::storage(what, retryable))
    }

    /// Why no broker answers, as far as one can be heard to say.
    fn why(&self) -> Result<Option<(Option<Code>, String)>, LogError> {
        let consumer = self.consumer(&self.name("readers"), Told::default())?;
        let started = Instant::now();
        while started.elapsed() < WHY_TIMEOUT {
            // Nothing is assigned, so this only waits and serves the client's events.
            let _ = consumer.poll(WHY_TIMEOUT / 20);
            if let Some(told) = lock(&consumer.context().last).take() {
                return Ok(Some(told));
            }
        }
        Ok(None)
    }

    pub(super) fn options(&self) -> &KafkaOptions {
        &self.options
    }

    /// Name on the broker.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{}{name}", self.options.prefix)
    }

    pub(super) fn changelog(&self, stage: &str) -> String {
        format!("{}{stage}{CHANGELOG_SUFFIX}", self.options.prefix)
    }

    /// The stage behind a group's name.
    pub(super) fn stage_of<'a>(&self, group: &'a str) -> Option<&'a str> {
        group.strip_prefix(&self.options.prefix)
    }

    pub(super) fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.partitions_on_broker(&self.name(topic))?
            .ok_or_else(|| LogError::UnknownTopic {
                topic: Arc::from(topic),
            })
    }

    /// `None` when there is no such topic.
    pub(super) fn partitions_on_broker(&self, topic: &str) -> Result<Option<u32>, LogError> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(Some(topic), CALL_TIMEOUT)
            .map_err(|error| failed(&format!("look up topic {topic}"), &error))?;
        let exists = |found: &&MetadataTopic| found.name() == topic && found.error().is_none();
        let count = metadata
            .topics()
            .iter()
            .find(exists)
            .map(|found| found.partitions().len());
        Ok(count.filter(|count| *count > 0).map(|count| count as u32))
    }

    pub(super) fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, LogError> {
        let metadata = self.admin.inner().fetch_metadata(None, CALL_TIMEOUT);
        let metadata = metadata.map_err(|error| failed("list topics", &error))?;
        let mut topics: Vec<(Arc<str>, u32)> = metadata
            .topics()
            .iter()
            .filter(|topic| !topic.name().ends_with(CHANGELOG_SUFFIX))
            .filter_map(|topic| {
                let name = topic.name().strip_prefix(&self.options.prefix)?;
                Some((Arc::from(name), topic.partitions().len() as u32))
            })
            .collect();
        topics.sort();
        Ok(topics)
    }

    /// First offset and last stable offset: what a reader of committed records can get.
    pub(super) fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let reader = self.reader()?;
        let range = watermarks(&reader, &self.name(topic), partition);
        self.put_back(reader);
        range
    }

    /// A consumer of committed records without a group, to be assigned by hand.
    pub(super) fn reader(&self) -> Result<BaseConsumer<Quiet>, LogError> {
        let kept = lock(&self.readers).pop();
        match kept {
            Some(reader) => Ok(reader),
            // librdkafka wants a group's name for any assignment; nothing is ever committed to it.
            None => self.consumer(&self.name("readers"), Quiet),
        }
    }

    pub(super) fn put_back(&self, reader: BaseConsumer<Quiet>) {
        let mut readers = lock(&self.readers);
        if readers.len() < READERS_KEPT {
            readers.push(reader);
        }
    }

    /// A consumer with a stage's group that never joins it, to ask what it has committed.
    pub(super) fn bystander(&self, stage: &str) -> Result<Arc<BaseConsumer<Quiet>>, LogError> {
        if let Some(consumer) = lock(&self.bystanders).get(stage) {
            return Ok(Arc::clone(consumer));
        }
        let consumer = Arc::new(self.consumer(&self.name(stage), Quiet)?);
        let mut kept = lock(&self.bystanders);
        if kept.len() >= BYSTANDERS_KEPT {
            kept.clear();
        }
        kept.insert(stage.to_owned(), Arc::clone(&consumer));
        Ok(consumer)
    }

    pub(super) fn consumer<C: ConsumerContext + 'static>(
        &self,
        group: &str,
        context: C,
    ) -> Result<BaseConsumer<C>, LogError> {
        let config = self.consumer_config(group);
        BaseConsumer::from_config_and_context(&config, context)
            .map_err(|error| failed("open a consumer", &error))
    }

    /// A consumer that joins its group.
    pub(super) fn member(
        &self,
        group: &str,
        context: Events,
    ) -> Result<BaseConsumer<Events>, LogError> {
        let mut config = self.consumer_config(group);
        context
            .membership()
            .set(&mut config, self.options.session_timeout);
        BaseConsumer::from_config_and_context(&config, context)
            .map_err(|error| failed("open a consumer", &error))
    }

    fn consumer_config(&self, group: &str) -> ClientConfig {
        let mut config = base(&self.options);
        config
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            // What a stage has not read must not be skipped in silence.
            .set("auto.offset.reset", "error")
            .set("max.poll.interval.ms", millis(POLL_INTERVAL_MAX))
            .set("fetch.wait.max.ms", millis(FETCH_WAIT))
            .set("fetch.error.backoff.ms", "100")
            .set("fetch.queue.backoff.ms", millis(FETCH_PAUSE))
            .set(
                "queued.max.messages.kbytes",
                (PREFETCH_BYTES / 1024).to_string(),
            )
            .set("fetch.max.bytes", (2 * KAFKA_MESSAGE_BYTES_MAX).to_string())
            .set("message.max.bytes", KAFKA_MESSAGE_BYTES_MAX.to_string());
        config
    }

    /// Settings of a producer, idempotent; transactional with an id.
    pub(super) fn producer_config(&self, transactional_id: Option<&str>) -> ClientConfig {
        let mut config = base(&self.options);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("message.max.bytes", KAFKA_MESSAGE_BYTES_MAX.to_string())
            .set(
                "queue.buffering.max.kbytes",
                (PRODUCER_BYTES_MAX / 1024).to_string(),
            );
        match transactional_id {
            // librdkafka lowers the time-out of messages to that of the transaction by itself.
            Some(id) => config.set("transactional.id", id).set(
                "transaction.timeout.ms",
                millis(self.options.transaction_timeout),
            ),
            None => config.set("message.timeout.ms", millis(CALL_TIMEOUT)),
        };
        config
    }
}

fn base(options: &KafkaOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in &options.settings {
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "driftline")
        .set("socket.timeout.ms", millis(options.request_timeout))
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "2000")
        // A topic just made is looked for again this soon.
        .set("topic.metadata.refresh.fast.interval.ms", "50");
    config
}

pub(super) fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// First offset and last stable offset.
pub(super) fn watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: u32,
) -> Result<(u64, u64), LogError> {
    range_of(consumer.client(), topic, partition)
        .map_err(|error| failed(&format!("ask for the range of {topic}/{partition}"), &error))
}

/// First and last offset as a client sees them. While a partition changes its leader, or has none yet since its
/// topic was just made, it asks again for as long as a call may take.
pub(super) fn range_of<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: u32,
) -> Result<(u64, u64), KafkaError> {
    let deadline = Instant::now() + CALL_TIMEOUT;
    loop {
        let error = match client.fetch_watermarks(topic, partition as i32, CALL_TIMEOUT) {
            Ok((first, end)) => return Ok((first.max(0) as u64, end.max(0) as u64)),
            Err(error) => error,
        };
        let is_moving = matches!(
            decide::code(&error),
            Some(Code::NotLeaderForPartition | Code::LeaderNotAvailable)
        );
        if !is_moving || Instant::now() >= deadline {
            return Err(error);
        }
        std::thread::park_timeout(LEADER_PAUSE);
    }
}

/// An error of a broker, with what was tried.
pub(super) fn failed(what: &str, error: &KafkaError) -> LogError {
    let retryable = match decide::code(error) {
        Some(code) => decide::class(code) != Class::Refused,
        None => !matches!(error, KafkaError::ClientConfig(..) | KafkaError::Nul(_)),
    };
    LogError::storage(format!("kafka: could not {what}: {error}"), retryable)
}

/// Waits for an administrative call on this thread.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}
