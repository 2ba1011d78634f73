//! What the logs on one machine share: groups, polling, stepping and trimming, over a [`Store`]
//! that keeps the bytes. The memory and the embedded log differ in their store only, so what the
//! tests of stages see in memory is what runs on disk.
//!
//! - [`group`]: who of a group holds which partition
//! - [`member`]: one member: poll and commit
//! - [`signal`]: wakes those who wait for something new
//! - [`store`]: what a store must do
//! - [`trim`]: which records may leave

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::api::{
    Appender, Log, Output, ReadBatch, ReadLimits, StageLog, StageSpec, TopicSpec, Trimmed,
};
use crate::check;
use crate::error::LogError;

pub(crate) mod group;
pub(crate) mod member;
pub(crate) mod signal;
pub(crate) mod store;
pub(crate) mod trim;

use group::Group;
use member::Member;
use signal::Signal;
use store::{Store, Write};

/// What all handles of one log share.
pub(crate) struct Shared<S> {
    pub(crate) store: S,
    pub(crate) signal: Signal,
    groups: Mutex<BTreeMap<Arc<str>, Group>>,
}

impl<S: Store> Shared<S> {
    /// Runs `f` on the groups. A panic elsewhere leaves them consistent: every change is one call.
    pub(crate) fn groups<T>(&self, f: impl FnOnce(&mut BTreeMap<Arc<str>, Group>) -> T) -> T {
        f(&mut self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes, and wakes the readers.
    pub(crate) fn write(&self, write: Write) -> Result<store::Written, LogError> {
        let written = self.store.write(write);
        self.signal.notify();
        written
    }
}

/// A log on one machine.
pub(crate) struct Local<S> {
    pub(crate) shared: Arc<Shared<S>>,
}

impl<S> Clone for Local<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Store> Local<S> {
    pub(crate) fn new(store: S) -> Self {
        let groups = Mutex::new(BTreeMap::new());
        Self {
            shared: Arc::new(Shared {
                store,
                signal: Signal::default(),
                groups,
            }),
        }
    }

    fn store(&self) -> &S {
        &self.shared.store
    }
}

impl<S: Store> Log for Local<S> {
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        check::topics(specs)?;
        self.store().ensure_topics(specs)
    }

    fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, LogError> {
        let topics = self.store().topics()?;
        Ok(topics
            .into_iter()
            .map(|spec| (spec.name, spec.partitions))
            .collect())
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        Ok(self.store().topic(topic)?.partitions)
    }

    fn appender(&self, _name: &str) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(LocalAppender { log: self.clone() }))
    }

    fn stage(&self, spec: StageSpec) -> Result<Box<dyn StageLog>, LogError> {
        Ok(Box::new(Member::join(&self.shared, spec)?))
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError> {
        let spec = self.store().topic(topic)?;
        check::partition(&spec, partition)?;
        let deadline = std::time::Instant::now() + limits.wait;
        loop {
            let seen = self.shared.signal.version();
            let batch = self.store().read(topic, partition, from, limits)?;
            if !batch.records.is_empty() || !self.shared.signal.wait(seen, deadline) {
                return Ok(batch);
            }
        }
    }

    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let spec = self.store().topic(topic)?;
        check::partition(&spec, partition)?;
        self.store().range(topic, partition)
    }

    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        let spec = self.store().topic(topic)?;
        check::partition(&spec, partition)?;
        self.store().committed(stage, topic, partition)
    }

    fn trim(&self, now_us: i64) -> Result<Trimmed, LogError> {
        self.store().trim(now_us)
    }

    fn forget_stage(&self, stage: &str) -> Result<(), LogError> {
        // Held while the store forgets, so that no member can join in between.
        self.shared.groups(|groups| {
            if groups.get(stage).is_some_and(|group| !group.is_empty()) {
                return Err(LogError::invalid(format!(
                    "stage {stage} is running: stop it before it is forgotten"
                )));
            }
            self.store().forget_stage(stage)
        })
    }
}

struct LocalAppender<S> {
    log: Local<S>,
}

impl<S: Store> Appender for LocalAppender<S> {
    fn append(&mut self, records: Vec<Output>) -> Result<Vec<u64>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        check::outputs(&records, |topic| self.log.store().topic(topic))?;
        Ok(self
            .log
            .shared
            .write(Write {
                outputs: records,
                step: None,
            })?
            .offsets)
    }
}

/// Passes every call of [`Log`] on to the field `local`.
macro_rules! delegate_log {
    ($log:ty) => {
        impl $crate::Log for $log {
            fn ensure_topics(&self, specs: &[$crate::TopicSpec]) -> Result<(), $crate::LogError> {
                self.local.ensure_topics(specs)
            }
            fn topics(&self) -> Result<Vec<(std::sync::Arc<str>, u32)>, $crate::LogError> {
                self.local.topics()
            }
            fn partitions(&self, topic: &str) -> Result<u32, $crate::LogError> {
                self.local.partitions(topic)
            }
            fn appender(&self, name: &str) -> Result<Box<dyn $crate::Appender>, $crate::LogError> {
                self.local.appender(name)
            }
            fn stage(
                &self,
                spec: $crate::StageSpec,
            ) -> Result<Box<dyn $crate::StageLog>, $crate::LogError> {
                self.local.stage(spec)
            }
            fn read(
                &self,
                topic: &str,
                partition: u32,
                from: u64,
                limits: $crate::ReadLimits,
            ) -> Result<$crate::ReadBatch, $crate::LogError> {
                self.local.read(topic, partition, from, limits)
            }
            fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), $crate::LogError> {
                self.local.range(topic, partition)
            }
            fn committed(
                &self,
                stage: &str,
                topic: &str,
                partition: u32,
            ) -> Result<Option<u64>, $crate::LogError> {
                self.local.committed(stage, topic, partition)
            }
            fn trim(&self, now_us: i64) -> Result<$crate::Trimmed, $crate::LogError> {
                self.local.trim(now_us)
            }
            fn forget_stage(&self, stage: &str) -> Result<(), $crate::LogError> {
                self.local.forget_stage(stage)
            }
        }
    };
}
pub(crate) use delegate_log;
