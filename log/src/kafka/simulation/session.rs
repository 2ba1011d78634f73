//! What a member's background thread knows about its group, and what it tells the member of it: librdkafka's
//! part of a rebalance.
//!
//! It tells of one change at a time and waits for the answer: it neither joins again nor hears of anything
//! before. Of a session that ran out it tells as a loss, if it notices outside of such a wait; within, it
//! only forgets its name, and notices when it joins again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::broker::{Broker, Metadata};
use super::group::Heard;

/// A change that the member has not heard of yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Assign(BTreeSet<u32>),
    Revoke {
        partitions: BTreeSet<u32>,
        lost: bool,
    },
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) known: Metadata,
    pub(super) told: VecDeque<Told>,
    /// The answer to what was told is missing.
    waits: bool,
    /// After the answer: what is assigned, and whether the group is joined again.
    then: Option<BTreeSet<u32>>,
    rejoins: bool,
    /// What the group gave.
    owned: BTreeSet<u32>,
    /// Everything is given up before it is dealt out anew.
    pub(super) eager: bool,
    /// Stands still: no heartbeats.
    pub(super) stopped: bool,
    /// Was killed: says no good-bye.
    pub(super) crashed: bool,
    pub(super) joined: bool,
    topics: Vec<Arc<str>>,
}

impl Session {
    pub(super) fn new(topics: Vec<Arc<str>>, eager: bool) -> Self {
        Self {
            topics,
            eager,
            ..Self::default()
        }
    }

    /// Joins, or joins again.
    pub(super) fn join(&mut self, broker: &mut Broker, group: &Arc<str>) {
        self.joined = true;
        let forgotten = self
            .known
            .member
            .is_none_or(|member| !broker.knows(group, member));
        if forgotten && !self.owned.is_empty() {
            // The broker gives a new name first, and that says that all is lost.
            self.known.member = None;
            return self.lose();
        }
        let owned = (!self.eager).then(|| self.owned.clone());
        let member = broker.join(group, self.known.member, &self.topics, owned);
        self.known.member = Some(member);
    }

    fn tell(&mut self, told: Told) {
        self.told.push_back(told);
        self.waits = true;
    }

    fn lose(&mut self) {
        let partitions = std::mem::take(&mut self.owned);
        self.rejoins = true;
        self.tell(Told::Revoke {
            partitions,
            lost: true,
        });
    }

    /// Says that the member is there, and hears what is new.
    pub(super) fn beat(&mut self, broker: &mut Broker, group: &Arc<str>) {
        if self.stopped || self.crashed || !self.joined {
            return;
        }
        match broker.heartbeat(group, self.known) {
            Heard::Fine => {}
            Heard::Unknown if self.waits => self.known.member = None,
            Heard::Rebalance if self.waits => {}
            Heard::Unknown => {
                self.known = Metadata::default();
                match self.owned.is_empty() {
                    true => self.join(broker, group),
                    false => self.lose(),
                }
            }
            Heard::Rebalance if self.eager && !self.owned.is_empty() => {
                let partitions = std::mem::take(&mut self.owned);
                self.rejoins = true;
                self.tell(Told::Revoke {
                    partitions,
                    lost: false,
                });
            }
            Heard::Rebalance => self.join(broker, group),
            Heard::Assigned(generation, partitions) => {
                self.known.generation = generation;
                let new: BTreeSet<u32> = partitions.difference(&self.owned).copied().collect();
                let gone: BTreeSet<u32> = self.owned.difference(&partitions).copied().collect();
                self.owned
                    .retain(|partition| partitions.contains(partition));
                if gone.is_empty() {
                    self.owned.extend(&new);
                    return self.tell(Told::Assign(new));
                }
                (self.then, self.rejoins) = (Some(new), true);
                self.tell(Told::Revoke {
                    partitions: gone,
                    lost: false,
                });
            }
        }
    }

    /// The member has done what it was told last.
    pub(super) fn answer(&mut self, broker: &mut Broker, group: &Arc<str>) {
        self.waits = false;
        if let Some(then) = self.then.take() {
            self.owned.extend(&then);
            self.tell(Told::Assign(then));
        } else if std::mem::take(&mut self.rejoins) {
            self.join(broker, group);
        }
    }
}
