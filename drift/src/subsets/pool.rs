//! How much faster: a group's own slope drawn towards the estate's by as much as chance may be in it.
//!
//! The deviation θ of a group's slope from the estate's is taken to come from one of two normal laws: that of
//! ordinary groups of its level, around the slope of the devices in no named group, or that of groups that are
//! named, around 0. Their variances τ² are estimated
//! by the general method of moments (DerSimonian and Kacker 2007, the DerSimonian-Laird family), with weights that do not
//! rest on the estimated variances, from the groups that are not named and from those that are; the share of the
//! second law is that of the groups that were named. The posterior is then a mixture of two normal laws, widened to
//! Student's t where a group's scatter is little known. It needs no correction for having picked the groups by
//! their size, as an interval around the plain estimate would (Efron 2010, chapter 1).
//!
//! Ratios are Fieller's: the interval is of those ρ for which slope − ρ × estate's slope may be 0, so that the
//! error of the estate's own slope counts.

use serde::{Deserialize, Serialize};

use super::moments::{Contrast, Moments, Prior, variance};
use crate::performance::{Estimate, Interval};
use crate::special::student_t_two_sided;

/// Standard errors that the estate's slope must lie above 0 for ratios to it to mean anything.
const CLEAR_ERRORS: f64 = 3.0;
/// Halvings when a quantile is searched.
const HALVINGS: usize = 60;
/// Standard errors beyond which no quantile is looked for.
const REACH_ERRORS: f64 = 60.0;

/// An estimate with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Shrunken {
    /// Posterior mean.
    pub value: f64,
    /// Where it may lie.
    pub interval: Interval,
}

/// Variance of the true deviations of a level's groups: Q = Σ a (d − d̄)² less what the errors put into it, over what
/// τ² = 1 would. Around 0 where the mean is known to be 0. At least 0.
pub(super) fn spread(contrasts: &[Contrast], around_zero: bool) -> f64 {
    let sum = |of: &dyn Fn(&Contrast) -> f64| contrasts.iter().map(of).sum::<f64>();
    let weights = sum(&|it| it.information);
    if weights <= 0.0 {
        return 0.0;
    }
    let share = |it: &Contrast| {
        if around_zero {
            0.0
        } else {
            it.information / weights
        }
    };
    let mean = match around_zero {
        true => 0.0,
        false => sum(&|it| it.information * it.difference) / weights,
    };
    let left = |it: &Contrast| it.information * (1.0 - share(it));
    let found = sum(&|it| it.information * (it.difference - mean).powi(2));
    let by_chance = sum(&|it| left(it) * it.variance);
    let unit = sum(&left);
    if unit <= 0.0 {
        0.0
    } else {
        ((found - by_chance) / unit).max(0.0)
    }
}

/// The two laws that a deviation may come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Laws {
    /// Deviation of the devices in no named group from the estate, and its variance.
    pub(super) center: (f64, f64),
    /// Variance among the ordinary groups of the level.
    pub(super) ordinary: f64,
    /// Variance among named groups.
    pub(super) named: f64,
    /// Share of the second law.
    pub(super) share: f64,
}

/// A group's slope against the estate's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deviation {
    /// Slope less the estate's.
    pub(super) value: f64,
    pub(super) variance: f64,
    degrees: f64,
    /// The group's own slope.
    pub(super) slope: Estimate,
    /// The estate's slope, its variance, and the covariance of both.
    estate: f64,
    estate_variance: f64,
    covariance: f64,
}

impl Deviation {
    /// Of a group, whose moments are about `slope`, the estate's.
    pub(super) fn of(
        group: &Moments,
        total: &Moments,
        slope: f64,
        prior: Option<Prior>,
    ) -> Option<Self> {
        let rest = total.without(group);
        let (own, degrees) = variance(group, prior)?;
        let (other, _) = variance(&rest, None)?;
        let part = group.w / total.w;
        let left = 1.0 - part;
        Some(Self {
            value: left * (group.slope() - rest.slope()),
            variance: left * left * (own + other),
            degrees,
            slope: Estimate {
                value: slope + group.slope(),
                standard_error: own.sqrt(),
            },
            estate: slope,
            estate_variance: part * part * own + left * left * other,
            covariance: left * (part * own - left * other),
        })
    }

    /// The mixture's parts that the deviation may have come from.
    fn parts(&self, laws: &Laws) -> [Part; 2] {
        let (center, center_variance) = laws.center;
        // Student's density, since the variance is an estimate: a small one makes a far deviation.
        let density = |center: f64, spread: f64| {
            let variance = spread + self.variance;
            let square = (self.value - center).powi(2) / (variance * self.degrees);
            -0.5 * (self.degrees + 1.0) * square.ln_1p() - 0.5 * variance.ln()
        };
        let ordinary = density(center, laws.ordinary);
        let named = density(0.0, laws.named);
        let most = ordinary.max(named);
        let (ordinary, named) = (
            (1.0 - laws.share) * (ordinary - most).exp(),
            laws.share * (named - most).exp(),
        );
        let part = |weight: f64, spread: f64, (center, center_variance): (f64, f64)| {
            let kept = spread / (spread + self.variance);
            Part {
                weight: weight / (ordinary + named),
                kept,
                mean: center + kept * (self.value - center),
                variance: kept * self.variance + (1.0 - kept).powi(2) * center_variance,
            }
        };
        [
            part(ordinary, laws.ordinary, (center, center_variance)),
            part(named, laws.named, (0.0, 0.0)),
        ]
    }

    /// Posterior of the deviation itself.
    pub(super) fn excess(&self, laws: &Laws, confidence: f64) -> Shrunken {
        let parts = self.parts(laws);
        let below = |x: f64| {
            let chance =
                |part: &Part| part.weight * self.below(part.mean - x, part.variance.sqrt());
            parts.iter().map(chance).sum::<f64>()
        };
        let value = parts.iter().map(|it| it.weight * it.mean).sum::<f64>();
        let reach = REACH_ERRORS * self.variance.sqrt();
        let range = [value - reach, value + reach];
        Shrunken {
            value,
            interval: interval(below, range, confidence),
        }
    }

    /// Posterior of the ratio of the group's slope to the estate's; none where the estate's own is not clearly
    /// above 0.
    pub(super) fn ratio(&self, laws: &Laws, confidence: f64) -> Option<Shrunken> {
        let error = self.estate_variance.sqrt();
        if self.estate <= CLEAR_ERRORS * error {
            return None;
        }
        let parts = self.parts(laws);
        let below = |ratio: f64| {
            let off = 1.0 - ratio;
            let chance = |part: &Part| {
                let variance = part.variance
                    + 2.0 * off * part.kept * self.covariance
                    + off * off * self.estate_variance;
                let mean = part.mean + off * self.estate;
                part.weight * self.below(mean, variance.max(0.0).sqrt())
            };
            parts.iter().map(chance).sum::<f64>()
        };
        let mean = parts.iter().map(|it| it.weight * it.mean).sum::<f64>();
        let value = 1.0 + mean / self.estate;
        // The ratio's own error is that of the deviation and, for what is far from 1, that of the estate.
        let reach =
            REACH_ERRORS * (self.variance.sqrt() + (value - 1.0).abs() * error) / self.estate;
        let range = [value - reach, value + reach];
        Some(Shrunken {
            value,
            interval: interval(below, range, confidence),
        })
    }

    /// Chance that what has this mean and error is below 0.
    fn below(&self, mean: f64, error: f64) -> f64 {
        if error <= 0.0 {
            return match mean {
                mean if mean < 0.0 => 1.0,
                mean if mean > 0.0 => 0.0,
                _ => 0.5,
            };
        }
        let tail = 0.5 * student_t_two_sided(mean / error, self.degrees);
        if mean > 0.0 { tail } else { 1.0 - tail }
    }
}

struct Part {
    weight: f64,
    /// Share of the observed deviation that is kept: τ² / (τ² + variance).
    kept: f64,
    mean: f64,
    variance: f64,
}

/// Both ends, each by halving, of the middle part of a law.
fn interval(below: impl Fn(f64) -> f64, range: [f64; 2], confidence: f64) -> Interval {
    let quantile = |chance: f64| {
        let [mut low, mut high] = range;
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            match below(middle) < chance {
                true => low = middle,
                false => high = middle,
            }
        }
        0.5 * (low + high)
    };
    let tail = 0.5 * (1.0 - confidence);
    Interval {
        low: quantile(tail),
        high: quantile(1.0 - tail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contrast(difference: f64, variance: f64) -> Contrast {
        Contrast {
            difference,
            variance,
            degrees: 19.0,
            information: 1.0,
        }
    }

    /// With equal weights τ² is the sample variance less the mean error variance, and never below 0.
    #[test]
    fn spread_is_what_errors_do_not_explain() {
        let contrasts = [1.0, 2.0, 6.0].map(|it| contrast(it, 0.5));
        assert!((spread(&contrasts, false) - 6.5).abs() < 1e-12);
        assert!((spread(&contrasts, true) - (41.0 / 3.0 - 0.5)).abs() < 1e-12);
        assert_eq!(
            spread(&contrasts.map(|it| contrast(it.difference, 9.0)), false),
            0.0
        );
        assert_eq!(spread(&[], false), 0.0);
    }

    fn deviation(value: f64, estate_variance: f64) -> Deviation {
        Deviation {
            value,
            variance: 0.01,
            degrees: 1e9,
            slope: Estimate {
                value: 1.0 + value,
                standard_error: 0.1,
            },
            estate: 1.0,
            estate_variance,
            covariance: 0.0,
        }
    }

    /// With one wide law and an estate that is known the interval is the plain normal one; with a law as
    /// wide as the error it is drawn half way to 1 and narrower by √2.
    #[test]
    fn the_interval_is_the_normal_one_and_shrinks() {
        let all = |named: f64| Laws {
            center: (0.0, 0.0),
            ordinary: 0.0,
            named,
            share: 1.0,
        };
        let plain = deviation(1.0, 0.0).ratio(&all(1e9), 0.95).unwrap();
        assert!((plain.value - 2.0).abs() < 1e-6);
        assert!(
            (plain.interval.high - plain.interval.low - 0.391_993).abs() < 1e-4,
            "{plain:?}"
        );
        let half = deviation(1.0, 0.0).ratio(&all(0.01), 0.95).unwrap();
        assert!((half.value - 1.5).abs() < 1e-6);
        assert!((half.interval.high - half.interval.low - 0.391_993 / 2f64.sqrt()).abs() < 1e-4);
        let excess = deviation(1.0, 0.0).excess(&all(0.01), 0.95);
        assert!((excess.interval.low - (half.interval.low - 1.0)).abs() < 1e-6);
    }

    /// Fieller: an estate's slope that is less well known widens the ratio, and more so above; one that may be
    /// 0 has no ratio.
    #[test]
    fn an_uncertain_estate_widens_the_ratio() {
        let laws = Laws {
            center: (0.0, 0.0),
            ordinary: 0.0,
            named: 1e9,
            share: 1.0,
        };
        let sure = deviation(1.0, 0.0).ratio(&laws, 0.95).unwrap().interval;
        let unsure = deviation(1.0, 0.04).ratio(&laws, 0.95).unwrap().interval;
        assert!(unsure.low < sure.low && unsure.high > sure.high);
        assert!(unsure.high - 2.0 > 2.0 - unsure.low);
        assert_eq!(deviation(1.0, 0.12).ratio(&laws, 0.95), None);
    }

    /// What may as well be an ordinary group's chance is drawn to 1, what cannot is not.
    #[test]
    fn the_mixture_decides() {
        let laws = Laws {
            center: (0.0, 0.0),
            ordinary: 0.0,
            named: 1.0,
            share: 0.01,
        };
        let weak = deviation(0.2, 0.0).ratio(&laws, 0.95).unwrap();
        assert!(
            weak.value < 1.05 && weak.interval.low <= 1.0 + 1e-9,
            "{weak:?}"
        );
        let strong = deviation(0.8, 0.0).ratio(&laws, 0.95).unwrap();
        assert!(
            strong.value > 1.75 && strong.interval.low > 1.5,
            "{strong:?}"
        );
    }
}
