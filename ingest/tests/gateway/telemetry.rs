//! Rows that come without frames.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::ipc::writer::StreamWriter;
use driftline_log::{Log, Output};
use driftline_schemas::registry::{BundleRecord, REGISTRY_FORMAT, RegistryRecord};
use driftline_schemas::topic::{HEALTH, INFERENCES, REGISTRY};
use proptest::test_runner::{Config, TestRunner};

use crate::estate::{Answer, Estate, NOW, bundle};

const JSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn post(estate: &Estate, kind: &str, more: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[JSON][..], more].concat();
    let path = format!("/v1/telemetry/{kind}");
    estate.post("d1", &path, &headers, body.as_bytes())
}

fn line(time: i64, temp: &str) -> String {
    format!("{{\"event_time\":{time},\"temp\":{temp},\"mode\":\"b\",\"prediction\":\"ok\"}}\n")
}

/// JSON lines become the rows that a frame would have carried; those that cannot be read are dead
/// letters with the line, those with impossible times as well.
#[test]
fn json_lines_become_rows() {
    let estate = Estate::new();
    let body = [
        line(NOW, "21.5"),
        line(NOW, "\"warm\""),
        line(NOW, "\"NaN\""),
        line(5, "1"),
    ]
    .concat();
    let answer = post(&estate, "inferences", &[], &body);
    assert_eq!(answer.acknowledged(), (1, 2));
    let reasons = answer.rejected();
    assert_eq!(
        (reasons["row_invalid"], reasons["event_time_before_2000"]),
        (1, 1)
    );
    let (_, record) = &estate.records(INFERENCES)[0];
    assert_eq!(record.event_times_us(), [NOW, NOW]);
    assert_eq!(&*record.head.model, "boiler");
    let letters = estate.letters();
    let invalid = letters
        .iter()
        .find(|it| it.reason == "row_invalid")
        .unwrap();
    assert_eq!(format!("{}\n", invalid.payload), line(NOW, "\"warm\""));
    assert!(invalid.detail.contains("temp"), "{invalid:?}");
    let health = format!("{{\"event_time\":{NOW},\"voltage\":3.3}}");
    assert_eq!(post(&estate, "health", &[], &health).acknowledged(), (1, 1));
    assert_eq!(estate.records(HEALTH).len(), 1);
}

/// The same key, or without one the same body, is the same frame for whoever counts each once;
/// another key is another.
#[test]
fn a_key_makes_resends_the_same_frame() {
    let estate = Estate::new();
    let keyed = |key: &str| {
        let answer = post(
            &estate,
            "inferences",
            &[("idempotency-key", key)],
            &line(NOW, "1"),
        );
        assert_eq!(answer.acknowledged(), (1, 1));
    };
    keyed("a");
    keyed("a");
    keyed("b");
    for time in [NOW, NOW, NOW + 1] {
        post(&estate, "inferences", &[], &line(time, "1")).acknowledged();
    }
    let frames = estate.frames_of(INFERENCES);
    let mut boots: Vec<u64> = frames.iter().map(|frame| frame.1).collect();
    assert_eq!(boots.len(), 6);
    boots.dedup();
    assert_eq!(boots.len(), 4, "{frames:?}");
    let long = "k".repeat(129);
    let answer = post(&estate, "inferences", &[("idempotency-key", &long)], "");
    assert_eq!((answer.status, answer.problem()), (400, "bad-request"));
}

/// An Arrow stream is another way to say the same.
#[test]
fn arrow_streams_become_rows() {
    let estate = Estate::new();
    let columns: [(&str, ArrayRef); 3] = [
        ("event_time", Arc::new(Int64Array::from(vec![NOW, NOW + 1]))),
        ("temp", Arc::new(Float64Array::from(vec![1.0, 2.0]))),
        ("mode", Arc::new(StringArray::from(vec!["a", "never seen"]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut body = Vec::new();
    let mut writer = StreamWriter::try_new(&mut body, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    let kind = ("content-type", "application/vnd.apache.arrow.stream");
    let send = |body: &[u8]| estate.post("d1", "/v1/telemetry/inferences", &[kind], body);
    assert_eq!(send(&body).acknowledged(), (1, 2));
    let (_, record) = &estate.records(INFERENCES)[0];
    assert_eq!(record.event_times_us(), [NOW, NOW + 1]);
    // Cut between two messages it is a stream without rows; cut elsewhere it is none.
    for length in (1..body.len() - 8).step_by(7) {
        let answer = send(&body[..length]);
        let is_empty = answer.status == 200 && answer.acknowledged().1 == 0;
        let is_refused = (400..500).contains(&answer.status);
        assert!(is_refused || is_empty, "{length}: {answer:?}");
    }
    assert_eq!(estate.records(INFERENCES).len(), 1);
}

/// What cannot be understood as a whole is refused as a whole.
#[test]
fn tables_that_make_no_sense_are_refused() {
    let estate = Estate::new();
    let check = |answer: Answer, status: u16, problem: &str| {
        assert_eq!(
            (answer.status, answer.problem()),
            (status, problem),
            "{answer:?}"
        );
    };
    let row = line(NOW, "1");
    check(post(&estate, "profiles", &[], &row), 404, "not-found");
    check(post(&estate, "nonsense", &[], &row), 404, "not-found");
    check(
        post(
            &estate,
            "inferences",
            &[],
            "{\"event_time\":1,\"colour\":2}",
        ),
        422,
        "invalid-rows",
    );
    check(
        post(&estate, "inferences", &[], "not json"),
        422,
        "invalid-rows",
    );
    let model = |name| post(&estate, "inferences", &[("driftline-model", name)], &row);
    check(model("kettle@1"), 422, "unknown-model");
    check(model("kettle"), 400, "bad-request");
    estate.assert_nothing_written();
    estate.register(&bundle("2", 0.5));
    assert_eq!(model("boiler@2").acknowledged(), (1, 1));
    let (_, record) = &estate.records(INFERENCES)[0];
    assert_eq!(&*record.head.version, "2");
}

/// A bundle that was registered but is not in its place is the operator's fault, and may pass.
#[test]
fn a_bundle_that_cannot_be_read_is_told_apart() {
    let estate = Estate::new();
    let record = RegistryRecord::Bundle(BundleRecord {
        format: REGISTRY_FORMAT,
        tenant: "acme".into(),
        model: "boiler".into(),
        version: "7".into(),
        variant: "int8".into(),
        digest: "sha256:0".into(),
        path: "acme/boiler/7+int8".into(),
        registered_at_us: NOW,
    });
    let output = Output {
        topic: REGISTRY.into(),
        partition: 0,
        key: record.key().into_bytes(),
        value: Some(serde_json::to_vec(&record).unwrap()),
        timestamp_us: NOW,
    };
    let mut appender = estate.log.memory.appender("test").unwrap();
    appender.append(vec![output]).unwrap();
    estate.registry.refresh().unwrap();
    let model = ("driftline-model", "boiler@7+int8");
    let answer = post(&estate, "inferences", &[model], &line(NOW, "1"));
    assert_eq!(
        (answer.status, answer.problem()),
        (503, "bundle-unavailable")
    );
    estate.assert_nothing_written();
}

/// Whatever comes as rows, and whatever it claims to be, the answer is a refusal or an
/// acknowledgement, never a failure of ours.
#[test]
fn any_bytes_are_answered() {
    let estate = Estate::new();
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..300);
    let text = "[\\[\\]{}\":,0-9a-z\n -]{0,200}";
    let both = (bytes, text, 0..3usize);
    let mut runner = TestRunner::new(Config::with_cases(150));
    let checked = runner.run(&both, |(bytes, text, path)| {
        let (path, kind) = [
            ("/v1/frames", crate::estate::FRAMES),
            ("/v1/telemetry/health", "application/x-ndjson"),
            (
                "/v1/telemetry/inferences",
                "application/vnd.apache.arrow.stream",
            ),
        ][path];
        let mut frame = estate.inferences(1, 0, &[NOW]);
        frame.splice(9.., bytes.iter().copied());
        for body in [&bytes[..], text.as_bytes(), &frame[..]] {
            let answer = estate.post("d1", path, &[("content-type", kind)], body);
            proptest::prop_assert!(answer.status < 500, "{:?}", answer);
        }
        Ok(())
    });
    checked.unwrap();
}
