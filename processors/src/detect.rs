//! The detect stage: partial profiles become windows, windows are judged, and what crossed is
//! explained.
//!
//! # From a partial profile to a finding
//!
//! 1. Partial profiles merge into windows (tumbling, one hour by default; panes nest in them) per
//!    model version and base cell. Merging is exact, so their order and cut do not matter.
//! 2. A window is judged when the watermark, the least over the partitions of the inferences topic,
//!    has passed its end and the grace of the cells in it: a cell whose devices report daily is
//!    taken in a day later, and the window is judged again then. So it is when late profiles or
//!    labels change it.
//! 3. Cells are rolled up to the estate and to each attribute value. Each (cohort, signal) is a
//!    stream of evidence ([`driftline_drift::calibrate::Stream`]): a fold over windows in event-time
//!    order, and a change folds again from the first window that changed.
//! 4. What crossed is peeled down to its causes ([`driftline_drift::explain::peel`]), and each
//!    (kind, cause) is a story that opens, is updated when something material changes, and ends
//!    after some calm windows.
//! 5. What the fold says is held against what was said before; the difference is appended: a new
//!    revision of a window's measures, a finding, or the refutation of one.
//!
//! Steps 3 and 4 are pure functions of the windows' final contents, the configuration in force and
//! the bundle, so the last revision of every measure is the same whatever the order, the batching
//! and the crashes.
//!
//! # What explains what
//!
//! An input drift explains a change of outputs and errors in its scope: these are mentioned in its
//! story and raise nothing of their own. A loss of performance is called concept drift when the
//! error signal crosses in a scope where no input drift is open, and no input is under suspicion
//! (p below [`window::SUSPICION_P`] with an effect that would matter). That is a decision in favour
//! of the commoner cause: a concept that changes while inputs drift in the same scope raises a finding of its own
//! once the inputs are calm again. Where the reference's rows had a truth, both kinds of finding say how much of the
//! loss the model's own confidence foresees ([`driftline_drift::calibrate::foreseen`]), and so which share the inputs
//! have in it.
//!
//! # References
//!
//! A window is compared with the reference that is in force for its start: the bundle's own, or one that
//! was promoted from a time on ([`Bundles::promotions`](crate::bundles::Bundles::promotions)). Windows that
//! were judged with another one than is in force for them by now are judged again. Where another one comes
//! into force, evidence starts anew and the stories that were found against the one before end: what is
//! far from one reference says nothing about the other.
//!
//! # State
//!
//! Windows are kept for [`DetectConfig::keep`]; older ones are dropped day by day behind a checkpoint
//! of the fold, and what still arrives for them is counted only. A cell-window takes about
//! [`CELL_WINDOW_BYTES`].
//!
//! # Layout of this module
//!
//! - here: [`DetectStage`], the step
//! - [`config`]: its configuration
//! - [`stats`]: what it counts
//! - `state`: keys and values of the changelog
//! - `model`: windows of one model version, what is due, what is to be folded again
//! - `subject`: references and calibrations of a model version, by the time they are in force from
//! - `rollup`: cells to cohorts
//! - `window`: the fold of one window: measures, crossings, causes
//! - `measures`: the numbers of one stream in one window
//! - `stories`: findings as stories
//! - `arrivals`: since when each cell is there, and so what came up before a drift
//! - `tell`: findings in words

mod arrivals;
pub mod config;
mod measures;
mod model;
mod rollup;
mod stage;
mod state;
pub mod stats;
mod stories;
mod subject;
mod tell;
#[cfg(test)]
mod tests;
pub mod window;

pub use config::DetectConfig;
pub use stage::DetectStage;
pub use stats::DetectStats;

/// Name of the stage and its consumer group.
pub const STAGE: &str = "detect";

/// About what the profile of one cell takes for one window in state, for a model of ten signals of
/// 16 bins and six devices: a varint or two per bin, 10 bytes per device, and its key.
pub const CELL_WINDOW_BYTES: usize = 700;
