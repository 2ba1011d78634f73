//! Intervals: what a share or an estimate may truly be.

use serde::{Deserialize, Serialize};

use super::PerformanceError;

/// A range that holds the truth with a stated confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether the value is inside.
    pub fn contains(&self, x: f64) -> bool {
        (self.low..=self.high).contains(&x)
    }

    /// The part inside of the bounds.
    #[must_use]
    pub fn clipped(self, low: f64, high: f64) -> Self {
        Self {
            low: self.low.clamp(low, high),
            high: self.high.clamp(low, high),
        }
    }
}

/// A value and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Standard deviation that it would have over repetitions.
    pub standard_error: f64,
}

impl Estimate {
    /// Normal interval.
    ///
    /// # Errors
    /// A confidence outside of (0, 1).
    pub fn interval(&self, confidence: f64) -> Result<Interval, PerformanceError> {
        let reach = two_sided_z(confidence)? * self.standard_error;
        Ok(Interval {
            low: self.value - reach,
            high: self.value + reach,
        })
    }
}

/// Rows that independent rows would be worth, from their weights: (Σw)²/Σw² (Kish 1965).
pub fn effective_size(weights: &[f64]) -> f64 {
    let sum: f64 = weights.iter().sum();
    let squares: f64 = weights.iter().map(|w| w * w).sum();
    if squares > 0.0 {
        sum * sum / squares
    } else {
        0.0
    }
}

/// Design effect of clusters of `rows` rows with intraclass correlation `rho`: 1 + (rows − 1) rho
/// (Kish 1965); never below 1, as a negative correlation is rarely more than noise.
pub fn cluster_design_effect(rows: f64, rho: f64) -> f64 {
    (1.0 + (rows - 1.0) * rho).max(1.0)
}

/// Wilson's interval of a share (Wilson 1927) on `total / design_effect` effective rows. Without
/// rows it is the whole of \[0, 1\].
///
/// # Errors
/// A confidence outside of (0, 1), a design effect that is not positive, more successes than rows.
pub fn wilson(
    successes: u64,
    total: u64,
    confidence: f64,
    design_effect: f64,
) -> Result<Interval, PerformanceError> {
    let z = two_sided_z(confidence)?;
    let (n, p) = effective(successes, total, design_effect)?;
    if n == 0.0 {
        return Ok(Interval {
            low: 0.0,
            high: 1.0,
        });
    }
    let z2 = z * z;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let reach = z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends the formula is exact but rounds.
    Ok(Interval {
        low: if successes == 0 {
            0.0
        } else {
            (centre - reach).max(0.0)
        },
        high: if successes == total {
            1.0
        } else {
            (centre + reach).min(1.0)
        },
    })
}

/// Jeffreys' interval of a share: quantiles of Beta(x + ½, n − x + ½) on effective counts, with the
/// end at 0 or 1 when nothing or everything succeeded (Brown, Cai and DasGupta 2001).
///
/// # Errors
/// As [`wilson`].
pub fn jeffreys(
    successes: u64,
    total: u64,
    confidence: f64,
    design_effect: f64,
) -> Result<Interval, PerformanceError> {
    two_sided_z(confidence)?;
    let (n, p) = effective(successes, total, design_effect)?;
    if n == 0.0 {
        return Ok(Interval {
            low: 0.0,
            high: 1.0,
        });
    }
    let (a, b) = (n * p + 0.5, n * (1.0 - p) + 0.5);
    let tail = (1.0 - confidence) / 2.0;
    Ok(Interval {
        low: if successes == 0 {
            0.0
        } else {
            beta_quantile(a, b, tail)
        },
        // From the other side, so that a tail near zero keeps its digits.
        high: if successes == total {
            1.0
        } else {
            1.0 - beta_quantile(b, a, tail)
        },
    })
}

fn effective(
    successes: u64,
    total: u64,
    design_effect: f64,
) -> Result<(f64, f64), PerformanceError> {
    if !(design_effect > 0.0 && design_effect.is_finite()) {
        return Err(PerformanceError::Setting {
            name: "design effect",
            value: design_effect,
            expected: "a positive number",
        });
    }
    if successes > total {
        return Err(PerformanceError::Setting {
            name: "successes",
            value: successes as f64,
            expected: "at most the number of rows",
        });
    }
    let n = total as f64;
    let p = if total == 0 {
        0.0
    } else {
        successes as f64 / n
    };
    Ok((n / design_effect, p))
}

/// z with P(|Z| ≤ z) = confidence.
pub(crate) fn two_sided_z(confidence: f64) -> Result<f64, PerformanceError> {
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(PerformanceError::Setting {
            name: "confidence",
            value: confidence,
            expected: "between 0 and 1, both excluded",
        });
    }
    let tail = (1.0 - confidence) / 2.0;
    Ok(bisect(0.0, 40.0, |z| {
        0.5 * libm::erfc(z / std::f64::consts::SQRT_2) > tail
    }))
}

/// Where `before` stops being true between `lo` and `hi`, to the last bit.
fn bisect(mut lo: f64, mut hi: f64, before: impl Fn(f64) -> bool) -> f64 {
    loop {
        let mid = lo + (hi - lo) / 2.0;
        if mid <= lo || mid >= hi {
            return mid;
        }
        if before(mid) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
}

fn beta_quantile(a: f64, b: f64, p: f64) -> f64 {
    bisect(0.0, 1.0, |x| beta_cdf(a, b, x) < p)
}

/// Regularised incomplete beta function by its continued fraction (Abramowitz and Stegun 26.5.8),
/// evaluated by Lentz's method on the side where it converges fast.
fn beta_cdf(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - beta_cdf_small(b, a, 1.0 - x);
    }
    beta_cdf_small(a, b, x)
}

fn beta_cdf_small(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let front =
        libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (-x).ln_1p();
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut sum = d;
    // Terms needed grow like sqrt(max(a, b)).
    let terms = 200 + (10.0 * a.max(b).sqrt()) as u32;
    for m in 1..terms {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        sum *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        sum *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    front.exp() * sum / a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64, tolerance: f64) {
        assert!((a - b).abs() < tolerance, "{a} is not {b}");
    }

    /// Known quantiles of the normal distribution.
    #[test]
    fn normal_quantiles() {
        near(two_sided_z(0.95).unwrap(), 1.959_963_984_540_054, 1e-13);
        near(two_sided_z(0.99).unwrap(), 2.575_829_303_548_901, 1e-13);
        assert!(two_sided_z(1.0).is_err());
        assert!(two_sided_z(f64::NAN).is_err());
    }

    /// Ends of [0, 1] at the ends, and the closed forms there: 0 of n has z²/(n + z²) (Wilson) and
    /// the Beta(½, n + ½) quantile (Jeffreys).
    #[test]
    fn ends() {
        let z2 = 1.959_963_984_540_054_f64.powi(2);
        let w = wilson(0, 20, 0.95, 1.0).unwrap();
        assert_eq!(w.low, 0.0);
        near(w.high, z2 / (20.0 + z2), 1e-14);
        assert_eq!(wilson(20, 20, 0.95, 1.0).unwrap().high, 1.0);
        assert_eq!(jeffreys(0, 20, 0.95, 1.0).unwrap().low, 0.0);
        assert_eq!(jeffreys(20, 20, 0.95, 1.0).unwrap().high, 1.0);
        let none = wilson(0, 0, 0.95, 1.0).unwrap();
        assert_eq!((none.low, none.high), (0.0, 1.0));
    }

    /// I_x(1, b) and I_x(a, 1) have closed forms; symmetry holds; a million rows still converge.
    #[test]
    fn incomplete_beta() {
        for x in [1e-9, 0.01, 0.3, 0.5, 0.9, 0.999] {
            near(beta_cdf(1.0, 7.5, x), -(7.5 * (-x).ln_1p()).exp_m1(), 1e-14);
            near(beta_cdf(3.5, 1.0, x), x.powf(3.5), 1e-14);
            near(
                beta_cdf(2.5, 8.5, x),
                1.0 - beta_cdf(8.5, 2.5, 1.0 - x),
                1e-14,
            );
        }
        // The median of a symmetric beta is its centre whatever the size.
        near(beta_cdf(5e5, 5e5, 0.5), 0.5, 1e-7);
        let wide = jeffreys(500_000, 1_000_000, 0.95, 1.0).unwrap();
        near(wide.high - wide.low, 2.0 * 1.96 * 0.0005, 1e-7);
    }

    /// A design effect of d is a d times smaller sample.
    #[test]
    fn design_effect_widens() {
        let a = wilson(40, 100, 0.9, 4.0).unwrap();
        let b = wilson(10, 25, 0.9, 1.0).unwrap();
        near(a.low, b.low, 1e-15);
        near(a.high, b.high, 1e-15);
        assert!(wilson(1, 2, 0.9, 0.0).is_err());
        assert!(wilson(3, 2, 0.9, 1.0).is_err());
        near(effective_size(&[1.0, 1.0, 2.0]), 16.0 / 6.0, 1e-15);
        near(cluster_design_effect(11.0, 0.2), 3.0, 1e-15);
    }

    /// Exact coverage of both intervals at 95 % stays near the promise over shares and sizes, by
    /// summing the binomial.
    #[test]
    fn coverage() {
        for n in [20_u64, 60] {
            for k in 1..10 {
                let p = f64::from(k) / 10.0 + 0.003;
                let mut mass = (1.0 - p).powi(n as i32);
                let (mut covered_w, mut covered_j) = (0.0, 0.0);
                for x in 0..=n {
                    let inside = |i: Interval| f64::from(u8::from(i.contains(p)));
                    covered_w += mass * inside(wilson(x, n, 0.95, 1.0).unwrap());
                    covered_j += mass * inside(jeffreys(x, n, 0.95, 1.0).unwrap());
                    mass *= (n - x) as f64 / (x + 1) as f64 * p / (1.0 - p);
                }
                assert!(covered_w > 0.91, "wilson {n} {p}: {covered_w}");
                assert!(covered_j > 0.90, "jeffreys {n} {p}: {covered_j}");
            }
        }
    }
}
