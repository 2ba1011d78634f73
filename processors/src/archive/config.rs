//! Configuration of the archive stage.

use driftline_schemas::units::{Size, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How topics go to the lake. A commit per topic is made when any of the bounds is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// Longest time, on the wall, that rows wait for company: shorter makes them visible sooner and
    /// makes more and smaller files.
    pub linger: Span,
    /// Rows of a topic that are held at most.
    pub rows_max: usize,
    /// Bytes of a topic's records that are held at most; in memory rows take a few times that.
    pub bytes_max: Size,
    /// Rows older than this when they were received are marked as late: they are in no profile. Make
    /// it what it is for the profile stage.
    pub max_age: Span,
    /// A table is compacted after this many commits of this process; 0 leaves it to others.
    pub compact_commits: u32,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            linger: Span::from_secs(5),
            rows_max: 500_000,
            bytes_max: Size(32 << 20),
            max_age: Span::from_days(7),
            compact_commits: 240,
        }
    }
}

impl ArchiveConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// The field, what is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        if self.rows_max == 0 || self.bytes_max.0 == 0 {
            return Err("rows_max and bytes_max must be above 0".into());
        }
        Ok(())
    }
}
