//! The same rows, however they are sent and spread.

use std::process::Command;

use super::harness::{json, repository};

/// Scenario: a day of rows of six devices on fresh logs with 1, 3 and 12 partitions, in frames of one row and
/// of 10,000, in order, shuffled, and with the whole day of one device arriving when everything else has been
/// judged; on the embedded log, and on Kafka where there is one.
/// Guarantee: lake and profiles equal what is computed from the input by a program that uses nothing of
/// Driftline, and the final measures are the same bytes in every cell.
#[test]
fn final_measures_are_the_same_bytes() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: the answers are computed by Python 3");
        return;
    }
    let mut command = Command::new(repository("tests/determinism.py"));
    command.args(["--binary", env!("CARGO_BIN_EXE_driftline")]);
    if let Ok(brokers) = std::env::var("DRIFTLINE_KAFKA") {
        command.args(["--kafka", &brokers]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let result = json(&output);
    println!("{result:#}");
    assert!(output.status.success(), "{:#}\n{said}", result["problems"]);
    let cells = result["cells"].as_array().unwrap();
    assert!(cells.len() >= 4);
    assert!(
        cells
            .iter()
            .all(|cell| cell["sha256"] == cells[0]["sha256"])
    );
    // What came late was judged again, or it was not late.
    let late: Vec<_> = cells
        .iter()
        .filter(|cell| cell["arrival"] == "backlog")
        .collect();
    assert!(!late.is_empty());
    let again = |cell: &&serde_json::Value| cell["highest_revision"].as_u64() > Some(0);
    assert!(late.iter().all(again), "{cells:#?}");
}
