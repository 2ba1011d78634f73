//! `driftline model pack`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use driftline_emitter::pack::{
    BINS_DEFAULT, Draft, FeatureOverride, PackInput, TENANT_DEFAULT, Table, Unlearned, pack,
};
use driftline_emitter::store;
use driftline_schemas::bundle::{Bundle, Task};
use driftline_schemas::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::columns::{Columns, take, times_us};

/// What a bundle is made from.
#[derive(Debug, clap::Args)]
pub(crate) struct PackArgs {
    /// The model.
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,
    /// Reference rows, best held out from training: CSV (plain, .gz, .zst) or Parquet.
    #[arg(long, value_name = "FILE")]
    rows: PathBuf,
    /// Where the bundle goes: a folder, or an archive where the name ends in .tar.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Name of the model.
    #[arg(long)]
    name: String,
    /// Version of the model.
    #[arg(long)]
    version: String,
    /// Variant of the version, such as int8.
    #[arg(long, default_value = "")]
    variant: String,
    /// What the model is for.
    #[arg(long, value_parser = parse_task, default_value = "classification")]
    task: Task,
    /// Names of the classes, in the order of the model's scores; else as the model names them.
    #[arg(long, value_delimiter = ',')]
    classes: Vec<String>,
    /// Columns of the model's input, in its order; else all that are nothing else.
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// Columns that are left out.
    #[arg(long, value_delimiter = ',')]
    ignore: Vec<String>,
    /// Columns that the emitter will report beside the inputs.
    #[arg(long, value_delimiter = ',')]
    signals: Vec<String>,
    /// Adds a signal that looks at the numeric features together, or at these: it moves when their
    /// correlations do, though each by itself stays as it was.
    #[arg(long, value_name = "A,B,…", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    joint: Option<String>,
    /// Column with the truth.
    #[arg(long, value_name = "COL")]
    label: Option<String>,
    /// Column with the device.
    #[arg(long, value_name = "COL")]
    device: Option<String>,
    /// Column with event times: RFC 3339, or seconds since 1970.
    #[arg(long, value_name = "COL")]
    time: Option<String>,
    /// Only rows with this value; may be given several times.
    #[arg(long = "where", value_name = "COL=VALUE", value_parser = parse_pair)]
    only: Vec<(String, String)>,
    /// Only the first rows, of those that are left.
    #[arg(long, value_name = "N")]
    head: Option<usize>,
    /// Features whose numbers are categories.
    #[arg(long, value_delimiter = ',')]
    categorical: Vec<String>,
    /// Unit of last place of a feature, such as temp=0.1; else inferred.
    #[arg(long, value_name = "FEATURE=NUMBER", value_parser = parse_pair)]
    resolution: Vec<(String, String)>,
    /// Unit of a feature, such as temp=°C.
    #[arg(long, value_name = "FEATURE=UNIT", value_parser = parse_pair)]
    unit: Vec<(String, String)>,
    /// Plausible range of a feature, such as temp=-40:85.
    #[arg(long, value_name = "FEATURE=LOW:HIGH", value_parser = parse_pair)]
    range: Vec<(String, String)>,
    /// Unit of last place of a predicted number; else inferred.
    #[arg(long, value_name = "NUMBER")]
    output_resolution: Option<f64>,
    /// Unit of a predicted number.
    #[arg(long, default_value = "")]
    output_unit: String,
    /// Have devices report all class scores, not only the confidence.
    #[arg(long)]
    scores: bool,
    /// The rows, and those of the field, are independent draws: devices do not differ by nature, and
    /// neighbours in time are not alike. Only where `--device` or `--time` cannot be given.
    #[arg(long)]
    independent_rows: bool,
    /// Bins of a numeric signal.
    #[arg(long, default_value_t = BINS_DEFAULT)]
    bins: usize,
    /// Earlier bundle, whose types and edges unchanged features keep, so that profiles compare.
    #[arg(long, value_name = "BUNDLE")]
    edges_from: Option<PathBuf>,
    /// Owner of the devices that the rows name.
    #[arg(long, default_value = TENANT_DEFAULT)]
    tenant: String,
}

fn parse_task(text: &str) -> Result<Task, String> {
    match text {
        "classification" => Ok(Task::Classification),
        "regression" => Ok(Task::Regression),
        "anomaly" => Ok(Task::Anomaly),
        _ => Err("write classification, regression or anomaly".into()),
    }
}

/// `name=value`.
pub(crate) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write name=value".into()),
    }
}

/// Makes a bundle and writes it; the answer says what was made.
///
/// # Errors
/// Names the file, the column or the field that is wrong.
pub(super) fn run(args: &PackArgs) -> Result<Value> {
    let onnx = std::fs::read(&args.onnx).with_context(|| args.onnx.display().to_string())?;
    let table = table(args).with_context(|| args.rows.display().to_string())?;
    let edges_from = args.edges_from.as_deref().map(store::load).transpose()?;
    let file = args.rows.file_name().unwrap_or_default().to_string_lossy();
    let made_from = args
        .only
        .iter()
        .map(|(name, value)| format!(" where {name}={value}"))
        .fold(file.into_owned(), |text, part| text + &part);
    let packed = pack(&PackInput {
        draft: draft(args)?,
        onnx: &onnx,
        rows: &table,
        made_from,
        tenant: args.tenant.clone(),
        bins: args.bins,
        unlearned: match args.independent_rows {
            true => Unlearned::Independent,
            false => Unlearned::Alike,
        },
        edges_from: edges_from.as_ref(),
        now_us: SystemClock.now_us(),
    })?;
    write(&args.out, &packed.files)?;
    let bundle = Bundle::from_files(packed.files)?;
    let reference = &bundle.reference;
    Ok(json!({
        "bundle": bundle.title(),
        "path": args.out,
        "digest": bundle.digest,
        "rows": table.len(),
        "features": bundle.manifest.features.len(),
        "season": reference.season,
        "reference": reference.id(),
        "notes": packed.notes,
    }))
}

fn write(path: &Path, files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    if path.extension().is_some_and(|ext| ext == "tar") {
        let file = File::create_new(path).with_context(|| path.display().to_string())?;
        return store::write_archive(file, files).with_context(|| path.display().to_string());
    }
    Ok(store::write_dir(path, files)?)
}

fn table(args: &PackArgs) -> Result<Table> {
    let columns = Columns::read(&args.rows)?;
    let mut rows = columns.matching(&args.only)?;
    rows.truncate(args.head.unwrap_or(usize::MAX));
    let roles = [&args.label, &args.device, &args.time];
    for name in roles.into_iter().flatten().chain(&args.ignore) {
        columns.get(name)?;
    }
    let mut table = Table::new(rows.len());
    let whole = rows.len() == columns.len();
    for (name, data) in columns.into_parts() {
        let is = |role: &Option<String>| role.as_ref() == Some(&name);
        let data = match whole {
            true => data,
            false => take(&data, &rows),
        };
        if is(&args.time) {
            table.times_us = Some(times_us(&name, &data)?);
        }
        // A column that has a role may be an input as well, when it is named as one.
        let is_named = args.features.contains(&name) || args.signals.contains(&name);
        let is_other = is(&args.label)
            || is(&args.device)
            || is(&args.time)
            || args.ignore.contains(&name)
            || args.only.iter().any(|(only, _)| *only == name);
        if is(&args.label) {
            table.label = Some(data.clone());
        }
        if is(&args.device) {
            table.device = Some(data.clone());
        }
        if is_named || (args.features.is_empty() && !is_other) {
            table.add(&name, data)?;
        }
    }
    Ok(table)
}

fn draft(args: &PackArgs) -> Result<Draft> {
    let mut overrides: BTreeMap<String, FeatureOverride> = BTreeMap::new();
    for name in &args.categorical {
        overrides.entry(name.clone()).or_default().categorical = Some(true);
    }
    for (name, text) in &args.resolution {
        let number = number("--resolution", name, text)?;
        overrides.entry(name.clone()).or_default().resolution = Some(number);
    }
    for (name, unit) in &args.unit {
        overrides.entry(name.clone()).or_default().unit = Some(unit.clone());
    }
    for (name, text) in &args.range {
        let Some((low, high)) = text.split_once(':') else {
            bail!("--range {name}={text}: write FEATURE=LOW:HIGH");
        };
        let range = [
            number("--range", name, low)?,
            number("--range", name, high)?,
        ];
        overrides.entry(name.clone()).or_default().range = Some(range);
    }
    Ok(Draft {
        variant: args.variant.clone(),
        classes: args.classes.clone(),
        features: args.features.clone(),
        signals: args.signals.clone(),
        joint: args.joint.as_ref().map(|names| {
            let names = names.split(',').map(str::trim);
            let names = names.filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        }),
        overrides,
        output_resolution: args.output_resolution,
        output_unit: args.output_unit.clone(),
        scores: args.scores,
        ..Draft::new(&args.name, &args.version, args.task)
    })
}

fn number(flag: &str, name: &str, text: &str) -> Result<f64> {
    text.trim()
        .parse()
        .with_context(|| format!("{flag} {name}: {text:?} is no number"))
}
