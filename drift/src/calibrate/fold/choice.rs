//! Which of a window's tests decides.

use std::f64::consts::SQRT_2;
use std::sync::OnceLock;

use driftline_schemas::bundle::SignalRole;
use statrs::function::erf::erfc_inv;

use super::super::judge::ScoreTest;
use super::super::scores::ScoreKind;
use super::super::{SPANS, SignalCalibration};
use super::{Against, CHANGE_SPANS, LIKELY_P, Reach, SPAN_WEIGHTS, StreamVerdict, Terms};

/// Numbers of scores for which quantiles are kept: more than any signal has.
const SCORES_TABLED: usize = 16;

/// The tests of a window so far.
pub(super) struct Choice {
    /// Scores of the signal.
    scores: usize,
    best: Option<StreamVerdict>,
    /// Best of the location's.
    location: Option<StreamVerdict>,
    least_p: Option<f64>,
}

impl Choice {
    pub(super) fn new(scores: usize) -> Self {
        Self {
            scores,
            best: None,
            location: None,
            least_p: None,
        }
    }

    /// A statistic up to which a test of a span has the p-value 1 after Bonferroni, so that its tail need not be
    /// worked out: Student's tails are never below the normal distribution's, whatever the degrees of freedom.
    pub(super) fn negligible(&self, span: usize, signal: &SignalCalibration) -> f64 {
        // One-sided p-values are half as large.
        match signal.role {
            SignalRole::Error => 0.0,
            _ => quantiles(self.scores)[span],
        }
    }

    pub(super) fn add(
        &mut self,
        terms: &Terms<'_>,
        reach: &Reach,
        score: usize,
        against: Against,
        tested: &ScoreTest,
    ) {
        let scores = &terms.signal.scores;
        let p_value = (tested.p_value / weight(reach.index, self.scores)).min(1.0);
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

/// Two-sided normal quantiles of the weights of the spans, for a number of scores.
fn quantiles(scores: usize) -> &'static [f64; SPANS.len()] {
    static TABLE: OnceLock<Vec<[f64; SPANS.len()]>> = OnceLock::new();
    const NONE: [f64; SPANS.len()] = [0.0; SPANS.len()];
    let table = TABLE.get_or_init(|| {
        let of = |scores: usize| {
            // A little less, since it is a bound.
            let quantile = |span| SQRT_2 * erfc_inv(weight(span, scores)) - 1e-6;
            std::array::from_fn(|span| quantile(span).max(0.0))
        };
        (1..=SCORES_TABLED).map(of).collect()
    });
    table.get(scores.wrapping_sub(1)).unwrap_or(&NONE)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::student_t_two_sided;

    /// What is not worked out would have come to 1: at and below the bound, p over its weight is 1 at least, whatever the
    /// degrees of freedom.
    #[test]
    fn what_is_negligible_has_the_p_value_1() {
        for scores in 1..=SCORES_TABLED {
            for (span, bound) in quantiles(scores).iter().enumerate() {
                for degrees in [0.5, 1.0, 3.7, 30.0, 1e3, 1e6] {
                    let p_value = student_t_two_sided(*bound, degrees);
                    assert!(p_value >= weight(span, scores), "{scores} {span} {degrees}");
                }
            }
        }
        assert_eq!(quantiles(0), &[0.0; SPANS.len()]);
        assert_eq!(quantiles(SCORES_TABLED + 1), &[0.0; SPANS.len()]);
    }
}
