//! The mathematics of Driftline: how far the present is from its reference, and whether that is
//! chance. Pure functions only: no I/O, no clock, no randomness but from fixed seeds, no async, so the same
//! code answers on the stream, in SQL and on the device, and the same input gives the same bits.
//!
//! # Layout
//!
//! - [`error`]: why a comparison could not be made
//! - [`calibrate`]: what a window is worth, and the one test that the alarm budget holds for
//! - [`explain`]: which cohorts and signals a drift comes from, in words and in SQL
//! - [`distance`]: distances between two histograms with the same edges
//! - [`hypothesis`]: test statistics and p-values on counts, moments and ranks
//! - [`sample`]: the same on raw values, where rows and not profiles are at hand
//! - [`compare`]: two tables column by column, at a false-alarm rate for the whole comparison
//! - [`compat`]: what SciPy, Evidently and NannyML answer where their definitions differ
//! - [`detector`]: change detectors on a stream of numbers, by name, with serialisable state
//! - [`joint`]: what the signal that looks at features together is computed with
//! - [`performance`]: how well a model does, with labels and without
//! - [`random`]: numbers by a seed, to deal rows and to simulate
//! - [`subsets`]: cohorts whose error grows faster than the estate's
//! - [`special`]: distribution functions that stay accurate in their tails

pub mod calibrate;
pub mod compare;
pub mod compat;
pub mod detector;
pub mod distance;
pub mod error;
pub mod explain;
pub mod hypothesis;
pub mod joint;
pub mod performance;
pub mod random;
pub mod sample;
pub mod special;
pub mod subsets;
