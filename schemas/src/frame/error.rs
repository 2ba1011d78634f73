//! What can be wrong with a frame, and what to do about it.

use crate::profile::ProfileError;

/// Which bytes an offset counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The body of a request, which holds frames behind their lengths.
    Request,
    /// The frame, from its first byte.
    Header,
    /// The frame's body, after decompression.
    Body,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Header => "frame",
            Self::Body => "frame body",
        })
    }
}

/// Why a frame is refused, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes are not what the format says.
    #[error("{part} at byte {at}: {what}; send the frame again, or update the sender")]
    Damaged {
        /// What `at` counts in.
        part: Part,
        /// Offset of what is wrong.
        at: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The frame is of a version that is not known.
    #[error(
        "frame at byte 2: version {version}, this gateway reads {}; update the gateway or have the device send the older version",
        super::FRAME_VERSION
    )]
    Version {
        /// The version that is claimed.
        version: u8,
    },
    /// The frame was made with another schema.
    #[error(
        "frame at byte 4: schema {claimed:08x}, expected {known:08x}; register the bundle that the device runs, or bring the device to the registered one"
    )]
    Schema {
        /// Fingerprint in the frame.
        claimed: u32,
        /// Fingerprint of the schema at hand.
        known: u32,
    },
    /// There is more of something than is accepted.
    #[error("frame has {claimed} {what}, the limit is {limit}; send smaller frames")]
    Limit {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// How much is claimed.
        claimed: usize,
        /// How much is accepted.
        limit: usize,
    },
    /// Rows or attributes that no frame can carry.
    #[error("frame cannot be made: {what}; correct what is put into it")]
    Unfit {
        /// What is wrong.
        what: String,
    },
    /// A profile's bytes are wrong.
    #[error("frame body, profile at byte {at}: {source}; send the frame again")]
    Profile {
        /// Where the profile begins in the body.
        at: usize,
        /// What is wrong in it.
        source: ProfileError,
    },
}

impl FrameError {
    pub(super) fn damaged(part: Part, at: usize, what: &'static str) -> Self {
        Self::Damaged { part, at, what }
    }

    pub(super) fn unfit(what: impl Into<String>) -> Self {
        Self::Unfit { what: what.into() }
    }
}

/// Refuses what is over a limit.
pub(super) fn within(what: &'static str, claimed: usize, limit: usize) -> Result<(), FrameError> {
    if claimed <= limit {
        Ok(())
    } else {
        Err(FrameError::Limit {
            what,
            claimed,
            limit,
        })
    }
}
