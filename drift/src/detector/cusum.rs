//! CUSUM: deviations from the running mean beyond a tolerance, cumulated and held at zero.
//!
//! Page, "Continuous inspection schemes", Biometrika 41, 1954, in MOA's form: the level is the
//! running mean, S = max(0, S + x − mean − delta), alarm when S > threshold. `mode` adds the
//! downward side, which MOA lacks.

use serde::{Deserialize, Serialize};

use super::page_hinkley::{MODES, Mode};
use super::params::Checked;
use super::{Detector, DetectorError, Domain, Parameter, Verdict, bits};

const fn schema(modes: &'static [&'static str]) -> [Parameter; 4] {
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
            "deviation that is tolerated, in units of the stream",
        ),
        Parameter::number(
            "threshold",
            50.0,
            Domain::Closed(0.0, f64::MAX),
            "cumulated deviation that raises the alarm (lambda)",
        ),
        Parameter::choice("mode", "up", modes, "directions watched"),
    ]
}

pub(super) const PARAMETERS: &[Parameter] = &schema(MODES);
pub(super) const PARAMETERS_MOA: &[Parameter] = &schema(&["up"]);

/// The detector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cusum {
    min_instances: u64,
    #[serde(with = "bits")]
    delta: f64,
    #[serde(with = "bits")]
    threshold: f64,
    mode: Mode,
    n: u64,
    #[serde(with = "bits")]
    mean: f64,
    #[serde(with = "bits")]
    up: f64,
    #[serde(with = "bits")]
    down: f64,
}

impl Cusum {
    pub(super) fn build(p: &Checked) -> Result<Self, DetectorError> {
        Ok(Self {
            min_instances: p.count("min_instances"),
            delta: p.number("delta"),
            threshold: p.number("threshold"),
            mode: Mode::read(p.choice("mode")),
            n: 0,
            mean: 0.0,
            up: 0.0,
            down: 0.0,
        })
    }
}

impl Detector for Cusum {
    fn update(&mut self, x: f64) -> Verdict {
        if !x.is_finite() {
            return Verdict::Stable;
        }
        self.n += 1;
        self.mean += (x - self.mean) / self.n as f64;
        self.up = (self.up + x - self.mean - self.delta).max(0.0);
        self.down = (self.down - x + self.mean - self.delta).max(0.0);
        // MOA counts from one, so the first alarm may come with value min_instances − 1.
        let ready = self.n.saturating_add(1) >= self.min_instances;
        let over = match self.mode {
            Mode::Up => self.up,
            Mode::Down => self.down,
            Mode::Both => self.up.max(self.down),
        };
        if !ready || over <= self.threshold {
            return Verdict::Stable;
        }
        self.reset();
        Verdict::Drift
    }

    fn reset(&mut self) {
        self.n = 0;
        self.mean = 0.0;
        self.up = 0.0;
        self.down = 0.0;
    }
}
