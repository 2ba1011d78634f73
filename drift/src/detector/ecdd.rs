//! ECDD: an exponentially weighted error rate against the overall one.
//!
//! Ross, Adams, Tasoulis and Hand, "Exponentially weighted moving average charts for detecting
//! concept drift", Pattern Recognition Letters 33, 2012. With error rate p and weighted rate
//! z += lambda (x − z), drift when z > p + L s, where s² = p (1 − p) lambda/(2 − lambda)
//! (1 − (1 − lambda)^{2n}) and L is the paper's polynomial in p for the wanted number of values
//! between false alarms. It warns at half of L. The polynomials are fitted for lambda = 0.2.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::count(
        "min_instances",
        30,
        0,
        u64::MAX,
        "values before the first alarm",
    ),
    Parameter::number(
        "lambda",
        0.2,
        Domain::Open(0.0, 1.0),
        "weight of the newest value; the limits are fitted for 0.2",
    ),
    Parameter::choice(
        "arl",
        "400",
        &["100", "400", "1000"],
        "values between two false alarms, on average",
    ),
];

/// Coefficients of p⁰, p¹, p³, p⁵ and p⁷ of the control limit, by average run length.
const LIMITS: [(u16, [f64; 5]); 3] = [
    (100, [2.76, -6.23, 18.12, -312.45, 1002.18]),
    (400, [3.97, -6.56, 48.73, -330.13, 848.18]),
    (1000, [1.17, 7.56, -21.24, 112.12, -987.23]),
];

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ecdd {
    min_instances: u64,
    #[serde(with = "bits")]
    lambda: f64,
    arl: u16,
    n: u64,
    #[serde(with = "bits")]
    sum: f64,
    #[serde(with = "bits")]
    z: f64,
    /// (1 − lambda)^{2n}.
    #[serde(with = "bits")]
    fade: f64,
}

impl Ecdd {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        Ok(Self {
            min_instances: p.count("min_instances"),
            lambda: p.number("lambda"),
            arl: p.choice("arl").parse().unwrap_or(400),
            n: 0,
            sum: 0.0,
            z: 0.0,
            fade: 1.0,
        })
    }

    fn limit(&self, p: f64) -> f64 {
        let c = LIMITS
            .iter()
            .find(|(arl, _)| *arl == self.arl)
            .map_or(LIMITS[1].1, |(_, c)| *c);
        let square = p * p;
        let odd = c[1] + square * (c[2] + square * (c[3] + square * c[4]));
        c[0] + p * odd
    }
}

impl Detector for Ecdd {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.n += 1;
        self.sum += x;
        self.z += self.lambda * (x - self.z);
        self.fade *= (1.0 - self.lambda) * (1.0 - self.lambda);
        // MOA counts from one: it warns one value earlier than it alarms.
        if self.n.saturating_add(1) < self.min_instances {
            return Verdict::Stable;
        }
        let p = self.sum / self.n as f64;
        let variance = p * (1.0 - p) * self.lambda * (1.0 - self.fade) / (2.0 - self.lambda);
        let reach = self.limit(p) * variance.max(0.0).sqrt();
        if self.n >= self.min_instances && self.z > p + reach {
            self.reset();
            Verdict::Drift
        } else if self.z > p + 0.5 * reach {
            Verdict::Warning
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.n = 0;
        self.sum = 0.0;
        self.z = 0.0;
        self.fade = 1.0;
    }
}
