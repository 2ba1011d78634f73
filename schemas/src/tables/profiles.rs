//! Profiles: a row per signal.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};

use super::columns::{
    Describe, dates, field, float, floats, int, ints, leading, list, lists, long, longs, text,
    texts, time, times, trailing,
};
use super::{Place, Table, TableError};
use crate::bundle::FeatureType;
use crate::profile::{CellProfile, Layout, SignalLayout, SignalProfile};
use crate::quantity::dequantise;
use crate::source::ATTRIBUTES;

/// Digits of an exact sum: 2^48 rows of values up to 2^31, squared, stay below 10^34.
const SUM_DIGITS: u8 = 38;

pub(super) fn fields() -> Vec<Field> {
    let mut fields = leading("pane_start");
    fields.extend([
        text("model", "name of the model").required(),
        text("version", "version of the model").required(),
        time("pane_start", "start of the pane, of event time").required(),
        time("pane_end", "end of the pane, exclusive").required(),
    ]);
    fields.extend(ATTRIBUTES.map(|attribute| {
        let description = format!("{attribute} of the cohort's devices; empty when not declared");
        text(attribute, &description).required()
    }));
    let sum = || DataType::Decimal128(SUM_DIGITS, 0);
    fields.extend([
        int("cadence_s", "how often the cohort's devices mean to report; 0 when they did not say")
            .unit("s")
            .required(),
        text("signal", "name of the signal").required(),
        text("layout", "digest of the layout, hexadecimal; only profiles of one layout add up").required(),
        list("edges", DataType::Float64, "edges of the bins in the signal's unit: bin i holds edges[i-1] < x <= edges[i]; empty for categories"),
        list("categories", DataType::Utf8, "names of the bins of a category; empty for numbers"),
        list("bins", DataType::Int64, "rows per bin"),
        long("nulls", "rows without a value").required(),
        long("non_finite", "rows with NaN or an infinity").required(),
        long("unseen", "rows with a category that the bundle does not list").required(),
        long("out_of_range", "rows outside the declared range; they are binned as well").required(),
        float("min", "least value, in the signal's unit"),
        float("max", "greatest value, in the signal's unit"),
        field("sum", sum(), "exact sum of the binned values, in units of `resolution`").required(),
        field("sum_squares", sum(), "exact sum of their squares, in units of `resolution` squared").required(),
        float("resolution", "unit of last place, in the signal's unit; 1 for categories").required(),
        long("rows", "inference rows of the profile that this signal belongs to").required(),
        float("devices", "devices that the rows came from, estimated where there are many").required(),
    ]);
    fields.extend(trailing());
    fields
}

/// Rows of [`Table::Profiles`], one per signal of each profile. All are of one layout and came from
/// one record.
///
/// # Errors
/// [`TableError::OtherLayout`] when a profile is of another layout.
pub fn profiles(
    cells: &[&CellProfile],
    layout: &Layout,
    place: Place,
) -> Result<RecordBatch, TableError> {
    if let Some(cell) = cells.iter().find(|cell| !cell.profile.fits(layout)) {
        return Err(TableError::OtherLayout {
            profile: cell.profile.layout,
            bundle: layout.digest(),
        });
    }
    let rows: Vec<Row<'_>> = cells
        .iter()
        .flat_map(|cell| {
            let signals = layout.signals().iter().zip(&cell.profile.signals);
            signals.map(|(layout, signal)| Row {
                cell,
                layout,
                signal,
                devices: cell.profile.devices.count(),
            })
        })
        .collect();
    let digest = format!("{:016x}", layout.digest());
    fn key<'a>(row: &Row<'a>) -> &'a crate::profile::ProfileKey {
        &row.cell.key
    }
    let mut columns: Vec<ArrayRef> = vec![
        texts(rows.iter().map(|row| &*key(row).tenant)),
        dates(rows.iter().map(|row| key(row).pane_start_us)),
        texts(rows.iter().map(|row| &*key(row).model)),
        texts(rows.iter().map(|row| &*key(row).version)),
        times(rows.iter().map(|row| Some(key(row).pane_start_us))),
        times(rows.iter().map(|row| {
            let key = key(row);
            Some(key.pane_start_us.saturating_add(key.pane_length_us))
        })),
    ];
    for attribute in 0..ATTRIBUTES.len() {
        columns.push(texts(
            rows.iter().map(|row| &*key(row).cell.values[attribute]),
        ));
    }
    columns.push(ints(rows.iter().map(|row| {
        Some(i32::try_from(key(row).cell.cadence_s).unwrap_or(i32::MAX))
    })));
    columns.push(texts(
        rows.iter().map(|row| row.layout.signal.name.as_str()),
    ));
    columns.push(texts(rows.iter().map(|_| digest.as_str())));
    columns.extend(bins(&rows)?);
    columns.extend(counts(&rows)?);
    columns.push(ints(rows.iter().map(|_| Some(place.partition as i32))));
    columns.push(longs(rows.iter().map(|_| Some(place.offset as i64))));
    Ok(RecordBatch::try_new(Table::Profiles.schema(), columns)?)
}

struct Row<'a> {
    cell: &'a CellProfile,
    layout: &'a SignalLayout,
    signal: &'a SignalProfile,
    devices: f64,
}

/// Edges, categories and bins.
fn bins(rows: &[Row<'_>]) -> Result<[ArrayRef; 3], TableError> {
    fn categories<'a>(row: &Row<'a>) -> &'a [String] {
        match &row.layout.signal.kind {
            FeatureType::Categorical { categories } => categories,
            FeatureType::Numeric { .. } => &[],
        }
    }
    let edges = rows.iter().flat_map(|row| {
        let resolution = row.layout.resolution();
        row.layout
            .edges
            .iter()
            .map(move |edge| f64::from(*edge) * resolution)
    });
    let names = rows.iter().flat_map(|row| categories(row));
    let counts = rows
        .iter()
        .flat_map(|row| row.signal.bins.iter().map(|count| *count as i64));
    Ok([
        lists(
            DataType::Float64,
            rows.iter().map(|row| row.layout.edges.len()),
            Arc::new(Float64Array::from_iter_values(edges)),
        )?,
        lists(
            DataType::Utf8,
            rows.iter().map(|row| categories(row).len()),
            texts(names.map(String::as_str)),
        )?,
        lists(
            DataType::Int64,
            rows.iter().map(|row| row.signal.bins.len()),
            Arc::new(Int64Array::from_iter_values(counts)),
        )?,
    ])
}

/// From `nulls` to `devices`.
fn counts(rows: &[Row<'_>]) -> Result<Vec<ArrayRef>, TableError> {
    let count =
        |of: fn(&SignalProfile) -> u64| longs(rows.iter().map(|row| Some(of(row.signal) as i64)));
    let extreme = |of: fn(&SignalProfile) -> Option<i32>| {
        floats(
            rows.iter()
                .map(|row| of(row.signal).map(|value| dequantise(value, row.layout.resolution()))),
        )
    };
    let exact = |of: fn(&SignalProfile) -> i128| -> Result<ArrayRef, TableError> {
        let sums = Decimal128Array::from_iter_values(rows.iter().map(|row| of(row.signal)));
        Ok(Arc::new(sums.with_precision_and_scale(SUM_DIGITS, 0)?))
    };
    Ok(vec![
        count(|signal| signal.nulls),
        count(|signal| signal.non_finite),
        count(|signal| signal.unseen),
        count(|signal| signal.out_of_range),
        extreme(|signal| signal.min),
        extreme(|signal| signal.max),
        exact(|signal| signal.sum)?,
        exact(|signal| i128::try_from(signal.sum_squares).unwrap_or(i128::MAX))?,
        floats(rows.iter().map(|row| Some(row.layout.resolution()))),
        longs(rows.iter().map(|row| Some(row.cell.profile.rows as i64))),
        floats(rows.iter().map(|row| Some(row.devices))),
    ])
}
