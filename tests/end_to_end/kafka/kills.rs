//! The kill loop, its short form: kills alone. With stops past the session and with leaves and joins it is one
//! command (`docs/kafka.md`), since one run of those was seen to count rows twice (`GUARANTEES.md`).

use std::process::Command;

use super::super::harness::{json, repository};
use super::{alone, broker};

/// Scenario: two gateways, two processes each of profile, detect and archive, and alerting on one Kafka;
/// 60,000 rows of 120 devices with resends, lost replies and reboots, while processes are killed with
/// SIGKILL 50 times at random moments and started again.
/// Guarantee: the lake and the profiles equal what is computed from the input by a program that uses
/// nothing of Driftline, no row is there twice, every alert has its webhook, and the final measures are
/// those of an undisturbed run, bit for bit.
#[test]
fn nothing_is_lost_or_doubled_by_kills() {
    let Some((brokers, _)) = broker("kills") else {
        return;
    };
    let _alone = alone();
    let output = Command::new("python3")
        .arg(repository("tests/kafka/kill_loop.py"))
        .args(["--kafka", &brokers])
        .args(["--binary", env!("CARGO_BIN_EXE_driftline")])
        .args(["--stops", "0", "--leaves", "0"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let result = json(&output);
    println!("{result:#}");
    assert!(output.status.success(), "{:#}\n{said}", result["problems"]);
    assert!(result["measures"].as_u64().unwrap() > 0);
    assert!(result["kills"].as_u64().unwrap() >= 50);
}
