//! Ranking: area under the ROC curve and average precision.

use serde::{Deserialize, Serialize};

use super::interval::Estimate;
use super::{PerformanceError, check_length};

/// Area under the ROC curve: the probability that a positive scores above a negative, ties half.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Auroc {
    /// The area.
    pub value: f64,
    /// DeLong's variance (DeLong, DeLong and Clarke-Pearson 1988); none with fewer than two rows
    /// of a class.
    pub variance: Option<f64>,
    /// Rows of the positive class.
    pub positives: u64,
    /// Rows of the negative class.
    pub negatives: u64,
}

impl Auroc {
    /// Value with its standard error, widened by a design effect.
    pub fn estimate(&self, design_effect: f64) -> Option<Estimate> {
        self.variance.map(|v| Estimate {
            value: self.value,
            standard_error: (v * design_effect).sqrt(),
        })
    }

    /// From counts per score, scores ascending: (positives, negatives). Rows with one score are
    /// tied, so binned scores give the area of the binned score. None without both classes.
    ///
    /// A positive's component is the share of negatives below it, a negative's the share of
    /// positives above it (ties half); the variance is the sum of both components' variances over
    /// their counts. Grouping by score makes that linear (Sun and Xu 2014 do it by midranks).
    pub fn of_groups(groups: &[(u64, u64)]) -> Option<Self> {
        let positives: u64 = groups.iter().map(|g| g.0).sum();
        let negatives: u64 = groups.iter().map(|g| g.1).sum();
        if positives == 0 || negatives == 0 {
            return None;
        }
        let (m, n) = (positives as f64, negatives as f64);
        // Twice the number of pairs won is a whole number: exact in 128 bits.
        let (mut below, mut won2) = (0_u64, 0_u128);
        for (p, q) in groups {
            won2 += u128::from(*p) * u128::from(2 * below + q);
            below += q;
        }
        let value = won2 as f64 / (2.0 * m * n);
        let (mut below, mut above) = (0.0, m);
        let (mut spread_p, mut spread_n) = (0.0, 0.0);
        for (p, q) in groups {
            let (p, q) = (*p as f64, *q as f64);
            above -= p;
            let won = (below + q / 2.0) / n - value;
            let lost = (above + p / 2.0) / m - value;
            spread_p += p * won * won;
            spread_n += q * lost * lost;
            below += q;
        }
        let variance = (positives > 1 && negatives > 1)
            .then(|| spread_p / (m - 1.0) / m + spread_n / (n - 1.0) / n);
        Some(Self {
            value,
            variance,
            positives,
            negatives,
        })
    }
}

/// Area under the ROC curve of rows; none without both classes.
///
/// # Errors
/// Columns that differ in length, no rows, or a score that is NaN.
pub fn auroc(scores: &[f64], actual: &[bool]) -> Result<Option<Auroc>, PerformanceError> {
    Ok(Auroc::of_groups(&group(scores, actual)?))
}

/// Mean precision over the positives, scores descending: Σ (R_k − R_{k−1}) P_k over distinct
/// scores, as scikit-learn defines it. None without positives.
///
/// # Errors
/// Columns that differ in length, no rows, or a score that is NaN.
pub fn average_precision(scores: &[f64], actual: &[bool]) -> Result<Option<f64>, PerformanceError> {
    let groups = group(scores, actual)?;
    let counts = groups.iter().rev().map(|(p, n)| (*p as f64, *n as f64));
    Ok(average_precision_of(counts))
}

/// The same from (positives, negatives) per score, scores descending; counts may be expected ones.
pub(crate) fn average_precision_of(groups: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut found, mut seen, mut sum) = (0.0, 0.0, 0.0);
    for (p, n) in groups {
        found += p;
        seen += p + n;
        if seen > 0.0 {
            sum += p * found / seen;
        }
    }
    (found > 0.0).then(|| sum / found)
}

/// (positives, negatives) per distinct score, ascending.
pub(crate) fn group(scores: &[f64], actual: &[bool]) -> Result<Vec<(u64, u64)>, PerformanceError> {
    if scores.is_empty() {
        return Err(PerformanceError::Empty);
    }
    check_length("actual", actual.len(), scores.len())?;
    if let Some(row) = scores.iter().position(|s| s.is_nan()) {
        let value = scores[row];
        return Err(PerformanceError::NotAProbability { row, value });
    }
    let mut rows: Vec<_> = scores.iter().copied().zip(actual.iter().copied()).collect();
    rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    Ok(rows
        // Not total_cmp: −0 and 0 are one score.
        .chunk_by(|a, b| a.0 == b.0)
        .map(|tied| {
            let positives = tied.iter().filter(|r| r.1).count() as u64;
            (positives, tied.len() as u64 - positives)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// DeLong by its definition, pair by pair.
    fn by_pairs(scores: &[f64], actual: &[bool]) -> (f64, f64) {
        let of = |class: bool| -> Vec<f64> {
            let rows = scores.iter().zip(actual).filter(|(_, y)| **y == class);
            rows.map(|(s, _)| *s).collect()
        };
        let (xs, ys) = (of(true), of(false));
        let wins = |x: f64, y: f64| match x.total_cmp(&y) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let v10: Vec<f64> = xs
            .iter()
            .map(|x| mean(&ys.iter().map(|y| wins(*x, *y)).collect::<Vec<_>>()))
            .collect();
        let v01: Vec<f64> = ys
            .iter()
            .map(|y| mean(&xs.iter().map(|x| wins(*x, *y)).collect::<Vec<_>>()))
            .collect();
        let variance = |v: &[f64]| {
            let m = mean(v);
            v.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (v.len() - 1) as f64
        };
        let area = mean(&v10);
        (
            area,
            variance(&v10) / v10.len() as f64 + variance(&v01) / v01.len() as f64,
        )
    }

    proptest! {
        /// Area and variance from groups equal the definition over all pairs, with many ties.
        #[test]
        fn groups_equal_pairs(rows in prop::collection::vec((0_u8..12, any::<bool>()), 4..80)) {
            let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0) / 11.0).collect();
            let actual: Vec<bool> = rows.iter().map(|r| r.1).collect();
            let positives = actual.iter().filter(|y| **y).count();
            prop_assume!(positives > 1 && actual.len() - positives > 1);
            let ours = auroc(&scores, &actual).unwrap().unwrap();
            let (area, variance) = by_pairs(&scores, &actual);
            prop_assert!((ours.value - area).abs() < 1e-12);
            prop_assert!((ours.variance.unwrap() - variance).abs() < 1e-12);
        }

        /// Turning scores and labels round leaves the area and its variance as they are.
        #[test]
        fn symmetric(rows in prop::collection::vec((0_u8..20, any::<bool>()), 4..60)) {
            let scores: Vec<f64> = rows.iter().map(|r| f64::from(r.0)).collect();
            let actual: Vec<bool> = rows.iter().map(|r| r.1).collect();
            let turned: Vec<f64> = scores.iter().map(|s| -s).collect();
            let other: Vec<bool> = actual.iter().map(|y| !y).collect();
            match (auroc(&scores, &actual).unwrap(), auroc(&turned, &other).unwrap()) {
                (Some(a), Some(b)) => {
                    prop_assert!((a.value - b.value).abs() < 1e-12);
                    let v = |x: Auroc| x.variance.unwrap_or(0.0);
                    prop_assert!((v(a) - v(b)).abs() < 1e-12);
                }
                (a, b) => prop_assert!(a.is_none() && b.is_none()),
            }
        }
    }

    /// scikit-learn's documented example of average precision: 0.83.
    #[test]
    fn average_precision_example() {
        let ap = average_precision(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]);
        assert!((ap.unwrap().unwrap() - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-15);
    }
}
