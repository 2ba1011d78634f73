//! What a window of telemetry is worth, learned from reference rows, and the one test that is held
//! against the alarm budget.
//!
//! Rows of one device are alike, neighbours in time are alike, and all devices share the weather,
//! so n rows are worth fewer, by an amount that differs from signal to signal. The calibrator
//! learns it from profiles of the reference rows, one per (device, hour), and keeps it with the
//! bundle.
//!
//! # The model
//!
//! Every signal is looked at through a few *scores*: numbers that are linear in the shares of its
//! bins, so they come from profiles, add over panes, and a single value can move them by no more
//! than its share of the rows ([`ScoreKind`]). The mean score of device d in window t is
//!
//! ```text
//! y(d,t) = reference(season of t) + a(d) + u(t) + e(d,t) + rows' scatter / n
//! ```
//!
//! with `a` what a device is by nature, `u` what all devices share in a window once the season is
//! out, and `e` what a device does for a while. [`Learner`] estimates the variance of each, `u` and
//! `e` at several lengths of time (batch means), since neighbours in time resemble one another.
//! A cohort's mean over a span then has the variance
//!
//! ```text
//! V = σ²_device Σ(w_d − r_d)² + σ²_shared(span) + σ²_own(span) Σ w_d² + σ²_row (1/n + 1/m)
//! ```
//!
//! where `m` are the reference's rows, `w` and `r` are the devices' shares of the cohort's and of the reference's rows: a device
//! that the reference knows explains part of itself. The test is Student's with the degrees of
//! freedom of that sum (Satterthwaite 1946), and for shares the signed root of the deviance in its
//! place, whose tail stays right where counts are few.
//!
//! # Layout
//!
//! - here: [`Calibration`], what is learned, as it rests in the bundle
//! - [`foreseen`]: the score of a confidence that says how often the model is wrong
//! - `scores`: which scores a signal has, and their means from a profile
//! - `learn`: [`Learner`], variance components from the reference's rows
//! - `worth`: [`Worth`], V for a cohort and a span
//! - `judge`: [`judge()`] and [`Comparison`], one window against the reference
//! - `fold`: [`Stream`], the same over windows in event-time order
//! - [`exact`]: floats that come back from JSON bit by bit
//! - `budget`: [`Budget`], the p-value that a month's alarms leave to one window of one stream

mod budget;
pub mod exact;
mod fold;
pub mod foreseen;
mod judge;
mod learn;
mod scores;
mod worth;

use driftline_schemas::bundle::SignalRole;
use serde::{Deserialize, Serialize};

pub use budget::{Budget, SmallestEffect, stream_weight};
pub use fold::{
    Against, CALM_P, CohortSpans, LAG_WINDOWS, Point, Stream, StreamCheckpoint, StreamVerdict,
    Terms, Total,
};
pub use foreseen::ErrorsByConfidence;
pub use judge::{Comparison, Effect, EffectUnit, judge};
pub use learn::{LEARN_CELLS_MAX, Learner, UNNAMED_DEVICE, Unlearned};
pub use scores::{Deviation, Deviations, Expectations, ScoreKind, deviations};
pub use worth::{Shares, Worth};

/// Version of [`Calibration`] that this code writes.
pub const CALIBRATION_FORMAT: u32 = 1;

/// Lengths of time, in reference windows, at which batch means are taken: up to a day, since what
/// repeats daily is the season's to explain.
pub const SPANS: [u32; 5] = [1, 2, 4, 8, 24];

/// Intraclass correlation over devices that is assumed where the reference's rows do not tell
/// devices apart: a tenth of a signal's variance is the device. Deliberately on the large side.
pub const DEFAULT_DEVICE_ICC: f64 = 0.1;
/// Share of a signal's variance that all devices of a window are assumed to share where the
/// reference's rows have no time.
pub const DEFAULT_SHARED_ICC: f64 = 0.02;
/// Share of a signal's variance that is assumed to last for a device's whole window where the
/// reference's rows tell neither devices nor times.
pub const DEFAULT_OWN_ICC: f64 = 0.1;

/// Why a calibration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalibrationError {
    /// The text is no calibration.
    #[error(
        "calibration.json cannot be read: {0}; pack the bundle again with `driftline model pack`"
    )]
    Syntax(String),
    /// It has another version.
    #[error(
        "calibration.json has format {0}, this version reads {CALIBRATION_FORMAT}: update driftline, or pack the bundle again"
    )]
    Format(u32),
    /// It was learned for other bins.
    #[error(
        "calibration.json is for layout {calibration:016x}, the profiles have {profile:016x}: pack the bundle again, so that both come from the same edges"
    )]
    LayoutDiffers {
        /// Layout of the calibration.
        calibration: u64,
        /// Layout of the profile.
        profile: u64,
    },
}

/// A variance that was learned, and from how much.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// The variance that is used, in squared units of the score.
    pub variance: f64,
    /// Degrees of freedom of its estimate; [`ASSUMED_DEGREES`] for a stated default.
    pub degrees: f64,
}

/// Degrees of freedom of a variance that was assumed, not learned: few, so that tests that rest on
/// it are slow to believe.
pub const ASSUMED_DEGREES: f64 = 8.0;

/// What lasts for a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SpanVariance {
    /// Length in reference windows ([`Calibration::window_us`]).
    pub windows: u32,
    /// Variance of the mean, over the span, of what all devices share after the season is out.
    /// Includes what the season's own estimate is off by.
    pub shared: Component,
    /// Variance of the mean, over the span, of what one device does for a while, without the
    /// scatter of its rows.
    pub own: Component,
}

/// What was learned about one score of a signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreCalibration {
    /// Which score.
    pub kind: ScoreKind,
    /// Score of a row in each bin; empty for the rates, which count what is in no bin.
    pub weights: Vec<f64>,
    /// Mean over the whole reference.
    pub mean: f64,
    /// Variance of one row's score about the mean of its time of the season, on average over the
    /// season; what is learned below is for a time of this variance, and scales with it.
    pub slot_variance: f64,
    /// Variance of one row's score about the mean of its device and window.
    pub row_variance: f64,
    /// Variance between devices.
    pub device: Component,
    /// What lasts, by length of time, shortest first.
    pub spans: Vec<SpanVariance>,
}

/// What was learned about one signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SignalCalibration {
    /// Name of the signal.
    pub signal: String,
    /// Where it comes from; errors are judged one-sided.
    pub role: SignalRole,
    /// Whether its values are numbers.
    pub numeric: bool,
    /// Rows of the reference that had it; without any it cannot be judged.
    pub rows: u64,
    /// Its scores.
    pub scores: Vec<ScoreCalibration>,
}

/// What the calibrator learned from the reference rows: the bundle's `calibration.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// [`CALIBRATION_FORMAT`].
    pub format: u32,
    /// Digest of the layout that the scores' bins belong to, hexadecimal.
    pub layout: String,
    /// Length of the windows that were learned from, microseconds.
    pub window_us: i64,
    /// Devices that were learned from.
    pub devices: u64,
    /// Windows that were learned from.
    pub windows: u64,
    /// One entry per signal of the layout.
    pub signals: Vec<SignalCalibration>,
    /// What people should know: defaults that were assumed, bounds taken because data were few.
    pub notes: Vec<String>,
}

impl Calibration {
    /// The text of `calibration.json`.
    pub fn to_json(&self) -> String {
        // Strings, integers and finite numbers always have a JSON form.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`CalibrationError::Syntax`] or [`CalibrationError::Format`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, CalibrationError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let syntax = |error: serde_json::Error| CalibrationError::Syntax(error.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(syntax)?;
        if head.format != CALIBRATION_FORMAT {
            return Err(CalibrationError::Format(head.format));
        }
        serde_json::from_slice(bytes).map_err(syntax)
    }

    /// Refuses profiles of another layout.
    ///
    /// # Errors
    /// [`CalibrationError::LayoutDiffers`].
    pub fn check_layout(&self, layout: u64) -> Result<(), CalibrationError> {
        let own = u64::from_str_radix(&self.layout, 16).unwrap_or_default();
        if own == layout {
            Ok(())
        } else {
            Err(CalibrationError::LayoutDiffers {
                calibration: own,
                profile: layout,
            })
        }
    }

    /// What was learned about a signal, by name.
    pub fn signal(&self, name: &str) -> Option<(usize, &SignalCalibration)> {
        self.signals
            .iter()
            .enumerate()
            .find(|(_, signal)| signal.signal == name)
    }
}

#[cfg(test)]
mod tests;
