//! From one value as it came to one value as it is kept.

use std::sync::Arc;

use super::Names;
use crate::quantity::{self, UNSEEN};
use crate::rows::{Field, FieldType};

/// A value as it came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number above what 64 signed bits hold.
    Large(u64),
    Float(f64),
    Text(&'a str),
    /// Microseconds since the epoch.
    Time(i64),
    Bytes(&'a [u8]),
    /// Something that no column takes (a list, an object).
    Other,
}

/// A value as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Coded {
    Missing,
    Int32(i32),
    Int64(i64),
    Text(Arc<str>),
    Id(u128),
}

impl Coded {
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            _ => 0,
        }
    }
}

/// Codes a value for a field; an error says what would be right.
pub(super) fn code(
    field: &Field,
    names: &Names,
    cell: &Cell<'_>,
    text_bytes_max: usize,
) -> Result<Coded, String> {
    if *cell == Cell::Null {
        return Ok(Coded::Missing);
    }
    match field.ty {
        FieldType::Time => time(cell).map(Coded::Int64),
        FieldType::Int32 if field.categories.is_some() => category(names, cell).map(Coded::Int32),
        FieldType::Int32 => number(field.resolution, cell).map(Coded::Int32),
        FieldType::Int64 => match cell {
            Cell::Int(value) => Ok(Coded::Int64(*value)),
            Cell::Float(value) if value.fract() == 0.0 && value.abs() < 2f64.powi(53) => {
                Ok(Coded::Int64(*value as i64))
            }
            _ => Err("must be a whole number of at most 64 bits".into()),
        },
        FieldType::Text => match cell {
            Cell::Text(text) if text.len() <= text_bytes_max => Ok(Coded::Text((*text).into())),
            Cell::Text(_) => Err(format!("must have at most {text_bytes_max} bytes")),
            _ => Err("must be a text".into()),
        },
        FieldType::Id => id(cell).map(Coded::Id),
    }
}

fn time(cell: &Cell<'_>) -> Result<i64, String> {
    match cell {
        Cell::Time(micros) | Cell::Int(micros) => Ok(*micros),
        Cell::Text(text) => text
            .parse::<jiff::Timestamp>()
            .map(jiff::Timestamp::as_microsecond)
            .map_err(|_| "must be a time as in 2026-01-31T12:00:00Z".into()),
        _ => Err("must be a time as in 2026-01-31T12:00:00Z, or microseconds since 1970".into()),
    }
}

fn number(resolution: f64, cell: &Cell<'_>) -> Result<i32, String> {
    let value = match cell {
        Cell::Int(value) => *value as f64,
        Cell::Large(value) => *value as f64,
        Cell::Float(value) => *value,
        Cell::Text("NaN") => f64::NAN,
        Cell::Text("Infinity") => f64::INFINITY,
        Cell::Text("-Infinity") => f64::NEG_INFINITY,
        _ => return Err("must be a number".into()),
    };
    Ok(quantity::quantise(value, resolution))
}

fn category(names: &Names, cell: &Cell<'_>) -> Result<i32, String> {
    let listed = || {
        let mut known: Vec<&str> = names.codes.keys().map(String::as_str).collect();
        known.sort_unstable();
        known.truncate(8);
        known.join(", ")
    };
    match cell {
        Cell::Text(name) => match names.codes.get(*name) {
            Some(code) => Ok(*code),
            None if names.open => Ok(UNSEEN),
            None => Err(format!("{name:?} is not one of {}", listed())),
        },
        Cell::Bool(value) if names.codes.contains_key("true") => Ok((*value).into()),
        Cell::Int(code) => i32::try_from(*code)
            .ok()
            .filter(|code| *code >= 0)
            .ok_or_else(|| "must be a code from 0, or a name".into()),
        _ => Err(format!("must be a code from 0, or one of {}", listed())),
    }
}

fn id(cell: &Cell<'_>) -> Result<u128, String> {
    let id = match cell {
        Cell::Text(text) => uuid::Uuid::try_parse(text).ok(),
        Cell::Bytes(bytes) => uuid::Uuid::from_slice(bytes).ok(),
        _ => None,
    };
    id.map(|id| id.as_u128())
        .ok_or_else(|| "must be a UUID, as the inference has it".into())
}
