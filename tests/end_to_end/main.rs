//! What crosses rooms, on the built binary as a user runs it.

mod changes;
mod compare;
mod compose;
mod crash;
mod demo;
mod determinism;
mod fleet;
mod gas;
mod harness;
mod joint;
mod kafka;
mod otlp;
mod performance;
mod reference;
mod serve;
mod subsets;
