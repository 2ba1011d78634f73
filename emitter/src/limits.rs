//! Bounds of the device side, with their reasons.

/// Largest model file, in bytes: what runs on a device is far below, and a file that claims to be a
/// model must not fill the memory of whoever checks it.
pub const MODEL_BYTES_MAX: usize = 64 << 20;
/// Most bytes of model files that one process holds compiled at a time (a simulation or gateway may
/// load many versions); a compiled model takes a small multiple of its file.
pub const MODELS_BYTES_MAX: usize = 512 << 20;
/// Sizes of batches for which a compiled plan is kept, for models that cannot be compiled for any
/// size at once: the usual full batch, its remainder, single rows, and one to spare.
pub const PLANS_MAX: usize = 4;
/// Rows per run of the model: keeps the intermediate tensors of a wide network in tens of megabytes.
pub const RUN_ROWS_MAX: usize = 4_096;
/// Bytes of frames and open rows that a device keeps until they are acknowledged, unless its
/// configuration says otherwise: weeks of one row a minute, hours of ten rows a second.
pub const SPOOL_BYTES_DEFAULT: usize = 8 << 20;
/// Rows of a frame, unless the configuration says otherwise: large enough that columns compress,
/// small enough that a resend over a thin link is not dear.
pub const FRAME_ROWS_DEFAULT: usize = 1_024;
/// Bytes of one frame, estimated from above, at which it is sealed: a frame that does not compress
/// must still fit in a request's body.
pub const FRAME_BYTES_MAX: usize = driftline_schemas::limits::BODY_BYTES_MAX / 2;
/// Bytes of one request's body: a quarter of what the gateway takes, so that the length prefixes
/// and one frame that is larger than usual still fit.
pub const REQUEST_BYTES_DEFAULT: usize = driftline_schemas::limits::BODY_BYTES_MAX / 4;
/// Panes that a device that reports profiles keeps open at a time; readings that come out of order
/// by more panes than this close the oldest early, which merges later all the same.
pub const OPEN_PANES_MAX: usize = 16;
/// Frames whose refusal a device remembers for whoever asks.
pub const REFUSALS_KEPT_MAX: usize = 16;
/// Bytes of the gateway's answer that are read: it is a short JSON document.
pub const REPLY_BYTES_MAX: u64 = 256 << 10;
/// First wait after a failure, microseconds.
pub const BACKOFF_BASE_US: i64 = 500_000;
/// Longest wait between attempts, microseconds: a fleet that lost its gateway is back within five
/// minutes of its return.
pub const BACKOFF_MAX_US: i64 = 300_000_000;
/// Longest `Retry-After` that is honoured, microseconds; a broken clock at the other end must not
/// silence a device for good.
pub const RETRY_AFTER_MAX_US: i64 = 3_600_000_000;
