//! Why a comparison could not be made. Every refusal is an error of this type: no function of the
//! distance, hypothesis and sample modules answers NaN.

use thiserror::Error;

/// Which of the two sides of a comparison an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the present is compared with.
    Reference,
    /// The present.
    Current,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Current => "current",
        })
    }
}

/// A comparison that cannot be made with what it was given. All variants are the caller's to mend
/// (other data, other parameters): trying again with the same input fails again.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum StatisticsError {
    /// One side holds no rows, so it has no distribution.
    #[error("the {0} side has no rows; compare again when it has some")]
    Empty(Side),
    /// One side counts more rows than the exact integer arithmetic holds.
    #[error("the {0} side has 2^63 rows or more; compare shorter windows")]
    TooManyRows(Side),
    /// The two histograms do not have the same bins.
    #[error(
        "the reference has {reference} bins and the current side {current}; profile both with the same edges"
    )]
    BinCountsDiffer {
        /// Bins of the reference.
        reference: usize,
        /// Bins of the current side.
        current: usize,
    },
    /// Positions, edges, weights or dimensions do not fit the counts that they describe.
    #[error("{what}: expected {expected}, got {got}")]
    WrongLength {
        /// What has the wrong length.
        what: &'static str,
        /// How many were needed.
        expected: usize,
        /// How many there were.
        got: usize,
    },
    /// A value is NaN or infinite.
    #[error(
        "{what} has a non-finite value at index {index}; count non-finite values apart and remove them first"
    )]
    NonFinite {
        /// What holds the value.
        what: &'static str,
        /// 0-based position of the first such value.
        index: usize,
    },
    /// Positions or edges do not increase.
    #[error("{what} must increase, but do not at index {index}")]
    NotIncreasing {
        /// What should increase.
        what: &'static str,
        /// 0-based position of the first value that is not above its predecessor.
        index: usize,
    },
    /// The test needs more rows than it was given.
    #[error("the {side} side has {rows} rows, but {test} needs at least {needed}")]
    TooFewRows {
        /// The side that is short.
        side: Side,
        /// The test that asked.
        test: &'static str,
        /// Rows needed.
        needed: u64,
        /// Rows given.
        rows: u64,
    },
    /// The values do not vary, and the quantity divides by their spread.
    #[error(
        "{what} is not defined when the values do not vary; use a count-based distance instead"
    )]
    NoSpread {
        /// The quantity.
        what: &'static str,
    },
    /// A parameter is outside the range where the formula means something.
    #[error("{parameter} = {value} is not allowed: {allowed}")]
    BadParameter {
        /// Its name.
        parameter: &'static str,
        /// What was given.
        value: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The exact null distribution is out of reach for these sizes.
    #[error(
        "the exact distribution of {test} is out of reach for {reference} and {current} rows; use the asymptotic one"
    )]
    ExactOutOfReach {
        /// The test.
        test: &'static str,
        /// Rows of the reference.
        reference: u64,
        /// Rows of the current side.
        current: u64,
    },
}
