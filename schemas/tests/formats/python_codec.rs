//! The Python client and this crate read each other's frames.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use driftline_schemas::frame::{Body, Frame, FrameLimits, Sent, decode, encode, split};
use driftline_schemas::rows::{Column, RowSchema, Rows};
use driftline_schemas::source::{Link, Role};
use proptest::strategy::{Strategy, ValueTree};
use serde_json::{Value, json};

use crate::common::{any_frame, normal};
use crate::golden;

/// Reads frames (hexadecimal) with their schemas, and writes each again: what was read as JSON, and
/// the frame that the client makes of it.
const SCRIPT: &str = r#"
import json, sys
import driftline_frame as df
out = []
for case in json.load(sys.stdin):
    frame = bytes.fromhex(case["frame"])
    envelope, columns = df.decode(frame, case["schema"])
    kwargs = dict(envelope)
    again = None
    if isinstance(columns, list):
        again = df.encode(case["schema"], columns, **kwargs).hex()
        columns = [[hex(v) if c["ty"] == "id" and v is not None else v for v in column]
                   for c, column in zip(case["schema"]["fields"], columns)]
    else:
        columns["profile"] = columns["profile"].hex()
    for cut in range(len(frame)):
        try:
            df.decode(frame[:cut], case["schema"])
        except (df.FrameError, ValueError, IndexError):
            pass
        else:
            raise SystemExit(f"{cut} of {len(frame)} bytes were read")
    out.append({"envelope": envelope, "columns": columns, "again": again})
json.dump({"cases": out, "joined": df.join([bytes.fromhex(c["again"]) for c in out if c["again"]]).hex()}, sys.stdout)
"#;

fn python(input: &Value) -> Option<Value> {
    let client = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../clients/python");
    let child = Command::new("python3")
        .args(["-B", "-c", SCRIPT])
        .env("PYTHONPATH", client)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("SKIPPED: there is no python3 here");
        return None;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.to_string().as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Columns as the client says them.
fn columns(rows: &Rows) -> Value {
    let columns = rows.columns.iter().map(|column| match column {
        Column::Time(values) | Column::Int64(values) => json!(values.iter().collect::<Vec<_>>()),
        Column::Int32(values) => json!(values.iter().collect::<Vec<_>>()),
        Column::Text(values) => json!(values.iter().map(|text| text.cloned()).collect::<Vec<_>>()),
        Column::Id(values) => {
            json!(
                values
                    .iter()
                    .map(|id| id.map(|id| format!("{id:#x}")))
                    .collect::<Vec<_>>()
            )
        }
    });
    Value::Array(columns.collect())
}

fn same_envelope(frame: &Frame, said: &Value) -> bool {
    let envelope = &frame.envelope;
    let overrides = &envelope.overrides;
    let sent = match envelope.sent {
        Sent::Unsaid => Value::Null,
        Sent::At(time) => json!(["clock", time]),
        Sent::SinceBoot(time) => json!(["boot", time]),
    };
    let text = |name: &str, value: &Option<Arc<str>>| {
        said.get(name).and_then(Value::as_str) == value.as_deref()
    };
    said["boot"] == json!(envelope.boot)
        && said["sequence"] == json!(envelope.sequence)
        && said["sent"] == sent
        && text("device", &overrides.device)
        && text("model", &overrides.model)
        && text("version", &overrides.version)
        && text("variant", &overrides.variant)
        && text("hardware", &overrides.hardware)
        && text("firmware", &overrides.firmware)
        && text("region", &overrides.region)
        && text("site", &overrides.site)
        && said.get("link").and_then(Value::as_str) == overrides.link.map(Link::name)
        && said.get("role").and_then(Value::as_str) == overrides.role.map(Role::name)
        && said.get("cadence_s") == overrides.cadence_s.map(|it| json!(it)).as_ref()
}

/// The golden frames and sixty random ones of every kind: the client reads what they hold, refuses
/// every beginning of them, and what it writes is read here as the same.
#[test]
fn python_reads_and_writes_the_same_frames() {
    let mut frames: Vec<(RowSchema, Frame)> = vec![
        golden::inferences(),
        golden::outcomes(),
        golden::health(),
        golden::events(),
        golden::many_events(),
        golden::profiles(),
    ];
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..60 {
        let (schema, frame) = any_frame(12).new_tree(&mut runner).unwrap().current();
        frames.push(((*schema).clone(), frame));
    }
    let cases: Vec<Value> = frames
        .iter()
        .map(|(schema, frame)| {
            json!({
                "frame": hex(&encode(frame, schema).unwrap()),
                "schema": schema.describe(),
            })
        })
        .collect();
    let Some(said) = python(&json!(cases)) else {
        return;
    };
    let answers = said["cases"].as_array().unwrap();
    assert_eq!(answers.len(), frames.len());
    let joined = bytes(said["joined"].as_str().unwrap());
    let mut joined = split(&joined, &FrameLimits::default()).unwrap().into_iter();
    for ((schema, frame), answer) in frames.iter().zip(answers) {
        assert!(
            same_envelope(frame, &answer["envelope"]),
            "{frame:?}\n{answer}"
        );
        match &frame.body {
            Body::Rows(rows) => {
                assert_eq!(answer["columns"], columns(&normal(rows)));
                let again = bytes(answer["again"].as_str().unwrap());
                let again_decoded = decode(&again, schema, &FrameLimits::default()).unwrap();
                assert_eq!(again_decoded.envelope, frame.envelope);
                assert_eq!(again_decoded.body, Body::Rows(normal(rows)));
                assert_eq!(joined.next(), Some(&again[..]));
            }
            Body::Profile(profile) => {
                assert_eq!(answer["columns"]["profile"], hex(&profile.profile.encode()));
                assert_eq!(answer["columns"]["pane_start_us"], profile.pane_start_us);
                assert_eq!(answer["columns"]["version"], *profile.version);
            }
        }
    }
}
