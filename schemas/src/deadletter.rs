//! What was refused, with the reason: nothing vanishes.
//!
//! Travels as JSON (dead letters are few, and people read them), rests as a row of the
//! `deadletters` table.

use serde::{Deserialize, Serialize};

/// Version of the record.
pub const DEAD_LETTER_FORMAT: u32 = 1;
/// Most bytes of the refused thing that are kept, so that a sender of garbage cannot fill the log.
pub const PAYLOAD_BYTES_MAX: usize = 4_096;

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// [`DEAD_LETTER_FORMAT`].
    pub format: u32,
    /// Owner, where known.
    pub tenant: String,
    /// Device that sent it, where known.
    pub device: String,
    /// Kind of what was refused (`inferences`, …), where known.
    #[serde(default)]
    pub kind: String,
    /// Reason, one of a short list, in snake case (`event_time_out_of_bounds`).
    pub reason: String,
    /// What exactly, and where, for people.
    pub detail: String,
    /// The beginning of what was refused, as text; bytes that are no UTF-8 are replaced.
    pub payload: String,
    /// When it was refused, microseconds of the injected clock.
    pub at_us: i64,
}

impl DeadLetter {
    /// A dead letter of the current format, its payload cut to [`PAYLOAD_BYTES_MAX`].
    pub fn new(
        tenant: &str,
        device: &str,
        reason: &str,
        detail: &str,
        payload: &[u8],
        at_us: i64,
    ) -> Self {
        let kept = &payload[..payload.len().min(PAYLOAD_BYTES_MAX)];
        Self {
            format: DEAD_LETTER_FORMAT,
            tenant: tenant.into(),
            device: device.into(),
            kind: String::new(),
            reason: reason.into(),
            detail: detail.into(),
            payload: String::from_utf8_lossy(kept).into_owned(),
            at_us,
        }
    }

    /// The same, of a kind of telemetry.
    #[must_use]
    pub fn of_kind(mut self, kind: crate::rows::Kind) -> Self {
        self.kind = kind.name().into();
        self
    }

    /// The bytes of the record.
    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no JSON of a dead letter.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
