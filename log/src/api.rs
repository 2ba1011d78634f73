//! The traits of the log and the values that cross them. They promise the same on every
//! implementation; `driftline_log::conformance` is the list of what, in code.
//!
//! # How a stage lives with its log
//!
//! A stage is a consumer group. [`StageLog::poll`] hands it partitions ([`Polled::Assigned`], with
//! the state it had committed there), then records, and takes partitions away again
//! ([`Polled::Revoked`]). What the stage makes of the records goes back through
//! [`StageLog::commit`]: outputs, state and offsets together, or not at all.
//!
//! There is one way back from every failure that is not fatal: whatever the stage holds in memory
//! is void, the next `poll` revokes all partitions, and a later one assigns them anew with what is
//! truly committed. So a stage needs no undo.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{CommitError, LogError};
use crate::limits;

/// How a topic forgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleanup {
    /// Records leave by age or size, oldest first, but never before every registered stage that
    /// reads the topic has committed past them.
    Delete {
        /// Records older than this may leave; `None` keeps them.
        retention: Option<Duration>,
        /// Oldest records may leave while a partition holds more than this many bytes (keys and
        /// values); `None` keeps them. Not enforced on Kafka, which does not tell a client how
        /// many bytes lie before an offset.
        retention_bytes: Option<u64>,
    },
    /// The last value of each key stays; a record without a value deletes its key.
    Compact,
}

impl Cleanup {
    /// Keeps everything until told otherwise.
    #[must_use]
    pub const fn keep() -> Self {
        Self::Delete {
            retention: None,
            retention_bytes: None,
        }
    }
}

/// A topic as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name, of letters, digits, `.`, `_` and `-`.
    pub name: Arc<str>,
    /// Number of partitions; it cannot change later, since a device's partition never changes.
    pub partitions: u32,
    /// How it forgets.
    pub cleanup: Cleanup,
    /// Copies on a Kafka cluster; one machine has one copy and ignores it.
    pub replication: u16,
}

impl TopicSpec {
    /// A topic that keeps everything, with one copy.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, partitions: u32) -> Self {
        Self {
            name: name.into(),
            partitions,
            cleanup: Cleanup::keep(),
            replication: 1,
        }
    }

    /// The same topic with another clean-up.
    #[must_use]
    pub fn with_cleanup(mut self, cleanup: Cleanup) -> Self {
        self.cleanup = cleanup;
        self
    }
}

/// A committed record, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Topic it lies in.
    pub topic: Arc<str>,
    /// Partition it lies in.
    pub partition: u32,
    /// Its offset: rises within a partition, may skip (compaction, retention, transaction marks).
    pub offset: u64,
    /// Key; empty when it has none.
    pub key: Bytes,
    /// Value; `None` deletes the key in a compacted topic.
    pub value: Option<Bytes>,
    /// What the writer stamped on it, microseconds since the Unix epoch. Kafka keeps milliseconds,
    /// so the last three digits are zero there.
    pub timestamp_us: i64,
}

impl Record {
    /// Bytes of key and value.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A record to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Topic to write to; it must exist.
    pub topic: Arc<str>,
    /// Partition to write to; the writer chooses, the log never hashes.
    pub partition: u32,
    /// Key; may be empty except in a compacted topic.
    pub key: Vec<u8>,
    /// Value; `None` deletes the key in a compacted topic.
    pub value: Option<Vec<u8>>,
    /// Microseconds since the Unix epoch, not negative. Age-based retention goes by it.
    pub timestamp_us: i64,
}

impl Output {
    /// Bytes of key and value.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
}

/// Where to go on in one partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Offset of the next record to be read.
    pub next: u64,
}

/// Bounds of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// At most this many records, at least 1.
    pub max_records: usize,
    /// Stop at this many bytes (keys and values). The first record comes even if it alone is
    /// larger, so a reader never stands still.
    pub max_bytes: usize,
    /// How long to wait when nothing is there yet; zero returns at once. [`StageLog::poll`] has
    /// its own time-out and ignores it.
    pub wait: Duration,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            max_records: limits::POLL_RECORDS_MAX,
            max_bytes: limits::POLL_BYTES_MAX,
            wait: Duration::ZERO,
        }
    }
}

/// What one read outside a group gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBatch {
    /// Committed records in offset order.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: u64,
    /// First offset that is still kept. When it is past the offset asked for, what lay before it
    /// was trimmed.
    pub first: u64,
    /// End of the committed records, exclusive; `next >= end` means caught up.
    pub end: u64,
}

/// Who reads what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageSpec {
    /// Name of the stage: its consumer group and the owner of its state.
    pub name: Arc<str>,
    /// Which member of the group this is; unique and stable over restarts, because Kafka fences
    /// the former holder of the same name (`driftline.<stage>.<instance>` is the transactional id).
    pub instance: Arc<str>,
    /// Topics read. They must have the same partition count: partition `i` of every input is
    /// assigned to the same member, together with state partition `i`.
    pub inputs: Vec<Arc<str>>,
    /// Whether the stage keeps state. Without it, a step that carries state is refused.
    pub changelog: bool,
    /// Bounds of one poll.
    pub limits: ReadLimits,
}

impl StageSpec {
    /// The only member of a stage that keeps state.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, inputs: &[&str]) -> Self {
        Self {
            name: name.into(),
            instance: Arc::from("0"),
            inputs: inputs.iter().map(|topic| Arc::from(*topic)).collect(),
            changelog: true,
            limits: ReadLimits::default(),
        }
    }

    /// The same stage without state.
    #[must_use]
    pub fn stateless(mut self) -> Self {
        self.changelog = false;
        self
    }

    /// The same stage as another member of its group.
    #[must_use]
    pub fn with_instance(mut self, instance: impl Into<Arc<str>>) -> Self {
        self.instance = instance.into();
        self
    }
}

/// One partition handed to a member, with all it needs to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Partition of every input, and of the state.
    pub partition: u32,
    /// Where reading goes on, one per input topic, in the order of [`StageSpec::inputs`].
    pub positions: Vec<Position>,
    /// The state committed for this partition; empty without a changelog.
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a poll gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Polled {
    /// These partitions are now this member's.
    Assigned(Vec<Assignment>),
    /// These partitions are no longer this member's: what it holds for them in memory is void.
    Revoked(Vec<u32>),
    /// Records of assigned partitions, at least one. Those of one topic and partition are in
    /// offset order; between partitions there is no order.
    Records(Vec<Record>),
    /// Nothing came within the time-out.
    Idle {
        /// Whether every assigned input was read to its end (true also with nothing assigned).
        caught_up: bool,
    },
}

/// A change of a stage's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDelta {
    /// Partition of the state; must be assigned.
    pub partition: u32,
    /// Key.
    pub key: Vec<u8>,
    /// New value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// One atomic step of a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Records to append.
    pub outputs: Vec<Output>,
    /// State to change; later entries for a key win.
    pub state: Vec<StateDelta>,
    /// Where reading goes on after a restart, for the inputs that moved. Offsets never go back.
    pub offsets: Vec<Position>,
}

impl Step {
    /// Whether the step does nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.state.is_empty() && self.offsets.is_empty()
    }
}

/// Proof that a step is durable. A reader on Kafka may see it a moment later, but never in parts of
/// one partition, and the stage itself always starts from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Number of the step. It rises with every step of a member and goes on over restarts. It is
    /// stored with the offsets, so that after a doubtful commit one can tell whether it happened
    /// even when no offset moved.
    pub number: u64,
}

/// What a trim did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Records removed. On Kafka, the offsets passed, which include transaction marks.
    pub records: u64,
    /// Bytes of keys and values removed; 0 on Kafka, which does not say.
    pub bytes: u64,
    /// Where retention wanted to go further but a stage has not committed: what is named here
    /// grows until that stage goes on or is forgotten ([`Log::forget_stage`]).
    pub held: Vec<Held>,
}

/// A stage that retention waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The stage that has not committed.
    pub stage: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Its committed offset, or the first offset when it has committed nothing yet.
    pub committed: u64,
}

/// A log: topics of ordered partitions, groups that read them, and their state.
pub trait Log: Send + Sync {
    /// Creates the topics that are missing and applies a changed clean-up.
    ///
    /// # Errors
    /// [`LogError::PartitionsChanged`] when a topic exists with another partition count, with the
    /// remedy; nothing is created then. A change between delete and compact is refused as well.
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError>;

    /// Names and partition counts of all topics, in name order.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, LogError>;

    /// Number of partitions of a topic.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], or when the log cannot be read.
    fn partitions(&self, topic: &str) -> Result<u32, LogError>;

    /// Opens a writer outside any group. `name` appears in traces and on the broker.
    ///
    /// # Errors
    /// When the log cannot be reached.
    fn appender(&self, name: &str) -> Result<Box<dyn Appender>, LogError>;

    /// Joins a group, and registers it: retention waits for it from now on, until
    /// [`Log::forget_stage`]. A new group starts at the first offset.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], or [`LogError::Invalid`] when the inputs differ in partition
    /// count or two members share an instance.
    fn stage(&self, spec: StageSpec) -> Result<Box<dyn StageLog>, LogError>;

    /// Reads committed records outside any group.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::UnknownPartition`], or when the log cannot be read.
    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError>;

    /// First offset kept and end (exclusive) of the committed records of a partition.
    ///
    /// # Errors
    /// As [`Log::read`].
    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError>;

    /// Next offset that a stage has committed for an input, `None` before its first commit there.
    ///
    /// # Errors
    /// As [`Log::read`].
    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError>;

    /// Applies every topic's clean-up as of `now_us` (microseconds since the Unix epoch). It never
    /// removes a record that a registered stage has not committed past.
    ///
    /// # Errors
    /// When the log cannot be written.
    fn trim(&self, now_us: i64) -> Result<Trimmed, LogError>;

    /// Forgets a stage that is gone for good: its offsets and its state. Retention no longer
    /// waits for it.
    ///
    /// # Errors
    /// [`LogError::Invalid`] while a member is running.
    fn forget_stage(&self, stage: &str) -> Result<(), LogError>;
}

/// A writer outside any group.
pub trait Appender: Send {
    /// Appends all records and returns their offsets, in the order given, once they are durable.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] before anything is written. On any other error, on Kafka, some of
    /// the records may have been written and may be written twice when tried again (frames carry
    /// sequence numbers for that); the embedded log writes all or none.
    fn append(&mut self, records: Vec<Output>) -> Result<Vec<u64>, LogError>;
}

/// A member of a group.
pub trait StageLog: Send {
    /// Waits up to `timeout` for the next thing to happen.
    ///
    /// # Errors
    /// A retryable error leaves the member usable: poll again after a pause.
    fn poll(&mut self, timeout: Duration) -> Result<Polled, LogError>;

    /// One atomic step: outputs, state and offsets become visible and durable together, or not at
    /// all.
    ///
    /// # Errors
    /// [`CommitError::Aborted`] and [`CommitError::Fenced`]: what is held in memory is void, and the
    /// next polls revoke and assign anew. [`CommitError::Fatal`]: give up.
    fn commit(&mut self, step: Step) -> Result<Committed, CommitError>;

    /// Gives up everything polled since the last commit: the next polls revoke all partitions and
    /// assign them anew. For a stage whose own work failed.
    ///
    /// # Errors
    /// When the log cannot be reached.
    fn rewind(&mut self) -> Result<(), LogError>;

    /// Goes on at other positions than the committed ones, for a stage that keeps its offsets
    /// elsewhere (in a Delta commit). Only directly after [`Polled::Assigned`].
    ///
    /// # Errors
    /// [`LogError::Invalid`] when a position is not assigned.
    fn seek(&mut self, positions: &[Position]) -> Result<(), LogError>;
}
