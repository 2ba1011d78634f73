//! Configuration of the profile stage.

use driftline_schemas::clock::HOUR_US;
use driftline_schemas::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How rows become profiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileConfig {
    /// Length of a pane, the smallest span of event time that is summarised. It must divide an
    /// hour. Devices that report hourly make a profile per row in panes that are much shorter.
    pub pane: Span,
    /// Rows older than this when the gateway received them are counted as late. They count all the
    /// same: windows that were judged without them are judged again.
    pub allowed_lateness: Span,
    /// Rows older than this when the gateway received them are archived and counted only.
    pub max_age: Span,
    /// Rows whose event time lies further than this ahead of when the gateway received them are
    /// archived and counted only: no clock is that wrong by accident and still worth a pane.
    pub max_ahead: Span,
    /// How far the gateways' time must have come before it is told to every partition of the
    /// profiles topic (it goes along with profiles anyway).
    pub watermark_step: Span,
    /// When everything is read, the watermark follows the clock at this distance: a gateway may
    /// still be about to append what it received this long ago. In a simulation it is simulated
    /// time, so set it to what the clock runs in a second or so.
    pub idle_slack: Span,
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            pane: Span::from_mins(15),
            allowed_lateness: Span::from_hours(1),
            max_age: Span::from_days(7),
            max_ahead: Span::from_hours(1),
            watermark_step: Span::from_secs(10),
            idle_slack: Span::from_secs(30),
        }
    }
}

impl ProfileConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// The field, what is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        let pane = self.pane.us();
        if pane == 0 || HOUR_US % pane != 0 {
            return Err(format!(
                "pane: {} does not divide an hour; write for example 1m, 5m, 15m or 1h",
                self.pane
            ));
        }
        if self.max_age < self.allowed_lateness {
            return Err(format!(
                "max_age: {} is shorter than allowed_lateness, {}: make it as long at least",
                self.max_age, self.allowed_lateness
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let config = |text: &str| serde_json::from_str::<ProfileConfig>(text);
        assert_eq!(config("{}").unwrap().check(), Ok(()));
        let seven = config(r#"{"pane": "7m"}"#).unwrap().check().unwrap_err();
        assert!(seven.starts_with("pane: 7m does not divide an hour"));
        let old = config(r#"{"max_age": "1s"}"#).unwrap().check();
        assert!(old.unwrap_err().starts_with("max_age"));
        assert!(config(r#"{"panes": "7m"}"#).is_err());
    }
}
