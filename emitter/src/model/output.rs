//! From output tensors to classes, values and scores.

use std::collections::HashMap;

use driftline_schemas::bundle::{Manifest, Task};
use tract_onnx::prelude::*;

use super::{ModelError, Predictions};

/// Reads a model's outputs as its manifest says they are meant.
#[derive(Debug)]
pub(super) struct Reader {
    task: Task,
    classes: usize,
    /// Index of each label that the graph names.
    labels: Option<HashMap<String, i32>>,
}

impl Reader {
    /// Checks the classes that the graph names against the manifest's.
    pub(super) fn new(
        manifest: &Manifest,
        labels: Option<Vec<String>>,
    ) -> Result<Self, ModelError> {
        let classes = &manifest.output.classes;
        if let (Task::Classification, Some(labels)) = (manifest.task, &labels) {
            let misfit = |problem| ModelError::Misfit {
                field: "output.classes",
                problem,
            };
            if labels.len() != classes.len() {
                return Err(misfit(format!(
                    "there are {}, the model puts out {}: {}",
                    classes.len(),
                    labels.len(),
                    labels.join(", ")
                )));
            }
            if labels != classes && labels.iter().all(|label| classes.contains(label)) {
                return Err(misfit(format!(
                    "the order is not that of the model's scores, which is {}",
                    labels.join(", ")
                )));
            }
        }
        Ok(Self {
            task: manifest.task,
            classes: classes.len(),
            labels: labels.map(|labels| labels.into_iter().zip(0..).collect()),
        })
    }

    /// Reads the outputs of `n` rows, whose inputs are `rows`.
    pub(super) fn read(
        &self,
        outputs: &[TValue],
        rows: &[f32],
        n: usize,
    ) -> Result<Predictions, ModelError> {
        match self.task {
            Task::Classification => self.classification(outputs, n),
            Task::Regression | Task::Anomaly => self.values(outputs, rows, n),
        }
    }

    fn classification(&self, outputs: &[TValue], n: usize) -> Result<Predictions, ModelError> {
        let scores = outputs
            .iter()
            .filter(|output| output.datum_type().is_float())
            .find_map(|output| self.scores(output, n));
        let labels = outputs
            .iter()
            .filter(|output| !output.datum_type().is_float() && output.len() == n)
            .find_map(|output| self.codes(output));
        let (scores, score_width) = match scores {
            Some(scores) => (scores, self.classes),
            None if labels.is_some() => (Vec::new(), 0),
            None => {
                return Err(ModelError::Misfit {
                    field: "output.classes",
                    problem: format!(
                        "there are {}, no output of the model has one score for each or a label per row: outputs are {}",
                        self.classes,
                        shapes(outputs)
                    ),
                });
            }
        };
        let classes = match labels {
            Some(codes) => codes,
            None => scores.chunks(score_width).map(greatest).collect(),
        };
        if let Some(code) = classes
            .iter()
            .find(|code| !(0..self.classes as i32).contains(*code))
        {
            return Err(ModelError::Misfit {
                field: "output.classes",
                problem: format!(
                    "there are {}, the model predicted number {code}, counted from 0",
                    self.classes
                ),
            });
        }
        Ok(Predictions {
            classes,
            values: Vec::new(),
            scores,
            score_width,
        })
    }

    /// One score per class and row; one score per row is that of the second of two classes.
    fn scores(&self, output: &Tensor, n: usize) -> Option<Vec<f32>> {
        let values = floats(output)?;
        if values.len() == n * self.classes {
            Some(values)
        } else if values.len() == n && self.classes == 2 {
            Some(values.iter().flat_map(|p| [1.0 - p, *p]).collect())
        } else {
            None
        }
    }

    /// Codes of labels; `None` when one of them is not among those that the graph names.
    fn codes(&self, output: &Tensor) -> Option<Vec<i32>> {
        if output.datum_type() == String::datum_type() {
            let texts = output.try_as_plain_ram().ok()?;
            let labels = self.labels.as_ref()?;
            return texts
                .as_slice::<String>()
                .ok()?
                .iter()
                .map(|text| labels.get(text).copied())
                .collect();
        }
        let numbers = output.cast_to::<i64>().ok()?;
        let numbers = numbers.try_as_plain_ram().ok()?;
        numbers
            .as_slice::<i64>()
            .ok()?
            .iter()
            .map(|number| match &self.labels {
                Some(labels) => labels.get(&number.to_string()).copied(),
                None => i32::try_from(*number).ok(),
            })
            .collect()
    }

    fn values(
        &self,
        outputs: &[TValue],
        rows: &[f32],
        n: usize,
    ) -> Result<Predictions, ModelError> {
        let floats: Vec<Vec<f32>> = outputs
            .iter()
            .filter(|output| output.datum_type().is_float())
            .filter_map(|output| floats(output))
            .collect();
        let values = if let Some(values) = floats.iter().find(|values| values.len() == n) {
            values.clone()
        } else if let (Task::Anomaly, Some(copy)) = (
            self.task,
            floats.iter().find(|values| values.len() == rows.len()),
        ) {
            let width = rows.len() / n.max(1);
            rows.chunks(width.max(1))
                .zip(copy.chunks(width.max(1)))
                .map(|(row, copy)| mean_squared_difference(row, copy))
                .collect()
        } else {
            return Err(ModelError::Misfit {
                field: "task",
                problem: format!(
                    "no output of the model has one number per row: outputs are {}",
                    shapes(outputs)
                ),
            });
        };
        Ok(Predictions {
            values,
            ..Predictions::default()
        })
    }
}

fn floats(output: &Tensor) -> Option<Vec<f32>> {
    let cast = output.cast_to::<f32>().ok()?;
    let plain = cast.try_as_plain_ram().ok()?;
    Some(plain.as_slice::<f32>().ok()?.to_vec())
}

/// Index of the greatest score, the first of equals; NaN loses.
fn greatest(scores: &[f32]) -> i32 {
    let mut best = 0;
    for (index, score) in scores.iter().enumerate() {
        if *score > scores[best] || scores[best].is_nan() {
            best = index;
        }
    }
    // At most CATEGORIES_MAX = 1,024 classes.
    best as i32
}

fn mean_squared_difference(row: &[f32], copy: &[f32]) -> f32 {
    let sum: f32 = row
        .iter()
        .zip(copy)
        .map(|(value, copy)| (value - copy) * (value - copy))
        .sum();
    sum / row.len().max(1) as f32
}

fn shapes(outputs: &[TValue]) -> String {
    let all: Vec<String> = outputs
        .iter()
        .map(|output| format!("{:?} {:?}", output.datum_type(), output.shape()))
        .collect();
    all.join(", ")
}
