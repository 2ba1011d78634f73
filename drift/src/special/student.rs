//! The two-sided tail of Student's t.

use super::gamma::stirling_error;
use std::f64::consts::PI;

/// From this a = ν/2 on, the asymptotic expansion has full accuracy with [`EXPANSION_TERMS`] terms;
/// below it the continued fraction is short.
const EXPANSION_FROM: f64 = 20.0;
const EXPANSION_TERMS: usize = 24;
/// Below this ln x the expansion, in powers of ln² x, slows down, and the fraction is fast.
const EXPANSION_LN_X_MIN: f64 = -1.0;
const FRACTION_TERMS_MAX: usize = 1_000;

/// P(|T| > |t|) for Student's t with `degrees` > 0 degrees of freedom (need not be whole).
///
/// It is the regularised incomplete beta function I_x(ν/2, ½) at x = ν / (ν + t²): by continued
/// fraction (DLMF 8.17.22) for few degrees of freedom, else by the expansion in incomplete gamma
/// functions of Didonato and Morris ("Algorithm 708", ACM TOMS 18, 1992, section 9), whose cost does
/// not grow with ν.
#[must_use]
pub fn student_t_two_sided(t: f64, degrees: f64) -> f64 {
    if t == 0.0 || t.is_nan() || degrees.is_nan() || degrees <= 0.0 {
        return 1.0;
    }
    if t.is_infinite() {
        return 0.0;
    }
    if degrees.is_infinite() {
        return super::normal_two_sided(t);
    }
    let a = 0.5 * degrees;
    // ln x = −ln(1 + t²/ν), without forming x near 1.
    let square = t * t / degrees;
    let ln_x = if square.is_finite() {
        -square.ln_1p()
    } else {
        -2.0 * (t.abs() / degrees.sqrt()).ln()
    };
    let p = if a >= EXPANSION_FROM && ln_x > EXPANSION_LN_X_MIN {
        expansion(a, ln_x)
    } else {
        fraction(a, ln_x, square)
    };
    p.clamp(0.0, 1.0)
}

/// Γ(a + ½) / Γ(a) for a > 0.
fn half_step_ratio(a: f64) -> f64 {
    if a >= EXPANSION_FROM {
        // Expansion in 1/w² about w = a − ¼ (DLMF 5.11.14); the next term is below 1e-17 here.
        let w = a - 0.25;
        let r = 1.0 / (w * w);
        let series = 1.0
            + r * (1.0 / 64.0
                + r * (-19.0 / 8192.0
                    + r * (631.0 / 524_288.0
                        + r * (-1.298_762_857_913_971e-3 + r * 2.385_557_5e-3))));
        return w.sqrt() * series;
    }
    // Γ(y) = √(2π) y^(y − ½) e^(−y + δ(y)), δ the error of Stirling's formula.
    let b = a + 0.5;
    a.sqrt()
        * (b * (0.5 / a).ln_1p() - 0.5 + stirling_error(b) - stirling_error(a)).exp()
        * (a / b).sqrt()
}

/// I_x(a, ½) for a ≥ 20, given ln x.
fn expansion(a: f64, ln_x: f64) -> f64 {
    const B: f64 = 0.5;
    let nu = a - 0.25;
    let z = -nu * ln_x;
    // r = z^½ e^−z / Γ(½): the ratio Q(½, z) / r starts the recurrence.
    let r = (z / PI).sqrt() * (-z).exp();
    if r == 0.0 {
        return if z > 1.0 { 0.0 } else { 1.0 };
    }
    let u = r * half_step_ratio(a) / nu.sqrt();
    let v = 0.25 / (nu * nu);
    let t2 = 0.25 * ln_x * ln_x;
    let mut j = libm::erfc(z.sqrt()) / r;
    let mut sum = j;
    let (mut t, mut cn, mut n2) = (1.0, 1.0, 0.0);
    let mut c = [0.0; EXPANSION_TERMS];
    let mut d = [0.0; EXPANSION_TERMS];
    for n in 0..EXPANSION_TERMS {
        let order = (n + 1) as f64;
        let bp2n = B + n2;
        j = (bp2n * (bp2n + 1.0) * j + (z + bp2n + 1.0) * t) * v;
        n2 += 2.0;
        t *= t2;
        cn /= n2 * (n2 + 1.0);
        c[n] = cn;
        let mut s = 0.0;
        for i in 0..n {
            s += (B * (i + 1) as f64 - order) * c[i] * d[n - 1 - i];
        }
        d[n] = (B - 1.0) * cn + s / order;
        let term = d[n] * j;
        sum += term;
        if term.abs() <= sum.abs() * 1e-17 {
            break;
        }
    }
    u * sum
}

/// I_x(a, ½) by continued fraction, on the side where it converges fast.
fn fraction(a: f64, ln_x: f64, square: f64) -> f64 {
    const B: f64 = 0.5;
    let x = ln_x.exp();
    // 1 − x = square / (1 + square), without cancellation.
    let y = if square.is_finite() {
        square / (1.0 + square)
    } else {
        1.0
    };
    // x^a (1 − x)^½ / B(a, ½)
    let front = (a * ln_x).exp() * (y / PI).sqrt() * half_step_ratio(a);
    if x < (a + 1.0) / (a + B + 2.0) {
        front * lentz(a, B, x) / a
    } else {
        1.0 - front * lentz(B, a, y) / B
    }
}

fn lentz(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let keep = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / keep(1.0 - (a + b) * x / (a + 1.0));
    let mut h = d;
    for m in 1..FRACTION_TERMS_MAX {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / keep(1.0 + even * d);
        c = keep(1.0 + even / c);
        h *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / keep(1.0 + odd * d);
        c = keep(1.0 + odd / c);
        let step = d * c;
        h *= step;
        if (step - 1.0).abs() < 1e-16 {
            break;
        }
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::gamma_q;

    /// Against mpmath at 40 digits: few and many degrees of freedom, body and tail.
    #[test]
    fn two_sided_tail_is_accurate() {
        for &(t, degrees, want) in &STUDENT {
            let got = student_t_two_sided(t, degrees);
            assert!(
                (got - want).abs() <= 2e-12 * want,
                "t {t} degrees {degrees}: got {got:e}, want {want:e}, relative {:e}",
                (got / want - 1.0).abs()
            );
        }
    }
    const STUDENT: [(f64, f64, f64); 26] = [
        (0.1, 0.5, 0.9463316211286064),
        (5.0, 0.5, 0.2859914031588588),
        (1000000.0, 0.5, 0.0006414019508283977),
        (0.01, 2.3, 0.9928224052266286),
        (2.0, 2.3, 0.16661357898802992),
        (50.0, 2.3, 0.00015245052608316235),
        (0.3, 11.0, 0.769770357889372),
        (2.77, 11.0, 0.0182269902903667),
        (100000.0, 11.0, 1.25616480025954e-50),
        (1.0, 39.0, 0.3234749451713833),
        (3.0, 39.0, 0.004686567940364688),
        (80.0, 39.0, 7.222363978542075e-45),
        (0.05, 41.0, 0.9603651830717518),
        (3.0, 41.0, 0.004576779384908372),
        (90.0, 41.0, 9.707795258392353e-49),
        (0.6, 497.3, 0.5487795291766326),
        (2.27, 497.3, 0.023634732414549015),
        (20.0, 497.3, 9.862916987968487e-66),
        (60.0, 497.3, 7.0469470638285795e-230),
        (0.9996, 1998.0, 0.3176251660296786),
        (9.0, 1998.0, 5.120657302694941e-19),
        (0.3, 1000000.0, 0.7641772179789942),
        (5.0, 1000000.0, 5.733997870890742e-07),
        (30.0, 1000000.0, 1.2020094233660632e-197),
        (1.1, 1000000000.0, 0.27133212215756464),
        (36.5, 1000000000.0, 1.1094380540415731e-291),
    ];

    /// With one degree of freedom it is Cauchy's, with many it is the normal distribution's.
    #[test]
    fn limits() {
        let cauchy = 1.0 - 2.0 / PI * 3f64.atan();
        assert!((student_t_two_sided(3.0, 1.0) - cauchy).abs() < 1e-14);
        let normal = super::super::normal_two_sided(2.5);
        assert!((student_t_two_sided(2.5, 1e13) / normal - 1.0).abs() < 1e-11);
        assert_eq!(student_t_two_sided(f64::INFINITY, 3.0), 0.0);
        assert_eq!(student_t_two_sided(0.0, 3.0), 1.0);
        // P(T² > x) for many degrees of freedom tends to chi-square with one.
        assert!((gamma_q(0.5, 2.0) / student_t_two_sided(2.0, 1e12) - 1.0).abs() < 1e-10);
    }
}
