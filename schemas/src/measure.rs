//! Comparisons, findings and alerts: what the detect and alerting stages put out.
//!
//! They travel as JSON in their topics (they are few, and people read them), and rest as columns in
//! the lake.

mod batch;

use std::collections::BTreeMap;

pub use batch::{
    CohortMeasures, MEASURE_BATCH_FORMAT, MEASURES_PER_RECORD_MAX, MeasureBatch, MethodMeasure,
    SignalMeasures,
};
use serde::{Deserialize, Serialize};

/// Version of the records below.
pub const MEASURE_FORMAT: u32 = 1;

/// A cohort: attribute values that its devices share, by attribute; empty is the whole estate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cohort(pub BTreeMap<String, String>);

impl Cohort {
    /// The cohort of one attribute value.
    pub fn of(attribute: &str, value: &str) -> Self {
        Self(BTreeMap::from([(attribute.into(), value.into())]))
    }

    /// Whether this is the whole estate.
    pub fn is_estate(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Display for Cohort {
    /// `firmware=2.1 & region=eu`, or `estate`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_estate() {
            return f.write_str("estate");
        }
        for (index, (attribute, value)) in self.0.iter().enumerate() {
            let and = if index > 0 { " & " } else { "" };
            write!(f, "{and}{attribute}={value}")?;
        }
        Ok(())
    }
}

/// One comparison: signal, cohort, window, method, value, p-value, threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Version of this record, [`MEASURE_FORMAT`].
    pub format: u32,
    /// Owner.
    pub tenant: String,
    /// Model name.
    pub model: String,
    /// Model version.
    pub version: String,
    /// Whom it is about.
    pub cohort: Cohort,
    /// What was compared.
    pub signal: String,
    /// Start of the window, microseconds of event time.
    pub window_start_us: i64,
    /// End of the window, exclusive.
    pub window_end_us: i64,
    /// Counts judgements of the same window from 0; the highest is the one that holds.
    pub revision: u32,
    /// Name of the method (`psi`, `js`, `ks`, …).
    pub method: String,
    /// Version of the method's definition.
    pub method_version: u32,
    /// Value of the statistic; `None` when the window had nothing to compare.
    pub value: Option<f64>,
    /// Calibrated p-value, where the method has one.
    pub p_value: Option<f64>,
    /// What the value or, where there is one, the p-value is held against.
    pub threshold: Option<f64>,
    /// Whether it crossed.
    pub crossed: bool,
    /// Rows of the window.
    pub rows: u64,
    /// Devices of the window.
    pub devices: f64,
    /// Rows of the reference.
    pub reference_rows: u64,
    /// [`crate::profile::Reference::id`] of what it was compared with.
    pub reference: String,
    /// Digest of the configuration that was in force.
    pub config: String,
}

/// Kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Inputs moved.
    InputDrift,
    /// Predictions or confidences moved.
    OutputDrift,
    /// The truth no longer follows from the inputs as it did.
    ConceptDrift,
    /// A sensor repeats one value.
    StuckSensor,
    /// A device has not been heard of for longer than it said.
    DeviceSilent,
}

impl FindingKind {
    /// The name as it stands in JSON and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InputDrift => "input_drift",
            Self::OutputDrift => "output_drift",
            Self::ConceptDrift => "concept_drift",
            Self::StuckSensor => "stuck_sensor",
            Self::DeviceSilent => "device_silent",
        }
    }
}

/// What a finding says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// The condition holds in this window.
    Drifted,
    /// The condition held and holds no longer.
    Recovered,
    /// Data that came late showed that the condition never held.
    Refuted,
}

/// One cause that the explanation names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Signal or attribute value.
    pub name: String,
    /// Share of the drift that it explains, 0 to 1.
    pub share: f64,
}

/// Something that changed where a finding is, just before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What came up: an attribute value (`firmware=2.1`), the scope itself, or the model's version.
    pub what: String,
    /// Start of the window in which it had rows first, microseconds of event time.
    pub at_us: i64,
}

/// A rise of the share of wrong answers, told apart. Shares of rows, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorRise {
    /// By how much more of the labelled rows are wrong.
    pub rise: f64,
    /// Its standard error.
    pub rise_error: f64,
    /// How much of it the model's own confidence foresees: the part of inputs that moved to where the model is less
    /// sure. The rest is a changed relation of inputs and truth, or inputs that it is surer of than it should be.
    pub foreseen: f64,
    /// Its standard error.
    pub foreseen_error: f64,
}

/// Standard errors that a rise must lie from 0 to be shared out: of nothing there are no shares.
const CLEAR_ERRORS: f64 = 2.0;

impl ErrorRise {
    /// Share of the rise that is foreseen, 0 to 1; `None` when the rise is not clear.
    pub fn foreseen_share(&self) -> Option<f64> {
        let is_clear = self.rise > CLEAR_ERRORS * self.rise_error;
        is_clear.then(|| (self.foreseen / self.rise).clamp(0.0, 1.0))
    }
}

/// A measure, or a group of them, that crossed its threshold, with its explanation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Version of this record, [`MEASURE_FORMAT`].
    pub format: u32,
    /// Identity of what it is about (tenant, model, version, kind, scope): findings of one key
    /// tell one story, and become one alert.
    pub key: String,
    /// Owner.
    pub tenant: String,
    /// Model name.
    pub model: String,
    /// Model version.
    pub version: String,
    /// What was found.
    pub kind: FindingKind,
    /// Whom it is about: `estate`, a cohort (`site=north-1`), or a device (`device=d17`).
    pub scope: String,
    /// Whether it holds.
    pub state: FindingState,
    /// Counts what was said of this key and window; the highest holds.
    pub revision: u32,
    /// Start of the window, microseconds of event time.
    pub window_start_us: i64,
    /// End of the window, exclusive.
    pub window_end_us: i64,
    /// The signals that crossed, the strongest first, with their shares.
    pub signals: Vec<Contribution>,
    /// Attribute values, by how much of the drift goes away without them.
    pub attributes: Vec<Contribution>,
    /// What came up there in the day before, the latest first; absent when nothing did, and before it was noted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Where the model is wrong more often there: how much of that its confidence foresees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rise: Option<ErrorRise>,
    /// The strongest measure's value, p-value and method, as text for people.
    pub evidence: String,
    /// One or two sentences for people.
    pub explanation: String,
    /// SQL that recomputes the measure from the lake.
    pub sql: String,
    /// Reference that it was compared with.
    pub reference: String,
    /// Digest of the configuration.
    pub config: String,
}

/// State of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// Somebody must act.
    Open,
    /// The condition is gone.
    Resolved,
    /// Late data refuted it.
    Superseded,
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertChange {
    /// It opened.
    Opened,
    /// It is still open, and there is news.
    Updated,
    /// It ended.
    Resolved,
    /// It never should have been.
    Superseded,
}

/// A finding that somebody must act on, at one moment of its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Version of this record, [`MEASURE_FORMAT`].
    pub format: u32,
    /// Identity, from the finding's key and the window in which it opened.
    pub id: String,
    /// The finding's key.
    pub key: String,
    /// State after the change.
    pub state: AlertState,
    /// What happened.
    pub change: AlertChange,
    /// Counts changes of this alert from 1.
    pub sequence: u32,
    /// When the change was made, microseconds of the injected clock.
    pub at_us: i64,
    /// Start of the window in which it opened.
    pub opened_window_us: i64,
    /// Whether the window had ended long before anybody could see it (a backlog revealed it).
    pub about_the_past: bool,
    /// The finding that made the change.
    pub finding: Finding,
}
