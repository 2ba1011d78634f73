//! The demo, from the command line, and its lake.

use std::path::Path;

use crate::harness::{self, command, json};

/// Scenario: the demo with one fault of each kind.
/// Guarantee: each is found as what it is and nothing else is; every acknowledged row is in the lake
/// once and in the profiles once; every webhook is verified; and SQL over the lake sees the same.
#[test]
fn the_demo_finds_what_was_injected() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let output = command(&dir)
        .args(["demo", "--for", "30s", "--seed", "1", "--format", "json"])
        .output()
        .unwrap();
    let summary = json(&output);
    assert!(output.status.success(), "{summary:#}");
    let rows = &summary["rows"];
    assert!(rows["acknowledged"].as_u64().unwrap() > 100_000, "{rows}");
    assert_eq!(rows["lake"], rows["acknowledged"]);
    assert_eq!(rows["profiles"], rows["acknowledged"]);
    assert_eq!(rows["dead_letters"], 0);
    assert_eq!(summary["injected"].as_array().unwrap().len(), 4);
    let found = summary["found"].as_array().unwrap();
    assert!(
        found.len() >= 4 && found.iter().all(|found| !found["injected"].is_null()),
        "{found:#?}"
    );
    assert_eq!(
        summary["webhooks"]["verified"],
        summary["webhooks"]["delivered"]
    );

    let sql = "SELECT count(*) AS n, count(DISTINCT inference_id) AS ids FROM inferences";
    let answer = harness::sql(&dir, sql);
    assert_eq!(answer[0]["n"], rows["acknowledged"]);
    assert_eq!(answer[0]["ids"], rows["acknowledged"], "no inference twice");
    let budget = harness::told(&dir, &["budget", "--since", "30d"]);
    let budgeted = |found: &&serde_json::Value| found["kind"].as_str().unwrap().ends_with("_drift");
    assert_eq!(
        budget[0]["alarms"],
        found.iter().filter(budgeted).count(),
        "{budget:#}"
    );
    assert!(budget[0]["p_value"].as_f64().unwrap() < 0.05, "{budget:#}");
    assert_raw_rows_give_the_profiles(&dir);
    assert_findings_are_recomputed(&dir);
}

/// Counting a day of raw rows in SQL gives the bins that the pipeline's profiles merge to.
fn assert_raw_rows_give_the_profiles(dir: &Path) {
    let day = "'2026-01-07T00:00:00Z' AND X < '2026-01-08T00:00:00Z'";
    let of = |column: &str| format!("{column} >= {}", day.replace('X', column));
    let layout = harness::sql(
        dir,
        "SELECT edges, resolution FROM profiles WHERE signal = 'pressure' LIMIT 1",
    );
    let raw = harness::sql(
        dir,
        &format!(
            "SELECT profile(features[3], {}, {}) AS bins FROM inferences WHERE site = 'north-1' AND {}",
            layout[0]["edges"],
            layout[0]["resolution"],
            of("event_time")
        ),
    );
    let merged = harness::sql(
        dir,
        &format!(
            "SELECT merge_bins(bins) AS bins FROM profiles
             WHERE signal = 'pressure' AND site = 'north-1' AND {}",
            of("pane_start")
        ),
    );
    assert_eq!(raw[0]["bins"], merged[0]["bins"]);
    let counts = raw[0]["bins"].as_array().unwrap();
    let rows: u64 = counts.iter().filter_map(serde_json::Value::as_u64).sum();
    assert!(rows > 1_000, "{rows}");
}

/// The SQL that a finding carries runs on the lake and, where it is about one window, gives the very
/// value of that window's measure.
fn assert_findings_are_recomputed(dir: &Path) {
    let findings = harness::sql(
        dir,
        "SELECT f.sql, m.value AS measured FROM findings f
         LEFT JOIN final_measures m ON m.method = 'psi' AND m.cohort = f.scope
             AND m.signal = f.signals[1] AND m.window_start = f.window_start
             AND f.window_end - f.window_start = INTERVAL '1 hour'
             AND f.sql LIKE '%>= to_timestamp_micros(' || (extract(epoch FROM f.window_start)::bigint) || '%'
         WHERE f.kind IN ('input_drift', 'concept_drift')",
    );
    let mut compared = 0;
    for finding in &findings {
        let again = harness::sql(dir, finding["sql"].as_str().unwrap());
        let psi = again[0]["psi"].as_f64().unwrap();
        assert!(psi > 0.0);
        if let Some(measured) = finding["measured"].as_f64() {
            assert_eq!(psi.to_bits(), measured.to_bits(), "{finding}");
            compared += 1;
        }
    }
    assert!(compared > 0, "{findings:#?}");
}

/// Scenario: the demo on a healthy estate.
/// Guarantee: nothing is found, and no webhook is sent.
#[test]
fn a_healthy_estate_raises_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let output = command(&dir)
        .args(["demo", "--for", "30s", "--seed", "2"])
        .args(["--faults", "none", "--format", "json"])
        .output()
        .unwrap();
    let summary = json(&output);
    assert!(output.status.success(), "{summary:#}");
    assert_eq!(summary["found"], serde_json::json!([]));
    assert_eq!(summary["webhooks"]["delivered"], 0);
    assert_budget(&dir);
}

/// The budget of an estate without alarms: promised is a thirtieth of a month's for each judged day; a
/// shorter look back sees fewer windows; CSV has the same columns.
fn assert_budget(dir: &Path) {
    let budget = |since: &str| harness::told(dir, &["budget", "--since", since])[0].clone();
    let (all, day) = (budget("30d"), budget("24h"));
    assert_eq!(
        (&all["alarms"], &all["alerts"]),
        (&0.into(), &0.into()),
        "{all:#}"
    );
    assert_eq!(all["p_value"], 1.0);
    let (windows, months) = (
        all["windows"].as_f64().unwrap(),
        all["months"].as_f64().unwrap(),
    );
    assert!(windows > 100.0, "{all:#}");
    assert!((months - windows / (24.0 * 30.0)).abs() < 1e-12, "{all:#}");
    assert_eq!(all["promised"], all["months"]);
    assert_eq!(day["windows"], 24, "{day:#}");
    let output = command(dir)
        .args(["budget", "--format", "csv"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.lines().next().unwrap().contains("p_value") && text.lines().count() == 2,
        "{text}"
    );
}

/// Scenario: a folder with somebody's files.
/// Guarantee: the demo refuses it and touches nothing.
#[test]
fn the_demo_empties_no_folder_but_its_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "all of it").unwrap();
    let output = command(folder.path()).arg("demo").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--dir"));
    assert!(folder.path().join("thesis.txt").exists());
}
