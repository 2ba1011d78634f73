//! Evidently 0.7: its bins, its rule for empty shares, and its tests.
//!
//! Same as native or SciPy, and so not repeated: Kolmogorov-Smirnov (`auto`), Anderson-Darling
//! (mid-ranks, `interpolated_p`), Cramér-von Mises ([`super::scipy`]), z for proportions, energy
//! distance, total variation (the distance; its p-value is a permutation test), `t_test` with
//! [`Variances::Equal`](crate::hypothesis::Variances), and Mann-Whitney with
//! [`Alternative::Less`](crate::hypothesis::Alternative).

use super::numpy;
use super::scipy::{goodness_of_fit, sums_agree};
use crate::distance::{LogBase, Pair, in_deviations};
use crate::error::StatisticsError;
use crate::hypothesis::{ChiSquare, Divergence};
use crate::sample::Samples;

/// Up to this many distinct reference values a numeric column is compared value by value.
const DISTINCT_VALUES_MAX: usize = 20;
/// Standard deviations below this are taken as this.
const DEVIATION_MIN: f64 = 0.001;

/// Counts of both sides in Evidently's bins, and the distances that it takes from their shares.
#[derive(Clone, Debug, PartialEq)]
pub struct Shares {
    reference: Vec<u64>,
    current: Vec<u64>,
}

impl Shares {
    /// A numeric column: Sturges' bins over both sides together, or one bin a value when the reference
    /// has up to 20 distinct ones. `whole` says that the column holds integers.
    ///
    /// # Errors
    /// As [`Samples::new`], and when Sturges' rule asks for too many bins.
    pub fn of_numbers(
        reference: &[f64],
        current: &[f64],
        whole: bool,
    ) -> Result<Self, StatisticsError> {
        let samples = Samples::new(reference, current)?;
        let pair = samples.pair();
        let distinct = pair.reference().iter().filter(|&&count| count > 0).count();
        if distinct <= DISTINCT_VALUES_MAX {
            return Ok(Self {
                reference: pair.reference().to_vec(),
                current: pair.current().to_vec(),
            });
        }
        let both: Vec<f64> = reference.iter().chain(current).copied().collect();
        let edges = numpy::sturges_edges(&both, whole)?;
        Ok(Self {
            reference: numpy::histogram(reference, &edges),
            current: numpy::histogram(current, &edges),
        })
    }

    /// A categorical column: its counts, category by category.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn of_categories(reference: &[u64], current: &[u64]) -> Result<Self, StatisticsError> {
        Pair::new(reference, current)?;
        Ok(Self {
            reference: reference.to_vec(),
            current: current.to_vec(),
        })
    }

    /// The counts as a pair, for the distances that are as native.
    ///
    /// # Errors
    /// None that a constructor has not refused already.
    pub fn pair(&self) -> Result<Pair<'_>, StatisticsError> {
        Pair::new(&self.reference, &self.current)
    }

    /// Shares with empty ones replaced: by 1e-4, or by a millionth of the smallest other share where
    /// that one is not above 1e-4.
    fn filled(counts: &[u64]) -> Vec<f64> {
        let rows: f64 = counts.iter().map(|&count| count as f64).sum();
        let smallest = counts.iter().filter(|&&count| count > 0).min();
        let smallest = smallest.map_or(0.0, |&count| count as f64 / rows);
        let stand_in = if smallest <= 1e-4 {
            smallest / 1e6
        } else {
            1e-4
        };
        counts
            .iter()
            .map(|&count| {
                if count == 0 {
                    stand_in
                } else {
                    count as f64 / rows
                }
            })
            .collect()
    }

    /// Population stability index.
    #[must_use]
    pub fn psi(&self) -> f64 {
        let (p, q) = (Self::filled(&self.reference), Self::filled(&self.current));
        p.iter().zip(&q).map(|(p, q)| (p - q) * (p / q).ln()).sum()
    }

    /// Kullback-Leibler divergence of the present from the reference, in nats.
    #[must_use]
    pub fn kullback_leibler(&self) -> f64 {
        let (p, q) = (Self::filled(&self.reference), Self::filled(&self.current));
        let (sum_p, sum_q): (f64, f64) = (p.iter().sum(), q.iter().sum());
        p.iter()
            .zip(&q)
            .map(|(p, q)| p / sum_p * (p / sum_p / (q / sum_q)).ln())
            .sum()
    }

    /// Jensen-Shannon distance, natural logarithm.
    ///
    /// # Errors
    /// None that a constructor has not refused already.
    pub fn jensen_shannon(&self) -> Result<f64, StatisticsError> {
        Ok(self.pair()?.jensen_shannon(LogBase::Natural))
    }
}

/// Hellinger distance of a numeric column: Sturges' bins over the *distinct* values of both sides,
/// however often each occurs. (Categories: as native.)
///
/// # Errors
/// As [`Samples::new`], and when Sturges' rule asks for too many bins.
pub fn hellinger(reference: &[f64], current: &[f64], whole: bool) -> Result<f64, StatisticsError> {
    let samples = Samples::new(reference, current)?;
    let edges = numpy::sturges_edges(samples.values(), whole)?;
    let (r, c) = (
        numpy::histogram(reference, &edges),
        numpy::histogram(current, &edges),
    );
    Ok(Pair::new(&r, &c)?.hellinger())
}

/// Wasserstein-1 distance in standard deviations (population form) of the reference, which are taken
/// as at least 0.001.
///
/// # Errors
/// As [`Samples::new`].
pub fn wasserstein(reference: &[f64], current: &[f64]) -> Result<f64, StatisticsError> {
    let samples = Samples::new(reference, current)?;
    let (moments, _) = samples.moments();
    let rows = moments.rows as f64;
    let deviation = (moments.variance * (rows - 1.0) / rows).sqrt();
    in_deviations(samples.wasserstein()?, deviation.max(DEVIATION_MIN))
}

/// Chi-square goodness of fit of the current counts to the reference's shares, which are taken as
/// exact: the reference's own sampling error makes it alarm too often (a third of the time at 5 % with
/// equal row counts). A category that the reference lacks makes the statistic infinite.
#[must_use]
pub fn chi_square(pair: Pair<'_>) -> ChiSquare {
    let scale = pair.current_rows() as f64 / pair.reference_rows() as f64;
    let (observed, expected) = occurring(pair, scale);
    goodness_of_fit(&observed, &expected, Divergence::Pearson)
}

/// G goodness of fit of the current counts to the reference's, which are *not* scaled to the same number
/// of rows: Evidently's test is only defined for samples of equal size.
///
/// # Errors
/// [`StatisticsError::BadParameter`] when the row counts differ by more than one in 10⁸, where
/// Evidently fails as well.
pub fn g_test(pair: Pair<'_>) -> Result<ChiSquare, StatisticsError> {
    let (observed, expected) = occurring(pair, 1.0);
    if !sums_agree(&observed, &expected) {
        return Err(StatisticsError::BadParameter {
            parameter: "current rows",
            value: pair.current_rows() as f64,
            allowed: "as many as the reference's; use the native g otherwise",
        });
    }
    Ok(goodness_of_fit(
        &observed,
        &expected,
        Divergence::LikelihoodRatio,
    ))
}

/// Observed counts and scaled reference counts of the categories that occur at all.
fn occurring(pair: Pair<'_>, scale: f64) -> (Vec<f64>, Vec<f64>) {
    pair.current()
        .iter()
        .zip(pair.reference())
        .filter(|&(&c, &r)| c > 0 || r > 0)
        .map(|(&c, &r)| (c as f64, r as f64 * scale))
        .unzip()
}

/// One-sided Mann-Whitney p-value as Evidently reports it: small only when the *reference* is the lesser
/// one, so it is blind to a fall.
///
/// # Errors
/// As [`Samples::new`].
pub fn mann_whitney_p(reference: &[f64], current: &[f64]) -> Result<f64, StatisticsError> {
    use crate::hypothesis::{Alternative, MannWhitneyMode};
    let samples = Samples::new(reference, current)?;
    Ok(samples
        .mann_whitney(Alternative::Less, MannWhitneyMode::Auto)?
        .p_value)
}
