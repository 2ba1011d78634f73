//! The stack that `compose/` ships, as far as it can be checked without an engine; `tests/compose/run`
//! runs it.

use std::process::Command;

use super::harness::{command, repository};

/// Scenario: the settings of the roles in the stack.
/// Guarantee: this build takes them.
#[test]
fn the_stack_has_settings_that_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    // A container has the secret where the file says; here it is elsewhere.
    let secret = folder.path().join("secret");
    std::fs::write(&secret, format!("whsec_{}", "QUFB".repeat(10))).unwrap();
    let settings = std::fs::read_to_string(repository("compose/driftline.toml")).unwrap();
    let settings = settings.replace("/run/secrets/webhook_secret", &secret.display().to_string());
    let file = folder.path().join("driftline.toml");
    std::fs::write(&file, settings).unwrap();
    let output = command(folder.path())
        .arg("--config")
        .arg(&file)
        .args(["config", "check"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Scenario: compose.yaml, the Dockerfile, and what Prometheus, the collector and Grafana are given.
/// Guarantee: versions are stated, services confined, limited and looked after, every role is a service and
/// is scraped, and whatever refers to something finds it.
#[test]
fn the_stack_is_whole() {
    let has_yaml = |python: &&str| {
        let tried = Command::new(python).args(["-c", "import yaml"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_yaml) else {
        eprintln!("SKIPPED the_stack_is_whole: needs Python with PyYAML (Debian python3-yaml)");
        return;
    };
    let output = Command::new(python)
        .arg(repository("tests/compose/check.py"))
        .output()
        .unwrap();
    let problems = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{problems}{said}");
}
