//! What one record adds to a step.

use std::sync::Arc;

use driftline_log::runner::StageError;
use driftline_log::{Output, Record};
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::packed::{PackedFrame, PackedRecord};
use driftline_schemas::profile::ProfileKey;
use driftline_schemas::profile::groups::ProfileGroups;
use driftline_schemas::topic;

use super::plan::ProfilePlan;
use super::rows::{Age, Counted, Keys, signal_columns};
use super::{DAMAGED, PartitionStep, PlanKey, Planned, ProfileStage, RUN_BYTES_MAX, RUN_ROWS_MIN};

impl ProfileStage {
    /// Adds the rows of a record to the jobs of their layouts.
    pub(super) fn rows(
        &mut self,
        packed: &PackedRecord,
        counted: &[bool],
        record: &Record,
        step: &mut PartitionStep,
    ) -> Result<(), StageError> {
        for (variant, mine) in by_variant(&packed.frames, counted) {
            let Some(how) = self.how(packed, &variant)? else {
                let rows = packed.frames.iter().zip(&mine);
                let rows = rows
                    .filter(|(_, mine)| **mine)
                    .map(|(f, _)| u64::from(f.rows));
                self.stats.rows_without_bundle.inc_by(rows.sum());
                continue;
            };
            let key = self.planned(&how, packed)?;
            let keys = Keys::of(
                packed,
                &mine,
                &self.config,
                &mut step.cells,
                &self.limits,
                &mut step.ages,
            );
            let (Some(keys), Some(planned)) = (keys, self.plans.get(&key)) else {
                self.stats.records_damaged.inc();
                let problem = "it has no event times, or frames beyond its rows";
                let tenant = &packed.head.tenant;
                let letter = letter(tenant, "", DAMAGED, problem, record, self.letters);
                step.letters.push(letter);
                return Ok(());
            };
            if keys.counted() == 0 {
                continue;
            }
            let batch = keys
                .batch(
                    planned.plan.schema(),
                    packed,
                    &planned.columns,
                    planned.together.as_ref(),
                )
                .map_err(|error| StageError::Fatal(format!("columns of a record: {error}")))?;
            let head = &packed.head;
            let job = (
                Arc::clone(&head.tenant),
                Arc::clone(&head.model),
                Arc::clone(&head.version),
                key,
            );
            step.jobs.entry(job).or_default().batches.push(batch);
        }
        Ok(())
    }

    /// Passes on the profiles that devices made.
    pub(super) fn device_profiles(
        &mut self,
        packed: &PackedRecord,
        counted: &[bool],
        record: &Record,
        step: &mut PartitionStep,
    ) -> Result<(), StageError> {
        for profile in &packed.profiles {
            let at = profile.frame as usize;
            let (Some(frame), Some(true)) = (packed.frames.get(at), counted.get(at)) else {
                continue;
            };
            let head = &packed.head;
            let decoded = profile.profile();
            let how = self.how_of(
                &head.tenant,
                &head.model,
                &profile.version,
                &frame.origin.variant,
            )?;
            let start = profile.pane_start_us;
            let aligned =
                profile.pane_length_us > 0 && start.rem_euclid(profile.pane_length_us) == 0;
            let decoded = match (decoded, how) {
                (Ok(decoded), Some(how)) if aligned && decoded.fits(&how.layout) => decoded,
                _ => {
                    self.stats.device_profiles_unfit.inc();
                    let problem = format!(
                        "profile of {}@{} does not fit the registered layout or its pane: give the device the registered bundle",
                        head.model, profile.version
                    );
                    let device = &frame.origin.device;
                    let letter = letter(
                        &head.tenant,
                        device,
                        "profile_unfit",
                        &problem,
                        record,
                        self.letters,
                    );
                    step.letters.push(letter);
                    continue;
                }
            };
            let end = start.saturating_add(profile.pane_length_us);
            let age = match Age::of(&self.config, frame.head.received_at_us, start) {
                Age::Future => Age::Future,
                // It is complete, and so has an age, when its pane is over.
                _ => Age::of(&self.config, frame.head.received_at_us.max(end), end),
            };
            step.ages.add(age, decoded.rows);
            if !age.counts() {
                continue;
            }
            self.stats.device_profiles.inc();
            let key = ProfileKey {
                tenant: Arc::clone(&head.tenant),
                model: Arc::clone(&head.model),
                version: Arc::clone(&profile.version),
                pane_start_us: start,
                pane_length_us: profile.pane_length_us,
                cell: self.limits.cell(&frame.origin),
            };
            let to = topic::model_partition(&head.tenant, &head.model, self.outputs);
            step.writer.add(to, &key, &profile.bytes);
        }
        Ok(())
    }

    fn how(
        &mut self,
        packed: &PackedRecord,
        variant: &Arc<str>,
    ) -> Result<Option<Counted>, StageError> {
        let head = &packed.head;
        self.how_of(&head.tenant, &head.model, &head.version, variant)
    }

    fn how_of(
        &mut self,
        tenant: &Arc<str>,
        model: &Arc<str>,
        version: &Arc<str>,
        variant: &Arc<str>,
    ) -> Result<Option<Counted>, StageError> {
        let key = [tenant, model, version, variant].map(Arc::clone);
        if let Some(how) = self.layouts.get(&key) {
            return Ok(Some(how.clone()));
        }
        let Some(bundle) = self.bundles.bundle(tenant, model, version, variant)? else {
            return Ok(None);
        };
        // A version never changes what it is, so its layout can be kept.
        let how = Counted::of(&bundle);
        self.layouts.insert(key, how.clone());
        Ok(Some(how))
    }

    /// Makes sure that there is a plan for how rows are counted and a record's columns.
    fn planned(&mut self, how: &Counted, packed: &PackedRecord) -> Result<PlanKey, StageError> {
        let key = (how.digest, packed.head.fingerprint);
        if self.plans.contains_key(&key) {
            return Ok(key);
        }
        let layout = &how.layout;
        let (mut signals, columns) = signal_columns(layout, &packed.batch);
        let together = how.together(&packed.batch);
        signals.extend(together.as_ref().map(|together| together.signal));
        let plan = ProfilePlan::new(Arc::clone(layout), &signals).map_err(|error| {
            StageError::Fatal(format!("aggregation cannot be planned: {error}"))
        })?;
        let run_rows = RUN_BYTES_MAX / ProfileGroups::group_bytes(layout).max(1);
        let planned = Planned {
            plan,
            columns,
            together,
            run_rows: run_rows.max(RUN_ROWS_MIN),
        };
        self.plans.insert(key, planned);
        Ok(key)
    }
}

/// The variants of a record's frames, each with those of its frames that are counted.
fn by_variant(frames: &[PackedFrame], counted: &[bool]) -> Vec<(Arc<str>, Vec<bool>)> {
    let mut variants: Vec<Arc<str>> = Vec::new();
    for (frame, counted) in frames.iter().zip(counted) {
        if *counted && !variants.contains(&frame.origin.variant) {
            variants.push(Arc::clone(&frame.origin.variant));
        }
    }
    if variants.len() == 1 && counted.iter().all(|counted| *counted) {
        return variants
            .into_iter()
            .map(|variant| (variant, counted.to_vec()))
            .collect();
    }
    variants
        .into_iter()
        .map(|variant| {
            let mine = frames.iter().zip(counted);
            let mine = mine.map(|(frame, counted)| *counted && frame.origin.variant == variant);
            let mine = mine.collect();
            (variant, mine)
        })
        .collect()
}

pub(super) fn letter(
    tenant: &str,
    device: &str,
    reason: &str,
    problem: &str,
    record: &Record,
    partitions: u32,
) -> Output {
    let detail = format!(
        "{}/{}@{}: {problem}",
        record.topic, record.partition, record.offset
    );
    let at_us = record.timestamp_us;
    Output {
        topic: topic::DEADLETTERS.into(),
        partition: record.partition % partitions.max(1),
        key: Vec::new(),
        value: Some(DeadLetter::new(tenant, device, reason, &detail, &[], at_us).encode()),
        timestamp_us: at_us.max(0),
    }
}
