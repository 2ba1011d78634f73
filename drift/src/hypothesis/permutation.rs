//! Tests whose null distribution is that of dealing the same rows to the two sides by chance.
//!
//! When nothing has changed, every way of dealing the pooled rows to sides of n and m is equally likely,
//! whatever distribution they have: ties, atoms, heavy tails, codes. So a p-value that is right for
//! the dealing is right for any column and any number of rows, which asymptotic p-values are not in the
//! far tail that a comparison of many columns needs. None of these tests draws at random:
//!
//! - a category's share: Fisher's exact test, the hypergeometric tail itself;
//! - a linear rank statistic (location, spread): the double saddlepoint approximation of Skovgaard
//!   ("Saddlepoint expansions for conditional distributions", J. Appl. Prob. 24, 1987) for sampling
//!   without replacement (Booth and Butler, "Randomization distributions and saddlepoint
//!   approximations in generalized linear models", Biometrika 77, 1990), which keeps its *relative*
//!   accuracy in the tail: some percent at 1e-6 with ten rows a side. Where the dealings are few enough to
//!   be counted, they are, since sums of few rows come in steps that no smooth tail follows.

use super::Outcome;
use crate::distance::Pair;
use crate::special::{ln_binomial, normal_sf};
use std::f64::consts::PI;

/// Groups of neighbouring bins that a rank statistic is formed on: more would change nothing that
/// is seen and take longer.
const GROUPS_MAX: usize = 1024;
/// Newton steps of the saddlepoint; it takes about six.
const STEPS_MAX: usize = 60;
/// Smallest share of its length that a step is cut to.
const STEP_MIN: f64 = 1e-6;
/// Most ways of taking rows from each group that are counted one by one: some hundred microseconds. More
/// rows or groups than that have sums in steps so small that the saddlepoint follows them.
const COUNTED_MAX: f64 = 16_384.0;
/// Sums of scores that differ by less are one: half a step of the smallest tables is far above it.
const SUM_TOLERANCE: f64 = 1e-9;
/// Below this many deviations the normal tail is as good and has no singularity.
const PLAIN_DEVIATIONS: f64 = 0.2;

/// Which change a linear rank statistic looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Ranks: values moved up or down (Wilcoxon 1945).
    Location,
    /// Squared distance of ranks from the middle: values spread or drew together (Mood 1954).
    Spread,
}

/// Two-sided linear rank test of a pair with bins in ascending order, rows of one bin being tied. The
/// statistic is the number of standard deviations (of the dealing) by which the present's mean
/// score exceeds its expectation: positive when values moved up, or spread.
///
/// A pair whose rows are all in one bin has statistic 0 and p-value 1.
#[must_use]
pub fn rank_test(pair: Pair<'_>, scores: Scores) -> Outcome {
    let groups = Groups::of(pair, scores);
    let (dealt, rows) = (pair.current_rows() as f64, groups.rows);
    let sum: f64 = groups.items.iter().map(|g| g.score * g.current).sum();
    // Scores have mean 0 and variance 1, so that the sum's is n m / (N − 1).
    let deviation = (dealt * (rows - dealt) / (rows - 1.0)).sqrt();
    if !groups.varies || deviation <= 0.0 || deviation.is_nan() {
        return Outcome {
            statistic: 0.0,
            p_value: 1.0,
        };
    }
    let z = sum / deviation;
    let tail = match groups.counted_tail(sum, COUNTED_MAX) {
        Some(tail) => tail,
        None => groups.upper_tail(sum.abs(), z >= 0.0, dealt, deviation),
    };
    let p_value = (2.0 * tail).min(1.0);
    Outcome {
        statistic: z,
        p_value,
    }
}

/// Rows that share a score.
struct Group {
    score: f64,
    rows: f64,
    current: f64,
}

struct Groups {
    items: Vec<Group>,
    rows: f64,
    varies: bool,
    /// The smallest gap between two scores, which the sum's steps are multiples of at best.
    gap: f64,
}

impl Groups {
    /// Mid-ranks of at most [`GROUPS_MAX`] runs of neighbouring bins, cut by pooled rows only, as scores
    /// of mean 0 and variance 1.
    fn of(pair: Pair<'_>, scores: Scores) -> Self {
        let rows = (pair.reference_rows() + pair.current_rows()) as f64;
        let run_min = rows / GROUPS_MAX as f64;
        let mut items: Vec<Group> = Vec::new();
        let (mut open, mut below) = (false, 0.0);
        for (&r, &c) in pair.reference().iter().zip(pair.current()) {
            if r + c == 0 {
                continue;
            }
            match items.last_mut() {
                Some(last) if open => {
                    last.rows += (r + c) as f64;
                    last.current += c as f64;
                }
                _ => items.push(Group {
                    score: 0.0,
                    rows: (r + c) as f64,
                    current: c as f64,
                }),
            }
            open = items.last().is_some_and(|last| last.rows < run_min);
        }
        for group in &mut items {
            let rank = below + (group.rows - rows) / 2.0;
            below += group.rows;
            group.score = match scores {
                Scores::Location => rank,
                Scores::Spread => rank * rank,
            };
        }
        let mean = items.iter().map(|g| g.score * (g.rows / rows)).sum::<f64>();
        let variance = items
            .iter()
            .map(|g| (g.score - mean).powi(2) * (g.rows / rows))
            .sum::<f64>();
        let deviation = variance.sqrt();
        let varies = deviation > mean.abs() * 1e-12 && deviation > 0.0;
        if varies {
            for group in &mut items {
                group.score = (group.score - mean) / deviation;
            }
        }
        let mut ordered: Vec<f64> = items.iter().map(|group| group.score).collect();
        ordered.sort_unstable_by(f64::total_cmp);
        let gaps = ordered.windows(2).map(|w| w[1] - w[0]);
        let gap = gaps.filter(|gap| *gap > 1e-9).fold(f64::INFINITY, f64::min);
        Self {
            items,
            rows,
            varies,
            gap,
        }
    }

    /// The smaller of P(sum of dealt scores ≤ `sum`) and P(≥ `sum`), with every dealing counted; none when there are
    /// more than `most`.
    fn counted_tail(&self, sum: f64, most: f64) -> Option<f64> {
        let ways: f64 = self.items.iter().map(|group| group.rows + 1.0).product();
        if ways > most {
            return None;
        }
        let dealt: f64 = self.items.iter().map(|group| group.current).sum();
        // Rows dealt from the groups so far, their sum of scores, and the logarithm of the number of ways.
        let mut partial = vec![(0.0, 0.0, 0.0)];
        for group in &self.items {
            let rows = group.rows as u64;
            partial = partial
                .iter()
                .flat_map(|&(taken, score, ways)| {
                    (0..=rows).map(move |k| {
                        let k = k as f64;
                        let chosen = ln_binomial(group.rows, k);
                        (taken + k, score + k * group.score, ways + chosen)
                    })
                })
                .filter(|(taken, ..)| *taken <= dealt)
                .collect();
        }
        let all = ln_binomial(self.rows, dealt);
        let (mut up, mut down) = (0.0, 0.0);
        for (_, score, ways) in partial.into_iter().filter(|(taken, ..)| *taken == dealt) {
            let share = (ways - all).exp();
            if score >= sum - SUM_TOLERANCE {
                up += share;
            }
            if score <= sum + SUM_TOLERANCE {
                down += share;
            }
        }
        Some(f64::min(up, down))
    }

    /// P(the sum of dealt scores is at least `sum`), of the scores or, when not `up`, of their negatives.
    fn upper_tail(&self, sum: f64, up: bool, dealt: f64, deviation: f64) -> f64 {
        // Half a step towards the middle, for sums that come in steps.
        let sum = (sum - 0.5 * self.gap.min(deviation)).max(0.0);
        let plain = normal_sf(sum / deviation);
        if sum < PLAIN_DEVIATIONS * deviation {
            return plain;
        }
        let sign = if up { 1.0 } else { -1.0 };
        let point = Saddle::find(self, sign, sum, dealt);
        let w = (2.0 * point.exponent).max(0.0).sqrt();
        let u = point.s * (point.determinant / point.base).sqrt();
        // The largest term of the dealing bounds the tail where the point runs off to infinity.
        let bound = (-point.exponent).exp();
        // Comparisons with NaN are false.
        let is_sound = point.converged && w > 0.0 && u > 0.0 && w.is_finite() && u.is_finite();
        if !is_sound {
            return bound.min(1.0);
        }
        let density = (-0.5 * w * w).exp() / (2.0 * PI).sqrt();
        let tail = normal_sf(w) + density * (1.0 / u - 1.0 / w);
        if tail > 0.0 {
            tail.min(1.0)
        } else {
            bound.min(1.0)
        }
    }
}

/// The double saddlepoint of (sum of scores, rows dealt), each row being dealt independently with
/// probability π = n / N, and the log-likelihood that it costs.
struct Saddle {
    s: f64,
    /// s y + t n − K(s, t), at least 0.
    exponent: f64,
    /// |K''| at the point.
    determinant: f64,
    /// K_tt at the origin: N π (1 − π).
    base: f64,
    converged: bool,
}

/// K and its derivatives at a point, without the rows' own part.
#[derive(Default)]
struct Cumulants {
    k: f64,
    s: f64,
    t: f64,
    ss: f64,
    st: f64,
    tt: f64,
}

impl Cumulants {
    fn at(groups: &Groups, sign: f64, share: f64, s: f64, t: f64) -> Self {
        let mut sums = Self::default();
        for group in &groups.items {
            let score = sign * group.score;
            let x = s * score + t;
            // ln(1 − π + π e^x), and its derivative, without overflow.
            let (k, p) = if x > 0.0 {
                let inverse = (-x).exp();
                let all = share + (1.0 - share) * inverse;
                (x + all.ln(), share / all)
            } else {
                let all = 1.0 - share + share * x.exp();
                (all.ln(), share * x.exp() / all)
            };
            let (first, second) = (group.rows * p, group.rows * p * (1.0 - p));
            sums.k += group.rows * k;
            sums.s += first * score;
            sums.t += first;
            sums.ss += second * score * score;
            sums.st += second * score;
            sums.tt += second;
        }
        sums
    }
}

impl Saddle {
    /// Minimises the convex K(s, t) − s y − t n by Newton's method with step halving.
    fn find(groups: &Groups, sign: f64, y: f64, n: f64) -> Self {
        let share = n / groups.rows;
        let base = groups.rows * share * (1.0 - share);
        let (mut s, mut t) = (0.0, 0.0);
        let mut now = Cumulants::at(groups, sign, share, s, t);
        let mut converged = false;
        for _ in 0..STEPS_MAX {
            let (gap_s, gap_t) = (now.s - y, now.t - n);
            if gap_s.abs() <= 1e-9 * base.sqrt() && gap_t.abs() <= 1e-9 * base.sqrt() {
                converged = true;
                break;
            }
            let determinant = now.ss * now.tt - now.st * now.st;
            if determinant.is_nan() || determinant <= 1e-12 * base * base * 1e-12 {
                break;
            }
            let step_s = (now.tt * gap_s - now.st * gap_t) / determinant;
            let step_t = (now.ss * gap_t - now.st * gap_s) / determinant;
            let value = now.k - s * y - t * n;
            let slope = gap_s * step_s + gap_t * step_t;
            let mut length = 1.0;
            let next = loop {
                let (a, b) = (s - length * step_s, t - length * step_t);
                let next = Cumulants::at(groups, sign, share, a, b);
                let enough = next.k - a * y - b * n <= value - 1e-4 * length * slope;
                if enough || length < STEP_MIN {
                    (s, t) = (a, b);
                    break next;
                }
                length *= 0.5;
            };
            now = next;
        }
        Self {
            s,
            exponent: (s * y + t * n - now.k).max(0.0),
            determinant: now.ss * now.tt - now.st * now.st,
            base,
            converged,
        }
    }
}

/// Fisher's exact test of equal shares: `reference.0` hits in `reference.1` rows against the same of the
/// present. The statistic is the difference of the shares (present − reference); the two-sided
/// p-value is twice the smaller tail, which is never too small.
///
/// Sides without rows, or hits beyond the rows, give statistic 0 and p-value 1.
#[must_use]
pub fn fisher_exact(reference: (u64, u64), current: (u64, u64)) -> Outcome {
    let ((a, n), (c, m)) = (reference, current);
    if n == 0 || m == 0 || a > n || c > m {
        return Outcome {
            statistic: 0.0,
            p_value: 1.0,
        };
    }
    let difference = c as f64 / m as f64 - a as f64 / n as f64;
    // The smaller tail is the one beyond what was seen, on the side to which it departs.
    let tail = if difference >= 0.0 {
        upper_tail(c, m, a + c, n + m)
    } else {
        upper_tail(a, n, a + c, n + m)
    };
    Outcome {
        statistic: difference,
        p_value: (2.0 * tail).min(1.0),
    }
}

/// P(at least `seen` of the `hits` among `all` rows are dealt to a side of `dealt`).
fn upper_tail(seen: u64, dealt: u64, hits: u64, all: u64) -> f64 {
    let misses = all - hits;
    let (n, k, d) = (all as f64, hits as f64, dealt as f64);
    let x = seen as f64;
    let log = ln_binomial(k, x) + ln_binomial(n - k, d - x) - ln_binomial(n, d);
    let first = log.exp();
    let (mut term, mut sum) = (1.0, 1.0);
    let mut at = seen;
    while at < hits && at < dealt {
        // P(at + 1) / P(at)
        let left = misses as i128 - dealt as i128 + at as i128 + 1;
        term *= (hits - at) as f64 / (at + 1) as f64 * ((dealt - at) as f64 / left as f64);
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
        at += 1;
    }
    (first * sum).min(1.0)
}

/// The largest change of any one share, and whether chance explains it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LargestShare {
    /// The bin whose test is the strongest.
    pub bin: usize,
    /// Its share in the present less its share in the reference.
    pub change: f64,
    /// p-value of all bins together.
    pub p_value: f64,
}

/// A bin that could not reach this p-value even with all its rows on one side is not asked: it would
/// cost the others power and could not answer (Tarone, "A modified Bonferroni method for discrete
/// data", Biometrics 46, 1990).
const REACHABLE_P: f64 = 1e-3;

/// Whether any single bin's share has changed: Fisher's exact test of every bin that could answer, times
/// their number (Bonferroni). Which bins are asked depends on pooled rows only. `None` when no bin could
/// answer, or only one holds rows.
#[must_use]
pub fn largest_share(pair: Pair<'_>) -> Option<LargestShare> {
    let (n, m) = (pair.reference_rows(), pair.current_rows());
    let (mut asked, mut filled, mut best) = (0_u64, 0_u64, None::<LargestShare>);
    // Neighbouring bins often hold as many rows: values that do not recur hold one each.
    let (mut known_rows, mut known_p) = (0, 1.0);
    for (bin, (&r, &c)) in pair.reference().iter().zip(pair.current()).enumerate() {
        let rows = r + c;
        filled += u64::from(rows > 0);
        if rows == 0 || rows == n + m {
            continue;
        }
        if rows != known_rows {
            (known_rows, known_p) = (rows, best_p(rows, n, m));
        }
        if known_p > REACHABLE_P {
            continue;
        }
        asked += 1;
        let test = fisher_exact((r, n), (c, m));
        if best.is_none_or(|best| test.p_value < best.p_value) {
            best = Some(LargestShare {
                bin,
                change: test.statistic,
                p_value: test.p_value,
            });
        }
    }
    // Of two bins each says what the other says.
    let tests = if filled == 2 { 1 } else { asked };
    best.map(|best| LargestShare {
        p_value: (best.p_value * tests as f64).min(1.0),
        ..best
    })
}

/// The smallest p-value that a bin of this many rows can reach.
fn best_p(rows: u64, n: u64, m: u64) -> f64 {
    let to_current = rows.min(m);
    let to_reference = rows.min(n);
    let one = fisher_exact((rows - to_current, n), (to_current, m)).p_value;
    let other = fisher_exact((to_reference, n), (rows - to_reference, m)).p_value;
    one.min(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All subsets of the rows that could have been dealt to the present, by brute force.
    fn exact_two_sided(reference: &[u64], current: &[u64], scores: Scores) -> f64 {
        let pair = Pair::new(reference, current).unwrap();
        let groups = Groups::of(pair, scores);
        let mut all = Vec::new();
        for group in &groups.items {
            all.extend(std::iter::repeat_n(group.score, group.rows as usize));
        }
        let dealt = pair.current_rows() as u32;
        let seen: f64 = groups.items.iter().map(|g| g.score * g.current).sum();
        let (mut up, mut down, mut ways) = (0_u64, 0_u64, 0_u64);
        for set in 0_u32..1 << all.len() {
            if set.count_ones() != dealt {
                continue;
            }
            let sum: f64 = (0..all.len())
                .filter(|i| set >> i & 1 == 1)
                .map(|i| all[i])
                .sum();
            ways += 1;
            up += u64::from(sum >= seen - 1e-9);
            down += u64::from(sum <= seen + 1e-9);
        }
        (2.0 * up.min(down) as f64 / ways as f64).min(1.0)
    }

    /// Ten rows against ten without ties, further and further apart: within a tenth of the exact p-value
    /// down to 1e-4 and below, where the normal approximation is off by factors.
    #[test]
    fn the_saddlepoint_is_right_in_the_tail() {
        for overlap in 0..10 {
            let mut reference = [0_u64; 20];
            let mut current = [0_u64; 20];
            for i in 0..10 {
                // The present takes the top, but for `overlap` exchanged places.
                let (low, high) = (i, 19 - i);
                let swap = i >= 10 - overlap && i % 2 == 0;
                reference[if swap { high } else { low }] += 1;
                current[if swap { low } else { high }] += 1;
            }
            let ours = rank_test(Pair::new(&reference, &current).unwrap(), Scores::Location);
            let exact = exact_two_sided(&reference, &current, Scores::Location);
            let ratio = ours.p_value / exact;
            assert!((0.9..1.1).contains(&ratio), "{overlap}: {ours:?} {exact:e}");
        }
    }

    /// Every row of the present above every row of the reference: one dealing of C(20, 10), both ways.
    #[test]
    fn the_extreme_dealing_has_its_probability() {
        let (mut r, mut c) = ([1_u64; 20], [0_u64; 20]);
        r[10..].fill(0);
        c[10..].fill(1);
        let test = rank_test(Pair::new(&r, &c).unwrap(), Scores::Location);
        let exact = 2.0 / 184_756.0;
        assert!(
            (0.8..1.25).contains(&(test.p_value / exact)),
            "{test:?} {exact:e}"
        );
        assert!(test.statistic > 3.0);
    }

    /// A step of one bin: no scores vary, nothing is claimed.
    #[test]
    fn one_bin_says_nothing() {
        let test = rank_test(Pair::new(&[0, 9], &[0, 4]).unwrap(), Scores::Spread);
        assert_eq!((test.statistic, test.p_value), (0.0, 1.0));
        assert_eq!(largest_share(Pair::new(&[0, 9], &[0, 4]).unwrap()), None);
    }

    /// The lady tasting tea: 3 of 4 against 1 of 4 is 17/70 one-sided; 4 against 0 is 1/70.
    #[test]
    fn fisher_by_hand() {
        let test = fisher_exact((1, 4), (3, 4));
        assert!((test.p_value - 2.0 * 17.0 / 70.0).abs() < 1e-12, "{test:?}");
        let test = fisher_exact((4, 4), (0, 4));
        assert!((test.p_value - 2.0 / 70.0).abs() < 1e-12, "{test:?}");
        assert_eq!(test.statistic, -1.0);
        assert_eq!(fisher_exact((0, 7), (0, 5)).p_value, 1.0);
    }

    /// A share that moves is found in its bin; bins of a row each are not asked.
    #[test]
    fn the_bin_that_moved_is_named() {
        let mut reference = vec![1_u64; 40];
        let mut current = vec![1_u64; 40];
        reference.extend([300, 300, 300]);
        current.extend([300, 400, 200]);
        let found = largest_share(Pair::new(&reference, &current).unwrap()).unwrap();
        assert_eq!(found.bin, 42);
        let alone = fisher_exact((300, 940), (200, 940)).p_value;
        assert!(
            (found.p_value - 3.0 * alone).abs() < 1e-15,
            "{found:?} {alone}"
        );
        assert!(found.change < -0.1);
    }

    proptest! {
        /// On any small table with ties the p-value is the exact one, and symmetric in the sides.
        #[test]
        fn small_tables_are_exact(
            table in prop::collection::vec((0_u64..4, 0_u64..4), 2..8),
            spread in any::<bool>(),
        ) {
            let (r, c): (Vec<u64>, Vec<u64>) = table.into_iter().unzip();
            let (n, m): (u64, u64) = (r.iter().sum(), c.iter().sum());
            prop_assume!(n > 1 && m > 1 && n + m <= 18);
            let scores = if spread { Scores::Spread } else { Scores::Location };
            let ours = rank_test(Pair::new(&r, &c).unwrap(), scores);
            let back = rank_test(Pair::new(&c, &r).unwrap(), scores);
            prop_assert!((ours.p_value - back.p_value).abs() < 1e-9);
            if ours.statistic != 0.0 {
                let exact = exact_two_sided(&r, &c, scores);
                prop_assert!((ours.p_value - exact).abs() < 1e-9, "{ours:?} {exact}");
            }
        }

        /// Where there are more dealings than are counted, the saddlepoint is near the exact p-value: never below
        /// half of it, so that no verdict comes from the approximation.
        #[test]
        fn larger_tables_are_not_called_too_early(
            table in prop::collection::vec((0_u64..9, 0_u64..9), 3..7),
            spread in any::<bool>(),
        ) {
            let (r, c): (Vec<u64>, Vec<u64>) = table.into_iter().unzip();
            let scores = if spread { Scores::Spread } else { Scores::Location };
            let Ok(pair) = Pair::new(&r, &c) else { return Ok(()) };
            let groups = Groups::of(pair, scores);
            let ours = rank_test(pair, scores);
            prop_assume!(groups.counted_tail(0.0, COUNTED_MAX).is_none() && ours.statistic != 0.0);
            let sum: f64 = groups.items.iter().map(|g| g.score * g.current).sum();
            if let Some(tail) = groups.counted_tail(sum, 100.0 * COUNTED_MAX) {
                let exact = (2.0 * tail).min(1.0);
                prop_assert!(ours.p_value > 0.5 * exact, "{ours:?} {exact}");
                prop_assert!(ours.p_value < 2.0 * exact + 1e-3, "{ours:?} {exact}");
            }
        }

        /// Fisher's tails are those of SciPy's hypergeometric distribution, summed term by term.
        #[test]
        fn fisher_is_the_hypergeometric_tail(a in 0_u64..30, c in 0_u64..30, n in 30_u64..60, m in 30_u64..60) {
            let hits = a + c;
            let weight = |x: u64| {
                (ln_binomial(n as f64, (hits - x) as f64) + ln_binomial(m as f64, x as f64)
                    - ln_binomial((n + m) as f64, hits as f64)).exp()
            };
            let range = hits.saturating_sub(n)..=hits.min(m);
            let up: f64 = range.clone().filter(|x| *x >= c).map(weight).sum();
            let down: f64 = range.filter(|x| *x <= c).map(weight).sum();
            let p = fisher_exact((a, n), (c, m)).p_value;
            let higher = c as f64 / m as f64 >= a as f64 / n as f64;
            let want = (2.0 * if higher { up } else { down }).min(1.0);
            prop_assert!((p - want).abs() <= 1e-9 * want, "{p} {want}");
        }
    }
}
