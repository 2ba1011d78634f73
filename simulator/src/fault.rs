//! What can be injected, and how it is written.
//!
//! A fault is written `KIND@AFTER,key=value,…`, where AFTER counts from the start of the simulation:
//!
//! ```text
//! input_shift@2d,site=north-1,feature=temperature,sd=0.9
//! concept_flip@2d,site=east-2
//! stuck_sensor@2d,device=south-1-dev2,feature=pressure
//! offline@2d,device=west-1-dev0,for=1d
//! ```

use std::collections::BTreeMap;
use std::str::FromStr;

use driftline_schemas::source::Origin;
use driftline_schemas::units::Span;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::estate::{Estate, sites};
use crate::world::{FEATURES, QUANTITIES};

/// Why a fault cannot be injected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault {text:?}: {problem}")]
pub struct FaultError {
    text: String,
    problem: String,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FaultKind {
    /// A feature moves, in the world and so at the sensors of a cohort.
    InputShift {
        /// Index of the feature.
        feature: usize,
        /// By how many standard deviations.
        sd: f64,
    },
    /// A device's sensor repeats its last value.
    StuckSensor {
        /// Index of the feature.
        feature: usize,
    },
    /// The truth follows from the inputs the other way round.
    ConceptFlip,
    /// A device cannot send for a time, and then sends its backlog.
    Offline {
        /// How long, microseconds.
        for_us: i64,
    },
}

impl FaultKind {
    /// The name as it is written and shown.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::InputShift { .. } => "input_shift",
            Self::StuckSensor { .. } => "stuck_sensor",
            Self::ConceptFlip => "concept_flip",
            Self::Offline { .. } => "offline",
        }
    }
}

/// A fault: what, whom, and when.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// Attribute that decides whom it hits (`site`, `device`, …).
    pub attribute: String,
    /// Its value.
    pub value: String,
    /// When it begins, microseconds since the start of the simulation.
    pub after_us: i64,
}

impl Fault {
    /// Whom it hits, as scopes are written: `site=north-1`.
    pub fn scope(&self) -> String {
        format!("{}={}", self.attribute, self.value)
    }

    /// Whether it hits a unit.
    pub fn hits(&self, origin: &Origin) -> bool {
        match self.attribute.as_str() {
            "device" => *origin.device == self.value,
            attribute => driftline_schemas::source::ATTRIBUTES
                .iter()
                .zip(origin.attributes())
                .any(|(name, value)| *name == attribute && value == self.value),
        }
    }

    /// Whether it is in force at a time since the start.
    pub fn is_on(&self, since_start_us: i64) -> bool {
        let end_us = match self.kind {
            FaultKind::Offline { for_us } => self.after_us + for_us,
            _ => i64::MAX,
        };
        (self.after_us..end_us).contains(&since_start_us)
    }

    /// One fault of each kind at sites of their own, drawn from the estate's seed. Shifts are of at
    /// most one standard deviation.
    pub fn drawn(estate: &Estate, after_us: i64) -> Vec<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(estate.config.seed);
        rng.set_stream(u64::MAX);
        let mut places = sites();
        places.shuffle(&mut rng);
        let device = |site: &str, rng: &mut ChaCha8Rng| {
            let devices = estate.devices_of(site);
            // Not the last one: it reports once a day, and a day of silence is normal there.
            let index = rng.random_range(0..devices.len().saturating_sub(1).max(1));
            devices.get(index).copied().unwrap_or_default().to_owned()
        };
        let feature = rng.random_range(0..FEATURES);
        let sd = rng.random_range(0.8..=1.0) * if rng.random::<bool>() { 1.0 } else { -1.0 };
        let stuck = rng.random_range(0..FEATURES);
        let fault = |kind, attribute: &str, value: String| Self {
            kind,
            attribute: attribute.into(),
            value,
            after_us,
        };
        vec![
            fault(
                FaultKind::InputShift { feature, sd },
                "site",
                places[0].clone(),
            ),
            fault(FaultKind::ConceptFlip, "site", places[1].clone()),
            fault(
                FaultKind::StuckSensor { feature: stuck },
                "device",
                device(&places[2], &mut rng),
            ),
            fault(
                FaultKind::Offline {
                    for_us: Span::from_days(1).us(),
                },
                "device",
                device(&places[3], &mut rng),
            ),
        ]
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let wrong = |problem: String| FaultError {
            text: text.into(),
            problem,
        };
        let (kind, rest) = text
            .split_once('@')
            .ok_or_else(|| wrong("write KIND@AFTER,key=value,…".into()))?;
        let mut parts = rest.split(',');
        let after: Span = parts
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|error: driftline_schemas::units::UnitError| wrong(error.to_string()))?;
        let mut keys = BTreeMap::new();
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| wrong(format!("{part:?} is no key=value")))?;
            keys.insert(key.to_owned(), value.to_owned());
        }
        let kind = kind_of(kind, &mut keys).map_err(&wrong)?;
        let mut left = keys.into_iter();
        match (left.next(), left.next()) {
            (Some((attribute, value)), None) => Ok(Self {
                kind,
                attribute,
                value,
                after_us: after.us(),
            }),
            (None, _) => Err(wrong(
                "say whom it hits: site=…, device=… or another attribute".into(),
            )),
            (Some(_), Some((key, _))) => Err(wrong(format!("{key:?} is one key too many"))),
        }
    }
}

fn kind_of(name: &str, keys: &mut BTreeMap<String, String>) -> Result<FaultKind, String> {
    let mut feature = || -> Result<usize, String> {
        let wanted = keys.remove("feature").ok_or("say which feature=…")?;
        QUANTITIES
            .iter()
            .position(|quantity| quantity.name == wanted)
            .ok_or_else(|| {
                let names: Vec<_> = QUANTITIES.iter().map(|quantity| quantity.name).collect();
                format!("there is no feature {wanted:?}, only {}", names.join(", "))
            })
    };
    match name {
        "input_shift" => {
            let feature = feature()?;
            let sd = keys.remove("sd").map_or(Ok(1.0), |sd| {
                sd.parse::<f64>()
                    .map_err(|_| format!("sd {sd:?} is no number"))
            })?;
            Ok(FaultKind::InputShift { feature, sd })
        }
        "stuck_sensor" => Ok(FaultKind::StuckSensor {
            feature: feature()?,
        }),
        "concept_flip" => Ok(FaultKind::ConceptFlip),
        "offline" => {
            let span = keys.remove("for").unwrap_or_else(|| "1d".into());
            let span: Span = span
                .parse()
                .map_err(|error: driftline_schemas::units::UnitError| error.to_string())?;
            Ok(FaultKind::Offline { for_us: span.us() })
        }
        other => Err(format!(
            "there is no fault {other:?}, only input_shift, stuck_sensor, concept_flip, offline"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estate::EstateConfig;

    #[test]
    fn faults_are_read_as_written_and_refused_with_the_reason() {
        let fault: Fault = "input_shift@2d,site=north-1,feature=temperature,sd=0.9"
            .parse()
            .unwrap();
        assert_eq!(fault.scope(), "site=north-1");
        assert_eq!(
            fault.kind,
            FaultKind::InputShift {
                feature: 0,
                sd: 0.9
            }
        );
        let problem = |text: &str| text.parse::<Fault>().unwrap_err().to_string();
        assert!(problem("quake@1d,site=a").contains("no fault"));
        assert!(problem("stuck_sensor@1d,device=a,feature=hue").contains("temperature"));
        assert!(problem("concept_flip@1d").contains("whom"));
        assert!(problem("concept_flip@soon,site=a").contains("soon"));
    }

    #[test]
    fn drawn_faults_hit_sites_of_their_own_with_at_most_one_sd() {
        for seed in 0..50 {
            let estate = Estate::new(EstateConfig {
                seed,
                ..EstateConfig::default()
            });
            let faults = Fault::drawn(&estate, 0);
            let hit: Vec<std::collections::BTreeSet<String>> = faults
                .iter()
                .map(|fault| {
                    estate
                        .units
                        .iter()
                        .filter(|unit| fault.hits(&unit.origin))
                        .map(|unit| unit.origin.site.to_string())
                        .collect()
                })
                .collect();
            assert!(
                hit.iter().all(|sites| sites.len() == 1),
                "seed {seed}: {hit:?}"
            );
            let all: std::collections::BTreeSet<_> = hit.iter().flatten().collect();
            assert_eq!(all.len(), faults.len(), "seed {seed}");
            for fault in faults {
                if let FaultKind::InputShift { sd, .. } = fault.kind {
                    assert!((0.8..=1.0).contains(&sd.abs()));
                }
            }
        }
    }
}
