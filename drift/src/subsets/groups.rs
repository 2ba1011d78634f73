//! The groups that are searched: attribute values and pairs of them, in bounded memory.

use std::collections::BTreeMap;

use driftline_schemas::measure::Cohort;
use driftline_schemas::source::ATTRIBUTES;

use super::units::{Sorted, WIDTH};
use crate::explain::NAMED_FIRST;

/// Most groups held, the largest; the smallest have the least to say.
pub const GROUPS_MAX: usize = 50_000;
/// Fewest devices of a group, and of the rest of the estate: the scatter of fewer says too little.
pub const GROUP_UNITS_MIN: usize = 5;

/// One attribute, or two: groups of one level are alike enough to learn from one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Level {
    first: usize,
    /// The same attribute again where it is one alone.
    second: usize,
}

/// A group of units.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) cohort: Cohort,
    /// Cohorts of exactly the same units, which no data can tell apart from it.
    pub(super) ties: Vec<Cohort>,
    pub(super) level: Level,
    /// Indices of its units, rising.
    pub(super) members: Vec<u32>,
}

/// What the walk found.
#[derive(Debug)]
pub(super) struct Groups {
    /// In the order in which they are named when nothing else decides.
    pub(super) all: Vec<Group>,
    /// Groups with too few devices in them or beside them.
    pub(super) too_small: usize,
    /// Groups left out because there are more than [`GROUPS_MAX`].
    pub(super) over_limit: usize,
}

/// A level and the values there.
type Key = (Level, [u32; 2]);

impl Level {
    /// Single attributes before pairs, in the order in which people name them.
    fn all() -> Vec<Self> {
        let named: Vec<usize> = NAMED_FIRST
            .iter()
            .filter_map(|name| ATTRIBUTES.iter().position(|it| it == name))
            .collect();
        let singles = named.iter().map(|&at| Self {
            first: at,
            second: at,
        });
        let pairs = (0..named.len()).flat_map(|a| {
            let named = &named;
            (a + 1..named.len()).map(move |b| Self {
                first: named[a],
                second: named[b],
            })
        });
        singles.clone().chain(pairs).collect()
    }

    pub(super) fn is_pair(self) -> bool {
        self.first != self.second
    }

    /// A unit's values there; none where one was not declared.
    fn of(self, values: &[u32; WIDTH], declared: &[u32; WIDTH]) -> Option<[u32; 2]> {
        let both = [self.first, self.second];
        let is_declared = both.iter().all(|&at| values[at] >= declared[at]);
        is_declared.then(|| both.map(|at| values[at]))
    }
}

/// Walks all levels. Held at a time: a counter for each group of one level, and the largest groups so far.
pub(super) fn walk(sorted: &Sorted, groups_max: usize) -> Groups {
    let total = sorted.units.len();
    // Values are sorted, so an undeclared one is the first.
    let declared: [u32; WIDTH] = std::array::from_fn(|at| {
        u32::from(sorted.values[at].first().is_some_and(|it| it.is_empty()))
    });
    let (mut kept, mut walked, mut too_small, mut over_limit) = (Vec::new(), 0_usize, 0, 0);
    let mut of_value: [BTreeMap<u32, usize>; WIDTH] = std::array::from_fn(|_| BTreeMap::new());
    for level in Level::all() {
        let mut counts: BTreeMap<[u32; 2], usize> = BTreeMap::new();
        for unit in &sorted.units {
            if let Some(values) = level.of(&unit.values, &declared) {
                *counts.entry(values).or_default() += 1;
            }
        }
        if !level.is_pair() {
            let values = counts.iter().map(|(values, count)| (values[0], *count));
            of_value[level.first] = values.collect();
        }
        for (values, count) in counts {
            // A pair as large as one of its values is that value; what all devices have is the estate.
            let is_value = |at: usize, value| of_value[at].get(&value) == Some(&count);
            let is_other = count < total
                && !(level.is_pair()
                    && (is_value(level.first, values[0]) || is_value(level.second, values[1])));
            if !is_other {
                continue;
            }
            if count < GROUP_UNITS_MIN || total - count < GROUP_UNITS_MIN {
                too_small += 1;
                continue;
            }
            kept.push((std::cmp::Reverse(count), walked, (level, values)));
            walked += 1;
        }
        if kept.len() > groups_max {
            kept.sort_unstable_by_key(|(count, order, _)| (*count, *order));
            over_limit += kept.len() - groups_max;
            kept.truncate(groups_max);
            kept.sort_unstable_by_key(|(_, order, _)| *order);
        }
    }
    let keys: Vec<Key> = kept.into_iter().map(|(_, _, key)| key).collect();
    let all = distinct(members(sorted, &keys, &declared));
    Groups {
        all,
        too_small,
        over_limit,
    }
}

fn members(sorted: &Sorted, keys: &[Key], declared: &[u32; WIDTH]) -> Vec<Group> {
    let mut groups: Vec<Group> = keys
        .iter()
        .map(|(level, values)| Group {
            cohort: cohort(sorted, *level, *values),
            ties: Vec::new(),
            level: *level,
            members: Vec::new(),
        })
        .collect();
    for level in Level::all() {
        let places: BTreeMap<[u32; 2], usize> = keys
            .iter()
            .enumerate()
            .filter(|(_, key)| key.0 == level)
            .map(|(at, key)| (key.1, at))
            .collect();
        for (index, unit) in sorted.units.iter().enumerate() {
            let values = level.of(&unit.values, declared);
            if let Some(at) = values.and_then(|values| places.get(&values)) {
                groups[*at].members.push(index as u32);
            }
        }
    }
    groups
}

fn cohort(sorted: &Sorted, level: Level, values: [u32; 2]) -> Cohort {
    let value = |at: usize, value: u32| {
        let text = sorted.values[at][value as usize].to_string();
        (ATTRIBUTES[at].to_owned(), text)
    };
    Cohort(BTreeMap::from([
        value(level.first, values[0]),
        value(level.second, values[1]),
    ]))
}

/// Groups of the same units become one with ties. A pair of the same units as a value says no more than the
/// value, so it is no tie of it.
fn distinct(groups: Vec<Group>) -> Vec<Group> {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by(|a, b| groups[*a].members.cmp(&groups[*b].members).then(a.cmp(b)));
    let mut same_as: Vec<usize> = (0..groups.len()).collect();
    for pair in order.windows(2) {
        if groups[pair[0]].members == groups[pair[1]].members {
            same_as[pair[1]] = same_as[pair[0]];
        }
    }
    let mut ties: BTreeMap<usize, Vec<Cohort>> = BTreeMap::new();
    for (at, &first) in same_as.iter().enumerate() {
        let is_told = groups[at].level.is_pair() == groups[first].level.is_pair();
        if at != first && is_told {
            ties.entry(first)
                .or_default()
                .push(groups[at].cohort.clone());
        }
    }
    let is_first = |at: &usize| same_as[*at] == *at;
    let kept: Vec<bool> = (0..groups.len()).map(|at| is_first(&at)).collect();
    let groups = groups.into_iter().enumerate();
    groups
        .filter(|(at, _)| kept[*at])
        .map(|(at, group)| Group {
            ties: ties.remove(&at).unwrap_or_default(),
            ..group
        })
        .collect()
}
