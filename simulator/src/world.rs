//! What a unit measures, and what is true there.
//!
//! Feature j of unit i at time t is `mean + sd · (a · sin(day) + d_i + e_t)`: a cycle over the day
//! that is the same everywhere, a difference d_i of the unit that stays, and noise e_t that remembers
//! (first-order autoregressive). The truth is drawn from a logistic function of the features as they
//! really are, before any sensor fault.

use driftline_schemas::clock::DAY_US;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Number of features.
pub const FEATURES: usize = 4;

/// One measured quantity.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    /// Name of the feature.
    pub name: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// Unit of last place.
    pub resolution: f64,
    /// Mean over a day.
    pub mean: f64,
    /// Standard deviation that everything below is a share of, in the unit.
    pub sd: f64,
    /// Amplitude of the cycle over the day, in `sd`.
    pub daily: f64,
    /// Weight in the truth.
    pub weight: f64,
}

/// The features of the simulated boilers.
pub const QUANTITIES: [Quantity; FEATURES] = [
    quantity("temperature", "°C", 0.01, 62.0, 4.0, 0.5, 2.4),
    quantity("vibration", "mm/s", 0.001, 2.8, 0.35, 0.2, 1.8),
    quantity("pressure", "bar", 0.001, 5.5, 0.25, 0.1, -1.4),
    quantity("current", "A", 0.001, 8.0, 0.9, 0.4, 1.0),
];

const fn quantity(
    name: &'static str,
    unit: &'static str,
    resolution: f64,
    mean: f64,
    sd: f64,
    daily: f64,
    weight: f64,
) -> Quantity {
    Quantity {
        name,
        unit,
        resolution,
        mean,
        sd,
        daily,
        weight,
    }
}

/// Names of the classes.
pub const CLASSES: [&str; 2] = ["ok", "fail"];
/// Difference from unit to unit, in `sd`.
const UNIT_SD: f64 = 0.3;
/// Noise, in `sd`.
const NOISE_SD: f64 = 0.9;
/// How much of the noise is left after one sample.
const MEMORY: f64 = 0.6;
/// Offset of the truth's logistic function.
const OFFSET: f64 = -1.5;

/// One unit's measurements, in the order of time.
#[derive(Debug, Clone)]
pub struct Unit {
    rng: ChaCha8Rng,
    offset: [f64; FEATURES],
    noise: [f64; FEATURES],
}

/// What is at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Values in their units, as a sensor without fault reads them.
    pub values: [f64; FEATURES],
    /// Index into [`CLASSES`].
    pub truth: usize,
}

impl Unit {
    /// The unit of an estate's seed and an index. `stream` parts a unit's past from its present:
    /// the unit is the same, the noise is not.
    pub fn new(seed: u64, index: usize, stream: u64) -> Self {
        let mut who = ChaCha8Rng::seed_from_u64(seed);
        who.set_stream(index as u64 * 1_000);
        let offset = std::array::from_fn(|_| UNIT_SD * normal(&mut who));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index as u64 * 1_000 + 1 + stream);
        let noise = std::array::from_fn(|_| NOISE_SD * normal(&mut rng));
        Self { rng, offset, noise }
    }

    /// The next reading, at a time. `shift` is added to what the sensors see and what is true, in
    /// `sd` per feature; `flip` turns the truth round.
    pub fn next(&mut self, at_us: i64, shift: &[f64; FEATURES], flip: bool) -> Reading {
        let day = (at_us.rem_euclid(DAY_US) as f64 / DAY_US as f64) * std::f64::consts::TAU;
        let fresh = NOISE_SD * (1.0 - MEMORY * MEMORY).sqrt();
        let mut values = [0.0; FEATURES];
        let mut logit = OFFSET;
        for (j, quantity) in QUANTITIES.iter().enumerate() {
            self.noise[j] = MEMORY * self.noise[j] + fresh * normal(&mut self.rng);
            let z = quantity.daily * day.sin() + self.offset[j] + self.noise[j] + shift[j];
            values[j] = quantity.mean + quantity.sd * z;
            logit += quantity.weight * z;
        }
        let fails = self.rng.random::<f64>() < 1.0 / (1.0 + (-logit).exp());
        Reading {
            values,
            truth: usize::from(fails != flip),
        }
    }
}

fn normal(rng: &mut impl Rng) -> f64 {
    StandardNormal.sample(rng)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A unit and its seed: the same readings again, others in another stream, the same unit though.
    #[test]
    fn the_seed_decides_everything() {
        let run = |seed, stream| -> Vec<Reading> {
            let mut unit = Unit::new(seed, 3, stream);
            (0..50)
                .map(|t| unit.next(t * 240_000_000, &[0.0; FEATURES], false))
                .collect()
        };
        assert_eq!(run(1, 0), run(1, 0));
        assert_ne!(run(1, 0), run(1, 1));
        assert_ne!(run(1, 0), run(2, 0));
        assert_eq!(Unit::new(1, 3, 0).offset, Unit::new(1, 3, 1).offset);
    }

    #[test]
    fn a_shift_moves_readings_by_its_size_and_a_flip_turns_the_truth() {
        let (mut plain, mut moved, mut turned) =
            (Unit::new(1, 0, 0), Unit::new(1, 0, 0), Unit::new(1, 0, 0));
        let mut shift = [0.0; FEATURES];
        shift[0] = 1.0;
        for t in 0..100 {
            let at = t * 240_000_000;
            let reading = plain.next(at, &[0.0; FEATURES], false);
            let warmer = moved.next(at, &shift, false);
            assert!((warmer.values[0] - reading.values[0] - QUANTITIES[0].sd).abs() < 1e-9);
            assert_eq!(
                turned.next(at, &[0.0; FEATURES], true).truth,
                1 - reading.truth
            );
        }
    }
}
