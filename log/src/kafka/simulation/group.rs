//! Groups of the classic protocol on the simulated broker: who is a member, in which generation, and who has
//! which partitions.
//!
//! Two ways of dealing them out, which in Kafka the members do and here the broker does for them: `range`,
//! for which everybody gives up everything before; and one by one, for which members say when they join
//! what they have, keep what they may, and what moves is given to nobody until it was given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode as Code;

use super::broker::{At, Broker, Metadata};

/// Without a heartbeat for this long a member is out of its group.
const SESSION_TIMEOUT_MS: u64 = 6_000;

#[derive(Debug, Default)]
pub(super) struct Group {
    generation: u64,
    members: BTreeMap<u64, Seat>,
    /// Members are asked to join again.
    preparing: bool,
    pub(super) offsets: BTreeMap<At, (u64, u64)>,
}

#[derive(Debug)]
struct Seat {
    heard_ms: u64,
    joined: bool,
    topics: Vec<Arc<str>>,
    /// What it had when it joined; `None`: it deals with everything at once.
    owned: Option<BTreeSet<u32>>,
    assigned: BTreeSet<u32>,
}

/// What a member hears when it says that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Fine,
    /// Join again.
    Rebalance,
    /// Not a member any more.
    Unknown,
    /// Has these partitions in this generation.
    Assigned(u64, BTreeSet<u32>),
}

impl Broker {
    /// Puts out who was not heard of in time.
    pub(super) fn end_sessions(&mut self) {
        let now_ms = self.now_ms;
        for group in self.groups.values_mut() {
            let before = group.members.len();
            let heard = |seat: &mut Seat| seat.heard_ms + SESSION_TIMEOUT_MS > now_ms;
            group.members.retain(|_, seat| heard(seat));
            group.preparing |= group.members.len() < before;
        }
        let names: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        names.iter().for_each(|name| self.complete(name));
    }

    /// Whether a group lets somebody commit.
    pub(super) fn admit(&self, group: &str, metadata: Metadata) -> Result<(), Code> {
        if metadata == Metadata::default() {
            return Ok(());
        }
        let group = self.groups.get(group).ok_or(Code::UnknownMemberId)?;
        let member = metadata.member.ok_or(Code::UnknownMemberId)?;
        if !group.members.contains_key(&member) {
            return Err(Code::UnknownMemberId);
        }
        if group.generation != metadata.generation {
            return Err(Code::IllegalGeneration);
        }
        Ok(())
    }

    /// Joins a group, or joins it again, with what it has.
    pub(super) fn join(
        &mut self,
        group: &Arc<str>,
        member: Option<u64>,
        topics: &[Arc<str>],
        owned: Option<BTreeSet<u32>>,
    ) -> u64 {
        let heard_ms = self.now_ms;
        let entry = self.groups.entry(Arc::clone(group)).or_default();
        let member = member.filter(|member| entry.members.contains_key(member));
        let member = member.unwrap_or_else(|| {
            self.members += 1;
            self.members
        });
        let seat = Seat {
            heard_ms,
            joined: true,
            topics: topics.to_vec(),
            owned,
            assigned: BTreeSet::new(),
        };
        entry.members.insert(member, seat);
        entry.preparing = true;
        self.complete(group);
        member
    }

    /// Whether a group still knows a member.
    pub(super) fn knows(&self, group: &str, member: u64) -> bool {
        let group = self.groups.get(group);
        group.is_some_and(|group| group.members.contains_key(&member))
    }

    pub(super) fn leave(&mut self, group: &Arc<str>, member: u64) {
        if let Some(entry) = self.groups.get_mut(group)
            && entry.members.remove(&member).is_some()
        {
            entry.preparing = true;
        }
        self.complete(group);
    }

    /// Deals out the partitions when every member has joined again.
    fn complete(&mut self, name: &Arc<str>) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if !group.preparing || !group.members.values().all(|seat| seat.joined) {
            return;
        }
        group.preparing = false;
        group.generation += 1;
        let topic = group.members.values().find_map(|seat| seat.topics.first());
        let spec = topic.and_then(|topic| self.specs.get(topic));
        let partitions = spec.map_or(0, |spec| spec.partitions);
        match group.members.values().any(|seat| seat.owned.is_none()) {
            true => group.deal_ranges(partitions),
            false => group.deal_one_by_one(partitions),
        }
        group
            .members
            .values_mut()
            .for_each(|seat| seat.joined = false);
    }

    /// A member says that it is there, and which generation it knows.
    pub(super) fn heartbeat(&mut self, group: &str, known: Metadata) -> Heard {
        let now_ms = self.now_ms;
        let member = known.member.unwrap_or(0);
        let Some(group) = self.groups.get_mut(group) else {
            return Heard::Unknown;
        };
        let Some(seat) = group.members.get_mut(&member) else {
            return Heard::Unknown;
        };
        seat.heard_ms = now_ms;
        match (group.preparing, seat.joined) {
            (true, true) => Heard::Fine,
            (true, false) => Heard::Rebalance,
            _ if known.generation != group.generation => {
                Heard::Assigned(group.generation, seat.assigned.clone())
            }
            _ => Heard::Fine,
        }
    }
}

impl Group {
    /// As `range` does: neighbours together, the first members get one more.
    fn deal_ranges(&mut self, partitions: u32) {
        let count = self.members.len() as u32;
        for (place, seat) in (0..count).zip(self.members.values_mut()) {
            let (each, more) = (partitions / count, partitions % count);
            let from = place * each + place.min(more);
            seat.assigned = (from..from + each + u32::from(place < more)).collect();
        }
    }

    /// As `cooperative-sticky` does: everybody keeps what it has up to its share; of the rest, what somebody
    /// has to give up first is given to nobody yet.
    fn deal_one_by_one(&mut self, partitions: u32) {
        let count = self.members.len() as u32;
        let has = |seat: &Seat| seat.owned.as_ref().map_or(0, BTreeSet::len);
        let mut order: Vec<u64> = self.members.keys().copied().collect();
        order.sort_by_key(|member| std::cmp::Reverse(has(&self.members[member])));
        let mut free: BTreeSet<u32> = (0..partitions).collect();
        let claimed: BTreeSet<u32> = self
            .members
            .values()
            .flat_map(|seat| seat.owned.iter().flatten().copied())
            .collect();
        let share =
            |place: u32| (partitions / count + u32::from(place < partitions % count)) as usize;
        for (place, member) in (0..count).zip(&order) {
            if let Some(seat) = self.members.get_mut(member) {
                let owned = seat.owned.iter().flatten().copied();
                // Of what two say they have, the first gets it: then one of them was put out before.
                let kept = owned.filter(|partition| free.contains(partition));
                seat.assigned = kept.take(share(place)).collect();
                free.retain(|partition| !seat.assigned.contains(partition));
            }
        }
        let mut rest = free.into_iter();
        for (place, member) in (0..count).zip(&order) {
            if let Some(seat) = self.members.get_mut(member) {
                let missing = share(place).saturating_sub(seat.assigned.len());
                let given = rest.by_ref().take(missing);
                let now = given.filter(|partition| !claimed.contains(partition));
                seat.assigned.extend(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seats(owned: &[BTreeSet<u32>]) -> Group {
        let seat = |owned: &BTreeSet<u32>| Seat {
            heard_ms: 0,
            joined: true,
            topics: Vec::new(),
            owned: Some(owned.clone()),
            assigned: BTreeSet::new(),
        };
        Group {
            members: (0..).zip(owned.iter().map(seat)).collect(),
            ..Group::default()
        }
    }

    fn dealt(owned: &[BTreeSet<u32>], partitions: u32) -> Vec<BTreeSet<u32>> {
        let mut group = seats(owned);
        group.deal_one_by_one(partitions);
        group
            .members
            .into_values()
            .map(|seat| seat.assigned)
            .collect()
    }

    proptest! {
        /// What somebody says it has is given to nobody else; when everybody has given up what it does not keep,
        /// everything is dealt out evenly and nothing moves any more.
        #[test]
        fn deals_out_what_was_given_up(
            holders in prop::collection::vec(0usize..6, 0..12),
            members in 1usize..5,
        ) {
            let mut owned = vec![BTreeSet::new(); members];
            for (partition, holder) in (0..).zip(&holders) {
                if let Some(owned) = owned.get_mut(*holder) {
                    owned.insert(partition);
                }
            }
            let partitions = holders.len() as u32;
            let first = dealt(&owned, partitions);
            for (member, assigned) in first.iter().enumerate() {
                for (other, owned) in owned.iter().enumerate() {
                    prop_assert!(member == other || assigned.is_disjoint(owned));
                }
            }
            let second = dealt(&first, partitions);
            let mut all: Vec<u32> = second.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..partitions).collect::<Vec<_>>());
            let sizes: Vec<usize> = second.iter().map(BTreeSet::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            prop_assert_eq!(dealt(&second, partitions), second);
        }
    }
}
