//! Wakes those who wait for something new, without polling.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A counter that one can wait on. Whoever looks for news takes [`Signal::version`] first, so that
/// what happens between looking and waiting is not missed.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    version: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn version(&self) -> u64 {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify(&self) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Waits until the version is no longer `seen`; `false` when the deadline came first.
    pub(crate) fn wait(&self, seen: u64, deadline: Instant) -> bool {
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        while *version == seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            version = self
                .changed
                .wait_timeout(version, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}
