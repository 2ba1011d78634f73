//! The vitals stage: each device judged against itself.
//!
//! It reads inferences and finds devices that are silent for longer than they said they would be, and
//! sensors that repeat one value for longer than they ever did. What is normal is the device's own
//! past: a meter that reports daily is not silent after an hour, and a sensor with a coarse resolution
//! repeats values all day.
//!
//! # Layout of this module
//!
//! - here: the stage
//! - [`config`]: what an operator may set
//! - [`device`]: what is known of one device, and the two judgements. Pure
//! - `tell` (private): findings from judgements

pub mod config;
pub mod device;
mod tell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use driftline_log::runner::{Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Log, Record, StageSpec, StateDelta};
use driftline_schemas::bundle::FeatureType;
use driftline_schemas::packed::{PackedFrame, PackedRecord, SchemaCache};
use driftline_schemas::rows::{EVENT_TIME, Kind};
use driftline_schemas::topic;

pub use config::VitalsConfig;
use device::{DeviceState, Told};

use crate::bundles::Bundles;
use crate::once::{FrameId, Once, Verdict};

/// Name of the stage: its consumer group.
pub const STAGE: &str = "vitals";
/// What keys of devices begin with; those of [`Once`] begin otherwise.
const DEVICE_PREFIX: u8 = b'd';
/// Key of the time that a partition has come to.
const TIME_KEY: &[u8] = b"t";
/// Most devices that a partition keeps; beyond it the ones not heard of for longest are forgotten.
/// A device takes about 200 bytes and 60 per numeric feature.
pub const DEVICES_MAX: usize = 1 << 20;

#[derive(Default)]
struct Partition {
    once: Once,
    devices: BTreeMap<u64, DeviceState>,
    /// When the gateway received the newest frame read, microseconds.
    heard_us: i64,
}

/// The stage.
pub struct VitalsStage {
    config: VitalsConfig,
    bundles: Arc<dyn Bundles>,
    findings: u32,
    partitions: BTreeMap<u32, Partition>,
    schemas: SchemaCache,
}

impl VitalsStage {
    /// A stage that has nothing assigned yet. The topics must exist.
    ///
    /// # Errors
    /// [`StageError::Fatal`] when the topic of findings is missing.
    pub fn new(
        config: VitalsConfig,
        log: &dyn Log,
        bundles: Arc<dyn Bundles>,
    ) -> Result<Self, StageError> {
        let findings = log
            .partitions(topic::FINDINGS)
            .map_err(|error| StageError::Fatal(error.to_string()))?;
        Ok(Self {
            config,
            bundles,
            findings,
            partitions: BTreeMap::new(),
            schemas: SchemaCache::default(),
        })
    }

    /// How the stage joins its group.
    pub fn spec() -> StageSpec {
        StageSpec::new(STAGE, &[topic::INFERENCES])
    }

    /// Counts the record's frames that are new, and gives the devices that they came from.
    fn take(&mut self, record: &Record, out: &mut StepOutput) -> Result<BTreeSet<u64>, StageError> {
        let mut touched = BTreeSet::new();
        let Some(value) = &record.value else {
            return Ok(touched);
        };
        let packed = match PackedRecord::decode(value.to_vec(), &self.schemas) {
            Ok(packed) => packed,
            Err(error) => {
                // The profile stage counts it and puts it where it can be read.
                tracing::error!(partition = record.partition, offset = record.offset, %error, "record cannot be read");
                return Ok(touched);
            }
        };
        let partition = self.partitions.entry(record.partition).or_default();
        partition.once.advance(record.offset);
        let mut readings = Readings::of(&packed, &*self.bundles)?;
        for frame in &packed.frames {
            let id = FrameId::of(packed.head.kind, frame);
            partition.heard_us = partition.heard_us.max(frame.head.received_at_us);
            if partition.once.admit(record.offset, id) != Verdict::New {
                continue;
            }
            touched.insert(id.device);
            let state = partition.devices.entry(id.device).or_default();
            let mut told: Vec<Told> = state
                .heard(&frame.origin, frame.head.received_at_us)
                .into_iter()
                .collect();
            told.extend(readings.feed(frame, state, &self.config));
            for told in told {
                let finding = tell::finding(&frame.origin, state, told, partition.heard_us);
                out.outputs
                    .push(tell::output(&finding, self.findings, partition.heard_us));
            }
        }
        Ok(touched)
    }

    /// Devices that have become silent by now.
    fn watch(&mut self, at: u32, now_us: i64, out: &mut StepOutput) -> BTreeSet<u64> {
        let mut touched = BTreeSet::new();
        let Some(partition) = self.partitions.get_mut(&at) else {
            return touched;
        };
        for (hash, state) in &mut partition.devices {
            let Some(told) = state.silent(now_us, &self.config) else {
                continue;
            };
            touched.insert(*hash);
            if let Some(origin) = state.origin() {
                let finding = tell::finding(&origin, state, told, now_us);
                out.outputs
                    .push(tell::output(&finding, self.findings, now_us));
            }
        }
        touched
    }

    fn deltas(&mut self, at: u32, touched: &BTreeSet<u64>, out: &mut StepOutput) {
        let Some(partition) = self.partitions.get_mut(&at) else {
            return;
        };
        let delta = |key: Vec<u8>, value: Option<Vec<u8>>| StateDelta {
            partition: at,
            key,
            value,
        };
        for hash in touched {
            let value = partition.devices.get(hash).map(DeviceState::encode);
            out.state.push(delta(device_key(*hash), value));
        }
        while partition.devices.len() > DEVICES_MAX {
            let oldest = partition
                .devices
                .iter()
                .min_by_key(|(_, state)| state.heard_us())
                .map(|(hash, _)| *hash);
            let Some(oldest) = oldest else { break };
            partition.devices.remove(&oldest);
            out.state.push(delta(device_key(oldest), None));
        }
        let once = partition.once.deltas();
        if !once.is_empty() {
            let time = partition.heard_us.to_le_bytes().to_vec();
            out.state.push(delta(TIME_KEY.to_vec(), Some(time)));
        }
        out.state
            .extend(once.into_iter().map(|(key, value)| delta(key, value)));
    }
}

fn device_key(hash: u64) -> Vec<u8> {
    let mut key = vec![DEVICE_PREFIX];
    key.extend_from_slice(&hash.to_be_bytes());
    key
}

/// Numeric features of a record, by column.
struct Readings<'a> {
    times: Option<&'a [i64]>,
    columns: Vec<(Arc<str>, f64, &'a arrow::array::Int32Array)>,
}

impl<'a> Readings<'a> {
    fn of(packed: &'a PackedRecord, bundles: &dyn Bundles) -> Result<Self, StageError> {
        let mut readings = Self {
            times: None,
            columns: Vec::new(),
        };
        let Some(first) = packed.frames.first() else {
            return Ok(readings);
        };
        if packed.head.kind != Kind::Inferences {
            return Ok(readings);
        }
        let head = &packed.head;
        let Some(bundle) = bundles.bundle(
            &head.tenant,
            &head.model,
            &head.version,
            &first.origin.variant,
        )?
        else {
            return Ok(readings);
        };
        readings.times = packed
            .batch
            .column_by_name(EVENT_TIME)
            .and_then(|column| column.as_primitive_opt::<Int64Type>())
            .map(|column| &column.values()[..]);
        for feature in &bundle.manifest.features {
            let FeatureType::Numeric { resolution, .. } = feature.kind else {
                continue;
            };
            let column = packed.batch.column_by_name(&feature.name);
            if let Some(column) = column.and_then(|column| column.as_primitive_opt::<Int32Type>()) {
                readings
                    .columns
                    .push((feature.name.as_str().into(), resolution, column));
            }
        }
        Ok(readings)
    }

    /// Shows a frame's rows to the device's sensors.
    fn feed(
        &mut self,
        frame: &PackedFrame,
        state: &mut DeviceState,
        config: &VitalsConfig,
    ) -> Vec<Told> {
        let Some(times) = self.times else {
            return Vec::new();
        };
        let rows = frame.first_row as usize..(frame.first_row + frame.rows) as usize;
        let mut told = Vec::new();
        for (name, resolution, column) in &self.columns {
            for row in rows.clone() {
                let value = (!column.is_null(row)).then(|| column.value(row));
                let at_us = times.get(row).copied().unwrap_or(0);
                told.extend(state.reading(name, *resolution, value, at_us, config));
            }
        }
        told
    }
}

impl Stage for VitalsStage {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let fatal = |problem: String| {
            StageError::Fatal(format!(
                "state of vitals, partition {}: {problem}",
                assignment.partition
            ))
        };
        let mut partition = Partition {
            once: Once::restore(&assignment.state).map_err(|error| fatal(error.to_string()))?,
            ..Partition::default()
        };
        for (key, value) in &assignment.state {
            if key == TIME_KEY {
                let bytes = value.as_slice().try_into();
                partition.heard_us = bytes
                    .map(i64::from_le_bytes)
                    .map_err(|_| fatal("time".into()))?;
            } else if let Some((&DEVICE_PREFIX, hash)) = key.split_first() {
                let hash = hash
                    .try_into()
                    .map(u64::from_be_bytes)
                    .map_err(|_| fatal("key".into()))?;
                let state = DeviceState::decode(value).map_err(|error| fatal(error.to_string()))?;
                partition.devices.insert(hash, state);
            }
        }
        self.partitions.insert(assignment.partition, partition);
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut out = StepOutput::default();
        let mut touched: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for record in input.records {
            let devices = self.take(record, &mut out)?;
            touched.entry(record.partition).or_default().extend(devices);
        }
        let held: Vec<u32> = self.partitions.keys().copied().collect();
        for at in held {
            // While there is a backlog to read, only the gateway's time in it says how late it is;
            // the clock would call everybody silent who is in the part not read yet.
            let heard_us = self
                .partitions
                .get(&at)
                .map_or(0, |partition| partition.heard_us);
            let now_us = if input.caught_up {
                input.now_us
            } else {
                heard_us
            };
            let silent = self.watch(at, now_us, &mut out);
            let devices = touched.entry(at).or_default();
            devices.extend(silent);
        }
        for (at, devices) in touched {
            self.deltas(at, &devices, &mut out);
        }
        Ok(out)
    }
}
