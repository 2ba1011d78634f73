//! Finds inferences in the lake by their identities, without reading what it need not.
//!
//! Identities begin with their time, and so rows that came together have identities that stand
//! together: most files are left out by the day in their path, most of the rest by the least and
//! greatest identity in the table's log, and most row groups by those in the file. Of the row groups
//! that are left, the other columns are only read for rows that match.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::error::ArrowError;
use deltalake::parquet::arrow::ParquetRecordBatchStreamBuilder;
use deltalake::parquet::arrow::ProjectionMask;
use deltalake::parquet::arrow::arrow_reader::{ArrowPredicateFn, RowFilter};
use deltalake::parquet::errors::ParquetError;
use deltalake::parquet::file::metadata::RowGroupMetaData;
use deltalake::parquet::file::statistics::Statistics;
use driftline_schemas::clock::DAY_US;
use driftline_schemas::source::inference_time_us;
use driftline_schemas::tables::date_of;
use driftline_schemas::wanted::{WantedIds, parse_bound};
use futures::TryStreamExt;

use driftline_lake::reader::FileReader;
use driftline_lake::{LakeError, LakeTable};

const ID: &str = "inference_id";
/// Columns that a join needs.
const COLUMNS: [&str; 17] = [
    ID,
    "event_time",
    "received_at",
    "model",
    "version",
    "region",
    "site",
    "hardware",
    "firmware",
    "link",
    "variant",
    "role",
    "cadence_s",
    "device",
    "predicted_code",
    "predicted_value",
    "predicted_class",
];
/// Rows of one batch that comes back.
const BATCH_ROWS: usize = 8_192;

/// What a look did, for the curious and for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Files of the days in question.
    pub(super) files: usize,
    /// Files that were opened.
    pub(super) opened: usize,
}

/// The rows of a tenant's inferences with one of these identities; columns by name.
///
/// # Errors
/// [`LakeError::Delta`] when the store cannot be read.
pub(super) async fn inferences(
    table: &LakeTable,
    tenant: &str,
    wanted: &Arc<WantedIds>,
) -> Result<(Vec<RecordBatch>, Looked), LakeError> {
    // A device's time may have been corrected across midnight; the identity has what it said.
    let days: BTreeSet<String> = wanted
        .ids()
        .iter()
        .flat_map(|id| [-DAY_US, 0, DAY_US].map(|by| inference_time_us(*id) / DAY_US * DAY_US + by))
        .collect::<BTreeSet<i64>>()
        .into_iter()
        .map(date_of)
        .collect();
    let files = table.files_where(|of, date| of == tenant && days.contains(date))?;
    let mut looked = Looked {
        files: files.len(),
        opened: 0,
    };
    let mut found = Vec::new();
    for file in files {
        let may_hold = file.range(ID).is_none_or(|range| any_in(wanted, &range));
        if !may_hold {
            continue;
        }
        looked.opened += 1;
        let error = |error: ParquetError| LakeError::delta(table.name(), error);
        let store = table.delta().object_store();
        let reader = FileReader::new(store, file.path, file.size);
        let builder = ParquetRecordBatchStreamBuilder::new(reader)
            .await
            .map_err(error)?;
        let schema = builder.parquet_schema();
        let id = ProjectionMask::columns(schema, [ID]);
        let columns = ProjectionMask::columns(schema, COLUMNS);
        let groups = builder
            .metadata()
            .row_groups()
            .iter()
            .enumerate()
            .filter(|(_, group)| group_range(group).is_none_or(|range| any_in(wanted, &range)))
            .map(|(at, _)| at)
            .collect();
        let filter = Arc::clone(wanted);
        let predicate = ArrowPredicateFn::new(id, move |batch: RecordBatch| {
            let texts = batch.column(0).as_string_opt::<i32>();
            let texts = texts.ok_or_else(|| {
                ArrowError::SchemaError(format!("column {ID} of the lake is no text"))
            })?;
            Ok(filter.mask(texts))
        });
        let stream = builder
            .with_projection(columns)
            .with_row_groups(groups)
            .with_row_filter(RowFilter::new(vec![Box::new(predicate)]))
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(error)?;
        let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(error)?;
        found.extend(batches.into_iter().filter(|batch| batch.num_rows() > 0));
    }
    Ok((found, looked))
}

fn any_in(wanted: &WantedIds, range: &RangeInclusive<String>) -> bool {
    let low = parse_bound(range.start(), true);
    let high = parse_bound(range.end(), false);
    match (low, high) {
        (Some(low), Some(high)) => wanted.any_between(low, high),
        _ => true,
    }
}

/// Least and greatest identity of a row group.
fn group_range(group: &RowGroupMetaData) -> Option<RangeInclusive<String>> {
    let column = group
        .columns()
        .iter()
        .find(|column| column.column_path().string() == ID)?;
    let Statistics::ByteArray(statistics) = column.statistics()? else {
        return None;
    };
    let text = |bytes: &deltalake::parquet::data_type::ByteArray| {
        std::str::from_utf8(bytes.data()).ok().map(str::to_owned)
    };
    Some(text(statistics.min_opt()?)?..=text(statistics.max_opt()?)?)
}
