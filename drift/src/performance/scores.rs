//! Scores with labels, counted in bins: what a profile can carry about a model's probabilities.
//!
//! A score is rounded to a multiple of 2^-32 and everything kept is a whole number, so profiles
//! merge and subtract exactly, in any order. Calibration error, Brier score, log loss and AUROC
//! come out of the finished counts.

use serde::{Deserialize, Serialize};

use super::{PerformanceError, roc::Auroc};

/// A score of 1 in whole units. Half a unit is 1.2e-10: below what any model means.
const UNIT: f64 = (1_u64 << 32) as f64;

/// Bins at most: beyond this a profile is larger than the rows it stands for.
const BINS_MAX: usize = 4096;

/// One bin: rows and sum of scores (in units) of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScoreBin {
    /// Rows that are positive.
    pub positives: u64,
    /// Rows that are negative.
    pub negatives: u64,
    /// Sum of the positives' scores in 2^-32.
    pub positive_units: u128,
    /// Sum of the negatives' scores in 2^-32.
    pub negative_units: u128,
}

/// Scores in bins of equal width over \[0, 1\], with labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Travelling")]
pub struct ScoreBins {
    bins: Vec<ScoreBin>,
    /// Sum of squared differences of score and outcome in 2^-64.
    square_units: u128,
}

/// [`ScoreBins`] as they travel, not yet checked.
#[derive(Deserialize)]
struct Travelling {
    bins: Vec<ScoreBin>,
    square_units: u128,
}

impl TryFrom<Travelling> for ScoreBins {
    type Error = PerformanceError;

    fn try_from(t: Travelling) -> Result<Self, PerformanceError> {
        Self::new(t.bins.len())?;
        Ok(Self {
            bins: t.bins,
            square_units: t.square_units,
        })
    }
}

impl ScoreBins {
    /// No rows yet.
    ///
    /// # Errors
    /// No bins, or more than 4096.
    pub fn new(bins: usize) -> Result<Self, PerformanceError> {
        if !(1..=BINS_MAX).contains(&bins) {
            return Err(PerformanceError::Setting {
                name: "number of bins",
                value: bins as f64,
                expected: "from 1 to 4096",
            });
        }
        Ok(Self {
            bins: vec![ScoreBin::default(); bins],
            square_units: 0,
        })
    }

    /// Counts a row; whether its score is a probability. A row whose score is not is not counted.
    #[must_use]
    pub fn observe(&mut self, score: f64, actual: bool) -> bool {
        if !(0.0..=1.0).contains(&score) {
            return false;
        }
        let units = (score * UNIT).round() as u64;
        let last = self.bins.len() - 1;
        // The bin follows from the rounded score, so that it is a function of what is summed.
        let at = ((u128::from(units) * self.bins.len() as u128) >> 32) as usize;
        let bin = &mut self.bins[at.min(last)];
        let off = if actual {
            bin.positives += 1;
            bin.positive_units += u128::from(units);
            (1 << 32) - units
        } else {
            bin.negatives += 1;
            bin.negative_units += u128::from(units);
            units
        };
        self.square_units += u128::from(off) * u128::from(off);
        true
    }

    /// Adds another's rows; whether both have the same bins, without which nothing is added.
    #[must_use]
    pub fn merge(&mut self, other: &Self) -> bool {
        if self.bins.len() != other.bins.len() {
            return false;
        }
        for (a, b) in self.bins.iter_mut().zip(&other.bins) {
            a.positives += b.positives;
            a.negatives += b.negatives;
            a.positive_units += b.positive_units;
            a.negative_units += b.negative_units;
        }
        self.square_units += other.square_units;
        true
    }

    /// The bins, lowest scores first.
    pub fn bins(&self) -> &[ScoreBin] {
        &self.bins
    }

    /// Rows.
    pub fn total(&self) -> u64 {
        self.bins.iter().map(|b| b.positives + b.negatives).sum()
    }

    fn mean(&self, sum: impl Fn(&ScoreBin) -> f64) -> Option<f64> {
        let n = self.total();
        (n > 0).then(|| self.bins.iter().map(sum).sum::<f64>() / n as f64)
    }

    /// Expected calibration error: mean over rows of |mean score − share of positives| of the bin
    /// (Naeini, Cooper and Hauskrecht 2015).
    pub fn calibration_error(&self) -> Option<f64> {
        self.mean(|b| {
            let scores = (b.positive_units + b.negative_units) as f64 / UNIT;
            (scores - b.positives as f64).abs()
        })
    }

    /// Mean squared difference of score and outcome; exact but for the rounding of scores.
    pub fn brier_score(&self) -> Option<f64> {
        let n = self.total();
        (n > 0).then(|| self.square_units as f64 / (UNIT * UNIT) / n as f64)
    }

    /// Mean of −ln of the probability that was given to what happened, taking each class's mean
    /// score in a bin for every row of it. It is below the rows' own value by the variance of scores
    /// inside of bins over twice the squared score.
    pub fn log_loss(&self) -> Option<f64> {
        let loss = |n: u64, given: f64| {
            if n == 0 {
                return 0.0;
            }
            // A certain score that is wrong counts as half a unit.
            let mean = (given / (n as f64 * UNIT)).max(0.5 / UNIT);
            -(n as f64) * mean.ln()
        };
        self.mean(|b| {
            let certain = b.negatives as f64 * UNIT;
            loss(b.positives, b.positive_units as f64)
                + loss(b.negatives, certain - b.negative_units as f64)
        })
    }

    /// Area under the ROC curve, rows of one bin tied, with DeLong's variance.
    pub fn auroc(&self) -> Option<Auroc> {
        let groups: Vec<_> = self
            .bins
            .iter()
            .map(|b| (b.positives, b.negatives))
            .collect();
        Auroc::of_groups(&groups)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{auroc, brier_score, log_loss};
    use super::*;
    use proptest::prelude::*;

    fn of(rows: &[(f64, bool)], bins: usize) -> ScoreBins {
        let mut all = ScoreBins::new(bins).unwrap();
        assert!(rows.iter().all(|(s, y)| all.observe(*s, *y)));
        all
    }

    proptest! {
        /// However rows are split, the merged profile is the one of all rows.
        #[test]
        fn merges(rows in prop::collection::vec((0.0..=1.0_f64, any::<bool>()), 0..60), cut in 0_usize..60) {
            let cut = cut.min(rows.len());
            let mut merged = of(&rows[cut..], 16);
            prop_assert!(merged.merge(&of(&rows[..cut], 16)));
            prop_assert_eq!(merged, of(&rows, 16));
        }

        /// Scores on a grid of the bins' own lose nothing: binned metrics equal those of rows.
        #[test]
        fn binned_equals_rows(rows in prop::collection::vec((0_u8..32, any::<bool>()), 1..80)) {
            let rows: Vec<_> = rows.iter().map(|(s, y)| (f64::from(*s) / 32.0 + 1.0 / 64.0, *y)).collect();
            let bins = of(&rows, 32);
            let scores: Vec<_> = rows.iter().map(|r| r.0).collect();
            let actual: Vec<_> = rows.iter().map(|r| r.1).collect();
            let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
            prop_assert!(near(bins.brier_score().unwrap(), brier_score(&scores, &actual).unwrap()));
            prop_assert!(near(bins.log_loss().unwrap(), log_loss(&scores, &actual).unwrap()));
            match (bins.auroc(), auroc(&scores, &actual).unwrap()) {
                (Some(a), Some(b)) => prop_assert!(near(a.value, b.value)),
                (a, b) => prop_assert!(a.is_none() && b.is_none()),
            }
        }
    }

    /// Two bins worked by hand: off by 0.1 on three rows of four and by 0.4 on one.
    #[test]
    fn calibration_error_by_hand() {
        let bins = of(&[(0.2, false), (0.3, true), (0.2, false), (0.6, true)], 2);
        let expected = ((0.7_f64 - 1.0).abs() + (0.6_f64 - 1.0).abs()) / 4.0;
        assert!((bins.calibration_error().unwrap() - expected).abs() < 1e-9);
    }

    /// The ends belong to the outer bins, what is no probability to none, and no rows to no metric.
    #[test]
    fn ends() {
        let mut bins = of(&[(0.0, false), (1.0, true)], 10);
        assert_eq!((bins.bins()[0].negatives, bins.bins()[9].positives), (1, 1));
        assert!(!bins.observe(f64::NAN, true));
        assert!(!bins.observe(1.1, true));
        assert_eq!(bins.total(), 2);
        assert_eq!(ScoreBins::new(4).unwrap().brier_score(), None);
        assert!(ScoreBins::new(0).is_err());
    }
}
