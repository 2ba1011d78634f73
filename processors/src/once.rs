//! Which frames of a partition count: each once, whatever is sent again.
//!
//! A device sends a frame again when the answer to it was lost, so the log holds some frames twice.
//! [`Once`] is a pure function of a partition's prefix: fed with the frames of a partition in log
//! order it says of each whether it counts, and its state after a prefix is the same bytes whatever
//! the batching and the restarts on the way. Every reader of raw rows uses it.
//!
//! # What is kept
//!
//! Per (device, boot, kind): the highest sequence seen, the ranges below it that were *not* seen
//! (none for a device whose frames come in order), and the log position of its last frame. A frame
//! counts when its sequence is above the highest or inside such a range.
//!
//! # What bounds it
//!
//! - Gaps among the last [`WINDOW`] sequences are all kept; of older ones the lowest and the
//!   widest, [`OLD_GAPS_MAX`] in all (so a backlog that is sent newest first still counts, and frames
//!   lost for good are forgotten).
//!   A frame in a forgotten gap is [`Verdict::Beyond`]: it cannot be told from a resend.
//! - Of one device and kind the [`BOOTS_MAX`] boots last heard of are kept.
//! - What was not heard of for [`HORIZON_RECORDS`] log positions is forgotten.
//! - A partition keeps [`ENTRIES_MAX`] entries; the longest unheard of leave first.
//!
//! An entry takes 65 to 130 bytes of memory (56 in a hash table that is 7/16 to 7/8 full) and 16 per
//! gap; a million devices in order need about 130 MB over all partitions. As state it is a key of 18
//! bytes and a value of about 10.

mod entry;

use std::collections::{HashMap, HashSet};

use driftline_schemas::packed::PackedFrame;
use driftline_schemas::rows::Kind;

use entry::Entry;

/// Sequences below the highest within which every frame is decided exactly.
pub const WINDOW: u64 = 1_024;
/// Gaps that are kept below the window; what a device lost for good must not add up for ever.
pub const OLD_GAPS_MAX: usize = 16;
/// Boots of one device and kind that are kept: a device that restarts every minute must not fill
/// the memory.
pub const BOOTS_MAX: usize = 16;
/// Log positions after which an entry that was not heard of is forgotten: a week at a hundred
/// records a second in one partition, as long as rows are profiled.
pub const HORIZON_RECORDS: u64 = 1 << 26;
/// Entries of one partition: 270 MB at most without gaps.
pub const ENTRIES_MAX: usize = 1 << 21;
/// Log positions between sweeps for what is to be forgotten. Sweeps fall on multiples of it, so
/// that they do not depend on batches.
const SWEEP_RECORDS: u64 = 1 << 12;
/// First byte of the keys of the state, so that a stage can keep other keys beside them.
pub const KEY_PREFIX: u8 = b'o';
/// Version of the values that this code writes.
const FORMAT: u8 = 1;
/// Key of the number of the last sweep.
const SWEPT_KEY: [u8; 2] = [KEY_PREFIX, 0];

/// The state is not one that this code wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "state of frames counted cannot be read at key {key}: {problem}; forget the stage and let it read its topics again"
)]
pub struct OnceError {
    /// The key, hexadecimal.
    pub key: String,
    /// What is wrong.
    pub problem: &'static str,
}

/// What a frame is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameId {
    /// [`driftline_schemas::source::device_hash`].
    pub device: u64,
    /// Kind of the rows; every kind has its own sequence.
    pub kind: Kind,
    /// Boot of the device.
    pub boot: u64,
    /// Number of the frame in this boot and kind.
    pub sequence: u64,
}

impl FrameId {
    /// Identity of a frame of rows of a kind.
    pub fn of(kind: Kind, frame: &PackedFrame) -> Self {
        Self {
            device: frame.origin.device_hash(),
            kind,
            boot: frame.head.boot,
            sequence: frame.head.sequence,
        }
    }
}

/// Whether a frame counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    New,
    /// It was counted before.
    Resent,
    /// It lies in a gap that was forgotten: taken for a resend, and counted as what it is.
    Beyond,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    device: u64,
    kind: Kind,
    boot: u64,
}

/// A change of the state: key, and new value or `None` to remove it.
pub type Delta = (Vec<u8>, Option<Vec<u8>>);

/// The bounds, as values, so that tests can make them small.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    horizon: u64,
    sweep: u64,
    entries: usize,
}

const BOUNDS: Bounds = Bounds {
    horizon: HORIZON_RECORDS,
    sweep: SWEEP_RECORDS,
    entries: ENTRIES_MAX,
};

/// Which frames of one partition were counted.
#[derive(Debug, Clone)]
pub struct Once {
    entries: HashMap<Key, Entry>,
    /// Number of the last sweep: log position by [`SWEEP_RECORDS`].
    swept: u64,
    /// Keys whose entries changed or went since the last [`Self::deltas`].
    touched: HashSet<Key>,
    swept_touched: bool,
    bounds: Bounds,
}

impl Default for Once {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            swept: 0,
            touched: HashSet::new(),
            swept_touched: false,
            bounds: BOUNDS,
        }
    }
}

impl Once {
    /// Takes up the state that [`Self::deltas`] left; keys of others are ignored.
    ///
    /// # Errors
    /// [`OnceError`] when a value is not one that this code wrote.
    pub fn restore<'a>(
        state: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    ) -> Result<Self, OnceError> {
        let mut once = Self::default();
        for (key, value) in state {
            if key.first() != Some(&KEY_PREFIX) {
                continue;
            }
            let wrong = |problem| OnceError {
                key: driftline_schemas::bundle::files::hex(key),
                problem,
            };
            if *key == SWEPT_KEY {
                let bytes = value.as_slice().try_into();
                once.swept = u64::from_be_bytes(bytes.map_err(|_| wrong("length"))?);
                continue;
            }
            let entry = Entry::decode(value).ok_or_else(|| wrong("value"))?;
            let key = decode_key(key).ok_or_else(|| wrong("key"))?;
            once.entries.insert(key, entry);
        }
        Ok(once)
    }

    /// Takes note of a log position, before its frames are judged. Positions rise.
    pub fn advance(&mut self, position: u64) {
        let sweep = position / self.bounds.sweep;
        if sweep > self.swept {
            self.swept = sweep;
            self.swept_touched = true;
            self.sweep(sweep * self.bounds.sweep);
        }
    }

    /// Judges a frame of the record at `position`, the one given to [`Self::advance`] last.
    pub fn admit(&mut self, position: u64, frame: FrameId) -> Verdict {
        let key = Key {
            device: frame.device,
            kind: frame.kind,
            boot: frame.boot,
        };
        self.touched.insert(key);
        if let Some(entry) = self.entries.get_mut(&key) {
            return entry.admit(position, frame.sequence);
        }
        self.entries
            .insert(key, Entry::first(position, frame.sequence));
        Verdict::New
    }

    /// What changed since the last call, in key order: equal prefixes of a partition give states
    /// that are equal byte by byte, however they are cut.
    pub fn deltas(&mut self) -> Vec<Delta> {
        let mut keys: Vec<Key> = self.touched.drain().collect();
        keys.sort_unstable();
        let mut deltas: Vec<Delta> = keys
            .into_iter()
            .map(|key| {
                let value = self.entries.get(&key).map(Entry::encode);
                (encode_key(key), value)
            })
            .collect();
        if std::mem::take(&mut self.swept_touched) {
            deltas.push((SWEPT_KEY.to_vec(), Some(self.swept.to_be_bytes().to_vec())));
        }
        deltas
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no frame was seen yet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn forget(&mut self, key: Key) {
        self.entries.remove(&key);
        self.touched.insert(key);
    }

    /// Forgets what was not heard of since the horizon, boots beyond the bound, and the longest
    /// unheard of where there are too many.
    fn sweep(&mut self, position: u64) {
        let horizon = position.saturating_sub(self.bounds.horizon);
        let mut old = Vec::new();
        // Few devices have many boots, so they are counted first and looked at then.
        let mut boots: HashMap<(u64, Kind), u32> = HashMap::new();
        for (key, entry) in &self.entries {
            if entry.last_position() < horizon {
                old.push(*key);
            } else {
                *boots.entry((key.device, key.kind)).or_default() += 1;
            }
        }
        boots.retain(|_, count| *count as usize > BOOTS_MAX);
        let mut many: HashMap<(u64, Kind), Vec<(u64, Key)>> = HashMap::new();
        if !boots.is_empty() {
            for (key, entry) in &self.entries {
                let device = (key.device, key.kind);
                if entry.last_position() >= horizon && boots.contains_key(&device) {
                    many.entry(device)
                        .or_default()
                        .push((entry.last_position(), *key));
                }
            }
        }
        for boots in many.values_mut() {
            boots.sort_unstable();
            let over = boots.len().saturating_sub(BOOTS_MAX);
            old.extend(boots[..over].iter().map(|(_, key)| *key));
        }
        old.into_iter().for_each(|key| self.forget(key));
        let over = self.entries.len().saturating_sub(self.bounds.entries);
        if over > 0 {
            let mut oldest: Vec<(u64, Key)> = self
                .entries
                .iter()
                .map(|(key, entry)| (entry.last_position(), *key))
                .collect();
            oldest.sort_unstable();
            oldest
                .into_iter()
                .take(over)
                .for_each(|(_, key)| self.forget(key));
        }
    }
}

/// `'o' kind device boot`, numbers big-endian.
fn encode_key(key: Key) -> Vec<u8> {
    let mut out = vec![KEY_PREFIX, key.kind as u8];
    out.extend_from_slice(&key.device.to_be_bytes());
    out.extend_from_slice(&key.boot.to_be_bytes());
    out
}

fn decode_key(bytes: &[u8]) -> Option<Key> {
    let (&[_, kind], rest) = bytes.split_first_chunk::<2>()?;
    let (device, boot) = rest.split_first_chunk::<8>()?;
    Some(Key {
        device: u64::from_be_bytes(*device),
        kind: Kind::from_code(kind)?,
        boot: u64::from_be_bytes(boot.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests;
