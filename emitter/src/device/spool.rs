//! Frames that wait for their acknowledgement, oldest first.

use std::collections::VecDeque;
use std::sync::Arc;

use driftline_schemas::frame::{
    self, Body, DeviceProfile, Envelope, Frame, FrameError, FrameLimits, Sent,
};
use driftline_schemas::limits::{BODY_BYTES_MAX, REQUEST_FRAMES_MAX};
use driftline_schemas::rows::{Kind, RowSchema, Rows};

use super::journal::Journal;
use super::{DeviceError, Runtime};
use crate::limits::REFUSALS_KEPT_MAX;

/// What a frame says of its sending.
pub(super) fn sent(without_clock: bool, now_us: i64) -> Sent {
    match without_clock {
        true => Sent::SinceBoot(now_us),
        false => Sent::At(now_us),
    }
}

/// A frame that takes no more rows.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Kind of its rows.
    pub kind: Kind,
    /// Boot in which it was made.
    pub boot: u64,
    /// Its number among the frames of that boot and kind.
    pub sequence: u64,
    /// Its rows, or those that its profile counts.
    pub rows: u64,
    /// Time that it says it was sent at, microseconds of the device's clock.
    pub stamped_us: i64,
    /// Whether it went out at least once; from then on its bytes stay.
    pub is_sent: bool,
    bytes: Vec<u8>,
    /// Its columns, for stamping it anew; `None` when they are not known to this boot.
    schema: Option<Arc<RowSchema>>,
}

impl Sealed {
    pub(super) fn of_rows(
        kind: Kind,
        envelope: Envelope,
        rows: Rows,
        schema: &Arc<RowSchema>,
        now_us: i64,
    ) -> Result<Self, FrameError> {
        let count = rows.len() as u64;
        Self::encode(kind, envelope, Body::Rows(rows), count, schema, now_us)
    }

    pub(super) fn of_profile(
        envelope: Envelope,
        profile: DeviceProfile,
        schema: &Arc<RowSchema>,
        now_us: i64,
    ) -> Result<Self, FrameError> {
        let count = profile.profile.rows;
        let body = Body::Profile(profile);
        Self::encode(Kind::Profiles, envelope, body, count, schema, now_us)
    }

    fn encode(
        kind: Kind,
        envelope: Envelope,
        body: Body,
        rows: u64,
        schema: &Arc<RowSchema>,
        now_us: i64,
    ) -> Result<Self, FrameError> {
        let (boot, sequence) = (envelope.boot, envelope.sequence);
        Ok(Self {
            kind,
            boot,
            sequence,
            rows,
            stamped_us: now_us,
            is_sent: false,
            bytes: frame::encode(&Frame { envelope, body }, schema)?,
            schema: Some(Arc::clone(schema)),
        })
    }

    /// A frame that an earlier boot left behind.
    pub(super) fn restored(
        kind: Kind,
        boot: u64,
        sequence: u64,
        rows: u64,
        is_sent: bool,
        bytes: Vec<u8>,
    ) -> Self {
        Self {
            kind,
            boot,
            sequence,
            rows,
            stamped_us: i64::MIN,
            is_sent,
            bytes,
            schema: None,
        }
    }

    /// The frame as it travels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Sets when it is sent, before it goes out for the first time.
    fn stamp(&mut self, now_us: i64, without_clock: bool) -> Result<bool, FrameError> {
        let Some(schema) = self
            .schema
            .as_ref()
            .filter(|_| !self.is_sent && self.stamped_us != now_us)
        else {
            return Ok(false);
        };
        let mut frame = frame::decode(&self.bytes, schema, &FrameLimits::default())?;
        frame.envelope.sent = sent(without_clock, now_us);
        self.bytes = frame::encode(&frame, schema)?;
        self.stamped_us = now_us;
        Ok(true)
    }
}

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// Sealed frames.
    pub frames: usize,
    /// Rows, in frames or still open.
    pub rows: u64,
    /// Bytes of frames and, estimated from above, of open rows.
    pub bytes: usize,
}

/// A frame that the gateway refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of the frame.
    pub kind: Kind,
    /// Its number.
    pub sequence: u64,
    /// Rows that are lost with it.
    pub rows: u64,
    /// HTTP status of the refusal.
    pub status: u16,
    /// What the gateway said.
    pub reason: String,
}

/// One request to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Frames, each behind its length.
    pub body: Vec<u8>,
    /// Number of frames.
    pub frames: usize,
    /// Number of rows.
    pub rows: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Spool {
    frames: VecDeque<Sealed>,
    bytes: usize,
    /// Frames of the request that is under way, from the front.
    under_way: usize,
    /// Frames from the front that go out one by one, because a request that held them was refused.
    one_by_one: usize,
    refusals: VecDeque<Refusal>,
}

impl Spool {
    /// Takes up what an earlier boot left behind.
    pub(super) fn restore(frames: Vec<Sealed>, runtime: &Runtime) -> Self {
        let mut spool = Self::default();
        for mut frame in frames {
            let schema = runtime.schema(frame.kind);
            let fits = frame::peek(&frame.bytes)
                .is_ok_and(|header| header.fingerprint == schema.fingerprint());
            if fits {
                frame.schema = Some(Arc::clone(schema));
            }
            spool.push(frame);
        }
        spool
    }

    pub(super) fn push(&mut self, frame: Sealed) {
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn pending(&self) -> Pending {
        Pending {
            frames: self.frames.len(),
            rows: self.frames.iter().map(|frame| frame.rows).sum(),
            bytes: self.bytes,
        }
    }

    pub(super) fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        self.refusals.iter()
    }

    /// Whether a request can be made as far as the spool is concerned.
    pub(super) fn has_next(&self) -> bool {
        self.under_way == 0 && !self.frames.is_empty()
    }

    /// The oldest frames as one body, stamped where they never went out.
    pub(super) fn request(
        &mut self,
        now_us: i64,
        without_clock: bool,
        bytes_max: usize,
        journal: &mut dyn Journal,
    ) -> Result<Option<Request>, DeviceError> {
        if !self.has_next() {
            return Ok(None);
        }
        // Length prefixes take at most ten bytes each.
        let bytes_max = bytes_max.min(BODY_BYTES_MAX - 10 * REQUEST_FRAMES_MAX);
        let frames_max = match self.one_by_one {
            0 => REQUEST_FRAMES_MAX,
            _ => 1,
        };
        let (mut count, mut bytes, mut rows) = (0, 0, 0);
        for frame in self.frames.iter_mut().take(frames_max) {
            if count > 0 && bytes + frame.bytes.len() > bytes_max {
                break;
            }
            let before = frame.bytes.len();
            let is_stamped = frame.stamp(now_us, without_clock)?;
            self.bytes = self.bytes + frame.bytes.len() - before;
            if is_stamped || !frame.is_sent {
                frame.is_sent = true;
                journal.update(frame)?;
            }
            count += 1;
            bytes += frame.bytes.len();
            rows += frame.rows;
        }
        self.under_way = count;
        Ok(Some(Request {
            body: frame::join(self.frames.iter().take(count).map(Sealed::bytes)),
            frames: count,
            rows,
        }))
    }

    /// The frames under way are at the gateway: takes them out.
    pub(super) fn acknowledged(&mut self) -> Vec<Sealed> {
        let count = std::mem::take(&mut self.under_way);
        self.one_by_one = self.one_by_one.saturating_sub(count);
        let taken: Vec<Sealed> = self.frames.drain(..count).collect();
        self.bytes -= taken.iter().map(|frame| frame.bytes.len()).sum::<usize>();
        taken
    }

    /// The frames under way stay.
    pub(super) fn failed(&mut self) {
        self.under_way = 0;
    }

    /// The request under way was refused for good. One frame alone is taken out; several are tried
    /// one by one, so that one bad frame does not take the others with it.
    pub(super) fn refused(&mut self, status: u16, reason: &str) -> Option<Sealed> {
        let count = std::mem::take(&mut self.under_way);
        if count != 1 {
            self.one_by_one = count;
            return None;
        }
        self.one_by_one = self.one_by_one.saturating_sub(1);
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.bytes.len();
        if self.refusals.len() >= REFUSALS_KEPT_MAX {
            self.refusals.pop_front();
        }
        self.refusals.push_back(Refusal {
            kind: frame.kind,
            sequence: frame.sequence,
            rows: frame.rows,
            status,
            reason: reason.into(),
        });
        Some(frame)
    }
}
