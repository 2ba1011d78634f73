//! Variance components from profiles of the reference's rows, one per (device, window).

use std::collections::BTreeMap;

use driftline_schemas::clock::HOUR_US;
use driftline_schemas::profile::{Profile, ProfileError, Reference};

use super::foreseen::ErrorsByConfidence;
use super::scores::{Score, ScoreKind, mean_of, scores_of, slope, spread};
use super::worth::KNOWN;
use super::{
    ASSUMED_DEGREES, CALIBRATION_FORMAT, Calibration, Component, DEFAULT_DEVICE_ICC,
    DEFAULT_OWN_ICC, DEFAULT_SHARED_ICC, SPANS, ScoreCalibration, SignalCalibration, SpanVariance,
};

mod components;

use components::{Cell, Fit, fit};

/// Most (device, window) profiles that are learned from; beyond it the devices with the largest
/// hashes are left out whole, which does not depend on the order of what is added. At about 300
/// bytes each this is 60 MB.
pub const LEARN_CELLS_MAX: usize = 200_000;
/// Stands for all devices where the reference's rows name none.
pub const UNNAMED_DEVICE: u64 = 0;
/// Fewer devices than this, and the upper bound of a variance is used in place of the estimate.
const FEW: f64 = 30.0;
/// Normal quantile of the bound: the variance is larger with a probability of one in ten.
const BOUND_QUANTILE: f64 = 1.281_551_565_544_600_4;

/// What stands in where the reference's rows name no devices or no times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unlearned {
    /// Rows resemble each other as rows of one device and one hour often do
    /// ([`DEFAULT_DEVICE_ICC`], [`DEFAULT_SHARED_ICC`], [`DEFAULT_OWN_ICC`]).
    #[default]
    Alike,
    /// Whoever made the reference states that rows are independent draws, there and in the field: no
    /// more than chance makes windows of the same devices differ.
    Independent,
}

/// Learns from the reference's rows what a window is worth.
#[derive(Debug, Clone)]
pub struct Learner {
    reference: Reference,
    total: Profile,
    window_us: i64,
    scores: Vec<Vec<Score>>,
    cells: BTreeMap<u64, BTreeMap<i64, Vec<Mean>>>,
    count: usize,
    unlearned: Unlearned,
    /// Devices at or above this hash are left out.
    ceiling: Option<u64>,
}

/// Mean of one score over a device's window; single precision, since there are many.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    rows: f32,
    mean: f32,
    variance: f32,
}

impl Learner {
    /// Learns for a reference, from windows of one hour.
    ///
    /// # Errors
    /// [`ProfileError::LayoutDiffers`] when the reference's slots do not belong together.
    pub fn new(reference: &Reference) -> Result<Self, ProfileError> {
        let total = reference.total()?;
        let scores = reference
            .layout
            .signals()
            .iter()
            .zip(&total.signals)
            .map(|(layout, profile)| scores_of(layout, profile))
            .collect();
        Ok(Self {
            reference: reference.clone(),
            total,
            window_us: HOUR_US,
            scores,
            cells: BTreeMap::new(),
            count: 0,
            unlearned: Unlearned::default(),
            ceiling: None,
        })
    }

    /// Says what stands in where devices or times are not told.
    #[must_use]
    pub fn assuming(self, unlearned: Unlearned) -> Self {
        Self { unlearned, ..self }
    }

    /// Gives the confidence the score that says how often the model is wrong, where there were enough labels. To be
    /// called before anything is added.
    #[must_use]
    pub fn foreseeing(mut self, errors: Option<&ErrorsByConfidence>) -> Self {
        if let Some((signal, weights)) = errors.and_then(ErrorsByConfidence::score) {
            let kind = ScoreKind::Foreseen;
            self.scores[signal].push(Score { kind, weights });
        }
        self
    }

    /// Adds the profile of one device over the hour (of event time) that starts at
    /// `window_start_us`. Two of the same device and hour count as one.
    ///
    /// # Errors
    /// [`ProfileError::LayoutDiffers`] when the profile is not of the reference's layout.
    pub fn add(
        &mut self,
        window_start_us: i64,
        device_hash: u64,
        profile: &Profile,
    ) -> Result<(), ProfileError> {
        if !profile.fits(&self.reference.layout) {
            return Err(ProfileError::LayoutDiffers {
                left: self.reference.layout.digest(),
                right: profile.layout,
            });
        }
        if self.ceiling.is_some_and(|ceiling| device_hash >= ceiling) {
            return Ok(());
        }
        let means: Vec<Mean> = self
            .scores
            .iter()
            .zip(&profile.signals)
            .flat_map(|(scores, signal)| {
                scores.iter().map(|score| {
                    let (rows, mean, variance) = mean_of(score.kind, &score.weights, signal);
                    Mean {
                        rows: rows as f32,
                        mean: mean as f32,
                        variance: variance as f32,
                    }
                })
            })
            .collect();
        let window = window_start_us.div_euclid(self.window_us);
        let device = self.cells.entry(device_hash).or_default();
        match device.get_mut(&window) {
            Some(there) => there.iter_mut().zip(&means).for_each(|(a, b)| a.merge(b)),
            None => {
                device.insert(window, means);
                self.count += 1;
            }
        }
        while self.count > LEARN_CELLS_MAX && self.cells.len() > 1 {
            if let Some((hash, dropped)) = self.cells.pop_last() {
                self.count -= dropped.len();
                self.ceiling = Some(hash);
            }
        }
        Ok(())
    }

    /// What was learned. Without devices or times in what was added, stated defaults stand in for
    /// what cannot be learned, and the notes say so.
    pub fn finish(&self) -> Calibration {
        let windows: std::collections::BTreeSet<i64> = self
            .cells
            .values()
            .flat_map(|device| device.keys().copied())
            .collect();
        let mut notes = Vec::new();
        let (devices, times) = (self.cells.len(), windows.len());
        match self.unlearned {
            Unlearned::Alike => {
                if self.is_one_device() {
                    notes.push(format!(
                        "the reference's rows are of one device, which is held against its own past; for others an intraclass correlation of {DEFAULT_DEVICE_ICC} over devices is assumed"
                    ));
                } else if devices < 2 {
                    notes.push(format!(
                        "the reference's rows do not tell devices apart: an intraclass correlation of {DEFAULT_DEVICE_ICC} over devices is assumed"
                    ));
                }
                if times < 2 {
                    notes.push(format!(
                        "the reference's rows have no times: {DEFAULT_SHARED_ICC} of each variance is assumed to be shared by all devices of a window, {DEFAULT_OWN_ICC} to last for a device's window"
                    ));
                }
            }
            Unlearned::Independent => {
                if devices < 2 || times < 2 {
                    notes.push(
                        "rows were stated to be independent: windows are held against chance alone, and devices that differ by nature are called drift".to_owned(),
                    );
                }
            }
        }
        if devices >= 2 && (devices as f64) < FEW {
            notes.push(format!(
                "only {devices} devices: the upper 90 % bound of the variance between devices is used"
            ));
        }
        if self.ceiling.is_some() {
            notes.push(format!(
                "learned from the {devices} devices with the smallest hashes, at most {LEARN_CELLS_MAX} device hours"
            ));
        }
        let mut column = 0;
        let mut signals = Vec::with_capacity(self.scores.len());
        for (index, layout) in self.reference.layout.signals().iter().enumerate() {
            let total = &self.total.signals[index];
            let mut scores = Vec::new();
            for score in &self.scores[index] {
                scores.push(self.score(index, column, score, &layout.signal.name, &mut notes));
                column += 1;
            }
            if total.binned() == 0 {
                notes.push(format!(
                    "signal {:?} has no rows in the reference and cannot be judged",
                    layout.signal.name
                ));
            }
            signals.push(SignalCalibration {
                signal: layout.signal.name.clone(),
                role: layout.signal.role,
                numeric: layout.is_numeric(),
                rows: total.binned(),
                scores,
            });
        }
        Calibration {
            format: CALIBRATION_FORMAT,
            layout: format!("{:016x}", self.reference.layout.digest()),
            window_us: self.window_us,
            devices: devices as u64,
            windows: times as u64,
            signals,
            notes,
        }
    }

    /// Whether all rows are of one device, and it is named.
    fn is_one_device(&self) -> bool {
        self.cells.len() == 1 && !self.cells.contains_key(&UNNAMED_DEVICE)
    }

    /// One score, from its column of the cells.
    fn score(
        &self,
        signal: usize,
        column: usize,
        score: &Score,
        name: &str,
        notes: &mut Vec<String>,
    ) -> ScoreCalibration {
        let (rows, mean, total_variance) =
            mean_of(score.kind, &score.weights, &self.total.signals[signal]);
        // A share of exactly 0 or 1 has been seen in finitely many rows only.
        let floor = match score.kind.is_share() {
            true => {
                let share = (mean * rows + 0.5) / (rows + 1.0);
                share * (1.0 - share)
            }
            false => 0.0,
        };
        let expected = self.expected(signal, score);
        let average = {
            let rows: f64 = expected.iter().map(|slot| slot.rows).sum();
            let sum: f64 = expected.iter().map(|slot| slot.rows * slot.variance).sum();
            if rows > 0.0 {
                sum / rows
            } else {
                total_variance
            }
        };
        let mut cells = Vec::new();
        for (device, windows) in self.cells.values().enumerate() {
            for (&window, means) in windows {
                let cell = means[column];
                if cell.rows <= 0.0 {
                    continue;
                }
                let slot = self.reference.season.slot(window * self.window_us);
                let at = &expected[slot];
                let mut deviation = f64::from(cell.mean) - at.mean;
                if score.kind == ScoreKind::Scale {
                    // The location is the score before the scale.
                    deviation -= at.slope * (f64::from(means[column - 1].mean) - at.location);
                }
                let spread = spread(score.kind, at.variance, average);
                cells.push(Cell {
                    device,
                    window,
                    slot: if score.kind.is_rate() { 0 } else { slot },
                    rows: f64::from(cell.rows),
                    deviation: deviation / spread.sqrt(),
                    row_variance: f64::from(cell.variance) / spread,
                });
            }
        }
        let fitted = fit(&cells);
        let variance = total_variance.max(floor);
        let mut calibration = with_defaults(score, mean, variance, &fitted, self.unlearned);
        if self.is_one_device() && !fitted.spans.is_empty() {
            // What lasts for its windows alone is in what was learned of its windows.
            for span in &mut calibration.spans {
                span.own = Component {
                    variance: 0.0,
                    degrees: KNOWN,
                };
            }
        }
        calibration.slot_variance = average;
        if fitted.single_slot_windows {
            let note = format!(
                "signal {name:?}: some hours of the season were seen only once, so what devices share is judged with twice its variance"
            );
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        calibration
    }

    /// What a score is expected to be, slot by slot.
    fn expected(&self, signal: usize, score: &Score) -> Vec<Slot> {
        let total = &self.total.signals[signal];
        let location = self.scores[signal].first();
        let slots = self
            .reference
            .slots
            .iter()
            .map(|slot| &slot.signals[signal]);
        slots
            // Rates are rare, so a slot's own says little.
            .map(|slot| match slot.binned() == 0 || score.kind.is_rate() {
                true => total,
                false => slot,
            })
            .map(|slot| {
                let (rows, mean, variance) = mean_of(score.kind, &score.weights, slot);
                let mut at = Slot {
                    rows,
                    mean,
                    variance,
                    ..Slot::default()
                };
                if let (ScoreKind::Scale, Some(location)) = (score.kind, location) {
                    let (_, mean, variance) = mean_of(location.kind, &location.weights, slot);
                    at.location = mean;
                    at.slope = slope(&score.weights, &location.weights, slot);
                    at.variance -= at.slope * at.slope * variance;
                }
                at
            })
            .collect()
    }
}

/// One score in one slot of the season.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    rows: f64,
    mean: f64,
    variance: f64,
    /// Of the scale: where the location is, and how the one moves with the other.
    location: f64,
    slope: f64,
}

impl Mean {
    fn merge(&mut self, other: &Self) {
        let rows = self.rows + other.rows;
        if rows == 0.0 {
            return;
        }
        let share = other.rows / rows;
        let apart = other.mean - self.mean;
        self.mean += share * apart;
        self.variance +=
            share * (other.variance - self.variance) + share * (1.0 - share) * apart * apart;
        self.rows = rows;
    }
}

/// Fills in what could not be learned, and bounds what was learned from little.
fn with_defaults(
    score: &Score,
    mean: f64,
    variance: f64,
    fitted: &Fit,
    unlearned: Unlearned,
) -> ScoreCalibration {
    let assumed = |share: f64| match unlearned {
        Unlearned::Alike => Component {
            variance: share * variance,
            degrees: ASSUMED_DEGREES,
        },
        Unlearned::Independent => Component {
            variance: 0.0,
            degrees: KNOWN,
        },
    };
    let device = match fitted.device {
        Some(learned) => bounded(learned),
        None => assumed(DEFAULT_DEVICE_ICC),
    };
    let spans = if fitted.spans.is_empty() {
        vec![SpanVariance {
            windows: SPANS[0],
            shared: assumed(DEFAULT_SHARED_ICC),
            own: assumed(DEFAULT_OWN_ICC),
        }]
    } else {
        fitted
            .spans
            .iter()
            .map(|span| SpanVariance {
                windows: span.windows,
                shared: bounded(span.shared),
                own: span.own.map_or(assumed(DEFAULT_OWN_ICC), bounded),
            })
            .collect()
    };
    ScoreCalibration {
        kind: score.kind,
        weights: score.weights.clone(),
        mean,
        slot_variance: variance,
        row_variance: match fitted.row_variance {
            Some(learned) => learned.max(variance * 1e-6),
            None => variance,
        },
        device,
        spans,
    }
}

/// The upper bound of a variance with few degrees of freedom: χ² quantile by Wilson and Hilferty
/// (1931).
fn bounded(component: Component) -> Component {
    if component.degrees >= FEW {
        return component;
    }
    let degrees = component.degrees.max(1.0);
    let part = 2.0 / (9.0 * degrees);
    let quantile = degrees * (1.0 - part - BOUND_QUANTILE * part.sqrt()).powi(3);
    Component {
        variance: component.variance * degrees / quantile.max(0.02 * degrees),
        degrees,
    }
}
