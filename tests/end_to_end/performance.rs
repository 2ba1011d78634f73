//! `driftline performance` on NannyML's recorded cases.

use serde_json::Value;

use crate::harness::{answer, cases, close, driftline, shared, stderr};

fn estimates(extra: &[&str]) -> Option<Vec<Value>> {
    let reference = shared("conformance/cbpe_synthetic_sample_reference.csv.gz")?;
    let analysis = shared("conformance/cbpe_synthetic_sample_analysis.csv.gz")?;
    let (reference, analysis) = (
        reference.display().to_string(),
        analysis.display().to_string(),
    );
    let mut arguments = vec![
        "performance",
        "--reference",
        &reference,
        "--analysis",
        &analysis,
        "--score",
        "y_pred_proba",
        "--prediction",
        "y_pred",
        "--target",
        "work_home_actual",
        "--format",
        "json",
    ];
    arguments.extend_from_slice(extra);
    Some(answer(&driftline(&arguments)).as_array().unwrap().clone())
}

/// Scenario: NannyML 0.13.1's recorded chunks of 5,000 and of 20,000 rows.
/// Guarantee: each estimate within 1e-9, and each sampling error that is a function of the data (average
/// precision's is drawn at random, AUROC's depends on an unstable sort).
#[test]
fn nannyml_chunks_from_the_command_line() {
    let Some(recorded) = cases("cbpe_synthetic_sample.json") else {
        return;
    };
    let chunks = recorded["chunks"].as_array().unwrap();
    let mut compared = 0;
    for size in [5_000, 20_000] {
        let rows = size.to_string();
        let ours = estimates(&["--compat", "nannyml", "--chunk", &rows]).unwrap();
        for chunk in chunks.iter().filter(|chunk| chunk["chunk_rows"] == size) {
            let at = chunk["start"].as_u64().unwrap() / size;
            for row in ours.iter().filter(|row| row["chunk"] == at) {
                let metric = row["metric"].as_str().unwrap();
                let theirs = &chunk[metric];
                let number = |value: &Value| value.as_f64().unwrap();
                assert!(
                    close(number(&row["estimate"]), number(&theirs["estimate"]), 1e-9),
                    "{row} {theirs}"
                );
                let tolerance = match metric {
                    "average_precision" => 0.3,
                    "roc_auc" => 2e-3,
                    _ => 1e-9,
                };
                let error = (&row["sampling_error"], &theirs["sampling_error"]);
                assert!(
                    close(number(error.0), number(error.1), tolerance),
                    "{row} {theirs}"
                );
                let end = chunk["end"].as_u64().unwrap() + 1;
                assert_eq!(row["rows"], end - chunk["start"].as_u64().unwrap());
                assert!(
                    row["realised"].is_null(),
                    "the file has no such column: {row}"
                );
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 7 * chunks.len());
}

/// Scenario: the same file once its labels have arrived, in its own definition.
/// Guarantee: the realised metric stands beside the estimate, and within its bounds while only the inputs
/// have moved.
#[test]
fn labels_that_arrive_stand_beside() {
    let Some(rows) = estimates(&[
        "--chunk",
        "5000",
        "--analysis-target",
        "label_arriving_later",
    ]) else {
        return;
    };
    assert_eq!(rows.len(), 7 * 10);
    for row in &rows[..7 * 5] {
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(
            (number("lower")..=number("upper")).contains(&number("realised")),
            "{row}"
        );
    }
}

/// Scenario: a classifier of three classes that is surer than it is right.
/// Guarantee: its accuracy is estimated at what it is, from one score column a class.
#[test]
fn three_classes_have_an_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "p_a,b,c,guess,truth\n".to_owned();
    for i in 0..3000 {
        // Right four times of five, at a confidence of 0.98.
        let truth = if i % 5 == 0 { "b" } else { "a" };
        text.push_str(&format!("0.98,0.01,0.01,a,{truth}\n"));
    }
    let file = folder.path().join("rows.csv");
    std::fs::write(&file, text).unwrap();
    let file = file.display().to_string();
    let start = [
        "performance",
        "--reference",
        &file,
        "--analysis",
        &file,
        "--prediction",
        "guess",
    ];
    let scores = [
        "--target", "truth", "--score", "a=p_a", "b", "c", "--chunk", "1000",
    ];
    let rows = answer(&driftline(&[&start[..], &scores[..]].concat()));
    for row in rows.as_array().unwrap() {
        assert_eq!(row["metric"], "accuracy");
        assert!(close(row["estimate"].as_f64().unwrap(), 0.8, 0.01), "{row}");
        assert_eq!(row["realised"], 0.8);
        assert_eq!(row["alert"], false);
    }
}

/// Scenario: a score that is no probability, a label that is no class, a reference without targets.
/// Guarantee: the file, the column and the row are named.
#[test]
fn what_cannot_be_estimated_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (text, says) in [
        (
            "s,p,t\n0.5,1,1\n1.5,0,0\n",
            "column s, row 2: 1.5 is no probability",
        ),
        (
            "s,p,t\n0.5,1,1\n,0,0\n",
            "column s, row 2: nothing is no probability",
        ),
        (
            "s,p,t\n0.5,1,yes\n0.4,0,no\n",
            "column t, row 1: yes is neither",
        ),
        ("s,p,t\n0.5,1,1\n0.4,0,\n", "row 2 has no target"),
        ("s,p\n0.5,1\n0.4,0\n", "row 1 has no target"),
        ("s,p,t\n0.5,1,1\n0.4,0,1\n", "both classes"),
        ("s,p,t\n", "there are no rows"),
    ] {
        let file = folder.path().join("rows.csv");
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let refused = driftline(&[
            "performance",
            "--reference",
            &file,
            "--analysis",
            &file,
            "--score",
            "s",
            "--prediction",
            "p",
            "--target",
            "t",
        ]);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        let said = stderr(&refused);
        assert!(said.contains(says) && said.contains("rows.csv"), "{said}");
    }
}

/// A file of two inputs, a prediction and a target: `shift` moves an input to where the prediction errs more,
/// `turned` turns what the target makes of the other one.
fn labelled(shift: f64, turned: bool, seed: u64) -> String {
    let mut random = driftline_drift::random::Random::new(seed);
    let mut text = "load,wind,place,guess,truth\n".to_owned();
    for row in 0..5_000 {
        let (x, y) = (1.5 - shift + random.normal(), random.normal());
        let weight = if turned { -1.0 } else { 1.0 };
        let truth = x + weight * y + random.normal() > 0.0;
        let name = |is: bool| if is { "high" } else { "low" };
        let (guess, truth) = (name(x + y > 0.0), name(truth));
        let place = ["north", "south"][row % 2];
        text.push_str(&format!("{x:.4},{y:.4},{place},{guess},{truth}\n"));
    }
    text
}

/// Scenario: labelled files in which only the inputs moved, and in which only the target turned.
/// Guarantee: the loss is put down to its cause, the parts add up to it, and what cannot be told apart or
/// is missing is refused by name.
#[test]
fn a_loss_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = folder.path().join(name).display().to_string();
        std::fs::write(&path, text).unwrap();
        path
    };
    let before = write("before.csv", labelled(0.0, false, 1));
    let moved = write("moved.csv", labelled(1.5, false, 2));
    let turned = write("turned.csv", labelled(0.0, true, 3));
    let away = write("away.csv", labelled(20.0, false, 4));
    let run = |analysis: &str, columns: &str| {
        let files = [
            "performance",
            "--reference",
            &before,
            "--analysis",
            analysis,
        ];
        let columns = [
            "--prediction",
            "guess",
            "--target",
            "truth",
            "--decompose",
            columns,
        ];
        driftline(&[&files[..], &columns, &["--format", "json"]].concat())
    };
    for (analysis, cause) in [(&moved, "inputs"), (&turned, "relation")] {
        let parts = answer(&run(analysis, "load,wind,place"));
        let part = |name: &str| {
            let mut parts = parts.as_array().unwrap().iter();
            parts.find(|part| part["part"] == name).unwrap()
        };
        let share = part(cause)["share"].as_f64().unwrap();
        assert!(share >= 0.8, "{cause}: {parts:#}");
        let change = |name: &str| part(name)["change"].as_f64().unwrap();
        assert!(change("total") > 0.05, "{parts:#}");
        assert!((change("total") - change("inputs") - change("relation")).abs() < 1e-12);
    }
    let apart = run(&away, "load");
    assert!(!apart.status.success() && stderr(&apart).contains("too little in common"));
    let unknown = run(&moved, "colour");
    assert!(stderr(&unknown).contains("colour"), "{}", stderr(&unknown));
}
