//! Records of the profiles topic.

use std::collections::BTreeMap;
use std::mem;

use driftline_log::Output;
use driftline_schemas::profile::ProfileKey;
use driftline_schemas::profile::batch::{PROFILE_BATCH_CELLS_MAX, ProfileBatch, encode_cell};
use driftline_schemas::topic::PROFILES;

/// Bytes of profiles after which a record is closed: far below the largest record, and enough to
/// make the cost per record small.
const RECORD_BYTES: usize = 1 << 20;

/// Cells of one record under way.
#[derive(Debug, Default)]
struct Open {
    cells: Vec<u8>,
    count: usize,
}

/// Collects the profiles of one step and input partition, by output partition.
#[derive(Debug)]
pub(crate) struct Writer {
    input_partition: u32,
    open: BTreeMap<u32, Open>,
    full: Vec<(u32, Open)>,
    count: u64,
}

impl Writer {
    pub(crate) fn new(input_partition: u32) -> Self {
        Self {
            input_partition,
            open: BTreeMap::new(),
            full: Vec::new(),
            count: 0,
        }
    }

    /// Adds an encoded profile for an output partition.
    pub(crate) fn add(&mut self, partition: u32, key: &ProfileKey, profile: &[u8]) {
        let open = self.open.entry(partition).or_default();
        encode_cell(&mut open.cells, key, profile);
        open.count += 1;
        self.count += 1;
        if open.cells.len() >= RECORD_BYTES || open.count >= PROFILE_BATCH_CELLS_MAX {
            self.full.push((partition, mem::take(open)));
        }
    }

    /// Profiles added.
    pub(crate) fn cells(&self) -> u64 {
        self.count
    }

    /// The records. Only the last one of each output partition may say how far time has come by
    /// this step; those before it say what was said before (`before_us`).
    pub(crate) fn finish(
        self,
        before_us: i64,
        watermark_us: i64,
        timestamp_us: i64,
    ) -> Vec<Output> {
        let mut last: BTreeMap<u32, usize> = BTreeMap::new();
        let rest = self.open.into_iter().filter(|(_, open)| open.count > 0);
        let records: Vec<(u32, Open)> = self.full.into_iter().chain(rest).collect();
        for (at, (partition, _)) in records.iter().enumerate() {
            last.insert(*partition, at);
        }
        records
            .into_iter()
            .enumerate()
            .map(|(at, (partition, open))| {
                let is_last = last.get(&partition) == Some(&at);
                let time_us = if is_last { watermark_us } else { before_us };
                let batch = ProfileBatch::encode_parts(
                    self.input_partition,
                    time_us,
                    open.count,
                    &open.cells,
                );
                output(partition, batch, timestamp_us)
            })
            .collect()
    }
}

/// Records that tell every partition of the profiles topic how far an input partition has come.
pub(crate) fn watermark_only(
    input_partition: u32,
    watermark_us: i64,
    partitions: u32,
    timestamp_us: i64,
) -> impl Iterator<Item = Output> {
    let batch = ProfileBatch::encode_parts(input_partition, watermark_us, 0, &[]);
    (0..partitions).map(move |partition| output(partition, batch.clone(), timestamp_us))
}

fn output(partition: u32, value: Vec<u8>, timestamp_us: i64) -> Output {
    Output {
        topic: PROFILES.into(),
        partition,
        key: Vec::new(),
        value: Some(value),
        timestamp_us: timestamp_us.max(0),
    }
}
