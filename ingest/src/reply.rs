//! The answer to a request that was taken in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of the answer.
pub const REPLY_VERSION: u32 = 1;

/// What was taken in and what was not. Everything acknowledged is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`REPLY_VERSION`].
    pub version: u32,
    /// What the log has now.
    pub acknowledged: Acknowledged,
    /// What went to the dead letters, which the log has too: sending it again does not help.
    pub rejected: Rejected,
    /// What the device is asked to do; none so far.
    pub directives: Vec<serde_json::Value>,
}

/// What the log has now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Frames; none of them need be kept or sent again.
    pub frames: u64,
    /// Rows, without those rejected (a profile counts as one).
    pub rows: u64,
}

/// What went to the dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Rows.
    pub rows: u64,
    /// The same by reason.
    pub reasons: BTreeMap<String, u64>,
}

impl Default for Reply {
    fn default() -> Self {
        Self {
            version: REPLY_VERSION,
            acknowledged: Acknowledged::default(),
            rejected: Rejected::default(),
            directives: Vec::new(),
        }
    }
}
