//! The labels stage: ground truth, joined with the inference that it is the truth of, becomes
//! profiles of the `error` signal.
//!
//! Labels come late and name an inference; the inference lies in the lake. A label waits in state
//! until the archive has passed the end that the inferences' partition had when the label came:
//! then the inference is in the lake if it was sent before its label. Many labels are looked for at
//! once. What is not found is looked for again, more and more seldom, as devices come back with
//! their backlog; after [`LabelsConfig::wait_max`] it is a dead letter.
//!
//! The error goes to the pane, cell, model and version *of the inference*, as a partial profile in
//! which only the `error` signal has rows. It says nothing about time (its watermark is the smallest
//! number there is), since when labels come says nothing about when devices report.
//!
//! The first label of an inference counts, in the order of the log; later ones are counted as
//! duplicates. That holds within a partition of the outcomes, which is to say for labels of one
//! sender: two probes that both label one inference, and are in different partitions, count both.
//!
//! # Layout of this module
//!
//! - here: [`LabelsStage`], the step
//! - [`config`]: its configuration
//! - [`stats`]: what it counts
//! - `pending` (private): what waits, in state
//! - `look` (private): looking for what waits, and counting errors
//! - `lookup` (private): finding inferences in the lake
//! - `join` (private): from a label and its inference to an error

pub mod config;
mod join;
mod look;
mod lookup;
mod pending;
pub mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use driftline_log::runner::{Offsets, Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Log, Record, StageSpec};
use driftline_schemas::clock::Clock;
use driftline_schemas::packed::{PackedRecord, SchemaCache};
use driftline_schemas::rows::Kind;
use driftline_schemas::source::{device_hash, inference_time_us};
use driftline_schemas::topic;

use crate::bundles::Bundles;
use crate::once::{FrameId, Once, Verdict};
use crate::profile::ProfileConfig;
use crate::profile::cells::AttributeLimits;
pub use config::LabelsConfig;
use driftline_lake::runtime::StoreRuntime;
use driftline_lake::{Lake, LakeTable};
use pending::{Pending, Waiting};
pub use stats::LabelsStats;

/// Name of the stage and its consumer group.
pub const STAGE: &str = "labels";
#[derive(Debug, Default)]
struct Partition {
    once: Once,
    waiting: Waiting,
}

/// The stage. Its member must be given [`LabelsStage::spec`].
pub struct LabelsStage {
    config: LabelsConfig,
    profile: ProfileConfig,
    lake: Lake,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    bundles: Arc<dyn Bundles>,
    stats: LabelsStats,
    runtime: StoreRuntime,
    table: Option<LakeTable>,
    limits: AttributeLimits,
    schemas: SchemaCache,
    partitions: BTreeMap<u32, Partition>,
    /// Partitions of the inferences, the profiles and the dead letters.
    inferences: u32,
    outputs: u32,
    letters: u32,
    /// When the lake was looked into last: on the wall, as a simulation's clock may stand still
    /// while labels wait, and on the injected clock.
    looked_at: Option<(Instant, i64)>,
}

impl std::fmt::Debug for LabelsStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LabelsStage")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl LabelsStage {
    /// A stage that has nothing assigned yet. `profile` is the profile stage's configuration: panes
    /// and ages must be the same. It has a thread of its own for the store.
    ///
    /// # Errors
    /// [`StageError::Fatal`] when a configuration is wrong, a topic is missing, or no thread can be
    /// started.
    pub fn new(
        config: LabelsConfig,
        profile: ProfileConfig,
        lake: Lake,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        bundles: Arc<dyn Bundles>,
        stats: LabelsStats,
    ) -> Result<Self, StageError> {
        let fatal = |problem: String| StageError::Fatal(format!("stage {STAGE}: {problem}"));
        config
            .check(&profile)
            .map_err(|problem| fatal(format!("configuration of labels, {problem}")))?;
        let partitions = |topic| {
            log.partitions(topic)
                .map_err(|error| fatal(error.to_string()))
        };
        let (inferences, outputs) = (partitions(topic::INFERENCES)?, partitions(topic::PROFILES)?);
        let letters = partitions(topic::DEADLETTERS)?;
        let runtime = StoreRuntime::start("labels-store", 1)
            .map_err(|error| fatal(format!("no thread for the store: {error}")))?;
        Ok(Self {
            config,
            profile,
            lake,
            log,
            clock,
            bundles,
            stats,
            runtime,
            table: None,
            limits: AttributeLimits::default(),
            schemas: SchemaCache::default(),
            partitions: BTreeMap::new(),
            inferences,
            outputs,
            letters,
            looked_at: None,
        })
    }

    /// Who reads what.
    pub fn spec() -> StageSpec {
        StageSpec::new(STAGE, &[topic::OUTCOMES])
    }

    /// Takes in the labels of one record. `ends` has the ends of the inferences' partitions, as of
    /// this step.
    fn record(&mut self, record: &Record, ends: &mut BTreeMap<u32, u64>) -> Result<(), StageError> {
        let Some(partition) = self.partitions.get_mut(&record.partition) else {
            return Ok(());
        };
        partition.once.advance(record.offset);
        let Some(value) = &record.value else {
            return Ok(());
        };
        let Ok(packed) = PackedRecord::decode(value.clone(), &self.schemas) else {
            // The archive reads it too, and tells.
            self.stats.records_damaged.inc();
            return Ok(());
        };
        let column = |name| packed.batch.column_by_name(name);
        let ids = column("inference_id").and_then(|ids| ids.as_fixed_size_binary_opt());
        let truths = column("truth").and_then(|truths| truths.as_primitive_opt::<Int32Type>());
        let devices = column("device").and_then(|devices| devices.as_string_opt::<i32>());
        let (Kind::Outcomes, Some(ids), Some(truths)) = (packed.head.kind, ids, truths) else {
            self.stats.records_damaged.inc();
            return Ok(());
        };
        for frame in &packed.frames {
            let id = FrameId::of(packed.head.kind, frame);
            if partition.once.admit(record.offset, id) != Verdict::New {
                continue;
            }
            let first = frame.first_row as usize;
            for row in first..first + frame.rows as usize {
                let Ok(bytes) = <[u8; 16]>::try_from(ids.value(row)) else {
                    continue;
                };
                if truths.is_null(row) {
                    self.stats.empty.inc();
                    continue;
                }
                let id = u128::from_be_bytes(bytes);
                let received_at_us = frame.head.received_at_us;
                let age_us = received_at_us.saturating_sub(inference_time_us(id));
                if age_us > self.config.max_age.us() {
                    self.stats.too_old.inc();
                    continue;
                }
                let device = match devices {
                    Some(devices) if devices.is_valid(row) => devices.value(row),
                    _ => &frame.origin.device,
                };
                let hash = device_hash(&packed.head.tenant, device);
                let at = topic::device_partition(hash, self.inferences);
                let end = match ends.get(&at) {
                    Some(end) => *end,
                    None => {
                        let range = self.log.range(topic::INFERENCES, at);
                        let (_, end) =
                            range.map_err(|error| StageError::Retry(error.to_string()))?;
                        ends.insert(at, end);
                        end
                    }
                };
                let is_first = partition.waiting.add(Pending {
                    id,
                    truth: truths.value(row),
                    tenant: Arc::clone(&packed.head.tenant),
                    device: Arc::clone(&frame.origin.device),
                    partition: at,
                    end,
                    received_at_us,
                    looks: 0,
                    not_before_us: 0,
                });
                if !is_first {
                    self.stats.duplicates.inc();
                }
            }
        }
        Ok(())
    }
}

impl Stage for LabelsStage {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let fatal = |problem: String| StageError::Fatal(format!("stage {STAGE}: {problem}"));
        let once = Once::restore(&assignment.state).map_err(|error| fatal(error.to_string()))?;
        let waiting = Waiting::restore(&assignment.state).ok_or_else(|| {
            fatal(format!(
                "the labels that wait in partition {} cannot be read; forget the stage and let it \
                 read its topic again",
                assignment.partition
            ))
        })?;
        self.partitions
            .insert(assignment.partition, Partition { once, waiting });
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut out = StepOutput {
            offsets: Offsets::Read,
            ..StepOutput::default()
        };
        let mut ends = BTreeMap::new();
        for record in input.records {
            self.record(record, &mut ends)?;
        }
        let every = self.config.look_every.duration();
        let may_look = self.looked_at.is_none_or(|(real, at_us)| {
            real.elapsed() >= every || self.clock.real(input.now_us - at_us) >= every
        });
        let waiting = |partition: &Partition| !partition.waiting.is_empty();
        if may_look && self.partitions.values().any(waiting) {
            self.look(input.now_us, &mut out)?;
        }
        let max = self.config.pending_max;
        let mut overflow = Vec::new();
        for (at, partition) in &mut self.partitions {
            let over = partition.waiting.overflow(max).into_iter();
            overflow.extend(over.map(|pending| (*at, pending)));
        }
        for (at, pending) in overflow {
            self.stats.overflowed.inc();
            let detail = "too many labels wait for their inferences";
            out.outputs
                .push(self.letter(at, &pending, "label_overflow", detail, input.now_us));
        }
        for (at, partition) in &mut self.partitions {
            out.state.extend(partition.waiting.deltas(*at));
            let deltas = partition.once.deltas().into_iter();
            out.state
                .extend(deltas.map(|(key, value)| driftline_log::StateDelta {
                    partition: *at,
                    key,
                    value,
                }));
        }
        Ok(out)
    }
}
