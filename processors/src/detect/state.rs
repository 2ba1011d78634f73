//! Keys and values of the changelog.
//!
//! Keys are JSON, so that a person can read them; values are JSON but for profiles, which have
//! their own encoding.

use std::sync::Arc;

use driftline_log::StateDelta;
use driftline_schemas::measure::{Cohort, Finding};
use driftline_schemas::profile::Cell;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A model version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct ModelId {
    pub(super) tenant: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) version: Arc<str>,
}

/// A cell and the layout of its profiles.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CellKey {
    pub(super) layout: u64,
    pub(super) cell: Arc<Cell>,
}

/// A key of the changelog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Key {
    /// Configuration in force for windows that start at this time or later.
    Config(i64),
    /// How far an input partition has come.
    Watermark(u32),
    /// A cell of the window that starts at this time: an encoded profile.
    Cell(ModelId, i64, CellKey),
    /// What was said of a window's measures: [`Judged`].
    Judged(ModelId, i64),
    /// What was said of a finding's key in a window: [`Said`].
    Said(ModelId, i64, String),
    /// First window that may still be judged again.
    Cutoff(ModelId),
    /// The fold's streams of a cohort before the cut-off.
    Streams(ModelId, Cohort),
    /// The fold's streams of a cell before the cut-off.
    Cells(ModelId, Arc<Cell>),
    /// The fold's open stories before the cut-off.
    Stories(ModelId),
    /// Since when each cell was there at the cut-off.
    Arrivals(ModelId),
}

/// The last word on a window's measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Judged {
    pub(super) revision: u32,
    pub(super) digest: u64,
    /// Hash of the reference that the window was compared with; absent before references could be
    /// promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<u64>,
}

/// The last word on a finding's key in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Said {
    /// What is material about it; while it stays, nothing is said again.
    pub(super) material: String,
    pub(super) finding: Finding,
}

/// A change of the state; `None` removes the key.
pub(super) fn delta<T: Serialize>(partition: u32, key: &Key, value: Option<&T>) -> StateDelta {
    let bytes = |value: &T| serde_json::to_vec(value).unwrap_or_default();
    raw(partition, key, value.map(bytes))
}

/// The same with a value that is bytes already.
pub(super) fn raw(partition: u32, key: &Key, value: Option<Vec<u8>>) -> StateDelta {
    StateDelta {
        partition,
        // Strings and integers always have a JSON form.
        key: serde_json::to_vec(key).unwrap_or_default(),
        value,
    }
}

/// Reads a value of the changelog.
pub(super) fn value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| {
        format!(
            "state cannot be read: {error}; it was written by another version, update driftline"
        )
    })
}
