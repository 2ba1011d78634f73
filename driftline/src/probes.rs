//! `driftline probes`: the estate's accuracy from the labels of probes
//! ([`driftline_drift::performance::stratified`]).
//!
//! Probes stand where they stand, not as the estate is spread. So the labelled rows of probes are weighed
//! stratum by stratum with the estate's share of rows; strata without probes are named, and widen the
//! interval by whatever they could hold. Classifiers only: a squared error has no upper end.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use driftline_drift::performance::Interval;
use driftline_drift::performance::probes::{Probe, probed_strata};
use driftline_drift::performance::stratified::{PostStratified, Stratum, post_stratify};
use driftline_lake::Lake;
use driftline_queries::Session;
use driftline_schemas::source::ATTRIBUTES;
use serde_json::{Value, json};

use crate::config::Config;
use crate::lake::{Selection, SelectionArgs, ask};
use crate::output::{self, OutputFormat, Usage};

/// Most strata and probes held together.
const COUNTS_MAX: usize = 100_000;

/// Columns of tables and CSV.
const COLUMNS: [&str; 7] = [
    "stratum",
    "share",
    "probes",
    "probe_rows",
    "probe_share",
    "effective_rows",
    "accuracy",
];

/// Arguments of `driftline probes`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProbesArgs {
    #[command(flatten)]
    of: SelectionArgs,
    /// Attributes whose combinations are the strata.
    #[arg(
        long,
        value_name = "ATTRIBUTE",
        value_delimiter = ',',
        default_value = "region"
    )]
    strata: Vec<String>,
    /// Confidence of the intervals.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    confidence: f64,
}

/// Runs it.
///
/// # Errors
/// [`Usage`] for what is no attribute or no share; when no probe has labels, or the lake cannot be read.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    args: &ProbesArgs,
    format: OutputFormat,
) -> Result<()> {
    check(args)?;
    let session = Session::open(Lake::new(&config.lake(dir))).await?;
    let selection = args.of.selection(&session).await?;
    let counted = Counted::of(&session, &selection, &args.strata).await?;
    let shares = counted.shares();
    let probes: Vec<Probe> = counted.probes.values().cloned().collect();
    let probed = probed_strata(&shares, &probes);
    let Some(estimate) = post_stratify(&probed.strata) else {
        bail!(
            "{}: no probe has labelled rows of this classifier in a stratum with devices; add probes with `driftline device add --probe`",
            selection.title()
        );
    };
    let rows = counted.rows(&probed.strata);
    if format == OutputFormat::Csv {
        return output::write_in_order(&Value::Array(rows), &COLUMNS, format);
    }
    let document = document(args, &selection, &estimate, probed.intraclass)?;
    match format {
        OutputFormat::Table => {
            output::write_in_order(&Value::Array(rows), &COLUMNS, format)?;
            output::write(&document, format)
        }
        _ => {
            let mut document = document;
            document["strata"] = Value::Array(rows);
            output::write(&document, format)
        }
    }
}

fn check(args: &ProbesArgs) -> Result<()> {
    let unknown = args
        .strata
        .iter()
        .find(|it| !ATTRIBUTES.contains(&it.as_str()));
    if let Some(unknown) = unknown {
        let all = ATTRIBUTES.join(", ");
        return Err(Usage(format!(
            "--strata {unknown:?} is no attribute: write some of {all}"
        ))
        .into());
    }
    let confidence = args.confidence;
    if !(confidence > 0.0 && confidence < 1.0) {
        let text = format!("--confidence {confidence}: write a share above 0 and below 1");
        return Err(Usage(text).into());
    }
    Ok(())
}

fn document(
    args: &ProbesArgs,
    selection: &Selection,
    estimate: &PostStratified,
    intraclass: Option<f64>,
) -> Result<Value> {
    let unit = Interval {
        low: 0.0,
        high: 1.0,
    };
    let whole = estimate.interval(args.confidence, unit)?;
    let covered = estimate
        .covered
        .interval(args.confidence)?
        .clipped(0.0, 1.0);
    Ok(json!({
        "tenant": selection.tenant,
        "model": selection.model,
        "version": selection.version,
        "from": selection.from.to_string(),
        "to": selection.to.to_string(),
        "by": args.strata,
        "confidence": args.confidence,
        "low": whole.low,
        "high": whole.high,
        "covered_accuracy": estimate.covered.value,
        "covered_standard_error": estimate.covered.standard_error,
        "covered_low": covered.low,
        "covered_high": covered.high,
        "effective_rows": estimate.effective_rows,
        "intraclass": intraclass,
        "blind": estimate.missing,
        "blind_share": estimate.missing_share,
    }))
}

/// Rows by stratum and probe.
#[derive(Default)]
struct Counted {
    /// Rows of devices that are no probes.
    devices: BTreeMap<String, u64>,
    /// Labelled rows, by stratum and name.
    probes: BTreeMap<(String, String), Probe>,
}

impl Counted {
    /// # Errors
    /// When the lake cannot be read, or there are more than [`COUNTS_MAX`] strata and probes.
    async fn of(session: &Session, selection: &Selection, strata: &[String]) -> Result<Self> {
        let columns = format!(
            "concat_ws(' & ', {}) AS stratum,
             CASE WHEN i.role = 'probe' THEN i.device ELSE '' END AS probe,
             CAST(i.predicted_code = o.truth_code AS BIGINT) AS is_right",
            named(strata)
        );
        let mut counted = Self::default();
        for (from, to) in selection.days() {
            let rows = selection.labelled(from, to, &columns);
            let statement = format!(
                "SELECT stratum, probe, count(*), count(is_right), coalesce(sum(is_right), 0)
                 FROM ({rows}) GROUP BY stratum, probe ORDER BY stratum, probe"
            );
            for (texts, numbers) in ask(session, &statement, 2).await? {
                let numbers = numbers
                    .iter()
                    .map(|it| u64::try_from(*it).unwrap_or_default());
                let numbers: Vec<u64> = numbers.collect();
                if let ([stratum, probe], [all, labelled, right]) = (&texts[..], &numbers[..]) {
                    counted.add(stratum, probe, [*all, *labelled, *right]);
                }
            }
            if counted.devices.len() + counted.probes.len() > COUNTS_MAX {
                bail!(
                    "{} has more than {COUNTS_MAX} strata and probes: take fewer attributes with --strata",
                    selection.title()
                );
            }
        }
        Ok(counted)
    }

    fn add(&mut self, stratum: &str, probe: &str, [all, labelled, right]: [u64; 3]) {
        if probe.is_empty() {
            *self.devices.entry(stratum.to_owned()).or_default() += all;
            return;
        }
        let key = (stratum.to_owned(), probe.to_owned());
        let sum = self.probes.entry(key).or_insert_with(|| Probe {
            stratum: stratum.to_owned(),
            rows: 0,
            right: 0,
        });
        sum.rows += labelled;
        sum.right += right;
    }

    /// The estate's share of each stratum, by rows.
    fn shares(&self) -> BTreeMap<String, f64> {
        let total: u64 = self.devices.values().sum();
        let share = |rows: u64| rows as f64 / total.max(1) as f64;
        let all = self.devices.iter();
        all.map(|(name, rows)| (name.clone(), share(*rows)))
            .collect()
    }

    fn rows(&self, strata: &[Stratum]) -> Vec<Value> {
        let total: u64 = self.probes.values().map(|probe| probe.rows).sum();
        let row = |stratum: &Stratum| {
            let probes = || {
                let all = self.probes.values();
                all.filter(|probe| probe.stratum == stratum.name && probe.rows > 0)
            };
            let rows: u64 = probes().map(|probe| probe.rows).sum();
            json!({
                "stratum": stratum.name,
                "share": stratum.share,
                "probes": probes().count(),
                "probe_rows": rows,
                "probe_share": rows as f64 / total.max(1) as f64,
                "effective_rows": stratum.rows,
                "accuracy": (rows > 0).then_some(stratum.mean),
            })
        };
        strata.iter().map(row).collect()
    }
}

/// `'region=' || i.region, …` for a name of several attributes.
fn named(strata: &[String]) -> String {
    let parts = strata.iter().map(|it| format!("'{it}=' || i.{it}"));
    parts.collect::<Vec<_>>().join(", ")
}
