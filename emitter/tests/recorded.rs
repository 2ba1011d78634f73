//! Models that scikit-learn exported give here what ONNX Runtime recorded for them.

mod support;

use driftline_emitter::Model;
use driftline_schemas::bundle::{
    Feature, FeatureType, MANIFEST_FORMAT, Manifest, OutputSpec, Task,
};

fn manifest(task: Task, features: usize, classes: &[&str]) -> Manifest {
    Manifest {
        format: MANIFEST_FORMAT,
        name: "test".into(),
        version: "1".into(),
        variant: String::new(),
        task,
        features: (0..features)
            .map(|index| Feature {
                name: format!("x{index}"),
                kind: FeatureType::Numeric {
                    resolution: 1e-6,
                    unit: String::new(),
                    range: None,
                },
            })
            .collect(),
        output: OutputSpec {
            classes: classes.iter().map(|class| (*class).into()).collect(),
            resolution: (task != Task::Classification).then_some(1e-6),
            ..OutputSpec::default()
        },
        signals: Vec::new(),
        joint: None,
    }
}

/// How far a score may be off: the recording has six digits, and ONNX Runtime adds up in `f32`, where
/// logits in the thousands (gas, late batches) round by up to 5e-4 before the softmax. Against the exact
/// sums the recording itself is off by up to 4.4e-6.
const SCORE_TOLERANCE: f64 = 1e-5;

/// Runs a model over its whole stream and compares labels and scores with the recording. A label may differ only where the two classes have
/// equal scores, which a forest's votes do: then rounding decides, here by the order of the trees, in
/// ONNX Runtime by how its threads share them.
fn agrees(name: &str, stream: &str, drop: &[&str], classes: &[&str]) {
    let (Some(onnx), Some(recorded), Some(stream)) = (
        support::data(&format!("models/{name}.onnx")),
        support::data(&format!("models/{name}_predictions.csv.gz")),
        support::data(stream),
    ) else {
        return;
    };
    let (header, rows) = support::csv(&stream);
    let keep: Vec<usize> = (0..header.len())
        .filter(|column| !drop.contains(&header[*column].as_str()))
        .collect();
    let inputs: Vec<f32> = rows
        .iter()
        .flat_map(|row| {
            keep.iter()
                .map(|column| row[*column].parse::<f32>().unwrap())
        })
        .collect();
    let manifest = manifest(Task::Classification, keep.len(), classes);
    let model = Model::load(&std::fs::read(onnx).unwrap(), &manifest).unwrap();
    let started = std::time::Instant::now();
    let predicted = model.predict(&inputs, rows.len()).unwrap();
    let spent = started.elapsed();
    let (_, recorded) = support::csv(&recorded);
    assert_eq!(predicted.len(), recorded.len());
    let (mut wrong_labels, mut ties, mut wrong_scores, mut greatest) = (0, 0, 0, 0f64);
    for (row, record) in recorded.iter().enumerate() {
        let label = classes[predicted.classes[row] as usize];
        if label != record[2] {
            let recorded = |label: &str| {
                let class = classes.iter().position(|class| *class == label).unwrap();
                &record[3 + class]
            };
            match recorded(label) == recorded(&record[2]) {
                true => ties += 1,
                false => wrong_labels += 1,
            }
        }
        let off = predicted
            .scores(row)
            .unwrap()
            .iter()
            .zip(&record[3..])
            .map(|(score, recorded)| (f64::from(*score) - recorded.parse::<f64>().unwrap()).abs())
            .fold(0f64, f64::max);
        greatest = greatest.max(off);
        wrong_scores += usize::from(off > SCORE_TOLERANCE);
    }
    eprintln!(
        "{name}: {} rows in {spent:?}; {wrong_labels} labels differ, {ties} where scores tie; {wrong_scores} rows of scores differ, by {greatest:.2e} at most",
        rows.len()
    );
    assert_eq!(wrong_labels, 0, "{name}: labels");
    assert_eq!(wrong_scores, 0, "{name}: rows of scores");
}

const ELEC2: (&str, &[&str]) = ("elec2.csv.gz", &["date", "nswprice", "class"]);
const GAS: (&str, &[&str]) = ("gas_sensor_drift.csv.zst", &["batch", "gas"]);
const GASES: [&str; 6] = ["1", "2", "3", "4", "5", "6"];

#[test]
fn scaler_and_linear_classifier_agree() {
    agrees("elec2_logreg", ELEC2.0, ELEC2.1, &["0", "1"]);
}

#[test]
fn perceptron_in_plain_operators_agrees() {
    agrees("elec2_mlp", ELEC2.0, ELEC2.1, &["0", "1"]);
}

#[test]
fn normalized_linear_classifier_agrees() {
    agrees("gas_logreg_batch1", GAS.0, GAS.1, &GASES);
}

#[test]
fn forest_agrees() {
    agrees("gas_rf_batch1", GAS.0, GAS.1, &GASES);
}

/// Small models of other kinds (zip maps, boosted trees, imputers, one-hot columns, names as classes,
/// isolation forests) give what ONNX Runtime recorded for them, in one run and row by row.
#[test]
fn exported_models_agree_with_onnx_runtime() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let cases = std::fs::read(fixtures.join("cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let onnx = std::fs::read(fixtures.join(format!("{}.onnx", case.name))).unwrap();
        let width = case.rows[0].len();
        let classes: Vec<&str> = case.classes.iter().map(String::as_str).collect();
        let model = Model::load(&onnx, &manifest(case.task, width, &classes))
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let rows: Vec<f32> = case
            .rows
            .iter()
            .flatten()
            .map(|value| value.unwrap_or(f32::NAN))
            .collect();
        let n = case.rows.len();
        let all = model.predict(&rows, n).unwrap();
        let near = |a: f32, b: f32| (a - b).abs() <= 1e-4 * b.abs().max(0.1);
        for row in 0..n {
            let one = model.predict(&rows[row * width..][..width], 1).unwrap();
            for predicted in [(&all, row), (&one, 0)] {
                let (predictions, at) = predicted;
                if case.task == Task::Classification {
                    let label = &case.classes[predictions.classes[at] as usize];
                    assert_eq!(label, &case.labels[row], "{} row {row}", case.name);
                    let scores = predictions.scores(at).unwrap();
                    for (score, recorded) in scores.iter().zip(&case.scores[row]) {
                        assert!(
                            near(*score, *recorded),
                            "{} row {row}: {scores:?}",
                            case.name
                        );
                    }
                } else {
                    let value = predictions.values[at];
                    assert!(
                        near(value, case.values[row]),
                        "{} row {row}: {value}, recorded {}",
                        case.name,
                        case.values[row]
                    );
                }
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    task: Task,
    rows: Vec<Vec<Option<f32>>>,
    #[serde(default)]
    classes: Vec<String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    scores: Vec<Vec<f32>>,
    #[serde(default)]
    values: Vec<f32>,
}

/// An autoencoder's anomaly score is the mean squared difference of its output and its input.
#[test]
fn autoencoder_gives_one_score_per_row() {
    let Some(onnx) = support::data("toycar/ad01_h5_reference.onnx") else {
        return;
    };
    let manifest = manifest(Task::Anomaly, 640, &[]);
    let model = Model::load(&std::fs::read(onnx).unwrap(), &manifest).unwrap();
    let rows: Vec<f32> = (0..640 * 5)
        .map(|index| (index % 97) as f32 / 97.0 - 0.5)
        .collect();
    let all = model.predict(&rows, 5).unwrap();
    assert_eq!(all.values.len(), 5);
    for row in 0..5 {
        let one = model.predict(&rows[row * 640..][..640], 1).unwrap();
        let off = (one.values[0] - all.values[row]).abs() / all.values[row];
        assert!(off < 1e-4, "one by one and together give the same: {off}");
    }
}

/// A manifest that does not fit its model is refused, and the field is named.
#[test]
fn misfits_are_named() {
    let Some(onnx) = support::data("models/gas_rf_batch1.onnx") else {
        return;
    };
    let onnx = std::fs::read(onnx).unwrap();
    let load = |manifest: &Manifest| Model::load(&onnx, manifest).unwrap_err().to_string();
    let narrow = load(&manifest(Task::Classification, 127, &GASES));
    assert!(
        narrow.contains("features") && narrow.contains("128"),
        "{narrow}"
    );
    let few = load(&manifest(Task::Classification, 128, &GASES[..5]));
    assert!(few.contains("output.classes"), "{few}");
    let order = load(&manifest(
        Task::Classification,
        128,
        &["2", "1", "3", "4", "5", "6"],
    ));
    assert!(order.contains("order"), "{order}");
    let no_model = Model::load(b"not a model", &manifest(Task::Regression, 1, &[]));
    assert!(no_model.unwrap_err().to_string().contains("cannot be read"));
}
