//! What is around the roles fails and comes back, its short form; the long one is a command (`docs/kafka.md`).

use super::{alone, broker, script};

/// Scenario: devices send all the time, to roles in processes of their own; for a while each, the lake's file system is
/// full to the last page, the lake's object store answers 503 to everything, and the clock of every role is an hour back.
/// Guarantee: lake and profiles equal what is computed from the input, nothing is there twice, no role ends, and
/// metrics and logs tell what was. A fault that cannot be had here (no right to mount, no object store) is named.
#[test]
fn what_is_around_fails_and_comes_back() {
    let Some((brokers, _)) = broker("faults") else {
        return;
    };
    let _alone = alone();
    let result = script("faults.py", &["--kafka", &brokers, "--seconds", "12"]);
    if let Some(left_out) = result["left_out"].as_array().filter(|it| !it.is_empty()) {
        eprintln!("SKIPPED faults: {left_out:?}");
    }
    let faults = result["faults"].as_object().unwrap();
    assert!(faults.contains_key("clock"));
    for (name, fault) in faults {
        let [rows, wanted] = [&fault["rows"], &result["rows"]];
        assert_eq!(rows, wanted, "{name}");
        assert!(fault["measures"].as_u64().unwrap() > 0, "{name}");
        assert_eq!(
            fault["ended_by_themselves"],
            serde_json::json!([]),
            "{name}"
        );
    }
}
