//! The bytes of the values, format version 1. All numbers are little-endian.
//!
//! ```text
//! record   crc u32 | timestamp_us i64 | flags u8 (1: no value) | key length u32 | key | value
//! topic    id u32 | partitions u32 | replication u16 | flags u8 (1: compact, 2: age, 4: size)
//!          | age_us u64 | size u64
//! stage    number u64 | inputs u16 | (length u16 | name)*
//! ```
//!
//! The CRC-32 of a record covers its place (topic id u32, partition u32, offset u64) and all that
//! follows the CRC, so a record that turns up in another place is damage too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Cleanup, TopicSpec};

const RECORD_HEAD: usize = 4 + 8 + 1 + 4;
const NO_VALUE: u8 = 1;
const COMPACT: u8 = 1;
const BY_AGE: u8 = 2;
const BY_SIZE: u8 = 4;

/// Topic id, partition, offset.
pub(super) type Place = (u32, u32, u64);

/// A record's value in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) key: Bytes,
    pub(super) value: Option<Bytes>,
    pub(super) timestamp_us: i64,
}

pub(super) fn record(place: Place, key: &[u8], value: Option<&[u8]>, timestamp_us: i64) -> Vec<u8> {
    let body = value.unwrap_or_default();
    let mut out = Vec::with_capacity(RECORD_HEAD + key.len() + body.len());
    out.extend([0; 4]);
    out.extend(timestamp_us.to_le_bytes());
    out.push(if value.is_none() { NO_VALUE } else { 0 });
    // Keys are bounded by `KEY_BYTES_MAX`, far below 4 GiB.
    out.extend((key.len() as u32).to_le_bytes());
    out.extend(key);
    out.extend(body);
    let crc = crc(place, &out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// `None`: damaged.
pub(super) fn parse_record(place: Place, bytes: &[u8]) -> Option<Stored> {
    let mut at = bytes;
    let stored = u32::from_le_bytes(take(&mut at)?);
    if crc(place, at) != stored {
        return None;
    }
    let timestamp_us = i64::from_le_bytes(take(&mut at)?);
    let [flags] = take(&mut at)?;
    let key_bytes = u32::from_le_bytes(take(&mut at)?) as usize;
    if key_bytes > at.len() {
        return None;
    }
    // One copy of key and value together; both are views of it.
    let content = Bytes::copy_from_slice(at);
    let value = content.slice(key_bytes..);
    Some(Stored {
        key: content.slice(..key_bytes),
        value: (flags & NO_VALUE == 0).then_some(value),
        timestamp_us,
    })
}

/// Timestamp, bytes of key and value, and whether there is no value, without the content or its
/// check. `None`: too short to be a record.
pub(super) fn peek_record(bytes: &[u8]) -> Option<(i64, u64, bool)> {
    let mut at = bytes.get(4..)?;
    let timestamp_us = i64::from_le_bytes(take(&mut at)?);
    let [flags] = take(&mut at)?;
    Some((
        timestamp_us,
        bytes.len().checked_sub(RECORD_HEAD)? as u64,
        flags & NO_VALUE != 0,
    ))
}

fn crc(place: Place, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place.0.to_le_bytes());
    hasher.update(&place.1.to_le_bytes());
    hasher.update(&place.2.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

pub(super) fn topic(id: u32, spec: &TopicSpec) -> Vec<u8> {
    let (flags, age_us, size) = match spec.cleanup {
        Cleanup::Compact => (COMPACT, 0, 0),
        Cleanup::Delete {
            retention,
            retention_bytes,
        } => {
            let age = if retention.is_some() { BY_AGE } else { 0 };
            let size = if retention_bytes.is_some() {
                BY_SIZE
            } else {
                0
            };
            let age_us = u64::try_from(retention.unwrap_or_default().as_micros());
            (
                age | size,
                age_us.unwrap_or(u64::MAX),
                retention_bytes.unwrap_or(0),
            )
        }
    };
    let mut out = Vec::new();
    out.extend(id.to_le_bytes());
    out.extend(spec.partitions.to_le_bytes());
    out.extend(spec.replication.to_le_bytes());
    out.push(flags);
    out.extend(age_us.to_le_bytes());
    out.extend(size.to_le_bytes());
    out
}

/// `None`: damaged.
pub(super) fn parse_topic(name: &str, mut bytes: &[u8]) -> Option<(u32, TopicSpec)> {
    let at = &mut bytes;
    let id = u32::from_le_bytes(take(at)?);
    let partitions = u32::from_le_bytes(take(at)?);
    let replication = u16::from_le_bytes(take(at)?);
    let [flags] = take(at)?;
    let age_us = u64::from_le_bytes(take(at)?);
    let size = u64::from_le_bytes(take(at)?);
    let cleanup = if flags & COMPACT != 0 {
        Cleanup::Compact
    } else {
        Cleanup::Delete {
            retention: (flags & BY_AGE != 0).then(|| Duration::from_micros(age_us)),
            retention_bytes: (flags & BY_SIZE != 0).then_some(size),
        }
    };
    Some((
        id,
        TopicSpec {
            name: Arc::from(name),
            partitions,
            cleanup,
            replication,
        },
    ))
}

/// What is kept about a stage beside its offsets and state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StageEntry {
    /// Steps so far.
    pub(super) number: u64,
    pub(super) inputs: Vec<Arc<str>>,
}

pub(super) fn stage(entry: &StageEntry) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(entry.number.to_le_bytes());
    // A stage reads a handful of topics, and names are bounded by `NAME_BYTES_MAX`.
    out.extend((entry.inputs.len() as u16).to_le_bytes());
    for input in &entry.inputs {
        out.extend((input.len() as u16).to_le_bytes());
        out.extend(input.as_bytes());
    }
    out
}

/// `None`: damaged.
pub(super) fn parse_stage(mut bytes: &[u8]) -> Option<StageEntry> {
    let at = &mut bytes;
    let number = u64::from_le_bytes(take(at)?);
    let count = u16::from_le_bytes(take(at)?);
    let mut inputs = Vec::new();
    for _ in 0..count {
        let length = usize::from(u16::from_le_bytes(take(at)?));
        let (name, rest) = at.split_at_checked(length)?;
        *at = rest;
        inputs.push(Arc::from(std::str::from_utf8(name).ok()?));
    }
    Some(StageEntry { number, inputs })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A record comes back as it was written, and any single changed byte is found.
        #[test]
        fn records_round_trip_and_show_damage(
            place in any::<(u32, u32, u64)>(),
            key in prop::collection::vec(any::<u8>(), 0..20),
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            timestamp_us in any::<i64>(),
            damage in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut bytes = record(place, &key, value.as_deref(), timestamp_us);
            let stored = parse_record(place, &bytes).unwrap();
            prop_assert_eq!(&stored.key[..], &key[..]);
            prop_assert_eq!(stored.value.as_deref(), value.as_deref());
            prop_assert_eq!(stored.timestamp_us, timestamp_us);
            let size = key.len() + value.as_ref().map_or(0, Vec::len);
            prop_assert_eq!(
                peek_record(&bytes),
                Some((timestamp_us, size as u64, value.is_none()))
            );
            let elsewhere = (place.0, place.1, place.2.wrapping_add(1));
            prop_assert_eq!(parse_record(elsewhere, &bytes), None);
            let at = damage.0.index(bytes.len());
            bytes[at] ^= damage.1.max(1);
            prop_assert_eq!(parse_record(place, &bytes), None);
        }

        /// Topics and stages come back as they were written; cut short, they are damaged.
        #[test]
        fn topics_and_stages_round_trip(
            id in any::<u32>(),
            partitions in any::<u32>(),
            age in prop::option::of(any::<u64>()),
            size in prop::option::of(any::<u64>()),
            compact in any::<bool>(),
            number in any::<u64>(),
            inputs in prop::collection::vec("[a-z]{1,9}", 0..4),
        ) {
            let cleanup = if compact { Cleanup::Compact } else {
                Cleanup::Delete { retention: age.map(Duration::from_micros), retention_bytes: size }
            };
            let spec = TopicSpec { name: "t".into(), partitions, cleanup, replication: 3 };
            let bytes = topic(id, &spec);
            prop_assert_eq!(parse_topic("t", &bytes), Some((id, spec)));
            prop_assert_eq!(parse_topic("t", &bytes[..bytes.len() - 1]), None);
            let entry = StageEntry { number, inputs: inputs.iter().map(|s| s.as_str().into()).collect() };
            let bytes = stage(&entry);
            prop_assert_eq!(parse_stage(&bytes), Some(entry));
            prop_assert_eq!(parse_stage(&bytes[..bytes.len() - 1]), None);
        }
    }

    /// The bytes of version 1 do not change.
    #[test]
    fn bytes_are_pinned() {
        let bytes = record((1, 2, 3), b"k", Some(b"value"), 4);
        assert_eq!(bytes[4..], *b"\x04\0\0\0\0\0\0\0\0\x01\0\0\0kvalue");
        assert_eq!(bytes[..4], 0xd7f1_8af2_u32.to_le_bytes());
        let entry = StageEntry {
            number: 1,
            inputs: vec!["ab".into()],
        };
        assert_eq!(stage(&entry), b"\x01\0\0\0\0\0\0\0\x01\0\x02\0ab");
    }
}
