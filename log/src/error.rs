//! What can go wrong, whose fault it is, and whether trying again helps.

use std::sync::Arc;

use crate::limits;

/// An error of the log.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The topic does not exist.
    #[error("topic {topic} does not exist: create it with ensure_topics before it is used")]
    UnknownTopic {
        /// Its name.
        topic: Arc<str>,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic} has {partitions} partitions, so there is no partition {partition}")]
    UnknownPartition {
        /// Topic.
        topic: Arc<str>,
        /// Partition asked for.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A topic's partition count may not change, because a device's partition never changes.
    #[error(
        "topic {topic} has {existing} partitions but {wanted} are configured: keep {existing} in \
         the configuration, or start with an empty log (another data folder, another topic prefix)"
    )]
    PartitionsChanged {
        /// Topic.
        topic: Arc<str>,
        /// Count on the log.
        existing: u32,
        /// Count asked for.
        wanted: u32,
    },
    /// A record is larger than the log takes.
    #[error(
        "a record of {bytes} bytes for topic {topic} is over the limit of {limit} bytes: send it in \
         smaller pieces"
    )]
    TooLarge {
        /// Topic.
        topic: Arc<str>,
        /// Size of key and value.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// What was asked for makes no sense; the caller's fault.
    #[error("{what}")]
    Invalid {
        /// What is wrong and how to put it right.
        what: String,
    },
    /// Another process holds the embedded log.
    #[error(
        "the log in {path} is in use by another process: roles in separate processes need Kafka \
         (set [log] kafka = \"host:port\"); commands reach the running serve through its control \
         endpoint"
    )]
    Locked {
        /// Folder of the log.
        path: String,
    },
    /// The log on disk was written in a format that this version does not know.
    #[error(
        "the log in {path} has format version {found}, this build reads {supported}: use the \
         version of driftline that wrote it, or a newer one"
    )]
    Format {
        /// Folder of the log.
        path: String,
        /// Version found.
        found: u32,
        /// Version known.
        supported: u32,
    },
    /// The storage or the broker failed; nothing was acknowledged.
    #[error("{what}")]
    Storage {
        /// What happened, where, and what to do.
        what: String,
        /// Whether trying the same again later can succeed.
        retryable: bool,
    },
    /// The log was shut down.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// Whether trying the same again later can succeed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Storage {
                retryable: true,
                ..
            }
        )
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(crate) fn storage(what: impl Into<String>, retryable: bool) -> Self {
        Self::Storage {
            what: what.into(),
            retryable,
        }
    }

    pub(crate) fn too_large(topic: &Arc<str>, bytes: usize) -> Self {
        Self::TooLarge {
            topic: Arc::clone(topic),
            bytes,
            limit: limits::RECORD_BYTES_MAX,
        }
    }
}

/// Why a step is not known to have happened. What truly happened shows in the next assignment: all
/// of the step or nothing of it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The step was rolled back, or its outcome is unknown. What the stage holds in memory is void; poll again, after a
    /// pause, for a fresh assignment.
    #[error("the step was aborted: {0}")]
    Aborted(LogError),
    /// The partitions belong to another member by now. Poll again for what is left.
    #[error("the step was refused because its partitions were taken over: {0}")]
    Fenced(String),
    /// Trying again cannot help.
    #[error("the step failed for good: {0}")]
    Fatal(LogError),
}
