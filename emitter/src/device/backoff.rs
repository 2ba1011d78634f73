//! When to try again: waits double from [`BACKOFF_BASE_US`] to [`BACKOFF_MAX_US`], each drawn
//! between half of it and all of it, so that a fleet that lost its gateway together does not come
//! back together. What the gateway asks for with `Retry-After` is the least.

use std::time::Duration;

use crate::limits::{BACKOFF_BASE_US, BACKOFF_MAX_US, RETRY_AFTER_MAX_US};

/// State of the waits between attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    attempts: u32,
    due_us: i64,
    /// State of SplitMix64 (Steele, Lea, Flood 2014): enough to spread waits, and repeatable.
    random: u64,
}

impl Backoff {
    /// No failure yet; `seed` decides the jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            attempts: 0,
            due_us: i64::MIN,
            random: seed,
        }
    }

    /// Failures in a row.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When the next attempt may be made.
    pub fn due_us(&self) -> i64 {
        self.due_us
    }

    /// Whether it may be made now.
    pub fn is_due(&self, now_us: i64) -> bool {
        now_us >= self.due_us
    }

    /// The server answered what it should: there is nothing to wait for.
    pub fn succeeded(&mut self) {
        self.attempts = 0;
        self.due_us = i64::MIN;
    }

    /// An attempt failed, and the server asked for at least `retry_after`.
    pub fn failed(&mut self, now_us: i64, retry_after: Option<Duration>) {
        let full = BACKOFF_BASE_US
            .checked_shl(self.attempts.min(32))
            .unwrap_or(BACKOFF_MAX_US)
            .min(BACKOFF_MAX_US);
        self.attempts = self.attempts.saturating_add(1);
        let asked = retry_after.map_or(0, |wait| {
            i64::try_from(wait.as_micros())
                .unwrap_or(i64::MAX)
                .min(RETRY_AFTER_MAX_US)
        });
        let jitter = (self.next() % (full as u64 / 2 + 1)) as i64;
        // At least what was asked for, plus some spread on top of it.
        let wait = (full / 2).max(asked) + jitter;
        self.due_us = now_us.saturating_add(wait);
    }

    /// The server does not know the device or its token: somebody has to act, so waits are long at
    /// once.
    pub fn denied(&mut self, now_us: i64) {
        self.attempts = self.attempts.max(10);
        self.failed(now_us, None);
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any seed, any number of failures: waits stay between half and all of the doubled base,
        /// and never exceed one and a half times the greatest.
        #[test]
        fn waits_double_up_to_the_limit(seed in any::<u64>(), failures in 1u32..80) {
            let mut backoff = Backoff::new(seed);
            for attempt in 0..failures {
                backoff.failed(0, None);
                let full = BACKOFF_BASE_US.saturating_mul(1i64 << attempt.min(32)).min(BACKOFF_MAX_US);
                prop_assert!(backoff.due_us() >= full / 2);
                prop_assert!(backoff.due_us() <= full);
                prop_assert!(!backoff.is_due(full / 2 - 1));
            }
            backoff.succeeded();
            prop_assert!(backoff.is_due(0));
        }
    }

    #[test]
    fn what_the_server_asks_for_is_the_least_but_not_for_ever() {
        let mut backoff = Backoff::new(1);
        backoff.failed(0, Some(Duration::from_secs(90)));
        assert!(backoff.due_us() >= 90_000_000);
        let mut backoff = Backoff::new(1);
        backoff.failed(0, Some(Duration::from_secs(u64::MAX)));
        assert!(backoff.due_us() <= RETRY_AFTER_MAX_US + BACKOFF_MAX_US);
    }
}
