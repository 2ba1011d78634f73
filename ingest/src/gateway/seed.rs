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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clocks::Correction;
    use crate::config::{ClockConfig, RateConfig};
    use crate::devices::{Stop, Told};
    use driftline_log::memory::MemoryLog;
    use driftline_log::{Output, TopicSpec};
    use driftline_schemas::frame::Sent;
    use driftline_schemas::packed::{PackedBuilder, RecordHead};
    use driftline_schemas::rows::{Column, Kind, RowSchema, Rows};
    use driftline_schemas::source::{FrameHead, Origin};
    use driftline_schemas::topic::HEALTH;

    const NOW: i64 = 1_700_000_000_000_000;
    const HOUR: i64 = 3_600_000_000;

    fn origin() -> Arc<Origin> {
        serde_json::from_str::<Arc<Origin>>(r#"{"tenant":"acme","device":"d1"}"#).unwrap()
    }

    /// A record of health rows of one frame each.
    fn record(sequences: impl Iterator<Item = u64>) -> Vec<u8> {
        let schema = Arc::new(RowSchema::health());
        let head = RecordHead {
            tenant: "acme".into(),
            model: "".into(),
            version: "".into(),
            kind: Kind::Health,
            fingerprint: schema.fingerprint(),
        };
        let mut builder = PackedBuilder::new(head, &schema);
        let mut rows = Rows::empty(&schema);
        for column in &mut rows.columns {
            match column {
                Column::Time(values) => values.push(Some(NOW)),
                Column::Int32(values) => values.push(None),
                Column::Int64(values) => values.push(None),
                Column::Text(values) => values.push(None),
                Column::Id(values) => values.push(None),
            }
        }
        for sequence in sequences {
            let head = FrameHead {
                boot: 1,
                sequence,
                sent_at_us: Some(NOW),
                received_at_us: NOW,
                clock_correction_us: 0,
            };
            builder.push(&origin(), head, &rows).unwrap();
        }
        builder.finish().unwrap()
    }

    /// A gateway that starts knows from the log which frames it can no longer tell from resends,
    /// and what clocks are worth; a record that cannot be read is passed over.
    #[test]
    fn a_gateway_that_starts_knows_the_past() {
        let log = MemoryLog::new();
        let topics = TELEMETRY.map(|topic| TopicSpec::new(topic, 2));
        log.ensure_topics(&topics).unwrap();
        let values = [
            record((1..2_000).step_by(2)),
            b"no record".to_vec(),
            record((2_001..4_000).step_by(2)),
        ];
        let outputs = values.map(|value| Output {
            topic: HEALTH.into(),
            partition: 1,
            key: Vec::new(),
            value: Some(value),
            timestamp_us: NOW,
        });
        log.appender("test")
            .unwrap()
            .append(outputs.into())
            .unwrap();
        let devices = Devices::new(RateConfig::default(), ClockConfig::default());
        assert_eq!(seed(&log, &devices).unwrap(), 2_000);
        let told = |sequence| Told {
            boot: 1,
            kind: Kind::Health,
            sequence,
            sent: Sent::At(NOW),
            rows: 1,
        };
        let device = origin().device_hash();
        let judge = |sequence| devices.judge(device, &[told(sequence)], None, NOW + 5 * HOUR);
        assert_eq!(judge(4_000), Ok(vec![Correction::By(0)]));
        assert!(matches!(judge(4), Err(Stop::TooOld { .. })));
    }
}
