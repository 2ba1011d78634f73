//! Distances of weighted samples, for rows that stand for more than themselves.

use crate::error::{Side, StatisticsError};

/// Values with a weight each. Weights are relative: they are divided by their sum.
#[derive(Clone, Copy, Debug)]
pub struct Weighted<'a> {
    values: &'a [f64],
    weights: Option<&'a [f64]>,
}

impl<'a> Weighted<'a> {
    /// Values that all weigh the same.
    #[must_use]
    pub fn equal(values: &'a [f64]) -> Self {
        Self {
            values,
            weights: None,
        }
    }

    /// Values with their weights.
    ///
    /// # Errors
    /// [`StatisticsError::WrongLength`] when there is not one weight a value, and
    /// [`StatisticsError::BadParameter`] when a weight is negative or not finite.
    pub fn new(values: &'a [f64], weights: &'a [f64]) -> Result<Self, StatisticsError> {
        if values.len() != weights.len() {
            return Err(StatisticsError::WrongLength {
                what: "weights of a sample",
                expected: values.len(),
                got: weights.len(),
            });
        }
        match weights
            .iter()
            .find(|weight| !(weight.is_finite() && **weight >= 0.0))
        {
            Some(&value) => Err(StatisticsError::BadParameter {
                parameter: "weight",
                value,
                allowed: "0 or more, and finite",
            }),
            None => Ok(Self {
                values,
                weights: Some(weights),
            }),
        }
    }

    /// (value, share) by ascending value. Shares add up to 1.
    fn shares(&self, side: Side) -> Result<Vec<(f64, f64)>, StatisticsError> {
        if let Some(index) = self.values.iter().position(|value| !value.is_finite()) {
            return Err(StatisticsError::NonFinite {
                what: "a weighted sample",
                index,
            });
        }
        let total = match self.weights {
            Some(weights) => weights.iter().sum(),
            None => self.values.len() as f64,
        };
        if total == 0.0 {
            return Err(StatisticsError::Empty(side));
        }
        if !f64::is_finite(total) {
            return Err(StatisticsError::BadParameter {
                parameter: "sum of weights",
                value: total,
                allowed: "finite",
            });
        }
        let weight = |i: usize| self.weights.map_or(1.0, |weights| weights[i]);
        let mut shares: Vec<(f64, f64)> = self
            .values
            .iter()
            .enumerate()
            .map(|(i, &value)| (value + 0.0, weight(i) / total))
            .collect();
        // By share as well, so that the order of arrival changes no bit.
        shares.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        Ok(shares)
    }
}

/// ∫ f(F_ref − F_cur) over the line.
fn integrate(
    reference: Weighted<'_>,
    current: Weighted<'_>,
    f: impl Fn(f64) -> f64,
) -> Result<f64, StatisticsError> {
    let a = reference.shares(Side::Reference)?;
    let b = current.shares(Side::Current)?;
    let (mut i, mut j) = (0, 0);
    // Running sums per side, as SciPy's cumulative weights: rounding does not mix the sides.
    let (mut below_a, mut below_b) = (0.0, 0.0);
    let mut before: Option<f64> = None;
    let mut sum = 0.0;
    while i < a.len() || j < b.len() {
        let from_a = j >= b.len() || (i < a.len() && a[i].0 <= b[j].0);
        let (value, share) = if from_a { a[i] } else { b[j] };
        if let Some(before) = before {
            sum += f(below_a - below_b) * (value - before);
        }
        before = Some(value);
        if from_a {
            below_a += share;
            i += 1;
        } else {
            below_b += share;
            j += 1;
        }
    }
    Ok(sum)
}

/// Wasserstein-1 distance of two weighted samples, in the unit of the values.
///
/// # Errors
/// [`StatisticsError::NonFinite`] at a value that is not finite, [`StatisticsError::Empty`] when a
/// side has no values or only weights of 0.
pub fn wasserstein(reference: Weighted<'_>, current: Weighted<'_>) -> Result<f64, StatisticsError> {
    integrate(reference, current, f64::abs)
}

/// Energy distance of two weighted samples, in the root of the values' unit.
///
/// # Errors
/// As [`wasserstein`].
pub fn energy(reference: Weighted<'_>, current: Weighted<'_>) -> Result<f64, StatisticsError> {
    Ok((2.0 * integrate(reference, current, |gap| gap * gap)?).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Samples;
    use proptest::prelude::*;

    /// SciPy's documented example.
    #[test]
    fn documented_example() {
        let a = Weighted::new(&[4.5, 6.7, 2.1], &[3.0, 1.0, 1.0]).unwrap();
        let b = Weighted::new(&[4.6, 7.0, 9.2], &[1.0, 3.0, 1.0]).unwrap();
        assert!((wasserstein(a, b).unwrap() - 2.5).abs() < 1e-14);
        let (zero, one) = (Weighted::equal(&[0.0]), Weighted::equal(&[1.0]));
        assert_eq!(energy(zero, one).unwrap(), 2f64.sqrt());
    }

    #[test]
    fn bad_weights_are_refused() {
        assert!(Weighted::new(&[1.0], &[1.0, 2.0]).is_err());
        assert!(Weighted::new(&[1.0], &[-1.0]).is_err());
        assert!(Weighted::new(&[1.0], &[f64::NAN]).is_err());
        let one = Weighted::equal(&[1.0]);
        let weightless = Weighted::new(&[1.0], &[0.0]).unwrap();
        assert_eq!(
            wasserstein(one, weightless),
            Err(StatisticsError::Empty(Side::Current))
        );
        assert_eq!(
            wasserstein(Weighted::equal(&[]), one),
            Err(StatisticsError::Empty(Side::Reference))
        );
    }

    proptest! {
        /// A weight of k is the same as k equal rows, and unweighted is what `Samples` says.
        #[test]
        fn weights_are_repetitions(
            x in prop::collection::vec((-9.0..9.0_f64, 1_usize..4), 1..30),
            y in prop::collection::vec(-9.0..9.0_f64, 1..30),
        ) {
            let repeated: Vec<f64> =
                x.iter().flat_map(|&(v, k)| std::iter::repeat_n(v, k)).collect();
            let (values, weights): (Vec<f64>, Vec<f64>) =
                x.iter().map(|&(v, k)| (v, k as f64)).unzip();
            let weighted = Weighted::new(&values, &weights).unwrap();
            let raw = Samples::new(&repeated, &y).unwrap();
            let current = Weighted::equal(&y);
            prop_assert!((wasserstein(weighted, current).unwrap() - raw.wasserstein().unwrap()).abs() < 1e-12);
            prop_assert!((energy(weighted, current).unwrap() - raw.energy().unwrap()).abs() < 1e-7);
        }
    }
}
