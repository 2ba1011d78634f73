//! Cohorts whose error grows faster than the estate's, ranked, with intervals, each cause once.
//!
//! # The method
//!
//! What is known are the devices' values over time (wrong or not, a squared error, a signal's mean), as
//! sums. Every attribute value and every pair of attribute values is a group; which of them may matter is
//! not said. A group's decay is the slope of its devices' values on time. Its error is taken from how the
//! devices scatter, since rows of one device are alike, and where a group has few devices it borrows from the
//! scatters of the other groups of its kind. Of thousands of groups those are named, each cause once, of
//! which at most a given share is expected to be false. Last, how much faster: the group's slope over the estate's,
//! drawn towards 1 by as much as chance may be in it.
//!
//! Decay is taken to be a straight line. What devices differ by from the start, and whether the mix of devices
//! changes, does not matter: each device is compared with itself earlier.
//!
//! # Layout
//!
//! - here: [`find`], the search
//! - `units`: [`Units`], what is known of each device, in sums that merge
//! - `groups`: the groups that are searched, in bounded memory
//! - `moments`: slopes of groups, and their errors
//! - `path`: which groups are named, at a false-discovery rate
//! - `pool`: how much faster they decay
//! - `text`: [`Wording`], a sentence for each

mod groups;
mod moments;
mod path;
mod pool;
mod text;
mod units;

use std::collections::BTreeMap;

use driftline_schemas::measure::Cohort;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::performance::Estimate;
use groups::Level;
use moments::Contrast;
use path::{Levels, Problem, Step};
use pool::{Deviation, Laws};

pub use groups::{GROUP_UNITS_MIN, GROUPS_MAX};
pub use path::NAMED_MAX;
pub use pool::Shrunken;
pub use text::Wording;
use units::Unit;
pub use units::{Trend, UNITS_MAX, Units};

/// Why there is no answer. All are the caller's to mend.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SubsetsError {
    /// More devices than are held.
    #[error(
        "more than {UNITS_MAX} devices, those that change their attributes counted again; search a part of the estate"
    )]
    TooManyUnits,
    /// A sum is NaN or infinite.
    #[error("a sum of values is not finite; leave out values that are not and add the rest")]
    NonFinite,
    /// Less than two devices have values at different times.
    #[error("only {with_trend} devices have values at different times; take a longer span")]
    TooFewUnits {
        /// Devices with a slope.
        with_trend: usize,
    },
    /// A parameter is outside its range.
    #[error("{parameter} = {value} is not allowed: write a number above 0 and below 1")]
    BadParameter {
        /// Its name.
        parameter: &'static str,
        /// What was given.
        value: f64,
    },
}

/// Which way is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Values that grow, as errors do.
    Up,
    /// Values that fall, as confidences do.
    Down,
}

/// How many false discoveries are accepted, and when dependence among the tests is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Benjamini and Hochberg 1995: for tests that are independent or positively dependent.
    BenjaminiHochberg,
    /// Benjamini and Yekutieli 2001: for any dependence, at the price of a logarithm.
    BenjaminiYekutieli,
    /// e-BH (Wang and Ramdas 2022) on p-values turned to e-values by ½ p^−½: for any dependence.
    EValues,
}

impl Rule {
    /// What the k-th of `groups` p-values is held against.
    pub fn critical(self, rate: f64, k: usize, groups: usize) -> f64 {
        let plain = rate * k as f64 / groups.max(1) as f64;
        match self {
            Self::BenjaminiHochberg => plain,
            Self::BenjaminiYekutieli => plain / (1..=groups).map(|it| 1.0 / it as f64).sum::<f64>(),
            Self::EValues => (0.5 * plain).powi(2),
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Which way is worse.
    pub direction: Direction,
    /// Expected share of false ones among those named; half of it for single values and half for pairs.
    pub false_discovery_rate: f64,
    /// Confidence of the intervals.
    pub confidence: f64,
    /// How the rate is kept.
    pub rule: Rule,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            direction: Direction::Up,
            false_discovery_rate: 0.1,
            confidence: 0.95,
            rule: Rule::BenjaminiHochberg,
        }
    }
}

/// A cohort that decays faster than the estate. Slopes are per pane, and above 0 where it gets worse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subset {
    /// Whom it is about.
    pub cohort: Cohort,
    /// Cohorts of the same devices, which no data can tell apart from it.
    pub ties: Vec<Cohort>,
    /// Devices with a slope; those that changed their attributes within it count again.
    pub devices: usize,
    /// Their rows.
    pub rows: u64,
    /// Its own slope, as observed.
    pub slope: Estimate,
    /// By how much the slope exceeds the estate's, shrunken.
    pub excess: Shrunken,
    /// The slope over the estate's, shrunken; none where the estate does not clearly decay.
    pub ratio: Option<Shrunken>,
    /// Chance of as much where it is like the others, beside what was named before it (one-sided).
    pub p_value: f64,
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Those named, the fastest first.
    pub subsets: Vec<Subset>,
    /// The estate's slope.
    pub estate: Estimate,
    /// Units with a slope.
    pub devices: usize,
    /// Rows of these.
    pub rows: u64,
    /// Units without one: all rows in one pane.
    pub without_trend: usize,
    /// Groups of different devices that were compared.
    pub groups: usize,
    /// How many of them are pairs of attribute values.
    pub pairs: usize,
    /// Groups with fewer than [`GROUP_UNITS_MIN`] devices in them or beside them.
    pub too_small: usize,
    /// Groups left out, the smallest, because there were more than [`GROUPS_MAX`].
    pub over_limit: usize,
}

/// Searches all attribute values and pairs of them.
///
/// # Errors
/// [`SubsetsError::BadParameter`]; [`SubsetsError::TooFewUnits`].
pub fn find(units: &Units, options: &Options) -> Result<Found, SubsetsError> {
    check(options)?;
    let sign = match options.direction {
        Direction::Up => 1.0,
        Direction::Down => -1.0,
    };
    let sorted = units.sorted(sign);
    let weight: f64 = sorted.units.iter().map(|unit| unit.weight).sum();
    let slope = sorted.units.iter().map(|unit| unit.product).sum::<f64>() / weight;
    let groups = groups::walk(&sorted, GROUPS_MAX);
    let problem = Problem::new(&sorted.units, &groups.all, slope);
    let Some((estate_variance, _)) = moments::variance(&problem.total(), None) else {
        return Err(SubsetsError::TooFewUnits {
            with_trend: sorted.units.len(),
        });
    };
    let levels = Levels::new(options.rule, options.false_discovery_rate, &groups.all);
    let said = path::said(&problem.path(&levels), &levels);
    let named = problem.without_explained(said, &levels);
    let mut subsets = judge(&problem, &sorted.units, &named, slope, options.confidence);
    subsets.sort_by(|a, b| {
        let order = b.excess.value.total_cmp(&a.excess.value);
        order.then_with(|| a.cohort.cmp(&b.cohort))
    });
    Ok(Found {
        subsets,
        estate: Estimate {
            value: slope,
            standard_error: estate_variance.sqrt(),
        },
        devices: sorted.units.len(),
        rows: sorted.units.iter().map(|unit| unit.rows).sum(),
        without_trend: sorted.without_trend,
        groups: groups.all.len(),
        pairs: levels.groups_of(true),
        too_small: groups.too_small,
        over_limit: groups.over_limit,
    })
}

fn check(options: &Options) -> Result<(), SubsetsError> {
    let parameters = [
        ("false_discovery_rate", options.false_discovery_rate),
        ("confidence", options.confidence),
    ];
    for (parameter, value) in parameters {
        if !(value > 0.0 && value < 1.0) {
            return Err(SubsetsError::BadParameter { parameter, value });
        }
    }
    Ok(())
}

/// How much faster the named groups decay than the estate with its slope.
fn judge(
    problem: &Problem<'_>,
    units: &[Unit],
    named: &[Step],
    slope: f64,
    confidence: f64,
) -> Vec<Subset> {
    let total = problem.total();
    let groups: Vec<usize> = named.iter().map(|step| step.group).collect();
    // Ordinary is what the groups differ by beside those that are named.
    let mut ordinary: BTreeMap<Level, Vec<Contrast>> = BTreeMap::new();
    for (at, contrast) in problem.contrasts(&groups).into_iter().enumerate() {
        let of_level = ordinary.entry(problem.groups[at].level).or_default();
        of_level.extend(contrast.filter(|_| !groups.contains(&at)));
    }
    let deviation = |step: &Step| {
        let mut moments = moments::Moments::default();
        let members = problem.members(step.group);
        members.for_each(|unit| moments.add(unit));
        let prior = problem.priors[step.group];
        Some((*step, Deviation::of(&moments, &total, slope, prior)?))
    };
    let faster = named.iter().filter(|step| step.is_faster);
    let deviations: Vec<(Step, Deviation)> = faster.filter_map(deviation).collect();
    let as_contrast = |it: &Deviation| Contrast {
        difference: it.value,
        variance: it.variance,
        degrees: 1.0,
        information: 1.0,
    };
    let far: Vec<Contrast> = deviations.iter().map(|it| as_contrast(&it.1)).collect();
    let spread_named = pool::spread(&far, true);
    let center = ordinary_slope(problem, &deviations);
    let share = far.len() as f64 / problem.groups.len().max(1) as f64;
    let subset = |(step, deviation): &(Step, Deviation)| {
        let group = &problem.groups[step.group];
        let of_level = ordinary.get(&group.level).map_or(&[][..], |it| it);
        let laws = Laws {
            center,
            ordinary: pool::spread(of_level, false),
            named: spread_named,
            share,
        };
        Subset {
            cohort: group.cohort.clone(),
            ties: group.ties.clone(),
            devices: group.members.len(),
            rows: group
                .members
                .iter()
                .map(|&unit| units[unit as usize].rows)
                .sum(),
            slope: deviation.slope,
            excess: deviation.excess(&laws, confidence),
            ratio: deviation.ratio(&laws, confidence),
            p_value: step.p_value,
        }
    };
    deviations.iter().map(subset).collect()
}

/// By how much the slope of the devices in no group that is faster differs from the estate's, and its variance.
fn ordinary_slope(problem: &Problem<'_>, named: &[(Step, Deviation)]) -> (f64, f64) {
    let mut is_in = vec![false; problem.units.len()];
    let members = named
        .iter()
        .flat_map(|(step, _)| &problem.groups[step.group].members);
    members.for_each(|&unit| is_in[unit as usize] = true);
    let mut rest = moments::Moments::default();
    let units = problem
        .units
        .iter()
        .zip(&is_in)
        .filter(|(_, is_in)| !**is_in);
    units.for_each(|(unit, _)| rest.add(unit));
    match moments::variance(&rest, None) {
        Some((variance, _)) => (rest.slope(), variance),
        None => (0.0, 0.0),
    }
}

#[cfg(test)]
mod tests;
