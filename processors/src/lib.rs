//! The stages on the log that turn telemetry into answers: what a batch of records does to a
//! stage's state and what comes out. Reading, writing, clocks and retries are the runner's
//! ([`driftline_log::runner`]).
//!
//! # Layout
//!
//! - [`once`]: which frames of a partition count, each once
//! - [`bundles`]: where stages find the bundle of a model version
//! - [`archive`]: every topic goes to the lake, every row once
//! - [`labels`]: ground truth becomes profiles of the error
//! - [`detect`]: partial profiles become windows, judged and explained
//! - [`vitals`]: devices that are silent, sensors that are stuck
//! - [`profile`]: rows become partial profiles; the aggregate function `profile(…)`

pub mod archive;
pub mod bundles;
pub mod detect;
pub mod labels;
pub mod once;
pub mod profile;
#[cfg(test)]
mod simulated;
#[cfg(test)]
pub(crate) mod testing;
pub mod vitals;
