//! Answers of commands: a table on a terminal, JSON for machines.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

/// What was asked for cannot be: wrong usage, exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people.
    Table,
    /// One document.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

impl OutputFormat {
    /// What was asked for, or else what suits the output.
    pub(crate) fn or_suitable(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| match std::io::stdout().is_terminal() {
            true => Self::Table,
            false => Self::Json,
        })
    }
}

/// Writes rows (an array of objects) or one object.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn write(value: &Value, format: OutputFormat) -> anyhow::Result<()> {
    write_in_order(value, &[], format)
}

/// The same with these columns of a table or CSV first, in this order.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn write_in_order(
    value: &Value,
    first: &[&str],
    format: OutputFormat,
) -> anyhow::Result<()> {
    let mut columns = columns(value);
    columns.sort_by_key(|name| {
        first
            .iter()
            .position(|it| it == name)
            .unwrap_or(first.len())
    });
    let mut out = std::io::stdout().lock();
    match format {
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(value)?)?,
        OutputFormat::Table => {
            let mut table = comfy_table::Table::new();
            table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
            table.set_header(&columns);
            for row in rows(value) {
                table.add_row(columns.iter().map(|column| short(&row[column])));
            }
            writeln!(out, "{table}")?;
        }
        OutputFormat::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(&columns)?;
            for row in rows(value) {
                writer.write_record(columns.iter().map(|column| text(&row[column])))?;
            }
            writer.flush()?;
        }
    }
    Ok(())
}

/// Writes rows of cells under a header, as a table or CSV.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn write_rows(
    header: &[&str],
    rows: &[Vec<String>],
    is_csv: bool,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if is_csv {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(header)?;
        for row in rows {
            writer.write_record(row)?;
        }
        writer.flush()?;
        return Ok(());
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    writeln!(out, "{table}")?;
    Ok(())
}

fn rows(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(rows) => rows.iter().collect(),
        row => vec![row],
    }
}

fn columns(value: &Value) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for row in rows(value) {
        for key in row.as_object().into_iter().flatten().map(|(key, _)| key) {
            if !columns.contains(key) {
                columns.push(key.clone());
            }
        }
    }
    columns
}

/// A cell for people: numbers to six digits.
fn short(value: &Value) -> String {
    let number = value.as_f64().filter(|_| value.is_f64());
    let rounded = number.and_then(|number| format!("{number:.5e}").parse::<f64>().ok());
    rounded.map_or_else(|| text(value), |number| number.to_string())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Numbers in tables have six digits, and whole numbers all of theirs.
    #[test]
    fn numbers_for_people() {
        let cells = [
            json!(0.061999875),
            json!(1_234_567_890),
            json!(1.0),
            json!(null),
            json!("a"),
        ];
        assert_eq!(
            cells.map(|it| short(&it)),
            ["0.0619999", "1234567890", "1", "", "a"]
        );
    }
}
