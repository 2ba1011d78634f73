//! What is known of one device, and the two judgements. Pure.
//!
//! # Stuck
//!
//! A run of equal quantised values is held against how often the sensor's neighbouring values were
//! equal in its past. With `e` equal of `n` pairs, that probability is at most about
//! `q = (e + 3) / (n + 3)` (the rule of three when none was equal), and a run of `k` pairs has
//! probability `q^k`. A run that has begun is not part of the past it is held against.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_schemas::quantity;
use driftline_schemas::source::Origin;
use serde::{Deserialize, Serialize};

use super::VitalsConfig;

/// Version of [`DeviceState`] as it rests.
const FORMAT: u32 = 1;
/// Pairs after which the past is halved, so that it follows a sensor that changes slowly.
const PAST_MAX: u32 = 20_000;
/// Most sensors of a device that are watched; the features first in the bundle.
pub const SENSORS_MAX: usize = 256;

/// Something to be told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// No frame came for too long.
    Silent {
        /// When the last one came.
        since_us: i64,
    },
    /// A frame came again.
    Heard {
        /// When the last one before it came.
        since_us: i64,
        /// When it came.
        at_us: i64,
    },
    /// A sensor repeats a value.
    Stuck {
        /// Name of the feature.
        sensor: Arc<str>,
        /// The value, in its unit.
        value: f64,
        /// Rows of the run so far.
        rows: u32,
        /// Event time of its first row.
        since_us: i64,
        /// Event time of its last row.
        until_us: i64,
    },
    /// It reads other values again.
    Unstuck {
        /// Name of the feature.
        sensor: Arc<str>,
        /// Event time of the run's first row.
        since_us: i64,
        /// Event time of the first other value.
        at_us: i64,
    },
}

/// One sensor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Sensor {
    last: Option<i32>,
    run: u32,
    run_since_us: i64,
    /// Pairs of neighbouring values in the past, and how many of them were equal.
    pairs: u32,
    equal: u32,
    told: bool,
}

/// One device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceState {
    format: u32,
    origin: Option<Origin>,
    heard_us: i64,
    silent: bool,
    sensors: BTreeMap<Arc<str>, Sensor>,
}

impl DeviceState {
    /// When the gateway received the newest frame, microseconds.
    pub fn heard_us(&self) -> i64 {
        self.heard_us
    }

    /// Who it is, once it was heard.
    pub fn origin(&self) -> Option<Origin> {
        self.origin.clone()
    }

    /// The bytes as they rest.
    pub fn encode(&self) -> Vec<u8> {
        // Strings, numbers and maps of them by name always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When it is of another version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let state: Self = serde_json::from_slice(bytes)?;
        if state.format != FORMAT {
            return Err(serde::de::Error::custom(format!(
                "a device has format {}, this version reads {FORMAT}",
                state.format
            )));
        }
        Ok(state)
    }

    /// A frame came.
    pub fn heard(&mut self, origin: &Origin, received_at_us: i64) -> Option<Told> {
        self.format = FORMAT;
        let since_us = self.heard_us;
        self.origin = Some(origin.clone());
        self.heard_us = self.heard_us.max(received_at_us);
        std::mem::take(&mut self.silent).then_some(Told::Heard {
            since_us,
            at_us: received_at_us,
        })
    }

    /// Whether it has become silent by now. A device that did not say how often it reports is never
    /// silent.
    pub fn silent(&mut self, now_us: i64, config: &VitalsConfig) -> Option<Told> {
        let cadence_us = i64::from(self.origin.as_ref()?.cadence_s) * 1_000_000;
        let patience_us =
            (cadence_us * i64::from(config.missed_reports)).max(config.silent_min.us());
        if self.silent || cadence_us == 0 || now_us - self.heard_us <= patience_us {
            return None;
        }
        self.silent = true;
        Some(Told::Silent {
            since_us: self.heard_us,
        })
    }

    /// A sensor read a value, as quantised; `None` is missing and says nothing.
    pub fn reading(
        &mut self,
        name: &Arc<str>,
        resolution: f64,
        value: Option<i32>,
        at_us: i64,
        config: &VitalsConfig,
    ) -> Option<Told> {
        let value = value.filter(|value| quantity::is_finite(*value))?;
        if !self.sensors.contains_key(name) {
            if self.sensors.len() >= SENSORS_MAX {
                return None;
            }
            self.sensors.insert(Arc::clone(name), Sensor::default());
        }
        let sensor = self.sensors.get_mut(name)?;
        if sensor.last == Some(value) {
            sensor.run += 1;
            let stuck = !sensor.told && sensor.is_stuck(config);
            sensor.told |= stuck;
            return stuck.then(|| Told::Stuck {
                sensor: Arc::clone(name),
                value: quantity::decimal(value, resolution),
                rows: sensor.run + 1,
                since_us: sensor.run_since_us,
                until_us: at_us,
            });
        }
        let unstuck = sensor.told.then(|| Told::Unstuck {
            sensor: Arc::clone(name),
            since_us: sensor.run_since_us,
            at_us,
        });
        sensor.end_run(value, at_us);
        unstuck
    }
}

impl Sensor {
    fn is_stuck(&self, config: &VitalsConfig) -> bool {
        if self.run + 1 < config.stuck_rows_min || self.pairs < config.stuck_past_min {
            return false;
        }
        let repeats = (f64::from(self.equal) + 3.0) / (f64::from(self.pairs) + 3.0);
        f64::from(self.run) * repeats.min(1.0).ln() < config.stuck_probability.ln()
    }

    /// The run becomes part of the past, unless it was told of: then it was no normal one.
    fn end_run(&mut self, value: i32, at_us: i64) {
        if self.last.is_some() && !self.told {
            self.pairs = self.pairs.saturating_add(self.run + 1);
            self.equal = self.equal.saturating_add(self.run);
            if self.pairs > PAST_MAX {
                self.pairs /= 2;
                self.equal /= 2;
            }
        }
        self.last = Some(value);
        self.run = 0;
        self.run_since_us = at_us;
        self.told = false;
    }
}
