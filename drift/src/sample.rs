//! Distances and tests on raw values: where rows, and not profiles, are at hand.
//!
//! [`Samples`] sorts both sides once and makes one bin of every distinct value. That histogram loses
//! nothing, so each statistic is that of [`crate::distance`] and [`crate::hypothesis`] on it: the raw
//! and the binned answers come from the same code, and ties need no second thought. Sorting is
//! O(n log n), all else linear. Answers equal SciPy's 1.17 where it has the test; differences are
//! in [`crate::compat::scipy`].
//!
//! # Layout
//!
//! - `weighted`: Wasserstein and energy distance of weighted samples
//! - `epps_singleton`: the Epps-Singleton test, which does not work on ranks

mod epps_singleton;
mod weighted;

pub use epps_singleton::epps_singleton;
pub use weighted::{Weighted, energy, wasserstein};

use crate::distance::{KolmogorovSmirnov, Pair, Placement, in_deviations};
use crate::error::{Side, StatisticsError};
use crate::hypothesis::{
    self, Alternative, AndersonDarling, CramerVonMises, CramerVonMisesMode, KsMode, MannWhitney,
    MannWhitneyMode, Moments, Outcome, TTest, Ties, Variances,
};

/// Two samples, as one histogram with a bin per distinct value.
#[derive(Clone, Debug)]
pub struct Samples {
    values: Vec<f64>,
    reference: Vec<u64>,
    current: Vec<u64>,
    reference_moments: Moments,
    current_moments: Moments,
}

impl Samples {
    /// Sorts and pairs two samples. −0 and 0 are the same value.
    ///
    /// # Errors
    /// [`StatisticsError::NonFinite`] at the first NaN or infinity of a side, and
    /// [`StatisticsError::Empty`] when a side has no values.
    pub fn new(reference: &[f64], current: &[f64]) -> Result<Self, StatisticsError> {
        let a = ascending(reference, Side::Reference)?;
        let b = ascending(current, Side::Current)?;
        let mut samples = Self {
            values: Vec::new(),
            reference: Vec::new(),
            current: Vec::new(),
            // In ascending order, so that the order of arrival changes no bit.
            reference_moments: Moments::from_values(&a)?,
            current_moments: Moments::from_values(&b)?,
        };
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            let value = match (a.get(i), b.get(j)) {
                (Some(&x), Some(&y)) => x.min(y),
                (Some(&x), None) | (None, Some(&x)) => x,
                (None, None) => break,
            };
            let run = |sorted: &[f64]| sorted.iter().take_while(|&&x| x == value).count();
            let (from_a, from_b) = (run(&a[i..]), run(&b[j..]));
            i += from_a;
            j += from_b;
            samples.values.push(value);
            samples.reference.push(from_a as u64);
            samples.current.push(from_b as u64);
        }
        Ok(samples)
    }

    /// The distinct values, ascending.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Both sides as counts per distinct value, for whatever [`Pair`] offers.
    #[must_use]
    pub fn pair(&self) -> Pair<'_> {
        Pair::of_checked(
            &self.reference,
            &self.current,
            self.reference_moments.rows,
            self.current_moments.rows,
        )
    }

    /// Moments of the reference and of the present.
    #[must_use]
    pub fn moments(&self) -> (&Moments, &Moments) {
        (&self.reference_moments, &self.current_moments)
    }

    /// The Kolmogorov-Smirnov statistic and the value where it is reached.
    #[must_use]
    pub fn kolmogorov_smirnov_statistic(&self) -> (KolmogorovSmirnov, f64) {
        let statistic = self.pair().kolmogorov_smirnov();
        (statistic, self.values[statistic.bin])
    }

    /// Two-sided Kolmogorov-Smirnov test; [`KsMode::Auto`] and [`KsMode::FiniteSample`] are SciPy's
    /// `auto` and `asymp`.
    ///
    /// # Errors
    /// As [`hypothesis::kolmogorov_smirnov`].
    pub fn kolmogorov_smirnov(&self, mode: KsMode) -> Result<Outcome, StatisticsError> {
        hypothesis::kolmogorov_smirnov(self.pair(), mode)
    }

    /// Kuiper's test.
    #[must_use]
    pub fn kuiper(&self) -> Outcome {
        hypothesis::kuiper(self.pair())
    }

    /// Wasserstein-1 distance in the unit of the values.
    ///
    /// # Errors
    /// None that [`Samples::new`] has not refused already.
    pub fn wasserstein(&self) -> Result<f64, StatisticsError> {
        self.pair().wasserstein(Placement::Points(&self.values))
    }

    /// Wasserstein-1 distance in standard deviations (population form) of the reference.
    ///
    /// # Errors
    /// [`StatisticsError::NoSpread`] when the reference does not vary and the distance is not 0.
    pub fn wasserstein_in_deviations(&self) -> Result<f64, StatisticsError> {
        let rows = self.reference_moments.rows as f64;
        let deviation = (self.reference_moments.variance * (rows - 1.0) / rows).sqrt();
        in_deviations(self.wasserstein()?, deviation)
    }

    /// Energy distance in the root of the values' unit.
    ///
    /// # Errors
    /// None that [`Samples::new`] has not refused already.
    pub fn energy(&self) -> Result<f64, StatisticsError> {
        self.pair().energy(Placement::Points(&self.values))
    }

    /// Mann-Whitney U test; U is the reference's.
    ///
    /// # Errors
    /// As [`hypothesis::mann_whitney`].
    pub fn mann_whitney(
        &self,
        alternative: Alternative,
        mode: MannWhitneyMode,
    ) -> Result<MannWhitney, StatisticsError> {
        hypothesis::mann_whitney(self.pair(), alternative, mode)
    }

    /// t test, by Welch or Student.
    ///
    /// # Errors
    /// As [`hypothesis::t_test`].
    pub fn t_test(&self, variances: Variances) -> Result<TTest, StatisticsError> {
        hypothesis::t_test(&self.reference_moments, &self.current_moments, variances)
    }

    /// Cramér-von Mises test.
    ///
    /// # Errors
    /// As [`hypothesis::cramer_von_mises`].
    pub fn cramer_von_mises(
        &self,
        mode: CramerVonMisesMode,
    ) -> Result<CramerVonMises, StatisticsError> {
        hypothesis::cramer_von_mises(self.pair(), mode)
    }

    /// Two-sample Anderson-Darling test.
    ///
    /// # Errors
    /// As [`hypothesis::anderson_darling`].
    pub fn anderson_darling(&self, ties: Ties) -> Result<AndersonDarling, StatisticsError> {
        hypothesis::anderson_darling(self.pair(), ties)
    }
}

/// Counts of each sample over the distinct values of all, for tests of more than two samples.
///
/// # Errors
/// [`StatisticsError::NonFinite`] and [`StatisticsError::Empty`], as [`Samples::new`].
pub fn counts_over_values(samples: &[&[f64]]) -> Result<Vec<Vec<u64>>, StatisticsError> {
    let mut tagged = Vec::with_capacity(samples.iter().map(|sample| sample.len()).sum());
    for (i, sample) in samples.iter().enumerate() {
        let side = if i == 0 {
            Side::Reference
        } else {
            Side::Current
        };
        tagged.extend(ascending(sample, side)?.into_iter().map(|value| (value, i)));
    }
    tagged.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts = vec![Vec::new(); samples.len()];
    let mut before = None;
    for (value, i) in tagged {
        if before != Some(value) {
            counts.iter_mut().for_each(|row| row.push(0));
            before = Some(value);
        }
        if let Some(last) = counts[i].last_mut() {
            *last += 1;
        }
    }
    Ok(counts)
}

/// The values in ascending order, none of them NaN or infinite.
fn ascending(values: &[f64], side: Side) -> Result<Vec<f64>, StatisticsError> {
    let what = match side {
        Side::Reference => "the reference sample",
        Side::Current => "the current sample",
    };
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(StatisticsError::NonFinite { what, index });
    }
    if values.is_empty() {
        return Err(StatisticsError::Empty(side));
    }
    // Adding 0 turns −0 into 0, which total order would tell apart.
    let mut sorted: Vec<f64> = values.iter().map(|value| value + 0.0).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The histogram of distinct values keeps every row, and −0 joins 0.
    #[test]
    fn one_bin_per_distinct_value() {
        let samples = Samples::new(&[2.0, -0.0, 2.0], &[0.0, 3.0]).unwrap();
        assert_eq!(samples.values(), [0.0, 2.0, 3.0]);
        assert_eq!(samples.pair().reference(), [1, 2, 0]);
        assert_eq!(samples.pair().current(), [1, 0, 1]);
        let (ks, at) = samples.kolmogorov_smirnov_statistic();
        assert_eq!((ks.d, at), (0.5, 2.0));
        let counts = counts_over_values(&[&[2.0, -0.0, 2.0], &[0.0, 3.0], &[9.0]]).unwrap();
        assert_eq!(counts, [[1, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]);
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        assert_eq!(
            Samples::new(&[1.0, f64::NAN], &[1.0]).unwrap_err(),
            StatisticsError::NonFinite {
                what: "the reference sample",
                index: 1
            }
        );
        assert!(matches!(
            Samples::new(&[1.0], &[f64::INFINITY]),
            Err(StatisticsError::NonFinite { index: 0, .. })
        ));
        assert_eq!(
            Samples::new(&[1.0], &[]).unwrap_err(),
            StatisticsError::Empty(Side::Current)
        );
    }

    /// A reference that never varied has no unit: said, not divided by zero.
    #[test]
    fn no_spread_is_said() {
        let stuck = Samples::new(&[4.0; 5], &[4.0, 5.0]).unwrap();
        assert!(matches!(
            stuck.wasserstein_in_deviations(),
            Err(StatisticsError::NoSpread { .. })
        ));
        let same = Samples::new(&[4.0; 5], &[4.0; 2]).unwrap();
        assert_eq!(same.wasserstein_in_deviations().unwrap(), 0.0);
    }

    fn sample() -> impl Strategy<Value = Vec<f64>> {
        // Whole and broken numbers, so that ties occur.
        prop::collection::vec(
            prop_oneof![-5.0..5.0_f64, (-4_i32..4).prop_map(f64::from)],
            4..60,
        )
    }

    proptest! {
        /// Order of arrival changes no bit, and sides can be exchanged.
        #[test]
        fn order_does_not_matter(x in sample(), y in sample()) {
            let mut backwards = x.clone();
            backwards.reverse();
            let (a, b) = (Samples::new(&x, &y).unwrap(), Samples::new(&backwards, &y).unwrap());
            prop_assert_eq!(a.wasserstein().unwrap(), b.wasserstein().unwrap());
            prop_assert_eq!(a.moments(), b.moments());
            let cvm = |s: &Samples| s.cramer_von_mises(CramerVonMisesMode::Auto).unwrap();
            prop_assert_eq!(cvm(&a), cvm(&b));
            let back = Samples::new(&y, &x).unwrap();
            let ks = |s: &Samples| s.kolmogorov_smirnov(KsMode::Auto).unwrap();
            prop_assert!((ks(&a).p_value - ks(&back).p_value).abs() < 1e-12);
            let mw = |s: &Samples| {
                s.mann_whitney(Alternative::TwoSided, MannWhitneyMode::Auto).unwrap()
            };
            prop_assert!((mw(&a).superiority + mw(&back).superiority - 1.0).abs() < 1e-12);
            prop_assert!((mw(&a).p_value - mw(&back).p_value).abs() < 1e-12);
        }

        /// A strictly increasing change of scale leaves every rank statistic alone.
        #[test]
        fn rank_tests_see_ranks_only(x in sample(), y in sample()) {
            let bend = |v: &[f64]| v.iter().map(|v| v.exp() + v).collect::<Vec<f64>>();
            let (a, b) =
                (Samples::new(&x, &y).unwrap(), Samples::new(&bend(&x), &bend(&y)).unwrap());
            prop_assert_eq!(a.pair().reference(), b.pair().reference());
            prop_assert_eq!(a.kuiper(), b.kuiper());
            prop_assume!(a.values().len() > 1);
            prop_assert_eq!(
                a.anderson_darling(Ties::Midrank).unwrap(),
                b.anderson_darling(Ties::Midrank).unwrap()
            );
        }

        /// A shift of everything moves Wasserstein by exactly the shift of the means.
        #[test]
        fn a_shift_is_its_size(x in sample(), by in -3.0..3.0_f64) {
            let moved: Vec<f64> = x.iter().map(|v| v + by).collect();
            let samples = Samples::new(&x, &moved).unwrap();
            prop_assert!((samples.wasserstein().unwrap() - by.abs()).abs() < 1e-12);
        }

        /// With ever finer bins the binned distances are those of the raw values: with 4,096 bins over
        /// the range, Wasserstein is off by at most a bin, and Kolmogorov-Smirnov never by more
        /// than what shares its bin.
        #[test]
        fn fine_bins_agree_with_raw(x in sample(), y in sample()) {
            const BINS: usize = 4096;
            let (low, high) = (-5.0, 5.0);
            let width = (high - low) / BINS as f64;
            let count = |v: &[f64]| {
                let mut counts = vec![0_u64; BINS];
                for value in v {
                    let bin = ((value - low) / width) as usize;
                    counts[bin.min(BINS - 1)] += 1;
                }
                counts
            };
            let (r, c) = (count(&x), count(&y));
            let binned = Pair::new(&r, &c).unwrap();
            let raw = Samples::new(&x, &y).unwrap();
            let middles: Vec<f64> = (0..BINS).map(|i| low + (i as f64 + 0.5) * width).collect();
            let w = binned.wasserstein(Placement::Points(&middles)).unwrap();
            prop_assert!((w - raw.wasserstein().unwrap()).abs() <= width * 1.001);
            let mixed = r.iter().zip(&c).filter(|(r, c)| **r + **c > 1).count();
            let (d, d_raw) = (binned.kolmogorov_smirnov().d, raw.pair().kolmogorov_smirnov().d);
            prop_assert!(d <= d_raw + 1e-12);
            let crowded = r.iter().zip(&c)
                .map(|(&r, &c)| (r as f64 / x.len() as f64).max(c as f64 / y.len() as f64))
                .fold(0.0, f64::max);
            prop_assert!(mixed == 0 || d_raw - d <= crowded + 1e-12);
        }
    }
}
