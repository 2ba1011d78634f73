//! One method on one column: our definitions and SciPy's.

use super::column::{Categories, Column, Numbers, Sides, Values};
use super::deal;
use super::{Definitions, Measure, Method, Plan};
use crate::compat::scipy;
use crate::distance::{Floor, LogBase, Pair, Placement};
use crate::error::StatisticsError;
use crate::hypothesis::{
    Alternative, CramerVonMisesMode, Divergence, KS_EXACT_ROWS_MAX, KsMode, MannWhitneyMode,
    Scores, Ties, Variances, anderson_darling, contingency, cramer_von_mises, fisher_exact,
    kolmogorov_smirnov, largest_share, mann_whitney, proportions_z, rank_test, t_test,
};

/// Lattice points up to which our own Kolmogorov-Smirnov p-value is exact where sides differ in size: some
/// hundredths of a second. Beyond it the limit is as good.
pub const KS_LATTICE_MAX: f64 = 2e7;
/// Bins of numbers on which distances between values are dealt.
const DEAL_BINS: usize = 64;

/// What is used when no method is named.
const NATIVE: [Method; 6] = [
    Method::Location,
    Method::Spread,
    Method::Ks,
    Method::Shares,
    Method::Missing,
    Method::Js,
];
const SCIPY_NUMBERS: [Method; 1] = [Method::Ks];
const SCIPY_CATEGORIES: [Method; 1] = [Method::Chi2];

/// All measures of a column; methods that do not apply to it, or could say nothing, are left out.
pub(super) fn all(
    column: &Column,
    plan: &Plan,
    deals_max: u64,
) -> Result<Vec<Measure>, StatisticsError> {
    let defaults: &[Method] = match (plan.definitions, &column.values) {
        (Definitions::Scipy, Values::Numbers(_)) => &SCIPY_NUMBERS,
        (Definitions::Scipy, Values::Categories(_)) => &SCIPY_CATEGORIES,
        _ => &NATIVE,
    };
    let named = !plan.methods.is_empty();
    let methods = if named { &plan.methods } else { defaults };
    let deals = named.then(|| {
        deals_max
            .saturating_mul(methods.len() as u64)
            .min(2_000_000)
    });
    let mut measures = Vec::new();
    for method in methods {
        match one(column, *method, plan.definitions, deals) {
            Ok(Some(measure)) => measures.push(measure),
            Ok(None) => {}
            // Too few rows for a test, or none that vary: it says nothing about this column.
            Err(StatisticsError::TooFewRows { .. } | StatisticsError::NoSpread { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(measures)
}

fn measure(method: Method, value: f64, p_value: Option<f64>) -> Option<Measure> {
    Some(Measure {
        method,
        value,
        p_value,
        threshold: None,
        drifted: false,
        at: None,
    })
}

fn one(
    column: &Column,
    method: Method,
    definitions: Definitions,
    deals: Option<u64>,
) -> Result<Option<Measure>, StatisticsError> {
    if method == Method::Missing {
        return Ok(missing(column));
    }
    if !column.has_values() {
        return Ok(None);
    }
    match (&column.values, method) {
        (Values::Categories(it), Method::Shares) => Ok(category_share(it)),
        (Values::Numbers(it), Method::Shares) => Ok(value_share(it)),
        (Values::Numbers(it), method) if method.needs_numbers() => {
            of_numbers(it, method, definitions, deals)
        }
        (_, method) if method.needs_numbers() => Ok(None),
        _ => of_shares(column, method, definitions, deals),
    }
}

/// Missing values and values that are not finite, whichever changed more clearly.
fn missing(column: &Column) -> Option<Measure> {
    let rows = column.rows;
    if rows.reference == 0 || rows.current == 0 {
        return None;
    }
    let kinds = [
        ("missing", column.missing),
        ("not finite", column.not_finite),
    ];
    // A column without any, or with nothing else, could not answer.
    let asked = kinds
        .iter()
        .filter(|(_, hits)| (1..rows.sum()).contains(&hits.sum()));
    let tests = asked.clone().count();
    let best = asked
        .map(|(name, hits)| {
            let test = fisher_exact(
                (hits.reference, rows.reference),
                (hits.current, rows.current),
            );
            (name, test)
        })
        .min_by(|a, b| a.1.p_value.total_cmp(&b.1.p_value))?;
    let p_value = (best.1.p_value * tests as f64).min(1.0);
    let measure = measure(Method::Missing, best.1.statistic, Some(p_value))?;
    Some(Measure {
        at: Some((*best.0).to_owned()),
        ..measure
    })
}

fn category_share(categories: &Categories) -> Option<Measure> {
    let found = largest_share(categories.pair().ok()?)?;
    let measure = measure(Method::Shares, found.change, Some(found.p_value))?;
    Some(Measure {
        at: categories.names.get(found.bin).cloned(),
        ..measure
    })
}

/// Values that have a bin of their own, and all others together.
fn value_share(numbers: &Numbers) -> Option<Measure> {
    let own: Vec<usize> = (0..numbers.points.len())
        .filter(|bin| numbers.is_value[*bin])
        .collect();
    let counts = numbers.counts.as_ref().map(|counts| {
        let mut table: Vec<u64> = own.iter().map(|bin| counts[*bin]).collect();
        table.push(counts.iter().sum::<u64>() - table.iter().sum::<u64>());
        table
    });
    let found = largest_share(Pair::new(&counts.reference, &counts.current).ok()?)?;
    let measure = measure(Method::Shares, found.change, Some(found.p_value))?;
    Some(Measure {
        at: own
            .get(found.bin)
            .map(|bin| numbers.points[*bin].to_string()),
        ..measure
    })
}

fn of_numbers(
    numbers: &Numbers,
    method: Method,
    definitions: Definitions,
    deals: Option<u64>,
) -> Result<Option<Measure>, StatisticsError> {
    let pair = numbers.pair()?;
    let is_scipy = definitions == Definitions::Scipy;
    let filled = pair
        .reference()
        .iter()
        .zip(pair.current())
        .filter(|(r, c)| **r + **c > 0);
    if filled.take(2).count() < 2 {
        // A column that never varies: no test of order could answer, and no distance is other than 0.
        return Ok(match deals {
            Some(_) => measure(method, 0.0, None),
            None => None,
        });
    }
    let (value, p_value) = match method {
        Method::Location | Method::Spread => {
            let scores = match method {
                Method::Location => Scores::Location,
                _ => Scores::Spread,
            };
            let test = rank_test(pair, scores);
            (test.statistic, test.p_value)
        }
        Method::Ks => {
            let test = kolmogorov_smirnov(pair, ks_mode(pair, is_scipy))?;
            (test.statistic, test.p_value)
        }
        Method::Cvm if is_scipy => {
            let test = scipy::cramer_von_mises(pair)?;
            (test.statistic, test.p_value)
        }
        Method::Cvm => {
            let test = cramer_von_mises(pair, CramerVonMisesMode::Auto)?;
            (test.statistic, test.p_value)
        }
        Method::Anderson => {
            let test = anderson_darling(pair, Ties::Midrank)?;
            let p_value = if is_scipy {
                test.interpolated_p
            } else {
                test.p_value
            };
            (test.statistic, p_value)
        }
        Method::MannWhitney => {
            let test = mann_whitney(pair, Alternative::TwoSided, MannWhitneyMode::Auto)?;
            (test.u, test.p_value)
        }
        Method::T => {
            let moments = numbers.moments;
            let test = t_test(&moments.reference, &moments.current, Variances::Unequal)?;
            (test.t, test.p_value)
        }
        method => return placed(numbers, pair, method, deals),
    };
    Ok(measure(method, value, Some(p_value)))
}

/// SciPy's `auto`; ours is the same but where that would take long.
fn ks_mode(pair: Pair<'_>, is_scipy: bool) -> KsMode {
    let (n, m) = (pair.reference_rows(), pair.current_rows());
    if is_scipy {
        return KsMode::Auto;
    }
    let lattice = 2.0 * pair.kolmogorov_smirnov().d * n as f64 * m as f64;
    match n.max(m) <= KS_EXACT_ROWS_MAX && (n == m || lattice <= KS_LATTICE_MAX) {
        true => KsMode::Auto,
        false => KsMode::Limit,
    }
}

/// Distances that know where values lie. They are dealt on coarser bins: the p-value is that of the
/// distance there.
fn placed(
    numbers: &Numbers,
    pair: Pair<'_>,
    method: Method,
    deals: Option<u64>,
) -> Result<Option<Measure>, StatisticsError> {
    let distance = |pair: Pair<'_>, points: &[f64]| match method {
        Method::Energy => pair.energy(Placement::Points(points)),
        _ => pair.wasserstein(Placement::Points(points)),
    };
    let value = distance(pair, &numbers.points)?;
    let Some(deals) = deals else {
        return Ok(measure(method, value, None));
    };
    let (points, counts) = coarser(numbers, DEAL_BINS);
    let coarse = Pair::new(&counts.reference, &counts.current)?;
    let p_value = deal::p_value(coarse, deals, |pair| distance(pair, &points))?;
    Ok(measure(method, value, Some(p_value)))
}

/// Neighbouring bins joined into about `bins` of equal pooled share, at their mean places.
fn coarser(numbers: &Numbers, bins: usize) -> (Vec<f64>, Sides<Vec<u64>>) {
    let (r, c) = (&numbers.counts.reference, &numbers.counts.current);
    let total: u64 = r.iter().chain(c).sum();
    let enough = (total as f64 / bins as f64).ceil() as u64;
    let (mut points, mut counts) = (Vec::new(), Sides::<Vec<u64>>::default());
    let (mut place, mut reference, mut current) = (0.0, 0, 0);
    for (bin, point) in numbers.points.iter().enumerate() {
        reference += r[bin];
        current += c[bin];
        place += point * (r[bin] + c[bin]) as f64;
        let rows = reference + current;
        let is_last = bin + 1 == numbers.points.len();
        if rows > 0 && (rows >= enough || is_last) {
            points.push(place / rows as f64);
            counts.reference.push(reference);
            counts.current.push(current);
            (place, reference, current) = (0.0, 0, 0);
        }
    }
    (points, counts)
}

fn of_shares(
    column: &Column,
    method: Method,
    definitions: Definitions,
    deals: Option<u64>,
) -> Result<Option<Measure>, StatisticsError> {
    let counts = column.shares()?;
    let pair = Pair::new(&counts.reference, &counts.current)?;
    let tested = match method {
        Method::Chi2 if definitions == Definitions::Scipy => Some(scipy::chi2_contingency(pair)),
        Method::Chi2 => Some(contingency(pair, Divergence::Pearson)),
        Method::G => Some(contingency(pair, Divergence::LikelihoodRatio)),
        _ => None,
    };
    if let Some(test) = tested {
        // One bin alone has no degrees of freedom and could not answer.
        let p_value = (test.degrees > 0).then_some(test.p_value);
        return Ok(measure(method, test.statistic, p_value));
    }
    if method == Method::Z {
        return Ok(two_shares(column));
    }
    let distance = |pair: Pair<'_>| match method {
        Method::Psi => pair.psi(Floor::NATIVE),
        Method::Kl => pair.kullback_leibler(Some(Floor::NATIVE)),
        Method::Hellinger => Ok(pair.hellinger()),
        Method::Tv => Ok(pair.total_variation()),
        Method::Linf => Ok(pair.l_infinity()),
        _ if definitions == Definitions::Scipy => Ok(pair.jensen_shannon(LogBase::Natural)),
        _ => Ok(pair.jensen_shannon(LogBase::Two)),
    };
    let value = distance(pair)?;
    let filled = pair
        .reference()
        .iter()
        .zip(pair.current())
        .filter(|(r, c)| **r + **c > 0);
    let p_value = match deals {
        Some(deals) if filled.take(2).count() == 2 => Some(deal::p_value(pair, deals, distance)?),
        _ => None,
    };
    Ok(measure(method, value, p_value))
}

/// z of two proportions, for a column of two values.
fn two_shares(column: &Column) -> Option<Measure> {
    let counts = match &column.values {
        Values::Numbers(it) => &it.counts,
        Values::Categories(it) => &it.counts,
    };
    let both = counts.reference.iter().zip(&counts.current);
    let filled: Vec<(u64, u64)> = both
        .map(|(r, c)| (*r, *c))
        .filter(|(r, c)| r + c > 0)
        .collect();
    let [(r0, c0), (r1, c1)] = filled[..] else {
        return None;
    };
    let test = proportions_z((r1, r0 + r1), (c1, c0 + c1), Alternative::TwoSided).ok()?;
    measure(Method::Z, test.statistic, Some(test.p_value))
}
