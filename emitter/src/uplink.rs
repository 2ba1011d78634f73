//! How bodies get to the gateway, and what to do with its answers.
//!
//! # Layout of this module
//!
//! - here: [`Uplink`], [`Reply`], and [`deliver`], the loop around a device
//! - [`http`]: the blocking HTTP client
//! - [`answer`]: what an HTTP answer means

pub mod answer;
pub mod http;

use std::time::Duration;

use driftline_schemas::clock::Clock;

use crate::device::{Device, DeviceError};

/// Path that frames are posted to.
pub const FRAMES_PATH: &str = "/v1/frames";
/// Content type of a body of frames.
pub const FRAMES_CONTENT_TYPE: &str = "application/vnd.driftline.frames";

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The gateway has all frames, durably.
    Acknowledged {
        /// The answer's JSON, where it had one: counts, directives.
        body: Option<serde_json::Value>,
    },
    /// The gateway will never take this body: sending it again does not help.
    Refused {
        /// HTTP status.
        status: u16,
        /// What the gateway said.
        reason: String,
    },
    /// The gateway does not let this sender in (wrong token, revoked device, wrong address). The
    /// frames are not to blame and stay.
    Denied {
        /// HTTP status.
        status: u16,
        /// What the gateway said.
        reason: String,
    },
    /// Nothing is known or the gateway is busy: the same body is to be sent again later.
    Later {
        /// How long the gateway asked to wait.
        retry_after: Option<Duration>,
        /// What went wrong.
        reason: String,
    },
}

/// Brings one body to the gateway and its answer back.
pub trait Uplink {
    /// Sends and waits for the answer. Failures are answers too ([`Reply::Later`]).
    fn send(&mut self, body: &[u8]) -> Reply;
}

impl<U: Uplink + ?Sized> Uplink for &mut U {
    fn send(&mut self, body: &[u8]) -> Reply {
        (**self).send(body)
    }
}

impl<U: Uplink + ?Sized> Uplink for Box<U> {
    fn send(&mut self, body: &[u8]) -> Reply {
        (**self).send(body)
    }
}

/// How [`deliver`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// The spool is empty.
    Done,
    /// The caller did not want to wait any longer; frames stay in the spool.
    Stopped,
    /// The gateway does not let the device in; frames stay in the spool.
    Denied {
        /// HTTP status.
        status: u16,
        /// What the gateway said.
        reason: String,
    },
}

/// Seals what is open and sends until the spool is empty, waiting between failed attempts. `wait` is
/// called with how long to wait in real time, and says whether to go on (`false` after a shutdown
/// or a deadline).
///
/// # Errors
/// [`DeviceError`] when a frame cannot be made or the spool's disk fails.
pub fn deliver(
    device: &mut Device,
    uplink: &mut dyn Uplink,
    clock: &dyn Clock,
    wait: &mut dyn FnMut(Duration) -> bool,
) -> Result<Delivery, DeviceError> {
    device.seal(clock.now_us())?;
    loop {
        if let Some(request) = device.next_request(clock.now_us())? {
            let reply = uplink.send(&request.body);
            device.on_reply(clock.now_us(), &reply)?;
            match reply {
                Reply::Denied { status, reason } => {
                    return Ok(Delivery::Denied { status, reason });
                }
                Reply::Later { reason, .. } => {
                    tracing::debug!(reason, device = %device.origin().device, "will be sent again");
                }
                Reply::Acknowledged { .. } | Reply::Refused { .. } => {}
            }
            continue;
        }
        let Some(due_us) = device.due_us() else {
            return Ok(Delivery::Done);
        };
        let span_us = due_us.saturating_sub(clock.now_us()).max(0);
        if !wait(clock.real(span_us)) {
            return Ok(Delivery::Stopped);
        }
    }
}
