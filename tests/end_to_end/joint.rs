//! A correlation that turns round, from packing to the finding.

use std::path::Path;

use rand::{RngExt as _, SeedableRng as _};

use crate::harness::{self, Pipeline};

const SEED: u64 = 11;
/// Rows of an hour of a device, and hours.
const ROWS: usize = 200;
const HOURS: usize = 4;
/// The device of each site, how pressure and current go together there, and whether it sends profiles in
/// place of rows. In training they do by 0.8.
const DEVICES: [(&str, f64, bool); 4] = [
    ("north", 0.8, false),
    ("east", 0.8, true),
    ("south", -0.8, false),
    ("west", -0.8, true),
];
const MODEL: [&str; 2] = ["--model", "boiler@1.0.0"];

/// Rows of a boiler, to write to a file.
fn rows(random: &mut impl rand::Rng, count: usize, correlation: f64) -> Vec<String> {
    let mut normal = || (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    let kept = (1.0 - correlation * correlation).sqrt();
    (0..count)
        .map(|_| {
            let (a, b) = (normal(), normal());
            let pressure = 5.0 + 0.2 * a;
            let current = 8.0 + 0.8 * (correlation * a + kept * b);
            let (temperature, vibration) = (60.0 + 3.0 * normal(), 3.0 + 0.3 * normal());
            format!("{temperature:.2},{vibration:.3},{pressure:.3},{current:.2}")
        })
        .collect()
}

/// Writes the rows of some devices, all of them over the same hours; how many there are.
fn write(path: &Path, random: &mut impl rand::Rng, start: i64, profiles: bool) -> usize {
    let mut text = String::from("device,time,temperature,vibration,pressure,current\n");
    for (device, correlation, _) in DEVICES.iter().filter(|it| it.2 == profiles) {
        let all = rows(random, ROWS * HOURS, *correlation);
        for (at, row) in all.iter().enumerate() {
            let time = start + (at * 3_600 / ROWS) as i64;
            text.push_str(&format!("{device},{time},{row}\n"));
        }
    }
    std::fs::write(path, &text).unwrap();
    text.lines().count() - 1
}

/// Scenario: a model whose bundle looks at its features together, four devices at sites of their own, two of
/// which send profiles in place of rows; at one of either kind the correlation of two features has turned
/// round, while each feature stays as it was.
/// Guarantee: those two sites are found, by that signal alone, and the others are not; the findings' SQL gives
/// the measure to the bit, and the correlation of the rows; and SQL over raw rows, the profile stage, devices and references from the lake
/// count the signal alike.
#[test]
fn a_correlation_that_turns_round_is_found() {
    println!("seed {SEED}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(SEED);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut text = String::from("temperature,vibration,pressure,current\n");
    text.push_str(&rows(&mut random, 5_000, 0.8).join("\n"));
    std::fs::write(path("training.csv"), text).unwrap();
    let dir = path("data");
    let more = ["--classes", "ok,fail", "--joint"];
    let bundle = harness::pack(
        &dir,
        "boiler",
        &path("training.csv"),
        &path("bundle"),
        &more,
    );

    let pipeline = Pipeline::start(&dir, "", &[]);
    harness::told(&dir, &["model", "register", &bundle]);
    let tokens = path("tokens").display().to_string();
    let added = DEVICES.map(|(name, ..)| {
        let more = ["--model", "boiler", "--version", "1.0.0", "--site", name];
        pipeline.add_device(name, &more).to_string()
    });
    std::fs::write(&tokens, added.join("\n")).unwrap();
    // In the past, so that all windows are over.
    let start = (jiff::Timestamp::now().as_second() / 3_600 - 24) * 3_600;
    for (name, profiles) in [("rows.csv", false), ("profiles.csv", true)] {
        let sent = write(&path(name), &mut random, start, profiles);
        let input = path(name).display().to_string();
        let mut arguments = vec!["replay", "--bundle", &bundle, "--input", &input];
        arguments.extend(["--device", "device", "--time", "time"]);
        arguments.extend(["--tokens-file", &tokens, "--to", &pipeline.url]);
        arguments.extend(profiles.then_some("--profiles"));
        let replayed = harness::told(&dir, &arguments);
        assert_eq!(replayed["acknowledged"], sent, "{replayed}");
    }
    let all = ROWS * HOURS * DEVICES.len();
    harness::until("measures of all rows", || {
        let judged = harness::number(
            &dir,
            "SELECT coalesce(sum(rows), 0) FROM final_measures
             WHERE signal = 'joint' AND method = 'shift' AND cohort LIKE 'site=%'",
        ) as usize;
        (judged == all)
            .then_some(())
            .ok_or(format!("{judged} of {all}"))
    });

    // Devices send one after the other, so what the first of them looked like may have been refuted since.
    let findings = harness::sql(
        &dir,
        "SELECT scope, signals[1] AS signal, cardinality(signals) AS signals, explanation, sql
         FROM findings WHERE kind = 'input_drift' AND finding_state = 'drifted'
         AND finding_key NOT IN (SELECT finding_key FROM findings WHERE finding_state = 'refuted') ORDER BY scope, window_start",
    );
    let mut scopes: Vec<&str> = findings
        .iter()
        .map(|it| it["scope"].as_str().unwrap())
        .collect();
    scopes.dedup();
    assert_eq!(scopes, ["site=south", "site=west"], "{findings:#?}");
    assert!(
        findings
            .iter()
            .all(|it| it["signal"] == "joint" && it["signals"] == 1),
        "{findings:#?}"
    );
    // Of the rows' site; the other sent none, so there is nothing to correlate.
    let told = harness::sql(&dir, findings[0]["sql"].as_str().unwrap());
    let number = |name: &str| told[0][name].as_f64().unwrap();
    let measured = harness::number(
        &dir,
        "SELECT m.value FROM findings f JOIN final_measures m ON m.method = 'psi' AND m.signal = 'joint'
             AND m.cohort = f.scope AND m.window_start = f.window_start
         WHERE f.scope = 'site=south' AND f.finding_state = 'drifted' ORDER BY f.window_start LIMIT 1",
    );
    assert_eq!(number("psi").to_bits(), measured.to_bits(), "{told:#?}");
    assert!(measured > 0.2);
    assert!(number("pressure with current") < -0.7, "{told:#?}");
    assert!(
        number("pressure with current in training") > 0.7,
        "{told:#?}"
    );
    assert_counted_alike(&dir, &bundle, start);
    let (status, _) = pipeline.terminate();
    assert!(status.success());
}

/// Raw rows in SQL give the bins of the profiles, and so does a reference that is built from the lake.
fn assert_counted_alike(dir: &Path, bundle: &str, start: i64) {
    let shown = harness::told(dir, &["model", "show", bundle]);
    let layout = harness::sql(
        dir,
        "SELECT edges, resolution FROM profiles WHERE signal = 'joint' LIMIT 1",
    );
    let expression = shown["joint"]["sql"].as_str().unwrap();
    let raw = harness::sql(
        dir,
        &format!(
            "SELECT profile({expression}, {}, {}) AS bins FROM inferences",
            layout[0]["edges"], layout[0]["resolution"]
        ),
    );
    let counted = |sites: &str| {
        let statement = format!(
            "SELECT merge_bins(bins) AS bins FROM profiles WHERE signal = 'joint' AND site IN ({sites})"
        );
        harness::sql(dir, &statement)[0]["bins"].clone()
    };
    let bins = counted("'north', 'south'");
    assert_eq!(raw[0]["bins"], bins);
    let rows: u64 = bins
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|it| it.as_u64())
        .sum();
    assert_eq!(rows as usize, 2 * ROWS * HOURS);

    let time = |hours: i64| {
        let at = jiff::Timestamp::from_second(start + hours * 3_600);
        at.unwrap().to_string()
    };
    let (from, to) = (time(0), time(HOURS as i64));
    let build = ["reference", "build", "--from", &from, "--to", &to];
    let cohort = ["--cohort", "site=north", "--season", "none"];
    let built = harness::told(dir, &[&build[..], &cohort, &MODEL].concat());
    let id = built["reference"].as_str().unwrap();
    let diff = harness::told(
        dir,
        &[&["reference", "diff", "training", id][..], &MODEL].concat(),
    );
    let signals = diff.as_array().or(diff["signals"].as_array()).unwrap();
    let joint = signals.iter().find(|it| it["signal"] == "joint").unwrap();
    assert_eq!(joint["right_rows"], (ROWS * HOURS) as u64, "{joint}");
    assert!(joint["psi"].as_f64().unwrap() < 0.2, "{joint}");
}
