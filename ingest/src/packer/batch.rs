//! How rows of many requests become records: pure.
//!
//! Rows of one partition, tenant, model version, kind and schema share a record, until it is as
//! large as one may be. A frame stays whole within its partition.

use std::collections::HashMap;
use std::sync::Arc;

use driftline_log::Output;
use driftline_schemas::frame::DeviceProfile;
use driftline_schemas::limits::FRAME_DECODED_BYTES_MAX;
use driftline_schemas::packed::{PackedBuilder, PackedError, RecordHead};
use driftline_schemas::rows::{RowSchema, Rows};
use driftline_schemas::source::{FrameHead, Origin};

use super::Failure;
use crate::limits::RECORD_ROWS_MAX;

/// What a part carries.
#[derive(Debug, Clone)]
pub(crate) enum PartBody {
    /// Rows; parts of one frame that go to several partitions share them.
    Rows(Arc<Rows>),
    /// A profile that a device made.
    Profile(Box<DeviceProfile>),
}

/// A frame, or what of it goes to one partition.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) topic: &'static str,
    pub(crate) partition: u32,
    pub(crate) head: RecordHead,
    pub(crate) schema: Arc<RowSchema>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) frame: FrameHead,
    pub(crate) body: PartBody,
    /// Rows to write, rising; `None` writes all.
    pub(crate) keep: Option<Vec<u32>>,
    /// How many those are.
    pub(crate) rows: usize,
    /// Bytes that they take, about.
    pub(crate) bytes: u64,
}

/// Records, and of each request whether it could be packed.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) outputs: Vec<Output>,
    /// Of each of these, the requests that have rows in it.
    pub(crate) requests: Vec<Vec<usize>>,
    pub(crate) failures: Vec<Option<Failure>>,
}

struct Open {
    topic: &'static str,
    partition: u32,
    builder: PackedBuilder,
    /// Requests that have rows in it.
    requests: Vec<usize>,
}

/// Makes records of what each request wrote.
pub(crate) fn pack(requests: Vec<Vec<Part>>, now_us: i64) -> Packed {
    let mut packed = Packed {
        outputs: Vec::new(),
        requests: Vec::new(),
        failures: requests.iter().map(|_| None).collect(),
    };
    // In order of first appearance, so that equal requests give equal records.
    let mut open: Vec<Open> = Vec::new();
    let mut index: HashMap<(&'static str, u32, RecordHead), usize> = HashMap::new();
    for (request, parts) in requests.into_iter().enumerate() {
        for part in parts {
            let key = (part.topic, part.partition, part.head.clone());
            let at = *index.entry(key).or_insert_with(|| {
                open.push(Open::of(&part));
                open.len() - 1
            });
            if open[at].is_full_for(&part) {
                let full = std::mem::replace(&mut open[at], Open::of(&part));
                full.finish(now_us, &mut packed);
            }
            if let Err(error) = open[at].push(&part, request) {
                packed.failures[request] = Some(Failure::Packing(error.to_string()));
            }
        }
    }
    for record in open {
        record.finish(now_us, &mut packed);
    }
    packed
}

impl Open {
    fn of(part: &Part) -> Self {
        Self {
            topic: part.topic,
            partition: part.partition,
            builder: PackedBuilder::new(part.head.clone(), &part.schema),
            requests: Vec::new(),
        }
    }

    /// One frame within its limits always fits alone.
    fn is_full_for(&self, part: &Part) -> bool {
        !self.builder.is_empty()
            && (self.builder.bytes_estimate() as u64 + part.bytes > FRAME_DECODED_BYTES_MAX as u64
                || self.builder.rows() + part.rows > RECORD_ROWS_MAX)
    }

    fn push(&mut self, part: &Part, request: usize) -> Result<(), PackedError> {
        match (&part.body, &part.keep) {
            (PartBody::Rows(rows), None) => self.builder.push(&part.origin, part.frame, rows),
            (PartBody::Rows(rows), Some(keep)) => {
                self.builder
                    .push_selected(&part.origin, part.frame, rows, keep)
            }
            (PartBody::Profile(profile), _) => {
                self.builder.push_profile(&part.origin, part.frame, profile)
            }
        }?;
        if self.requests.last() != Some(&request) {
            self.requests.push(request);
        }
        Ok(())
    }

    fn finish(self, now_us: i64, packed: &mut Packed) {
        if self.builder.is_empty() {
            return;
        }
        match self.builder.finish() {
            Ok(value) => {
                packed.outputs.push(Output {
                    topic: self.topic.into(),
                    partition: self.partition,
                    key: Vec::new(),
                    value: Some(value),
                    timestamp_us: now_us.max(0),
                });
                packed.requests.push(self.requests);
            }
            Err(error) => {
                for request in self.requests {
                    packed.failures[request] = Some(Failure::Packing(error.to_string()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::limits::RECORD_BYTES_MAX;
    use driftline_schemas::packed::{PackedRecord, SchemaCache};
    use driftline_schemas::rows::{Column, Kind};
    use proptest::prelude::*;

    fn part(tenant: &str, partition: u32, sequence: u64, count: usize) -> Part {
        let schema = Arc::new(RowSchema::events());
        let mut rows = Rows::empty(&schema);
        let text = Arc::from("boot");
        for column in &mut rows.columns {
            match column {
                Column::Time(values) => *values = (0..count).map(|row| Some(row as i64)).collect(),
                Column::Text(values) => {
                    *values = (0..count).map(|_| Some(Arc::clone(&text))).collect();
                }
                _ => {}
            }
        }
        Part {
            topic: "events",
            partition,
            head: RecordHead {
                tenant: tenant.into(),
                model: "".into(),
                version: "".into(),
                kind: Kind::Events,
                fingerprint: schema.fingerprint(),
            },
            origin: Arc::new(Origin::new(tenant, &format!("d{partition}"))),
            frame: FrameHead {
                boot: 1,
                sequence,
                sent_at_us: None,
                received_at_us: 5,
                clock_correction_us: 0,
            },
            bytes: crate::check::bytes_of(&rows) + 8 * count as u64,
            body: PartBody::Rows(Arc::new(rows)),
            keep: None,
            rows: count,
            schema,
        }
    }

    fn records(packed: &Packed) -> Vec<(u32, PackedRecord)> {
        let cache = SchemaCache::default();
        let decode = |output: &Output| {
            let value = output.value.clone().unwrap();
            assert!(value.len() <= RECORD_BYTES_MAX);
            (
                output.partition,
                PackedRecord::decode(value, &cache).unwrap(),
            )
        };
        packed.outputs.iter().map(decode).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever comes together: each frame is written once, whole, in its partition, with its
        /// tenant, in the order it came, and as few records are made as there are groups.
        #[test]
        fn each_frame_is_written_once(parts in proptest::collection::vec((0..3u32, 0..3usize, 1..20usize), 0..40)) {
            let tenants = ["a", "b", "c"];
            let requests: Vec<Vec<Part>> = parts
                .iter()
                .enumerate()
                .map(|(at, (partition, tenant, rows))| vec![part(tenants[*tenant], *partition, at as u64, *rows)])
                .collect();
            let packed = pack(requests, 7);
            prop_assert!(packed.failures.iter().all(Option::is_none));
            let mut seen = Vec::new();
            for (partition, record) in records(&packed) {
                let sequences: Vec<u64> = record.frames.iter().map(|it| it.head.sequence).collect();
                prop_assert!(sequences.is_sorted());
                for frame in &record.frames {
                    let (expected, tenant, rows) = parts[frame.head.sequence as usize];
                    prop_assert_eq!(partition, expected);
                    prop_assert_eq!(&*record.head.tenant, tenants[tenant]);
                    prop_assert_eq!(frame.rows as usize, rows);
                }
                seen.extend(sequences);
            }
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..parts.len() as u64));
            let groups: std::collections::BTreeSet<(u32, usize)> = parts.iter().map(|it| (it.0, it.1)).collect();
            prop_assert_eq!(packed.outputs.len(), groups.len());
        }
    }

    /// A record that would be too large or too long is closed and another one begun; a frame stays
    /// whole.
    #[test]
    fn full_records_are_closed() {
        let requests = (0..5).map(|it| vec![part("a", 0, it, 60_000)]).collect();
        let packed = pack(requests, 7);
        let records = records(&packed);
        assert!(records.len() >= 3, "{}", records.len());
        let frames: Vec<(u64, u32)> = records
            .iter()
            .flat_map(|(_, record)| &record.frames)
            .map(|frame| (frame.head.sequence, frame.rows))
            .collect();
        let expected: Vec<(u64, u32)> = (0..5).map(|sequence| (sequence, 60_000)).collect();
        assert_eq!(frames, expected);
        for (_, record) in &records {
            assert!(record.rows() <= RECORD_ROWS_MAX);
        }
    }

    /// Rows that cannot be packed fail their own request only.
    #[test]
    fn what_cannot_be_packed_fails_alone() {
        let mut wrong = part("a", 0, 1, 3);
        wrong.schema = Arc::new(RowSchema::health());
        wrong.origin = Arc::clone(&part("b", 0, 0, 1).origin);
        let packed = pack(vec![vec![part("a", 0, 0, 3)], vec![wrong]], 7);
        assert!(packed.failures[0].is_none());
        assert!(packed.failures[1].is_some());
        let records = records(&packed);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].1.frames.len(), 1);
    }
}
