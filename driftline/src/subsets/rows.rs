//! The lake's rows as sums by device and pane.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use driftline_drift::subsets::Units;
use driftline_queries::Session;
use driftline_schemas::bundle::{FeatureType, Manifest, SignalRole, Task};
use driftline_schemas::clock::{DAY_US, HOUR_US};
use driftline_schemas::profile::Cell;
use driftline_schemas::source::{ATTRIBUTES, device_hash};
use futures::StreamExt as _;
use jiff::Timestamp;

use crate::lake::Selection;
use crate::output::Usage;

/// From this many days on a pane is a day, else an hour: a line needs some tens of panes, not more.
const DAYS_OF_DAY_PANES: i64 = 10;

/// What is measured of a row, in SQL over inferences (`i`) and their truth (`o`).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantity {
    sql: String,
    pub(super) is_error: bool,
    /// Unit for people, with a space before it.
    pub(super) unit: String,
    /// From a value to what is told in that unit.
    pub(super) told_scale: f64,
}

impl Quantity {
    /// Finds a signal in the rows of a version.
    ///
    /// # Errors
    /// [`Usage`] when there is no such signal, or it has no mean.
    pub(super) fn of(manifest: &Manifest, name: &str) -> Result<Self> {
        let signals = manifest.signals();
        let Some(signal) = signals.iter().find(|signal| signal.name == name) else {
            let names: Vec<&str> = signals.iter().map(|it| it.name.as_str()).collect();
            let text = format!(
                "--signal {name:?}: there is none; write one of {}",
                names.join(", ")
            );
            return Err(Usage(text).into());
        };
        let unit = match &signal.kind {
            FeatureType::Numeric { unit, .. } if !unit.is_empty() => format!(" {unit}"),
            _ => String::new(),
        };
        if signal.role == SignalRole::Error {
            return Ok(Self::error(manifest.task, &unit));
        }
        if let FeatureType::Categorical { .. } = signal.kind {
            let text =
                format!("--signal {name:?} has categories, which have no mean: take a number");
            return Err(Usage(text).into());
        }
        if signal.role == SignalRole::Joint {
            let text = format!(
                "--signal {name:?} is made of several features and has no column: take one of them"
            );
            return Err(Usage(text).into());
        }
        let place = |features: &[driftline_schemas::bundle::Feature]| {
            let at = features.iter().position(|feature| feature.name == name);
            at.map(|at| at + 1)
                .with_context(|| format!("signal {name:?} is in no column"))
        };
        let column = match signal.role {
            SignalRole::Input => format!("i.features[{}]", place(&manifest.features)?),
            SignalRole::Extra => format!("i.signals[{}]", place(&manifest.signals)?),
            SignalRole::Confidence => "i.confidence".to_owned(),
            SignalRole::Output | SignalRole::Error | SignalRole::Joint => {
                "i.predicted_value".to_owned()
            }
        };
        Ok(Self {
            sql: format!("CAST({column} AS DOUBLE)"),
            is_error: false,
            unit,
            told_scale: 1.0,
        })
    }

    fn error(task: Task, unit: &str) -> Self {
        let (sql, unit, told_scale) = match task {
            Task::Classification => (
                "CAST(i.predicted_code <> o.truth_code AS DOUBLE)",
                " points".to_owned(),
                100.0,
            ),
            Task::Regression | Task::Anomaly => (
                "(i.predicted_value - o.truth_value) * (i.predicted_value - o.truth_value)",
                match unit {
                    "" => String::new(),
                    unit => format!("{unit}²"),
                },
                1.0,
            ),
        };
        Self {
            sql: sql.to_owned(),
            is_error: true,
            unit,
            told_scale,
        }
    }

    /// A statement that selects `i`'s columns and the value as `value` over a span, without what is not
    /// finite or not known.
    fn rows(&self, selection: &Selection, from: Timestamp, to: Timestamp, columns: &str) -> String {
        let rows = match self.is_error {
            true => selection.labelled(from, to, &format!("{columns}, {} AS value", self.sql)),
            false => format!(
                "SELECT {columns}, {} AS value FROM inferences i WHERE {}",
                self.sql,
                selection.condition(from, to)
            ),
        };
        format!(
            "SELECT * FROM ({rows}) WHERE value IS NOT NULL AND NOT isnan(value) AND abs(value) < 1e300"
        )
    }
}

/// What was measured of a selection.
pub(super) struct Measured {
    pub(super) units: Units,
    /// Length of a pane.
    pub(super) pane_us: i64,
}

/// Sums the rows of a selection, day by day.
///
/// # Errors
/// When there are none, or more devices than are held; when the lake cannot be read.
pub(super) async fn measure(
    session: &Session,
    selection: &Selection,
    quantity: &Quantity,
) -> Result<Measured> {
    let (from_us, to_us) = (
        selection.from.as_microsecond(),
        selection.to.as_microsecond(),
    );
    let pane_us = match to_us - from_us >= DAYS_OF_DAY_PANES * DAY_US {
        true => DAY_US,
        false => HOUR_US,
    };
    let first = from_us.div_euclid(pane_us);
    let attributes: Vec<String> = ATTRIBUTES.iter().map(|it| format!("i.{it}")).collect();
    let columns = format!(
        "{}, i.device, CAST(i.event_time AS BIGINT) / {pane_us} - {first} AS pane",
        attributes.join(", ")
    );
    let mut units = Units::new();
    for (from, to) in selection.days() {
        let rows = quantity.rows(selection, from, to, &columns);
        let names = ATTRIBUTES.join(", ");
        let statement = format!(
            "SELECT {names}, device, pane, count(*), sum(value) FROM ({rows}) GROUP BY {names}, device, pane
             ORDER BY {names}, device, pane"
        );
        let mut batches = session.stream(&statement).await?;
        while let Some(batch) = batches.next().await {
            add(&mut units, &batch?, &selection.tenant)
                .with_context(|| format!("{}: search a part with --cohort", selection.title()))?;
        }
    }
    if units.is_empty() {
        let what = if quantity.is_error {
            "labelled rows"
        } else {
            "rows with the signal"
        };
        bail!("the lake has no {what} of {}", selection.title());
    }
    Ok(Measured { units, pane_us })
}

fn add(units: &mut Units, batch: &RecordBatch, tenant: &str) -> Result<()> {
    let column = |at: usize, ty: &DataType| arrow::compute::cast(batch.column(at), ty);
    let texts = (0..=ATTRIBUTES.len())
        .map(|at| column(at, &DataType::Utf8))
        .collect::<Result<Vec<_>, _>>()?;
    let texts: Vec<_> = texts.iter().map(|it| it.as_string::<i32>()).collect();
    let at = ATTRIBUTES.len() + 1;
    let (panes, counts) = (
        column(at, &DataType::Int64)?,
        column(at + 1, &DataType::Int64)?,
    );
    let (panes, counts) = (
        panes.as_primitive::<Int64Type>(),
        counts.as_primitive::<Int64Type>(),
    );
    let sums = column(at + 2, &DataType::Float64)?;
    let sums = sums.as_primitive::<Float64Type>();
    for row in 0..batch.num_rows() {
        let cell = Cell {
            values: std::array::from_fn(|at| Arc::from(texts[at].value(row))),
            cadence_s: 0,
        };
        let device = device_hash(tenant, texts[ATTRIBUTES.len()].value(row));
        let rows = u64::try_from(counts.value(row)).unwrap_or_default();
        units.add(&cell, device, panes.value(row), rows, sums.value(row))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(task: &str) -> Manifest {
        let output = match task {
            "classification" => "classes = [\"ok\", \"fail\"]",
            _ => "resolution = 0.1\nunit = \"kW\"",
        };
        let text = format!(
            "format = 1\nname = \"m\"\nversion = \"1\"\ntask = \"{task}\"\n[output]\n{output}\n
             [[features]]\nname = \"load\"\ntype = \"numeric\"\nresolution = 0.1\nunit = \"A\"\n
             [[features]]\nname = \"mode\"\ntype = \"categorical\"\ncategories = [\"a\", \"b\"]\n"
        );
        Manifest::parse(&text).unwrap()
    }

    /// Errors of classes are told in points, of numbers as squares; other numbers as they are.
    #[test]
    fn signals_become_quantities() {
        let of = |task: &str, name: &str| Quantity::of(&manifest(task), name);
        let error = of("classification", "error").unwrap();
        assert!(error.is_error && error.unit == " points" && error.told_scale == 100.0);
        let square = of("regression", "error").unwrap();
        assert_eq!((square.unit.as_str(), square.told_scale), (" kW²", 1.0));
        let load = of("classification", "load").unwrap();
        assert!(!load.is_error && load.unit == " A" && load.sql.contains("features[1]"));
        let value = of("regression", "prediction").unwrap();
        assert!(value.sql.contains("predicted_value"));
        for (name, says) in [
            ("mode", "no mean"),
            ("prediction", "no mean"),
            ("colour", "load, mode"),
        ] {
            let said = of("classification", name).unwrap_err();
            assert!(
                said.is::<Usage>() && said.to_string().contains(says),
                "{said}"
            );
        }
    }
}
