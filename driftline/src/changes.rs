//! `driftline changes`: where a stream of numbers changes, by any detector of [`driftline_drift`].
//!
//! Values are read one at a time, so a stream may be longer than memory. A value that is missing or
//! not finite keeps its place in the count and changes nothing; how many there were is said on
//! standard error. A text that is no number ends the command and names its line.
//!
//! # Layout
//!
//! - `input`: the numbers of a text, a CSV column or a Parquet column

mod input;

use std::path::PathBuf;

use anyhow::Result;
use driftline_drift::detector::{AnyDetector, Compat, Detector as _, Kind, Params, Verdict};
use serde_json::{Value, json};

use crate::output::{self, OutputFormat, Usage};

/// Arguments of `driftline changes`.
#[derive(Debug, clap::Args)]
pub(crate) struct ChangesArgs {
    /// Detector: adwin page_hinkley cusum ddm eddm rddm hddm_a hddm_w fhddm kswin stepd ecdd seed bocpd. Of predictions they
    /// read errors, 1 for wrong; fhddm reads 1 for right.
    #[arg(long, value_name = "NAME")]
    detector: Kind,
    /// A parameter of the detector; may be given again.
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = crate::model::parse_pair)]
    params: Vec<(String, String)>,
    /// Whose definition and parameter names: river (0.26.1) or moa (2024.07) in place of driftline's own.
    #[arg(long, value_name = "river|moa")]
    compat: Option<Compat>,
    /// Column of the file: CSV with a header, or Parquet.
    #[arg(long, value_name = "COL")]
    column: Option<String>,
    /// Numbers, one a line, or a file with --column; `-` is standard input. `.gz` and `.zst` are unpacked.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

/// What a detector made of a stream.
#[derive(Debug, Default, PartialEq)]
struct Found {
    drift: Vec<u64>,
    warning: Vec<u64>,
    /// Values that are missing or not finite.
    passed_over: u64,
}

/// Runs it.
///
/// # Errors
/// [`Usage`] when the detector cannot be built so; else names the file and the line that is wrong.
pub(crate) fn run(args: &ChangesArgs, format: OutputFormat) -> Result<()> {
    let compat = args.compat.unwrap_or_default();
    // Python writes True where everybody else writes true.
    let params: Params = args
        .params
        .iter()
        .map(|(name, value)| match value.as_str() {
            "True" => (name, "true"),
            "False" => (name, "false"),
            value => (name, value),
        })
        .collect();
    let mut watch = Watch {
        detector: args
            .detector
            .build(compat, &params)
            .map_err(|error| Usage(error.to_string()))?,
        flag_stays: compat == Compat::River && args.detector == Kind::Eddm,
        warned: false,
        seen: 0,
        found: Found::default(),
    };
    input::each(&args.file, args.column.as_deref(), |value| {
        watch.take(value)
    })?;
    let found = watch.found;
    if found.passed_over > 0 {
        eprintln!(
            "driftline: {} of {} values are missing or not finite and were passed over",
            found.passed_over, watch.seen
        );
    }
    output::write(&answer(args.detector, &found, format), format)
}

/// A detector at work.
struct Watch {
    detector: AnyDetector,
    /// river leaves EDDM's warning flag as the last value left it when it raises drift.
    flag_stays: bool,
    warned: bool,
    seen: u64,
    found: Found,
}

impl Watch {
    fn take(&mut self, value: Option<f64>) {
        let at = self.seen;
        self.seen += 1;
        let Some(value) = value.filter(|value| value.is_finite()) else {
            self.found.passed_over += 1;
            return;
        };
        let verdict = self.detector.update(value);
        if verdict == Verdict::Drift {
            self.found.drift.push(at);
        }
        let stays = verdict == Verdict::Drift && self.flag_stays && self.warned;
        if verdict == Verdict::Warning || stays {
            self.found.warning.push(at);
        }
        self.warned = verdict == Verdict::Warning;
    }
}

/// The documented object, or a row for every index.
fn answer(detector: Kind, found: &Found, format: OutputFormat) -> Value {
    if format == OutputFormat::Json {
        return json!({"detector": detector.name(), "drift": found.drift, "warning": found.warning});
    }
    let row = |verdict: &'static str| move |at: &u64| json!({"index": at, "verdict": verdict});
    let mut rows: Vec<Value> = found.drift.iter().map(row("drift")).collect();
    rows.extend(found.warning.iter().map(row("warning")));
    rows.sort_by_key(|row| row["index"].as_u64());
    Value::Array(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(kind: Kind, compat: Compat, values: &[Option<f64>]) -> Found {
        let mut watch = Watch {
            detector: kind.build(compat, &Params::new()).unwrap(),
            flag_stays: false,
            warned: false,
            seen: 0,
            found: Found::default(),
        };
        values.iter().for_each(|value| watch.take(*value));
        watch.found
    }

    /// Values that are missing or not finite keep their place and change nothing else.
    #[test]
    fn gaps_keep_their_place() {
        let step: Vec<Option<f64>> = (0..400)
            .map(|i| Some(if i < 200 { 0.0 } else { 9.0 } + f64::from(i % 3)))
            .collect();
        let plain = watch(Kind::PageHinkley, Compat::Native, &step);
        assert_eq!(plain.drift.len(), 1, "{plain:?}");
        let mut gaps = vec![None, Some(f64::NAN), Some(f64::INFINITY)];
        gaps.extend(&step);
        let found = watch(Kind::PageHinkley, Compat::Native, &gaps);
        assert_eq!(found.drift, [plain.drift[0] + 3]);
        assert_eq!(found.passed_over, 3);
    }

    /// Tables and CSV have a row for every index, in order.
    #[test]
    fn rows_are_in_order() {
        let found = Found {
            drift: vec![7],
            warning: vec![5, 9],
            passed_over: 0,
        };
        let rows = answer(Kind::Ddm, &found, OutputFormat::Csv);
        let indices: Vec<u64> = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["index"].as_u64().unwrap())
            .collect();
        assert_eq!(indices, [5, 7, 9]);
        let document = answer(Kind::Ddm, &found, OutputFormat::Json);
        assert_eq!(
            document,
            json!({"detector": "ddm", "drift": [7], "warning": [5, 9]})
        );
    }
}
