//! A durable log in one folder, for one process, on top of redb.
//!
//! # What lies on disk
//!
//! `lock` is held while a process has the log open; `log.redb` is a copy-on-write B-tree file. Its
//! tables are in `tables`, the bytes of their values in `codec`. A record is stored under
//! (topic id, partition, offset), with a CRC over key and content, so that reading finds damage
//! that happened after the write.
//!
//! # How a write becomes durable
//!
//! ```text
//! appender ─┐                       one redb transaction
//! appender ─┼─► bounded queue ─► writer thread ─► one fsync ─► answer all ─► wake readers
//! stage    ─┘
//! ```
//!
//! One thread writes. It takes what waits in the queue, up to [`GROUP_BYTES_MAX`], applies all of
//! it in one transaction and answers everybody after its one fsync: while the disk syncs one
//! group, the next gathers, so throughput rises with the load and a lone writer waits for nobody.
//! A full queue blocks the caller; that is how a slow disk slows the gateway.
//!
//! # What a crash leaves
//!
//! redb writes into free pages, then one of two commit slots, then syncs. After a crash the newer
//! slot whose checksums hold is taken, so a transaction is there in full or not at all. The next
//! open walks the file to find free pages again, which takes time in proportion to its size and is
//! logged.
//!
//! # What a full disk does
//!
//! The write fails with a retryable [`LogError::Storage`], nothing of it is acknowledged, and redb
//! refuses all further work on its handle. The writer thread opens the file again for the next
//! write; a write whose answer was an error may turn out to have happened, as after a crash. A
//! *sync* that fails is different: the kernel may have dropped the pages and will not say so
//! again. Then the log refuses all further writes until the process is started anew.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::api::{ReadBatch, ReadLimits, TopicSpec, Trimmed};
use crate::error::LogError;
use crate::local::store::{Resumed, Store, Write, Written};
use crate::local::{Local, delegate_log};

mod apply;
mod backend;
mod catalog;
mod codec;
mod disk;
mod tables;
mod writer;

use catalog::Catalog;
use disk::Disk;
use writer::Writer;

/// Version of the tables and of the bytes in them.
pub const FORMAT_VERSION: u32 = 1;

/// Default memory for redb's page cache: the tail of every partition, which all stages read, fits
/// in; history is read once and needs no cache. Half of it buffers a write.
pub const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Most bytes in one redb transaction, which bounds how long those who joined it first wait.
pub const GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Most records that one transaction of a trim removes, so that appends get their turn in between.
pub const TRIM_RECORDS_MAX: u64 = 4_096;

/// How to open the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Memory for the page cache, in bytes.
    pub cache_bytes: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES,
        }
    }
}

/// A durable log in one folder. Clones share it; it is closed when the last clone, appender and
/// member is dropped.
#[derive(Clone)]
pub struct EmbeddedLog {
    local: Local<EmbeddedStore>,
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog").finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the log in `folder`, which is created when it is missing.
    ///
    /// # Errors
    /// [`LogError::Locked`] when another process has it open, [`LogError::Format`] when a newer
    /// version wrote it, [`LogError::Storage`] when the disk refuses.
    pub fn open(folder: &Path, options: EmbeddedOptions) -> Result<Self, LogError> {
        Self::open_on(Disk::open(folder, options.cache_bytes)?)
    }

    fn open_on(disk: Disk) -> Result<Self, LogError> {
        let store = EmbeddedStore::open(disk)?;
        Ok(Self {
            local: Local::new(store),
        })
    }
}

delegate_log!(EmbeddedLog);

pub(crate) struct EmbeddedStore {
    disk: Arc<Disk>,
    catalog: Arc<Catalog>,
    writer: Writer,
}

impl EmbeddedStore {
    fn open(disk: Disk) -> Result<Self, LogError> {
        let disk = Arc::new(disk);
        let catalog = Arc::new(Catalog::default());
        disk.write(|tables| tables.prepare())?;
        catalog.load(&disk)?;
        let writer = Writer::start(Arc::clone(&disk), Arc::clone(&catalog))?;
        Ok(Self {
            disk,
            catalog,
            writer,
        })
    }
}

impl Store for EmbeddedStore {
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        let specs = specs.to_vec();
        self.writer
            .task(move |tables| apply::ensure_topics(tables, &specs))
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.catalog.specs())
    }

    fn topic(&self, name: &str) -> Result<Arc<TopicSpec>, LogError> {
        self.catalog.spec(name)
    }

    fn write(&self, write: Write) -> Result<Written, LogError> {
        self.writer.write(write)
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError> {
        let at = self.catalog.at(topic, partition)?;
        self.disk.read(|tables| tables.read(&at, from, limits))
    }

    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let at = self.catalog.at(topic, partition)?;
        Ok((at.first, at.end))
    }

    fn register(&self, stage: &Arc<str>, inputs: &[Arc<str>]) -> Result<(), LogError> {
        let (stage, inputs) = (Arc::clone(stage), inputs.to_vec());
        self.writer
            .task(move |tables| apply::register(tables, &stage, &inputs))
    }

    fn resume(
        &self,
        stage: &str,
        inputs: &[Arc<str>],
        partition: u32,
    ) -> Result<Resumed, LogError> {
        let places = inputs.iter().map(|input| self.catalog.at(input, partition));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        self.disk.read(|tables| {
            let mut next = Vec::with_capacity(places.len());
            for at in &places {
                next.push(
                    tables
                        .committed(stage, &at.topic, partition)?
                        .unwrap_or(at.first),
                );
            }
            let state: BTreeMap<_, _> = tables.state(stage, partition)?;
            Ok(Resumed { next, state })
        })
    }

    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        self.disk
            .read(|tables| tables.committed(stage, topic, partition))
    }

    fn trim(&self, now_us: i64) -> Result<Trimmed, LogError> {
        let mut trimmed = Trimmed::default();
        for spec in self.catalog.specs() {
            for partition in 0..spec.partitions {
                let at = self.catalog.at(&spec.name, partition)?;
                loop {
                    let (at, cleanup) = (at.clone(), spec.cleanup.clone());
                    let part = self
                        .writer
                        .task(move |tables| apply::trim(tables, &at, &cleanup, now_us))?;
                    trimmed.records += part.records;
                    trimmed.bytes += part.bytes;
                    if part.records < TRIM_RECORDS_MAX {
                        trimmed.held.extend(part.held);
                        break;
                    }
                }
            }
        }
        Ok(trimmed)
    }

    fn forget_stage(&self, stage: &str) -> Result<(), LogError> {
        let stage = stage.to_owned();
        self.writer
            .task(move |tables| apply::forget_stage(tables, &stage))
    }
}

#[cfg(test)]
mod tests;
