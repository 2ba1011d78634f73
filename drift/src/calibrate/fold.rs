//! The evidence of one stream (a signal of a cohort) over a fixed grid of windows.
//!
//! Windows are folded in event-time order. Each is judged at several spans that end with it, so
//! that a large shift is seen at once and a small one soon, and against two things:
//!
//! - the reference ("level"): the cohort may differ from it because its devices do, so the variance
//!   between devices counts;
//! - the cohort's own calm past ("change"): its devices are the same, so it does not. The past is
//!   used from 16 windows on and never includes the last [`LAG_WINDOWS`], so that
//!   a shift cannot hide itself.
//!
//! What the model does not know of a cohort (its sites may share a weather of their own) shows in
//! how its calm windows scatter; where that is more than predicted, the prediction is raised.
//!
//! The p-value is Bonferroni's over scores, spans and the two tests, with constant weights, so that
//! it does not depend on what happened to be there. A single window has little weight: what it rests
//! on are few independent pieces, whose tail is the least certain, and what moved for good is there
//! in the next window as well. A spread is judged over [`SCALE_SPAN_MIN`] windows at least, since it is
//! the most skewed of the scores and widens with every passing shift.

mod choice;
mod saved;
mod spans;

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use super::exact;
use super::judge::{ScoreTest, row_variance, test};
use super::scores::{Deviation, Deviations, SCORES_INLINE, ScoreKind};
use super::worth::{Shares, Worth, against_reference, variance};
use super::{Effect, SPANS, SignalCalibration, SmallestEffect};
use choice::Choice;
pub use saved::StreamCheckpoint;
pub use spans::CohortSpans;
use spans::Reach;

/// Windows that a window waits before it becomes part of the calm past: the longest span of the
/// change test, so that the two never overlap.
pub const LAG_WINDOWS: i64 = 8;
/// Calm windows before the past is compared with.
pub(super) const PAST_WINDOWS_MIN: f64 = 16.0;
/// Spans that the past is compared with: those of [`SPANS`] up to [`LAG_WINDOWS`].
const CHANGE_SPANS: usize = 4;
/// Tests against the past that need no memory of their own.
const SCATTER_INLINE: usize = SCORES_INLINE * CHANGE_SPANS;
/// Share of the error probability that each of [`SPANS`] gets.
const SPAN_WEIGHTS: [f64; SPANS.len()] = [0.02, 0.12, 0.32, 0.32, 0.22];
/// Shortest span, in windows, over which a spread is judged.
const SCALE_SPAN_MIN: u32 = 4;
/// Weight, in windows, of the prediction against the scatter that is seen.
const PRIOR_WINDOWS: f64 = 10.0;
/// A window is calm when the stream's p-value is above this.
pub const CALM_P: f64 = 0.01;

/// p-value at which a location is likely to have moved, where the spread has surely done so.
const LIKELY_P: f64 = 0.05;

/// What a stream is judged from in one window.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Index of the window on the grid (start over length).
    pub window: i64,
    /// The cohort's devices in this window.
    pub devices: Arc<Shares>,
    /// How far each score is from the reference.
    pub deviations: Deviations,
    /// Of a cell: its values stood still, as those of a stuck sensor do, or for what a model says, those of an
    /// input did. That is told by itself, and says nothing of where the signal would be.
    pub still: bool,
}

/// Mean of what was calm, of one score.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Past {
    #[serde(with = "exact")]
    rows: f64,
    #[serde(with = "exact")]
    sum: f64,
}

/// Scatter of calm windows over what was predicted, of one score at one span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Scatter {
    #[serde(with = "exact")]
    squares: f64,
    #[serde(with = "exact")]
    windows: f64,
}

impl Scatter {
    fn factor(self, span: u32) -> f64 {
        // Spans overlap, so their squares are worth one in `span`.
        let (squares, windows) = (
            self.squares / f64::from(span),
            self.windows / f64::from(span),
        );
        ((PRIOR_WINDOWS + squares) / (PRIOR_WINDOWS + windows)).max(1.0)
    }
}

/// A window of the longest span.
#[derive(Debug, Clone)]
struct Recent {
    /// [`Point::window`], at hand without a look at the point.
    window: i64,
    calm: bool,
    point: Arc<Point>,
}

/// The fold's state.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// The last windows of the longest span, oldest first.
    recent: VecDeque<Recent>,
    past: Vec<Past>,
    past_windows: f64,
    past_devices: Shares,
    /// By score, then span.
    scatter: Vec<[Scatter; CHANGE_SPANS]>,
    /// Windows before this one are not evidence any more: a finding that ended took them with it.
    since: i64,
}

/// A score over some windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// Rows, above 0.
    pub rows: f64,
    /// Mean deviation from the reference.
    pub deviation: f64,
    /// Mean of the reference.
    pub reference: f64,
    /// Mean of [`Deviation::spread`].
    pub spread: f64,
    /// Devices.
    pub devices: Shares,
    /// Windows with data.
    pub windows: usize,
}

/// What a stream is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// The reference.
    Reference,
    /// The cohort's own calm past.
    Past,
}

/// What one window of a stream came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamVerdict {
    /// p-value over scores, spans and tests.
    pub p_value: f64,
    /// The same of the score that decides; the larger of the two when another score is smaller but
    /// its effect does not matter.
    pub decides_p: f64,
    /// Index of the deciding score in [`SignalCalibration::scores`].
    pub score: usize,
    /// Its kind.
    pub kind: ScoreKind,
    /// Deciding test.
    pub against: Against,
    /// Deciding span: its first window.
    pub first_window: i64,
    /// Its statistic.
    pub statistic: f64,
    /// Its effect.
    pub effect: Effect,
    /// Whether the effect matters.
    pub matters: bool,
    /// Effective rows of the deciding test.
    pub rows_effective: f64,
    /// Whether it crosses.
    pub crossed: bool,
}

/// One span of one score.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    rows: f64,
    sum: f64,
    reference: f64,
    spread: f64,
}

/// What a stream is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What was learned about its signal.
    pub signal: &'a SignalCalibration,
    /// Devices of the reference.
    pub reference_devices: &'a Shares,
    /// Length of a window in the calibration's windows.
    pub windows_per_step: f64,
    /// The smallest effects that matter.
    pub smallest: &'a SmallestEffect,
    /// p-value at or below which the stream crosses.
    pub threshold: f64,
}

impl Stream {
    /// Judges a window, which must be later than all before it, and takes it into the fold. `spans` is
    /// shared by the streams of one cohort in one window. `None` when no score had rows.
    pub fn fold(
        &mut self,
        terms: &Terms<'_>,
        spans: &mut CohortSpans,
        point: Arc<Point>,
    ) -> Option<StreamVerdict> {
        let window = point.window;
        self.settle(window);
        self.take_in(point, true);
        let scores = terms.signal.scores.len();
        self.past.resize(scores, Past::default());
        self.scatter.resize(scores, Default::default());
        let mut choice = Choice::new(scores);
        let mut scatter: SmallVec<[_; SCATTER_INLINE]> = SmallVec::new();
        let mut sums: SmallVec<[Span; SCORES_INLINE]> = smallvec![Span::default(); scores];
        let reaches = spans.of(terms, &self.recent, self.since);
        for reach in reaches.iter() {
            self.sum_up(reach.points, &mut sums);
            let past_devices = self.past_devices_apart(reach);
            for (at, found) in sums.iter().enumerate() {
                let scale = terms.signal.scores[at].kind == ScoreKind::Scale;
                if found.rows <= 0.0 || (scale && SPANS[reach.index] < SCALE_SPAN_MIN) {
                    continue;
                }
                let negligible = choice.negligible(reach.index, terms.signal);
                let level = self.level(terms, at, found, (reach.worth, negligible));
                choice.add(terms, reach, at, Against::Reference, &level);
                let seen = self.scatter[at].get(reach.index);
                let factor = seen.map(|seen| seen.factor(SPANS[reach.index]));
                if let (Some(devices), Some(factor)) = (past_devices, factor) {
                    let worth = Worth {
                        devices,
                        ..reach.worth
                    };
                    let change = self.change(terms, at, found, (worth, negligible), factor);
                    if let Some(change) = change {
                        scatter.push((at, reach.index, change.statistic.powi(2) * factor));
                        choice.add(terms, reach, at, Against::Past, &change);
                    }
                }
            }
        }
        let verdict = choice.verdict()?;
        self.mark(&verdict, scatter);
        Some(verdict)
    }

    /// Distance of a span's devices to those of the past, where there is one to compare with.
    fn past_devices_apart(&self, reach: &Reach) -> Option<f64> {
        (reach.index < CHANGE_SPANS && self.past_windows >= PAST_WINDOWS_MIN)
            .then(|| reach.devices.distance(&self.past_devices))
    }

    /// Takes a window into the fold without judging it: cells have a past, but no verdict.
    pub fn observe(&mut self, point: Arc<Point>) {
        self.settle(point.window);
        self.past.resize(point.deviations.len(), Past::default());
        let calm = !point.still;
        self.take_in(point, calm);
    }

    /// Whether it has taken nothing in yet.
    pub fn is_blank(&self) -> bool {
        self.recent.is_empty() && self.past.is_empty()
    }

    fn take_in(&mut self, point: Arc<Point>, calm: bool) {
        self.recent.push_back(Recent {
            window: point.window,
            calm,
            point,
        });
    }

    /// Whether a window from `first` on stood still.
    pub fn stood_still(&self, first: i64) -> bool {
        self.since_window(first).any(|point| point.still)
    }

    /// What the windows from `first` on hold of a score, of the [`SPANS`]' longest at most; those that
    /// stood still are left out.
    pub fn total(&self, score: usize, first: i64) -> Option<Total> {
        let moving = self.since_window(first).filter(|point| !point.still);
        let points: Vec<&Arc<Point>> = moving.collect();
        let mut span = Span::default();
        for at in points.iter().filter_map(|it| it.deviations.get(score)) {
            span.add(at);
        }
        if span.rows <= 0.0 {
            return None;
        }
        let mut devices = Shares::default();
        points.iter().for_each(|point| devices.add(&point.devices));
        Some(Total {
            rows: span.rows,
            deviation: span.sum / span.rows,
            reference: span.reference / span.rows,
            spread: span.spread / span.rows,
            devices,
            windows: points.len(),
        })
    }

    /// Windows from now on are the only evidence: what was found has ended.
    pub fn forget_before(&mut self, window: i64) {
        self.since = self.since.max(window);
    }

    /// Marks the windows from `first` on as not calm, so that they do not become the past.
    pub fn disturb(&mut self, first: i64) {
        for recent in self.recent.iter_mut().rev() {
            if recent.window < first {
                break;
            }
            recent.calm = false;
        }
    }

    /// Mean deviation of a score over the calm past, once there is enough of it.
    pub fn past_mean(&self, score: usize) -> Option<f64> {
        let past = self.past.get(score)?;
        (self.past_windows >= PAST_WINDOWS_MIN && past.rows > 0.0).then(|| past.sum / past.rows)
    }

    fn since_window(&self, first: i64) -> impl Iterator<Item = &Arc<Point>> {
        let from = self.recent.partition_point(|it| it.window < first);
        self.recent.range(from..).map(|it| &it.point)
    }

    /// Each score over the last so many windows.
    fn sum_up(&self, points: usize, sums: &mut [Span]) {
        sums.fill(Span::default());
        for recent in self.recent.range(self.recent.len() - points..) {
            for (sum, at) in sums.iter_mut().zip(&recent.point.deviations) {
                sum.add(at);
            }
        }
    }

    fn level(
        &self,
        terms: &Terms<'_>,
        at: usize,
        found: &Span,
        (worth, negligible): (Worth, f64),
    ) -> ScoreTest {
        let Terms {
            signal, smallest, ..
        } = terms;
        let score = &signal.scores[at];
        let worth = Worth {
            rows: found.rows,
            spread: found.spread / found.rows,
            ..worth
        };
        let reference = found.reference / found.rows;
        let scatter = row_variance(score, reference, signal.rows, worth.spread);
        let variance = against_reference(signal, score, &worth, scatter);
        let moved = found.sum / found.rows;
        test(
            signal,
            score,
            (moved, reference),
            (variance, negligible),
            smallest,
        )
    }

    fn change(
        &self,
        terms: &Terms<'_>,
        at: usize,
        found: &Span,
        (worth, negligible): (Worth, f64),
        factor: f64,
    ) -> Option<ScoreTest> {
        let Terms {
            signal, smallest, ..
        } = terms;
        let past = self.past[at];
        if past.rows <= 0.0 {
            return None;
        }
        let score = &signal.scores[at];
        let before = past.sum / past.rows;
        let expected = found.reference / found.rows + before;
        let now = Worth {
            rows: found.rows,
            spread: found.spread / found.rows,
            ..worth
        };
        let then = Worth {
            devices: 0.0,
            own: self.past_devices.concentration(),
            rows: past.rows,
            windows: self.past_windows * terms.windows_per_step,
            spread: 1.0,
        };
        let scatter = row_variance(score, expected, signal.rows, now.spread);
        let sum = variance(score, &now, scatter).plus(variance(score, &then, scatter));
        let moved = found.sum / found.rows - before;
        Some(test(
            signal,
            score,
            (moved, expected),
            (sum.scaled(factor), negligible),
            smallest,
        ))
    }

    /// Windows that have waited long enough become the past, if they were calm.
    fn settle(&mut self, window: i64) {
        let longest = i64::from(SPANS[SPANS.len() - 1]);
        for recent in &mut self.recent {
            if recent.window > window - LAG_WINDOWS {
                break;
            }
            if !std::mem::take(&mut recent.calm) {
                continue;
            }
            self.past_windows += 1.0;
            self.past_devices.add(&recent.point.devices);
            for (past, found) in self.past.iter_mut().zip(&recent.point.deviations) {
                past.rows += found.rows;
                past.sum += found.rows * found.deviation;
            }
        }
        while let Some(recent) = self.recent.front()
            && recent.window <= window - longest
        {
            self.recent.pop_front();
        }
    }

    /// Remembers whether the window was calm and how it scattered.
    fn mark(
        &mut self,
        verdict: &StreamVerdict,
        scatter: impl IntoIterator<Item = (usize, usize, f64)>,
    ) {
        if verdict.crossed {
            self.disturb(verdict.first_window);
        }
        if verdict.p_value <= CALM_P {
            if let Some(recent) = self.recent.back_mut() {
                recent.calm = false;
            }
            return;
        }
        for (score, span, square) in scatter {
            let at = &mut self.scatter[score][span];
            at.squares += square;
            at.windows += 1.0;
        }
    }
}

impl Span {
    fn add(&mut self, at: &Deviation) {
        self.rows += at.rows;
        self.sum += at.rows * at.deviation;
        self.reference += at.rows * at.reference;
        self.spread += at.rows * at.spread;
    }
}
