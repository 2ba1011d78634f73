//! Arrow IPC streams from outside.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::cell::Cell;
use super::{Gathering, Intake, Taken, TelemetryError};
use crate::frame::FrameLimits;
use crate::ipc::{IpcError, IpcMessage, Messages, read_batch, read_schema};

/// Reads all batches of a stream.
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
    // One copy into aligned memory; columns are not copied again.
    let buffer = Buffer::from(bytes);
    let mut messages = Messages::new(&buffer, 0);
    let first = messages.next().map_err(refused)?;
    let first = first.ok_or_else(|| stream(0, "the stream is empty"))?;
    let schema = Arc::new(read_schema(&first, intake.schema.fields().len()).map_err(refused)?);
    let columns = columns(intake, &schema)?;
    let mut gathering = Gathering::new(intake, limits);
    while let Some(message) = messages.next().map_err(refused)? {
        let left = limits.rows - gathering.seen;
        let batch = batch(&buffer, &message, &schema, left)?;
        for row in 0..batch.num_rows() {
            gathering.begin()?;
            let result = columns
                .iter()
                .zip(batch.columns())
                .try_for_each(|(column, array)| gathering.set(*column, &cell(array, row)));
            gathering.end(result)?;
        }
    }
    Ok(gathering.taken)
}

fn stream(at: usize, what: impl Into<String>) -> TelemetryError {
    TelemetryError::Stream {
        at,
        what: what.into(),
    }
}

fn refused(error: IpcError) -> TelemetryError {
    stream(error.at, error.what)
}

/// The schema's column of each column of the stream.
fn columns(intake: &Intake, schema: &SchemaRef) -> Result<Vec<usize>, TelemetryError> {
    let mut columns: Vec<usize> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        match intake.by_name.get(field.name()) {
            Some(column) if !columns.contains(column) => columns.push(*column),
            Some(_) => {
                return Err(stream(
                    0,
                    format!("column {:?} is there twice", field.name()),
                ));
            }
            None => {
                return Err(stream(
                    0,
                    format!("column {:?}: the schema has no such field", field.name()),
                ));
            }
        }
    }
    Ok(columns)
}

/// Reads one batch. All lengths have been checked before Arrow sees them; should it panic all the
/// same, the request is refused and the gateway lives on.
fn batch(
    buffer: &Buffer,
    message: &IpcMessage<'_>,
    schema: &SchemaRef,
    rows_max: usize,
) -> Result<RecordBatch, TelemetryError> {
    let read = AssertUnwindSafe(|| read_batch(buffer, message, Arc::clone(schema), rows_max));
    match std::panic::catch_unwind(read) {
        Ok(result) => result.map_err(refused),
        Err(_) => Err(stream(message.at, "arrow cannot read this batch")),
    }
}

/// A value of a column; [`read_schema`] lets no other types through.
fn cell(array: &ArrayRef, row: usize) -> Cell<'_> {
    if array.is_null(row) {
        return Cell::Null;
    }
    macro_rules! value {
        ($ty:ty) => {
            array.as_primitive::<$ty>().value(row)
        };
    }
    match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int8 => Cell::Int(value!(Int8Type).into()),
        DataType::Int16 => Cell::Int(value!(Int16Type).into()),
        DataType::Int32 => Cell::Int(value!(Int32Type).into()),
        DataType::Int64 => Cell::Int(value!(Int64Type)),
        DataType::UInt8 => Cell::Int(value!(UInt8Type).into()),
        DataType::UInt16 => Cell::Int(value!(UInt16Type).into()),
        DataType::UInt32 => Cell::Int(value!(UInt32Type).into()),
        DataType::UInt64 => {
            let value = value!(UInt64Type);
            i64::try_from(value).map_or(Cell::Large(value), Cell::Int)
        }
        DataType::Float32 => Cell::Float(value!(Float32Type).into()),
        DataType::Float64 => Cell::Float(value!(Float64Type)),
        DataType::Utf8 => Cell::Text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row)),
        DataType::FixedSizeBinary(_) => Cell::Bytes(array.as_fixed_size_binary().value(row)),
        DataType::Timestamp(TimeUnit::Second, _) => {
            scaled(value!(TimestampSecondType).checked_mul(1_000_000))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            scaled(value!(TimestampMillisecondType).checked_mul(1_000))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Cell::Time(value!(TimestampMicrosecondType))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Cell::Time(value!(TimestampNanosecondType).div_euclid(1_000))
        }
        _ => Cell::Other,
    }
}

fn scaled(micros: Option<i64>) -> Cell<'static> {
    micros.map_or(Cell::Other, Cell::Time)
}
