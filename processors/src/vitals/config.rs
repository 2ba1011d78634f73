//! What an operator may set.

use driftline_schemas::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of the vitals stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VitalsConfig {
    /// A device is silent after this many of its reports did not come.
    pub missed_reports: u32,
    /// But never before this long, so that a device that reports every second may reboot.
    pub silent_min: Span,
    /// Rows that a sensor must repeat a value for, whatever its past, before it can be stuck.
    pub stuck_rows_min: u32,
    /// Pairs of rows that its past must have before it is judged.
    pub stuck_past_min: u32,
    /// A sensor is stuck when its past gives a run as long as this one at most this probability.
    pub stuck_probability: f64,
}

impl Default for VitalsConfig {
    fn default() -> Self {
        Self {
            missed_reports: 3,
            silent_min: Span::from_hours(2),
            stuck_rows_min: 20,
            stuck_past_min: 100,
            // One sensor in a thousand million runs: thousands of sensors for years.
            stuck_probability: 1e-12,
        }
    }
}
