//! Limits of the Kolmogorov-Smirnov and Kuiper statistics. Each has two series that are each
//! other's Jacobi transforms: one of tails, which converges fast for large arguments and adds
//! nothing that cancels there, and one for small ones.

use std::f64::consts::PI;

/// Where the two series of the Kolmogorov limit take the same number of terms.
const KOLMOGOROV_SWITCH: f64 = 0.9;
/// The same for Kuiper's.
const KUIPER_SWITCH: f64 = 1.1;

/// P(K > x) for Kolmogorov's limit K = sup |Brownian bridge|: 2 Σ (−1)^(k−1) e^(−2 k² x²)
/// (Kolmogorov 1933, Smirnov 1948).
///
/// The p-value of a two-sample D is this at D √(n m / (n + m)); it costs one or two exponentials.
#[must_use]
pub fn kolmogorov_sf(x: f64) -> f64 {
    if x <= 0.0 || x.is_nan() {
        return 1.0;
    }
    if x < KOLMOGOROV_SWITCH {
        // Four terms: the fifth is below e^−100 of the first here.
        let w = -PI * PI / (8.0 * x * x);
        let body = w.exp() + (9.0 * w).exp() + (25.0 * w).exp() + (49.0 * w).exp();
        return 1.0 - (2.0 * PI).sqrt() / x * body;
    }
    let w = -2.0 * x * x;
    let mut sum = 0.0;
    let mut sign = 1.0;
    for k in 1..8 {
        let k = f64::from(k);
        let term = (w * k * k).exp();
        sum += sign * term;
        if term <= sum * 1e-17 {
            break;
        }
        sign = -sign;
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

/// P(V > x) for the limit V of Kuiper's statistic (range of the Brownian bridge):
/// 2 Σ (4 k² x² − 1) e^(−2 k² x²) (Kuiper 1960).
#[must_use]
pub fn kuiper_sf(x: f64) -> f64 {
    if x <= 0.0 || x.is_nan() {
        return 1.0;
    }
    if x < KUIPER_SWITCH {
        let w = -PI * PI / (2.0 * x * x);
        let mut sum = 0.0;
        for k in 1..6 {
            let k2 = f64::from(k * k);
            sum += k2 * (w * k2).exp();
        }
        return (1.0 - (2.0 * PI).sqrt() * PI * PI / (x * x * x) * sum).clamp(0.0, 1.0);
    }
    let mut sum = 0.0;
    for k in 1..8 {
        let u = 2.0 * f64::from(k * k) * x * x;
        if u > 800.0 {
            break; // below the smallest number, and ∞ · 0 when x is infinite
        }
        let term = (2.0 * u - 1.0) * (-u).exp();
        sum += term;
        if term <= sum * 1e-17 {
            break;
        }
    }
    (2.0 * sum).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::close;

    /// Against mpmath at 40 digits, to the edge of the smallest numbers.
    #[test]
    fn tails_are_accurate() {
        for &(x, want) in &KOLMOGOROV {
            close(kolmogorov_sf(x), want, 3e-13);
        }
        for &(x, want) in &KUIPER {
            close(kuiper_sf(x), want, 3e-13);
        }
    }
    const KOLMOGOROV: [(f64, f64); 11] = [
        (0.3, 0.9999906941986655),
        (0.5, 0.9639452436648751),
        (0.8, 0.5441424115741981),
        (0.89, 0.4066850049180472),
        (0.91, 0.3790723461446418),
        (1.0, 0.2699996716773545),
        (1.36, 0.04948587675537788),
        (2.0, 0.0006709252557796953),
        (5.0, 3.8574996959278356e-22),
        (12.0, 1.6757885067638739e-125),
        (18.5, 1.0628136728909079e-297),
    ];
    const KUIPER: [(f64, f64); 10] = [
        (0.5, 0.9999994705192119),
        (0.8, 0.9783510749956509),
        (1.0, 0.8220766443569293),
        (1.09, 0.6999012106767013),
        (1.11, 0.6703928256161544),
        (1.5, 0.17774501071045945),
        (2.0, 0.01006387883867104),
        (5.0, 3.8189246989685574e-20),
        (12.0, 9.635783913892275e-123),
        (18.5, 1.453929104514762e-294),
    ];

    /// Both series agree at the switch, so no p-value jumps there.
    #[test]
    fn series_meet() {
        let below = kolmogorov_sf(KOLMOGOROV_SWITCH - 1e-13);
        close(below, kolmogorov_sf(KOLMOGOROV_SWITCH), 1e-11);
        let below = kuiper_sf(KUIPER_SWITCH - 1e-13);
        close(below, kuiper_sf(KUIPER_SWITCH), 1e-11);
    }

    #[test]
    fn off_the_support() {
        assert_eq!(kolmogorov_sf(0.0), 1.0);
        assert_eq!(kolmogorov_sf(-1.0), 1.0);
        assert_eq!(kolmogorov_sf(f64::INFINITY), 0.0);
        assert_eq!(kuiper_sf(0.0), 1.0);
        assert_eq!(kuiper_sf(f64::INFINITY), 0.0);
        assert_eq!(kuiper_sf(1e-3), 1.0);
    }
}
