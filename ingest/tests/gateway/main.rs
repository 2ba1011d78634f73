//! The gateway over real connections: what senders get back, and what the log holds after it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where it fails, in its helpers as well"
)]

mod estate;
mod fates;
mod frames;
mod pressure;
mod serving;
mod telemetry;
