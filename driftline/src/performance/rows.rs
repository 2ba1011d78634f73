//! A file of predictions as what the estimator takes.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use driftline_emitter::Value;
use driftline_emitter::pack::Data;

use super::PerformanceArgs;
use crate::model::columns::Columns;
use crate::output::Usage;

/// Rows of a classifier. With several classes `predicted` is always true and `actual` says whether
/// the prediction was right: accuracy is then the share of rows that are.
pub(super) struct Rows {
    file: String,
    pub(super) scores: Vec<f64>,
    pub(super) predicted: Vec<bool>,
    /// `None` where the target is missing.
    pub(super) actual: Vec<Option<bool>>,
}

impl Rows {
    /// Reads a file; one without the target's column has no targets.
    pub(super) fn read(args: &PerformanceArgs, path: &Path, target: &str) -> Result<Self> {
        let columns = Columns::read(path)?;
        Self::of(args, &columns, target, path.display().to_string())
            .with_context(|| path.display().to_string())
    }

    fn of(args: &PerformanceArgs, columns: &Columns, target: &str, file: String) -> Result<Self> {
        let prediction = columns.get(&args.prediction)?;
        let target = columns.get(target).ok();
        let (scores, predicted, actual) = match &args.scores[..] {
            [score] => {
                let scores = column(columns.get(score)?, |row, value| {
                    probability(score, row, value)
                })?;
                let is_positive = |name: &str, row: usize, value: Value<'_>| {
                    is_positive(args.positive.as_deref(), value).with_context(|| {
                        format!(
                            "column {name}, row {}: {} is neither 0 nor 1, false nor true; name the positive class with --positive",
                            row + 1,
                            text(value)
                        )
                    })
                };
                let predicted = column(prediction, |row, value| match value {
                    Value::Missing => bail!(
                        "column {}, row {}: the prediction is missing",
                        args.prediction,
                        row + 1
                    ),
                    value => is_positive(&args.prediction, row, value),
                })?;
                let actual = match target {
                    Some(target) => column(target, |row, value| match value {
                        Value::Missing => Ok(None),
                        value => is_positive(&args.target, row, value).map(Some),
                    })?,
                    None => vec![None; scores.len()],
                };
                (scores, predicted, actual)
            }
            several => classes(args, columns, several, prediction, target)?,
        };
        if scores.is_empty() {
            bail!("there are no rows");
        }
        Ok(Self {
            file,
            scores,
            predicted,
            actual,
        })
    }

    /// The targets, all of them.
    pub(super) fn labelled(self) -> Result<(Self, Vec<bool>)> {
        let labels: Option<Vec<bool>> = self.actual.iter().copied().collect();
        match labels {
            Some(labels) => Ok((self, labels)),
            None => {
                let row = self.actual.iter().position(Option::is_none).unwrap_or(0) + 1;
                bail!(
                    "{}: row {row} has no target; the reference needs the target of every row",
                    self.file
                )
            }
        }
    }
}

type Parts = (Vec<f64>, Vec<bool>, Vec<Option<bool>>);

/// Several classes: the probability of the class that was predicted, and whether it was right.
fn classes(
    args: &PerformanceArgs,
    columns: &Columns,
    several: &[String],
    prediction: &Data,
    target: Option<&Data>,
) -> Result<Parts> {
    let mut scores = Vec::new();
    for name in several {
        let (class, column) = name.split_once('=').unwrap_or((name, name));
        scores.push((class, column, columns.get(column)?));
    }
    let known = || scores.iter().map(|it| it.0).collect::<Vec<_>>().join(", ");
    let mut parts: Parts = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..prediction.len() {
        let class = text(prediction.value(row));
        let Some((_, name, score)) = scores.iter().find(|it| it.0 == class) else {
            return Err(Usage(format!(
                "column {}, row {}: class {class} has no --score, there are {}",
                args.prediction,
                row + 1,
                known()
            ))
            .into());
        };
        parts.0.push(probability(name, row, score.value(row))?);
        parts.1.push(true);
        parts.2.push(match target.map(|target| target.value(row)) {
            None | Some(Value::Missing) => None,
            Some(value) => Some(text(value) == class),
        });
    }
    Ok(parts)
}

fn column<'a, T>(data: &'a Data, of: impl Fn(usize, Value<'a>) -> Result<T>) -> Result<Vec<T>> {
    (0..data.len())
        .map(|row| of(row, data.value(row)))
        .collect()
}

fn probability(name: &str, row: usize, value: Value<'_>) -> Result<f64> {
    match value {
        Value::Number(score) if (0.0..=1.0).contains(&score) => Ok(score),
        other => bail!(
            "column {name}, row {}: {} is no probability from 0 to 1",
            row + 1,
            text(other)
        ),
    }
}

fn is_positive(positive: Option<&str>, value: Value<'_>) -> Option<bool> {
    let is = text(value);
    match positive {
        Some(positive) => Some(is == positive),
        None => match is.to_ascii_lowercase().as_str() {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        },
    }
}

/// A class as text: whole numbers without a point, so that 1 in one file and 1.0 in another agree.
pub(super) fn text(value: Value<'_>) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Text(text) => text.to_owned(),
        Value::Missing => "nothing".to_owned(),
    }
}
