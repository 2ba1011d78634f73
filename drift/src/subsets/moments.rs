//! Slopes of groups of devices, with errors that know that rows of one device are alike.
//!
//! Each unit (a device in a cell) has a slope y of its own, by least squares of its values on time, and a
//! weight w, the sum of squares of its rows' times about their mean. A group's slope is Σwy/Σw: the
//! within-device estimator, in which what devices differ by from the start cancels. Its variance is taken
//! from how the devices scatter (Liang and Zeger 1986), made unbiased, and given degrees of freedom, for the
//! working model in which a unit's slope has variance σ²/w (Bell and McCaffrey 2002). All of it comes from
//! seven sums, so groups add and subtract.

use crate::special::{digamma, trigamma, trigamma_inverse};

/// A part of the devices with less of the weight spread than this is one device in truth.
const SPREAD_MIN: f64 = 1e-9;
/// Groups that a common law of their scatters is learned from, at least.
const PRIOR_GROUPS_MIN: usize = 10;

/// Sums over the units of a group. `w`: weights, `y`: slopes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) units: f64,
    pub(super) w: f64,
    w2: f64,
    w3: f64,
    pub(super) wy: f64,
    w2y: f64,
    w2y2: f64,
}

/// How the units of a group scatter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scatter {
    /// Variance of the slope of a group of weight 1.
    pub(super) square: f64,
    /// Degrees of freedom.
    pub(super) degrees: f64,
}

impl Moments {
    /// One unit, from its weight and weight times slope.
    pub(super) fn of(w: f64, wy: f64) -> Self {
        Self {
            units: 1.0,
            w,
            w2: w * w,
            w3: w * w * w,
            wy,
            w2y: w * wy,
            w2y2: wy * wy,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.units += other.units;
        self.w += other.w;
        self.w2 += other.w2;
        self.w3 += other.w3;
        self.wy += other.wy;
        self.w2y += other.w2y;
        self.w2y2 += other.w2y2;
    }

    /// The units that a part leaves.
    pub(super) fn without(&self, part: &Self) -> Self {
        Self {
            units: self.units - part.units,
            w: self.w - part.w,
            w2: self.w2 - part.w2,
            w3: self.w3 - part.w3,
            wy: self.wy - part.wy,
            w2y: self.w2y - part.w2y,
            w2y2: self.w2y2 - part.w2y2,
        }
    }

    pub(super) fn slope(&self) -> f64 {
        self.wy / self.w
    }

    /// None where less than two units say anything.
    pub(super) fn scatter(&self) -> Option<Scatter> {
        if self.units < 2.0 || self.w <= 0.0 {
            return None;
        }
        let shares2 = self.w2 / (self.w * self.w);
        let shares3 = self.w3 / (self.w * self.w * self.w);
        let left = 1.0 - shares2;
        if left <= SPREAD_MIN {
            return None;
        }
        let slope = self.slope();
        let squares = self.w2y2 - 2.0 * slope * self.w2y + slope * slope * self.w2;
        Some(Scatter {
            square: squares.max(0.0) / self.w / left,
            degrees: left * left / (shares2 - 2.0 * shares3 + shares2 * shares2),
        })
    }
}

/// What the scatters of the groups of one level have in common: σ² of a group is drawn from a scaled
/// inverse chi-square law (Smyth, "Linear models and empirical Bayes methods for assessing differential
/// expression in microarray experiments", 2004). A group of few devices borrows from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prior {
    square: f64,
    degrees: f64,
    /// Degrees of freedom that it was learned from.
    from: f64,
}

impl Prior {
    /// Learns it by the moments of ln σ̂². None from too few groups.
    pub(super) fn learn(scatters: &[Scatter]) -> Option<Self> {
        let logs: Vec<(f64, f64)> = scatters
            .iter()
            .filter(|it| it.square > 0.0)
            .map(|it| {
                let half = 0.5 * it.degrees;
                (it.square.ln() - digamma(half) + half.ln(), trigamma(half))
            })
            .collect();
        if logs.len() < PRIOR_GROUPS_MIN {
            return None;
        }
        let n = logs.len() as f64;
        let mean = logs.iter().map(|it| it.0).sum::<f64>() / n;
        let spread = logs.iter().map(|it| (it.0 - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let chance = logs.iter().map(|it| it.1).sum::<f64>() / n;
        let half = trigamma_inverse(spread - chance);
        let from = scatters.iter().map(|it| it.degrees).sum::<f64>();
        // Where nothing but chance is in the spread, all have the same scatter.
        let shift = if half.is_finite() {
            digamma(half) - half.ln()
        } else {
            0.0
        };
        Some(Self {
            square: (mean + shift).exp(),
            degrees: (2.0 * half).min(from),
            from,
        })
    }

    /// A group's scatter, drawn towards the common one.
    pub(super) fn moderate(self, own: Option<Scatter>) -> Scatter {
        let (square, degrees) = own.map_or((0.0, 0.0), |it| (it.square, it.degrees));
        let sum = self.degrees + degrees;
        Scatter {
            square: (self.degrees * self.square + degrees * square) / sum,
            degrees: sum.min(self.from.max(degrees)),
        }
    }
}

/// Variance of a slope with degrees of freedom.
pub(super) fn variance(of: &Moments, prior: Option<Prior>) -> Option<(f64, f64)> {
    let own = of.scatter();
    let scatter = match prior {
        Some(prior) => prior.moderate(own),
        None => own?,
    };
    Some((scatter.square / of.w, scatter.degrees))
}

/// By how much a group's slope exceeds that of the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Contrast {
    pub(super) difference: f64,
    pub(super) variance: f64,
    pub(super) degrees: f64,
    /// Weight of it: Σ over strata of (weight in × weight out) / weight.
    pub(super) information: f64,
}

impl Contrast {
    /// Compares a group with the others stratum by stratum: `(inside, outside)` of each. The strata are the
    /// devices of the same causes named before, so that what these explain is not counted again. None where no
    /// stratum has both, or fewer than `units_min` units are compared.
    pub(super) fn of(
        strata: impl Iterator<Item = (Moments, Moments)>,
        prior: Option<Prior>,
        units_min: usize,
    ) -> Option<Self> {
        let (mut information, mut sum, mut units) = (0.0, 0.0, 0.0);
        let (mut variance_sum, mut by_degrees) = (0.0, 0.0);
        for (inside, outside) in strata {
            let both = inside.units >= 1.0 && outside.units >= 2.0;
            if !both || inside.w <= 0.0 || outside.w <= 0.0 {
                continue;
            }
            let (Some(of_inside), Some(of_outside)) =
                (variance(&inside, prior), variance(&outside, None))
            else {
                continue;
            };
            let weight = inside.w * outside.w / (inside.w + outside.w);
            information += weight;
            units += inside.units;
            sum += weight * (inside.slope() - outside.slope());
            for (variance, degrees) in [of_inside, of_outside] {
                let part = weight * weight * variance;
                variance_sum += part;
                by_degrees += part * part / degrees;
            }
        }
        if units < units_min as f64 || variance_sum <= 0.0 {
            return None;
        }
        Some(Self {
            difference: sum / information,
            variance: variance_sum / (information * information),
            // Welch 1947, Satterthwaite 1946.
            degrees: variance_sum * variance_sum / by_degrees,
            information,
        })
    }

    /// Standard errors above 0.
    pub(super) fn t(&self) -> f64 {
        self.difference / self.variance.sqrt()
    }

    /// Chance of as much or more to the same side where the group is like the others (Student's t, one-sided).
    pub(super) fn tail(&self) -> f64 {
        0.5 * crate::special::student_t_two_sided(self.t(), self.degrees)
    }

    /// Chance of as much or more.
    pub(super) fn p_value(&self) -> f64 {
        match self.difference > 0.0 {
            true => self.tail(),
            false => 1.0 - self.tail(),
        }
    }

    /// Weighted squares that the group explains. In it a whole beats its parts and a part beats what is diluted,
    /// whereas p-values of what is beyond doubt compare degrees of freedom.
    pub(super) fn gain(&self) -> f64 {
        self.information * self.difference * self.difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use proptest::prelude::*;

    fn sum(units: &[(f64, f64)]) -> Moments {
        let mut moments = Moments::default();
        for (w, y) in units {
            moments.add(&Moments::of(*w, w * y));
        }
        moments
    }

    /// With equal weights it is the mean of the slopes, their variance over n, and n − 1 degrees.
    #[test]
    fn equal_weights_are_the_plain_t_test() {
        let slopes = [1.0, 2.0, 4.0, 4.5, 7.0];
        let moments = sum(&slopes.map(|y| (3.0, y)));
        let scatter = moments.scatter().unwrap();
        let mean = slopes.iter().sum::<f64>() / 5.0;
        let spread = slopes.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / 4.0;
        assert!((moments.slope() - mean).abs() < 1e-12);
        assert!((scatter.square / moments.w - spread / 5.0).abs() < 1e-12);
        assert!((scatter.degrees - 4.0).abs() < 1e-9);
    }

    /// One heavy device among many light ones is worth few degrees of freedom, and alone none.
    #[test]
    fn a_heavy_device_counts_as_few() {
        let mut units = vec![(1.0, 0.0); 19];
        units.push((100.0, 1.0));
        let degrees = sum(&units).scatter().unwrap().degrees;
        assert!(degrees < 5.0, "{degrees}");
        assert_eq!(sum(&[(2.0, 1.0)]).scatter(), None);
    }

    /// The variance is unbiased and t keeps its level for unequal weights under the working model.
    #[test]
    fn unequal_weights_keep_the_level() {
        let mut random = Random::new(11);
        let weights: Vec<f64> = (0..12).map(|at| 1.0 + f64::from(at)).collect();
        let (mut mean, mut rejected) = (0.0, 0.0);
        let runs = 20_000;
        for _ in 0..runs {
            let units: Vec<(f64, f64)> = weights
                .iter()
                .map(|w| (*w, random.normal() / w.sqrt()))
                .collect();
            let moments = sum(&units);
            let scatter = moments.scatter().unwrap();
            mean += scatter.square / f64::from(runs);
            let t = moments.slope() / (scatter.square / moments.w).sqrt();
            let p = crate::special::student_t_two_sided(t, scatter.degrees);
            rejected += f64::from(u8::from(p <= 0.05)) / f64::from(runs);
        }
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((0.045..0.055).contains(&rejected), "{rejected}");
    }

    /// Scatters of one common size teach a prior that is surer than any of them; scatters that differ
    /// teach one that says little.
    #[test]
    fn the_prior_knows_how_alike_scatters_are() {
        let mut random = Random::new(5);
        let mut learn = |differ: f64| {
            let mut scatters = Vec::new();
            for _ in 0..400 {
                let size = (differ * random.normal()).exp();
                let units: Vec<(f64, f64)> =
                    (0..6).map(|_| (1.0, size * random.normal())).collect();
                scatters.push(sum(&units).scatter().unwrap());
            }
            Prior::learn(&scatters).unwrap()
        };
        let (alike, other) = (learn(0.0), learn(1.0));
        assert!(alike.degrees > 40.0, "{alike:?}");
        assert!((alike.square - 1.0).abs() < 0.1, "{alike:?}");
        assert!(other.degrees < 4.0, "{other:?}");
        let own = Scatter {
            square: 4.0,
            degrees: 5.0,
        };
        let moderated = alike.moderate(Some(own));
        assert!(moderated.square < 1.5 && moderated.degrees > 40.0);
        assert_eq!(Prior::learn(&[own; 9]), None);
    }

    proptest! {
        /// What is added can be taken away again, and the order does not matter.
        #[test]
        fn groups_add_and_subtract(
            a in prop::collection::vec((0.5..9.0, -2.0..2.0), 2..20),
            b in prop::collection::vec((0.5..9.0, -2.0..2.0), 2..20),
        ) {
            let (first, second) = (sum(&a), sum(&b));
            let mut both = second;
            both.add(&first);
            let rest = both.without(&second);
            let (want, got) = (first.scatter().unwrap(), rest.scatter().unwrap());
            prop_assert!((first.slope() - rest.slope()).abs() < 1e-9);
            prop_assert!((want.square - got.square).abs() < 1e-9);
            prop_assert!((want.degrees / got.degrees - 1.0).abs() < 1e-9);
        }

        /// Moving all slopes of a stratum by the same amount changes no comparison within it.
        #[test]
        fn what_a_stratum_shares_cancels(
            units in prop::collection::vec((0.5..9.0, -2.0..2.0), 8..20),
            shift in -5.0..5.0,
        ) {
            let of = |by: f64| {
                let moved: Vec<(f64, f64)> = units.iter().map(|(w, y): &(f64, f64)| (*w, y + by)).collect();
                let (inside, outside) = moved.split_at(4);
                Contrast::of([(sum(inside), sum(outside))].into_iter(), None, 4).unwrap()
            };
            let (still, moved) = (of(0.0), of(shift));
            prop_assert!((still.difference - moved.difference).abs() < 1e-9);
            prop_assert!((still.t() - moved.t()).abs() < 1e-6 * (1.0 + still.t().abs()));
        }
    }
}
