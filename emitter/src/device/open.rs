//! Frames and profiles that still take rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_schemas::bundle::SCORE_RESOLUTION;
use driftline_schemas::frame::DeviceProfile;
use driftline_schemas::profile::binning::Counter;
use driftline_schemas::profile::cell::pane_start_us;
use driftline_schemas::quantity;
use driftline_schemas::rows::{Column, EVENT_TIME, FieldType, Kind, RowSchema, Rows};

use super::{DeviceError, Runtime, has_confidence};
use crate::features::{Batch, Value};
use crate::limits::OPEN_PANES_MAX;
use crate::model::Predictions;

/// Kinds have the codes 1 to 5.
pub(super) const KINDS: usize = 6;

/// Open rows per kind, the sequence of each kind's next frame, and open panes.
#[derive(Debug, Default)]
pub(super) struct Open {
    rows: [Option<Rows>; KINDS],
    sequences: [u64; KINDS],
    bytes: usize,
    panes: BTreeMap<i64, (i64, Counter)>,
    counted: u64,
}

impl Open {
    /// Sequence of the open frame of a kind, and index of its next row.
    pub(super) fn next(&self, kind: Kind) -> (u64, u32) {
        // Frames are sealed at FRAME_ROWS_MAX = 65,536 rows at the latest.
        (self.sequences[kind as usize], self.len(kind) as u32)
    }

    /// Rows of the open frame of a kind.
    pub(super) fn len(&self, kind: Kind) -> usize {
        self.rows[kind as usize].as_ref().map_or(0, Rows::len)
    }

    /// All open rows, those that open panes count included.
    pub(super) fn rows(&self) -> u64 {
        let rows: usize = self.rows.iter().flatten().map(Rows::len).sum();
        rows as u64 + self.counted
    }

    /// Bytes of all open rows, estimated from above.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The open frame of a kind, for one more row.
    pub(super) fn rows_of(&mut self, kind: Kind, runtime: &Runtime) -> &mut Rows {
        self.bytes += runtime.row_bytes(kind);
        self.rows[kind as usize].get_or_insert_with(|| Rows::empty(runtime.schema(kind)))
    }

    /// Counts the texts of a row that was added.
    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// A copy of the open rows of a kind, which stay until [`Self::close`].
    pub(super) fn body(&self, kind: Kind) -> Rows {
        self.rows[kind as usize].clone().unwrap_or(Rows {
            columns: Vec::new(),
        })
    }

    /// The open frame of a kind is in the spool: the next row begins the next one.
    pub(super) fn close(&mut self, kind: Kind) {
        self.rows[kind as usize] = None;
        self.sequences[kind as usize] += 1;
        if self.rows.iter().all(Option::is_none) {
            self.bytes = 0;
        } else {
            // What other kinds hold is estimated anew from nothing finer than rows.
            self.bytes = self
                .rows
                .iter()
                .flatten()
                .map(|rows| rows.len() * columns_bytes(&rows.columns))
                .sum();
        }
    }

    /// Counts a row into its pane; a pane that had to give way comes back closed.
    pub(super) fn count(
        &mut self,
        runtime: &Runtime,
        device_hash: u64,
        pane_us: i64,
        batch: &Batch,
        predictions: &Predictions,
        row: usize,
    ) -> Result<Option<DeviceProfile>, DeviceError> {
        let layout = &runtime.bundle().reference.layout;
        let start = pane_start_us(batch.times_us[row], pane_us);
        let mut closed = None;
        if !self.panes.contains_key(&start) && self.panes.len() >= OPEN_PANES_MAX {
            closed = self.close_profile(runtime);
        }
        let (_, counter) = self
            .panes
            .entry(start)
            .or_insert_with(|| (pane_us, Counter::new(layout)));
        let manifest = &runtime.bundle().manifest;
        let inputs = manifest.features.len();
        let mut signal = 0;
        let mut next = |value: Option<i32>| {
            let counted = counter.value(signal, value);
            signal += 1;
            counted
        };
        for column in &batch.codes[..inputs] {
            next(column.get(row).copied())?;
        }
        next(prediction(runtime, predictions, row))?;
        if has_confidence(manifest.task) {
            next(confidence(predictions, row))?;
        }
        for column in &batch.codes[inputs..] {
            next(column.get(row).copied())?;
        }
        if let Some(joint) = &runtime.bundle().joint {
            let time_us = batch.times_us[row];
            next(joint.value(time_us, |it| batch.codes.get(it.at)?.get(row).copied()))?;
        }
        // The error is not known here, so that signal is left without rows.
        counter.rows(device_hash, 1);
        self.counted += 1;
        Ok(closed)
    }

    /// Closes the oldest pane.
    pub(super) fn close_profile(&mut self, runtime: &Runtime) -> Option<DeviceProfile> {
        let (start, (length, counter)) = self.panes.pop_first()?;
        let profile = counter.finish();
        self.counted -= profile.rows;
        Some(DeviceProfile {
            version: runtime.bundle().manifest.version.as_str().into(),
            pane_start_us: start,
            pane_length_us: length,
            profile,
        })
    }
}

/// Bytes that a row may take in a frame, texts aside.
pub(super) fn row_bytes(schema: &RowSchema) -> usize {
    schema
        .fields()
        .iter()
        .map(|field| type_bytes(field.ty))
        .sum()
}

fn columns_bytes(columns: &[Column]) -> usize {
    columns.iter().map(|column| type_bytes(column.ty())).sum()
}

/// A varint of the type's width, or a text's length and index.
fn type_bytes(ty: FieldType) -> usize {
    match ty {
        FieldType::Time | FieldType::Int64 => 10,
        FieldType::Int32 => 5,
        FieldType::Text => 4,
        FieldType::Id => 16,
    }
}

/// The prediction as it stands in rows and profiles.
fn prediction(runtime: &Runtime, predictions: &Predictions, row: usize) -> Option<i32> {
    match predictions.classes.get(row) {
        Some(class) => Some(*class),
        None => {
            let resolution = runtime.bundle().manifest.output.resolution.unwrap_or(1.0);
            let value = f64::from(*predictions.values.get(row)?);
            Some(quantity::quantise(value, resolution))
        }
    }
}

fn confidence(predictions: &Predictions, row: usize) -> Option<i32> {
    predictions
        .confidence(row)
        .map(|score| quantity::quantise(score.into(), SCORE_RESOLUTION))
}

fn push_int(column: Option<&mut Column>, value: Option<i32>) {
    if let Some(Column::Int32(values)) = column {
        values.push(value);
    }
}

/// Adds an inference, in the order of [`RowSchema::inferences`].
pub(super) fn push_inference(
    rows: &mut Rows,
    runtime: &Runtime,
    batch: &Batch,
    predictions: &Predictions,
    row: usize,
    latency_us: Option<i32>,
) {
    let manifest = &runtime.bundle().manifest;
    let inputs = manifest.features.len();
    let mut columns = rows.columns.iter_mut();
    if let Some(Column::Time(times)) = columns.next() {
        times.push(Some(batch.times_us[row]));
    }
    for column in &batch.codes[..inputs] {
        push_int(columns.next(), column.get(row).copied());
    }
    push_int(columns.next(), prediction(runtime, predictions, row));
    if has_confidence(manifest.task) {
        push_int(columns.next(), confidence(predictions, row));
        if manifest.output.scores {
            for class in 0..manifest.output.classes.len() {
                let score = predictions.scores(row).and_then(|scores| scores.get(class));
                let code = score.map(|score| quantity::quantise((*score).into(), SCORE_RESOLUTION));
                push_int(columns.next(), code);
            }
        }
    }
    push_int(columns.next(), latency_us);
    push_int(columns.next(), None);
    push_int(columns.next(), Some(0));
    for column in &batch.codes[inputs..] {
        push_int(columns.next(), column.get(row).copied());
    }
}

/// Adds an outcome, in the order of [`RowSchema::outcomes`].
pub(super) fn push_outcome(rows: &mut Rows, id: u128, truth: Option<i32>, observed_at_us: i64) {
    for (index, column) in rows.columns.iter_mut().enumerate() {
        match (index, column) {
            (0, Column::Time(times)) => times.push(Some(observed_at_us)),
            (_, Column::Id(ids)) => ids.push(Some(id)),
            (_, Column::Int32(truths)) => truths.push(truth),
            // The observer and the device that ran the inference are the sender.
            (_, Column::Text(texts)) => texts.push(None),
            (_, Column::Time(values) | Column::Int64(values)) => values.push(None),
        }
    }
}

/// One value of a row of any kind.
pub(super) enum Cell {
    Int32(Option<i32>),
    Int64(Option<i64>),
    Text(Option<Arc<str>>),
}

/// A row of named values, in the order of the schema; what is not named is missing.
pub(super) fn named_row(
    schema: &RowSchema,
    event_time_us: i64,
    values: &[(&str, Value<'_>)],
) -> Result<Vec<Cell>, DeviceError> {
    let wrong = |field: &str, problem| DeviceError::Field {
        kind: schema.kind().name(),
        field: field.into(),
        problem,
    };
    if let Some((unknown, _)) = values
        .iter()
        .find(|(name, _)| *name == EVENT_TIME || schema.index(name).is_none())
    {
        return Err(wrong(unknown, "there is no such column to set"));
    }
    schema
        .fields()
        .iter()
        .map(|field| {
            if field.name == EVENT_TIME {
                return Ok(Cell::Int64(Some(event_time_us)));
            }
            let value = values
                .iter()
                .find(|(name, _)| *name == field.name)
                .map_or(Value::Missing, |(_, value)| *value);
            match (field.ty, value) {
                (_, Value::Missing) if !field.nullable => {
                    Err(wrong(&field.name, "a value is needed"))
                }
                (FieldType::Int32, Value::Missing) => Ok(Cell::Int32(None)),
                (FieldType::Int32, Value::Number(number)) => Ok(Cell::Int32(Some(
                    quantity::quantise(number, field.resolution),
                ))),
                (FieldType::Int64 | FieldType::Time, Value::Missing) => Ok(Cell::Int64(None)),
                (FieldType::Int64 | FieldType::Time, Value::Number(number)) => {
                    Ok(Cell::Int64(Some(number as i64)))
                }
                (FieldType::Text, Value::Missing) => Ok(Cell::Text(None)),
                (FieldType::Text, Value::Text(text)) => Ok(Cell::Text(Some(text.into()))),
                _ => Err(wrong(&field.name, "the value is not of the column's type")),
            }
        })
        .collect()
}

/// Adds a row whose cells are in the order of the columns.
pub(super) fn push_row(rows: &mut Rows, cells: Vec<Cell>) {
    for (column, cell) in rows.columns.iter_mut().zip(cells) {
        match (column, cell) {
            (Column::Int32(values), Cell::Int32(value)) => values.push(value),
            (Column::Int64(values) | Column::Time(values), Cell::Int64(value)) => {
                values.push(value);
            }
            (Column::Text(values), Cell::Text(value)) => values.push(value),
            // `named_row` makes cells of the columns' types.
            _ => {}
        }
    }
}
