//! What is around the roles fails and comes back: brokers, the lake's disk, the object store.

use std::process::Command;

use serde_json::Value;

use super::super::harness::{json, repository};
use super::server::Server;
use super::{alone, broker};

/// Runs one of the programs of `tests/kafka`; its document.
fn run(program: &str, arguments: &[&str]) -> Value {
    let output = Command::new("python3")
        .arg(repository("tests/kafka").join(program))
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
    let result = run(
        "kill_loop.py",
        &[
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
        ],
    );
    let killed = &result["killed"];
    assert_eq!(killed["broker_kills"], 2);
    assert!(killed["partitions_moved"].as_u64() > Some(0), "{killed:#}");
}

/// Scenario: the only broker stands still for half a minute while the gateways are pressed with requests.
/// Guarantee: no role takes more than its limit of memory meanwhile, requests are refused and not kept, and
/// afterwards nothing is missing or twice.
#[test]
fn a_stalled_broker_bounds_memory() {
    if broker("stall").is_none() || Server::is_missing() {
        return;
    }
    let _alone = alone();
    let result = run(
        "kill_loop.py",
        &[
            "--only-disturbed",
            "--rows",
            "12000",
            "--devices",
            "60",
            "--kills",
            "0",
            "--stops",
            "0",
            "--leaves",
            "0",
            "--broker-stall",
            "30",
            "--stall-senders",
            "16",
        ],
    );
    let killed = &result["killed"];
    let most = killed["resident_mb_while_stalled"].as_object().unwrap();
    assert_eq!(most.len(), 5, "every role is looked at");
    for (role, megabytes) in most {
        let limit = if role == "ingest" { 512 } else { 1_024 };
        assert!(megabytes.as_u64() < Some(limit), "{role}: {megabytes} MB");
    }
    assert!(killed["pressed_refused"].as_u64() > Some(0), "{killed:#}");
}

/// Scenario: while devices send, the file system of the lake fills up to the last page; the lake's object store
/// answers 503 to everything; each for a while, each on a log of its own.
/// Guarantee: afterwards lake and profiles equal what is computed from the input, and metrics and logs tell of the
/// steps that failed.
#[test]
fn what_is_around_fails_and_comes_back() {
    let Some((brokers, _)) = broker("faults") else {
        return;
    };
    let _alone = alone();
    let result = run(
        "faults.py",
        &["--kafka", &brokers, "--seconds", "10", "--rows", "6000"],
    );
    for left_out in result["left_out"].as_array().unwrap() {
        eprintln!("SKIPPED: the fault {left_out} cannot be made here");
    }
}
