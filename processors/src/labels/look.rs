//! Looking for the inferences of the labels that wait, and counting their errors.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use driftline_log::Output;
use driftline_log::runner::{StageError, StepOutput};
use driftline_schemas::bundle::{Bundle, Task};
use driftline_schemas::clock::{HOUR_US, MINUTE_US};
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::profile::binning::Counter;
use driftline_schemas::profile::cell::pane_start_us;
use driftline_schemas::profile::{Cell, ProfileKey};
use driftline_schemas::rows::Kind;
use driftline_schemas::source::inference_id_text;
use driftline_schemas::topic;
use driftline_schemas::wanted::WantedIds;

use super::join::{self, Inference};
use super::pending::Pending;
use super::{LabelsStage, lookup};
use crate::archive;
use crate::profile::output::Writer;
use crate::profile::rows::Age;

/// Labels looked for at once, of one tenant: enough to make a look worth it, few enough that the
/// rows found fit in memory.
const LOOK_IDS_MAX: usize = 100_000;
/// First pause before a label that was not found is looked for again; doubled each time.
const PAUSE_MIN_US: i64 = MINUTE_US;
/// Longest such pause.
const PAUSE_MAX_US: i64 = HOUR_US;

/// Errors counted, by input partition, key and layout.
type Counted = BTreeMap<(u32, ProfileKey, u64), Counter>;
/// Where a label waits: partition and number, by the identity that it waits for.
type Places = HashMap<u128, (u32, u64)>;

impl LabelsStage {
    /// Labels that may be in the lake by now, by tenant: (partition, number) by identity.
    fn due(&self, now_us: i64) -> Result<BTreeMap<Arc<str>, Places>, StageError> {
        let mut archived: BTreeMap<u32, u64> = BTreeMap::new();
        let mut due: BTreeMap<Arc<str>, Places> = BTreeMap::new();
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
    pub(super) fn look(&mut self, now_us: i64, out: &mut StepOutput) -> Result<(), StageError> {
        let due = self.due(now_us)?;
        if due.is_empty() {
            return Ok(());
        }
        self.looked_at = Some((Instant::now(), now_us));
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

    fn find(&mut self, tenant: &str, places: &Places) -> Result<Vec<Inference>, StageError> {
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

    pub(super) fn letter(
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
