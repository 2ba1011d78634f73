//! The archive stage: every topic goes to a Delta table, every row once.
//!
//! Records are held, as columns, until there are enough of them or they have waited long enough;
//! then a topic's rows go to its table in one Delta commit that carries the log's offsets
//! ([`driftline_lake`]), and after it the same offsets, and which frames were counted, go to the log
//! in one step.
//!
//! ```text
//! read ─► hold ─► Delta commit (rows + offsets) ─► step on the log (offsets + frames counted)
//!                      │ crash here: the table is ahead of the log
//!                      ▼
//! assigned: the table's offsets win; records up to them are read again without being written,
//!           because which frames count is a function of the partition's prefix
//! ```
//!
//! A failure anywhere ends in a fresh assignment, and the table says where to go on. When the disk
//! is full, nothing is committed, the runner tries again with pauses, and the log keeps what is not
//! archived: retention waits for this stage.
//!
//! # Layout of this module
//!
//! - here: [`ArchiveStage`], the step
//! - [`config`]: its configuration
//! - [`stats`]: what it counts
//! - `convert` (private): from records to columns of the tables
//! - `held` (private): what waits to be written

pub mod config;
mod convert;
mod held;
pub mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_log::runner::{Offsets, Stage, StageError, StepInput, StepOutput};
use driftline_log::{
    Assignment, Committed, Log, Position, ReadLimits, Record, StageSpec, StateDelta,
};
use driftline_schemas::clock::Clock;
use driftline_schemas::packed::{PackedRecord, SchemaCache};
use driftline_schemas::topic;

use crate::bundles::Bundles;
use crate::once::{Delta, FrameId, Once, Verdict};
pub use config::ArchiveConfig;
pub use convert::NOBODY;
use convert::{Converted, Converter};
use driftline_lake::runtime::StoreRuntime;
use driftline_lake::{Lake, LakeError, LakeTable, Progress};
use held::{Held, Holdings};
pub use stats::ArchiveStats;

/// Name of the stage and its consumer group.
pub const STAGE: &str = "archive";
/// The topics that are archived; a table has its topic's name. The place in this list is part of
/// the state's keys, so new topics go to its end.
pub const TOPICS: [&str; 9] = [
    topic::INFERENCES,
    topic::OUTCOMES,
    topic::HEALTH,
    topic::EVENTS,
    topic::PROFILES,
    topic::MEASURES,
    topic::FINDINGS,
    topic::ALERTS,
    topic::DEADLETTERS,
];
/// Compaction does not wait for a quiet moment any longer when this many times the configured
/// number of commits were made.
const COMPACT_URGENT: u32 = 4;

/// Name of an application transaction: how far a topic's partition is in its table.
pub fn progress_name(topic: &str, partition: u32) -> String {
    format!("{STAGE}/{topic}/{partition}")
}

/// What is kept of one partition.
#[derive(Debug, Default)]
struct Partition {
    /// Next offset to be held, by topic.
    next: BTreeMap<usize, u64>,
    /// Frames counted, by topic; only telemetry has them.
    once: BTreeMap<usize, Once>,
    /// Where to read instead of the committed offsets.
    start: Vec<Position>,
    /// The same, until the log has been told.
    untold: Vec<Position>,
}

/// One table under way.
#[derive(Debug, Default)]
struct Table {
    open: Option<LakeTable>,
    commits: u32,
}

/// The stage. Its member must be given [`ArchiveStage::spec`].
pub struct ArchiveStage {
    config: ArchiveConfig,
    lake: Lake,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    stats: ArchiveStats,
    converter: Converter,
    schemas: SchemaCache,
    runtime: StoreRuntime,
    tables: BTreeMap<usize, Table>,
    partitions: BTreeMap<u32, Partition>,
    holdings: Holdings,
}

impl std::fmt::Debug for ArchiveStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveStage")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ArchiveStage {
    /// A stage that has nothing assigned yet. It has two threads of its own for the store.
    ///
    /// # Errors
    /// [`StageError::Fatal`] when the configuration is wrong, the dead letters' topic is missing,
    /// or no thread can be started.
    pub fn new(
        config: ArchiveConfig,
        lake: Lake,
        log: Arc<dyn Log>,
        clock: Arc<dyn Clock>,
        bundles: Arc<dyn Bundles>,
        stats: ArchiveStats,
    ) -> Result<Self, StageError> {
        let fatal = |problem: String| StageError::Fatal(format!("stage {STAGE}: {problem}"));
        config
            .check()
            .map_err(|problem| fatal(format!("configuration of archive, {problem}")))?;
        let letters = log
            .partitions(topic::DEADLETTERS)
            .map_err(|error| fatal(error.to_string()))?;
        let runtime = StoreRuntime::start("archive-store", 2)
            .map_err(|error| fatal(format!("no threads for the store: {error}")))?;
        let late_after_us = config.max_age.us();
        Ok(Self {
            config,
            lake,
            log,
            clock,
            stats,
            converter: Converter::new(bundles, letters, late_after_us),
            schemas: SchemaCache::default(),
            runtime,
            tables: BTreeMap::new(),
            partitions: BTreeMap::new(),
            holdings: Holdings::default(),
        })
    }

    /// Who reads what. All topics must have the same number of partitions.
    pub fn spec() -> StageSpec {
        StageSpec::new(STAGE, &TOPICS)
    }

    /// The table of a topic, made if it is not there.
    fn table(&mut self, at: usize) -> Result<&mut LakeTable, StageError> {
        let table = self.tables.entry(at).or_default();
        if table.open.is_none() {
            let schema = convert::schema(at)?;
            let opened = self.runtime.block_on(self.lake.ensure(TOPICS[at], &schema));
            table.open = Some(opened.map_err(stage_error)?);
        }
        table
            .open
            .as_mut()
            .ok_or_else(|| StageError::Fatal("a table that was opened is not there".into()))
    }

    /// How far a table has come; `None` when it is not there or was never written.
    fn table_progress(&mut self, at: usize, partition: u32) -> Result<Option<u64>, StageError> {
        let name = progress_name(TOPICS[at], partition);
        let table = self.tables.entry(at).or_default();
        if table.open.is_none() {
            let opened = self.runtime.block_on(self.lake.open(TOPICS[at]));
            table.open = opened.map_err(stage_error)?;
        }
        let Some(open) = &mut table.open else {
            return Ok(None);
        };
        let progress = self.runtime.block_on(async {
            open.refresh().await?;
            open.progress(&name).await
        });
        let progress = progress.map_err(stage_error)?;
        Ok(progress.map(|next| u64::try_from(next).unwrap_or(0)))
    }

    /// Makes the log's and the table's idea of an input agree, see above.
    fn catch_up(
        &mut self,
        at: usize,
        partition: u32,
        committed: u64,
        once: Option<&mut Once>,
    ) -> Result<u64, StageError> {
        let Some(table) = self.table_progress(at, partition)? else {
            let told = self.log.committed(STAGE, TOPICS[at], partition);
            let told = told.map_err(|error| StageError::Retry(error.to_string()))?;
            return match told {
                Some(offset) if offset > 0 => Err(lost(at, partition, offset, "nothing")),
                _ => Ok(committed),
            };
        };
        if table < committed {
            return Err(lost(at, partition, committed, &format!("offset {table}")));
        }
        let Some(once) = once else {
            return Ok(table);
        };
        let mut from = committed;
        while from < table {
            let limits = ReadLimits::default();
            let batch = self.log.read(TOPICS[at], partition, from, limits);
            let batch = batch.map_err(|error| StageError::Retry(error.to_string()))?;
            for record in batch.records.iter().filter(|record| record.offset < table) {
                judge(once, record, &self.schemas);
            }
            if batch.next <= from {
                break;
            }
            from = batch.next;
        }
        Ok(table)
    }

    /// Tells the log where the tables already are, before anything more is held: others wait for
    /// these offsets, though no record may come for a long time.
    fn tell(&mut self, out: &mut StepOutput) -> Vec<Position> {
        let mut positions = Vec::new();
        for (&number, partition) in &mut self.partitions {
            for position in std::mem::take(&mut partition.untold) {
                let at = TOPICS.iter().position(|name| **name == *position.topic);
                if let Some((at, once)) = at.and_then(|at| Some((at, partition.once.get_mut(&at)?)))
                {
                    out.state.extend(deltas(at, number, once));
                }
                positions.push(position);
            }
        }
        positions
    }

    fn hold(&mut self, record: &Record, now_us: i64) -> Result<(), StageError> {
        let Some(at) = TOPICS.iter().position(|name| **name == *record.topic) else {
            return Ok(());
        };
        let Some(partition) = self.partitions.get_mut(&record.partition) else {
            return Ok(());
        };
        let begins = partition.next.entry(at).or_insert(record.offset);
        let held = self.holdings.entry(at, record.partition, *begins, now_us);
        *begins = record.offset + 1;
        held.next = record.offset + 1;
        held.bytes += record.size();
        let converted = match partition.once.get_mut(&at) {
            Some(once) => match judge(once, record, &self.schemas) {
                Judged::Nothing => Ok(Converted::default()),
                Judged::Damaged(problem) => Ok(self.converter.damaged(record, &problem)),
                Judged::Record(packed, counted) => {
                    let resent = counted.iter().filter(|counted| !**counted).count();
                    self.stats.frames_resent.inc_by(resent as u64);
                    self.converter.telemetry(at, record, &packed, &counted)
                }
            },
            None => self.converter.derived(at, record),
        };
        let converted = converted?;
        self.stats.records_damaged.inc_by(converted.damaged);
        held.add(converted);
        Ok(())
    }

    fn is_due(&self, at: usize, now_us: i64) -> bool {
        let Some(topic) = self.holdings.of(at) else {
            return false;
        };
        let linger = self.config.linger.duration();
        topic.rows >= self.config.rows_max
            || topic.bytes as u64 >= self.config.bytes_max.0
            || topic.since.real.elapsed() >= linger
            || self.clock.real(now_us - topic.since.us) >= linger
    }

    /// Writes what is held of a topic, and adds to the step what follows from it.
    fn flush(&mut self, at: usize, out: &mut StepOutput) -> Result<Vec<Position>, StageError> {
        let held: Vec<(u32, Held)> = self.holdings.take(at);
        let mut batches = Vec::new();
        let mut progress = Vec::new();
        let mut positions = Vec::new();
        for (partition, held) in held {
            let number = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
            progress.push(Progress {
                input: progress_name(TOPICS[at], partition),
                from: number(held.begins),
                next: number(held.next),
            });
            positions.push(Position {
                topic: TOPICS[at].into(),
                partition,
                next: held.next,
            });
            batches.extend(held.batches);
            out.outputs.extend(held.letters);
            let once = self.partitions.get_mut(&partition);
            if let Some(once) = once.and_then(|partition| partition.once.get_mut(&at)) {
                out.state.extend(deltas(at, partition, once));
            }
        }
        let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        self.table(at)?;
        let table = self.tables.entry(at).or_default();
        if let Some(open) = &mut table.open {
            let appended = self.runtime.block_on(open.append(&batches, &progress));
            if let Err(error) = appended {
                // What is known of the table may be old; the next assignment looks again.
                table.open = None;
                return Err(stage_error(error));
            }
            table.commits += 1;
        }
        self.stats.archived(TOPICS[at], rows as u64);
        tracing::debug!(topic = TOPICS[at], rows, "archived");
        Ok(positions)
    }

    /// Compacts one table that has had enough commits; trouble with it is no trouble for the rows.
    fn compact(&mut self, quiet: bool) {
        let wanted = self.config.compact_commits;
        let needed = match quiet {
            true => wanted,
            false => wanted.saturating_mul(COMPACT_URGENT),
        };
        if wanted == 0 {
            return;
        }
        let due = |table: &&mut Table| table.commits >= needed;
        let Some(table) = self.tables.values_mut().find(due) else {
            return;
        };
        table.commits = 0;
        let Some(open) = &mut table.open else {
            return;
        };
        let name = open.name().to_owned();
        match self.runtime.block_on(open.compact()) {
            Ok((before, after)) => {
                self.stats.compactions.inc();
                tracing::info!(table = name, before, after, "files compacted");
            }
            Err(error) => {
                table.open = None;
                tracing::warn!(table = name, %error, "files not compacted, tried again later");
            }
        }
    }
}

impl Stage for ArchiveStage {
    fn assigned(&mut self, assignment: Assignment) -> Result<(), StageError> {
        let number = assignment.partition;
        let mut partition = Partition::default();
        for position in &assignment.positions {
            let Some(at) = TOPICS.iter().position(|name| **name == *position.topic) else {
                continue;
            };
            let mut once = None;
            if topic::TELEMETRY.contains(&TOPICS[at]) {
                let mine: BTreeMap<Vec<u8>, Vec<u8>> = assignment
                    .state
                    .iter()
                    .filter_map(|(key, value)| Some((own_key(at, key)?, value.clone())))
                    .collect();
                let restored = Once::restore(&mine)
                    .map_err(|error| StageError::Fatal(format!("stage {STAGE}: {error}")))?;
                once = Some(restored);
            }
            let next = self.catch_up(at, number, position.next, once.as_mut())?;
            if next != position.next {
                let ahead = Position {
                    next,
                    ..position.clone()
                };
                partition.start.push(ahead.clone());
                partition.untold.push(ahead);
            }
            partition.next.insert(at, next);
            once.into_iter().for_each(|once| {
                partition.once.insert(at, once);
            });
        }
        self.partitions.insert(number, partition);
        Ok(())
    }

    fn start(&mut self, partition: u32) -> Result<Vec<Position>, StageError> {
        let partition = self.partitions.get_mut(&partition);
        Ok(partition.map_or_else(Vec::new, |partition| std::mem::take(&mut partition.start)))
    }

    fn revoked(&mut self, partition: u32) {
        self.partitions.remove(&partition);
        self.holdings.drop_partition(partition);
    }

    fn step(&mut self, input: StepInput<'_>) -> Result<StepOutput, StageError> {
        let mut out = StepOutput {
            offsets: Offsets::Hold,
            ..StepOutput::default()
        };
        let mut positions = self.tell(&mut out);
        for record in input.records {
            self.hold(record, input.now_us)?;
        }
        for at in 0..TOPICS.len() {
            if self.is_due(at, input.now_us) {
                let flushed = self.flush(at, &mut out)?;
                let passed = |told: &Position| {
                    let same =
                        |of: &Position| (&of.topic, of.partition) == (&told.topic, told.partition);
                    flushed.iter().any(same)
                };
                positions.retain(|told| !passed(told));
                positions.extend(flushed);
            }
        }
        if !positions.is_empty() {
            out.offsets = Offsets::To(positions);
        }
        Ok(out)
    }

    fn committed(&mut self, _committed: Committed) {
        self.compact(self.holdings.is_empty());
    }
}

/// What a telemetry record is, seen with the frames counted before it.
enum Judged {
    Nothing,
    Damaged(String),
    Record(Box<PackedRecord>, Vec<bool>),
}

/// Moves the frames counted past a record. The same whether its rows are then written or not.
fn judge(once: &mut Once, record: &Record, schemas: &SchemaCache) -> Judged {
    once.advance(record.offset);
    let Some(value) = &record.value else {
        return Judged::Nothing;
    };
    let packed = match PackedRecord::decode(value.clone(), schemas) {
        Ok(packed) => packed,
        Err(error) => return Judged::Damaged(error.to_string()),
    };
    let counted = packed
        .frames
        .iter()
        .map(|frame| {
            let id = FrameId::of(packed.head.kind, frame);
            once.admit(record.offset, id) == Verdict::New
        })
        .collect();
    Judged::Record(Box::new(packed), counted)
}

fn stage_error(error: LakeError) -> StageError {
    match error.is_retryable() {
        true => StageError::Retry(error.to_string()),
        false => StageError::Fatal(error.to_string()),
    }
}

fn lost(at: usize, partition: u32, committed: u64, table: &str) -> StageError {
    let name = TOPICS[at];
    StageError::Fatal(format!(
        "lake table {name} has {table} of {name}/{partition}, but offset {committed} was archived: \
         the table was removed or an older copy was put back; restore it, or forget the stage \
         {STAGE} and empty the lake to archive again what the log still has"
    ))
}

/// What changed in the frames counted of a topic and partition.
fn deltas(at: usize, partition: u32, once: &mut Once) -> Vec<StateDelta> {
    let delta = |(key, value): Delta| StateDelta {
        partition,
        key: state_key(at, &key),
        value,
    };
    once.deltas().into_iter().map(delta).collect()
}

/// Keys of the state: the topic's place in [`TOPICS`], then the key of [`Once`].
fn state_key(at: usize, key: &[u8]) -> Vec<u8> {
    let mut out = vec![at as u8];
    out.extend_from_slice(key);
    out
}

fn own_key(at: usize, key: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = key.split_first()?;
    (usize::from(*first) == at).then(|| rest.to_vec())
}
