//! Findings in words.

use driftline_drift::calibrate::{Against, Effect, EffectUnit, ScoreKind, SignalCalibration};
use driftline_drift::explain::{
    ABOUT_THE_PAST, Pair, Query, Story, belongs, rank_attributes, rank_signals, sql,
};
use driftline_schemas::bundle::{FeatureType, SignalRole};
use driftline_schemas::measure::{
    Change, ErrorRise, Finding, FindingKind, FindingState, MEASURE_FORMAT,
};
use driftline_schemas::profile::{Profile, SignalProfile};

use super::rollup::RollUp;
use super::stories::{Moved, OpenStory, Statement, key, mean_within};
use super::window::{Context, Fold};

/// Share of the estate's shift from which on it is told: less says more about the noise of the rest.
const OF_ESTATE_MIN: f64 = 0.5;

/// Share from which on a part of a loss is told as all of it.
const MOSTLY: f64 = 0.8;

/// Most changes that the sentence names; the finding lists more.
const CHANGES_SHOWN: usize = 3;

/// Makes the finding that says a story's state in a window. `alone`: no other story is open.
pub(super) fn tell(
    fold: &Fold,
    context: &Context<'_>,
    window: i64,
    rollup: &RollUp,
    story: &OpenStory,
    state: FindingState,
    alone: bool,
) -> Statement {
    let window_us = context.config.window.us();
    let signals = &context.subject.calibration.signals;
    let evidence: Vec<(&str, f64)> = story
        .signals
        .iter()
        .map(|(signal, moved)| (signals[*signal].signal.as_str(), moved.evidence))
        .collect();
    let mut finding = Finding {
        format: MEASURE_FORMAT,
        key: key(context.id, story.kind, &story.scope),
        tenant: context.id.tenant.to_string(),
        model: context.id.model.to_string(),
        version: context.id.version.to_string(),
        kind: story.kind,
        scope: story.scope.to_string(),
        state,
        revision: 0,
        window_start_us: window * window_us,
        window_end_us: (window + 1) * window_us,
        signals: rank_signals(&evidence),
        attributes: Vec::new(),
        changes: Vec::new(),
        error_rise: None,
        evidence: String::new(),
        explanation: String::new(),
        sql: String::new(),
        reference: context.subject.reference_id.clone(),
        config: context.digest.to_owned(),
    };
    if let Some((signal, moved)) = story.strongest(signals) {
        // The signal that is told comes first, whatever lies closer behind it.
        let told = signals[signal].signal.as_str();
        finding.signals.sort_by_key(|it| it.name != told);
        let subject = (signal, moved.score, moved.against);
        let parts = fold.parts(context, &rollup.expected.devices, subject, moved.first);
        finding.attributes = rank_attributes(&parts);
        let scope = &finding.scope;
        let of_estate = finding.attributes.iter().find(|a| a.name == *scope);
        let of_estate = of_estate
            .map(|attribute| attribute.share)
            .filter(|share| *share >= OF_ESTATE_MIN);
        let learned = &signals[signal];
        if state == FindingState::Drifted {
            finding.error_rise = error_rise(fold, context, rollup, story, moved);
            let (version, since_us) = (&context.id.version, moved.first * window_us);
            finding.changes = fold.arrivals.before(&story.scope, version, since_us);
        }
        finding.evidence = evidence_text(&learned.signal, learned.scores[moved.score].kind, moved);
        let span = Telling {
            context,
            rollup,
            story,
            signal,
            moved,
            changes: &finding.changes,
            error_rise: finding.error_rise,
        };
        finding.explanation = match state {
            FindingState::Drifted => span.sentence(of_estate, alone),
            _ => format!(
                "{} at {} is back to what it was for {} windows",
                learned.signal, finding.scope, context.config.calm_windows
            ),
        };
        finding.sql = sql(&Query {
            tenant: &finding.tenant,
            model: &finding.model,
            version: &finding.version,
            signal: &learned.signal,
            cohort: &story.scope,
            start_us: moved.first * window_us,
            end_us: finding.window_end_us,
            pairs: &span.pairs(),
            reference_bins: &rollup.expected.profile.signals[signal].bins,
        });
    }
    Statement {
        material: material(state, story, signals),
        finding,
    }
}

/// By how much more the model is wrong in a story's scope since its strongest signal moved, and what its confidence
/// foresees of that; `None` where errors have no part in the story or nothing was learned of them.
fn error_rise(
    fold: &Fold,
    context: &Context<'_>,
    rollup: &RollUp,
    story: &OpenStory,
    strongest: &Moved,
) -> Option<ErrorRise> {
    let signals = &context.subject.calibration.signals;
    let is_error = |signal: &&usize| signals[**signal].role == SignalRole::Error;
    let all = || story.signals.keys().chain(&story.also);
    let error = *all().find(is_error)?;
    let within = |signal: usize, score: usize| {
        let subject = (signal, score, strongest.against);
        let devices = &rollup.expected.devices;
        let parts = fold.parts(context, devices, subject, strongest.first);
        let (mean, variance) = mean_within(&parts, &story.scope);
        variance.is_finite().then(|| (mean, variance.sqrt()))
    };
    let score_of = |signal: usize, kind: ScoreKind| {
        let mut scores = signals[signal].scores.iter();
        scores.position(|it| it.kind == kind)
    };
    let foreseen = (0..signals.len())
        .find_map(|signal| Some((signal, score_of(signal, ScoreKind::Foreseen)?)))?;
    let (rise, rise_error) = within(error, score_of(error, ScoreKind::Share(1))?)?;
    let (foreseen, foreseen_error) = within(foreseen.0, foreseen.1)?;
    Some(ErrorRise {
        rise,
        rise_error,
        foreseen,
        foreseen_error,
    })
}

/// What must change for a finding to be said again.
fn material(state: FindingState, story: &OpenStory, calibrated: &[SignalCalibration]) -> String {
    let mut signals: Vec<String> = story.signals.keys().map(usize::to_string).collect();
    signals.extend(story.has_errors(calibrated).then(|| "errors".into()));
    let state = match state {
        FindingState::Drifted => "drifted",
        FindingState::Recovered => "recovered",
        FindingState::Refuted => "refuted",
    };
    format!("{state} {}", signals.join(" "))
}

fn evidence_text(signal: &str, kind: ScoreKind, moved: &Moved) -> String {
    format!(
        "{signal}: calibrated shift of {} p = {:.1e}, {:.1} standard errors",
        kind.name(),
        moved.p_value,
        moved.evidence.sqrt()
    )
}

/// The strongest signal of a story, to be told.
struct Telling<'a> {
    context: &'a Context<'a>,
    rollup: &'a RollUp,
    story: &'a OpenStory,
    signal: usize,
    moved: &'a Moved,
    /// What came up in the scope in the day before.
    changes: &'a [Change],
    /// What became of the errors there.
    error_rise: Option<ErrorRise>,
}

impl Telling<'_> {
    fn sentence(&self, of_estate: Option<f64>, alone: bool) -> String {
        let signals = &self.context.subject.calibration.signals;
        let learned = &signals[self.signal];
        let score = &learned.scores[self.moved.score];
        let layout = &self.context.subject.layout().signals()[self.signal];
        let (unit, category) = match (&layout.signal.kind, score.kind) {
            (FeatureType::Numeric { unit, .. }, _) => (unit.as_str(), None),
            (FeatureType::Categorical { categories }, ScoreKind::Share(code)) => {
                ("", categories.get(code as usize).map(String::as_str))
            }
            (FeatureType::Categorical { .. }, _) => ("", None),
        };
        let whole = self.whole();
        let expected = &self.rollup.expected.profile.signals[self.signal];
        let resolution = layout.resolution();
        let together = learned.role == SignalRole::Joint;
        let told = |profile: &SignalProfile| match together {
            // A mean of squares would be what the farthest few rows say.
            true => median(profile, &layout.edges) * resolution,
            false => number(score.kind, &score.weights, profile, resolution),
        };
        let (now, before) = (told(&whole.signals[self.signal]), told(expected));
        let (also, remarks) = self.others();
        let error = self.story.kind == FindingKind::ConceptDrift;
        Story {
            signal: &learned.signal,
            error,
            together,
            unit,
            kind: score.kind,
            category,
            scope: &self.story.scope,
            effect: Effect {
                value: self.moved.effect / score.kind.per_unit(),
                lower: 0.0,
                unit: EffectUnit::ReferenceSd,
            },
            against: Against::Reference,
            now,
            before,
            since: &time_text(self.moved.first * self.context.config.window.us()),
            of_estate,
            others_unchanged: alone,
            ties: &self.story.ties,
            also: &also,
            remarks: &remarks,
            past: false,
        }
        .tell()
    }

    /// The scope's cells in this window, merged.
    fn whole(&self) -> Profile {
        let mut whole = Profile::empty(self.context.subject.layout());
        for cell in &self.rollup.cells {
            if belongs(&self.story.scope, &cell.cell) {
                // All are of the subject's layout.
                let _ = whole.merge(&cell.profile);
            }
        }
        whole
    }

    /// The pairs of features whose correlation a person looks at first, where it is the features together
    /// that moved.
    fn pairs(&self) -> Vec<Pair<'_>> {
        let subject = &self.context.subject;
        let is_together = subject.calibration.signals[self.signal].role == SignalRole::Joint;
        let Some(joint) = subject.joint.as_ref().filter(|_| is_together) else {
            return Vec::new();
        };
        let pair = |tie: &driftline_schemas::joint::Tie| {
            let (a, b) = (&joint.features[tie.a], &joint.features[tie.b]);
            Pair {
                names: [&a.name, &b.name],
                at: [a.at, b.at],
                correlation: tie.correlation,
            }
        };
        joint.ties.iter().map(pair).collect()
    }

    /// A rise of the errors, told apart, where it is clear.
    fn told_rise(&self) -> Option<String> {
        let rise = self.error_rise?;
        let share = rise.foreseen_share()?;
        let points = format!("{:.1} points", rise.rise * 100.0);
        let what = match self.story.kind {
            FindingKind::ConceptDrift => format!("of these {points}"),
            _ => {
                format!("the model is wrong there for {points} more of the labelled rows, of which")
            }
        };
        let less_sure = "inputs that it is less sure of";
        let other = "what inputs say of the truth has changed, or it is surer than it should be";
        let why = match share {
            share if share >= MOSTLY => less_sure.to_owned(),
            share if share <= 1.0 - MOSTLY => other.to_owned(),
            _ => format!("that part is {less_sure}; for the rest, {other}"),
        };
        Some(format!(
            "{what} its confidence foresees {:.0} %: {why}",
            share * 100.0
        ))
    }

    fn others(&self) -> (Vec<String>, Vec<String>) {
        let signals = &self.context.subject.calibration.signals;
        let name = |signal: &usize| signals[*signal].signal.clone();
        let also = self
            .story
            .signals
            .keys()
            .filter(|signal| **signal != self.signal)
            .map(name)
            .collect();
        let rise = self.told_rise();
        let is_told =
            |signal: &&usize| rise.is_some() && signals[**signal].role == SignalRole::Error;
        let explained = self.story.also.iter().filter(|signal| !is_told(signal));
        let explained: Vec<String> = explained.map(name).collect();
        let mut remarks = Vec::new();
        for change in self.changes.iter().take(CHANGES_SHOWN) {
            let at = time_text(change.at_us);
            remarks.push(format!("{} came up there at {at}", change.what));
        }
        if self.story.kind == FindingKind::ConceptDrift {
            remarks.push("the inputs there are as they were".into());
        }
        remarks.extend(rise);
        let pairs = self.pairs();
        if let Some(pair) = pairs.first() {
            remarks.push(format!(
                "in training {} and {} went together most closely (correlation {:.2}), the finding's SQL has what it is there now",
                pair.names[0], pair.names[1], pair.correlation
            ));
        }
        if !explained.is_empty() {
            remarks.push(format!(
                "it explains the change of {} there",
                explained.join(", ")
            ));
        }
        (also, remarks)
    }
}

/// What people compare: the mean or the standard deviation of numbers, the share of what is counted.
fn number(kind: ScoreKind, weights: &[f64], profile: &SignalProfile, resolution: f64) -> f64 {
    let share = |count: u64| count as f64 / (profile.rows() as f64).max(1.0);
    match kind {
        ScoreKind::Location => profile.mean(resolution).unwrap_or(0.0),
        ScoreKind::Scale => profile.variance(resolution).unwrap_or(0.0).sqrt(),
        ScoreKind::Missing => share(profile.nulls),
        ScoreKind::NonFinite => share(profile.non_finite),
        ScoreKind::Unseen => share(profile.unseen),
        ScoreKind::Share(_)
        | ScoreKind::OtherShares
        | ScoreKind::Elsewhere
        | ScoreKind::Foreseen => {
            let counted: f64 = profile
                .bins
                .iter()
                .zip(weights)
                .map(|(&count, weight)| count as f64 * weight)
                .sum();
            counted / (profile.binned() as f64).max(1.0)
        }
    }
}

/// Where half of the values lie below, in units of last place, evenly within the bin; in the last bin, which
/// has no end, where it begins.
fn median(profile: &SignalProfile, edges: &[i32]) -> f64 {
    let half = profile.binned() as f64 / 2.0;
    let mut below = 0.0;
    for (bin, count) in profile.bins.iter().map(|count| *count as f64).enumerate() {
        if below + count >= half && count > 0.0 {
            let start = match bin {
                0 => profile.min,
                _ => edges.get(bin - 1).copied(),
            };
            let start = f64::from(start.unwrap_or(0));
            let end = edges.get(bin).map_or(start, |edge| f64::from(*edge));
            return start + (end - start) * (half - below) / count;
        }
        below += count;
    }
    0.0
}

/// `2026-01-05 09:00 UTC`.
fn time_text(time_us: i64) -> String {
    match jiff::Timestamp::from_microsecond(time_us) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        Err(_) => format!("{time_us} us"),
    }
}

/// The same explanation, of a window that had ended long before.
pub(super) fn about_the_past(explanation: &str) -> String {
    format!("{ABOUT_THE_PAST}{explanation}")
}
