//! Tests on means: z for two proportions, t for two means, from moments.

use super::{Alternative, Outcome};
use crate::error::{Side, StatisticsError};
use crate::special::student_t_two_sided;

/// Count, mean and sample variance of one side: all that a t test needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Rows.
    pub rows: u64,
    /// Mean, in the unit of the values.
    pub mean: f64,
    /// Sample variance (divisor rows − 1), in the unit squared; 0 for fewer than two rows.
    pub variance: f64,
}

impl Moments {
    /// From exact sums of whole numbers in a resolution of `unit`: Σ x and Σ x², as a profile keeps
    /// them. The variance is formed before anything is rounded, so it does not cancel for values far
    /// from 0.
    #[must_use]
    pub fn from_sums(rows: u64, sum: i128, sum_of_squares: u128, unit: f64) -> Self {
        if rows == 0 {
            return Self {
                rows,
                mean: 0.0,
                variance: 0.0,
            };
        }
        let n = rows as f64;
        let mean = sum as f64 / n;
        let exact = sum_of_squares
            .checked_mul(u128::from(rows))
            .zip(sum.unsigned_abs().checked_pow(2))
            .map(|(a, b)| a.saturating_sub(b) as f64);
        // 128 bits hold it unless values use more than about 40 bits; then the rounded form must do.
        let spread =
            exact.unwrap_or_else(|| (sum_of_squares as f64 * n - sum as f64 * sum as f64).max(0.0));
        let variance = if rows > 1 {
            spread / n / (n - 1.0)
        } else {
            0.0
        };
        Self {
            rows,
            mean: mean * unit,
            variance: variance * unit * unit,
        }
    }

    /// From finite values, in two passes.
    ///
    /// # Errors
    /// [`StatisticsError::NonFinite`] at the first value that is not finite.
    pub fn from_values(values: &[f64]) -> Result<Self, StatisticsError> {
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(StatisticsError::NonFinite {
                what: "a sample",
                index,
            });
        }
        let rows = values.len() as u64;
        if rows == 0 {
            return Ok(Self {
                rows,
                mean: 0.0,
                variance: 0.0,
            });
        }
        let n = rows as f64;
        let rough = values.iter().map(|value| value / n).sum::<f64>();
        let residual = values.iter().map(|value| value - rough).sum::<f64>() / n;
        let mean = rough + residual;
        let squares: f64 = values
            .iter()
            .map(|value| (value - mean) * (value - mean))
            .sum();
        let variance = if rows > 1 { squares / (n - 1.0) } else { 0.0 };
        Ok(Self {
            rows,
            mean,
            variance,
        })
    }
}

/// What a t test assumes of the two variances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Variances {
    /// They may differ (Welch 1947).
    #[default]
    Unequal,
    /// They are equal and pooled (Student 1908).
    Equal,
}

/// The outcome of a t test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TTest {
    /// t, positive when the reference's mean is greater. ±∞ when neither side varies and the means
    /// differ.
    pub t: f64,
    /// Degrees of freedom, by Welch and Satterthwaite when variances are unequal.
    pub degrees: f64,
    /// Two-sided p-value.
    pub p_value: f64,
}

/// Two-sided t test of equal means.
///
/// Sides that do not vary: equal means give t = 0 and p = 1, different ones t = ±∞ and p = 0 (as in
/// SciPy).
///
/// # Errors
/// [`StatisticsError::TooFewRows`] with fewer than two rows on a side.
pub fn t_test(
    reference: &Moments,
    current: &Moments,
    variances: Variances,
) -> Result<TTest, StatisticsError> {
    for (side, moments) in [(Side::Reference, reference), (Side::Current, current)] {
        if moments.rows < 2 {
            return Err(StatisticsError::TooFewRows {
                side,
                test: "t",
                needed: 2,
                rows: moments.rows,
            });
        }
    }
    let (n, m) = (reference.rows as f64, current.rows as f64);
    let difference = reference.mean - current.mean;
    let pooled_degrees = n + m - 2.0;
    let (square, degrees) = match variances {
        Variances::Unequal => {
            let (a, b) = (reference.variance / n, current.variance / m);
            let sum = a + b;
            // In shares of the sum, so that squares neither overflow nor underflow.
            let (u, v) = (a / sum, b / sum);
            (sum, 1.0 / (u * u / (n - 1.0) + v * v / (m - 1.0)))
        }
        Variances::Equal => {
            let pooled =
                ((n - 1.0) * reference.variance + (m - 1.0) * current.variance) / pooled_degrees;
            (pooled * (1.0 / n + 1.0 / m), pooled_degrees)
        }
    };
    if square <= 0.0 {
        let (t, p_value) = if difference == 0.0 {
            (0.0, 1.0)
        } else {
            (f64::INFINITY.copysign(difference), 0.0)
        };
        return Ok(TTest {
            t,
            degrees: pooled_degrees,
            p_value,
        });
    }
    let t = difference / square.sqrt();
    Ok(TTest {
        t,
        degrees,
        p_value: student_t_two_sided(t, degrees),
    })
}

/// z test of equal proportions with a pooled variance: `reference.0` successes in `reference.1` rows
/// against the same of the present. z is positive when the reference's proportion is greater. When
/// neither side varies (all successes or none) z is 0 and p is 1.
///
/// # Errors
/// [`StatisticsError::Empty`] when a side has no rows, [`StatisticsError::BadParameter`] when a side has
/// more successes than rows.
pub fn proportions_z(
    reference: (u64, u64),
    current: (u64, u64),
    alternative: Alternative,
) -> Result<Outcome, StatisticsError> {
    for (side, (successes, rows)) in [(Side::Reference, reference), (Side::Current, current)] {
        if rows == 0 {
            return Err(StatisticsError::Empty(side));
        }
        if successes > rows {
            return Err(StatisticsError::BadParameter {
                parameter: "successes",
                value: successes as f64,
                allowed: "at most the number of rows",
            });
        }
    }
    let (n, m) = (reference.1 as f64, current.1 as f64);
    let hits = reference.0 as f64 + current.0 as f64;
    let misses = (reference.1 - reference.0) as f64 + (current.1 - current.0) as f64;
    // p₁ − p₂ over √(P (1 − P)(1/n + 1/m)), with whole numbers as far as they go.
    let crossed = i128::from(reference.0) * i128::from(current.1)
        - i128::from(current.0) * i128::from(reference.1);
    let z = if crossed == 0 {
        0.0
    } else {
        let rows = n + m;
        crossed as f64 / (n * m) / (hits / rows * (misses / rows) * (1.0 / n + 1.0 / m)).sqrt()
    };
    Ok(Outcome {
        statistic: z,
        p_value: alternative.normal_p(z),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The square of z is Pearson's chi-square of the fourfold table.
    #[test]
    fn z_squared_is_chi_square() {
        use crate::distance::Pair;
        use crate::hypothesis::{Divergence, contingency};
        let z = proportions_z((20, 50), (10, 50), Alternative::TwoSided).unwrap();
        let table = contingency(
            Pair::new(&[20, 30], &[10, 40]).unwrap(),
            Divergence::Pearson,
        );
        assert!((z.statistic * z.statistic / table.statistic - 1.0).abs() < 1e-14);
        assert!((z.p_value / table.p_value - 1.0).abs() < 1e-13);
        let less = proportions_z((20, 50), (10, 50), Alternative::Less).unwrap();
        let greater = proportions_z((20, 50), (10, 50), Alternative::Greater).unwrap();
        assert!((less.p_value + greater.p_value - 1.0).abs() < 1e-15);
        assert!(greater.p_value < 0.05);
    }

    #[test]
    fn proportions_that_do_not_vary() {
        let same = proportions_z((5, 5), (9, 9), Alternative::TwoSided).unwrap();
        assert_eq!((same.statistic, same.p_value), (0.0, 1.0));
        assert!(proportions_z((0, 0), (1, 2), Alternative::TwoSided).is_err());
        assert!(proportions_z((3, 2), (1, 2), Alternative::TwoSided).is_err());
    }

    /// Sides that do not vary follow SciPy; one row is too few.
    #[test]
    fn t_without_spread() {
        let flat = |mean| Moments {
            rows: 5,
            mean,
            variance: 0.0,
        };
        for variances in [Variances::Unequal, Variances::Equal] {
            let same = t_test(&flat(1.0), &flat(1.0), variances).unwrap();
            assert_eq!((same.t, same.p_value), (0.0, 1.0));
            let moved = t_test(&flat(1.0), &flat(2.0), variances).unwrap();
            assert_eq!((moved.t, moved.p_value), (f64::NEG_INFINITY, 0.0));
        }
        let one = Moments {
            rows: 1,
            mean: 0.0,
            variance: 0.0,
        };
        assert!(matches!(
            t_test(&flat(0.0), &one, Variances::Unequal),
            Err(StatisticsError::TooFewRows {
                side: Side::Current,
                ..
            })
        ));
    }

    proptest! {
        /// Exact sums and two passes give the same moments, far from 0 too.
        #[test]
        fn sums_and_values_agree(
            values in prop::collection::vec(-1000_i64..1000, 2..60),
            offset in prop_oneof![Just(0_i64), Just(1_000_000_000_000_i64)],
        ) {
            let unit = 0.25;
            let whole: Vec<i128> = values.iter().map(|&v| i128::from(v + offset)).collect();
            let sums = Moments::from_sums(
                whole.len() as u64,
                whole.iter().sum(),
                whole.iter().map(|v| (v * v) as u128).sum(),
                unit,
            );
            let floats: Vec<f64> = whole.iter().map(|&v| v as f64 * unit).collect();
            let direct = Moments::from_values(&floats).unwrap();
            prop_assert!((sums.mean - direct.mean).abs() <= 1e-12 * direct.mean.abs() + 1e-9);
            prop_assert!(
                (sums.variance - direct.variance).abs() <= 1e-6 * direct.variance + 1e-9,
                "{} {}", sums.variance, direct.variance
            );
        }
    }
}
