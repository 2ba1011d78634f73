//! Which of a window's tests decides.

use super::super::judge::ScoreTest;
use super::super::scores::ScoreKind;
use super::{Against, CHANGE_SPANS, LIKELY_P, Reach, SPAN_WEIGHTS, StreamVerdict, Terms};

/// The tests of a window so far.
#[derive(Default)]
pub(super) struct Choice {
    best: Option<StreamVerdict>,
    /// Best of the location's.
    location: Option<StreamVerdict>,
    least_p: Option<f64>,
}

impl Choice {
    pub(super) fn add(
        &mut self,
        terms: &Terms<'_>,
        reach: &Reach,
        score: usize,
        against: Against,
        tested: &ScoreTest,
    ) {
        let scores = &terms.signal.scores;
        let p_value = (tested.p_value / weight(reach.index, scores.len())).min(1.0);
        self.least_p = Some(self.least_p.map_or(p_value, |least| least.min(p_value)));
        let verdict = StreamVerdict {
            p_value,
            decides_p: p_value,
            score,
            kind: scores[score].kind,
            against,
            first_window: reach.first_window,
            statistic: tested.statistic,
            effect: tested.effect,
            matters: tested.matters,
            rows_effective: tested.rows_effective,
            crossed: p_value <= terms.threshold && tested.matters,
        };
        let decides =
            |best: &Option<StreamVerdict>| best.is_none_or(|best| decides_before(&verdict, &best));
        if decides(&self.best) {
            self.best = Some(verdict);
        }
        if verdict.kind == ScoreKind::Location && decides(&self.location) {
            self.location = Some(verdict);
        }
    }

    pub(super) fn verdict(self) -> Option<StreamVerdict> {
        let mut verdict = named_by(self.best?, self.location);
        verdict.p_value = self.least_p.unwrap_or(verdict.p_value);
        Some(verdict)
    }
}

/// Weight of one test of a span among all that a stream takes part in; they add to one.
fn weight(span: usize, scores: usize) -> f64 {
    let tests = if span < CHANGE_SPANS { 2.0 } else { 1.0 };
    SPAN_WEIGHTS[span] / (tests * scores as f64)
}

/// A shift widens as well, and the spread is often the surer of the two, since devices differ less in
/// it: where the location is likely to have moved too, the drift is named by the location, on the
/// strength of the spread.
fn named_by(best: StreamVerdict, location: Option<StreamVerdict>) -> StreamVerdict {
    match location {
        Some(location)
            if best.crossed
                && best.kind == ScoreKind::Scale
                && location.matters
                && location.decides_p <= LIKELY_P =>
        {
            StreamVerdict {
                decides_p: best.decides_p,
                crossed: true,
                ..location
            }
        }
        _ => best,
    }
}

/// Crossed before not, of those that crossed the scale last (a large shift widens as well), effects
/// that matter before others, then the least p-value; of equals the first, so the shortest span.
fn decides_before(a: &StreamVerdict, b: &StreamVerdict) -> bool {
    let scale = |verdict: &StreamVerdict| verdict.crossed && verdict.kind == ScoreKind::Scale;
    let rank = |verdict: &StreamVerdict| (!verdict.crossed, scale(verdict), !verdict.matters);
    match rank(a).cmp(&rank(b)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => a.decides_p < b.decides_p,
    }
}
