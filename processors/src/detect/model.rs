//! Windows of one model version: what is due, what is to be folded again, what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftline_drift::calibrate::SPANS;
use driftline_log::StateDelta;
use driftline_schemas::clock::{DAY_US, HOUR_US};
use driftline_schemas::measure::{CohortMeasures, Finding};
use driftline_schemas::profile::cell::pane_start_us;
use driftline_schemas::profile::{Cell, CellProfile, Profile};

use super::config::DetectConfig;
use super::rollup::{RollUp, roll_up};
use super::state::{CellKey, Judged, Key, ModelId, Said, raw};
use super::stats::DetectStats;
use super::subject::{Subject, Subjects};
use super::window::{Context, Fold, Outcome};

mod saved;
mod say;

pub(super) use saved::SavedFold;

/// One fold in so many windows is kept to go back to. Keeping one costs a copy of all streams; going back, so many windows
/// folded again at most.
const SNAPSHOT_EVERY: i64 = 4;
/// Most rolled-up windows kept.
const ROLLUPS_MAX: usize = 48;
/// Most measures told in one step, so that a step stays well below the largest that the log takes
/// (about 120 bytes each); the rest is told by the next steps.
const MEASURES_PER_STEP_MAX: usize = 40_000;

/// Configurations by the start of the windows that they are in force for.
#[derive(Debug, Clone, Default)]
pub(super) struct Configs(pub(super) BTreeMap<i64, Arc<(DetectConfig, String)>>);

impl Configs {
    /// What is in force for windows that start at a time.
    pub(super) fn at(&self, start_us: i64) -> Option<&Arc<(DetectConfig, String)>> {
        self.0
            .range(..=start_us)
            .next_back()
            .map(|(_, config)| config)
    }
}

/// What a judgement appends.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Starts of windows, with records of all their measures.
    pub(super) measures: Vec<(i64, Vec<u8>)>,
    pub(super) findings: Vec<Finding>,
    pub(super) state: Vec<StateDelta>,
}

/// One model version on one partition.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) id: ModelId,
    partition: u32,
    /// Cells by start of their window.
    windows: BTreeMap<i64, BTreeMap<CellKey, Arc<Profile>>>,
    /// Windows that start before are not judged any more.
    cutoff_us: i64,
    /// The fold before the first window at or after the cut-off.
    base: Fold,
    /// The fold before the window that starts at the key.
    snapshots: BTreeMap<i64, Fold>,
    /// The last window that was folded in, and the fold after it.
    head: Option<(i64, Fold)>,
    rollups: BTreeMap<i64, Arc<RollUp>>,
    judged: BTreeMap<i64, Judged>,
    /// Keys of the stories that are open after each window, by the last fold over it.
    open: BTreeMap<i64, BTreeSet<String>>,
    said: BTreeMap<(i64, String), Said>,
    /// When cells that are not yet taken in will be, with the start of their window.
    due: BTreeSet<(i64, i64)>,
    /// First window that is to be judged again.
    dirty: Option<i64>,
    /// Watermark at the last judgement.
    watermark_us: i64,
}

impl Model {
    pub(super) fn new(id: ModelId, partition: u32) -> Self {
        Self {
            id,
            partition,
            windows: BTreeMap::new(),
            cutoff_us: i64::MIN,
            base: Fold::default(),
            snapshots: BTreeMap::new(),
            head: None,
            rollups: BTreeMap::new(),
            judged: BTreeMap::new(),
            open: BTreeMap::new(),
            said: BTreeMap::new(),
            due: BTreeSet::new(),
            dirty: None,
            watermark_us: i64::MIN,
        }
    }

    /// Merges a partial profile into its window. Returns the key that changed; `None` when the
    /// window is no longer kept.
    pub(super) fn merge(&mut self, configs: &Configs, part: CellProfile) -> Option<(i64, CellKey)> {
        let config = &configs.at(part.key.pane_start_us)?.0;
        let start_us = pane_start_us(part.key.pane_start_us, config.window.us());
        if start_us < self.cutoff_us {
            return None;
        }
        let key = CellKey {
            layout: part.profile.layout,
            cell: Arc::new(part.key.cell),
        };
        let cells = self.windows.entry(start_us).or_default();
        match cells.get_mut(&key) {
            // Layouts are equal, so merging cannot fail.
            Some(there) => {
                let _ = Arc::make_mut(there).merge(&part.profile);
            }
            None => {
                cells.insert(key.clone(), Arc::new(part.profile));
            }
        }
        let due = config.due_us(
            start_us + config.window.us(),
            key.cell.cadence_s,
            config.fast_s(cells.keys().map(|key| key.cell.cadence_s)),
        );
        if due <= self.watermark_us {
            self.changed(start_us);
        } else {
            self.due.insert((due, start_us));
        }
        Some((start_us, key))
    }

    /// Value of a cell-window for the changelog.
    pub(super) fn cell_delta(&self, start_us: i64, key: &CellKey) -> Option<StateDelta> {
        let profile = self.windows.get(&start_us)?.get(key)?;
        let key = Key::Cell(self.id.clone(), start_us, key.clone());
        Some(raw(self.partition, &key, Some(profile.encode())))
    }

    fn changed(&mut self, start_us: i64) {
        self.rollups.remove(&start_us);
        self.dirty = Some(self.dirty.map_or(start_us, |dirty| dirty.min(start_us)));
    }

    /// Windows that were compared with another reference than the one in force for them are to be
    /// judged again.
    pub(super) fn compare_with(&mut self, subjects: &Subjects) {
        let other = |(start_us, judged): &(&i64, &Judged)| {
            let in_force = subjects.at(**start_us).reference_hash();
            judged.reference.is_some() && judged.reference != in_force
        };
        let first = self.judged.range(self.cutoff_us..).find(other);
        if let Some((&start_us, _)) = first {
            self.changed(start_us);
        }
    }

    /// Latest start of a window that has anything.
    pub(super) fn last_window(&self) -> Option<i64> {
        self.windows.keys().next_back().copied()
    }

    /// Whether there is something to judge at a watermark.
    pub(super) fn is_due(&self, watermark_us: i64) -> bool {
        self.dirty.is_some()
            || self
                .due
                .first()
                .is_some_and(|(due, _)| *due <= watermark_us)
    }

    /// Judges what is due, and again what changed.
    pub(super) fn judge(
        &mut self,
        configs: &Configs,
        subjects: &Subjects,
        watermark_us: i64,
        stats: &DetectStats,
    ) -> Told {
        self.watermark_us = self.watermark_us.max(watermark_us);
        while let Some(&(due, start_us)) = self.due.first()
            && due <= self.watermark_us
        {
            self.due.pop_first();
            self.changed(start_us);
        }
        let mut told = Told::default();
        if let Some(from) = self.dirty.take() {
            self.fold_from(configs, subjects, from, stats, &mut told);
        }
        if self.dirty.is_none() {
            self.drop_old(configs, subjects, stats, &mut told);
        }
        told
    }

    /// The latest fold that has nothing of the windows from `from` on, and where it goes on.
    fn fold_before(&mut self, from: i64) -> (Fold, i64) {
        match self.head.take() {
            Some((last, fold)) if last < from => return (fold, last.saturating_add(1)),
            _ => {}
        }
        match self.snapshots.range(..=from).next_back() {
            Some((&at, fold)) => (fold.clone(), at),
            None => (self.base.clone(), self.cutoff_us),
        }
    }

    /// Folds from the latest fold before `from`, and tells what differs from there on.
    fn fold_from(
        &mut self,
        configs: &Configs,
        subjects: &Subjects,
        from: i64,
        stats: &DetectStats,
        told: &mut Told,
    ) {
        let (mut fold, start) = self.fold_before(from);
        let mut last = None;
        // `thin` counts from the latest that is left, and keeps it.
        self.snapshots.retain(|at, _| *at <= from);
        let starts: Vec<i64> = self.windows.range(start..).map(|(&at, _)| at).collect();
        let mut measures = 0;
        for start_us in starts {
            let Some(config) = configs.at(start_us).cloned() else {
                continue;
            };
            let Some(rollup) = self.roll_up(&config.0, subjects.at(start_us), start_us, stats)
            else {
                continue;
            };
            let number = start_us.div_euclid(config.0.window.us());
            if number.rem_euclid(SNAPSHOT_EVERY) == 0 && !self.snapshots.contains_key(&start_us) {
                self.snapshots.insert(start_us, fold.clone());
                self.thin();
            }
            if measures >= MEASURES_PER_STEP_MAX {
                self.dirty = Some(start_us);
                break;
            }
            let again = self.again(start_us);
            let outcome = self.advance(&mut fold, &config, subjects, start_us, &rollup, &again);
            last = Some(start_us);
            self.open.insert(start_us, outcome.open.clone());
            if start_us >= from {
                stats.judged.inc();
                measures += outcome
                    .measures
                    .iter()
                    .map(CohortMeasures::count)
                    .sum::<usize>();
                let subject = subjects.at(start_us);
                self.tell(&config, (start_us, subject), outcome, told, stats);
            }
        }
        self.head = Some((last.unwrap_or(start.saturating_sub(1)), fold));
        if self.dirty.is_some() {
            // Of the windows that are still to be folded nothing is known.
            return;
        }
        for (start_us, key) in self.unfounded() {
            if let Some(config) = configs.at(start_us) {
                self.refute(&config.0, start_us, key, told, stats);
            }
        }
    }

    /// Folds one window in. Where another reference comes into force, evidence starts anew, and what was
    /// found against the one before ends.
    fn advance(
        &self,
        fold: &mut Fold,
        config: &(DetectConfig, String),
        subjects: &Subjects,
        start_us: i64,
        rollup: &RollUp,
        again: &BTreeSet<String>,
    ) -> Outcome {
        let context = |subject| Context {
            id: &self.id,
            subject,
            config: &config.0,
            digest: &config.1,
        };
        let subject = subjects.at(start_us);
        let before = fold.reference.replace(subject.reference_id.clone());
        let mut ended = Vec::new();
        if let Some(before) = before.filter(|before| *before != subject.reference_id) {
            // One that is known no more was of another bundle, and its stories cannot be told.
            if let Some(old) = subjects.with(&before) {
                let cells: Vec<_> = rollup
                    .cells
                    .iter()
                    .map(|roll| (Arc::clone(&roll.cell), Arc::clone(&roll.profile)))
                    .collect();
                let rollup = roll_up(old, &config.0, start_us, &cells);
                ended = fold.give_way(&context(old), start_us, &rollup, &subject.reference_id);
            }
            *fold = Fold {
                window_us: fold.window_us,
                reference: Some(subject.reference_id.clone()),
                arrivals: std::mem::take(&mut fold.arrivals),
                ..Fold::default()
            };
        }
        let mut outcome = fold.window(&context(subject), start_us, rollup, again);
        // What opens again at once has never ended.
        ended.retain(|statement| !outcome.open.contains(&statement.finding.key));
        outcome.statements.splice(..0, ended);
        outcome
    }

    /// The window as it is judged, of the cells that are taken in by now; `None` without any.
    fn roll_up(
        &mut self,
        config: &DetectConfig,
        subject: &Subject,
        start_us: i64,
        stats: &DetectStats,
    ) -> Option<Arc<RollUp>> {
        let end_us = start_us + config.window.us();
        // Kept of another reference it is another one.
        let expected = subject.expected(start_us, end_us);
        if let Some(kept) = self.rollups.get(&start_us)
            && Arc::ptr_eq(&kept.expected, &expected)
        {
            return Some(Arc::clone(kept));
        }
        let mut cells: Vec<(Arc<Cell>, Arc<Profile>)> = Vec::new();
        let kept = self.windows.get(&start_us)?;
        let fast_s = config.fast_s(kept.keys().map(|key| key.cell.cadence_s));
        for (key, profile) in kept {
            if config.due_us(end_us, key.cell.cadence_s, fast_s) > self.watermark_us {
                continue;
            }
            if profile.fits(subject.layout()) {
                cells.push((Arc::clone(&key.cell), Arc::clone(profile)));
            } else {
                stats.foreign_layout.inc();
                tracing::warn!(
                    model = %self.id.model, version = %self.id.version,
                    layout = format!("{:016x}", key.layout),
                    bundle = format!("{:016x}", subject.layout().digest()),
                    "profiles of another layout than the bundle's are not judged: pack the version with `--edges-from` the one that the devices run, or bring the bundle to them"
                );
            }
        }
        if cells.is_empty() {
            return None;
        }
        let rollup = Arc::new(roll_up(subject, config, start_us, &cells));
        stats.cohorts_dropped.inc_by(rollup.dropped as u64);
        self.rollups.insert(start_us, Arc::clone(&rollup));
        while self.rollups.len() > ROLLUPS_MAX {
            self.rollups.pop_first();
        }
        Some(rollup)
    }

    /// Keeps the oldest and the newest snapshot of each span of distances [2^k, 2^(k+1)) from the
    /// latest, so that going back any distance costs about as much again.
    fn thin(&mut self) {
        let Some(&latest) = self.snapshots.keys().next_back() else {
            return;
        };
        let bucket = |at: i64| ((latest - at) / HOUR_US + 1).ilog2();
        let mut kept: BTreeMap<u32, (i64, i64)> = BTreeMap::new();
        for &at in self.snapshots.keys() {
            let span = kept.entry(bucket(at)).or_insert((at, at));
            span.1 = at;
        }
        self.snapshots.retain(|&at, _| {
            kept.get(&bucket(at))
                .is_some_and(|span| at == span.0 || at == span.1)
        });
    }

    /// Drops windows beyond their age, day by day, behind a checkpoint of the fold.
    fn drop_old(
        &mut self,
        configs: &Configs,
        subjects: &Subjects,
        stats: &DetectStats,
        told: &mut Told,
    ) {
        let Some(config) = configs.at(self.watermark_us).cloned() else {
            return;
        };
        if self.watermark_us < config.0.keep.us() {
            return;
        }
        let cutoff_us = pane_start_us(self.watermark_us - config.0.keep.us(), DAY_US);
        if cutoff_us <= self.cutoff_us || self.windows.range(..cutoff_us).next().is_none() {
            return;
        }
        let (mut fold, from) = match self.snapshots.range(..=cutoff_us).next_back() {
            Some((&at, fold)) => (fold.clone(), at),
            None => (self.base.clone(), self.cutoff_us),
        };
        let starts: Vec<i64> = self
            .windows
            .range(from..cutoff_us)
            .map(|(&at, _)| at)
            .collect();
        for start_us in starts {
            let Some(config) = configs.at(start_us).cloned() else {
                continue;
            };
            if let Some(rollup) = self.roll_up(&config.0, subjects.at(start_us), start_us, stats) {
                let none = BTreeSet::new();
                self.advance(&mut fold, &config, subjects, start_us, &rollup, &none);
            }
        }
        self.forget(cutoff_us, &config.0, told);
        self.save(&fold, told);
        self.base = fold;
        self.snapshots.retain(|at, _| *at >= cutoff_us);
    }

    /// Forgets what lies before a cut-off, but for the windows that the longest span still reaches.
    fn forget(&mut self, cutoff_us: i64, config: &DetectConfig, told: &mut Told) {
        let longest = i64::from(SPANS[SPANS.len() - 1]);
        let history_us = cutoff_us - longest * config.window.us();
        let kept = self.windows.split_off(&history_us);
        for (start_us, cells) in std::mem::replace(&mut self.windows, kept) {
            for key in cells.into_keys() {
                let key = Key::Cell(self.id.clone(), start_us, key);
                told.state.push(raw(self.partition, &key, None));
            }
        }
        self.open = self.open.split_off(&cutoff_us);
        let kept = self.judged.split_off(&cutoff_us);
        for start_us in std::mem::replace(&mut self.judged, kept).into_keys() {
            let key = Key::Judged(self.id.clone(), start_us);
            told.state.push(raw(self.partition, &key, None));
        }
        let kept = self.said.split_off(&(cutoff_us, String::new()));
        for (start_us, said) in std::mem::replace(&mut self.said, kept).into_keys() {
            let key = Key::Said(self.id.clone(), start_us, said);
            told.state.push(raw(self.partition, &key, None));
        }
        self.rollups = self.rollups.split_off(&history_us);
        self.cutoff_us = cutoff_us;
    }
}
