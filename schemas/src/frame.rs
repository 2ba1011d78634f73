//! The wire frame: how a device's rows, or a profile in their place, travel to the gateway.
//!
//! # What it is made for
//!
//! Links on which every byte is paid for: a LoRaWAN uplink carries tens of bytes, a satellite bills
//! each. So values are integers in a resolution that both sides know ([`RowSchema`]), columns are
//! coded by what their values are like, what the gateway's registry knows of a device is not sent,
//! and the identity of an inference is derived. And for gateways that anybody can write to: every
//! length is checked against what is there and against [`FrameLimits`] before anything is
//! allocated, and no bytes make this code panic.
//!
//! # The bytes
//!
//! Fixed-width numbers are little-endian; `varint` is LEB128 in its shortest form, at most 64 bits;
//! `signed` is a zigzag varint; `text` is a varint length and UTF-8.
//!
//! ```text
//! frame      := "DL" version:u8 (1) kind_flags:u8 fingerprint:u32 dictionary:u8 checksum:u32
//!               raw_length:varint body
//! kind_flags := bits 0-3 rows::Kind, bit 4 body is one LZ4 block, bits 5-7 zero
//! checksum   := CRC-32 (ISO-HDLC, zlib's) of all bytes of the frame but the checksum's
//! body       := envelope ( rows | profile )               raw_length bytes once decompressed
//!
//! envelope   := boot:u64 sequence:varint flags:varint [ sent:signed ] attributes
//! flags      := bits 0-1 what `sent` is: 0 not there, 1 the device's clock, 2 time since boot
//!               bits 2-3 unit of `sent`, bits 4-5 unit of the columns' times:
//!                        0 microseconds, 1 milliseconds, 2 seconds
//!               bits 6-16 which attributes follow: device, model, version, variant, hardware,
//!                        firmware, region, site (text each), link:u8, role:u8, cadence_s:varint
//!
//! rows       := n:varint { descriptor [ more:varint ] }* column*        nothing follows when n = 0
//! descriptor := bits 0-3 coding, bit 4 a bitmap of missing rows comes first, bits 5-7 how many
//!               columns have this descriptor, less one; 7 says: eight and `more`
//! column     := [ bitmap of ⌈n/8⌉ bytes, 1 is missing ] then, for the values that are there:
//!    0 missing       nothing (all rows are missing)
//!    1 constant      value:signed
//!    2 packed        least:signed width:u8 bits                     value − least
//!    3 delta         first:signed least:signed width:u8 bits        value − previous − least
//!    4 delta²        first:signed second:signed least:signed width:u8 bits
//!                                                    (change of the change) − least, from the third
//!    5 varint        { value:signed }
//!    6 delta varint  first:signed { value − previous:signed }
//!    7 texts         entries:varint { text }*entries bits           index into the entries
//!    8 ids           { 16 bytes, big-endian }
//! bits       := the numbers one after the other, lowest bit first, zeros up to a whole byte; the
//!               width of an index is what `entries − 1` needs
//!
//! profile    := version:text pane_start:signed pane_length:varint length:varint bytes
//! ```
//!
//! `texts` codes text columns, `ids` codes identities, all else codes numbers. Arithmetic wraps at
//! the column's type (32 or 64 bits). Times are divided by their unit, and the first number of a
//! time column (`value`, `least` of packed, `first`; each number of coding 5) is what it is beyond
//! `sent`, divided likewise (rounded down; 0 without one), because the two are close. A profile's
//! bytes are [`crate::profile::codec`]'s, which begin with the layout's digest; the fingerprint is
//! that of the model's inferences.
//!
//! The body is an LZ4 block when that is smaller. `dictionary` is there for preset dictionaries of
//! LZ4, and only 0 (none) is in use: what both sides could derive from the schema are names and
//! categories, and a body has neither, so there is nothing in it that would match.
//!
//! Frames of one request follow one another, each behind its length ([`split`]).
//!
//! # Damage
//!
//! The checksum finds what links do to bytes; it is no protection against a sender, which is what
//! the checks behind it are for. A damaged frame is refused as a whole, with the place and what to
//! do. Version 1 is pinned by the files in `golden/`.

mod bits;
mod column;
mod cursor;
mod envelope;
mod error;
mod rows;

use std::sync::Arc;

use crate::limits;
use crate::profile::Profile;
use crate::profile::codec::Reader;
use crate::rows::{Kind, RowSchema, Rows};
use cursor::{Cursor, put_text, put_varint, unzigzag, zigzag};
pub use envelope::{Envelope, Overrides, Sent};
pub use error::{FrameError, Part};

/// Version of the format that this code writes.
pub const FRAME_VERSION: u8 = 1;
const MAGIC: [u8; 2] = *b"DL";
const LZ4: u8 = 0x10;
/// Bytes before the checksum, and behind it the raw length.
const CHECKSUM_AT: usize = 9;
/// Bytes up to the raw length.
const HEAD_BYTES: usize = CHECKSUM_AT + 4;
/// Shortest body that LZ4 is tried on: below it, its own tokens cost more than they save.
const LZ4_BYTES_MIN: usize = 48;

/// What the gateway accepts of one frame or one body of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most bytes of a body before decompression.
    pub body_bytes: usize,
    /// Most bytes of a frame's body after decompression.
    pub raw_bytes: usize,
    /// Most rows of a frame.
    pub rows: usize,
    /// Most bytes that the rows take as Arrow columns.
    pub decoded_bytes: usize,
    /// Most bytes of one text.
    pub text_bytes: usize,
    /// Most frames of one request.
    pub frames: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            body_bytes: limits::BODY_BYTES_MAX,
            raw_bytes: limits::FRAME_RAW_BYTES_MAX,
            rows: limits::FRAME_ROWS_MAX,
            decoded_bytes: limits::FRAME_DECODED_BYTES_MAX,
            text_bytes: limits::STRING_BYTES_MAX,
            frames: limits::REQUEST_FRAMES_MAX,
        }
    }
}

/// A profile that a device made in place of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceProfile {
    /// Version of the model.
    pub version: Arc<str>,
    /// Start of the pane, microseconds of event time.
    pub pane_start_us: i64,
    /// Length of the pane, microseconds, above 0.
    pub pane_length_us: i64,
    /// The summary; `profile.layout` is the digest of the layout it was made with. Whether that is
    /// the model's, and whose devices it names, is for the gateway to check.
    pub profile: Profile,
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Rows of the schema's kind.
    Rows(Rows),
    /// [`Kind::Profiles`].
    Profile(DeviceProfile),
}

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Who sent it, in what state, and when.
    pub envelope: Envelope,
    /// What it carries.
    pub body: Body,
}

/// What stands before the body: enough to find the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What is in the frame.
    pub kind: Kind,
    /// [`RowSchema::fingerprint`] of the rows, or of the model's inferences for a profile.
    pub fingerprint: u32,
    /// Whether the body is an LZ4 block.
    pub compressed: bool,
    /// Length of the body after decompression.
    pub raw_length: usize,
    body_at: usize,
}

/// Writes one frame. `schema` is the rows' own, or the model's inferences' for a profile.
///
/// # Errors
/// [`FrameError::Unfit`] when the rows are not the schema's, [`FrameError::Limit`] when they are
/// more than a gateway takes: send them in several frames.
pub fn encode(frame: &Frame, schema: &RowSchema) -> Result<Vec<u8>, FrameError> {
    let limits = FrameLimits::default();
    let mut raw = Vec::with_capacity(256);
    let kind = match &frame.body {
        Body::Rows(rows) => {
            let unit = rows::time_unit(rows);
            frame.envelope.encode(unit, &limits, &mut raw)?;
            rows::encode(
                rows,
                schema,
                unit,
                frame.envelope.sent.origin(unit),
                &mut raw,
            )?;
            schema.kind()
        }
        Body::Profile(profile) => {
            if schema.kind() != Kind::Inferences {
                return Err(FrameError::unfit(
                    "a profile goes with the schema of the model's inferences",
                ));
            }
            frame
                .envelope
                .encode(envelope::TimeUnit::Micros, &limits, &mut raw)?;
            encode_profile(profile, &limits, &mut raw)?;
            Kind::Profiles
        }
    };
    error::within("bytes of the body", raw.len(), limits.raw_bytes)?;
    let packed = (raw.len() >= LZ4_BYTES_MIN).then(|| lz4_flex::block::compress(&raw));
    let (flag, body) = match &packed {
        Some(packed) if packed.len() < raw.len() => (LZ4, packed),
        _ => (0, &raw),
    };
    let mut out = Vec::with_capacity(HEAD_BYTES + 4 + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[FRAME_VERSION, kind as u8 | flag]);
    out.extend_from_slice(&schema.fingerprint().to_le_bytes());
    out.push(0);
    out.extend_from_slice(&[0; 4]);
    put_varint(&mut out, raw.len() as u64);
    out.extend_from_slice(body);
    let sum = checksum(&out).to_le_bytes();
    out[CHECKSUM_AT..HEAD_BYTES].copy_from_slice(&sum);
    Ok(out)
}

fn encode_profile(
    profile: &DeviceProfile,
    limits: &FrameLimits,
    out: &mut Vec<u8>,
) -> Result<(), FrameError> {
    if profile.pane_length_us <= 0 {
        return Err(FrameError::unfit("a pane's length must be above 0"));
    }
    put_text(out, &profile.version, limits.text_bytes)?;
    put_varint(out, zigzag(profile.pane_start_us));
    put_varint(out, profile.pane_length_us as u64);
    let bytes = profile.profile.encode();
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
    Ok(())
}

/// CRC-32 of all but the checksum; the bytes are at least [`HEAD_BYTES`] long.
fn checksum(frame: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&frame[..CHECKSUM_AT]);
    hash.update(&frame[HEAD_BYTES..]);
    hash.finalize()
}

/// Reads what stands before the body, so that the schema can be found; checks no checksum.
///
/// # Errors
/// [`FrameError`] when this is no frame, or one of another version.
pub fn peek(bytes: &[u8]) -> Result<Header, FrameError> {
    let mut cursor = Cursor::new(bytes, Part::Header);
    if cursor.take(2)? != MAGIC {
        return Err(cursor.damaged_at(0, "not a frame"));
    }
    let version = cursor.byte()?;
    if version != FRAME_VERSION {
        return Err(FrameError::Version { version });
    }
    let kind_flags = cursor.byte()?;
    let kind = match Kind::from_code(kind_flags & 0x0f) {
        Some(kind) if kind_flags & !(0x0f | LZ4) == 0 => kind,
        _ => return Err(cursor.damaged_at(3, "unknown kind or flag")),
    };
    let fingerprint = cursor.u32()?;
    if cursor.byte()? != 0 {
        return Err(cursor.damaged_at(8, "unknown dictionary"));
    }
    cursor.take(4)?;
    let raw_length = cursor.varint()?;
    Ok(Header {
        kind,
        fingerprint,
        compressed: kind_flags & LZ4 != 0,
        raw_length: usize::try_from(raw_length).unwrap_or(usize::MAX),
        body_at: cursor.at(),
    })
}

/// Reads one frame. Memory is bounded by `limits`, whatever the bytes claim.
///
/// # Errors
/// [`FrameError`] says where, what and what to do; [`FrameError::Schema`] when the frame was made
/// with another schema.
pub fn decode(bytes: &[u8], schema: &RowSchema, limits: &FrameLimits) -> Result<Frame, FrameError> {
    error::within("bytes of a frame", bytes.len(), limits.body_bytes)?;
    let header = peek(bytes)?;
    if u32::from_le_bytes([bytes[9], bytes[10], bytes[11], bytes[12]]) != checksum(bytes) {
        return Err(FrameError::damaged(
            Part::Header,
            CHECKSUM_AT,
            "the checksum is not that of the bytes",
        ));
    }
    let rows_kind = match header.kind {
        Kind::Profiles => Kind::Inferences,
        kind => kind,
    };
    if header.fingerprint != schema.fingerprint() || rows_kind != schema.kind() {
        return Err(FrameError::Schema {
            claimed: header.fingerprint,
            known: schema.fingerprint(),
        });
    }
    let decompressed;
    let raw = if header.compressed {
        decompressed = decompress(&bytes[header.body_at..], &header, limits)?;
        &decompressed
    } else {
        let raw = &bytes[header.body_at..];
        if raw.len() != header.raw_length {
            return Err(FrameError::damaged(
                Part::Header,
                HEAD_BYTES,
                "the body is not as long as is claimed",
            ));
        }
        raw
    };
    decode_body(raw, header.kind, schema, limits)
}

fn decompress(body: &[u8], header: &Header, limits: &FrameLimits) -> Result<Vec<u8>, FrameError> {
    error::within("bytes of the body", header.raw_length, limits.raw_bytes)?;
    let damaged = |what| FrameError::damaged(Part::Header, HEAD_BYTES, what);
    // One byte of an LZ4 block makes at most 255: more cannot be meant.
    if header.raw_length > body.len().saturating_mul(255) {
        return Err(damaged("more is claimed than the block can hold"));
    }
    let mut raw = vec![0; header.raw_length];
    match lz4_flex::block::decompress_into(body, &mut raw) {
        Ok(length) if length == header.raw_length => Ok(raw),
        Ok(_) => Err(damaged("the body is not as long as is claimed")),
        Err(_) => Err(damaged("the body is no LZ4 block of the claimed length")),
    }
}

fn decode_body(
    raw: &[u8],
    kind: Kind,
    schema: &RowSchema,
    limits: &FrameLimits,
) -> Result<Frame, FrameError> {
    let mut cursor = Cursor::new(raw, Part::Body);
    let (envelope, unit) = Envelope::decode(&mut cursor, limits)?;
    let body = if kind == Kind::Profiles {
        Body::Profile(decode_profile(&mut cursor, limits)?)
    } else {
        let origin = envelope.sent.origin(unit);
        Body::Rows(rows::decode(&mut cursor, schema, unit, origin, limits)?)
    };
    if cursor.remaining() != 0 {
        return Err(cursor.damaged("bytes follow what should be the end"));
    }
    Ok(Frame { envelope, body })
}

fn decode_profile(
    cursor: &mut Cursor<'_>,
    limits: &FrameLimits,
) -> Result<DeviceProfile, FrameError> {
    let version = cursor.text(limits.text_bytes)?;
    let pane_start_us = unzigzag(cursor.varint()?);
    let pane_length_us = i64::try_from(cursor.varint()?)
        .ok()
        .filter(|length| *length > 0)
        .ok_or_else(|| cursor.damaged("a pane's length must be above 0"))?;
    let length = cursor.length(usize::MAX)?;
    let at = cursor.at();
    let mut reader = Reader::new(cursor.take(length)?);
    let profile =
        Profile::decode(&mut reader).map_err(|source| FrameError::Profile { at, source })?;
    if reader.remaining() != 0 {
        return Err(cursor.damaged("bytes follow the profile"));
    }
    Ok(DeviceProfile {
        version: version.into(),
        pane_start_us,
        pane_length_us,
        profile,
    })
}

/// Puts frames into one body, each behind its length.
pub fn join<B: AsRef<[u8]>>(frames: impl IntoIterator<Item = B>) -> Vec<u8> {
    let mut out = Vec::new();
    for frame in frames {
        put_varint(&mut out, frame.as_ref().len() as u64);
        out.extend_from_slice(frame.as_ref());
    }
    out
}

/// Takes a body apart into its frames, which are not looked at yet.
///
/// # Errors
/// [`FrameError`] when the body or the number of frames is over its limit, or a length runs past
/// the end.
pub fn split<'a>(bytes: &'a [u8], limits: &FrameLimits) -> Result<Vec<&'a [u8]>, FrameError> {
    error::within("bytes of the request", bytes.len(), limits.body_bytes)?;
    let mut cursor = Cursor::new(bytes, Part::Request);
    let mut frames = Vec::new();
    while cursor.remaining() > 0 {
        let length = cursor.length(limits.body_bytes)?;
        if length == 0 {
            return Err(cursor.damaged("a frame without bytes"));
        }
        error::within("frames of the request", frames.len() + 1, limits.frames)?;
        frames.push(cursor.take(length)?);
    }
    Ok(frames)
}
