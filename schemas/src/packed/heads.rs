//! The heads of a record: what all rows share, who sent the frames, and the frames.

use std::collections::HashMap;
use std::sync::Arc;

use super::{PackedError, PackedFrame, RecordHead};
use crate::limits::{FRAME_ROWS_MAX, RECORD_BYTES_MAX};
use crate::profile::ProfileError;
use crate::profile::codec::{Reader, put_signed, put_varint};
use crate::rows::Kind;
use crate::source::{FrameHead, Link, Origin, Role};

/// Fewest bytes of an origin and of a frame, for bounding their number.
const FRAME_BYTES_MIN: usize = 14;

/// Origins of a record, each once.
#[derive(Debug, Default)]
pub(super) struct Origins {
    list: Vec<Arc<Origin>>,
    index: HashMap<Arc<Origin>, u32>,
}

impl Origins {
    /// Index of an origin, and whether it is new.
    pub(super) fn intern(&mut self, origin: &Arc<Origin>) -> (u32, bool) {
        if let Some(index) = self.index.get(origin) {
            return (*index, false);
        }
        let index = self.list.len() as u32;
        self.list.push(Arc::clone(origin));
        self.index.insert(Arc::clone(origin), index);
        (index, true)
    }
}

/// A frame with the index of its origin.
#[derive(Debug)]
pub(super) struct IndexedFrame {
    pub(super) origin: u32,
    pub(super) head: FrameHead,
    pub(super) rows: u32,
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u128);
    out.extend_from_slice(text.as_bytes());
}

/// Appends the heads.
pub(super) fn encode(
    head: &RecordHead,
    origins: &Origins,
    frames: &[IndexedFrame],
    out: &mut Vec<u8>,
) {
    put_text(out, &head.tenant);
    put_text(out, &head.model);
    put_text(out, &head.version);
    out.push(head.kind as u8);
    out.extend_from_slice(&head.fingerprint.to_le_bytes());
    put_varint(out, origins.list.len() as u128);
    for origin in &origins.list {
        encode_origin(origin, out);
    }
    put_varint(out, frames.len() as u128);
    for frame in frames {
        put_varint(out, frame.origin.into());
        out.extend_from_slice(&frame.head.boot.to_le_bytes());
        put_varint(out, frame.head.sequence.into());
        out.push(u8::from(frame.head.sent_at_us.is_some()));
        if let Some(sent_at) = frame.head.sent_at_us {
            put_signed(out, sent_at.into());
        }
        put_signed(out, frame.head.received_at_us.into());
        put_signed(out, frame.head.clock_correction_us.into());
        put_varint(out, frame.rows.into());
    }
}

fn encode_origin(origin: &Origin, out: &mut Vec<u8>) {
    // Both lists name every variant, so the position is always found.
    let role = Role::ALL.iter().position(|role| *role == origin.role);
    let link = Link::ALL.iter().position(|link| *link == origin.link);
    put_text(out, &origin.device);
    out.push(role.unwrap_or(0) as u8);
    for text in [
        &origin.model,
        &origin.version,
        &origin.variant,
        &origin.hardware,
        &origin.firmware,
        &origin.region,
        &origin.site,
    ] {
        put_text(out, text);
    }
    out.push(link.unwrap_or(0) as u8);
    put_varint(out, origin.cadence_s.into());
}

/// Reads what [`encode`] wrote; the reader stands behind it then.
pub(super) fn decode(bytes: &[u8]) -> Result<(RecordHead, Vec<PackedFrame>), PackedError> {
    let mut reader = Reader::new(bytes);
    let heads = decode_all(&mut reader).map_err(|error| match error {
        ProfileError::Bytes { at, problem } => super::damaged(at, problem),
        error => super::damaged(0, error.to_string()),
    })?;
    match reader.remaining() {
        0 => Ok(heads),
        _ => Err(super::damaged(reader.at(), "bytes follow the heads")),
    }
}

fn text(reader: &mut Reader<'_>) -> Result<Arc<str>, ProfileError> {
    let length = reader.count(RECORD_BYTES_MAX)?;
    std::str::from_utf8(reader.take(length)?)
        .map(Arc::from)
        .map_err(|_| reader.error("a text is not UTF-8"))
}

fn one_of<T: Copy>(reader: &mut Reader<'_>, list: &[T]) -> Result<T, ProfileError> {
    let code = usize::from(reader.byte()?);
    list.get(code)
        .copied()
        .ok_or_else(|| reader.error("unknown role or link"))
}

fn time(reader: &mut Reader<'_>) -> Result<i64, ProfileError> {
    i64::try_from(reader.signed()?).map_err(|_| reader.error("a time does not fit"))
}

fn small(reader: &mut Reader<'_>) -> Result<u32, ProfileError> {
    u32::try_from(reader.varint()?).map_err(|_| reader.error("a number does not fit"))
}

fn decode_all(reader: &mut Reader<'_>) -> Result<(RecordHead, Vec<PackedFrame>), ProfileError> {
    let head = RecordHead {
        tenant: text(reader)?,
        model: text(reader)?,
        version: text(reader)?,
        kind: Kind::from_code(reader.byte()?).ok_or_else(|| reader.error("unknown kind"))?,
        fingerprint: {
            let mut fingerprint = [0; 4];
            fingerprint.copy_from_slice(reader.take(4)?);
            u32::from_le_bytes(fingerprint)
        },
    };
    let origins = (0..reader.count(RECORD_BYTES_MAX)?)
        .map(|_| decode_origin(reader, &head.tenant).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let count = reader.count(RECORD_BYTES_MAX / FRAME_BYTES_MIN)?;
    let mut frames = Vec::with_capacity(count.min(reader.remaining() / FRAME_BYTES_MIN + 1));
    let mut first_row = 0u32;
    for _ in 0..count {
        let frame = decode_frame(reader, &origins, first_row)?;
        first_row = first_row
            .checked_add(frame.rows)
            .ok_or_else(|| reader.error("more rows than can be counted"))?;
        frames.push(frame);
    }
    Ok((head, frames))
}

fn decode_origin(reader: &mut Reader<'_>, tenant: &Arc<str>) -> Result<Origin, ProfileError> {
    Ok(Origin {
        tenant: Arc::clone(tenant),
        device: text(reader)?,
        role: one_of(reader, &Role::ALL)?,
        model: text(reader)?,
        version: text(reader)?,
        variant: text(reader)?,
        hardware: text(reader)?,
        firmware: text(reader)?,
        region: text(reader)?,
        site: text(reader)?,
        link: one_of(reader, &Link::ALL)?,
        cadence_s: small(reader)?,
    })
}

fn decode_frame(
    reader: &mut Reader<'_>,
    origins: &[Arc<Origin>],
    first_row: u32,
) -> Result<PackedFrame, ProfileError> {
    let origin = usize::try_from(reader.varint()?)
        .ok()
        .and_then(|index| origins.get(index))
        .ok_or_else(|| reader.error("unknown origin"))?;
    let boot = reader.u64_le()?;
    let sequence = reader.u64()?;
    let sent_at_us = match reader.byte()? {
        0 => None,
        1 => Some(time(reader)?),
        _ => return Err(reader.error("unknown kind of sent-at")),
    };
    let head = FrameHead {
        boot,
        sequence,
        sent_at_us,
        received_at_us: time(reader)?,
        clock_correction_us: time(reader)?,
    };
    let rows = small(reader)?;
    if rows as usize > FRAME_ROWS_MAX {
        return Err(reader.error("more rows than a frame can have"));
    }
    Ok(PackedFrame {
        origin: Arc::clone(origin),
        head,
        first_row,
        rows,
    })
}
