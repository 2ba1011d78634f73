//! `driftline changes` on the golden streams.

use serde_json::{Value, json};

use crate::harness::{answer, cases, driftline, driftline_on, shared, stderr, stdout};

fn changes(stream: &str, arguments: &[String]) -> Value {
    let file = shared(&format!("conformance/stream_{stream}.csv.gz")).unwrap();
    let mut all = vec!["changes", "--format", "json"];
    all.extend(arguments.iter().map(String::as_str));
    let file = file.display().to_string();
    all.push(&file);
    answer(&driftline(&all))
}

fn text(value: &Value) -> String {
    value.as_str().map_or(value.to_string(), str::to_owned)
}

/// Scenario: every recorded case of river 0.26.1, by river's parameter names.
/// Guarantee: exactly the recorded positions of drift and of warning, and nothing else in the answer.
#[test]
fn river_positions_from_the_command_line() {
    let Some(file) = cases("detectors.json") else {
        return;
    };
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() >= 81, "only {} cases", cases.len());
    for case in cases {
        let mut arguments = vec![
            "--compat".to_owned(),
            "river".to_owned(),
            "--detector".to_owned(),
            text(&case["detector"]),
        ];
        for (name, value) in case["params"].as_object().unwrap() {
            arguments.push("--param".to_owned());
            arguments.push(format!("{name}={}", text(value)));
        }
        let answer = changes(case["stream"].as_str().unwrap(), &arguments);
        let expected = json!({
            "detector": case["detector"], "drift": case["drift"], "warning": case["warning"],
        });
        assert_eq!(answer, expected, "{arguments:?} on {}", case["stream"]);
    }
}

/// Scenario: detectors that river lacks, on stream s3.
/// Guarantee: the positions that MOA's own tests hold.
#[test]
fn moa_positions_from_the_command_line() {
    if shared("conformance/stream_s3.csv.gz").is_none() {
        return;
    }
    for (detector, drift) in [
        ("cusum", json!([588, 1692])),
        ("stepd", json!([512, 1003, 1515])),
        ("seed", json!([543, 1023, 1535])),
        ("rddm", json!([516, 1573])),
    ] {
        for compat in [&[][..], &["--compat".to_owned(), "moa".to_owned()][..]] {
            let mut arguments = vec!["--detector".to_owned(), detector.to_owned()];
            arguments.extend_from_slice(compat);
            assert_eq!(
                changes("s3", &arguments)["drift"],
                drift,
                "{detector} {compat:?}"
            );
        }
    }
}

/// Scenario: a step of numbers, on standard input and as a column of a CSV file.
/// Guarantee: every detector runs from the command line; both ways in give the same answer.
#[test]
fn every_detector_from_both_ways_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("losses.csv");
    let values: Vec<u32> = (0..3000_u32)
        .map(|i| u32::from(i.wrapping_mul(2_654_435_761) >> 24 < if i < 1500 { 25 } else { 180 }))
        .collect();
    let lines: String = values.iter().map(|value| format!("{value}\n")).collect();
    let rows: String = values.iter().map(|value| format!("a,{value}\n")).collect();
    std::fs::write(&file, format!("name,loss\n{rows}")).unwrap();
    let file = file.display().to_string();
    for detector in [
        "adwin",
        "page_hinkley",
        "cusum",
        "ddm",
        "eddm",
        "rddm",
        "hddm_a",
        "hddm_w",
        "fhddm",
        "kswin",
        "stepd",
        "ecdd",
        "seed",
        "bocpd",
    ] {
        let start = ["changes", "--detector", detector];
        let piped = answer(&driftline_on(&[&start[..], &["-"]].concat(), &lines));
        let read = answer(&driftline(
            &[&start[..], &["--column", "loss", &file]].concat(),
        ));
        assert_eq!(piped, read, "{detector}");
        assert_eq!(piped["detector"], detector);
        let found = piped["drift"].as_array().unwrap();
        // FHDDM watches correct predictions, whose rate falls here as ones become more: it is blind to
        // a rise.
        let after = found
            .iter()
            .any(|at| (1500..1800).contains(&at.as_u64().unwrap()));
        assert!(after || detector == "fhddm", "{detector}: {found:?}");
    }
}

/// Scenario: input and options that cannot be.
/// Guarantee: a broken line is named and ends with 1; an impossible option says what would do and ends
/// with 2; nothing is on standard output.
#[test]
fn what_cannot_be_is_named() {
    let broken = driftline_on(&["changes", "--detector", "adwin", "-"], "1\n2\nthree\n4\n");
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        stderr(&broken).contains("standard input: line 3: \"three\""),
        "{}",
        stderr(&broken)
    );
    for (arguments, says) in [
        (&["changes", "--detector", "adwim", "-"][..], "page_hinkley"),
        (
            &["changes", "--detector", "adwin", "--param", "delta=2", "-"],
            "between 0 and 1",
        ),
        (
            &[
                "changes",
                "--detector",
                "adwin",
                "--param",
                "dleta=0.1",
                "-",
            ],
            "grace_period",
        ),
        (
            &["changes", "--detector", "cusum", "--compat", "river", "-"],
            "river has no detector cusum",
        ),
    ] {
        let refused = driftline_on(arguments, "1\n");
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&refused).contains(says), "{}", stderr(&refused));
        assert_eq!(stdout(&refused), "");
    }
}
