//! What happens in the loop, told to whoever counts it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::Committed;

/// Told what happens in the loop. Called on the stage's thread, so it must be quick.
pub trait RunObserver: Send + Sync {
    /// Partitions held after an assignment or a revocation.
    fn holding(&self, stage: &str, partitions: usize) {
        let _ = (stage, partitions);
    }
    /// A step was decided from this many records and bytes; `took` is the time inside the stage.
    fn stepped(&self, stage: &str, records: usize, bytes: usize, took: Duration) {
        let _ = (stage, records, bytes, took);
    }
    /// A step is durable; `took` is the time inside the log.
    fn committed(&self, stage: &str, committed: Committed, outputs: usize, took: Duration) {
        let _ = (stage, committed, outputs, took);
    }
    /// Something failed and is tried again; `attempt` counts failures in a row, from 1.
    fn failed(&self, stage: &str, error: &dyn std::fmt::Display, attempt: u32) {
        let _ = (stage, error, attempt);
    }
}

/// Plain counters.
#[derive(Debug, Default)]
pub struct Counters {
    /// Partitions held now.
    pub partitions: AtomicU64,
    /// Records handed to the stage.
    pub records: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Steps decided, with or without effect.
    pub steps: AtomicU64,
    /// Steps committed.
    pub commits: AtomicU64,
    /// Records appended.
    pub outputs: AtomicU64,
    /// Failures that were retried.
    pub failures: AtomicU64,
}

impl RunObserver for Counters {
    fn holding(&self, _stage: &str, partitions: usize) {
        self.partitions.store(partitions as u64, Ordering::Relaxed);
    }

    fn stepped(&self, _stage: &str, records: usize, bytes: usize, _took: Duration) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn committed(&self, _stage: &str, _committed: Committed, outputs: usize, _took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.outputs.fetch_add(outputs as u64, Ordering::Relaxed);
    }

    fn failed(&self, _stage: &str, _error: &dyn std::fmt::Display, _attempt: u32) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}
