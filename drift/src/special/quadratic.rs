//! Limits of the quadratic empirical-distribution statistics: Cramér-von Mises and Anderson-Darling.
//!
//! Both are Σ_j Z_j² / λ_j with independent normal Z: λ_j = π² j² (Cramér-von Mises) and j (j + 1)
//! (Anderson-Darling). With the Fredholm determinant D(s) = Π (1 − 2 s / λ_j), Smirnov's formula
//! gives the tail itself, so nothing is subtracted from 1:
//!
//! P(X > x) = (1/π) Σ_k (−1)^(k−1) ∫ over (λ_{2k−1}/2, λ_{2k}/2) of e^(−x s) / (s √|D(s)|) ds.
//!
//! The integrand has inverse square-root ends, which is the weight of Gauss-Chebyshev quadrature: it
//! converges geometrically. (Anderson and Darling, "Asymptotic theory of certain goodness of fit
//! criteria", Ann. Math. Stat. 23, 1952, section 4.) For small x, where the alternating sum is
//! long, the classical series of the distribution functions are used.

use std::f64::consts::PI;

/// Above these the tail integral is used. Both sides are accurate to 1e-12 here.
const CRAMER_VON_MISES_SWITCH: f64 = 0.35;
const ANDERSON_DARLING_SWITCH: f64 = 1.6;

/// P(ω² > x) for the limit of the Cramér-von Mises statistic (mean 1/6). Relative accuracy about
/// 1e-11 to 1e-300.
#[must_use]
pub fn cramer_von_mises_sf(x: f64) -> f64 {
    if x <= 0.0 || x.is_nan() {
        return 1.0;
    }
    if x < CRAMER_VON_MISES_SWITCH {
        return (1.0 - cramer_von_mises_cdf_series(x)).clamp(0.0, 1.0);
    }
    // In r = √(2s): D(s) = sin r / r, intervals ((2k−1)π, 2kπ), ds / s = 2 dr / r.
    let integrand = |r: f64, ends: f64, nearest: f64| {
        2.0 * (ends / (nearest.sin() * r)).sqrt() * (-0.5 * x * r * r).exp()
    };
    tail_integral(
        x,
        |k| ((2 * k - 1) as f64 * PI, 2.0 * k as f64 * PI),
        |r| 0.5 * r * r,
        integrand,
    )
}

/// P(A² > x) for the limit of the Anderson-Darling statistic (mean 1). Relative accuracy about
/// 1e-11 to 1e-300.
#[must_use]
pub fn anderson_darling_sf(x: f64) -> f64 {
    if x <= 0.0 || x.is_nan() {
        return 1.0;
    }
    if x < ANDERSON_DARLING_SWITCH {
        return (1.0 - anderson_darling_cdf_series(x)).clamp(0.0, 1.0);
    }
    // In r = √(1 + 8 s): D(s) = −cos(π r / 2) / (2 π s), intervals (4k − 1, 4k + 1), ds = r dr / 4.
    let integrand = |r: f64, ends: f64, nearest: f64| {
        let s = (r * r - 1.0) / 8.0;
        let distance = (0.5 * PI * nearest).sin();
        0.25 * r * (ends * 2.0 * PI / (s * distance)).sqrt() * (-x * s).exp()
    };
    tail_integral(
        x,
        |k| ((4 * k - 1) as f64, (4 * k + 1) as f64),
        |r| (r * r - 1.0) / 8.0,
        integrand,
    )
}

/// Σ_k (−1)^(k−1) / π ∫ f over interval k, each by Gauss-Chebyshev quadrature.
/// `f(r, (r − a)(b − r), min(r − a, b − r))` is the integrand times √((r − a)(b − r)), with both
/// distances handed over because forming them from r would cancel; `decay(r)` is the s of e^(−x s).
fn tail_integral(
    x: f64,
    interval: impl Fn(i32) -> (f64, f64),
    decay: impl Fn(f64) -> f64,
    f: impl Fn(f64, f64, f64) -> f64,
) -> f64 {
    /// More than the smallest x that comes here needs.
    const INTERVALS_MAX: i32 = 12;
    /// Reached only where the tail is below the smallest number.
    const NODES_MAX: f64 = 4000.0;
    let mut sum = 0.0;
    let mut sign = 1.0;
    for k in 1..=INTERVALS_MAX {
        let (a, b) = interval(k);
        let half = 0.5 * (b - a);
        // Chebyshev coefficients of e^(−c u) fall below 1e-16 once their order passes √(2 · 37 · c).
        let c = 0.5 * x * (decay(b) - decay(a));
        let nodes = 24 + (9.0 * c.sqrt()).min(NODES_MAX) as u32;
        let mut part = 0.0;
        for i in 0..nodes {
            let (sine, cosine) = (0.5 * PI * (f64::from(i) + 0.5) / f64::from(nodes)).sin_cos();
            let from_start = 2.0 * half * cosine * cosine;
            let from_end = 2.0 * half * sine * sine;
            part += f(
                a + from_start,
                from_start * from_end,
                from_start.min(from_end),
            );
        }
        let term = sign * part / f64::from(nodes);
        sum += term;
        if term.abs() <= sum.abs() * 1e-17 {
            break;
        }
        sign = -sign;
    }
    sum.clamp(0.0, 1.0)
}

/// Anderson and Darling 1952, equation 4.35, in the form of Csörgő and Faraway 1996, equation 1.3.
fn cramer_von_mises_cdf_series(x: f64) -> f64 {
    let mut sum = 0.0;
    let mut ratio = PI.sqrt(); // Γ(k + ½) / k!
    for k in 0..12 {
        let k = f64::from(k);
        let y = 4.0 * k + 1.0;
        let q = y * y / (16.0 * x);
        let term = ratio * y.sqrt() * (-2.0 * q).exp() * scaled_bessel_k_quarter(q);
        sum += term;
        if term <= sum * 1e-18 {
            break;
        }
        ratio *= (k + 0.5) / (k + 1.0);
    }
    sum / (PI.powf(1.5) * x.sqrt())
}

/// e^q K_{1/4}(q) by the trapezoidal rule on ∫ e^(q (1 − cosh t)) cosh(t / 4) dt, t > 0, which
/// converges geometrically once the step is below the width of the peak.
pub(crate) fn scaled_bessel_k_quarter(q: f64) -> f64 {
    let step = (0.6 / q.sqrt()).min(0.2);
    let mut sum = 0.5;
    let mut t = step;
    loop {
        let fall = q * (1.0 - t.cosh());
        if fall < -45.0 {
            return sum * step;
        }
        sum += fall.exp() * (0.25 * t).cosh();
        t += step;
    }
}

/// Anderson and Darling 1954, in the form of Marsaglia and Marsaglia ("Evaluating the
/// Anderson-Darling distribution", J. Stat. Software 9(2), 2004): (1/x) Σ_j C(−½, j) (4j + 1) f(x, j).
fn anderson_darling_cdf_series(x: f64) -> f64 {
    let mut sum = 0.0;
    let mut binomial = 1.0;
    for j in 0..16 {
        let j = f64::from(j);
        let term = binomial * (4.0 * j + 1.0) * anderson_darling_integral(x, j);
        sum += term;
        if term.abs() <= sum.abs() * 1e-18 {
            break;
        }
        binomial *= (-0.5 - j) / (j + 1.0);
    }
    sum / x
}

/// √(2π) e^−t ∫ e^(x / (8 (1 + w²)) − t w²) dw, w > 0, with t = (4j + 1)² π² / (8 x), by the trapezoidal
/// rule in u = w √t.
fn anderson_darling_integral(x: f64, j: f64) -> f64 {
    const STEP: f64 = 0.125;
    const NODES: u32 = 52; // e^(−u²) is below 1e-18 beyond
    let t = (4.0 * j + 1.0) * (4.0 * j + 1.0) * PI * PI / (8.0 * x);
    let mut sum = 0.5 * (0.125 * x).exp();
    for i in 1..NODES {
        let u = f64::from(i) * STEP;
        sum += (0.125 * x / (1.0 + u * u / t) - u * u).exp();
    }
    (2.0 * PI).sqrt() * (-t).exp() * sum * STEP / t.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::close;

    /// Against mpmath at 40 digits (series for the body, Smirnov's integral for the tail).
    #[test]
    fn limits_are_accurate() {
        for &(x, want) in &CVM {
            close(cramer_von_mises_sf(x), want, 1e-11);
        }
        for &(x, want) in &AD {
            close(anderson_darling_sf(x), want, 1e-11);
        }
    }
    const CVM: [(f64, f64); 12] = [
        (0.02, 0.9969993856983981),
        (0.1, 0.5848734384067948),
        (0.2, 0.26747043054077485),
        (0.34, 0.10469469848081668),
        (0.36, 0.09238339322982973),
        (0.5, 0.03983321756560759),
        (1.0, 0.002460452180133964),
        (1.76595745063014, 4.303456554956642e-05),
        (6.978710594015197, 1.4899543010802128e-16),
        (20.0, 1.0972093165654267e-44),
        (60.0, 1.192152306499509e-130),
        (138.0, 5.363526748620063e-298),
    ];
    const AD: [(f64, f64); 12] = [
        (0.1, 0.9999719218948736),
        (0.3, 0.9381576360571231),
        (0.8, 0.4810279530066889),
        (1.5, 0.1764753728420497),
        (1.59, 0.15637142768381038),
        (1.61, 0.1522584007202708),
        (2.5, 0.049541134376124514),
        (3.9, 0.009756430462345936),
        (6.0, 0.0009674519415209229),
        (12.0, 1.7102869993221187e-06),
        (100.0, 3.62838309821128e-45),
        (680.0, 1.792089918423292e-297),
    ];

    /// Series and integral agree where they meet.
    #[test]
    fn series_and_integral_meet() {
        let (x, d) = (CRAMER_VON_MISES_SWITCH, 1e-12);
        close(cramer_von_mises_sf(x - d), cramer_von_mises_sf(x), 1e-10);
        let x = ANDERSON_DARLING_SWITCH;
        close(anderson_darling_sf(x - d), anderson_darling_sf(x), 1e-10);
    }

    #[test]
    fn off_the_support() {
        assert_eq!(cramer_von_mises_sf(0.0), 1.0);
        assert_eq!(cramer_von_mises_sf(1e-4), 1.0);
        assert_eq!(cramer_von_mises_sf(1e6), 0.0);
        assert_eq!(anderson_darling_sf(0.0), 1.0);
        assert_eq!(anderson_darling_sf(f64::INFINITY), 0.0);
    }
}
