//! The demo, from the command line, and its lake.

use crate::harness::{driftline, json};

/// Scenario: the demo with one fault of each kind.
/// Guarantee: each is found as what it is and nothing else is; every acknowledged row is in the lake
/// once and in the profiles once; every webhook is verified; and SQL over the lake sees the same.
#[test]
fn the_demo_finds_what_was_injected() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let output = driftline(
        &dir,
        &["demo", "--for", "30s", "--seed", "1", "--format", "json"],
    );
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
    let answer = json(&driftline(&dir, &["sql", "-c", sql, "--format", "json"]));
    assert_eq!(answer[0]["n"], rows["acknowledged"]);
    assert_eq!(answer[0]["ids"], rows["acknowledged"], "no inference twice");
}

/// Scenario: the demo on a healthy estate.
/// Guarantee: nothing is found, and no webhook is sent.
#[test]
fn a_healthy_estate_raises_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    let output = driftline(
        &dir,
        &[
            "demo", "--for", "30s", "--seed", "2", "--faults", "none", "--format", "json",
        ],
    );
    let summary = json(&output);
    assert!(output.status.success(), "{summary:#}");
    assert_eq!(summary["found"], serde_json::json!([]));
    assert_eq!(summary["webhooks"]["delivered"], 0);
}

/// Scenario: a folder with somebody's files.
/// Guarantee: the demo refuses it and touches nothing.
#[test]
fn the_demo_empties_no_folder_but_its_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.txt"), "all of it").unwrap();
    let output = driftline(folder.path(), &["demo"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--dir"));
    assert!(folder.path().join("thesis.txt").exists());
}
