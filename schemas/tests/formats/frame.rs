//! Round trips and hostile bytes of the wire frame.

use std::sync::Arc;

use driftline_schemas::bundle::{FeatureType, Signal, SignalRole};
use driftline_schemas::frame::{
    Body, DeviceProfile, Envelope, Frame, FrameError, FrameLimits, Sent, decode, encode, join,
    peek, split,
};
use driftline_schemas::limits::{FRAME_ROWS_MAX, STRING_BYTES_MAX};
use driftline_schemas::profile::binning::Counter;
use driftline_schemas::profile::{Layout, SignalLayout};
use driftline_schemas::rows::{Column, Kind, RowSchema, Rows, Values};
use proptest::prelude::*;

use crate::common::{any_frame, boiler, normal, numbers, schemas};

/// Where the checksum stands, and the body's length behind it.
const CHECKSUM_AT: usize = 9;
const LENGTH_AT: usize = 13;

/// Makes the checksum right again: what an attacker would do.
pub(crate) fn reseal(frame: &mut [u8]) {
    if frame.len() < LENGTH_AT {
        return;
    }
    let mut hash = crc32fast::Hasher::new();
    hash.update(&frame[..CHECKSUM_AT]);
    hash.update(&frame[LENGTH_AT..]);
    frame[CHECKSUM_AT..LENGTH_AT].copy_from_slice(&hash.finalize().to_le_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A frame around a body that was made by hand, stored.
fn around(schema: &RowSchema, kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut frame = b"DL\x01".to_vec();
    frame.push(kind as u8);
    frame.extend_from_slice(&schema.fingerprint().to_le_bytes());
    frame.extend_from_slice(&[0; 5]);
    put_varint(&mut frame, body.len() as u64);
    frame.extend_from_slice(body);
    reseal(&mut frame);
    frame
}

pub(crate) fn sample_layout() -> Layout {
    Layout::new(vec![SignalLayout {
        signal: Signal {
            name: "temperature".into(),
            role: SignalRole::Input,
            kind: FeatureType::Numeric {
                resolution: 0.01,
                unit: String::new(),
                range: None,
            },
        },
        edges: vec![1_000, 2_000, 3_000],
    }])
    .unwrap()
}

pub(crate) fn sample_profile() -> DeviceProfile {
    let mut counter = Counter::new(&sample_layout());
    for value in [500, 1_500, 2_137, 2_500, 9_999] {
        counter.value(0, Some(value)).unwrap();
    }
    counter.value(0, None).unwrap();
    counter.rows(7, 6);
    DeviceProfile {
        version: "1.4.0".into(),
        pane_start_us: 1_700_000_000_000_000,
        pane_length_us: 60_000_000,
        profile: counter.finish(),
    }
}

fn profile_frame() -> Frame {
    Frame {
        envelope: Envelope {
            boot: 3,
            sequence: 4,
            sent: Sent::SinceBoot(5_000_001),
            ..Envelope::default()
        },
        body: Body::Profile(sample_profile()),
    }
}

/// Frames of every kind, small ones and one that is compressed.
fn samples() -> Vec<(RowSchema, Frame)> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut samples: Vec<(RowSchema, Frame)> = (0..12)
        .map(|_| {
            let tree = any_frame(9).new_tree(&mut runner).unwrap();
            let (schema, frame) = proptest::strategy::ValueTree::current(&tree);
            ((*schema).clone(), frame)
        })
        .collect();
    let inferences = RowSchema::inferences(&boiler());
    samples.push((inferences, profile_frame()));
    let events = RowSchema::events();
    let text = |text: String| Some(Arc::<str>::from(text));
    let rows = Rows {
        columns: vec![
            Column::Time((0..40).map(|row| Some(row * 1_000_000)).collect()),
            Column::Text((0..40).map(|_| text("firmware".into())).collect()),
            Column::Text(
                (0..40)
                    .map(|row| text(format!("release-2.{row}")))
                    .collect(),
            ),
            Column::Text(
                (0..40)
                    .map(|row| text(format!("release-3.{row}")))
                    .collect(),
            ),
        ],
    };
    let frame = Frame {
        envelope: Envelope::default(),
        body: Body::Rows(rows),
    };
    assert!(peek(&encode(&frame, &events).unwrap()).unwrap().compressed);
    samples.push((events, frame));
    samples
}

fn same(decoded: &Frame, frame: &Frame) -> bool {
    let body = match (&decoded.body, &frame.body) {
        (Body::Rows(decoded), Body::Rows(rows)) => *decoded == normal(rows),
        (decoded, body) => decoded == body,
    };
    body && decoded.envelope == frame.envelope
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any rows of any schema in any envelope come back as they were, and writing them again gives
    /// the same bytes.
    #[test]
    fn what_is_written_comes_back((schema, frame) in any_frame(70)) {
        let bytes = encode(&frame, &schema).unwrap();
        let header = peek(&bytes).unwrap();
        prop_assert_eq!((header.kind, header.fingerprint), (schema.kind(), schema.fingerprint()));
        let decoded = decode(&bytes, &schema, &FrameLimits::default()).unwrap();
        prop_assert!(same(&decoded, &frame), "{decoded:?}\n{frame:?}");
        prop_assert_eq!(encode(&decoded, &schema).unwrap(), bytes);
    }

    /// Bytes of an attacker who makes the checksum right, in a body of any kind: an error or rows
    /// that can be written again, never a panic.
    #[test]
    fn made_up_bodies_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..120), which in 0usize..5) {
        let inferences = RowSchema::inferences(&boiler());
        let schema = if which == 4 { inferences } else { schemas()[which].clone() };
        let kind = if which == 4 { Kind::Profiles } else { schema.kind() };
        if let Ok(frame) = decode(&around(&schema, kind, &body), &schema, &FrameLimits::default()) {
            prop_assert!(encode(&frame, &schema).is_ok());
        }
    }

    /// A frame with some bytes changed and the checksum made right.
    #[test]
    fn changed_frames_are_read_or_refused(
        (schema, frame) in any_frame(20),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = encode(&frame, &schema).unwrap();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        reseal(&mut bytes);
        if let Ok(decoded) = decode(&bytes, &schema, &FrameLimits::default()) {
            let again = encode(&decoded, &schema).unwrap();
            prop_assert!(same(&decode(&again, &schema, &FrameLimits::default()).unwrap(), &decoded));
        }
    }
}

/// A link that cuts off: every beginning of a frame is refused, with and without a right checksum.
#[test]
fn truncation_at_every_byte_is_refused() {
    for (schema, frame) in samples() {
        let bytes = encode(&frame, &schema).unwrap();
        for length in 0..bytes.len() {
            let mut cut = bytes[..length].to_vec();
            assert!(decode(&cut, &schema, &FrameLimits::default()).is_err());
            reseal(&mut cut);
            assert!(
                decode(&cut, &schema, &FrameLimits::default()).is_err(),
                "{length} of {} bytes were read",
                bytes.len()
            );
        }
    }
}

/// A link that flips a bit: the checksum finds every one. Where the checksum is made right, nothing
/// panics.
#[test]
fn every_flipped_bit_is_found() {
    for (schema, frame) in samples() {
        let bytes = encode(&frame, &schema).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _ = peek(&flipped);
            assert!(
                decode(&flipped, &schema, &FrameLimits::default()).is_err(),
                "bit {bit}"
            );
            reseal(&mut flipped);
            let _ = decode(&flipped, &schema, &FrameLimits::default());
        }
    }
}

/// Every place where a length stands claims every power of two up to 2^63 and its neighbours: a
/// clean error, and nothing is allocated for what is not there (an allocation of such a size would
/// abort the test).
#[test]
fn lengths_that_are_claimed_are_not_believed() {
    let claims: Vec<u64> = (0..64)
        .flat_map(|power| [(1u64 << power) - 1, 1 << power, (1 << power) + 1])
        .collect();
    let [inferences, outcomes, health, events] = schemas();
    let envelope = [0u8; 10];
    for &claim in &claims {
        let mut long = Vec::new();
        put_varint(&mut long, claim);
        // Raw length, both stored and compressed.
        for flag in [0, 0x10] {
            let mut frame = around(&events, Kind::Events, &[]);
            frame[3] |= flag;
            frame.truncate(LENGTH_AT);
            frame.extend_from_slice(&long);
            frame.extend_from_slice(&[0xff; 64]);
            reseal(&mut frame);
            assert!(decode(&frame, &events, &FrameLimits::default()).is_err());
        }
        // Numbers of rows, of columns in a run, of texts, of a text's bytes, of a packed column.
        for schema in [&inferences, &outcomes, &health, &events] {
            for before in [
                &b""[..],
                b"\x02\xff",
                b"\x02\x21\x00\x07",
                b"\x02\x21\x00\x07\x01",
                b"\x02\x02\x00",
                b"\x80\x80\x04\x02\x00\x40",
            ] {
                let mut body = envelope.to_vec();
                body.extend_from_slice(before);
                body.extend_from_slice(&long);
                body.extend_from_slice(&[1; 20]);
                let _ = decode(
                    &around(schema, schema.kind(), &body),
                    schema,
                    &FrameLimits::default(),
                );
            }
        }
        // Rows alone: more than the limit is said to be more than the limit.
        let mut body = envelope.to_vec();
        body.extend_from_slice(&long);
        let error = decode(
            &around(&events, Kind::Events, &body),
            &events,
            &FrameLimits::default(),
        );
        if claim > FRAME_ROWS_MAX as u64 {
            assert!(matches!(error, Err(FrameError::Limit { what: "rows", .. })));
        }
        // A text of the envelope, a profile's length, a frame in a request.
        let mut body = envelope[..9].to_vec();
        body.extend_from_slice(&[0x40, 0x00]);
        body.truncate(9);
        put_varint(&mut body, 1 << 6);
        body.extend_from_slice(&long);
        assert!(
            decode(
                &around(&events, Kind::Events, &body),
                &events,
                &FrameLimits::default()
            )
            .is_err()
        );
        let mut body = envelope.to_vec();
        body.extend_from_slice(&[0, 0, 1]);
        body.extend_from_slice(&long);
        assert!(
            decode(
                &around(&inferences, Kind::Profiles, &body),
                &inferences,
                &FrameLimits::default()
            )
            .is_err()
        );
        assert!(split(&long, &FrameLimits::default()).is_err());
    }
}

/// A few bytes of constant columns can claim many rows: their number is bounded by what the rows
/// would take as columns, not by what the frame weighs.
#[test]
fn a_small_frame_cannot_become_large() {
    let names: Vec<String> = (0..500).map(|index| format!("f{index}")).collect();
    let features: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 1.0)).collect();
    let schema = numbers(&features);
    let rows = |count: usize| Rows {
        columns: schema
            .fields()
            .iter()
            .map(|field| match field.ty {
                driftline_schemas::rows::FieldType::Time => {
                    Column::Time((0..count).map(|_| Some(0)).collect())
                }
                _ => Column::Int32((0..count).map(|_| Some(7)).collect()),
            })
            .collect(),
    };
    let frame = |count| Frame {
        envelope: Envelope::default(),
        body: Body::Rows(rows(count)),
    };
    let bytes = encode(&frame(3_000), &schema).unwrap();
    assert!(bytes.len() < 100, "{} bytes", bytes.len());
    assert!(decode(&bytes, &schema, &FrameLimits::default()).is_ok());
    // The same with 60,000 rows claimed: 500 columns of them would be 120 MB.
    assert!(matches!(
        encode(&frame(60_000), &schema),
        Err(FrameError::Limit { .. })
    ));
    let mut body = vec![0u8; 10];
    put_varint(&mut body, 60_000);
    body.extend_from_slice(&[0x21, 0x00]);
    assert!(matches!(
        decode(
            &around(&schema, Kind::Inferences, &body),
            &schema,
            &FrameLimits::default()
        ),
        Err(FrameError::Limit { .. })
    ));
}

/// One long text that all rows share costs a frame nothing, but it does as a column.
#[test]
fn repeated_texts_count_as_often_as_they_are_there() {
    let events = RowSchema::events();
    let long: Arc<str> = "x".repeat(STRING_BYTES_MAX).into();
    let rows = |count: usize| Rows {
        columns: vec![
            Column::Time((0..count).map(|_| Some(0)).collect()),
            Column::Text((0..count).map(|_| Some(Arc::clone(&long))).collect()),
            Column::Text((0..count).map(|_| None).collect()),
            Column::Text((0..count).map(|_| None).collect()),
        ],
    };
    let frame = |count| Frame {
        envelope: Envelope::default(),
        body: Body::Rows(rows(count)),
    };
    let small = FrameLimits {
        decoded_bytes: 100_000,
        ..FrameLimits::default()
    };
    let bytes = encode(&frame(1_000), &events).unwrap();
    assert!(decode(&bytes, &events, &FrameLimits::default()).is_ok());
    assert!(matches!(
        decode(&bytes, &events, &small),
        Err(FrameError::Limit { .. })
    ));
    assert!(encode(&frame(60_000), &events).is_err());
}

/// What does not fit the schema is not written, and is told by name.
#[test]
fn rows_of_another_schema_are_refused() {
    let [inferences, _, _, events] = schemas();
    let frame = |rows| Frame {
        envelope: Envelope::default(),
        body: Body::Rows(rows),
    };
    let other = frame(Rows::empty(&inferences));
    assert!(encode(&other, &events).is_err());
    let mut uneven = Rows::empty(&events);
    uneven.columns[0] = Column::Time([Some(1)].into_iter().collect());
    assert!(
        encode(&frame(uneven), &events)
            .unwrap_err()
            .to_string()
            .contains("\"event\"")
    );
    let mut without = Rows::empty(&events);
    for column in &mut without.columns {
        match column {
            Column::Time(values) => values.push(Some(1)),
            Column::Text(values) => values.push(None),
            _ => {}
        }
    }
    assert!(
        encode(&frame(without), &events)
            .unwrap_err()
            .to_string()
            .contains("\"event\"")
    );
    let long: Values<Arc<str>> = [Some(Arc::from("x".repeat(STRING_BYTES_MAX + 1)))]
        .into_iter()
        .collect();
    let mut long_text = Rows::empty(&events);
    long_text.columns[0] = Column::Time([Some(1)].into_iter().collect());
    long_text.columns[1] = Column::Text(long);
    long_text.columns[2] = Column::Text([None].into_iter().collect());
    long_text.columns[3] = Column::Text([None].into_iter().collect());
    assert!(encode(&frame(long_text), &events).is_err());

    let bytes = encode(&frame(Rows::empty(&inferences)), &inferences).unwrap();
    assert!(matches!(
        decode(&bytes, &events, &FrameLimits::default()),
        Err(FrameError::Schema { .. })
    ));
    let mut later = bytes;
    later[2] = 2;
    reseal(&mut later);
    assert_eq!(
        decode(&later, &inferences, &FrameLimits::default()),
        Err(FrameError::Version { version: 2 })
    );
}

/// A profile in place of rows comes back, bit for bit.
#[test]
fn a_profile_round_trips() {
    let inferences = RowSchema::inferences(&boiler());
    let frame = profile_frame();
    let bytes = encode(&frame, &inferences).unwrap();
    assert_eq!(peek(&bytes).unwrap().kind, Kind::Profiles);
    assert_eq!(
        decode(&bytes, &inferences, &FrameLimits::default()).unwrap(),
        frame
    );
    assert!(encode(&frame, &RowSchema::health()).is_err());
}

/// Frames of one request are taken apart where they were put together, and bounded in number.
#[test]
fn requests_are_taken_apart() {
    let frames: Vec<Vec<u8>> = samples()
        .iter()
        .map(|(schema, frame)| encode(frame, schema).unwrap())
        .collect();
    let body = join(&frames);
    let limits = FrameLimits::default();
    assert_eq!(split(&body, &limits).unwrap(), frames);
    assert!(split(&body[..body.len() - 1], &limits).is_err());
    assert!(split(b"", &limits).unwrap().is_empty());
    assert!(split(b"\x00", &limits).is_err());
    let few = FrameLimits {
        frames: frames.len() - 1,
        ..limits
    };
    assert!(matches!(split(&body, &few), Err(FrameError::Limit { .. })));
    let short = FrameLimits {
        body_bytes: 10,
        ..limits
    };
    assert!(matches!(
        split(&body, &short),
        Err(FrameError::Limit { .. })
    ));
}
