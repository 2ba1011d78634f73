//! Test statistics and p-values, on counts, moments and ranks.
//!
//! Each test answers "how often would chance alone move the data this far, if nothing changed and
//! all rows were independent?" Rows of telemetry seldom are: `calibrate` says what they are worth
//! and corrects for it. These functions are the uncorrected mathematics.
//!
//! Rank tests work on a [`Pair`](crate::distance::Pair) whose bins are in ascending order: rows in one
//! bin count as tied, which is how the same functions serve profiles (coarse bins) and raw samples
//! ([`crate::sample`] makes one bin per distinct value). With fine bins the two agree.
//!
//! No test allocates, save where a method's documentation says that it computes an exact
//! distribution, and those of `permutation`.
//!
//! # Layout
//!
//! - `contingency`: chi-square and G on tables of counts
//! - `smirnov`: Kolmogorov-Smirnov and Kuiper
//! - `means`: z for proportions, Welch's and Student's t from moments
//! - `permutation`: rank tests and shares by dealing the same rows to both sides, right in any tail
//! - `family`: many tests at once
//! - `mann_whitney`, `cramer_von_mises`, `anderson_darling`: rank tests

mod anderson_darling;
mod contingency;
mod cramer_von_mises;
mod family;
mod mann_whitney;
mod means;
mod permutation;
mod smirnov;

pub use anderson_darling::{AndersonDarling, Ties, anderson_darling, anderson_darling_k};
pub use contingency::{ChiSquare, Divergence, contingency, independence};
pub(crate) use cramer_von_mises::twelve_u as cramer_von_mises_twelve_u;
pub use cramer_von_mises::{
    CRAMER_VON_MISES_EXACT_ROWS_MAX, CramerVonMises, CramerVonMisesMode, cramer_von_mises,
    cramer_von_mises_exact_p, cramer_von_mises_normalised,
};
pub use family::{Member, holm};
pub use mann_whitney::{MANN_WHITNEY_EXACT_ROWS_MAX, MannWhitney, MannWhitneyMode, mann_whitney};
pub use means::{Moments, TTest, Variances, proportions_z, t_test};
pub use permutation::{LargestShare, Scores, fisher_exact, largest_share, rank_test};
pub use smirnov::{KS_EXACT_ROWS_MAX, KsMode, kolmogorov_smirnov, kolmogorov_smirnov_p, kuiper};

/// A statistic and the probability of one at least as extreme when nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The test statistic; its meaning is the test's.
    pub statistic: f64,
    /// p-value, 0 to 1, accurate in relative terms into the far tail.
    pub p_value: f64,
}

/// Which departures count as extreme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Alternative {
    /// A difference either way.
    #[default]
    TwoSided,
    /// The reference tends to be less than the present.
    Less,
    /// The reference tends to be greater than the present.
    Greater,
}

impl Alternative {
    /// The normal p-value of a z that is positive when the reference is greater.
    fn normal_p(self, z: f64) -> f64 {
        match self {
            Self::TwoSided => crate::special::normal_two_sided(z),
            Self::Less => crate::special::normal_sf(-z),
            Self::Greater => crate::special::normal_sf(z),
        }
    }
}
