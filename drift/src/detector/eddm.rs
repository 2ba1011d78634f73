//! EDDM: the distance between two errors against its own maximum.
//!
//! Baena-García et al., "Early drift detection method", 2006. With mean m and standard deviation s
//! of the distances between errors, m + 2 s is compared with its largest value; below `alpha` of
//! it warns, below `beta` of it is drift. river divides the variance by n − 1, MOA by n.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits, is_error};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::count(
        "warm_start",
        30,
        0,
        u64::MAX,
        "values and errors before the first alarm",
    ),
    Parameter::number(
        "alpha",
        0.95,
        Domain::Open(0.0, 1.0),
        "share of the largest distance below which it warns",
    ),
    Parameter::number(
        "beta",
        0.9,
        Domain::Open(0.0, 1.0),
        "share of the largest distance below which it is drift",
    ),
];

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Eddm {
    warm_start: u64,
    #[serde(with = "bits")]
    alpha: f64,
    #[serde(with = "bits")]
    beta: f64,
    moa: bool,
    n: u64,
    errors: u64,
    last_error: u64,
    #[serde(with = "bits")]
    mean: f64,
    /// Sum of squared deviations of the distances.
    #[serde(with = "bits")]
    deviation: f64,
    #[serde(with = "bits")]
    largest: f64,
    warning: bool,
}

impl Eddm {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        if p.number("alpha") < p.number("beta") {
            return Err(p.refuse("alpha", "at least beta"));
        }
        let mut d = Self {
            warm_start: p.count("warm_start"),
            alpha: p.number("alpha"),
            beta: p.number("beta"),
            moa: p.moa(),
            n: 0,
            errors: 0,
            last_error: 0,
            mean: 0.0,
            deviation: 0.0,
            largest: 0.0,
            warning: false,
        };
        d.reset();
        Ok(d)
    }

    /// m + 2 s after one more distance.
    fn spread(&mut self, distance: f64) -> f64 {
        let errors = self.errors as f64;
        let before = self.mean;
        if self.moa {
            self.mean += (distance - before) / errors;
        } else {
            self.mean += (1.0 / errors) * (distance - before);
        }
        self.deviation += (distance - before) * (distance - self.mean);
        let freedom = if self.moa { errors } else { errors - 1.0 };
        if freedom > 0.0 {
            self.mean + 2.0 * (self.deviation / freedom).sqrt()
        } else {
            self.mean
        }
    }

    fn judge(&mut self, spread: f64) -> bool {
        let enough = self.errors > self.warm_start;
        if self.moa {
            self.warning = false;
            // MOA counts values from one.
            if spread > self.largest {
                if self.n + 1 > self.warm_start {
                    self.largest = spread;
                }
                return false;
            }
            let ratio = spread / self.largest;
            let drift = enough && ratio < self.beta;
            self.warning = enough && !drift && ratio < self.alpha;
            return drift;
        }
        if self.n <= self.warm_start {
            return false;
        }
        if spread > self.largest {
            // The warning of the error before stays, as river has it.
            self.largest = spread;
            return false;
        }
        if !enough {
            return false;
        }
        let ratio = spread / self.largest;
        self.warning = ratio < self.alpha;
        ratio < self.beta
    }
}

impl Detector for Eddm {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.n += 1;
        if is_error(x) {
            self.errors += 1;
            let distance = (self.n - self.last_error) as f64;
            self.last_error = self.n;
            let spread = self.spread(distance);
            if self.judge(spread) {
                self.reset();
                return Verdict::Drift;
            }
        }
        if self.warning {
            Verdict::Warning
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.n = 0;
        self.errors = 0;
        self.last_error = 0;
        self.mean = 0.0;
        self.deviation = 0.0;
        self.largest = if self.moa { 0.0 } else { -1.0 };
        self.warning = false;
    }
}
