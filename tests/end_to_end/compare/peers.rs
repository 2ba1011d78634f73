//! Statistics from the command line equal SciPy's recorded ones.

use serde_json::Value;

use super::{Files, column, measure};
use crate::harness::{cases, close};

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// p-values of 1e-300 are held to 1e-6, all else to 1e-9.
fn assert_close(ours: &Value, theirs: &Value, what: &str) {
    let (ours, theirs) = (number(ours), number(theirs));
    let tolerance = if theirs < 1e-30 { 1e-6 } else { 1e-9 };
    assert!(close(ours, theirs, tolerance), "{what}: {ours} {theirs}");
}

/// Scenario: every recorded pair of raw samples, written to files.
/// Guarantee: SciPy 1.17's statistics and p-values within 1e-9 with `--compat scipy`, and the same of
/// Kolmogorov-Smirnov, Wasserstein, energy, Mann-Whitney and Welch without it.
#[test]
fn raw_samples_equal_scipy() {
    let Some(file) = cases("statistics.json") else {
        return;
    };
    let files = Files::new();
    for case in file["two_samples"].as_array().unwrap() {
        let text = |side: &Value| {
            let values = side.as_array().unwrap().iter();
            let lines: String = values.map(|value| format!("{value}\n")).collect();
            format!("x\n{lines}")
        };
        let (x, y) = (text(&case["x"]), text(&case["y"]));
        for (compat, methods) in [
            (
                &["--compat", "scipy"][..],
                "ks,wasserstein,energy,mannwhitney,t,cvm",
            ),
            (&[][..], "ks,wasserstein,energy,mannwhitney,t"),
        ] {
            // A rate that few deals of the distances settle: their p-values are not SciPy's.
            let options = [
                &["--method", methods, "--false-alarm-rate", "0.5"][..],
                compat,
            ]
            .concat();
            let found = files.compare(&x, &y, &options);
            let found = column(&found, "x");
            for (method, field, of) in [
                ("ks", "value", "ks_d"),
                ("ks", "p_value", "ks_p_auto"),
                ("wasserstein", "value", "wasserstein"),
                ("energy", "value", "energy"),
                ("mannwhitney", "value", "mann_whitney_u"),
                ("mannwhitney", "p_value", "mann_whitney_p"),
                ("t", "value", "welch_t"),
                ("t", "p_value", "welch_p"),
                ("cvm", "value", "cramer_von_mises"),
                ("cvm", "p_value", "cramer_von_mises_p"),
            ] {
                if methods.contains(method) && !case[of].is_null() {
                    let ours = &measure(found, method)[field];
                    assert_close(
                        ours,
                        &case[of],
                        &format!("{of} of {} {compat:?}", case["name"]),
                    );
                }
            }
        }
    }
}

/// Scenario: every recorded table of counts that fits a file, as categories.
/// Guarantee: PSI, Jensen-Shannon, Hellinger, total variation, L-infinity, chi-square and G within 1e-9.
#[test]
fn counts_equal_the_recorded_distances() {
    let Some(file) = cases("statistics.json") else {
        return;
    };
    let files = Files::new();
    let mut compared = 0;
    for case in file["binned"].as_array().unwrap() {
        let counts = |side: &str| {
            let counts = case[side].as_array().unwrap().iter();
            counts
                .map(|count| count.as_u64().unwrap() as usize)
                .collect::<Vec<_>>()
        };
        let (reference, current) = (counts("reference"), counts("current"));
        if reference.iter().chain(&current).sum::<usize>() > 2_000_000 {
            continue;
        }
        let text = |counts: &[usize]| {
            let rows = counts.iter().enumerate();
            let rows: String = rows
                .map(|(at, count)| format!("bin {at:03}\n").repeat(*count))
                .collect();
            format!("x\n{rows}")
        };
        let methods = "psi,js,hellinger,tv,linf,chi2,g";
        let options = ["--method", methods, "--false-alarm-rate", "0.5"];
        let found = files.compare(&text(&reference), &text(&current), &options);
        let found = column(&found, "x");
        for (method, field, of) in [
            ("psi", "value", "psi_floor_1e4"),
            ("js", "value", "js_distance_base2"),
            ("hellinger", "value", "hellinger"),
            ("tv", "value", "total_variation"),
            ("linf", "value", "l_infinity"),
            ("chi2", "value", "chi2"),
            ("chi2", "p_value", "chi2_p"),
            ("g", "value", "g_test"),
            ("g", "p_value", "g_test_p"),
        ] {
            let ours = &measure(found, method)[field];
            assert_close(ours, &case[of], &format!("{of} of {}", case["name"]));
        }
        compared += 1;
    }
    assert!(compared > 0);
}

/// Scenario: the same two files by Evidently's and NannyML's definitions.
/// Guarantee: their default methods and thresholds: at up to 1,000 rows Evidently tests at 0.05 and takes a
/// reference share as exact; NannyML takes Jensen-Shannon against what its own chunks show.
#[test]
fn peers_choose_as_they_do() {
    let files = Files::new();
    let rows = |shift: usize| {
        let lines =
            (0..400).map(|i| format!("{}.5,{}\n", i * 37 % 100 + shift, ["a", "b", "c"][i % 3]));
        format!("x,kind\n{}", lines.collect::<String>())
    };
    let found = files.compare(&rows(0), &rows(30), &["--compat", "evidently"]);
    let x = measure(column(&found, "x"), "ks");
    assert_eq!(
        (&x["threshold"], &x["drifted"]),
        (&0.05.into(), &true.into())
    );
    assert_eq!(measure(column(&found, "kind"), "chi2")["drifted"], false);
    assert_eq!(found["drifted"], true, "half of the columns");
    let found = files.compare(&rows(0), &rows(30), &["--compat", "nannyml"]);
    let x = measure(column(&found, "x"), "js");
    assert!(x["p_value"].is_null() && x["threshold"].as_f64().unwrap() > 0.0);
    assert_eq!(x["drifted"], true, "{x}");
    assert_eq!(measure(column(&found, "kind"), "js")["drifted"], false);
}
