//! Tables on a real S3-compatible store: `DRIFTLINE_S3=http://host:port`, see `tests/s3/start`.

use super::*;

/// A lake of this test's own on the store; says loudly where there is none.
fn lake(case: &str) -> Option<Lake> {
    let Ok(endpoint) = std::env::var("DRIFTLINE_S3") else {
        eprintln!("SKIPPED {case}: set DRIFTLINE_S3=http://host:port, see tests/s3/start");
        return None;
    };
    let run = tempfile::Builder::new().prefix("run").tempdir().unwrap();
    let run = run.path().file_name().unwrap().to_str().unwrap().to_owned();
    let options = [
        ("aws_endpoint_url", endpoint.as_str()),
        ("aws_allow_http", "true"),
        ("aws_region", "us-east-1"),
        ("aws_access_key_id", "driftline-test"),
        ("aws_secret_access_key", "driftline-test"),
    ];
    Some(Lake::new(&LakeConfig {
        url: format!("s3://lake/{run}-{case}"),
        options: options.map(|(k, v)| (k.into(), v.into())).into(),
    }))
}

async fn count(lake: &Lake, input: &str) -> i64 {
    let mut table = lake.open("t").await.unwrap().unwrap();
    table.progress(input).await.unwrap().unwrap_or(0)
}

fn of(input: &str, from: i64) -> Vec<Progress> {
    vec![Progress {
        input: input.into(),
        from,
        next: from + 1,
    }]
}

/// Scenario: two writers append to one table on S3 at the same time, each its own input, twenty times.
/// Guarantee: nothing is lost and nothing is there twice, though they race for every version.
#[test]
fn two_writers_of_different_inputs_lose_nothing() {
    let Some(lake) = lake("apart") else { return };
    runtime().block_on(async {
        lake.ensure("t", &schema()).await.unwrap();
        let writer = |input: &'static str, first: i64| {
            let lake = lake.clone();
            tokio::spawn(async move {
                let mut table = lake.open("t").await.unwrap().unwrap();
                for at in 0..20 {
                    // A conflict is tried again, as the archive does.
                    while let Err(error) =
                        table.append(&[batch(&[first + at])], &of(input, at)).await
                    {
                        assert!(error.is_retryable(), "{error}");
                        table.refresh().await.unwrap();
                    }
                }
            })
        };
        let (one, two) = (writer("a", 0), writer("b", 100));
        one.await.unwrap();
        two.await.unwrap();
        let mut found = values(&lake).await;
        found.sort_unstable();
        let wanted: Vec<i64> = (0..20).chain(100..120).collect();
        assert_eq!(found, wanted);
    });
}

/// Scenario: two writers that both believe that an input is theirs, as after a partition was lost, append
/// the same batch at the same time, ten times.
/// Guarantee: of each batch exactly one gets in.
#[test]
fn of_two_writers_of_one_input_one_wins() {
    let Some(lake) = lake("same") else { return };
    runtime().block_on(async {
        lake.ensure("t", &schema()).await.unwrap();
        for at in 0..10 {
            let append = || {
                let lake = lake.clone();
                tokio::spawn(async move {
                    let mut table = lake.open("t").await.unwrap().unwrap();
                    table.append(&[batch(&[at])], &of("a", at)).await.is_ok()
                })
            };
            let (one, two) = (append(), append());
            let won = [one.await.unwrap(), two.await.unwrap()];
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "batch {at}");
        }
        let mut found = values(&lake).await;
        found.sort_unstable();
        assert_eq!(found, (0..10).collect::<Vec<i64>>());
        assert_eq!(count(&lake, "a").await, 10);
    });
}

/// Scenario: wrong credentials.
/// Guarantee: an error that can be read, not a table that seems empty.
#[test]
fn wrong_credentials_are_no_empty_lake() {
    let Some(mut lake) = lake("wrong") else {
        return;
    };
    lake.options
        .insert("aws_secret_access_key".into(), "wrong".into());
    let error = runtime().block_on(lake.open("t")).unwrap_err();
    assert!(error.to_string().contains("lake table t"), "{error}");
}
