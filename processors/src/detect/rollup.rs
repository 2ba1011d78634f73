//! Cells of a window rolled up to cohorts.

use std::sync::Arc;

use driftline_drift::calibrate::{
    Point, ScoreCalibration, ScoreKind, Shares, SignalCalibration, deviations,
};
use driftline_drift::explain::{attribute_values, belongs};
use driftline_schemas::bundle::SignalRole;
use driftline_schemas::measure::Cohort;
use driftline_schemas::profile::{Cell, DeviceSample, Profile, SignalProfile};

use super::config::DetectConfig;
use super::subject::{Expected, Subject};

/// Least rows of a window that may be said to stand still.
const STILL_ROWS_MIN: u64 = 10;
/// Share of a signal's variance that lies within a device's window from which on standing still is no
/// habit of it: then its values lie in several bins.
const STILL_SHARE: f64 = 0.05;

/// A cell in one window.
#[derive(Debug)]
pub(super) struct CellRoll {
    pub(super) cell: Arc<Cell>,
    pub(super) profile: Arc<Profile>,
    /// One per signal; `None` where it had no rows.
    pub(super) points: Vec<Option<Arc<Point>>>,
}

/// A cohort in one window.
#[derive(Debug)]
pub(super) struct CohortRoll {
    pub(super) cohort: Cohort,
    pub(super) profile: Profile,
    /// One per signal; `None` where it had no rows or is not judged.
    pub(super) points: Vec<Option<Arc<Point>>>,
}

/// A window as it is judged.
#[derive(Debug)]
pub(super) struct RollUp {
    pub(super) expected: Arc<Expected>,
    pub(super) cells: Vec<CellRoll>,
    pub(super) cohorts: Vec<CohortRoll>,
    /// Cohorts left out because there were too many.
    pub(super) dropped: usize,
}

/// Rolls up the cells of a window (in the order of their keys, so that the answer depends on the
/// contents only).
pub(super) fn roll_up(
    subject: &Subject,
    config: &DetectConfig,
    start_us: i64,
    cells: &[(Arc<Cell>, Arc<Profile>)],
) -> RollUp {
    let window_us = config.window.us();
    let expected = subject.expected(start_us, start_us + window_us);
    let roller = Roller {
        subject,
        expected: &expected,
        window: start_us.div_euclid(window_us),
        rows_min: config.rows_min,
    };
    let (cohorts, dropped) = cohorts_of(config, cells);
    let cohorts = cohorts
        .into_iter()
        .map(|cohort| {
            let within: Vec<&Profile> = cells
                .iter()
                .filter(|(cell, _)| belongs(&cohort, cell))
                .map(|(_, profile)| &**profile)
                .collect();
            roller.cohort(cohort, &within)
        })
        .collect();
    let cells = cells
        .iter()
        .map(|(cell, profile)| CellRoll {
            cell: Arc::clone(cell),
            points: roller.points(profile, &[&**profile], 1, true),
            profile: Arc::clone(profile),
        })
        .collect();
    RollUp {
        cells,
        cohorts,
        dropped,
        expected,
    }
}

/// The estate and the attribute values with the most rows.
fn cohorts_of(config: &DetectConfig, cells: &[(Arc<Cell>, Arc<Profile>)]) -> (Vec<Cohort>, usize) {
    let watched = |cohort: &Cohort| {
        cohort
            .0
            .keys()
            .all(|attribute| config.attributes.contains(attribute))
    };
    let mut values: Vec<Cohort> = attribute_values(cells.iter().map(|(cell, _)| &**cell))
        .into_iter()
        .filter(watched)
        .collect();
    let most = config.cohorts_max.saturating_sub(1);
    let dropped = values.len().saturating_sub(most);
    if dropped > 0 {
        let rows = |cohort: &Cohort| -> u64 {
            cells
                .iter()
                .filter(|(cell, _)| belongs(cohort, cell))
                .map(|(_, profile)| profile.rows)
                .sum()
        };
        values.sort_by_cached_key(|cohort| (std::cmp::Reverse(rows(cohort)), cohort.clone()));
        values.truncate(most);
        values.sort();
    }
    values.insert(0, Cohort::default());
    (values, dropped)
}

struct Roller<'a> {
    subject: &'a Subject,
    expected: &'a Expected,
    window: i64,
    rows_min: u64,
}

impl Roller<'_> {
    fn cohort(&self, cohort: Cohort, within: &[&Profile]) -> CohortRoll {
        let mut profile = Profile::empty(self.subject.layout());
        for part in within {
            // All are of the subject's layout: the caller leaves out the others.
            let _ = profile.merge(part);
        }
        let points = self.points(&profile, within, self.rows_min, false);
        CohortRoll {
            cohort,
            profile,
            points,
        }
    }

    /// How far each signal is from its reference. Devices that a signal did not come from (only
    /// probes bring truth) do not count for it.
    fn points(
        &self,
        whole: &Profile,
        within: &[&Profile],
        rows_min: u64,
        is_cell: bool,
    ) -> Vec<Option<Arc<Point>>> {
        let mut by_parts = ByParts::default();
        let signals = &self.subject.calibration.signals;
        let is_still = |(learned, found)| is_cell && stands_still(learned, found);
        // What a model makes of a sensor that is stuck says nothing either.
        let input_is_still = signals
            .iter()
            .zip(&whole.signals)
            .filter(|(learned, _)| is_input(learned))
            .any(is_still);
        signals
            .iter()
            .enumerate()
            .map(|(signal, learned)| {
                let found = &whole.signals[signal];
                if learned.rows == 0 || found.rows() < rows_min.max(1) {
                    return None;
                }
                Some(Arc::new(Point {
                    window: self.window,
                    devices: by_parts.devices(within, signal),
                    still: match is_input(learned) {
                        true => is_still((learned, found)),
                        false => input_is_still,
                    },
                    deviations: deviations(learned, &self.expected.scores[signal], found),
                }))
            })
            .collect()
    }
}

/// The devices that signals come from, worked out once for all signals that come from the same parts.
#[derive(Default)]
struct ByParts {
    known: Vec<(Vec<bool>, Arc<Shares>)>,
    /// Of the signal at hand, kept to spare memory.
    parts: Vec<bool>,
}

impl ByParts {
    fn devices(&mut self, within: &[&Profile], signal: usize) -> Arc<Shares> {
        self.parts.clear();
        let has = |part: &&Profile| part.signals[signal].rows() > 0;
        self.parts.extend(within.iter().map(has));
        if let Some((_, devices)) = self.known.iter().find(|(parts, _)| *parts == self.parts) {
            return Arc::clone(devices);
        }
        let mut devices = DeviceSample::default();
        for (part, _) in within.iter().zip(&self.parts).filter(|(_, has)| **has) {
            devices.merge(&part.devices);
        }
        let devices = Arc::new(Shares::of(&devices));
        self.known.push((self.parts.clone(), Arc::clone(&devices)));
        devices
    }
}

/// Whether a signal goes into the model, or is taken from what does.
fn is_input(learned: &SignalCalibration) -> bool {
    matches!(learned.role, SignalRole::Input | SignalRole::Extra)
}

/// Whether all values of a window are one, of a signal whose values differ within a device's window.
fn stands_still(learned: &SignalCalibration, found: &SignalProfile) -> bool {
    let moves = |score: &ScoreCalibration| {
        score.kind == ScoreKind::Location && score.row_variance >= STILL_SHARE * score.slot_variance
    };
    found.binned() >= STILL_ROWS_MIN
        && found.min == found.max
        && learned.numeric
        && learned.scores.iter().any(moves)
}
