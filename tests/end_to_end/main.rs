//! What crosses rooms, on the built binary as a user runs it.

mod changes;
mod compare;
mod demo;
mod performance;
mod run;
