//! Evidently's and NannyML's measures with their own thresholds, for people who come from them.
//!
//! Evidently 0.7 chooses by the rows of the reference: up to 1,000, p below 0.05 of Kolmogorov-Smirnov
//! (numbers), chi-square (categories, and numbers of at most five values) or z (two of them); beyond,
//! a distance of at least 0.1 of Wasserstein in reference deviations (numbers) or Jensen-Shannon.
//! NannyML 0.13 takes Jensen-Shannon, and alarms above the mean plus three standard deviations of the
//! distances of ten chunks of the reference from the whole; chi-square below p = 0.05.

use super::column::{Column, Sides, Values};
use super::{Definitions, Measure, Method, Plan};
use crate::compat::{evidently, nannyml, scipy};
use crate::distance::Pair;
use crate::error::StatisticsError;
use crate::hypothesis::{
    Alternative, KsMode, Ties, Variances, anderson_darling, kolmogorov_smirnov, proportions_z,
    t_test,
};

/// Evidently's level for p-values.
const LEVEL: f64 = 0.05;
/// Evidently's threshold for distances.
const DISTANCE: f64 = 0.1;
/// Rows of the reference up to which Evidently tests.
const TESTED_ROWS_MAX: u64 = 1000;
/// Distinct values up to which Evidently takes numbers for categories.
const FEW_VALUES: usize = 5;
/// Chunks of the reference from which NannyML takes thresholds.
const CHUNKS: usize = 10;

/// All measures of a column by a peer.
pub(super) fn all(column: &Column, plan: &Plan) -> Result<Vec<Measure>, StatisticsError> {
    if !column.has_values() {
        return Ok(Vec::new());
    }
    let default = [match plan.definitions {
        Definitions::Evidently => evidently_default(column),
        _ => Method::Js,
    }];
    let methods = if plan.methods.is_empty() {
        &default[..]
    } else {
        &plan.methods
    };
    let mut measures = Vec::new();
    for method in methods {
        let found = match plan.definitions {
            Definitions::Evidently => by_evidently(column, *method),
            _ => by_nannyml(column, *method),
        };
        match found {
            Ok(measure) => measures.extend(measure),
            Err(StatisticsError::TooFewRows { .. } | StatisticsError::NoSpread { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(measures)
}

fn evidently_default(column: &Column) -> Method {
    let distinct = column.reference_distinct();
    let is_few = matches!(column.values, Values::Categories(_)) || distinct <= FEW_VALUES;
    match (column.rows.reference <= TESTED_ROWS_MAX, is_few) {
        (true, true) if distinct > 2 => Method::Chi2,
        (true, true) => Method::Z,
        (true, false) => Method::Ks,
        (false, true) => Method::Js,
        (false, false) => Method::Wasserstein,
    }
}

fn tested(method: Method, value: f64, p_value: f64) -> Option<Measure> {
    Some(Measure {
        method,
        value,
        p_value: Some(p_value),
        threshold: Some(LEVEL),
        drifted: p_value < LEVEL,
        at: None,
    })
}

fn distant(method: Method, value: f64, threshold: f64, drifted: bool) -> Option<Measure> {
    Some(Measure {
        method,
        value,
        p_value: None,
        threshold: Some(threshold),
        drifted,
        at: None,
    })
}

/// The values themselves.
fn raw(column: &Column) -> Result<Option<Sides<&Vec<f64>>>, StatisticsError> {
    match &column.values {
        Values::Categories(_) => Ok(None),
        Values::Numbers(it) => match &it.raw {
            Some(raw) => Ok(Some(raw.as_ref())),
            None => Err(StatisticsError::TooManyRows(crate::error::Side::Reference)),
        },
    }
}

fn by_evidently(column: &Column, method: Method) -> Result<Option<Measure>, StatisticsError> {
    let counts = match &column.values {
        Values::Numbers(it) => &it.counts,
        Values::Categories(it) => &it.counts,
    };
    let pair = Pair::new(&counts.reference, &counts.current)?;
    let raw = raw(column)?;
    let missing = column.missing.sum() + column.not_finite.sum();
    // pandas holds whole numbers as integers unless one is missing.
    let whole = missing == 0
        && raw.is_some_and(|raw| {
            raw.reference
                .iter()
                .chain(raw.current)
                .all(|x| x.fract() == 0.0)
        });
    let shares = || match raw {
        Some(raw) => evidently::Shares::of_numbers(raw.reference, raw.current, whole),
        None => evidently::Shares::of_categories(&counts.reference, &counts.current),
    };
    let over = |value: f64| Ok(distant(method, value, DISTANCE, value >= DISTANCE));
    let test = |value: f64, p: f64| Ok(tested(method, value, p));
    match (method, raw) {
        (Method::Psi, _) => over(shares()?.psi()),
        (Method::Kl, _) => over(shares()?.kullback_leibler()),
        (Method::Js, _) => over(shares()?.jensen_shannon()?),
        (Method::Hellinger, Some(raw)) => {
            over(evidently::hellinger(raw.reference, raw.current, whole)?)
        }
        (Method::Hellinger, None) => over(pair.hellinger()),
        (Method::Wasserstein, Some(raw)) => {
            over(evidently::wasserstein(raw.reference, raw.current)?)
        }
        (Method::Energy, Some(_)) => match &column.values {
            Values::Numbers(it) => {
                over(pair.energy(crate::distance::Placement::Points(&it.points))?)
            }
            Values::Categories(_) => Ok(None),
        },
        (Method::Chi2, _) => {
            let found = evidently::chi_square(pair);
            test(found.statistic, found.p_value)
        }
        (Method::G, _) => {
            let found = evidently::g_test(pair)?;
            test(found.statistic, found.p_value)
        }
        (Method::Z, _) => Ok(first_share(pair)),
        (Method::Ks, Some(_)) => {
            let found = kolmogorov_smirnov(pair, KsMode::Auto)?;
            test(found.statistic, found.p_value)
        }
        (Method::Cvm, Some(_)) => {
            let found = scipy::cramer_von_mises(pair)?;
            test(found.statistic, found.p_value)
        }
        (Method::Anderson, Some(_)) => {
            let found = anderson_darling(pair, Ties::Midrank)?;
            test(found.statistic, found.interpolated_p)
        }
        (Method::MannWhitney, Some(raw)) => {
            let p = evidently::mann_whitney_p(raw.reference, raw.current)?;
            test(p, p)
        }
        (Method::T, Some(_)) => match &column.values {
            Values::Numbers(it) => {
                let found = t_test(&it.moments.reference, &it.moments.current, Variances::Equal)?;
                test(found.t, found.p_value)
            }
            Values::Categories(_) => Ok(None),
        },
        _ => Ok(None),
    }
}

/// Evidently's z: the share of one of two values.
fn first_share(pair: Pair<'_>) -> Option<Measure> {
    let both = pair.reference().iter().zip(pair.current());
    let filled: Vec<(u64, u64)> = both
        .map(|(r, c)| (*r, *c))
        .filter(|(r, c)| r + c > 0)
        .collect();
    let (r, c) = *filled.first()?;
    if filled.len() > 2 {
        return None;
    }
    let rows = (pair.reference_rows(), pair.current_rows());
    let found = proportions_z((r, rows.0), (c, rows.1), Alternative::TwoSided).ok()?;
    tested(Method::Z, found.statistic, found.p_value)
}

fn by_nannyml(column: &Column, method: Method) -> Result<Option<Measure>, StatisticsError> {
    let distance: Distance<'_> = match (&column.values, method) {
        (Values::Numbers(_), method) => {
            let of: fn(&[f64], &[f64]) -> Result<f64, StatisticsError> = match method {
                Method::Js => |r, c| nannyml::Binned::of_numbers(r, c)?.jensen_shannon(),
                Method::Hellinger => |r, c| nannyml::Binned::of_numbers(r, c)?.hellinger(),
                Method::Ks => nannyml::kolmogorov_smirnov,
                Method::Wasserstein => nannyml::wasserstein,
                _ => return Ok(None),
            };
            match raw(column)? {
                Some(raw) => Distance::Numbers(raw, of),
                None => return Ok(None),
            }
        }
        (Values::Categories(it), Method::Chi2) => {
            let found = scipy::chi2_contingency(it.pair()?);
            return Ok(tested(method, found.statistic, found.p_value));
        }
        (Values::Categories(it), method) => {
            let of: fn(&[u64], &[u64]) -> Result<f64, StatisticsError> = match method {
                Method::Js => |r, c| nannyml::Binned::of_categories(r, c)?.jensen_shannon(),
                Method::Hellinger => |r, c| nannyml::Binned::of_categories(r, c)?.hellinger(),
                Method::Linf => |r, c| Ok(Pair::new(r, c)?.l_infinity()),
                _ => return Ok(None),
            };
            let Some(codes) = &it.codes else {
                return Err(StatisticsError::TooManyRows(crate::error::Side::Reference));
            };
            Distance::Categories(codes, it.names.len(), of)
        }
    };
    let value = distance.of_current()?;
    let threshold = distance.threshold()?;
    Ok(distant(method, value, threshold, value > threshold))
}

/// A distance of some rows from the reference.
enum Distance<'a> {
    Numbers(
        Sides<&'a Vec<f64>>,
        fn(&[f64], &[f64]) -> Result<f64, StatisticsError>,
    ),
    Categories(
        &'a Sides<Vec<u32>>,
        usize,
        fn(&[u64], &[u64]) -> Result<f64, StatisticsError>,
    ),
}

impl Distance<'_> {
    fn of_current(&self) -> Result<f64, StatisticsError> {
        match self {
            Self::Numbers(raw, of) => of(raw.reference, raw.current),
            Self::Categories(codes, kinds, of) => of(
                &count(&codes.reference, *kinds),
                &count(&codes.current, *kinds),
            ),
        }
    }

    /// Mean plus three standard deviations over chunks of the reference.
    fn threshold(&self) -> Result<f64, StatisticsError> {
        let mut distances = Vec::new();
        match self {
            Self::Numbers(raw, of) => {
                let rows = (raw.reference.len() / CHUNKS).max(1);
                for chunk in raw.reference.chunks(rows) {
                    distances.push(of(raw.reference, chunk)?);
                }
            }
            Self::Categories(codes, kinds, of) => {
                let whole = count(&codes.reference, *kinds);
                let rows = (codes.reference.len() / CHUNKS).max(1);
                for chunk in codes.reference.chunks(rows) {
                    distances.push(of(&whole, &count(chunk, *kinds))?);
                }
            }
        }
        let n = distances.len() as f64;
        let mean = distances.iter().sum::<f64>() / n;
        let variance = distances.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        Ok(mean + 3.0 * variance.sqrt())
    }
}

fn count(codes: &[u32], kinds: usize) -> Vec<u64> {
    let mut counts = vec![0; kinds];
    for code in codes {
        counts[*code as usize] += 1;
    }
    counts
}
