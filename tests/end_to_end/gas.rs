//! Real sensors that age: the gas example, replayed in order.

use std::collections::BTreeMap;
use std::path::Path;

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;

use crate::harness::{self, Pipeline};

/// Seed of the halves of the first batch.
const SEED: u64 = 7;
/// Batches of the data, in the order of time; the first is what the model was made from.
const BATCHES: [&str; 8] = ["1", "2", "3", "4", "5", "6", "8", "9"];

/// Writes one half of the first batch as the reference, and the other half with the later batches
/// as the stream, each row with its batch as the device. How many rows the stream has.
fn split(data: &Path, folder: &Path) -> usize {
    let bytes = zstd::decode_all(std::fs::File::open(data).unwrap()).unwrap();
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    let header = reader.headers().unwrap().clone();
    assert_eq!(&header[0], "batch");
    let rows = reader.records().map(Result::unwrap);
    let (mut first, later): (Vec<_>, Vec<_>) = rows.partition(|row| &row[0] == BATCHES[0]);
    first.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(SEED));
    let half = first.split_off(first.len() / 2);

    let mut reference = csv::Writer::from_path(folder.join("reference.csv")).unwrap();
    reference.write_record(&header).unwrap();
    first
        .iter()
        .for_each(|row| reference.write_record(row).unwrap());
    reference.flush().unwrap();

    let mut stream = csv::Writer::from_path(folder.join("stream.csv")).unwrap();
    stream
        .write_record(std::iter::once("device").chain(&header))
        .unwrap();
    for row in half.iter().chain(&later) {
        let device = format!("batch-{}", &row[0]);
        stream
            .write_record(std::iter::once(device.as_str()).chain(row))
            .unwrap();
    }
    stream.flush().unwrap();
    half.len() + later.len()
}

/// What a statement gives for each batch, in their order.
fn by_batch(dir: &Path, statement: &str) -> Vec<f64> {
    let rows = harness::sql(dir, statement);
    let found: BTreeMap<&str, f64> = rows
        .iter()
        .filter_map(|row| Some((row["batch"].as_str()?, row["value"].as_f64()?)))
        .collect();
    let of = |batch: &str| found.get(format!("site=batch-{batch}").as_str()).copied();
    BATCHES.iter().filter_map(|batch| of(batch)).collect()
}

/// Spearman's rank correlation of a series with time.
fn rising(series: &[f64]) -> f64 {
    let n = series.len() as f64;
    let rank = |value: f64| series.iter().filter(|other| **other < value).count() as f64;
    let squares: f64 = series
        .iter()
        .enumerate()
        .map(|(at, value)| (rank(*value) - at as f64).powi(2))
        .sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

/// Scenario: the model of the gas example, with one random half of the first batch as its reference;
/// the other half and all later batches are replayed in order, each batch as a device at a site of
/// its own.
/// Guarantee: every row and label counts once; SQL shows nothing between the halves of the first batch,
/// and from then on input and output drift in every batch, rising, while accuracy falls.
#[test]
fn drift_of_real_sensors_shows_batch_by_batch() {
    let Some(data) = harness::shared("data/gas_sensor_drift.csv.zst") else {
        return;
    };
    println!("seed {SEED}");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let rows = split(&data, folder.path());
    let dir = folder.path().join("data");
    let tokens = file("tokens");
    let bundle = harness::pack(
        &dir,
        "gas",
        &folder.path().join("reference.csv"),
        &folder.path().join("bundle"),
        &["--label", "gas", "--ignore", "batch"],
    );
    let pipeline = Pipeline::start(&dir, "", &[]);
    harness::told(&dir, &["model", "register", &bundle]);
    let mut known = String::new();
    for batch in BATCHES {
        let (name, site) = (format!("batch-{batch}"), format!("batch-{batch}"));
        let added = pipeline.add_device(
            &name,
            &["--model", "gas", "--version", "1.0.0", "--site", &site],
        );
        known.push_str(&added.to_string());
        known.push('\n');
    }
    std::fs::write(&tokens, known).unwrap();
    // In the past, so that all windows are over, and on the hour, so that they are the same always.
    let hour = jiff::Timestamp::now().as_second() / 3600 - 24;
    let start = jiff::Timestamp::from_second(hour * 3600)
        .unwrap()
        .to_string();
    let replayed = harness::told(
        &dir,
        &[
            "replay",
            "--bundle",
            &bundle,
            "--input",
            &file("stream.csv"),
            "--label",
            "gas",
            "--device",
            "device",
            "--start",
            &start,
            "--interval",
            "10s",
            "--tokens-file",
            &tokens,
            "--to",
            &pipeline.url,
        ],
    );
    assert_eq!(replayed["acknowledged"], rows);
    assert_eq!(replayed["outcomes"], rows);

    // The stages are done when every row and every label is in a judged window.
    harness::until("measures of all rows and labels", || {
        let judged = |signal: &str| {
            harness::number(
                &dir,
                &format!(
                    "SELECT coalesce(sum(rows), 0) FROM final_measures
                     WHERE signal = '{signal}' AND method = 'shift' AND cohort LIKE 'site=%'"
                ),
            )
        };
        let (inputs, errors) = (judged("s1f1"), judged("error"));
        match inputs as usize == rows && errors as usize == rows {
            true => Ok(()),
            false => Err(format!("{inputs} rows and {errors} labels of {rows}")),
        }
    });
    assert_eq!(
        harness::number(&dir, "SELECT count(DISTINCT inference_id) FROM inferences") as usize,
        rows
    );

    let inputs = by_batch(
        &dir,
        "SELECT cohort AS batch, avg(value) AS value FROM final_measures
         WHERE method = 'psi' AND signal LIKE 's%f%' AND cohort LIKE 'site=%' GROUP BY 1",
    );
    let outputs = by_batch(
        &dir,
        "SELECT cohort AS batch, avg(value) AS value FROM final_measures
         WHERE method = 'psi' AND signal = 'prediction' AND cohort LIKE 'site=%' GROUP BY 1",
    );
    let right = by_batch(
        &dir,
        "SELECT 'site=' || i.site AS batch, avg((i.predicted_class = o.truth_class)::int) AS value
         FROM inferences i JOIN outcomes o USING (inference_id) GROUP BY 1",
    );
    let crossed = by_batch(
        &dir,
        "SELECT cohort AS batch, sum(crossed::int) AS value FROM final_measures
         WHERE cohort LIKE 'site=%' GROUP BY 1",
    );
    println!(
        "input PSI {inputs:.2?}\noutput PSI {outputs:.2?}\naccuracy {right:.2?}\ncrossed {crossed:?}"
    );
    assert_eq!(
        [inputs.len(), outputs.len(), right.len(), crossed.len()],
        [8; 4]
    );
    assert_eq!(crossed[0], 0.0, "random halves of one batch do not differ");
    assert!(crossed[1..].iter().all(|crossed| *crossed > 0.0));
    assert!(inputs[0] < 0.2 && inputs[1..].iter().all(|psi| *psi > 1.0));
    assert!(outputs[0] < 0.2 && outputs[1..].iter().all(|psi| *psi > 1.0));
    assert!(rising(&inputs) > 0.7 && rising(&outputs) > 0.7);
    assert!(right[0] > 0.85 && rising(&right) < -0.8 && right[7] < 0.3);
    let (status, _) = pipeline.terminate();
    assert!(status.success());
}
