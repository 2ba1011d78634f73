//! STEPD: recent accuracy against the accuracy before, by a test of equal proportions.
//!
//! Nishida and Yamauchi, "Detecting concept drift using statistical testing", Discovery Science
//! 2007. With r_r correct of n_r recent and r_o of n_o older values and p the pooled share,
//!
//! ```text
//! z = (|r_o/n_o − r_r/n_r| − (1/n_o + 1/n_r)/2) / sqrt(p (1 − p) (1/n_o + 1/n_r))
//! ```
//!
//! and the two-sided normal p-value is compared with two levels. Where the difference is smaller
//! than the continuity correction, or every value is the same, there is no evidence; MOA takes |z|
//! there, and so alarms every `2 · window_size` values of a stream that never changes.

use libm::erfc;
use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::ring::BitRing;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits, is_error};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter::count("window_size", 30, 1, 1000, "recent values"),
    Parameter::number(
        "alpha_drift",
        0.003,
        Domain::Open(0.0, 1.0),
        "p-value below which it is drift",
    ),
    Parameter::number(
        "alpha_warning",
        0.05,
        Domain::Open(0.0, 1.0),
        "p-value below which it warns",
    ),
];

/// The detector. Memory: one bit for each recent value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stepd {
    window_size: u64,
    #[serde(with = "bits")]
    alpha_drift: f64,
    #[serde(with = "bits")]
    alpha_warning: f64,
    moa: bool,
    recent: BitRing,
    recent_errors: u64,
    older: u64,
    older_errors: u64,
}

impl Stepd {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        let window_size = p.count("window_size");
        Ok(Self {
            window_size,
            alpha_drift: p.number("alpha_drift"),
            alpha_warning: p.number("alpha_warning"),
            moa: p.moa(),
            recent: BitRing::new(window_size),
            recent_errors: 0,
            older: 0,
            older_errors: 0,
        })
    }

    fn p_value(&self) -> f64 {
        let (n_o, n_r) = (self.older as f64, self.recent.len() as f64);
        let r_o = n_o - self.older_errors as f64;
        let r_r = n_r - self.recent_errors as f64;
        let inverse = 1.0 / n_o + 1.0 / n_r;
        let p = (r_o + r_r) / (n_o + n_r);
        let excess = (r_o / n_o - r_r / n_r).abs() - inverse / 2.0;
        let spread = (p * (1.0 - p) * inverse).sqrt();
        let z = if self.moa {
            (excess / spread).abs()
        } else if spread > 0.0 {
            (excess / spread).max(0.0)
        } else {
            0.0
        };
        erfc(z / std::f64::consts::SQRT_2)
    }
}

impl Detector for Stepd {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        let error = is_error(x);
        if let Some(fell) = self.recent.push(error) {
            self.older += 1;
            self.older_errors += u64::from(fell);
            self.recent_errors = self.recent_errors.saturating_sub(u64::from(fell));
        }
        self.recent_errors += u64::from(error);
        if self.older < self.window_size {
            return Verdict::Stable;
        }
        let p = self.p_value();
        if p < self.alpha_drift {
            self.reset();
            Verdict::Drift
        } else if p < self.alpha_warning {
            Verdict::Warning
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.recent.clear();
        self.recent_errors = 0;
        self.older = 0;
        self.older_errors = 0;
    }
}
