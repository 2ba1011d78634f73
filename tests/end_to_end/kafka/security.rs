//! TLS and SASL.

use super::super::harness::json;
use super::server::Server;
use super::{alone, broker, config, with_config};

/// Scenario: a broker that speaks TLS only and asks for a password, by PLAIN and by SCRAM; then with a
/// wrong password, and without its authority.
/// Guarantee: with the right settings topics are made, a device is added and listed; a wrong password and
/// an unknown authority are refused, and the message names the setting; the password is never printed.
#[test]
fn tls_and_passwords_are_configuration() {
    // Whoever gave a broker of his own may have no Java.
    if broker("security").is_none() || Server::is_missing() {
        return;
    }
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let secured = Server::start(&["--secure", dir.to_str().unwrap()]);
    std::fs::write(dir.join("wrong"), "not-the-password").unwrap();
    let text = |mechanism: &str, authority: bool, password: &str| {
        let authorities = match authority {
            true => format!("authorities = {:?}\n", dir.join("ca.pem")),
            false => String::new(),
        };
        format!(
            "[log]\nkafka = {:?}\nprefix = \"{mechanism}.\"\n[log.tls]\n{authorities}[log.sasl]\n\
             mechanism = \"{mechanism}\"\nusername = \"driftline\"\npassword_file = {:?}\n",
            secured.address,
            dir.join(password)
        )
    };
    let run = |text: &str, arguments: &[&str]| {
        let file = config(dir, text);
        let mut command = with_config(dir, &file);
        command.args(["--format", "json"]).args(arguments);
        command.output().unwrap()
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let right = text(mechanism, true, "password");
        let applied = run(&right, &["topics", "apply"]);
        assert_eq!(json(&applied)["done"], true, "{mechanism}");
        json(&run(&right, &["device", "add", "d1"]));
        let listed = json(&run(&right, &["device", "list"]));
        assert_eq!(listed[0]["device"], "d1");
    }
    for (wrong, names) in [
        (text("PLAIN", true, "wrong"), "[log.sasl]"),
        (text("SCRAM-SHA-512", true, "wrong"), "[log.sasl]"),
        (text("PLAIN", false, "password"), "[log.tls]"),
    ] {
        let output = run(&wrong, &["topics", "plan"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(names), "{said}");
        let password = std::fs::read_to_string(dir.join("password")).unwrap();
        assert!(!said.contains(password.trim()) && !said.contains("not-the-password"));
    }
}
