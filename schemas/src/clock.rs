//! The one clock that stages take time from.
//!
//! Time is microseconds since the Unix epoch, UTC, as a signed 64-bit integer (`*_us`). A demo or a
//! simulation runs days in seconds by handing in a [`ScaledClock`]; a test steps a [`ManualClock`].

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE_US: i64 = 60 * SECOND_US;
/// Microseconds in an hour.
pub const HOUR_US: i64 = 60 * MINUTE_US;
/// Microseconds in a day.
pub const DAY_US: i64 = 24 * HOUR_US;

/// Tells the time, in microseconds since the Unix epoch.
pub trait Clock: Send + Sync {
    /// The present.
    fn now_us(&self) -> i64;

    /// How long to wait in real time for `span_us` of this clock to pass.
    fn real(&self, span_us: i64) -> Duration {
        Duration::from_micros(u64::try_from(span_us).unwrap_or(0))
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clock"
    )]
    fn now_us(&self) -> i64 {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

/// A clock that starts at a given instant and runs `factor` times as fast as the machine's.
#[derive(Debug, Clone)]
pub struct ScaledClock {
    origin_us: i64,
    factor: f64,
    started: Instant,
}

impl ScaledClock {
    /// Starts now at `origin_us`; `factor` is simulated seconds per real second, above 0.
    pub fn new(origin_us: i64, factor: f64) -> Self {
        Self {
            origin_us,
            factor: factor.max(f64::MIN_POSITIVE),
            started: Instant::now(),
        }
    }
}

impl Clock for ScaledClock {
    fn now_us(&self) -> i64 {
        self.origin_us + (self.started.elapsed().as_secs_f64() * self.factor * 1e6) as i64
    }

    fn real(&self, span_us: i64) -> Duration {
        Duration::from_secs_f64(span_us.max(0) as f64 / 1e6 / self.factor)
    }
}

/// A clock that only moves when it is told to.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_us: AtomicI64,
}

impl ManualClock {
    /// Stands at `now_us`.
    pub fn new(now_us: i64) -> Self {
        Self {
            now_us: AtomicI64::new(now_us),
        }
    }

    /// Sets the present; it may go backwards, as real clocks do.
    pub fn set(&self, now_us: i64) {
        self.now_us.store(now_us, Ordering::SeqCst);
    }

    /// Moves the present by `span_us`.
    pub fn advance(&self, span_us: i64) {
        self.now_us.fetch_add(span_us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.now_us.load(Ordering::SeqCst)
    }

    /// A manual clock is not waited for.
    fn real(&self, _span_us: i64) -> Duration {
        Duration::ZERO
    }
}
