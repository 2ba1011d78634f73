//! Who of a group holds which partition, in one process.
//!
//! Partition `p` belongs to the `p mod n`-th of the `n` members in instance order. A partition
//! moves in two turns: its holder lets go of it in a poll, and only then is it given to the next.
//! So two members never hold one partition, and nobody has to be fenced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a member learns at its next poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Let go of these.
    Revoke(Vec<u32>),
    /// Take these.
    Assign(Vec<u32>),
    /// Nothing changes.
    Stay,
}

#[derive(Debug, Default)]
struct Seat {
    held: BTreeSet<u32>,
    /// All it holds is void: give everything up before anything else.
    reset: bool,
}

/// The members of one group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) inputs: Vec<Arc<str>>,
    partitions: u32,
    seats: BTreeMap<Arc<str>, Seat>,
}

impl Group {
    pub(crate) fn new(inputs: Vec<Arc<str>>, partitions: u32) -> Self {
        Self {
            inputs,
            partitions,
            seats: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// `false` when the instance is already there.
    pub(crate) fn join(&mut self, instance: &Arc<str>) -> bool {
        if self.seats.contains_key(instance) {
            return false;
        }
        self.seats.insert(Arc::clone(instance), Seat::default());
        true
    }

    pub(crate) fn leave(&mut self, instance: &str) {
        self.seats.remove(instance);
    }

    /// Everything the member holds is void from now on.
    pub(crate) fn reset(&mut self, instance: &str) {
        if let Some(seat) = self.seats.get_mut(instance) {
            seat.reset = true;
        }
    }

    /// Whether the member holds the partition and may commit for it.
    pub(crate) fn holds(&self, instance: &str, partition: u32) -> bool {
        self.seats
            .get(instance)
            .is_some_and(|seat| !seat.reset && seat.held.contains(&partition))
    }

    /// Gives an assignment back, which could not be read.
    pub(crate) fn give_back(&mut self, instance: &str, partitions: &[u32]) {
        if let Some(seat) = self.seats.get_mut(instance) {
            seat.held.retain(|held| !partitions.contains(held));
        }
    }

    /// What the member does next; takes effect at once.
    pub(crate) fn turn(&mut self, instance: &str) -> Turn {
        let count = self.seats.len();
        let Some(place) = self.seats.keys().position(|name| **name == *instance) else {
            return Turn::Stay;
        };
        let mine: BTreeSet<u32> = (0..self.partitions)
            .filter(|p| *p as usize % count == place)
            .collect();
        let taken: BTreeSet<u32> = self
            .seats
            .iter()
            .filter(|(name, _)| ***name != *instance)
            .flat_map(|(_, seat)| seat.held.iter().copied())
            .collect();
        let Some(seat) = self.seats.get_mut(instance) else {
            return Turn::Stay;
        };
        let keep = if seat.reset {
            BTreeSet::new()
        } else {
            mine.clone()
        };
        seat.reset = false;
        let revoked: Vec<u32> = seat.held.difference(&keep).copied().collect();
        if !revoked.is_empty() {
            seat.held.retain(|p| keep.contains(p));
            return Turn::Revoke(revoked);
        }
        let free: Vec<u32> = mine
            .difference(&seat.held)
            .filter(|p| !taken.contains(p))
            .copied()
            .collect();
        if free.is_empty() {
            return Turn::Stay;
        }
        seat.held.extend(&free);
        Turn::Assign(free)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(partitions: u32) -> Group {
        Group::new(Vec::new(), partitions)
    }

    /// A lone member gets all partitions at once, and gives half of them up when a second joins.
    #[test]
    fn hands_over_in_two_turns() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut group = group(4);
        assert!(group.join(&a));
        assert!(!group.join(&a));
        assert_eq!(group.turn("a"), Turn::Assign(vec![0, 1, 2, 3]));
        assert!(group.join(&b));
        assert_eq!(group.turn("b"), Turn::Stay);
        assert_eq!(group.turn("a"), Turn::Revoke(vec![1, 3]));
        assert_eq!(group.turn("b"), Turn::Assign(vec![1, 3]));
        group.leave("a");
        assert_eq!(group.turn("b"), Turn::Assign(vec![0, 2]));
    }

    /// After a reset everything is revoked and assigned anew, and cannot be committed in between.
    #[test]
    fn reset_revokes_all() {
        let a: Arc<str> = "a".into();
        let mut group = group(2);
        group.join(&a);
        group.turn("a");
        assert!(group.holds("a", 1));
        group.reset("a");
        assert!(!group.holds("a", 1));
        assert_eq!(group.turn("a"), Turn::Revoke(vec![0, 1]));
        assert_eq!(group.turn("a"), Turn::Assign(vec![0, 1]));
    }

    proptest! {
        /// Whatever members do in whatever order, no partition is held twice, and when they settle
        /// every partition is held.
        #[test]
        fn never_held_twice(
            partitions in 1u32..9,
            actions in prop::collection::vec((0u8..4, 0usize..3), 0..60),
        ) {
            let names: Vec<Arc<str>> = ["a", "b", "c"].map(Arc::from).to_vec();
            let mut group = group(partitions);
            for (action, who) in actions {
                match action {
                    0 => { group.join(&names[who]); }
                    1 => group.leave(&names[who]),
                    2 => group.reset(&names[who]),
                    _ => { group.turn(&names[who]); }
                }
                for p in 0..partitions {
                    let holders = group.seats.values().filter(|s| s.held.contains(&p)).count();
                    prop_assert!(holders <= 1);
                }
            }
            for _ in 0..4 {
                for name in &names {
                    group.turn(name);
                }
            }
            let held: usize = group.seats.values().map(|s| s.held.len()).sum();
            let expected = if group.is_empty() { 0 } else { partitions as usize };
            prop_assert_eq!(held, expected);
        }
    }
}
