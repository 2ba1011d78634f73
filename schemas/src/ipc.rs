//! Walking an Arrow IPC stream message by message, with every length checked before it is used.
//!
//! Arrow's own stream reader believes the lengths that a stream claims: it allocates them, slices by
//! them, and panics where they do not fit. Here a message is looked at first: its metadata is a
//! flatbuffer that passes verification, its body is there, and each buffer of a batch lies in it.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::RecordBatchDecoder;
use arrow::ipc::{Message, MetadataVersion, root_as_message};

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

/// Buffers that a column of a flat type has; `None` for types that are not read here.
fn buffers_of(ty: &DataType) -> Option<usize> {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 => Some(3),
        DataType::FixedSizeBinary(_) | DataType::Boolean | DataType::Timestamp(..) => Some(2),
        ty if ty.is_numeric() => Some(2),
        _ => None,
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
    let expected: Option<usize> = schema
        .fields()
        .iter()
        .map(|field| buffers_of(field.data_type()))
        .sum();
    if nodes.len() != schema.fields().len()
        || Some(buffers.len()) != expected
        || batch
            .variadicBufferCounts()
            .is_some_and(|counts| !counts.is_empty())
    {
        return Err(error("columns are not those of the schema".into()));
    }
    for node in nodes {
        if node.length() != rows as i64 || !(0..=rows as i64).contains(&node.null_count()) {
            return Err(error(
                "a column has not as many values as there are rows".into(),
            ));
        }
    }
    for buffer in buffers {
        let end = buffer.offset().checked_add(buffer.length());
        if buffer.offset() < 0
            || buffer.length() < 0
            || end.is_none_or(|end| end > message.body_length as i64)
        {
            return Err(error("a column's bytes are not in the message".into()));
        }
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
