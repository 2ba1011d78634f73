//! The tables, and the views of them inside one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::FORMAT_VERSION;
use super::codec::{self, Place, StageEntry};
use super::disk::Failed;
use crate::api::{ReadBatch, ReadLimits, Record, TopicSpec};

/// Numbers about the whole log, by name.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Topics by name.
const TOPICS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("topics");
/// First offset, end and bytes (keys and values), by topic id and partition.
const BOUNDS: TableDefinition<'_, (u32, u32), (u64, u64, u64)> = TableDefinition::new("bounds");
/// Records by topic id, partition and offset.
const RECORDS: TableDefinition<'_, Place, &[u8]> = TableDefinition::new("records");
/// Offset of a key's last record in compacted topics, by topic id, partition and key.
const KEYS: TableDefinition<'_, (u32, u32, &[u8]), u64> = TableDefinition::new("keys");
/// Stages by name.
const STAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("stages");
/// Next offset by stage, topic and partition.
const OFFSETS: TableDefinition<'_, (&str, &str, u32), u64> = TableDefinition::new("offsets");
/// State by stage, partition and key.
const STATE: TableDefinition<'_, (&str, u32, &[u8]), &[u8]> = TableDefinition::new("state");

const META_FORMAT: &str = "format";
const META_NEXT_TOPIC: &str = "next_topic";

/// A partition as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    pub(super) topic: Arc<str>,
    pub(super) id: u32,
    pub(super) partition: u32,
    pub(super) first: u64,
    pub(super) end: u64,
}

/// First offset, end and bytes of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) bytes: u64,
}

/// Bounds by topic id and partition.
pub(super) type Touched = BTreeMap<(u32, u32), Bounds>;

/// All tables, to be written in one transaction.
pub(super) struct WriteTables<'t> {
    meta: Table<'t, &'static str, u64>,
    topics: Table<'t, &'static str, &'static [u8]>,
    bounds: Table<'t, (u32, u32), (u64, u64, u64)>,
    pub(super) records: Table<'t, Place, &'static [u8]>,
    pub(super) keys: Table<'t, (u32, u32, &'static [u8]), u64>,
    pub(super) stages: Table<'t, &'static str, &'static [u8]>,
    pub(super) offsets: Table<'t, (&'static str, &'static str, u32), u64>,
    pub(super) state: Table<'t, (&'static str, u32, &'static [u8]), &'static [u8]>,
    /// Bounds changed in this transaction; written once at its end.
    pub(super) touched: Touched,
}

impl<'t> WriteTables<'t> {
    pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, Failed> {
        Ok(Self {
            meta: txn.open_table(META)?,
            topics: txn.open_table(TOPICS)?,
            bounds: txn.open_table(BOUNDS)?,
            records: txn.open_table(RECORDS)?,
            keys: txn.open_table(KEYS)?,
            stages: txn.open_table(STAGES)?,
            offsets: txn.open_table(OFFSETS)?,
            state: txn.open_table(STATE)?,
            touched: Touched::new(),
        })
    }

    /// Stamps a new log with its format, or checks it.
    pub(super) fn prepare(&mut self) -> Result<(), Failed> {
        let found = self.meta.get(META_FORMAT)?.map(|found| found.value());
        match found {
            None => {
                self.meta.insert(META_FORMAT, u64::from(FORMAT_VERSION))?;
                Ok(())
            }
            Some(found) if found == u64::from(FORMAT_VERSION) => Ok(()),
            Some(found) => Err(Failed::Format(u32::try_from(found).unwrap_or(u32::MAX))),
        }
    }

    #[cfg(test)]
    pub(super) fn stamp(&mut self, version: u32) -> Result<(), Failed> {
        self.meta.insert(META_FORMAT, u64::from(version))?;
        Ok(())
    }

    pub(super) fn bounds(&mut self, id: u32, partition: u32) -> Result<Bounds, Failed> {
        if let Some(bounds) = self.touched.get(&(id, partition)) {
            return Ok(*bounds);
        }
        let stored = self
            .bounds
            .get((id, partition))?
            .map(|stored| stored.value());
        let (first, end, bytes) = stored.unwrap_or_default();
        Ok(Bounds { first, end, bytes })
    }

    pub(super) fn set_bounds(&mut self, id: u32, partition: u32, bounds: Bounds) {
        self.touched.insert((id, partition), bounds);
    }

    /// Writes what was only noted; returns the bounds for the catalogue.
    pub(super) fn finish(mut self) -> Result<Touched, Failed> {
        for (place, bounds) in &self.touched {
            self.bounds
                .insert(*place, (bounds.first, bounds.end, bounds.bytes))?;
        }
        Ok(std::mem::take(&mut self.touched))
    }

    pub(super) fn topic(&self, name: &str) -> Result<Option<(u32, TopicSpec)>, Failed> {
        let stored = self.topics.get(name)?;
        stored
            .map(|stored| parse_topic(name, stored.value()))
            .transpose()
    }

    /// Stores a topic under its id, or under a new one.
    pub(super) fn set_topic(&mut self, id: Option<u32>, spec: &TopicSpec) -> Result<(), Failed> {
        let id = match id {
            Some(id) => id,
            None => {
                let next = self
                    .meta
                    .get(META_NEXT_TOPIC)?
                    .map_or(0, |next| next.value());
                self.meta.insert(META_NEXT_TOPIC, next + 1)?;
                // A log that has made four billion topics has long run out of disk.
                next as u32
            }
        };
        self.topics.insert(&*spec.name, &*codec::topic(id, spec))?;
        Ok(())
    }

    pub(super) fn stage(&self, name: &str) -> Result<Option<StageEntry>, Failed> {
        let stored = self.stages.get(name)?;
        stored
            .map(|stored| parse_stage(name, stored.value()))
            .transpose()
    }

    pub(super) fn all_stages(&self) -> Result<Vec<(Arc<str>, StageEntry)>, Failed> {
        let mut stages = Vec::new();
        for entry in self.stages.iter()? {
            let (name, stored) = entry?;
            stages.push((
                Arc::from(name.value()),
                parse_stage(name.value(), stored.value())?,
            ));
        }
        Ok(stages)
    }

    pub(super) fn set_stage(&mut self, name: &str, entry: &StageEntry) -> Result<(), Failed> {
        self.stages.insert(name, &*codec::stage(entry))?;
        Ok(())
    }
}

/// One consistent picture of the log.
pub(super) struct ReadTables<'t>(pub(super) &'t ReadTransaction);

impl ReadTables<'_> {
    /// All topics with their ids.
    pub(super) fn topics(&self) -> Result<Vec<(u32, TopicSpec)>, Failed> {
        let mut topics = Vec::new();
        for entry in self.0.open_table(TOPICS)?.iter()? {
            let (name, stored) = entry?;
            topics.push(parse_topic(name.value(), stored.value())?);
        }
        Ok(topics)
    }

    pub(super) fn bounds(&self, id: u32, partition: u32) -> Result<Bounds, Failed> {
        let table = self.0.open_table(BOUNDS)?;
        let stored = table.get((id, partition))?.map(|stored| stored.value());
        let (first, end, bytes) = stored.unwrap_or_default();
        Ok(Bounds { first, end, bytes })
    }

    /// Records from `from` on, up to the end that `at` knows.
    pub(super) fn read(&self, at: &At, from: u64, limits: ReadLimits) -> Result<ReadBatch, Failed> {
        let mut batch = ReadBatch {
            records: Vec::new(),
            next: from.max(at.end),
            first: at.first,
            end: at.end,
        };
        if from >= at.end {
            return Ok(batch);
        }
        let table = self.0.open_table(RECORDS)?;
        let mut bytes = 0;
        let range = (at.id, at.partition, from)..(at.id, at.partition, at.end);
        for entry in table.range(range)? {
            let (place, stored) = entry?;
            let (place, stored) = (place.value(), stored.value());
            // The stored bytes are a little more than key and value, so this bound is safe.
            let full = batch.records.len() >= limits.max_records.max(1)
                || bytes + stored.len() > limits.max_bytes;
            if full && !batch.records.is_empty() {
                batch.next = place.2;
                break;
            }
            bytes += stored.len();
            let stored = codec::parse_record(place, stored).ok_or_else(|| {
                let (topic, partition) = (&at.topic, at.partition);
                Failed::damaged(format!(
                    "record {} of {topic} partition {partition}",
                    place.2
                ))
            })?;
            batch.records.push(Record {
                topic: Arc::clone(&at.topic),
                partition: at.partition,
                offset: place.2,
                key: stored.key,
                value: stored.value,
                timestamp_us: stored.timestamp_us,
            });
        }
        Ok(batch)
    }

    pub(super) fn committed(
        &self,
        stage: &str,
        topic: &str,
        partition: u32,
    ) -> Result<Option<u64>, Failed> {
        let table = self.0.open_table(OFFSETS)?;
        Ok(table
            .get((stage, topic, partition))?
            .map(|next| next.value()))
    }

    pub(super) fn state(
        &self,
        stage: &str,
        partition: u32,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Failed> {
        let mut state = BTreeMap::new();
        let none: &[u8] = &[];
        let range = (stage, partition, none)..(stage, partition + 1, none);
        for entry in self.0.open_table(STATE)?.range(range)? {
            let (key, value) = entry?;
            state.insert(key.value().2.to_vec(), value.value().to_vec());
        }
        Ok(state)
    }
}

fn parse_topic(name: &str, bytes: &[u8]) -> Result<(u32, TopicSpec), Failed> {
    codec::parse_topic(name, bytes).ok_or_else(|| Failed::damaged(format!("topic {name}")))
}

fn parse_stage(name: &str, bytes: &[u8]) -> Result<StageEntry, Failed> {
    codec::parse_stage(bytes).ok_or_else(|| Failed::damaged(format!("stage {name}")))
}
