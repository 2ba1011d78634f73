//! A stream as it rests in a checkpoint.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::exact;
use super::super::worth::Shares;
use super::{CHANGE_SPANS, Past, Point, Recent, Scatter, Stream};

/// What a checkpoint keeps of a [`Stream`]; its points come from the profiles again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamCheckpoint {
    recent: Vec<(i64, bool)>,
    past: Vec<Past>,
    #[serde(with = "exact")]
    past_windows: f64,
    /// Rows by device, whole numbers.
    past_devices: Vec<(u64, u64)>,
    past_truncated: bool,
    #[serde(with = "exact")]
    past_effective: f64,
    scatter: Vec<[Scatter; CHANGE_SPANS]>,
    since: i64,
}

impl Stream {
    /// What a checkpoint keeps.
    pub fn checkpoint(&self) -> StreamCheckpoint {
        let (devices, truncated, effective) = self.past_devices.entries();
        StreamCheckpoint {
            recent: self
                .recent
                .iter()
                .map(|recent| (recent.window, recent.calm))
                .collect(),
            past: self.past.clone(),
            past_windows: self.past_windows,
            past_devices: devices
                .iter()
                .map(|&(device, rows)| (device, rows as u64))
                .collect(),
            past_truncated: truncated,
            past_effective: effective,
            scatter: self.scatter.clone(),
            since: self.since,
        }
    }

    /// Goes on from a checkpoint. `point` gives the points of the windows that it names, from the
    /// profiles; those that are gone are left out.
    pub fn restore(kept: &StreamCheckpoint, point: impl Fn(i64) -> Option<Arc<Point>>) -> Self {
        Self {
            recent: kept
                .recent
                .iter()
                .filter_map(|&(window, calm)| {
                    Some(Recent {
                        window,
                        calm,
                        point: point(window)?,
                    })
                })
                .collect(),
            past: kept.past.clone(),
            past_windows: kept.past_windows,
            past_devices: Shares::from_entries(
                kept.past_devices
                    .iter()
                    .map(|&(device, rows)| (device, rows as f64))
                    .collect(),
                kept.past_truncated,
                kept.past_effective,
            ),
            scatter: kept.scatter.clone(),
            since: kept.since,
        }
    }
}
