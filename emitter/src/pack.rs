//! Makes a bundle from a model and reference rows.
//!
//! What the manifest leaves open is inferred from the rows: types, resolutions, bin edges, the
//! season. The model is run over the rows, so that the reference profiles what the model put out as
//! well as what went in, and the calibrator learns from profiles of each device and hour what a
//! window is worth. The result is the same for the same input, apart from the SBOM's time stamp,
//! which is an argument.
//!
//! # Layout of this module
//!
//! - here: [`pack`] and what goes into it
//! - [`infer`]: feature types and resolutions from values
//! - `joint`: what the signal that looks at features together is computed with
//! - [`mod@reference`]: layout, reference profile and calibration
//! - [`sbom`]: the software bill of materials
//! - [`table`]: rows as columns

mod infer;
mod joint;
mod reference;
mod sbom;
pub mod table;

use std::collections::BTreeMap;

pub use driftline_drift::calibrate::Unlearned;
use driftline_schemas::bundle::{
    Bundle, BundleError, CALIBRATION_FILE, DIGEST_FILE, Digest, Feature, FeatureType,
    MANIFEST_FILE, MANIFEST_FORMAT, MODEL_FILE, Manifest, ManifestError, OutputSpec,
    REFERENCE_FILE, SBOM_FILE, Task,
};
use driftline_schemas::joint::JOINT_FILE;
use driftline_schemas::profile::ProfileError;

use crate::features::Encoders;
use crate::model::{Model, ModelError, Predictions, classes_of};
pub use table::{Data, Table};

/// Bins of a numeric signal, unless told otherwise: enough to place a shift, few enough that a
/// profile of ten signals stays near 200 bytes.
pub const BINS_DEFAULT: usize = 16;
/// Tenant whose devices the reference's rows are taken for, unless told otherwise.
pub const TENANT_DEFAULT: &str = "default";

/// Why a bundle cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The model cannot be used, or does not fit.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The manifest would be wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A profile cannot be made.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The features cannot be looked at together.
    #[error("signal \"joint\": {0}")]
    Joint(#[from] driftline_drift::joint::LearnError),
    /// What was made does not pass the check that readers make.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A column is missing or its values cannot be used.
    #[error("column {column:?}: {problem}")]
    Column {
        /// Name of the column.
        column: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// There is nothing to make a reference from.
    #[error("the reference has no rows: give training or held-out rows")]
    NoRows,
}

/// What is said of a feature, in place of what would be inferred.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeatureOverride {
    /// `true`: categories, also where the values are numbers; `false`: a number.
    pub categorical: Option<bool>,
    /// Unit of last place.
    pub resolution: Option<f64>,
    /// Unit.
    pub unit: Option<String>,
    /// Least and greatest plausible value.
    pub range: Option<[f64; 2]>,
    /// The categories, in order.
    pub categories: Option<Vec<String>>,
}

/// What is known of the model beforehand.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Name of the model.
    pub name: String,
    /// Version.
    pub version: String,
    /// Variant (`fp32`, `int8`); may be empty.
    pub variant: String,
    /// What the model is for.
    pub task: Task,
    /// Names of the classes, in the order of the model's scores; empty: as the model says, or else
    /// as the labels say, sorted.
    pub classes: Vec<String>,
    /// Columns of the model's input, in its order; empty: all columns that are nothing else.
    pub features: Vec<String>,
    /// Columns that the emitter will report beside the inputs.
    pub signals: Vec<String>,
    /// Features that are looked at together, as the signal `joint`; empty: all that are numbers; `None`: there
    /// is no such signal.
    pub joint: Option<Vec<String>>,
    /// What is said of features and extra signals, by name.
    pub overrides: BTreeMap<String, FeatureOverride>,
    /// Regression and anomaly: unit of last place of the output; else inferred.
    pub output_resolution: Option<f64>,
    /// Unit of the output.
    pub output_unit: String,
    /// Whether rows carry all scores.
    pub scores: bool,
}

impl Draft {
    /// A draft that leaves everything else to be inferred.
    pub fn new(name: &str, version: &str, task: Task) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            variant: String::new(),
            task,
            classes: Vec::new(),
            features: Vec::new(),
            signals: Vec::new(),
            joint: None,
            overrides: BTreeMap::new(),
            output_resolution: None,
            output_unit: String::new(),
            scores: false,
        }
    }
}

/// What a bundle is made from.
#[derive(Debug, Clone)]
pub struct PackInput<'a> {
    /// What is known of the model.
    pub draft: Draft,
    /// The model file.
    pub onnx: &'a [u8],
    /// Reference rows.
    pub rows: &'a Table,
    /// Where they come from, for people.
    pub made_from: String,
    /// Owner of the devices that the rows name.
    pub tenant: String,
    /// Bins of a numeric signal.
    pub bins: usize,
    /// What is assumed of rows whose devices or times are not told.
    pub unlearned: Unlearned,
    /// Bundle whose types and edges unchanged features keep.
    pub edges_from: Option<&'a Bundle>,
    /// The present, for the SBOM, microseconds.
    pub now_us: i64,
}

/// A bundle that was made.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The files, which [`Bundle::from_files`] takes.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What people should know: what was inferred against expectation, what the calibrator assumed.
    pub notes: Vec<String>,
}

/// Makes the files of a bundle.
///
/// # Errors
/// [`PackError`] names the column, the field of the manifest or the file that is wrong.
pub fn pack(input: &PackInput<'_>) -> Result<Packed, PackError> {
    if input.rows.len() == 0 {
        return Err(PackError::NoRows);
    }
    let mut notes = Vec::new();
    let (mut manifest, model, predictions) = manifest(input, &mut notes)?;
    drop(model);
    let joint = joint::make(input, &mut manifest, &mut notes)?;
    let made = reference::make(input, &manifest, &predictions, joint.as_ref(), &mut notes)?;
    let mut files = BTreeMap::from([
        (MANIFEST_FILE.to_owned(), manifest.to_toml()?.into_bytes()),
        (MODEL_FILE.to_owned(), input.onnx.to_vec()),
        (REFERENCE_FILE.to_owned(), made.reference.encode()),
        (
            CALIBRATION_FILE.to_owned(),
            made.calibration.to_json().into_bytes(),
        ),
    ]);
    if let Some(made) = joint {
        files.insert(JOINT_FILE.to_owned(), made.joint.to_json().into_bytes());
    }
    let sums = Digest::of(&files).files;
    files.insert(
        SBOM_FILE.to_owned(),
        sbom::make(
            &manifest,
            input.onnx,
            &sums[MODEL_FILE],
            &input.made_from,
            input.now_us,
        ),
    );
    let digest = Digest::of(&files);
    // Strings by string always have a JSON form.
    let digest = serde_json::to_vec_pretty(&digest).unwrap_or_default();
    files.insert(DIGEST_FILE.to_owned(), digest);
    Bundle::from_files(files.clone())?;
    Ok(Packed { files, notes })
}

/// The manifest, the model that fits it, and what it predicts for the rows.
fn manifest(
    input: &PackInput<'_>,
    notes: &mut Vec<String>,
) -> Result<(Manifest, Model, Predictions), PackError> {
    let draft = &input.draft;
    let old = input.edges_from.map(|bundle| &bundle.manifest);
    let names: Vec<String> = match draft.features.is_empty() {
        false => draft.features.clone(),
        true => input
            .rows
            .names()
            .filter(|name| !draft.signals.iter().any(|signal| signal == name))
            .map(str::to_owned)
            .collect(),
    };
    let feature = |name: &String, notes: &mut Vec<String>| -> Result<Feature, PackError> {
        let data = input.rows.column(name)?;
        let told = draft.overrides.get(name);
        let known = old.and_then(|old| {
            let mut all = old.features.iter().chain(&old.signals);
            all.find(|feature| feature.name == *name)
        });
        Ok(Feature {
            name: name.clone(),
            kind: infer::kind(name, data, told, known, notes)?,
        })
    };
    let mut manifest = Manifest {
        format: MANIFEST_FORMAT,
        name: draft.name.clone(),
        version: draft.version.clone(),
        variant: draft.variant.clone(),
        task: draft.task,
        features: names
            .iter()
            .map(|name| feature(name, notes))
            .collect::<Result<_, _>>()?,
        output: OutputSpec {
            classes: classes(input)?,
            resolution: (draft.task != Task::Classification).then_some(1.0),
            unit: draft.output_unit.clone(),
            scores: draft.scores,
        },
        signals: draft
            .signals
            .iter()
            .map(|name| feature(name, notes))
            .collect::<Result<_, _>>()?,
        joint: None,
    };
    manifest.check()?;
    let model = Model::load(input.onnx, &manifest)?;
    let encoders = Encoders::new(&manifest);
    let predictions = model.predict(&input.rows.inputs(&manifest, &encoders)?, input.rows.len())?;
    if draft.task != Task::Classification {
        manifest.output.resolution = Some(output_resolution(input, old, &predictions));
    }
    manifest.check()?;
    Ok((manifest, model, predictions))
}

fn classes(input: &PackInput<'_>) -> Result<Vec<String>, PackError> {
    if input.draft.task != Task::Classification {
        return Ok(Vec::new());
    }
    if !input.draft.classes.is_empty() {
        return Ok(input.draft.classes.clone());
    }
    if let Some(classes) = classes_of(input.onnx)? {
        return Ok(classes);
    }
    match &input.rows.label {
        Some(label) => Ok(infer::categories(label)),
        None => Err(PackError::Manifest(ManifestError::Field {
            field: "output.classes".into(),
            problem: "the model does not name its classes: name them, in the order of its scores"
                .into(),
        })),
    }
}

fn output_resolution(
    input: &PackInput<'_>,
    old: Option<&Manifest>,
    predictions: &Predictions,
) -> f64 {
    let told = input.draft.output_resolution;
    let kept = || old.and_then(|old| old.output.resolution);
    told.or_else(kept).unwrap_or_else(|| {
        // A model's output has digits without end, so its spread decides.
        let values: Vec<f64> = predictions.values.iter().map(|v| f64::from(*v)).collect();
        infer::spread_resolution(&values)
    })
}

/// Whether a feature is a number.
fn is_numeric(kind: &FeatureType) -> bool {
    matches!(kind, FeatureType::Numeric { .. })
}
