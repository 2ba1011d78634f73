//! Errors of numbers.

use serde::{Deserialize, Serialize};

use super::interval::Estimate;
use super::{PerformanceError, check_length};

/// Sums of errors (predicted − actual) in whole units of the target's declared resolution. Adds in
/// any order to the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorSums {
    /// Rows.
    pub rows: u64,
    /// Sum of errors.
    pub sum: i128,
    /// Sum of absolute errors.
    pub absolute: u128,
    /// Sum of squared errors.
    pub squares: u128,
}

/// An error beyond this many units is counted as this many: the squares of 2^32 such rows still
/// fit in 128 bits.
pub const ERROR_MAX: i64 = 1 << 47;

impl ErrorSums {
    /// Counts a row with predicted and actual value in units.
    pub fn observe(&mut self, predicted: i64, actual: i64) {
        let limit = i128::from(ERROR_MAX);
        let error = (i128::from(predicted) - i128::from(actual)).clamp(-limit, limit);
        self.rows += 1;
        self.sum += error;
        self.absolute += error.unsigned_abs();
        self.squares += error.unsigned_abs() * error.unsigned_abs();
    }

    /// Adds another's rows.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.sum += other.sum;
        self.absolute += other.absolute;
        self.squares += other.squares;
    }

    /// Errors of these sums in the target's own unit, which is `resolution` of ours.
    pub fn metrics(&self, resolution: f64) -> Option<RegressionMetrics> {
        RegressionMetrics::new(
            self.rows,
            self.sum as f64 * resolution,
            self.absolute as f64 * resolution,
            self.squares as f64 * resolution * resolution,
        )
    }
}

/// Errors of a regression in the target's unit, with the standard errors of independent rows
/// (multiply by the root of the design effect).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RegressionMetrics {
    /// Rows.
    pub rows: u64,
    /// Mean absolute error.
    pub mae: Estimate,
    /// Root mean squared error. Its standard error is that of normal errors: rmse/sqrt(2 rows).
    pub rmse: Estimate,
    /// Mean of predicted − actual.
    pub bias: Estimate,
}

impl RegressionMetrics {
    fn new(rows: u64, sum: f64, absolute: f64, squares: f64) -> Option<Self> {
        if rows == 0 {
            return None;
        }
        let n = rows as f64;
        let square = squares / n;
        let spread = |mean: f64| Estimate {
            value: mean,
            // Rounding may make a constant error's variance a hair negative.
            standard_error: ((square - mean * mean).max(0.0) / n).sqrt(),
        };
        let rmse = square.sqrt();
        Some(Self {
            rows,
            mae: spread(absolute / n),
            rmse: Estimate {
                value: rmse,
                standard_error: rmse / (2.0 * n).sqrt(),
            },
            bias: spread(sum / n),
        })
    }

    /// Errors of rows.
    ///
    /// # Errors
    /// Columns that differ in length, or no rows.
    pub fn of(predicted: &[f64], actual: &[f64]) -> Result<Self, PerformanceError> {
        check_length("actual", actual.len(), predicted.len())?;
        let (mut sum, mut absolute, mut squares) = (0.0, 0.0, 0.0);
        for (p, a) in predicted.iter().zip(actual) {
            let error = p - a;
            sum += error;
            absolute += error.abs();
            squares += error * error;
        }
        Self::new(predicted.len() as u64, sum, absolute, squares).ok_or(PerformanceError::Empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Errors 1, −3 and 2 by hand, from rows and from units of a tenth.
    #[test]
    fn by_hand() {
        let rows = RegressionMetrics::of(&[2.0, 1.0, 5.0], &[1.0, 4.0, 3.0]).unwrap();
        assert_eq!((rows.mae.value, rows.bias.value), (2.0, 0.0));
        assert!((rows.rmse.value - (14.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        // Variance of |error| over rows: (14/3 − 4)/3.
        assert!((rows.mae.standard_error - (2.0_f64 / 9.0).sqrt()).abs() < 1e-15);
        let mut sums = ErrorSums::default();
        [(20, 10), (10, 40), (50, 30)]
            .iter()
            .for_each(|(p, a)| sums.observe(*p, *a));
        let units = sums.metrics(0.1).unwrap();
        assert!((units.rmse.value - rows.rmse.value).abs() < 1e-14);
        assert_eq!(ErrorSums::default().metrics(1.0), None);
        assert_eq!(
            RegressionMetrics::of(&[], &[]),
            Err(PerformanceError::Empty)
        );
    }

    proptest! {
        /// Sums of any two parts merge to the sums of the whole, also at the ends of the range.
        #[test]
        fn merges(rows in prop::collection::vec(any::<(i64, i64)>(), 0..50), cut in 0_usize..50) {
            let of = |rows: &[(i64, i64)]| {
                let mut sums = ErrorSums::default();
                rows.iter().for_each(|(p, a)| sums.observe(*p, *a));
                sums
            };
            let cut = cut.min(rows.len());
            let mut merged = of(&rows[cut..]);
            merged.merge(&of(&rows[..cut]));
            prop_assert_eq!(merged, of(&rows));
        }
    }
}
