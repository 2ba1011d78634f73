//! Pinned bytes of every format: what version 1 wrote stays readable, and is still what is written.
//!
//! `DRIFTLINE_BLESS=1 cargo test -p driftline-schemas golden` writes files that are not there; a file
//! that is there is never rewritten, since devices in the field hold such bytes.

use std::path::PathBuf;
use std::sync::Arc;

use driftline_schemas::frame::{
    Body, Envelope, Frame, FrameLimits, Overrides, Sent, decode, encode, peek,
};
use driftline_schemas::packed::{PackedBuilder, PackedRecord, RecordHead, SchemaCache};
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::profile::codec::Reader;
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{Cell, CellProfile, Profile, ProfileKey, Reference};
use driftline_schemas::quantity::{NAN, UNSEEN};
use driftline_schemas::rows::{Column, Kind, RowSchema, Rows, Values};
use driftline_schemas::source::{FrameHead, Link, Origin, Role};

use crate::common::boiler;
use crate::frame::{sample_layout, sample_profile};

pub(crate) const START_US: i64 = 1_700_000_000_000_000;

pub(crate) fn golden(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if !path.exists() && std::env::var_os("DRIFTLINE_BLESS").is_some() {
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn ints(values: &[Option<i32>]) -> Column {
    Column::Int32(values.iter().copied().collect())
}

fn texts(values: &[Option<&str>]) -> Column {
    Column::Text(values.iter().map(|value| value.map(Arc::from)).collect())
}

fn times(step_us: i64, count: i64) -> Column {
    Column::Time(
        (0..count)
            .map(|row| Some(START_US + row * step_us))
            .collect(),
    )
}

fn none(count: usize) -> Vec<Option<i32>> {
    vec![None; count]
}

pub(crate) fn inferences() -> (RowSchema, Frame) {
    let columns = vec![
        times(1_000, 5),
        ints(&[Some(2_137), Some(2_140), None, Some(NAN), Some(2_139)]),
        ints(&[
            Some(2_000),
            Some(2_001),
            Some(2_003),
            Some(2_006),
            Some(2_010),
        ]),
        ints(&[Some(0), Some(2), Some(UNSEEN), Some(1), Some(0)]),
        ints(&[Some(0), Some(0), Some(1), Some(2), Some(0)]),
        ints(&[
            Some(9_800),
            Some(9_700),
            Some(5_100),
            Some(4_000),
            Some(9_900),
        ]),
        ints(&[
            Some(9_800),
            Some(9_700),
            Some(2_400),
            Some(3_000),
            Some(9_900),
        ]),
        ints(&[Some(100), Some(200), Some(5_100), Some(3_000), Some(50)]),
        ints(&[Some(100), Some(100), Some(2_500), Some(4_000), Some(50)]),
        ints(&[
            Some(1_200),
            Some(1_210),
            Some(1_190),
            Some(100_000),
            Some(1_205),
        ]),
        ints(&none(5)),
        ints(&[Some(0); 5]),
        ints(&[Some(i32::MAX), Some(-7), Some(0), None, None]),
    ];
    let envelope = Envelope {
        boot: 0x0123_4567_89ab_cdef,
        sequence: 300,
        sent: Sent::At(START_US + 5_000_000),
        overrides: Overrides {
            firmware: Some("2.1.0".into()),
            link: Some(Link::Lpwan),
            cadence_s: Some(900),
            ..Overrides::default()
        },
    };
    frame(RowSchema::inferences(&boiler()), envelope, columns)
}

fn frame(schema: RowSchema, envelope: Envelope, columns: Vec<Column>) -> (RowSchema, Frame) {
    let body = Body::Rows(Rows { columns });
    (schema, Frame { envelope, body })
}

pub(crate) fn outcomes() -> (RowSchema, Frame) {
    let ids: Values<u128> = [Some(0x018b_cfe5_6800_7abc_8def_0123_4567_89ab), Some(1)]
        .into_iter()
        .collect();
    let columns = vec![
        times(3_600_000_000, 2),
        Column::Id(ids),
        ints(&[Some(1), None]),
        texts(&[Some("inspector"), Some("inspector")]),
        texts(&[None, Some("d17")]),
    ];
    let envelope = Envelope {
        overrides: Overrides {
            device: Some("probe-3".into()),
            role: Some(Role::Probe),
            ..Overrides::default()
        },
        ..Envelope::default()
    };
    frame(RowSchema::outcomes(&boiler()), envelope, columns)
}

pub(crate) fn health() -> (RowSchema, Frame) {
    let schema = RowSchema::health();
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(
            |(index, field)| match (field.name.as_str(), Column::empty(field.ty)) {
                ("event_time", _) => times(60_000_001, 3),
                ("bytes_up", _) => Column::Int64(
                    [Some(1i64 << 40), Some((1 << 40) + 1_500), Some(i64::MIN)]
                        .into_iter()
                        .collect(),
                ),
                (_, Column::Int64(_)) => {
                    Column::Int64([None, Some(-1), Some(7)].into_iter().collect())
                }
                (_, Column::Text(_)) => texts(&[Some("lte"), Some("nb-iot"), Some("lte")]),
                _ => {
                    let base = 100 * index as i32;
                    ints(&[Some(base), Some(-base), Some(base + 1)])
                }
            },
        )
        .collect();
    let envelope = Envelope {
        boot: 9,
        sequence: 0,
        sent: Sent::SinceBoot(86_400_000_000),
        overrides: Overrides::default(),
    };
    frame(schema, envelope, columns)
}

pub(crate) fn events() -> (RowSchema, Frame) {
    let columns = vec![
        times(0, 2),
        texts(&[Some("boot"), Some("firmware")]),
        texts(&[None, Some("2.0.9")]),
        texts(&[None, Some("2.1.0-größer")]),
    ];
    frame(RowSchema::events(), Envelope::default(), columns)
}

pub(crate) fn many_events() -> (RowSchema, Frame) {
    let release = |row: i64| Some(Arc::<str>::from(format!("release-2.{row}")));
    let columns = vec![
        times(86_400_000_000, 30),
        texts(&[Some("firmware"); 30]),
        Column::Text((0..30).map(release).collect()),
        Column::Text((1..31).map(release).collect()),
    ];
    frame(RowSchema::events(), Envelope::default(), columns)
}

pub(crate) fn profiles() -> (RowSchema, Frame) {
    let frame = Frame {
        envelope: Envelope {
            boot: 3,
            sequence: 4,
            sent: Sent::At(START_US + 61_000_000),
            overrides: Overrides {
                version: Some("1.4.0".into()),
                ..Overrides::default()
            },
        },
        body: Body::Profile(sample_profile()),
    };
    (RowSchema::inferences(&boiler()), frame)
}

/// A frame of every kind, as version 1 wrote it, is read, and written again with the same bytes.
#[test]
fn frames_of_version_1_are_read_and_written() {
    for (name, (schema, frame)) in [
        ("inferences", inferences()),
        ("outcomes", outcomes()),
        ("health", health()),
        ("events", events()),
        ("profiles", profiles()),
    ] {
        let bytes = golden(&format!("frame-v1-{name}.bin"), || {
            encode(&frame, &schema).unwrap()
        });
        let decoded = decode(&bytes, &schema, &FrameLimits::default()).unwrap();
        assert_eq!(decoded, frame, "{name}");
        assert_eq!(encode(&frame, &schema).unwrap(), bytes, "{name}");
    }
}

/// A compressed frame is read. What a compressor writes may change with its version, so only
/// reading is pinned.
#[test]
fn a_compressed_frame_of_version_1_is_read() {
    let (schema, frame) = many_events();
    let bytes = golden("frame-v1-events-lz4.bin", || {
        encode(&frame, &schema).unwrap()
    });
    assert!(peek(&bytes).unwrap().compressed);
    assert_eq!(
        decode(&bytes, &schema, &FrameLimits::default()).unwrap(),
        frame
    );
}

pub(crate) fn origin(device: &str) -> Arc<Origin> {
    Arc::new(Origin {
        tenant: "acme".into(),
        device: device.into(),
        role: Role::Device,
        model: "boiler".into(),
        version: "1.4.0".into(),
        variant: "int8".into(),
        hardware: "r3".into(),
        firmware: "2.1.0".into(),
        region: "eu".into(),
        site: "north-1".into(),
        link: Link::Lpwan,
        cadence_s: 900,
    })
}

pub(crate) const HEAD: FrameHead = FrameHead {
    boot: 0x0123_4567_89ab_cdef,
    sequence: 300,
    sent_at_us: Some(START_US),
    received_at_us: START_US + 2_000_000,
    clock_correction_us: -1_500_000,
};

fn record_head(kind: Kind, schema: &RowSchema) -> RecordHead {
    RecordHead {
        tenant: "acme".into(),
        model: "boiler".into(),
        version: "1.4.0".into(),
        kind,
        fingerprint: schema.fingerprint(),
    }
}

/// A record of rows, as version 1 wrote it, is read: heads, rows and identities.
#[test]
fn a_packed_record_of_version_1_is_read() {
    let (schema, frame) = inferences();
    let schema = Arc::new(schema);
    let Body::Rows(rows) = frame.body else {
        panic!("rows")
    };
    let without_clock = FrameHead {
        sent_at_us: None,
        sequence: 301,
        ..HEAD
    };
    let bytes = golden("packed-v1-inferences.bin", || {
        let mut builder = PackedBuilder::new(record_head(Kind::Inferences, &schema), &schema);
        builder.push(&origin("d17"), HEAD, &rows).unwrap();
        builder
            .push_selected(&origin("d18"), without_clock, &rows, &[1, 3])
            .unwrap();
        builder.push(&origin("d17"), without_clock, &rows).unwrap();
        builder.finish().unwrap()
    });
    let record = PackedRecord::decode(bytes, &SchemaCache::default()).unwrap();
    assert_eq!(record.head, record_head(Kind::Inferences, &schema));
    assert_eq!(record.rows(), 12);
    let devices: Vec<&str> = record
        .frames
        .iter()
        .map(|frame| &*frame.origin.device)
        .collect();
    assert_eq!(devices, ["d17", "d18", "d17"]);
    assert_eq!(record.frames[0].origin, origin("d17"));
    assert_eq!(record.frames[0].head, HEAD);
    assert_eq!(record.frames[1].head, without_clock);
    assert_eq!(record.row_index(), [0, 1, 2, 3, 4, 1, 3, 0, 1, 2, 3, 4]);
    assert_eq!(record.event_times_us()[0], START_US - 1_500_000);
    assert_eq!(
        driftline_schemas::source::inference_id_text(record.inference_ids()[0]),
        "018bcfe5-6800-7574-88c4-202f3306d529"
    );
}

/// A record of profiles, as version 1 wrote it, is read.
#[test]
fn a_packed_record_of_profiles_of_version_1_is_read() {
    let schema = Arc::new(RowSchema::inferences(&boiler()));
    let bytes = golden("packed-v1-profiles.bin", || {
        let mut builder = PackedBuilder::new(record_head(Kind::Profiles, &schema), &schema);
        builder
            .push_profile(&origin("d17"), HEAD, &sample_profile())
            .unwrap();
        builder.finish().unwrap()
    });
    let record = PackedRecord::decode(bytes, &SchemaCache::default()).unwrap();
    assert_eq!(record.profiles.len(), 1);
    assert_eq!(
        record.profiles[0].profile().unwrap(),
        sample_profile().profile
    );
}

/// A profile, as version 1 wrote it, is read, and written again with the same bytes.
#[test]
fn a_profile_of_version_1_is_read_and_written() {
    let profile = sample_profile().profile;
    let bytes = golden("profile-v1.bin", || profile.encode());
    assert_eq!(Profile::decode(&mut Reader::new(&bytes)).unwrap(), profile);
    assert_eq!(profile.encode(), bytes);
}

/// A record of the profiles topic, as version 1 wrote it, is read, and written again with the same
/// bytes.
#[test]
fn a_profile_batch_of_version_1_is_read_and_written() {
    let cell = CellProfile {
        key: ProfileKey {
            tenant: "acme".into(),
            model: "boiler".into(),
            version: "1.4.0".into(),
            pane_start_us: START_US,
            pane_length_us: 60_000_000,
            cell: Cell::of(&origin("d17")),
        },
        profile: sample_profile().profile,
    };
    let batch = ProfileBatch {
        input_partition: 7,
        watermark_us: START_US,
        cells: vec![cell],
    };
    let bytes = golden("profile-batch-v1.bin", || batch.encode());
    assert_eq!(ProfileBatch::decode(&bytes).unwrap(), batch);
    assert_eq!(batch.encode(), bytes);
}

/// A bundle's reference, as version 1 wrote it, is read, and written again with the same bytes.
#[test]
fn a_reference_of_version_1_is_read_and_written() {
    let reference = Reference {
        made_from: "train.csv".into(),
        layout: sample_layout(),
        season: Season::None,
        slots: vec![sample_profile().profile],
    };
    let bytes = golden("reference-v1.bin", || reference.encode());
    assert_eq!(Reference::decode(&bytes).unwrap(), reference);
    assert_eq!(reference.encode(), bytes);
}
