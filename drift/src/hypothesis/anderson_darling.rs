//! The k-sample Anderson-Darling test of Scholz and Stephens ("K-sample Anderson-Darling tests",
//! JASA 82, 1987).

use crate::distance::{Pair, rows};
use crate::error::{Side, StatisticsError};
use crate::special::anderson_darling_sf;
use std::f64::consts::PI;

/// How tied rows are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ties {
    /// The empirical distribution functions are taken in the middle of their steps (equation 7); right
    /// for data with ties, such as bins.
    #[default]
    Midrank,
    /// They are taken after their steps (equation 6).
    Right,
}

/// The outcome of a k-sample Anderson-Darling test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AndersonDarling {
    /// A², with mean k − 1 when nothing has changed.
    pub a_squared: f64,
    /// (A² − (k − 1)) / σ_N: the standardised statistic that is tabulated, and that SciPy reports.
    pub statistic: f64,
    /// p-value: from the limiting distribution for two samples (accurate far into the tail), else
    /// [`AndersonDarling::interpolated_p`].
    pub p_value: f64,
    /// Interpolated in Scholz and Stephens' table 2 as SciPy does, between 0.001 and 0.25 and cut off
    /// there.
    pub interpolated_p: f64,
}

/// Two-sample Anderson-Darling test of a pair with bins in ascending order: like Cramér-von Mises
/// with the tails weighted up.
///
/// # Errors
/// As [`anderson_darling_k`].
pub fn anderson_darling(pair: Pair<'_>, ties: Ties) -> Result<AndersonDarling, StatisticsError> {
    anderson_darling_k(&[pair.reference(), pair.current()], ties)
}

/// k-sample Anderson-Darling test. Each sample is its counts over the same bins, in ascending order.
///
/// # Errors
/// [`StatisticsError::WrongLength`] with fewer than two samples, [`StatisticsError::BinCountsDiffer`]
/// when bins differ, [`StatisticsError::Empty`] when a sample has no rows, [`StatisticsError::TooManyRows`] at 2^63,
/// [`StatisticsError::TooFewRows`] with fewer than four rows in all, and
/// [`StatisticsError::NoSpread`] when all rows are in one bin.
pub fn anderson_darling_k(
    samples: &[&[u64]],
    ties: Ties,
) -> Result<AndersonDarling, StatisticsError> {
    let k = samples.len();
    if k < 2 {
        return Err(StatisticsError::WrongLength {
            what: "samples",
            expected: 2,
            got: k,
        });
    }
    let bins = samples[0].len();
    let mut total = 0_u64;
    let mut inverse_sizes = 0.0;
    for (i, sample) in samples.iter().enumerate() {
        let side = if i == 0 {
            Side::Reference
        } else {
            Side::Current
        };
        if sample.len() != bins {
            return Err(StatisticsError::BinCountsDiffer {
                reference: bins,
                current: sample.len(),
            });
        }
        let rows = rows(sample, side)?;
        total = total
            .checked_add(rows)
            .filter(|&total| total < 1 << 63)
            .ok_or(StatisticsError::TooManyRows(side))?;
        inverse_sizes += 1.0 / rows as f64;
    }
    if total < 4 {
        return Err(StatisticsError::TooFewRows {
            side: Side::Current,
            test: "anderson-darling",
            needed: 4,
            rows: total,
        });
    }
    let filled = (0..bins)
        .filter(|&bin| samples.iter().any(|sample| sample[bin] > 0))
        .count();
    if filled < 2 {
        return Err(StatisticsError::NoSpread {
            what: "the anderson-darling statistic",
        });
    }
    let a_squared: f64 = samples
        .iter()
        .map(|sample| part(samples, sample, total, ties))
        .sum();
    let a_squared = match ties {
        Ties::Midrank => a_squared * (total as f64 - 1.0) / total as f64,
        Ties::Right => a_squared,
    };
    let degrees = (k - 1) as f64;
    let statistic = (a_squared - degrees) / variance(k as f64, total as f64, inverse_sizes).sqrt();
    let interpolated_p = interpolate(statistic, degrees);
    let p_value = if k == 2 {
        // The limit has mean 1 and variance 2 (π²/3 − 3); σ_N carries the finite sample's.
        anderson_darling_sf(1.0 + statistic * (2.0 * (PI * PI / 3.0 - 3.0)).sqrt())
    } else {
        interpolated_p
    };
    Ok(AndersonDarling {
        a_squared,
        statistic,
        p_value,
        interpolated_p,
    })
}

/// One sample's part of A²: Σ over bins of l/N (N M − n B)² / (B (N − B) [− N l / 4]), over its rows n.
fn part(samples: &[&[u64]], sample: &[u64], total: u64, ties: Ties) -> f64 {
    let size: u64 = sample.iter().sum();
    let (n, rows) = (size as f64, total as f64);
    let (mut below_all, mut below) = (0_u64, 0_u64);
    let mut sum = 0.0;
    for (bin, &own) in sample.iter().enumerate() {
        let here: u64 = samples.iter().map(|other| other[bin]).sum();
        if here == 0 {
            continue;
        }
        let width = here as f64;
        // Doubled positions are whole numbers: B and M in half rows.
        let (twice_b, twice_m) = match ties {
            Ties::Midrank => (
                2 * u128::from(below_all) + u128::from(here),
                2 * u128::from(below) + u128::from(own),
            ),
            Ties::Right => (
                2 * u128::from(below_all + here),
                2 * u128::from(below + own),
            ),
        };
        below_all += here;
        below += own;
        let gap =
            0.5 * (u128::from(total) * twice_m) as f64 - 0.5 * (u128::from(size) * twice_b) as f64;
        let b = 0.5 * twice_b as f64;
        let scale = match ties {
            Ties::Midrank => b * (rows - b) - rows * width / 4.0,
            Ties::Right => b * (rows - b),
        };
        if scale > 0.0 {
            sum += width / rows * gap * gap / scale;
        }
    }
    sum / n
}

/// σ²_N of A² for k samples of N rows in all (equation 4). H_N and its second-order kin are closed
/// forms, so this does not grow with N: g = H⁽²⁾_N − (2 H_N − 1/N) / N.
fn variance(k: f64, rows: f64, inverse_sizes: f64) -> f64 {
    let all = harmonic(rows);
    let h = all - 1.0 / rows;
    let g = harmonic_squares(rows) - (2.0 * all - 1.0 / rows) / rows;
    let a = (4.0 * g - 6.0) * (k - 1.0) + (10.0 - 6.0 * g) * inverse_sizes;
    let b = (2.0 * g - 4.0) * k * k + 8.0 * h * k + (2.0 * g - 14.0 * h - 4.0) * inverse_sizes
        - 8.0 * h
        + 4.0 * g
        - 6.0;
    let c = (6.0 * h + 2.0 * g - 2.0) * k * k
        + (4.0 * h - 4.0 * g + 6.0) * k
        + (2.0 * h - 6.0) * inverse_sizes
        + 4.0 * h;
    let d = (2.0 * h + 6.0) * k * k - 4.0 * h * k;
    // Horner in 1/N: cubes of N would pass 2^53 long before N does.
    let u = 1.0 / rows;
    (a + u * (b + u * (c + u * d))) / ((1.0 - u) * (1.0 - 2.0 * u) * (1.0 - 3.0 * u))
}

/// From here the asymptotic series of the harmonic numbers have full accuracy.
const HARMONIC_SERIES_FROM: f64 = 64.0;

/// H_n = Σ 1/i.
fn harmonic(n: f64) -> f64 {
    const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
    if n < HARMONIC_SERIES_FROM {
        return (1..=n as u32).rev().map(|i| 1.0 / f64::from(i)).sum();
    }
    let r = 1.0 / (n * n);
    n.ln() + EULER_GAMMA + 0.5 / n - r * (1.0 / 12.0 - r * (1.0 / 120.0 - r / 252.0))
}

/// H⁽²⁾_n = Σ 1/i².
fn harmonic_squares(n: f64) -> f64 {
    if n < HARMONIC_SERIES_FROM {
        return (1..=n as u32)
            .rev()
            .map(|i| 1.0 / (f64::from(i) * f64::from(i)))
            .sum();
    }
    let u = 1.0 / n;
    PI * PI / 6.0 - u * (1.0 - u * (0.5 - u * (1.0 / 6.0 - u * u * (1.0 / 30.0 - u * u / 42.0))))
}

/// ln p by a parabola fitted to table 2 of the paper at `degrees` = k − 1, cut off at the table's ends.
fn interpolate(statistic: f64, degrees: f64) -> f64 {
    const LEVELS: [f64; 7] = [0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001];
    const B0: [f64; 7] = [0.675, 1.281, 1.645, 1.96, 2.326, 2.573, 3.085];
    const B1: [f64; 7] = [-0.245, 0.25, 0.678, 1.149, 1.822, 2.364, 3.615];
    const B2: [f64; 7] = [-0.105, -0.305, -0.362, -0.391, -0.396, -0.345, -0.154];
    let critical: [f64; 7] =
        std::array::from_fn(|i| B0[i] + B1[i] / degrees.sqrt() + B2[i] / degrees);
    if statistic < critical[0] {
        return LEVELS[0];
    }
    if statistic > critical[6] {
        return LEVELS[6];
    }
    // Least squares with polynomials that are orthogonal on the critical values: 1, u, and u² made
    // orthogonal to both.
    let middle = critical.iter().sum::<f64>() / 7.0;
    let u = critical.map(|x| x - middle);
    let s2: f64 = u.iter().map(|x| x * x).sum();
    let s3: f64 = u.iter().map(|x| x * x * x).sum();
    let second = |x: f64| x * x - s3 / s2 * x - s2 / 7.0;
    let norm: f64 = u.iter().map(|&x| second(x) * second(x)).sum();
    let logs = LEVELS.map(f64::ln);
    let c0 = logs.iter().sum::<f64>() / 7.0;
    let c1 = u.iter().zip(logs).map(|(x, y)| x * y).sum::<f64>() / s2;
    let c2 = u.iter().zip(logs).map(|(&x, y)| second(x) * y).sum::<f64>() / norm;
    let x = statistic - middle;
    (c0 + c1 * x + c2 * second(x)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed harmonic numbers join their sums.
    #[test]
    fn harmonic_numbers() {
        let direct: f64 = (1..=64).rev().map(|i| 1.0 / f64::from(i)).sum();
        assert!((harmonic(64.0) - direct).abs() < 1e-14);
        let direct: f64 = (1..=64).rev().map(|i| 1.0 / f64::from(i * i)).sum();
        assert!((harmonic_squares(64.0) - direct).abs() < 1e-14);
        // g by its definition, Σ_i Σ_{j>i} 1 / ((N − i) j)
        for rows in [4_u32, 7, 50] {
            let mut g = 0.0;
            for i in 1..rows - 1 {
                for j in i + 1..rows {
                    g += 1.0 / (f64::from(rows - i) * f64::from(j));
                }
            }
            let n = f64::from(rows);
            let closed = harmonic_squares(n) - (2.0 * harmonic(n) - 1.0 / n) / n;
            assert!((g - closed).abs() < 1e-13, "{rows} {g} {closed}");
        }
    }

    /// Where the table reaches, the tail of the limit and the interpolation tell the same story.
    #[test]
    fn limit_and_table_agree() {
        for shift in 0..12 {
            let (r, c): (Vec<u64>, Vec<u64>) = (0..60)
                .map(|i| (u64::from(i < 48), u64::from(i >= shift && i < 48 + shift)))
                .unzip();
            let test = anderson_darling(Pair::new(&r, &c).unwrap(), Ties::Midrank).unwrap();
            if test.interpolated_p < 0.24 && test.interpolated_p > 0.0011 {
                let ratio = test.p_value / test.interpolated_p;
                assert!((0.9..1.1).contains(&ratio), "{test:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_tested_is_refused() {
        assert!(anderson_darling_k(&[&[1, 2]], Ties::Midrank).is_err());
        assert!(anderson_darling_k(&[&[1, 2], &[1]], Ties::Midrank).is_err());
        assert!(anderson_darling_k(&[&[1, 2], &[0, 0]], Ties::Midrank).is_err());
        assert!(anderson_darling_k(&[&[0, 3], &[0, 9]], Ties::Right).is_err());
        assert!(anderson_darling_k(&[&[1, 0], &[1, 1]], Ties::Right).is_err());
    }
}
