//! Which devices a profile rests on, in bounded memory, exactly mergeable.
//!
//! Rows of one device are alike, so what a window is worth depends on how many devices it has and
//! how its rows are spread over them. The sample keeps the rows per device of the devices with the
//! smallest hashes (a bottom-k sketch, Cohen and Kaplan 2007): a device that is among the k
//! smallest of the merged whole is among the k smallest of every part that it occurs in, so its
//! count is exact, and merging is commutative and associative.

use std::collections::BTreeMap;

use crate::limits::PROFILE_DEVICES_MAX;

/// Rows per device, for the [`PROFILE_DEVICES_MAX`] devices with the smallest hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceSample {
    rows: BTreeMap<u64, u64>,
    /// Whether devices were left out at any time; then counts are estimated.
    truncated: bool,
}

impl DeviceSample {
    /// Counts rows of a device.
    pub fn add(&mut self, device_hash: u64, rows: u64) {
        *self.rows.entry(device_hash).or_default() += rows;
        self.shrink();
    }

    /// Adds what another sample counted.
    pub fn merge(&mut self, other: &Self) {
        for (&device, &rows) in &other.rows {
            *self.rows.entry(device).or_default() += rows;
        }
        self.truncated |= other.truncated;
        self.shrink();
    }

    /// Takes back what a part counted; a device without rows is no longer there.
    pub fn subtract(&mut self, part: &Self) {
        for (device, rows) in &part.rows {
            if let Some(mine) = self.rows.get_mut(device) {
                *mine = mine.saturating_sub(*rows);
            }
        }
        self.rows.retain(|_, rows| *rows > 0);
    }

    fn shrink(&mut self) {
        while self.rows.len() > PROFILE_DEVICES_MAX {
            self.rows.pop_last();
            self.truncated = true;
        }
    }

    /// The devices of the sample with their rows, by hash.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.rows.iter().map(|(&device, &rows)| (device, rows))
    }

    /// Whether the sample leaves devices out.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Rebuilds a sample from its parts (decoding).
    pub(super) fn from_parts(rows: BTreeMap<u64, u64>, truncated: bool) -> Self {
        let mut sample = Self { rows, truncated };
        sample.shrink();
        sample
    }

    /// Number of devices: exact up to the bound, beyond it estimated by `(k − 1) / U(k)` where U(k)
    /// is the k-th smallest hash as a share of the range (Bar-Yossef et al. 2002).
    pub fn count(&self) -> f64 {
        match self.rows.last_key_value() {
            Some((&last, _)) if self.truncated => {
                (self.rows.len() as f64 - 1.0) / ((last as f64 + 1.0) / 2f64.powi(64))
            }
            _ => self.rows.len() as f64,
        }
    }

    /// Effective number of devices, `(Σ rows)² / Σ rows²` (Kish 1965), scaled up to [`Self::count`]:
    /// what the devices would be worth if each had sent as many rows.
    pub fn effective(&self) -> f64 {
        let (sum, squares) = self
            .rows
            .values()
            .fold((0.0, 0.0), |(sum, squares), &rows| {
                let rows = rows as f64;
                (sum + rows, squares + rows * rows)
            });
        if squares == 0.0 {
            return 0.0;
        }
        sum * sum / squares * (self.count() / self.rows.len() as f64)
    }
}
