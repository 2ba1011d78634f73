//! Tables in a folder of their own.

mod s3;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::protocol::DeltaOperation;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("tenant", DataType::Utf8, false),
        Field::new("date", DataType::Utf8, false),
        Field::new("value", DataType::Int64, true),
    ]))
}

fn batch(values: &[i64]) -> RecordBatch {
    let days = values
        .iter()
        .map(|value| ["2024-10-04", "2024-10-05"][(value % 2) as usize]);
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["acme"; values.len()])),
        Arc::new(StringArray::from_iter_values(days)),
        Arc::new(Int64Array::from(values.to_vec())),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn lake(folder: &tempfile::TempDir) -> Lake {
    Lake::new(&LakeConfig {
        url: folder.path().to_str().unwrap().into(),
        ..LakeConfig::default()
    })
}

fn progress(from: i64, next: i64) -> Vec<Progress> {
    vec![Progress {
        input: "archive/inferences/0".into(),
        from,
        next,
    }]
}

async fn values(lake: &Lake) -> Vec<i64> {
    let table = lake.open("t").await.unwrap().unwrap();
    let context = datafusion::prelude::SessionContext::new();
    let provider = table.delta().table_provider().await.unwrap();
    context.register_table("t", provider).unwrap();
    let frame = context
        .sql("select value from t order by value")
        .await
        .unwrap();
    let batches = frame.collect().await.unwrap();
    batches
        .iter()
        .flat_map(|batch| {
            let column = batch
                .column(0)
                .as_any()
                .downcast_ref::<Int64Array>()
                .unwrap();
            column.values().to_vec()
        })
        .collect()
}

/// A batch that was committed, appended again from a snapshot that knows of it, from one that does
/// not, and from a process that just started: refused each time, and the rows are there once.
#[test]
fn a_replay_is_refused_from_any_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder);
    runtime().block_on(async {
        let mut one = lake.ensure("t", &schema()).await.unwrap();
        let mut other = lake.ensure("t", &schema()).await.unwrap();
        one.append(&[batch(&[1, 2])], &progress(0, 2))
            .await
            .unwrap();
        let again = [batch(&[1, 2])];
        for table in [
            &mut one,
            &mut other,
            &mut lake.open("t").await.unwrap().unwrap(),
        ] {
            let error = table.append(&again, &progress(0, 2)).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    LakeError::Elsewhere {
                        expected: 0,
                        actual: 2,
                        ..
                    }
                ),
                "{error}"
            );
        }
        other.append(&[batch(&[3])], &progress(2, 3)).await.unwrap();
        one.append(&[], &progress(3, 9)).await.unwrap();
        assert_eq!(one.progress("archive/inferences/0").await.unwrap(), Some(9));
        assert_eq!(one.progress("archive/inferences/1").await.unwrap(), None);
        assert_eq!(values(&lake).await, [1, 2, 3]);
    });
}

/// Two writers of one partition that both checked and then commit: the table itself refuses the
/// second one.
#[test]
fn writers_that_race_are_told_apart_by_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder);
    runtime().block_on(async {
        let mut one = lake.ensure("t", &schema()).await.unwrap();
        let stale = lake.open("t").await.unwrap().unwrap();
        one.append(&[batch(&[1])], &progress(0, 1)).await.unwrap();
        // What `append` does after its check, from the snapshot of before.
        let properties = CommitProperties::default()
            .with_application_transaction(Transaction::new("archive/inferences/0", 1));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
        let snapshot = stale.delta().snapshot().unwrap();
        let committed = CommitBuilder::from(properties)
            .build(Some(snapshot), stale.delta().log_store(), operation)
            .await;
        assert!(committed.is_err());
        assert_eq!(values(&lake).await, [1]);
    });
}

/// Many small files become few, one per partition; rows and progress survive it, and a checkpoint
/// with it.
#[test]
fn compaction_keeps_rows_and_progress() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder);
    runtime().block_on(async {
        let mut table = lake.ensure("t", &schema()).await.unwrap();
        let count = i64::from(CHECKPOINT_COMMITS) + 3;
        for at in 0..count {
            let rows = batch(&[2 * at, 2 * at + 1]);
            table.append(&[rows], &progress(at, at + 1)).await.unwrap();
        }
        let (before, after) = table.compact().await.unwrap();
        assert_eq!((before, after), (2 * count as usize, 2));
        let mut reopened = lake.open("t").await.unwrap().unwrap();
        let input = "archive/inferences/0";
        assert_eq!(reopened.progress(input).await.unwrap(), Some(count));
        reopened
            .append(&[], &progress(count, count + 1))
            .await
            .unwrap();
        assert_eq!(values(&lake).await, (0..2 * count).collect::<Vec<_>>());
        let one_day = reopened.files_where(|tenant, date| tenant == "acme" && date == "2024-10-04");
        assert_eq!(one_day.unwrap().len(), 1);
        let checkpoint = folder.path().join("t/_delta_log/_last_checkpoint");
        assert!(checkpoint.exists());
    });
}

/// A newer version's column is added to a table that is there; a column of another type is refused
/// by name.
#[test]
fn tables_are_widened_and_never_changed() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(&folder);
    runtime().block_on(async {
        assert!(lake.open("t").await.unwrap().is_none());
        let mut table = lake.ensure("t", &schema()).await.unwrap();
        table.append(&[batch(&[1])], &progress(0, 1)).await.unwrap();
        let mut fields: Vec<Field> = schema()
            .fields()
            .iter()
            .map(|f| f.as_ref().clone())
            .collect();
        fields.push(Field::new("more", DataType::Utf8, true));
        let wider: SchemaRef = Arc::new(Schema::new(fields.clone()));
        let mut table = lake.ensure("t", &wider).await.unwrap();
        assert_eq!(
            table.progress("archive/inferences/0").await.unwrap(),
            Some(1)
        );
        assert_eq!(values(&lake).await, [1]);
        fields[2] = Field::new("value", DataType::Utf8, true);
        let error = lake
            .ensure("t", &Arc::new(Schema::new(fields)))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("column value"), "{error}");
        assert!(!error.is_retryable());
    });
}
