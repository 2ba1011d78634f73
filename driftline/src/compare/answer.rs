//! What a comparison says: the documented object, a table, or a row for every measure.

use std::io::Write as _;

use anyhow::Result;
use driftline_drift::compare::{Column, Measure, Sides, Values};
use serde_json::{Value, json};

use crate::output::{self, OutputFormat};

/// A comparison.
#[derive(Debug)]
pub(super) struct Judged {
    /// All rows first, then the groups.
    pub(super) tables: Vec<Table>,
    pub(super) drifted: bool,
    /// Columns that were left out, and why.
    pub(super) skipped: Vec<(String, String)>,
}

/// All rows, or those of a group.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) group: Option<String>,
    pub(super) rows: Sides<u64>,
    pub(super) columns: Vec<(Column, Vec<Measure>)>,
}

pub(super) fn is_drifted(measures: &[Measure]) -> bool {
    measures.iter().any(|measure| measure.drifted)
}

pub(super) fn kind(column: &Column) -> &'static str {
    match column.values {
        Values::Numbers(_) => "numeric",
        Values::Categories(_) => "categorical",
    }
}

/// The measure that says most: what drifted before what did not, then the smallest p-value.
pub(super) fn strongest(measures: &[Measure]) -> Option<&Measure> {
    measures.iter().min_by(|a, b| {
        let p = |measure: &Measure| measure.p_value.unwrap_or(1.0);
        b.drifted.cmp(&a.drifted).then(p(a).total_cmp(&p(b)))
    })
}

/// Writes it.
///
/// # Errors
/// When standard output is closed.
pub(super) fn write(judged: &Judged, format: OutputFormat) -> Result<()> {
    let is_csv = format == OutputFormat::Csv;
    let header = &HEADER[usize::from(judged.tables.len() == 1)..];
    match format {
        OutputFormat::Json => output::write(&document(judged), format),
        OutputFormat::Table => {
            let rows = rows(judged, |measures| strongest(measures).into_iter().collect());
            output::write_rows(header, &rows, is_csv)?;
            let verdict = if judged.drifted {
                "drift found"
            } else {
                "no drift found"
            };
            writeln!(std::io::stdout().lock(), "{verdict}")?;
            Ok(())
        }
        OutputFormat::Csv => {
            let rows = rows(judged, |measures| measures.iter().collect());
            output::write_rows(header, &rows, is_csv)
        }
    }
}

/// The first is only there when there are groups.
const HEADER: [&str; 9] = [
    "group",
    "column",
    "kind",
    "drifted",
    "method",
    "value",
    "p_value",
    "threshold",
    "at",
];

fn document(judged: &Judged) -> Value {
    let mut tables = judged.tables.iter();
    let all = tables.next();
    let by: Vec<Value> = tables
        .map(|table| {
            json!({
                "value": table.group,
                "rows": table_rows(table),
                "drifted": table.columns.iter().any(|(_, measures)| is_drifted(measures)),
                "columns": columns(table),
            })
        })
        .collect();
    let mut document = json!({
        "rows": all.map(table_rows),
        "drifted": judged.drifted,
        "columns": all.map(columns),
        "by": by,
    });
    if !judged.skipped.is_empty() {
        let skipped = judged.skipped.iter();
        document["skipped"] = skipped
            .map(|(column, why)| json!({"column": column, "why": why}))
            .collect();
    }
    document
}

fn table_rows(table: &Table) -> Value {
    json!({"reference": table.rows.reference, "current": table.rows.current})
}

fn columns(table: &Table) -> Vec<Value> {
    let columns = table.columns.iter();
    columns
        .map(|(column, measures)| {
            let measures: Vec<Value> = measures.iter().map(measure).collect();
            json!({
                "column": column.name,
                "kind": kind(column),
                "drifted": measures.iter().any(|measure| measure["drifted"] == true),
                "measures": measures,
            })
        })
        .collect()
}

/// A measure; one that is about a single value or category says which.
fn measure(measure: &Measure) -> Value {
    let mut value = json!({
        "method": measure.method.name(),
        "value": measure.value,
        "p_value": measure.p_value,
        "threshold": measure.threshold,
        "drifted": measure.drifted,
    });
    if let Some(at) = &measure.at {
        value["at"] = json!(at);
    }
    value
}

/// A row for each of the measures that are wanted of a column, or one that says that there is none.
fn rows(judged: &Judged, wanted: impl Fn(&[Measure]) -> Vec<&Measure>) -> Vec<Vec<String>> {
    let has_groups = judged.tables.len() > 1;
    let mut rows = Vec::new();
    for table in &judged.tables {
        for (column, measures) in &table.columns {
            let mut start = vec![column.name.clone(), kind(column).to_owned()];
            if has_groups {
                start.insert(0, table.group.clone().unwrap_or_default());
            }
            let wanted = wanted(measures);
            if wanted.is_empty() {
                let blank = std::iter::repeat_n(String::new(), 5);
                let row = start.iter().cloned().chain(["false".to_owned()]);
                rows.push(row.chain(blank).collect());
            }
            for measure in wanted {
                let number = |it: Option<f64>| it.map(digits).unwrap_or_default();
                let cells = [
                    measure.drifted.to_string(),
                    measure.method.to_string(),
                    digits(measure.value),
                    number(measure.p_value),
                    number(measure.threshold),
                    measure.at.clone().unwrap_or_default(),
                ];
                rows.push(start.iter().cloned().chain(cells).collect());
            }
        }
    }
    rows
}

/// A number for people: four digits.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e6).contains(&size) => {
            let places = (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize;
            format!("{value:.places$}")
        }
        _ => format!("{value:.2e}"),
    }
}
