//! What a month's false alarms leave to one window of one stream.

use driftline_schemas::bundle::SignalRole;
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
    /// The p-value at or below which a stream (signal × cohort) of weight 1 crosses in one window of
    /// `window_us`, when the streams that exist weigh `weights` together: by Bonferroni over the
    /// month's windows and the streams, weighted ([`stream_weight`]; Genovese, Roeder and Wasserman
    /// 2006), which holds under any dependence. A stream's own is this times its weight.
    pub fn threshold(&self, window_us: i64, weights: f64) -> f64 {
        let windows = (MONTH_DAYS * DAY_US) as f64 / window_us.max(1) as f64;
        (self.false_alarms_per_month / (windows * weights.max(OUTPUT_WEIGHT))).clamp(0.0, 1.0)
    }
}

/// Weight of what a model says in the split of the budget.
const OUTPUT_WEIGHT: f64 = 0.1;

/// How much of the budget a stream gets, relative to the others. An output follows from the inputs: where
/// those move, they are told and explain it, and what labels say of it weighs full. So an output by itself
/// has to be surer; where a model has no other signals the weights cancel.
pub fn stream_weight(role: SignalRole) -> f64 {
    match role {
        SignalRole::Output | SignalRole::Confidence => OUTPUT_WEIGHT,
        SignalRole::Input | SignalRole::Extra | SignalRole::Joint | SignalRole::Error => 1.0,
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
    /// Rise of the share of wrong answers, found by labels or foreseen by the confidence, 0 to 1.
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
            ScoreKind::Foreseen => self.error_rate,
            ScoreKind::Share(_) | ScoreKind::OtherShares if error => self.error_rate,
            ScoreKind::Share(_) | ScoreKind::OtherShares => self.total_variation,
            ScoreKind::Elsewhere
            | ScoreKind::Missing
            | ScoreKind::NonFinite
            | ScoreKind::Unseen => self.rate,
        }
    }
}
