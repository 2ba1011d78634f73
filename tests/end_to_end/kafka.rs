//! On a real Kafka: `DRIFTLINE_KAFKA=host:port`, which `./test` provides where it can.

mod brokers;
mod delayed;
mod demo;
mod faults;
mod groups;
mod kills;
mod security;
mod server;
mod topics;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Tests that keep many processes busy wait for one another, since brokers and sessions know real time.
fn alone() -> MutexGuard<'static, ()> {
    static BUSY: Mutex<()> = Mutex::new(());
    BUSY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The broker, and a prefix that no other test and no other run has; says loudly where there is none.
fn broker(case: &str) -> Option<(String, String)> {
    let Ok(brokers) = std::env::var("DRIFTLINE_KAFKA") else {
        eprintln!("SKIPPED {case}: set DRIFTLINE_KAFKA=host:port, see tests/kafka/start");
        return None;
    };
    let run = tempfile::Builder::new().prefix("run").tempdir().unwrap();
    let run = run.path().file_name().unwrap().to_str().unwrap().to_owned();
    Some((brokers, format!("{run}.{case}.")))
}

/// Runs a script of `tests/kafka` with this binary; its document. Fails with the problems that it tells of.
fn script(name: &str, arguments: &[&str]) -> Value {
    let output = Command::new("python3")
        .arg(super::harness::repository("tests/kafka").join(name))
        .args(["--binary", env!("CARGO_BIN_EXE_driftline")])
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let result = super::harness::json(&output);
    println!("{result:#}");
    assert!(output.status.success(), "{:#}\n{said}", result["problems"]);
    result
}

/// Writes a configuration; its path.
fn config(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("driftline.toml");
    std::fs::write(&file, text).unwrap();
    file
}

/// A command with a configuration.
fn with_config(dir: &Path, file: &Path) -> Command {
    let mut command = super::harness::command(dir);
    command.arg("--config").arg(file);
    command
}
