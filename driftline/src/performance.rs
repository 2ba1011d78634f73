//! `driftline performance`: how well a classifier does where no labels are at hand, by
//! confidence-based performance estimation ([`driftline_drift::performance::cbpe`]).
//!
//! The reference has scores, predictions and targets; the rows to analyse need no targets, and where
//! they have some the realised metric stands beside the estimate. With one score column the
//! classifier has two classes and all seven metrics are estimated. With several, one a class,
//! accuracy is, from the probability of the class that was predicted.
//!
//! The method sees inputs that moved. It is blind, by construction, to a changed P(class | inputs).
//!
//! With `--decompose` and targets in both files, what changed is told apart instead: how much of a loss the
//! moved inputs explain, and how much is a changed relation of inputs and target.
//!
//! # Layout
//!
//! - `causes`: a loss told apart
//! - `rows`: both files as scores, predictions and targets

mod causes;
mod rows;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use driftline_drift::performance::cbpe::{Reference, realised};
use driftline_drift::performance::{Cbpe, Definition, Metric};
use serde_json::{Value, json};

use crate::output::{self, OutputFormat, Usage};
use rows::Rows;

/// Chunks that the reference is cut into when no size is given, as NannyML cuts it.
const DEFAULT_CHUNKS: usize = 10;

/// Columns of tables, the first of them.
const COLUMNS: [&str; 6] = [
    "chunk",
    "rows",
    "metric",
    "part",
    "change",
    "standard_error",
];

/// Arguments of `driftline performance`.
#[derive(Debug, clap::Args)]
pub(crate) struct PerformanceArgs {
    /// Rows with targets, in time order: CSV with a header (plain, .gz, .zst) or Parquet.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    /// Rows to estimate, in time order.
    #[arg(long, value_name = "FILE")]
    analysis: PathBuf,
    /// Column with the probability of the positive class; or one column a class, as COL when it is
    /// named like the class, else CLASS=COL.
    #[arg(long = "score", value_name = "COL", required_unless_present = "decompose", num_args = 1.., value_delimiter = ',')]
    scores: Vec<String>,
    /// Column with the class that was predicted.
    #[arg(long, value_name = "COL")]
    prediction: String,
    /// Column with the class that it was; the analysis file may lack it.
    #[arg(long, value_name = "COL")]
    target: String,
    /// The target's column in the analysis file, where it has another name.
    #[arg(long, value_name = "COL")]
    analysis_target: Option<String>,
    /// The positive class, with one score column [default: 1 or true].
    #[arg(long, value_name = "CLASS")]
    positive: Option<String>,
    /// Rows of a chunk [default: a tenth of the reference].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    chunk: Option<u64>,
    /// Follow NannyML's definitions (0.13).
    #[arg(long, value_name = "nannyml", value_parser = ["nannyml"])]
    compat: Option<String>,
    /// Tell a changed performance apart, with targets in both files: how much of it these columns
    /// explain by having moved, and how much is a changed relation of them and the target.
    #[arg(long, value_name = "COL", value_delimiter = ',', conflicts_with_all = ["scores", "chunk", "compat"])]
    decompose: Vec<String>,
    /// What a row loses, for --decompose.
    #[arg(long, value_enum, default_value = "wrong", requires = "decompose")]
    loss: causes::Loss,
}

/// Runs it.
///
/// # Errors
/// [`Usage`] for options that exclude each other; else names the file, and the column or row that is
/// wrong.
pub(crate) fn run(args: &PerformanceArgs, format: OutputFormat) -> Result<()> {
    if args.compat.is_some() && args.scores.len() > 1 {
        let text = "--compat nannyml takes one --score: several classes have driftline's own definition only";
        return Err(Usage(text.to_owned()).into());
    }
    let answer = match args.decompose.is_empty() {
        true => estimate(args)?,
        false => causes::run(args)?,
    };
    output::write_in_order(&Value::Array(answer), &COLUMNS, format)
}

fn estimate(args: &PerformanceArgs) -> Result<Vec<Value>> {
    let (reference, actual) = Rows::read(args, &args.reference, &args.target)?.labelled()?;
    let target = args.analysis_target.as_ref().unwrap_or(&args.target);
    let analysis = Rows::read(args, &args.analysis, target)?;
    let chunk_rows = match args.chunk {
        Some(rows) => usize::try_from(rows)?,
        None => (reference.scores.len() / DEFAULT_CHUNKS).max(1),
    };
    let definition = match args.compat {
        Some(_) => Definition::Nannyml,
        None => Definition::Native,
    };
    let fitted = Reference {
        scores: &reference.scores,
        predicted: &reference.predicted,
        actual: &actual,
    };
    let cbpe = Cbpe::fit(fitted, chunk_rows, definition)
        .with_context(|| args.reference.display().to_string())?;
    let metrics: &[Metric] = match args.scores.len() {
        1 => &Metric::ALL,
        _ => &[Metric::Accuracy],
    };
    let mut answer = Vec::new();
    for (chunk, start) in (0..analysis.scores.len()).step_by(chunk_rows).enumerate() {
        let end = (start + chunk_rows).min(analysis.scores.len());
        let estimates = cbpe
            .estimate(
                &analysis.scores[start..end],
                &analysis.predicted[start..end],
            )
            .with_context(|| args.analysis.display().to_string())?;
        let truth = truth(&analysis, start, end)?;
        for estimate in estimates.iter().filter(|e| metrics.contains(&e.metric)) {
            let at = Metric::ALL.iter().position(|it| *it == estimate.metric);
            answer.push(json!({
                "chunk": chunk,
                "rows": end - start,
                "metric": estimate.metric.name(),
                "estimate": estimate.value,
                "sampling_error": estimate.sampling_error,
                "lower": estimate.bounds.map(|it| it.low),
                "upper": estimate.bounds.map(|it| it.high),
                "lower_threshold": estimate.thresholds.map(|it| it.low),
                "upper_threshold": estimate.thresholds.map(|it| it.high),
                "realised": at.and_then(|at| truth[at]),
                "alert": estimate.alert,
            }));
        }
    }
    Ok(answer)
}

/// What was realised on those rows of a chunk that have a target; nothing where none has.
fn truth(rows: &Rows, start: usize, end: usize) -> Result<[Option<f64>; 7]> {
    let labelled = (start..end).filter_map(|row| Some((row, rows.actual[row]?)));
    let (mut scores, mut predicted, mut actual) = (Vec::new(), Vec::new(), Vec::new());
    for (row, label) in labelled {
        scores.push(rows.scores[row]);
        predicted.push(rows.predicted[row]);
        actual.push(label);
    }
    if actual.is_empty() {
        return Ok([None; 7]);
    }
    Ok(realised(&Reference {
        scores: &scores,
        predicted: &predicted,
        actual: &actual,
    })?)
}
