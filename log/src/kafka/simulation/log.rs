//! The simulated broker as a log: what stages, their members and the test see of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_schemas::clock::Clock;

use super::member::{self, SimulatedMember};
use super::{BEGIN_US, Shared};
use crate::api::{
    Appender, Log, Output, ReadBatch, ReadLimits, StageLog, StageSpec, TopicSpec, Trimmed,
};
use crate::check;
use crate::error::LogError;

/// The log of a simulation.
pub struct SimulatedLog {
    pub(super) shared: Arc<Shared>,
}

impl std::fmt::Debug for SimulatedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimulatedLog").finish_non_exhaustive()
    }
}

impl Clock for SimulatedLog {
    fn now_us(&self) -> i64 {
        let world = self.shared.world();
        BEGIN_US + world.now_ms as i64 * 1_000 - world.back_us
    }
}

impl SimulatedLog {
    /// The state of a stage's partition, as its changelog has it.
    #[must_use]
    pub fn state(&self, stage: &str, partition: u32) -> BTreeMap<Vec<u8>, Vec<u8>> {
        member::restored(&mut self.shared.world().broker, stage, partition)
    }
}

impl Log for SimulatedLog {
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        check::topics(specs)?;
        let mut world = self.shared.world();
        specs.iter().for_each(|spec| world.broker.ensure(spec));
        Ok(())
    }

    fn topics(&self) -> Result<Vec<(Arc<str>, u32)>, LogError> {
        let world = self.shared.world();
        let specs = world.broker.specs.values();
        Ok(specs
            .map(|spec| (Arc::clone(&spec.name), spec.partitions))
            .collect())
    }

    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        Ok(self.shared.world().broker.topic(topic)?.partitions)
    }

    fn appender(&self, _name: &str) -> Result<Box<dyn Appender>, LogError> {
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(SimulatedAppender { shared }))
    }

    fn stage(&self, spec: StageSpec) -> Result<Box<dyn StageLog>, LogError> {
        Ok(Box::new(SimulatedMember::join(&self.shared, spec)?))
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError> {
        let mut world = self.shared.world();
        check::partition(&*world.broker.topic(topic)?, partition)?;
        let at = (Arc::from(topic), partition);
        let (_, end) = world.broker.ends(&at);
        let (records, next) = world.broker.read(&at, from, limits.max_records.max(1));
        Ok(ReadBatch {
            records,
            next,
            first: 0,
            end,
        })
    }

    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let mut world = self.shared.world();
        check::partition(&*world.broker.topic(topic)?, partition)?;
        Ok((0, world.broker.ends(&(Arc::from(topic), partition)).1))
    }

    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        let at = (Arc::from(topic), partition);
        let found = self.shared.world().broker.committed(stage, &at);
        let found = found.map_err(|code| LogError::storage(code.to_string(), true))?;
        Ok(found.map(|(next, _)| next))
    }

    fn trim(&self, _now_us: i64) -> Result<Trimmed, LogError> {
        Ok(Trimmed::default())
    }

    fn forget_stage(&self, stage: &str) -> Result<(), LogError> {
        Err(LogError::invalid(format!(
            "stage {stage}: nothing is forgotten in a simulation"
        )))
    }
}

struct SimulatedAppender {
    shared: Arc<Shared>,
}

impl Appender for SimulatedAppender {
    fn append(&mut self, records: Vec<Output>) -> Result<Vec<u64>, LogError> {
        let mut world = self.shared.world();
        check::outputs(&records, |topic| world.broker.topic(topic))?;
        Ok(records
            .into_iter()
            .map(|record| world.broker.append(record))
            .collect())
    }
}
