//! What a model's own confidence says of its errors.
//!
//! Of the reference's rows that have a truth, the share of wrong ones in each bin of the confidence is a score like
//! any other: linear in the shares of the bins. Its mean over a window is the error that the model itself foresees
//! there, without a label (confidence-based performance estimation: mean over rows of 1 − calibrated confidence), and it
//! moves with the inputs only: a relation of inputs and truth that changes leaves the confidence as it is. So where errors
//! became more, what was foreseen is the inputs' part, and the rest is not
//! ([`ErrorRise`](driftline_schemas::measure::ErrorRise)).
//!
//! It is blind where inputs come that the model is surer of than it should be: those count as not foreseen.

use driftline_schemas::bundle::SignalRole;
use driftline_schemas::profile::{Binner, Layout};
use driftline_schemas::quantity;

use crate::performance::Isotonic;

/// Labelled rows of the reference from which on its errors are foreseen.
pub const FORESEEN_ROWS_MIN: usize = 200;
/// Least rows of them that are wrong, and that are right.
const EITHER_MIN: usize = 20;

/// Errors of the reference by bin of the confidence.
#[derive(Debug, Clone)]
pub struct ErrorsByConfidence {
    confidence: usize,
    error: usize,
    binner: Binner,
    /// Rows with a truth, and how many of them were wrong.
    bins: Vec<(usize, usize)>,
}

impl ErrorsByConfidence {
    /// For a layout; `None` when it has no confidence, which only classifiers have.
    pub fn of(layout: &Layout) -> Option<Self> {
        let with = |role| {
            let mut signals = layout.signals().iter();
            signals.position(|it| it.signal.role == role)
        };
        let (confidence, error) = (with(SignalRole::Confidence)?, with(SignalRole::Error)?);
        let binner = Binner::new(&layout.signals()[confidence].edges);
        Some(Self {
            confidence,
            error,
            bins: vec![(0, 0); binner.bins()],
            binner,
        })
    }

    /// Takes a row in, given its value of each signal by index; rows without a truth or a confidence say nothing.
    pub fn add(&mut self, value: impl Fn(usize) -> Option<i32>) {
        let (Some(confidence), Some(error)) = (value(self.confidence), value(self.error)) else {
            return;
        };
        if !quantity::is_finite(confidence) {
            return;
        }
        let (rows, wrong) = &mut self.bins[self.binner.bin(confidence)];
        *rows += 1;
        *wrong += usize::from(error != 0);
    }

    /// Index of the confidence, and the share of wrong rows in each of its bins, which never rises with it
    /// (isotonic regression; bins without rows lie between their neighbours). `None` below [`FORESEEN_ROWS_MIN`]
    /// labelled rows or with hardly any wrong or right ones.
    pub fn score(&self) -> Option<(usize, Vec<f64>)> {
        let rows: usize = self.bins.iter().map(|(rows, _)| rows).sum();
        let wrong: usize = self.bins.iter().map(|(_, wrong)| wrong).sum();
        if rows < FORESEEN_ROWS_MIN || wrong.min(rows - wrong) < EITHER_MIN {
            return None;
        }
        let middle = |bin: usize| (bin as f64 + 0.5) / self.bins.len() as f64;
        let (mut scores, mut right) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for (bin, &(rows, wrong)) in self.bins.iter().enumerate() {
            scores.extend(std::iter::repeat_n(middle(bin), rows));
            right.extend(std::iter::repeat_n(false, wrong));
            right.extend(std::iter::repeat_n(true, rows - wrong));
        }
        // As many scores as answers, and all of them between 0 and 1.
        let fitted = Isotonic::fit(&scores, &right).ok()?;
        let shares = (0..self.bins.len()).map(|bin| 1.0 - fitted.calibrate(middle(bin)));
        Some((self.confidence, shares.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::bundle::{FeatureType, Signal};
    use driftline_schemas::profile::SignalLayout;

    fn layout() -> Layout {
        let signal = |name: &str, role, kind, edges: &[i32]| SignalLayout {
            signal: Signal {
                name: name.into(),
                role,
                kind,
            },
            edges: edges.to_vec(),
        };
        let score = FeatureType::Numeric {
            resolution: 0.001,
            unit: String::new(),
            range: None,
        };
        let categories = ["right", "wrong"].map(Into::into).to_vec();
        let confidence = SignalRole::Confidence;
        Layout::new(vec![
            signal("confidence", confidence, score, &[600, 700, 800, 900]),
            signal(
                "error",
                SignalRole::Error,
                FeatureType::Categorical { categories },
                &[],
            ),
        ])
        .unwrap()
    }

    fn add(errors: &mut ErrorsByConfidence, confidence: i32, rows: usize, wrong: usize) {
        for row in 0..rows {
            let error = i32::from(row < wrong);
            errors.add(|signal| Some([confidence, error][signal]));
        }
    }

    /// Shares of wrong rows fall with the confidence, pooled where they do not, and bins that nobody labelled lie
    /// between their neighbours; rows without a truth do not count.
    #[test]
    fn errors_fall_with_the_confidence() {
        let mut errors = ErrorsByConfidence::of(&layout()).unwrap();
        add(&mut errors, 500, 100, 40);
        add(&mut errors, 650, 100, 20);
        add(&mut errors, 750, 100, 30);
        add(&mut errors, 950, 100, 5);
        errors.add(|signal| (signal == 0).then_some(500));
        errors.add(|signal| Some([quantity::NAN, 1][signal]));
        let (signal, shares) = errors.score().unwrap();
        assert_eq!(signal, 0);
        for (found, wanted) in shares.iter().zip([0.4, 0.25, 0.25, 0.15, 0.05]) {
            assert!((found - wanted).abs() < 1e-12, "{shares:?}");
        }
    }

    /// Few labelled rows, or labels of nearly one kind, foresee nothing; nor does a model without a confidence.
    #[test]
    fn little_foresees_nothing() {
        let mut errors = ErrorsByConfidence::of(&layout()).unwrap();
        add(&mut errors, 500, FORESEEN_ROWS_MIN - 1, 60);
        assert!(errors.score().is_none());
        let mut errors = ErrorsByConfidence::of(&layout()).unwrap();
        add(&mut errors, 500, 1_000, EITHER_MIN - 1);
        assert!(errors.score().is_none());
        let values = Layout::new(layout().signals()[1..].to_vec()).unwrap();
        assert!(ErrorsByConfidence::of(&values).is_none());
    }
}
