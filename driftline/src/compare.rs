//! `driftline compare`: has anything changed between two files, or two time ranges of the lake?
//!
//! Without any option all columns that both files have are compared, numbers as numbers and texts as
//! categories, and the chance that anything is called drifted when nothing has changed is 1 in 100 for
//! the whole comparison ([`driftline_drift::compare`] says how). What becomes of odd columns:
//!
//! | what | fate |
//! | --- | --- |
//! | missing values (empty, `NA`, `null`) | counted; their share is a test of its own |
//! | NaN and infinite numbers | counted apart; their share is tested with that of missing values |
//! | a category that one side lacks | a category like others, of share 0 there |
//! | more than 10,000 categories | counted in 1,024 buckets by a hash of their names |
//! | constant, and the same on both sides | no test could answer; measures are 0, without a p-value |
//! | missing throughout on one side | the share of missing values says it |
//! | times (Parquet) | left out, for they move by nature, unless named by `--columns`: seconds |
//! | lists, structures, bytes (Parquet) | left out, and said |
//! | in one file only | left out, and said |
//! | numbers in one file and texts in the other | refused, with a row and the remedy |
//! | no rows, no header, two columns of one name | refused |
//!
//! # Layout
//!
//! - `ranges`: time ranges of the lake as files
//! - `source`: CSV and Parquet in blocks; `collect`: both files as columns, in bounded memory
//! - `answer`: the JSON document, the table
//! - `report`: the HTML page; `chart`: its pictures

mod answer;
mod chart;
mod collect;
mod ranges;
mod report;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use driftline_drift::compare::{Column, Definitions, Method, Plan, Sides, judge};

use crate::config::Config;
use crate::output::{OutputFormat, Usage};
use answer::Judged;
use collect::{COMPAT_VALUES_MAX, Kind, Request, SAMPLE_VALUES, Table, Wanted};
use source::{Declared, Source};

/// Share of columns from which Evidently calls a whole table drifted.
const EVIDENTLY_SHARE: f64 = 0.5;

/// Arguments of `driftline compare`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareArgs {
    /// What to compare with: CSV with a header (plain, .gz, .zst) or Parquet, or a time range of the lake,
    /// lake:NAME@VERSION?from=TIME&to=TIME, with &tenant=NAME and attributes such as &site=north-1 where
    /// wanted. A range has a column per feature, extra signal and output, the truth where it is known, and,
    /// for --by and --columns, the device and its attributes.
    reference: PathBuf,
    /// The present.
    current: PathBuf,
    /// Methods in place of location, spread, ks, shares and missing: psi js hellinger tv linf kl ks
    /// wasserstein energy cvm anderson mannwhitney t chi2 g z.
    #[arg(long = "method", value_name = "NAME", value_delimiter = ',')]
    methods: Vec<Method>,
    /// Definitions of scipy, evidently or nannyml; the latter two come with their own thresholds, which
    /// hold no false-alarm rate.
    #[arg(long, value_name = "PEER")]
    compat: Option<Definitions>,
    /// Compares the rows of each value of this column as well.
    #[arg(long, value_name = "COL")]
    by: Option<String>,
    /// Columns to compare in place of all that both files have.
    #[arg(long, value_name = "COL", value_delimiter = ',')]
    columns: Vec<String>,
    /// A column that has another name in the current file; may be given again.
    #[arg(long, value_name = "REFERENCE=CURRENT", value_parser = crate::model::parse_pair)]
    map: Vec<(String, String)>,
    /// Numeric columns that are codes of categories.
    #[arg(long, value_name = "COL", value_delimiter = ',')]
    categorical: Vec<String>,
    /// Column with what each row weighs; tests count effective rows and are approximate.
    #[arg(long, value_name = "COL")]
    weights: Option<String>,
    /// Chance that any column at all is called drifted when nothing has changed.
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    false_alarm_rate: f64,
    /// Writes a report to look at, one file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit code 3 when anything has drifted.
    #[arg(long)]
    fail_on_drift: bool,
}

/// Ranges of the lake among what is compared, on disk.
pub(crate) type Ranges = Sides<Option<ranges::Fetched>>;

/// Fetches the ranges of the lake that are to be compared.
///
/// # Errors
/// When a range is not written as it should be, or cannot be read.
pub(crate) async fn fetch(
    config: &Config,
    dir: &Path,
    args: &CompareArgs,
    quiet: bool,
) -> Result<Ranges> {
    let mut ranges = Ranges::new(None, None);
    for (name, to) in [
        (&args.reference, &mut ranges.reference),
        (&args.current, &mut ranges.current),
    ] {
        if ranges::is_range(name) {
            *to = Some(ranges::fetch(config, dir, name).await?);
        }
    }
    if !quiet && (ranges.reference.is_some() || ranges.current.is_some()) {
        eprintln!(
            "driftline: rows of a device resemble one another, and so do neighbours in time: --false-alarm-rate holds for independent rows, so read verdicts on ranges of the lake as a first look"
        );
    }
    Ok(ranges)
}

/// Runs it; `true` when the caller asked to be told of drift and there is some.
///
/// # Errors
/// [`Usage`] for options that cannot be; else names the file, and the column or row that is wrong.
pub(crate) fn run(
    args: &CompareArgs,
    ranges: &Ranges,
    format: OutputFormat,
    quiet: bool,
) -> Result<bool> {
    let plan = plan(args)?;
    let (request, skipped) = request(args, ranges)?;
    if !quiet {
        for (column, why) in &skipped {
            eprintln!("driftline: column {column} is not compared: {why}");
        }
    }
    let tables = collect::collect(&request)?;
    let judged = judge_all(tables, &plan, skipped)?;
    if let Some(path) = &args.html {
        let page = report::page(args, &plan, &judged);
        std::fs::write(path, page).with_context(|| path.display().to_string())?;
    }
    answer::write(&judged, format)?;
    Ok(args.fail_on_drift && judged.drifted)
}

fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

fn plan(args: &CompareArgs) -> Result<Plan> {
    let rate = args.false_alarm_rate;
    if !(rate > 0.0 && rate < 1.0) {
        return Err(usage(format!(
            "--false-alarm-rate {rate}: it must be between 0 and 1, both excluded"
        )));
    }
    let definitions = args.compat.unwrap_or_default();
    if args.weights.is_some() && definitions != Definitions::Native {
        return Err(usage(
            "--weights has driftline's own definitions only: leave --compat out",
        ));
    }
    Ok(Plan {
        methods: args.methods.clone(),
        definitions,
        false_alarm_rate: rate,
    })
}

type Skipped = Vec<(String, String)>;

/// Which columns of which files, and those left out with the reason.
fn request(args: &CompareArgs, ranges: &Ranges) -> Result<(Request, Skipped)> {
    let open = |name: &Path, range: &Option<ranges::Fetched>| match range {
        Some(range) => Source::open(&range.path).map(|source| source.range(name, &range.heads)),
        None => Source::open(name),
    };
    let sources = Sides::new(
        open(&args.reference, &ranges.reference)?,
        open(&args.current, &ranges.current)?,
    );
    let in_current = |name: &str| {
        let mapped = args.map.iter().find(|(reference, _)| reference == name);
        mapped.map_or(name.to_owned(), |(_, current)| current.clone())
    };
    let place = |name: &str| -> Result<Sides<usize>> {
        let at = |source: &Source, name: &str| {
            source.position(name).with_context(|| {
                let names = source.names.join(", ");
                format!(
                    "{}: there is no column {name:?}, there are {names}",
                    source.name
                )
            })
        };
        let reference = at(&sources.reference, name)?;
        Ok(Sides::new(
            reference,
            at(&sources.current, &in_current(name))?,
        ))
    };
    for name in args
        .map
        .iter()
        .map(|(name, _)| name)
        .chain(&args.categorical)
    {
        place(name)?;
    }
    let by = args.by.as_deref().map(place).transpose()?;
    let weights = args.weights.as_deref().map(place).transpose()?;
    let (mut columns, mut skipped) = (Vec::new(), Skipped::new());
    let names = match args.columns.is_empty() {
        true => &sources.reference.names,
        false => &args.columns,
    };
    for name in names {
        if args.weights.as_ref() == Some(name) {
            continue;
        }
        let place = match args.columns.is_empty() {
            false => place(name)?,
            true => match place(name) {
                Ok(place) => place,
                Err(_) => {
                    skipped.push((name.clone(), "the current file has none".to_owned()));
                    continue;
                }
            },
        };
        let kind = args.categorical.contains(name).then_some(Kind::Category);
        let declared = [
            sources.reference.declared[place.reference],
            sources.current.declared[place.current],
        ];
        if declared.contains(&Declared::Other) {
            let why = "it holds lists, structures or bytes".to_owned();
            skipped.push((name.clone(), why));
        } else if [&sources.reference, &sources.current]
            .iter()
            .any(|it| it.heads.contains(name))
            && args.columns.is_empty()
        {
            continue;
        } else if declared.contains(&Declared::Time) && args.columns.is_empty() {
            let why = "times move by nature; name it in --columns to compare them".to_owned();
            skipped.push((name.clone(), why));
        } else {
            let name = name.clone();
            columns.push(Wanted { name, place, kind });
        }
    }
    if args.columns.is_empty() {
        let known = |name: &&String| {
            let from = sources.reference.names.iter().map(|it| in_current(it));
            !from.into_iter().any(|it| it == **name)
        };
        for name in sources.current.names.iter().filter(known) {
            skipped.push((name.clone(), "the reference has none".to_owned()));
        }
    }
    if columns.is_empty() {
        bail!(
            "{} and {} have no column in common that can be compared: --map REFERENCE=CURRENT joins columns of different names",
            args.reference.display(),
            args.current.display()
        );
    }
    let needs_all = args.compat.is_some();
    let request = Request {
        sources,
        columns,
        by,
        weights,
        sample_values: if needs_all {
            COMPAT_VALUES_MAX
        } else {
            SAMPLE_VALUES
        },
        needs_all,
    };
    Ok((request, skipped))
}

/// Judges all tables as one family.
fn judge_all(tables: Vec<Table>, plan: &Plan, skipped: Skipped) -> Result<Judged> {
    let columns: Vec<&Column> = tables.iter().flat_map(|table| &table.columns).collect();
    let mut measures = judge(&columns, plan)?.into_iter();
    let mut judged = Vec::new();
    for table in tables {
        let measures: Vec<_> = measures.by_ref().take(table.columns.len()).collect();
        judged.push(answer::Table {
            group: table.group,
            rows: table.rows,
            columns: table.columns.into_iter().zip(measures).collect(),
        });
    }
    let is_empty = judged
        .iter()
        .flat_map(|table| &table.columns)
        .all(|(_, it)| it.is_empty());
    if is_empty && !plan.methods.is_empty() {
        return Err(usage("none of the methods applies to any of these columns"));
    }
    let drifted = match plan.definitions {
        Definitions::Evidently => judged.iter().any(|table| {
            let count = table
                .columns
                .iter()
                .filter(|(_, it)| answer::is_drifted(it))
                .count();
            count as f64 >= EVIDENTLY_SHARE * table.columns.len() as f64
        }),
        _ => {
            let mut all = judged.iter().flat_map(|table| &table.columns);
            all.any(|(_, measures)| answer::is_drifted(measures))
        }
    };
    Ok(Judged {
        tables: judged,
        drifted,
        skipped,
    })
}
