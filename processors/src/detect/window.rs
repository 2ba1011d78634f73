//! The fold of one window: streams, causes, stories, measures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use driftline_drift::calibrate::{
    Against, CALM_P, CohortSpans, Shares, Stream, StreamVerdict, Terms, Worth, stream_weight,
};
use driftline_drift::explain::{Part, belongs};
use driftline_schemas::measure::{Cohort, CohortMeasures};
use driftline_schemas::profile::Cell;

use super::arrivals::Arrivals;
use super::config::DetectConfig;
use super::measures::{Judgement, measures};
use super::rollup::RollUp;
use super::state::ModelId;
use super::stories::{Statement, Stories};
use super::subject::Subject;

/// p-value of an input below which it is under suspicion: outputs and errors that move in its scope
/// wait for it to cross.
pub const SUSPICION_P: f64 = 1e-3;

/// What a window is judged with.
pub(super) struct Context<'a> {
    pub(super) id: &'a ModelId,
    pub(super) subject: &'a Subject,
    pub(super) config: &'a DetectConfig,
    pub(super) digest: &'a str,
}

impl Context<'_> {
    /// Length of a window in the calibration's windows.
    pub(super) fn windows_per_step(&self) -> f64 {
        self.config.window.us() as f64 / self.subject.calibration.window_us as f64
    }
}

/// The fold's state between two windows. Clones are cheap enough to keep some for going back.
#[derive(Debug, Clone, Default)]
pub(super) struct Fold {
    /// Length of its windows, microseconds; 0 before the first.
    pub(super) window_us: i64,
    /// Reference that its evidence is held against; none before the first window.
    pub(super) reference: Option<String>,
    /// A stream for each signal of the cohorts.
    pub(super) streams: BTreeMap<Cohort, Vec<Stream>>,
    /// The same of the cells.
    pub(super) cells: BTreeMap<Arc<Cell>, Vec<Stream>>,
    pub(super) stories: Stories,
    pub(super) arrivals: Arrivals,
}

/// A stream's verdict in the window at hand.
pub(super) struct Seen<'a> {
    pub(super) cohort: &'a Cohort,
    pub(super) signal: usize,
    pub(super) verdict: StreamVerdict,
}

/// What a window came to.
pub(super) struct Outcome {
    pub(super) measures: Vec<CohortMeasures>,
    pub(super) statements: Vec<Statement>,
    /// Keys of the stories that are open after it.
    pub(super) open: BTreeSet<String>,
}

impl Fold {
    /// Judges a window, later than all before it, and takes it in. `again` are keys of findings that
    /// must be said in it when they hold.
    pub(super) fn window(
        &mut self,
        context: &Context<'_>,
        start_us: i64,
        rollup: &RollUp,
        again: &BTreeSet<String>,
    ) -> Outcome {
        let window_us = context.config.window.us();
        if self.window_us != window_us {
            // Windows of another length are another grid: evidence starts anew.
            *self = Self {
                window_us,
                reference: self.reference.take(),
                arrivals: std::mem::take(&mut self.arrivals),
                ..Self::default()
            };
        }
        let window = start_us.div_euclid(window_us);
        let cells = rollup.cells.iter().map(|cell| &cell.cell);
        self.arrivals.observe(start_us, cells);
        for cell in &rollup.cells {
            let streams = self.cells.entry(Arc::clone(&cell.cell)).or_default();
            streams.resize_with(cell.points.len(), Stream::default);
            for (stream, point) in streams.iter_mut().zip(&cell.points) {
                if let Some(point) = point {
                    stream.observe(Arc::clone(point));
                }
            }
        }
        let (seen, measures) = self.judge(context, rollup);
        for seen in &seen {
            if seen.verdict.crossed {
                self.disturb(seen.cohort, seen.signal, seen.verdict.first_window);
            } else if seen.verdict.p_value <= CALM_P {
                self.disturb(seen.cohort, seen.signal, window);
            }
        }
        let mut stories = std::mem::take(&mut self.stories);
        let statements = stories.advance(self, context, window, rollup, &seen, again);
        for (scope, signal) in stories.moved() {
            self.disturb(scope, signal, window);
        }
        self.stories = stories;
        Outcome {
            measures,
            statements,
            open: self.stories.keys(context.id),
        }
    }

    /// Says of the open stories that the reference they were found against has given way to another.
    pub(super) fn give_way(
        &mut self,
        context: &Context<'_>,
        start_us: i64,
        rollup: &RollUp,
        next: &str,
    ) -> Vec<Statement> {
        if self.window_us != context.config.window.us() {
            // Windows of another length began with it: stories count in the old ones.
            return Vec::new();
        }
        let stories = std::mem::take(&mut self.stories);
        let window = start_us.div_euclid(self.window_us);
        stories.give_way(self, context, window, rollup, next)
    }

    fn judge<'a>(
        &mut self,
        context: &Context<'_>,
        rollup: &'a RollUp,
    ) -> (Vec<Seen<'a>>, Vec<CohortMeasures>) {
        let signals = &context.subject.calibration.signals;
        let weight = |signal: usize| stream_weight(signals[signal].role);
        let weights = rollup
            .cohorts
            .iter()
            .flat_map(|cohort| cohort.points.iter().enumerate())
            .filter_map(|(signal, point)| point.as_ref().map(|_| weight(signal)))
            .sum();
        let full = context
            .config
            .budget
            .threshold(context.config.window.us(), weights);
        let (mut seen, mut all) = (Vec::new(), Vec::new());
        for roll in &rollup.cohorts {
            let streams = match self.streams.get_mut(&roll.cohort) {
                Some(streams) => streams,
                None => self.streams.entry(roll.cohort.clone()).or_default(),
            };
            streams.resize_with(roll.points.len(), Stream::default);
            let mut spans = CohortSpans::default();
            let mut measured = Vec::new();
            for (signal, (stream, point)) in streams.iter_mut().zip(&roll.points).enumerate() {
                let Some(point) = point else { continue };
                let threshold = full * weight(signal);
                let terms = Terms {
                    signal: &signals[signal],
                    reference_devices: &rollup.expected.devices,
                    windows_per_step: context.windows_per_step(),
                    smallest: &context.config.smallest_effect,
                    threshold,
                };
                let verdict = stream.fold(&terms, &mut spans, Arc::clone(point));
                let Some(verdict) = verdict else { continue };
                let judged = Judgement {
                    signal,
                    profile: &roll.profile,
                    point,
                    verdict,
                    threshold,
                };
                measured.push(measures(context, rollup, &judged));
                seen.push(Seen {
                    cohort: &roll.cohort,
                    signal,
                    verdict,
                });
            }
            if !measured.is_empty() {
                all.push(CohortMeasures {
                    cohort: roll.cohort.clone(),
                    signals: measured,
                });
            }
        }
        (seen, all)
    }

    /// Windows from `first` on are not the calm past of the cells of a cohort.
    fn disturb(&mut self, cohort: &Cohort, signal: usize, first: i64) {
        for (cell, streams) in &mut self.cells {
            if let Some(stream) = streams.get_mut(signal)
                && belongs(cohort, cell)
            {
                stream.disturb(first);
            }
        }
    }

    /// Whether cells stood still in a signal in a window from `first` on.
    pub(super) fn stood_still(&self, signal: usize, first: i64) -> bool {
        let mut of_signal = self.cells.values().filter_map(|it| it.get(signal));
        of_signal.any(|stream| stream.stood_still(first))
    }

    /// What each cell holds of a score over the windows from `first` on, less its own calm past
    /// where that is what is compared with.
    pub(super) fn parts(
        &self,
        context: &Context<'_>,
        reference_devices: &Shares,
        (signal, score, against): (usize, usize, Against),
        first: i64,
    ) -> Vec<Part> {
        let learned = &context.subject.calibration.signals[signal];
        let mut parts = Vec::new();
        for (cell, streams) in &self.cells {
            let Some(stream) = streams.get(signal) else {
                continue;
            };
            let Some(total) = stream.total(score, first) else {
                continue;
            };
            let past = match against {
                Against::Past => stream.past_mean(score),
                Against::Reference => None,
            };
            let worth = Worth {
                devices: match past {
                    Some(_) => 0.0,
                    None => total.devices.distance(reference_devices),
                },
                own: total.devices.concentration(),
                rows: total.rows,
                windows: total.windows as f64 * context.windows_per_step(),
                spread: total.spread,
            };
            let before = past.unwrap_or(0.0);
            parts.push(Part {
                cell: (**cell).clone(),
                rows: total.rows,
                deviation: total.deviation - before,
                variance: worth.variance(learned, score, total.reference + before, false),
            });
        }
        parts
    }
}
