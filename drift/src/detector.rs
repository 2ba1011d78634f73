//! Change detectors on a stream of numbers (losses, errors, confidences), one value at a time.
//!
//! A detector is a small state machine: [`Detector::update`] takes one value and answers
//! [`Verdict`]. After [`Verdict::Drift`] a detector starts afresh with the next value, unless its
//! method keeps what belongs to the new state ([`adwin`] on request, [`rddm`], [`seed`],
//! [`bocpd`]). Detectors are chosen by name
//! through [`Kind`], configured by `(name, value)` pairs checked against a published list
//! ([`Kind::parameters`]), and built as one serialisable [`AnyDetector`].
//!
//! State lives in a changelog, so it survives a restart bit for bit: floating numbers are written
//! as their 64 bits, whatever the format (see [`bits`]), and nothing that is in memory and affects
//! an answer is left out.
//!
//! Definitions are those of river 0.26.1 where river has the detector and those of MOA 2024.07
//! where only MOA has it; [`Compat`] chooses MOA's where the two differ.
//!
//! | name | source | input |
//! | --- | --- | --- |
//! | `adwin` | Bifet and Gavaldà 2007 | any number |
//! | `page_hinkley` | Page 1954, with fading | any number |
//! | `cusum` | Page 1954 | any number |
//! | `ddm` | Gama et al. 2004 | error in \[0, 1\] |
//! | `eddm` | Baena-García et al. 2006 | error, 0 or 1 |
//! | `rddm` | Barros et al. 2017 | error, 0 or 1 |
//! | `hddm_a`, `hddm_w` | Frías-Blanco et al. 2015 | error in \[0, 1\] |
//! | `fhddm` | Pesaranghader and Viktor 2016 | correct prediction, 0 or 1 |
//! | `kswin` | Raab et al. 2020 | any number |
//! | `stepd` | Nishida and Yamauchi 2007 | error, 0 or 1 |
//! | `ecdd` | Ross et al. 2012 | error in \[0, 1\] |
//! | `seed` | Huang et al. 2014 | any number |
//! | `bocpd` | Adams and MacKay 2007 | any number, standardised; or 0 and 1 |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub mod adwin;
pub mod bits;
pub mod bocpd;
pub mod cusum;
pub mod ddm;
pub mod ecdd;
pub mod eddm;
pub mod fhddm;
pub mod hddm_a;
pub mod hddm_w;
pub mod kswin;
pub mod page_hinkley;
pub mod params;
pub mod rddm;
mod registry;
mod ring;
pub mod seed;
pub mod stepd;

pub use params::{Domain, Parameter, Params, Value};
pub use registry::AnyDetector;

/// What one value made of the stream so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing unusual.
    Stable,
    /// The stream may be about to change; only detectors with two thresholds say this.
    Warning,
    /// The stream has changed; the detector goes on from the new state.
    Drift,
}

/// A change detector.
pub trait Detector {
    /// Takes the next value. A value that is not finite changes nothing and is
    /// [`Verdict::Stable`]: counting such values is the caller's business, since they say
    /// something about the data and nothing about its level.
    fn update(&mut self, x: f64) -> Verdict;

    /// Forgets every value seen; parameters stay.
    fn reset(&mut self);
}

/// Whose definition is followed where implementations differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// Driftline's own: river's where river has the detector, else MOA's without its accidents.
    #[default]
    Native,
    /// river 0.26.1.
    River,
    /// MOA 2024.07.
    Moa,
}

impl fmt::Display for Compat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::River => "river",
            Self::Moa => "moa",
        })
    }
}

impl FromStr for Compat {
    type Err = DetectorError;

    fn from_str(s: &str) -> Result<Self, DetectorError> {
        match s {
            "native" => Ok(Self::Native),
            "river" => Ok(Self::River),
            "moa" => Ok(Self::Moa),
            _ => Err(DetectorError::UnknownCompat { name: s.to_owned() }),
        }
    }
}

/// The name of a detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Adaptive windowing.
    Adwin,
    /// Page-Hinkley with fading.
    PageHinkley,
    /// Cumulative sum.
    Cusum,
    /// Drift detection method.
    Ddm,
    /// Early drift detection method.
    Eddm,
    /// Reactive drift detection method.
    Rddm,
    /// Hoeffding bound on averages.
    HddmA,
    /// Hoeffding (McDiarmid) bound on weighted averages.
    HddmW,
    /// Fast Hoeffding drift detection method.
    Fhddm,
    /// Kolmogorov-Smirnov on a sliding window.
    Kswin,
    /// Statistical test of equal proportions.
    Stepd,
    /// EWMA chart for concept drift.
    Ecdd,
    /// SEED.
    Seed,
    /// Bayesian online change point detection.
    Bocpd,
}

impl Kind {
    /// Every detector, in the order of the module's table.
    pub const ALL: [Self; 14] = [
        Self::Adwin,
        Self::PageHinkley,
        Self::Cusum,
        Self::Ddm,
        Self::Eddm,
        Self::Rddm,
        Self::HddmA,
        Self::HddmW,
        Self::Fhddm,
        Self::Kswin,
        Self::Stepd,
        Self::Ecdd,
        Self::Seed,
        Self::Bocpd,
    ];

    /// The name used in configuration, SQL and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adwin => "adwin",
            Self::PageHinkley => "page_hinkley",
            Self::Cusum => "cusum",
            Self::Ddm => "ddm",
            Self::Eddm => "eddm",
            Self::Rddm => "rddm",
            Self::HddmA => "hddm_a",
            Self::HddmW => "hddm_w",
            Self::Fhddm => "fhddm",
            Self::Kswin => "kswin",
            Self::Stepd => "stepd",
            Self::Ecdd => "ecdd",
            Self::Seed => "seed",
            Self::Bocpd => "bocpd",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = DetectorError;

    fn from_str(s: &str) -> Result<Self, DetectorError> {
        Self::ALL
            .into_iter()
            .find(|k| k.name() == s)
            .ok_or_else(|| DetectorError::UnknownDetector { name: s.to_owned() })
    }
}

/// A detector could not be built. Always the configuration's fault: trying again does not help.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DetectorError {
    /// No detector of that name.
    #[error("unknown detector {name:?}: use one of {}", names(&Kind::ALL))]
    UnknownDetector {
        /// What was asked for.
        name: String,
    },
    /// No definition of that name.
    #[error("unknown compatibility {name:?}: use native, river or moa")]
    UnknownCompat {
        /// What was asked for.
        name: String,
    },
    /// The named implementation has no such detector.
    #[error("{compat} has no detector {kind}: leave the compatibility out for driftline's own")]
    NotInCompat {
        /// The detector.
        kind: Kind,
        /// The implementation.
        compat: Compat,
    },
    /// The detector has no parameter of that name.
    #[error("detector {kind} has no parameter {name:?}: it knows {known}")]
    UnknownParameter {
        /// The detector.
        kind: Kind,
        /// The parameter as given.
        name: String,
        /// The parameters it has.
        known: String,
    },
    /// A parameter was given twice.
    #[error("parameter {name:?} of detector {kind} is given twice: keep one")]
    DuplicateParameter {
        /// The detector.
        kind: Kind,
        /// The parameter.
        name: String,
    },
    /// A parameter's value cannot be used.
    #[error("parameter {name:?} of detector {kind} is {value:?}: it must be {expected}")]
    InvalidParameter {
        /// The detector.
        kind: Kind,
        /// The parameter.
        name: &'static str,
        /// The value as given.
        value: String,
        /// What would be accepted.
        expected: String,
    },
}

fn names(kinds: &[Kind]) -> String {
    kinds
        .iter()
        .map(|k| k.name())
        .collect::<Vec<_>>()
        .join(", ")
}

/// A stream of errors as bits: river and MOA agree on 0 and 1, and a probability of error counts
/// as an error when it is the likelier outcome.
fn is_error(x: f64) -> bool {
    x > 0.5
}

#[cfg(test)]
mod tests;
