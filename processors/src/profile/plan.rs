//! The aggregation of one model version: planned once, run for every step.
//!
//! Planning costs milliseconds, running a planned aggregation over a thousand rows a fraction of
//! one. So the physical plan is made once (one partition, no optimiser passes, hence no dynamic
//! filters), its input is a slot that each run fills, and [`reset_plan_states`] makes it as new.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::expressions::col;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::prelude::SessionConfig;
use driftline_schemas::profile::Layout;
use futures::StreamExt;

use super::function::{NAME, ProfileFunction};

/// Rows that the operators hand on at once. Columns of a packed record go through whole; this
/// bounds what the aggregation gives out.
const BATCH_ROWS: usize = 8_192;

/// Where a run finds its input.
#[derive(Debug)]
struct Slot {
    schema: SchemaRef,
    batches: Mutex<Vec<RecordBatch>>,
}

impl PartitionStream for Slot {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches =
            std::mem::take(&mut *self.batches.lock().unwrap_or_else(PoisonError::into_inner));
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.schema),
            stream,
        ))
    }
}

/// One group of a run's result.
#[derive(Debug)]
pub struct Group {
    /// Start of the pane, microseconds.
    pub pane_us: i64,
    /// Code of the cell.
    pub cell: u32,
    /// Encoded profile.
    pub profile: Vec<u8>,
}

/// The planned aggregation of one model version.
#[derive(Debug)]
pub struct ProfilePlan {
    schema: SchemaRef,
    slot: Arc<Slot>,
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

impl ProfilePlan {
    /// Plans `profile(device, column…) GROUP BY pane, cell`. The columns are counted as the
    /// layout's signals `signals`.
    ///
    /// # Errors
    /// When the layout has no such signals.
    pub fn new(layout: Arc<Layout>, signals: &[usize]) -> Result<Self> {
        let mut fields = vec![
            Field::new("pane", DataType::Int64, false),
            Field::new("cell", DataType::UInt32, false),
            Field::new("device", DataType::UInt64, false),
        ];
        // Names only need to differ: signals may be called like the columns above.
        fields.extend(
            (0..signals.len()).map(|at| Field::new(format!("signal {at}"), DataType::Int32, true)),
        );
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let slot = Arc::new(Slot {
            schema: Arc::clone(&schema),
            batches: Mutex::default(),
        });
        let partitions = vec![Arc::clone(&slot) as Arc<dyn PartitionStream>];
        let input: Arc<dyn ExecutionPlan> = Arc::new(StreamingTableExec::try_new(
            Arc::clone(&schema),
            partitions,
            None,
            [],
            false,
            None,
        )?);
        let column = |at: usize| col(schema.field(at).name(), &schema);
        let function = AggregateUDF::new_from_impl(ProfileFunction::new(layout, signals)?);
        let arguments = (2..schema.fields().len())
            .map(column)
            .collect::<Result<Vec<Arc<dyn PhysicalExpr>>>>()?;
        let aggregate = AggregateExprBuilder::new(Arc::new(function), arguments)
            .schema(Arc::clone(&schema))
            .alias(NAME)
            .build()?;
        let keys = [0, 1]
            .into_iter()
            .map(|at| Ok((column(at)?, schema.field(at).name().clone())))
            .collect::<Result<Vec<_>>>()?;
        let plan = AggregateExec::try_new(
            AggregateMode::Single,
            PhysicalGroupBy::new_single(keys),
            vec![Arc::new(aggregate)],
            vec![None],
            input,
            Arc::clone(&schema),
        )?;
        let config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(BATCH_ROWS);
        Ok(Self {
            schema,
            slot,
            plan: Arc::new(plan),
            context: Arc::new(TaskContext::default().with_session_config(config)),
        })
    }

    /// Schema of the input: `pane`, `cell`, `device`, then the signals' columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Aggregates batches of [`Self::schema`]. Nothing waits, so the calling thread does the work.
    ///
    /// # Errors
    /// When a batch has another schema.
    pub fn run(&mut self, batches: Vec<RecordBatch>) -> Result<Vec<Group>> {
        *self
            .slot
            .batches
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = batches;
        self.plan = reset_plan_states(Arc::clone(&self.plan))?;
        let mut results = self.plan.execute(0, Arc::clone(&self.context))?;
        let mut groups = Vec::new();
        futures::executor::block_on(async {
            while let Some(batch) = results.next().await {
                read(&batch?, &mut groups)?;
            }
            Ok(groups)
        })
    }
}

fn read(batch: &RecordBatch, groups: &mut Vec<Group>) -> Result<()> {
    let wrong = || exec_datafusion_err!("the aggregation gave columns of other types");
    let pane = batch.column(0).as_primitive_opt::<Int64Type>();
    let cell = batch.column(1).as_primitive_opt::<UInt32Type>();
    let profile = batch.column(2).as_binary_opt::<i32>();
    let (pane, cell) = (pane.ok_or_else(wrong)?, cell.ok_or_else(wrong)?);
    let profile = profile.ok_or_else(wrong)?;
    groups.extend((0..batch.num_rows()).map(|row| Group {
        pane_us: pane.value(row),
        cell: cell.value(row),
        profile: profile.value(row).to_vec(),
    }));
    Ok(())
}
