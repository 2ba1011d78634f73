//! SQL over the lake.
//!
//! Everything that Driftline knows is a table; this crate registers the tables, adds the drift
//! functions, and runs statements for the shell (and later for servers).
//!
//! # Layout
//!
//! - [`functions`]: drift in SQL
//! - [`session`]: a session over the lake
//! - [`answer`]: answers as table, JSON or CSV

pub mod answer;
pub mod functions;
pub mod session;

pub use answer::Format;
pub use session::{QueryError, Session};
