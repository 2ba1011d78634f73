//! How far a row's numbers together are from where training had them: the signal `joint`.
//!
//! A bundle that was packed with it has, beside the signals that each look at one quantity, one that
//! looks at the numeric features together: the squared Mahalanobis distance (1936) of a row from the
//! mean of the training data at its hour of the day, under their covariance about that mean, divided by the
//! number of features. Over the training data it is 1 on average. What the day does to all of them is no
//! relation of theirs, so it is taken out first, where training tells the hours apart. A correlation that turns round while every feature by itself stays as
//! it was makes rows lie far out, and the signal rises.
//!
//! # The same integer everywhere
//!
//! ```text
//! y_j = Σ_{i ≤ j} w_ji (256 x_i − c_i(h))    joint = round(Σ_j y_j² / n / 0.001)
//! ```
//!
//! `x` are the integers that travel ([`crate::quantity`]), so every place that counts rows has the same:
//! the profile stage, a device that makes profiles, packing, references from the lake, SQL. `h` is the hour (UTC) of the
//! event time, `c` are integers, `w` (the inverse of the covariance's Cholesky factor) 32-bit floats, both out of the bundle and under its
//! digest. What is left is differences, products and sums of 64-bit floats in the order written here and one
//! division: IEEE 754 rounds each of them correctly, Rust neither reorders nor fuses them, and no function
//! of a mathematics library takes part. So the value is one integer, in profiles it is counted, merged and
//! subtracted like any other, and [`Joint::values`] may take many rows at once, in the same order per row.
//!
//! # Missing values
//!
//! A row in which one of the features is missing or not finite has no value: it counts as missing, which is
//! not judged, since the feature's own signal says so.

use arrow::buffer::NullBuffer;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::bundle::{FeatureType, Manifest};
use crate::profile::reference::Season;
use crate::quantity;

/// The file of a bundle that has it.
pub const JOINT_FILE: &str = "joint.json";
/// Name of the signal.
pub const JOINT_SIGNAL: &str = "joint";
/// Unit of last place of the signal.
pub const JOINT_RESOLUTION: f64 = 1e-3;
/// Version of [`Joint`] that this code writes.
pub const JOINT_FORMAT: u32 = 1;
/// Most features that are looked at together. A row costs half the square of their number in products,
/// 8,256 of them here; and one pair among them that turns from a correlation of 0.8 to −0.8 moves the distance
/// by 7.1/√(2 n) of its standard deviations, 0.44 here: beyond it, it would sink below what matters to anybody.
pub const JOINT_FEATURES_MAX: usize = 128;
/// Most pairs that are named: findings have to be read.
pub const JOINT_TIES_MAX: usize = 4;
/// Parts of a feature's unit of last place in which its mean is kept.
pub const CENTER_PARTS: i64 = 256;
/// Rows that are taken at once: with [`JOINT_FEATURES_MAX`] features they are 64 KiB, which a core's cache
/// holds.
const BLOCK_ROWS: usize = 64;

/// `[joint]` of `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointSpec {
    /// Names of the numeric features that are looked at together, in the order of [`Joint::features`].
    pub features: Vec<String>,
}

impl JointSpec {
    /// What is wrong with it, for a manifest.
    pub(crate) fn problem(&self, manifest: &Manifest) -> Option<String> {
        let count = self.features.len();
        if !(2..=JOINT_FEATURES_MAX).contains(&count) {
            return Some(format!(
                "looks at 2 to {JOINT_FEATURES_MAX} features together, not {count}"
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = self.features.iter().find(|name| !seen.insert(*name)) {
            return Some(format!("feature {twice:?} is there twice"));
        }
        let all = || manifest.features.iter().chain(&manifest.signals);
        if all().any(|feature| feature.name == JOINT_SIGNAL) {
            return Some(format!(
                "a feature or signal is called {JOINT_SIGNAL:?}: name it otherwise, or pack without --joint"
            ));
        }
        let numeric = |name: &&String| {
            let mut features = manifest.features.iter();
            features.any(|feature| {
                feature.name == **name && matches!(feature.kind, FeatureType::Numeric { .. })
            })
        };
        let other = self.features.iter().find(|name| !numeric(name))?;
        Some(format!("{other:?} is no numeric feature"))
    }
}

/// One feature that is looked at with the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointFeature {
    /// Its name.
    pub name: String,
    /// Its position among the manifest's features, from 0.
    pub at: usize,
    /// Its unit of last place.
    pub resolution: f64,
    /// Its mean in training in each slot of the season, in [`CENTER_PARTS`]ths of the unit of last place.
    pub centers: Vec<i64>,
}

/// Two features that went together in training, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tie {
    /// Index into [`Joint::features`].
    pub a: usize,
    /// Index of the other.
    pub b: usize,
    /// Their correlation in training, to three places.
    pub correlation: f64,
}

/// What the signal is computed with: the bundle's [`JOINT_FILE`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joint {
    /// [`JOINT_FORMAT`].
    pub format: u32,
    /// Times that have means of their own.
    pub season: Season,
    /// The features, 2 to [`JOINT_FEATURES_MAX`].
    pub features: Vec<JointFeature>,
    /// Row j has j + 1 weights, for the first j + 1 features. 32-bit floats, since they come back from JSON
    /// bit by bit whatever reads it: the nearest decimal of nine digits decides them, and 64-bit parsing errs
    /// in the sixteenth.
    pub weights: Vec<Vec<f32>>,
    /// The pairs that went together most closely, the closest first; at most [`JOINT_TIES_MAX`].
    pub ties: Vec<Tie>,
}

/// Why a [`Joint`] cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{JOINT_FILE}: {0}; pack the bundle again with `driftline model pack --joint`")]
pub struct JointError(pub String);

/// Codes of one feature, and which are missing.
pub type Codes<'a> = (&'a [i32], Option<&'a NullBuffer>);

impl Joint {
    /// The text of [`JOINT_FILE`].
    pub fn to_json(&self) -> String {
        // Strings, integers and finite numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`JointError`] says what is wrong.
    pub fn from_json(bytes: &[u8]) -> Result<Self, JointError> {
        let joint: Self =
            serde_json::from_slice(bytes).map_err(|error| JointError(error.to_string()))?;
        match joint.problem() {
            None => Ok(joint),
            Some(problem) => Err(JointError(problem)),
        }
    }

    fn problem(&self) -> Option<String> {
        let count = self.features.len();
        if self.format != JOINT_FORMAT {
            return Some(format!(
                "it has format {}, this version reads {JOINT_FORMAT}",
                self.format
            ));
        }
        if !(2..=JOINT_FEATURES_MAX).contains(&count) {
            return Some(format!(
                "it looks at {count} features, not 2 to {JOINT_FEATURES_MAX}"
            ));
        }
        let triangle = self.weights.len() == count
            && (1..)
                .zip(&self.weights)
                .all(|(want, row)| row.len() == want);
        if !triangle || self.weights.iter().flatten().any(|it| !it.is_finite()) {
            return Some("the weights are no triangle of numbers".into());
        }
        let slots = self.season.slots();
        if self.features.iter().any(|it| it.centers.len() != slots) {
            return Some(format!("a feature has not {slots} means"));
        }
        let resolution = |it: &JointFeature| it.resolution.is_finite() && it.resolution > 0.0;
        if !self.features.iter().all(resolution) {
            return Some("a resolution is not above 0".into());
        }
        let tie = |tie: &Tie| tie.a < count && tie.b < count && tie.correlation.is_finite();
        if self.ties.len() > JOINT_TIES_MAX || !self.ties.iter().all(tie) {
            return Some(format!(
                "it names pairs that are not there, or more than {JOINT_TIES_MAX}"
            ));
        }
        None
    }

    /// Checks that it is a manifest's.
    ///
    /// # Errors
    /// [`JointError`] names the feature that differs.
    pub fn check(&self, manifest: &Manifest) -> Result<(), JointError> {
        let named: Vec<&str> = self.features.iter().map(|it| it.name.as_str()).collect();
        let spec = manifest.joint.as_ref().map(|spec| &spec.features);
        if spec.is_none_or(|spec| *spec != named) {
            return Err(JointError("bundle.toml names other features".into()));
        }
        for feature in &self.features {
            let there = manifest.features.get(feature.at);
            let same = there.is_some_and(|it| {
                it.name == feature.name
                    && matches!(it.kind, FeatureType::Numeric { resolution, .. } if resolution == feature.resolution)
            });
            if !same {
                return Err(JointError(format!(
                    "feature {:?} has another place or resolution in bundle.toml",
                    feature.name
                )));
            }
        }
        Ok(())
    }

    /// Hash of all that decides values.
    pub fn digest(&self) -> u64 {
        xxh3_64(self.to_json().as_bytes())
    }

    /// The signal of one row with an event time (microseconds), whose codes `code` gives feature by feature, `None` where one is missing. `None` when one of them is missing or not finite.
    pub fn value(
        &self,
        event_time_us: i64,
        code: impl Fn(&JointFeature) -> Option<i32>,
    ) -> Option<i32> {
        let slot = self.season.slot(event_time_us);
        let mut apart = [0.0; JOINT_FEATURES_MAX];
        for (apart, feature) in apart.iter_mut().zip(&self.features) {
            let code = code(feature).filter(|code| quantity::is_finite(*code))?;
            *apart = feature.apart(slot, code);
        }
        let mut sum = 0.0;
        for weights in &self.weights {
            let mut y = 0.0;
            for (weight, apart) in weights.iter().zip(&apart) {
                y += f64::from(*weight) * apart;
            }
            sum += y * y;
        }
        Some(self.quantised(sum))
    }

    /// The signal of many rows, from their event times (microseconds) and one column per feature of
    /// [`Self::features`], all equally long: to the bit what [`Self::value`] gives for each row.
    pub fn values(&self, event_times_us: &[i64], columns: &[Codes<'_>]) -> Vec<Option<i32>> {
        let rows = event_times_us.len();
        let mut values = Vec::with_capacity(rows);
        let mut apart = vec![[0.0; BLOCK_ROWS]; self.features.len()];
        for first in (0..rows).step_by(BLOCK_ROWS) {
            let length = BLOCK_ROWS.min(rows - first);
            let mut whole = [true; BLOCK_ROWS];
            let mut slots = [0; BLOCK_ROWS];
            for (slot, time) in slots.iter_mut().zip(&event_times_us[first..first + length]) {
                *slot = self.season.slot(*time);
            }
            for ((apart, feature), (codes, nulls)) in
                apart.iter_mut().zip(&self.features).zip(columns)
            {
                let codes = codes[first..first + length].iter().enumerate();
                for (row, code) in codes {
                    whole[row] &= quantity::is_finite(*code)
                        && !nulls.is_some_and(|nulls| nulls.is_null(first + row));
                    apart[row] = feature.apart(slots[row], *code);
                }
            }
            let mut sums = [0.0; BLOCK_ROWS];
            for weights in &self.weights {
                // Rows beside one another, features in order: a row's sum is taken as `value` takes it.
                let mut y = [0.0; BLOCK_ROWS];
                for (weight, apart) in weights.iter().zip(&apart) {
                    let weight = f64::from(*weight);
                    for (y, apart) in y.iter_mut().zip(apart) {
                        *y += weight * apart;
                    }
                }
                for (sum, y) in sums.iter_mut().zip(&y) {
                    *sum += y * y;
                }
            }
            let of_block = sums.iter().zip(whole).take(length);
            values.extend(of_block.map(|(sum, whole)| whole.then(|| self.quantised(*sum))));
        }
        values
    }

    fn quantised(&self, sum: f64) -> i32 {
        quantity::quantise(sum / self.features.len() as f64, JOINT_RESOLUTION)
    }
}

impl JointFeature {
    /// A code less the mean of a slot, in parts of the unit of last place: below 2^41, so exact.
    fn apart(&self, slot: usize, code: i32) -> f64 {
        let center = self.centers.get(slot).copied().unwrap_or_default();
        (CENTER_PARTS * i64::from(code)).saturating_sub(center) as f64
    }
}

#[cfg(test)]
mod tests;
