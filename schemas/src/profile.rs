//! The profile: a commutative, exactly mergeable summary of a model's signals.
//!
//! A profile holds, per signal, counts in bins whose edges the bundle fixes, counts of what cannot
//! be binned, minimum and maximum, and the exact sums of the quantised values and of their squares.
//! All of it is integers, so any split, order and grouping of the same rows merges to the same
//! bytes. Counts and sums subtract as well; minimum and maximum do not.
//!
//! # Layout of this module
//!
//! - here: [`Layout`], [`Profile`], merging and subtracting
//! - [`batch`]: what the profile stage appends: partial profiles and watermarks
//! - [`binning`]: from quantised values to bins, fast
//! - [`codec`]: the bytes of profiles, as they travel and rest
//! - [`devices`]: which devices a profile rests on
//! - [`groups`]: whole columns into many profiles at once
//! - [`cell`]: the key of a profile: model, pane and cohort
//! - [`mod@reference`]: the profiles that the present is compared with

pub mod batch;
pub mod binning;
pub mod cell;
pub mod codec;
pub mod devices;
pub mod groups;
pub mod reference;

use serde::{Deserialize, Serialize};

use crate::bundle::{FeatureType, Signal};
use crate::limits::EDGES_MAX;
use crate::quantity;
pub use binning::Binner;
pub use cell::{Cell, CellProfile, ProfileKey};
pub use devices::DeviceSample;
pub use reference::Reference;

/// Why two profiles, or a profile and its bytes, do not go together.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ProfileError {
    /// The profiles were made with different edges or signals.
    #[error(
        "profiles of layout {left:016x} and {right:016x} do not compare: profile the reference again from the lake's rows, or pack the new version with `--edges-from` the old one"
    )]
    LayoutDiffers {
        /// Digest of one layout.
        left: u64,
        /// Digest of the other.
        right: u64,
    },
    /// What is subtracted was not part of the profile.
    #[error("signal {signal}: more is subtracted than is there")]
    NotContained {
        /// Index of the signal.
        signal: usize,
    },
    /// A signal's edges cannot be.
    #[error("signal {signal:?}: {problem}")]
    Edges {
        /// Name of the signal.
        signal: String,
        /// What is wrong.
        problem: String,
    },
    /// The bytes are no profile.
    #[error("profile bytes at {at}: {problem}")]
    Bytes {
        /// Offset of what is wrong.
        at: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

/// How one signal is binned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalLayout {
    /// The signal.
    #[serde(flatten)]
    pub signal: Signal,
    /// Numeric: rising edges in quantised units; value `v` is in bin `i` when
    /// `edges[i-1] < v <= edges[i]`, so there is one bin more than edges. Empty for categories,
    /// whose code is their bin.
    pub edges: Vec<i32>,
}

impl SignalLayout {
    /// Number of bins.
    pub fn bins(&self) -> usize {
        match &self.signal.kind {
            FeatureType::Numeric { .. } => self.edges.len() + 1,
            FeatureType::Categorical { categories } => categories.len(),
        }
    }

    /// Whether values are numbers.
    pub fn is_numeric(&self) -> bool {
        matches!(self.signal.kind, FeatureType::Numeric { .. })
    }

    /// Unit of last place; 1 for categories.
    pub fn resolution(&self) -> f64 {
        match self.signal.kind {
            FeatureType::Numeric { resolution, .. } => resolution,
            FeatureType::Categorical { .. } => 1.0,
        }
    }

    /// Least and greatest plausible quantised value.
    pub fn range(&self) -> Option<(i32, i32)> {
        match self.signal.kind {
            FeatureType::Numeric {
                resolution,
                range: Some([low, high]),
                ..
            } => Some((
                quantity::quantise(low, resolution),
                quantity::quantise(high, resolution),
            )),
            _ => None,
        }
    }
}

/// How all signals of a model version are binned. Profiles of one layout merge and compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    signals: Vec<SignalLayout>,
    digest: u64,
}

impl Layout {
    /// Checks the edges and takes the digest.
    ///
    /// # Errors
    /// [`ProfileError::Edges`] when edges are too many, do not rise, or stand on a category.
    pub fn new(signals: Vec<SignalLayout>) -> Result<Self, ProfileError> {
        for layout in &signals {
            let problem = if layout.edges.len() > EDGES_MAX {
                format!("at most {EDGES_MAX} edges")
            } else if layout.edges.windows(2).any(|pair| pair[0] >= pair[1]) {
                "edges must rise".into()
            } else if !layout.is_numeric() && !layout.edges.is_empty() {
                "a category has no edges".into()
            } else {
                continue;
            };
            return Err(ProfileError::Edges {
                signal: layout.signal.name.clone(),
                problem,
            });
        }
        let digest = codec::layout_digest(&signals);
        Ok(Self { signals, digest })
    }

    /// The signals, in the order of [`Profile::signals`].
    pub fn signals(&self) -> &[SignalLayout] {
        &self.signals
    }

    /// Index and layout of a signal by its name.
    pub fn signal(&self, name: &str) -> Option<(usize, &SignalLayout)> {
        self.signals
            .iter()
            .enumerate()
            .find(|(_, layout)| layout.signal.name == name)
    }

    /// Hash over names, types, resolutions, categories and edges; equal layouts have equal digests.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

/// Summary of one signal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignalProfile {
    /// Rows per bin.
    pub bins: Vec<u64>,
    /// Rows without a value.
    pub nulls: u64,
    /// Rows with NaN or an infinity.
    pub non_finite: u64,
    /// Rows with a category that the bundle does not list.
    pub unseen: u64,
    /// Numeric rows outside the declared range; they are binned as well.
    pub out_of_range: u64,
    /// Least quantised value; `None` before the first.
    pub min: Option<i32>,
    /// Greatest quantised value.
    pub max: Option<i32>,
    /// Sum of the quantised values of the binned rows (0 for categories).
    pub sum: i128,
    /// Sum of their squares (0 for categories).
    pub sum_squares: u128,
}

impl SignalProfile {
    /// Nothing counted yet, for a number of bins.
    pub fn empty(bins: usize) -> Self {
        Self {
            bins: vec![0; bins],
            ..Self::default()
        }
    }

    /// Rows in bins.
    pub fn binned(&self) -> u64 {
        self.bins.iter().sum()
    }

    /// All rows that had this signal, binned or not.
    pub fn rows(&self) -> u64 {
        self.binned() + self.nulls + self.non_finite + self.unseen
    }

    /// Mean of the binned values in the signal's unit.
    pub fn mean(&self, resolution: f64) -> Option<f64> {
        let rows = self.binned();
        (rows > 0).then(|| self.sum as f64 / rows as f64 * resolution)
    }

    /// Variance of the binned values (divided by n) in the signal's unit squared.
    pub fn variance(&self, resolution: f64) -> Option<f64> {
        let rows = u128::from(self.binned());
        if rows == 0 {
            return None;
        }
        // n·Σx² − (Σx)² in integers does not cancel; where it does not fit, floats have to do.
        let exact = rows
            .checked_mul(self.sum_squares)
            .zip(self.sum.unsigned_abs().checked_pow(2))
            .map(|(squares, square)| squares.saturating_sub(square) as f64);
        let spread = exact.unwrap_or(
            rows as f64 * self.sum_squares as f64 - (self.sum as f64) * (self.sum as f64),
        );
        let n = rows as f64;
        Some((spread / (n * n)).max(0.0) * resolution * resolution)
    }

    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            *mine += theirs;
        }
        self.nulls += other.nulls;
        self.non_finite += other.non_finite;
        self.unseen += other.unseen;
        self.out_of_range += other.out_of_range;
        self.min = match (self.min, other.min) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.sum_squares += other.sum_squares;
    }

    /// `self − other`, keeping this profile's minimum and maximum, which do not subtract.
    fn subtract(&mut self, other: &Self) -> Option<()> {
        for (mine, theirs) in self.bins.iter_mut().zip(&other.bins) {
            *mine = mine.checked_sub(*theirs)?;
        }
        self.nulls = self.nulls.checked_sub(other.nulls)?;
        self.non_finite = self.non_finite.checked_sub(other.non_finite)?;
        self.unseen = self.unseen.checked_sub(other.unseen)?;
        self.out_of_range = self.out_of_range.checked_sub(other.out_of_range)?;
        self.sum -= other.sum;
        self.sum_squares = self.sum_squares.checked_sub(other.sum_squares)?;
        Some(())
    }
}

/// Summary of all signals of a model for one cohort and one span of event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Digest of the [`Layout`] that this was made with.
    pub layout: u64,
    /// Inference rows (rows that only bring truth are not counted here).
    pub rows: u64,
    /// The devices that the rows came from.
    pub devices: DeviceSample,
    /// One summary per signal of the layout.
    pub signals: Vec<SignalProfile>,
}

impl Profile {
    /// Nothing counted yet.
    pub fn empty(layout: &Layout) -> Self {
        Self {
            layout: layout.digest(),
            rows: 0,
            devices: DeviceSample::default(),
            signals: layout
                .signals()
                .iter()
                .map(|signal| SignalProfile::empty(signal.bins()))
                .collect(),
        }
    }

    /// Adds what another profile of the same layout counted. Commutative and associative, exactly.
    ///
    /// # Errors
    /// [`ProfileError::LayoutDiffers`]; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), ProfileError> {
        self.same_layout(other)?;
        self.rows += other.rows;
        self.devices.merge(&other.devices);
        for (mine, theirs) in self.signals.iter_mut().zip(&other.signals) {
            mine.merge(theirs);
        }
        Ok(())
    }

    /// This profile without the rows of another that is part of it ("what if this site were left
    /// out?"). Minimum, maximum and the device sample of the whole are kept where they cannot be
    /// taken back.
    ///
    /// # Errors
    /// [`ProfileError::LayoutDiffers`], or [`ProfileError::NotContained`] when the other was never
    /// part of this one.
    pub fn without(&self, other: &Self) -> Result<Self, ProfileError> {
        self.same_layout(other)?;
        let mut rest = self.clone();
        rest.rows = rest
            .rows
            .checked_sub(other.rows)
            .ok_or(ProfileError::NotContained { signal: 0 })?;
        rest.devices.subtract(&other.devices);
        for (signal, (mine, theirs)) in rest.signals.iter_mut().zip(&other.signals).enumerate() {
            mine.subtract(theirs)
                .ok_or(ProfileError::NotContained { signal })?;
        }
        Ok(rest)
    }

    /// Whether this was made with a layout, down to the number of bins of each signal.
    pub fn fits(&self, layout: &Layout) -> bool {
        self.layout == layout.digest()
            && self.signals.len() == layout.signals().len()
            && self
                .signals
                .iter()
                .zip(layout.signals())
                .all(|(signal, layout)| signal.bins.len() == layout.bins())
    }

    fn same_layout(&self, other: &Self) -> Result<(), ProfileError> {
        if self.layout == other.layout && self.signals.len() == other.signals.len() {
            Ok(())
        } else {
            Err(ProfileError::LayoutDiffers {
                left: self.layout,
                right: other.layout,
            })
        }
    }
}
