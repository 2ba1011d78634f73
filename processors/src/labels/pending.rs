//! Labels that wait, and identities that had their label.
//!
//! State of a partition, beside that of [`crate::once`]; numbers big-endian:
//!
//! | key | value |
//! | --- | --- |
//! | `p` number:u64 | a label that waits: JSON of [`Pending`] |
//! | `s` number:u64 | identity (16 bytes) that had its label; the numbers rise in log order |

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use driftline_log::StateDelta;
use serde::{Deserialize, Serialize};

/// Identities that are remembered per partition so that a second label of one is told from the
/// first; the oldest are forgotten (60 bytes each).
pub(super) const SEEN_MAX: usize = 1 << 20;
const PENDING: u8 = b'p';
const SEEN: u8 = b's';

/// A label that waits for its inference to be in the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Identity of the inference.
    pub(super) id: u128,
    /// Class code, or value in the output's resolution.
    pub(super) truth: i32,
    /// Owner.
    pub(super) tenant: Arc<str>,
    /// Device that sent the label.
    pub(super) device: Arc<str>,
    /// Partition of the inferences that the inference is or will be in.
    pub(super) partition: u32,
    /// End of that partition when the label came: from there on the archive has passed all that was
    /// there before the label.
    pub(super) end: u64,
    /// When the gateway received it.
    pub(super) received_at_us: i64,
    /// How often the lake was looked into for it.
    #[serde(default)]
    pub(super) looks: u32,
    /// Not to be looked for before this.
    #[serde(default)]
    pub(super) not_before_us: i64,
}

/// What waits in one partition.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pending: BTreeMap<u64, Pending>,
    next: u64,
    seen: HashSet<u128>,
    seen_order: VecDeque<(u64, u128)>,
    deltas: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Waiting {
    /// Takes up the state that was committed; `None` when a value is not one that this code wrote.
    pub(super) fn restore(state: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Self> {
        let mut waiting = Self::default();
        for (key, value) in state {
            let Some((kind @ (&PENDING | &SEEN), number)) = key.split_first() else {
                continue;
            };
            let number = u64::from_be_bytes(number.try_into().ok()?);
            waiting.next = waiting.next.max(number + 1);
            if *kind == PENDING {
                let pending = serde_json::from_slice(value).ok()?;
                waiting.pending.insert(number, pending);
            } else {
                let id = u128::from_be_bytes(value.as_slice().try_into().ok()?);
                waiting.seen.insert(id);
                waiting.seen_order.push_back((number, id));
            }
        }
        Some(waiting)
    }

    /// Takes a label in, unless its inference had one.
    pub(super) fn add(&mut self, pending: Pending) -> bool {
        if !self.seen.insert(pending.id) {
            return false;
        }
        let number = self.next;
        self.next += 1;
        self.seen_order.push_back((number, pending.id));
        let id = pending.id.to_be_bytes().to_vec();
        self.deltas.push((key(SEEN, number), Some(id)));
        if self.seen_order.len() > SEEN_MAX
            && let Some((number, id)) = self.seen_order.pop_front()
        {
            self.seen.remove(&id);
            self.deltas.push((key(SEEN, number), None));
        }
        self.put(number, pending);
        true
    }

    /// Puts a label back, or changes it.
    pub(super) fn put(&mut self, number: u64, pending: Pending) {
        // Strings and numbers always have a JSON form.
        let value = serde_json::to_vec(&pending).unwrap_or_default();
        self.deltas.push((key(PENDING, number), Some(value)));
        self.pending.insert(number, pending);
    }

    /// Takes a label out for good.
    pub(super) fn remove(&mut self, number: u64) -> Option<Pending> {
        let pending = self.pending.remove(&number)?;
        self.deltas.push((key(PENDING, number), None));
        Some(pending)
    }

    /// Takes out the longest waiting beyond a number.
    pub(super) fn overflow(&mut self, max: usize) -> Vec<Pending> {
        let over = self.pending.len().saturating_sub(max);
        let numbers: Vec<u64> = self.pending.keys().take(over).copied().collect();
        numbers
            .into_iter()
            .filter_map(|number| self.remove(number))
            .collect()
    }

    /// What waits, the longest waiting first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Pending)> {
        self.pending
            .iter()
            .map(|(number, pending)| (*number, pending))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What changed since the last call.
    pub(super) fn deltas(&mut self, partition: u32) -> impl Iterator<Item = StateDelta> {
        let deltas = std::mem::take(&mut self.deltas);
        deltas.into_iter().map(move |(key, value)| StateDelta {
            partition,
            key,
            value,
        })
    }
}

fn key(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(id: u128) -> Pending {
        Pending {
            id,
            truth: 1,
            tenant: "acme".into(),
            device: "probe".into(),
            partition: 3,
            end: 17,
            received_at_us: 5,
            looks: 0,
            not_before_us: 0,
        }
    }

    /// What waits and what was seen survives a restart, byte by byte as released, and goes on
    /// counting where it was.
    #[test]
    fn the_state_survives_a_restart() {
        let mut waiting = Waiting::default();
        assert!(waiting.add(label(7)));
        assert!(!waiting.add(label(7)));
        assert!(waiting.add(label(8)));
        waiting.remove(0);
        let mut state: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for delta in waiting.deltas(0) {
            match delta.value {
                Some(value) => state.insert(delta.key, value),
                None => state.remove(&delta.key),
            };
        }
        let value = &state[&b"p\0\0\0\0\0\0\0\x01".to_vec()];
        assert_eq!(
            std::str::from_utf8(value).unwrap(),
            r#"{"id":8,"truth":1,"tenant":"acme","device":"probe","partition":3,"end":17,"received_at_us":5,"looks":0,"not_before_us":0}"#
        );
        let mut again = Waiting::restore(&state).unwrap();
        assert_eq!(again.iter().collect::<Vec<_>>(), [(1, &label(8))]);
        assert!(!again.add(label(7)));
        assert!(again.add(label(9)));
        assert_eq!(again.overflow(1), [label(8)]);
        assert_eq!(again.iter().next().unwrap().0, 2);
        state.insert(b"p\0".to_vec(), vec![]);
        assert!(Waiting::restore(&state).is_none());
    }
}
