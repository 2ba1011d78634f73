//! Configuration of the detect stage.

use driftline_drift::calibrate::{Budget, SmallestEffect};
use driftline_schemas::clock::{DAY_US, SECOND_US};
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
    /// How much longer than until a device's next report a window waits for it, as the watermark
    /// tells the time. A device that did not say how often it reports is waited for this long only.
    /// Devices that report more rarely than once a window are taken in later, when it is their
    /// turn, and the window is judged again then.
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

    /// Longest cadence of cells that is not above a window, seconds.
    pub(super) fn fast_s(&self, cadences_s: impl Iterator<Item = u32>) -> u32 {
        cadences_s
            .filter(|&cadence_s| !self.is_slow(cadence_s))
            .max()
            .unwrap_or(0)
    }

    fn is_slow(&self, cadence_s: u32) -> bool {
        i64::from(cadence_s) * SECOND_US > self.window.us()
    }

    /// When a cell of a window is taken in. Cells that report at least once a window are so together,
    /// when the slowest of them (`fast_s`) has had its turn. Those that report more rarely are so at
    /// the next full multiple of their cadence: a day's windows are judged again once, not hour by
    /// hour.
    pub(super) fn due_us(&self, end_us: i64, cadence_s: u32, fast_s: u32) -> i64 {
        if !self.is_slow(cadence_s) {
            return end_us + i64::from(fast_s) * SECOND_US + self.grace.us();
        }
        let cadence_us = i64::from(cadence_s) * SECOND_US;
        let turn_us = -(-(end_us + cadence_us)).div_euclid(cadence_us) * cadence_us;
        // Never longer than windows are kept.
        (turn_us + self.grace.us()).min(end_us + self.keep.us() - DAY_US)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::clock::HOUR_US;

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

    /// Devices that report hourly are waited for an hour, and those that report each minute with
    /// them; a meter that reports daily until the end of the day after.
    #[test]
    fn cells_are_due_by_their_cadence() {
        let config = DetectConfig::default();
        let (end, grace) = (10 * HOUR_US, config.grace.us());
        assert_eq!(config.due_us(end, 0, 0), end + grace);
        let fast_s = config.fast_s([60, 3_600, 86_400].into_iter());
        assert_eq!(fast_s, 3_600);
        assert_eq!(config.due_us(end, 60, fast_s), end + HOUR_US + grace);
        assert_eq!(config.due_us(end, 86_400, fast_s), 2 * DAY_US + grace);
        assert_eq!(config.due_us(DAY_US, 86_400, fast_s), 2 * DAY_US + grace);
    }
}
