//! The key of a profile: tenant, model version, pane and base cell.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Profile;
use crate::source::{ATTRIBUTES, Origin};

/// Values of [`ATTRIBUTES`], in that order: the finest cohort there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cell {
    /// One value per attribute; empty where it was not declared.
    pub values: [Arc<str>; ATTRIBUTES.len()],
    /// How often the devices mean to report, seconds; 0 where they did not say. Part of the key
    /// because a window waits longer for devices that report rarely.
    pub cadence_s: u32,
}

impl Cell {
    /// The cell of an origin.
    pub fn of(origin: &Origin) -> Self {
        Self {
            values: origin.attributes().map(Arc::from),
            cadence_s: origin.cadence_s,
        }
    }

    /// Value of an attribute by its name.
    pub fn get(&self, attribute: &str) -> Option<&str> {
        let index = ATTRIBUTES.iter().position(|name| *name == attribute)?;
        Some(&self.values[index])
    }
}

/// What a profile is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProfileKey {
    /// Owner.
    pub tenant: Arc<str>,
    /// Model name.
    pub model: Arc<str>,
    /// Model version.
    pub version: Arc<str>,
    /// Start of the pane, microseconds of event time, a multiple of its length.
    pub pane_start_us: i64,
    /// Length of the pane, microseconds.
    pub pane_length_us: i64,
    /// Base cell.
    pub cell: Cell,
}

/// One profile with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellProfile {
    /// What it is of.
    pub key: ProfileKey,
    /// The summary.
    pub profile: Profile,
}

/// Start of the pane of length `length_us` (above 0) that an event time falls into.
pub fn pane_start_us(event_time_us: i64, length_us: i64) -> i64 {
    // At the very beginning of time there is no whole pane.
    event_time_us
        .div_euclid(length_us)
        .saturating_mul(length_us)
}
