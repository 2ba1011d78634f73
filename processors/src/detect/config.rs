//! Configuration of the detect stage.

use driftline_drift::calibrate::{Budget, SmallestEffect};
use driftline_schemas::clock::DAY_US;
use driftline_schemas::source::ATTRIBUTES;
use driftline_schemas::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How windows are judged. The defaults are those of production.
///
/// It takes effect through the log: the stage's first step under another configuration writes it
/// into its state, and it is in force for windows from the next day (UTC) on, so that a replay judges
/// each window by the same one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {
    /// Length of the windows that are judged. It must divide a day, and panes must nest in it.
    pub window: Span,
    /// How long after its end (in event time, as the watermark tells it) a window waits for devices
    /// that did not say how often they report, or report more often than once a window. A device
    /// that reports more rarely is waited for this long after its next report is due.
    pub grace: Span,
    /// False alarms per month and model that are accepted.
    pub budget: Budget,
    /// The smallest effects that matter.
    pub smallest_effect: SmallestEffect,
    /// A stream with fewer rows in a window is not judged there: a mean of fewer is not near enough
    /// to normal for the far tail.
    pub rows_min: u64,
    /// Windows without drift after which a finding has recovered.
    pub calm_windows: u32,
    /// A finding is said again when its effect has grown by this factor since it was said last.
    pub update_factor: f64,
    /// How long windows are kept to be judged again. At least the age up to which the profile stage
    /// counts rows, or what it still counts is not judged.
    pub keep: Span,
    /// Most cohorts that are rolled up per window: the estate and the attribute values with the most
    /// rows. The others are counted, and are part of the estate all the same.
    pub cohorts_max: usize,
    /// Attributes whose values are cohorts.
    pub attributes: Vec<String>,
}

impl Default for DetectConfig {
    fn default() -> Self {
        Self {
            window: Span::from_hours(1),
            grace: Span::from_mins(5),
            budget: Budget::default(),
            smallest_effect: SmallestEffect::default(),
            rows_min: 20,
            calm_windows: 6,
            update_factor: 1.5,
            keep: Span::from_days(8),
            cohorts_max: 512,
            attributes: ATTRIBUTES.iter().map(|name| (*name).into()).collect(),
        }
    }
}

impl DetectConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// The field, what is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let window = self.window.us();
        if window == 0 || DAY_US % window != 0 {
            return Err(format!(
                "window: {} does not divide a day; write for example 15m, 1h or 6h",
                self.window
            ));
        }
        if self.keep.us() < 2 * DAY_US {
            return Err(format!(
                "keep: {} is too short to judge again; write 2d at least",
                self.keep
            ));
        }
        let alarms = self.budget.false_alarms_per_month;
        if alarms.is_nan() || alarms <= 0.0 {
            return Err("budget.false_alarms_per_month: must be above 0, for example 1.0".into());
        }
        if self.calm_windows == 0 || self.cohorts_max == 0 {
            return Err("calm_windows and cohorts_max: must be 1 at least".into());
        }
        if self.update_factor.is_nan() || self.update_factor <= 1.0 {
            return Err("update_factor: must be above 1, for example 1.5".into());
        }
        match self
            .attributes
            .iter()
            .find(|name| !ATTRIBUTES.contains(&name.as_str()))
        {
            Some(unknown) => Err(format!(
                "attributes: {unknown:?} is none of {}",
                ATTRIBUTES.join(", ")
            )),
            None => Ok(()),
        }
    }

    /// Digest that measures carry.
    pub fn digest(&self) -> String {
        // Numbers, strings and lists of them always have a JSON form.
        let text = serde_json::to_vec(self).unwrap_or_default();
        format!("{:016x}", xxh3_64(&text))
    }

    /// How long after a window's end a cell is waited for.
    pub(super) fn grace_us(&self, cadence_s: u32) -> i64 {
        let cadence = i64::from(cadence_s) * 1_000_000;
        if cadence <= self.window.us() {
            self.grace.us()
        } else {
            // Never longer than windows are kept.
            (cadence + self.grace.us()).min(self.keep.us() - DAY_US)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wrong field is named with the remedy, unknown keys are refused, the default is right.
    #[test]
    fn what_is_wrong_is_named() {
        let config = |text: &str| serde_json::from_str::<DetectConfig>(text);
        assert_eq!(config("{}").unwrap(), DetectConfig::default());
        assert_eq!(DetectConfig::default().check(), Ok(()));
        let seven = config(r#"{"window": "7m"}"#).unwrap().check();
        assert!(seven.unwrap_err().starts_with("window: 7m"));
        let attributes = config(r#"{"attributes": ["colour"]}"#).unwrap().check();
        assert!(attributes.unwrap_err().contains("\"colour\""));
        assert!(config(r#"{"windows": "1h"}"#).is_err());
    }

    /// A meter that reports daily is waited for a day; one that reports each minute is not.
    #[test]
    fn grace_goes_by_cadence() {
        let config = DetectConfig::default();
        assert_eq!(config.grace_us(0), config.grace.us());
        assert_eq!(config.grace_us(60), config.grace.us());
        assert_eq!(config.grace_us(86_400), DAY_US + config.grace.us());
    }
}
