//! `driftline compare` on files, as a data scientist runs it.

mod fates;
mod peers;
mod sizes;

use std::path::{Path, PathBuf};

use driftline_drift::random::Random;
use serde_json::Value;

use crate::harness::{answer, driftline, stderr};

/// Files of one test.
pub(super) struct Files(tempfile::TempDir);

impl Files {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// Writes both texts and compares them.
    pub(super) fn compare(&self, reference: &str, current: &str, options: &[&str]) -> Value {
        let (reference, current) = (self.write("r.csv", reference), self.write("c.csv", current));
        compare(&reference, &current, options)
    }

    /// What is said when they cannot be compared, and the exit code.
    pub(super) fn refused(
        &self,
        reference: &str,
        current: &str,
        options: &[&str],
    ) -> (i32, String) {
        let (reference, current) = (self.write("r.csv", reference), self.write("c.csv", current));
        let output = driftline(&[&["compare", &reference, &current][..], options].concat());
        assert!(!output.status.success(), "{output:?}");
        assert!(output.stdout.is_empty());
        (output.status.code().unwrap(), stderr(&output))
    }
}

pub(super) fn compare(reference: &str, current: &str, options: &[&str]) -> Value {
    let arguments = [
        &["compare", "--format", "json", reference, current][..],
        options,
    ]
    .concat();
    answer(&driftline(&arguments))
}

pub(super) fn column<'a>(document: &'a Value, name: &str) -> &'a Value {
    let columns = document["columns"].as_array().unwrap();
    columns
        .iter()
        .find(|it| it["column"] == name)
        .unwrap_or_else(|| panic!("{name}: {document}"))
}

pub(super) fn measure<'a>(column: &'a Value, method: &str) -> &'a Value {
    let measures = column["measures"].as_array().unwrap();
    measures
        .iter()
        .find(|it| it["method"] == method)
        .unwrap_or_else(|| panic!("{method}: {column}"))
}

/// A table of a number, a column whose numbers have a spread, a category, and gaps.
fn table(rows: usize, seed: u64, shift: f64, scale: f64, sites: &str, gaps: f64) -> String {
    let mut random = Random::new(seed);
    let mut text = "load,noise,site,humidity\n".to_owned();
    for _ in 0..rows {
        let (load, noise) = (random.normal() + shift, random.normal() * scale);
        let site = &sites[(random.uniform() * sites.len() as f64) as usize..][..1];
        let humidity = match random.uniform() < gaps {
            true => String::new(),
            false => format!("{:.3}", random.uniform()),
        };
        text.push_str(&format!("{load:.4},{noise:.4},{site},{humidity}\n"));
    }
    text
}

/// Scenario: two files from one law, and one in which the level, the spread, a category's share and the
/// gaps have changed; no option but the files.
/// Guarantee: nothing is called drifted in the first; each change is found by the test that looks for it
/// in the second; the exit code is 3 only where it was asked for.
#[test]
fn two_files_and_no_configuration() {
    let files = Files::new();
    let reference = table(400, 1, 0.0, 1.0, "abc", 0.0);
    let same = files.compare(&reference, &table(300, 2, 0.0, 1.0, "abc", 0.0), &[]);
    assert_eq!(same["drifted"], false, "{same:#}");
    assert_eq!(same["rows"]["reference"], 400);
    assert_eq!(same["rows"]["current"], 300);
    assert_eq!(same["by"], serde_json::json!([]));

    let moved = table(300, 3, 0.6, 1.7, "abccc", 0.1);
    let found = files.compare(&reference, &moved, &[]);
    assert_eq!(found["drifted"], true);
    for (name, kind, method) in [
        ("load", "numeric", "location"),
        ("noise", "numeric", "spread"),
        ("site", "categorical", "shares"),
        ("humidity", "numeric", "missing"),
    ] {
        let column = column(&found, name);
        assert_eq!(
            (&column["kind"], &column["drifted"]),
            (&kind.into(), &true.into()),
            "{column}"
        );
        assert_eq!(measure(column, method)["drifted"], true, "{column:#}");
    }
    assert_eq!(measure(column(&found, "site"), "shares")["at"], "c");

    let arguments = |current: &str| {
        let (r, c) = (
            files.write("r.csv", &reference),
            files.write("c.csv", current),
        );
        ["compare".to_owned(), r, c, "--fail-on-drift".to_owned()]
    };
    let code = |arguments: [String; 4]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        driftline(&arguments).status.code()
    };
    assert_eq!(code(arguments(&moved)), Some(3));
    assert_eq!(code(arguments(&reference)), Some(0));
}

/// Scenario: one of three sites moves, `--by site`, and weights that undo a sample taken unevenly.
/// Guarantee: the group that moved is named and the others are not; equal weights change no count, and the
/// weights that put a stratum right take its drift away.
#[test]
fn groups_and_weights() {
    let files = Files::new();
    let mut random = Random::new(5);
    let mut rows = |moved: bool| {
        let mut text = "x,site,one\n".to_owned();
        for i in 0..900 {
            let site = ["north", "south", "west"][i % 3];
            let up = if moved && site == "west" { 1.5 } else { 0.0 };
            text.push_str(&format!("{:.4},{site},1\n", random.normal() + up));
        }
        text
    };
    let (reference, current) = (rows(false), rows(true));
    let found = files.compare(&reference, &current, &["--by", "site", "--columns", "x"]);
    let by = found["by"].as_array().unwrap();
    let drifted: Vec<_> = by.iter().map(|it| (&it["value"], &it["drifted"])).collect();
    assert_eq!(drifted.len(), 3);
    for (name, verdict) in drifted {
        assert_eq!(*verdict, Value::Bool(name == "west"), "{found:#}");
    }
    assert_eq!(by[0]["rows"]["reference"], 300);

    let weighed = files.compare(
        &reference,
        &current,
        &["--weights", "one", "--columns", "x"],
    );
    assert_eq!(weighed["drifted"], true);

    // The present has twice the share of the upper half that the reference has; weights put that right.
    let mut random = Random::new(9);
    let mut law = |heavy: bool| {
        let mut text = "x,w\n".to_owned();
        for _ in 0..2000 {
            let upper = random.uniform() < if heavy { 2.0 / 3.0 } else { 0.5 };
            let x = random.uniform() + if upper { 1.0 } else { 0.0 };
            let w = match (heavy, upper) {
                (true, true) => 0.75,
                (true, false) => 1.5,
                _ => 1.0,
            };
            text.push_str(&format!("{x:.5},{w}\n"));
        }
        text
    };
    let (reference, current) = (law(false), law(true));
    let plain = files.compare(&reference, &current, &["--columns", "x"]);
    assert_eq!(plain["drifted"], true);
    let weighed = files.compare(&reference, &current, &["--columns", "x", "--weights", "w"]);
    assert_eq!(weighed["drifted"], false, "{weighed:#}");
}

/// Scenario: a report of a file whose names are markup.
/// Guarantee: one page with both sides' pictures that asks for nothing outside of itself, in which names
/// stay text; tables and CSV say the same verdicts.
#[test]
fn reports_and_tables() {
    let files = Files::new();
    let markup = "<script>alert(1)</script>";
    let rows = |up: u32| {
        let lines: String = (0..200).map(|i| format!("{},a\n", i % 40 + up)).collect();
        format!("{markup},kind\n{lines}")
    };
    let (r, c) = (
        files.write("r.csv", &rows(0)),
        files.write("c.csv", &rows(20)),
    );
    let page = files.path("report.html").display().to_string();
    let output = driftline(&["compare", &r, &c, "--html", &page, "--format", "table"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("drift found"),
        "{text}"
    );
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("1 of 2 columns drifted") && html.contains("<path class=\"r\""));
    assert!(!html.contains(markup) && html.contains("&lt;script&gt;alert(1)"));
    assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("{{"));
    let output = driftline(&["compare", &r, &c, "--format", "csv"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.starts_with("column,kind,drifted,method,value,p_value,threshold,at\n"),
        "{text}"
    );
    assert!(Path::new(&page).exists());
}
