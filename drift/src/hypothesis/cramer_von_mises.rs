//! The two-sample Cramér-von Mises test.

use crate::distance::Pair;
use crate::error::{Side, StatisticsError};
use crate::special::cramer_von_mises_sf;

/// Where a Cramér-von Mises p-value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CramerVonMisesMode {
    /// SciPy's `auto`: exact up to [`CRAMER_VON_MISES_EXACT_ROWS_MAX`] rows a side, else the limit.
    #[default]
    Auto,
    /// The exact distribution without ties; allocates tables of its values.
    Exact,
    /// The limiting distribution at the statistic scaled to its mean and variance (Anderson 1962).
    /// Accurate far into the tail, where SciPy's series stops at 1e-7
    /// ([`crate::compat::scipy::cramer_von_mises_limit_p`] has SciPy's digits).
    Limit,
}

/// Rows a side up to which [`CramerVonMisesMode::Auto`] is exact (SciPy's limit).
pub const CRAMER_VON_MISES_EXACT_ROWS_MAX: u64 = 20;
/// Rows a side up to which the exact distribution may be asked for: about a second at the worst.
const EXACT_ROWS_LIMIT: u64 = 40;

/// The outcome of a Cramér-von Mises test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CramerVonMises {
    /// T, with mean (1 + 1/N) / 6 when nothing has changed.
    pub statistic: f64,
    /// p-value.
    pub p_value: f64,
}

/// Two-sample Cramér-von Mises test of a pair with bins in ascending order; rows in one bin get
/// their middle rank.
///
/// # Errors
/// [`StatisticsError::TooFewRows`] with fewer than two rows on a side;
/// [`StatisticsError::ExactOutOfReach`] with [`CramerVonMisesMode::Exact`] beyond 40 rows a side.
pub fn cramer_von_mises(
    pair: Pair<'_>,
    mode: CramerVonMisesMode,
) -> Result<CramerVonMises, StatisticsError> {
    let (n, m) = (pair.reference_rows(), pair.current_rows());
    for (side, rows) in [(Side::Reference, n), (Side::Current, m)] {
        if rows < 2 {
            return Err(StatisticsError::TooFewRows {
                side,
                test: "cramér-von mises",
                needed: 2,
                rows,
            });
        }
    }
    let statistic = statistic(pair);
    let exact = match mode {
        CramerVonMisesMode::Auto => n.max(m) <= CRAMER_VON_MISES_EXACT_ROWS_MAX,
        CramerVonMisesMode::Exact => true,
        CramerVonMisesMode::Limit => false,
    };
    let p_value = if exact {
        let twelve_u = twelve_u(pair).ok_or(StatisticsError::ExactOutOfReach {
            test: "cramér-von mises",
            reference: n,
            current: m,
        })?;
        cramer_von_mises_exact_p(twelve_u, n, m)?
    } else {
        cramer_von_mises_sf(cramer_von_mises_normalised(statistic, n, m))
    };
    Ok(CramerVonMises { statistic, p_value })
}

/// 12 U, a whole number, or `None` beyond 128 bits. U is n Σ (rank − i)² over the reference plus
/// m Σ (rank − j)² over the present (Anderson 1962, equation 10), with middle ranks for ties:
/// in a bin of t and s rows over `by` rows of the present, a row of the reference misses its place by
/// by + s/2 on average, with variance (t² − 1)/12.
pub(crate) fn twelve_u(pair: Pair<'_>) -> Option<u128> {
    let (mut x, mut y) = (0_u128, 0_u128);
    let (mut below_x, mut below_y) = (0_u128, 0_u128);
    let misses = |rows: u128, others_below: u128, others: u128| {
        let twice = 2 * others_below + others;
        let square = twice.checked_mul(twice)?.checked_mul(3)?;
        rows.checked_mul(square.checked_add((rows * rows).saturating_sub(1))?)
    };
    for (&t, &s) in pair.reference().iter().zip(pair.current()) {
        let (t, s) = (u128::from(t), u128::from(s));
        x = x.checked_add(misses(t, below_y, s)?)?;
        y = y.checked_add(misses(s, below_x, t)?)?;
        below_x += t;
        below_y += s;
    }
    let x = x.checked_mul(u128::from(pair.reference_rows()))?;
    let y = y.checked_mul(u128::from(pair.current_rows()))?;
    x.checked_add(y)
}

/// T = U / (k N) − (4 k − 1) / (6 N), k = n m, N = n + m (Anderson 1962, equation 9): formed as one
/// whole number over another, because its two parts are large and almost equal.
fn statistic(pair: Pair<'_>) -> f64 {
    let (n, m) = (
        u128::from(pair.reference_rows()),
        u128::from(pair.current_rows()),
    );
    let k = n * m;
    let rows = (n + m) as f64;
    let exact = twelve_u(pair).and_then(|u| {
        let expected = k.checked_mul(8)?.checked_mul(k)? - 2 * k;
        let difference = i128::try_from(u)
            .ok()?
            .checked_sub(i128::try_from(expected).ok()?)?;
        Some(difference as f64 / (12.0 * k as f64 * rows))
    });
    exact.unwrap_or_else(|| integral_form(pair))
}

/// n m / N² Σ over all rows of (F − G)² at middle ranks, for row counts whose squares pass 128 bits:
/// there the difference to T (of the order of the tied shares' squares) is beyond the digits.
fn integral_form(pair: Pair<'_>) -> f64 {
    let (n, m) = (pair.reference_rows() as f64, pair.current_rows() as f64);
    let rows = n + m;
    let (mut below_x, mut below_y) = (0.0, 0.0);
    let mut sum = 0.0;
    for (&t, &s) in pair.reference().iter().zip(pair.current()) {
        let (t, s) = (t as f64, s as f64);
        let gap = (below_x + 0.5 * t) / n - (below_y + 0.5 * s) / m;
        sum += (t + s) / rows * gap * gap;
        below_x += t;
        below_y += s;
    }
    n / rows * m * sum
}

/// T scaled to the mean 1/6 and variance 1/45 of the limiting distribution (Anderson 1962, equations
/// 11, 14 and 15), for samples of n and m rows.
#[must_use]
pub fn cramer_von_mises_normalised(statistic: f64, n: u64, m: u64) -> f64 {
    let (n, m) = (n as f64, m as f64);
    let (k, rows) = (n * m, n + m);
    let mean = (1.0 + 1.0 / rows) / 6.0;
    let variance = (rows + 1.0) * (4.0 * k * rows - 3.0 * (n * n + m * m) - 2.0 * k)
        / (45.0 * rows * rows * 4.0 * k);
    1.0 / 6.0 + (statistic - mean) / (45.0 * variance).sqrt()
}

/// P(T ≥ t) exactly for samples of n and m rows without ties, where t has the given 12 U: every
/// lattice path is counted by its sum of squared gaps (Xiao, Gordon and Yakovlev, "A C++ program for
/// the Cramér-von Mises two-sample test", J. Stat. Software 17(8), 2006). A path whose sum has already
/// reached t's is counted with all its continuations and followed no further.
///
/// # Errors
/// [`StatisticsError::ExactOutOfReach`] beyond 40 rows a side.
pub fn cramer_von_mises_exact_p(twelve_u: u128, n: u64, m: u64) -> Result<f64, StatisticsError> {
    if n.max(m) > EXACT_ROWS_LIMIT || n == 0 || m == 0 {
        return Err(StatisticsError::ExactOutOfReach {
            test: "cramér-von mises",
            reference: n,
            current: m,
        });
    }
    let (n, m) = (i128::from(n), i128::from(m));
    let common = n / gcd(n, m) * m;
    let (step_n, step_m) = (common / n, common / m);
    let k = n * m;
    // The sum of squared gaps that t amounts to, rounded down as in the published algorithm.
    let difference = i128::try_from(twelve_u).unwrap_or(i128::MAX) - 2 * k * (4 * k - 1);
    let threshold = (common * common * (n + m) * difference).div_euclid(12 * k * k);

    let continuations = binomials((n + m) as usize);
    let mut reached = 0_u128;
    // column[v]: paths to (u, v) still below the threshold, as ascending (sum, number of paths).
    let mut column: Vec<Vec<(i128, u128)>> = vec![Vec::new(); n as usize + 1];
    for u in 0..=m {
        for v in 0..=n {
            let merged = if u == 0 && v == 0 {
                vec![(0, 1)]
            } else if v == 0 {
                std::mem::take(&mut column[0])
            } else {
                merge(&column[v as usize], &column[v as usize - 1])
            };
            let gap = step_n * v - step_m * u;
            let rest = ((m - u) + (n - v)) as usize;
            let ways = continuations[rest][(m - u) as usize];
            let mut kept = merged;
            for entry in &mut kept {
                entry.0 += gap * gap;
            }
            let below = kept.partition_point(|entry| entry.0 < threshold);
            reached += kept[below..]
                .iter()
                .map(|entry| entry.1 * ways)
                .sum::<u128>();
            kept.truncate(below);
            column[v as usize] = kept;
        }
    }
    Ok(reached as f64 / continuations[(n + m) as usize][m as usize] as f64)
}

fn gcd(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Pascal's triangle up to row `size`: at most 80, where entries are below 2^77.
fn binomials(size: usize) -> Vec<Vec<u128>> {
    let mut rows: Vec<Vec<u128>> = vec![vec![1]];
    for i in 1..=size {
        let above = &rows[i - 1];
        let row = (0..=i)
            .map(|j| {
                let left = if j > 0 { above[j - 1] } else { 0 };
                left + above.get(j).copied().unwrap_or(0)
            })
            .collect();
        rows.push(row);
    }
    rows
}

/// Two ascending lists as one, with the numbers of equal sums added.
fn merge(a: &[(i128, u128)], b: &[(i128, u128)]) -> Vec<(i128, u128)> {
    let mut merged = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match a[i].0.cmp(&b[j].0) {
            std::cmp::Ordering::Less => {
                merged.push(a[i]);
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                merged.push(b[j]);
                j += 1;
            }
            std::cmp::Ordering::Equal => {
                merged.push((a[i].0, a[i].1 + b[j].1));
                i += 1;
                j += 1;
            }
        }
    }
    merged.extend_from_slice(&a[i..]);
    merged.extend_from_slice(&b[j..]);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Published exact probabilities (Anderson 1962; SciPy's tests).
    #[test]
    fn published_exact_probabilities() {
        assert_eq!(
            cramer_von_mises_exact_p(12 * 710, 5, 6).unwrap(),
            48.0 / 462.0
        );
        assert_eq!(
            cramer_von_mises_exact_p(12 * 710, 6, 5).unwrap(),
            48.0 / 462.0
        );
        assert_eq!(
            cramer_von_mises_exact_p(12 * 1764, 6, 7).unwrap(),
            2.0 / 1716.0
        );
    }

    /// The exact and the limiting p-value approach each other.
    #[test]
    fn limit_is_near_exact() {
        let (r, c): (Vec<u64>, Vec<u64>) = (0..40)
            .map(|i| (u64::from(i * i % 7 < 3), u64::from(i * i % 7 >= 3)))
            .unzip();
        let pair = Pair::new(&r, &c).unwrap();
        let exact = cramer_von_mises(pair, CramerVonMisesMode::Exact).unwrap();
        let limit = cramer_von_mises(pair, CramerVonMisesMode::Limit).unwrap();
        assert!(
            (exact.p_value - limit.p_value).abs() < 0.02,
            "{exact:?} {limit:?}"
        );
    }

    #[test]
    fn what_cannot_be_tested_is_refused() {
        let one = Pair::new(&[1, 0], &[3, 4]).unwrap();
        assert!(cramer_von_mises(one, CramerVonMisesMode::Auto).is_err());
        let many = Pair::new(&[30, 20], &[3, 4]).unwrap();
        assert!(cramer_von_mises(many, CramerVonMisesMode::Exact).is_err());
        assert!(cramer_von_mises(many, CramerVonMisesMode::Auto).is_ok());
    }

    proptest! {
        /// T from whole numbers is U / (k N) − (4 k − 1) / (6 N) with middle ranks formed one by one.
        #[test]
        fn statistic_is_that_of_middle_ranks(
            bins in prop::collection::vec((0_u64..6, 0_u64..6), 2..15),
        ) {
            let (r, c): (Vec<u64>, Vec<u64>) = bins.into_iter().unzip();
            let (n, m) = (r.iter().sum::<u64>() as f64, c.iter().sum::<u64>() as f64);
            prop_assume!(n >= 2.0 && m >= 2.0);
            let (mut below, mut i, mut j, mut x, mut y) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for (&t, &s) in r.iter().zip(&c) {
                let rank = below + ((t + s) as f64 + 1.0) / 2.0;
                for _ in 0..t { i += 1.0; x += (rank - i) * (rank - i); }
                for _ in 0..s { j += 1.0; y += (rank - j) * (rank - j); }
                below += (t + s) as f64;
            }
            let (k, rows) = (n * m, n + m);
            let want = (n * x + m * y) / (k * rows) - (4.0 * k - 1.0) / (6.0 * rows);
            let pair = Pair::new(&r, &c).unwrap();
            prop_assert!((statistic(pair) - want).abs() < 1e-10, "{} {}", statistic(pair), want);
            prop_assert!((statistic(pair) - statistic(pair.swapped())).abs() < 1e-14);
        }
    }
}
