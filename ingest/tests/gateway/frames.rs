//! What becomes of frames.

use std::slice::from_ref;
use std::sync::Arc;

use driftline_schemas::frame::{self, Body, DeviceProfile, Overrides, Sent};
use driftline_schemas::profile::{DeviceSample, Profile, Reference};
use driftline_schemas::rows::{Column, RowSchema};
use driftline_schemas::source::{Role, device_hash};
use driftline_schemas::topic::{HEALTH, INFERENCES, OUTCOMES, device_partition};
use driftline_schemas::units::Size;

use crate::estate::{Estate, NOW, PARTITIONS, bundle, config, encode, rows};

/// What is acknowledged is in the log: the rows, whose they are, in their device's partition.
#[test]
fn acknowledged_rows_are_in_the_log() {
    let estate = Estate::new();
    for device in ["d1", "d2", "d3"] {
        let times = [NOW - 2_000_000, NOW - 1_000_000, NOW];
        let frames: Vec<Vec<u8>> = (0..2).map(|s| estate.inferences(7, s, &times)).collect();
        let answer = estate.send(device, &frames);
        assert_eq!(answer.acknowledged(), (2, 6));
        assert_eq!(answer.rejected().len(), 0);
        assert_eq!(answer.body["directives"], serde_json::json!([]));
    }
    let frames = estate.frames_of(INFERENCES);
    let expected: Vec<_> = ["d1", "d2", "d3"]
        .iter()
        .flat_map(|device| (0..2).map(|s| (device.to_string(), 7, s, 3)))
        .collect();
    assert_eq!(frames, expected);
    for (partition, record) in estate.records(INFERENCES) {
        assert_eq!(&*record.head.model, "boiler");
        assert_eq!(&*record.head.version, "1");
        assert_eq!(
            record.head.fingerprint,
            estate.bundle.inferences.fingerprint()
        );
        for frame in &record.frames {
            let hash = frame.origin.device_hash();
            assert_eq!(partition, device_partition(hash, PARTITIONS));
            assert_eq!(frame.head.sent_at_us, Some(NOW));
            assert_eq!(frame.head.received_at_us, NOW);
            assert_eq!(frame.head.clock_correction_us, 0);
            assert_eq!(&*frame.origin.region, "eu");
        }
        assert_eq!(
            record.event_times_us()[..2],
            [NOW - 2_000_000, NOW - 1_000_000]
        );
    }
    assert!(estate.letters().is_empty());
}

/// A frame may say other attributes than the registry, but not be another device's; kinds without a
/// model need none.
#[test]
fn frames_may_override_attributes() {
    let estate = Estate::new();
    let overrides = Overrides {
        device: Some("d1".into()),
        firmware: Some("f2".into()),
        ..Overrides::default()
    };
    let frame = estate.frame(1, 0, Sent::At(NOW), &[NOW], overrides);
    let health = RowSchema::health();
    let body = Body::Rows(rows(&health, &[NOW, NOW]));
    let health = encode(1, 0, Sent::At(NOW), Overrides::default(), body, &health);
    assert_eq!(estate.send("d1", &[frame, health]).acknowledged(), (2, 3));
    let (_, record) = &estate.records(INFERENCES)[0];
    assert_eq!(&*record.frames[0].origin.firmware, "f2");
    assert_eq!(&*record.frames[0].origin.hardware, "h1");
    let (_, record) = &estate.records(HEALTH)[0];
    assert_eq!((&*record.head.model, record.rows()), ("", 2));
}

/// Each refusal has its status and type, and leaves no row.
#[test]
fn refusals_are_told_apart_and_leave_nothing() {
    let mut config = config();
    config.body_bytes = Size(64 << 10);
    config.request_frames = 4;
    config.frame_rows = 100;
    let estate = Estate::with(config);
    let good = estate.inferences(1, 0, &[NOW]);
    let check = |device: &str, frames: &[Vec<u8>], status: u16, problem: &str| {
        let answer = estate.send(device, frames);
        assert_eq!(
            (answer.status, answer.problem()),
            (status, problem),
            "{answer:?}"
        );
        answer
    };
    let frames = |overrides| estate.frame(1, 1, Sent::At(NOW), &[NOW], overrides);
    check("nobody", from_ref(&good), 401, "unauthenticated");
    let another = frames(Overrides {
        device: Some("d2".into()),
        ..Overrides::default()
    });
    let answer = check("d1", &[good.clone(), another], 403, "another-device");
    assert_eq!(answer.body["frame"], 1);
    let model = frames(Overrides {
        model: Some("kettle".into()),
        ..Overrides::default()
    });
    check("d1", &[model], 422, "unknown-model");
    let other = bundle("9", 0.5);
    let body = Body::Rows(rows(&other.inferences, &[NOW]));
    let none = Overrides::default;
    let columns = encode(1, 0, Sent::Unsaid, none(), body, &other.inferences);
    let answer = check("d1", from_ref(&columns), 422, "schema-mismatch");
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("2 are features")
    );
    // Registered, but the device does not say that it runs it.
    estate.register(&other);
    check("d1", &[columns], 422, "schema-mismatch");
    let mut version = good.clone();
    version[2] = 9;
    check("d1", &[version], 400, "frame-version");
    check("d1", &vec![good.clone(); 5], 413, "too-large");
    check(
        "d1",
        &[estate.inferences(1, 0, &[NOW; 101])],
        413,
        "too-large",
    );
    let answer = estate.send_body("d1", &vec![0; 65 << 10]);
    assert_eq!((answer.status, answer.problem()), (413, "too-large"));
    estate.revoke("d2");
    check("d2", from_ref(&good), 403, "revoked");
    estate.assert_nothing_written();
    assert_eq!(estate.send("d1", &[good]).acknowledged(), (1, 1));
}

/// Headers and paths that are wrong are told apart as well.
#[test]
fn headers_and_paths_are_checked() {
    let estate = Estate::new();
    let body = frame::join([estate.inferences(1, 0, &[NOW])]);
    let check = |path: &str, headers: &[(&str, &str)], status: u16, problem: &str| {
        let answer = estate.post("d1", path, headers, &body);
        assert_eq!(
            (answer.status, answer.problem()),
            (status, problem),
            "{answer:?}"
        );
    };
    let frames = ("content-type", crate::estate::FRAMES);
    let json = ("content-type", "application/json");
    check("/v1/frames", &[json], 415, "media-type");
    check(
        "/v1/frames",
        &[frames, ("content-encoding", "gzip")],
        415,
        "media-type",
    );
    check(
        "/v1/frames",
        &[frames, ("driftline-sent-at", "noon")],
        400,
        "bad-request",
    );
    check("/v1/nothing", &[frames], 404, "not-found");
    check("/healthz", &[frames], 405, "method-not-allowed");
    for token in ["Basic abc", "Bearer ", "Bearer dltk_0000", "x"] {
        let headers = [frames, ("authorization", token)];
        let answer = estate.post("nobody", "/v1/frames", &headers, &body);
        assert_eq!((answer.status, answer.problem()), (401, "unauthenticated"));
    }
    estate.assert_nothing_written();
}

/// Whatever a link does to a body, no row comes of it and the answer is a refusal.
#[test]
fn damaged_bodies_are_refused() {
    let estate = Estate::new();
    let body = frame::join([estate.inferences(1, 0, &[NOW, NOW + 1])]);
    for length in 1..body.len() {
        let answer = estate.send_body("d1", &body[..length]);
        assert!((400..500).contains(&answer.status), "{length}: {answer:?}");
    }
    for bit in 0..body.len() * 8 {
        let mut flipped = body.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let answer = estate.send_body("d1", &flipped);
        assert!((400..500).contains(&answer.status), "{bit}: {answer:?}");
    }
    estate.assert_nothing_written();
    assert_eq!(estate.send_body("d1", &[]).acknowledged(), (0, 0));
    assert_eq!(estate.send_body("d1", &body).acknowledged(), (1, 2));
}

/// Frames that come again, or in another order, are taken in (what comes again is removed later);
/// one in a gap that is no longer known is refused by its place, and the others go on.
#[test]
fn order_does_not_matter_until_it_cannot_be_known() {
    let estate = Estate::new();
    let one = |sequence| estate.inferences(1, sequence, &[NOW]);
    for sequence in [3, 1, 2, 1, 0] {
        assert_eq!(estate.send("d1", &[one(sequence)]).acknowledged(), (1, 1));
    }
    let sequences: Vec<u64> = estate.frames_of(INFERENCES).iter().map(|it| it.2).collect();
    assert_eq!(sequences, [0, 1, 1, 2, 3]);
    let odd: Vec<u64> = (5..3_000).step_by(2).collect();
    for chunk in odd.chunks(1_000) {
        let frames: Vec<Vec<u8>> = chunk.iter().map(|sequence| one(*sequence)).collect();
        assert_eq!(estate.send("d1", &frames).status, 200);
    }
    let answer = estate.send("d1", &[one(2_998), one(6)]);
    assert_eq!((answer.status, answer.problem()), (409, "frame-too-old"));
    assert_eq!(answer.body["frame"], 1);
    assert_eq!(estate.send("d1", &[one(2_998)]).status, 200);
    assert_eq!(estate.send("d2", &[one(6)]).status, 200);
}

/// A device that sends too fast is told when to come again; others are not held up.
#[test]
fn rates_are_kept_per_device() {
    let mut config = config();
    config.rate.rows_per_second = 10.0;
    config.rate.rows_burst = 20.0;
    config.rate.requests_per_second = 1.0;
    config.rate.requests_burst = 4.0;
    let estate = Estate::with(config);
    let send = |device| estate.send(device, &[estate.inferences(1, 0, &[NOW; 20])]);
    assert_eq!(send("d1").status, 200);
    let refused = send("d1");
    assert_eq!((refused.status, refused.problem()), (429, "rate-limited"));
    assert_eq!(send("d2").status, 200);
    estate.clock.advance(2_000_000);
    assert_eq!(send("d1").status, 200);
    // Of four requests two were used, two came back in two seconds, and one was used again.
    let statuses: Vec<u16> = (0..4).map(|_| estate.send("d1", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!(estate.frames_of(INFERENCES).len(), 3);
}

fn outcomes(estate: &Estate, devices: &[Option<&str>]) -> Vec<u8> {
    let schema = &estate.bundle.outcomes;
    let mut body = rows(schema, &vec![NOW; devices.len()]);
    let names = devices.iter().map(|name| name.map(Arc::from));
    body.columns[schema.index("device").unwrap()] = Column::Text(names.collect());
    encode(
        1,
        0,
        Sent::At(NOW),
        Overrides::default(),
        Body::Rows(body),
        schema,
    )
}

/// A probe's outcomes go where the rows that they are about are, each once per partition, with the
/// row's own index; those about nobody are dead letters; a device may not speak of others.
#[test]
fn outcomes_go_to_the_partition_of_their_device() {
    let mut estate = Estate::new();
    let names: Vec<String> = (0..12).map(|i| format!("n{i}")).collect();
    for name in &names {
        estate.add(name, Role::Device);
    }
    let mut about: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
    about.extend([None, Some("p1"), Some("stranger")]);
    let answer = estate.send("p1", &[outcomes(&estate, &about)]);
    assert_eq!(answer.acknowledged(), (1, 14));
    assert_eq!(answer.rejected()["unknown_device"], 1);
    assert_eq!(estate.letters()[0].reason, "unknown_device");
    let mut seen = Vec::new();
    for (partition, record) in estate.records(OUTCOMES) {
        assert_eq!(record.frames.len(), 1, "one frame per partition");
        assert_eq!(&*record.frames[0].origin.device, "p1");
        for &row in record.row_index() {
            let device = about[row as usize].unwrap_or("p1");
            let hash = device_hash("acme", device);
            assert_eq!(partition, device_partition(hash, PARTITIONS));
            seen.push(row);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..14).collect::<Vec<u32>>());
    let answer = estate.send("d1", &[outcomes(&estate, &[Some("d2")])]);
    assert_eq!((answer.status, answer.problem()), (403, "another-device"));
    let own = estate.send("d1", &[outcomes(&estate, &[Some("d1"), None])]);
    assert_eq!(own.acknowledged(), (1, 2));
}

/// A device's profile is taken in when it is of the registered layout and its own.
#[test]
fn profiles_are_the_models_and_the_senders() {
    let estate = Estate::new();
    let minute = 60_000_000;
    let layout = Reference::decode(estate.bundle.file("reference.profile").unwrap())
        .unwrap()
        .layout;
    let profile = |change: &dyn Fn(&mut Profile)| {
        let mut profile = Profile::empty(&layout);
        profile.rows = 5;
        profile.devices.add(device_hash("acme", "d1"), 5);
        change(&mut profile);
        let body = Body::Profile(DeviceProfile {
            version: "1".into(),
            pane_start_us: NOW - NOW % minute,
            pane_length_us: minute,
            profile,
        });
        let schema = &estate.bundle.inferences;
        encode(1, 0, Sent::At(NOW), Overrides::default(), body, schema)
    };
    let good = profile(&|_| {});
    assert_eq!(estate.send("d1", &[good]).acknowledged(), (1, 1));
    let other_layout = profile(&|it| it.layout ^= 1);
    let answer = estate.send("d1", &[other_layout]);
    assert_eq!((answer.status, answer.problem()), (422, "schema-mismatch"));
    let other_bins = profile(&|it| it.signals[0].bins.push(0));
    let answer = estate.send("d1", &[other_bins]);
    assert_eq!((answer.status, answer.problem()), (422, "schema-mismatch"));
    let other_device = profile(&|it| it.devices = DeviceSample::default());
    assert_eq!(estate.send("d1", &[other_device]).status, 200);
    let other_device = profile(&|it| it.devices.add(7, 1));
    let answer = estate.send("d1", &[other_device]);
    assert_eq!((answer.status, answer.problem()), (403, "another-device"));
    let records = estate.records(INFERENCES);
    let (_, record) = &records[0];
    assert_eq!(record.profiles.len(), 1);
    assert_eq!(record.profiles[0].pane_start_us, NOW - NOW % minute);
    assert_eq!(record.profiles[0].profile().unwrap().rows, 5);
}
