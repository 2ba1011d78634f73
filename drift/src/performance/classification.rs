//! Confusion counts and the metrics that follow from them.

use serde::{Deserialize, Serialize};

use super::interval::{Interval, wilson};
use super::{PerformanceError, check_length, check_scores, ratio};

/// Outcomes of a binary classifier. Adds and subtracts exactly, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BinaryCounts {
    /// Predicted positive, is positive.
    pub true_positives: u64,
    /// Predicted positive, is negative.
    pub false_positives: u64,
    /// Predicted negative, is negative.
    pub true_negatives: u64,
    /// Predicted negative, is positive.
    pub false_negatives: u64,
}

impl BinaryCounts {
    /// Counts every row.
    pub fn of(rows: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        rows.into_iter()
            .for_each(|(predicted, actual)| counts.observe(predicted, actual));
        counts
    }

    /// Counts one row.
    pub fn observe(&mut self, predicted: bool, actual: bool) {
        *match (predicted, actual) {
            (true, true) => &mut self.true_positives,
            (true, false) => &mut self.false_positives,
            (false, false) => &mut self.true_negatives,
            (false, true) => &mut self.false_negatives,
        } += 1;
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        self.true_positives += other.true_positives;
        self.false_positives += other.false_positives;
        self.true_negatives += other.true_negatives;
        self.false_negatives += other.false_negatives;
    }

    /// Rows.
    pub fn total(&self) -> u64 {
        self.right() + self.false_positives + self.false_negatives
    }

    fn right(&self) -> u64 {
        self.true_positives + self.true_negatives
    }

    /// Share of rows predicted right.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.right() as f64, self.total() as f64)
    }

    /// Share of predicted positives that are positive.
    pub fn precision(&self) -> Option<f64> {
        let predicted = self.true_positives + self.false_positives;
        ratio(self.true_positives as f64, predicted as f64)
    }

    /// Share of positives that were found (sensitivity).
    pub fn recall(&self) -> Option<f64> {
        let positives = self.true_positives + self.false_negatives;
        ratio(self.true_positives as f64, positives as f64)
    }

    /// Share of negatives that were left alone.
    pub fn specificity(&self) -> Option<f64> {
        let negatives = self.true_negatives + self.false_positives;
        ratio(self.true_negatives as f64, negatives as f64)
    }

    /// Mean of recall and specificity; none until both classes were seen.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        Some((self.recall()? + self.specificity()?) / 2.0)
    }

    /// Harmonic mean of precision and recall: 2 TP/(2 TP + FP + FN).
    pub fn f1(&self) -> Option<f64> {
        let twice = 2.0 * self.true_positives as f64;
        let wrong = self.false_positives + self.false_negatives;
        ratio(twice, twice + wrong as f64)
    }

    /// Wilson interval of [`Self::accuracy`].
    ///
    /// # Errors
    /// As [`wilson`].
    pub fn accuracy_interval(
        &self,
        confidence: f64,
        design_effect: f64,
    ) -> Result<Interval, PerformanceError> {
        wilson(self.right(), self.total(), confidence, design_effect)
    }
}

/// Outcomes of a classifier with any number of classes: `counts[actual · classes + predicted]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Travelling")]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

/// A [`Confusion`] as it travels, not yet checked.
#[derive(Deserialize)]
struct Travelling {
    classes: usize,
    counts: Vec<u64>,
}

impl TryFrom<Travelling> for Confusion {
    type Error = String;

    fn try_from(t: Travelling) -> Result<Self, String> {
        if t.classes.checked_mul(t.classes) != Some(t.counts.len()) {
            return Err("a confusion table needs classes × classes counts".to_owned());
        }
        Ok(Self {
            classes: t.classes,
            counts: t.counts,
        })
    }
}

impl Confusion {
    /// No rows yet, for classes 0 to `classes` − 1.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * classes],
        }
    }

    /// Counts one row; whether both classes are known. A row that names another is not counted.
    #[must_use]
    pub fn observe(&mut self, predicted: usize, actual: usize) -> bool {
        let known = predicted < self.classes && actual < self.classes;
        if known {
            self.counts[actual * self.classes + predicted] += 1;
        }
        known
    }

    /// Adds another's counts; whether the two have the same classes, without which nothing is added.
    #[must_use]
    pub fn merge(&mut self, other: &Self) -> bool {
        if self.classes != other.classes || self.counts.len() != other.counts.len() {
            return false;
        }
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
        true
    }

    /// Rows.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn right(&self, class: usize) -> u64 {
        self.counts[class * self.classes + class]
    }

    fn actual(&self, class: usize) -> u64 {
        let row = class * self.classes;
        self.counts[row..row + self.classes].iter().sum()
    }

    fn predicted(&self, class: usize) -> u64 {
        let column = self.counts.iter().skip(class).step_by(self.classes);
        column.sum()
    }

    /// Share of rows predicted right.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = (0..self.classes).map(|c| self.right(c)).sum();
        ratio(right as f64, self.total() as f64)
    }

    /// Mean recall over the classes that occurred.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let recalls: Vec<_> = (0..self.classes)
            .filter_map(|c| ratio(self.right(c) as f64, self.actual(c) as f64))
            .collect();
        ratio(recalls.iter().sum(), recalls.len() as f64)
    }

    /// Mean F1 over the classes that occurred or were predicted.
    pub fn macro_f1(&self) -> Option<f64> {
        let scores: Vec<_> = (0..self.classes)
            .filter_map(|c| {
                let both = self.actual(c) + self.predicted(c);
                ratio(2.0 * self.right(c) as f64, both as f64)
            })
            .collect();
        ratio(scores.iter().sum(), scores.len() as f64)
    }
}

/// A certain score that is wrong has infinite log loss; one this far from certain has 36.
const SCORE_FLOOR: f64 = f64::EPSILON;

/// Mean of −ln of the probability that was given to what happened, in nats.
///
/// # Errors
/// Columns that differ in length, no rows, or a score that is not a probability.
pub fn log_loss(scores: &[f64], actual: &[bool]) -> Result<f64, PerformanceError> {
    check_scores(scores)?;
    check_length("actual", actual.len(), scores.len())?;
    let losses = scores.iter().zip(actual).map(|(s, y)| {
        let given = if *y { *s } else { 1.0 - s };
        -given.max(SCORE_FLOOR).ln()
    });
    Ok(losses.sum::<f64>() / scores.len() as f64)
}

/// Mean squared difference of score and outcome.
///
/// # Errors
/// Columns that differ in length, no rows, or a score that is not a probability.
pub fn brier_score(scores: &[f64], actual: &[bool]) -> Result<f64, PerformanceError> {
    check_scores(scores)?;
    check_length("actual", actual.len(), scores.len())?;
    let squares = scores.iter().zip(actual).map(|(s, y)| {
        let off = s - f64::from(u8::from(*y));
        off * off
    });
    Ok(squares.sum::<f64>() / scores.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every metric on one small table, worked by hand.
    #[test]
    fn binary_metrics() {
        let c = BinaryCounts {
            true_positives: 6,
            false_positives: 2,
            true_negatives: 9,
            false_negatives: 3,
        };
        assert_eq!(c.total(), 20);
        assert_eq!(c.accuracy(), Some(0.75));
        assert_eq!(c.precision(), Some(0.75));
        assert_eq!(c.recall(), Some(6.0 / 9.0));
        assert_eq!(c.specificity(), Some(9.0 / 11.0));
        assert_eq!(c.balanced_accuracy(), Some((6.0 / 9.0 + 9.0 / 11.0) / 2.0));
        assert_eq!(c.f1(), Some(12.0 / 17.0));
    }

    /// What was never seen has no metric, rather than a NaN or a zero.
    #[test]
    fn undefined_is_none() {
        assert_eq!(BinaryCounts::default().accuracy(), None);
        let negatives = BinaryCounts::of([(false, false); 3]);
        assert_eq!(negatives.precision(), None);
        assert_eq!(negatives.recall(), None);
        assert_eq!(negatives.balanced_accuracy(), None);
        assert_eq!(negatives.f1(), None);
    }

    /// Two classes counted by either table give the same accuracy; a class that never occurred
    /// does not drag the averages.
    #[test]
    fn classes_agree_with_binary() {
        let rows = [(0, 0), (1, 0), (1, 1), (1, 1), (0, 1)];
        let mut many = Confusion::new(3);
        assert!(rows.iter().all(|(p, a)| many.observe(*p, *a)));
        assert!(!many.observe(3, 0));
        let two = BinaryCounts::of(rows.map(|(p, a)| (p == 1, a == 1)));
        assert_eq!(many.accuracy(), two.accuracy());
        assert_eq!(many.balanced_accuracy(), two.balanced_accuracy());
        assert_eq!(many.macro_f1(), Some((0.5 + 4.0 / 6.0) / 2.0));
        assert!(!many.merge(&Confusion::new(2)));
    }

    /// Log loss and Brier score of three rows, worked by hand; certainty that is wrong stays finite.
    #[test]
    fn proper_scores() {
        let scores = [0.8, 0.3, 0.5];
        let actual = [true, false, true];
        let expected = -(0.8_f64.ln() + 0.7_f64.ln() + 0.5_f64.ln()) / 3.0;
        assert!((log_loss(&scores, &actual).unwrap() - expected).abs() < 1e-15);
        let brier = brier_score(&scores, &actual).unwrap();
        assert!((brier - (0.04 + 0.09 + 0.25) / 3.0).abs() < 1e-15);
        assert!(log_loss(&[0.0], &[true]).unwrap() > 30.0);
        assert!(matches!(
            log_loss(&[f64::NAN], &[true]),
            Err(PerformanceError::NotAProbability { row: 0, .. })
        ));
    }
}
