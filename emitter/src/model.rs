//! Runs a bundle's ONNX model.
//!
//! tract does the inference; what it lacks of the operators that scikit-learn's exporter writes is
//! in [`ops`]. A model is compiled once for any number of rows where it allows that, and else for
//! the sizes that are asked for, of which a few are kept.
//!
//! # What the outputs mean
//!
//! - classification: an output with one column per class is the scores; an output of integers or
//!   texts with one value per row is the label. Without labels, the class with the greatest score is
//!   predicted; without scores, the confidence is unknown. A single score per row counts as that of
//!   the second of two classes.
//! - regression: the first output of floats with one value per row.
//! - anomaly: the same; or, when the output is as wide as the input (an autoencoder), the mean
//!   squared difference of the two.
//!
//! # Layout of this module
//!
//! - here: loading, checking against the manifest, running
//! - [`labels`]: which classes a graph predicts, in which order
//! - [`ops`]: operators of `ai.onnx.ml` that tract lacks
//! - [`output`]: from output tensors to classes, values and scores
//! - [`plan`]: compiled models, for any number of rows or for some

mod labels;
mod ops;
mod output;
mod plan;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use driftline_schemas::bundle::{Manifest, Task};
use tract_onnx::data_resolver::ModelDataResolver;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{Framework, TractResult};

use crate::limits::{MODEL_BYTES_MAX, MODELS_BYTES_MAX, RUN_ROWS_MAX};
use plan::Plan;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file is larger than a device takes.
    #[error(
        "model.onnx has {bytes} bytes, the limit is {MODEL_BYTES_MAX}: quantise the model, or run it elsewhere"
    )]
    TooLarge {
        /// Size of the file.
        bytes: usize,
    },
    /// This process already holds as many models as it may.
    #[error(
        "the models of this process would take {bytes} bytes, the limit is {MODELS_BYTES_MAX}: drop models that are no longer used"
    )]
    TooMany {
        /// Bytes of all models with this one.
        bytes: usize,
    },
    /// The file is no model, or one that cannot be run here.
    #[error("model.onnx cannot be {doing}: {problem}")]
    Graph {
        /// `read`, `compiled`, `run`.
        doing: &'static str,
        /// What tract said.
        problem: String,
    },
    /// The model and the manifest do not fit together.
    #[error("bundle.toml, {field}: {problem}")]
    Misfit {
        /// Field of the manifest.
        field: &'static str,
        /// What does not fit, and what would.
        problem: String,
    },
    /// The caller handed in rows of another width.
    #[error("{values} values are not {rows} rows of {features} features")]
    Rows {
        /// Values handed in.
        values: usize,
        /// Rows announced.
        rows: usize,
        /// Features of the model.
        features: usize,
    },
}

impl ModelError {
    fn graph(doing: &'static str, error: impl std::fmt::Debug) -> Self {
        // Only the debug form of tract's errors shows their causes; on one line.
        let text = format!("{error:?}");
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.starts_with("Stack backtrace"))
            .filter(|line| !line.is_empty() && *line != "Caused by:")
            .collect();
        Self::Graph {
            doing,
            problem: lines.join("; "),
        }
    }
}

/// What a model put out for some rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Predictions {
    /// Classification: class of each row, as index into the manifest's classes; else empty.
    pub classes: Vec<i32>,
    /// Regression and anomaly: value of each row; else empty.
    pub values: Vec<f32>,
    /// Scores, row-major, [`Self::score_width`] per row; empty where the model has none.
    pub scores: Vec<f32>,
    /// Number of classes, or 0 without scores.
    pub score_width: usize,
}

impl Predictions {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.classes.len().max(self.values.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Score of the predicted class of a row, 0 to 1 for models that put out probabilities.
    pub fn confidence(&self, row: usize) -> Option<f32> {
        let class = usize::try_from(*self.classes.get(row)?).ok()?;
        self.scores(row)?.get(class).copied()
    }

    /// Scores of a row, one per class.
    pub fn scores(&self, row: usize) -> Option<&[f32]> {
        (self.score_width > 0)
            .then(|| {
                self.scores
                    .get(row * self.score_width..(row + 1) * self.score_width)
            })
            .flatten()
    }

    fn append(&mut self, more: Self) {
        self.classes.extend(more.classes);
        self.values.extend(more.values);
        self.scores.extend(more.scores);
        self.score_width = more.score_width;
    }
}

/// A model that is compiled and fits its manifest. Runs on several threads at once.
#[derive(Debug)]
pub struct Model {
    features: usize,
    task: Task,
    reader: output::Reader,
    plan: Plan,
    _share: Share,
}

impl Model {
    /// Reads, compiles and checks a model against a manifest, and runs it once on zeros.
    ///
    /// # Errors
    /// [`ModelError`] names what is wrong with the file, or the manifest's field that does not fit.
    pub fn load(onnx: &[u8], manifest: &Manifest) -> Result<Self, ModelError> {
        let share = Share::take(onnx.len())?;
        let proto = parse(onnx)?;
        let features = manifest.features.len();
        let plan = Plan::compile(&framework(), &proto, features)?;
        let reader = output::Reader::new(manifest, labels::of(&proto))?;
        let model = Self {
            features,
            task: manifest.task,
            reader,
            plan,
            _share: share,
        };
        model.predict(&vec![0.0; features], 1)?;
        Ok(model)
    }

    /// Number of features.
    pub fn features(&self) -> usize {
        self.features
    }

    /// What the model is for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Predicts `n` rows, row-major in `rows`. A missing value is NaN.
    ///
    /// # Errors
    /// [`ModelError::Rows`] when there are not `n` × features values, [`ModelError::Graph`] when the
    /// model fails on them.
    pub fn predict(&self, rows: &[f32], n: usize) -> Result<Predictions, ModelError> {
        if rows.len() != n * self.features {
            return Err(ModelError::Rows {
                values: rows.len(),
                rows: n,
                features: self.features,
            });
        }
        let mut all = Predictions::default();
        for chunk in rows.chunks(RUN_ROWS_MAX * self.features) {
            let count = chunk.len() / self.features;
            let outputs = self.plan.run(chunk, count, self.features)?;
            all.append(self.reader.read(&outputs, chunk, count)?);
        }
        Ok(all)
    }
}

/// Names of the classes that a classifier puts out, in the order of its scores; `None` when the
/// graph does not say.
///
/// # Errors
/// [`ModelError`] when the bytes are no model.
pub fn classes_of(onnx: &[u8]) -> Result<Option<Vec<String>>, ModelError> {
    Ok(labels::of(&parse(onnx)?))
}

/// Number of features that a model's input declares; `None` when it leaves them open.
///
/// # Errors
/// [`ModelError`] when the bytes are no model.
pub fn features_of(onnx: &[u8]) -> Result<Option<usize>, ModelError> {
    Ok(plan::declared_features(&parse(onnx)?))
}

/// What a model file says of its making.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Program that wrote it.
    pub producer: String,
    /// Version of that program.
    pub producer_version: String,
    /// Operator sets that it uses, by domain.
    pub operator_sets: Vec<(String, i64)>,
}

/// What a model file says of its making.
///
/// # Errors
/// [`ModelError`] when the bytes are no model.
pub fn origin_of(onnx: &[u8]) -> Result<Origin, ModelError> {
    let proto = parse(onnx)?;
    Ok(Origin {
        producer: proto.producer_name,
        producer_version: proto.producer_version,
        operator_sets: proto
            .opset_import
            .into_iter()
            .map(|set| match set.domain.as_str() {
                "" => ("ai.onnx".into(), set.version),
                _ => (set.domain, set.version),
            })
            .collect(),
    })
}

fn parse(onnx: &[u8]) -> Result<ModelProto, ModelError> {
    if onnx.len() > MODEL_BYTES_MAX {
        return Err(ModelError::TooLarge { bytes: onnx.len() });
    }
    framework()
        .proto_model_for_read(&mut &onnx[..])
        .map_err(|error| ModelError::graph("read", error))
}

fn framework() -> tract_onnx::Onnx {
    let mut framework = tract_onnx::onnx();
    framework.provider = Arc::new(NoFiles);
    ops::register(&mut framework.op_register);
    framework
}

/// A bundle's model is one file: weights in other files would be read from wherever the model says.
struct NoFiles;

impl ModelDataResolver for NoFiles {
    fn read_bytes_from_path(
        &self,
        _buffer: &mut Vec<u8>,
        path: &Path,
        _offset: usize,
        _length: Option<usize>,
    ) -> TractResult<()> {
        Err(tract_onnx::tract_core::internal::anyhow!(
            "weights are in another file, {}: save the model as one file",
            path.display()
        ))
    }
}

/// Bytes of model files that this process holds compiled.
static LOADED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// One model's part of [`MODELS_BYTES_MAX`]; given back when dropped.
#[derive(Debug)]
struct Share {
    bytes: usize,
}

impl Share {
    fn take(bytes: usize) -> Result<Self, ModelError> {
        if bytes > MODEL_BYTES_MAX {
            return Err(ModelError::TooLarge { bytes });
        }
        let before = LOADED_BYTES.fetch_add(bytes, Ordering::Relaxed);
        // From here on the share gives back what was added, whatever happens.
        let share = Self { bytes };
        match before + bytes {
            all if all > MODELS_BYTES_MAX => Err(ModelError::TooMany { bytes: all }),
            _ => Ok(share),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        LOADED_BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
