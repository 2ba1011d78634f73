//! Our answers against those of other implementations. The cases are kept outside of the repository,
//! in `../shared` beside it (or where `DRIFTLINE_SHARED` points); without them every test here says
//! that it was skipped and passes.
#![allow(
    clippy::unwrap_used,
    reason = "a case that cannot be read is a failed test"
)]

#[path = "conformance/cbpe.rs"]
mod cbpe;
#[path = "conformance/detectors.rs"]
mod detectors;
#[path = "conformance/peers.rs"]
mod peers;
#[path = "conformance/shared.rs"]
mod shared;
#[path = "conformance/statistics.rs"]
mod statistics;
