//! A session over the lake: every table registered, the drift functions at hand.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use driftline_lake::{Lake, LakeError};
use driftline_schemas::tables::Table;

use crate::functions;

/// Why a statement could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The lake cannot be read.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The statement is wrong, or failed.
    #[error("{0}")]
    Statement(String),
}

impl From<DataFusionError> for QueryError {
    // As text: its own text has its sources, which printing the chain would say again.
    fn from(error: DataFusionError) -> Self {
        Self::Statement(error.to_string())
    }
}

/// Late rows and late labels make a window's measures anew, with the next revision; this is what each
/// came to.
const FINAL_MEASURES: &str = "CREATE OR REPLACE VIEW final_measures AS \
    SELECT * EXCEPT (newest) FROM ( \
        SELECT *, row_number() OVER ( \
            PARTITION BY tenant, model, version, cohort, signal, method, window_start \
            ORDER BY revision DESC, log_offset DESC) AS newest FROM measures) \
    WHERE newest = 1";

/// SQL over one lake, as it was when the session was refreshed last.
pub struct Session {
    lake: Lake,
    context: SessionContext,
}

impl Session {
    /// Opens the lake's tables; a table that was never written is there and empty.
    ///
    /// # Errors
    /// [`QueryError::Lake`] when the lake cannot be read.
    pub async fn open(lake: Lake) -> Result<Self, QueryError> {
        let config = SessionConfig::new()
            .with_information_schema(true)
            .with_default_catalog_and_schema("driftline", "public");
        let context = SessionContext::new_with_config(config);
        functions::register(&context);
        let mut session = Self { lake, context };
        session.refresh().await?;
        Ok(session)
    }

    /// Takes in what was committed since.
    ///
    /// # Errors
    /// [`QueryError::Lake`] when the lake cannot be read.
    pub async fn refresh(&mut self) -> Result<(), QueryError> {
        for table in Table::ALL {
            self.context.deregister_table(table.name())?;
            match self.lake.open(table.name()).await? {
                Some(open) => {
                    let delta = open.delta();
                    delta
                        .update_datafusion_session(&self.context.state())
                        .map_err(|error| LakeError::delta(table.name(), error))?;
                    let provider = delta.table_provider().await?;
                    self.context.register_table(table.name(), provider)?;
                }
                None => {
                    let empty = MemTable::try_new(table.schema(), vec![vec![]])?;
                    self.context.register_table(table.name(), Arc::new(empty))?;
                }
            }
        }
        self.context.sql(FINAL_MEASURES).await?;
        Ok(())
    }

    /// Runs one statement; its answer batch by batch, for what is too large to be held.
    ///
    /// # Errors
    /// [`QueryError::Statement`] with what is wrong in it.
    pub async fn stream(&self, sql: &str) -> Result<SendableRecordBatchStream, QueryError> {
        Ok(self.context.sql(sql).await?.execute_stream().await?)
    }

    /// Runs one statement and collects its answer.
    ///
    /// # Errors
    /// [`QueryError::Statement`] with what is wrong in it.
    pub async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>, QueryError> {
        let frame = self.context.sql(sql).await?;
        let schema = Arc::clone(frame.schema().inner());
        let mut batches = frame.collect().await?;
        if batches.is_empty() {
            // So that an answer without rows still has its columns.
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(batches)
    }

    /// The session of DataFusion, for those who want more than [`Self::run`].
    pub fn context(&self) -> &SessionContext {
        &self.context
    }
}
