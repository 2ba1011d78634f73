//! SQL over the lake.
//!
//! Everything that Driftline knows is a table; this crate registers the tables, adds the drift
//! functions, and runs statements for the shell (and later for servers).
//!
//! # Layout
//!
//! - [`functions`]: drift in SQL

pub mod functions;
