//! Bounds on what is accepted, with their reasons. A sender that exceeds one is told which.

/// Longest string of any kind that a device or an operator may send, in bytes: attribute values,
/// identifiers and categories are short, and each is held in memory by several stages.
pub const STRING_BYTES_MAX: usize = 256;
/// Largest body of one request to the gateway, compressed, in bytes: a day's backlog of a device
/// fits, and a gateway of 512 MiB can hold hundreds of them at once.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Largest body of one frame after decompression, in bytes.
pub const FRAME_RAW_BYTES_MAX: usize = 16 << 20;
/// Most rows of one frame: one frame must fit in one log record.
pub const FRAME_ROWS_MAX: usize = 65_536;
/// Most bytes that the rows of one frame take as Arrow columns: a frame never spans records, so it
/// must fit in [`RECORD_BYTES_MAX`] even where nothing compresses. It bounds as well what a few
/// bytes of constant columns can make the gateway allocate.
pub const FRAME_DECODED_BYTES_MAX: usize = 6 << 20;
/// Most frames that one request may carry.
pub const REQUEST_FRAMES_MAX: usize = 1_024;
/// Most features of one model: 500 are asked for, the rest is head room.
pub const FEATURES_MAX: usize = 2_048;
/// Most signals of one profile: features, extra signals, and those that every model has.
pub const SIGNALS_MAX: usize = FEATURES_MAX + 8;
/// Most classes or categories of one feature; beyond it a feature is an identifier, not a category.
pub const CATEGORIES_MAX: usize = 1_024;
/// Most bin edges of one numeric signal: 255 bins index in a byte.
pub const EDGES_MAX: usize = 254;
/// Largest record of the log, in bytes, and so of `max.message.bytes` on Kafka.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Devices whose identity a profile keeps per cell and pane (the smallest hashes win, so that
/// merging stays exact); beyond it the number of devices is estimated.
pub const PROFILE_DEVICES_MAX: usize = 256;
/// Largest bundle archive, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 256 << 20;
