//! From a label and its inference to a count of the `error` signal.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, TimestampMicrosecondType};
use driftline_schemas::bundle::Task;
use driftline_schemas::profile::Cell;
use driftline_schemas::quantity::quantise;
use driftline_schemas::source::ATTRIBUTES;
use driftline_schemas::wanted::parse_id;

/// What the lake says of one inference, as far as a label needs it.
#[derive(Debug, Clone)]
pub(super) struct Inference {
    pub(super) id: u128,
    pub(super) event_time_us: i64,
    pub(super) received_at_us: i64,
    pub(super) model: String,
    pub(super) version: String,
    pub(super) cell: Cell,
    pub(super) code: Option<i32>,
    pub(super) value: Option<f64>,
}

/// Reads the rows of a batch; those that lack what every row has are left out.
pub(super) fn inferences(batch: &RecordBatch) -> impl Iterator<Item = Inference> + '_ {
    (0..batch.num_rows()).filter_map(|row| {
        let text = |name: &str| text(batch.column_by_name(name)?, row);
        let int = |name: &str| {
            let column = batch
                .column_by_name(name)?
                .as_primitive_opt::<Int32Type>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let time = |name: &str| {
            let column = batch.column_by_name(name)?;
            let column = column.as_primitive_opt::<TimestampMicrosecondType>()?;
            column.is_valid(row).then(|| column.value(row))
        };
        let value = batch.column_by_name("predicted_value")?;
        let value = value.as_primitive_opt::<Float64Type>()?;
        Some(Inference {
            id: parse_id(text("inference_id")?)?,
            event_time_us: time("event_time")?,
            received_at_us: time("received_at")?,
            model: text("model")?.to_owned(),
            version: text("version")?.to_owned(),
            cell: Cell {
                values: ATTRIBUTES.map(|attribute| text(attribute).unwrap_or("").into()),
                cadence_s: u32::try_from(int("cadence_s")?).unwrap_or(0),
            },
            code: int("predicted_code"),
            value: value.is_valid(row).then(|| value.value(row)),
        })
    })
}

fn text(column: &ArrayRef, row: usize) -> Option<&str> {
    let column = column.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row))
}

/// The error of a prediction, as the `error` signal counts it ([`Task::error`]), from the truth in the
/// output's resolution; `None` when there was no prediction.
pub(super) fn error(task: Task, resolution: f64, truth: i32, inference: &Inference) -> Option<i32> {
    let predicted = match task {
        Task::Classification => inference.code?,
        Task::Regression | Task::Anomaly => quantise(inference.value?, resolution),
    };
    Some(task.error(predicted, truth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::quantity::{NAN, VALUE_MAX, VALUE_MIN};

    fn inference(code: Option<i32>, value: Option<f64>) -> Inference {
        Inference {
            id: 0,
            event_time_us: 0,
            received_at_us: 0,
            model: String::new(),
            version: String::new(),
            cell: Cell {
                values: Default::default(),
                cadence_s: 0,
            },
            code,
            value,
        }
    }

    /// The `error` signal by task, with what saturates and what is no number.
    #[test]
    fn errors_by_task() {
        let class = |truth, code| error(Task::Classification, 1.0, truth, &inference(code, None));
        assert_eq!(class(1, Some(1)), Some(0));
        assert_eq!(class(0, Some(1)), Some(1));
        assert_eq!(class(0, None), None);
        let number = |truth, value| error(Task::Regression, 0.1, truth, &inference(None, value));
        assert_eq!(number(215, Some(20.3)), Some(-12));
        assert_eq!(number(VALUE_MAX, Some(-1e9)), Some(VALUE_MIN));
        assert_eq!(number(NAN, Some(1.0)), Some(NAN));
        assert_eq!(number(1, Some(f64::NAN)), Some(NAN));
        assert_eq!(number(1, None), None);
    }
}
