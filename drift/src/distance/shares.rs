//! Distances between shares, blind to the order of bins: they serve categories and numbers alike.

use super::Pair;
use crate::error::StatisticsError;
use crate::special::excess_entropy;
use std::f64::consts::LN_2;

/// What stands in for shares that are too small for a logarithm. PSI and Kullback-Leibler grow
/// without bound as a share goes to 0, so the floor is part of their definition: two PSI values
/// with different floors do not compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Floor {
    /// Shares below this are raised to it; the native definition, at [`Floor::NATIVE`].
    AtLeast(f64),
    /// Only shares of 0 are replaced by this; smaller shares than it stay.
    ZeroBecomes(f64),
    /// This is added to both shares inside the logarithm only.
    Plus(f64),
}

impl Floor {
    /// Shares of less than one row in ten thousand are taken as one in ten thousand.
    pub const NATIVE: Self = Self::AtLeast(1e-4);

    fn check(self) -> Result<Self, StatisticsError> {
        let (Self::AtLeast(value) | Self::ZeroBecomes(value) | Self::Plus(value)) = self;
        if value > 0.0 && value <= 1.0 {
            return Ok(self);
        }
        Err(StatisticsError::BadParameter {
            parameter: "floor",
            value,
            allowed: "a share above 0 and up to 1",
        })
    }

    /// The share as it enters the difference of PSI.
    fn weight(self, share: f64) -> f64 {
        match self {
            Self::AtLeast(floor) => share.max(floor),
            Self::ZeroBecomes(value) if share == 0.0 => value,
            Self::ZeroBecomes(_) | Self::Plus(_) => share,
        }
    }

    /// The share as it enters the logarithm.
    fn argument(self, share: f64) -> f64 {
        match self {
            Self::Plus(value) => share + value,
            _ => self.weight(share),
        }
    }
}

/// The logarithm that a Jensen-Shannon distance is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogBase {
    /// Bits: the distance of disjoint distributions is 1.
    Two,
    /// Nats: the distance of disjoint distributions is √ln 2.
    Natural,
}

impl Pair<'_> {
    /// Population stability index Σ (p − q) ln(p / q) in nats, p and q the floored shares, which are
    /// not scaled to add up to 1 again. Symmetric; 0 to 2 ln(1/floor).
    ///
    /// It is the symmetrised Kullback-Leibler divergence (Jeffreys 1946). Its common thresholds 0.1 and
    /// 0.25 ignore the sample size: with B bins and no drift its mean is about
    /// (B − 1)(1/n_ref + 1/n_cur).
    ///
    /// # Errors
    /// [`StatisticsError::BadParameter`] when the floor is not in (0, 1].
    pub fn psi(&self, floor: Floor) -> Result<f64, StatisticsError> {
        let floor = floor.check()?;
        let (n, m) = (self.reference_rows as f64, self.current_rows as f64);
        let product = self.product();
        let mut sum = 0.0;
        for ((&r, &c), (crossed, _)) in self.reference.iter().zip(self.current).zip(self.crossed())
        {
            let (p, q) = (r as f64 / n, c as f64 / m);
            let (weight_p, weight_q) = (floor.weight(p), floor.weight(q));
            // Shares that no floor touches differ by an exact number; `crossed` is p − q.
            let difference = if weight_p == p && weight_q == q {
                -crossed / product
            } else {
                weight_q - weight_p
            };
            if difference != 0.0 {
                sum += difference * ln_ratio(floor.argument(q), floor.argument(p), difference);
            }
        }
        Ok(sum)
    }

    /// The population stability index of shares that half a row is added to in every bin that either
    /// side uses (Jeffreys' prior). Where counts are few its chance distribution is near χ², which
    /// that of [`Pair::psi`] is not: there one empty bin weighs as much as its floor is low.
    pub fn psi_smoothed(&self) -> f64 {
        let used = || {
            let pairs = self.reference.iter().zip(self.current);
            pairs.filter(|(r, c)| **r > 0 || **c > 0)
        };
        let extra = used().count() as f64 / 2.0;
        let (n, m) = (
            self.reference_rows as f64 + extra,
            self.current_rows as f64 + extra,
        );
        used()
            .map(|(&r, &c)| {
                let (p, q) = ((r as f64 + 0.5) / n, (c as f64 + 0.5) / m);
                (p - q) * (p / q).ln()
            })
            .sum()
    }

    /// Kullback-Leibler divergence of the current shares from the reference's,
    /// KL(reference ‖ current) = Σ p ln(p / q) in nats (Kullback and Leibler 1951); the direction that
    /// Evidently uses. [`Pair::swapped`] gives the other one.
    ///
    /// With a floor, both sides are floored and scaled to add up to 1. Without one the definition is
    /// taken at its word: +∞ when a bin that the reference fills is empty in the present.
    ///
    /// # Errors
    /// [`StatisticsError::BadParameter`] when the floor is not in (0, 1].
    pub fn kullback_leibler(&self, floor: Option<Floor>) -> Result<f64, StatisticsError> {
        let (n, m) = (self.reference_rows as f64, self.current_rows as f64);
        let floor = floor.map(Floor::check).transpose()?;
        let raised = |share: f64| floor.map_or(share, |floor| floor.argument(share));
        let (mut n_raised, mut m_raised) = (1.0, 1.0);
        if floor.is_some() {
            n_raised = self.reference.iter().map(|&r| raised(r as f64 / n)).sum();
            m_raised = self.current.iter().map(|&c| raised(c as f64 / m)).sum();
        }
        let mut sum = 0.0;
        for (&r, &c) in self.reference.iter().zip(self.current) {
            let p = raised(r as f64 / n) / n_raised;
            let q = raised(c as f64 / m) / m_raised;
            if q > 0.0 {
                // q ((1 + d) ln(1 + d) − d) with p = q (1 + d); the −d add up to 0.
                sum += q * excess_entropy((p - q) / q);
            } else if p > 0.0 {
                return Ok(f64::INFINITY);
            }
        }
        Ok(sum)
    }

    /// Jensen-Shannon distance: the root of ½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q) / 2
    /// (Lin 1991; a metric by Endres and Schindelin 2003). 0 to 1 in base 2, to √ln 2 in nats.
    #[must_use]
    pub fn jensen_shannon(&self, base: LogBase) -> f64 {
        let mut sum = 0.0;
        for (difference, total) in self.crossed() {
            if total > 0.0 {
                sum += total * mixing_entropy(difference / total);
            }
        }
        // The mixture's share is total / (2 n m), and the divergence is half the weighted mean.
        let nats = (sum / (4.0 * self.product())).min(LN_2);
        match base {
            LogBase::Natural => nats.sqrt(),
            LogBase::Two => (nats / LN_2).sqrt(),
        }
    }

    /// Hellinger distance √(½ Σ (√p − √q)²), 0 to 1 (Hellinger 1909).
    #[must_use]
    pub fn hellinger(&self) -> f64 {
        let (n, m) = (self.reference_rows as f64, self.current_rows as f64);
        let product = self.product();
        let mut sum = 0.0;
        for ((&r, &c), (difference, _)) in
            self.reference.iter().zip(self.current).zip(self.crossed())
        {
            if difference != 0.0 {
                // √p − √q = (p − q) / (√p + √q), exact where the shares are close.
                let gap = difference / product / ((r as f64 / n).sqrt() + (c as f64 / m).sqrt());
                sum += gap * gap;
            }
        }
        (0.5 * sum).min(1.0).sqrt()
    }

    /// Total variation distance ½ Σ |p − q|, 0 to 1: the largest difference in probability that any
    /// set of bins has.
    #[must_use]
    pub fn total_variation(&self) -> f64 {
        let sum: f64 = self.crossed().map(|(difference, _)| difference.abs()).sum();
        (0.5 * sum / self.product()).min(1.0)
    }

    /// L-infinity distance max |p − q|, 0 to 1: the largest change of any one bin.
    #[must_use]
    pub fn l_infinity(&self) -> f64 {
        let largest = self.crossed().fold(0.0, |largest: f64, (difference, _)| {
            largest.max(difference.abs())
        });
        largest / self.product()
    }
}

/// ln(q / p), given q − p to more digits than the shares have where they are close.
fn ln_ratio(q: f64, p: f64, difference: f64) -> f64 {
    let relative = difference / p;
    if relative.abs() < 0.5 {
        relative.ln_1p()
    } else {
        (q / p).ln()
    }
}

/// (1 + d) ln(1 + d) + (1 − d) ln(1 − d) for |d| ≤ 1: non-negative, and exact near 0.
fn mixing_entropy(d: f64) -> f64 {
    if d.abs() > 0.1 {
        return excess_entropy(d) + excess_entropy(-d);
    }
    // Σ_{k≥1} d^2k / (k (2k − 1)); the ninth term is below 1e-17 of the first.
    let u = d * d;
    let tail = 1.0 / 45.0 + u * (1.0 / 66.0 + u * (1.0 / 91.0 + u / 120.0));
    u * (1.0 + u * (1.0 / 6.0 + u * (1.0 / 15.0 + u * (1.0 / 28.0 + u * tail))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'a>(reference: &'a [u64], current: &'a [u64]) -> Pair<'a> {
        Pair::new(reference, current).unwrap()
    }

    /// The floors differ only where shares are small, and by hand.
    #[test]
    fn psi_by_hand() {
        let p = pair(&[50, 50, 0], &[25, 75, 0]);
        let want = 0.25 * 2f64.ln() + 0.25 * 1.5f64.ln();
        for floor in [Floor::AtLeast(1e-4), Floor::ZeroBecomes(1e-4)] {
            assert!((p.psi(floor).unwrap() - want).abs() < 1e-15);
        }
        let p = pair(&[1, 0], &[0, 1]);
        let want = 2.0 * (1.0 - 1e-4) * 1e4_f64.ln();
        assert!((p.psi(Floor::NATIVE).unwrap() - want).abs() < 1e-12);
        // A share of 1e-5 is raised by one floor and kept by the other.
        let p = pair(&[99_999, 1], &[1, 1]);
        let kept =
            (0.5 - 0.99999) * (0.5 / 0.99999_f64).ln() + (0.5 - 1e-5) * (0.5 / 1e-5_f64).ln();
        assert!((p.psi(Floor::ZeroBecomes(1e-4)).unwrap() - kept).abs() < 1e-12);
        assert!(p.psi(Floor::NATIVE).unwrap() < kept - 1.0);
    }

    /// Scenario: two samples of 222 rows in 20 equal bins, ten thousand times (seed 5).
    /// Guarantee: χ² gives the smoothed index's tail to within a third at 1 in 20 and 1 in 1,000, where
    /// the plain one's is called several times too rare.
    #[test]
    fn the_smoothed_index_has_the_tail_of_chi_square() {
        let mut state = 5u64;
        let mut sample = || {
            let mut bins = vec![0u64; 20];
            for _ in 0..222 {
                // Knuth's MMIX generator, of whose high bits 0 to 19 are made.
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                bins[(((state >> 33) * 20) >> 31) as usize] += 1;
            }
            bins
        };
        let (mut smoothed, mut plain) = ([0u32; 2], [0u32; 2]);
        for _ in 0..10_000 {
            let (a, b) = (sample(), sample());
            let p = pair(&a, &b);
            for (at, level) in [0.05, 0.001].into_iter().enumerate() {
                let tail = |psi: f64| crate::special::chi_square_sf(psi * 111.0, 19.0);
                smoothed[at] += u32::from(tail(p.psi_smoothed()) < level);
                plain[at] += u32::from(tail(p.psi(Floor::NATIVE).unwrap()) < level);
            }
        }
        assert!(smoothed[0] < 667 && smoothed[1] < 14, "{smoothed:?}");
        assert!(plain[1] > 30, "{plain:?}");
    }

    #[test]
    fn floors_off_their_range_are_refused() {
        let p = pair(&[1, 1], &[1, 1]);
        for value in [0.0, -1.0, 1.5, f64::NAN] {
            assert!(p.psi(Floor::AtLeast(value)).is_err());
            assert!(p.kullback_leibler(Some(Floor::Plus(value))).is_err());
        }
    }

    /// Kullback-Leibler by hand, in both directions, and infinite without a floor.
    #[test]
    fn kullback_leibler_by_hand() {
        let p = pair(&[50, 50], &[25, 75]);
        let want = 0.5 * 2f64.ln() + 0.5 * (2.0 / 3.0_f64).ln();
        assert!((p.kullback_leibler(None).unwrap() - want).abs() < 1e-15);
        let back = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert!((p.swapped().kullback_leibler(None).unwrap() - back).abs() < 1e-15);
        let p = pair(&[1, 1], &[1, 0]);
        assert_eq!(p.kullback_leibler(None).unwrap(), f64::INFINITY);
        assert!(p.kullback_leibler(Some(Floor::NATIVE)).unwrap().is_finite());
        assert!((p.swapped().kullback_leibler(None).unwrap() - LN_2).abs() < 1e-15);
    }

    /// Distances far below the rounding error of a share keep their digits: shares that differ by
    /// 1e-12 are not lost in 1e-16 of noise.
    #[test]
    fn nearly_equal_shares_keep_their_digits() {
        let half = 1_u64 << 40;
        let (even, uneven) = ([half, half], [half + 1, half - 1]);
        let p = pair(&even, &uneven);
        let d = 1.0 / half as f64; // relative change of each share
        let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-9, "{got} {want}");
        close(p.total_variation(), 0.5 * d);
        close(p.hellinger(), d / 8f64.sqrt());
        close(p.jensen_shannon(LogBase::Natural), d / 8f64.sqrt());
        close(p.psi(Floor::NATIVE).unwrap(), d * d);
    }
}
