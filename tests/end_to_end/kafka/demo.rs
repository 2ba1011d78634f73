//! The demo on Kafka.

use super::super::harness::json;
use super::{alone, broker};

/// Scenario: the demo with a Kafka broker in place of the embedded log.
/// Guarantee: it comes to its end, finds what was injected and nothing else, and rows acknowledged, in
/// the lake and in profiles are the same number.
#[test]
fn the_demo_runs_on_kafka() {
    let Some((brokers, _)) = broker("demo") else {
        return;
    };
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let output = super::super::harness::command(&folder.path().join("demo"))
        .args([
            "demo", "--kafka", &brokers, "--for", "30s", "--format", "json",
        ])
        .output()
        .unwrap();
    let summary = json(&output);
    assert!(output.status.success(), "{summary:#}");
    let rows = &summary["rows"];
    assert!(rows["acknowledged"].as_u64().unwrap() > 100_000, "{rows}");
    assert_eq!(rows["lake"], rows["acknowledged"]);
    assert_eq!(rows["profiles"], rows["acknowledged"]);
}
