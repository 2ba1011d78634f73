//! The log on Kafka, through librdkafka.
//!
//! # Names
//!
//! Everything on the broker starts with [`KafkaOptions::prefix`]: topic `<prefix><topic>`, group
//! `<prefix><stage>`, transactional id `<prefix><stage>.<instance>`, changelog
//! `<prefix><stage>.state`. A log with another prefix is another log.
//!
//! # One step, one transaction
//!
//! Outputs, state deltas (records of the changelog) and input offsets go into one transaction, and
//! every reader reads committed records only. The offsets carry the step's number as metadata.
//! Whether to go on, to abort, or to doubt is decided by one pure function, in `decide`.
//!
//! librdkafka 2.12 lacks KIP-890: it retries the request that ends a transaction inside itself
//! with the same epoch, so a stray copy can still end the *next* transaction. After a commit that
//! came back retriable, took longer than the socket time-out, or saw a connection break, the
//! producer is therefore thrown away; `init_transactions` of a new one ends whatever is open and
//! makes strays harmless, and only then are the committed offsets compared with the step's.
//!
//! # Assignment
//!
//! Members of a stage with one input topic use `cooperative-sticky`: a member that joins or leaves moves
//! only the partitions that move, and the others go on with the state that they have. Partition `i` of
//! all inputs has to land with one member; of several topics `cooperative-sticky` moves the partitions
//! apart, since it balances each member's total, so stages with several inputs use `range`, which deals
//! out each topic's partitions over the same ordered list of members. It takes everything away from
//! everybody first. With [`GroupProtocol::Consumer`] (KIP-848) the broker deals out by a `range` of its
//! own that moves only what moves.
//!
//! The rebalance callback only notes what happened. [`StageLog::poll`] then gives up what the group wants
//! back, and tells the group so; only then may others have it. And it
//! takes partitions over, in an order that matters: a new or initialised producer first (it
//! ends what this instance left open), then the committed offsets (the broker holds them back
//! while anybody's transaction on them is open), then the changelog up to its end as of then, and
//! only then records.
//!
//! # Generations of ownership
//!
//! What keeps a step of a partition that was lost from being written is that the group refuses the offsets of
//! its transaction, by the name and the generation of the member. While partitions come and go one by one,
//! generations pass while a member keeps some of its partitions and has steps under way. So:
//!
//! - every change that the group tells of begins a new generation of ownership (`events`); a step is
//!   written as of the newest one told, with the name and the generation of then. A generation that
//!   the group has left behind, told of or not, is refused by the broker.
//! - before the first step of a generation the offsets that all held partitions have on the broker are
//!   held against what the member committed last, number of the step included. If anybody else has had one
//!   in between, they differ, and everything is given up and taken over anew.
//! - a revocation is answered by the next poll, never within a commit: until then nobody else gets the
//!   partitions, and the step under way that still has them may be committed.
//! - after a loss without having been asked (a session that ran out) no step is written until the
//!   stage has heard of it.
//! - a step that was refused because a generation had just passed, and of which nothing was lost, is tried
//!   again as of the next generation; otherwise everything is given up and taken over anew.
//!
//! Each input partition has a queue of its own in librdkafka, because its end-of-partition event
//! names the partition but not the topic, and stages must know exactly when they have caught up.
//!
//! # Retention
//!
//! The broker keeps everything (`retention.ms=-1`); [`Log::trim`] deletes what is old up to the
//! least offset that any registered group has committed. So retention never passes a reader, which
//! the broker's own would.
//!
//! The broker forgets the offsets of a group that has stood still for `offsets.retention.minutes`
//! (a week by default). Set it longer than any stage may be down. A stage that finds its state but
//! not its offsets refuses to start, rather than counting everything again.
//!
//! # After a crash
//!
//! A member that is started again ends its former transaction at once, so readers go on. Its
//! partitions come back when the group has noticed that the former member is gone, after
//! [`KafkaOptions::session_timeout`] at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::{Appender, Log, ReadBatch, ReadLimits, StageLog, StageSpec, TopicSpec, Trimmed};
use crate::check;
use crate::error::LogError;

mod admin;
mod appender;
mod changelog;
mod client;
mod decide;
mod events;
mod member;
mod offsets;
pub mod plan;
mod producer;
mod reader;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;

use client::Clients;

/// How to reach the brokers.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Brokers to start from, `host:port`, separated by commas.
    pub brokers: String,
    /// Goes before every name on the broker.
    pub prefix: String,
    /// Further librdkafka settings, for security above all. Settings that the guarantees rest on
    /// are refused.
    pub settings: BTreeMap<String, String>,
    /// Time for one request to a broker. A commit that takes longer is in doubt.
    pub request_timeout: Duration,
    /// Without a heartbeat for this long a member is out of its group.
    pub session_timeout: Duration,
    /// After this time the broker aborts a transaction whose producer is gone.
    pub transaction_timeout: Duration,
    /// Copies of a partition that must have a record before it is acknowledged; `None`: 2 where there
    /// are three copies or more, else 1.
    pub min_insync_replicas: Option<u16>,
    /// How members of a group find out who has what.
    pub group_protocol: GroupProtocol,
    /// Takes every answer to a commit at its word, however late: for the test that shows what the
    /// guard against stray requests is for.
    #[doc(hidden)]
    pub without_guard: bool,
}

/// How the members of a stage's group find out who has which partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// One of the members deals them out.
    #[default]
    Classic,
    /// The broker does (KIP-848, Kafka 4.0 and later). Sessions are then its settings
    /// (`group.consumer.session.timeout.ms`), not [`KafkaOptions::session_timeout`].
    Consumer,
}

/// Without the values of the settings, since passwords are among them.
impl std::fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("settings", &self.settings.keys())
            .finish_non_exhaustive()
    }
}

impl KafkaOptions {
    /// A plain connection with the prefix `driftline.`.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: "driftline.".to_owned(),
            settings: BTreeMap::new(),
            request_timeout: REQUEST_TIMEOUT,
            session_timeout: SESSION_TIMEOUT,
            transaction_timeout: TRANSACTION_TIMEOUT,
            min_insync_replicas: None,
            group_protocol: GroupProtocol::Classic,
            without_guard: false,
        }
    }
}

/// Default of [`KafkaOptions::request_timeout`].
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Default of [`KafkaOptions::transaction_timeout`]. Until then readers of the partitions that a
/// killed producer wrote to stand still, so it is short; a step's transaction is open for the commit
/// only.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for what a call needs from the broker as a whole, retries included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Default of [`KafkaOptions::session_timeout`].
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time between two polls: a step, or reading a changelog back, may take this long.
pub const POLL_INTERVAL_MAX: Duration = Duration::from_secs(600);

/// How long a broker may hold a fetch when there is nothing: also how long it takes to notice that
/// a partition is read to its end.
pub const FETCH_WAIT: Duration = Duration::from_millis(100);

/// Bytes that a consumer keeps ready per partition, beyond what was polled.
pub const PREFETCH_BYTES: usize = 2 * 1024 * 1024;

/// How soon a partition that had [`PREFETCH_BYTES`] ready is looked at again. librdkafka would not fetch it for a
/// second, whatever was polled meanwhile: a stage with a backlog then stood still for most of its time.
pub const FETCH_PAUSE: Duration = Duration::from_millis(5);

/// How soon a broker is asked again for a partition that has no leader at the moment.
pub const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Bytes that a producer may hold: a full step and the copies in flight.
pub const PRODUCER_BYTES_MAX: usize = 2 * crate::limits::STEP_BYTES_MAX;

/// A log on Kafka. Clones share the connections for reading and administration; every appender and
/// stage has its own.
#[derive(Debug, Clone)]
pub struct KafkaLog {
    shared: Arc<Shared>,
}

/// What all handles of one log share.
pub(crate) struct Shared {
    clients: Clients,
    /// Topics as [`Log::ensure_topics`] last asked for them: what [`Log::trim`] goes by.
    specs: Mutex<BTreeMap<Arc<str>, Arc<TopicSpec>>>,
    /// Partition counts seen on the broker; they never change.
    counts: Mutex<BTreeMap<Arc<str>, u32>>,
    /// Members open in this process, since two of one name would fence each other for ever.
    open: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// All that is kept under these locks is replaced in single calls.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KafkaLog {
    /// Connects, and waits until a broker answers.
    ///
    /// # Errors
    /// [`LogError::Invalid`] for settings that are refused, [`LogError::Storage`] when no broker
    /// answers.
    pub fn open(options: KafkaOptions) -> Result<Self, LogError> {
        let clients = Clients::new(options)?;
        clients.ping()?;
        let shared = Shared {
            clients,
            specs: Mutex::default(),
            counts: Mutex::default(),
            open: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What the topics, and the changelogs of the stages, are on the broker against what they should
    /// be; and what the broker's own settings should be. Changes nothing.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn plan(&self, topics: &[TopicSpec], stages: &[StageSpec]) -> Result<plan::Plan, LogError> {
        plan::plan(&self.shared.clients, topics, stages)
    }

    /// Makes topics that are missing and sets what differs; leaves alone what cannot be changed
    /// ([`plan::TopicState::Conflict`]).
    ///
    /// # Errors
    /// What the broker refused.
    pub fn apply(&self, plan: &plan::Plan) -> Result<(), LogError> {
        plan::apply(&self.shared.clients, plan)
    }
}

impl Shared {
    /// A topic as far as it is known: its partition count, and its clean-up if this process
    /// ensured it.
    fn topic(&self, name: &str) -> Result<Arc<TopicSpec>, LogError> {
        if let Some(spec) = lock(&self.specs).get(name) {
            return Ok(Arc::clone(spec));
        }
        let partitions = self.partitions(name)?;
        Ok(Arc::new(TopicSpec::new(name, partitions)))
    }

    fn partitions(&self, name: &str) -> Result<u32, LogError> {
        if let Some(count) = lock(&self.counts).get(name) {
            return Ok(*count);
        }
        let count = self.clients.partitions(name)?;
        lock(&self.counts).insert(Arc::from(name), count);
        Ok(count)
    }

    fn check_partition(&self, topic: &str, partition: u32) -> Result<(), LogError> {
        check::partition(&TopicSpec::new(topic, self.partitions(topic)?), partition)
    }
}

impl Log for KafkaLog {
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        check::topics(specs)?;
        admin::ensure_topics(&self.shared.clients, specs)?;
        let mut known = lock(&self.shared.specs);
        for spec in specs {
            known.insert(Arc::clone(&spec.name), Arc::new(spec.clone()));
        }
        Ok(())
    }

    fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, LogError> {
        self.shared.clients.topics()
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.shared.partitions(topic)
    }

    fn appender(&self, name: &str) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(appender::KafkaAppender::open(&self.shared, name)?))
    }

    fn stage(&self, spec: StageSpec) -> Result<Box<dyn StageLog>, LogError> {
        Ok(Box::new(member::KafkaMember::join(&self.shared, spec)?))
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError> {
        self.shared.check_partition(topic, partition)?;
        reader::read(&self.shared.clients, topic, partition, from, limits)
    }

    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        self.shared.check_partition(topic, partition)?;
        self.shared.clients.range(topic, partition)
    }

    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        self.shared.check_partition(topic, partition)?;
        let asked = [(Arc::from(topic), partition)];
        let consumer = self.shared.clients.bystander(stage)?;
        let found = offsets::committed(&self.shared.clients, &consumer, &asked)?;
        Ok(found.first().and_then(|found| found.stepped()))
    }

    fn trim(&self, now_us: i64) -> Result<Trimmed, LogError> {
        let specs: Vec<_> = lock(&self.shared.specs).values().cloned().collect();
        admin::trim(&self.shared.clients, &specs, now_us)
    }

    fn forget_stage(&self, stage: &str) -> Result<(), LogError> {
        check::name("stage", stage)?;
        admin::forget_stage(&self.shared.clients, stage)
    }
}

#[cfg(test)]
mod tests;
