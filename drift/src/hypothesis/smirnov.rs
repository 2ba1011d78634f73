//! The two-sample Kolmogorov-Smirnov and Kuiper tests.

use super::Outcome;
use crate::distance::Pair;
use crate::error::{Side, StatisticsError};
use crate::special::{kolmogorov_sf, kuiper_sf, one_sample_ks_sf};

/// Where a Kolmogorov-Smirnov p-value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KsMode {
    /// Kolmogorov's limit at D √(n m / (n + m)): a few nanoseconds, for the stream. A little large for
    /// small samples.
    Limit,
    /// The one-sample distribution at round(n m / (n + m)) values: SciPy's `asymp`. Up to some
    /// milliseconds.
    FiniteSample,
    /// The exact distribution for samples without ties, by counting lattice paths. With ties it is
    /// conservative. Takes time in proportion to D n m and allocates a row of the lattice.
    Exact,
    /// SciPy's `auto`: exact up to [`KS_EXACT_ROWS_MAX`] rows a side, else [`KsMode::FiniteSample`].
    Auto,
}

/// Rows a side up to which [`KsMode::Auto`] is exact (SciPy's limit).
pub const KS_EXACT_ROWS_MAX: u64 = 10_000;
/// Lattice points that an exact p-value may visit: a few seconds at the worst.
const EXACT_CELLS_MAX: f64 = 1e9;

/// Two-sample, two-sided Kolmogorov-Smirnov test: D and its p-value.
///
/// # Errors
/// [`StatisticsError::ExactOutOfReach`] with [`KsMode::Exact`] when the lattice is too large.
pub fn kolmogorov_smirnov(pair: Pair<'_>, mode: KsMode) -> Result<Outcome, StatisticsError> {
    let ks = pair.kolmogorov_smirnov();
    let (n, m) = (pair.reference_rows(), pair.current_rows());
    Ok(Outcome {
        statistic: ks.d,
        p_value: kolmogorov_smirnov_p(ks.crossed, n, m, mode)?,
    })
}

/// The p-value of D = `crossed` / (n m), for samples of n and m values.
///
/// # Errors
/// [`StatisticsError::Empty`] when n or m is 0, and
/// [`StatisticsError::ExactOutOfReach`] with [`KsMode::Exact`] when the lattice is too large.
pub fn kolmogorov_smirnov_p(
    crossed: u128,
    n: u64,
    m: u64,
    mode: KsMode,
) -> Result<f64, StatisticsError> {
    for (side, rows) in [(Side::Reference, n), (Side::Current, m)] {
        if rows == 0 {
            return Err(StatisticsError::Empty(side));
        }
    }
    if crossed == 0 {
        return Ok(1.0);
    }
    let (large, small) = (n.max(m), n.min(m));
    let product = large as f64 * small as f64;
    let d = crossed as f64 / product;
    let effective = product / (large as f64 + small as f64);
    let finite = || one_sample_ks_sf(effective.round_ties_even() as u64, d);
    let reachable = (2.0 * d * product) <= EXACT_CELLS_MAX;
    match mode {
        KsMode::Limit => Ok(kolmogorov_sf(d * effective.sqrt())),
        KsMode::FiniteSample => Ok(finite()),
        KsMode::Auto if large > KS_EXACT_ROWS_MAX => Ok(finite()),
        KsMode::Auto | KsMode::Exact if n == m => {
            Ok(equal_sizes(n, crossed.div_ceil(u128::from(n)) as u64))
        }
        KsMode::Auto | KsMode::Exact if reachable => Ok(lattice(large, small, crossed)),
        KsMode::Auto => Ok(finite()),
        KsMode::Exact => Err(StatisticsError::ExactOutOfReach {
            test: "kolmogorov-smirnov",
            reference: n,
            current: m,
        }),
    }
}

/// P(D ≥ h / n) for two samples of n: 2 (A₀ − A₀A₁ + …), A_k = C(2n, n − (k+1)h) / C(2n, n − kh), by the
/// reflection principle (Gnedenko and Korolyuk 1951), nested so that nothing large cancels.
fn equal_sizes(n: u64, h: u64) -> f64 {
    let mut p = 0.0;
    for k in (0..=n / h).rev() {
        let shift = k * h;
        let mut ratio = 1.0;
        for j in 0..h {
            if shift + j >= n {
                ratio = 0.0;
                break;
            }
            ratio *= (n - shift - j) as f64 / (n + shift + j + 1) as f64;
        }
        p = ratio * (1.0 - p);
    }
    (2.0 * p).clamp(0.0, 1.0)
}

/// The share of lattice paths from (0, 0) to (m, n) that reach |i n − j m| ≥ `crossed` somewhere
/// (Hodges 1958). Computed as that share directly, from the shares of both predecessors of each point
/// (Schröer and Trenkler 1995; Viehmann 2021): all terms are positive, so tiny p-values keep their
/// digits, which 1 − (share of paths inside) does not.
fn lattice(m: u64, n: u64, crossed: u128) -> f64 {
    let crossed = crossed as i128;
    let (rows, columns) = (m as i128, n as i128);
    // outside[j] is the share for point (i, j); 1 wherever a point is beyond the boundary.
    let mut outside = vec![1.0; n as usize + 1];
    for i in 0..=rows {
        // Inside: i n − crossed < j m < i n + crossed.
        let low = (i * columns - crossed).div_euclid(rows) + 1;
        let low = low.max(0) as u64;
        let high = (i * columns + crossed - 1).div_euclid(rows).min(columns) as u64;
        let inside = &mut outside[low as usize..=high as usize];
        if i == 0 {
            inside.fill(0.0);
            continue;
        }
        let i = i as f64;
        let mut left = if low > 0 { 1.0 } else { 0.0 };
        for (j, cell) in (low..).zip(inside) {
            // The last step into (i, j) came from (i − 1, j) with odds i : j.
            let step = j as f64;
            let weight = 1.0 / (i + step);
            left = *cell * (i * weight) + left * (step * weight);
            *cell = left;
        }
    }
    outside[n as usize].clamp(0.0, 1.0)
}

/// Kuiper's two-sample test: V = D⁺ + D⁻, equally sensitive at all quantiles and on a circle (hour of
/// day). The p-value is the limit at V (√e + 0.155 + 0.24/√e), e = n m / (n + m) (Stephens 1965).
#[must_use]
pub fn kuiper(pair: Pair<'_>) -> Outcome {
    let ks = pair.kolmogorov_smirnov();
    let v = ks.d_plus + ks.d_minus;
    let root = pair.effective_rows().sqrt();
    Outcome {
        statistic: v,
        p_value: kuiper_sf(v * (root + 0.155 + 0.24 / root)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn relative(got: f64, want: f64) -> f64 {
        (got / want - 1.0).abs()
    }

    /// SciPy 1.17 `ks_2samp` exact, in the body and the far tail.
    #[test]
    fn exact_tail_agrees_with_scipy() {
        // (n, m, crossed, p)
        for &(n, m, crossed, want) in &KS_EXACT {
            let got = kolmogorov_smirnov_p(crossed, n, m, KsMode::Exact).unwrap();
            assert!(
                relative(got, want) < 1e-11,
                "{n} {m} {crossed}: {got:e} {want:e}"
            );
            let back = kolmogorov_smirnov_p(crossed, m, n, KsMode::Exact).unwrap();
            assert!(relative(back, want) < 1e-11);
        }
    }
    const KS_EXACT: [(u64, u64, u128, f64); 19] = [
        (12, 9, 21, 0.9684924982138605),
        (12, 9, 66, 0.026040213656312726),
        (12, 9, 102, 6.804341169666247e-06),
        (7, 7, 28, 0.21212121212121213),
        (250, 180, 2250, 0.9411178444327043),
        (250, 180, 7500, 0.0051365765036269434),
        (250, 180, 27000, 1.247948824495179e-35),
        (250, 180, 43650, 9.985841214129295e-113),
        (800, 700, 11200, 0.9975898284996535),
        (800, 700, 50400, 0.0043955682092308036),
        (800, 700, 280000, 2.210241104972694e-85),
        (500, 500, 12500, 0.5600220048872044),
        (500, 500, 75000, 2.9785299929744015e-20),
        (500, 500, 237500, 3.5252634276349434e-250),
        (5000, 150, 37500, 0.8416926018783869),
        (5000, 150, 75000, 0.10144756512212084),
        (5000, 150, 450000, 1.7001390754540705e-50),
        (97, 1001, 29129, 1.5052593057427607e-07),
        (97, 1001, 87387, 2.4052955758906085e-83),
    ];

    /// Complete separation has probability 2 / C(n + m, n), with all paths counted.
    #[test]
    fn complete_separation() {
        for (n, m, ways) in [(3, 4, 35.0), (5, 5, 252.0), (1, 9, 10.0)] {
            let p = kolmogorov_smirnov_p(u128::from(n * m), n, m, KsMode::Exact).unwrap();
            assert!(relative(p, 2.0 / ways) < 1e-14);
        }
    }

    /// Exact is refused when it would take minutes; `auto` then falls back.
    #[test]
    fn out_of_reach_is_said() {
        let (n, m) = (1_000_000, 999_999);
        let crossed = u128::from(n) * u128::from(m) / 2;
        assert!(kolmogorov_smirnov_p(crossed, n, m, KsMode::Exact).is_err());
        assert!(kolmogorov_smirnov_p(crossed, n, m, KsMode::Auto).is_ok());
    }

    proptest! {
        /// For samples that are not small all modes tell the same story, and p falls as D grows.
        #[test]
        fn modes_agree_roughly(n in 200_u64..400, m in 200_u64..400, level in 0.02_f64..0.2) {
            // D of samples of n and m is a multiple of 1 / lcm(n, m); with n = m steps of it are wide.
            let step = if n == m { u128::from(n) } else { 1 };
            let crossed = (level * (n * m) as f64) as u128 / step * step;
            let p = |mode| kolmogorov_smirnov_p(crossed, n, m, mode).unwrap();
            let (exact, finite, limit) =
                (p(KsMode::Auto), p(KsMode::FiniteSample), p(KsMode::Limit));
            prop_assert!((exact - finite).abs() < 0.1, "{} {}", exact, finite);
            prop_assert!((exact - limit).abs() < 0.1, "{} {}", exact, limit);
            let more = kolmogorov_smirnov_p(crossed + u128::from(n), n, m, KsMode::Auto).unwrap();
            prop_assert!(more <= exact * (1.0 + 1e-12));
        }
    }
}
