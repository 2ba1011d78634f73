//! Every bound of the gateway, with its reason. Bounds of what a frame may hold are in
//! [`driftline_schemas::limits`]; those that an operator may set are in [`crate::config`].

/// Requests that may wait to be packed. Together with the bytes in flight it bounds what the
/// gateway holds; a request beyond it is answered 503 at once.
pub const QUEUE_REQUESTS_MAX: usize = 1_024;

/// Bytes of bodies and of the rows decoded from them that all requests may hold together: a quarter
/// of the gateway's 512 MiB, since packing and the log hold them once more.
pub const BYTES_IN_FLIGHT_MAX: u64 = 128 << 20;

/// Bytes of rows that one request may decode to. A few bytes can claim a frame of
/// [`driftline_schemas::limits::FRAME_DECODED_BYTES_MAX`], and a request holds many frames.
pub const REQUEST_DECODED_BYTES_MAX: u64 = 32 << 20;

/// Bytes of rows gathered for one append: as many as one record holds, so that a full group still
/// takes one write.
pub const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Rows in one record. A step of a stage takes whole records, so this bounds its memory too.
pub const RECORD_ROWS_MAX: usize = 131_072;

/// Devices that the gateway keeps a rate, clock offsets and sequences for: as many as the registry
/// holds, since only known devices come this far. About 150 bytes each with one boot.
pub const DEVICES_MAX: usize = driftline_log::registry::DEVICES_MAX;

/// Boots of one device that are kept: the once-logic downstream keeps 16 of each kind.
pub const BOOTS_PER_DEVICE_MAX: usize = 16;

/// Dead letters that one frame gets row by row. What else of it is refused is counted in one more
/// letter per reason, so that a device that sends garbage cannot fill the log with it.
pub const LETTERS_PER_FRAME_MAX: usize = 64;

/// The same for one request.
pub const LETTERS_PER_REQUEST_MAX: usize = 512;

/// Bodies larger than this are decoded on a thread that may block, so that others are answered
/// meanwhile: decoding takes about a millisecond per 64 KiB of an unoptimised build.
pub const INLINE_BODY_BYTES_MAX: usize = 16 << 10;

/// Records at the end of each partition that a gateway reads when it starts, to know sequences and
/// clocks again: about a second's worth of a busy partition, and a second of reading.
pub const SEED_RECORDS_MAX: u64 = 256;

/// Longest `Idempotency-Key`, in bytes: a UUID has 36.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Connections that may be open at once. One takes about 20 kB with TLS; a connection beyond it is
/// closed as soon as it comes.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Requests that one HTTP/2 connection may have open at once.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 64;

/// Event times before this are no event times: 2000-01-01T00:00:00Z, microseconds. Clocks that were
/// never set stand at 1970 or 1980.
pub const EVENT_TIME_MIN_US: i64 = 946_684_800_000_000;

/// Gaps below the window in which a late frame is still accepted; as in the once-logic downstream,
/// which refuses what lies in a gap that it has forgotten.
pub const OLD_GAPS_MAX: usize = 16;

/// Sequences below the highest within which every gap is kept; as in the once-logic downstream.
pub const SEQUENCE_WINDOW: u64 = 1_024;
