//! Derivatives of ln Γ, which variances of logarithms of variances are made of.

use std::f64::consts::LN_2;

/// From this argument on the asymptotic series (DLMF 5.11.2, 5.15.8) is exact to the last places.
const SERIES_FROM: f64 = 12.0;
/// Halvings of an interval of logarithms, until nothing is left of it.
const HALVINGS: usize = 80;

/// ψ(x) = d ln Γ(x) / dx for x > 0; minus infinity elsewhere.
#[must_use]
pub fn digamma(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    let (mut shifted, mut sum) = (x, 0.0);
    while shifted < SERIES_FROM {
        sum -= 1.0 / shifted;
        shifted += 1.0;
    }
    let r = 1.0 / (shifted * shifted);
    let series = r
        * (1.0 / 12.0
            - r * (1.0 / 120.0 - r * (1.0 / 252.0 - r * (1.0 / 240.0 - r * (1.0 / 132.0)))));
    sum + shifted.ln() - 0.5 / shifted - series
}

/// ψ′(x) for x > 0; infinity elsewhere.
#[must_use]
pub fn trigamma(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return f64::INFINITY;
    }
    let (mut shifted, mut sum) = (x, 0.0);
    while shifted < SERIES_FROM {
        sum += 1.0 / (shifted * shifted);
        shifted += 1.0;
    }
    let r = 1.0 / (shifted * shifted);
    let series =
        1.0 / 6.0 - r * (1.0 / 30.0 - r * (1.0 / 42.0 - r * (1.0 / 30.0 - r * (5.0 / 66.0))));
    sum + 1.0 / shifted + 0.5 * r + r / shifted * series
}

/// The x > 0 with ψ′(x) = y; infinity for y ≤ 0.
#[must_use]
pub fn trigamma_inverse(y: f64) -> f64 {
    if y.is_nan() || y <= 0.0 {
        return f64::INFINITY;
    }
    // 1/x < ψ′(x) < 1/x + 1/x², and ψ′ falls.
    let (mut low, mut high) = ((0.5 / y).min(0.5 / y.sqrt()).ln(), (2.0 / y + 2.0).ln());
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if trigamma(middle.exp()) > y {
            low = middle;
        } else {
            high = middle;
        }
        if high - low < f64::EPSILON * LN_2 {
            break;
        }
    }
    (0.5 * (low + high)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::close;
    use std::f64::consts::PI;

    /// Against closed forms: ψ(1) = −γ, ψ(½) = −γ − 2 ln 2, ψ′(1) = π²/6, ψ′(½) = π²/2, and the recurrences.
    #[test]
    fn closed_forms() {
        let gamma = 0.577_215_664_901_532_9;
        close(digamma(1.0), -gamma, 1e-14);
        close(digamma(0.5), -gamma - 2.0 * LN_2, 1e-14);
        close(trigamma(1.0), PI * PI / 6.0, 1e-14);
        close(trigamma(0.5), PI * PI / 2.0, 1e-14);
        for x in [0.01, 0.7, 3.2, 11.9, 40.0] {
            close(digamma(x + 1.0), digamma(x) + 1.0 / x, 1e-12);
            close(trigamma(x + 1.0) + 1.0 / (x * x), trigamma(x), 1e-13);
        }
    }

    /// The inverse is one, from variances of a thousand down to a millionth.
    #[test]
    fn inverse() {
        for y in [1e3, 3.0, 0.4, 0.02, 1e-6] {
            close(trigamma(trigamma_inverse(y)), y, 1e-9);
        }
        assert_eq!(trigamma_inverse(0.0), f64::INFINITY);
    }
}
