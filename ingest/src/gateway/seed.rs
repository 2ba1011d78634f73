//! What the gateway knew before a restart, as far as the ends of the topics tell: sequences and
//! clocks of the devices that were heard of last. It is a convenience: the once-logic downstream
//! keeps its own state, and a clock is estimated anew from the next requests.

use driftline_log::{Log, LogError, ReadLimits};
use driftline_schemas::packed::{PackedRecord, SchemaCache};
use driftline_schemas::topic::TELEMETRY;

use crate::devices::Devices;
use crate::limits::SEED_RECORDS_MAX;

/// Reads the last records of every partition; gives the number of frames seen.
pub(super) fn seed(log: &dyn Log, devices: &Devices) -> Result<u64, LogError> {
    let schemas = SchemaCache::default();
    let mut frames = 0;
    for topic in TELEMETRY {
        for partition in 0..log.partitions(topic)? {
            let (first, end) = log.range(topic, partition)?;
            let mut from = first.max(end.saturating_sub(SEED_RECORDS_MAX));
            while from < end {
                let batch = log.read(topic, partition, from, ReadLimits::default())?;
                from = batch.next.max(from + 1);
                for value in batch.records.into_iter().filter_map(|it| it.value) {
                    let Ok(record) = PackedRecord::decode(value, &schemas) else {
                        // Whoever must have it says so; here it only tells less.
                        continue;
                    };
                    for frame in &record.frames {
                        devices.seed(frame.origin.device_hash(), record.head.kind, &frame.head);
                        frames += 1;
                    }
                }
            }
        }
    }
    Ok(frames)
}
