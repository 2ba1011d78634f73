//! RDDM: DDM that forgets concepts grown long, and keeps what came after the warning.
//!
//! Barros, Cabral, Gonçalves and Santos, "RDDM: reactive drift detection method", Expert Systems
//! with Applications 90, 2017. DDM's rule with other levels, and: after an alarm the rate is
//! computed again from the values since the warning began; a concept longer than
//! `max_concept_size` is computed again from the last `min_stable_concept_size` values; a warning
//! that lasts `warning_limit` values is an alarm.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::ring::{BitRing, WINDOW_MAX};
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits, is_error};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::count(
        "min_instances",
        129,
        0,
        u64::MAX,
        "values before the first alarm",
    ),
    Parameter::number(
        "warning_level",
        1.773,
        Domain::Open(0.0, f64::MAX),
        "standard deviations above the minimum that warn",
    ),
    Parameter::number(
        "drift_level",
        2.258,
        Domain::Open(0.0, f64::MAX),
        "standard deviations above the minimum that raise the alarm",
    ),
    Parameter::count(
        "max_concept_size",
        40_000,
        1,
        u64::MAX,
        "values after which the rate is computed from recent ones only",
    ),
    Parameter::count(
        "min_stable_concept_size",
        7_000,
        1,
        WINDOW_MAX,
        "recent values kept for that",
    ),
    Parameter::count(
        "warning_limit",
        1_400,
        1,
        u64::MAX,
        "values that a warning may last",
    ),
];

/// The detector. Memory: one bit for each of `min_stable_concept_size` values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rddm {
    min_instances: u64,
    #[serde(with = "bits")]
    warning_level: f64,
    #[serde(with = "bits")]
    drift_level: f64,
    max_concept_size: u64,
    warning_limit: u64,
    recent: BitRing,
    n: u64,
    #[serde(with = "bits")]
    p: f64,
    #[serde(with = "bits")]
    s: f64,
    #[serde(with = "bits")]
    p_min: f64,
    #[serde(with = "bits")]
    s_min: f64,
    #[serde(with = "bits")]
    level_min: f64,
    /// Position of the value that began the current warning.
    warned_at: Option<u64>,
    rebuild: Rebuild,
}

/// What is due before the next value is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Rebuild {
    Nothing,
    /// The concept grew too long: recompute the rate, keep the minimum.
    Rate,
    /// There was an alarm: recompute the rate and find the minimum again.
    All,
}

impl Rddm {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        let mut d = Self {
            min_instances: p.count("min_instances"),
            warning_level: p.number("warning_level"),
            drift_level: p.number("drift_level"),
            max_concept_size: p.count("max_concept_size"),
            warning_limit: p.count("warning_limit"),
            recent: BitRing::new(p.count("min_stable_concept_size")),
            n: 0,
            p: 0.0,
            s: 0.0,
            p_min: 0.0,
            s_min: 0.0,
            level_min: 0.0,
            warned_at: None,
            rebuild: Rebuild::Nothing,
        };
        d.reset();
        Ok(d)
    }

    fn forget_minimum(&mut self) {
        self.p_min = f64::INFINITY;
        self.s_min = f64::INFINITY;
        self.level_min = f64::INFINITY;
    }

    fn count(&mut self, x: f64) {
        self.n += 1;
        self.p += (x - self.p) / self.n as f64;
        // Rounding may leave a mean of ones a hair above one.
        self.s = (self.p * (1.0 - self.p) / self.n as f64).max(0.0).sqrt();
    }

    fn lower_minimum(&mut self) {
        if self.p + self.s < self.level_min {
            self.p_min = self.p;
            self.s_min = self.s;
            self.level_min = self.p + self.s;
        }
    }

    fn rebuild(&mut self) {
        let all = self.rebuild == Rebuild::All;
        self.rebuild = Rebuild::Nothing;
        self.n = 0;
        self.p = 1.0;
        self.s = 0.0;
        if all {
            self.forget_minimum();
        }
        if let Some(at) = self.warned_at.take() {
            self.recent.keep_from(at);
        }
        for at in self.recent.first()..self.recent.end() {
            self.count(f64::from(u8::from(self.recent.get(at))));
            if all && self.n > self.min_instances {
                self.lower_minimum();
            }
        }
    }

    /// Nothing older than the newest value says anything about the new concept.
    fn keep_newest(&mut self) {
        self.recent.keep_from(self.recent.end() - 1);
        self.warned_at = None;
    }
}

impl Detector for Rddm {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        if self.rebuild != Rebuild::Nothing {
            self.rebuild();
        }
        let bit = is_error(x);
        let now = self.recent.end();
        self.recent.push(bit);
        self.count(f64::from(u8::from(bit)));
        // The published code compares its count, which starts at one, with `<=`.
        if self.n < self.min_instances {
            return Verdict::Stable;
        }
        self.lower_minimum();
        let level = self.p + self.s;
        if level > self.p_min + self.drift_level * self.s_min {
            self.rebuild = Rebuild::All;
            if self.warned_at.is_none() {
                self.keep_newest();
            }
            return Verdict::Drift;
        }
        if level > self.p_min + self.warning_level * self.s_min {
            let began = *self.warned_at.get_or_insert(now);
            if now - began >= self.warning_limit {
                self.rebuild = Rebuild::All;
                self.keep_newest();
                return Verdict::Drift;
            }
            return Verdict::Warning;
        }
        self.warned_at = None;
        if self.n >= self.max_concept_size {
            self.rebuild = Rebuild::Rate;
        }
        Verdict::Stable
    }

    fn reset(&mut self) {
        self.recent.clear();
        self.n = 0;
        self.p = 1.0;
        self.s = 0.0;
        self.forget_minimum();
        self.warned_at = None;
        self.rebuild = Rebuild::Nothing;
    }
}
