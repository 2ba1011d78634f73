//! Drift in SQL: distances and tests between two lists of counts, and aggregates that make and merge
//! such lists. The same functions as on the stream and on the device compute them.
//!
//! | function | result |
//! | --- | --- |
//! | `psi`, `js`, `kl`, `hellinger`, `tv`, `linf`, `ks` `(reference, current)` | distance |
//! | `wasserstein`, `energy` `(reference, current, positions)` | distance, in the positions' unit |
//! | `ks_test`, `chi2_test`, `g_test` `(reference, current)` | `{statistic, p_value}` |
//! | `joint(event_time, features, text)` | the signal `joint` of a row, `text` as `driftline model show` prints it |
//! | `profile(column, edges)` | aggregate: counts per bin, one bin more than edges |
//! | `merge_bins(counts)` | aggregate: element-wise sum of lists of counts |
//!
//! Where a side has no rows, or an argument is null, the result is null: there is nothing to compare.

mod aggregates;
mod joint;
mod pairwise;

use datafusion::prelude::SessionContext;

/// Registers every function above.
pub fn register(context: &SessionContext) {
    for function in pairwise::all() {
        context.register_udf(function);
    }
    context.register_udf(joint::function());
    for function in aggregates::all() {
        context.register_udaf(function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::util::pretty::pretty_format_batches;

    async fn answer(sql: &str) -> String {
        let context = SessionContext::new();
        register(&context);
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    #[tokio::test]
    async fn distances_are_those_of_the_drift_crate() {
        use driftline_drift::distance::{Floor, Pair};
        let pair = Pair::new(&[10, 20, 30], &[30, 20, 10]).unwrap();
        let expected = pair.psi(Floor::NATIVE).unwrap();
        let text = answer("SELECT psi([10, 20, 30], [30, 20, 10]) AS psi").await;
        assert!(text.contains(&format!("{expected}")), "{text}");
        let text = answer("SELECT ks([10, 20, 30], [30, 20, 10]) AS ks").await;
        assert!(text.contains("0.33333333333333"), "{text}");
    }

    #[tokio::test]
    async fn tests_give_statistic_and_p_value_and_nothing_gives_null() {
        let text = answer(
            "SELECT chi2_test([10, 20], [20, 10])['p_value'] < 0.05 AS moved, \
             ks_test([10, 20], [10, 20])['p_value'] AS same, psi([0, 0], [1, 2]) AS nothing",
        )
        .await;
        assert!(text.contains("true") && text.contains("1.0"), "{text}");
    }

    #[tokio::test]
    async fn profiles_count_into_bins_and_merge() {
        let text = answer(
            "SELECT profile(x, [1.5, 2.5]) AS bins FROM (VALUES (1.0), (2.0), (2.5), (3.0), (NULL)) t(x)",
        )
        .await;
        assert!(text.contains("[1, 2, 1]"), "{text}");
        let text = answer(
            "SELECT k, merge_bins(b) AS bins FROM (VALUES (1, [1, 2]), (1, [10, 20]), (2, [5, 5])) t(k, b) \
             GROUP BY k ORDER BY k",
        )
        .await;
        assert!(
            text.contains("[11, 22]") && text.contains("[5, 5]"),
            "{text}"
        );
    }

    /// The signal of rows is that of the code which counts them; a row that lacks a feature has none, and
    /// neither has one without features.
    #[tokio::test]
    async fn joint_distances_are_those_that_are_counted() {
        let text = r#"{"format":1,"season":"none","features":[
            {"name":"a","at":0,"resolution":0.1,"centers":[25600]},
            {"name":"b","at":2,"resolution":0.01,"centers":[0]}],
            "weights":[[0.00390625],[0.0,0.001953125]],"ties":[]}"#;
        let of =
            |rows: &str| format!("SELECT joint(now(), f, '{text}') AS d FROM (VALUES {rows}) t(f)");
        // (12 − 10)/0.1 = 20 codes from the mean, 400; 3 codes at half the weight, 2.25; halved.
        let table = answer(&of(
            "(make_array(12.0, 7.0, 0.03)), (make_array(12.0, 7.0, NULL))",
        ))
        .await;
        assert!(table.contains("201.125"), "{table}");
        assert_eq!(table.lines().count(), 6, "{table}");
        let table = answer(&of("(make_array(10.0, 7.0, 0.0)), (make_array(10.0))")).await;
        assert!(table.contains("| 0.0"), "{table}");
        let context = SessionContext::new();
        register(&context);
        for (sql, why) in [
            ("SELECT joint(now(), 1, 'x')", "features"),
            ("SELECT joint(now(), [1.0], 'x')", "joint.json"),
            (
                "SELECT joint(now(), f, t) FROM (VALUES ([1.0], 'x')) v(f, t)",
                "in the statement",
            ),
        ] {
            let error = match context.sql(sql).await {
                Err(error) => error,
                Ok(frame) => frame.collect().await.unwrap_err(),
            };
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn wrong_arguments_are_refused_with_the_reason() {
        let context = SessionContext::new();
        register(&context);
        let error = |sql: &'static str| {
            let context = context.clone();
            async move {
                match context.sql(sql).await {
                    Err(error) => error.to_string(),
                    Ok(frame) => frame.collect().await.unwrap_err().to_string(),
                }
            }
        };
        assert!(
            error("SELECT psi([1, 2], [1, 2, 3])")
                .await
                .contains("same edges")
        );
        assert!(
            error("SELECT psi([1, -2], [1, 2])")
                .await
                .contains("negative")
        );
        assert!(error("SELECT psi(1, 2)").await.contains("psi"));
    }
}
