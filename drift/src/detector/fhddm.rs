//! FHDDM: the share of correct predictions in a window against its own maximum.
//!
//! Pesaranghader and Viktor, "Fast Hoeffding drift detection method for evolving data streams",
//! ECML-PKDD 2016. Drift when max − current > sqrt(ln(1/confidence)/(2 n)) for a window of n. With
//! `short_window_size` a second window over the newest values is judged too (the stacking variant).
//! The stream is 1 for a correct prediction, 0 for an error.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::ring::{Ring, WINDOW_MAX};
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::count(
        "sliding_window_size",
        100,
        1,
        WINDOW_MAX,
        "values in the window",
    ),
    Parameter::number(
        "confidence_level",
        1e-6,
        Domain::Open(0.0, 1.0),
        "error probability of an alarm",
    ),
    Parameter::count(
        "short_window_size",
        0,
        0,
        WINDOW_MAX,
        "values in the short window; 0 for none",
    ),
];

/// The detector. Memory: eight bytes for each value in the window.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fhddm {
    #[serde(with = "bits")]
    confidence: f64,
    /// Values of the short window; 0 for none.
    short: u64,
    window: Ring,
    #[serde(with = "bits")]
    sum: f64,
    #[serde(with = "bits")]
    best: f64,
    #[serde(with = "bits")]
    best_short: f64,
}

impl Fhddm {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        if p.count("short_window_size") > p.count("sliding_window_size") {
            return Err(p.refuse("short_window_size", "at most sliding_window_size"));
        }
        Ok(Self {
            confidence: p.number("confidence_level"),
            short: p.count("short_window_size"),
            window: Ring::new(p.count("sliding_window_size") as usize),
            sum: 0.0,
            best: 0.0,
            best_short: 0.0,
        })
    }

    fn bound(&self, n: f64) -> f64 {
        ((1.0 / self.confidence).ln() / (2.0 * n)).sqrt()
    }

    fn short_fell(&mut self) -> bool {
        if self.short == 0 {
            return false;
        }
        let n = self.short as f64;
        let skip = self.window.len().saturating_sub(self.short as usize);
        let share = self.window.iter().skip(skip).sum::<f64>() / n;
        self.best_short = self.best_short.max(share);
        self.best_short - share > self.bound(n)
    }
}

impl Detector for Fhddm {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.window.push(x);
        self.sum += x;
        if !self.window.is_full() {
            return Verdict::Stable;
        }
        let n = self.window.len() as f64;
        let share = self.sum / n;
        self.best = self.best.max(share);
        let short = self.short_fell();
        let long = self.best - share > self.bound(n);
        self.sum -= self.window.pop();
        if short || long {
            self.reset();
            Verdict::Drift
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.window.clear();
        self.sum = 0.0;
        self.best = 0.0;
        self.best_short = 0.0;
    }
}
