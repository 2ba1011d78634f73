//! HDDM-W: a weighted mean before the best cut against one after it, by McDiarmid's bound.
//!
//! Frías-Blanco et al., "Online and non-parametric drift detection methods based on Hoeffding's
//! bounds", IEEE TKDE 27(3), 2015, W-test. Means are exponentially weighted with `lambda_val`; the
//! sum of squared weights b gives the bound sqrt(b ln(1/confidence)/2). The mean has risen when the
//! one after the cut exceeds the one before it by the bound of both together.

use serde::{Deserialize, Serialize};

use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

pub(super) const PARAMETERS: &[Parameter] = &[
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
    Parameter::number(
        "lambda_val",
        0.05,
        Domain::Open(0.0, 1.0),
        "weight of the newest value",
    ),
    Parameter::flag("two_sided_test", false, "whether a falling mean counts too"),
];

/// A weighted mean and its sum of squared weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Weighted {
    started: bool,
    #[serde(with = "bits")]
    mean: f64,
    #[serde(with = "bits")]
    squares: f64,
}

impl Weighted {
    fn push(&mut self, x: f64, lambda: f64, moa: bool) {
        let rest = 1.0 - lambda;
        if self.started {
            self.mean = lambda * x + rest * self.mean;
            self.squares = lambda * lambda + rest * rest * self.squares;
        } else {
            self.started = true;
            self.mean = x;
            // river ages the weights with the first value already.
            self.squares = if moa {
                1.0
            } else {
                lambda * lambda + rest * rest
            };
        }
    }
}

/// One direction: the mean up to the cut, the mean since, and the bound that set the cut.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Side {
    before: Weighted,
    after: Weighted,
    #[serde(with = "bits")]
    cut: f64,
}

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HddmW {
    #[serde(with = "bits")]
    drift_confidence: f64,
    #[serde(with = "bits")]
    warning_confidence: f64,
    #[serde(with = "bits")]
    lambda: f64,
    two_sided: bool,
    moa: bool,
    all: Weighted,
    rise: Side,
    fall: Side,
}

impl HddmW {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        let moa = p.moa();
        Ok(Self {
            drift_confidence: p.number("drift_confidence"),
            warning_confidence: p.number("warning_confidence"),
            lambda: p.number("lambda_val"),
            two_sided: p.flag("two_sided_test"),
            moa,
            all: Self::empty(moa),
            rise: Self::side(moa, f64::INFINITY),
            fall: Self::side(moa, Self::fall_cut(moa)),
        })
    }

    fn empty(moa: bool) -> Weighted {
        Weighted {
            started: false,
            mean: if moa { -1.0 } else { 0.0 },
            squares: if moa { 0.0 } else { 1.0 },
        }
    }

    fn side(moa: bool, cut: f64) -> Side {
        Side {
            before: Self::empty(moa),
            after: Self::empty(moa),
            cut,
        }
    }

    /// MOA starts from Java's smallest positive number where the most negative was meant.
    fn fall_cut(moa: bool) -> f64 {
        if moa {
            f64::from_bits(1)
        } else {
            f64::NEG_INFINITY
        }
    }

    fn bound(squares: f64, confidence: f64) -> f64 {
        (squares * (1.0 / confidence).ln() / 2.0).sqrt()
    }

    fn update_rise(&mut self, x: f64) {
        let at = self.all.mean + Self::bound(self.all.squares, self.drift_confidence);
        if at < self.rise.cut {
            self.rise = Self::side(self.moa, at);
            self.rise.before = self.all;
        } else {
            self.rise.after.push(x, self.lambda, self.moa);
        }
    }

    fn update_fall(&mut self, x: f64) {
        let at = self.all.mean - Self::bound(self.all.squares, self.drift_confidence);
        if at > self.fall.cut {
            self.fall = Self::side(self.moa, at);
            self.fall.before = self.all;
        } else {
            self.fall.after.push(x, self.lambda, self.moa);
        }
    }

    fn apart(low: &Weighted, high: &Weighted, confidence: f64) -> bool {
        low.started
            && high.started
            && high.mean - low.mean > Self::bound(low.squares + high.squares, confidence)
    }

    fn rose(&self, confidence: f64) -> bool {
        Self::apart(&self.rise.before, &self.rise.after, confidence)
    }

    fn fell(&self, confidence: f64) -> bool {
        Self::apart(&self.fall.after, &self.fall.before, confidence)
    }
}

impl Detector for HddmW {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.all.push(x, self.lambda, self.moa);
        self.update_rise(x);
        if self.rose(self.drift_confidence) {
            self.reset();
            if self.moa {
                self.update_fall(x);
            }
            return Verdict::Drift;
        }
        let mut warns = self.rose(self.warning_confidence);
        self.update_fall(x);
        if self.two_sided && self.fell(self.drift_confidence) {
            self.reset();
            if !self.moa {
                return Verdict::Drift;
            }
            // MOA restarts, and clears its warning, without telling anyone.
            warns = false;
        } else if self.two_sided && !self.moa {
            warns |= self.fell(self.warning_confidence);
        }
        if warns {
            Verdict::Warning
        } else {
            Verdict::Stable
        }
    }

    fn reset(&mut self) {
        self.all = Self::empty(self.moa);
        self.rise = Self::side(self.moa, f64::INFINITY);
        self.fall = Self::side(self.moa, Self::fall_cut(self.moa));
    }
}
