//! References from the field: built, compared, promoted, and what windows are compared with then.

use std::path::Path;

use driftline_drift::random::Random;
use serde_json::Value;

use crate::fleet;
use crate::harness::{self, Pipeline};

/// Seconds from row to row, hours of rows, and rows in all.
const EVERY_S: i64 = 60;
const HOURS: i64 = 66;
const ROWS: i64 = HOURS * 3600 / EVERY_S;

/// Rows of four devices, two a site, whose temperature lies higher than in training.
fn stream(path: &Path) {
    let mut random = Random::new(3);
    let mut text = "device,temperature,vibration,pressure,current,truth\n".to_owned();
    for row in 0..ROWS {
        let mut around =
            |mean: f64, spread: f64| mean + spread * (random.uniform() + random.uniform() - 1.0);
        let (t, v) = (around(64.0, 8.0), around(3.0, 1.0));
        let (p, c) = (around(5.0, 0.5), around(8.0, 2.0));
        let truth = if v > 3.5 { "fail" } else { "ok" };
        text.push_str(&format!(
            "d{},{t:.2},{v:.2},{p:.2},{c:.2},{truth}\n",
            row % 4
        ));
    }
    std::fs::write(path, text).unwrap();
}

/// A pipeline with all rows judged: its folder, when the first row was, and the bundle.
fn field(folder: &Path) -> (Pipeline, i64) {
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    let bundle = fleet::bundle(folder, &mut rng);
    let dir = folder.join("data");
    let pipeline = Pipeline::start(&dir, crate::serve::SETTINGS, &[]);
    harness::told(&dir, &["model", "register", &bundle]);
    let (input, tokens) = (folder.join("stream.csv"), folder.join("tokens"));
    stream(&input);
    let mut known = String::new();
    for device in 0..4 {
        let site = ["north-1", "south-1"][device / 2];
        let name = format!("d{device}");
        let added = pipeline.add_device(
            &name,
            &["--model", "boiler", "--version", "1.0.0", "--site", site],
        );
        known.push_str(&format!("{added}\n"));
    }
    std::fs::write(&tokens, known).unwrap();
    // Whole days in the middle, and all of it over.
    let day = jiff::Timestamp::now().as_second() / 86_400;
    let start = (day - 3) * 86_400 + 6 * 3_600;
    let path = |path: &Path| path.display().to_string();
    let replayed = harness::told(
        &dir,
        &[
            "replay",
            "--bundle",
            &bundle,
            "--input",
            &path(&input),
            "--label",
            "truth",
            "--device",
            "device",
            "--start",
            &time(start),
            "--interval",
            &format!("{EVERY_S}s"),
            "--tokens-file",
            &path(&tokens),
            "--to",
            &pipeline.url,
        ],
    );
    assert_eq!(replayed["acknowledged"], ROWS);
    until_judged(&dir, "1 = 1");
    (pipeline, start)
}

/// Waits for measures of all rows and labels, of those that a condition takes.
fn until_judged(dir: &Path, condition: &str) {
    harness::until("measures of all rows and labels", || {
        let rows = |signal: &str| {
            let statement = format!(
                "SELECT coalesce(sum(rows), 0) FROM final_measures WHERE signal = '{signal}'
                 AND method = 'shift' AND cohort = 'estate' AND {condition}"
            );
            harness::number(dir, &statement) as i64
        };
        match (rows("temperature"), rows("error")) {
            (ROWS, ROWS) => Ok(()),
            seen => Err(format!("{seen:?} of {ROWS}")),
        }
    });
}

fn time(second: i64) -> String {
    jiff::Timestamp::from_second(second).unwrap().to_string()
}

/// What a command that fails says.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = harness::command(dir).args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal<'a>(rows: &'a Value, name: &str) -> &'a Value {
    let mut rows = rows.as_array().unwrap().iter();
    rows.find(|row| row["signal"] == name).unwrap()
}

/// Scenario: a model runs warmer in the field than in training. A reference is built from the field's
/// own days, compared with the training's, and promoted from a window in the middle on.
/// Guarantee: it counts exactly the lake's rows and labels; the windows before keep the training
/// reference and its finding, those from there on name the new one and are calm, and the finding ends
/// there; the days that are calm now are found as stable days; by cohort and by hour of the day the rows
/// are those of the cohort and the hours.
#[test]
fn the_field_becomes_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, start) = field(folder.path());
    let dir = pipeline.dir.clone();
    let told = |arguments: &[&str]| harness::told(&dir, arguments);
    let model = ["--model", "boiler@1.0.0"];
    let training =
        &harness::sql(&dir, "SELECT DISTINCT reference FROM final_measures")[0]["reference"];
    let drifted =
        "SELECT count(*) FROM findings WHERE finding_state = 'drifted' AND kind = 'input_drift'";
    assert!(harness::number(&dir, drifted) > 0.0);

    let (from, middle, to) = (
        time(start),
        time(start + 30 * 3600),
        time(start + HOURS * 3600),
    );
    let build = |more: &[&str]| {
        told(
            &[
                &["reference", "build"],
                &model[..],
                &["--from", &from, "--to", &to],
                more,
            ]
            .concat(),
        )
    };
    let built = build(&[]);
    assert_eq!(
        (&built["rows"], &built["labelled"]),
        (&ROWS.into(), &ROWS.into()),
        "{built:#}"
    );
    assert_eq!(
        (&built["devices"], &built["season"]),
        (&4.into(), &"none".into()),
        "{built:#}"
    );
    let id = built["reference"].as_str().unwrap();
    assert_eq!(
        build(&[])["reference"],
        id,
        "the same rows are the same reference"
    );
    let north = build(&["--cohort", "site=north-1", "--season", "day"]);
    assert_eq!(
        (&north["rows"], &north["season"]),
        (&(ROWS / 2).into(), &"hour_of_day".into())
    );

    let diff = told(&[&["reference", "diff", "training", id], &model[..]].concat());
    let temperature = signal(&diff, "temperature");
    let mean = harness::number(
        &dir,
        "SELECT avg(CAST(features[1] AS DOUBLE)) FROM inferences",
    );
    assert!(
        (temperature["right_mean"].as_f64().unwrap() - mean).abs() < 1e-4,
        "{temperature} {mean}"
    );
    assert!((temperature["left_mean"].as_f64().unwrap() - 60.0).abs() < 0.5);
    assert!(temperature["psi"].as_f64().unwrap() > 0.5);
    assert!(signal(&diff, "vibration")["psi"].as_f64().unwrap() < 0.1);
    assert_eq!(signal(&diff, "error")["right_rows"], ROWS);

    assert_ranges_compare(&dir, &from, &middle, &to);
    let none = refused(
        &dir,
        &[&["reference", "build", "--stable-days", "1"], &model[..]].concat(),
    );
    assert!(none.contains("at most 0"), "{none}");
    let promote = |name: &str, from: &str| {
        let promote = ["reference", "promote", name, "--from", from];
        told(&[&promote[..], &model[..]].concat())
    };
    assert_eq!(promote(id, &middle)["from"], middle);
    let after = format!("window_start >= '{middle}'");
    harness::until("windows judged again", || {
        let old =
            format!("SELECT count(*) FROM final_measures WHERE {after} AND reference <> '{id}'");
        match harness::number(&dir, &old) {
            0.0 => Ok(()),
            old => Err(format!("{old} measures with another reference")),
        }
    });
    until_judged(&dir, "1 = 1");
    let before = format!(
        "SELECT count(*) FROM final_measures WHERE NOT ({after}) AND reference <> {training}"
    );
    assert_eq!(harness::number(&dir, &before.replace('"', "'")), 0.0);
    let crossed = format!(
        "SELECT count(*) FROM final_measures WHERE {after} AND crossed AND method = 'shift'"
    );
    assert_eq!(harness::number(&dir, &crossed), 0.0);
    let ended = harness::sql(
        &dir,
        &format!(
            "SELECT window_start, explanation FROM findings WHERE finding_state = 'recovered' AND {after}"
        ),
    );
    assert!(
        ended[0]["explanation"]
            .as_str()
            .unwrap()
            .contains("gave way"),
        "{ended:#?}"
    );
    let list = told(&[&["reference", "list"], &model[..]].concat());
    assert_eq!(
        (&list[0]["reference"], &list[0]["from"]),
        (&id.into(), &middle.as_str().into())
    );

    let stable = told(&[&["reference", "build", "--stable-days", "1"], &model[..]].concat());
    assert_eq!(stable["rows"], 86_400 / EVERY_S, "{stable:#}");
    let (status, _) = pipeline.terminate();
    assert!(status.success());
}

/// Two ranges of the lake compared as two files would be: features become columns by their names, the halves
/// of one law do not differ, and attributes choose rows, group them and are compared when they are named.
fn assert_ranges_compare(dir: &Path, from: &str, middle: &str, to: &str) {
    let range =
        |from: &str, to: &str, more: &str| format!("lake:boiler@1.0.0?from={from}&to={to}{more}");
    let (first, second) = (range(from, middle, ""), range(middle, to, ""));
    let compared = harness::told(dir, &["compare", &first, &second, "--by", "site"]);
    let rows = |from: &str, to: &str| {
        let within = format!("event_time >= '{from}' AND event_time < '{to}'");
        let statement = format!("SELECT count(*) FROM inferences WHERE {within}");
        harness::number(dir, &statement) as i64
    };
    assert_eq!(compared["rows"]["reference"], rows(from, middle));
    assert_eq!(compared["rows"]["current"], rows(middle, to));
    assert_eq!(compared["drifted"], false, "{compared:#}");
    let columns = compared["columns"].as_array().unwrap();
    let names: Vec<_> = columns.iter().map(|it| &it["column"]).collect();
    let expected = [
        "temperature",
        "vibration",
        "pressure",
        "current",
        "prediction",
        "confidence",
        "truth",
    ];
    assert_eq!(names, expected);
    assert_eq!(compared["by"].as_array().unwrap().len(), 2);

    let north = range(from, to, "&site=north-1");
    let only = ["--columns", "site,temperature"];
    let sites = harness::told(dir, &[&["compare", &first, &north], &only[..]].concat());
    let columns = sites["columns"].as_array().unwrap().iter();
    let drifted: Vec<_> = columns.map(|it| it["drifted"].clone()).collect();
    assert_eq!(drifted, [true, false], "{sites:#}");
    let said = refused(dir, &["compare", "lake:boiler@1.0.0", &second]);
    assert!(
        said.contains("lake:NAME@VERSION?from=TIME&to=TIME"),
        "{said}"
    );
}

/// Scenario: a reference with other edges lies where a version's should be; a version without rows; a
/// window that is too old; an unknown reference.
/// Guarantee: nothing is promoted or compared, and each answer says what to do.
#[test]
fn references_that_cannot_be_used_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    let bundle = fleet::bundle(folder.path(), &mut rng);
    let dir = folder.path().join("data");
    harness::told(&dir, &["model", "register", &bundle]);
    let model = ["--model", "boiler@1.0.0"];
    let ask = |arguments: &[&str]| refused(&dir, &[arguments, &model].concat());

    let none = ask(&[
        "reference",
        "build",
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-02",
    ]);
    assert!(
        none.contains("no rows of boiler@1.0.0 from 2026-01-01T00:00:00Z"),
        "{none}"
    );
    let which = ask(&["reference", "build"]);
    assert!(
        which.contains("--stable-days") && which.contains("[references.boiler]"),
        "{which}"
    );
    let attribute = ask(&[
        "reference",
        "build",
        "--from",
        "2026-01-01",
        "--to",
        "2026-01-02",
        "--cohort",
        "colour=red",
    ]);
    assert!(attribute.contains("region, site"), "{attribute}");
    let old = ask(&["reference", "promote", "training", "--from", "2020-01-01"]);
    assert!(old.contains("are not judged again"), "{old}");
    let unknown = ask(&["reference", "promote", "0123456789abcdef"]);
    assert!(unknown.contains("0123456789abcdef"), "{unknown}");
    let version = refused(&dir, &["reference", "list", "--model", "boiler"]);
    assert!(version.contains("NAME@VERSION"), "{version}");

    // Of eight bins where the version has sixteen.
    let coarse = harness::pack(
        &dir,
        "boiler",
        &folder.path().join("rows.csv"),
        &folder.path().join("coarse"),
        &["--label", "truth", "--classes", "ok,fail", "--bins", "8"],
    );
    let shown = harness::told(&dir, &["model", "show", &coarse]);
    let id = shown["reference"]["id"].as_str().unwrap();
    let place = dir
        .join("bundles/+references/default/boiler/1.0.0")
        .join(id);
    std::fs::create_dir_all(&place).unwrap();
    for file in ["reference.profile", "calibration.json"] {
        std::fs::copy(Path::new(&coarse).join(file), place.join(file)).unwrap();
    }
    for arguments in [
        vec!["reference", "promote", id],
        vec!["reference", "diff", "training", id],
    ] {
        let said = ask(&arguments);
        assert!(
            said.contains("driftline reference build --model boiler@1.0.0"),
            "{said}"
        );
    }
    let back = harness::told(
        &dir,
        &[&["reference", "promote", "training"], &model[..]].concat(),
    );
    assert_eq!(back["reference"], "training");
}
