//! What makes one device differ from another, and what of it is sent.

use std::sync::Arc;

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
}

/// What is sent of an origin when the gateway already knows another.
pub(super) fn overrides(mine: &Origin, declared: Option<&Origin>) -> Overrides {
    let nothing = Origin {
        tenant: Arc::clone(&mine.tenant),
        device: Arc::clone(&mine.device),
        role: Default::default(),
        model: "".into(),
        version: "".into(),
        variant: "".into(),
        hardware: "".into(),
        firmware: "".into(),
        region: "".into(),
        site: "".into(),
        link: Default::default(),
        cadence_s: 0,
    };
    let known = declared.unwrap_or(&nothing);
    let text = |mine: &Arc<str>, known: &Arc<str>| (mine != known).then(|| Arc::clone(mine));
    Overrides {
        device: text(&mine.device, &known.device),
        model: text(&mine.model, &known.model),
        version: text(&mine.version, &known.version),
        variant: text(&mine.variant, &known.variant),
        hardware: text(&mine.hardware, &known.hardware),
        firmware: text(&mine.firmware, &known.firmware),
        region: text(&mine.region, &known.region),
        site: text(&mine.site, &known.site),
        link: (mine.link != known.link).then_some(mine.link),
        role: (mine.role != known.role).then_some(mine.role),
        cadence_s: (mine.cadence_s != known.cadence_s).then_some(mine.cadence_s),
    }
}
