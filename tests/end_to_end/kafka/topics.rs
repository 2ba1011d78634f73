//! `topics plan|apply`.

use serde_json::Value;

use super::super::harness::json;
use super::{broker, config, with_config};

fn actions(document: &Value) -> Vec<&str> {
    let topics = document["topics"].as_array().unwrap();
    assert!(!topics.is_empty());
    topics
        .iter()
        .map(|topic| topic["action"].as_str().unwrap())
        .collect()
}

/// Scenario: topics are planned, applied, applied again, and asked for with another number of partitions.
/// Guarantee: a plan changes nothing; applying makes all topics and changelogs and is idempotent; a changed
/// partition count is refused with the remedy, and the exit code says so; Kafka's default for forgetting
/// offsets is advised against.
#[test]
fn topics_become_as_they_are_stated() {
    let Some((brokers, prefix)) = broker("topics") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let text = |partitions: u32| {
        format!("[log]\nkafka = {brokers:?}\nprefix = {prefix:?}\npartitions = {partitions}\n")
    };
    let file = config(dir, &text(3));
    let run = |command: &str| {
        let output = with_config(dir, &file)
            .args(["--format", "json", "topics", command])
            .output()
            .unwrap();
        (json(&output), output)
    };
    for _ in 0..2 {
        let (plan, _) = run("plan");
        assert!(actions(&plan).iter().all(|action| *action == "create"));
        assert_eq!(plan["done"], false);
        let advice = plan["advice"].to_string();
        assert!(advice.contains("offsets.retention.minutes"), "{advice}");
    }
    let (applied, _) = run("apply");
    assert!(actions(&applied).iter().all(|action| *action == "created"));
    let state = format!("{prefix}detect.state");
    let topics = applied["topics"].as_array().unwrap();
    let changelog = topics.iter().find(|topic| topic["topic"] == *state);
    assert_eq!(changelog.unwrap()["partitions"], 3);

    let (again, output) = run("apply");
    assert!(output.status.success());
    assert!(actions(&again).iter().all(|action| *action == "none"));
    assert_eq!(again["done"], true);

    config(dir, &text(4));
    let (conflict, output) = run("apply");
    assert_eq!(output.status.code(), Some(1));
    assert!(actions(&conflict).contains(&"conflict"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("3 partitions and 4 are configured"), "{said}");
}
