//! HDDM-A: the mean so far against the mean up to the best cut, by Hoeffding's bound.
//!
//! Frías-Blanco et al., "Online and non-parametric drift detection methods based on Hoeffding's
//! bounds", IEEE TKDE 27(3), 2015, A-test. The cut is the prefix whose mean plus its bound is
//! smallest (for increases); the mean has risen when mean − mean_cut ≥ sqrt(m/2 ln(2/confidence))
//! with m = (n − n_cut)/(n_cut n). MOA watches both sides by default but a fall only restarts it.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

const fn schema(two_sided: bool) -> [Parameter; 3] {
    [
        Parameter::number(
            "drift_confidence",
            0.001,
            Domain::Open(0.0, 1.0),
            "error probability of an alarm",
        ),
        Parameter::number(
            "warning_confidence",
            0.005,
            Domain::Open(0.0, 1.0),
            "error probability of a warning",
        ),
        Parameter::flag(
            "two_sided_test",
            two_sided,
            "whether a falling mean counts too",
        ),
    ]
}

pub(super) const PARAMETERS: &[Parameter] = &schema(false);
pub(super) const PARAMETERS_MOA: &[Parameter] = &schema(true);

/// A prefix of the stream. `level` is the running mean, or the sum under MOA, so that each follows
/// its original's rounding.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Prefix {
    #[serde(with = "bits")]
    n: f64,
    #[serde(with = "bits")]
    level: f64,
}

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HddmA {
    #[serde(with = "bits")]
    drift_confidence: f64,
    #[serde(with = "bits")]
    warning_confidence: f64,
    two_sided: bool,
    moa: bool,
    all: Prefix,
    /// The cut that makes an increase most visible.
    low: Prefix,
    /// The cut that makes a decrease most visible.
    high: Prefix,
}

impl HddmA {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        Ok(Self {
            drift_confidence: p.number("drift_confidence"),
            warning_confidence: p.number("warning_confidence"),
            two_sided: p.flag("two_sided_test"),
            moa: p.moa(),
            all: Prefix::default(),
            low: Prefix::default(),
            high: Prefix::default(),
        })
    }

    fn mean(&self, p: &Prefix) -> f64 {
        if self.moa { p.level / p.n } else { p.level }
    }

    fn bound(&self, p: &Prefix) -> f64 {
        (1.0 / (2.0 * p.n) * (1.0 / self.drift_confidence).ln()).sqrt()
    }

    fn count(&mut self, x: f64) {
        self.all.n += 1.0;
        if self.moa {
            self.all.level += x;
        } else {
            self.all.level += (1.0 / self.all.n) * (x - self.all.level);
        }
        if self.low.n == 0.0 {
            self.low = self.all;
        }
        if self.high.n == 0.0 {
            self.high = self.all;
        }
        let (mean, bound) = (self.mean(&self.all), self.bound(&self.all));
        if self.mean(&self.low) + self.bound(&self.low) >= mean + bound {
            self.low = self.all;
        }
        if self.mean(&self.high) - self.bound(&self.high) <= mean - bound {
            self.high = self.all;
        }
    }

    /// Whether two prefixes' means are further apart than chance allows; `gap` is signed by the
    /// direction asked for.
    fn apart(&self, cut: &Prefix, gap: f64, confidence: f64) -> bool {
        if cut.n == self.all.n {
            return false;
        }
        let m = (self.all.n - cut.n) / cut.n * (1.0 / self.all.n);
        gap >= (m / 2.0 * (2.0 / confidence).ln()).sqrt()
    }

    fn rose(&self, confidence: f64) -> bool {
        let gap = self.mean(&self.all) - self.mean(&self.low);
        self.apart(&self.low, gap, confidence)
    }

    fn fell(&self, confidence: f64) -> bool {
        let gap = self.mean(&self.high) - self.mean(&self.all);
        self.apart(&self.high, gap, confidence)
    }
}

impl Detector for HddmA {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.count(x);
        let fell = self.two_sided && self.fell(self.drift_confidence);
        if self.rose(self.drift_confidence) || (fell && !self.moa) {
            self.reset();
            return Verdict::Drift;
        }
        let warns = self.rose(self.warning_confidence)
            || (self.two_sided && !self.moa && self.fell(self.warning_confidence));
        if fell {
            self.reset();
        }
        if warns {
            Verdict::Warning
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.all = Prefix::default();
        self.low = Prefix::default();
        self.high = Prefix::default();
    }
}
