//! p-values of distances: the pooled rows are dealt to both sides again and again, at random with a fixed
//! seed, so the same counts give the same p-value.

use crate::distance::Pair;
use crate::error::StatisticsError;
use crate::random::Random;
use crate::special::ln_binomial;

/// Deals as far out as what was seen after which the answer is clear.
const EXCEEDED_MAX: u64 = 10;
/// Most deals of one column: a p-value of 1e-6 is seen, and ten bins take about four seconds.
const DEALS_LIMIT: u64 = 2_000_000;
/// A hypergeometric count of this variance or more is drawn as a rounded normal one.
const NORMAL_VARIANCE: f64 = 400.0;

/// Deals that suffice to reject at `rate` over so many tests, twice over.
pub(super) fn deals_max(rate: f64, tests: usize) -> u64 {
    let wanted = (2.0 * tests.max(1) as f64 / rate).ceil();
    (wanted as u64).clamp(999, DEALS_LIMIT)
}

/// How many of `hits` among `all` rows are among `dealt` ones.
fn hypergeometric(random: &mut Random, all: u64, hits: u64, dealt: u64) -> u64 {
    let low = (hits + dealt).saturating_sub(all);
    let high = hits.min(dealt);
    if low == high {
        return low;
    }
    let (n, k, d) = (all as f64, hits as f64, dealt as f64);
    let mean = d * (k / n);
    let variance = mean * (1.0 - k / n) * ((n - d) / (n - 1.0));
    if variance >= NORMAL_VARIANCE {
        let drawn = (mean + random.normal() * variance.sqrt()).round();
        return (drawn.max(0.0) as u64).clamp(low, high);
    }
    // Inversion outwards from the mode, so that a handful of steps suffice.
    let mode = (((d + 1.0) * (k + 1.0) / (n + 2.0)) as u64).clamp(low, high);
    let x = mode as f64;
    let log = ln_binomial(k, x) + ln_binomial(n - k, d - x) - ln_binomial(n, d);
    let mut left = random.uniform() - log.exp();
    let (mut up, mut down) = (mode, mode);
    let (mut p_up, mut p_down) = (log.exp(), log.exp());
    while left > 0.0 && (up < high || down > low) {
        if up < high {
            let at = up as f64;
            p_up *= (k - at) * (d - at) / ((at + 1.0) * (n - k - d + at + 1.0));
            up += 1;
            left -= p_up;
            if left <= 0.0 {
                return up;
            }
        }
        if down > low {
            let at = down as f64;
            p_down *= at * (n - k - d + at) / ((k - at + 1.0) * (d - at + 1.0));
            down -= 1;
            left -= p_down;
            if left <= 0.0 {
                return down;
            }
        }
    }
    mode
}

/// The share of deals whose distance is at least the one seen, of at most `deals_max`; fewer once it is
/// clearly large (Besag and Clifford 1991). Never 0, and never too small.
pub(super) fn p_value(
    pair: Pair<'_>,
    deals_max: u64,
    distance: impl Fn(Pair<'_>) -> Result<f64, StatisticsError>,
) -> Result<f64, StatisticsError> {
    // What lies within rounding of the observed distance counts as reaching it.
    let seen = distance(pair)?;
    let seen = seen - seen.abs() * 1e-12;
    let pooled: Vec<u64> = pair
        .reference()
        .iter()
        .zip(pair.current())
        .map(|(r, c)| r + c)
        .collect();
    let mut random = Random::new(0xD1F7);
    let (mut reference, mut current) = (vec![0; pooled.len()], vec![0; pooled.len()]);
    let mut exceeded = 0;
    for deal in 1..=deals_max {
        let mut all = pair.reference_rows() + pair.current_rows();
        let mut dealt = pair.current_rows();
        for (bin, rows) in pooled.iter().enumerate() {
            let drawn = hypergeometric(&mut random, all, *rows, dealt);
            current[bin] = drawn;
            reference[bin] = rows - drawn;
            all -= rows;
            dealt -= drawn;
        }
        exceeded += u64::from(distance(Pair::new(&reference, &current)?)? >= seen);
        if exceeded == EXCEEDED_MAX {
            return Ok(exceeded as f64 / deal as f64);
        }
    }
    Ok((exceeded + 1) as f64 / (deals_max + 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypothesis::fisher_exact;

    /// Two bins: the distance of shares orders deals as Fisher's test does, so both p-values agree to
    /// the number of deals.
    #[test]
    fn deals_follow_the_hypergeometric_law() {
        for (r, c) in [
            ([30, 70], [45, 55]),
            ([3, 97], [9, 91]),
            ([4000, 6000], [4200, 5800]),
        ] {
            let pair = Pair::new(&r, &c).unwrap();
            let ours = p_value(pair, 200_000, |pair| Ok(pair.total_variation())).unwrap();
            let exact = fisher_exact((r[0], r[0] + r[1]), (c[0], c[0] + c[1])).p_value;
            // Stopped at ten, a p-value has an error of a third.
            assert!(
                (0.4..2.5).contains(&(ours / exact)),
                "{r:?}: {ours} {exact}"
            );
        }
    }

    /// Means and variances of drawn counts, below and above the switch to the normal.
    #[test]
    fn counts_have_the_right_moments() {
        let mut random = Random::new(7);
        for (all, hits, dealt) in [(100, 10, 50), (10_000, 400, 50), (20_000, 8_000, 10_000)] {
            let draws: Vec<f64> = (0..20_000)
                .map(|_| hypergeometric(&mut random, all, hits, dealt) as f64)
                .collect();
            let mean = draws.iter().sum::<f64>() / 2e4;
            let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 2e4;
            let (n, k, d) = (all as f64, hits as f64, dealt as f64);
            let want = d * k / n * (1.0 - k / n) * (n - d) / (n - 1.0);
            assert!(
                (mean - d * k / n).abs() < 5.0 * (want / 2e4).sqrt(),
                "{all} {hits} {dealt}"
            );
            assert!((variance / want - 1.0).abs() < 0.06, "{variance} {want}");
        }
    }
}
