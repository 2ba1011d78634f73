//! Rows of the lake as the quantised values that their devices counted.

use anyhow::{Context as _, Result, bail};
use arrow::array::{
    Array, ArrayRef, AsArray, Float32Array, Float64Array, Int32Array, ListArray, RecordBatch,
};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, TimestampMicrosecondType};
use driftline_queries::Session;
use driftline_schemas::bundle::{FeatureType, Manifest, SCORE_RESOLUTION, SignalRole, Task};
use driftline_schemas::joint::Joint;
use driftline_schemas::profile::Layout;
use driftline_schemas::quantity::quantise;
use driftline_schemas::source::device_hash;
use futures::StreamExt as _;
use jiff::Timestamp;

use crate::lake::Selection;

/// Where a signal's values stand in the lake.
#[derive(Debug, Clone, Copy)]
enum From {
    Feature(usize),
    Extra(usize),
    Joint,
    Prediction,
    Confidence,
    Error,
}

/// How rows of a version become values of a layout's signals.
#[derive(Debug)]
pub(super) struct Reading {
    signals: Vec<(From, f64)>,
    joint: Option<Joint>,
    task: Task,
    /// Resolution of the output.
    output: f64,
    tenant: String,
}

/// A row as it is counted.
pub(super) struct Row<'a> {
    pub(super) event_time_us: i64,
    pub(super) device: u64,
    /// One per signal; outside `None` for a signal that the row does not have, inside for null.
    pub(super) values: &'a [Option<Option<i32>>],
}

impl Reading {
    /// Finds the signals of a layout in the rows of a version with this manifest; `joint` is what the
    /// layout's signal of that name is computed with.
    ///
    /// # Errors
    /// A signal that the version does not have, or has with another type or resolution.
    pub(super) fn new(
        tenant: &str,
        layout: &Layout,
        joint: Option<&Joint>,
        rows_of: &Manifest,
    ) -> Result<Self> {
        let joint = joint.map(|joint| in_rows_of(joint, rows_of)).transpose()?;
        let its = rows_of.signals();
        let index = |features: &[driftline_schemas::bundle::Feature], name: &str| {
            features.iter().position(|feature| feature.name == name)
        };
        let mut signals = Vec::new();
        for wanted in layout.signals() {
            let signal = &wanted.signal;
            if signal.role != SignalRole::Joint && !its.contains(signal) {
                bail!(
                    "signal {:?}: {}@{} has none of that name and type, so its rows cannot be counted for this version: take rows of the version itself",
                    signal.name,
                    rows_of.name,
                    rows_of.version
                );
            }
            let place = match signal.role {
                SignalRole::Input => index(&rows_of.features, &signal.name).map(From::Feature),
                SignalRole::Extra => index(&rows_of.signals, &signal.name).map(From::Extra),
                SignalRole::Joint => joint.as_ref().map(|_| From::Joint),
                SignalRole::Output => Some(From::Prediction),
                SignalRole::Confidence => Some(From::Confidence),
                SignalRole::Error => Some(From::Error),
            };
            let place =
                place.with_context(|| format!("signal {:?} is in no column", signal.name))?;
            signals.push((place, wanted.resolution()));
        }
        let output = match rows_of.prediction_kind() {
            FeatureType::Numeric { resolution, .. } => resolution,
            FeatureType::Categorical { .. } => 1.0,
        };
        Ok(Self {
            signals,
            joint,
            task: rows_of.task,
            output,
            tenant: tenant.to_owned(),
        })
    }

    /// Calls `each` for the rows of a selection within one day, in any order.
    ///
    /// # Errors
    /// When the lake cannot be read.
    pub(super) async fn day(
        &self,
        session: &Session,
        selection: &Selection,
        (from, to): (Timestamp, Timestamp),
        mut each: impl FnMut(Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let columns = "i.device, i.event_time, i.features, i.signals, i.predicted_code, \
            i.predicted_value, i.confidence, o.truth_code, o.truth_value";
        let statement = selection.labelled(from, to, columns);
        let mut batches = session.stream(&statement).await?;
        let mut values = vec![None; self.signals.len()];
        while let Some(batch) = batches.next().await {
            let columns = Columns::of(&batch?)?;
            for row in 0..columns.times.len() {
                for (value, (place, resolution)) in values.iter_mut().zip(&self.signals) {
                    *value = self.value(&columns, row, *place, *resolution);
                }
                each(Row {
                    event_time_us: columns.times.value(row),
                    device: device_hash(&self.tenant, columns.device(row)),
                    values: &values,
                })?;
            }
        }
        Ok(())
    }

    fn value(
        &self,
        columns: &Columns,
        row: usize,
        place: From,
        resolution: f64,
    ) -> Option<Option<i32>> {
        // NaN is a category that the bundle does not list as well: it is in no bin of one.
        let code = |value: f32| quantise(value.into(), resolution);
        match place {
            From::Feature(at) => Some(at_of(&columns.features, row, at).map(code)),
            From::Extra(at) => Some(at_of(&columns.signals, row, at).map(code)),
            From::Joint => Some(self.joint.as_ref().and_then(|joint| {
                joint.value(columns.times.value(row), |feature| {
                    let value = at_of(&columns.features, row, feature.at)?;
                    Some(quantise(value.into(), feature.resolution))
                })
            })),
            From::Prediction => Some(self.prediction(columns, row)),
            From::Confidence => {
                let value = get(&columns.confidence, row);
                Some(value.map(|value| quantise(value.into(), SCORE_RESOLUTION)))
            }
            From::Error => {
                let predicted = self.prediction(columns, row)?;
                let truth = match self.task {
                    Task::Classification => get(&columns.truth_code, row)?,
                    Task::Regression | Task::Anomaly => {
                        quantise(get(&columns.truth_value, row)?, self.output)
                    }
                };
                Some(Some(self.task.error(predicted, truth)))
            }
        }
    }

    fn prediction(&self, columns: &Columns, row: usize) -> Option<i32> {
        match self.task {
            Task::Classification => get(&columns.predicted_code, row),
            Task::Regression | Task::Anomaly => {
                Some(quantise(get(&columns.predicted_value, row)?, self.output))
            }
        }
    }
}

/// The same signal over the rows of another version, where its features may stand in other places.
fn in_rows_of(joint: &Joint, rows_of: &Manifest) -> Result<Joint> {
    let mut joint = joint.clone();
    for feature in &mut joint.features {
        let mut all = rows_of.features.iter();
        let found = all.position(|it| {
            let FeatureType::Numeric { resolution, .. } = it.kind else {
                return false;
            };
            it.name == feature.name && resolution == feature.resolution
        });
        feature.at = found.with_context(|| {
            format!(
                "signal \"joint\" looks at {:?}: {}@{} has no number of that name and resolution, so its rows cannot be counted for this version: take rows of the version itself",
                feature.name, rows_of.name, rows_of.version
            )
        })?;
    }
    Ok(joint)
}

/// The columns of a batch.
struct Columns {
    devices: ArrayRef,
    times: arrow::array::TimestampMicrosecondArray,
    features: ListArray,
    signals: ListArray,
    predicted_code: Int32Array,
    predicted_value: Float64Array,
    confidence: Float32Array,
    truth_code: Int32Array,
    truth_value: Float64Array,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let column = |at: usize, ty: &DataType| arrow::compute::cast(batch.column(at), ty);
        let list = DataType::new_list(DataType::Float32, true);
        let micros = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        Ok(Self {
            devices: column(0, &DataType::Utf8)?,
            times: column(1, &micros)?
                .as_primitive::<TimestampMicrosecondType>()
                .clone(),
            features: column(2, &list)?.as_list::<i32>().clone(),
            signals: column(3, &list)?.as_list::<i32>().clone(),
            predicted_code: column(4, &DataType::Int32)?
                .as_primitive::<Int32Type>()
                .clone(),
            predicted_value: column(5, &DataType::Float64)?
                .as_primitive::<Float64Type>()
                .clone(),
            confidence: column(6, &DataType::Float32)?
                .as_primitive::<Float32Type>()
                .clone(),
            truth_code: column(7, &DataType::Int32)?
                .as_primitive::<Int32Type>()
                .clone(),
            truth_value: column(8, &DataType::Float64)?
                .as_primitive::<Float64Type>()
                .clone(),
        })
    }

    fn device(&self, row: usize) -> &str {
        self.devices.as_string::<i32>().value(row)
    }
}

fn get<T: arrow::datatypes::ArrowPrimitiveType>(
    column: &arrow::array::PrimitiveArray<T>,
    row: usize,
) -> Option<T::Native> {
    column.is_valid(row).then(|| column.value(row))
}

/// One value of a row's list.
fn at_of(lists: &ListArray, row: usize, at: usize) -> Option<f32> {
    if !lists.is_valid(row) {
        return None;
    }
    let (start, end) = (lists.value_offsets()[row], lists.value_offsets()[row + 1]);
    let index = start as usize + at;
    if index >= end as usize {
        return None;
    }
    get(lists.values().as_primitive::<Float32Type>(), index)
}
