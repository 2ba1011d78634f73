//! JSON lines and Arrow streams from outside.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::Int8Type;
use arrow::ipc::writer::StreamWriter;
use driftline_schemas::frame::FrameLimits;
use driftline_schemas::quantity::{NAN, NEGATIVE_INFINITY, UNSEEN};
use driftline_schemas::rows::{Column, RowSchema};
use driftline_schemas::telemetry::{Intake, ROW_ERRORS_MAX, Taken, TelemetryError};
use proptest::prelude::*;

use crate::common::boiler;

fn inferences() -> Intake {
    Intake::new(&Arc::new(RowSchema::inferences(&boiler())), Some(&boiler()))
}

fn json(intake: &Intake, lines: &str) -> Taken {
    intake
        .json_lines(lines.as_bytes(), &FrameLimits::default())
        .unwrap()
}

fn ints(taken: &Taken, schema: &RowSchema, name: &str) -> Vec<Option<i32>> {
    let Column::Int32(values) = &taken.rows.columns[schema.index(name).unwrap()] else {
        panic!("{name} is no number")
    };
    values.iter().map(Option::<&i32>::copied).collect()
}

/// Values in their units and categories by name become what a frame would have carried; what is
/// wrong is told row by row, and the other rows stand.
#[test]
fn json_lines_are_taken_row_by_row() {
    let lines = r#"
        {"event_time":"2023-11-14T22:13:20.5Z","temperature":21.37,"pressure":1000.5,"mode":"idle","prediction":"leak","confidence":0.9,"ran_on":"gateway"}
        {"event_time":1700000000000001,"temperature":"NaN","pressure":"-Infinity","mode":"sauna","prediction":2,"latency_us":1e3}

        {"event_time":"2023-11-14T22:13:20Z","temprature":21.0}
        {"temperature":21.0}
        {"event_time":"yesterday"}
        {"event_time":0,"prediction":"maybe"}
        {"event_time":0,"temperature":[1]}
        {"event_time":0,"mode":-1}
        not json
        [1]
        {"event_time":0}
    "#;
    let schema = RowSchema::inferences(&boiler());
    let taken = json(&inferences(), lines);
    assert_eq!(taken.indices, [0, 1, 10]);
    assert_eq!(taken.refused, 8);
    assert_eq!(
        ints(&taken, &schema, "temperature"),
        [Some(2_137), Some(NAN), None]
    );
    assert_eq!(
        ints(&taken, &schema, "pressure"),
        [Some(2_001), Some(NEGATIVE_INFINITY), None]
    );
    assert_eq!(ints(&taken, &schema, "mode"), [Some(1), Some(UNSEEN), None]);
    assert_eq!(
        ints(&taken, &schema, "prediction"),
        [Some(1), Some(2), None]
    );
    assert_eq!(
        ints(&taken, &schema, "confidence"),
        [Some(9_000), None, None]
    );
    assert_eq!(ints(&taken, &schema, "ran_on"), [Some(1), None, None]);
    assert_eq!(
        ints(&taken, &schema, "latency_us"),
        [None, Some(1_000), None]
    );
    let Column::Time(times) = &taken.rows.columns[0] else {
        panic!("no time")
    };
    assert_eq!(
        times.values,
        [1_700_000_000_500_000, 1_700_000_000_000_001, 0]
    );
    for (error, (row, part)) in taken.errors.iter().zip([
        (2, "\"temprature\": the schema has no such field"),
        (3, "\"event_time\": every row must have it"),
        (4, "2026-01-31"),
        (5, "\"maybe\" is not one of fail, leak, ok"),
        (6, "\"temperature\": must be a number"),
        (7, "code from 0"),
        (8, "JSON"),
        (9, "JSON"),
    ]) {
        assert_eq!(error.row, row);
        assert!(error.reason.contains(part), "{error:?}");
    }
}

/// The other kinds: identities, texts, counters, yes and no.
#[test]
fn json_lines_of_every_kind() {
    let schema = Arc::new(RowSchema::outcomes(&boiler()));
    let taken = json(
        &Intake::new(&schema, Some(&boiler())),
        r#"{"event_time":1,"inference_id":"018bcfe5-6800-7abc-8def-0123456789ab","truth":"ok"}
           {"event_time":1,"inference_id":"nonsense","truth":"ok"}
           {"event_time":1,"truth":"ok"}"#,
    );
    assert_eq!((taken.rows.len(), taken.refused), (1, 2));
    let Column::Id(ids) = &taken.rows.columns[1] else {
        panic!("no id")
    };
    assert_eq!(ids.values, [0x018b_cfe5_6800_7abc_8def_0123_4567_89ab]);

    let schema = Arc::new(RowSchema::health());
    let taken = json(
        &Intake::new(&schema, None),
        r#"{"event_time":1,"battery_percent":99.5,"charging":true,"bytes_up":1099511627776,"link_kind":"lte"}
           {"event_time":1,"charging":"false","bytes_up":1.5}
           {"event_time":1,"charging":0,"bytes_up":18446744073709551615}"#,
    );
    assert_eq!((taken.rows.len(), taken.refused), (1, 2));
    assert_eq!(ints(&taken, &schema, "battery_percent"), [Some(995)]);
    assert_eq!(ints(&taken, &schema, "charging"), [Some(1)]);

    let schema = Arc::new(RowSchema::events());
    let long = "x".repeat(300);
    let taken = json(
        &Intake::new(&schema, None),
        &format!(
            "{{\"event_time\":1,\"event\":\"boot\"}}\n{{\"event_time\":1,\"event\":\"{long}\"}}"
        ),
    );
    assert_eq!((taken.rows.len(), taken.refused), (1, 1));
}

/// A request is bounded in rows, in bytes, in what it becomes, and in the errors that are told.
#[test]
fn requests_are_bounded() {
    let intake = inferences();
    let limits = FrameLimits {
        rows: 2,
        ..FrameLimits::default()
    };
    let three = b"{\"event_time\":1}\n{\"event_time\":1}\n{}";
    let rows = intake.json_lines(three, &limits);
    assert_eq!(
        rows,
        Err(TelemetryError::Limit {
            what: "rows",
            limit: 2
        })
    );
    let limits = FrameLimits {
        raw_bytes: 10,
        ..FrameLimits::default()
    };
    assert!(intake.json_lines(three, &limits).is_err());
    assert!(intake.arrow_stream(&stream(&sample()), &limits).is_err());
    let limits = FrameLimits {
        decoded_bytes: 80,
        ..FrameLimits::default()
    };
    assert!(intake.json_lines(three, &limits).is_err());
    let bad = "{}\n".repeat(ROW_ERRORS_MAX + 5);
    let taken = json(&intake, &bad);
    assert_eq!(
        (taken.errors.len(), taken.refused),
        (ROW_ERRORS_MAX, ROW_ERRORS_MAX + 5)
    );
}

fn sample() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "event_time",
            Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_000, 5])),
        ),
        (
            "temperature",
            Arc::new(Float32Array::from(vec![Some(21.37), None])),
        ),
        (
            "pressure",
            Arc::new(Float64Array::from(vec![1_000.5, f64::NAN])),
        ),
        (
            "mode",
            Arc::new(StringArray::from(vec!["defrost", "sauna"])),
        ),
        ("prediction", Arc::new(Int64Array::from(vec![1, 2]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn stream(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn arrow(intake: &Intake, bytes: &[u8]) -> Result<Taken, TelemetryError> {
    intake.arrow_stream(bytes, &FrameLimits::default())
}

/// Columns are matched by name and quantised; batches follow one another.
#[test]
fn arrow_streams_are_taken() {
    let schema = RowSchema::inferences(&boiler());
    let taken = arrow(&inferences(), &stream(&sample())).unwrap();
    assert_eq!(taken.indices, [0, 1, 2, 3]);
    assert_eq!(
        ints(&taken, &schema, "temperature"),
        [Some(2_137), None, Some(2_137), None]
    );
    assert_eq!(
        ints(&taken, &schema, "pressure")[..2],
        [Some(2_001), Some(NAN)]
    );
    assert_eq!(ints(&taken, &schema, "mode")[..2], [Some(2), Some(UNSEEN)]);
    assert_eq!(ints(&taken, &schema, "prediction")[..2], [Some(1), Some(2)]);
    let Column::Time(times) = &taken.rows.columns[0] else {
        panic!("no time")
    };
    assert_eq!(times.values[..2], [1_700_000_000_000_000, 5_000]);
}

/// What the schema does not have, dictionaries and non-streams are refused with a remedy; a value
/// that cannot be refuses its row alone.
#[test]
fn arrow_streams_that_do_not_fit_are_refused() {
    let intake = inferences();
    let time: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let with = |name: &str, column: ArrayRef| {
        let columns = [("event_time", Arc::clone(&time)), (name, column)];
        arrow(
            &intake,
            &stream(&RecordBatch::try_from_iter(columns).unwrap()),
        )
    };
    let text = |result: Result<Taken, TelemetryError>| result.unwrap_err().to_string();
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    assert!(text(with("temprature", Arc::clone(&numbers))).contains("no such field"));
    let dictionary: DictionaryArray<Int8Type> = vec!["idle", "heat"].into_iter().collect();
    assert!(text(with("mode", Arc::new(dictionary))).contains("not dictionaries"));
    assert!(text(arrow(&intake, b"")).contains("empty"));
    assert!(arrow(&intake, b"ARROW1\0\0").is_err());
    let rows = with("mode", Arc::new(StringArray::from(vec!["idle", "heat"]))).unwrap();
    assert_eq!((rows.rows.len(), rows.refused), (4, 0));
    let rows = with(
        "prediction",
        Arc::new(StringArray::from(vec!["ok", "maybe"])),
    )
    .unwrap();
    assert_eq!((rows.rows.len(), rows.refused), (2, 2));
}

/// Every beginning of a stream, every flipped bit, every 32-bit length replaced by a huge one: rows
/// or an error, never a panic that gets out, never an allocation of what is claimed.
#[test]
fn hostile_arrow_streams_are_read_or_refused() {
    let intake = inferences();
    let bytes = stream(&sample());
    for length in 0..bytes.len() {
        // A stream may end without its mark, but only between messages.
        if let Ok(taken) = arrow(&intake, &bytes[..length]) {
            assert!(taken.rows.len() % 2 == 0);
        }
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = arrow(&intake, &flipped);
    }
    for at in 0..bytes.len() - 8 {
        for claim in [
            u64::MAX,
            i64::MAX as u64,
            1 << 62,
            1 << 40,
            u32::MAX.into(),
            1 << 31,
        ] {
            let mut claimed = bytes.clone();
            claimed[at..at + 8].copy_from_slice(&claim.to_le_bytes());
            let _ = arrow(&intake, &claimed);
            let mut claimed = bytes.clone();
            claimed[at..at + 4].copy_from_slice(&(claim as u32).to_le_bytes());
            let _ = arrow(&intake, &claimed);
        }
    }
}

proptest! {
    /// Any text at all: rows or errors.
    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,200}") {
        let taken = json(&inferences(), &text);
        prop_assert_eq!(taken.rows.len(), taken.indices.len());
    }

    /// A number comes in by JSON as it does by Arrow.
    #[test]
    fn both_ways_agree(values in proptest::collection::vec(-1e7f64..1e7, 1..20)) {
        let intake = inferences();
        let schema = RowSchema::inferences(&boiler());
        let lines: String = values.iter().map(|value| format!("{{\"event_time\":1,\"pressure\":{value:?}}}\n")).collect();
        let columns: [(&str, ArrayRef); 2] = [
            ("event_time", Arc::new(Int64Array::from(vec![1; values.len()]))),
            ("pressure", Arc::new(Float64Array::from(values.clone()))),
        ];
        let both = stream(&RecordBatch::try_from_iter(columns).unwrap());
        let by_arrow = ints(&arrow(&intake, &both).unwrap(), &schema, "pressure");
        prop_assert_eq!(&ints(&json(&intake, &lines), &schema, "pressure"), &by_arrow[..values.len()]);
    }
}

const PYARROW: &str = r#"
import sys, datetime, decimal
import pyarrow as pa
case = sys.argv[1]
n = 3
time = pa.array([datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=datetime.timezone.utc)] * n, pa.timestamp(sys.argv[2], "UTC"))
columns = {
    "plain": {"temperature": pa.array([21.37, None, float("nan")]), "mode": pa.array(["idle", None, "sauna"]), "prediction": pa.array([0, 1, 2], pa.int8())},
    "large": {"mode": pa.array(["idle", None, "sauna"], pa.large_string()), "pressure": pa.array([1, 2, 3], pa.uint64())},
    "dictionary": {"mode": pa.array(["idle", None, "sauna"]).dictionary_encode()},
    "list": {"temperature": pa.array([[1.0], [2.0], []])},
    "struct": {"temperature": pa.array([{"a": 1}] * 3)},
    "decimal": {"temperature": pa.array([decimal.Decimal("1.5")] * 3)},
    "view": {"mode": pa.array(["a"] * 3, pa.string_view())},
    "half": {"temperature": pa.array([1.5] * 3).cast(pa.float32()).cast(pa.float16())},
    "null": {"temperature": pa.nulls(3)},
}
if case in ("compressed", "empty", "nothing"):
    table = pa.table({"event_time": time, **columns["plain"]})
else:
    table = pa.table({"event_time": time, **columns[case]})
if case == "empty":
    table = table.slice(0, 0)
options = pa.ipc.IpcWriteOptions(compression="lz4" if case == "compressed" else None)
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
    if case != "nothing":
        writer.write_table(table, max_chunksize=2)
sys.stdout.buffer.write(sink.getvalue().to_pybytes())
"#;

/// A Python that has pyarrow; `None`, loudly, where there is none.
fn pyarrow(case: &str, unit: &str) -> Option<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let candidates = [
        std::env::var_os("DRIFTLINE_PYARROW").map(PathBuf::from),
        Some(root.join("cache/venv/bin/python")),
        Some("python3".into()),
    ];
    for python in candidates.into_iter().flatten() {
        let child = Command::new(&python)
            .args(["-c", PYARROW, case, unit])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output();
        match child {
            Ok(output) if output.status.success() => return Some(output.stdout),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(said.contains("No module named 'pyarrow'"), "{said}");
            }
            Err(_) => {}
        }
    }
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: no Python with pyarrow here (DRIFTLINE_PYARROW names one)"
    );
    None
}

/// What pyarrow writes: plain columns of every unit of time are taken, what is not read here is
/// refused with a remedy, and its streams, cut or with any byte changed, harm nobody.
#[test]
fn streams_of_pyarrow_are_taken_or_refused() {
    let schema = RowSchema::inferences(&boiler());
    let intake = inferences();
    for unit in ["s", "ms", "us", "ns"] {
        let Some(bytes) = pyarrow("plain", unit) else {
            return;
        };
        let taken = arrow(&intake, &bytes).unwrap();
        assert_eq!(
            ints(&taken, &schema, "temperature"),
            [Some(2_137), None, Some(NAN)]
        );
        assert_eq!(ints(&taken, &schema, "mode"), [Some(1), None, Some(UNSEEN)]);
        let Column::Time(times) = &taken.rows.columns[0] else {
            panic!("no time")
        };
        assert_eq!(times.values, [1_700_000_000_000_000; 3]);
    }
    let large = arrow(&intake, &pyarrow("large", "us").unwrap()).unwrap();
    assert_eq!(
        ints(&large, &schema, "pressure"),
        [Some(2), Some(4), Some(6)]
    );
    for case in ["empty", "nothing"] {
        assert_eq!(
            arrow(&intake, &pyarrow(case, "us").unwrap())
                .unwrap()
                .rows
                .len(),
            0
        );
    }
    for case in [
        "dictionary",
        "list",
        "struct",
        "decimal",
        "view",
        "half",
        "null",
        "compressed",
    ] {
        let error = arrow(&intake, &pyarrow(case, "us").unwrap())
            .unwrap_err()
            .to_string();
        let remedy = ["send numbers, texts", "without compression"];
        assert!(
            remedy.iter().any(|remedy| error.contains(remedy)),
            "{case}: {error}"
        );
    }
    let bytes = pyarrow("plain", "us").unwrap();
    for at in 0..bytes.len() {
        let _ = arrow(&intake, &bytes[..at]);
        for byte in [0x00, 0x01, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1)] {
            let mut changed = bytes.clone();
            changed[at] = byte;
            let _ = arrow(&intake, &changed);
        }
    }
}
