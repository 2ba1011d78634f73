//! `driftline performance --decompose`: a loss told apart, by
//! [`driftline_drift::performance::decomposition`].

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use driftline_drift::performance::decomposition::{
    Decomposition, Input, Labelled, Part, decompose,
};
use driftline_emitter::Value;
use driftline_emitter::pack::Data;
use serde_json::{Value as Json, json};

use super::PerformanceArgs;
use super::rows::text;
use crate::model::columns::Columns;

/// What a row loses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Loss {
    /// 1 when the prediction is not the target, else 0.
    #[default]
    Wrong,
    /// The squared difference of prediction and target.
    Squared,
}

/// A period's labelled rows.
struct Period {
    losses: Vec<f64>,
    /// Indices of the rows that have a prediction and a target.
    rows: Vec<usize>,
    columns: Columns,
}

/// The parts of the change, a row each.
///
/// # Errors
/// Names the file, and the column or row that is wrong; or says that the periods cannot be compared.
pub(super) fn run(args: &PerformanceArgs) -> Result<Vec<Json>> {
    let target = args.analysis_target.as_ref().unwrap_or(&args.target);
    let before = Period::read(args, &args.reference, &args.target)?;
    let now = Period::read(args, &args.analysis, target)?;
    let (mut inputs, mut inputs_now) = (Vec::new(), Vec::new());
    for name in &args.decompose {
        let column = |period: &Period, file: &Path| -> Result<Data> {
            let data = period
                .columns
                .get(name)
                .with_context(|| file.display().to_string())?;
            Ok(crate::model::columns::take(data, &period.rows))
        };
        let (past, present) = (
            column(&before, &args.reference)?,
            column(&now, &args.analysis)?,
        );
        let (past, present) = both(&past, &present);
        inputs.push(past);
        inputs_now.push(present);
    }
    let found = decompose(
        Labelled {
            inputs: &inputs,
            losses: &before.losses,
        },
        Labelled {
            inputs: &inputs_now,
            losses: &now.losses,
        },
    )?;
    match found {
        Some(found) => Ok(rows(&found, before.losses.len(), now.losses.len())),
        None => bail!(
            "the inputs of {} and {} have too little in common: no row of one says what would have become of it in the other; take periods that are nearer, or fewer columns",
            args.reference.display(),
            args.analysis.display()
        ),
    }
}

fn rows(found: &Decomposition, before: usize, now: usize) -> Vec<Json> {
    let row = |name: &str, part: Part, share: Option<f64>| {
        json!({
            "part": name,
            "change": part.change,
            "standard_error": part.standard_error,
            "share": share,
        })
    };
    let mut total = row("total", found.total, None);
    total["loss_before"] = json!(found.before);
    total["loss_now"] = json!(found.now);
    total["rows_before"] = json!(before);
    total["rows_now"] = json!(now);
    total["overlap"] = json!(found.overlap);
    let share = found.inputs_share;
    vec![
        total,
        row("inputs", found.inputs, share),
        row("relation", found.relation, share.map(|share| 1.0 - share)),
    ]
}

impl Period {
    fn read(args: &PerformanceArgs, path: &Path, target: &str) -> Result<Self> {
        let columns = Columns::read(path)?;
        let (rows, losses) =
            losses(&columns, args, target).with_context(|| path.display().to_string())?;
        if rows.is_empty() {
            bail!("{}: no row has a prediction and a target", path.display());
        }
        Ok(Self {
            losses,
            rows,
            columns,
        })
    }
}

fn losses(
    columns: &Columns,
    args: &PerformanceArgs,
    target: &str,
) -> Result<(Vec<usize>, Vec<f64>)> {
    let (said, truth) = (columns.get(&args.prediction)?, columns.get(target)?);
    let (mut rows, mut losses) = (Vec::new(), Vec::new());
    for row in 0..columns.len() {
        let (said, truth) = (said.value(row), truth.value(row));
        if matches!(said, Value::Missing) || matches!(truth, Value::Missing) {
            continue;
        }
        losses.push(match (args.loss, said, truth) {
            (Loss::Wrong, said, truth) => f64::from(u8::from(text(said) != text(truth))),
            (Loss::Squared, Value::Number(said), Value::Number(truth)) => (said - truth).powi(2),
            (Loss::Squared, said, truth) => bail!(
                "row {}: {} and {} are not both numbers, as --loss squared needs them",
                row + 1,
                text(said),
                text(truth)
            ),
        });
        rows.push(row);
    }
    Ok((rows, losses))
}

/// A column of both periods: numbers where it is in both, else categories by their names.
fn both(past: &Data, present: &Data) -> (Input, Input) {
    if let (Data::Numbers(past), Data::Numbers(present)) = (past, present) {
        let numbers = |values: &driftline_schemas::rows::Values<f64>| {
            let all = values.iter().map(|it| it.copied().unwrap_or(f64::NAN));
            Input::Numbers(all.collect())
        };
        return (numbers(past), numbers(present));
    }
    let mut codes: BTreeMap<String, u32> = BTreeMap::new();
    let mut categories = |data: &Data| {
        let code = |value: Value<'_>| match value {
            Value::Missing => None,
            value => {
                let next = u32::try_from(codes.len()).unwrap_or(u32::MAX);
                Some(*codes.entry(text(value)).or_insert(next))
            }
        };
        Input::Categories(
            (0..data.len())
                .map(|row| data.value(row))
                .map(code)
                .collect(),
        )
    };
    (categories(past), categories(present))
}
