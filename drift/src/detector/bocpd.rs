//! BOCPD: the posterior of the time since the last change.
//!
//! Adams and MacKay, "Bayesian online changepoint detection", 2007. Values of a run are normal with
//! unknown mean and variance under a normal-gamma prior (`mean`, `kappa`, `alpha`, `beta`), so the
//! predictive density of a run is Student's t; a change comes with probability 1/`expected_run` at
//! every value. The defaults suit a stream standardised by its reference. For errors that are 0 or 1
//! `model = bernoulli` takes the rate's Beta(`alpha`, `beta`) prior instead: a normal model finds
//! every lull in them surprising.
//!
//! Drift when runs of `min_run` to `recent_run` values, that began at least `min_run` values after the
//! current segment, hold more than `threshold` of the posterior; half of that warns. (That there was
//! *some* change becomes likely by the prior alone on a long stream; a recent one needs evidence.)
//! The likeliest of them is the new segment, so what it has learned is kept.
//!
//! At most `max_runs` runs are kept: the least likely one goes first, which bounds the work of an
//! update.

use libm::lgamma;
use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits, is_error};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::number(
        "expected_run",
        250.0,
        Domain::Open(1.0, f64::MAX),
        "values between two changes, on average",
    ),
    Parameter::number(
        "threshold",
        0.9,
        Domain::Open(0.0, 1.0),
        "posterior of a change that raises the alarm",
    ),
    Parameter::count(
        "min_run",
        10,
        1,
        1 << 16,
        "values that the old and the new run must have",
    ),
    Parameter::count(
        "recent_run",
        100,
        1,
        1 << 16,
        "values for which a change is news",
    ),
    Parameter::count("max_runs", 200, 16, 4096, "run lengths kept"),
    Parameter::choice(
        "model",
        "normal",
        &["normal", "bernoulli"],
        "what values of a run are: numbers, or 0 and 1",
    ),
    Parameter::number(
        "mean",
        0.0,
        Domain::Closed(f64::MIN, f64::MAX),
        "prior mean of the values (normal)",
    ),
    Parameter::number(
        "kappa",
        1.0,
        Domain::Open(0.0, f64::MAX),
        "values that the prior mean is worth (normal)",
    ),
    Parameter::number(
        "alpha",
        1.0,
        Domain::Open(0.0, f64::MAX),
        "prior shape: half the values that the prior variance is worth; or prior errors",
    ),
    Parameter::number(
        "beta",
        1.0,
        Domain::Open(0.0, f64::MAX),
        "prior rate: alpha times the prior variance; or prior values that are no errors",
    ),
];

/// What the values of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Model {
    Normal,
    Bernoulli,
}

/// A hypothesis: the current run has `n` values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Run {
    n: u64,
    #[serde(with = "bits")]
    weight: f64,
    #[serde(with = "bits")]
    mean: f64,
    #[serde(with = "bits")]
    kappa: f64,
    #[serde(with = "bits")]
    alpha: f64,
    #[serde(with = "bits")]
    beta: f64,
    /// Γ(alpha + ½)/Γ(alpha), carried along by r(a + ½) = a/r(a) so that an update needs no Γ.
    #[serde(with = "bits")]
    gamma_ratio: f64,
}

impl Run {
    /// Density of the next value: Student's t with 2 alpha degrees of freedom, or the mean rate.
    fn density(&self, model: Model, x: f64) -> f64 {
        if model == Model::Bernoulli {
            let side = if is_error(x) { self.alpha } else { self.beta };
            return side / (self.alpha + self.beta);
        }
        let off = x - self.mean;
        let spread = 2.0 * self.beta * (self.kappa + 1.0) / self.kappa;
        let tail = (1.0 + off * off / spread).powf(-(self.alpha + 0.5));
        self.gamma_ratio / (std::f64::consts::PI * spread).sqrt() * tail
    }

    fn push(&mut self, model: Model, x: f64) {
        self.n += 1;
        if model == Model::Bernoulli {
            *if is_error(x) {
                &mut self.alpha
            } else {
                &mut self.beta
            } += 1.0;
            return;
        }
        let off = x - self.mean;
        self.beta += self.kappa * off * off / (2.0 * (self.kappa + 1.0));
        self.mean += off / (self.kappa + 1.0);
        self.kappa += 1.0;
        self.gamma_ratio = self.alpha / self.gamma_ratio;
        self.alpha += 0.5;
    }
}

/// The detector. Memory: 56 bytes a run; time: one density for each run and value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bocpd {
    #[serde(with = "bits")]
    hazard: f64,
    #[serde(with = "bits")]
    threshold: f64,
    min_run: u64,
    recent_run: u64,
    max_runs: u64,
    model: Model,
    prior: Run,
    /// Longest first; the first is the current segment.
    runs: Vec<Run>,
    /// Values since the current segment began.
    seen: u64,
}

impl Bocpd {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        if p.count("max_runs") < 2 * p.count("min_run") + 2 {
            return Err(p.refuse("max_runs", "at least 2 min_run + 2"));
        }
        if p.count("recent_run") < p.count("min_run") {
            return Err(p.refuse("recent_run", "at least min_run"));
        }
        let alpha = p.number("alpha");
        let prior = Run {
            n: 0,
            weight: 1.0,
            mean: p.number("mean"),
            kappa: p.number("kappa"),
            alpha,
            beta: p.number("beta"),
            gamma_ratio: (lgamma(alpha + 0.5) - lgamma(alpha)).exp(),
        };
        Ok(Self {
            hazard: 1.0 / p.number("expected_run"),
            threshold: p.number("threshold"),
            min_run: p.count("min_run"),
            recent_run: p.count("recent_run"),
            max_runs: p.count("max_runs"),
            model: match p.choice("model") {
                "bernoulli" => Model::Bernoulli,
                _ => Model::Normal,
            },
            prior,
            runs: vec![prior],
            seen: 0,
        })
    }

    /// Posterior over run lengths, longest first: (values, probability).
    pub fn run_lengths(&self) -> impl Iterator<Item = (u64, f64)> {
        self.runs.iter().map(|r| (r.n, r.weight))
    }

    fn advance(&mut self, x: f64) {
        self.seen += 1;
        let mut total = 0.0;
        for run in &mut self.runs {
            run.weight *= run.density(self.model, x);
            run.push(self.model, x);
            total += run.weight;
        }
        let mut fresh = self.prior;
        if total > 0.0 && total.is_finite() {
            fresh.weight = self.hazard;
            for run in &mut self.runs {
                run.weight *= (1.0 - self.hazard) / total;
            }
        } else {
            // No run could explain the value at all: only a new one is possible.
            for run in &mut self.runs {
                run.weight = 0.0;
            }
        }
        self.runs.push(fresh);
        if self.runs.len() as u64 > self.max_runs {
            self.drop_least_likely();
        }
    }

    /// The segment's own run and the newest, which had no time to prove themselves, stay.
    fn drop_least_likely(&mut self) {
        let candidates = 1..self.runs.len().saturating_sub(self.min_run as usize);
        let least = candidates.min_by(|a, b| {
            let weight = |i: &usize| self.runs[*i].weight;
            weight(a).total_cmp(&weight(b))
        });
        if let Some(at) = least {
            self.runs.remove(at);
        }
    }

    fn is_change(&self, run: &Run) -> bool {
        (self.min_run..=self.recent_run).contains(&run.n)
            && self.seen.saturating_sub(run.n) >= self.min_run
    }

    /// Makes the likeliest newer run the current segment.
    fn enter_new_segment(&mut self) {
        let newer = (0..self.runs.len()).filter(|i| self.is_change(&self.runs[*i]));
        let likeliest = newer.max_by(|a, b| {
            let weight = |i: &usize| self.runs[*i].weight;
            weight(a).total_cmp(&weight(b))
        });
        if let Some(at) = likeliest {
            self.runs.drain(..at);
            self.seen = self.runs[0].n;
            let left: f64 = self.runs.iter().map(|r| r.weight).sum();
            for run in &mut self.runs {
                run.weight /= left;
            }
        }
    }
}

impl Detector for Bocpd {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.advance(x);
        let newer = self.runs.iter().filter(|r| self.is_change(r));
        let changed: f64 = newer.map(|r| r.weight).sum();
        if changed > self.threshold {
            self.enter_new_segment();
            Verdict::Drift
        } else if changed > self.threshold / 2.0 {
            Verdict::Warning
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.runs.clear();
        self.runs.push(self.prior);
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compat, Kind, Params};
    use super::*;

    fn default() -> Bocpd {
        let p = Checked::new(Kind::Bocpd, Compat::Native, PARAMETERS, &Params::new()).unwrap();
        Bocpd::build(&p).unwrap()
    }

    /// The predictive density is Student's t: it integrates to one after any number of values.
    #[test]
    fn density_integrates_to_one() {
        let mut run = default().prior;
        for k in 0..40 {
            let step = 0.01;
            let mass: f64 = (-200_000..200_000)
                .map(|i| run.density(Model::Normal, f64::from(i) * step) * step)
                .sum();
            // A t with two degrees of freedom has 2.5e-7 of its mass beyond ±2000.
            assert!((mass - 1.0).abs() < 1e-5, "after {k} values: {mass}");
            run.push(Model::Normal, f64::from(k % 5) - 2.0);
        }
    }

    /// The posterior over run lengths sums to one at every step, also when runs are dropped.
    #[test]
    fn posterior_sums_to_one() {
        let mut d = default();
        for i in 0..1000_u32 {
            d.update(f64::from(i * 7 % 11) / 5.0 - 1.0);
            let mass: f64 = d.run_lengths().map(|(_, w)| w).sum();
            assert!((mass - 1.0).abs() < 0.01, "at {i}: {mass}");
            assert!(d.runs.len() <= 200);
        }
    }

    /// A shift of three standard deviations is found within `min_run` and a few values.
    #[test]
    fn finds_a_shift() {
        let mut d = default();
        let noise = |i: u32| f64::from(i * 7919 % 1009) / 1009.0 * 3.4 - 1.7;
        let fired: Vec<_> = (0..600)
            .filter(|i| d.update(noise(*i) + if *i < 300 { 0.0 } else { 3.0 }) == Verdict::Drift)
            .collect();
        assert_eq!(fired.len(), 1, "{fired:?}");
        assert!((309..330).contains(&fired[0]), "{fired:?}");
    }
}
