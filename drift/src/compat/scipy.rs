//! SciPy 1.17 where it differs: the digits of the Cramér-von Mises p-value, and Yates' correction.

use crate::distance::Pair;
use crate::error::StatisticsError;
use crate::hypothesis::{
    CRAMER_VON_MISES_EXACT_ROWS_MAX, ChiSquare, CramerVonMises, CramerVonMisesMode, Divergence,
    cramer_von_mises as native_cramer_von_mises, cramer_von_mises_normalised,
    cramer_von_mises_twelve_u,
};
use crate::special::{chi_square_sf, scaled_bessel_k_quarter};
use std::f64::consts::PI;

/// `cramervonmises_2samp(method="auto")` of a pair with bins in ascending order. Exact p-values are the
/// native ones; the limit's are SciPy's, which are 1 − (a series cut off below 1e-7) and so only right
/// to about 1e-8 in absolute terms. They are met to a rounding error of 1, 1e-16: all but the digits of
/// p-values below 1e-7.
///
/// # Errors
/// [`StatisticsError::TooFewRows`] with fewer than two rows on a side.
pub fn cramer_von_mises(pair: Pair<'_>) -> Result<CramerVonMises, StatisticsError> {
    let native = native_cramer_von_mises(pair, CramerVonMisesMode::Auto)?;
    let (n, m) = (pair.reference_rows(), pair.current_rows());
    if n.max(m) <= CRAMER_VON_MISES_EXACT_ROWS_MAX {
        return Ok(native);
    }
    // T as SciPy rounds it: two large numbers, subtracted.
    let (k, rows) = (n as f64 * m as f64, n as f64 + m as f64);
    let statistic = cramer_von_mises_twelve_u(pair).map_or(native.statistic, |twelve_u| {
        twelve_u as f64 / 12.0 / (k * rows) - (4.0 * k - 1.0) / (6.0 * rows)
    });
    let normalised = cramer_von_mises_normalised(statistic, n, m);
    Ok(CramerVonMises {
        statistic,
        p_value: cramer_von_mises_limit_p(normalised),
    })
}

/// SciPy's p-value of a normalised statistic: 1 − its partial sum of the limiting distribution
/// (Csörgő and Faraway 1996, equation 1.3), whose last term is the first below 1e-7.
#[must_use]
pub fn cramer_von_mises_limit_p(normalised: f64) -> f64 {
    if normalised.is_nan() || normalised < 0.003 {
        return 1.0;
    }
    let mut cdf = 0.0;
    let mut ratio = PI.sqrt(); // Γ(k + ½) / k!
    let mut k = 0.0;
    loop {
        let y = 4.0 * k + 1.0;
        let q = y * y / (16.0 * normalised);
        let scale = ratio / (PI.powf(1.5) * normalised.sqrt());
        let term = scale * f64::sqrt(y) * (-q).exp() * bessel_k_quarter(q);
        cdf += term;
        if term.abs() < 1e-7 {
            return (1.0 - cdf).max(0.0);
        }
        ratio *= (k + 0.5) / (k + 1.0);
        k += 1.0;
    }
}

/// K_{1/4}(x) for x > 0 with the rounding errors of SciPy's `kv`, which the p-value above shows: up to
/// x = 2 Temme's series (N. M. Temme, J. Comp. Phys. 19, 1975) in the order of operations of Amos
/// ("Algorithm 644", ACM TOMS 12, 1986); beyond it `kv` is accurate and so is this.
fn bessel_k_quarter(x: f64) -> f64 {
    const ORDER: f64 = 0.25;
    if x > 2.0 {
        return (-x).exp() * scaled_bessel_k_quarter(x);
    }
    let ratio = 2.0 / x;
    // The complex logarithm of glibc, which takes this way close to 1.
    let log = if ratio > 1.0 && ratio < 2.0 {
        ((ratio - 1.0) * (ratio + 1.0)).ln_1p() / 2.0
    } else {
        ratio.ln()
    };
    let (sinh, cosh) = ((log * ORDER).sinh(), (log * ORDER).cosh());
    let reflection = ORDER * PI * (1.0 / (ORDER * PI).sin());
    let gamma_up = (-ln_gamma_five_quarters()).exp(); // 1 / Γ(1 + ν)
    let gamma_down = 1.0 / (gamma_up * reflection); // 1 / Γ(1 − ν)
    let odd = (gamma_down - gamma_up) / (ORDER + ORDER);
    let even = 0.5 * (gamma_down + gamma_up);
    let mut f = reflection * (odd * cosh + sinh / ORDER * even);
    let power = (log * ORDER).exp();
    let mut p = 0.5 / gamma_up * power;
    let mut q = 0.5 / gamma_down / power;
    let quarter_square = x * x * 0.25;
    let (mut sum, mut k, mut weight) = (f, 1.0, 1.0);
    let mut divisor = 1.0 - ORDER * ORDER;
    while weight > f64::EPSILON {
        f = (f * k + p + q) / divisor;
        p /= k - ORDER;
        q /= k + ORDER;
        weight *= quarter_square * (1.0 / k);
        sum += weight * f;
        divisor += k + k + 1.0;
        k += 1.0;
    }
    sum
}

/// ln Γ(5/4) as Amos' routine rounds it: Stirling's series at 29/4, brought down by recurrence.
fn ln_gamma_five_quarters() -> f64 {
    const SERIES: [f64; 11] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
        1.0 / 156.0,
        -3617.0 / 122_400.0,
        43_867.0 / 244_188.0,
        -174_611.0 / 125_400.0,
        77_683.0 / 5_796.0,
    ];
    let (z, steps) = (1.25, 6.0);
    let shifted: f64 = z + steps;
    let mut power = 1.0 / shifted;
    let first = SERIES[0] * power;
    let mut sum = first;
    let square = power * power;
    for coefficient in &SERIES[1..] {
        power *= square;
        let term = coefficient * power;
        if term.abs() < first * f64::EPSILON {
            break;
        }
        sum += term;
    }
    let product = (0..6).fold(1.0, |product, i| product * (z + f64::from(i)));
    let log = shifted.ln();
    let ln_2_pi = (2.0 * PI).ln();
    shifted * (log - 1.0) - product.ln() + 0.5 * (ln_2_pi - log) + sum
}

/// `chi2_contingency` of the 2 × B table with its default Yates correction: with one degree of freedom
/// every cell moves by up to ½ towards its expectation. Bins empty on both sides are dropped first
/// (SciPy refuses them).
#[must_use]
pub fn chi2_contingency(pair: Pair<'_>) -> ChiSquare {
    let plain = crate::hypothesis::contingency(pair, Divergence::Pearson);
    if plain.degrees != 1 {
        return plain;
    }
    let (n, m) = (pair.reference_rows() as f64, pair.current_rows() as f64);
    let rows = n + m;
    let mut statistic = 0.0;
    for (&r, &c) in pair.reference().iter().zip(pair.current()) {
        let column = r as f64 + c as f64;
        if column == 0.0 {
            continue;
        }
        for (observed, size) in [(r as f64, n), (c as f64, m)] {
            let expected = column * size / rows;
            let gap = ((observed - expected).abs() - 0.5).max(0.0);
            statistic += gap * gap / expected;
        }
    }
    ChiSquare {
        statistic,
        degrees: 1,
        p_value: chi_square_sf(statistic, 1.0),
    }
}

/// Whether `chisquare` and `power_divergence` accept these: their sums may differ by one in 10⁸.
pub(super) fn sums_agree(observed: &[f64], expected: &[f64]) -> bool {
    let (a, b): (f64, f64) = (observed.iter().sum(), expected.iter().sum());
    (a - b).abs() <= 1e-8 * a.min(b)
}

/// `chisquare` and `power_divergence`: against expected counts that are taken as exact.
pub(super) fn goodness_of_fit(
    observed: &[f64],
    expected: &[f64],
    divergence: Divergence,
) -> ChiSquare {
    let mut statistic = 0.0;
    for (&o, &e) in observed.iter().zip(expected) {
        statistic += match divergence {
            Divergence::Pearson if e > 0.0 => (o - e) * (o - e) / e,
            Divergence::LikelihoodRatio if o == 0.0 => 0.0,
            Divergence::LikelihoodRatio if e > 0.0 => 2.0 * o * (o / e).ln(),
            // An expected count of 0 that was observed: infinitely unlikely.
            _ if o > 0.0 => f64::INFINITY,
            _ => 0.0,
        };
    }
    let degrees = observed.len().saturating_sub(1) as u64;
    ChiSquare {
        statistic,
        degrees,
        p_value: chi_square_sf(statistic, degrees as f64),
    }
}
