//! Page-Hinkley: cumulated deviations from the running mean, with fading.
//!
//! Page, "Continuous inspection schemes", Biometrika 41, 1954; the fading and the two-sided form
//! after Sebastião and Fernandes 2017. With deviation e = x − mean, S = alpha S + e − delta rises
//! when the mean does, and the alarm is S − min S > threshold; downwards alike with + delta.
//! MOA has neither the minimum nor the downward side: its alarm is S > threshold.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::ring::Mean;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

/// A direction of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    Up,
    Down,
    Both,
}

/// The words for [`Mode`].
pub(super) const MODES: &[&str] = &["up", "down", "both"];

impl Mode {
    pub(super) fn read(word: &str) -> Self {
        match word {
            "up" => Self::Up,
            "down" => Self::Down,
            _ => Self::Both,
        }
    }
}

const fn schema(mode: &'static str, modes: &'static [&'static str]) -> [Parameter; 5] {
    [
        Parameter::count(
            "min_instances",
            30,
            0,
            u64::MAX,
            "values before the first alarm",
        ),
        Parameter::number(
            "delta",
            0.005,
            Domain::Closed(0.0, f64::MAX),
            "change of mean that is tolerated, in units of the stream",
        ),
        Parameter::number(
            "threshold",
            50.0,
            Domain::Closed(0.0, f64::MAX),
            "cumulated deviation that raises the alarm (lambda)",
        ),
        Parameter::number(
            "alpha",
            1.0 - 0.0001,
            Domain::Closed(0.0, 1.0),
            "fading of the past: 1 forgets nothing",
        ),
        Parameter::choice("mode", mode, modes, "directions watched"),
    ]
}

pub(super) const PARAMETERS: &[Parameter] = &schema("both", MODES);
pub(super) const PARAMETERS_MOA: &[Parameter] = &schema("up", &["up"]);

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageHinkley {
    min_instances: u64,
    #[serde(with = "bits")]
    delta: f64,
    #[serde(with = "bits")]
    threshold: f64,
    #[serde(with = "bits")]
    alpha: f64,
    mode: Mode,
    moa: bool,
    mean: Mean,
    #[serde(with = "bits")]
    rise: f64,
    #[serde(with = "bits")]
    rise_min: f64,
    #[serde(with = "bits")]
    fall: f64,
    #[serde(with = "bits")]
    fall_max: f64,
}

impl PageHinkley {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        let mut d = Self {
            min_instances: p.count("min_instances"),
            delta: p.number("delta"),
            threshold: p.number("threshold"),
            alpha: p.number("alpha"),
            mode: Mode::read(p.choice("mode")),
            moa: p.moa(),
            mean: Mean::default(),
            rise: 0.0,
            rise_min: 0.0,
            fall: 0.0,
            fall_max: 0.0,
        };
        d.reset();
        Ok(d)
    }

    fn update_moa(&mut self, x: f64) -> bool {
        self.mean.n += 1.0;
        self.mean.mean += (x - self.mean.mean) / self.mean.n;
        self.rise = self.alpha * self.rise + (x - self.mean.mean - self.delta);
        // MOA compares after counting from one, so its first alarm is one value earlier.
        self.mean.n + 1.0 >= self.min_instances as f64 && self.rise > self.threshold
    }

    fn update_river(&mut self, x: f64) -> bool {
        self.mean.push(x);
        let off = x - self.mean.mean;
        self.rise = self.alpha * self.rise + off - self.delta;
        self.fall = self.alpha * self.fall + off + self.delta;
        self.rise_min = self.rise_min.min(self.rise);
        self.fall_max = self.fall_max.max(self.fall);
        if self.mean.n < self.min_instances as f64 {
            return false;
        }
        let up = self.rise - self.rise_min > self.threshold;
        let down = self.fall_max - self.fall > self.threshold;
        match self.mode {
            Mode::Up => up,
            Mode::Down => down,
            Mode::Both => up || down,
        }
    }
}

impl Detector for PageHinkley {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        let changed = if self.moa {
            self.update_moa(x)
        } else {
            self.update_river(x)
        };
        if !changed {
            return Verdict::Stable;
        }
        self.reset();
        Verdict::Drift
    }

    fn reset(&mut self) {
        self.mean = Mean::default();
        self.rise = 0.0;
        self.rise_min = f64::INFINITY;
        self.fall = 0.0;
        // river's start; it matters only while every cumulated fall is below it.
        self.fall_max = -1.0;
    }
}
