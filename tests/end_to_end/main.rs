//! What crosses rooms, on the built binary as a user runs it.

mod demo;
