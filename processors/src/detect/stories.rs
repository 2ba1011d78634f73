//! Findings as stories: each (kind, cause) opens, is updated when something material changes, and
//! ends after some calm windows.

use std::collections::{BTreeMap, BTreeSet};

use driftline_drift::calibrate::{Against, ScoreKind, SignalCalibration, exact};
use driftline_drift::explain::{Cause, Known, Part, belongs, peel};
use driftline_schemas::bundle::SignalRole;
use driftline_schemas::measure::{Cohort, Finding, FindingKind, FindingState};
use serde::{Deserialize, Serialize};

use super::rollup::RollUp;
use super::state::ModelId;
use super::tell::tell;
use super::window::{Context, Fold, SUSPICION_P, Seen};

/// A story has recovered when the effect of its calm windows is below this share of what it was.
const CALM_SHARE: f64 = 0.5;
/// And is within so many standard errors of nothing.
const CALM_ERRORS: f64 = 3.3;
/// Squared standard errors that a cause must explain where cells that stood still are left out: as
/// much as a further cause must.
const STILL_GAIN_MIN: f64 = 20.0;
/// Squared standard errors that a signal must have moved by to be told of a cause beside another of its kind: as
/// much as a further cause must.
const JOINS_MIN: f64 = 20.0;
/// Windows within which a mixed cause that was seen before is told: it waits for one more window, not for ever.
const WAITS_MAX: i64 = 24;
/// Kinds in the order in which they are looked at: what explains comes before what is explained.
const KINDS: [FindingKind; 3] = [
    FindingKind::InputDrift,
    FindingKind::OutputDrift,
    FindingKind::ConceptDrift,
];

/// How one signal moved in a story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Moved {
    /// Index of the score.
    pub(super) score: usize,
    pub(super) against: Against,
    /// Mean deviation in the story's scope.
    #[serde(with = "exact")]
    pub(super) effect: f64,
    /// Squared standard errors of it.
    #[serde(with = "exact")]
    pub(super) evidence: f64,
    /// p-value of the stream that crossed first.
    #[serde(with = "exact")]
    pub(super) p_value: f64,
    /// First window of its span.
    pub(super) first: i64,
}

/// What was said of a story last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LastSaid {
    signals: BTreeSet<usize>,
    #[serde(with = "exact")]
    effect: f64,
    /// Whether errors were known to have a part in it.
    #[serde(default)]
    errors: bool,
}

/// An open story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OpenStory {
    pub(super) kind: FindingKind,
    pub(super) scope: Cohort,
    pub(super) ties: Vec<Cohort>,
    /// Window in which it opened.
    pub(super) opened: i64,
    pub(super) signals: BTreeMap<usize, Moved>,
    /// Signals of other kinds that moved with it and are explained by it.
    pub(super) also: BTreeSet<usize>,
    said: Option<LastSaid>,
}

impl OpenStory {
    /// The signal with most evidence. Where a feature by itself has moved, that is what is told: the
    /// features together then move with it.
    pub(super) fn strongest(&self, signals: &[SignalCalibration]) -> Option<(usize, &Moved)> {
        self.signals
            .iter()
            .max_by(|(a, of_a), (b, of_b)| {
                let single = |signal: usize| signals[signal].role != SignalRole::Joint;
                let surer = of_a.evidence.total_cmp(&of_b.evidence);
                single(**a).cmp(&single(**b)).then(surer).then(b.cmp(a))
            })
            .map(|(signal, moved)| (*signal, moved))
    }

    /// Whether the model is wrong more often because of it.
    pub(super) fn has_errors(&self, signals: &[SignalCalibration]) -> bool {
        let mut explained = self.also.iter();
        explained.any(|signal| signals[*signal].role == SignalRole::Error)
    }

    fn effect(&self, signals: &[SignalCalibration]) -> f64 {
        self.strongest(signals)
            .map_or(0.0, |(_, moved)| moved.effect.abs())
    }
}

/// Something to be said of a story in a window.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    pub(super) material: String,
    pub(super) finding: Finding,
}

/// A mixed cause that was not told in the window in which it was seen first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Waiting {
    signal: usize,
    scope: Cohort,
    window: i64,
}

/// The stories that are open, and what may become one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Stories {
    open: Vec<OpenStory>,
    #[serde(default)]
    waiting: Vec<Waiting>,
}

/// Identity of a story.
pub(super) fn key(id: &ModelId, kind: FindingKind, scope: &Cohort) -> String {
    let ModelId {
        tenant,
        model,
        version,
    } = id;
    format!("{tenant}/{model}/{version}/{}/{scope}", kind.name())
}

fn kind_of(role: SignalRole) -> FindingKind {
    match role {
        SignalRole::Input | SignalRole::Extra | SignalRole::Joint => FindingKind::InputDrift,
        SignalRole::Output | SignalRole::Confidence => FindingKind::OutputDrift,
        SignalRole::Error => FindingKind::ConceptDrift,
    }
}

impl Stories {
    /// Keys of all open stories.
    pub(super) fn keys(&self, id: &ModelId) -> BTreeSet<String> {
        self.open
            .iter()
            .map(|story| key(id, story.kind, &story.scope))
            .collect()
    }

    /// Scopes and signals that are not calm.
    pub(super) fn moved(&self) -> impl Iterator<Item = (&Cohort, usize)> {
        self.open.iter().flat_map(|story| {
            let signals = story.signals.keys().chain(&story.also);
            signals.map(|&signal| (&story.scope, signal))
        })
    }

    /// Takes a window's crossings in. `again` are keys that must be said when they hold.
    pub(super) fn advance(
        &mut self,
        fold: &mut Fold,
        context: &Context<'_>,
        window: i64,
        rollup: &RollUp,
        seen: &[Seen<'_>],
        again: &BTreeSet<String>,
    ) -> Vec<Statement> {
        self.waiting.retain(|it| window - it.window <= WAITS_MAX);
        for kind in KINDS {
            for (signal, crossed) in crossings(context, kind, seen) {
                self.explain(fold, context, window, rollup, seen, signal, &crossed);
            }
        }
        self.grow(context, seen);
        let calibrated = &context.subject.calibration.signals;
        let mut statements = self.recover(fold, context, window, rollup);
        let others = self.open.len();
        for at in 0..self.open.len() {
            let story = &self.open[at];
            let is_new = match &story.said {
                None => true,
                Some(said) => {
                    story.effect(calibrated) >= said.effect * context.config.update_factor
                        || (story.has_errors(calibrated) && !said.errors)
                        || story
                            .signals
                            .keys()
                            .any(|signal| !said.signals.contains(signal))
                }
            };
            if is_new || again.contains(&key(context.id, story.kind, &story.scope)) {
                let alone = others == 1;
                let state = FindingState::Drifted;
                statements.push(tell(fold, context, window, rollup, story, state, alone));
                let said = LastSaid {
                    signals: story.signals.keys().copied().collect(),
                    effect: story.effect(calibrated),
                    errors: story.has_errors(calibrated),
                };
                self.open[at].said = Some(said);
            }
        }
        statements
    }

    /// Ends all stories, since what they were found against gives way to another reference.
    pub(super) fn give_way(
        self,
        fold: &Fold,
        context: &Context<'_>,
        window: i64,
        rollup: &RollUp,
        next: &str,
    ) -> Vec<Statement> {
        let said = self.open.iter().filter(|story| story.said.is_some());
        said.map(|story| {
            let state = FindingState::Recovered;
            let mut statement = tell(fold, context, window, rollup, story, state, false);
            statement.finding.explanation = format!(
                "reference {} gave way to {next} here: {} is judged anew",
                context.subject.reference_id, statement.finding.scope
            );
            statement
        })
        .collect()
    }

    /// Finds out where a signal's drift comes from, and opens or joins stories.
    #[allow(clippy::too_many_arguments, reason = "the window at hand, taken apart")]
    fn explain(
        &mut self,
        fold: &Fold,
        context: &Context<'_>,
        window: i64,
        rollup: &RollUp,
        seen: &[Seen<'_>],
        signal: usize,
        crossed: &[&Seen<'_>],
    ) {
        let learned = &context.subject.calibration.signals[signal];
        let kind = kind_of(learned.role);
        let Some(strongest) = crossed.first().map(|seen| seen.verdict) else {
            return;
        };
        let subject = (signal, strongest.score, strongest.against);
        let parts = fold.parts(
            context,
            &rollup.expected.devices,
            subject,
            strongest.first_window,
        );
        // What explains this kind: its own stories, and inputs explain everything.
        let settled: Vec<usize> = (0..self.open.len())
            .filter(|&at| {
                let of = self.open[at].kind;
                of == kind || of == FindingKind::InputDrift
            })
            .collect();
        let known: Vec<Known> = settled
            .iter()
            .map(|&at| Known {
                scope: self.open[at].scope.clone(),
                settled: true,
            })
            .collect();
        let cohorts: Vec<Cohort> = crossed.iter().map(|seen| seen.cohort.clone()).collect();
        let peeling = peel(&parts, &cohorts, &known);
        for index in peeling.loads_on {
            let story = &mut self.open[settled[index]];
            if story.kind != kind {
                story.also.insert(signal);
            } else if !story.signals.contains_key(&signal) {
                let (effect, variance) = mean_within(&parts, &story.scope);
                let evidence = effect * effect / variance;
                if evidence >= JOINS_MIN {
                    story
                        .signals
                        .insert(signal, moved(&strongest, effect, evidence));
                }
            }
        }
        // What crossed may have been the cells that stood still alone; the others must be sure.
        let least = match fold.stood_still(signal, strongest.first_window) {
            true => STILL_GAIN_MIN,
            false => 0.0,
        };
        let credible = |cause: &Cause| {
            cause.gain >= least && (known.is_empty() || crossed_itself(&cause.scope, &cohorts))
        };
        for cause in peeling.causes.into_iter().filter(credible) {
            if !self.is_told(&parts, signal, kind, strongest.kind, &cause)
                && self.is_raised(context, seen, kind, &strongest, &cause)
                && self.has_waited(&cause, signal, window)
            {
                let moved = moved(&strongest, cause.effect, cause.gain);
                self.open(kind, cause, signal, moved, window);
            }
        }
    }

    /// Whether an open story tells of a cause already: one of which it is but a part, or for a spread
    /// one of the same signal that it overlaps with, since a shift changes spreads as well.
    fn is_told(
        &self,
        parts: &[Part],
        signal: usize,
        kind: FindingKind,
        score: ScoreKind,
        cause: &Cause,
    ) -> bool {
        self.open
            .iter()
            .filter(|story| story.kind == kind || story.kind == FindingKind::InputDrift)
            .any(|story| {
                let mut inside = parts
                    .iter()
                    .filter(|part| belongs(&cause.scope, &part.cell))
                    .map(|part| belongs(&story.scope, &part.cell));
                let spread = score == ScoreKind::Scale && story.signals.contains_key(&signal);
                match spread {
                    true => inside.any(|inside| inside),
                    false => inside.all(|inside| inside),
                }
            })
    }

    /// Whether a cause is a finding: large enough, in the direction that matters, and not about to
    /// be explained by an input.
    fn is_raised(
        &self,
        context: &Context<'_>,
        seen: &[Seen<'_>],
        kind: FindingKind,
        verdict: &driftline_drift::calibrate::StreamVerdict,
        cause: &Cause,
    ) -> bool {
        let error = kind == FindingKind::ConceptDrift;
        let smallest = context.config.smallest_effect.of(verdict.kind, error);
        if cause.effect.abs() < smallest * verdict.kind.per_unit() || (error && cause.effect < 0.0)
        {
            return false;
        }
        let suspect = |seen: &&Seen<'_>| {
            let learned = &context.subject.calibration.signals[seen.signal];
            let matters = context.config.smallest_effect.of(seen.verdict.kind, false);
            kind_of(learned.role) == FindingKind::InputDrift
                && *seen.cohort == cause.scope
                && seen.verdict.p_value <= SUSPICION_P
                && seen.verdict.effect.value.abs() >= matters
        };
        kind == FindingKind::InputDrift || !seen.iter().any(|seen| suspect(&seen))
    }

    /// Whether a cause need not be looked at for another window. A mixed one must when it is seen first: after few
    /// windows an hour in which the neighbours moved by chance makes a region of a site.
    fn has_waited(&mut self, cause: &Cause, signal: usize, window: i64) -> bool {
        let before = |it: &Waiting| it.signal == signal && it.scope == cause.scope;
        match self.waiting.iter().find(|it| before(it)) {
            Some(it) => it.window < window,
            None if cause.is_mixed => {
                self.waiting.push(Waiting {
                    signal,
                    scope: cause.scope.clone(),
                    window,
                });
                false
            }
            None => true,
        }
    }

    fn open(&mut self, kind: FindingKind, cause: Cause, signal: usize, moved: Moved, window: i64) {
        let there = self
            .open
            .iter_mut()
            .find(|story| story.kind == kind && story.scope == cause.scope);
        match there {
            Some(story) => {
                story.signals.entry(signal).or_insert(moved);
            }
            None => {
                self.open.push(OpenStory {
                    kind,
                    scope: cause.scope,
                    ties: cause.ties,
                    opened: window,
                    signals: BTreeMap::from([(signal, moved)]),
                    also: BTreeSet::new(),
                    said: None,
                });
                self.open
                    .sort_by(|a, b| (a.kind, &a.scope).cmp(&(b.kind, &b.scope)));
            }
        }
    }

    /// Takes over an effect that has grown.
    fn grow(&mut self, context: &Context<'_>, seen: &[Seen<'_>]) {
        let factor = context.config.update_factor;
        for story in &mut self.open {
            for seen in seen.iter().filter(|seen| seen.verdict.crossed) {
                if *seen.cohort != story.scope {
                    continue;
                }
                let Some(moved) = story.signals.get_mut(&seen.signal) else {
                    continue;
                };
                let verdict = &seen.verdict;
                let effect = verdict.effect.value * verdict.kind.per_unit();
                if verdict.score == moved.score && effect.abs() >= moved.effect.abs() * factor {
                    moved.effect = effect;
                    moved.evidence = moved.evidence.max(verdict.statistic.powi(2));
                }
            }
        }
    }

    /// Ends the stories that have been calm for long enough.
    fn recover(
        &mut self,
        fold: &mut Fold,
        context: &Context<'_>,
        window: i64,
        rollup: &RollUp,
    ) -> Vec<Statement> {
        let calm = i64::from(context.config.calm_windows);
        let first = window - calm + 1;
        let mut ended = Vec::new();
        let mut statements = Vec::new();
        for (at, story) in self.open.iter().enumerate() {
            let is_calm = |(signal, moved): (&usize, &Moved)| {
                let subject = (*signal, moved.score, moved.against);
                let parts = fold.parts(context, &rollup.expected.devices, subject, first);
                let (effect, variance) = mean_within(&parts, &story.scope);
                variance.is_finite()
                    && effect * moved.effect.signum() < CALM_SHARE * moved.effect.abs()
                    && effect.abs() <= CALM_ERRORS * variance.sqrt()
            };
            if story.opened <= first && story.signals.iter().all(is_calm) {
                let state = FindingState::Recovered;
                statements.push(tell(fold, context, window, rollup, story, state, false));
                ended.push(at);
            }
        }
        for at in ended.into_iter().rev() {
            let story = self.open.remove(at);
            let streams = fold.streams.values_mut();
            for (signal, stream) in streams.flat_map(|it| it.iter_mut().enumerate()) {
                if story.signals.contains_key(&signal) || story.also.contains(&signal) {
                    stream.forget_before(first);
                }
            }
        }
        statements
    }
}

fn moved(verdict: &driftline_drift::calibrate::StreamVerdict, effect: f64, evidence: f64) -> Moved {
    Moved {
        score: verdict.score,
        against: verdict.against,
        effect,
        evidence,
        p_value: verdict.decides_p,
        first: verdict.first_window,
    }
}

/// Whether a cohort crossed, or of a pair, which is not judged by itself, one of its values. What is asked of a cause
/// beside settled ones: what crossed is explained by these, and cells alone have no alarm budget.
fn crossed_itself(scope: &Cohort, crossed: &[Cohort]) -> bool {
    let mut values = scope
        .0
        .iter()
        .map(|(attribute, value)| Cohort::of(attribute, value));
    crossed.contains(scope) || (scope.0.len() > 1 && values.any(|value| crossed.contains(&value)))
}

/// Mean deviation of the cells of a scope, and its variance; infinite without rows.
pub(super) fn mean_within(parts: &[Part], scope: &Cohort) -> (f64, f64) {
    let (mut sum, mut rows, mut variance) = (0.0, 0.0, 0.0);
    for part in parts.iter().filter(|part| belongs(scope, &part.cell)) {
        sum += part.rows * part.deviation;
        rows += part.rows;
        variance += part.rows * part.rows * part.variance;
    }
    if rows > 0.0 {
        (
            sum / rows,
            (variance / (rows * rows)).max(f64::MIN_POSITIVE),
        )
    } else {
        (0.0, f64::INFINITY)
    }
}

/// Signals of a kind that crossed, the surest first, each with its cohorts, the surest first. Features
/// together come last: what moved by itself explains that they did.
fn crossings<'a, 's>(
    context: &Context<'_>,
    kind: FindingKind,
    seen: &'s [Seen<'a>],
) -> Vec<(usize, Vec<&'s Seen<'a>>)> {
    let mut by_signal: BTreeMap<usize, Vec<&Seen<'a>>> = BTreeMap::new();
    for seen in seen.iter().filter(|seen| seen.verdict.crossed) {
        let role = context.subject.calibration.signals[seen.signal].role;
        if kind_of(role) == kind {
            by_signal.entry(seen.signal).or_default().push(seen);
        }
    }
    let mut all: Vec<(usize, Vec<&Seen<'a>>)> = by_signal.into_iter().collect();
    for (_, crossed) in &mut all {
        // Stable, so that of equals the coarser and then the alphabetically first comes first.
        crossed.sort_by(|a, b| a.verdict.decides_p.total_cmp(&b.verdict.decides_p));
    }
    all.sort_by(|a, b| {
        let least = |crossed: &[&Seen<'_>]| crossed.first().map_or(1.0, |s| s.verdict.decides_p);
        let together =
            |signal: usize| context.subject.calibration.signals[signal].role == SignalRole::Joint;
        let surer = least(&a.1).total_cmp(&least(&b.1));
        together(a.0)
            .cmp(&together(b.0))
            .then(surer)
            .then(a.0.cmp(&b.0))
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(is_mixed: bool) -> Cause {
        Cause {
            scope: Cohort::of("region", "west"),
            ties: Vec::new(),
            effect: 1.0,
            gain: 50.0,
            is_mixed,
        }
    }

    /// A mixed cause is told when it is seen a second time, in whatever window of the next day, also where it has
    /// become clear by then; another signal's waits for itself. A clear one is told at once.
    #[test]
    fn a_mixed_cause_waits_for_one_more_window() {
        let mut stories = Stories::default();
        assert!(stories.has_waited(&cause(false), 0, 10));
        assert!(!stories.has_waited(&cause(true), 0, 10));
        assert!(!stories.has_waited(&cause(true), 1, 11));
        assert!(stories.has_waited(&cause(true), 0, 11));
        assert!(stories.has_waited(&cause(false), 0, 10 + WAITS_MAX));
    }
}
