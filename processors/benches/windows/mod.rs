//! A stage that merges partial profiles into final windows, and puts each out once when time has passed it.
//!
//! In the pipeline that is a part of detect, which judges the windows as well; here it stands alone, so that
//! the job measured is the one that is written in Kafka Streams beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use driftline_log::runner::{Stage, StageError, StepInput, StepOutput};
use driftline_log::{Assignment, Committed, Output, StageSpec, StateDelta};
use driftline_schemas::clock::SECOND_US;
use driftline_schemas::profile::batch::{ProfileBatch, encode_cell};
use driftline_schemas::profile::codec::Reader;
use driftline_schemas::profile::{Profile, ProfileKey};
use driftline_schemas::topic::PROFILES;

/// Name of the stage and of the topic it writes to.
pub(crate) const WINDOWS: &str = "windows";
/// How long a window waits after its end, as for the job beside it.
const GRACE_US: i64 = 5 * SECOND_US;

/// What has gone out.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) windows: u64,
    pub(crate) rows: u64,
    /// When the last step was committed.
    pub(crate) at: Option<Instant>,
}

pub(crate) struct Windows {
    /// Records before this offset are of an earlier run.
    from: u64,
    /// Watermarks of the input partitions, which all must have come past a window.
    watermarks: Vec<i64>,
    open: BTreeMap<(i64, ProfileKey), Profile>,
    /// Of the step under way: partial profiles, windows, rows.
    step: [u64; 3],
    merged: Arc<AtomicU64>,
    done: Arc<Mutex<Done>>,
}

fn fatal(error: impl std::fmt::Display) -> StageError {
    StageError::Fatal(error.to_string())
}

impl Windows {
    pub(crate) fn new(
        from: u64,
        partitions: u32,
        merged: Arc<AtomicU64>,
        done: Arc<Mutex<Done>>,
    ) -> Self {
        Self {
            from,
            watermarks: vec![i64::MIN; partitions as usize],
            open: BTreeMap::new(),
            step: [0; 3],
            merged,
            done,
        }
    }

    pub(crate) fn spec() -> StageSpec {
        StageSpec::new(WINDOWS, &[PROFILES])
    }

    /// Merges a record's profiles; gives the keys that it touched.
    fn merge(&mut self, value: &[u8]) -> Result<BTreeSet<(i64, ProfileKey)>, StageError> {
        let batch = ProfileBatch::decode(value).map_err(fatal)?;
        let watermark = &mut self.watermarks[batch.input_partition as usize];
        *watermark = batch.watermark_us.max(*watermark);
        let mut touched = BTreeSet::new();
        for cell in batch.cells {
            self.step[0] += 1;
            let key = (cell.key.pane_start_us + cell.key.pane_length_us, cell.key);
            match self.open.get_mut(&key) {
                Some(profile) => profile.merge(&cell.profile).map_err(fatal)?,
                None => {
                    self.open.insert(key.clone(), cell.profile);
                }
            }
            touched.insert(key);
        }
        Ok(touched)
    }

    /// Takes the windows that time has passed.
    fn passed(&mut self) -> BTreeMap<(i64, ProfileKey), Profile> {
        let time_us = self.watermarks.iter().copied().min().unwrap_or(i64::MIN);
        let open = std::mem::take(&mut self.open);
        let (passed, open) = open
            .into_iter()
            .partition(|((end_us, _), _)| end_us + GRACE_US <= time_us);
        self.open = open;
        passed
    }
}

/// A window's entry in the state: its key and its profile.
fn encode(key: &ProfileKey, profile: &Profile) -> Vec<u8> {
    let mut out = Vec::new();
    encode_cell(&mut out, key, &profile.encode());
    out
}

fn state_key((end_us, key): &(i64, ProfileKey)) -> Vec<u8> {
    let mut bytes = end_us.to_be_bytes().to_vec();
    bytes.extend(serde_json::to_vec(key).unwrap_or_default());
    bytes
}

impl Stage for Windows {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        self.open.clear();
        for (key, value) in assignment.state {
            let (end, json) = key
                .split_first_chunk()
                .ok_or_else(|| fatal("a short key"))?;
            let key = serde_json::from_slice(json).map_err(fatal)?;
            let mut reader = Reader::new(&value);
            let length = reader.count(value.len()).map_err(fatal)?;
            reader.take(length).map_err(fatal)?;
            let profile = Profile::decode(&mut reader).map_err(fatal)?;
            self.open.insert((i64::from_be_bytes(*end), key), profile);
        }
        Ok(())
    }

    fn revoked(&mut self, _partition: u32) {
        self.open.clear();
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        self.step = [0; 3];
        let mut touched = BTreeSet::new();
        for record in input.records {
            if let (true, Some(value)) = (record.offset >= self.from, &record.value) {
                touched.append(&mut self.merge(value)?);
            }
        }
        let mut out = StepOutput::default();
        for (key, profile) in self.passed() {
            self.step[1] += 1;
            self.step[2] += profile.rows;
            out.outputs.push(Output {
                topic: WINDOWS.into(),
                partition: 0,
                key: Vec::new(),
                value: Some(encode(&key.1, &profile)),
                timestamp_us: key.0,
            });
            touched.insert(key);
        }
        let delta = |key: (i64, ProfileKey)| StateDelta {
            partition: 0,
            value: self.open.get(&key).map(|profile| encode(&key.1, profile)),
            key: state_key(&key),
        };
        out.state = touched.into_iter().map(delta).collect();
        Ok(out)
    }

    fn committed(&mut self, _committed: Committed) {
        let mut done = self.done.lock().unwrap();
        done.windows += self.step[1];
        done.rows += self.step[2];
        if self.step[0] > 0 {
            done.at = Some(Instant::now());
        }
        self.merged.fetch_add(self.step[0], Ordering::SeqCst);
    }
}
