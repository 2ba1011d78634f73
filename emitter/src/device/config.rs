//! What makes one device differ from another, and what of it is sent.

use driftline_schemas::clock::MINUTE_US;
use driftline_schemas::frame::Overrides;
use driftline_schemas::source::Origin;

use crate::limits::{FRAME_ROWS_DEFAULT, REQUEST_BYTES_DEFAULT, SPOOL_BYTES_DEFAULT};

/// Where the latency in the rows comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Latency {
    /// Measured: time of a batch divided by its rows.
    Measured,
    /// Given, microseconds, so that a simulation repeats to the byte.
    Fixed(i32),
    /// Not reported.
    None,
}

/// What a device sends of its inferences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reporting {
    /// Every row.
    Rows,
    /// One profile per pane of this length in microseconds, in place of the rows. There are no
    /// identities then, and no outcomes.
    Profiles {
        /// Length of a pane, above 0.
        pane_us: i64,
    },
}

impl Reporting {
    /// Profiles of the default pane, one minute.
    pub const PROFILES: Self = Self::Profiles { pane_us: MINUTE_US };
}

/// What makes one device differ from another.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// Identity and attributes; model, version and variant are filled in from the bundle.
    pub origin: Origin,
    /// What the gateway's registry knows of the device; only what differs is sent. `None`: every
    /// attribute that has a value is sent.
    pub declared: Option<Origin>,
    /// Random number of this boot.
    pub boot: u64,
    /// Times are microseconds since boot: the device has no clock.
    pub without_clock: bool,
    /// Bytes of frames and rows kept until acknowledged; see the module on what happens there.
    pub spool_bytes_max: usize,
    /// Rows of a frame, at which it is sealed.
    pub frame_rows_max: usize,
    /// Bytes of a request's body, unless one frame alone is larger.
    pub request_bytes_max: usize,
    /// Where the latency comes from.
    pub latency: Latency,
    /// What is sent of inferences.
    pub reporting: Reporting,
}

impl DeviceConfig {
    /// A device with the default limits.
    pub fn new(origin: Origin, boot: u64) -> Self {
        Self {
            origin,
            declared: None,
            boot,
            without_clock: false,
            spool_bytes_max: SPOOL_BYTES_DEFAULT,
            frame_rows_max: FRAME_ROWS_DEFAULT,
            request_bytes_max: REQUEST_BYTES_DEFAULT,
            latency: Latency::Measured,
            reporting: Reporting::Rows,
        }
    }

    /// What frames must say of the device, given what the gateway knows.
    pub(super) fn overrides(&self) -> Overrides {
        let unknown = Origin::new(&self.origin.tenant, &self.origin.device);
        Overrides::between(&self.origin, self.declared.as_ref().unwrap_or(&unknown))
    }
}
