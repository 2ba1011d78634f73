//! What becomes of odd columns and files.

use super::{Files, column, measure};

/// Numbers 0 to 9, over and over, as a column called x.
fn digits(rows: usize) -> String {
    let lines: String = (0..rows).map(|i| format!("{}\n", i * 7 % 10)).collect();
    format!("x\n{lines}")
}

fn with(text: &str, more: &str, times: usize) -> String {
    format!("{text}{}", format!("{more}\n").repeat(times))
}

/// Scenario: missing values, NaN and infinity appear; a category that was never seen; a constant column.
/// Guarantee: each is found by the test that its fate names, and a constant that stays says nothing.
#[test]
fn odd_values_have_a_fate() {
    let files = Files::new();
    for (odd, at) in [
        ("NA", "missing"),
        ("null", "missing"),
        ("nan", "not finite"),
        ("-inf", "not finite"),
    ] {
        let found = files.compare(&digits(300), &with(&digits(300), odd, 30), &[]);
        let x = column(&found, "x");
        assert_eq!(x["kind"], "numeric");
        let measure = measure(x, "missing");
        assert_eq!(
            (&measure["drifted"], &measure["at"]),
            (&true.into(), &at.into()),
            "{x:#}"
        );
    }
    let known = with(&with("kind\n", "a", 150), "b", 150);
    let found = files.compare(&known, &with(&known, "never seen", 30), &[]);
    let shares = measure(column(&found, "kind"), "shares");
    assert_eq!(
        (&shares["drifted"], &shares["at"]),
        (&true.into(), &"never seen".into())
    );
    let constant = with("x,y\n", "4,a", 100);
    let found = files.compare(&constant, &constant, &[]);
    assert_eq!(found["drifted"], false);
    for name in ["x", "y"] {
        let measures = column(&found, name)["measures"].as_array().unwrap().clone();
        assert!(
            measures
                .iter()
                .all(|it| it["p_value"].is_null() && it["value"] == 0.0)
        );
    }
    let found = files.compare(&constant, &with("x,y\n", "5,a", 100), &[]);
    assert_eq!(
        column(&found, "x")["drifted"],
        true,
        "a stuck value that jumps"
    );
    let found = files.compare(&digits(100), &with("x\n", "NA", 100), &[]);
    assert_eq!(measure(column(&found, "x"), "missing")["drifted"], true);
    // One column is spelled as nothing throughout on both sides.
    let nothing = with("x,y\n", "NA,1", 60);
    assert_eq!(files.compare(&nothing, &nothing, &[])["drifted"], false);
}

/// Scenario: columns in one file only, columns under another name, codes of categories.
/// Guarantee: what is left out is said in the answer; `--map` and `--categorical` join and turn.
#[test]
fn columns_are_matched_or_named() {
    let files = Files::new();
    let (reference, current) = ("x,old,gone\n", "x,new,extra\n");
    let rows = "1,2,3\n2,3,4\n4,1,1\n".repeat(40);
    let (reference, current) = (format!("{reference}{rows}"), format!("{current}{rows}"));
    let found = files.compare(&reference, &current, &[]);
    assert_eq!(found["columns"].as_array().unwrap().len(), 1);
    let skipped: Vec<_> = found["skipped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["column"].clone())
        .collect();
    assert_eq!(skipped, ["old", "gone", "new", "extra"]);
    let found = files.compare(
        &reference,
        &current,
        &["--map", "old=new", "--categorical", "x"],
    );
    assert_eq!(column(&found, "old")["kind"], "numeric");
    assert_eq!(column(&found, "x")["kind"], "categorical");
}

/// Scenario: files and columns that cannot be compared, and options that cannot be.
/// Guarantee: the file, the column and the row are named, with what to do; 1 for data, 2 for usage.
#[test]
fn what_cannot_be_compared_is_named() {
    let files = Files::new();
    let good = digits(60);
    for (reference, current, options, code, says) in [
        ("", good.as_str(), &[][..], 1, "r.csv: the file is empty"),
        ("x\n", &good, &[], 1, "r.csv: there are no rows"),
        (&good, "x\n", &[], 1, "c.csv: there are no rows"),
        (&good, "y\n1\n", &[], 1, "no column in common"),
        ("x,x\n1,2\n", &good, &[], 1, "two columns are called \"x\""),
        ("x,y\n1,2\n3\n", &good, &[], 1, "line 3"),
        (&good, "x\n1\n2\nbroken\n", &[], 1, "row 3: \"broken\""),
        (
            &good,
            &good,
            &["--columns", "z"],
            1,
            "there is no column \"z\", there are x",
        ),
        (&good, &good, &["--by", "z"], 1, "there is no column \"z\""),
        (
            &good,
            &good,
            &["--false-alarm-rate", "1.5"],
            2,
            "between 0 and 1",
        ),
        (&good, &good, &["--method", "psy"], 2, "wasserstein"),
        (
            &good,
            &good,
            &["--compat", "pandas"],
            2,
            "scipy, evidently, nannyml",
        ),
        (
            &good,
            &good,
            &["--weights", "x", "--compat", "scipy"],
            2,
            "--compat",
        ),
        (
            "k\na\nb\n",
            "k\na\nb\n",
            &["--method", "ks"],
            2,
            "none of the methods",
        ),
        (
            "x,w\n1,1\n2,-1\n",
            "x,w\n1,1\n",
            &["--weights", "w"],
            1,
            "row 2: the weight",
        ),
    ] {
        let (found, said) = files.refused(reference, current, options);
        assert_eq!(found, code, "{options:?}: {said}");
        assert!(said.contains(says), "{options:?}: {said}");
    }
    let both = "compare it as categories with --categorical x";
    assert!(files.refused(&good, "x\nbroken\n", &[]).1.contains(both));
    let found = files.compare(&good, "x\nbroken\n1\n", &["--categorical", "x"]);
    assert_eq!(column(&found, "x")["kind"], "categorical");
}
