//! Brokers that are killed, stand still and lose their leaders, under load.

use std::process::Command;

use serde_json::Value;

use super::super::harness::{json, repository};
use super::server::Server;
use super::{alone, broker};

/// Runs the kill loop with a cluster of its own; its document.
fn kill_loop(arguments: &[&str]) -> Value {
    let output = Command::new("python3")
        .arg(repository("tests/kafka/kill_loop.py"))
        .args(["--binary", env!("CARGO_BIN_EXE_driftline")])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let result = json(&output);
    println!("{result:#}");
    assert!(output.status.success(), "{:#}\n{said}", result["problems"]);
    result
}

/// Scenario: three brokers; while devices send, two of them are killed with SIGKILL one after the other and come
/// back, leaders move away and are moved back, one broker stands still for a while, and roles are killed besides.
/// Guarantee: lake and profiles equal what is computed from the input, and nothing is there twice.
#[test]
fn brokers_die_and_leaders_move() {
    if broker("brokers").is_none() || Server::is_missing() {
        return;
    }
    let _alone = alone();
    let result = kill_loop(&[
        "--only-disturbed",
        "--rows",
        "12000",
        "--devices",
        "60",
        "--kills",
        "3",
        "--stops",
        "0",
        "--leaves",
        "0",
        "--broker-kills",
        "2",
        "--leader-moves",
        "1",
        "--broker-stall",
        "12",
        "--kill-every",
        "3",
    ]);
    assert_eq!(result["killed"]["broker_kills"], 2);
}
