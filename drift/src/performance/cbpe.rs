//! Performance without labels, from the model's own probabilities.
//!
//! Confidence-based performance estimation: when p is calibrated, a row predicted positive is a true
//! positive with probability p and a false positive with 1 − p, so the expected confusion counts of
//! unlabelled rows are sums of p, and metrics follow from them. AUROC and average precision use the
//! expected numbers of positives and negatives in score order. The method sees a change of the
//! inputs' distribution and is blind, by construction, to a change of P(y | x).
//!
//! What a [`Reference`] with labels fixes: the calibration, where it helps; each metric's sampling
//! error, which for n rows is c/√n; and the thresholds, mean ± 3 standard deviations of the realised
//! metric over reference chunks, within \[0, 1\].
//!
//! | | native | NannyML 0.13 |
//! | --- | --- | --- |
//! | undefined (no predicted positive, …) | `None` | 0 |
//! | AUROC, average precision | by distinct score | by row, counts rounded to 5 decimals |
//! | c of AUROC | DeLong | standard deviation of the positives' ranks only |
//! | c of F1 | delta method | standard deviation of scaled true positives |
//! | c of average precision | delete-a-group jackknife | bootstrap with a random seed: ours is used |
//! | spread of reference chunks | at least the sampling error | as it is, 0 for one chunk |
//!
//! NannyML's c of AUROC depends on the order in which an unstable sort leaves tied scores, hence on
//! the machine; here tied rows keep their order.

use serde::{Deserialize, Serialize};

use super::calibration::{Isotonic, calibration_helps};
use super::classification::BinaryCounts;
use super::interval::Interval;
use super::roc::average_precision_of;
use super::{PerformanceError, check_length, check_scores, ratio};

mod sampling;
mod top_label;

pub use top_label::TopLabel;

/// Standard deviations on both sides of the reference's mean that a metric may move.
const THRESHOLD_DEVIATIONS: f64 = 3.0;

/// Standard errors on both sides of an estimate that its bounds take in.
const BOUND_ERRORS: f64 = 3.0;

/// A metric that can be estimated without labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Area under the ROC curve.
    RocAuc,
    /// Average precision.
    AveragePrecision,
    /// F1.
    F1,
    /// Precision.
    Precision,
    /// Recall.
    Recall,
    /// Specificity.
    Specificity,
    /// Accuracy.
    Accuracy,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 7] = [
        Self::RocAuc,
        Self::AveragePrecision,
        Self::F1,
        Self::Precision,
        Self::Recall,
        Self::Specificity,
        Self::Accuracy,
    ];

    /// The name used in configuration and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RocAuc => "roc_auc",
            Self::AveragePrecision => "average_precision",
            Self::F1 => "f1",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Specificity => "specificity",
            Self::Accuracy => "accuracy",
        }
    }
}

/// Whose definition is followed; the module's table says where they differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// Driftline's own.
    #[default]
    Native,
    /// NannyML 0.13.
    Nannyml,
}

/// Rows with labels, in time order: three columns of one table.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// Probability of the positive class.
    pub scores: &'a [f64],
    /// Whether the model decided for it.
    pub predicted: &'a [bool],
    /// Whether it was so.
    pub actual: &'a [bool],
}

/// Unlabelled rows with one score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreCount {
    /// The score.
    pub score: f64,
    /// Rows predicted positive.
    pub predicted_positive: u64,
    /// Rows predicted negative.
    pub predicted_negative: u64,
}

/// One metric's estimate for a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricEstimate {
    /// Which metric.
    pub metric: Metric,
    /// The estimate; none where the metric is not defined on the chunk.
    pub value: Option<f64>,
    /// Standard error from the number of rows; none where the reference does not define it.
    pub sampling_error: Option<f64>,
    /// Three standard errors on both sides, within \[0, 1\].
    pub bounds: Option<Interval>,
    /// Reference mean ± 3 standard deviations of chunks, within \[0, 1\].
    pub thresholds: Option<Interval>,
    /// Whether the estimate is outside of the thresholds.
    pub alert: bool,
}

/// An estimator fitted on a reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cbpe {
    definition: Definition,
    calibration: Option<Isotonic>,
    metrics: Vec<Fitted>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Fitted {
    metric: Metric,
    /// Sampling error of n rows, times √n.
    unit_error: Option<f64>,
    thresholds: Option<Interval>,
}

/// Expected or counted outcomes.
#[derive(Debug, Clone, Copy, Default)]
struct Outcomes {
    tp: f64,
    fp: f64,
    tn: f64,
    fn_: f64,
}

impl Outcomes {
    fn metric(&self, metric: Metric) -> Option<f64> {
        let Self { tp, fp, tn, fn_ } = *self;
        match metric {
            Metric::F1 => ratio(tp, tp + 0.5 * (fp + fn_)),
            Metric::Precision => ratio(tp, tp + fp),
            Metric::Recall => ratio(tp, tp + fn_),
            Metric::Specificity => ratio(tn, tn + fp),
            Metric::Accuracy => ratio(tp + tn, tp + fp + tn + fn_),
            Metric::RocAuc | Metric::AveragePrecision => None,
        }
    }
}

impl Cbpe {
    /// Learns calibration, sampling errors and thresholds. `chunk_rows` is the size of the chunks
    /// whose realised metrics set the thresholds; rows that do not fill the last one form one too.
    ///
    /// # Errors
    /// Columns that differ in length, no rows, a score that is not a probability, labels of one
    /// class, or chunks of no rows.
    pub fn fit(
        reference: Reference<'_>,
        chunk_rows: usize,
        definition: Definition,
    ) -> Result<Self, PerformanceError> {
        let Reference {
            scores,
            predicted,
            actual,
        } = reference;
        check_scores(scores)?;
        check_length("predicted", predicted.len(), scores.len())?;
        check_length("actual", actual.len(), scores.len())?;
        if actual.iter().all(|y| *y == actual[0]) {
            return Err(PerformanceError::OneClass { class: actual[0] });
        }
        if chunk_rows == 0 {
            return Err(PerformanceError::Setting {
                name: "rows of a chunk",
                value: 0.0,
                expected: "at least 1",
            });
        }
        let calibration = if calibration_helps(scores, actual)? {
            Some(Isotonic::fit(scores, actual)?)
        } else {
            None
        };
        let errors = sampling::unit_errors(&reference, definition)?;
        let mut chunks = Vec::new();
        for start in (0..scores.len()).step_by(chunk_rows) {
            let rows = start..(start + chunk_rows).min(scores.len());
            let chunk = Reference {
                scores: &scores[rows.clone()],
                predicted: &predicted[rows.clone()],
                actual: &actual[rows],
            };
            chunks.push(realised(&chunk)?);
        }
        let metrics = Metric::ALL
            .into_iter()
            .enumerate()
            .map(|(at, metric)| {
                let values: Vec<_> = chunks.iter().filter_map(|c| c[at]).collect();
                let floor = match definition {
                    Definition::Native => errors[at].unwrap_or(0.0) / (chunk_rows as f64).sqrt(),
                    Definition::Nannyml => 0.0,
                };
                Fitted {
                    metric,
                    unit_error: errors[at],
                    thresholds: thresholds(&values, floor),
                }
            })
            .collect();
        Ok(Self {
            definition,
            calibration,
            metrics,
        })
    }

    /// Whether scores are calibrated before they are used.
    pub fn is_calibrated(&self) -> bool {
        self.calibration.is_some()
    }

    fn probability(&self, score: f64) -> f64 {
        let calibration = self.calibration.as_ref();
        calibration.map_or(score, |c| c.calibrate(score))
    }

    /// Estimates every metric of a chunk of unlabelled rows.
    ///
    /// # Errors
    /// Columns that differ in length, no rows, or a score that is not a probability.
    pub fn estimate(
        &self,
        scores: &[f64],
        predicted: &[bool],
    ) -> Result<Vec<MetricEstimate>, PerformanceError> {
        check_scores(scores)?;
        check_length("predicted", predicted.len(), scores.len())?;
        let mut rows: Vec<_> = scores
            .iter()
            .copied()
            .zip(predicted.iter().copied())
            .collect();
        rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let counts: Vec<_> = rows
            .chunk_by(|a, b| a.0 == b.0)
            .map(|tied| {
                let positive = tied.iter().filter(|r| r.1).count() as u64;
                ScoreCount {
                    score: tied[0].0,
                    predicted_positive: positive,
                    predicted_negative: tied.len() as u64 - positive,
                }
            })
            .collect();
        Ok(self.estimate_sorted(&counts))
    }

    /// The same from counts per score, as a profile has them; scores ascending and distinct.
    ///
    /// # Errors
    /// No rows, a score that is not a probability, or scores out of order.
    pub fn estimate_counts(
        &self,
        counts: &[ScoreCount],
    ) -> Result<Vec<MetricEstimate>, PerformanceError> {
        let scores: Vec<_> = counts.iter().map(|c| c.score).collect();
        check_scores(&scores)?;
        if let Some(at) = scores.windows(2).position(|w| w[0] >= w[1]) {
            return Err(PerformanceError::Setting {
                name: "score after a larger one",
                value: scores[at + 1],
                expected: "in ascending order",
            });
        }
        if counts
            .iter()
            .all(|c| c.predicted_positive + c.predicted_negative == 0)
        {
            return Err(PerformanceError::Empty);
        }
        Ok(self.estimate_sorted(counts))
    }

    fn estimate_sorted(&self, counts: &[ScoreCount]) -> Vec<MetricEstimate> {
        let mut outcomes = Outcomes::default();
        // (expected positives, expected negatives), scores ascending.
        let mut groups = Vec::with_capacity(counts.len());
        let mut rows = 0;
        for c in counts {
            let p = self.probability(c.score);
            let (yes, no) = (c.predicted_positive as f64, c.predicted_negative as f64);
            outcomes.tp += p * yes;
            outcomes.fp += (1.0 - p) * yes;
            outcomes.fn_ += p * no;
            outcomes.tn += (1.0 - p) * no;
            groups.push((p, c.predicted_positive + c.predicted_negative));
            rows += c.predicted_positive + c.predicted_negative;
        }
        let ranking = match self.definition {
            Definition::Native => Ranking::by_score(&groups),
            Definition::Nannyml => Ranking::by_row(&groups),
        };
        let finish = |fitted: &Fitted| {
            let value = match fitted.metric {
                Metric::RocAuc => ranking.roc_auc,
                Metric::AveragePrecision => ranking.average_precision,
                other => outcomes.metric(other).or(match self.definition {
                    Definition::Native => None,
                    Definition::Nannyml => Some(0.0),
                }),
            };
            fitted.finish(value, rows)
        };
        self.metrics.iter().map(finish).collect()
    }
}

impl MetricEstimate {
    /// The same when rows are alike: the sampling error times the root of the design effect, and
    /// bounds to match. Thresholds stay, as chunks of the reference were alike too.
    #[must_use]
    pub fn with_design_effect(self, design_effect: f64) -> Self {
        let sampling_error = self.sampling_error.map(|e| e * design_effect.sqrt());
        Self {
            sampling_error,
            bounds: bounds(self.value, sampling_error),
            ..self
        }
    }
}

fn bounds(value: Option<f64>, sampling_error: Option<f64>) -> Option<Interval> {
    value.zip(sampling_error).map(|(v, e)| {
        let reach = BOUND_ERRORS * e;
        Interval {
            low: v - reach,
            high: v + reach,
        }
        .clipped(0.0, 1.0)
    })
}

impl Fitted {
    fn finish(&self, value: Option<f64>, rows: u64) -> MetricEstimate {
        let sampling_error = self.unit_error.map(|c| c / (rows as f64).sqrt());
        let outside = value
            .zip(self.thresholds)
            .is_some_and(|(v, t)| !t.contains(v));
        MetricEstimate {
            metric: self.metric,
            value,
            sampling_error,
            bounds: bounds(value, sampling_error),
            thresholds: self.thresholds,
            alert: outside,
        }
    }
}

struct Ranking {
    roc_auc: Option<f64>,
    average_precision: Option<f64>,
}

impl Ranking {
    /// Expected pairs won over all pairs, ties half; precision at the end of each score.
    fn by_score(groups: &[(f64, u64)]) -> Self {
        let split = |(p, n): &(f64, u64)| (p * *n as f64, (1.0 - p) * *n as f64);
        let (mut positives, mut negatives, mut won) = (0.0, 0.0, 0.0);
        for (p, n) in groups.iter().map(split) {
            won += p * (negatives + n / 2.0);
            positives += p;
            negatives += n;
        }
        Self {
            roc_auc: ratio(won, positives * negatives),
            average_precision: average_precision_of(groups.iter().rev().map(split)),
        }
    }

    /// NannyML: a step for every row, highest score first, cumulated counts rounded to 5 decimals,
    /// areas by trapezia.
    fn by_row(groups: &[(f64, u64)]) -> Self {
        let round = |x: f64| (x * 1e5).round_ties_even() / 1e5;
        let (mut found, mut seen) = (0.0, 0.0);
        let (mut tp, mut fp) = (0.0, 0.0);
        let (mut area, mut precision_sum) = (0.0, 0.0);
        for (p, n) in groups.iter().rev() {
            for _ in 0..*n {
                found += p;
                seen += 1.0;
                let (tp_next, fp_next) = (round(found), round(seen - found));
                area += (fp_next - fp) * (tp_next + tp) / 2.0;
                precision_sum += (tp_next - tp) * (tp_next / seen);
                (tp, fp) = (tp_next, fp_next);
            }
        }
        Self {
            roc_auc: ratio(area, tp * fp),
            average_precision: ratio(precision_sum, tp),
        }
    }
}

/// Realised metrics of labelled rows, in the order of [`Metric::ALL`]; none where one is not defined.
///
/// # Errors
/// A score that is not a probability, or no rows.
pub fn realised(rows: &Reference<'_>) -> Result<[Option<f64>; 7], PerformanceError> {
    let pairs = rows
        .predicted
        .iter()
        .copied()
        .zip(rows.actual.iter().copied());
    let c = BinaryCounts::of(pairs);
    let outcomes = Outcomes {
        tp: c.true_positives as f64,
        fp: c.false_positives as f64,
        tn: c.true_negatives as f64,
        fn_: c.false_negatives as f64,
    };
    let area = super::auroc(rows.scores, rows.actual)?.map(|a| a.value);
    let precision = super::average_precision(rows.scores, rows.actual)?;
    Ok(Metric::ALL.map(|metric| match metric {
        Metric::RocAuc => area,
        Metric::AveragePrecision => precision,
        other => outcomes.metric(other),
    }))
}

fn thresholds(chunks: &[f64], floor: f64) -> Option<Interval> {
    if chunks.is_empty() {
        return None;
    }
    let n = chunks.len() as f64;
    let mean = chunks.iter().sum::<f64>() / n;
    let variance = chunks.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let reach = THRESHOLD_DEVIATIONS * variance.sqrt().max(floor);
    Some(
        Interval {
            low: mean - reach,
            high: mean + reach,
        }
        .clipped(0.0, 1.0),
    )
}

#[cfg(test)]
mod tests;
