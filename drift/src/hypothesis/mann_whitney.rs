//! The Mann-Whitney U (Wilcoxon rank-sum) test.

use super::Alternative;
use crate::distance::Pair;
use crate::error::StatisticsError;

/// Where a Mann-Whitney p-value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MannWhitneyMode {
    /// SciPy's `auto`: exact when a side has at most [`MANN_WHITNEY_EXACT_ROWS_MAX`] rows and nothing is tied, else
    /// normal.
    #[default]
    Auto,
    /// The exact distribution without ties, by counting; allocates the counts up to U.
    Exact,
    /// Normal, with the variance corrected for ties and U for continuity.
    Normal,
}

/// Rows of the smaller side up to which [`MannWhitneyMode::Auto`] is exact (SciPy's limit).
pub const MANN_WHITNEY_EXACT_ROWS_MAX: u64 = 8;

/// The outcome of a Mann-Whitney test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MannWhitney {
    /// U of the reference: pairs in which its value is the greater one, ties counting ½.
    pub u: f64,
    /// P(a row of the present exceeds one of the reference) + ½ P(they tie): ½ when nothing moved, the
    /// effect size of this test.
    pub superiority: f64,
    /// p-value for the chosen alternative.
    pub p_value: f64,
}

/// Mann-Whitney U test of a pair with bins in ascending order; rows in one bin are tied.
///
/// # Errors
/// [`StatisticsError::ExactOutOfReach`] with [`MannWhitneyMode::Exact`] when C(n + m, n) exceeds 128 bits.
pub fn mann_whitney(
    pair: Pair<'_>,
    alternative: Alternative,
    mode: MannWhitneyMode,
) -> Result<MannWhitney, StatisticsError> {
    let ranks = Ranks::of(pair);
    let (n, m) = (pair.reference_rows(), pair.current_rows());
    let pairs = u128::from(n) * u128::from(m);
    let p_value = match mode {
        MannWhitneyMode::Normal => ranks.normal_p(alternative),
        MannWhitneyMode::Exact => {
            ranks
                .exact_p(alternative)
                .ok_or(StatisticsError::ExactOutOfReach {
                    test: "mann-whitney",
                    reference: n,
                    current: m,
                })?
        }
        MannWhitneyMode::Auto if n.min(m) <= MANN_WHITNEY_EXACT_ROWS_MAX && !ranks.tied => ranks
            .exact_p(alternative)
            .unwrap_or_else(|| ranks.normal_p(alternative)),
        MannWhitneyMode::Auto => ranks.normal_p(alternative),
    };
    Ok(MannWhitney {
        u: ranks.twice_u as f64 / 2.0,
        superiority: (2 * pairs - ranks.twice_u) as f64 / (2 * pairs) as f64,
        p_value,
    })
}

/// What the ranks of a pair come to, exact.
struct Ranks {
    n: u64,
    m: u64,
    /// 2 U of the reference.
    twice_u: u128,
    /// Σ (t³ − t) over bins of t rows.
    tie_term: f64,
    tied: bool,
}

impl Ranks {
    fn of(pair: Pair<'_>) -> Self {
        let mut below = 0_u64;
        let mut twice_u = 0_u128;
        let mut tie_term = 0.0;
        let mut tied = false;
        for (&r, &c) in pair.reference().iter().zip(pair.current()) {
            twice_u += u128::from(r) * (2 * u128::from(below) + u128::from(c));
            below += c;
            let t = (r + c) as f64;
            tie_term += (t * t - 1.0) * t;
            tied |= r + c > 1;
        }
        Self {
            n: pair.reference_rows(),
            m: pair.current_rows(),
            twice_u,
            tie_term,
            tied,
        }
    }

    /// 2 U of the side that the alternative says is the greater one.
    fn twice_u_for(&self, alternative: Alternative) -> u128 {
        let all = 2 * u128::from(self.n) * u128::from(self.m);
        match alternative {
            Alternative::Greater => self.twice_u,
            Alternative::Less => all - self.twice_u,
            Alternative::TwoSided => self.twice_u.max(all - self.twice_u),
        }
    }

    fn sides(alternative: Alternative) -> f64 {
        if alternative == Alternative::TwoSided {
            2.0
        } else {
            1.0
        }
    }

    fn normal_p(&self, alternative: Alternative) -> f64 {
        let (n, m) = (self.n as f64, self.m as f64);
        let rows = n + m;
        let product = u128::from(self.n) * u128::from(self.m);
        // (U − n m / 2) − ½, exact up to the last step.
        let above = self.twice_u_for(alternative) as i128 - product as i128;
        let numerator = 0.5 * above as f64 - 0.5;
        let variance = n * m / 12.0 * ((rows + 1.0) - self.tie_term / (rows * (rows - 1.0)));
        if variance.is_nan() || variance <= 0.0 {
            return 1.0; // everything is tied
        }
        let tail = crate::special::normal_sf(numerator / variance.sqrt());
        (Self::sides(alternative) * tail).min(1.0)
    }

    /// P(U' ≥ U) without ties, or `None` when its counts do not fit 128 bits.
    fn exact_p(&self, alternative: Alternative) -> Option<f64> {
        let (small, large) = (self.n.min(self.m), self.n.max(self.m));
        let all = binomial(small + large, small)?;
        let u = self.twice_u_for(alternative) / 2;
        // U' and n m − U' are alike, so this is P(U' ≤ n m − u).
        let limit = u128::from(self.n) * u128::from(self.m) - u;
        let favourable = arrangements_up_to(small, large, usize::try_from(limit).ok()?);
        Some((Self::sides(alternative) * (favourable as f64 / all as f64)).min(1.0))
    }
}

/// C(n, k), or `None` beyond 128 bits.
fn binomial(n: u64, k: u64) -> Option<u128> {
    let mut value = 1_u128;
    for i in 0..k {
        // Exact: the product of i + 1 consecutive numbers is divisible by (i + 1)!.
        let factor = u128::from(n - i);
        let divisor = u128::from(i + 1);
        value = match value.checked_mul(factor) {
            Some(product) => product / divisor,
            None => return None,
        };
    }
    Some(value)
}

/// Arrangements of `small` and `large` values with U ≤ limit: coefficients of the Gaussian binomial
/// Π (1 − q^(large + i)) / (1 − q^i), added up. Differences may wrap in between: the coefficients are
/// below C(small + large, small), which fits, so arithmetic modulo 2^128 is exact.
fn arrangements_up_to(small: u64, large: u64, limit: usize) -> u128 {
    let mut ways = vec![0_u128; limit + 1];
    ways[0] = 1;
    for i in 1..=small as usize {
        let top = large as usize + i;
        for u in (top..=limit).rev() {
            ways[u] = ways[u].wrapping_sub(ways[u - top]);
        }
        for u in i..=limit {
            ways[u] = ways[u].wrapping_add(ways[u - i]);
        }
    }
    ways.iter()
        .fold(0, |sum: u128, &count| sum.wrapping_add(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(r: &[u64], c: &[u64], alternative: Alternative, mode: MannWhitneyMode) -> MannWhitney {
        mann_whitney(Pair::new(r, c).unwrap(), alternative, mode).unwrap()
    }

    /// The example of SciPy's documentation: 19 22 16 29 24 against 20 11 17 12.
    #[test]
    fn documented_example() {
        // in order: 11c 12c 16r 17c 19r 20c 22r 24r 29r
        let (r, c) = ([0, 0, 1, 0, 1, 0, 1, 1, 1], [1, 1, 0, 1, 0, 1, 0, 0, 0]);
        let exact = test(&r, &c, Alternative::TwoSided, MannWhitneyMode::Auto);
        assert_eq!(exact.u, 17.0);
        assert!((exact.p_value - 0.111_111_111_111_111_1).abs() < 1e-15);
        assert!((exact.superiority - 0.15).abs() < 1e-15);
        let normal = test(&r, &c, Alternative::TwoSided, MannWhitneyMode::Normal);
        assert!((normal.p_value - 0.111_346_886_533_140_41).abs() < 1e-13);
        let less = test(&c, &r, Alternative::Less, MannWhitneyMode::Exact);
        assert!((less.p_value - 0.055_555_555_555_555_55).abs() < 1e-15);
    }

    /// Everything tied says nothing.
    #[test]
    fn all_tied() {
        for mode in [MannWhitneyMode::Auto, MannWhitneyMode::Normal] {
            let result = test(&[0, 5], &[0, 7], Alternative::TwoSided, mode);
            assert_eq!((result.superiority, result.p_value), (0.5, 1.0));
        }
    }

    /// Counts beyond 128 bits are refused when asked for; `auto` does without them.
    #[test]
    fn out_of_reach_is_said() {
        let (r, c): (Vec<u64>, Vec<u64>) = (0..400).map(|i| (i % 2, 1 - i % 2)).unzip();
        let pair = Pair::new(&r, &c).unwrap();
        assert!(mann_whitney(pair, Alternative::TwoSided, MannWhitneyMode::Exact).is_err());
        assert!(mann_whitney(pair, Alternative::TwoSided, MannWhitneyMode::Auto).is_ok());
    }

    /// Exact and normal p-values approach each other.
    #[test]
    fn exact_and_normal_agree() {
        let (r, c): (Vec<u64>, Vec<u64>) = (0..90)
            .map(|i| (u64::from(i % 3 == 0), u64::from(i % 3 != 0)))
            .unzip();
        let exact = test(&r, &c, Alternative::TwoSided, MannWhitneyMode::Exact);
        let normal = test(&r, &c, Alternative::TwoSided, MannWhitneyMode::Normal);
        assert!((exact.p_value - normal.p_value).abs() < 2e-3);
    }
}
