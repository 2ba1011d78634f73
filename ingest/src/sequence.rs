//! Which frames can still be told from resends: pure.
//!
//! The once-logic downstream keeps, per device, boot and kind, the highest sequence and the ranges
//! below it that were never seen: all of them within [`SEQUENCE_WINDOW`], and of older ones the lowest
//! and the widest, [`OLD_GAPS_MAX`] in all. A frame inside a range that it has forgotten counts as a
//! resend there, so acknowledging it would lose it. [`Seen`] keeps the same ranges by the same rule,
//! so that the gateway refuses that frame.
//!
//! After a restart the gateway knows what the ends of the topics tell, which is less than the
//! once-logic, and then accepts what that removes as a resend, which it counts.

use crate::limits::{OLD_GAPS_MAX, SEQUENCE_WINDOW};

/// Sequences of one boot and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    highest: u64,
    /// Below it, a sequence outside of `gaps` may be one that was never seen.
    forgotten_below: u64,
    /// Never seen, both ends inclusive, rising, never touching.
    gaps: Vec<(u64, u64)>,
}

impl Seen {
    pub(crate) fn first(sequence: u64) -> Self {
        Self {
            highest: sequence,
            forgotten_below: 0,
            gaps: sequence
                .checked_sub(1)
                .map(|last| (0, last))
                .into_iter()
                .collect(),
        }
    }

    /// Whether the frame can no longer be told from a resend.
    pub(crate) fn is_forgotten(&self, sequence: u64) -> bool {
        sequence < self.forgotten_below && self.gap_of(sequence).is_none()
    }

    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    fn gap_of(&self, sequence: u64) -> Option<usize> {
        let index = self.gaps.partition_point(|gap| gap.1 < sequence);
        self.gaps
            .get(index)
            .is_some_and(|gap| gap.0 <= sequence)
            .then_some(index)
    }

    /// Takes note of a frame.
    pub(crate) fn note(&mut self, sequence: u64) {
        if sequence > self.highest {
            if sequence - self.highest > 1 {
                self.gaps.push((self.highest + 1, sequence - 1));
            }
            self.highest = sequence;
        } else if let Some(index) = self.gap_of(sequence) {
            let (low, high) = self.gaps[index];
            let parts = [
                (sequence > low).then(|| (low, sequence - 1)),
                (sequence < high).then(|| (sequence + 1, high)),
            ];
            self.gaps.splice(index..=index, parts.into_iter().flatten());
        } else {
            return;
        }
        self.forget_old_gaps();
    }

    /// Forgets the narrowest of the gaps below the window, of equal ones the lowest, but never the
    /// lowest of all: it is what a device that sends newest first is still to send.
    fn forget_old_gaps(&mut self) {
        let window = self.highest.saturating_sub(SEQUENCE_WINDOW - 1);
        let mut old = self.gaps.partition_point(|gap| gap.1 < window);
        while old > OLD_GAPS_MAX {
            let Some(narrowest) = (1..old).min_by_key(|&at| self.gaps[at].1 - self.gaps[at].0)
            else {
                break;
            };
            let gap = self.gaps.remove(narrowest);
            self.forgotten_below = self.forgotten_below.max(gap.1 + 1);
            old -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In order, resent, and newest first: nothing is ever too old.
    #[test]
    fn orders_that_devices_have_are_accepted() {
        let mut seen = Seen::first(0);
        for sequence in 1..5_000 {
            assert!(!seen.is_forgotten(sequence));
            seen.note(sequence);
            assert!(!seen.is_forgotten(sequence / 2));
        }
        assert!(seen.gaps.is_empty());
        let mut seen = Seen::first(9_999);
        for sequence in (0..9_999).rev() {
            assert!(!seen.is_forgotten(sequence), "{sequence}");
            seen.note(sequence);
        }
        assert!(seen.gaps.is_empty());
    }

    /// What lies in a gap that had to be forgotten is refused; the window never is.
    #[test]
    fn forgotten_gaps_are_refused() {
        let mut seen = Seen::first(1);
        for sequence in (1..3_000).step_by(2) {
            seen.note(sequence);
        }
        let old = seen.gaps.iter().filter(|gap| gap.1 < 2_999 - 1_023).count();
        assert_eq!(old, OLD_GAPS_MAX);
        assert!(!seen.is_forgotten(0), "the lowest gap stays");
        assert!(seen.is_forgotten(2));
        assert!((1_980..3_000).all(|sequence| !seen.is_forgotten(sequence)));
    }

    proptest::proptest! {
        /// A frame that was never seen is either refused or known to be new, never taken for seen;
        /// and gaps stay bounded.
        #[test]
        fn unseen_is_never_taken_for_seen(sequences in proptest::collection::vec(0..6_000u64, 1..400)) {
            let mut seen = Seen::first(sequences[0]);
            let mut known = std::collections::BTreeSet::from([sequences[0]]);
            for sequence in &sequences[1..] {
                if !seen.is_forgotten(*sequence) {
                    seen.note(*sequence);
                    known.insert(*sequence);
                }
                proptest::prop_assert!(seen.gaps.len() <= OLD_GAPS_MAX + SEQUENCE_WINDOW as usize);
            }
            for sequence in 0..seen.highest() {
                let unseen = !known.contains(&sequence);
                let in_gap = seen.gap_of(sequence).is_some();
                proptest::prop_assert!(!in_gap || unseen);
                proptest::prop_assert!(!unseen || in_gap || seen.is_forgotten(sequence));
            }
        }
    }
}
