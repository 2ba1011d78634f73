//! Reading a record.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::buffer::Buffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, Schema, SchemaRef, UInt32Type};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    ALIGNMENT, CHECKSUM_AT, FRAME, HEAD_BYTES, LEADING_COLUMNS, LZ4, MAGIC, PACKED_VERSION,
    PackedError, PackedFrame, PackedProfile, PackedRecord, RAW_BYTES_MAX, ROW, checksum, damaged,
};
use crate::ipc::{IpcError, IpcMessage, Messages, read_batch, read_schema};
use crate::limits::{FEATURES_MAX, RECORD_BYTES_MAX};
use crate::profile::ProfileError;
use crate::profile::codec::Reader;
use crate::rows::Kind;
use crate::source::inference_id;

/// Most schemas that are remembered: one per registered model version and kind; beyond it all are
/// forgotten and learned anew, which costs time only.
const SCHEMAS_MAX: usize = 4_096;

/// Most columns of a record: features, classes, extra signals and those that every kind has.
const COLUMNS_MAX: usize = 4 * FEATURES_MAX;

/// Arrow schemas by the bytes that say them, so that they are read once and not per record, and so
/// that batches of one schema share it.
#[derive(Debug, Default)]
pub struct SchemaCache {
    known: RwLock<HashMap<u128, SchemaRef>>,
}

impl SchemaCache {
    fn get(
        &self,
        metadata: &[u8],
        read: impl FnOnce() -> Result<SchemaRef, IpcError>,
    ) -> Result<SchemaRef, IpcError> {
        let key = xxh3_128(metadata);
        // A thread that panicked while it held the lock left a whole map behind.
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(schema) = known.get(&key) {
            return Ok(Arc::clone(schema));
        }
        drop(known);
        let schema = read()?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SCHEMAS_MAX {
            known.clear();
        }
        Ok(Arc::clone(known.entry(key).or_insert(schema)))
    }
}

impl PackedRecord {
    /// Reads a record of the log (`bytes::Bytes`, `Vec<u8>` and Arrow's `Buffer` are not copied).
    ///
    /// # Errors
    /// [`PackedError`] says where the record is damaged.
    pub fn decode(bytes: impl Into<Buffer>, schemas: &SchemaCache) -> Result<Self, PackedError> {
        let (body, at) = open(bytes.into())?;
        let heads_end = read_u32(&body, at)
            .map(|length| at + 4 + length as usize)
            .filter(|end| *end <= body.len())
            .ok_or_else(|| damaged(at, "the heads are longer than what is there"))?;
        let (head, frames) = super::heads::decode(&body[at + 4..heads_end])?;
        let payload_at = at + (heads_end - at).next_multiple_of(ALIGNMENT);
        if payload_at > body.len() {
            return Err(damaged(heads_end, "nothing follows the heads"));
        }
        let (batch, profiles) = if head.kind == Kind::Profiles {
            let profiles = read_profiles(&body, payload_at, frames.len())?;
            (RecordBatch::new_empty(Arc::new(Schema::empty())), profiles)
        } else {
            (read_rows(&body, payload_at, &frames, schemas)?, Vec::new())
        };
        Ok(Self {
            head,
            frames,
            batch,
            profiles,
        })
    }

    /// The record with only some of its frames: those whose entry in `keep` is true (a resend is not
    /// counted). Rows keep their identity; a frame without an entry is left out.
    ///
    /// # Errors
    /// [`PackedError::Arrow`] does not come up for a record that was decoded.
    pub fn select_frames(&self, keep: &[bool]) -> Result<Self, PackedError> {
        let kept = |frame: u32| keep.get(frame as usize).copied().unwrap_or(false);
        if (0..self.frames.len() as u32).all(kept) {
            return Ok(self.clone());
        }
        let mut renumbered = vec![0; self.frames.len()];
        let (mut frames, mut first_row) = (Vec::new(), 0);
        for (index, frame) in self.frames.iter().enumerate() {
            if kept(index as u32) {
                renumbered[index] = frames.len() as u32;
                frames.push(PackedFrame {
                    first_row,
                    ..frame.clone()
                });
                first_row += frame.rows;
            }
        }
        let profiles = self.profiles.iter().filter(|profile| kept(profile.frame));
        let profiles = profiles
            .map(|profile| PackedProfile {
                frame: renumbered[profile.frame as usize],
                ..profile.clone()
            })
            .collect();
        let mut batch = self.batch.clone();
        if batch.num_columns() > 0 {
            let mask = self.frame_index().iter().map(|frame| Some(kept(*frame)));
            batch = filter_record_batch(&batch, &mask.collect::<BooleanArray>())?;
            let index = batch.column(0).as_primitive::<UInt32Type>();
            let index = index
                .values()
                .iter()
                .map(|frame| renumbered[*frame as usize]);
            let mut columns = batch.columns().to_vec();
            columns[0] = Arc::new(UInt32Array::from_iter_values(index));
            batch = RecordBatch::try_new(batch.schema(), columns)?;
        }
        Ok(Self {
            head: self.head.clone(),
            frames,
            batch,
            profiles,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Index of each row's frame.
    pub fn frame_index(&self) -> &[u32] {
        self.leading(0)
    }

    /// Index of each row within its frame, as the device sent it.
    pub fn row_index(&self) -> &[u32] {
        self.leading(1)
    }

    fn leading(&self, column: usize) -> &[u32] {
        self.batch
            .columns()
            .get(column)
            .and_then(|column| column.as_primitive_opt::<UInt32Type>())
            .map_or(&[], |column| column.values())
    }

    /// Corrected event time of each row, microseconds.
    pub fn event_times_us(&self) -> &[i64] {
        self.batch
            .columns()
            .get(LEADING_COLUMNS)
            .and_then(|column| column.as_primitive_opt::<Int64Type>())
            .map_or(&[], |column| column.values())
    }

    /// Identity of the inference in a row of the batch; `None` when there is no such row.
    pub fn inference_id(&self, row: usize) -> Option<u128> {
        let frame = self.frames.get(*self.frame_index().get(row)? as usize)?;
        Some(inference_id(
            frame.origin.device_hash(),
            frame.head.boot,
            frame.head.sequence,
            *self.row_index().get(row)?,
            self.event_times_us()
                .get(row)?
                .wrapping_sub(frame.head.clock_correction_us),
        ))
    }

    /// Identities of all inferences, one per row; the hash of a device is taken once per frame.
    pub fn inference_ids(&self) -> Vec<u128> {
        let (rows, times) = (self.row_index(), self.event_times_us());
        let mut ids = Vec::with_capacity(rows.len());
        for frame in &self.frames {
            let device = frame.origin.device_hash();
            let span = frame.first_row as usize..(frame.first_row + frame.rows) as usize;
            ids.extend(span.map(|row| {
                inference_id(
                    device,
                    frame.head.boot,
                    frame.head.sequence,
                    rows[row],
                    times[row].wrapping_sub(frame.head.clock_correction_us),
                )
            }));
        }
        ids
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|chunk| u32::from_le_bytes(*chunk))
}

/// Checks the head and decompresses; gives the bytes and where the body begins in them.
fn open(bytes: Buffer) -> Result<(Buffer, usize), PackedError> {
    let head: [u8; HEAD_BYTES] = bytes
        .first_chunk()
        .copied()
        .ok_or_else(|| damaged(bytes.len(), "ends within its head"))?;
    if head[..4] != MAGIC {
        return Err(damaged(0, "not a packed record"));
    }
    if head[4] != PACKED_VERSION {
        return Err(PackedError::Version(head[4]));
    }
    if head[5] & !LZ4 != 0 || head[6..8] != [0, 0] || bytes.len() > RECORD_BYTES_MAX {
        return Err(damaged(5, "unknown flags, or longer than a record can be"));
    }
    if read_u32(&head, CHECKSUM_AT) != Some(checksum(&bytes)) {
        return Err(damaged(
            CHECKSUM_AT,
            "the checksum is not that of the bytes",
        ));
    }
    let length = read_u32(&head, CHECKSUM_AT + 4).unwrap_or(0) as usize;
    let stored = &bytes[HEAD_BYTES..];
    if head[5] & LZ4 == 0 {
        return if stored.len() == length {
            Ok((bytes, HEAD_BYTES))
        } else {
            Err(damaged(
                CHECKSUM_AT + 4,
                "the body is not as long as is claimed",
            ))
        };
    }
    if length > RAW_BYTES_MAX || length > stored.len().saturating_mul(255) {
        return Err(damaged(
            CHECKSUM_AT + 4,
            "more is claimed than can be there",
        ));
    }
    let mut raw = vec![0u8; length];
    match lz4_flex::block::decompress_into(stored, &mut raw) {
        Ok(written) if written == length => Ok((Buffer::from_vec(raw), 0)),
        _ => Err(damaged(
            HEAD_BYTES,
            "the body is no LZ4 block of the claimed length",
        )),
    }
}

fn stream_error(error: IpcError) -> PackedError {
    damaged(error.at, error.what)
}

fn read_rows(
    body: &Buffer,
    at: usize,
    frames: &[PackedFrame],
    schemas: &SchemaCache,
) -> Result<RecordBatch, PackedError> {
    let mut messages = Messages::new(body, at);
    let mut next = || -> Result<IpcMessage<'_>, PackedError> {
        messages
            .next()
            .map_err(stream_error)?
            .ok_or_else(|| damaged(at, "the stream of columns ends too early"))
    };
    let message = next()?;
    let schema = schemas.get(message.metadata, || {
        read_schema(&message, COLUMNS_MAX).map(Arc::new)
    });
    let schema = schema.map_err(stream_error)?;
    let rows: usize = frames.iter().map(|frame| frame.rows as usize).sum();
    let message = next()?;
    let batch = read_batch(body, &message, schema, rows).map_err(stream_error)?;
    if batch.num_rows() != rows {
        return Err(damaged(message.at, "not as many rows as the frames have"));
    }
    let schema = batch.schema();
    let leading = |column: usize, name: &str| {
        schema
            .fields()
            .get(column)
            .is_some_and(|field| field.name() == name)
            && batch
                .column(column)
                .as_primitive_opt::<UInt32Type>()
                .is_some_and(|c| c.null_count() == 0)
    };
    let in_order = frames.iter().enumerate().all(|(index, frame)| {
        let span = frame.first_row as usize..(frame.first_row + frame.rows) as usize;
        leading(0, FRAME)
            && batch.column(0).as_primitive::<UInt32Type>().values()[span]
                .iter()
                .all(|frame| *frame as usize == index)
    });
    let times = batch.columns().get(LEADING_COLUMNS).is_some_and(|times| {
        times.as_primitive_opt::<Int64Type>().is_some() && times.null_count() == 0
    });
    if !leading(0, FRAME) || !leading(1, ROW) || !times || !in_order {
        return Err(damaged(message.at, "the columns are not a record's"));
    }
    Ok(batch)
}

fn read_profiles(
    body: &Buffer,
    at: usize,
    frames: usize,
) -> Result<Vec<PackedProfile>, PackedError> {
    let mut reader = Reader::new(&body[at..]);
    let mut all = || -> Result<Vec<PackedProfile>, ProfileError> {
        let count = reader.count(frames)?;
        let profiles = (0..count)
            .map(|_| read_profile(&mut reader, body, at, frames))
            .collect::<Result<Vec<_>, _>>()?;
        match reader.remaining() {
            0 => Ok(profiles),
            _ => Err(reader.error("bytes follow the profiles")),
        }
    };
    all().map_err(|error| match error {
        ProfileError::Bytes {
            at: offset,
            problem,
        } => damaged(at + offset, problem),
        error => damaged(at, error.to_string()),
    })
}

fn read_profile(
    reader: &mut Reader<'_>,
    body: &Buffer,
    at: usize,
    frames: usize,
) -> Result<PackedProfile, ProfileError> {
    let frame = reader.varint()?;
    if frame >= frames as u128 {
        return Err(reader.error("unknown frame"));
    }
    let length = reader.count(RECORD_BYTES_MAX)?;
    let version = std::str::from_utf8(reader.take(length)?)
        .map_err(|_| reader.error("a version is not UTF-8"))?;
    let pane_start_us =
        i64::try_from(reader.signed()?).map_err(|_| reader.error("a pane does not fit"))?;
    let pane_length_us =
        i64::try_from(reader.varint()?).map_err(|_| reader.error("a pane does not fit"))?;
    let length = reader.count(RECORD_BYTES_MAX)?;
    let start = at + reader.at();
    reader.take(length)?;
    Ok(PackedProfile {
        frame: frame as u32,
        version: version.into(),
        pane_start_us,
        pane_length_us,
        bytes: body.slice_with_length(start, length),
    })
}
