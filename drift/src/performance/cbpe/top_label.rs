//! Accuracy of many classes without labels.

use serde::{Deserialize, Serialize};

use super::super::calibration::{Isotonic, calibration_helps};
use super::super::interval::Estimate;
use super::super::{PerformanceError, check_scores};

/// Accuracy of a classifier with any number of classes from the probability of the class it chose:
/// the mean of the calibrated confidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopLabel {
    calibration: Option<Isotonic>,
    /// Standard deviation of being right on the reference.
    unit_error: f64,
}

impl TopLabel {
    /// Learns from labelled rows: confidence, and whether the chosen class was right.
    ///
    /// # Errors
    /// Columns that differ in length, no rows, or a confidence that is not a probability.
    pub fn fit(confidence: &[f64], right: &[bool]) -> Result<Self, PerformanceError> {
        let calibration = if calibration_helps(confidence, right)? {
            Some(Isotonic::fit(confidence, right)?)
        } else {
            None
        };
        let share = right.iter().filter(|r| **r).count() as f64 / right.len() as f64;
        Ok(Self {
            calibration,
            unit_error: (share * (1.0 - share)).sqrt(),
        })
    }

    /// Estimates accuracy of unlabelled rows, with the standard error of independent rows.
    ///
    /// # Errors
    /// No rows, or a confidence that is not a probability.
    pub fn estimate(&self, confidence: &[f64]) -> Result<Estimate, PerformanceError> {
        check_scores(confidence)?;
        let calibrated = confidence.iter().map(|c| match &self.calibration {
            Some(isotonic) => isotonic.calibrate(*c),
            None => *c,
        });
        let n = confidence.len() as f64;
        Ok(Estimate {
            value: calibrated.sum::<f64>() / n,
            standard_error: self.unit_error / n.sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model that is right 90 % of the time at confidence 0.99 and 60 % at 0.7 is estimated at
    /// what it is, not at what it says, whatever the mix.
    #[test]
    fn overconfidence_is_calibrated() {
        let (mut confidence, mut right) = (Vec::new(), Vec::new());
        for i in 0..2000 {
            let sure = i % 2 == 0;
            confidence.push(if sure { 0.99 } else { 0.7 });
            right.push(i / 2 % 10 < if sure { 9 } else { 6 });
        }
        let estimator = TopLabel::fit(&confidence, &right).unwrap();
        let mix = [0.99, 0.99, 0.99, 0.7];
        let estimate = estimator.estimate(&mix).unwrap();
        assert!((estimate.value - (0.9 * 3.0 + 0.6) / 4.0).abs() < 1e-12);
        let deviation = (0.75_f64 * 0.25).sqrt();
        assert!((estimate.standard_error - deviation / 2.0).abs() < 1e-12);
        assert!(estimator.estimate(&[]).is_err());
    }
}
