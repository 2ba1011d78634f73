//! A token bucket that may be overdrawn: pure, time passed in.

/// How much there is, and when it was counted. Starts full.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bucket {
    level: f64,
    at_us: i64,
}

impl Bucket {
    pub(crate) fn full(burst: f64, now_us: i64) -> Self {
        Self {
            level: burst,
            at_us: now_us,
        }
    }

    /// Takes `amount` if the bucket is not empty, else says how many seconds until it is not. A
    /// clock that goes back fills nothing.
    pub(crate) fn take(
        &mut self,
        amount: f64,
        per_second: f64,
        burst: f64,
        now_us: i64,
    ) -> Result<(), u64> {
        let passed_s = now_us.saturating_sub(self.at_us).max(0) as f64 / 1e6;
        self.level = (self.level + passed_s * per_second).min(burst);
        self.at_us = self.at_us.max(now_us);
        if self.level <= 0.0 && amount > 0.0 {
            return Err(((-self.level / per_second).ceil() as u64).max(1));
        }
        self.level -= amount;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// One large request goes through, then the device waits until the debt is paid.
    #[test]
    fn debt_is_paid_before_the_next() {
        let mut bucket = Bucket::full(100.0, 0);
        let mut take = |amount, at| bucket.take(amount, 10.0, 100.0, at);
        assert_eq!(take(250.0, 0), Ok(()));
        assert_eq!(take(1.0, 0), Err(15));
        assert_eq!(take(1.0, 14 * SECOND), Err(1));
        assert_eq!(take(1.0, 16 * SECOND), Ok(()));
        // Never more than the burst is saved up, and time that runs back is no time.
        assert_eq!(take(100.0, 10_000 * SECOND), Ok(()));
        assert_eq!(take(1.0, 0), Err(1));
    }

    proptest::proptest! {
        /// Over any run of requests, what was let in is at most burst + rate·time + one request.
        #[test]
        fn the_rate_is_kept(steps in proptest::collection::vec((0.0..50.0f64, 0..3_000_000i64), 1..200)) {
            let mut bucket = Bucket::full(100.0, 0);
            let (mut now, mut taken) = (0, 0.0);
            for (amount, step) in steps {
                now += step;
                if bucket.take(amount, 10.0, 100.0, now).is_ok() {
                    taken += amount;
                }
            }
            proptest::prop_assert!(taken <= 100.0 + 10.0 * now as f64 / 1e6 + 50.0 + 1e-6);
        }
    }
}
