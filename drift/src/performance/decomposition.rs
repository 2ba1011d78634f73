//! A change of performance told apart: how much of it the moved inputs explain, and how much a changed
//! relation of inputs and truth.
//!
//! With P the past, Q the present, L the loss of a row and R(x) its mean at inputs x, the change is
//! E_Q\[L\] − E_P\[L\]. Cai, Namkoong and Yadlowsky ("Diagnosing model performance under distribution shift",
//! 2023) compare both periods on inputs that both have: S, with density proportional to p q / (p + q).
//!
//! ```text
//! E_Q[L] − E_P[L] = (E_S[R_P] − E_P[L])      inputs moved away from what only the past has
//!                 + (E_S[R_Q] − E_S[R_P])    the relation changed, at the same inputs
//!                 + (E_Q[L] − E_S[R_Q])      inputs moved to what only the present has
//! ```
//!
//! The first and the last are the inputs' part. S is reached by weighting rows of P with r / (1 + r) and
//! those of Q with 1 / (1 + r), where r = q / p comes from a classifier that tells the periods apart
//! (logistic regression, fitted on other rows than it weighs). What no input says, and what the classifier
//! cannot express (see [`overlap`]), is counted as a changed relation.
//!
//! # Layout
//!
//! - here: the three parts with their standard errors, and their shares
//! - [`overlap`]: the weights

pub mod overlap;

use super::interval::effective_size;
use super::{PerformanceError, check_length, ratio};
pub use overlap::Input;

/// Rows of a side on the shared inputs below which nothing is told apart.
pub const SHARED_ROWS_MIN: f64 = 50.0;
/// Standard errors that a part must lie from 0 for shares to be given: without a change there is nothing
/// to share out.
const CLEAR_ERRORS: f64 = 2.0;

/// Rows of one period.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    /// Inputs, one column each, in the same order in both periods.
    pub inputs: &'a [Input],
    /// Loss of each row: 1 for a wrong class and 0 for a right one, a squared error.
    pub losses: &'a [f64],
}

/// A part of the change, in units of the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// What it adds to the mean loss; negative when it takes away.
    pub change: f64,
    /// Its standard error, for independent rows; the inputs' part's is an upper bound.
    pub standard_error: f64,
}

impl Part {
    fn is_clear(self) -> bool {
        self.change.abs() > CLEAR_ERRORS * self.standard_error
    }
}

/// A change of the mean loss, told apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Decomposition {
    /// Mean loss of the past.
    pub before: f64,
    /// Mean loss of the present.
    pub now: f64,
    /// The whole change: the sum of both parts.
    pub total: Part,
    /// What the moved inputs explain.
    pub inputs: Part,
    /// What a changed relation of inputs and truth explains.
    pub relation: Part,
    /// Share of the inputs in what moved, |inputs| / (|inputs| + |relation|), 0 to 1; none where
    /// neither part is clearly different from 0. The relation has the rest.
    pub inputs_share: Option<f64>,
    /// How much the periods' inputs have in common: 1 when they are of one law, 0 when none could be of
    /// the other period (the mean of 2 / (1 + r) over the present's rows, at most 1).
    pub overlap: f64,
    /// Rows of the past and of the present that the shared inputs are judged by.
    pub shared_rows: [f64; 2],
}

/// Tells a change of the mean loss apart; none when the periods' inputs have too little in common, fewer
/// than [`SHARED_ROWS_MIN`] rows on either side.
///
/// # Errors
/// When columns differ in number, kind or length, a loss is not finite, or there are too few rows or
/// too many inputs for the classifier.
pub fn decompose(
    before: Labelled<'_>,
    now: Labelled<'_>,
) -> Result<Option<Decomposition>, PerformanceError> {
    check(before)?;
    check(now)?;
    let ratios = overlap::density_ratios(before.inputs, now.inputs)?;
    let past = Side::new(before.losses, ratios.before.iter().map(|r| r / (1.0 + r)));
    let present = Side::new(now.losses, ratios.now.iter().map(|r| 1.0 / (1.0 + r)));
    let shared_rows = [past.shared_rows(), present.shared_rows()];
    if shared_rows.iter().any(|rows| *rows < SHARED_ROWS_MIN) {
        return Ok(None);
    }
    let total = Part {
        change: present.mean - past.mean,
        standard_error: past.error(0.0, 1.0).hypot(present.error(0.0, 1.0)),
    };
    let relation = Part {
        change: present.shared - past.shared,
        standard_error: past.error(1.0, 0.0).hypot(present.error(1.0, 0.0)),
    };
    // The rest of the whole. Weights that chance moved move the mean of R(x) with them, which a formula for
    // given weights does not see: the errors of the whole and of the other part bound it.
    let inputs = Part {
        change: (past.shared - past.mean) + (present.mean - present.shared),
        standard_error: total.standard_error.hypot(relation.standard_error),
    };
    let clear = inputs.is_clear() || relation.is_clear();
    let moved = inputs.change.abs() + relation.change.abs();
    Ok(Some(Decomposition {
        before: past.mean,
        now: present.mean,
        total,
        inputs,
        relation,
        inputs_share: ratio(inputs.change.abs(), moved).filter(|_| clear),
        overlap: (2.0 * mean(&present.weights)).min(1.0),
        shared_rows,
    }))
}

fn check(side: Labelled<'_>) -> Result<(), PerformanceError> {
    if side.losses.is_empty() {
        return Err(PerformanceError::Empty);
    }
    for input in side.inputs {
        check_length("an input", input.len(), side.losses.len())?;
    }
    match side.losses.iter().find(|loss| !loss.is_finite()) {
        Some(loss) => Err(PerformanceError::Setting {
            name: "a loss",
            value: *loss,
            expected: "finite: leave rows without a truth out",
        }),
        None => Ok(()),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Rows of one period with their weights towards the shared inputs.
struct Side<'a> {
    losses: &'a [f64],
    weights: Vec<f64>,
    /// Mean loss as the rows are.
    mean: f64,
    /// Mean loss on the shared inputs.
    shared: f64,
}

impl<'a> Side<'a> {
    fn new(losses: &'a [f64], weights: impl Iterator<Item = f64>) -> Self {
        let weights: Vec<f64> = weights.collect();
        let weighted: f64 = weights.iter().zip(losses).map(|(w, loss)| w * loss).sum();
        let shared = ratio(weighted, weights.iter().sum()).unwrap_or_default();
        Self {
            mean: mean(losses),
            losses,
            weights,
            shared,
        }
    }

    /// How many rows tell of the shared inputs: what weights leave of them, and no more than those in
    /// whom both periods are about as likely (of one law, all rows are).
    fn shared_rows(&self) -> f64 {
        let likely = 2.0 * self.weights.iter().sum::<f64>();
        effective_size(&self.weights).min(likely)
    }

    /// Standard error of `shared × a + mean × b`, from each row's influence on it (the delta method on
    /// Hájek's ratio).
    fn error(&self, a: f64, b: f64) -> f64 {
        let scale = mean(&self.weights).max(f64::MIN_POSITIVE);
        let rows = self.weights.iter().zip(self.losses);
        let squares: f64 = rows
            .map(|(w, loss)| a * w / scale * (loss - self.shared) + b * (loss - self.mean))
            .map(|influence| influence * influence)
            .sum();
        squares.sqrt() / self.losses.len() as f64
    }
}

#[cfg(test)]
mod tests;
