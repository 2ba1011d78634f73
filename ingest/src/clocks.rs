//! What a device's clock is worth: pure, time passed in.
//!
//! A frame says when it was sent, by the device's clock; the gateway knows when it came. The
//! difference is what the clock is off by plus how long the frame was on its way, which is never
//! negative, so the least difference over a boot's requests comes nearest to the truth.
//!
//! | what the frame says | what is done |
//! | --- | --- |
//! | sent at, clock off by at most `tolerance` | times are taken as they are |
//! | sent at, off by at most `correction_max`, for certain | the offset is added to all times, and marked |
//! | sent at, off by more, for certain | all rows are dead letters (`clock_beyond_bound`) |
//! | sent so long since boot | the instant of the boot is added to all times, and marked |
//! | nothing | as the boot's other frames; without any, times are taken as they are |
//!
//! A frame keeps what it said when it first went out, so one that was tried in vain and comes hours
//! later looks like one of a clock that is hours behind (never like one that is ahead). Hence of the
//! frames of one request the one sent last counts; a sender may name the present of its clock in
//! `Driftline-Sent-At`, which is certain; and else a clock is believed to be behind only when two
//! requests that were sent at different times say so: until then its times are taken as they are.
//! Offsets
//! since boot are the least ever seen (such a clock does not jump). Of a clock that tells the time
//! only the last [`EVIDENCE_MAX`] to twice as many requests count, so that one that was set right
//! in the middle of a boot is believed again.

use driftline_schemas::frame::Sent;

use crate::config::ClockConfig;

/// Requests after which an older estimate is let go.
pub(crate) const EVIDENCE_MAX: u32 = 32;

/// What is known of the clock of one boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    /// Least offset of this stretch of requests, and of the one before.
    now: Option<i64>,
    before: Option<i64>,
    count: u32,
    since_boot: Option<i64>,
    /// When the first request was sent.
    first: Option<i64>,
    /// Whether a delay alone cannot explain that the clock seems to be behind.
    is_certain: bool,
}

/// What is to be done with a frame's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Correction {
    /// Add this, microseconds; 0 leaves them.
    By(i64),
    /// The clock is off by this, which is too much to be corrected.
    Beyond(i64),
}

fn least(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Offsets {
    /// Takes in when a request was sent, by the device, and received, by the gateway; `is_present`
    /// when it is the present of the device's clock and no frame's stamp.
    pub(crate) fn note(&mut self, sent: Sent, is_present: bool, received_at_us: i64) {
        let offset = sent
            .micros()
            .map(|sent| received_at_us.saturating_sub(sent));
        match sent {
            Sent::Unsaid => {}
            Sent::SinceBoot(_) => self.since_boot = least(self.since_boot, offset),
            Sent::At(at) => {
                let first = *self.first.get_or_insert(at);
                self.is_certain |= is_present || first != at;
                if self.count == EVIDENCE_MAX {
                    (self.before, self.now, self.count) = (self.now, None, 0);
                }
                self.now = least(self.now, offset);
                self.count += 1;
            }
        }
    }

    /// What to do with the times of a frame that says this.
    pub(crate) fn correction(&self, sent: Sent, config: &ClockConfig) -> Correction {
        if let (Sent::SinceBoot(_), Some(boot)) = (sent, self.since_boot) {
            return Correction::By(boot);
        }
        match least(self.now, self.before) {
            Some(offset) if offset > 0 && !self.is_certain => Correction::By(0),
            Some(offset) if offset.unsigned_abs() > config.correction_max.us() as u64 => {
                Correction::Beyond(offset)
            }
            Some(offset) if offset.unsigned_abs() > config.tolerance.us() as u64 => {
                Correction::By(offset)
            }
            _ => Correction::By(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::clock::{DAY_US, HOUR_US, MINUTE_US, SECOND_US};

    const NOW: i64 = 1_700_000_000_000_000;

    fn after(requests: &[(Sent, i64)]) -> Offsets {
        let mut offsets = Offsets::default();
        for (sent, received) in requests {
            offsets.note(*sent, false, *received);
        }
        offsets
    }

    fn judged(requests: &[(Sent, i64)], sent: Sent) -> Correction {
        after(requests).correction(sent, &ClockConfig::default())
    }

    /// Each line of the table above.
    #[test]
    fn clocks_are_judged_as_stated() {
        let at = |ago: i64| Sent::At(NOW - ago);
        // The second of two requests, a minute apart by both clocks.
        let one = |sent: Sent| {
            let before = match sent {
                Sent::At(at) => Sent::At(at.saturating_sub(MINUTE_US)),
                Sent::SinceBoot(at) => Sent::SinceBoot(at - MINUTE_US),
                Sent::Unsaid => sent,
            };
            judged(&[(before, NOW - MINUTE_US), (sent, NOW)], sent)
        };
        assert_eq!(one(at(90 * SECOND_US)), Correction::By(0));
        assert_eq!(one(at(-90 * SECOND_US)), Correction::By(0));
        assert_eq!(one(at(3 * HOUR_US)), Correction::By(3 * HOUR_US));
        assert_eq!(one(at(-3 * HOUR_US)), Correction::By(-3 * HOUR_US));
        assert_eq!(one(at(3 * DAY_US)), Correction::Beyond(3 * DAY_US));
        assert_eq!(one(Sent::At(0)), Correction::Beyond(NOW));
        assert_eq!(
            one(Sent::SinceBoot(5 * MINUTE_US)),
            Correction::By(NOW - 5 * MINUTE_US)
        );
        assert_eq!(one(Sent::Unsaid), Correction::By(0));
        assert_eq!(
            judged(&[(at(-3 * HOUR_US), NOW)], Sent::Unsaid),
            Correction::By(-3 * HOUR_US)
        );
    }

    /// One request that seems late may be late; the present of the clock, or a second request, tells.
    #[test]
    fn a_single_delay_is_not_taken_for_a_clock_that_is_behind() {
        let config = ClockConfig::default();
        for off in [HOUR_US, 30 * DAY_US, i64::MAX] {
            let sent = Sent::At(NOW.saturating_sub(off));
            let mut offsets = Offsets::default();
            offsets.note(sent, false, NOW);
            assert_eq!(offsets.correction(sent, &config), Correction::By(0));
            // The same frame again, later.
            offsets.note(sent, false, NOW + MINUTE_US);
            assert_eq!(offsets.correction(sent, &config), Correction::By(0));
            offsets.note(sent, true, NOW + HOUR_US);
            assert_ne!(offsets.correction(sent, &config), Correction::By(0));
        }
    }

    /// A frame that was long on its way does not move the estimate of its boot.
    #[test]
    fn delay_is_not_taken_for_a_wrong_clock() {
        let requests = [
            (Sent::At(NOW), NOW + SECOND_US),
            (Sent::At(NOW), NOW + 5 * HOUR_US),
        ];
        assert_eq!(judged(&requests, Sent::At(NOW)), Correction::By(0));
        let requests = [
            (Sent::SinceBoot(0), NOW + SECOND_US),
            (Sent::SinceBoot(MINUTE_US), NOW + HOUR_US),
        ];
        assert_eq!(
            judged(&requests, Sent::SinceBoot(MINUTE_US)),
            Correction::By(NOW + SECOND_US)
        );
    }

    /// A clock that was ahead and then set right is believed again.
    #[test]
    fn a_clock_that_was_set_right_is_believed_again() {
        let mut offsets = after(&[(Sent::At(NOW + 5 * HOUR_US), NOW)]);
        let config = ClockConfig::default();
        for request in 0..2 * i64::from(EVIDENCE_MAX) {
            let now = NOW + request * MINUTE_US;
            offsets.note(Sent::At(now), false, now);
        }
        assert_eq!(
            offsets.correction(Sent::At(NOW), &config),
            Correction::By(0)
        );
    }
}
