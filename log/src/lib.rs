//! The log that every stage of Driftline reads from and writes to: append many records, read from
//! an offset, and take one atomic step ("these outputs, this state and these offsets, or nothing").
//!
//! It is blocking by design. Consumer groups, transactions and fsync all block, so every stage owns
//! an operating-system thread and asynchronous callers (the gateway) talk to one. Only this crate
//! knows `rdkafka` and `redb`; everybody else sees [`Log`], [`Appender`] and [`StageLog`].
//!
//! # Layout
//!
//! - [`api`]: the traits and the values that cross them
//! - [`error`]: what can go wrong, whose fault it is, and whether trying again helps
//! - [`limits`]: every bound of this crate, by name
//! - [`failpoint`]: places where a crash test ends the process
//! - [`memory`]: a log in memory, with faults on demand, for the tests of stages
//! - [`embedded`]: a durable log in one folder, for one process
//! - [`kafka`]: the log on Kafka, for more than one process
//! - [`registry`]: devices and bundles, as the compacted registry topic tells them
//! - [`runner`]: the loop that runs a stage
//! - `kafka::simulation`: stages under a seeded simulator (feature `simulation`)
//! - [`trace`]: whose telemetry a step took in, told to OpenTelemetry
//! - `conformance`: what every log promises, as test cases (feature `conformance`)
//! - `local` (private): what the memory and the embedded log share: groups, polling, stepping
//! - `holdings` (private): what a member holds, and which steps fit that
//! - `check` (private): refuses what is malformed before anything is written

pub mod api;
mod check;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
pub mod error;
pub mod failpoint;
mod holdings;
pub mod kafka;
pub mod limits;
mod local;
pub mod memory;
pub mod registry;
pub mod runner;
pub mod trace;

pub use api::{
    Appender, Assignment, Cleanup, Committed, Held, Log, Output, Polled, Position, ReadBatch,
    ReadLimits, Record, StageLog, StageSpec, StateDelta, Step, TopicSpec, Trimmed,
};
pub use error::{CommitError, LogError};
