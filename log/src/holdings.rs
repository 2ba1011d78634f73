//! What a member of a group holds and how far it got, and which steps fit that: the same on every
//! log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Position, StageSpec, Step};
use crate::error::LogError;

/// One input of one partition: (partition, index of the input in [`StageSpec::inputs`]).
pub(crate) type Cursor = (u32, usize);

/// How far one input got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Next offset to hand out.
    pub(crate) next: u64,
    /// Next offset that a restart would go on from.
    pub(crate) committed: u64,
}

/// The partitions of one member.
#[derive(Debug)]
pub(crate) struct Holdings {
    pub(crate) spec: StageSpec,
    pub(crate) places: BTreeMap<Cursor, Place>,
    /// Where the next poll starts to look, so that a busy partition does not starve the others.
    turn: usize,
}

impl Holdings {
    pub(crate) const fn new(spec: StageSpec) -> Self {
        Self {
            spec,
            places: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Partitions held, in order.
    pub(crate) fn partitions(&self) -> Vec<u32> {
        let mut partitions: Vec<u32> = self.places.keys().map(|(p, _)| *p).collect();
        partitions.dedup();
        partitions
    }

    pub(crate) fn add(&mut self, cursor: Cursor, next: u64) {
        self.places.insert(
            cursor,
            Place {
                next,
                committed: next,
            },
        );
    }

    pub(crate) fn remove(&mut self, partitions: &[u32]) {
        self.places
            .retain(|(partition, _), _| !partitions.contains(partition));
    }

    pub(crate) fn topic(&self, cursor: Cursor) -> &Arc<str> {
        &self.spec.inputs[cursor.1]
    }

    /// The inputs in the order in which this poll looks at them.
    pub(crate) fn in_turn(&self) -> Vec<Cursor> {
        let mut cursors: Vec<Cursor> = self.places.keys().copied().collect();
        let turn = self.turn.checked_rem(cursors.len()).unwrap_or(0);
        cursors.rotate_left(turn);
        cursors
    }

    /// The next poll starts after the `looked`-th input of this one.
    pub(crate) fn took(&mut self, looked: usize) {
        self.turn = self.turn.wrapping_add(looked);
    }

    /// Whether an offset lies before where reading goes on.
    pub(crate) fn is_before(&self, cursor: Cursor, offset: u64) -> bool {
        self.places
            .get(&cursor)
            .is_some_and(|place| offset < place.next)
    }

    pub(crate) fn advance(&mut self, cursor: Cursor, next: u64) {
        if let Some(place) = self.places.get_mut(&cursor) {
            place.next = next;
        }
    }

    /// The input that a position belongs to.
    pub(crate) fn cursor(&self, position: &Position) -> Result<Cursor, LogError> {
        let input = self
            .spec
            .inputs
            .iter()
            .position(|topic| *topic == position.topic);
        input
            .map(|input| (position.partition, input))
            .filter(|cursor| self.places.contains_key(cursor))
            .ok_or_else(|| self.not_held(&position.topic, position.partition))
    }

    fn not_held(&self, topic: &str, partition: u32) -> LogError {
        LogError::invalid(format!(
            "partition {partition} of {topic} is not assigned to stage {} instance {}",
            self.spec.name, self.spec.instance
        ))
    }

    /// Refuses offsets and state of partitions that are not held, and offsets that go back.
    pub(crate) fn check(&self, step: &Step) -> Result<(), LogError> {
        for delta in &step.state {
            if !self.places.contains_key(&(delta.partition, 0)) {
                return Err(self.not_held("the state", delta.partition));
            }
        }
        for position in &step.offsets {
            let committed = self.places[&self.cursor(position)?].committed;
            if position.next < committed {
                return Err(LogError::invalid(format!(
                    "stage {} would go back from offset {committed} to {} in {} partition {}",
                    self.spec.name, position.next, position.topic, position.partition
                )));
            }
        }
        Ok(())
    }

    /// Takes over what a step has committed.
    pub(crate) fn committed(&mut self, offsets: &[Position]) {
        for position in offsets {
            if let Ok(cursor) = self.cursor(position)
                && let Some(place) = self.places.get_mut(&cursor)
            {
                place.committed = position.next;
            }
        }
    }

    /// Moves reading elsewhere.
    pub(crate) fn seek(&mut self, positions: &[Position]) -> Result<(), LogError> {
        for position in positions {
            let cursor = self.cursor(position)?;
            self.advance(cursor, position.next);
        }
        Ok(())
    }
}
