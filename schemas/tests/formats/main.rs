//! Laws of the formats: what is written comes back, what is damaged is refused cleanly, what was
//! written by version 1 stays readable.
//!
//! # Layout
//!
//! - `common`: models, schemas and rows to test with
//! - `frame`: round trips and hostile bytes of the wire frame
//! - `sizes`: what frames of real telemetry weigh
//! - `conclusions`: measures, findings, alerts and what else travels as JSON
//! - `golden`: pinned bytes of every format
//! - `packed`: records of the log
//! - `profile_law`: profiles merge to the same bytes whatever the split, order and grouping
//! - `tables`: records as rows of the lake
//! - `telemetry`: JSON lines and Arrow streams from outside
//! - `python_codec`: the Python client reads and writes the same frames

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do, and print what they measured"
)]

mod common;
mod conclusions;
mod frame;
mod golden;
mod packed;
mod profile_law;
mod python_codec;
mod sizes;
mod tables;
mod telemetry;
