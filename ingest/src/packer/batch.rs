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
            Ok(value) => packed.outputs.push(Output {
                topic: self.topic.into(),
                partition: self.partition,
                key: Vec::new(),
                value: Some(value),
                timestamp_us: now_us.max(0),
            }),
            Err(error) => {
                for request in self.requests {
                    packed.failures[request] = Some(Failure::Packing(error.to_string()));
                }
            }
        }
    }
}
