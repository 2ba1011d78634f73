//! From packed records to the columns that the aggregation takes.
//!
//! Per record: which frames are new, which rows count by their age, and for those the pane, the
//! cell and the device beside the signals' columns, which are taken over as they are. The one signal
//! that no column has, `joint`, is computed from the features' columns here.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Int32Array, Int64Array, RecordBatch,
    UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};
use driftline_schemas::bundle::{Bundle, SignalRole};
use driftline_schemas::joint::{Codes, Joint};
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

    /// The batch that the aggregation takes: keys, then the columns at `columns`, then the signal that is
    /// computed.
    pub(super) fn batch(
        self,
        schema: &SchemaRef,
        packed: &PackedRecord,
        columns: &[usize],
        together: Option<&Together>,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let record = &packed.batch;
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(self.pane)),
            Arc::new(UInt32Array::from(self.cell)),
            Arc::new(UInt64Array::from(self.device)),
        ];
        arrays.extend(columns.iter().map(|at| Arc::clone(record.column(*at))));
        arrays.extend(together.map(|together| together.column(packed)));
        let batch = RecordBatch::try_new(Arc::clone(schema), arrays)?;
        if self.dropped == 0 {
            return Ok(batch);
        }
        arrow::compute::filter_record_batch(&batch, &BooleanArray::from(self.keep))
    }
}

/// How rows of a model version are counted.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    pub(super) layout: Arc<Layout>,
    pub(super) joint: Option<Arc<Joint>>,
    /// Of both: versions with the same are counted alike.
    pub(super) digest: u64,
}

impl Counted {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let layout = bundle.reference.layout.clone();
        let joint = bundle.joint.clone();
        let of_joint = joint.as_ref().map_or(0, |joint| joint.digest());
        Self {
            // Layouts with and without it differ by a signal, so that 0 cannot be mistaken.
            digest: layout.digest().rotate_left(1) ^ of_joint,
            layout: Arc::new(layout),
            joint,
        }
    }

    /// The signal `joint` over a batch's columns; `None` without it, or when the batch lacks a feature.
    pub(super) fn together(&self, batch: &RecordBatch) -> Option<Together> {
        let joint = self.joint.as_ref()?;
        let mut signals = self.layout.signals().iter();
        let signal = signals.position(|it| it.signal.role == SignalRole::Joint)?;
        let schema = batch.schema();
        let column = |name: &str| {
            let (at, field) = schema.column_with_name(name)?;
            (*field.data_type() == DataType::Int32).then_some(at)
        };
        let columns = joint.features.iter().map(|it| column(&it.name));
        Some(Together {
            signal,
            columns: columns.collect::<Option<_>>()?,
            joint: Arc::clone(joint),
        })
    }
}

/// The signal `joint` of a record's rows.
#[derive(Debug)]
pub(super) struct Together {
    /// Its index in the layout.
    pub(super) signal: usize,
    joint: Arc<Joint>,
    /// Indices of its features' columns in the record's batch.
    columns: Vec<usize>,
}

impl Together {
    fn column(&self, packed: &PackedRecord) -> ArrayRef {
        let columns: Vec<Codes<'_>> = self
            .columns
            .iter()
            .map(|at| {
                let column = packed.batch.column(*at).as_primitive::<Int32Type>();
                (&column.values()[..], column.nulls())
            })
            .collect();
        Arc::new(Int32Array::from(
            self.joint.values(packed.event_times_us(), &columns),
        ))
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
