//! How well a model does: with labels, and without them.
//!
//! With labels, metrics come from counts and exact integer sums that merge in any order
//! ([`BinaryCounts`], [`Confusion`], [`ScoreBins`], [`ErrorSums`]), or from raw rows where these are
//! at hand. Every proportion has an interval that knows the design effect (rows of one device are
//! worth fewer than their number). Without labels, [`Cbpe`] estimates the same metrics from
//! calibrated scores, and [`TopLabel`] accuracy from confidence.
//!
//! A metric that is not defined on what was seen (precision when nothing was predicted positive) is
//! `None`, never NaN.
//!
//! # Layout
//!
//! - [`classification`]: confusion counts, log loss and Brier score of rows
//! - [`scores`]: binned scores: calibration error, Brier score, log loss, AUROC
//! - [`roc`]: area under the ROC curve with DeLong's variance; average precision
//! - [`regression`]: MAE, RMSE, bias
//! - [`interval`]: Wilson, Jeffreys and normal intervals; design effects
//! - [`stratified`]: estimates for an estate from probes that do not represent it evenly
//! - [`probes`]: what the rows of probes are worth there
//! - [`calibration`]: isotonic regression and when it helps
//! - [`decomposition`]: a loss told apart: moved inputs, or a changed relation of inputs and truth
//! - [`cbpe`]: confidence-based performance estimation, ours and NannyML's

pub mod calibration;
pub mod cbpe;
pub mod classification;
pub mod decomposition;
pub mod interval;
pub mod probes;
pub mod regression;
pub mod roc;
pub mod scores;
pub mod stratified;

pub use calibration::Isotonic;
pub use cbpe::{Cbpe, Definition, Metric, MetricEstimate, TopLabel};
pub use classification::{BinaryCounts, Confusion, brier_score, log_loss};
pub use interval::{Estimate, Interval, jeffreys, wilson};
pub use regression::ErrorSums;
pub use roc::{Auroc, auroc, average_precision};
pub use scores::ScoreBins;

/// A metric or an estimator could not be computed from what was given. The caller's to mend: the
/// same input fails again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PerformanceError {
    /// No rows.
    #[error("there are no rows; estimate again when there are some")]
    Empty,
    /// Columns of one table differ in length.
    #[error("{name} has {found} rows and the scores have {expected}; pass columns of one table")]
    LengthsDiffer {
        /// The column.
        name: &'static str,
        /// Its rows.
        found: usize,
        /// Rows of the first column.
        expected: usize,
    },
    /// A score is not a probability.
    #[error("score {value} of row {row} is not between 0 and 1; pass probabilities, without nulls")]
    NotAProbability {
        /// The row, from 0.
        row: usize,
        /// Its score.
        value: f64,
    },
    /// Labels of one class say nothing about telling two apart.
    #[error("every label is {class}; the reference needs rows of both classes")]
    OneClass {
        /// The class there is.
        class: bool,
    },
    /// A setting is outside of its range.
    #[error("{name} is {value}; it must be {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What would do.
        expected: &'static str,
    },
}

/// Checks that every score is a probability.
fn check_scores(scores: &[f64]) -> Result<(), PerformanceError> {
    if scores.is_empty() {
        return Err(PerformanceError::Empty);
    }
    match scores.iter().position(|s| !(0.0..=1.0).contains(s)) {
        Some(row) => Err(PerformanceError::NotAProbability {
            row,
            value: scores[row],
        }),
        None => Ok(()),
    }
}

fn check_length(name: &'static str, found: usize, expected: usize) -> Result<(), PerformanceError> {
    if found == expected {
        Ok(())
    } else {
        Err(PerformanceError::LengthsDiffer {
            name,
            found,
            expected,
        })
    }
}

/// `a / b`, none when `b` is zero.
fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

/// The part of `parts` that a row is in, when rows are to be split at random and alike every time:
/// SplitMix64 (Steele et al. 2014) of its number. Rows often come in a rhythm (devices in turn), which
/// number modulo parts would follow.
fn part_of(row: usize, parts: usize) -> usize {
    let mut z = (row as u64)
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) % parts as u64) as usize
}
