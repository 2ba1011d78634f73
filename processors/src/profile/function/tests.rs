//! The function in SQL, over any split of the rows, against counting row by row.

use std::collections::BTreeMap;

use arrow::array::{Int32Array, RecordBatch, UInt64Array};
use arrow::datatypes::{Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::AggregateUDF;
use datafusion::prelude::{SessionConfig, SessionContext};
use driftline_schemas::profile::binning::Counter;
use proptest::prelude::*;

use super::*;

/// Group, device, temperature, mode.
type Row = (i32, u64, Option<i32>, Option<i32>);

fn layout() -> Arc<Layout> {
    Arc::new(crate::testing::bundle().reference.layout.clone())
}

fn batch(rows: &[Row]) -> RecordBatch {
    let fields = vec![
        Field::new("g", DataType::Int32, false),
        Field::new("device", DataType::UInt64, false),
        Field::new("temp", DataType::Int32, true),
        Field::new("mode", DataType::Int32, true),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row.0)).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| Some(row.1)).collect::<UInt64Array>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| row.3).collect::<Int32Array>()),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn plain<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<u8> {
    let mut counter = Counter::new(&layout());
    for (_, device, temp, mode) in rows {
        counter.rows(*device, 1);
        counter.value(0, *temp).unwrap();
        counter.value(1, *mode).unwrap();
    }
    let mut bytes = Vec::new();
    counter.finish().encode_to(&mut bytes);
    bytes
}

/// Runs a query whose first column is a group and whose second is a profile.
fn query(rows: &[Row], cuts: usize, partitions: usize, sql: &str) -> BTreeMap<i32, Vec<u8>> {
    let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions];
    for (at, rows) in rows.chunks(cuts).enumerate() {
        parts[at % partitions].push(batch(rows));
    }
    let table = MemTable::try_new(batch(&[]).schema(), parts).unwrap();
    let config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_batch_size(8);
    let context = SessionContext::new_with_config(config);
    let function = ProfileFunction::new(layout(), [0, 1]).unwrap();
    context.register_udaf(AggregateUDF::new_from_impl(function));
    context.register_table("t", Arc::new(table)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let batches =
        runtime.block_on(async { context.sql(sql).await.unwrap().collect().await.unwrap() });
    batches
        .iter()
        .flat_map(|batch| {
            let groups = batch.column(0).as_primitive::<Int32Type>();
            let profiles = batch.column(1).as_binary::<i32>();
            (0..batch.num_rows()).map(|row| (groups.value(row), profiles.value(row).to_vec()))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Rows in any batches and partitions (so that partial states are merged), grouped, filtered or
    /// not: the same bytes as row by row.
    #[test]
    fn sql_counts_like_rows(
        rows in prop::collection::vec(
            (0i32..4, 0u64..9, prop::option::weighted(0.9, -3_000i32..3_000), prop::option::of(-1i32..4)),
            1..200,
        ),
        cuts in 1usize..40,
        partitions in 1usize..4,
    ) {
        let groups: std::collections::BTreeSet<i32> = rows.iter().map(|row| row.0).collect();
        let expected: BTreeMap<i32, Vec<u8>> = groups.iter()
            .map(|group| (*group, plain(rows.iter().filter(|row| row.0 == *group))))
            .collect();
        let by_group = "select g, profile(device, temp, mode) from t group by g";
        prop_assert_eq!(query(&rows, cuts, partitions, by_group), expected);

        let filtered = "select g, profile(device, temp, mode) filter (where temp > 0) from t group by g";
        let expected: BTreeMap<i32, Vec<u8>> = groups.iter()
            .map(|group| (*group, plain(rows.iter().filter(|row| row.0 == *group && row.2 > Some(0)))))
            .collect();
        prop_assert_eq!(query(&rows, cuts, partitions, filtered), expected);

        let all = "select cast(1 as int), profile(device, temp, mode) from t";
        prop_assert_eq!(query(&rows, cuts, partitions, all), BTreeMap::from([(1, plain(rows.iter()))]));
    }
}

/// A signal that the layout does not have is refused when the function is made, not when it runs.
#[test]
fn signals_must_be_there() {
    let error = ProfileFunction::new(layout(), [0, 9]).unwrap_err();
    assert!(error.to_string().contains("no signal 9"), "{error}");
}
