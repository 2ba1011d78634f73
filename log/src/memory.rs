//! A log in memory, for the tests of stages: all of the log's promises except durability, and
//! faults on demand.
//!
//! ```
//! use driftline_log::memory::{Fault, MemoryLog};
//! use driftline_log::{Log, TopicSpec};
//!
//! let log = MemoryLog::new();
//! log.ensure_topics(&[TopicSpec::new("inferences", 2)])?;
//! log.fail_next_commit(Fault::Before);
//! # Ok::<(), driftline_log::LogError>(())
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::api::{Cleanup, Output, Position, ReadBatch, ReadLimits, Record, TopicSpec, Trimmed};
use crate::check;
use crate::error::LogError;
use crate::local::store::{Resumed, StepWrite, Store, Write, Written};
use crate::local::trim::{Cut, Readers, Verdict};
use crate::local::{Local, delegate_log};

/// What goes wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, and the caller is told to try again.
    Before,
    /// It is written, but the caller is told to try again: the answer got lost.
    After,
    /// Nothing is written, and trying again cannot help.
    Fatal,
}

/// A log in memory. Clones share it, so a test "reopens" it by cloning.
#[derive(Clone)]
pub struct MemoryLog {
    local: Local<MemoryStore>,
}

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryLog").finish_non_exhaustive()
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self {
            local: Local::new(MemoryStore::default()),
        }
    }

    /// The next step of any stage fails like this; several calls queue up.
    pub fn fail_next_commit(&self, fault: Fault) {
        self.local.shared.store.lock().step_faults.push_back(fault);
    }

    /// The next append fails like this; several calls queue up.
    pub fn fail_next_append(&self, fault: Fault) {
        self.local
            .shared
            .store
            .lock()
            .append_faults
            .push_back(fault);
    }

    /// The next read fails, and can be tried again; several calls queue up, and `true` lets one pass.
    pub fn fail_next_read(&self, passes: bool) {
        self.local
            .shared
            .store
            .lock()
            .read_faults
            .push_back(!passes);
    }

    /// All records of a topic, by partition and offset.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    pub fn all(&self, topic: &str) -> Result<Vec<Record>, LogError> {
        let data = self.local.shared.store.lock();
        let topic = data.topic(topic)?;
        Ok(topic
            .partitions
            .iter()
            .flat_map(|p| p.records.values().cloned())
            .collect())
    }

    /// The committed state of a stage's partition.
    #[must_use]
    pub fn state(&self, stage: &str, partition: u32) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let data = self.local.shared.store.lock();
        data.stages
            .get(stage)
            .and_then(|s| s.state.get(&partition))
            .cloned()
            .unwrap_or_default()
    }
}

delegate_log!(MemoryLog);

#[derive(Default)]
pub(crate) struct MemoryStore {
    data: Mutex<Data>,
}

#[derive(Default)]
struct Data {
    topics: BTreeMap<Arc<str>, Topic>,
    stages: BTreeMap<Arc<str>, Stage>,
    step_faults: VecDeque<Fault>,
    append_faults: VecDeque<Fault>,
    read_faults: VecDeque<bool>,
}

struct Topic {
    spec: Arc<TopicSpec>,
    partitions: Vec<Partition>,
}

#[derive(Default)]
struct Partition {
    records: BTreeMap<u64, Record>,
    /// Compacted topics: where each key's last record is.
    last: BTreeMap<Bytes, u64>,
    first: u64,
    end: u64,
}

#[derive(Default)]
struct Stage {
    inputs: Vec<Arc<str>>,
    state: BTreeMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>,
    offsets: BTreeMap<(Arc<str>, u32), u64>,
    number: u64,
}

impl MemoryStore {
    /// Every change is one call that cannot panic half way, so a poisoned lock is still sound.
    fn lock(&self) -> MutexGuard<'_, Data> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Data {
    fn topic(&self, name: &str) -> Result<&Topic, LogError> {
        self.topics.get(name).ok_or_else(|| LogError::UnknownTopic {
            topic: Arc::from(name),
        })
    }

    fn partition(&self, name: &str, partition: u32) -> Result<&Partition, LogError> {
        let topic = self.topic(name)?;
        check::partition(&topic.spec, partition)?;
        Ok(&topic.partitions[partition as usize])
    }

    fn append(&mut self, output: Output) -> Result<u64, LogError> {
        let Some(topic) = self.topics.get_mut(&output.topic) else {
            return Err(LogError::UnknownTopic {
                topic: output.topic,
            });
        };
        check::partition(&topic.spec, output.partition)?;
        let partition = &mut topic.partitions[output.partition as usize];
        let offset = partition.end;
        let key = Bytes::from(output.key);
        if topic.spec.cleanup == Cleanup::Compact
            && let Some(old) = partition.last.insert(key.clone(), offset)
        {
            partition.records.remove(&old);
        }
        let record = Record {
            topic: Arc::clone(&topic.spec.name),
            partition: output.partition,
            offset,
            key,
            value: output.value.map(Bytes::from),
            timestamp_us: output.timestamp_us,
        };
        partition.records.insert(offset, record);
        partition.end += 1;
        Ok(offset)
    }

    fn step(&mut self, step: StepWrite) -> u64 {
        let stage = self.stages.entry(step.stage).or_default();
        for delta in step.state {
            let state = stage.state.entry(delta.partition).or_default();
            match delta.value {
                Some(value) => state.insert(delta.key, value),
                None => state.remove(&delta.key),
            };
        }
        for Position {
            topic,
            partition,
            next,
        } in step.offsets
        {
            stage.offsets.insert((topic, partition), next);
        }
        stage.number += 1;
        stage.number
    }

    fn apply(&mut self, write: Write) -> Result<Written, LogError> {
        // Looked up before anything changes, so that the write is all or nothing.
        for output in &write.outputs {
            self.partition(&output.topic, output.partition)?;
        }
        let mut written = Written::default();
        for output in write.outputs {
            written.offsets.push(self.append(output)?);
        }
        if let Some(step) = write.step {
            written.number = self.step(step);
        }
        Ok(written)
    }

    fn readers(&self, topic: &str, partition: u32, first: u64) -> Readers {
        self.stages
            .iter()
            .filter(|(_, stage)| stage.inputs.iter().any(|input| **input == *topic))
            .map(|(name, stage)| {
                let next = stage.offsets.get(&(Arc::from(topic), partition)).copied();
                (Arc::clone(name), next.unwrap_or(first))
            })
            .collect()
    }

    fn trim_partition(&mut self, name: &Arc<str>, at: u32, now_us: i64, trimmed: &mut Trimmed) {
        let Some(topic) = self.topics.get(name) else {
            return;
        };
        let partition = &topic.partitions[at as usize];
        let readers = self.readers(name, at, partition.first);
        let bytes = partition.records.values().map(|r| r.size() as u64).sum();
        let mut cut = Cut::new(&topic.spec.cleanup, now_us, bytes, &readers, name, at);
        let mut gone = Vec::new();
        for record in partition.records.values() {
            let size = record.size() as u64;
            let tombstone = record.value.is_none();
            match cut.judge(record.offset, record.timestamp_us, size, tombstone) {
                Verdict::Remove => gone.push((record.offset, record.key.clone(), size)),
                Verdict::Keep => {}
                Verdict::Stop => break,
            }
        }
        trimmed.held.append(&mut cut.held);
        let compact = topic.spec.cleanup == Cleanup::Compact;
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        let partition = &mut topic.partitions[at as usize];
        for (offset, key, size) in gone {
            partition.records.remove(&offset);
            partition.last.remove(&key);
            trimmed.records += 1;
            trimmed.bytes += size;
            if !compact {
                partition.first = offset + 1;
            }
        }
    }
}

/// What the caller of a faulty write sees.
fn outcome<T>(
    fault: Option<Fault>,
    run: impl FnOnce() -> Result<T, LogError>,
) -> Result<T, LogError> {
    let failed = |retryable| LogError::storage("a fault was injected", retryable);
    match fault {
        None => run(),
        Some(Fault::Before) => Err(failed(true)),
        Some(Fault::After) => run().and(Err(failed(true))),
        Some(Fault::Fatal) => Err(failed(false)),
    }
}

impl Store for MemoryStore {
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        let mut data = self.lock();
        for spec in specs {
            if let Some(topic) = data.topics.get(&spec.name) {
                check::same_shape(&topic.spec, spec)?;
            }
        }
        for spec in specs {
            let partitions = || (0..spec.partitions).map(|_| Partition::default()).collect();
            let entry = data.topics.entry(Arc::clone(&spec.name));
            let topic = entry.or_insert_with(|| Topic {
                spec: Arc::new(spec.clone()),
                partitions: partitions(),
            });
            topic.spec = Arc::new(spec.clone());
        }
        Ok(())
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self
            .lock()
            .topics
            .values()
            .map(|topic| (*topic.spec).clone())
            .collect())
    }

    fn topic(&self, name: &str) -> Result<Arc<TopicSpec>, LogError> {
        Ok(Arc::clone(&self.lock().topic(name)?.spec))
    }

    fn write(&self, write: Write) -> Result<Written, LogError> {
        let mut data = self.lock();
        let faults = if write.step.is_some() {
            &mut data.step_faults
        } else {
            &mut data.append_faults
        };
        let fault = faults.pop_front();
        outcome(fault, || data.apply(write))
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError> {
        let mut data = self.lock();
        if data.read_faults.pop_front() == Some(true) {
            return Err(LogError::storage("a fault was injected", true));
        }
        let partition = data.partition(topic, partition)?;
        let mut batch = ReadBatch {
            records: Vec::new(),
            next: from.max(partition.end),
            first: partition.first,
            end: partition.end,
        };
        let mut bytes = 0;
        for record in partition.records.range(from..).map(|(_, record)| record) {
            let full = batch.records.len() >= limits.max_records.max(1)
                || bytes + record.size() > limits.max_bytes;
            if full && !batch.records.is_empty() {
                batch.next = record.offset;
                break;
            }
            bytes += record.size();
            batch.records.push(record.clone());
        }
        Ok(batch)
    }

    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let data = self.lock();
        let partition = data.partition(topic, partition)?;
        Ok((partition.first, partition.end))
    }

    fn register(&self, stage: &Arc<str>, inputs: &[Arc<str>]) -> Result<(), LogError> {
        self.lock()
            .stages
            .entry(Arc::clone(stage))
            .or_default()
            .inputs = inputs.to_vec();
        Ok(())
    }

    fn resume(
        &self,
        stage: &str,
        inputs: &[Arc<str>],
        partition: u32,
    ) -> Result<Resumed, LogError> {
        let data = self.lock();
        let known = data.stages.get(stage);
        let mut resumed = Resumed::default();
        for input in inputs {
            let first = data.partition(input, partition)?.first;
            let next = known.and_then(|s| s.offsets.get(&(Arc::clone(input), partition)));
            resumed.next.push(next.copied().unwrap_or(first));
        }
        resumed.state = known
            .and_then(|s| s.state.get(&partition))
            .cloned()
            .unwrap_or_default();
        Ok(resumed)
    }

    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        let data = self.lock();
        let stage = data.stages.get(stage);
        Ok(stage
            .and_then(|s| s.offsets.get(&(Arc::from(topic), partition)))
            .copied())
    }

    fn trim(&self, now_us: i64) -> Result<Trimmed, LogError> {
        let mut data = self.lock();
        let mut trimmed = Trimmed::default();
        let names: Vec<(Arc<str>, u32)> = data
            .topics
            .values()
            .map(|topic| (Arc::clone(&topic.spec.name), topic.spec.partitions))
            .collect();
        for (name, partitions) in names {
            for at in 0..partitions {
                data.trim_partition(&name, at, now_us, &mut trimmed);
            }
        }
        Ok(trimmed)
    }

    fn forget_stage(&self, stage: &str) -> Result<(), LogError> {
        self.lock().stages.remove(stage);
        Ok(())
    }
}
