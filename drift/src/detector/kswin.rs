//! KSWIN: the newest values of a window against a random sample of the older ones.
//!
//! Raab, Heusinger and Schleif, "Reactive soft prototype computing for concept drift streams",
//! Neurocomputing 416, 2020. Of the last `window_size` values the newest `stat_size` are compared
//! with as many drawn without replacement from the rest, by the two-sample Kolmogorov-Smirnov test.
//! As both samples have one size, the exact p-value depends only on h = D · stat_size (Gnedenko and
//! Korolyuk 1951), so the smallest h that is significant is found once and an update needs no
//! p-value. Besides p ≤ `alpha`, D must exceed 0.1.
//!
//! The draw comes from a generator in the state (SplitMix64, Steele et al. 2014), so a replay draws
//! the same; river draws otherwise, so positions agree with its only roughly.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::ring::{Ring, WINDOW_MAX};
use super::{Detector, DetectorError, Domain, Parameter, Verdict};

/// Distance below which a difference is not drift, however significant.
const DISTANCE_MIN: f64 = 0.1;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::number(
        "alpha",
        0.005,
        Domain::Open(0.0, 1.0),
        "p-value at or below which it is drift",
    ),
    Parameter::count("window_size", 100, 2, WINDOW_MAX, "values in the window"),
    Parameter::count(
        "stat_size",
        30,
        1,
        WINDOW_MAX,
        "newest values that are compared",
    ),
    Parameter::count("seed", 42, 0, u64::MAX, "seed of the random sample"),
];

/// The detector. Memory: eight bytes for each value in the window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kswin {
    stat_size: u64,
    seed: u64,
    /// Smallest h = D · stat_size that is drift; above `stat_size` when none is.
    critical: u64,
    random: u64,
    window: Ring,
}

impl Kswin {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        let (window, stat) = (p.count("window_size"), p.count("stat_size"));
        if stat > window / 2 {
            return Err(p.refuse("stat_size", "at most half of window_size"));
        }
        Ok(Self {
            stat_size: stat,
            seed: p.count("seed"),
            critical: critical(stat, p.number("alpha")),
            random: p.count("seed"),
            window: Ring::new(window as usize),
        })
    }

    /// `stat_size` of the older values, each subset equally likely (Knuth's algorithm S), sorted.
    fn draw(&mut self) -> Vec<f64> {
        let mut wanted = self.stat_size;
        let older = (self.window.len() as u64).saturating_sub(self.stat_size);
        let mut drawn = Vec::with_capacity(wanted as usize);
        for i in 0..older {
            let left = older - i;
            // The high half of the product of a 64-bit word and `left` is uniform in 0..left.
            let r = ((u128::from(next(&mut self.random)) * u128::from(left)) >> 64) as u64;
            if r < wanted {
                drawn.push(self.window.get(i as usize));
                wanted -= 1;
            }
        }
        drawn.sort_unstable_by(f64::total_cmp);
        drawn
    }

    fn newest(&self) -> Vec<f64> {
        let skip = self.window.len().saturating_sub(self.stat_size as usize);
        let mut newest: Vec<_> = self.window.iter().skip(skip).collect();
        newest.sort_unstable_by(f64::total_cmp);
        newest
    }
}

/// One step of SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// n · D of two sorted samples of n values each.
fn largest_gap(a: &[f64], b: &[f64]) -> u64 {
    let (mut i, mut j, mut gap) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let x = a[i].min(b[j]);
        while i < a.len() && a[i] <= x {
            i += 1;
        }
        while j < b.len() && b[j] <= x {
            j += 1;
        }
        gap = gap.max(i.abs_diff(j) as u64);
    }
    gap
}

/// P(n D ≥ h) for two samples of n values from one continuous distribution:
/// 2 (C(2n, n−h) − C(2n, n−2h) + …)/C(2n, n), summed from the last term.
fn p_value(n: u64, h: u64) -> f64 {
    if h == 0 {
        return 1.0;
    }
    let mut p = 0.0;
    for k in (0..=n / h).rev() {
        let term = (0..h).fold(1.0, |t, j| {
            (n as f64 - (k * h + j) as f64) * t / (n + k * h + j + 1) as f64
        });
        p = term * (1.0 - p);
    }
    (2.0 * p).clamp(0.0, 1.0)
}

fn critical(n: u64, alpha: f64) -> u64 {
    let (mut lo, mut hi) = (1, n + 1);
    while lo < hi {
        let mid = lo + (hi - lo) / 2;
        if p_value(n, mid) <= alpha {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    while lo as f64 / n as f64 <= DISTANCE_MIN {
        lo += 1;
    }
    lo
}

impl Detector for Kswin {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.window.push(x);
        if !self.window.is_full() {
            return Verdict::Stable;
        }
        let drawn = self.draw();
        if largest_gap(&drawn, &self.newest()) < self.critical {
            return Verdict::Stable;
        }
        self.reset();
        Verdict::Drift
    }

    fn reset(&mut self) {
        self.window.clear();
        self.random = self.seed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exact p-values of equal samples agree with counting every order of 2n values.
    #[test]
    fn p_value_equals_enumeration() {
        let n = 6_u32;
        let mut counts = vec![0_u64; n as usize + 1];
        for order in 0_u32..1 << (2 * n) {
            if order.count_ones() != n {
                continue;
            }
            let (mut height, mut gap) = (0_i32, 0);
            for i in 0..2 * n {
                height += if order >> i & 1 == 1 { 1 } else { -1 };
                gap = gap.max(height.abs());
            }
            counts[gap as usize] += 1;
        }
        let all: u64 = counts.iter().sum();
        for h in 1..=n as usize {
            let tail: u64 = counts[h..].iter().sum();
            let p = p_value(u64::from(n), h as u64);
            assert!((p - tail as f64 / all as f64).abs() < 1e-12, "h = {h}: {p}");
        }
    }

    /// Ties advance both samples before the gap is measured.
    #[test]
    fn gap_with_ties() {
        assert_eq!(largest_gap(&[1.0, 1.0, 2.0], &[1.0, 2.0, 2.0]), 1);
        assert_eq!(largest_gap(&[1.0, 1.0], &[1.0, 1.0]), 0);
        assert_eq!(largest_gap(&[1.0, 2.0], &[3.0, 4.0]), 2);
    }

    /// The sample holds `stat_size` values of the older part only, and every one can be drawn.
    #[test]
    fn draws_from_the_older_part() {
        let p = Checked::new(
            super::super::Kind::Kswin,
            super::super::Compat::Native,
            PARAMETERS,
            &super::super::Params::new()
                .with("window_size", 20)
                .with("stat_size", 5),
        )
        .unwrap();
        let mut k = Kswin::build(&p).unwrap();
        (0..20).for_each(|i| k.window.push(f64::from(i)));
        let mut seen = [0_u32; 15];
        for _ in 0..3000 {
            let drawn = k.draw();
            assert_eq!(drawn.len(), 5);
            drawn.iter().for_each(|x| seen[*x as usize] += 1);
        }
        // Each is expected 1000 times with a standard deviation below 26.
        assert!(seen.iter().all(|n| (870..1130).contains(n)), "{seen:?}");
    }
}
