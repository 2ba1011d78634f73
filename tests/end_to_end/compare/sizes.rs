//! Files that are counted in bins, and the same rows in other clothes.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, ListArray, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::Int32Type;
use parquet::arrow::ArrowWriter;
use serde_json::Value;

use driftline_drift::random::Random;

use super::{Files, column, compare, measure};

fn parquet(files: &Files, name: &str, columns: Vec<(&str, ArrayRef)>) -> String {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let path = files.path(name);
    let file = File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path.display().to_string()
}

/// Scenario: one table as CSV, as packed CSV and as Parquet.
/// Guarantee: the same answer, to the last bit.
#[test]
fn clothes_make_no_difference() {
    let files = Files::new();
    let mut random = Random::new(11);
    let mut side = |name: &str, shift: f64| -> [String; 3] {
        let rows = 700;
        let x: Vec<Option<f64>> = (0..rows)
            .map(|_| (random.uniform() < 0.9).then(|| (random.normal() + shift) * 8.0))
            .collect();
        let on: Vec<bool> = (0..rows).map(|_| random.uniform() < 0.3).collect();
        let site: Vec<String> = (0..rows)
            .map(|_| format!("s{}", (random.uniform() * 4.0) as u32))
            .collect();
        let mut text = "x,on,site\n".to_owned();
        for at in 0..rows {
            let x = x[at].map(|x| x.to_string()).unwrap_or_default();
            text.push_str(&format!("{x},{},{}\n", on[at], site[at]));
        }
        let plain = files.write(&format!("{name}.csv"), &text);
        let packed = files.path(&format!("{name}.csv.zst"));
        std::fs::write(&packed, zstd::encode_all(text.as_bytes(), 1).unwrap()).unwrap();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("x", Arc::new(Float64Array::from(x))),
            ("on", Arc::new(BooleanArray::from(on))),
            ("site", Arc::new(StringArray::from(site))),
        ];
        let columnar = parquet(&files, &format!("{name}.parquet"), columns);
        [plain, packed.display().to_string(), columnar]
    };
    let (reference, current) = (side("r", 0.0), side("c", 0.1));
    let answers: Vec<Value> = (0..3)
        .map(|at| compare(&reference[at], &current[(at + 1) % 3], &["--by", "on"]))
        .collect();
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(column(&answers[0], "on")["kind"], "categorical");
    assert_eq!(answers[0]["by"].as_array().unwrap().len(), 2);
}

/// Scenario: 60,000 rows against 40,000, which are not kept but counted; one column shifted by a tenth of a
/// deviation, one with a value that recurs more often, one equal.
/// Guarantee: rows are counted exactly; what moved is found and what did not is not; and a distance is that
/// of the values to the width of a bin.
#[test]
fn large_files_are_counted() {
    let files = Files::new();
    let mut random = Random::new(21);
    let mut side = |name: &str, rows: usize, shift: f64, stuck: f64| {
        let mut columns: [Vec<f64>; 3] = Default::default();
        for _ in 0..rows {
            columns[0].push(random.normal() + shift);
            let value = if random.uniform() < stuck {
                0.5
            } else {
                random.uniform()
            };
            columns[1].push(value);
            columns[2].push((random.normal() * 3.0).exp());
        }
        let [moved, stuck, same] = columns.map(|it| Arc::new(Float64Array::from(it)) as ArrayRef);
        parquet(
            &files,
            name,
            vec![("moved", moved), ("stuck", stuck), ("same", same)],
        )
    };
    let reference = side("r.parquet", 60_000, 0.0, 0.01);
    let current = side("c.parquet", 40_000, 0.1, 0.02);
    let found = compare(&reference, &current, &[]);
    assert_eq!(found["rows"]["reference"], 60_000);
    assert_eq!(
        measure(column(&found, "moved"), "location")["drifted"],
        true
    );
    let shares = measure(column(&found, "stuck"), "shares");
    assert_eq!(
        (&shares["drifted"], &shares["at"]),
        (&true.into(), &"0.5".into()),
        "{shares}"
    );
    assert_eq!(column(&found, "same")["drifted"], false, "{found:#}");
    let found = compare(
        &reference,
        &current,
        &["--method", "wasserstein", "--false-alarm-rate", "0.5"],
    );
    let distance = measure(column(&found, "moved"), "wasserstein")["value"]
        .as_f64()
        .unwrap();
    // Two samples of 60,000 and 40,000 rows are themselves 0.01 apart.
    assert!((distance - 0.1).abs() < 0.02, "{distance}");
}

/// Scenario: Parquet with times and lists.
/// Guarantee: times are left out unless named, lists always, and both are said.
#[test]
fn times_and_lists_are_left_out() {
    let files = Files::new();
    let side = |name: &str, start: i64| {
        let x: Vec<f64> = (0..80).map(|i| f64::from(i % 9)).collect();
        let times: Vec<i64> = (0..80).map(|i| start + i * 1000).collect();
        let lists: Vec<_> = (0..80).map(|i| Some(vec![Some(i)])).collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("x", Arc::new(Float64Array::from(x))),
            ("at", Arc::new(TimestampMillisecondArray::from(times))),
            (
                "list",
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            ),
        ];
        parquet(&files, name, columns)
    };
    let (reference, current) = (side("r.parquet", 0), side("c.parquet", 10_000_000));
    let found = compare(&reference, &current, &[]);
    assert_eq!(found["drifted"], false);
    let skipped = found["skipped"].as_array().unwrap();
    assert_eq!(
        (&skipped[0]["column"], &skipped[1]["column"]),
        (&"at".into(), &"list".into())
    );
    let found = compare(&reference, &current, &["--columns", "at"]);
    assert_eq!(column(&found, "at")["drifted"], true);
}
