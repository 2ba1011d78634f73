//! The kill loop, its short form; the long one is a command (`docs/kafka.md`).

use std::process::Command;

use super::super::harness::{json, repository};
use super::{alone, broker};

/// Scenario: two gateways, two processes each of profile, detect and archive, and alerting on one Kafka;
/// 60,000 rows of 120 devices with resends, lost replies and reboots, while processes are killed with
/// SIGKILL 50 times at random moments and started again, stopped past their session eight times and woken
/// up when others have their partitions, and asked to leave ten times and to join again.
/// Guarantee: the lake and the profiles equal what is computed from the input by a program that uses
/// nothing of Driftline, no row is there twice, every alert has its webhook, and the final measures are
/// those of an undisturbed run, bit for bit.
#[test]
fn nothing_is_lost_or_doubled_by_kills_stops_and_leaves() {
    let Some((brokers, _)) = broker("kills") else {
        return;
    };
    let _alone = alone();
    let output = Command::new("python3")
        .arg(repository("tests/kafka/kill_loop.py"))
        .args(["--kafka", &brokers])
        .args(["--binary", env!("CARGO_BIN_EXE_driftline")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let result = json(&output);
    println!("{result:#}");
    assert!(output.status.success(), "{:#}\n{said}", result["problems"]);
    assert!(result["measures"].as_u64().unwrap() > 0);
    for (deed, least) in [("kills", 50), ("stops", 8), ("leaves", 10)] {
        assert!(result[deed].as_u64().unwrap() >= least, "{deed}");
    }
}
