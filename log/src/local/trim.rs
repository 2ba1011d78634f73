//! Which records of a partition may leave: pure, so that both stores and the tests agree.

use std::sync::Arc;

use crate::api::{Cleanup, Held};

/// How long a deletion stays in a compacted topic, in microseconds, so that readers outside any
/// group can see it: Kafka's default of `delete.retention.ms`, one day.
pub(crate) const TOMBSTONE_KEEP_US: i64 = 24 * 60 * 60 * 1_000_000;

/// Who still has to read a partition: stage and where it goes on.
pub(crate) type Readers = Vec<(Arc<str>, u64)>;

/// Decides on the records of one partition, from the oldest on.
pub(crate) struct Cut<'a> {
    cleanup: &'a Cleanup,
    now_us: i64,
    /// Bytes that the partition would hold after what was cut so far.
    bytes_left: u64,
    floor: u64,
    readers: &'a Readers,
    topic: &'a Arc<str>,
    partition: u32,
    /// Stages that retention waits for here.
    pub(crate) held: Vec<Held>,
}

/// What is to be done with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It leaves.
    Remove,
    /// It stays, and those after it may leave.
    Keep,
    /// It stays, and so do all after it.
    Stop,
}

impl<'a> Cut<'a> {
    pub(crate) fn new(
        cleanup: &'a Cleanup,
        now_us: i64,
        bytes: u64,
        readers: &'a Readers,
        topic: &'a Arc<str>,
        partition: u32,
    ) -> Self {
        let floor = readers
            .iter()
            .map(|(_, next)| *next)
            .min()
            .unwrap_or(u64::MAX);
        Self {
            cleanup,
            now_us,
            bytes_left: bytes,
            floor,
            readers,
            topic,
            partition,
            held: vec![],
        }
    }

    /// `tombstone`: the record has no value. `bytes`: its key and value.
    pub(crate) fn judge(
        &mut self,
        offset: u64,
        timestamp_us: i64,
        bytes: u64,
        tombstone: bool,
    ) -> Verdict {
        let age_us = self.now_us.saturating_sub(timestamp_us);
        let wanted = match self.cleanup {
            Cleanup::Compact if tombstone => age_us > TOMBSTONE_KEEP_US,
            Cleanup::Compact => return Verdict::Keep,
            Cleanup::Delete {
                retention,
                retention_bytes,
            } => {
                retention.is_some_and(|keep| i128::from(age_us) > keep.as_micros() as i128)
                    || retention_bytes.is_some_and(|keep| self.bytes_left > keep)
            }
        };
        let compact = *self.cleanup == Cleanup::Compact;
        if !wanted {
            return if compact {
                Verdict::Keep
            } else {
                Verdict::Stop
            };
        }
        if offset >= self.floor {
            self.hold();
            return Verdict::Stop;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        Verdict::Remove
    }

    fn hold(&mut self) {
        let waiting = self.readers.iter().filter(|(_, next)| *next == self.floor);
        self.held.extend(waiting.map(|(stage, next)| Held {
            stage: Arc::clone(stage),
            topic: Arc::clone(self.topic),
            partition: self.partition,
            committed: *next,
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No record at or past a reader's position is ever removed, and without a reader in the
        /// way exactly the prefix that is too old or over the size leaves.
        #[test]
        fn never_passes_a_reader(
            ages in prop::collection::vec((0i64..100, 1u64..50), 0..40),
            keep_us in 0u64..100,
            keep_bytes in prop::option::of(0u64..500),
            readers in prop::collection::vec(0u64..45, 0..3),
        ) {
            let cleanup = Cleanup::Delete {
                retention: Some(Duration::from_micros(keep_us)),
                retention_bytes: keep_bytes,
            };
            let readers: Readers = readers.into_iter().map(|next| (Arc::from("s"), next)).collect();
            let floor = readers.iter().map(|r| r.1).min().unwrap_or(u64::MAX);
            let total: u64 = ages.iter().map(|a| a.1).sum();
            let topic: Arc<str> = Arc::from("t");
            let mut cut = Cut::new(&cleanup, 1_000, total, &readers, &topic, 0);
            let mut left = total;
            for (offset, (age, bytes)) in ages.iter().enumerate() {
                let verdict = cut.judge(offset as u64, 1_000 - age, *bytes, false);
                let wanted = *age > keep_us as i64 || keep_bytes.is_some_and(|keep| left > keep);
                let expected = wanted && (offset as u64) < floor;
                prop_assert_eq!(verdict == Verdict::Remove, expected);
                prop_assert_eq!(!cut.held.is_empty(), wanted && !expected);
                if !expected {
                    break;
                }
                left -= bytes;
            }
        }
    }

    /// In a compacted topic only old deletions leave, and a young one does not stop those after it.
    #[test]
    fn compaction_drops_old_tombstones() {
        let topic: Arc<str> = Arc::from("t");
        let readers = vec![(Arc::from("s"), 3)];
        let now = 10 * TOMBSTONE_KEEP_US;
        let mut cut = Cut::new(&Cleanup::Compact, now, 0, &readers, &topic, 0);
        assert_eq!(cut.judge(0, 0, 1, false), Verdict::Keep);
        assert_eq!(cut.judge(1, now, 1, true), Verdict::Keep);
        assert_eq!(cut.judge(2, 0, 1, true), Verdict::Remove);
        assert_eq!(cut.judge(3, 0, 1, true), Verdict::Stop);
        assert_eq!(cut.held.len(), 1);
    }
}
