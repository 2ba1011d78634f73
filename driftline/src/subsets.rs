//! `driftline subsets`: the cohorts whose error grows faster than the estate's
//! ([`driftline_drift::subsets`]).
//!
//! It takes raw rows and their labels, since profiles keep no device's own errors, and sums them by device
//! and pane in the lake. What decays is the share of wrong classes, the mean squared error of a number, or the
//! mean of any other signal that is a number; such a signal gets worse where the estate's goes.
//!
//! # Layout
//!
//! - here: the command
//! - `rows`: the lake's rows as sums by device and pane

mod rows;

use std::path::Path;

use anyhow::{Context as _, Result};
use driftline_drift::subsets::{Direction, Found, Options, Subset, Wording, find};
use driftline_lake::Lake;
use driftline_queries::Session;
use driftline_schemas::clock::DAY_US;
use serde_json::{Value, json};

use crate::config::Config;
use crate::lake::{Selection, SelectionArgs};
use crate::model::{Version, registered};
use crate::output::{self, OutputFormat, Usage};
use rows::{Measured, Quantity};

/// How long slopes are told over.
const MONTH_US: f64 = (30 * DAY_US) as f64;
const MONTH: &str = "30 days";

/// Columns of tables and CSV.
const COLUMNS: [&str; 15] = [
    "cohort",
    "ratio",
    "ratio_low",
    "ratio_high",
    "devices",
    "rows",
    "slope",
    "standard_error",
    "excess",
    "excess_low",
    "excess_high",
    "p_value",
    "ties",
    "explanation",
    "estate_slope",
];

/// Arguments of `driftline subsets`.
#[derive(Debug, clap::Args)]
pub(crate) struct SubsetsArgs {
    #[command(flatten)]
    of: SelectionArgs,
    /// What decays: the error, or another signal that is a number.
    #[arg(long, value_name = "NAME", default_value = "error")]
    signal: String,
    /// Share of false ones among the cohorts named that is accepted.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    false_discovery_rate: f64,
    /// Confidence of the intervals.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,
}

impl SubsetsArgs {
    fn options(&self) -> Result<Options> {
        for (name, value) in [
            ("--false-discovery-rate", self.false_discovery_rate),
            ("--confidence", self.confidence),
        ] {
            if !(value > 0.0 && value < 1.0) {
                let text = format!("{name} {value}: write a share above 0 and below 1");
                return Err(Usage(text).into());
            }
        }
        Ok(Options {
            false_discovery_rate: self.false_discovery_rate,
            confidence: self.confidence,
            ..Options::default()
        })
    }
}

/// Runs it.
///
/// # Errors
/// [`Usage`] for a signal that has no mean, or a share that is none; when the lake cannot be read or has too
/// few rows.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    args: &SubsetsArgs,
    format: OutputFormat,
) -> Result<()> {
    let options = args.options()?;
    let session = Session::open(Lake::new(&config.lake(dir))).await?;
    let selection = args.of.selection(&session).await?;
    let of = Version {
        name: selection.model.clone(),
        version: selection.version.clone(),
    };
    let bundle = registered(config, dir, &selection.tenant, &of).await?;
    let quantity = Quantity::of(&bundle.manifest, &args.signal)?;
    let measured = rows::measure(&session, &selection, &quantity).await?;
    let (found, direction) = search(&measured, &quantity, options)
        .with_context(|| format!("{}, signal {:?}", selection.title(), args.signal))?;
    let answer = Answer {
        args,
        selection: &selection,
        quantity: &quantity,
        found: &found,
        sign: match direction {
            Direction::Up => 1.0,
            Direction::Down => -1.0,
        },
        scale: MONTH_US / measured.pane_us as f64,
    };
    answer.write(format)
}

/// An error gets worse as it grows, another signal as it goes where the estate's goes.
fn search(
    measured: &Measured,
    quantity: &Quantity,
    options: Options,
) -> Result<(Found, Direction)> {
    let found = find(&measured.units, &options)?;
    if quantity.is_error || found.estate.value >= 0.0 {
        return Ok((found, Direction::Up));
    }
    let direction = Direction::Down;
    let found = find(
        &measured.units,
        &Options {
            direction,
            ..options
        },
    )?;
    Ok((found, direction))
}

struct Answer<'a> {
    args: &'a SubsetsArgs,
    selection: &'a Selection,
    quantity: &'a Quantity,
    found: &'a Found,
    /// 1 where up is worse, else −1: slopes are told as they are.
    sign: f64,
    /// From slopes a pane to slopes a month.
    scale: f64,
}

impl Answer<'_> {
    fn write(&self, format: OutputFormat) -> Result<()> {
        let rows: Vec<Value> = self.found.subsets.iter().map(|it| self.row(it)).collect();
        match format {
            OutputFormat::Json => output::write(&self.document(rows), format),
            OutputFormat::Csv => {
                let texts: Vec<Vec<String>> = rows.iter().map(|row| self.cells(row)).collect();
                output::write_rows(&COLUMNS, &texts, true)
            }
            OutputFormat::Table => self.for_people(),
        }
    }

    fn row(&self, subset: &Subset) -> Value {
        let slope = |value: f64| value * self.sign * self.scale;
        // Where down is worse, the ends of an interval of slopes change places.
        let interval = subset.excess.interval;
        let (low, high) = match self.sign > 0.0 {
            true => (interval.low, interval.high),
            false => (interval.high, interval.low),
        };
        let ties: Vec<String> = subset.ties.iter().map(ToString::to_string).collect();
        json!({
            "cohort": subset.cohort.to_string(),
            "ties": ties,
            "devices": subset.devices,
            "rows": subset.rows,
            "slope": slope(subset.slope.value),
            "standard_error": subset.slope.standard_error * self.scale,
            "ratio": subset.ratio.map(|it| it.value),
            "ratio_low": subset.ratio.map(|it| it.interval.low),
            "ratio_high": subset.ratio.map(|it| it.interval.high),
            "excess": slope(subset.excess.value),
            "excess_low": slope(low),
            "excess_high": slope(high),
            "p_value": subset.p_value,
            "explanation": subset.sentence(&self.wording()),
        })
    }

    fn wording(&self) -> Wording<'_> {
        Wording {
            verb: if self.quantity.is_error {
                "decays"
            } else {
                "moves"
            },
            scale: self.sign * self.scale * self.quantity.told_scale,
            unit: &self.quantity.unit,
            span: MONTH,
        }
    }

    fn document(&self, rows: Vec<Value>) -> Value {
        let found = self.found;
        json!({
            "tenant": self.selection.tenant,
            "model": self.selection.model,
            "version": self.selection.version,
            "signal": self.args.signal,
            "from": self.selection.from.to_string(),
            "to": self.selection.to.to_string(),
            "slopes_over": MONTH,
            "false_discovery_rate": self.args.false_discovery_rate,
            "confidence": self.args.confidence,
            "estate": {
                "slope": found.estate.value * self.sign * self.scale,
                "standard_error": found.estate.standard_error * self.scale,
                "devices": found.devices,
                "rows": found.rows,
            },
            "searched": {
                "groups": found.groups,
                "pairs": found.pairs,
                "too_small": found.too_small,
                "over_limit": found.over_limit,
                "devices_without_trend": found.without_trend,
            },
            "subsets": rows,
        })
    }

    fn cells(&self, row: &Value) -> Vec<String> {
        let cell = |name: &&str| match (*name, &row[*name]) {
            ("estate_slope", _) => (self.found.estate.value * self.sign * self.scale).to_string(),
            (_, Value::Null) => String::new(),
            (_, Value::String(text)) => text.clone(),
            (_, Value::Array(all)) => {
                let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
                all.join(", ")
            }
            (_, other) => other.to_string(),
        };
        COLUMNS.iter().map(cell).collect()
    }

    fn for_people(&self) -> Result<()> {
        use std::io::Write as _;
        let found = self.found;
        let header = [
            "cohort that decays faster",
            "devices",
            "labelled rows",
            "chance of as much",
        ];
        let rows: Vec<Vec<String>> = found
            .subsets
            .iter()
            .map(|it| {
                vec![
                    it.sentence(&self.wording()),
                    it.devices.to_string(),
                    it.rows.to_string(),
                    format!("{:.1e}", it.p_value),
                ]
            })
            .collect();
        if !rows.is_empty() {
            output::write_rows(&header, &rows, false)?;
        }
        let told = self.scale * self.sign * self.quantity.told_scale;
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{}: {} moves by {:.3}{} in {MONTH} (standard error {:.3}) over {} devices and {} rows",
            self.selection.title(),
            self.args.signal,
            found.estate.value * told,
            self.quantity.unit,
            found.estate.standard_error * told.abs(),
            found.devices,
            found.rows,
        )?;
        writeln!(
            out,
            "{} of {} cohorts named, at most {} of them expected to be false; not compared: {} too small, {} over the limit, {} devices with all rows at one time",
            found.subsets.len(),
            found.groups,
            self.args.false_discovery_rate,
            found.too_small,
            found.over_limit,
            found.without_trend,
        )?;
        Ok(())
    }
}
