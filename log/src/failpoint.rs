//! Places where a crash test ends the process, compiled in always: what is tested is what ships.
//!
//! `DRIFTLINE_FAILPOINT=name:count` aborts the process, without any clean-up, the `count`-th time
//! that [`hit`]`("name")` is reached (from 1). Several are separated by commas. Without the
//! variable a hit costs one relaxed atomic load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Environment variable that arms failpoints.
pub const VARIABLE: &str = "DRIFTLINE_FAILPOINT";

const UNREAD: u8 = 0;
const OFF: u8 = 1;
const ARMED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNREAD);
static POINTS: OnceLock<Vec<Point>> = OnceLock::new();

#[derive(Debug)]
struct Point {
    name: String,
    count: u64,
    hits: AtomicU64,
}

impl Point {
    /// Whether this hit is the one to end at.
    fn reached(&self, name: &str) -> bool {
        self.name == name && self.hits.fetch_add(1, Ordering::Relaxed) + 1 == self.count
    }
}

/// Ends the process here when a crash test asked for it.
#[inline]
pub fn hit(name: &str) {
    if STATE.load(Ordering::Relaxed) != OFF {
        slow(name);
    }
}

#[cold]
fn slow(name: &str) {
    let points = POINTS.get_or_init(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));
    STATE.store(
        if points.is_empty() { OFF } else { ARMED },
        Ordering::Relaxed,
    );
    if points.iter().any(|point| point.reached(name)) {
        // Neither destructors nor buffers: as near to a SIGKILL as a process can do to itself.
        std::process::abort();
    }
}

/// Entries that are not `name:count` with a positive count are ignored: a failpoint must not be
/// able to stop a process from starting.
fn parse(text: &str) -> Vec<Point> {
    text.split(',')
        .filter_map(|entry| {
            let (name, count) = entry.trim().rsplit_once(':')?;
            let count: u64 = count.parse().ok().filter(|count| *count > 0)?;
            Some(Point {
                name: name.to_owned(),
                count,
                hits: AtomicU64::new(0),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The n-th hit of the named point is the one, neither an earlier one nor another point's.
    #[test]
    fn counts_hits_of_its_own_name() {
        let points = parse("embedded.commit:3, other:1,broken,zero:0");
        assert_eq!(points.len(), 2);
        let reached = |name: &str| points[0].reached(name);
        assert!(!reached("embedded.commit"));
        assert!(!reached("other"));
        assert!(!reached("embedded.commit"));
        assert!(reached("embedded.commit"));
        assert!(!reached("embedded.commit"));
    }
}
