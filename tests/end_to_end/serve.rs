//! `serve` as devices, operators and analysts meet it: HTTP, the registry, SQL, signals.

use std::path::Path;
use std::process::Command;

use rand::SeedableRng as _;
use serde_json::{Value, json};

use crate::fleet;
use crate::harness::{self, Pipeline};

pub(crate) const SETTINGS: &str = "[archive]\nlinger = \"200ms\"\n";

/// One answer of the gateway.
pub(crate) struct Answer {
    pub(crate) status: u16,
    body: Value,
}

/// Posts with curl, as the README says; each pair is a header.
fn post(url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "-w", "\n%{http_code}", url]);
    for (name, value) in headers {
        curl.arg("-H").arg(format!("{name}: {value}"));
    }
    let output = curl.args(["--data-binary", body]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    Answer {
        status: status.parse().unwrap(),
        body: serde_json::from_str(body).unwrap_or_default(),
    }
}

fn get(url: &str) -> String {
    let output = Command::new("curl").args(["-sSf", url]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A row as the README sends it.
pub(crate) fn line(temperature: f64) -> String {
    let row = json!({
        "event_time": jiff::Timestamp::now().to_string(), "temperature": temperature,
        "vibration": 2.9, "pressure": 5.4, "current": 8.1, "prediction": "ok", "confidence": 0.93,
    });
    format!("{row}\n")
}

/// Posts rows of a device.
pub(crate) fn inferences(url: &str, token: &str, key: &str, body: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    post(
        &format!("{url}/v1/telemetry/inferences"),
        &[
            ("Authorization", &bearer),
            ("Driftline-Model", "boiler@1.0.0"),
            ("Content-Type", "application/x-ndjson"),
            ("Idempotency-Key", key),
        ],
        body,
    )
}

/// A pipeline that knows the boiler's bundle, and the token of a device.
pub(crate) fn started(
    folder: &Path,
    settings: &str,
    environment: &[(&str, &str)],
) -> (Pipeline, String) {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let bundle = fleet::bundle(folder, &mut rng);
    let pipeline = Pipeline::start(&folder.join("data"), settings, environment);
    harness::told(&pipeline.dir, &["model", "register", &bundle]);
    let added = pipeline.add_device("boiler-17", &["--site", "north-1", "--cadence", "1h"]);
    let token = added["token"].as_str().unwrap().to_owned();
    (pipeline, token)
}

/// Rows in the lake.
pub(crate) fn count(dir: &Path) -> f64 {
    harness::number(dir, "SELECT count(*) FROM inferences")
}

/// Scenario: a device sends JSON lines with curl, twice with one key, and with one line that is wrong;
/// then it is revoked. Others try without a token and with a wrong one.
/// Guarantee: good rows are in the lake once under the device's registered attributes, the bad line is
/// among the dead letters with its reason, and whoever is not let in leaves no row.
#[test]
fn a_device_sends_with_curl_until_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, token) = started(folder.path(), SETTINGS, &[]);
    let (dir, url) = (pipeline.dir.clone(), pipeline.url.clone());
    assert_eq!(get(&format!("{url}/healthz")).trim(), "ok");
    get(&format!("{url}/readyz"));

    let body = line(61.2);
    for _ in 0..2 {
        let answer = inferences(&url, &token, "one", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.body["acknowledged"]["rows"], 1);
    }
    let mixed = format!("{}{}", line(61.5), "{\"temperature\": \"hot\"}\n");
    let answer = inferences(&url, &token, "two", &mixed);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["acknowledged"]["rows"], 1);
    assert_eq!(answer.body["rejected"]["rows"], 1);

    let answer = inferences(&url, "dltk_of_nobody", "three", &body);
    assert_eq!(answer.status, 401);
    assert!(answer.body["title"].is_string(), "{}", answer.body);
    harness::told(&dir, &["device", "revoke", "boiler-17"]);
    harness::until("the revocation", || {
        match inferences(&url, &token, "four", &line(70.0)).status {
            403 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    let listed = harness::told(&dir, &["device", "list"]);
    assert_eq!(listed[0]["revoked"], true);

    harness::until("two rows and a dead letter", || {
        let letters = harness::number(&dir, "SELECT count(*) FROM deadletters");
        match (count(&dir), letters) {
            (rows, 1.0) if rows >= 2.0 => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    let rows = harness::sql(
        &dir,
        "SELECT device, site, cadence_s, predicted_class FROM inferences",
    );
    let row = json!({
        "device": "boiler-17", "site": "north-1", "cadence_s": 3600, "predicted_class": "ok",
    });
    // Between the revocation and the gateway's knowledge of it, rows may have been taken.
    assert!(
        rows.len() >= 2 && rows.iter().all(|found| *found == row),
        "{rows:?}"
    );
    let metrics = get(&format!("{url}/metrics"));
    assert!(metrics.contains("driftline_gateway_rows_acknowledged_total{kind=\"inferences\"}"));
}

/// Scenario: SIGTERM right after an acknowledgement, then a start on the same folder.
/// Guarantee: the process ends by itself with code 0, and the row is in the lake afterwards.
#[test]
fn asked_to_end_it_ends_and_what_was_acknowledged_stays() {
    let folder = tempfile::tempdir().unwrap();
    // The archive would wait for an hour: the row must survive in the log.
    let (pipeline, token) = started(folder.path(), "[archive]\nlinger = \"1h\"\n", &[]);
    let answer = inferences(&pipeline.url, &token, "one", &line(61.2));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let dir = pipeline.dir.clone();
    let (status, said) = pipeline.terminate();
    assert_eq!(status.code(), Some(0), "{said}");
    let pipeline = Pipeline::start(&dir, SETTINGS, &[]);
    harness::until("the row", || match count(&pipeline.dir) {
        1.0 => Ok(()),
        rows => Err(rows.to_string()),
    });
}

/// Scenario: a configuration with a key that does not exist, and one overridden by the environment.
/// Guarantee: the first is refused with code 2 and the key's name; the second is in force.
#[test]
fn settings_are_checked_and_overridden() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("driftline.toml");
    std::fs::write(&file, "[gateway]\nlisten_on = \"127.0.0.1:1\"\n").unwrap();
    let check = |arguments: &[&str], environment: &[(&str, &str)]| {
        harness::command(folder.path())
            .arg("--config")
            .arg(&file)
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    };
    let refused = check(&["config", "check"], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("listen_on"));
    std::fs::write(&file, "[gateway]\nlisten = \"127.0.0.1:1\"\n").unwrap();
    let shown = check(
        &["config", "show"],
        &[("DRIFTLINE_GATEWAY__LISTEN", "127.0.0.1:2")],
    );
    assert!(shown.status.success());
    assert!(String::from_utf8_lossy(&shown.stdout).contains("127.0.0.1:2"));
}
