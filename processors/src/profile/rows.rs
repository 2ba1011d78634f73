//! From packed records to the columns that the aggregation takes.
//!
//! Per record: which frames are new, which rows count by their age, and for those the pane, the
//! cell and the device beside the signals' columns, which are taken over as they are.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, SchemaRef};
use driftline_schemas::packed::PackedRecord;
use driftline_schemas::profile::Layout;
use driftline_schemas::profile::cell::pane_start_us;

use super::cells::{AttributeLimits, Cells};
use super::config::ProfileConfig;
use super::stats::Ages;

/// Whether something of this event time counts, seen from when the gateway received it. Both are
/// in the record, so a replay decides the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    OnTime,
    Late,
    TooOld,
    Future,
}

impl Age {
    pub(crate) fn of(config: &ProfileConfig, received_at_us: i64, event_time_us: i64) -> Self {
        let age = received_at_us.saturating_sub(event_time_us);
        if age > config.max_age.us() {
            Self::TooOld
        } else if age > config.allowed_lateness.us() {
            Self::Late
        } else if age < -config.max_ahead.us() {
            Self::Future
        } else {
            Self::OnTime
        }
    }

    pub(crate) fn counts(self) -> bool {
        matches!(self, Self::OnTime | Self::Late)
    }
}

/// The columns of one record beside its signals, for rows that count.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pane: Vec<i64>,
    cell: Vec<u32>,
    device: Vec<u64>,
    keep: Vec<bool>,
    dropped: usize,
}

impl Keys {
    /// Goes through the rows; those of frames that are not `counted` do not count. `None` when the
    /// record has no event times or frames beyond its rows.
    pub(super) fn of(
        record: &PackedRecord,
        counted: &[bool],
        config: &ProfileConfig,
        cells: &mut Cells,
        limits: &AttributeLimits,
        ages: &mut Ages,
    ) -> Option<Self> {
        let rows = record.batch.num_rows();
        let times = record.event_times_us();
        if times.len() != rows {
            return None;
        }
        let mut keys = Self {
            pane: Vec::with_capacity(rows),
            cell: Vec::with_capacity(rows),
            device: Vec::with_capacity(rows),
            keep: Vec::with_capacity(rows),
            dropped: 0,
        };
        let length = config.pane.us();
        for (frame, counted) in record.frames.iter().zip(counted) {
            let first = frame.first_row as usize;
            let of_frame = times.get(first..first + frame.rows as usize)?;
            let code = cells.code(&frame.origin, limits);
            let device = frame.origin.device_hash();
            let (mut pane, mut end) = (i64::MAX, i64::MIN);
            for &time in of_frame {
                // Rows of a frame mostly share a pane, and a division costs more than the look.
                if time < pane || time >= end {
                    pane = pane_start_us(time, length);
                    end = pane.saturating_add(length);
                }
                let keep = *counted && {
                    let age = Age::of(config, frame.head.received_at_us, time);
                    ages.add(age, 1);
                    age.counts()
                };
                keys.dropped += usize::from(!keep);
                keys.pane.push(pane);
                keys.keep.push(keep);
            }
            let rows = of_frame.len();
            keys.cell.resize(keys.cell.len() + rows, code);
            keys.device.resize(keys.device.len() + rows, device);
        }
        Some(keys)
    }

    /// Rows that count.
    pub(super) fn counted(&self) -> usize {
        self.keep.len() - self.dropped
    }

    /// The batch that the aggregation takes: keys, then the columns at `columns`.
    pub(super) fn batch(
        self,
        schema: &SchemaRef,
        record: &RecordBatch,
        columns: &[usize],
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(self.pane)),
            Arc::new(UInt32Array::from(self.cell)),
            Arc::new(UInt64Array::from(self.device)),
        ];
        arrays.extend(columns.iter().map(|at| Arc::clone(record.column(*at))));
        let batch = RecordBatch::try_new(Arc::clone(schema), arrays)?;
        if self.dropped == 0 {
            return Ok(batch);
        }
        arrow::compute::filter_record_batch(&batch, &BooleanArray::from(self.keep))
    }
}

/// Which signals of a layout a batch has columns for: their indices in the layout, and those of
/// the columns.
pub(super) fn signal_columns(layout: &Layout, batch: &RecordBatch) -> (Vec<usize>, Vec<usize>) {
    let schema = batch.schema();
    let by_name: HashMap<&str, usize> = schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| *field.data_type() == DataType::Int32)
        .map(|(at, field)| (field.name().as_str(), at))
        .collect();
    layout
        .signals()
        .iter()
        .enumerate()
        .filter_map(|(signal, layout)| Some((signal, *by_name.get(layout.signal.name.as_str())?)))
        .unzip()
}
