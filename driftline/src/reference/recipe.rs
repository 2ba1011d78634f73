//! How a model's reference is chosen.

use std::collections::BTreeMap;

use driftline_schemas::profile::reference::Season;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rows that `driftline reference build` takes for a model when it is not told otherwise. Without any
/// of it a model version is compared with its training data: the bundle's reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Recipe {
    /// Rows of this earlier version in place of the version's own.
    pub(crate) rows_of: Option<String>,
    /// The first so many days in the field on which nothing was found.
    pub(crate) stable_days: Option<u32>,
    /// Rows of one cohort: attribute to value.
    pub(crate) cohort: BTreeMap<String, String>,
    /// What part of the present is compared with what part of the reference.
    pub(crate) season: SeasonChoice,
}

/// What is compared with what.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SeasonChoice {
    /// By the hour of the week from four weeks on, by the hour of the day from one week on.
    #[default]
    Auto,
    /// Everything with everything.
    None,
    /// An hour of the day with the same hour.
    Day,
    /// An hour of the week with the same hour.
    Week,
}

impl SeasonChoice {
    /// The season that was asked for, where one was.
    pub(crate) fn asked(self) -> Option<Season> {
        match self {
            Self::Auto => None,
            Self::None => Some(Season::None),
            Self::Day => Some(Season::HourOfDay),
            Self::Week => Some(Season::HourOfWeek),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is set is read, the rest is as without it, and unknown keys are refused.
    #[test]
    fn recipes_in_configuration() {
        let read = |text: &str| toml::from_str::<Recipe>(text);
        let recipe = read("stable_days = 7\nseason = \"week\"\ncohort = { site = \"north-1\" }");
        let recipe = recipe.unwrap();
        assert_eq!((recipe.stable_days, recipe.rows_of), (Some(7), None));
        assert_eq!(recipe.season.asked(), Some(Season::HourOfWeek));
        assert_eq!(recipe.cohort["site"], "north-1");
        assert_eq!(read("").unwrap(), Recipe::default());
        assert_eq!(SeasonChoice::default().asked(), None);
        assert!(read("stable = 7").is_err());
    }
}
