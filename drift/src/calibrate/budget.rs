//! What a month's false alarms leave to one window of one stream.

use driftline_schemas::clock::DAY_US;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scores::ScoreKind;

/// A month for the budget, in days.
const MONTH_DAYS: i64 = 30;

/// How many false alarms are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// False alarms per month and model that are accepted when nothing has changed.
    pub false_alarms_per_month: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            false_alarms_per_month: 1.0,
        }
    }
}

impl Budget {
    /// The p-value at or below which one of `streams` (signal × cohort) crosses in one window of
    /// `window_us`: by Bonferroni over the month's windows and the streams that exist, which holds
    /// under any dependence.
    pub fn threshold(&self, window_us: i64, streams: usize) -> f64 {
        let windows = (MONTH_DAYS * DAY_US) as f64 / window_us.max(1) as f64;
        (self.false_alarms_per_month / (windows * streams.max(1) as f64)).clamp(0.0, 1.0)
    }
}

/// The smallest effects that matter: below them, however certain, nobody is told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmallestEffect {
    /// Shift of a number, in reference standard deviations. 0.3 lies between what Cohen (1988)
    /// calls small (0.2) and medium (0.5).
    pub shift_sd: f64,
    /// Change of a number's spread, as a share of the reference's standard deviation.
    pub spread: f64,
    /// Change of a category's share, a lower bound of the total variation, 0 to 1.
    pub total_variation: f64,
    /// Change of the share of missing, non-finite or unseen values, 0 to 1.
    pub rate: f64,
    /// Rise of the share of wrong answers, 0 to 1.
    pub error_rate: f64,
}

impl Default for SmallestEffect {
    fn default() -> Self {
        Self {
            shift_sd: 0.3,
            spread: 0.3,
            total_variation: 0.1,
            rate: 0.05,
            error_rate: 0.05,
        }
    }
}

impl SmallestEffect {
    /// The smallest effect of a score that matters.
    pub fn of(&self, kind: ScoreKind, error: bool) -> f64 {
        match kind {
            ScoreKind::Location => self.shift_sd,
            ScoreKind::Scale => self.spread,
            ScoreKind::Share(_) | ScoreKind::OtherShares if error => self.error_rate,
            ScoreKind::Share(_) | ScoreKind::OtherShares => self.total_variation,
            ScoreKind::Missing | ScoreKind::NonFinite | ScoreKind::Unseen => self.rate,
        }
    }
}
