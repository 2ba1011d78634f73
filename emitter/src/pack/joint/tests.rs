use driftline_drift::calibrate::{Calibration, ScoreKind};
use driftline_schemas::bundle::{CALIBRATION_FILE, MANIFEST_FILE, Task};
use driftline_schemas::joint::JOINT_FILE;

use super::super::{BINS_DEFAULT, Data, Draft, Table, Unlearned, pack};
use super::*;
use crate::testing::{NOW_US, THRESHOLD, files, files_with, rows};

fn input<'a>(rows: &'a Table, joint: &[&str], edges_from: Option<&'a Bundle>) -> PackInput<'a> {
    let mut draft = Draft::new("boiler", "2.0.0", Task::Classification);
    draft.classes = vec!["ok".into(), "hot".into()];
    draft.joint = Some(joint.iter().map(|name| (*name).into()).collect());
    PackInput {
        draft,
        onnx: THRESHOLD,
        rows,
        made_from: "test".into(),
        tenant: "default".into(),
        bins: BINS_DEFAULT,
        unlearned: Unlearned::default(),
        edges_from,
        now_us: NOW_US,
    }
}

/// Rows of which every fifth lacks its pressure.
fn with_gaps(count: usize) -> Table {
    let whole = rows(count);
    let mut table = Table::new(count);
    for name in ["temperature", "pressure"] {
        let Data::Numbers(values) = whole.column(name).unwrap() else {
            panic!("both are numbers");
        };
        let gap = |row: usize| name == "pressure" && row.is_multiple_of(5);
        let values = values.iter().enumerate();
        let values = values.map(|(row, value)| value.copied().filter(|_| !gap(row)));
        table.add(name, Data::Numbers(values.collect())).unwrap();
    }
    table
}

/// A bundle that is packed with the signal has it in manifest, layout, reference and calibration, and its
/// numbers under the digest; without, it is the bundle that it always was.
#[test]
fn a_bundle_has_the_signal_where_it_is_asked_for() {
    let without = files();
    assert!(!without.contains_key(JOINT_FILE));
    let manifest = String::from_utf8(without[MANIFEST_FILE].clone()).unwrap();
    assert!(!manifest.contains("joint"));

    let files = files_with(Some(Vec::new()));
    let bundle = Bundle::from_files(files.clone()).unwrap();
    let joint = bundle.joint.as_ref().unwrap();
    assert_eq!(joint.features.len(), 2);
    let (at, layout) = bundle.reference.layout.signal("joint").unwrap();
    assert_eq!(layout.bins(), BINS_DEFAULT);
    let total = bundle.reference.total().unwrap();
    assert_eq!(total.signals[at].binned(), 500);
    // One feature is the other turned round, but for rounding: one direction of two varies.
    let mean = total.signals[at].mean(layout.resolution()).unwrap();
    assert!((mean - 0.5).abs() < 0.05, "{mean}");
    let calibration = Calibration::from_json(bundle.file(CALIBRATION_FILE).unwrap()).unwrap();
    let scores = &calibration.signals[at].scores;
    let kinds: Vec<ScoreKind> = scores.iter().map(|score| score.kind).collect();
    assert_eq!(kinds, [ScoreKind::Location, ScoreKind::Scale]);

    let mut changed = files.clone();
    changed.insert(JOINT_FILE.into(), b"{}".to_vec());
    let error = Bundle::from_files(changed).unwrap_err().to_string();
    assert!(error.contains(JOINT_FILE), "{error}");
    let mut gone = files;
    gone.remove(JOINT_FILE);
    assert!(Bundle::from_files(gone).is_err());
}

/// Rows that lack a feature count as missing, are not judged for it, and are told.
#[test]
fn rows_that_lack_a_feature_have_no_value() {
    let rows = with_gaps(500);
    let packed = pack(&input(&rows, &[], None)).unwrap();
    assert!(
        packed.notes.iter().any(|note| note.contains("100 of 500")),
        "{:?}",
        packed.notes
    );
    let bundle = Bundle::from_files(packed.files).unwrap();
    let (at, _) = bundle.reference.layout.signal("joint").unwrap();
    let signal = &bundle.reference.total().unwrap().signals[at];
    assert_eq!((signal.binned(), signal.nulls), (400, 100));
}

/// What cannot be looked at together is refused with what to do.
#[test]
fn what_cannot_be_looked_at_is_refused() {
    let refused =
        |rows: &Table, names: &[&str]| pack(&input(rows, names, None)).unwrap_err().to_string();
    let all = rows(500);
    assert!(refused(&all, &["temperature", "humidity"]).contains("humidity"));
    assert!(refused(&all, &["temperature"]).contains("two numeric features"));
    assert!(refused(&rows(40), &[]).contains("it takes 50"));
}

/// A new version from other rows keeps the numbers and the edges of an earlier one while the features are the
/// same, so that their profiles compare; where they are not, it gets new ones.
#[test]
fn an_earlier_bundles_numbers_are_kept() {
    let old = Bundle::from_files(files_with(Some(Vec::new()))).unwrap();
    let other = with_gaps(800);
    let of = |input: &PackInput<'_>| Bundle::from_files(pack(input).unwrap().files).unwrap();
    let kept = of(&input(&other, &[], Some(&old)));
    assert_eq!(kept.joint, old.joint);
    assert_eq!(kept.reference.layout, old.reference.layout);
    let fresh = of(&input(&other, &[], None));
    assert_ne!(fresh.joint, old.joint);

    let mut finer = input(&other, &[], Some(&old));
    let of_pressure = finer.draft.overrides.entry("pressure".into()).or_default();
    of_pressure.resolution = Some(0.001);
    let finer = of(&finer);
    assert_ne!(finer.joint, old.joint);
    let edges = |bundle: &Bundle| {
        bundle
            .reference
            .layout
            .signal("joint")
            .unwrap()
            .1
            .edges
            .clone()
    };
    assert_ne!(edges(&finer), edges(&old));
}
