//! DDM: the error rate against its own minimum.
//!
//! Gama, Medas, Castillo and Rodrigues, "Learning with drift detection", SBIA 2004. With error
//! rate p and s = sqrt(p (1 − p)/n), the smallest p + s seen is remembered as (p_min, s_min);
//! warning when p + s > p_min + 2 s_min, drift when it exceeds p_min + 3 s_min.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::ring::Mean;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::count(
        "warm_start",
        30,
        0,
        u64::MAX,
        "values before the first alarm",
    ),
    Parameter::number(
        "warning_threshold",
        2.0,
        Domain::Open(0.0, f64::MAX),
        "standard deviations above the minimum that warn",
    ),
    Parameter::number(
        "drift_threshold",
        3.0,
        Domain::Open(0.0, f64::MAX),
        "standard deviations above the minimum that raise the alarm",
    ),
];

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ddm {
    warm_start: u64,
    #[serde(with = "bits")]
    warning_threshold: f64,
    #[serde(with = "bits")]
    drift_threshold: f64,
    moa: bool,
    rate: Mean,
    #[serde(with = "bits")]
    p_min: f64,
    #[serde(with = "bits")]
    s_min: f64,
    /// p_min + s_min, infinite until there is one.
    #[serde(with = "bits")]
    level_min: f64,
}

impl Ddm {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        let mut d = Self {
            warm_start: p.count("warm_start"),
            warning_threshold: p.number("warning_threshold"),
            drift_threshold: p.number("drift_threshold"),
            moa: p.moa(),
            rate: Mean::default(),
            p_min: 0.0,
            s_min: 0.0,
            level_min: 0.0,
        };
        d.reset();
        Ok(d)
    }

    /// Counts the value; whether the minimum and the warning, and the alarm, are judged yet.
    fn count(&mut self, x: f64) -> (bool, bool) {
        let start = self.warm_start as f64;
        if self.moa {
            self.rate.n += 1.0;
            self.rate.mean += (x - self.rate.mean) / self.rate.n;
            (self.rate.n + 1.0 >= start, self.rate.n + 1.0 > start)
        } else {
            self.rate.push(x);
            (self.rate.n > start, self.rate.n > start)
        }
    }
}

impl Detector for Ddm {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        let (warns, alarms) = self.count(x);
        if !warns {
            return Verdict::Stable;
        }
        let p = self.rate.mean;
        // Rounding may leave a mean of ones a hair above one.
        let s = (p * (1.0 - p) / self.rate.n).max(0.0).sqrt();
        if p + s <= self.level_min {
            self.p_min = p;
            self.s_min = s;
            self.level_min = p + s;
        }
        if alarms && p + s > self.p_min + self.drift_threshold * self.s_min {
            self.reset();
            Verdict::Drift
        } else if p + s > self.p_min + self.warning_threshold * self.s_min {
            Verdict::Warning
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.rate = Mean::default();
        self.p_min = f64::INFINITY;
        self.s_min = f64::INFINITY;
        self.level_min = f64::INFINITY;
    }
}
