//! Walking an Arrow IPC stream message by message, with every length checked before it is used.
//!
//! Arrow's own stream reader believes the lengths that a stream claims: it allocates them, slices by
//! them, and panics where they do not fit. Here a message is looked at first: its metadata is a
//! flatbuffer that passes verification, its body is there, and each buffer of a batch lies in it.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::{self, Endianness, Message, MetadataVersion, Precision, Type, root_as_message};

const CONTINUATION: [u8; 4] = [0xff; 4];

/// Why a stream is refused: offset in it, and what is wrong there.
#[derive(Debug)]
pub(crate) struct IpcError {
    pub(crate) at: usize,
    pub(crate) what: String,
}

/// One message: verified metadata, and where its body lies.
pub(crate) struct IpcMessage<'a> {
    pub(crate) at: usize,
    /// Bytes of the metadata: equal schemas of one writer have equal ones.
    pub(crate) metadata: &'a [u8],
    pub(crate) message: Message<'a>,
    pub(crate) body_at: usize,
    pub(crate) body_length: usize,
}

/// Stands between two messages of a stream.
pub(crate) struct Messages<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    fn error(&self, what: impl Into<String>) -> IpcError {
        IpcError {
            at: self.at,
            what: what.into(),
        }
    }

    fn number(&mut self) -> Option<[u8; 4]> {
        let number = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(number)
    }

    /// The next message; `None` at the end of the stream, marked or not.
    pub(crate) fn next(&mut self) -> Result<Option<IpcMessage<'a>>, IpcError> {
        let start = self.at;
        if start == self.bytes.len() {
            return Ok(None);
        }
        let mut length = self.number();
        if length == Some(CONTINUATION) {
            length = self.number();
        }
        let length = length.ok_or_else(|| self.error("a message ends before its length"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length == 0 {
            return Ok(None);
        }
        let metadata = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.get(..length))
            .ok_or_else(|| self.error("a message's metadata is longer than what is there"))?;
        let message = root_as_message(metadata)
            .map_err(|error| self.error(format!("a message's metadata is damaged: {error}")))?;
        let body_at = self.at + length;
        let body_length = usize::try_from(message.bodyLength())
            .ok()
            .filter(|body| *body <= self.bytes.len() - body_at)
            .ok_or_else(|| self.error("a message's body is longer than what is there"))?;
        self.at = body_at + body_length;
        Ok(Some(IpcMessage {
            at: start,
            metadata,
            message,
            body_at,
            body_length,
        }))
    }
}

/// The schema that a message says, where all columns are of flat types. Arrow's own conversion
/// panics on what it does not know.
pub(crate) fn read_schema(
    message: &IpcMessage<'_>,
    columns_max: usize,
) -> Result<Schema, IpcError> {
    let error = |what: String| IpcError {
        at: message.at,
        what,
    };
    let schema = message
        .message
        .header_as_schema()
        .filter(|schema| schema.endianness() == Endianness::Little)
        .ok_or_else(|| error("a little-endian schema was expected".into()))?;
    let fields = schema
        .fields()
        .filter(|fields| fields.len() <= columns_max)
        .ok_or_else(|| error(format!("no columns, or more than {columns_max}")))?;
    let fields = fields
        .iter()
        .map(|field| {
            let name = field.name().unwrap_or_default();
            let ty = flat_type(&field).filter(|_| {
                field.dictionary().is_none()
                    && field.children().is_none_or(|children| children.is_empty())
            });
            match ty {
                Some(ty) => Ok(Field::new(name, ty, field.nullable())),
                None => Err(error(format!(
                    "column {name:?} is of a type that is not read here ({:?}): send numbers, texts, booleans, timestamps or 16-byte ids, not dictionaries or lists",
                    field.type_type()
                ))),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Schema::new(fields))
}

fn flat_type(field: &ipc::Field<'_>) -> Option<DataType> {
    match field.type_type() {
        Type::Int => {
            let int = field.type_as_int()?;
            match (int.bitWidth(), int.is_signed()) {
                (8, true) => Some(DataType::Int8),
                (16, true) => Some(DataType::Int16),
                (32, true) => Some(DataType::Int32),
                (64, true) => Some(DataType::Int64),
                (8, false) => Some(DataType::UInt8),
                (16, false) => Some(DataType::UInt16),
                (32, false) => Some(DataType::UInt32),
                (64, false) => Some(DataType::UInt64),
                _ => None,
            }
        }
        Type::FloatingPoint => match field.type_as_floating_point()?.precision() {
            Precision::SINGLE => Some(DataType::Float32),
            Precision::DOUBLE => Some(DataType::Float64),
            _ => None,
        },
        Type::Utf8 => Some(DataType::Utf8),
        Type::LargeUtf8 => Some(DataType::LargeUtf8),
        Type::Bool => Some(DataType::Boolean),
        Type::FixedSizeBinary if field.type_as_fixed_size_binary()?.byteWidth() == 16 => {
            Some(DataType::FixedSizeBinary(16))
        }
        Type::Timestamp => {
            let timestamp = field.type_as_timestamp()?;
            let unit = match timestamp.unit() {
                ipc::TimeUnit::SECOND => TimeUnit::Second,
                ipc::TimeUnit::MILLISECOND => TimeUnit::Millisecond,
                ipc::TimeUnit::MICROSECOND => TimeUnit::Microsecond,
                ipc::TimeUnit::NANOSECOND => TimeUnit::Nanosecond,
                _ => return None,
            };
            Some(DataType::Timestamp(
                unit,
                timestamp.timezone().map(Into::into),
            ))
        }
        _ => None,
    }
}

/// Buffers that a column of a flat type has after its validity, by the bytes that each must have at
/// least; `None` for types that are not read here.
fn buffer_bytes(ty: &DataType, rows: usize) -> Option<Vec<usize>> {
    let offsets = if rows == 0 { 0 } else { rows + 1 };
    match ty {
        DataType::Utf8 => Some(vec![offsets * 4, 0]),
        DataType::LargeUtf8 => Some(vec![offsets * 8, 0]),
        DataType::Boolean => Some(vec![rows.div_ceil(8)]),
        DataType::FixedSizeBinary(16) => Some(vec![rows * 16]),
        ty => Some(vec![rows * ty.primitive_width()?]),
    }
}

/// Reads the record batch of a message, with the columns of `schema`. `bytes` is the whole stream;
/// columns that are aligned in it are not copied.
pub(crate) fn read_batch(
    bytes: &Buffer,
    message: &IpcMessage<'_>,
    schema: SchemaRef,
    rows_max: usize,
) -> Result<RecordBatch, IpcError> {
    let error = |what: String| IpcError {
        at: message.at,
        what,
    };
    let batch = message
        .message
        .header_as_record_batch()
        .ok_or_else(|| error("a record batch was expected".into()))?;
    if batch.compression().is_some() {
        return Err(error(
            "buffers are compressed: write the stream without compression".into(),
        ));
    }
    let rows = usize::try_from(batch.length())
        .ok()
        .filter(|rows| *rows <= rows_max)
        .ok_or_else(|| error(format!("more than {rows_max} rows in a batch")))?;
    let (Some(nodes), Some(buffers)) = (batch.nodes(), batch.buffers()) else {
        return Err(error("a batch without columns".into()));
    };
    let variadic = batch.variadicBufferCounts();
    if nodes.len() != schema.fields().len() || variadic.is_some_and(|counts| !counts.is_empty()) {
        return Err(error("columns are not those of the schema".into()));
    }
    let mut buffers = buffers.iter();
    for (field, node) in schema.fields().iter().zip(nodes) {
        if node.length() != rows as i64 || !(0..=rows as i64).contains(&node.null_count()) {
            return Err(error(
                "a column has not as many values as there are rows".into(),
            ));
        }
        let validity = if node.null_count() > 0 {
            rows.div_ceil(8)
        } else {
            0
        };
        let Some(values) = buffer_bytes(field.data_type(), rows) else {
            return Err(error(format!(
                "column {:?} is of an unknown type",
                field.name()
            )));
        };
        for least in std::iter::once(validity).chain(values) {
            let fits = buffers.next().is_some_and(|buffer| {
                let end = buffer.offset().checked_add(buffer.length());
                buffer.offset() >= 0
                    && usize::try_from(buffer.length()).is_ok_and(|length| length >= least)
                    && end.is_some_and(|end| end <= message.body_length as i64)
            });
            if !fits {
                return Err(error(format!(
                    "the bytes of column {:?} are not in the message",
                    field.name()
                )));
            }
        }
    }
    if buffers.next().is_some() {
        return Err(error("columns are not those of the schema".into()));
    }
    decode(bytes, message, batch, schema).map_err(|source| error(source.to_string()))
}

fn decode(
    bytes: &Buffer,
    message: &IpcMessage<'_>,
    batch: arrow::ipc::RecordBatch<'_>,
    schema: SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let none: HashMap<i64, ArrayRef> = HashMap::new();
    let body = bytes.slice_with_length(message.body_at, message.body_length);
    RecordBatchDecoder::try_new(&body, batch, schema, &none, &MetadataVersion::V5)?
        .read_record_batch()
}
