//! A broker of a test's own.

use std::process::Command;

use super::super::harness::repository;

/// Stopped when it is dropped.
pub(super) struct Server {
    pub(super) address: String,
}

impl Server {
    /// Whether none can be started here, which is said loudly.
    pub(super) fn is_missing() -> bool {
        let missing = Command::new("java").arg("-version").output().is_err();
        if missing {
            eprintln!("SKIPPED: a broker of the test's own needs a JRE");
        }
        missing
    }

    /// Starts one with arguments of `tests/kafka/start`.
    pub(super) fn start(arguments: &[&str]) -> Self {
        let output = Command::new(repository("tests/kafka/start"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let address = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Self { address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new(repository("tests/kafka/stop"))
            .arg(&self.address)
            .status();
        assert!(stopped.is_ok_and(|status| status.success()));
    }
}
