//! What is kept of one (device, boot, kind).

use driftline_schemas::profile::codec::{Reader, put_varint};

use super::{FORMAT, OLD_GAPS_MAX, Verdict, WINDOW};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    highest: u64,
    last_position: u64,
    /// Lowest sequence that a forgotten gap may hold lies below this: nothing below it that is not
    /// in `gaps` is known for sure. Only told apart in what is counted as [`Verdict::Beyond`].
    forgotten_below: u64,
    /// Ranges below `highest` (both ends inclusive) that were not seen, rising, never touching.
    gaps: Box<[(u64, u64)]>,
}

impl Entry {
    /// The first frame of a boot, which need not be number 0.
    pub(super) fn first(position: u64, sequence: u64) -> Self {
        let gaps: &[(u64, u64)] = match sequence.checked_sub(1) {
            Some(last) => &[(0, last)],
            None => &[],
        };
        Self {
            highest: sequence,
            last_position: position,
            forgotten_below: 0,
            gaps: gaps.into(),
        }
    }

    pub(super) fn last_position(&self) -> u64 {
        self.last_position
    }

    pub(super) fn admit(&mut self, position: u64, sequence: u64) -> Verdict {
        self.last_position = position;
        if sequence > self.highest {
            if sequence - self.highest > 1 {
                let mut gaps = self.gaps.to_vec();
                gaps.push((self.highest + 1, sequence - 1));
                self.gaps = gaps.into();
            }
            self.highest = sequence;
            self.forget_old_gaps();
            return Verdict::New;
        }
        let Ok(index) = self.gaps.binary_search_by(|&(low, high)| {
            use std::cmp::Ordering;
            match (high < sequence, low > sequence) {
                (true, _) => Ordering::Less,
                (_, true) => Ordering::Greater,
                _ => Ordering::Equal,
            }
        }) else {
            return if sequence < self.forgotten_below {
                Verdict::Beyond
            } else {
                Verdict::Resent
            };
        };
        let (low, high) = self.gaps[index];
        let mut gaps = self.gaps.to_vec();
        let parts = [
            (sequence > low).then(|| (low, sequence - 1)),
            (sequence < high).then(|| (sequence + 1, high)),
        ];
        gaps.splice(index..=index, parts.into_iter().flatten());
        self.gaps = gaps.into();
        self.forget_old_gaps();
        Verdict::New
    }

    /// Forgets the narrowest (of equal ones the lowest) of the gaps below the window, but never the
    /// lowest: it is what a device that sends newest first is still to send.
    fn forget_old_gaps(&mut self) {
        let window = self.highest.saturating_sub(WINDOW - 1);
        let mut old = self.gaps.iter().take_while(|gap| gap.1 < window).count();
        if old <= OLD_GAPS_MAX {
            return;
        }
        let mut gaps = self.gaps.to_vec();
        while old > OLD_GAPS_MAX {
            let narrowest = (1..old).min_by_key(|&index| gaps[index].1 - gaps[index].0);
            let Some(index) = narrowest else { break };
            let gap = gaps.remove(index);
            self.forgotten_below = self.forgotten_below.max(gap.1 + 1);
            old -= 1;
        }
        self.gaps = gaps.into();
    }

    /// `format highest position forgotten n { distance length }*n`, varints; distances run down
    /// from the highest sequence.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.highest.into());
        put_varint(&mut out, self.last_position.into());
        put_varint(&mut out, self.forgotten_below.into());
        put_varint(&mut out, self.gaps.len() as u128);
        let mut above = self.highest;
        for &(low, high) in self.gaps.iter().rev() {
            put_varint(&mut out, (above - high).into());
            put_varint(&mut out, (high - low).into());
            above = low;
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.byte().ok()? != FORMAT {
            return None;
        }
        let highest = reader.u64().ok()?;
        let last_position = reader.u64().ok()?;
        let forgotten_below = reader.u64().ok()?;
        let count = reader.count(WINDOW as usize + OLD_GAPS_MAX).ok()?;
        let mut above = highest;
        let mut gaps = Vec::with_capacity(count);
        for _ in 0..count {
            let high = above.checked_sub(reader.u64().ok()?)?;
            let low = high.checked_sub(reader.u64().ok()?)?;
            gaps.push((low, high));
            above = low;
        }
        gaps.reverse();
        (reader.remaining() == 0).then_some(Self {
            highest,
            last_position,
            forgotten_below,
            gaps: gaps.into(),
        })
    }
}
