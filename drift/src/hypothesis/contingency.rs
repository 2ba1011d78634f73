//! Pearson's chi-square and the likelihood-ratio G on tables of counts.

use crate::distance::Pair;
use crate::error::{Side, StatisticsError};
use crate::special::{chi_square_sf, excess_entropy};

/// How a cell's departure from its expectation is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// Σ (O − E)² / E (Pearson 1900).
    Pearson,
    /// G = 2 Σ O ln(O / E) (Wilks 1938).
    LikelihoodRatio,
}

impl Divergence {
    /// The term of one cell with expectation `expected` and relative excess d = O/E − 1.
    fn term(self, expected: f64, excess: f64) -> f64 {
        match self {
            Self::Pearson => expected * excess * excess,
            // 2 (O ln(O/E) − (O − E)); the second part adds up to 0 and removes the cancellation.
            Self::LikelihoodRatio => 2.0 * expected * excess_entropy(excess),
        }
    }
}

/// The outcome of a chi-square type test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChiSquare {
    /// The statistic, 0 or more; about `degrees` when nothing has changed and rows are independent.
    pub statistic: f64,
    /// Degrees of freedom after empty columns and levels were dropped.
    pub degrees: u64,
    /// P(chi-square with `degrees` > statistic); 1 with 0 degrees.
    pub p_value: f64,
}

impl ChiSquare {
    fn new(statistic: f64, degrees: u64) -> Self {
        Self {
            statistic,
            degrees,
            p_value: chi_square_sf(statistic, degrees as f64),
        }
    }
}

/// Test of homogeneity on the 2 × B table of a pair: are reference and present draws from the same
/// distribution? Both sides are taken as samples (the reference is not taken as exact), bins empty
/// on both sides are dropped, and there is no Yates correction.
#[must_use]
pub fn contingency(pair: Pair<'_>, divergence: Divergence) -> ChiSquare {
    let (n, m) = (pair.reference_rows() as f64, pair.current_rows() as f64);
    let rows = n + m;
    let mut statistic = 0.0;
    let mut columns = 0_u64;
    let counts = pair.reference().iter().zip(pair.current());
    for ((&r, &c), (crossed, _)) in counts.zip(pair.crossed()) {
        let column = r as f64 + c as f64;
        if column == 0.0 {
            continue;
        }
        columns += 1;
        if crossed == 0.0 {
            continue;
        }
        // O/E − 1 is crossed / (column n) for the reference's cell, −crossed / (column m) for the other.
        let relative = crossed / column;
        statistic += divergence.term(column * n / rows, relative / n)
            + divergence.term(column * m / rows, -relative / m);
    }
    ChiSquare::new(statistic, columns - 1)
}

/// Test of mutual independence of the axes of a table with any number of axes, for instance r × c.
///
/// `counts` is the table in row-major order (the last axis runs fastest) and `shape` its length along
/// each axis. Levels without rows are dropped. Degrees of freedom are Π k − Σ k + (axes − 1) over the
/// levels k that remain. Allocates the margins.
///
/// # Errors
/// [`StatisticsError::WrongLength`] when `counts` does not fill the shape or there are fewer than two
/// axes, [`StatisticsError::Empty`] when the table counts no rows.
pub fn independence(
    counts: &[u64],
    shape: &[usize],
    divergence: Divergence,
) -> Result<ChiSquare, StatisticsError> {
    if shape.len() < 2 {
        return Err(StatisticsError::WrongLength {
            what: "axes of a contingency table",
            expected: 2,
            got: shape.len(),
        });
    }
    let cells = shape
        .iter()
        .try_fold(1_usize, |cells, &length| cells.checked_mul(length));
    let cells = cells.unwrap_or(usize::MAX);
    if counts.len() != cells {
        return Err(StatisticsError::WrongLength {
            what: "cells of a contingency table",
            expected: cells,
            got: counts.len(),
        });
    }
    let total: f64 = counts.iter().map(|&count| count as f64).sum();
    if total == 0.0 {
        return Err(StatisticsError::Empty(Side::Reference));
    }
    let margins = margins(counts, shape);
    let kept = |axis: usize| margins[axis].iter().filter(|&&margin| margin > 0.0).count() as u64;
    let levels = (0..shape.len()).map(kept);
    let degrees = levels.clone().product::<u64>() + shape.len() as u64 - 1 - levels.sum::<u64>();

    let mut statistic = 0.0;
    for (cell, &count) in counts.iter().enumerate() {
        let mut expected = total;
        let mut rest = cell;
        for axis in (0..shape.len()).rev() {
            expected *= margins[axis][rest % shape[axis]] / total;
            rest /= shape[axis];
        }
        if expected > 0.0 {
            statistic += divergence.term(expected, (count as f64 - expected) / expected);
        }
    }
    Ok(ChiSquare::new(statistic, degrees))
}

/// Sums of the table over all axes but one, for each axis.
fn margins(counts: &[u64], shape: &[usize]) -> Vec<Vec<f64>> {
    let mut margins: Vec<Vec<f64>> = shape.iter().map(|&length| vec![0.0; length]).collect();
    for (cell, &count) in counts.iter().enumerate() {
        let mut rest = cell;
        for axis in (0..shape.len()).rev() {
            margins[axis][rest % shape[axis]] += count as f64;
            rest /= shape[axis];
        }
    }
    margins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A fourfold table by hand: (ad − bc)² N / (row and column sums).
    #[test]
    fn fourfold_by_hand() {
        let (r, c) = ([20, 30], [10, 40]);
        let test = contingency(Pair::new(&r, &c).unwrap(), Divergence::Pearson);
        let want = (20.0 * 40.0 - 30.0 * 10.0_f64).powi(2) * 100.0 / (50.0 * 50.0 * 30.0 * 70.0);
        assert!((test.statistic - want).abs() < 1e-12);
        assert_eq!(test.degrees, 1);
    }

    /// One bin that holds everything says nothing: no degrees of freedom, p = 1.
    #[test]
    fn a_single_column_has_no_degrees() {
        let test = contingency(Pair::new(&[0, 5], &[0, 9]).unwrap(), Divergence::Pearson);
        assert_eq!((test.statistic, test.degrees, test.p_value), (0.0, 0, 1.0));
    }

    #[test]
    fn tables_that_do_not_fit_are_refused() {
        assert!(independence(&[1, 2, 3], &[2, 2], Divergence::Pearson).is_err());
        assert!(independence(&[1, 2], &[2], Divergence::Pearson).is_err());
        assert!(independence(&[0, 0, 0, 0], &[2, 2], Divergence::Pearson).is_err());
    }

    proptest! {
        /// The 2 × B test and the general test agree, empty columns or not, for both divergences, and
        /// the order of the sides does not matter.
        #[test]
        fn special_and_general_agree(
            rows in prop::collection::vec((0_u64..40, 0_u64..40), 2..12),
        ) {
            let (r, c): (Vec<u64>, Vec<u64>) = rows.into_iter().unzip();
            prop_assume!(r.iter().any(|&x| x > 0) && c.iter().any(|&x| x > 0));
            let table: Vec<u64> = r.iter().chain(&c).copied().collect();
            for divergence in [Divergence::Pearson, Divergence::LikelihoodRatio] {
                let pair = Pair::new(&r, &c).unwrap();
                let one = contingency(pair, divergence);
                let other = independence(&table, &[2, r.len()], divergence).unwrap();
                prop_assert_eq!(one.degrees, other.degrees);
                prop_assert!((one.statistic - other.statistic).abs() <= 1e-11 * (1.0 + one.statistic));
                let back = contingency(pair.swapped(), divergence);
                prop_assert!((one.statistic - back.statistic).abs() <= 1e-12 * one.statistic);
                prop_assert!((0.0..=1.0).contains(&one.p_value));
            }
        }

        /// More of the same evidence: multiplying all counts multiplies the statistic.
        #[test]
        fn statistic_grows_with_the_rows(
            rows in prop::collection::vec((1_u64..40, 1_u64..40), 2..12),
            factor in 2_u64..50,
        ) {
            let (r, c): (Vec<u64>, Vec<u64>) = rows.into_iter().unzip();
            let (more_r, more_c): (Vec<u64>, Vec<u64>) =
                (r.iter().map(|x| x * factor).collect(), c.iter().map(|x| x * factor).collect());
            for divergence in [Divergence::Pearson, Divergence::LikelihoodRatio] {
                let one = contingency(Pair::new(&r, &c).unwrap(), divergence);
                let more = contingency(Pair::new(&more_r, &more_c).unwrap(), divergence);
                prop_assert!(
                    (more.statistic - factor as f64 * one.statistic).abs() <= 1e-11 * more.statistic
                );
                prop_assert!(more.p_value <= one.p_value);
            }
        }
    }
}
