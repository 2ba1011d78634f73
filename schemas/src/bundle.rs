//! A model version as shipped: what `bundle.toml` says, and the signals that follow from it.
//!
//! A bundle is a folder (or a tar archive of it) with the files named by the constants below. This
//! module holds the manifest and its checks; reading folders, running models and making references
//! is the emitter's and the binary's work.

pub mod files;

use serde::{Deserialize, Serialize};

pub use files::{Bundle, BundleError, Digest};

use crate::joint::{JOINT_RESOLUTION, JOINT_SIGNAL, JointSpec};
use crate::limits::{CATEGORIES_MAX, FEATURES_MAX, STRING_BYTES_MAX};
use crate::quantity;

/// The manifest.
pub const MANIFEST_FILE: &str = "bundle.toml";
/// The model.
pub const MODEL_FILE: &str = "model.onnx";
/// The encoded [`crate::profile::Reference`].
pub const REFERENCE_FILE: &str = "reference.profile";
/// What the calibrator learned from the reference rows (JSON).
pub const CALIBRATION_FILE: &str = "calibration.json";
/// The software bill of materials (CycloneDX JSON).
pub const SBOM_FILE: &str = "sbom.cdx.json";
/// SHA-256 of each file, and the bundle's own digest over that list.
pub const DIGEST_FILE: &str = "digest.json";
/// Version of the manifest's format that this code writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// Resolution of confidences and class scores: one ten-thousandth.
pub const SCORE_RESOLUTION: f64 = 1e-4;

/// Names that signals have of themselves, and that no feature may take.
pub const RESERVED_SIGNALS: [&str; 5] = [
    "prediction",
    "confidence",
    "error",
    "latency_us",
    "energy_uj",
];

/// Names of columns of inferences beside those of features and signals; `score.` and a class's name
/// are taken as well.
pub const RESERVED_COLUMNS: [&str; 2] = [crate::rows::EVENT_TIME, "ran_on"];

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// The text is no manifest.
    #[error("bundle.toml cannot be read: {0}")]
    Syntax(String),
    /// The text is a manifest of a format that this version does not know.
    #[error(
        "bundle.toml has format {0}, this version reads {MANIFEST_FORMAT}: update driftline, or pack the bundle again"
    )]
    Format(u32),
    /// A field has a value that cannot be.
    #[error("bundle.toml, {field}: {problem}")]
    Field {
        /// The field, with its index or name.
        field: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Predicts one of the manifest's classes.
    Classification,
    /// Predicts a number.
    Regression,
    /// Predicts a score of strangeness.
    Anomaly,
}

/// Type of one input feature or extra signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FeatureType {
    /// A number.
    Numeric {
        /// Unit of last place, in the feature's unit, above 0.
        resolution: f64,
        /// Unit, as text (`°C`, `ppm`).
        #[serde(default, skip_serializing_if = "String::is_empty")]
        unit: String,
        /// Least and greatest plausible value, in the unit; what lies outside is out of range.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        range: Option<[f64; 2]>,
    },
    /// One of a list; travels as the index into it.
    Categorical {
        /// The list.
        categories: Vec<String>,
    },
}

/// One input feature, or one extra signal that the emitter computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Feature {
    /// Name, unique among features and signals.
    pub name: String,
    /// Type, with resolution or categories.
    #[serde(flatten)]
    pub kind: FeatureType,
}

/// What the model puts out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Names of the classes, in the order of the model's scores (classification).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Unit of last place of the predicted value (regression and anomaly).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<f64>,
    /// Unit of the predicted value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Whether rows carry the whole score vector, and not only the confidence.
    #[serde(default)]
    pub scores: bool,
}

/// `bundle.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Name of the model.
    pub name: String,
    /// Version of the model.
    pub version: String,
    /// Variant of the version (`fp32`, `int8`).
    #[serde(default)]
    pub variant: String,
    /// What the model is for.
    pub task: Task,
    /// Input features, in the order of the model's input.
    pub features: Vec<Feature>,
    /// What the model puts out.
    #[serde(default)]
    pub output: OutputSpec,
    /// Extra signals that the emitter computes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Feature>,
    /// Features that are looked at together, as the signal `joint`; its numbers are in
    /// [`crate::joint::JOINT_FILE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joint: Option<JointSpec>,
}

/// Where a signal comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalRole {
    /// An input feature.
    Input,
    /// The predicted class or value.
    Output,
    /// The model's confidence.
    Confidence,
    /// Computed by the emitter.
    Extra,
    /// Computed from the inputs wherever rows are counted ([`crate::joint`]).
    Joint,
    /// Right or wrong, or by how much: known once the truth is.
    Error,
}

/// One monitored quantity of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Name: the feature's, one of [`RESERVED_SIGNALS`], or `joint`.
    pub name: String,
    /// Where it comes from.
    pub role: SignalRole,
    /// Type, with resolution or categories.
    #[serde(flatten)]
    pub kind: FeatureType,
}

impl Task {
    /// What the `error` signal counts: 0 right and 1 wrong for classes; for numbers prediction minus
    /// truth, both in the output's resolution, saturating at the ends of the range. What is not finite
    /// stands for itself, the truth's before the prediction's.
    pub fn error(self, predicted: i32, truth: i32) -> i32 {
        match self {
            Self::Classification => i32::from(predicted != truth),
            Self::Regression | Self::Anomaly if !quantity::is_finite(truth) => truth,
            Self::Regression | Self::Anomaly if !quantity::is_finite(predicted) => predicted,
            Self::Regression | Self::Anomaly => {
                predicted.saturating_sub(truth).max(quantity::VALUE_MIN)
            }
        }
    }
}

impl Manifest {
    /// Reads and checks `bundle.toml`.
    ///
    /// # Errors
    /// [`ManifestError`] names the field that is wrong.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self =
            toml::from_str(text).map_err(|error| ManifestError::Syntax(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The text of `bundle.toml`.
    ///
    /// # Errors
    /// [`ManifestError::Syntax`] when the manifest cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, ManifestError> {
        toml::to_string_pretty(self).map_err(|error| ManifestError::Syntax(error.to_string()))
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// [`ManifestError`] names the field that is wrong.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format != MANIFEST_FORMAT {
            return Err(ManifestError::Format(self.format));
        }
        for (field, text) in [("name", &self.name), ("version", &self.version)] {
            if text.is_empty() || text.len() > STRING_BYTES_MAX {
                return Err(wrong(
                    field,
                    format!("must have 1 to {STRING_BYTES_MAX} bytes"),
                ));
            }
        }
        if self.features.is_empty() || self.features.len() > FEATURES_MAX {
            return Err(wrong("features", format!("must be 1 to {FEATURES_MAX}")));
        }
        let mut seen = std::collections::BTreeSet::new();
        for feature in self.features.iter().chain(&self.signals) {
            let field = format!("feature {:?}", feature.name);
            if feature.name.is_empty() || feature.name.len() > STRING_BYTES_MAX {
                return Err(wrong(
                    &field,
                    format!("the name must have 1 to {STRING_BYTES_MAX} bytes"),
                ));
            }
            let name = feature.name.as_str();
            if RESERVED_SIGNALS.contains(&name)
                || RESERVED_COLUMNS.contains(&name)
                || name.starts_with("score.")
            {
                return Err(wrong(&field, "the name is reserved, choose another".into()));
            }
            if !seen.insert(&feature.name) {
                return Err(wrong(&field, "the name is there twice".into()));
            }
            check_kind(&field, &feature.kind)?;
        }
        if let Some(problem) = self.joint.as_ref().and_then(|joint| joint.problem(self)) {
            return Err(wrong(JOINT_SIGNAL, problem));
        }
        self.check_output()
    }

    fn check_output(&self) -> Result<(), ManifestError> {
        match self.task {
            Task::Classification => {
                let classes = self.output.classes.len();
                if !(2..=CATEGORIES_MAX).contains(&classes) {
                    return Err(wrong(
                        "output.classes",
                        format!("a classifier has 2 to {CATEGORIES_MAX} classes, not {classes}"),
                    ));
                }
                check_kind("output.classes", &self.prediction_kind())?;
            }
            Task::Regression | Task::Anomaly => {
                check_resolution("output.resolution", self.output.resolution.unwrap_or(0.0))?;
            }
        }
        Ok(())
    }

    /// Every signal of the model, in the order that profiles keep them: inputs, prediction,
    /// confidence, extra signals, `joint` where it was asked for, error.
    pub fn signals(&self) -> Vec<Signal> {
        let mut signals: Vec<Signal> = self
            .features
            .iter()
            .map(|feature| Signal {
                name: feature.name.clone(),
                role: SignalRole::Input,
                kind: feature.kind.clone(),
            })
            .collect();
        signals.push(Signal {
            name: "prediction".into(),
            role: SignalRole::Output,
            kind: self.prediction_kind(),
        });
        if self.task == Task::Classification {
            signals.push(Signal {
                name: "confidence".into(),
                role: SignalRole::Confidence,
                kind: FeatureType::Numeric {
                    resolution: SCORE_RESOLUTION,
                    unit: String::new(),
                    range: Some([0.0, 1.0]),
                },
            });
        }
        signals.extend(self.signals.iter().map(|feature| Signal {
            name: feature.name.clone(),
            role: SignalRole::Extra,
            kind: feature.kind.clone(),
        }));
        signals.extend(self.joint.as_ref().map(|_| Signal {
            name: JOINT_SIGNAL.into(),
            role: SignalRole::Joint,
            kind: FeatureType::Numeric {
                resolution: JOINT_RESOLUTION,
                unit: String::new(),
                range: None,
            },
        }));
        signals.push(Signal {
            name: "error".into(),
            role: SignalRole::Error,
            kind: match self.task {
                Task::Classification => FeatureType::Categorical {
                    categories: vec!["right".into(), "wrong".into()],
                },
                Task::Regression | Task::Anomaly => self.prediction_kind(),
            },
        });
        signals
    }

    /// Type of the predicted class or value.
    pub fn prediction_kind(&self) -> FeatureType {
        match self.task {
            Task::Classification => FeatureType::Categorical {
                categories: self.output.classes.clone(),
            },
            Task::Regression | Task::Anomaly => FeatureType::Numeric {
                resolution: self.output.resolution.unwrap_or(1.0),
                unit: self.output.unit.clone(),
                range: None,
            },
        }
    }
}

fn wrong(field: &str, problem: String) -> ManifestError {
    ManifestError::Field {
        field: field.into(),
        problem,
    }
}

fn check_resolution(field: &str, resolution: f64) -> Result<(), ManifestError> {
    if resolution.is_finite() && resolution > 0.0 {
        Ok(())
    } else {
        Err(wrong(
            field,
            "the resolution must be a number above 0, in the unit of the value".into(),
        ))
    }
}

fn check_kind(field: &str, kind: &FeatureType) -> Result<(), ManifestError> {
    match kind {
        FeatureType::Numeric {
            resolution, range, ..
        } => {
            check_resolution(field, *resolution)?;
            if let Some([low, high]) = range
                && low.partial_cmp(high) != Some(std::cmp::Ordering::Less)
            {
                return Err(wrong(
                    field,
                    format!("the range must rise, not go from {low} to {high}"),
                ));
            }
            Ok(())
        }
        FeatureType::Categorical { categories } => {
            if !(1..=CATEGORIES_MAX).contains(&categories.len()) {
                return Err(wrong(
                    field,
                    format!("must list 1 to {CATEGORIES_MAX} categories"),
                ));
            }
            if categories.iter().any(|it| it.len() > STRING_BYTES_MAX) {
                return Err(wrong(
                    field,
                    format!("a category must have at most {STRING_BYTES_MAX} bytes"),
                ));
            }
            let mut seen = std::collections::BTreeSet::new();
            match categories.iter().find(|category| !seen.insert(*category)) {
                Some(twice) => Err(wrong(field, format!("category {twice:?} is there twice"))),
                None => Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
