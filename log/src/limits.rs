//! Every bound of this crate, with its reason.

/// Largest record: key and value together. The gateway packs frames far below it; it is under
/// Kafka's default of 1 MiB for a batch once the broker's `message.max.bytes` is raised to
/// [`KAFKA_MESSAGE_BYTES_MAX`], which topic creation does.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What topics on Kafka are created with: a record plus room for headers and framing.
pub const KAFKA_MESSAGE_BYTES_MAX: usize = RECORD_BYTES_MAX + 64 * 1024;

/// Largest step or append: outputs and state together. It bounds what waits in the writer's queue
/// together with [`WRITER_QUEUE_MAX`].
pub const STEP_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Records of one poll: enough to amortise a transaction, few enough to bound a stage's memory.
pub const POLL_RECORDS_MAX: usize = 4_096;

/// Bytes of one poll, for the same reason.
pub const POLL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest topic, stage and instance name: Kafka's own bound for topics, less the room that the
/// name of a changelog topic needs around a stage's name.
pub const NAME_BYTES_MAX: usize = 200;

/// Most partitions of one topic; offsets and state are kept per partition.
pub const PARTITIONS_MAX: u32 = 4_096;

/// Largest key, in topics and in state: keys are also kept in indexes.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Writes that may wait for the embedded log's writer thread; a full queue blocks the caller,
/// which is what slows the gateway down when the disk is slow.
pub const WRITER_QUEUE_MAX: usize = 256;
