//! Telemetry that does not come as frames: JSON lines and Arrow streams, with values in their units.
//!
//! What a person or a script sends to `POST /v1/telemetry/{kind}` names its fields and says numbers
//! in their unit and categories by name; here it becomes the [`Rows`] that a frame would have
//! carried. A row that cannot be is refused alone, with the reason.
//!
//! | column | JSON | Arrow |
//! | --- | --- | --- |
//! | time | RFC 3339 text, or whole microseconds since the epoch | timestamp, text or integer likewise |
//! | number | number; `"NaN"`, `"Infinity"`, `"-Infinity"` | any integer or float |
//! | category, class | its name, or its code | text or integer; booleans for yes and no |
//! | counter | whole number | any integer |
//! | text | text | text |
//! | identity | UUID text | UUID text or 16 bytes |
//!
//! # Layout of this module
//!
//! - here: [`Intake`], which knows the columns and gathers rows
//! - `cell`: from one value as it came to one value as it is kept
//! - `json`, `arrow`: the two ways in

mod arrow;
mod cell;
mod json;

use std::collections::HashMap;
use std::sync::Arc;

use crate::bundle::{FeatureType, Manifest};
use crate::frame::FrameLimits;
use crate::rows::{Column, Field, FieldType, Kind, RowSchema, Rows};
use cell::{Cell, Coded};

/// Most row errors that are told of one request; the rest is counted.
pub const ROW_ERRORS_MAX: usize = 1_000;
/// Longest line, in bytes: [`crate::limits::FEATURES_MAX`] fields with their names.
pub const LINE_BYTES_MAX: usize = 1 << 18;

/// Why one row was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Index of the row in the request, from 0, empty lines not counted.
    pub row: usize,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Why a request was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// There is more of something than is accepted.
    #[error("request has more than {limit} {what}; send smaller requests")]
    Limit {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// How much is accepted.
        limit: usize,
    },
    /// The bytes are no Arrow stream that is read here.
    #[error("arrow stream at byte {at}: {what}")]
    Stream {
        /// Offset of the message that is wrong.
        at: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// The rows that were good, in order.
    pub rows: Rows,
    /// Index in the request of each of them.
    pub indices: Vec<u32>,
    /// The rows that were not, at most [`ROW_ERRORS_MAX`] of them.
    pub errors: Vec<RowError>,
    /// How many were refused in all.
    pub refused: usize,
}

/// Names that the codes of a column have.
#[derive(Debug, Clone, Default)]
struct Names {
    codes: HashMap<String, i32>,
    /// Whether a name that is not listed is a category that was never seen, and not an error.
    open: bool,
}

/// Knows the columns of a kind of rows, and takes rows in.
#[derive(Debug, Clone)]
pub struct Intake {
    schema: Arc<RowSchema>,
    names: Vec<Names>,
    by_name: HashMap<String, usize>,
}

impl Intake {
    /// Prepares for rows of a schema; the manifest gives the names of categories and classes, and
    /// is needed where there are some.
    pub fn new(schema: &Arc<RowSchema>, manifest: Option<&Manifest>) -> Self {
        let names = schema
            .fields()
            .iter()
            .map(|field| names_of(field, schema.kind(), manifest))
            .collect();
        let by_name = schema.fields().iter().enumerate();
        Self {
            names,
            by_name: by_name
                .map(|(index, field)| (field.name.clone(), index))
                .collect(),
            schema: Arc::clone(schema),
        }
    }

    /// Takes in JSON lines: an object a line, keys being the schema's fields. A key that the schema
    /// does not have, or has and the line does not although every row must, refuses the row.
    ///
    /// # Errors
    /// [`TelemetryError::Limit`] when there are more rows than one frame may carry.
    pub fn json_lines(&self, bytes: &[u8], limits: &FrameLimits) -> Result<Taken, TelemetryError> {
        json::read(self, bytes, limits)
    }

    /// Takes in an Arrow IPC stream of flat columns, matched by name, written without compression
    /// and without dictionaries. Nothing that the stream claims is believed before it is checked.
    ///
    /// # Errors
    /// [`TelemetryError`] when it is no such stream, has columns that the schema does not have, or
    /// more rows than one frame may carry.
    pub fn arrow_stream(
        &self,
        bytes: &[u8],
        limits: &FrameLimits,
    ) -> Result<Taken, TelemetryError> {
        arrow::read(self, bytes, limits)
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a str>, open: bool) -> Names {
    let names = names.into_iter().enumerate();
    Names {
        codes: names
            .map(|(code, name)| (name.to_owned(), code as i32))
            .collect(),
        open,
    }
}

fn names_of(field: &Field, kind: Kind, manifest: Option<&Manifest>) -> Names {
    let categories = |kind: &FeatureType, open| match kind {
        FeatureType::Categorical { categories } => {
            list(categories.iter().map(String::as_str), open)
        }
        FeatureType::Numeric { .. } => Names::default(),
    };
    match (kind, field.name.as_str()) {
        _ if field.categories.is_none() => Names::default(),
        (Kind::Health, _) => list(["false", "true"], false),
        (Kind::Inferences, "ran_on") => list(["device", "gateway", "cloud"], false),
        (_, name) => {
            let Some(manifest) = manifest else {
                return Names::default();
            };
            let feature = manifest
                .features
                .iter()
                .chain(&manifest.signals)
                .find(|feature| feature.name == name && kind == Kind::Inferences);
            match feature {
                Some(feature) => categories(&feature.kind, true),
                None => categories(&manifest.prediction_kind(), false),
            }
        }
    }
}

/// Gathers rows one by one, within limits.
struct Gathering<'a> {
    intake: &'a Intake,
    limits: &'a FrameLimits,
    row_bytes: usize,
    bytes: usize,
    seen: usize,
    row: Vec<Coded>,
    taken: Taken,
}

impl<'a> Gathering<'a> {
    fn new(intake: &'a Intake, limits: &'a FrameLimits) -> Self {
        let fields = intake.schema.fields();
        let row_bytes = fields.iter().map(|field| match field.ty {
            FieldType::Int32 | FieldType::Text => 4,
            FieldType::Time | FieldType::Int64 => 8,
            FieldType::Id => 16,
        });
        Self {
            intake,
            limits,
            row_bytes: row_bytes.sum(),
            bytes: 0,
            seen: 0,
            row: vec![Coded::Missing; fields.len()],
            taken: Taken {
                rows: Rows::empty(&intake.schema),
                indices: Vec::new(),
                errors: Vec::new(),
                refused: 0,
            },
        }
    }

    /// Counts a row, and refuses it when it is one too many.
    fn begin(&mut self) -> Result<(), TelemetryError> {
        self.row.fill(Coded::Missing);
        if self.seen >= self.limits.rows {
            return Err(TelemetryError::Limit {
                what: "rows",
                limit: self.limits.rows,
            });
        }
        self.seen += 1;
        Ok(())
    }

    /// Keeps a value of the row that was begun.
    fn set(&mut self, column: usize, cell: &Cell<'_>) -> Result<(), String> {
        let field = &self.intake.schema.fields()[column];
        let names = &self.intake.names[column];
        let coded = cell::code(field, names, cell, self.limits.text_bytes)
            .map_err(|problem| format!("{:?}: {problem}", field.name))?;
        self.row[column] = coded;
        Ok(())
    }

    /// Ends the row that was begun: it is kept, or refused for what went wrong.
    fn end(&mut self, result: Result<(), String>) -> Result<(), TelemetryError> {
        let fields = self.intake.schema.fields();
        let complete = result.and_then(|()| {
            let missing = fields
                .iter()
                .zip(&self.row)
                .find(|(field, coded)| !field.nullable && **coded == Coded::Missing);
            match missing {
                Some((field, _)) => Err(format!("{:?}: every row must have it", field.name)),
                None => Ok(()),
            }
        });
        if let Err(reason) = complete {
            self.taken.refused += 1;
            if self.taken.errors.len() < ROW_ERRORS_MAX {
                let row = self.seen - 1;
                self.taken.errors.push(RowError { row, reason });
            }
            return Ok(());
        }
        let texts: usize = self.row.iter().map(Coded::text_bytes).sum();
        self.bytes += self.row_bytes + texts;
        if self.bytes > self.limits.decoded_bytes {
            return Err(TelemetryError::Limit {
                what: "bytes of rows",
                limit: self.limits.decoded_bytes,
            });
        }
        // The limit on rows is far below 2^32.
        self.taken.indices.push((self.seen - 1) as u32);
        for (column, coded) in self.taken.rows.columns.iter_mut().zip(&mut self.row) {
            put(column, std::mem::replace(coded, Coded::Missing));
        }
        Ok(())
    }
}

/// Appends a value to the column that it was coded for.
fn put(column: &mut Column, coded: Coded) {
    match (column, coded) {
        (Column::Time(values) | Column::Int64(values), Coded::Int64(value)) => {
            values.push(Some(value));
        }
        (Column::Int32(values), Coded::Int32(value)) => values.push(Some(value)),
        (Column::Text(values), Coded::Text(value)) => values.push(Some(value)),
        (Column::Id(values), Coded::Id(value)) => values.push(Some(value)),
        (Column::Time(values) | Column::Int64(values), _) => values.push(None),
        (Column::Int32(values), _) => values.push(None),
        (Column::Text(values), _) => values.push(None),
        (Column::Id(values), _) => values.push(None),
    }
}
