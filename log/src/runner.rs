//! The loop that runs a stage.
//!
//! A [`Stage`] decides, the [`Runner`] does the rest: it joins the group, gathers records up to a
//! linger, hands them over, commits what came out in one atomic step, and starts again from what
//! is truly committed when a step fails. The stage sees time only as `now_us`, from the injected
//! clock, and the log only as values, so the same stage runs under a simulation, a crash test and
//! in production.
//!
//! ```text
//!        ┌────────── Revoked + Assigned (fresh state) ◄───────────┐
//!        ▼                                                        │ pause, doubled each time
//!  poll ─► gather (linger, limits) ─► Stage::step ─► commit ──────┤ aborted / fenced / retry
//!   ▲                                                  │ ok       │
//!   └────────────── Stage::committed ◄─────────────────┘          └─ fatal: run returns
//! ```

mod observe;
mod shutdown;
pub(crate) mod turn;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use driftline_schemas::clock::Clock;

pub use observe::{Counters, RunObserver};
pub use shutdown::Shutdown;

use crate::api::{Assignment, Committed, Log, Output, Position, Record, StageSpec, StateDelta};
use crate::error::LogError;
use turn::{Turn, Turns};

/// What a step is decided from.
#[derive(Debug, Clone, Copy)]
pub struct StepInput<'a> {
    /// New records; empty on an idle tick. Those of one topic and partition are in order.
    pub records: &'a [Record],
    /// The injected clock, microseconds since the Unix epoch.
    pub now_us: i64,
    /// Whether every assigned input had been read to its end when this step began. Only idle
    /// ticks can say so.
    pub caught_up: bool,
}

/// How far a step moves its inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Offsets {
    /// Past all records handed over so far: what was read is dealt with.
    #[default]
    Read,
    /// Not at all: the stage still holds records in memory and wants them again after a restart.
    Hold,
    /// To these positions only.
    To(Vec<Position>),
}

/// What a step decided. The default does nothing but move past the records read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepOutput {
    /// Records to append.
    pub outputs: Vec<Output>,
    /// State to change.
    pub state: Vec<StateDelta>,
    /// How far the inputs move.
    pub offsets: Offsets,
}

/// Why a stage could not go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StageError {
    /// Something outside failed for now: the stage is assigned anew after a pause and gets the
    /// same records again.
    #[error("{0}")]
    Retry(String),
    /// Trying again cannot help.
    #[error("{0}")]
    Fatal(String),
}

/// A stage: the decisions, without reading, writing, clocks and retries.
pub trait Stage: Send {
    /// A partition is this member's now; its state replaces whatever was known about it.
    ///
    /// # Errors
    /// [`StageError`].
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError>;

    /// Where to start reading a partition just assigned, in place of the committed offsets; for a
    /// stage that keeps its offsets elsewhere. Empty: from the committed ones.
    ///
    /// # Errors
    /// [`StageError`].
    fn start(&mut self, partition: u32) -> Result<Vec<Position>, StageError> {
        let _ = partition;
        Ok(Vec::new())
    }

    /// A partition is no longer this member's: whatever is held for it is void. It also comes for a
    /// partition whose [`Stage::assigned`] failed.
    fn revoked(&mut self, partition: u32);

    /// Decides what these records do, or what passing time does when there are none. It may
    /// change its own memory freely: if the step is not committed, every partition is revoked and
    /// assigned anew. A step without outputs, state or moved offsets commits nothing.
    ///
    /// # Errors
    /// [`StageError`].
    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError>;

    /// What the last step decided is durable.
    fn committed(&mut self, committed: Committed) {
        let _ = committed;
    }
}

/// How a stage is run. Times are real time, not the injected clock's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunOptions {
    /// How long to gather records before a step; zero takes what one poll gives.
    pub linger: Duration,
    /// Step when this many records are gathered.
    pub records_max: usize,
    /// Step when this many bytes (keys and values) are gathered.
    pub bytes_max: usize,
    /// Without records, step this often, since some stages keep time.
    pub idle_tick: Duration,
    /// First pause after a failure; doubled up to `pause_max`.
    pub pause_min: Duration,
    /// Longest pause after a failure.
    pub pause_max: Duration,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            records_max: crate::limits::POLL_RECORDS_MAX,
            bytes_max: crate::limits::POLL_BYTES_MAX,
            idle_tick: Duration::from_millis(200),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(10),
        }
    }
}

/// Why a stage stopped other than by shutdown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// The log failed for good.
    #[error("stage {stage}: {source}")]
    Log {
        /// The stage.
        stage: Arc<str>,
        /// What happened.
        source: LogError,
    },
    /// The stage gave up.
    #[error("stage {stage}: {source}")]
    Stage {
        /// The stage.
        stage: Arc<str>,
        /// What happened.
        source: StageError,
    },
}

/// Runs stages. Clones share everything.
#[derive(Clone)]
pub struct Runner {
    /// Where stages read and write.
    pub log: Arc<dyn Log>,
    /// Where stages take time from.
    pub clock: Arc<dyn Clock>,
    /// Ends the loop.
    pub shutdown: Shutdown,
    /// How stages are run.
    pub options: RunOptions,
    /// Told what happens.
    pub observer: Arc<dyn RunObserver>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// A runner with default options that nobody watches.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Self {
        Self {
            log,
            clock,
            shutdown: Shutdown::default(),
            options: RunOptions::default(),
            observer: Arc::new(Counters::default()),
        }
    }

    /// Runs a stage on this thread until shutdown. The step under way is finished first.
    ///
    /// # Errors
    /// [`RunError`] when the log or the stage failed for good. Failures that pass are retried for
    /// as long as it takes, with pauses, and told to the observer.
    pub fn run(&self, spec: StageSpec, stage: &mut dyn Stage) -> Result<(), RunError> {
        let mut turns = Turns::join(self, spec, stage)?;
        while !self.shutdown.is_requested() {
            turns.turn()?;
        }
        Ok(())
    }

    /// Runs a stage on this thread until every input is read to its end and an idle tick has
    /// nothing to do, then leaves the group. For tests, simulations and one-off commands. Returns
    /// the number of steps committed.
    ///
    /// # Errors
    /// As [`Runner::run`].
    pub fn run_until_idle(&self, spec: StageSpec, stage: &mut dyn Stage) -> Result<u64, RunError> {
        let mut turns = Turns::join(self, spec, stage)?;
        while !self.shutdown.is_requested() {
            if turns.turn()? == Turn::Quiet {
                break;
            }
        }
        Ok(turns.steps())
    }

    /// Runs a stage on a thread of its own, named after it.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(
        &self,
        spec: StageSpec,
        mut stage: Box<dyn Stage>,
    ) -> std::io::Result<JoinHandle<Result<(), RunError>>> {
        let runner = self.clone();
        let name = format!("stage-{}-{}", spec.name, spec.instance);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || runner.run(spec, &mut *stage))
    }
}

#[cfg(test)]
mod tests;
