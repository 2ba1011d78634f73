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
//! - `lookup` (private): finding inferences in the lake
//! - `join` (private): from a label and its inference to an error

pub mod config;
mod join;
mod lookup;
mod pending;
pub mod stats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use driftline_log::runner::{Offsets, Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Log, Output, Record, StageSpec};
use driftline_schemas::bundle::{Bundle, Task};
use driftline_schemas::clock::{Clock, HOUR_US, MINUTE_US};
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::packed::{PackedRecord, SchemaCache};
use driftline_schemas::profile::binning::Counter;
use driftline_schemas::profile::cell::pane_start_us;
use driftline_schemas::profile::{Cell, ProfileKey};
use driftline_schemas::rows::Kind;
use driftline_schemas::source::{device_hash, inference_id_text, inference_time_us};
use driftline_schemas::topic;
use driftline_schemas::wanted::WantedIds;

use crate::archive;
use crate::bundles::Bundles;
use crate::lake::{Lake, LakeTable};
use crate::once::{FrameId, Once, Verdict};
use crate::profile::ProfileConfig;
use crate::profile::cells::AttributeLimits;
use crate::profile::output::Writer;
use crate::profile::rows::Age;
pub use config::LabelsConfig;
use join::Inference;
use pending::{Pending, Waiting};
pub use stats::LabelsStats;

/// Name of the stage and its consumer group.
pub const STAGE: &str = "labels";
/// Labels looked for at once, of one tenant: enough to make a look worth it, few enough that the
/// rows found fit in memory.
const LOOK_IDS_MAX: usize = 100_000;
/// First pause before a label that was not found is looked for again; doubled each time.
const PAUSE_MIN_US: i64 = MINUTE_US;
/// Longest such pause.
const PAUSE_MAX_US: i64 = HOUR_US;

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
    runtime: tokio::runtime::Runtime,
    table: Option<LakeTable>,
    limits: AttributeLimits,
    schemas: SchemaCache,
    partitions: BTreeMap<u32, Partition>,
    /// Partitions of the inferences, the profiles and the dead letters.
    inferences: u32,
    outputs: u32,
    letters: u32,
    looked_at_us: Option<i64>,
}

impl std::fmt::Debug for LabelsStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LabelsStage")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Errors counted, by input partition, key and layout.
type Counted = BTreeMap<(u32, ProfileKey, u64), Counter>;

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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("labels-store")
            .enable_all()
            .build()
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
            looked_at_us: None,
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
            let id = FrameId {
                device: frame.origin.device_hash(),
                kind: packed.head.kind,
                boot: frame.head.boot,
                sequence: frame.head.sequence,
            };
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

    /// Labels that may be in the lake by now, by tenant: (partition, number) by identity.
    fn due(
        &self,
        now_us: i64,
    ) -> Result<BTreeMap<Arc<str>, HashMap<u128, (u32, u64)>>, StageError> {
        let mut archived: BTreeMap<u32, u64> = BTreeMap::new();
        let mut due: BTreeMap<Arc<str>, HashMap<u128, (u32, u64)>> = BTreeMap::new();
        for (at, partition) in &self.partitions {
            for (number, pending) in partition.waiting.iter() {
                if pending.not_before_us > now_us {
                    continue;
                }
                let passed = match archived.get(&pending.partition) {
                    Some(passed) => *passed,
                    None => {
                        let of = pending.partition;
                        let passed = self.log.committed(archive::STAGE, topic::INFERENCES, of);
                        let passed = passed
                            .map_err(|error| StageError::Retry(error.to_string()))?
                            .unwrap_or(0);
                        archived.insert(of, passed);
                        passed
                    }
                };
                if passed < pending.end {
                    continue;
                }
                let of_tenant = due.entry(Arc::clone(&pending.tenant)).or_default();
                if of_tenant.len() < LOOK_IDS_MAX {
                    of_tenant.insert(pending.id, (*at, number));
                }
            }
        }
        Ok(due)
    }

    /// Looks for what is due, and adds to the step what follows from it.
    fn look(&mut self, now_us: i64, out: &mut StepOutput) -> Result<(), StageError> {
        let due = self.due(now_us)?;
        if due.is_empty() {
            return Ok(());
        }
        self.looked_at_us = Some(now_us);
        self.limits.refresh(&*self.bundles, now_us);
        let mut counted = Counted::new();
        for (tenant, mut places) in due {
            for inference in self.find(&tenant, &places)? {
                let Some((at, number)) = places.remove(&inference.id) else {
                    continue;
                };
                let partition = self.partitions.get_mut(&at);
                let Some(pending) =
                    partition.and_then(|partition| partition.waiting.remove(number))
                else {
                    continue;
                };
                self.count(at, &pending, inference, &mut counted)?;
            }
            for (at, number) in places.into_values() {
                self.not_found(at, number, now_us, out);
            }
        }
        let mut writers: BTreeMap<u32, Writer> = BTreeMap::new();
        for ((at, key, _), counter) in counted {
            let mut bytes = Vec::new();
            counter.finish().encode_to(&mut bytes);
            let to = topic::model_partition(&key.tenant, &key.model, self.outputs);
            let writer = writers.entry(at).or_insert_with(|| Writer::new(at));
            writer.add(to, &key, &bytes);
        }
        for writer in writers.into_values() {
            out.outputs
                .extend(writer.finish(i64::MIN, i64::MIN, now_us));
        }
        Ok(())
    }

    fn find(
        &mut self,
        tenant: &str,
        places: &HashMap<u128, (u32, u64)>,
    ) -> Result<Vec<Inference>, StageError> {
        let wanted = Arc::new(WantedIds::new(places.keys().copied()));
        self.stats.looks.inc();
        let found = self.runtime.block_on(async {
            match &mut self.table {
                Some(table) => table.refresh().await?,
                None => self.table = self.lake.open(topic::INFERENCES).await?,
            }
            match &self.table {
                Some(table) => lookup::inferences(table, tenant, &wanted).await,
                None => Ok(Default::default()),
            }
        });
        let (batches, looked) = found.map_err(|error| {
            self.table = None;
            StageError::Retry(error.to_string())
        })?;
        let found: Vec<Inference> = batches.iter().flat_map(join::inferences).collect();
        tracing::debug!(
            wanted = places.len(),
            found = found.len(),
            files = looked.files,
            opened = looked.opened,
            "looked for labelled inferences"
        );
        Ok(found)
    }

    /// Counts the error of one label.
    fn count(
        &self,
        at: u32,
        pending: &Pending,
        inference: Inference,
        counted: &mut Counted,
    ) -> Result<(), StageError> {
        let Inference {
            event_time_us,
            received_at_us,
            ..
        } = inference;
        if !Age::of(&self.profile, received_at_us, event_time_us).counts() {
            // It is in no profile, so its error must not be in one.
            self.stats.too_old.inc();
            return Ok(());
        }
        let Some(bundle) = self.bundle(pending, &inference)? else {
            self.stats.unmatched.inc();
            return Ok(());
        };
        let layout = &bundle.reference.layout;
        let Some((signal, error_layout)) = layout.signal("error") else {
            return Ok(());
        };
        let task = bundle.manifest.task;
        let resolution = match task {
            Task::Classification => 1.0,
            Task::Regression | Task::Anomaly => error_layout.resolution(),
        };
        let error = join::error(task, resolution, pending.truth, &inference);
        let mut cell: Cell = inference.cell;
        self.limits.fold(&pending.tenant, &mut cell);
        let length_us = self.profile.pane.us();
        let key = ProfileKey {
            tenant: Arc::clone(&pending.tenant),
            model: inference.model.into(),
            version: inference.version.into(),
            pane_start_us: pane_start_us(event_time_us, length_us),
            pane_length_us: length_us,
            cell,
        };
        let counter = counted
            .entry((at, key, layout.digest()))
            .or_insert_with(|| Counter::new(layout));
        counter
            .value(signal, error)
            .map_err(|error| StageError::Fatal(error.to_string()))?;
        self.stats.matched.inc();
        Ok(())
    }

    fn bundle(
        &self,
        pending: &Pending,
        inference: &Inference,
    ) -> Result<Option<Arc<Bundle>>, StageError> {
        let variant = inference.cell.get("variant").unwrap_or("");
        let (model, version) = (&inference.model, &inference.version);
        self.bundles
            .bundle(&pending.tenant, model, version, variant)
    }

    /// A label that was looked for in vain waits on, or is given up.
    fn not_found(&mut self, at: u32, number: u64, now_us: i64, out: &mut StepOutput) {
        let Some(partition) = self.partitions.get_mut(&at) else {
            return;
        };
        let Some(mut pending) = partition.waiting.remove(number) else {
            return;
        };
        if now_us.saturating_sub(pending.received_at_us) > self.config.wait_max.us() {
            self.stats.unmatched.inc();
            let detail = "no inference of this identity came in time";
            out.outputs
                .push(self.letter(at, &pending, "label_unmatched", detail, now_us));
            return;
        }
        let pause_us = PAUSE_MIN_US.saturating_mul(1 << pending.looks.min(16));
        pending.looks = pending.looks.saturating_add(1);
        pending.not_before_us = now_us.saturating_add(pause_us.min(PAUSE_MAX_US));
        partition.waiting.put(number, pending);
    }

    fn letter(
        &self,
        at: u32,
        pending: &Pending,
        reason: &str,
        detail: &str,
        now_us: i64,
    ) -> Output {
        let id = inference_id_text(pending.id);
        let detail = format!("label of inference {id}: {detail}");
        let letter = DeadLetter::new(
            &pending.tenant,
            &pending.device,
            reason,
            &detail,
            id.as_bytes(),
            now_us,
        );
        Output {
            topic: topic::DEADLETTERS.into(),
            partition: at % self.letters.max(1),
            key: Vec::new(),
            value: Some(letter.of_kind(Kind::Outcomes).encode()),
            timestamp_us: now_us.max(0),
        }
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
        let waited = |at_us| self.clock.real(input.now_us - at_us);
        let may_look = self
            .looked_at_us
            .is_none_or(|at_us| waited(at_us) >= self.config.look_every.duration());
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
