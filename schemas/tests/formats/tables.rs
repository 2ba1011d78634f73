//! Records as rows of the lake's tables.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::frame::Body;
use driftline_schemas::packed::{PackedBuilder, PackedRecord, RecordHead, SchemaCache};
use driftline_schemas::profile::{Cell, CellProfile, ProfileKey};
use driftline_schemas::rows::{Column, Kind, RowSchema, Rows};
use driftline_schemas::source::{FrameHead, Origin, inference_id_text};
use driftline_schemas::tables::{self, DESCRIPTION, PARTITION_COLUMNS, Place, Table, Telemetry};

use crate::common::{boiler, numbers};
use crate::conclusions;
use crate::frame::sample_profile;
use crate::golden;

const PLACE: Place = Place {
    partition: 3,
    offset: 4_000_000_000,
};

fn pack(frames: &[(Arc<Origin>, FrameHead, Rows)], schema: RowSchema) -> PackedRecord {
    let schema = Arc::new(schema);
    let head = RecordHead {
        tenant: "acme".into(),
        model: "boiler".into(),
        version: "1.4.0".into(),
        kind: schema.kind(),
        fingerprint: schema.fingerprint(),
    };
    let mut builder = PackedBuilder::new(head, &schema);
    for (origin, head, rows) in frames {
        builder.push(origin, *head, rows).unwrap();
    }
    PackedRecord::decode(builder.finish().unwrap(), &SchemaCache::default()).unwrap()
}

fn rows_of(body: Body) -> Rows {
    match body {
        Body::Rows(rows) => rows,
        Body::Profile(_) => panic!("not rows"),
    }
}

fn telemetry(record: &PackedRecord) -> Telemetry<'_> {
    Telemetry {
        record,
        place: PLACE,
        late_after_us: 3_600_000_000,
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> &'a ArrayRef {
    batch.column_by_name(name).unwrap()
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let texts = column(batch, name).as_string::<i32>();
    texts.iter().map(|text| text.map(str::to_owned)).collect()
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> String {
    texts(batch, name)[row].clone().unwrap()
}

/// Every table begins with its partition columns and ends with the log's position; every column is
/// described; and there is no type that Delta does not have.
#[test]
fn tables_are_described_and_fit_delta() {
    for table in Table::ALL {
        assert_eq!(Table::of_topic(table.name()), Some(table));
        let schema = table.schema();
        let names: Vec<&str> = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        assert_eq!(names[..2], PARTITION_COLUMNS);
        assert_eq!(names[names.len() - 2..], ["log_partition", "log_offset"]);
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{}", table.name());
        for field in schema.fields() {
            let described = field
                .metadata()
                .get(DESCRIPTION)
                .is_some_and(|it| !it.is_empty());
            assert!(described, "{}.{}", table.name(), field.name());
            let ty = match field.data_type() {
                DataType::List(element) => element.data_type(),
                ty => ty,
            };
            assert!(
                matches!(
                    ty,
                    DataType::Utf8
                        | DataType::Boolean
                        | DataType::Int32
                        | DataType::Int64
                        | DataType::Float32
                        | DataType::Float64
                        | DataType::Decimal128(38, 0)
                        | DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(_))
                ),
                "{}.{}: {ty}",
                table.name(),
                field.name()
            );
        }
    }
}

/// A classifier's rows: units, names, missing and non-finite values, identities, corrected times,
/// lateness.
#[test]
fn inferences_become_rows() {
    let (schema, frame) = golden::inferences();
    let rows = rows_of(frame.body);
    let late = FrameHead {
        received_at_us: golden::HEAD.received_at_us + 7_200_000_000,
        sent_at_us: None,
        ..golden::HEAD
    };
    let record = pack(
        &[
            (golden::origin("d17"), golden::HEAD, rows.clone()),
            (golden::origin("d18"), late, rows),
        ],
        schema.clone(),
    );
    let batch = tables::inferences(&telemetry(&record), &boiler(), &schema).unwrap();
    assert_eq!(batch.schema(), Table::Inferences.schema());
    assert_eq!(batch.num_rows(), 10);
    assert_eq!(text(&batch, "date", 0), "2023-11-14");
    assert_eq!(
        text(&batch, "inference_id", 3),
        inference_id_text(record.inference_id(3).unwrap())
    );
    assert_eq!(
        (text(&batch, "device", 4), text(&batch, "device", 5)),
        ("d17".into(), "d18".into())
    );
    let times = column(&batch, "event_time").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(1), golden::START_US + 1_000 - 1_500_000);
    assert!(column(&batch, "sent_at").is_null(5) && column(&batch, "sent_at").is_valid(0));
    let late = column(&batch, "late").as_boolean();
    assert_eq!((late.value(0), late.value(5)), (false, true));

    let features = column(&batch, "features").as_list::<i32>();
    let of = |row: usize| -> Vec<Option<f32>> {
        features
            .value(row)
            .as_primitive::<Float32Type>()
            .iter()
            .collect()
    };
    assert_eq!(of(0), [Some(21.37), Some(1_000.0), Some(0.0)]);
    let third = of(2);
    assert_eq!(third[..2], [None, Some(1_001.5)]);
    assert!(third[2].unwrap().is_nan(), "an unseen category");
    assert!(of(3)[0].unwrap().is_nan());

    assert_eq!(text(&batch, "predicted_class", 3), "fail");
    assert_eq!(
        column(&batch, "predicted_code")
            .as_primitive::<Int32Type>()
            .value(2),
        1
    );
    assert_eq!(column(&batch, "predicted_value").null_count(), 10);
    assert_eq!(
        column(&batch, "confidence")
            .as_primitive::<Float32Type>()
            .value(0),
        0.98
    );
    let scores = column(&batch, "scores").as_list::<i32>().value(2);
    let scores: Vec<f32> = scores.as_primitive::<Float32Type>().values().to_vec();
    assert_eq!(scores, [0.24, 0.51, 0.25]);
    assert_eq!(column(&batch, "energy_uj").null_count(), 10);
    assert_eq!(text(&batch, "ran_on", 0), "device");
    let signals = column(&batch, "signals").as_list::<i32>().value(1);
    assert_eq!(signals.as_primitive::<Float32Type>().value(0), -0.007);
    assert_eq!(
        column(&batch, "log_offset")
            .as_primitive::<Int64Type>()
            .value(9),
        4_000_000_000
    );

    let other = RowSchema::inferences(&{
        let mut manifest = boiler();
        manifest.signals.clear();
        manifest
    });
    let error = tables::inferences(&telemetry(&record), &boiler(), &other).unwrap_err();
    assert!(error.to_string().contains("register the bundle"), "{error}");
}

/// A regressor has a value and neither class nor scores.
#[test]
fn a_regressors_rows_have_values() {
    let schema = numbers(&[("x", 0.5)]);
    let manifest = driftline_schemas::bundle::Manifest::parse(
        "format = 1\nname = \"n\"\nversion = \"1\"\ntask = \"regression\"\n[output]\nresolution = 1.0\n[[features]]\nname = \"x\"\ntype = \"numeric\"\nresolution = 0.5\n",
    )
    .unwrap();
    let columns = schema
        .fields()
        .iter()
        .map(|field| match field.name.as_str() {
            "event_time" => Column::Time([Some(0)].into_iter().collect()),
            "ran_on" => Column::Int32([Some(9)].into_iter().collect()),
            _ => Column::Int32([Some(42)].into_iter().collect()),
        });
    let rows = Rows {
        columns: columns.collect(),
    };
    let record = pack(
        &[(golden::origin("d1"), golden::HEAD, rows)],
        schema.clone(),
    );
    let batch = tables::inferences(&telemetry(&record), &manifest, &schema).unwrap();
    assert_eq!(
        column(&batch, "predicted_value")
            .as_primitive::<Float64Type>()
            .value(0),
        42.0
    );
    for name in [
        "predicted_class",
        "predicted_code",
        "confidence",
        "scores",
        "signals",
        "ran_on",
    ] {
        assert!(column(&batch, name).is_null(0), "{name}");
    }
}

/// Truths name their prediction, its time and its device.
#[test]
fn outcomes_become_rows() {
    let (schema, frame) = golden::outcomes();
    let record = pack(
        &[(golden::origin("probe-3"), golden::HEAD, rows_of(frame.body))],
        schema.clone(),
    );
    let batch = tables::outcomes(&telemetry(&record), &boiler(), &schema).unwrap();
    assert_eq!(batch.schema(), Table::Outcomes.schema());
    assert_eq!(
        text(&batch, "inference_id", 0),
        "018bcfe5-6800-7abc-8def-0123456789ab"
    );
    let times = column(&batch, "inference_time").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(0), 1_700_000_000_000_000);
    let devices = texts(&batch, "inference_device");
    assert_eq!(devices, [Some("probe-3".into()), Some("d17".into())]);
    assert_eq!(texts(&batch, "truth_class"), [Some("leak".into()), None]);
    assert_eq!(texts(&batch, "observer")[0], Some("inspector".into()));
}

/// Readings are in their units; events are as they were told.
#[test]
fn health_and_events_become_rows() {
    let (schema, frame) = golden::health();
    let record = pack(
        &[(golden::origin("d17"), golden::HEAD, rows_of(frame.body))],
        schema,
    );
    let batch = tables::health(&telemetry(&record)).unwrap();
    assert_eq!(batch.schema(), Table::Health.schema());
    let float = |name: &str| column(&batch, name).as_primitive::<Float64Type>().value(0);
    assert_eq!((float("battery_percent"), float("voltage")), (10.0, 0.2));
    assert!(
        column(&batch, "charging").is_null(0),
        "a code that is neither yes nor no"
    );
    assert_eq!(text(&batch, "link_kind", 1), "nb-iot");
    assert_eq!(
        column(&batch, "bytes_up")
            .as_primitive::<Int64Type>()
            .value(0),
        1 << 40
    );
    assert!(tables::events(&telemetry(&record)).is_err());

    let (schema, frame) = golden::events();
    let record = pack(
        &[(golden::origin("d17"), golden::HEAD, rows_of(frame.body))],
        schema,
    );
    let batch = tables::events(&telemetry(&record)).unwrap();
    assert_eq!(batch.schema(), Table::Events.schema());
    assert_eq!(texts(&batch, "after"), [None, Some("2.1.0-größer".into())]);
}

/// A record without rows gives a batch without rows, of every kind.
#[test]
fn nothing_becomes_no_rows() {
    let [inferences, outcomes, health, events] = crate::common::schemas();
    let empty = |schema: &RowSchema| pack(&[], schema.clone());
    let manifest = boiler();
    let record = empty(&inferences);
    assert_eq!(
        tables::inferences(&telemetry(&record), &manifest, &inferences)
            .unwrap()
            .num_rows(),
        0
    );
    let record = empty(&outcomes);
    assert_eq!(
        tables::outcomes(&telemetry(&record), &manifest, &outcomes)
            .unwrap()
            .num_rows(),
        0
    );
    assert_eq!(
        tables::health(&telemetry(&empty(&health)))
            .unwrap()
            .num_rows(),
        0
    );
    assert_eq!(
        tables::events(&telemetry(&empty(&events)))
            .unwrap()
            .num_rows(),
        0
    );
    assert_eq!(tables::measures(&[]).unwrap().num_rows(), 0);
    assert_eq!(tables::findings(&[]).unwrap().num_rows(), 0);
    assert_eq!(tables::alerts(&[]).unwrap().num_rows(), 0);
    assert_eq!(tables::dead_letters(&[]).unwrap().num_rows(), 0);
}

/// A resend is left out: the other frames' rows keep their identity.
#[test]
fn frames_can_be_left_out() {
    let (schema, frame) = golden::inferences();
    let rows = rows_of(frame.body);
    let head = |sequence| FrameHead {
        sequence,
        ..golden::HEAD
    };
    let record = pack(
        &[
            (golden::origin("a"), head(1), rows.clone()),
            (golden::origin("b"), head(2), rows.clone()),
            (golden::origin("c"), head(3), rows),
        ],
        schema,
    );
    let some = record.select_frames(&[true, false, true]).unwrap();
    assert_eq!((some.rows(), some.frames.len()), (10, 2));
    assert_eq!(some.frames[1].first_row, 5);
    let ids = record.inference_ids();
    assert_eq!(some.inference_ids(), [&ids[..5], &ids[10..]].concat());
    assert_eq!(some.inference_id(7), Some(ids[12]));
    assert_eq!(record.select_frames(&[true; 3]).unwrap(), record);
    assert_eq!(record.select_frames(&[]).unwrap().rows(), 0);
}

/// Profiles keep their exact sums, a row per signal.
#[test]
fn profiles_become_rows() {
    let layout = crate::frame::sample_layout();
    let cell = CellProfile {
        key: ProfileKey {
            tenant: "acme".into(),
            model: "boiler".into(),
            version: "1.4.0".into(),
            pane_start_us: golden::START_US,
            pane_length_us: 60_000_000,
            cell: Cell::of(&golden::origin("d17")),
        },
        profile: sample_profile().profile,
    };
    let batch = tables::profiles(&[&cell, &cell], &layout, PLACE).unwrap();
    assert_eq!(batch.schema(), Table::Profiles.schema());
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(
        (text(&batch, "region", 0), text(&batch, "link", 0)),
        ("eu".into(), "lpwan".into())
    );
    let edges = column(&batch, "edges").as_list::<i32>().value(0);
    assert_eq!(
        edges.as_primitive::<Float64Type>().values(),
        &[10.0, 20.0, 30.0]
    );
    let bins = column(&batch, "bins").as_list::<i32>().value(1);
    assert_eq!(bins.as_primitive::<Int64Type>().values(), &[1, 1, 2, 1]);
    let sum = column(&batch, "sum")
        .as_primitive::<Decimal128Type>()
        .value(0);
    assert_eq!(sum, 500 + 1_500 + 2_137 + 2_500 + 9_999);
    let max = column(&batch, "max").as_primitive::<Float64Type>().value(0);
    assert_eq!(max, 9_999.0 * 0.01);

    let mut other = cell.clone();
    other.profile.layout ^= 1;
    assert!(tables::profiles(&[&other], &layout, PLACE).is_err());
}

/// Conclusions and dead letters become rows.
#[test]
fn conclusions_become_rows() {
    let (measure, finding, alert) = (
        conclusions::measure(),
        conclusions::finding(),
        conclusions::alert(),
    );
    let batch = tables::measures(&[(PLACE, measure)]).unwrap();
    assert_eq!(batch.schema(), Table::Measures.schema());
    assert_eq!(text(&batch, "cohort", 0), "firmware=2.1 & region=eu");
    assert!(column(&batch, "p_value").is_null(0));

    let batch = tables::findings(&[(PLACE, finding.clone()), (PLACE, finding)]).unwrap();
    assert_eq!(batch.schema(), Table::Findings.schema());
    let signals = column(&batch, "signals").as_list::<i32>().value(1);
    assert_eq!(signals.as_string::<i32>().value(0), "temperature");
    assert_eq!(
        column(&batch, "attributes")
            .as_list::<i32>()
            .value_length(0),
        0
    );

    let batch = tables::alerts(&[(PLACE, alert)]).unwrap();
    assert_eq!(batch.schema(), Table::Alerts.schema());
    assert_eq!(
        (text(&batch, "state", 0), text(&batch, "change", 0)),
        ("open".into(), "updated".into())
    );

    let letter = DeadLetter::new("acme", "d17", "unknown_schema", "no bundle", b"DL\x01", 5)
        .of_kind(Kind::Inferences);
    let batch = tables::dead_letters(&[(PLACE, letter)]).unwrap();
    assert_eq!(batch.schema(), Table::DeadLetters.schema());
    assert_eq!(
        (text(&batch, "kind", 0), text(&batch, "date", 0)),
        ("inferences".into(), "1970-01-01".into())
    );
}
