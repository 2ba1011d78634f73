//! Packing rows into a record.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeBinaryBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;

use super::heads::{self, IndexedFrame, Origins};
use super::{ALIGNMENT, CHECKSUM_AT, HEAD_BYTES, MAGIC, checksum};
use super::{FRAME, LZ4, PACKED_VERSION, PackedError, ROW, RecordHead};
use crate::frame::DeviceProfile;
use crate::limits::{FRAME_ROWS_MAX, RECORD_BYTES_MAX};
use crate::profile::codec::{put_signed, put_varint};
use crate::rows::{Column, FieldType, Kind, RowSchema, Rows, Values};
use crate::source::{FrameHead, Origin};

/// What a frame's head takes at most, beside an origin's texts: what [`PackedBuilder::bytes_estimate`]
/// counts.
const FRAME_BYTES: usize = 40;
const ORIGIN_BYTES: usize = 24;
/// What the IPC stream takes per column beside its values: field, node and padded buffers.
const COLUMN_BYTES: usize = 320;

/// Arrow schema of a record's batch.
pub(super) fn arrow_schema(schema: &RowSchema) -> Schema {
    let mut fields = vec![
        Field::new(FRAME, DataType::UInt32, false),
        Field::new(ROW, DataType::UInt32, false),
    ];
    fields.extend(schema.fields().iter().map(|field| {
        let ty = match field.ty {
            FieldType::Time | FieldType::Int64 => DataType::Int64,
            FieldType::Int32 => DataType::Int32,
            FieldType::Text => DataType::Utf8,
            FieldType::Id => DataType::FixedSizeBinary(16),
        };
        Field::new(&field.name, ty, field.nullable)
    }));
    Schema::new(fields)
}

/// A column that grows.
#[derive(Debug)]
enum Builder {
    Time(Int64Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Text(StringBuilder),
    Id(FixedSizeBinaryBuilder),
}

impl Builder {
    fn new(ty: FieldType) -> Self {
        match ty {
            FieldType::Time => Self::Time(Int64Builder::new()),
            FieldType::Int32 => Self::Int32(Int32Builder::new()),
            FieldType::Int64 => Self::Int64(Int64Builder::new()),
            FieldType::Text => Self::Text(StringBuilder::new()),
            FieldType::Id => Self::Id(FixedSizeBinaryBuilder::new(16)),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Time(builder) | Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Id(builder) => Arc::new(builder.finish()),
        }
    }

    /// Appends the rows of `column` that `keep` names (all without it); gives the bytes of texts.
    fn append(
        &mut self,
        column: &Column,
        keep: Option<&[u32]>,
        correction_us: i64,
    ) -> Result<usize, PackedError> {
        match (self, column) {
            (Self::Time(builder), Column::Time(values)) => {
                for value in chosen(values, keep) {
                    builder.append_option(value.map(|time| time.wrapping_add(correction_us)));
                }
                Ok(0)
            }
            (Self::Int64(builder), Column::Int64(values)) => {
                match (keep, &values.missing) {
                    (None, None) => builder.append_slice(&values.values),
                    _ => {
                        chosen(values, keep).for_each(|value| builder.append_option(value.copied()))
                    }
                }
                Ok(0)
            }
            (Self::Int32(builder), Column::Int32(values)) => {
                match (keep, &values.missing) {
                    (None, None) => builder.append_slice(&values.values),
                    _ => {
                        chosen(values, keep).for_each(|value| builder.append_option(value.copied()))
                    }
                }
                Ok(0)
            }
            (Self::Text(builder), Column::Text(values)) => {
                let mut bytes = 0;
                for value in chosen(values, keep) {
                    bytes += value.map_or(0, |text| text.len());
                    builder.append_option(value);
                }
                Ok(bytes)
            }
            (Self::Id(builder), Column::Id(values)) => {
                for value in chosen(values, keep) {
                    match value {
                        Some(id) => builder.append_value(id.to_be_bytes())?,
                        None => builder.append_null(),
                    }
                }
                Ok(0)
            }
            // `PackedBuilder::check` has compared the types.
            _ => Err(PackedError::Unfit("a column is of another type".into())),
        }
    }
}

fn chosen<'a, T: Clone + Default>(
    values: &'a Values<T>,
    keep: Option<&'a [u32]>,
) -> impl Iterator<Item = Option<&'a T>> {
    let count = keep.map_or(values.len(), <[u32]>::len);
    (0..count).map(move |index| values.get(keep.map_or(index, |keep| keep[index] as usize)))
}

/// Gathers rows or profiles of many frames into one record.
#[derive(Debug)]
pub struct PackedBuilder {
    head: RecordHead,
    schema: Arc<RowSchema>,
    arrow: SchemaRef,
    origins: Origins,
    frames: Vec<IndexedFrame>,
    frame: UInt32Builder,
    row: UInt32Builder,
    columns: Vec<Builder>,
    profiles: Vec<u8>,
    profile_count: usize,
    rows: usize,
    row_bytes: usize,
    bytes: usize,
}

impl PackedBuilder {
    /// Nothing in it yet. `schema` is the rows' own, or the model's inferences' for
    /// [`Kind::Profiles`].
    pub fn new(head: RecordHead, schema: &Arc<RowSchema>) -> Self {
        let rows_kind = head.kind != Kind::Profiles;
        let fields = if rows_kind { schema.fields() } else { &[] };
        let row_bytes = fields
            .iter()
            .map(|field| match field.ty {
                FieldType::Int32 | FieldType::Text => 4,
                FieldType::Time | FieldType::Int64 => 8,
                FieldType::Id => 16,
            })
            .sum::<usize>()
            + 8;
        let names: usize = fields.iter().map(|field| field.name.len()).sum();
        Self {
            arrow: Arc::new(if rows_kind {
                arrow_schema(schema)
            } else {
                Schema::empty()
            }),
            columns: fields.iter().map(|field| Builder::new(field.ty)).collect(),
            bytes: 512 + names + COLUMN_BYTES * (fields.len() + 2),
            head,
            schema: Arc::clone(schema),
            origins: Origins::default(),
            frames: Vec::new(),
            frame: UInt32Builder::new(),
            row: UInt32Builder::new(),
            profiles: Vec::new(),
            profile_count: 0,
            rows: 0,
            row_bytes,
        }
    }

    /// What all rows share.
    pub fn head(&self) -> &RecordHead {
        &self.head
    }

    /// Rows so far (for profiles, profiles).
    pub fn rows(&self) -> usize {
        self.rows + self.profile_count
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    /// Whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Upper estimate of the record's bytes before compression. Open a new record before it goes
    /// over [`RECORD_BYTES_MAX`]; one frame within its limits always fits alone.
    pub fn bytes_estimate(&self) -> usize {
        self.bytes + self.profiles.len() + self.columns.len() * self.rows.div_ceil(8)
    }

    /// Appends all rows of a frame. `head.clock_correction_us` is added to their times.
    ///
    /// # Errors
    /// [`PackedError::Unfit`] when they do not belong into this record; nothing is changed then.
    pub fn push(
        &mut self,
        origin: &Arc<Origin>,
        head: FrameHead,
        rows: &Rows,
    ) -> Result<(), PackedError> {
        self.append(origin, head, rows, None)
    }

    /// Appends the rows of a frame whose indices `keep` lists (rising): the others were refused.
    /// Those that are kept keep their index in [`ROW`], and so their identity.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_selected(
        &mut self,
        origin: &Arc<Origin>,
        head: FrameHead,
        rows: &Rows,
        keep: &[u32],
    ) -> Result<(), PackedError> {
        self.append(origin, head, rows, Some(keep))
    }

    fn append(
        &mut self,
        origin: &Arc<Origin>,
        head: FrameHead,
        rows: &Rows,
        keep: Option<&[u32]>,
    ) -> Result<(), PackedError> {
        self.check(origin, rows, keep)?;
        let count = keep.map_or(rows.len(), <[u32]>::len);
        let frame = self.open(origin, head, count);
        for (builder, column) in self.columns.iter_mut().zip(&rows.columns) {
            self.bytes += builder.append(column, keep, head.clock_correction_us)?;
        }
        self.frame.append_value_n(frame, count);
        match keep {
            Some(keep) => self.row.append_slice(keep),
            None => (0..count as u32).for_each(|row| self.row.append_value(row)),
        }
        self.rows += count;
        self.bytes += count * self.row_bytes;
        Ok(())
    }

    /// Notes a frame; gives its index.
    fn open(&mut self, origin: &Arc<Origin>, head: FrameHead, rows: usize) -> u32 {
        let (index, new) = self.origins.intern(origin);
        if new {
            self.bytes += ORIGIN_BYTES
                + origin.device.len()
                + origin.model.len()
                + origin.version.len()
                + origin.variant.len()
                + origin.hardware.len()
                + origin.firmware.len()
                + origin.region.len()
                + origin.site.len();
        }
        self.bytes += FRAME_BYTES;
        self.frames.push(IndexedFrame {
            origin: index,
            head,
            rows: rows as u32,
        });
        (self.frames.len() - 1) as u32
    }

    fn check(&self, origin: &Origin, rows: &Rows, keep: Option<&[u32]>) -> Result<(), PackedError> {
        let unfit = |what: String| Err(PackedError::Unfit(what));
        if self.head.kind == Kind::Profiles {
            return unfit("the record is of profiles, these are rows".into());
        }
        self.check_tenant(origin)?;
        let count = rows.len();
        if count > FRAME_ROWS_MAX {
            return unfit(format!(
                "{count} rows in a frame, the limit is {FRAME_ROWS_MAX}"
            ));
        }
        if rows.columns.len() != self.columns.len() {
            return unfit(format!(
                "{} columns, the schema has {}",
                rows.columns.len(),
                self.columns.len()
            ));
        }
        for (column, field) in rows.columns.iter().zip(self.schema.fields()) {
            if column.ty() != field.ty || column.len() != count {
                return unfit(format!("column {:?} is not the schema's", field.name));
            }
        }
        if let Some(keep) = keep
            && (keep.windows(2).any(|pair| pair[0] >= pair[1])
                || keep.last().is_some_and(|last| *last as usize >= count))
        {
            return unfit("the rows to keep do not rise, or are not there".into());
        }
        Ok(())
    }

    fn check_tenant(&self, origin: &Origin) -> Result<(), PackedError> {
        if origin.tenant == self.head.tenant {
            Ok(())
        } else {
            Err(PackedError::Unfit(format!(
                "they are of tenant {:?}, the record of {:?}",
                origin.tenant, self.head.tenant
            )))
        }
    }

    /// Appends a profile that a device made. `head.clock_correction_us` is not added to its pane:
    /// a pane that the correction would move cannot be cut anew, the gateway decides before.
    ///
    /// # Errors
    /// [`PackedError::Unfit`] when it does not belong into this record.
    pub fn push_profile(
        &mut self,
        origin: &Arc<Origin>,
        head: FrameHead,
        profile: &DeviceProfile,
    ) -> Result<(), PackedError> {
        if self.head.kind != Kind::Profiles {
            return Err(PackedError::Unfit(
                "the record is of rows, this is a profile".into(),
            ));
        }
        self.check_tenant(origin)?;
        let frame = self.open(origin, head, 0);
        let out = &mut self.profiles;
        put_varint(out, frame.into());
        put_varint(out, profile.version.len() as u128);
        out.extend_from_slice(profile.version.as_bytes());
        put_signed(out, profile.pane_start_us.into());
        put_varint(out, profile.pane_length_us.max(0) as u128);
        let bytes = profile.profile.encode();
        put_varint(out, bytes.len() as u128);
        out.extend_from_slice(&bytes);
        self.profile_count += 1;
        Ok(())
    }

    /// The record's bytes.
    ///
    /// # Errors
    /// [`PackedError::TooLarge`] when the log would not take them.
    pub fn finish(mut self) -> Result<Vec<u8>, PackedError> {
        let mut heads = Vec::with_capacity(64 + self.frames.len() * FRAME_BYTES);
        heads::encode(&self.head, &self.origins, &self.frames, &mut heads);
        let mut body = Vec::with_capacity(self.bytes_estimate());
        body.extend_from_slice(&(heads.len() as u32).to_le_bytes());
        body.extend_from_slice(&heads);
        body.resize(body.len().next_multiple_of(ALIGNMENT), 0);
        if self.head.kind == Kind::Profiles {
            put_varint(&mut body, self.profile_count as u128);
            body.extend_from_slice(&self.profiles);
        } else {
            let mut columns: Vec<ArrayRef> =
                vec![Arc::new(self.frame.finish()), Arc::new(self.row.finish())];
            columns.extend(self.columns.iter_mut().map(Builder::finish));
            let batch = RecordBatch::try_new(Arc::clone(&self.arrow), columns)?;
            let mut writer = StreamWriter::try_new(&mut body, &self.arrow)?;
            writer.write(&batch)?;
            writer.finish()?;
        }
        seal(&body)
    }
}

/// Compresses a body where that saves enough, and puts the head before it.
fn seal(body: &[u8]) -> Result<Vec<u8>, PackedError> {
    let packed = lz4_flex::block::compress(body);
    // Decompression costs each reader, so it must save at least a fifth.
    let (flags, stored) = if packed.len() <= body.len() / 5 * 4 {
        (LZ4, packed.as_slice())
    } else {
        (0, body)
    };
    let bytes = HEAD_BYTES + stored.len();
    if bytes > RECORD_BYTES_MAX || body.len() > super::RAW_BYTES_MAX {
        return Err(PackedError::TooLarge {
            bytes: bytes.max(body.len()),
            limit: RECORD_BYTES_MAX,
        });
    }
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[PACKED_VERSION, flags, 0, 0]);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(stored);
    let sum = checksum(&out).to_le_bytes();
    out[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum);
    Ok(out)
}
