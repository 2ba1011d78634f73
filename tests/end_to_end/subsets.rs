//! Cohorts that decay faster than the estate, and what probes see of it, from the lake.

use std::path::Path;

use driftline_drift::random::Random;
use serde_json::{Value, json};

use crate::harness::{self, Pipeline};
use crate::{fleet, serve};

const DAYS: i64 = 6;
const DEVICES: i64 = 24;
/// Rows of a device and day.
const ROWS_A_DAY: i64 = 24;
const ROWS: i64 = DAYS * DEVICES * ROWS_A_DAY;
const SITES: [&str; 4] = ["north-1", "north-2", "south-1", "south-2"];

/// Probes, all in the north.
const PROBES: [i64; 3] = [0, 1, 6];

/// The site of a device, six a site.
fn site(device: i64) -> &'static str {
    SITES[(device / 6) as usize]
}

/// Rows of all devices in turn that the model takes for sound. More and more of them are not, and at south-1
/// soon most; the current falls, at north-2 four times as fast.
fn stream(path: &Path) {
    let mut random = Random::new(12);
    let mut text = "device,temperature,vibration,pressure,current,truth\n".to_owned();
    for row in 0..ROWS {
        let device = row % DEVICES;
        let day = row as f64 / (DEVICES * ROWS_A_DAY) as f64;
        let chance = 0.04
            + day
                * if site(device) == "south-1" {
                    0.12
                } else {
                    0.02
                };
        let truth = if random.uniform() < chance {
            "fail"
        } else {
            "ok"
        };
        let falls = if site(device) == "north-2" { 0.2 } else { 0.05 };
        let current = 7.0 - falls * day + 0.1 * random.normal();
        text.push_str(&format!("d{device},60.00,2.60,5.60,{current:.2},{truth}\n"));
    }
    std::fs::write(path, text).unwrap();
}

/// A lake with all rows and labels; their first time.
fn lake(folder: &Path) -> (Pipeline, i64) {
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(1);
    let bundle = fleet::bundle(folder, &mut rng);
    let dir = folder.join("data");
    let pipeline = Pipeline::start(&dir, serve::SETTINGS, &[]);
    harness::told(&dir, &["model", "register", &bundle]);
    let text = |name: &str| folder.join(name).display().to_string();
    let (devices, input, tokens) = (text("devices"), text("stream.csv"), text("tokens"));
    let lines: Vec<String> = (0..DEVICES)
        .map(|device| {
            let firmware = ["2.0", "2.1"][(device % 2) as usize];
            let region = &site(device)[..5];
            let line = json!({
                "device": format!("d{device}"), "model": "boiler", "version": "1.0.0",
                "role": if PROBES.contains(&device) { "probe" } else { "device" },
                "site": site(device), "region": region,
                "firmware": firmware,
            });
            line.to_string()
        })
        .collect();
    std::fs::write(&devices, lines.join("\n")).unwrap();
    let added = harness::told(&dir, &["device", "import", &devices]);
    std::fs::write(&tokens, added.to_string()).unwrap();
    stream(Path::new(&input));
    // Whole days, so that the answer is the same at any hour.
    let start = (jiff::Timestamp::now().as_second() / 86_400 - DAYS - 1) * 86_400;
    let every = format!("{}s", DAYS * 86_400 / ROWS);
    #[rustfmt::skip]
    let arguments = [
        "replay", "--bundle", &bundle, "--input", &input, "--label", "truth", "--device", "device",
        "--start", &time(start), "--interval", &every, "--tokens-file", &tokens, "--to", &pipeline.url,
    ];
    assert_eq!(harness::told(&dir, &arguments)["acknowledged"], ROWS);
    harness::until("all rows and labels in the lake", || {
        let count =
            |table: &str| harness::number(&dir, &format!("SELECT count(*) FROM {table}")) as i64;
        match (count("inferences"), count("outcomes")) {
            (ROWS, ROWS) => Ok(()),
            seen => Err(format!("{seen:?} of {ROWS}")),
        }
    });
    (pipeline, start)
}

fn time(second: i64) -> String {
    jiff::Timestamp::from_second(second).unwrap().to_string()
}

fn names(answer: &Value) -> Vec<&str> {
    let subsets = answer["subsets"].as_array().unwrap().iter();
    subsets.map(|it| it["cohort"].as_str().unwrap()).collect()
}

/// Scenario: 24 devices at four sites; the error grows everywhere, at one site six times as fast.
/// Guarantee: that site is named, and neither its region nor a firmware; its slope is the one that SQL gives
/// on the raw rows; the interval holds the truth; other spans, signals and formats answer in the same way;
/// what cannot be asked is told with the exit code for it.
#[test]
fn a_site_that_decays_is_found_in_the_lake() {
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, start) = lake(folder.path());
    let dir = pipeline.dir.clone();
    let subsets =
        |more: &[&str]| harness::told(&dir, &[&["subsets", "--model", "boiler"], more].concat());
    let found = subsets(&[]);
    assert_eq!(names(&found), ["site=south-1"], "{found:#}");
    assert_eq!(found["version"], "1.0.0");
    assert_eq!(found["estate"]["rows"], ROWS);
    assert_eq!(found["estate"]["devices"], DEVICES);
    // Two regions, two firmwares, four sites, four pairs of the first two; and the devices that are no probes
    // in the north, of each firmware, and at north-2.
    assert_eq!(found["searched"]["groups"], 16, "{found:#}");
    assert_eq!(found["searched"]["pairs"], 8, "{found:#}");
    let subset = &found["subsets"][0];
    assert_eq!(subset["devices"], 6);
    assert_eq!(subset["rows"], ROWS / 4);
    assert_slopes_are_recomputed(&dir, &found);
    let number = |name: &str| subset[name].as_f64().unwrap();
    let truth = 0.12 / ((0.12 + 3.0 * 0.02) / 4.0);
    assert!(
        number("ratio_low") < truth && truth < number("ratio_high"),
        "{truth}: {subset:#}"
    );
    let said = subset["explanation"].as_str().unwrap();
    assert!(
        said.starts_with("site=south-1 decays ")
            && said.contains(" times faster than the estate, "),
        "{said}"
    );

    let (from, to) = (time(start), time(start + 2 * 86_400));
    let range = format!("{from}..{to}");
    let first = subsets(&["--version", "1.0.0", "--since", &range]);
    assert_eq!((&first["from"], &first["to"]), (&json!(from), &json!(to)));
    assert_eq!(first["estate"]["rows"], ROWS / 3);
    let north = subsets(&["--cohort", "region=north"]);
    assert_eq!(north["estate"]["rows"], ROWS / 2);
    assert!(names(&north).is_empty(), "{north:#}");

    let current = subsets(&["--signal", "current"]);
    assert_eq!(names(&current), ["site=north-2"], "{current:#}");
    let slope = current["subsets"][0]["slope"].as_f64().unwrap();
    assert!((slope / 30.0 + 0.2).abs() < 0.01, "{slope} in 30 days");
    let said = current["subsets"][0]["explanation"].as_str().unwrap();
    assert!(said.starts_with("site=north-2 moves "), "{said}");

    let written = |format: &str| {
        let arguments = ["subsets", "--model", "boiler", "--format", format];
        let output = harness::command(&dir).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", harness::stderr(&output));
        harness::stdout(&output)
    };
    let csv = written("csv");
    assert!(
        csv.starts_with("cohort,ratio,ratio_low,ratio_high,"),
        "{csv}"
    );
    assert_eq!(csv.lines().count(), 2, "{csv}");
    let table = written("table");
    assert!(table.contains("1 of 16 cohorts named"), "{table}");
    assert_refusals(&dir);
    assert_probes_see_the_north(&dir);
    let (status, _) = pipeline.terminate();
    assert!(status.success());
}

/// Slopes of the estate and of the site by SQL's own least squares, device by device.
fn assert_slopes_are_recomputed(dir: &Path, found: &Value) {
    let by_sql = |condition: &str| {
        let statement = format!(
            "SELECT 30 * sum(sxy) / sum(sxx) AS slope FROM (
                 SELECT device, regr_sxy(wrong, day) AS sxy, regr_sxx(wrong, day) AS sxx FROM (
                     SELECT i.device, CAST(CAST(i.event_time AS BIGINT) / 86400000000 AS DOUBLE) AS day,
                         CAST(i.predicted_code <> o.truth_code AS DOUBLE) AS wrong
                     FROM inferences i JOIN outcomes o ON i.inference_id = o.inference_id
                     WHERE {condition}) GROUP BY device)"
        );
        harness::number(dir, &statement)
    };
    for (ours, theirs) in [
        (&found["estate"]["slope"], by_sql("1 = 1")),
        (&found["subsets"][0]["slope"], by_sql("i.site = 'south-1'")),
    ] {
        let ours = ours.as_f64().unwrap();
        assert!(harness::close(ours, theirs, 1e-6), "{ours} {theirs}");
    }
}

/// What cannot be asked: wrong usage ends with 2, what is not there with 1, each with what would be right.
fn assert_refusals(dir: &Path) {
    let cases: [(&[&str], i32, &str); 6] = [
        (
            &["--model", "boiler", "--signal", "colour"],
            2,
            "temperature, vibration",
        ),
        (
            &["--model", "boiler", "--signal", "prediction"],
            2,
            "no mean",
        ),
        (
            &["--model", "boiler", "--false-discovery-rate", "0"],
            2,
            "above 0 and below 1",
        ),
        (
            &["--model", "boiler", "--cohort", "colour=red"],
            2,
            "region, site",
        ),
        (&["--model", "kettle"], 1, "driftline model list"),
        (
            &["--model", "boiler", "--since", "2020-01-01..2020-01-03"],
            1,
            "no labelled rows",
        ),
    ];
    for (arguments, code, says) in cases {
        let mut command = harness::command(dir);
        let output = command.arg("subsets").args(arguments).output().unwrap();
        let said = harness::stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{said}");
    }
}

/// Probes stand in the north only: its accuracy is that of their own rows, the south is named as blind, and the
/// interval of the estate holds whatever the south may be.
fn assert_probes_see_the_north(dir: &Path) {
    let found = harness::told(dir, &["probes", "--model", "boiler", "--strata", "region"]);
    assert_eq!(found["blind"], json!(["region=south"]), "{found:#}");
    let number = |name: &str| found[name].as_f64().unwrap();
    // Of the 21 devices that are no probes, 12 are in the south.
    let south = 12.0 / 21.0;
    assert!((number("blind_share") - south).abs() < 1e-9, "{found:#}");
    let seen = harness::number(
        dir,
        "SELECT avg(CAST(i.predicted_code = o.truth_code AS DOUBLE)) FROM inferences i
         JOIN outcomes o ON i.inference_id = o.inference_id WHERE i.role = 'probe'",
    );
    assert!(
        harness::close(number("covered_accuracy"), seen, 1e-9),
        "{seen}: {found:#}"
    );
    let (low, high) = (number("low"), number("high"));
    let covered = [number("covered_low"), number("covered_high")];
    assert!(covered[0] < seen && seen < covered[1], "{found:#}");
    let with_south = |covered: f64, south_is: f64| (1.0 - south) * covered + south * south_is;
    assert!(
        (low - with_south(covered[0], 0.0)).abs() < 1e-9,
        "{found:#}"
    );
    assert!(
        (high - with_south(covered[1], 1.0)).abs() < 1e-9,
        "{found:#}"
    );
    let rows = number("effective_rows");
    let labelled = (PROBES.len() as i64 * DAYS * ROWS_A_DAY) as f64;
    assert!(rows > 3.0 - 1e-9 && rows <= labelled, "{found:#}");
    let strata = found["strata"].as_array().unwrap();
    assert_eq!(strata.len(), 2);
    assert_eq!(
        (&strata[0]["probes"], &strata[1]["probes"]),
        (&json!(3), &json!(0))
    );

    let by_site = harness::told(
        dir,
        &["probes", "--model", "boiler", "--strata", "region,site"],
    );
    let first = &by_site["strata"][0];
    assert_eq!(
        first["stratum"], "region=north & site=north-1",
        "{by_site:#}"
    );
    assert_eq!(by_site["blind"].as_array().unwrap().len(), 2);
    let refused = harness::command(dir)
        .args(["probes", "--model", "boiler", "--strata", "colour"])
        .output()
        .unwrap();
    assert_eq!(
        refused.status.code(),
        Some(2),
        "{}",
        harness::stderr(&refused)
    );
}
