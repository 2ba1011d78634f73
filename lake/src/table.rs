//! One table of the lake.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Transaction};
use deltalake::parquet::basic::{Compression, ZstdLevel};
use deltalake::parquet::file::properties::WriterProperties;
use deltalake::parquet::schema::types::ColumnPath;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use driftline_log::failpoint;
use object_store::path::Path;

use crate::{LakeError, PARTITION_COLUMNS, delta_fields};

/// Rows of one row group: statistics and skipping work per group, and a group of a wide table must
/// fit in memory.
const GROUP_ROWS_MAX: usize = 1 << 17;
/// Rows that are handed to the writer at once: records of the log have few rows each, and every
/// hand-over costs per column.
const WRITE_ROWS: usize = 1 << 16;
/// Size that compaction aims at.
const FILE_BYTES_TARGET: u64 = 128 << 20;

/// How far an input was read, as an application transaction of a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// `stage/topic/partition`.
    pub input: String,
    /// Where the batch begins: what the table must say before the commit, unless it says nothing.
    pub from: i64,
    /// Where reading goes on: what the table says afterwards.
    pub next: i64,
}

/// One data file of a table.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Path in the table's store.
    pub path: Path,
    /// Bytes.
    pub size: u64,
    /// Statistics as the table's log has them, JSON.
    stats: Option<String>,
}

impl DataFile {
    /// Least and greatest value of a text column, `None` when the log does not say. The log keeps
    /// beginnings of long texts: the least may be shorter than any value, and of the greatest only
    /// the beginning counts.
    pub fn range(&self, column: &str) -> Option<RangeInclusive<String>> {
        let stats: serde_json::Value = serde_json::from_str(self.stats.as_deref()?).ok()?;
        let value = |of: &str| stats.get(of)?.get(column)?.as_str().map(str::to_owned);
        Some(value("minValues")?..=value("maxValues")?)
    }
}

/// An open table and what is known of its progress.
#[derive(Debug)]
pub struct LakeTable {
    name: String,
    table: DeltaTable,
    /// Progress by input, as of the table's version in memory.
    known: BTreeMap<String, Option<i64>>,
}

impl LakeTable {
    pub(crate) fn new(name: &str, table: DeltaTable) -> Self {
        Self {
            name: name.into(),
            table,
            known: BTreeMap::new(),
        }
    }

    /// The table of delta-rs.
    pub fn delta(&self) -> &DeltaTable {
        &self.table
    }

    /// Name of the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn error(&self, error: impl Into<deltalake::DeltaTableError>) -> LakeError {
        LakeError::delta(&self.name, error)
    }

    /// Takes in what others committed.
    ///
    /// # Errors
    /// [`LakeError::Delta`] when the store cannot be read.
    pub async fn refresh(&mut self) -> Result<(), LakeError> {
        let before = self.table.version();
        let refreshed = self.table.update_state().await;
        refreshed.map_err(|error| LakeError::delta(&self.name, error))?;
        if self.table.version() != before {
            self.known.clear();
        }
        Ok(())
    }

    /// How far an input was read, `None` when it never was.
    ///
    /// # Errors
    /// [`LakeError::Delta`] when the store cannot be read.
    pub async fn progress(&mut self, input: &str) -> Result<Option<i64>, LakeError> {
        if let Some(known) = self.known.get(input) {
            return Ok(*known);
        }
        let store = self.table.log_store();
        let snapshot = self.table.snapshot().map_err(|error| self.error(error))?;
        let version = snapshot.transaction_version(store.as_ref(), input).await;
        let version = version.map_err(|error| self.error(error))?;
        self.known.insert(input.to_owned(), version);
        Ok(version)
    }

    /// Appends batches, and how far that has brought each input, in one commit. Batches may be
    /// empty: then only the progress is committed. Their columns are the table's, in any order.
    ///
    /// # Errors
    /// [`LakeError::Elsewhere`] when the table is not where a batch begins; nothing is committed
    /// then. [`LakeError::Delta`] when the store failed: the commit may or may not have happened,
    /// the table's progress tells.
    pub async fn append(
        &mut self,
        batches: &[RecordBatch],
        progress: &[Progress],
    ) -> Result<(), LakeError> {
        self.refresh().await?;
        for step in progress {
            match self.progress(&step.input).await? {
                Some(actual) if actual != step.from => {
                    return Err(LakeError::Elsewhere {
                        table: self.name.clone(),
                        input: step.input.clone(),
                        expected: step.from,
                        actual,
                    });
                }
                _ => {}
            }
        }
        failpoint::hit("archive.before_files");
        let actions = self.write(batches).await?;
        let transactions = progress
            .iter()
            .map(|step| Transaction::new(&step.input, step.next))
            .collect();
        let properties = CommitProperties::default().with_application_transactions(transactions);
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(PARTITION_COLUMNS.map(String::from).to_vec()),
            predicate: None,
        };
        failpoint::hit("archive.before_delta_commit");
        let snapshot = self.table.snapshot().map_err(|error| self.error(error))?;
        let committed = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(snapshot), self.table.log_store(), operation)
            .await
            .map_err(|error| self.error(error))?;
        failpoint::hit("archive.after_delta_commit");
        self.known.clear();
        for step in progress {
            self.known.insert(step.input.clone(), Some(step.next));
        }
        self.table.state = Some(committed.snapshot());
        Ok(())
    }

    async fn write(&self, batches: &[RecordBatch]) -> Result<Vec<Action>, LakeError> {
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(Vec::new());
        }
        let mut writer = RecordBatchWriter::for_table(&self.table)
            .map_err(|error| self.error(error))?
            .with_writer_properties(writer_properties());
        let mut rest = batches;
        while let Some((together, more)) = take_rows(rest) {
            rest = more;
            let batch = concat_batches(&together[0].schema(), together);
            let written = writer
                .write(batch.map_err(|error| self.error(error))?)
                .await;
            written.map_err(|error| self.error(error))?;
        }
        let adds = writer.flush().await.map_err(|error| self.error(error))?;
        Ok(adds.into_iter().map(Action::Add).collect())
    }

    /// Merges small files into larger ones, and removes files that were replaced more than a week
    /// ago. Rows, progress and partitions stay. Returns the number of files before and after.
    ///
    /// # Errors
    /// [`LakeError::Delta`] when the store failed or somebody else compacted at the same time.
    pub async fn compact(&mut self) -> Result<(usize, usize), LakeError> {
        self.refresh().await?;
        let before = self.files()?;
        let (table, _) = self
            .table
            .clone()
            .optimize()
            .with_target_size(NonZeroU64::new(FILE_BYTES_TARGET).unwrap_or(NonZeroU64::MIN))
            .with_writer_properties(writer_properties())
            .with_max_concurrent_tasks(1)
            .await
            .map_err(|error| self.error(error))?;
        // Removes what no version of the last week refers to; a table's own setting is respected.
        let (table, _) = table.vacuum().await.map_err(|error| self.error(error))?;
        self.table = table;
        self.known.clear();
        Ok((before, self.files()?))
    }

    /// The data files whose partition (tenant, date) is wanted.
    ///
    /// # Errors
    /// When the table has no state, which an open one always has.
    pub fn files_where(
        &self,
        wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<Vec<DataFile>, LakeError> {
        let snapshot = self.table.snapshot().map_err(|error| self.error(error))?;
        let log = snapshot.log_data();
        let files = log.iter().filter_map(|file| {
            let values = file.partition_values_map();
            let value = |name: &str| values.get(name).and_then(Option::as_deref).unwrap_or("");
            let [tenant, date] = PARTITION_COLUMNS.map(value);
            wanted(tenant, date).then(|| DataFile {
                path: file.object_store_path(),
                size: u64::try_from(file.size()).unwrap_or(0),
                stats: file.stats(),
            })
        });
        Ok(files.collect())
    }

    /// Number of data files.
    ///
    /// # Errors
    /// When the table has no state, which an open one always has.
    pub fn files(&self) -> Result<usize, LakeError> {
        let snapshot = self.table.snapshot().map_err(|error| self.error(error))?;
        Ok(snapshot.log_data().num_files())
    }

    /// Adds the columns that the table does not have yet; they are null in older rows.
    pub(crate) async fn widen(mut self, schema: &SchemaRef) -> Result<Self, LakeError> {
        let wrong = |problem: String| LakeError::Schema {
            table: self.name.clone(),
            problem,
        };
        let snapshot = self.table.snapshot().map_err(|error| self.error(error))?;
        let has = snapshot.schema();
        let mut missing = Vec::new();
        for field in delta_fields(&self.name, schema)? {
            match has.field(field.name()) {
                Some(known) if known.data_type() == field.data_type() => {}
                Some(known) => {
                    return Err(wrong(format!(
                        "column {} is {} there and {} here",
                        field.name(),
                        known.data_type(),
                        field.data_type()
                    )));
                }
                None if field.is_nullable() => missing.push(field),
                None => return Err(wrong(format!("it has no column {}", field.name()))),
            }
        }
        if !missing.is_empty() {
            let added = self.table.clone().add_columns().with_fields(missing).await;
            self.table = added.map_err(|error| self.error(error))?;
            self.known.clear();
        }
        Ok(self)
    }
}

/// The first batches that together have about [`WRITE_ROWS`] rows, and the rest.
fn take_rows(batches: &[RecordBatch]) -> Option<(&[RecordBatch], &[RecordBatch])> {
    let mut rows = 0;
    let count = batches
        .iter()
        .take_while(|batch| {
            let before = rows;
            rows += batch.num_rows();
            before < WRITE_ROWS
        })
        .count();
    (count > 0).then(|| batches.split_at(count))
}

/// zstd compresses telemetry to about half of what snappy does, and its C code is fast in builds
/// without optimisation too.
fn writer_properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // No two are alike, so a dictionary only costs time.
        .set_column_dictionary_enabled(ColumnPath::from("inference_id"), false)
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .build()
}
