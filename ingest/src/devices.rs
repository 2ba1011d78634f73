//! What the gateway remembers of each device between requests: how fast it sends, what its clock is
//! worth, and which frames it sent. Bounded, and after a restart known again as far as the ends of
//! the topics tell; nothing here is needed for what was acknowledged to be right.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use driftline_schemas::frame::Sent;
use driftline_schemas::rows::Kind;
use driftline_schemas::source::FrameHead;

use crate::clocks::{Correction, Offsets};
use crate::config::{ClockConfig, RateConfig};
use crate::limits::{BOOTS_PER_DEVICE_MAX, DEVICES_MAX, EVENT_TIME_MIN_US};
use crate::rate::Bucket;
use crate::sequence::Seen;

/// Locks, so that devices do not wait for one another.
const SHARDS: usize = 64;

/// What a frame says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) boot: u64,
    pub(crate) kind: Kind,
    pub(crate) sequence: u64,
    pub(crate) sent: Sent,
    pub(crate) rows: usize,
}

/// Why a request of a known device goes no further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Too fast; seconds to wait.
    Rate { rows: bool, wait_s: u64 },
    /// This frame can no longer be told from a resend.
    TooOld { frame: usize, highest: u64 },
}

#[derive(Debug)]
struct Boot {
    boot: u64,
    used_us: i64,
    offsets: Offsets,
    seen: Vec<(Kind, Seen)>,
}

#[derive(Debug)]
struct Device {
    rows: Bucket,
    requests: Bucket,
    used_us: i64,
    boots: Vec<Boot>,
}

impl Device {
    fn new(rate: &RateConfig, now_us: i64) -> Self {
        Self {
            rows: Bucket::full(rate.rows_burst, now_us),
            requests: Bucket::full(rate.requests_burst, now_us),
            used_us: now_us,
            boots: Vec::new(),
        }
    }

    /// The boot; when there are too many, the one longest unused makes room.
    fn boot(&mut self, boot: u64, now_us: i64) -> &mut Boot {
        let at = match self.boots.iter().position(|known| known.boot == boot) {
            Some(at) => at,
            None => {
                if self.boots.len() >= BOOTS_PER_DEVICE_MAX
                    && let Some(oldest) =
                        (0..self.boots.len()).min_by_key(|&at| self.boots[at].used_us)
                {
                    self.boots.swap_remove(oldest);
                }
                self.boots.push(Boot {
                    boot,
                    used_us: now_us,
                    offsets: Offsets::default(),
                    seen: Vec::new(),
                });
                self.boots.len() - 1
            }
        };
        self.boots[at].used_us = now_us;
        &mut self.boots[at]
    }

    fn seen(&self, told: &Told) -> Option<&Seen> {
        let boot = self.boots.iter().find(|boot| boot.boot == told.boot)?;
        let of_kind = boot.seen.iter().find(|(kind, _)| *kind == told.kind)?;
        Some(&of_kind.1)
    }
}

/// All devices that were heard of.
#[derive(Debug)]
pub(crate) struct Devices {
    shards: Vec<Mutex<HashMap<u64, Device>>>,
    rate: RateConfig,
    clocks: ClockConfig,
    per_shard_max: usize,
}

impl Devices {
    pub(crate) fn new(rate: RateConfig, clocks: ClockConfig) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            rate,
            clocks,
            // Hashes spread evenly, within an eighth at this size.
            per_shard_max: DEVICES_MAX / SHARDS * 9 / 8,
        }
    }

    /// Runs `f` on a device. A panic elsewhere leaves the map sound: nothing here is half done.
    fn with<T>(&self, device: u64, now_us: i64, f: impl FnOnce(&mut Device) -> T) -> T {
        let shard = &self.shards[(device % SHARDS as u64) as usize];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if !shard.contains_key(&device) && shard.len() >= self.per_shard_max {
            forget_oldest(&mut shard);
        }
        let known = shard
            .entry(device)
            .or_insert_with(|| Device::new(&self.rate, now_us));
        known.used_us = now_us;
        f(known)
    }

    /// Lets a request of a device in, before its body is read.
    pub(crate) fn request(&self, device: u64, now_us: i64) -> Result<(), Stop> {
        let rate = self.rate;
        self.with(device, now_us, |device| {
            device
                .requests
                .take(1.0, rate.requests_per_second, rate.requests_burst, now_us)
                .map_err(|wait_s| Stop::Rate {
                    rows: false,
                    wait_s,
                })
        })
    }

    /// Judges the frames of one request: all of them are let in, with what is to be done with their
    /// times, or none.
    pub(crate) fn judge(
        &self,
        device: u64,
        frames: &[Told],
        sent_now: Option<i64>,
        received_at_us: i64,
    ) -> Result<Vec<Correction>, Stop> {
        let rate = self.rate;
        let rows: usize = frames.iter().map(|told| told.rows).sum();
        self.with(device, received_at_us, |device| {
            for (frame, told) in frames.iter().enumerate() {
                if let Some(seen) = device.seen(told)
                    && seen.is_forgotten(told.sequence)
                {
                    let highest = seen.highest();
                    return Err(Stop::TooOld { frame, highest });
                }
            }
            device
                .rows
                .take(
                    rows as f64,
                    rate.rows_per_second,
                    rate.rows_burst,
                    received_at_us,
                )
                .map_err(|wait_s| Stop::Rate { rows: true, wait_s })?;
            for sent in latest(frames, sent_now) {
                device.boot(sent.0, received_at_us).offsets.note(
                    sent.1,
                    sent_now.is_some(),
                    received_at_us,
                );
            }
            Ok(frames
                .iter()
                .map(|told| {
                    let offsets = &device.boot(told.boot, received_at_us).offsets;
                    offsets.correction(told.sent, &self.clocks)
                })
                .collect())
        })
    }

    /// Takes note of a frame that the log had already when the gateway started.
    pub(crate) fn seed(&self, device: u64, kind: Kind, head: &FrameHead) {
        let (received, added) = (head.received_at_us, head.clock_correction_us);
        let sent = match head.sent_at_us {
            Some(sent) => Sent::At(sent),
            // What was added is the instant of the boot.
            None if added >= EVENT_TIME_MIN_US => Sent::SinceBoot(received - added),
            None => Sent::Unsaid,
        };
        let told = Told {
            boot: head.boot,
            kind,
            sequence: head.sequence,
            sent,
            rows: 0,
        };
        self.with(device, received, |device| {
            let boot = device.boot(told.boot, received);
            boot.offsets.note(sent, false, received);
        });
        self.acknowledged(device, &[told], received);
    }

    /// Takes note of frames that the log has.
    pub(crate) fn acknowledged(&self, device: u64, frames: &[Told], now_us: i64) {
        self.with(device, now_us, |device| {
            for told in frames {
                let boot = device.boot(told.boot, now_us);
                match boot.seen.iter_mut().find(|(kind, _)| *kind == told.kind) {
                    Some((_, seen)) => seen.note(told.sequence),
                    None => boot.seen.push((told.kind, Seen::first(told.sequence))),
                }
            }
        });
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let count = |shard: &Mutex<HashMap<u64, Device>>| shard.lock().unwrap().len();
        self.shards.iter().map(count).sum()
    }
}

/// Of each boot, and of each way to tell the time, when it sent last: of a clock that tells the
/// time, what the request itself says goes before what its frames say.
fn latest(frames: &[Told], sent_now: Option<i64>) -> Vec<(u64, Sent)> {
    let mut latest: Vec<(u64, Sent)> = Vec::new();
    for told in frames {
        let sent = match (told.sent, sent_now) {
            (Sent::At(_) | Sent::Unsaid, Some(now)) => Sent::At(now),
            (sent, _) => sent,
        };
        let known = latest.iter_mut().find(|(boot, known)| {
            *boot == told.boot && std::mem::discriminant(known) == std::mem::discriminant(&sent)
        });
        match known {
            Some((_, known)) if known.micros() < sent.micros() => *known = sent,
            Some(_) => {}
            None => latest.push((told.boot, sent)),
        }
    }
    latest
}

/// Forgets the eighth of a shard that was not heard of for longest, so that this is done rarely.
fn forget_oldest(shard: &mut MutexGuard<'_, HashMap<u64, Device>>) {
    let mut used: Vec<(i64, u64)> = shard
        .iter()
        .map(|(hash, device)| (device.used_us, *hash))
        .collect();
    used.sort_unstable();
    for (_, hash) in used.iter().take(shard.len() / 8 + 1) {
        shard.remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000_000;

    fn told(boot: u64, sequence: u64) -> Told {
        Told {
            boot,
            kind: Kind::Inferences,
            sequence,
            sent: Sent::At(NOW),
            rows: 10,
        }
    }

    fn devices() -> Devices {
        Devices::new(RateConfig::default(), ClockConfig::default())
    }

    /// Rows are counted against the rate, requests against theirs, each device by itself.
    #[test]
    fn each_device_has_its_own_rate() {
        let rate = RateConfig {
            rows_per_second: 10.0,
            rows_burst: 10.0,
            requests_per_second: 1.0,
            requests_burst: 2.0,
        };
        let devices = Devices::new(rate, ClockConfig::default());
        let send = |device, at| devices.judge(device, &[told(1, 0)], None, at);
        assert!(send(1, NOW).is_ok());
        let wait_s = 1;
        assert_eq!(send(1, NOW), Err(Stop::Rate { rows: true, wait_s }));
        assert!(send(2, NOW).is_ok());
        assert!(send(1, NOW + 1_000_000).is_ok());
        let rows = false;
        assert!((0..2).all(|_| devices.request(1, NOW).is_ok()));
        assert_eq!(devices.request(1, NOW), Err(Stop::Rate { rows, wait_s }));
    }

    /// What was written makes frames too old, what was only tried does not; another boot or kind is
    /// another matter.
    #[test]
    fn only_acknowledged_frames_make_others_too_old() {
        let devices = devices();
        let odd: Vec<Told> = (1..4_000).step_by(2).map(|s| told(1, s)).collect();
        let late = [told(1, 3_998), told(1, 4)];
        assert!(devices.judge(7, &odd, None, NOW).is_ok());
        assert!(devices.judge(7, &late, None, NOW).is_ok());
        devices.acknowledged(7, &odd, NOW);
        assert_eq!(
            devices.judge(7, &late, None, NOW),
            Err(Stop::TooOld {
                frame: 1,
                highest: 3_999
            })
        );
        assert!(devices.judge(7, &[told(2, 4)], None, NOW).is_ok());
        let health = Told {
            kind: Kind::Health,
            ..told(1, 4)
        };
        assert!(devices.judge(7, &[health], None, NOW).is_ok());
    }

    /// The newest frame of a request tells the time, and what the request says beats it.
    #[test]
    fn old_frames_of_a_backlog_do_not_make_a_clock_wrong() {
        let devices = devices();
        let hour = 3_600_000_000;
        let old = Told {
            sent: Sent::At(NOW - hour),
            ..told(1, 0)
        };
        let judge = |device, frames: &[Told], now| devices.judge(device, frames, now, NOW).unwrap();
        assert_eq!(judge(1, &[old, told(1, 1)], None), [Correction::By(0); 2]);
        assert_eq!(judge(2, &[old], Some(NOW)), [Correction::By(0)]);
        assert_eq!(judge(3, &[old], None), [Correction::By(0)]);
        assert_eq!(judge(3, &[old], Some(NOW - hour)), [Correction::By(hour)]);
    }

    /// After a restart, what the log tells stands in for what was known.
    #[test]
    fn what_the_log_has_is_known_again() {
        let devices = devices();
        let hour = 3_600_000_000;
        let head = |boot, sequence, sent_at_us, clock_correction_us| FrameHead {
            boot,
            sequence,
            sent_at_us,
            received_at_us: NOW,
            clock_correction_us,
        };
        for sequence in (1..4_000).step_by(2) {
            devices.seed(7, Kind::Inferences, &head(1, sequence, Some(NOW), 0));
        }
        devices.seed(7, Kind::Inferences, &head(2, 0, None, NOW - hour));
        // This one was stamped five hours ago, by a clock that is known to be right.
        let later = NOW + 5 * hour;
        let fresh = devices.judge(7, &[told(1, 3_998)], None, later);
        assert_eq!(fresh, Ok(vec![Correction::By(0)]));
        let old = devices.judge(7, &[told(1, 4)], None, later);
        assert!(matches!(old, Err(Stop::TooOld { .. })));
        let since_boot = Told {
            sent: Sent::SinceBoot(hour),
            ..told(2, 1)
        };
        let judged = devices.judge(7, &[since_boot], None, later);
        assert_eq!(judged, Ok(vec![Correction::By(NOW - hour)]));
    }

    /// Boots of a device and devices are bounded; the ones used last stay.
    #[test]
    fn memory_is_bounded() {
        let mut devices = devices();
        devices.per_shard_max = 4;
        for device in 0..10_000 {
            devices.request(device, NOW + device as i64).unwrap();
        }
        assert!(devices.len() <= 4 * SHARDS);
        for boot in 0..100 {
            devices.acknowledged(9_999, &[told(boot, 0)], NOW + boot as i64);
        }
        devices.with(9_999, NOW, |device| {
            assert_eq!(device.boots.len(), BOOTS_PER_DEVICE_MAX);
            assert!(device.boots.iter().any(|boot| boot.boot == 99));
        });
    }
}
