//! `driftline model show`.

use std::io::Write as _;

use anyhow::Result;
use driftline_drift::calibrate::Calibration;
use driftline_schemas::bundle::{Bundle, CALIBRATION_FILE, FeatureType};
use driftline_schemas::profile::{SignalLayout, SignalProfile};
use serde_json::{Value, json};

use crate::output::{self, OutputFormat};

/// Writes what is in a bundle: one document, or a heading and a table of its signals.
///
/// # Errors
/// When the calibration cannot be read, or standard output is closed.
pub(super) fn write(bundle: &Bundle, format: OutputFormat) -> Result<()> {
    let signals = signals(bundle)?;
    match format {
        OutputFormat::Json => output::write(&document(bundle, signals)?, format),
        OutputFormat::Table => {
            heading(bundle)?;
            table(&signals)
        }
        OutputFormat::Csv => output::write(&signals, format),
    }
}

fn calibration(bundle: &Bundle) -> Result<Calibration> {
    let bytes = bundle.file(CALIBRATION_FILE).unwrap_or_default();
    Ok(Calibration::from_json(bytes)?)
}

fn document(bundle: &Bundle, signals: Value) -> Result<Value> {
    let calibration = calibration(bundle)?;
    let reference = &bundle.reference;
    let files: serde_json::Map<String, Value> = bundle
        .files()
        .iter()
        .map(|(name, bytes)| (name.clone(), bytes.len().into()))
        .collect();
    Ok(json!({
        "bundle": bundle.title(),
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "variant": bundle.manifest.variant,
        "task": bundle.manifest.task,
        "classes": bundle.manifest.output.classes,
        "digest": bundle.digest,
        "files": files,
        "reference": {
            "id": reference.id(),
            "made_from": reference.made_from,
            "season": reference.season,
            "rows": reference.total()?.rows,
            "layout": format!("{:016x}", reference.layout.digest()),
        },
        "calibration": {
            "devices": calibration.devices,
            "windows": calibration.windows,
            "notes": calibration.notes,
        },
        "signals": signals,
        "joint": joint(bundle),
        // What writers of frames need, such as `clients/python`.
        "frames": {
            "inferences": bundle.inferences.describe(),
            "outcomes": bundle.outcomes.describe(),
        },
    }))
}

/// What the signal `joint` looks at, and how SQL gives it for raw rows; null without it.
fn joint(bundle: &Bundle) -> Value {
    let Some(joint) = &bundle.joint else {
        return Value::Null;
    };
    let name = |at: usize| joint.features.get(at).map(|it| it.name.as_str());
    let ties = joint
        .ties
        .iter()
        .map(|tie| json!({ "a": name(tie.a), "b": name(tie.b), "correlation": tie.correlation }));
    json!({
        "features": joint.features.iter().map(|it| &it.name).collect::<Vec<_>>(),
        "ties": ties.collect::<Vec<_>>(),
        "sql": format!("joint(event_time, features, '{}')", joint.to_json().replace('\'', "''")),
    })
}

fn heading(bundle: &Bundle) -> Result<()> {
    let calibration = calibration(bundle)?;
    let reference = &bundle.reference;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}  {}", bundle.title(), bundle.digest)?;
    writeln!(
        out,
        "reference {} from {}, {} rows, season {}",
        reference.id(),
        reference.made_from,
        reference.total()?.rows,
        serde_json::to_value(reference.season)?
            .as_str()
            .unwrap_or_default()
    )?;
    writeln!(
        out,
        "calibrated on {} devices and {} hours",
        calibration.devices, calibration.windows
    )?;
    if let Some(joint) = &bundle.joint {
        let names: Vec<&str> = joint.features.iter().map(|it| it.name.as_str()).collect();
        writeln!(out, "joint looks at {} together", names.join(", "))?;
    }
    for note in &calibration.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

/// Columns of the table, in the order in which people read them.
const COLUMNS: [&str; 12] = [
    "signal",
    "role",
    "type",
    "resolution",
    "unit",
    "bins",
    "rows",
    "missing",
    "mean",
    "deviation",
    "min",
    "max",
];

fn table(signals: &Value) -> Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(COLUMNS);
    for signal in signals.as_array().into_iter().flatten() {
        table.add_row(COLUMNS.iter().map(|column| match &signal[*column] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }));
    }
    writeln!(std::io::stdout().lock(), "{table}")?;
    Ok(())
}

fn signals(bundle: &Bundle) -> Result<Value> {
    let total = bundle.reference.total()?;
    let signals = bundle.reference.layout.signals().iter().zip(&total.signals);
    Ok(signals
        .map(|(layout, profile)| signal(layout, profile))
        .collect())
}

fn signal(layout: &SignalLayout, profile: &SignalProfile) -> Value {
    let (ty, resolution, unit, range) = match &layout.signal.kind {
        FeatureType::Numeric {
            resolution,
            unit,
            range,
        } => ("numeric", json!(resolution), json!(unit), json!(range)),
        FeatureType::Categorical { .. } => ("categorical", Value::Null, json!(""), Value::Null),
    };
    let numbers = |value: Option<f64>| match layout.is_numeric() {
        true => value.map(significant),
        false => None,
    };
    let scale = layout.resolution();
    json!({
        "signal": layout.signal.name,
        "role": layout.signal.role,
        "type": ty,
        "resolution": resolution,
        "unit": unit,
        "range": range,
        "bins": layout.bins(),
        "rows": profile.rows(),
        "missing": profile.nulls,
        "mean": numbers(profile.mean(scale)),
        "deviation": numbers(profile.variance(scale).map(f64::sqrt)),
        "min": numbers(profile.min.map(|min| f64::from(min) * scale)),
        "max": numbers(profile.max.map(|max| f64::from(max) * scale)),
    })
}

/// Six significant digits: more say nothing to people.
fn significant(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}
