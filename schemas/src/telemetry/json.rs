//! JSON lines.

use serde_json::{Map, Value};

use super::cell::Cell;
use super::{Gathering, Intake, LINE_BYTES_MAX, Taken, TelemetryError};
use crate::frame::FrameLimits;

/// Reads an object a line; lines of nothing but white space are passed over.
pub(super) fn read(
    intake: &Intake,
    bytes: &[u8],
    limits: &FrameLimits,
) -> Result<Taken, TelemetryError> {
    if bytes.len() > limits.raw_bytes {
        return Err(TelemetryError::Limit {
            what: "bytes",
            limit: limits.raw_bytes,
        });
    }
    let mut gathering = Gathering::new(intake, limits);
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        gathering.begin()?;
        let result = row(&mut gathering, line);
        gathering.end(result)?;
    }
    Ok(gathering.taken)
}

fn row(gathering: &mut Gathering<'_>, line: &[u8]) -> Result<(), String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("a line must have at most {LINE_BYTES_MAX} bytes"));
    }
    let object: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|error| format!("not a JSON object on one line: {error}"))?;
    for (name, value) in &object {
        let Some(column) = gathering.intake.by_name.get(name) else {
            return Err(format!("{name:?}: the schema has no such field"));
        };
        gathering.set(*column, &cell(value))?;
    }
    Ok(())
}

fn cell(value: &Value) -> Cell<'_> {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(value) => Cell::Bool(*value),
        Value::String(text) => Cell::Text(text),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => Cell::Int(value),
            (_, Some(value), _) => Cell::Large(value),
            (_, _, Some(value)) => Cell::Float(value),
            _ => Cell::Other,
        },
        Value::Array(_) | Value::Object(_) => Cell::Other,
    }
}
