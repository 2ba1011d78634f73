//! The lake: Delta tables, found by name in one place, appended to exactly once.
//!
//! Every append is one Delta commit that carries, as application transactions, how far its inputs
//! were read ([`Progress`]). Before it commits, the writer checks that the table says what the
//! writer believes: the conflict checker of Delta refuses two writers at once, but not a replay
//! from a fresh snapshot. Those entries are never expired: no retention is set for them.
//!
//! # Layout
//!
//! - here: [`Lake`], which finds, makes and opens tables
//! - [`table`]: [`LakeTable`]: progress, appending, compaction
//! - [`reader`]: byte ranges of files, for readers that pick rows
//! - [`runtime`]: threads of a stage for its store
//! - `store` (private): object stores that a lake may lie in

pub mod reader;
pub mod runtime;
mod store;
pub mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::StructField;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::SaveMode;
use deltalake::table::config::TableProperty;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, ensure_table_uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use driftline_schemas::tables::PARTITION_COLUMNS;
pub use table::{DataFile, LakeTable, Progress};

/// Commits between checkpoints: opening a table reads at most so many small files.
const CHECKPOINT_COMMITS: u32 = 32;

/// Where the lake is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// A folder, or a URL of an object store. One table per name lies below it.
    pub url: String,
    /// Options of the object store (credentials, endpoint), by name.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// What went wrong in the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The store or the table's log could not be read or written.
    #[error("lake table {table}: {source}")]
    Delta {
        /// Name of the table.
        table: String,
        /// What happened.
        source: Box<DeltaTableError>,
    },
    /// Somebody else has written on, or this was written before.
    #[error(
        "lake table {table} has come to {actual} of {input}, and this batch begins at {expected}: \
         another process archives the same partitions, or the batch was committed before"
    )]
    Elsewhere {
        /// Name of the table.
        table: String,
        /// What is read.
        input: String,
        /// Where the batch begins.
        expected: i64,
        /// Where the table is.
        actual: i64,
    },
    /// The table has other columns.
    #[error(
        "lake table {table} cannot take the columns of this version: {problem}; use the version of \
         driftline that made the table, or a newer one, or another lake"
    )]
    Schema {
        /// Name of the table.
        table: String,
        /// What differs.
        problem: String,
    },
}

impl LakeError {
    /// What a table said.
    pub fn delta(table: &str, source: impl Into<DeltaTableError>) -> Self {
        Self::Delta {
            table: table.into(),
            source: Box::new(source.into()),
        }
    }

    /// Whether trying the same again later can succeed. A full disk and a store that does not
    /// answer pass; columns that do not fit do not.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Schema { .. })
    }
}

/// The catalogue of the lake's tables.
#[derive(Debug, Clone)]
pub struct Lake {
    base: String,
    options: BTreeMap<String, String>,
}

impl Lake {
    /// A lake; nothing is read or made yet.
    pub fn new(config: &LakeConfig) -> Self {
        store::register();
        Self {
            base: config.url.trim_end_matches('/').to_owned(),
            options: config.options.clone(),
        }
    }

    /// Where the rows of a tenant and region of a table lie. One table per name holds all of them
    /// for now; whoever looks for rows asks here, so that it can become otherwise.
    pub fn location(&self, _tenant: &str, _region: &str, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// All places where rows of a table lie.
    pub fn locations(&self, name: &str) -> Vec<String> {
        vec![self.location("", "", name)]
    }

    /// Opens a table as it is now, `None` when it was never written.
    ///
    /// # Errors
    /// [`LakeError::Delta`] when the store cannot be read.
    pub async fn open(&self, name: &str) -> Result<Option<LakeTable>, LakeError> {
        let mut table = self.build(name)?;
        match table.load().await {
            Ok(()) => Ok(Some(LakeTable::new(name, table))),
            Err(DeltaTableError::NotATable(_) | DeltaTableError::InvalidVersion(_)) => Ok(None),
            Err(error) => {
                // Only a table that is there can be broken.
                let exists = table.verify_deltatable_existence().await;
                match exists.map_err(|error| LakeError::delta(name, error))? {
                    true => Err(LakeError::delta(name, error)),
                    false => Ok(None),
                }
            }
        }
    }

    /// Opens a table, makes it when it is not there, and adds columns that it does not have yet.
    ///
    /// # Errors
    /// [`LakeError::Schema`] when the table has a column of another type, [`LakeError::Delta`]
    /// when the store cannot be read or written.
    pub async fn ensure(&self, name: &str, schema: &SchemaRef) -> Result<LakeTable, LakeError> {
        if let Some(table) = self.open(name).await? {
            return table.widen(schema).await;
        }
        let created = CreateBuilder::new()
            .with_log_store(self.build(name)?.log_store())
            .with_table_name(name)
            .with_columns(delta_fields(name, schema)?)
            .with_partition_columns(PARTITION_COLUMNS)
            .with_configuration_property(
                TableProperty::CheckpointInterval,
                Some(CHECKPOINT_COMMITS.to_string()),
            )
            .with_save_mode(SaveMode::ErrorIfExists)
            .await;
        match created {
            Ok(table) => Ok(LakeTable::new(name, table)),
            // Another process made it in the meantime.
            Err(error) => match self.open(name).await? {
                Some(table) => table.widen(schema).await,
                None => Err(LakeError::delta(name, error)),
            },
        }
    }

    fn build(&self, name: &str) -> Result<DeltaTable, LakeError> {
        let location = self.location("", "", name);
        ensure_table_uri(&location)
            .and_then(DeltaTableBuilder::from_url)
            .and_then(|builder| {
                let options = self.options.clone().into_iter().collect();
                builder.with_storage_options(options).build()
            })
            .map_err(|error| LakeError::delta(name, error))
    }
}

/// The columns of an Arrow schema as Delta knows them.
fn delta_fields(name: &str, schema: &Schema) -> Result<Vec<StructField>, LakeError> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let field: Result<StructField, _> = field.as_ref().try_into_kernel();
            field.map_err(|error| LakeError::Schema {
                table: name.into(),
                problem: error.to_string(),
            })
        })
        .collect()
}
