//! The profile stage: rows of inferences become partial profiles per (model version, pane, cell).
//!
//! A step decodes the packed records that it read, drops frames that were sent again
//! ([`crate::once`]), leaves out rows that are too old, aggregates the rest with DataFusion
//! ([`plan`], [`function`]), and appends the profiles to the partition of their model, together with
//! its offsets. Between steps it keeps which frames were counted and how far time has come, nothing
//! else. Profiles merge exactly, so what comes out in the end depends neither on how the log was cut
//! into steps nor on the order in which it was written.
//!
//! **Time.** The watermark of an input partition is the latest receipt stamped in its records. It
//! goes out with every profile, and by itself to *every* partition of the profiles topic when it
//! has moved by a step; when everything is read, it follows the clock at a distance. It only says
//! when to judge. Whether a row counts is decided from what its record says.
//!
//! # Layout of this module
//!
//! - here: [`ProfileStage`], the step
//! - [`config`]: its configuration
//! - [`stats`]: what it counts
//! - [`cells`]: base cells as numbers, and the bound on attribute values
//! - [`function`]: the aggregate function `profile(…)`, for SQL as well
//! - [`plan`]: the aggregation of a model version, planned once
//! - `intake` (private): what one record adds to a step
//! - `rows` (private): from records to the columns that are aggregated
//! - `output` (private): records of the profiles topic

pub mod cells;
pub mod config;
pub mod function;
mod intake;
pub(crate) mod output;
pub mod plan;
pub(crate) mod rows;
pub mod stats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use driftline_log::runner::{Offsets, Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Log, Output, Record, StageSpec, StateDelta};
use driftline_schemas::packed::{PackedFrame, PackedRecord, SchemaCache};
use driftline_schemas::profile::ProfileKey;
use driftline_schemas::rows::Kind;
use driftline_schemas::topic;

use crate::bundles::Bundles;
use crate::once::{FrameId, Once, Verdict};
use cells::{AttributeLimits, Cells};
pub use config::ProfileConfig;
use intake::letter;
use output::{Writer, watermark_only};
use plan::ProfilePlan;
use rows::{Counted, Together};
use stats::Ages;
pub use stats::ProfileStats;

/// Name of the stage and its consumer group.
pub const STAGE: &str = "profile";
/// Bytes that the groups of one run may take if every row were a group of its own; the rows of a
/// step are cut accordingly. A model of 500 signals has 50 KiB a group.
const RUN_BYTES_MAX: usize = 256 << 20;
/// Least rows of a run, whatever a group takes.
const RUN_ROWS_MIN: usize = 4_096;
/// Layouts and plans kept, one per model version in use; when there are more after a step, all are
/// made again.
const PLANS_MAX: usize = 256;
/// Reason of dead letters for records that cannot be read.
const DAMAGED: &str = "record_damaged";
/// Key of the state that holds the watermark and the one told last.
const WATERMARK_KEY: &[u8] = b"watermark";

/// What is kept of one input partition.
#[derive(Debug, Default)]
struct Partition {
    once: Once,
    /// Latest receipt, or the clock when everything was read.
    watermark_us: Option<i64>,
    /// The watermark that every output partition was told last.
    told_us: Option<i64>,
}

/// A layout's plan, and where its columns are in records of a fingerprint.
#[derive(Debug)]
struct Planned {
    plan: ProfilePlan,
    /// Indices of the signals' columns in the record's batch.
    columns: Vec<usize>,
    /// The signal that has no column of its own, where the bundle has one.
    together: Option<Together>,
    /// Rows of one run at most.
    run_rows: usize,
}

/// (what is counted and how, fingerprint of the rows).
type PlanKey = (u64, u32);
/// (tenant, model, version, plan).
type JobKey = (Arc<str>, Arc<str>, Arc<str>, PlanKey);

/// Batches of one model version and layout, of one input partition.
#[derive(Debug, Default)]
struct Job {
    batches: Vec<RecordBatch>,
}

/// The stage. Its member must be given [`ProfileStage::spec`].
pub struct ProfileStage {
    config: ProfileConfig,
    bundles: Arc<dyn Bundles>,
    stats: ProfileStats,
    /// Partitions of the profiles topic.
    outputs: u32,
    /// Partitions of the dead letters' topic.
    letters: u32,
    partitions: BTreeMap<u32, Partition>,
    limits: AttributeLimits,
    /// By tenant, model, version and variant.
    layouts: HashMap<[Arc<str>; 4], Counted>,
    plans: HashMap<PlanKey, Planned>,
    schemas: SchemaCache,
}

impl std::fmt::Debug for ProfileStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileStage")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ProfileStage {
    /// A stage that has nothing assigned yet. The topics must exist.
    ///
    /// # Errors
    /// [`StageError::Fatal`] when the configuration is wrong or a topic is missing.
    pub fn new(
        config: ProfileConfig,
        log: &dyn Log,
        bundles: Arc<dyn Bundles>,
        stats: ProfileStats,
    ) -> Result<Self, StageError> {
        config
            .check()
            .map_err(|problem| StageError::Fatal(format!("configuration of profile, {problem}")))?;
        let partitions = |topic| {
            log.partitions(topic)
                .map_err(|error| StageError::Fatal(error.to_string()))
        };
        Ok(Self {
            config,
            bundles,
            stats,
            outputs: partitions(topic::PROFILES)?,
            letters: partitions(topic::DEADLETTERS)?,
            partitions: BTreeMap::new(),
            limits: AttributeLimits::default(),
            layouts: HashMap::new(),
            plans: HashMap::new(),
            schemas: SchemaCache::default(),
        })
    }

    /// Who reads what.
    pub fn spec() -> StageSpec {
        StageSpec::new(STAGE, &[topic::INFERENCES])
    }

    fn records(&mut self, at: u32, records: &[&Record]) -> Result<Vec<Output>, StageError> {
        let mut step = PartitionStep {
            cells: Cells::default(),
            jobs: BTreeMap::new(),
            writer: Writer::new(at),
            ages: Ages::default(),
            letters: Vec::new(),
        };
        let before_us = self.watermark_us(at);
        for record in records {
            self.record(at, record, &mut step)?;
        }
        let PartitionStep {
            cells,
            jobs,
            mut writer,
            ages,
            letters,
        } = step;
        self.stats.count_ages(ages);
        for ((tenant, model, version, plan), job) in jobs {
            let planned = self.plans.get_mut(&plan).ok_or_else(|| {
                StageError::Fatal("the plan of a job is gone: this is an error in driftline".into())
            })?;
            let to = topic::model_partition(&tenant, &model, self.outputs);
            for batches in cut(job.batches, planned.run_rows) {
                let groups = planned
                    .plan
                    .run(batches)
                    .map_err(|error| StageError::Retry(format!("aggregation failed: {error}")))?;
                for group in groups {
                    let cell = cells.get(group.cell).ok_or_else(|| {
                        StageError::Fatal("the aggregation gave a cell that is not there".into())
                    })?;
                    let key = ProfileKey {
                        tenant: Arc::clone(&tenant),
                        model: Arc::clone(&model),
                        version: Arc::clone(&version),
                        pane_start_us: group.pane_us,
                        pane_length_us: self.config.pane.us(),
                        cell: cell.clone(),
                    };
                    writer.add(to, &key, &group.profile);
                }
            }
        }
        self.stats.profiles.inc_by(writer.cells());
        let timestamp_us = records.last().map_or(0, |record| record.timestamp_us);
        let mut outputs = writer.finish(before_us, self.watermark_us(at), timestamp_us);
        outputs.extend(letters);
        Ok(outputs)
    }

    /// How far an input partition has come, as it is written.
    fn watermark_us(&self, at: u32) -> i64 {
        let partition = self.partitions.get(&at);
        let watermark_us = partition.and_then(|partition| partition.watermark_us);
        watermark_us.unwrap_or(i64::MIN)
    }

    fn record(
        &mut self,
        at: u32,
        record: &Record,
        step: &mut PartitionStep,
    ) -> Result<(), StageError> {
        let partition = self.partitions.entry(at).or_default();
        partition.once.advance(record.offset);
        let Some(value) = &record.value else {
            return Ok(());
        };
        let packed = match PackedRecord::decode(value.clone(), &self.schemas) {
            Ok(packed) => packed,
            Err(error) => {
                self.stats.records_damaged.inc();
                let problem = error.to_string();
                let letter = letter("", "", DAMAGED, &problem, record, self.letters);
                step.letters.push(letter);
                return Ok(());
            }
        };
        let mut counted = Vec::with_capacity(packed.frames.len());
        for frame in &packed.frames {
            let received_us = frame.head.received_at_us;
            partition.watermark_us = partition.watermark_us.max(Some(received_us));
            let verdict = admit(&mut partition.once, record.offset, packed.head.kind, frame);
            self.stats.count_frame(verdict);
            counted.push(verdict == Verdict::New);
        }
        self.limits.refresh(&*self.bundles, record.timestamp_us);
        match packed.head.kind {
            Kind::Inferences => self.rows(&packed, &counted, record, step),
            Kind::Profiles => self.device_profiles(&packed, &counted, record, step),
            Kind::Outcomes | Kind::Health | Kind::Events => Ok(()),
        }
    }
}

/// What one step collects from one input partition.
struct PartitionStep {
    cells: Cells,
    jobs: BTreeMap<JobKey, Job>,
    writer: Writer,
    ages: Ages,
    letters: Vec<Output>,
}

impl Stage for ProfileStage {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let once = Once::restore(&assignment.state)
            .map_err(|error| StageError::Fatal(format!("stage {STAGE}: {error}")))?;
        let times = assignment.state.get(WATERMARK_KEY).map(Vec::as_slice);
        let [watermark_us, told_us] = decode_times(times);
        let partition = Partition {
            once,
            watermark_us,
            told_us,
        };
        self.partitions.insert(assignment.partition, partition);
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut by_partition: BTreeMap<u32, Vec<&Record>> = BTreeMap::new();
        for record in input.records {
            by_partition
                .entry(record.partition)
                .or_default()
                .push(record);
        }
        let mut out = StepOutput {
            offsets: Offsets::Read,
            ..StepOutput::default()
        };
        let before: BTreeMap<u32, [Option<i64>; 2]> = self
            .partitions
            .iter()
            .map(|(at, partition)| (*at, [partition.watermark_us, partition.told_us]))
            .collect();
        for (at, records) in by_partition {
            out.outputs.extend(self.records(at, &records)?);
        }
        if self.plans.len() > PLANS_MAX || self.layouts.len() > PLANS_MAX {
            self.plans.clear();
            self.layouts.clear();
        }
        let step_us = self.config.watermark_step.us();
        for (&at, partition) in &mut self.partitions {
            let due = |watermark_us: i64| {
                let told_us = partition.told_us;
                told_us.is_none_or(|told| watermark_us.saturating_sub(told) >= step_us)
            };
            if input.caught_up && input.records.is_empty() {
                let idle_us = input.now_us.saturating_sub(self.config.idle_slack.us());
                if due(idle_us) {
                    partition.watermark_us = partition.watermark_us.max(Some(idle_us));
                }
            }
            if let Some(watermark_us) = partition.watermark_us.filter(|at| due(*at)) {
                partition.told_us = Some(watermark_us);
                let told = watermark_only(at, watermark_us, self.outputs, input.now_us);
                out.outputs.extend(told);
            }
            let delta = |(key, value)| StateDelta {
                partition: at,
                key,
                value,
            };
            out.state
                .extend(partition.once.deltas().into_iter().map(delta));
            let times = [partition.watermark_us, partition.told_us];
            if before.get(&at) != Some(&times) {
                out.state
                    .push(delta((WATERMARK_KEY.to_vec(), Some(encode_times(times)))));
            }
        }
        Ok(out)
    }
}

fn admit(once: &mut Once, offset: u64, kind: Kind, frame: &PackedFrame) -> Verdict {
    once.admit(offset, FrameId::of(kind, frame))
}

/// Cuts batches into runs of at most `rows` rows (or one batch).
fn cut(batches: Vec<RecordBatch>, rows: usize) -> Vec<Vec<RecordBatch>> {
    let mut runs: Vec<Vec<RecordBatch>> = Vec::new();
    let mut left = 0;
    for batch in batches {
        let of_batch = batch.num_rows();
        match runs.last_mut() {
            Some(run) if of_batch <= left => {
                left -= of_batch;
                run.push(batch);
            }
            _ => {
                left = rows.saturating_sub(of_batch);
                runs.push(vec![batch]);
            }
        }
    }
    runs
}

/// Two times, big-endian, the smallest number for none.
fn encode_times(times: [Option<i64>; 2]) -> Vec<u8> {
    let bytes = times.map(|time| time.unwrap_or(i64::MIN).to_be_bytes());
    bytes.concat()
}

fn decode_times(bytes: Option<&[u8]>) -> [Option<i64>; 2] {
    let time = |at: usize| {
        let bytes = bytes?.get(at..at + 8)?.try_into().ok()?;
        Some(i64::from_be_bytes(bytes)).filter(|time| *time != i64::MIN)
    };
    [time(0), time(8)]
}
