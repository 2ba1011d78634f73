//! What a store on one machine must do. Everything it is asked has been checked before
//! ([`crate::check`]); what it adds is atomicity and durability.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{Output, Position, ReadBatch, ReadLimits, StateDelta, TopicSpec, Trimmed};
use crate::error::LogError;

/// One atomic write.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) outputs: Vec<Output>,
    pub(crate) step: Option<StepWrite>,
}

/// What a step adds to its outputs.
#[derive(Debug)]
pub(crate) struct StepWrite {
    pub(crate) stage: Arc<str>,
    pub(crate) state: Vec<StateDelta>,
    pub(crate) offsets: Vec<Position>,
}

/// What a write was given.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Offsets of the outputs, in order.
    pub(crate) offsets: Vec<u64>,
    /// Number of the step; 0 without one.
    pub(crate) number: u64,
}

/// What a stage has committed for one partition.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    /// Next offsets, in the order of the inputs asked for.
    pub(crate) next: Vec<u64>,
    pub(crate) state: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(crate) trait Store: Send + Sync + 'static {
    fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), LogError>;
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError>;
    fn topic(&self, name: &str) -> Result<Arc<TopicSpec>, LogError>;
    /// Durable when it returns; all or nothing.
    fn write(&self, write: Write) -> Result<Written, LogError>;
    /// Does not wait.
    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        limits: ReadLimits,
    ) -> Result<ReadBatch, LogError>;
    /// First offset and end; cheap, since every wake-up asks it.
    fn range(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError>;
    /// Makes retention wait for the stage.
    fn register(&self, stage: &Arc<str>, inputs: &[Arc<str>]) -> Result<(), LogError>;
    /// Reads one consistent picture of a stage's partition.
    fn resume(&self, stage: &str, inputs: &[Arc<str>], partition: u32)
    -> Result<Resumed, LogError>;
    fn committed(&self, stage: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError>;
    fn trim(&self, now_us: i64) -> Result<Trimmed, LogError>;
    fn forget_stage(&self, stage: &str) -> Result<(), LogError>;
}
