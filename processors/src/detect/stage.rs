//! The step of the stage, and its state as it comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftline_log::runner::{Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Log, Output, Record, StageSpec, StateDelta};
use driftline_schemas::clock::{DAY_US, SECOND_US};
use driftline_schemas::profile::Profile;
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::profile::cell::pane_start_us;
use driftline_schemas::profile::codec::Reader;
use driftline_schemas::registry::ReferenceRecord;
use driftline_schemas::topic;

use super::model::{Configs, Model, Told};
use super::state::{CellKey, Key, ModelId, delta, value};
use super::subject::{Subject, Subjects};
use super::{DetectConfig, DetectStats, STAGE};
use crate::bundles::Bundles;

/// How often the registry is asked for promoted references, on the injected clock: a step must not wait
/// for a broker each time.
const LOOK_EVERY_US: i64 = 10 * SECOND_US;

mod restore;

use restore::Saved;

/// One partition of the profiles topic.
#[derive(Debug, Default)]
struct Partition {
    configs: Configs,
    /// How far each partition of the inferences topic has come.
    watermarks: BTreeMap<u32, i64>,
    models: BTreeMap<ModelId, Model>,
    saved: Saved,
}

/// What is known of a model version's bundle.
#[derive(Debug, Clone)]
enum Known {
    /// What it is compared with, and the promotions that say so.
    Subjects(Arc<Subjects>, Vec<ReferenceRecord>),
    /// A calibration or a promoted reference cannot be used; told once.
    Unusable(Vec<ReferenceRecord>),
}

impl Known {
    fn promotions(&self) -> &[ReferenceRecord] {
        match self {
            Self::Subjects(_, promotions) | Self::Unusable(promotions) => promotions,
        }
    }
}

/// The stage. Its member must be given [`DetectStage::spec`].
pub struct DetectStage {
    config: DetectConfig,
    bundles: Arc<dyn Bundles>,
    stats: DetectStats,
    /// Partitions of the inferences topic, whose watermarks are waited for.
    inferences: u32,
    measures: u32,
    findings: u32,
    partitions: BTreeMap<u32, Partition>,
    known: BTreeMap<ModelId, Known>,
    /// State of the registry that the promotions in `known` were compared with, and when it was looked
    /// at, on the injected clock.
    revision: Option<u64>,
    looked_at_us: Option<i64>,
    /// Model versions with other references in force than their windows were judged with.
    promoted: BTreeSet<ModelId>,
    /// Variants of the cells seen, for which the bundle was looked up.
    variants: BTreeMap<ModelId, BTreeSet<Arc<str>>>,
}

impl std::fmt::Debug for DetectStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DetectStage")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl DetectStage {
    /// A stage that has nothing assigned yet. The topics must exist.
    ///
    /// # Errors
    /// [`StageError::Fatal`] when the configuration is wrong or a topic is missing.
    pub fn new(
        config: DetectConfig,
        log: &dyn Log,
        bundles: Arc<dyn Bundles>,
        stats: DetectStats,
    ) -> Result<Self, StageError> {
        config
            .check()
            .map_err(|problem| StageError::Fatal(format!("configuration of detect, {problem}")))?;
        let partitions = |topic| {
            log.partitions(topic)
                .map_err(|error| StageError::Fatal(error.to_string()))
        };
        Ok(Self {
            config,
            bundles,
            stats,
            inferences: partitions(topic::INFERENCES)?,
            measures: partitions(topic::MEASURES)?,
            findings: partitions(topic::FINDINGS)?,
            partitions: BTreeMap::new(),
            known: BTreeMap::new(),
            revision: None,
            looked_at_us: None,
            promoted: BTreeSet::new(),
            variants: BTreeMap::new(),
        })
    }

    /// What it counts.
    pub fn stats(&self) -> &DetectStats {
        &self.stats
    }

    /// How the stage joins its group.
    pub fn spec() -> StageSpec {
        StageSpec::new(STAGE, &[topic::PROFILES])
    }

    /// Puts the configuration in force if it is not yet: for everything when there was none, else
    /// for windows from the next day on.
    fn configure(&self, partition: u32, state: &mut Partition, out: &mut Vec<StateDelta>) {
        let digest = self.config.digest();
        let last = state.configs.0.last_key_value();
        if last.is_some_and(|(_, config)| config.1 == digest) {
            return;
        }
        let from_us = match last {
            None => i64::MIN,
            Some((&before, _)) => {
                let seen = state.models.values().filter_map(Model::last_window).max();
                let seen = seen.max(watermark_us(self.inferences, state).into());
                match seen {
                    Some(at) if at > i64::MIN => pane_start_us(at, DAY_US) + DAY_US,
                    _ => before,
                }
            }
        };
        out.push(delta(partition, &Key::Config(from_us), Some(&self.config)));
        let config = Arc::new((self.config.clone(), digest));
        state.configs.0.insert(from_us, config);
    }

    /// Merges a record. Returns the cell-windows that changed.
    fn take_in(
        &mut self,
        record: &Record,
        state: &mut Partition,
        changed: &mut BTreeSet<(ModelId, i64, CellKey)>,
        out: &mut Vec<StateDelta>,
    ) {
        let Some(bytes) = &record.value else { return };
        let batch = match ProfileBatch::decode(bytes) {
            Ok(batch) => batch,
            Err(error) => {
                self.stats.malformed.inc();
                tracing::error!(
                    partition = record.partition, offset = record.offset, %error,
                    "record of the profiles topic is left out: bring all roles to one version"
                );
                return;
            }
        };
        for part in batch.cells {
            let id = ModelId {
                tenant: Arc::clone(&part.key.tenant),
                model: Arc::clone(&part.key.model),
                version: Arc::clone(&part.key.version),
            };
            let variant = part.key.cell.get("variant").unwrap_or_default();
            let variants = self.variants.entry(id.clone()).or_default();
            if !variants.contains(variant) {
                variants.insert(Arc::from(variant));
                // Another bundle may come first now.
                self.known.remove(&id);
            }
            let model = state
                .models
                .entry(id.clone())
                .or_insert_with(|| Model::new(id.clone(), record.partition));
            match model.merge(&state.configs, part) {
                Some((start_us, key)) => {
                    self.stats.profiles.inc();
                    changed.insert((id, start_us, key));
                }
                None => {
                    self.stats.too_old.inc();
                }
            }
        }
        let before = state.watermarks.get(&batch.input_partition);
        if batch.watermark_us > before.copied().unwrap_or(i64::MIN) {
            state
                .watermarks
                .insert(batch.input_partition, batch.watermark_us);
            let key = Key::Watermark(batch.input_partition);
            out.push(delta(record.partition, &key, Some(&batch.watermark_us)));
        }
    }

    /// What a model version is compared with; `None` when it cannot be had now.
    fn subjects(&mut self, id: &ModelId) -> Result<Option<Arc<Subjects>>, StageError> {
        match self.known.get(id) {
            Some(Known::Subjects(subjects, _)) => return Ok(Some(Arc::clone(subjects))),
            Some(Known::Unusable(_)) => return Ok(None),
            None => {}
        }
        for variant in self.variants.get(id).into_iter().flatten() {
            let bundle = self
                .bundles
                .bundle(&id.tenant, &id.model, &id.version, variant)?;
            let Some(bundle) = bundle else { continue };
            let promotions = self.bundles.promotions(&id.tenant, &id.model, &id.version);
            let mut subjects = Subject::of(&bundle).map(Subjects::new);
            for record in &promotions {
                let Ok(all) = &mut subjects else { break };
                let built = match &record.id {
                    None => None,
                    Some(id) => Some(self.bundles.reference(record, id)?),
                };
                if let Err(error) = all.promote(record.from_us, built) {
                    subjects = Err(error);
                }
            }
            let known = match subjects {
                Ok(subjects) => Known::Subjects(Arc::new(subjects), promotions),
                Err(error) => {
                    tracing::error!(model = %id.model, version = %id.version, %error, "model version is not judged");
                    Known::Unusable(promotions)
                }
            };
            self.known.insert(id.clone(), known.clone());
            return Ok(match known {
                Known::Subjects(subjects, _) => Some(subjects),
                Known::Unusable(_) => None,
            });
        }
        self.stats.unknown_bundle.inc();
        Ok(None)
    }

    /// Forgets what is known of model versions for which other references are in force by now.
    fn look_for_promotions(&mut self, now_us: i64) {
        let due = |at: i64| !(0..LOOK_EVERY_US).contains(&(now_us - at));
        if !self.looked_at_us.is_none_or(due) {
            return;
        }
        self.looked_at_us = Some(now_us);
        let revision = self.bundles.revision();
        if self.revision.replace(revision) == Some(revision) {
            return;
        }
        let bundles = &self.bundles;
        let changed = |(id, known): &(&ModelId, &Known)| {
            bundles.promotions(&id.tenant, &id.model, &id.version) != known.promotions()
        };
        let changed = self.known.iter().filter(changed);
        self.promoted.extend(changed.map(|(id, _)| id.clone()));
        self.known.retain(|id, _| !self.promoted.contains(id));
    }

    fn judge(
        &mut self,
        state: &mut Partition,
        now_us: i64,
        step: &mut StepOutput,
    ) -> Result<(), StageError> {
        let watermark_us = watermark_us(self.inferences, state);
        for (id, model) in &mut state.models {
            if !model.is_due(watermark_us) && !self.promoted.contains(id) {
                continue;
            }
            let Some(subjects) = self.subjects(id)? else {
                tracing::warn!(
                    model = %id.model, version = %id.version,
                    "windows wait to be judged: register the bundle with `driftline model register`"
                );
                continue;
            };
            if let Some(saved) = state.saved.folds.remove(id) {
                model.restore_fold(&saved, &state.configs, &subjects, &self.stats);
            }
            model.compare_with(&subjects);
            self.promoted.remove(id);
            if !model.is_due(watermark_us) {
                continue;
            }
            let told = model.judge(&state.configs, &subjects, watermark_us, &self.stats);
            self.append(id, told, now_us, step);
        }
        Ok(())
    }

    fn append(&self, id: &ModelId, told: Told, now_us: i64, step: &mut StepOutput) {
        let title = format!("{}/{}/{}", id.tenant, id.model, id.version);
        let output = |topic: &str, partitions: u32, key: String, value: Vec<u8>| Output {
            topic: topic.into(),
            partition: topic::model_partition(&id.tenant, &id.model, partitions),
            key: key.into_bytes(),
            value: Some(value),
            timestamp_us: now_us.max(0),
        };
        for (start_us, value) in told.measures {
            let key = format!("{title}/{start_us}");
            step.outputs
                .push(output(topic::MEASURES, self.measures, key, value));
        }
        for finding in told.findings {
            // Strings and numbers always have a JSON form.
            let value = serde_json::to_vec(&finding).unwrap_or_default();
            step.outputs
                .push(output(topic::FINDINGS, self.findings, finding.key, value));
        }
        step.state.extend(told.state);
    }
}

/// Event time up to which all partitions of the inferences topic have come.
fn watermark_us(inferences: u32, state: &Partition) -> i64 {
    (0..inferences)
        .map(|input| state.watermarks.get(&input).copied().unwrap_or(i64::MIN))
        .min()
        .unwrap_or(i64::MIN)
}

impl Stage for DetectStage {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let mut state = Partition::default();
        let (mut cells, mut kept) = (Vec::new(), Vec::new());
        for (key, bytes) in &assignment.state {
            let fatal = StageError::Fatal;
            match value::<Key>(key).map_err(fatal)? {
                Key::Config(from_us) => {
                    let config: DetectConfig = value(bytes).map_err(fatal)?;
                    let digest = config.digest();
                    state.configs.0.insert(from_us, Arc::new((config, digest)));
                }
                Key::Watermark(input) => {
                    state.watermarks.insert(input, value(bytes).map_err(fatal)?);
                }
                Key::Cell(id, start_us, key) => {
                    let profile = Profile::decode(&mut Reader::new(bytes))
                        .map_err(|error| fatal(error.to_string()))?;
                    cells.push((id, start_us, key, profile));
                }
                key => kept.push((key, bytes)),
            }
        }
        let partition = assignment.partition;
        for (id, start_us, key, profile) in cells {
            let variant = Arc::from(key.cell.get("variant").unwrap_or_default());
            self.variants.entry(id.clone()).or_default().insert(variant);
            state
                .models
                .entry(id.clone())
                .or_insert_with(|| Model::new(id, partition))
                .restore_cell(start_us, key, profile);
        }
        for (key, bytes) in kept {
            restore::kept(&mut state, partition, key, bytes).map_err(StageError::Fatal)?;
        }
        let watermark_us = watermark_us(self.inferences, &state);
        for model in state.models.values_mut() {
            model.restore_due(&state.configs, watermark_us);
        }
        self.partitions.insert(partition, state);
        Ok(())
    }

    fn revoked(&mut self, partition: u32) {
        self.partitions.remove(&partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut step = StepOutput::default();
        self.look_for_promotions(input.now_us);
        let mut partitions = std::mem::take(&mut self.partitions);
        let mut failed = Ok(());
        for (&partition, state) in &mut partitions {
            self.configure(partition, state, &mut step.state);
            let mut changed = BTreeSet::new();
            for record in input.records.iter().filter(|r| r.partition == partition) {
                self.take_in(record, state, &mut changed, &mut step.state);
            }
            for (id, start_us, key) in &changed {
                let model = state.models.get(id);
                step.state
                    .extend(model.and_then(|model| model.cell_delta(*start_us, key)));
            }
            failed = failed.and(self.judge(state, input.now_us, &mut step));
        }
        self.partitions = partitions;
        failed.map(|()| step)
    }
}
