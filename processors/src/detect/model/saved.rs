//! The fold before the cut-off, as it rests in state, and a model as it comes back from there.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use driftline_drift::calibrate::{Point, Stream, StreamCheckpoint};
use driftline_schemas::measure::Cohort;
use driftline_schemas::profile::{Cell, Profile};

use super::super::arrivals::Arrivals;
use super::super::state::{CellKey, Judged, Key, Said, delta};
use super::super::stories::Stories;
use super::super::subject::Subjects;
use super::super::window::Fold;
use super::{Configs, DetectStats, Model, Told};

type Kept = BTreeMap<usize, StreamCheckpoint>;

/// What is kept of the streams, by signal.
fn kept(streams: &[Stream]) -> Kept {
    let signals = streams.iter().enumerate();
    let used = signals.filter(|(_, stream)| !stream.is_blank());
    used.map(|(signal, stream)| (signal, stream.checkpoint()))
        .collect()
}

fn put<K: Ord>(streams: Entry<'_, K, Vec<Stream>>, signal: usize, stream: Stream) {
    let streams = streams.or_default();
    if streams.len() <= signal {
        streams.resize_with(signal + 1, Stream::default);
    }
    streams[signal] = stream;
}

/// A fold as it was read, before its points are made again from the windows kept.
#[derive(Debug, Default)]
pub(in super::super) struct SavedFold {
    pub(in super::super) streams: BTreeMap<Cohort, Kept>,
    pub(in super::super) cells: BTreeMap<Arc<Cell>, Kept>,
    pub(in super::super) stories: Stories,
    /// Absent in what was written before it was noted.
    pub(in super::super) arrivals: Option<Arrivals>,
}

impl Model {
    pub(in super::super) fn restore_cell(&mut self, start_us: i64, key: CellKey, profile: Profile) {
        let cells = self.windows.entry(start_us).or_default();
        cells.insert(key, Arc::new(profile));
    }

    pub(in super::super) fn restore_judged(&mut self, start_us: i64, judged: Judged) {
        self.judged.insert(start_us, judged);
    }

    pub(in super::super) fn restore_said(&mut self, start_us: i64, key: String, said: Said) {
        self.said.insert((start_us, key), said);
    }

    /// Writes the fold before the cut-off.
    pub(super) fn save(&self, fold: &Fold, told: &mut Told) {
        let id = || self.id.clone();
        let partition = self.partition;
        told.state
            .push(delta(partition, &Key::Cutoff(id()), Some(&self.cutoff_us)));
        told.state
            .push(delta(partition, &Key::Stories(id()), Some(&fold.stories)));
        let arrivals = delta(partition, &Key::Arrivals(id()), Some(&fold.arrivals));
        told.state.push(arrivals);
        for (cohort, streams) in &fold.streams {
            let key = Key::Streams(id(), cohort.clone());
            told.state
                .push(delta(partition, &key, Some(&kept(streams))));
        }
        for (cell, streams) in &fold.cells {
            let key = Key::Cells(id(), Arc::clone(cell));
            told.state
                .push(delta(partition, &key, Some(&kept(streams))));
        }
    }

    /// What is due after a restart: cells that are not taken in yet, and windows that were taken in
    /// but never judged (their bundle was missing).
    pub(in super::super) fn restore_due(&mut self, configs: &Configs, watermark_us: i64) {
        self.watermark_us = watermark_us;
        let mut unjudged = None;
        for (&start_us, cells) in self.windows.range(self.cutoff_us..) {
            let Some(config) = configs.at(start_us) else {
                continue;
            };
            let end_us = start_us + config.0.window.us();
            let fast_s = config.0.fast_s(cells.keys().map(|key| key.cell.cadence_s));
            for key in cells.keys() {
                let due = config.0.due_us(end_us, key.cell.cadence_s, fast_s);
                if due > watermark_us {
                    self.due.insert((due, start_us));
                } else if !self.judged.contains_key(&start_us) {
                    unjudged = unjudged.or(Some(start_us));
                }
            }
        }
        if let Some(start_us) = unjudged {
            self.changed(start_us);
        }
    }

    /// Makes the fold before the cut-off from what was read: its points come from the windows that
    /// were kept for that.
    pub(in super::super) fn restore_fold(
        &mut self,
        saved: &SavedFold,
        configs: &Configs,
        subjects: &Subjects,
        stats: &DetectStats,
    ) {
        let starts: Vec<i64> = self
            .windows
            .range(..self.cutoff_us)
            .map(|(&at, _)| at)
            .collect();
        let mut cohorts: BTreeMap<(Cohort, usize, i64), Arc<Point>> = BTreeMap::new();
        let mut cells: BTreeMap<(Arc<Cell>, usize, i64), Arc<Point>> = BTreeMap::new();
        let mut fold = Fold {
            stories: saved.stories.clone(),
            arrivals: saved.arrivals.clone().unwrap_or_else(Arrivals::of_long_ago),
            ..Fold::default()
        };
        if let Some(config) = configs.at(self.cutoff_us) {
            fold.window_us = config.0.window.us();
        }
        let last = starts.last();
        fold.reference = last.map(|&start_us| subjects.at(start_us).reference_id.clone());
        for start_us in starts {
            let Some(config) = configs.at(start_us).cloned() else {
                continue;
            };
            let Some(rollup) = self.roll_up(&config.0, subjects.at(start_us), start_us, stats)
            else {
                continue;
            };
            for roll in &rollup.cohorts {
                for (signal, point) in roll.points.iter().enumerate() {
                    if let Some(point) = point {
                        let key = (roll.cohort.clone(), signal, point.window);
                        cohorts.insert(key, Arc::clone(point));
                    }
                }
            }
            for roll in &rollup.cells {
                for (signal, point) in roll.points.iter().enumerate() {
                    if let Some(point) = point {
                        let key = (Arc::clone(&roll.cell), signal, point.window);
                        cells.insert(key, Arc::clone(point));
                    }
                }
            }
        }
        for (cohort, kept) in &saved.streams {
            for (&signal, kept) in kept {
                let stream = Stream::restore(kept, |window| {
                    cohorts.get(&(cohort.clone(), signal, window)).cloned()
                });
                put(fold.streams.entry(cohort.clone()), signal, stream);
            }
        }
        for (cell, kept) in &saved.cells {
            for (&signal, kept) in kept {
                let stream = Stream::restore(kept, |window| {
                    cells.get(&(Arc::clone(cell), signal, window)).cloned()
                });
                put(fold.cells.entry(Arc::clone(cell)), signal, stream);
            }
        }
        self.base = fold;
    }

    pub(in super::super) fn restore_cutoff(&mut self, cutoff_us: i64) {
        self.cutoff_us = cutoff_us;
    }
}
