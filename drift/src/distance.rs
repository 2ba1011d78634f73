//! Distances between two histograms with the same bins, from counts alone.
//!
//! A [`Pair`] is checked once and then answers any distance without allocating. What all have in
//! common:
//!
//! - **Counts are exact.** Differences of shares are formed as integers, r·n_cur − c·n_ref, so equal
//!   distributions give exactly 0 whatever the two row counts are, and multiplying one side's counts
//!   by a constant changes nothing but perhaps the last place.
//! - **No row, no distance.** A side without rows has no distribution: [`Pair::new`] refuses it.
//! - **Bins without rows** on both sides add nothing, so trailing empty bins are harmless, except in
//!   measures with a [`Floor`], where the floor must apply to both sides alike (it does: equal
//!   floored shares cancel).
//!
//! | distance | symbol | range | symmetric | needs positions |
//! | --- | --- | --- | --- | --- |
//! | population stability index | [`Pair::psi`] | 0 … (nats) | yes | no |
//! | Jensen-Shannon distance | [`Pair::jensen_shannon`] | 0 … 1 (base 2), 0 … √ln 2 | yes | no |
//! | Kullback-Leibler divergence | [`Pair::kullback_leibler`] | 0 … (nats) | no | no |
//! | Hellinger distance | [`Pair::hellinger`] | 0 … 1 | yes | no |
//! | total variation | [`Pair::total_variation`] | 0 … 1 | yes | no |
//! | L-infinity | [`Pair::l_infinity`] | 0 … 1 | yes | no |
//! | Kolmogorov-Smirnov | [`Pair::kolmogorov_smirnov`] | 0 … 1 | yes | bins in order |
//! | Wasserstein-1 | [`Pair::wasserstein`] | 0 … (unit of the values) | yes | yes |
//! | energy distance | [`Pair::energy`] | 0 … (√ of the unit) | yes | yes |
//!
//! # Layout
//!
//! - `shares`: distances between shares, blind to the order of bins
//! - `ordered`: distances between cumulative shares, on an axis

mod ordered;
mod shares;

#[cfg(test)]
mod laws;

pub use ordered::{KolmogorovSmirnov, Placement, in_deviations};
pub use shares::{Floor, LogBase};

use crate::error::{Side, StatisticsError};

/// Two histograms over the same bins: what the present is compared with, and the present.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    reference: &'a [u64],
    current: &'a [u64],
    reference_rows: u64,
    current_rows: u64,
}

/// Products of two row counts below this fit an i64 with room for a sign and a sum.
const NARROW_ROWS: u64 = 1 << 31;

impl<'a> Pair<'a> {
    /// Pairs the counts of a reference with those of the present, bin by bin.
    ///
    /// # Errors
    /// [`StatisticsError::BinCountsDiffer`] when the slices differ in length,
    /// [`StatisticsError::Empty`] when a side counts no rows, and
    /// [`StatisticsError::TooManyRows`] at 2^63 rows.
    pub fn new(reference: &'a [u64], current: &'a [u64]) -> Result<Self, StatisticsError> {
        if reference.len() != current.len() {
            return Err(StatisticsError::BinCountsDiffer {
                reference: reference.len(),
                current: current.len(),
            });
        }
        Ok(Self {
            reference,
            current,
            reference_rows: rows(reference, Side::Reference)?,
            current_rows: rows(current, Side::Current)?,
        })
    }

    /// A pair whose rows have been added up already: `reference_rows` and `current_rows` must be the
    /// sums, and not 0.
    pub(crate) fn of_checked(
        reference: &'a [u64],
        current: &'a [u64],
        reference_rows: u64,
        current_rows: u64,
    ) -> Self {
        debug_assert_eq!(reference.iter().sum::<u64>(), reference_rows);
        debug_assert_eq!(current.iter().sum::<u64>(), current_rows);
        Self {
            reference,
            current,
            reference_rows,
            current_rows,
        }
    }

    /// The same pair with its sides exchanged, for distances that are not symmetric.
    #[must_use]
    pub fn swapped(self) -> Self {
        Self {
            reference: self.current,
            current: self.reference,
            reference_rows: self.current_rows,
            current_rows: self.reference_rows,
        }
    }

    /// Counts of the reference.
    #[must_use]
    pub fn reference(&self) -> &'a [u64] {
        self.reference
    }

    /// Counts of the present.
    #[must_use]
    pub fn current(&self) -> &'a [u64] {
        self.current
    }

    /// Rows of the reference: the sum of its counts, at least 1.
    #[must_use]
    pub fn reference_rows(&self) -> u64 {
        self.reference_rows
    }

    /// Rows of the present: the sum of its counts, at least 1.
    #[must_use]
    pub fn current_rows(&self) -> u64 {
        self.current_rows
    }

    /// Number of bins.
    #[must_use]
    pub fn bins(&self) -> usize {
        self.reference.len()
    }

    /// n_ref n_cur / (n_ref + n_cur): what a two-sample statistic is scaled by, in rows.
    #[must_use]
    pub fn effective_rows(&self) -> f64 {
        let (n, m) = (self.reference_rows as f64, self.current_rows as f64);
        n / (n + m) * m
    }

    /// n_ref n_cur, the denominator of every difference of shares.
    pub(crate) fn product(&self) -> f64 {
        self.reference_rows as f64 * self.current_rows as f64
    }

    /// Whether products of rows and counts fit 64 bits: several times faster than 128.
    fn is_narrow(&self) -> bool {
        self.reference_rows < NARROW_ROWS && self.current_rows < NARROW_ROWS
    }

    /// r n_cur and c n_ref for each bin, exact, as (their difference, their sum).
    pub(crate) fn crossed(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let narrow = self.is_narrow();
        self.reference
            .iter()
            .zip(self.current)
            .map(move |(&r, &c)| {
                if narrow {
                    let (a, b) = (r * self.current_rows, c * self.reference_rows);
                    ((a as i64 - b as i64) as f64, (a + b) as f64)
                } else {
                    let a = u128::from(r) * u128::from(self.current_rows);
                    let b = u128::from(c) * u128::from(self.reference_rows);
                    ((a as i128 - b as i128) as f64, (a + b) as f64)
                }
            })
    }
}

/// The sum of one side's counts, refused at 0 and from 2^63 on.
pub(crate) fn rows(counts: &[u64], side: Side) -> Result<u64, StatisticsError> {
    let mut sum = 0_u64;
    for &count in counts {
        sum = sum
            .checked_add(count)
            .filter(|&sum| sum < 1 << 63)
            .ok_or(StatisticsError::TooManyRows(side))?;
    }
    if sum == 0 {
        return Err(StatisticsError::Empty(side));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which two slices are no pair is told apart.
    #[test]
    fn what_is_no_pair_is_refused() {
        assert_eq!(
            Pair::new(&[1, 2], &[1]).unwrap_err(),
            StatisticsError::BinCountsDiffer {
                reference: 2,
                current: 1
            }
        );
        assert_eq!(
            Pair::new(&[], &[]).unwrap_err(),
            StatisticsError::Empty(Side::Reference)
        );
        assert_eq!(
            Pair::new(&[0, 0], &[1, 0]).unwrap_err(),
            StatisticsError::Empty(Side::Reference)
        );
        assert_eq!(
            Pair::new(&[0, 3], &[0, 0]).unwrap_err(),
            StatisticsError::Empty(Side::Current)
        );
        assert_eq!(
            Pair::new(&[1, u64::MAX], &[1, 1]).unwrap_err(),
            StatisticsError::TooManyRows(Side::Reference)
        );
    }

    /// The 64-bit and 128-bit paths give the same bits where both apply: crossing the switch by a
    /// common factor changes nothing.
    #[test]
    fn wide_counts_answer_as_narrow_ones() {
        let (r, c) = ([3_u64, 5, 0, 9], [1_u64, 0, 2, 4]);
        let wide: Vec<u64> = r.iter().map(|x| x << 40).collect();
        let narrow = Pair::new(&r, &c).unwrap();
        let pair = Pair::new(&wide, &c).unwrap();
        assert!(narrow.is_narrow() && !pair.is_narrow());
        assert_eq!(narrow.total_variation(), pair.total_variation());
        assert_eq!(narrow.hellinger(), pair.hellinger());
        assert_eq!(
            narrow.jensen_shannon(LogBase::Two),
            pair.jensen_shannon(LogBase::Two)
        );
        assert_eq!(narrow.kolmogorov_smirnov().d, pair.kolmogorov_smirnov().d);
    }
}
