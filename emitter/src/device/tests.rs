//! What a device promises, with a gateway that is a few lines of this file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use driftline_schemas::frame::{self, Body, Frame, FrameLimits, Sent};
use driftline_schemas::profile::Profile;
use driftline_schemas::profile::binning::Counter;
use driftline_schemas::rows::{Column, Rows};
use proptest::prelude::*;

use super::journal::DiskJournal;
use super::*;
use crate::testing::{NOW_US, config, files_with, runtime, runtime_of};

fn acknowledged() -> Reply {
    Reply::Acknowledged { body: None }
}

fn later() -> Reply {
    Reply::Later {
        retry_after: None,
        reason: "test".into(),
    }
}

fn refused() -> Reply {
    Reply::Refused {
        status: 400,
        reason: "test".into(),
    }
}

/// Infers rows whose first feature counts up from `from`.
fn infer(device: &mut Device, from: i64, rows: i64, now_us: i64) -> Inferred {
    let runtime = Arc::clone(device.runtime());
    let mut batch = runtime.batch();
    for row in from..from + rows {
        let values = [Value::Number(row as f64 / 100.0), Value::Number(0.5)];
        batch
            .push(runtime.encoders(), NOW_US + row, &values)
            .unwrap();
    }
    device.infer(&batch, now_us).unwrap()
}

fn frames(device: &Device, body: &[u8]) -> Vec<Frame> {
    frame::split(body, &FrameLimits::default())
        .unwrap()
        .into_iter()
        .map(|bytes| {
            let kind = frame::peek(bytes).unwrap().kind;
            let schema = device.runtime().schema(kind);
            frame::decode(bytes, schema, &FrameLimits::default()).unwrap()
        })
        .collect()
}

fn rows_of(frame: &Frame) -> &Rows {
    match &frame.body {
        Body::Rows(rows) => rows,
        Body::Profile(_) => panic!("rows are expected"),
    }
}

/// Identities as the gateway derives them.
fn identities(device: &Device, frame: &Frame) -> Vec<u128> {
    let Column::Time(times) = &rows_of(frame).columns[0] else {
        panic!("the first column is the event time");
    };
    let envelope = &frame.envelope;
    (0..)
        .zip(&times.values)
        .map(|(row, time)| {
            let (boot, sequence) = (envelope.boot, envelope.sequence);
            inference_id(device.device_hash(), boot, sequence, row, *time)
        })
        .collect()
}

#[test]
fn identities_are_those_that_the_gateway_derives() {
    let mut device = Device::new(
        runtime(),
        DeviceConfig {
            frame_rows_max: 4,
            ..config(9)
        },
    );
    let inferred = infer(&mut device, 0, 10, NOW_US);
    device.seal(NOW_US).unwrap();
    let request = device.next_request(NOW_US).unwrap().unwrap();
    let frames = frames(&device, &request.body);
    assert_eq!(frames.len(), 3, "4 + 4 + 2 rows");
    let derived: Vec<u128> = frames
        .iter()
        .flat_map(|frame| identities(&device, frame))
        .collect();
    assert_eq!(derived, inferred.ids);
    assert_eq!(request.rows, 10);
}

#[test]
fn a_resend_has_the_same_bytes_and_waits_for_its_time() {
    let mut device = Device::new(runtime(), config(1));
    infer(&mut device, 0, 3, NOW_US);
    device.seal(NOW_US).unwrap();
    // Sealed now, first sent an hour later: what it says is when it was sent.
    let hour = NOW_US + 3_600_000_000;
    let first = device.next_request(hour).unwrap().unwrap();
    assert!(
        device.next_request(hour).unwrap().is_none(),
        "one is under way"
    );
    device
        .on_reply(
            hour,
            &Reply::Later {
                retry_after: Some(Duration::from_secs(30)),
                reason: "busy".into(),
            },
        )
        .unwrap();
    assert!(device.next_request(hour + 29_000_000).unwrap().is_none());
    let due = device.due_us().unwrap();
    assert!(due >= hour + 30_000_000);
    infer(&mut device, 3, 1, due);
    let second = device.next_request(due).unwrap().unwrap();
    assert_eq!(second.body, first.body);
    assert_eq!(
        frames(&device, &second.body)[0].envelope.sent,
        Sent::At(hour)
    );
    assert_eq!(device.stats().retries, 1);
    device.on_reply(due, &acknowledged()).unwrap();
    assert_eq!(device.stats().inferences_acknowledged, 3);
    assert_eq!(device.pending().rows, 1);
}

#[test]
fn a_full_spool_keeps_what_it_has_and_refuses_what_is_new() {
    let mut device = Device::new(
        runtime(),
        DeviceConfig {
            spool_bytes_max: 600,
            frame_rows_max: 8,
            ..config(1)
        },
    );
    let inferred = infer(&mut device, 0, 500, NOW_US);
    assert_eq!(inferred.predictions.len(), 500, "all are predicted");
    let kept = inferred.ids.len();
    assert!(0 < kept && kept < 500, "{kept}");
    assert_eq!(inferred.refused, 500 - kept);
    assert_eq!(device.stats().rows_refused, inferred.refused as u64);
    assert!(device.pending().bytes <= 600);
    assert!(
        !device
            .outcome(inferred.ids[0], Value::Text("hot"), NOW_US, NOW_US)
            .unwrap()
    );
    device.seal(NOW_US).unwrap();
    let request = device.next_request(NOW_US).unwrap().unwrap();
    let sent: Vec<u128> = frames(&device, &request.body)
        .iter()
        .flat_map(|frame| identities(&device, frame))
        .collect();
    assert_eq!(sent, inferred.ids, "the oldest are there, all of them");
    device.on_reply(NOW_US, &acknowledged()).unwrap();
    assert_eq!(
        infer(&mut device, 500, 1, NOW_US).refused,
        0,
        "there is room again"
    );
}

#[test]
fn one_bad_frame_does_not_take_the_others_with_it() {
    let mut device = Device::new(
        runtime(),
        DeviceConfig {
            frame_rows_max: 2,
            ..config(1)
        },
    );
    infer(&mut device, 0, 8, NOW_US);
    device.seal(NOW_US).unwrap();
    let mut taken = Vec::new();
    while let Some(request) = device.next_request(NOW_US).unwrap() {
        let sequences: Vec<u64> = frames(&device, &request.body)
            .iter()
            .map(|frame| frame.envelope.sequence)
            .collect();
        // The gateway dislikes frame 1, whatever it comes with.
        let reply = match sequences.contains(&1) {
            true => refused(),
            false => {
                taken.extend(sequences);
                acknowledged()
            }
        };
        device.on_reply(NOW_US, &reply).unwrap();
    }
    assert_eq!(taken, [0, 2, 3]);
    assert_eq!(device.stats().frames_refused, 1);
    assert_eq!(device.stats().rows_of_refused_frames, 2);
    let refusals: Vec<u64> = device.refusals().map(|refusal| refusal.sequence).collect();
    assert_eq!(refusals, [1]);
}

#[test]
fn a_denied_device_keeps_its_frames() {
    let mut device = Device::new(runtime(), config(1));
    infer(&mut device, 0, 2, NOW_US);
    device.seal(NOW_US).unwrap();
    device.next_request(NOW_US).unwrap().unwrap();
    let denied = Reply::Denied {
        status: 401,
        reason: "unknown token".into(),
    };
    device.on_reply(NOW_US, &denied).unwrap();
    assert_eq!(device.pending().frames, 1);
    assert!(device.due_us().unwrap() >= NOW_US + crate::limits::BACKOFF_MAX_US / 2);
}

/// A device that profiles counts what the pipeline counts from its rows, the signal that looks at the
/// features together included.
#[test]
fn profiles_are_those_of_the_rows() {
    profiles_as_rows(runtime());
    profiles_as_rows(runtime_of(files_with(Some(Vec::new()))));
}

fn profiles_as_rows(runtime: Arc<Runtime>) {
    let mut by_rows = Device::new(Arc::clone(&runtime), config(1));
    let mut by_profile = Device::new(
        Arc::clone(&runtime),
        DeviceConfig {
            reporting: Reporting::Profiles { pane_us: 50 },
            ..config(1)
        },
    );
    let inferred = infer(&mut by_rows, 0, 120, NOW_US);
    let silent = infer(&mut by_profile, 0, 120, NOW_US);
    assert_eq!(silent.predictions, inferred.predictions);
    assert!(silent.ids.is_empty());
    by_rows.seal(NOW_US).unwrap();
    by_profile.seal(NOW_US).unwrap();
    let request = by_profile.next_request(NOW_US).unwrap().unwrap();
    let layout = &runtime.bundle().reference.layout;
    let mut merged = Profile::empty(layout);
    let frames_of_profiles = frames(&by_profile, &request.body);
    assert_eq!(frames_of_profiles.len(), 3, "120 µs in panes of 50");
    for frame in &frames_of_profiles {
        let Body::Profile(profile) = &frame.body else {
            panic!("profiles are expected");
        };
        assert_eq!(profile.pane_start_us % 50, 0);
        merged.merge(&profile.profile).unwrap();
    }
    let request = by_rows.next_request(NOW_US).unwrap().unwrap();
    let mut counter = Counter::new(layout);
    for frame in frames(&by_rows, &request.body) {
        let rows = rows_of(&frame);
        counter.rows(by_rows.device_hash(), rows.len() as u64);
        // Event time, two features, prediction, confidence; signals have no event time.
        let codes = |at: usize| match &rows.columns[at] {
            Column::Int32(values) => values,
            _ => panic!("signals are integers"),
        };
        for signal in 0..4 {
            for value in codes(signal + 1).iter() {
                counter.value(signal, value.copied()).unwrap();
            }
        }
        for row in 0..rows.len() {
            if let Some(joint) = &runtime.bundle().joint {
                let time_us = match &rows.columns[0] {
                    Column::Time(times) => times.values[row],
                    _ => panic!("the first column is the event time"),
                };
                let value = joint.value(time_us, |it| codes(it.at + 1).get(row).copied());
                counter.value(4, value).unwrap();
            }
        }
    }
    assert_eq!(merged, counter.finish());
    assert_eq!(merged.rows, 120);
}

#[test]
fn only_what_the_registry_does_not_know_is_sent() {
    let runtime = runtime();
    let mut declared = config(1).origin;
    declared.model = "boiler".into();
    declared.version = "1.0.0".into();
    let mut device = Device::new(
        runtime,
        DeviceConfig {
            declared: Some(declared.clone()),
            ..config(1)
        },
    );
    infer(&mut device, 0, 1, NOW_US);
    device
        .set_attributes(
            Origin {
                firmware: "2.0".into(),
                ..declared
            },
            NOW_US,
        )
        .unwrap();
    infer(&mut device, 1, 1, NOW_US);
    device.seal(NOW_US).unwrap();
    let request = device.next_request(NOW_US).unwrap().unwrap();
    let frames = frames(&device, &request.body);
    assert!(frames[0].envelope.overrides.is_empty());
    let overrides = &frames[1].envelope.overrides;
    assert_eq!(overrides.firmware.as_deref(), Some("2.0"));
    assert_eq!(overrides.site, None);
}

#[test]
fn health_and_events_go_by_the_names_of_their_columns() {
    let mut device = Device::new(runtime(), config(1));
    let readings = [
        ("voltage", Value::Number(3.301)),
        ("uptime_s", Value::Number(90.0)),
    ];
    assert!(device.health(NOW_US, &readings, NOW_US).unwrap());
    let change = device.event(NOW_US, "firmware", Some("1.0"), Some("2.0"), NOW_US);
    assert!(change.unwrap());
    let wrong = device.health(NOW_US, &[("volts", Value::Number(3.3))], NOW_US);
    assert!(wrong.unwrap_err().to_string().contains("volts"));
    let wrong = device.health(NOW_US, &[("voltage", Value::Text("high"))], NOW_US);
    assert!(wrong.unwrap_err().to_string().contains("voltage"));
    device.seal(NOW_US).unwrap();
    let request = device.next_request(NOW_US).unwrap().unwrap();
    let frames = frames(&device, &request.body);
    let kinds: Vec<usize> = frames.iter().map(|frame| rows_of(frame).len()).collect();
    assert_eq!(kinds, [1, 1]);
    let health = device.runtime().schema(Kind::Health);
    let voltage = health.index("voltage").unwrap();
    let Column::Int32(values) = &rows_of(&frames[1]).columns[voltage] else {
        panic!("the voltage is an integer");
    };
    assert_eq!(values.values, [3301]);
}

/// Frames on disk survive a restart in their order and with their bytes, and leave with their
/// acknowledgement; a file that is no frame is set aside.
#[test]
fn a_journal_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let journal = || Box::new(DiskJournal::open(dir.path()).unwrap());
    let runtime = runtime();
    let small = |boot| DeviceConfig {
        frame_rows_max: 2,
        ..config(boot)
    };
    let mut device = Device::with_journal(Arc::clone(&runtime), small(1), journal()).unwrap();
    infer(&mut device, 0, 6, NOW_US);
    device.seal(NOW_US).unwrap();
    let sent = device.next_request(NOW_US).unwrap().unwrap();
    drop(device);
    let mut device = Device::with_journal(Arc::clone(&runtime), small(2), journal()).unwrap();
    infer(&mut device, 6, 2, NOW_US);
    let again = device.next_request(NOW_US + 5).unwrap().unwrap();
    assert!(
        again.body.starts_with(&sent.body),
        "sent frames keep their bytes"
    );
    assert_eq!(again.frames, 4);
    let boots: Vec<u64> = frames(&device, &again.body)
        .iter()
        .map(|frame| frame.envelope.boot)
        .collect();
    assert_eq!(boots, [1, 1, 1, 2]);
    device.on_reply(NOW_US, &acknowledged()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    infer(&mut device, 8, 2, NOW_US);
    drop(device);
    let file = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    std::fs::write(file.path(), b"half").unwrap();
    let device = Device::with_journal(runtime, small(3), journal()).unwrap();
    assert_eq!(device.pending().frames, 0);
    let left = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(left.file_name().to_string_lossy().ends_with(".damaged"));
}

/// What may happen to a device.
#[derive(Debug, Clone)]
enum Step {
    Infer(i64),
    Seal,
    Acknowledge,
    LoseReply,
    Fail,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1i64..20).prop_map(Step::Infer),
        Just(Step::Seal),
        Just(Step::Acknowledge),
        Just(Step::LoseReply),
        Just(Step::Fail),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any order of inferences, lost requests and lost answers: every row that was given an identity
    /// arrives, and once the gateway has removed resends by (boot, sequence) it has it once.
    #[test]
    fn every_identity_that_was_handed_out_arrives_once(steps in steps(), boot in any::<u64>()) {
        thread_local! {
            static RUNTIME: Arc<Runtime> = runtime();
        }
        let runtime = RUNTIME.with(Arc::clone);
        let mut device = Device::new(runtime, DeviceConfig { frame_rows_max: 7, ..config(boot) });
        let mut now_us = NOW_US;
        let (mut handed, mut from) = (Vec::new(), 0);
        let mut gateway: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut receive = |device: &Device, body: &[u8]| {
            for (bytes, frame) in frame::split(body, &FrameLimits::default()).unwrap().iter().zip(frames(device, body)) {
                let there = gateway.entry(frame.envelope.sequence).or_insert_with(|| bytes.to_vec());
                assert_eq!(there, bytes, "a resend is the same frame");
            }
        };
        for step in steps.into_iter().chain([Step::Seal, Step::Acknowledge]) {
            now_us += 1_000_000_000;
            match step {
                Step::Infer(rows) => {
                    handed.extend(infer(&mut device, from, rows, now_us).ids);
                    from += rows;
                }
                Step::Seal => device.seal(now_us).unwrap(),
                Step::Acknowledge => while let Some(request) = device.next_request(now_us).unwrap() {
                    receive(&device, &request.body);
                    device.on_reply(now_us, &acknowledged()).unwrap();
                },
                Step::LoseReply => if let Some(request) = device.next_request(now_us).unwrap() {
                    receive(&device, &request.body);
                    device.on_reply(now_us, &later()).unwrap();
                },
                Step::Fail => if device.next_request(now_us).unwrap().is_some() {
                    device.on_reply(now_us, &later()).unwrap();
                },
            }
        }
        prop_assert_eq!(device.pending(), Pending::default());
        let arrived: Vec<u128> = gateway
            .values()
            .flat_map(|bytes| frames(&device, &frame::join([bytes])))
            .flat_map(|frame| identities(&device, &frame))
            .collect();
        let unique: BTreeSet<u128> = arrived.iter().copied().collect();
        prop_assert_eq!(unique.len(), arrived.len());
        prop_assert_eq!(arrived, handed);
    }
}
