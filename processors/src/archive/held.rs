//! What waits to be written, by topic and partition.

use std::collections::BTreeMap;
use std::time::Instant;

use arrow::array::RecordBatch;
use driftline_log::Output;

use super::convert::Converted;

/// Rows of one topic and partition.
#[derive(Debug)]
pub(super) struct Held {
    /// Offset that the first of them was looked for at.
    pub(super) begins: u64,
    /// Offset after the last of them.
    pub(super) next: u64,
    /// Bytes of their records.
    pub(super) bytes: usize,
    pub(super) batches: Vec<RecordBatch>,
    pub(super) letters: Vec<Output>,
    since: Since,
}

/// When the first of something came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Since {
    /// On the wall: it is about the lake's files, and a simulation's clock may stand still while
    /// rows wait.
    pub(super) real: Instant,
    /// On the injected clock.
    pub(super) us: i64,
}

impl Held {
    pub(super) fn add(&mut self, converted: Converted) {
        self.batches.extend(converted.batches);
        self.letters.extend(converted.letters);
    }

    fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

/// What a topic holds in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OfTopic {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    /// When the first of it came.
    pub(super) since: Since,
}

#[derive(Debug, Default)]
pub(super) struct Holdings {
    held: BTreeMap<(usize, u32), Held>,
}

impl Holdings {
    /// What is held of a topic and partition; begun at an offset when there is nothing yet.
    pub(super) fn entry(
        &mut self,
        at: usize,
        partition: u32,
        begins: u64,
        now_us: i64,
    ) -> &mut Held {
        self.held.entry((at, partition)).or_insert_with(|| Held {
            begins,
            next: begins,
            bytes: 0,
            batches: Vec::new(),
            letters: Vec::new(),
            since: Since {
                real: Instant::now(),
                us: now_us,
            },
        })
    }

    pub(super) fn of(&self, at: usize) -> Option<OfTopic> {
        let mut all: Option<OfTopic> = None;
        for held in self
            .held
            .range((at, 0)..=(at, u32::MAX))
            .map(|(_, held)| held)
        {
            let sum = all.get_or_insert(OfTopic {
                rows: 0,
                bytes: 0,
                since: held.since,
            });
            sum.rows += held.rows();
            sum.bytes += held.bytes;
            sum.since = sum.since.min(held.since);
        }
        all
    }

    /// Takes all of a topic out, by partition.
    pub(super) fn take(&mut self, at: usize) -> Vec<(u32, Held)> {
        let keys: Vec<(usize, u32)> = self
            .held
            .range((at, 0)..=(at, u32::MAX))
            .map(|(key, _)| *key)
            .collect();
        keys.into_iter()
            .filter_map(|key| Some((key.1, self.held.remove(&key)?)))
            .collect()
    }

    pub(super) fn drop_partition(&mut self, partition: u32) {
        self.held.retain(|key, _| key.1 != partition);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
