//! The distribution of the one-sample, two-sided Kolmogorov-Smirnov statistic for finite n.
//!
//! SciPy's "asymptotic" two-sample p-value is this tail at n = round(n₁ n₂ / (n₁ + n₂)), not the
//! Kolmogorov limit, so equal answers need it. Which method is used where follows Simard and L'Ecuyer
//! ("Computing the two-sided Kolmogorov-Smirnov distribution", J. Stat. Software 39(11), 2011), since
//! outside the exact regions the choice of approximation decides the digits.

mod cdf;

use super::gamma::{deviance, stirling_error};
use std::f64::consts::PI;

/// Up to here the cdf is computed exactly.
const EXACT_N_MAX: u64 = 140;
/// Beyond this the sum of the one-sided tail is too long and its asymptotic form is accurate.
const SUM_N_MAX: u64 = 1_000_000;

/// P(D_n ≥ x) for the two-sided one-sample Kolmogorov-Smirnov statistic of n ≥ 1 values.
///
/// Allocates only in the body of the distribution (p above about 0.02), up to a few kilobytes; takes
/// O(n) there and in the tail. For many calls use [`kolmogorov_sf`](super::kolmogorov_sf).
#[must_use]
pub fn one_sample_ks_sf(n: u64, x: f64) -> f64 {
    if x >= 1.0 || n == 0 {
        return if n == 0 { 1.0 } else { 0.0 };
    }
    if x <= 0.0 || x.is_nan() {
        return 1.0;
    }
    let size = n as f64;
    let t = size * x;
    if t <= 1.0 {
        return (1.0 - cdf::smallest(n, t)).clamp(0.0, 1.0);
    }
    if t >= size - 1.0 {
        return (2.0 * (size * (-x).ln_1p()).exp()).min(1.0);
    }
    let twice_one_sided = || (2.0 * one_sided_sf(n, x)).min(1.0);
    if x >= 0.5 {
        return twice_one_sided();
    }
    let scaled = t * x;
    if n <= EXACT_N_MAX {
        return if scaled <= 0.754_693 {
            1.0 - cdf::durbin(n, x)
        } else if scaled <= 4.0 {
            1.0 - cdf::pomeranz(n, x)
        } else {
            twice_one_sided()
        }
        .clamp(0.0, 1.0);
    }
    if scaled >= 370.0 {
        return 0.0;
    }
    if scaled >= 2.2 {
        return twice_one_sided();
    }
    let cdf = if n <= 100_000 && size * x.powf(1.5) <= 1.4 {
        cdf::durbin(n, x)
    } else {
        cdf::pelz_good(size, x)
    };
    (1.0 - cdf).clamp(0.0, 1.0)
}

/// P(D_n⁺ ≥ x), the one-sided tail: x Σ_j C(n, j) (x + j/n)^(j−1) (1 − x − j/n)^(n−j) over
/// j ≤ n (1 − x) (Smirnov 1944; Birnbaum and Tingey 1951). No term is negative; each is formed as a
/// binomial probability by its saddle point, so that tails keep their digits.
fn one_sided_sf(n: u64, x: f64) -> f64 {
    let size = n as f64;
    if n > SUM_N_MAX {
        let u = 6.0 * size * x + 1.0;
        return (-u * u / (18.0 * size)).exp();
    }
    let last = (size * (1.0 - x)).floor();
    let error_n = stirling_error(size);
    // j = 0
    let mut sum = (size * (-x).ln_1p()).exp();
    let mut j = 1.0;
    while j <= last {
        let rest = size - j;
        // n (x + j/n) and n (1 − x − j/n)
        let up = size * x + j;
        let down = rest - size * x;
        let term = if rest <= 0.0 {
            // only j = n, which needs x = 0
            0.0
        } else if down <= 0.0 {
            0.0
        } else {
            let log = error_n
                - stirling_error(j)
                - stirling_error(rest)
                - deviance(j, up)
                - deviance(rest, down);
            log.exp() * (size / (2.0 * PI * j * rest)).sqrt() * size / up
        };
        sum += x * term;
        j += 1.0;
    }
    sum.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SciPy 1.17 `kstwo.sf` in every region: smallest, Durbin, Pomeranz, Miller, Pelz-Good, largest.
    #[test]
    fn every_region_agrees_with_scipy() {
        for &(n, x, want) in &KSTWO {
            let got = one_sample_ks_sf(n, x);
            assert!(
                (got - want).abs() <= 1e-11 * want,
                "n {n} x {x}: got {got:e}, want {want:e}, relative {:e}",
                (got / want - 1.0).abs()
            );
        }
    }
    const KSTWO: [(u64, f64, f64); 43] = [
        (1, 0.5, 1.0),
        (1, 0.8, 0.3999999999999999),
        (5, 0.15, 0.9988),
        (5, 0.3, 0.664),
        (5, 0.6, 0.03008000000000001),
        (5, 0.9, 1.9999999999999978e-05),
        (12, 0.1, 0.9986321002354367),
        (12, 0.2, 0.6531903820667508),
        (12, 0.35, 0.08091071405661032),
        (12, 0.55, 0.0006161899863954289),
        (100, 0.008, 1.0),
        (100, 0.03, 0.9999692479033473),
        (100, 0.08, 0.5182193645480672),
        (100, 0.15, 0.019839242125643017),
        (100, 0.19, 0.0012339926382722768),
        (100, 0.3, 1.7719869892662917e-08),
        (100, 0.7, 1.2211404981217991e-49),
        (140, 0.05, 0.8576480297656114),
        (140, 0.1, 0.11353657290090946),
        (140, 0.18, 0.0001932001834783552),
        (141, 0.05, 0.854845693009663),
        (141, 0.1, 0.11128445516467944),
        (141, 0.14, 0.007130260485304256),
        (171, 0.0975, 0.07237916078843365),
        (171, 0.05, 0.766739984148626),
        (171, 0.03, 0.9967532056712434),
        (171, 0.0065, 1.0),
        (500, 0.05, 0.15866260223815387),
        (500, 0.168, 8.3544226549367e-13),
        (500, 0.02, 0.9859871786857471),
        (500, 0.4, 1.0414017884998935e-72),
        (5000, 0.002, 1.0),
        (5000, 0.01, 0.6954557253913853),
        (5000, 0.02, 0.03613941395325637),
        (5000, 0.03, 0.00024159234422666817),
        (5000, 0.1, 5.590495886396459e-44),
        (5000, 0.27, 0.0),
        (200000, 0.001, 0.9881500208855729),
        (200000, 0.002, 0.39995085369038097),
        (200000, 0.005, 9.049367287273853e-05),
        (3000000, 0.0005, 0.44116344256294504),
        (3000000, 0.001, 0.0049542003601089),
        (3000000, 0.005, 1.4302437343095183e-65),
    ];

    #[test]
    fn off_the_support() {
        assert_eq!(one_sample_ks_sf(10, 0.0), 1.0);
        assert_eq!(one_sample_ks_sf(10, 1.0), 0.0);
        assert_eq!(one_sample_ks_sf(10, 0.04), 1.0);
        assert_eq!(one_sample_ks_sf(0, 0.4), 1.0);
    }
}
