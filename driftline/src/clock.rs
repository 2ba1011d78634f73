//! The machine's clock, watched for steps.
//!
//! Stages order by event times and by times that the gateway wrote, so a clock that is set back or forth
//! loses and doubles nothing; but devices' clocks are held against the gateway's, so it must be known.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use driftline_schemas::clock::{Clock, SECOND_US, SystemClock};

/// Names a file with seconds by which the clock of this process is off, for tests that step it. Compiled
/// in always, as failpoints are: what is tested is what ships.
const SHIFT_VARIABLE: &str = "DRIFTLINE_CLOCK_SHIFT";
/// How long a shift that was read holds.
const SHIFT_HOLDS: Duration = Duration::from_millis(200);
/// Against the time that went by a clock may gain or lose so much between two looks without having been
/// set: daemons that keep it right do so slowly, and processes stand still between reading the one and the other.
const STEP_MIN_US: i64 = 5 * SECOND_US;

/// The machine's clock, off by what a test wants.
#[derive(Debug)]
pub(crate) struct MachineClock {
    shift: Option<Shift>,
}

#[derive(Debug)]
struct Shift {
    file: PathBuf,
    /// What it was, microseconds, and when it was read.
    seen: Mutex<(i64, Option<Instant>)>,
}

impl MachineClock {
    /// The clock of a process with this environment.
    pub(crate) fn from_environment() -> Self {
        let file = std::env::var_os(SHIFT_VARIABLE).map(PathBuf::from);
        Self {
            shift: file.map(|file| Shift {
                file,
                seen: Mutex::default(),
            }),
        }
    }
}

impl Shift {
    fn us(&self) -> i64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.1.is_none_or(|read| read.elapsed() > SHIFT_HOLDS) {
            // A file that is not there yet, or is being written, shifts nothing.
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            let seconds: i64 = text.trim().parse().unwrap_or(0);
            *seen = (seconds.saturating_mul(SECOND_US), Some(Instant::now()));
        }
        seen.0
    }
}

impl Clock for MachineClock {
    fn now_us(&self) -> i64 {
        SystemClock.now_us() + self.shift.as_ref().map_or(0, Shift::us)
    }
}

/// Tells when a clock was set, by the time that went by meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    last: Option<(i64, Duration)>,
}

impl Watch {
    /// Looks at the clock, `uptime` after the watch began. By how much it was set since the last look,
    /// microseconds, negative for back; none when it was not.
    pub(crate) fn look(&mut self, now_us: i64, uptime: Duration) -> Option<i64> {
        let (last_us, last) = self.last.replace((now_us, uptime))?;
        let went_by = i64::try_from(uptime.saturating_sub(last).as_micros()).unwrap_or(i64::MAX);
        let step_us = now_us.saturating_sub(last_us).saturating_sub(went_by);
        (step_us.saturating_abs() >= STEP_MIN_US).then_some(step_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that goes with the time is let alone, also over a long wait; one that is set an hour back
    /// and forth is told, once each.
    #[test]
    fn a_step_is_told_once() {
        let mut watch = Watch::default();
        let hour_us = 3_600 * SECOND_US;
        let at = Duration::from_secs;
        assert_eq!(watch.look(hour_us * 500_000, at(0)), None);
        assert_eq!(watch.look(hour_us * 500_000 + SECOND_US, at(1)), None);
        assert_eq!(
            watch.look(hour_us * 500_000 + 600 * SECOND_US, at(600)),
            None
        );
        let back = watch.look(hour_us * 499_999 + 601 * SECOND_US, at(601));
        assert_eq!(back, Some(-hour_us));
        assert_eq!(
            watch.look(hour_us * 499_999 + 602 * SECOND_US, at(602)),
            None
        );
        let forth = watch.look(hour_us * 500_000 + 603 * SECOND_US, at(603));
        assert_eq!(forth, Some(hour_us));
    }

    /// A file shifts the clock; without one it is the machine's.
    #[test]
    fn a_file_shifts_the_clock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let clock = |path: &std::path::Path| MachineClock {
            shift: Some(Shift {
                file: path.to_owned(),
                seen: Mutex::default(),
            }),
        };
        let off = |clock: &MachineClock| (clock.now_us() - SystemClock.now_us()) / SECOND_US;
        assert_eq!(off(&clock(file.path())), 0);
        std::fs::write(file.path(), "-3600\n").unwrap();
        let back = off(&clock(file.path()));
        assert!((-3_601..=-3_599).contains(&back), "{back}");
        assert_eq!(off(&clock(&file.path().with_extension("none"))), 0);
    }
}
