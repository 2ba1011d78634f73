//! Which groups are named: the strongest first, each beside those named before it.
//!
//! A cohort that decays takes its region, and every pair of attributes that it is part of, with it. So groups
//! are not judged each by itself. Of the groups that are sure enough the one is named first that explains most; then
//! all others are compared anew *within* the devices of the same named groups, and the next is named. A group that decays
//! for what is named already has nothing left, and a pair is named beside its parent when it differs from
//! the parent's other devices.
//!
//! How many of this path are said is decided by Benjamini and Hochberg's rule along it: the largest k whose
//! p-values are all at most rate × k / groups. For groups without common devices this is their procedure
//! to the letter ("Controlling the false discovery rate", 1995). Values and pairs are two families, each with
//! half of the rate, so that the pairs, which are many times as many, do not cost the values their power. Each
//! cause counts once: to count the pairs and regions that one cause takes along as discoveries would allow for
//! as many more false ones, and these would be left when the duplicates are removed (Katsevich, Sabatti and
//! Bogomolov 2021). What overlapping groups do to the rate is measured (`docs/quality.md`). In the end a group is
//! dropped that the others named after it explain.

use std::collections::BTreeMap;

use super::Rule;
use super::groups::{GROUP_UNITS_MIN, Group};
use super::moments::{Contrast, Moments, Prior};
use super::units::Unit;

/// Longest path: a person reads tens, what has more causes than this is estate-wide, and sets of named groups
/// fit the bits of one number.
pub const NAMED_MAX: usize = 128;

/// The units of a search as moments, and the groups that each is in.
pub(super) struct Problem<'a> {
    pub(super) units: Vec<Moments>,
    pub(super) groups: &'a [Group],
    /// What the scatters of each group's level have in common.
    pub(super) priors: Vec<Option<Prior>>,
    /// Groups of unit `i`: `flat[starts[i]..starts[i + 1]]`.
    starts: Vec<usize>,
    flat: Vec<u32>,
}

/// A group on the path, with the p-value that it had there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    pub(super) group: usize,
    pub(super) p_value: f64,
    /// Whether it decays faster than the others; else it is slower.
    pub(super) is_faster: bool,
    /// Its family: a pair, or a single value.
    pub(super) is_pair: bool,
}

/// What p-values are held against in each family.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    rule: Rule,
    /// The rate of each family.
    rate: f64,
    /// Groups of each: values, pairs.
    groups: [usize; 2],
}

impl Levels {
    /// A family without groups leaves its part of the rate to the other.
    pub(super) fn new(rule: Rule, rate: f64, groups: &[Group]) -> Self {
        let pairs = groups.iter().filter(|group| group.level.is_pair()).count();
        let groups = [groups.len() - pairs, pairs];
        let families = groups.iter().filter(|count| **count > 0).count();
        Self {
            rule,
            rate: rate / families.max(1) as f64,
            groups,
        }
    }

    /// Groups of a family.
    pub(super) fn groups_of(&self, is_pair: bool) -> usize {
        self.groups[usize::from(is_pair)]
    }

    /// What the k-th of a family is held against.
    pub(super) fn critical(&self, is_pair: bool, k: usize) -> f64 {
        self.rule.critical(self.rate, k, self.groups_of(is_pair))
    }
}

/// How many faster steps of each family there are.
fn faster<'a>(steps: impl Iterator<Item = &'a Step>) -> [usize; 2] {
    let mut counts = [0, 0];
    for step in steps.filter(|step| step.is_faster) {
        counts[usize::from(step.is_pair)] += 1;
    }
    counts
}

/// By how much a slower group must explain more than a faster one to go first: of two halves of a whole each
/// differs from the other by the same, and then the faster one is named.
const SLOWER_GAIN_MIN: f64 = 1.2;

/// The best of what is offered for one step.
#[derive(Default)]
struct Next {
    faster: Option<(f64, Step)>,
    slower: Option<(f64, Step)>,
    /// The surest of the faster ones by their own families, when none passes.
    surest: Option<(f64, Step)>,
}

impl Next {
    /// `level` is what its p-value is held against now, `gain` what it explains.
    fn offer(&mut self, step: Step, gain: f64, level: f64) {
        let best = match step.is_faster {
            true => &mut self.faster,
            false => &mut self.slower,
        };
        if step.p_value <= level && best.is_none_or(|best| gain > best.0) {
            *best = Some((gain, step));
        }
        let relative = step.p_value / level;
        if step.is_faster && self.surest.is_none_or(|best| relative < best.0) {
            self.surest = Some((relative, step));
        }
    }

    fn choose(self) -> Option<Step> {
        match (self.faster, self.slower) {
            (Some((gain, _)), Some((other, slower))) if other > SLOWER_GAIN_MIN * gain => {
                Some(slower)
            }
            (Some((_, step)), _) | (None, Some((_, step))) => Some(step),
            (None, None) => self.surest.map(|it| it.1),
        }
    }
}

impl<'a> Problem<'a> {
    /// `slope` is the estate's: taken out before anything is squared, so that nothing cancels.
    pub(super) fn new(units: &[Unit], groups: &'a [Group], slope: f64) -> Self {
        let mut starts = vec![0; units.len() + 1];
        let all = || groups.iter().flat_map(|group| &group.members);
        all().for_each(|&unit| starts[unit as usize + 1] += 1);
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut flat = vec![0; all().count()];
        for (index, group) in groups.iter().enumerate() {
            for &unit in &group.members {
                flat[next[unit as usize]] = index as u32;
                next[unit as usize] += 1;
            }
        }
        let units: Vec<Moments> = units
            .iter()
            .map(|it| Moments::of(it.weight, it.product - slope * it.weight))
            .collect();
        let priors = priors(&units, groups);
        Self {
            units,
            groups,
            priors,
            starts,
            flat,
        }
    }

    pub(super) fn total(&self) -> Moments {
        total(self.units.iter())
    }

    /// Units of a group.
    pub(super) fn members(&self, group: usize) -> impl Iterator<Item = &Moments> {
        let members = self.groups[group].members.iter();
        members.map(|&unit| &self.units[unit as usize])
    }

    fn contrast(&self, group: usize, strata: &Strata) -> Option<Contrast> {
        let parts = strata.parts[group].iter();
        Contrast::of(
            parts.map(|(at, inside)| (*inside, strata.totals[*at as usize].without(inside))),
            self.priors[group],
            GROUP_UNITS_MIN,
        )
    }

    /// Contrasts of all groups beside those named.
    pub(super) fn contrasts(&self, named: &[usize]) -> Vec<Option<Contrast>> {
        let mut strata = Strata::new(self);
        named.iter().for_each(|&group| strata.divide(self, group));
        (0..self.groups.len())
            .map(|group| self.contrast(group, &strata))
            .collect()
    }

    /// The path, to where no further group can be named.
    ///
    /// Of the groups that pass, the one goes first that explains most. Groups that are *slower* by as much
    /// are taken out in the same way, so that the others are not held against them, but are not counted.
    pub(super) fn path(&self, levels: &Levels) -> Vec<Step> {
        let mut strata = Strata::new(self);
        let (mut path, mut is_named) = (Vec::<Step>::new(), vec![false; self.groups.len()]);
        while path.len() < NAMED_MAX {
            let counts = faster(path.iter());
            let mut next = Next::default();
            for group in (0..self.groups.len()).filter(|&group| !is_named[group]) {
                let Some(contrast) = self.contrast(group, &strata) else {
                    continue;
                };
                let step = Step {
                    group,
                    p_value: contrast.tail(),
                    is_faster: contrast.difference > 0.0,
                    is_pair: self.groups[group].level.is_pair(),
                };
                let before = counts[usize::from(step.is_pair)];
                let level = levels.critical(step.is_pair, before + 1);
                next.offer(step, contrast.gain(), level);
            }
            let can_be_named =
                |step: &Step| step.p_value <= levels.critical(step.is_pair, NAMED_MAX);
            let Some(step) = next.choose().filter(can_be_named) else {
                break;
            };
            path.push(step);
            is_named[step.group] = true;
            strata.divide(self, step.group);
        }
        path
    }

    /// P-value of one named group beside all the others.
    fn beside_others(&self, group: usize, named: &[usize]) -> Option<f64> {
        // The set of named groups that a unit is in is its stratum.
        let bits: BTreeMap<usize, u128> = named
            .iter()
            .take(NAMED_MAX)
            .enumerate()
            .map(|(at, group)| (*group, 1 << at))
            .collect();
        let own = bits.get(&group).copied().unwrap_or_default();
        let mut strata: BTreeMap<u128, (Moments, Moments)> = BTreeMap::new();
        for (unit, moments) in self.units.iter().enumerate() {
            let of_unit = &self.flat[self.starts[unit]..self.starts[unit + 1]];
            let set = of_unit.iter().fold(0, |set, group| {
                set | bits.get(&(*group as usize)).copied().unwrap_or_default()
            });
            let is_inside = of_unit.contains(&(group as u32));
            let stratum = strata.entry(set & !own).or_default();
            match is_inside {
                true => stratum.0.add(moments),
                false => stratum.1.add(moments),
            }
        }
        let contrast = Contrast::of(strata.into_values(), self.priors[group], GROUP_UNITS_MIN)?;
        Some(contrast.p_value())
    }

    /// Leaves out, the weakest first, what is faster only for what the others explain.
    pub(super) fn without_explained(&self, mut path: Vec<Step>, levels: &Levels) -> Vec<Step> {
        loop {
            let groups: Vec<usize> = path.iter().map(|step| step.group).collect();
            let counts = faster(path.iter());
            let excess = |step: &Step| {
                let p_value = self.beside_others(step.group, &groups).unwrap_or(1.0);
                p_value / levels.critical(step.is_pair, counts[usize::from(step.is_pair)])
            };
            let weakest = path
                .iter()
                .enumerate()
                .filter(|(_, step)| step.is_faster)
                .map(|(at, step)| (excess(step), at))
                .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
            match weakest {
                Some((excess, at)) if excess > 1.0 => path.remove(at),
                _ => return path,
            };
        }
    }
}

/// The steps that are said. Of each family those up to the largest k at which all its p-values so far are at most
/// its critical value, and what was found slower up to the last of them.
pub(super) fn said(path: &[Step], levels: &Levels) -> Vec<Step> {
    let (mut ends, mut worst) = ([0; 2], [0.0_f64; 2]);
    for (at, step) in path.iter().enumerate().filter(|(_, step)| step.is_faster) {
        let family = usize::from(step.is_pair);
        let count = faster(path[..=at].iter())[family];
        worst[family] = worst[family].max(step.p_value);
        if worst[family] <= levels.critical(step.is_pair, count) {
            ends[family] = at + 1;
        }
    }
    let is_said = |at: usize, step: &Step| match step.is_faster {
        true => at < ends[usize::from(step.is_pair)],
        false => at < ends[0].max(ends[1]),
    };
    let steps = path.iter().enumerate();
    let said = steps.filter(|(at, step)| is_said(*at, step));
    said.map(|(_, step)| *step).collect()
}

fn total<'a>(units: impl Iterator<Item = &'a Moments>) -> Moments {
    let mut total = Moments::default();
    units.for_each(|unit| total.add(unit));
    total
}

fn priors(units: &[Moments], groups: &[Group]) -> Vec<Option<Prior>> {
    let mut levels = BTreeMap::new();
    for group in groups {
        let moments = total(group.members.iter().map(|&unit| &units[unit as usize]));
        let scatters: &mut Vec<_> = levels.entry(group.level).or_default();
        scatters.extend(moments.scatter());
    }
    let learnt: BTreeMap<_, _> = levels
        .into_iter()
        .map(|(level, scatters)| (level, Prior::learn(&scatters)))
        .collect();
    let of = |group: &Group| learnt.get(&group.level).copied().flatten();
    groups.iter().map(of).collect()
}

/// Units by the named groups that they are in.
struct Strata {
    of_unit: Vec<u32>,
    totals: Vec<Moments>,
    /// Of each group, what it has of each stratum.
    parts: Vec<Vec<(u32, Moments)>>,
}

impl Strata {
    fn new(problem: &Problem<'_>) -> Self {
        let parts = (0..problem.groups.len())
            .map(|group| vec![(0, total(problem.members(group)))])
            .collect();
        Self {
            of_unit: vec![0; problem.units.len()],
            totals: vec![problem.total()],
            parts,
        }
    }

    /// Divides the strata by whether units are in one more group.
    fn divide(&mut self, problem: &Problem<'_>, group: usize) {
        let mut new: BTreeMap<u32, u32> = BTreeMap::new();
        let mut touched = vec![false; problem.groups.len()];
        for &unit in &problem.groups[group].members {
            let unit = unit as usize;
            let count = self.totals.len() + new.len();
            let to = *new.entry(self.of_unit[unit]).or_insert(count as u32);
            self.of_unit[unit] = to;
            let of_unit = &problem.flat[problem.starts[unit]..problem.starts[unit + 1]];
            of_unit.iter().for_each(|&it| touched[it as usize] = true);
        }
        // Sums anew rather than by subtraction, so that rounding does not pile up.
        self.totals = vec![Moments::default(); self.totals.len() + new.len()];
        for (stratum, unit) in self.of_unit.iter().zip(&problem.units) {
            self.totals[*stratum as usize].add(unit);
        }
        for (at, parts) in self
            .parts
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| touched[*at])
        {
            let mut sums: BTreeMap<u32, Moments> = BTreeMap::new();
            for &unit in &problem.groups[at].members {
                let unit = unit as usize;
                sums.entry(self.of_unit[unit])
                    .or_default()
                    .add(&problem.units[unit]);
            }
            *parts = sums.into_iter().collect();
        }
    }
}
