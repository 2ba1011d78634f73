//! Topics and the bounds of their partitions, in memory: asked at every wake-up and every write.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::disk::Disk;
use super::tables::{At, Bounds, Touched};
use crate::api::TopicSpec;
use crate::check;
use crate::error::LogError;

#[derive(Debug, Default)]
pub(super) struct Catalog {
    topics: RwLock<BTreeMap<Arc<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    spec: Arc<TopicSpec>,
    bounds: Vec<Bounds>,
}

impl Catalog {
    /// Takes everything from disk: at the start, and whenever a write's outcome is in doubt.
    pub(super) fn load(&self, disk: &Disk) -> Result<(), LogError> {
        let topics = disk.read(|tables| {
            let mut topics = BTreeMap::new();
            for (id, spec) in tables.topics()? {
                let bounds = (0..spec.partitions).map(|partition| tables.bounds(id, partition));
                let bounds = bounds.collect::<Result<_, _>>()?;
                let name = Arc::clone(&spec.name);
                topics.insert(
                    name,
                    Entry {
                        id,
                        spec: Arc::new(spec),
                        bounds,
                    },
                );
            }
            Ok(topics)
        })?;
        *self.topics.write().unwrap_or_else(PoisonError::into_inner) = topics;
        Ok(())
    }

    /// Takes over what a transaction changed, after its commit.
    pub(super) fn update(&self, touched: &Touched) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        for entry in topics.values_mut() {
            let ours = (entry.id, 0)..(entry.id, u32::MAX);
            for ((_, partition), bounds) in touched.range(ours) {
                if let Some(known) = entry.bounds.get_mut(*partition as usize) {
                    *known = *bounds;
                }
            }
        }
    }

    pub(super) fn specs(&self) -> Vec<TopicSpec> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().map(|entry| (*entry.spec).clone()).collect()
    }

    pub(super) fn spec(&self, name: &str) -> Result<Arc<TopicSpec>, LogError> {
        self.with(name, |entry| Ok(Arc::clone(&entry.spec)))
    }

    pub(super) fn id(&self, name: &str) -> Result<(u32, Arc<TopicSpec>), LogError> {
        self.with(name, |entry| Ok((entry.id, Arc::clone(&entry.spec))))
    }

    pub(super) fn at(&self, name: &str, partition: u32) -> Result<At, LogError> {
        self.with(name, |entry| {
            check::partition(&entry.spec, partition)?;
            let Bounds { first, end, .. } = entry.bounds[partition as usize];
            Ok(At {
                topic: Arc::clone(&entry.spec.name),
                id: entry.id,
                partition,
                first,
                end,
            })
        })
    }

    fn with<T>(
        &self,
        name: &str,
        f: impl FnOnce(&Entry) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        f(topics.get(name).ok_or_else(|| LogError::UnknownTopic {
            topic: Arc::from(name),
        })?)
    }
}
