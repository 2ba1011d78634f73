//! The Epps-Singleton test: it compares empirical characteristic functions, and so does not need the
//! continuity that rank tests rest on.

use super::ascending;
use crate::error::{Side, StatisticsError};
use crate::hypothesis::Outcome;
use crate::special::chi_square_sf;

/// Where the characteristic functions are compared, in units of 1/(semi-interquartile range)
/// (Epps and Singleton 1986).
const POINTS: [f64; 2] = [0.4, 0.8];
const SIZE: usize = 2 * POINTS.len();
/// Below this share of the largest, a pivot of the covariance is 0 but for rounding.
const RANK_TOLERANCE: f64 = 1e-13;

type Vector = [f64; SIZE];
type Square = [Vector; SIZE];

/// Epps-Singleton two-sample test at t = 0.4 and 0.8. The statistic is about chi-square with 4 degrees
/// of freedom; samples below 25 rows a side have the paper's small-sample correction. As SciPy's
/// `epps_singleton_2samp`, but refusing where the covariance is singular.
///
/// # Errors
/// [`StatisticsError::NonFinite`], [`StatisticsError::TooFewRows`] below 5 rows a side, and
/// [`StatisticsError::NoSpread`] when the covariance of the characteristic functions is singular
/// (almost all values equal, or only two of them).
pub fn epps_singleton(reference: &[f64], current: &[f64]) -> Result<Outcome, StatisticsError> {
    const NO_SPREAD: StatisticsError = StatisticsError::NoSpread {
        what: "the epps-singleton statistic",
    };
    let mut pooled = Vec::with_capacity(reference.len() + current.len());
    for (side, sample) in [(Side::Reference, reference), (Side::Current, current)] {
        pooled.extend(ascending(sample, side)?);
        if sample.len() < 5 {
            return Err(StatisticsError::TooFewRows {
                side,
                test: "epps-singleton",
                needed: 5,
                rows: sample.len() as u64,
            });
        }
    }
    pooled.sort_unstable_by(f64::total_cmp);
    let semi_range = 0.5 * (quantile(&pooled, 0.75) - quantile(&pooled, 0.25));
    if semi_range <= 0.0 {
        return Err(NO_SPREAD);
    }
    let (n, m) = (reference.len() as f64, current.len() as f64);
    let rows = n + m;
    let (mean_a, spread_a) = characteristic(reference, semi_range);
    let (mean_b, spread_b) = characteristic(current, semi_range);
    let mut covariance = [[0.0; SIZE]; SIZE];
    for (i, row) in covariance.iter_mut().enumerate() {
        for (j, cell) in row.iter_mut().enumerate() {
            *cell = rows / n * spread_a[i][j] + rows / m * spread_b[i][j];
        }
    }
    let difference: Vector = std::array::from_fn(|i| mean_a[i] - mean_b[i]);
    let form = inverse_form(covariance, difference).ok_or(NO_SPREAD)?;
    let mut statistic = rows * form;
    if n.max(m) < 25.0 {
        statistic /= 1.0 + rows.powf(-0.45) + 10.1 * (n.powf(-1.7) + m.powf(-1.7));
    }
    Ok(Outcome {
        statistic,
        p_value: chi_square_sf(statistic, SIZE as f64),
    })
}

/// Quantile by linear interpolation between order statistics (NumPy's default).
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let place = p * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

/// Mean and covariance (divisor n) of (cos t₁x, cos t₂x, sin t₁x, sin t₂x).
fn characteristic(sample: &[f64], scale: f64) -> (Vector, Square) {
    let n = sample.len() as f64;
    let waves = |x: f64| -> Vector {
        let (sin_1, cos_1) = (POINTS[0] / scale * x).sin_cos();
        let (sin_2, cos_2) = (POINTS[1] / scale * x).sin_cos();
        [cos_1, cos_2, sin_1, sin_2]
    };
    let mut mean = [0.0; SIZE];
    for &x in sample {
        for (sum, wave) in mean.iter_mut().zip(waves(x)) {
            *sum += wave / n;
        }
    }
    let mut spread = [[0.0; SIZE]; SIZE];
    for &x in sample {
        let wave = waves(x);
        for (i, row) in spread.iter_mut().enumerate() {
            for (j, cell) in row.iter_mut().enumerate() {
                *cell += (wave[i] - mean[i]) * (wave[j] - mean[j]) / n;
            }
        }
    }
    (mean, spread)
}

/// v' S⁻¹ v by Cholesky's factorisation, or `None` when S is singular.
fn inverse_form(mut s: Square, mut v: Vector) -> Option<f64> {
    let largest = (0..SIZE).map(|i| s[i][i]).fold(0.0, f64::max);
    let mut form = 0.0;
    for k in 0..SIZE {
        let pivot = s[k][k];
        if pivot <= largest * RANK_TOLERANCE {
            return None;
        }
        form += v[k] * v[k] / pivot;
        let (row, above) = (s[k], v[k]);
        for i in k + 1..SIZE {
            let factor = s[i][k] / pivot;
            v[i] -= factor * above;
            for (cell, over) in s[i].iter_mut().zip(row).skip(k + 1) {
                *cell -= factor * over;
            }
        }
    }
    Some(form)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that do not vary enough for the test are refused.
    #[test]
    fn what_cannot_be_tested_is_refused() {
        assert!(epps_singleton(&[1.0; 4], &[1.0; 9]).is_err());
        assert!(matches!(
            epps_singleton(&[1.0; 6], &[1.0; 9]),
            Err(StatisticsError::NoSpread { .. })
        ));
        let two = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        assert!(matches!(
            epps_singleton(&two, &two),
            Err(StatisticsError::NoSpread { .. })
        ));
    }
}
