//! Configuration of the labels stage.

use driftline_schemas::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::profile::ProfileConfig;

/// How labels find their inferences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LabelsConfig {
    /// A label whose inference has not come this long after the label was received is given up, and
    /// told in the dead letters. Devices come back with their backlog in this time.
    pub wait_max: Span,
    /// Labels of inferences older than this when the label was received are counted only.
    pub max_age: Span,
    /// The lake is looked into this often at most (on the injected clock), so that labels are looked
    /// for together.
    pub look_every: Span,
    /// Labels of one partition that wait at most; beyond it the longest waiting are given up.
    pub pending_max: usize,
}

impl Default for LabelsConfig {
    fn default() -> Self {
        Self {
            wait_max: Span::from_days(7),
            max_age: Span::from_days(30),
            look_every: Span::from_secs(5),
            pending_max: 250_000,
        }
    }
}

impl LabelsConfig {
    /// Checks what the types do not say, and what must agree with the profile stage.
    ///
    /// # Errors
    /// The field, what is wrong, and what would be right.
    pub fn check(&self, profile: &ProfileConfig) -> Result<(), String> {
        profile.check()?;
        if self.pending_max == 0 {
            return Err("pending_max must be above 0".into());
        }
        Ok(())
    }
}
