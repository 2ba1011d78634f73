//! Records of the log: what is packed comes back, and what is damaged is refused.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use driftline_schemas::packed::{
    LEADING_COLUMNS, PackedBuilder, PackedError, PackedRecord, RecordHead, SchemaCache,
};
use driftline_schemas::rows::{Column, Kind, RowSchema, Rows};
use driftline_schemas::source::{FrameHead, Origin, inference_id};
use proptest::prelude::*;

use crate::common::{any_rows, boiler, schemas};
use crate::frame::sample_profile;

fn origin(tenant: &str, device: u8) -> Arc<Origin> {
    Arc::new(Origin {
        model: "boiler".into(),
        version: "1.4.0".into(),
        firmware: "2.1".into(),
        region: "eu".into(),
        site: "north".into(),
        cadence_s: 60,
        ..Origin::new(tenant, &format!("d{device}"))
    })
}

fn head(schema: &RowSchema, kind: Kind) -> RecordHead {
    RecordHead {
        tenant: "acme".into(),
        model: "boiler".into(),
        version: "1.4.0".into(),
        kind,
        fingerprint: schema.fingerprint(),
    }
}

#[derive(Debug, Clone)]
struct Pushed {
    device: u8,
    head: FrameHead,
    rows: Rows,
    keep: Option<Vec<u32>>,
}

impl Pushed {
    fn kept(&self) -> Vec<u32> {
        self.keep
            .clone()
            .unwrap_or_else(|| (0..self.rows.len() as u32).collect())
    }
}

fn any_pushed(schema: &RowSchema) -> impl Strategy<Value = Pushed> + use<> {
    let heads = (
        any::<u64>(),
        any::<u64>(),
        proptest::option::of(any::<i64>()),
        any::<i64>(),
        any::<i64>(),
    );
    (
        0u8..4,
        heads,
        any_rows(schema, 12),
        proptest::option::of(any::<u16>()),
    )
        .prop_map(
            |(
                device,
                (boot, sequence, sent_at_us, received_at_us, clock_correction_us),
                rows,
                mask,
            )| {
                let keep = mask.map(|mask| {
                    (0..rows.len() as u32)
                        .filter(|row| mask >> (row % 16) & 1 == 1)
                        .collect()
                });
                let head = FrameHead {
                    boot,
                    sequence,
                    sent_at_us,
                    received_at_us,
                    clock_correction_us,
                };
                Pushed {
                    device,
                    head,
                    rows,
                    keep,
                }
            },
        )
}

/// Whether a row of the batch is the row of the frame it came from.
fn same_row(record: &PackedRecord, at: usize, pushed: &Pushed, row: usize) -> bool {
    pushed
        .rows
        .columns
        .iter()
        .enumerate()
        .all(|(index, column)| {
            let packed = record.batch.column(index + LEADING_COLUMNS);
            let there = packed.is_valid(at);
            match column {
                Column::Time(values) => {
                    let correction = pushed.head.clock_correction_us;
                    let expected = values.get(row).map(|time| time.wrapping_add(correction));
                    there.then(|| packed.as_primitive::<Int64Type>().value(at)) == expected
                }
                Column::Int64(values) => {
                    there.then(|| packed.as_primitive::<Int64Type>().value(at))
                        == values.get(row).copied()
                }
                Column::Int32(values) => {
                    there.then(|| packed.as_primitive::<Int32Type>().value(at))
                        == values.get(row).copied()
                }
                Column::Text(values) => {
                    there.then(|| packed.as_string::<i32>().value(at))
                        == values.get(row).map(|it| &**it)
                }
                Column::Id(values) => {
                    let id = there.then(|| packed.as_fixed_size_binary().value(at).to_vec());
                    id == values.get(row).map(|id| id.to_be_bytes().to_vec())
                }
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    /// Any frames of any kind, some with rows left out: heads, rows, indices and identities come
    /// back, and each origin is there once.
    #[test]
    fn what_is_packed_comes_back(
        (schema, frames) in (0usize..4).prop_flat_map(|which| {
            let schema = schemas()[which].clone();
            let frames = proptest::collection::vec(any_pushed(&schema), 0..6);
            (Just(Arc::new(schema)), frames)
        }),
    ) {
        let mut builder = PackedBuilder::new(head(&schema, schema.kind()), &schema);
        for pushed in &frames {
            let origin = origin("acme", pushed.device);
            match &pushed.keep {
                Some(keep) => builder.push_selected(&origin, pushed.head, &pushed.rows, keep).unwrap(),
                None => builder.push(&origin, pushed.head, &pushed.rows).unwrap(),
            }
        }
        let rows: usize = frames.iter().map(|pushed| pushed.kept().len()).sum();
        prop_assert_eq!(builder.rows(), rows);
        let estimate = builder.bytes_estimate();
        let bytes = builder.finish().unwrap();
        prop_assert!(bytes.len() <= estimate, "{} bytes, estimated {estimate}", bytes.len());
        let record = PackedRecord::decode(bytes, &SchemaCache::default()).unwrap();
        prop_assert_eq!(&record.head, &head(&schema, schema.kind()));
        prop_assert_eq!(record.rows(), rows);
        prop_assert_eq!(record.frames.len(), frames.len());
        let ids = record.inference_ids();
        let mut at = 0;
        for (index, (packed, pushed)) in record.frames.iter().zip(&frames).enumerate() {
            prop_assert_eq!(&packed.origin, &origin("acme", pushed.device));
            prop_assert_eq!(packed.head, pushed.head);
            prop_assert_eq!(packed.first_row as usize, at);
            for row in pushed.kept() {
                prop_assert!(same_row(&record, at, pushed, row as usize));
                prop_assert_eq!(record.frame_index()[at] as usize, index);
                prop_assert_eq!(record.row_index()[at], row);
                let Column::Time(times) = &pushed.rows.columns[0] else { panic!("no time") };
                let id = inference_id(
                    packed.origin.device_hash(),
                    pushed.head.boot,
                    pushed.head.sequence,
                    row,
                    times.values[row as usize],
                );
                prop_assert_eq!(ids[at], id);
                prop_assert_eq!(record.inference_id(at), Some(id));
                at += 1;
            }
        }
        prop_assert_eq!(record.inference_id(at), None);
        for (a, b) in record.frames.iter().zip(record.frames.iter().skip(1)) {
            prop_assert_eq!(a.origin == b.origin, Arc::ptr_eq(&a.origin, &b.origin));
        }
    }
}

fn sample(rows: usize) -> Vec<u8> {
    let schema = Arc::new(RowSchema::inferences(&boiler()));
    let rows = Rows {
        columns: schema
            .fields()
            .iter()
            .map(|field| match Column::empty(field.ty) {
                Column::Time(_) => Column::Time((0..rows).map(|row| Some(row as i64)).collect()),
                _ => Column::Int32(
                    (0..rows)
                        .map(|row| Some((row as i32).wrapping_mul(0x1234_5671)))
                        .collect(),
                ),
            })
            .collect(),
    };
    let frame = FrameHead {
        boot: 1,
        sequence: 2,
        sent_at_us: None,
        received_at_us: 3,
        clock_correction_us: 0,
    };
    let mut builder = PackedBuilder::new(head(&schema, Kind::Inferences), &schema);
    builder.push(&origin("acme", 1), frame, &rows).unwrap();
    builder.finish().unwrap()
}

fn reseal(record: &mut [u8]) {
    if record.len() >= 16 {
        let mut hash = crc32fast::Hasher::new();
        hash.update(&record[..8]);
        hash.update(&record[12..]);
        record[8..12].copy_from_slice(&hash.finalize().to_le_bytes());
    }
}

/// A damaged log: every beginning and every flipped bit of a record is refused; where the checksum
/// is made right, for a compressed record and a stored one, nothing panics.
#[test]
fn damage_is_refused() {
    let schemas = SchemaCache::default();
    for bytes in [sample(1), sample(700)] {
        let stored = bytes[5] == 0;
        assert_eq!(
            stored,
            bytes.len() > 20_000,
            "one is compressed, one is not"
        );
        let heads = 400.min(bytes.len());
        let tail = bytes.len() - 100;
        for length in (0..heads).chain(tail..bytes.len()) {
            let mut cut = bytes[..length].to_vec();
            assert!(PackedRecord::decode(cut.clone(), &schemas).is_err());
            reseal(&mut cut);
            assert!(PackedRecord::decode(cut, &schemas).is_err());
        }
        for byte in (0..2_500.min(bytes.len())).chain(tail..bytes.len()) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[byte] ^= 1 << bit;
                assert!(PackedRecord::decode(flipped.clone(), &schemas).is_err());
                reseal(&mut flipped);
                let _ = PackedRecord::decode(flipped, &schemas);
            }
        }
    }
}

/// What does not belong into a record is refused, and leaves it as it was.
#[test]
fn strangers_are_not_packed() {
    let schema = Arc::new(RowSchema::events());
    let mut builder = PackedBuilder::new(head(&schema, Kind::Events), &schema);
    let frame = FrameHead {
        boot: 1,
        sequence: 2,
        sent_at_us: None,
        received_at_us: 3,
        clock_correction_us: 0,
    };
    let none = Rows::empty(&schema);
    let other = Rows::empty(&RowSchema::health());
    for result in [
        builder.push(&origin("else", 1), frame, &none),
        builder.push(&origin("acme", 1), frame, &other),
        builder.push_selected(&origin("acme", 1), frame, &none, &[0]),
        builder.push_profile(&origin("acme", 1), frame, &sample_profile()),
    ] {
        assert!(matches!(result, Err(PackedError::Unfit(_))));
    }
    assert!(builder.is_empty());
    builder.push(&origin("acme", 1), frame, &none).unwrap();
    let record = PackedRecord::decode(builder.finish().unwrap(), &SchemaCache::default()).unwrap();
    assert_eq!((record.rows(), record.frames.len()), (0, 1));
}

/// Records of one schema share it, however many are read.
#[test]
fn schemas_are_read_once() {
    let schemas = SchemaCache::default();
    let a = PackedRecord::decode(sample(3), &schemas).unwrap();
    let b = PackedRecord::decode(sample(5), &schemas).unwrap();
    assert!(Arc::ptr_eq(&a.batch.schema(), &b.batch.schema()));
}
