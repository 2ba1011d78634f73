//! A record of the log: rows of many frames, of one tenant, model version, kind and schema, as one
//! Arrow record batch, and the heads of those frames.
//!
//! # What it is made for
//!
//! The log is read over and over (profiling, archiving, joining), and each read costs per record
//! and per byte. So the gateway packs a few milliseconds' rows of many devices into one record, what
//! is alike in many frames of a device is there once, and the columns are Arrow's own, which stages
//! take as they are: decoding makes no copy of a column that was not compressed.
//!
//! A frame never spans records, and keeps its head, so that resends can be told from news.
//!
//! # The bytes
//!
//! Fixed-width numbers are little-endian, `varint` is LEB128, `signed` a zigzag varint, `text` a
//! varint length and UTF-8.
//!
//! ```text
//! record := "DLPR" version:u8 (1) flags:u8 zero:u16 checksum:u32 raw_length:u32 body
//! flags  := bit 0 body is one LZ4 block, bits 1-7 zero
//! checksum := CRC-32 of all bytes but the checksum's
//! body   := heads_length:u32 heads zeros (to a multiple of 64) payload
//! heads  := tenant:text model:text version:text kind:u8 fingerprint:u32
//!           n { origin }*n  n { frame }*n
//! origin := device role:u8 model version variant hardware firmware region site (text each)
//!           link:u8 cadence_s:varint                            its tenant is the record's
//! frame  := origin:varint boot:u64 sequence:varint sent:u8 [ sent_at:signed ]
//!           received_at:signed clock_correction:signed rows:varint
//! payload of rows     := Arrow IPC stream: schema, one record batch, end
//! payload of profiles := n { frame:varint version:text pane_start:signed pane_length:varint
//!                            length:varint bytes }*n
//! ```
//!
//! The record batch has [`FRAME`] and [`ROW`] and then the [`RowSchema`](crate::rows::RowSchema)'s fields. The schema is in
//! every record, though all records of a partition have one of a few, because a record must stay
//! readable by itself years later, and without the bundle; what that costs in time is saved by
//! [`SchemaCache`], which knows a schema again by its bytes.
//!
//! **Times.** `event_time` in the batch is corrected: what the device said plus the frame's
//! `clock_correction_us`. The identity of an inference is made from what the device said:
//! [`PackedRecord::inference_id`] takes the correction back.
//!
//! # Damage
//!
//! Our own gateway wrote it, so a damaged record means a damaged log: the checksum finds it, and it
//! is refused as a whole. Lengths are checked all the same.

mod build;
mod heads;
mod read;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;

use crate::profile::{Profile, ProfileError};
use crate::rows::Kind;
use crate::source::{FrameHead, Origin};
pub use build::PackedBuilder;
pub use read::SchemaCache;

/// Version of the format that this code writes.
pub const PACKED_VERSION: u8 = 1;
/// Column of the batch: index into [`PackedRecord::frames`].
pub const FRAME: &str = "__frame";
/// Column of the batch: index of the row within its frame, as the device sent it.
pub const ROW: &str = "__row";
/// Columns that stand before the schema's.
pub const LEADING_COLUMNS: usize = 2;

/// Why a record cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// The bytes are not what was written.
    #[error(
        "packed record at byte {at}: {what}; the log is damaged there, restore it or skip the record"
    )]
    Damaged {
        /// Offset of what is wrong.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// The record is of a version that is not known.
    #[error("packed record has version {0}, this driftline reads {PACKED_VERSION}: update it")]
    Version(u8),
    /// The record would be larger than the log takes.
    #[error("packed record has {bytes} bytes, the limit is {limit}: finish records earlier")]
    TooLarge {
        /// What it would have.
        bytes: usize,
        /// [`crate::limits::RECORD_BYTES_MAX`].
        limit: usize,
    },
    /// What was pushed does not belong into the record.
    #[error("rows cannot be packed: {0}; open a record of their own for them")]
    Unfit(String),
    /// Arrow refused the columns.
    #[error("packed record's columns: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// What all rows of a record share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordHead {
    /// Owner.
    pub tenant: Arc<str>,
    /// Model name; empty for kinds that have nothing to do with one.
    pub model: Arc<str>,
    /// Model version.
    pub version: Arc<str>,
    /// Kind of the rows.
    pub kind: Kind,
    /// [`crate::rows::RowSchema::fingerprint`]; of the inferences for profiles.
    pub fingerprint: u32,
}

/// One frame of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedFrame {
    /// Who sent it; shared by all frames of the record that have the same.
    pub origin: Arc<Origin>,
    /// What differs from frame to frame.
    pub head: FrameHead,
    /// Its first row in the batch.
    pub first_row: u32,
    /// How many rows of the batch are its own (rows that were refused are not there).
    pub rows: u32,
}

/// A profile that a device made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedProfile {
    /// Index of its frame.
    pub frame: u32,
    /// Version of the model.
    pub version: Arc<str>,
    /// Start of the pane, microseconds of event time, corrected.
    pub pane_start_us: i64,
    /// Length of the pane, microseconds.
    pub pane_length_us: i64,
    /// The profile as it travelled.
    pub bytes: Buffer,
}

impl PackedProfile {
    /// Reads the profile.
    ///
    /// # Errors
    /// [`ProfileError`] names the offset.
    pub fn profile(&self) -> Result<Profile, ProfileError> {
        let mut reader = crate::profile::codec::Reader::new(&self.bytes);
        let profile = Profile::decode(&mut reader)?;
        match reader.remaining() {
            0 => Ok(profile),
            _ => Err(reader.error("bytes follow the profile")),
        }
    }
}

/// One record of a telemetry topic.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedRecord {
    /// What all rows share.
    pub head: RecordHead,
    /// The frames, in the order of their rows.
    pub frames: Vec<PackedFrame>,
    /// The rows; without columns for [`Kind::Profiles`].
    pub batch: RecordBatch,
    /// Profiles, for [`Kind::Profiles`].
    pub profiles: Vec<PackedProfile>,
}

const MAGIC: [u8; 4] = *b"DLPR";
/// Flag: the body is one LZ4 block.
const LZ4: u8 = 1;
const CHECKSUM_AT: usize = 8;
const HEAD_BYTES: usize = CHECKSUM_AT + 8;
/// The columns begin at a multiple of this within the body, so that Arrow takes them as they are.
const ALIGNMENT: usize = 64;
/// Largest body before compression: what compresses well may be larger than a record, but a reader
/// must be able to hold it many times over.
const RAW_BYTES_MAX: usize = 4 * crate::limits::RECORD_BYTES_MAX;

fn damaged(at: usize, what: impl Into<String>) -> PackedError {
    PackedError::Damaged {
        at,
        what: what.into(),
    }
}

/// CRC-32 of all bytes but the checksum's; there are at least [`HEAD_BYTES`].
fn checksum(record: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&record[..CHECKSUM_AT]);
    hash.update(&record[CHECKSUM_AT + 4..]);
    hash.finalize()
}
