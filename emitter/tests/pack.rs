//! Bundles packed from real rows.

mod support;

use driftline_drift::calibrate::Calibration;
use driftline_emitter::pack::{BINS_DEFAULT, Data, Draft, PackInput, Table, Unlearned, pack};
use driftline_schemas::bundle::{Bundle, FeatureType, Task};
use driftline_schemas::profile::reference::Season;

const HALF_HOUR_US: i64 = 1_800_000_000;

fn elec2(rows: usize) -> Option<(Table, Vec<u8>)> {
    let path = support::data("elec2.csv.gz")?;
    let onnx = std::fs::read(support::data("models/elec2_logreg.onnx")?).unwrap();
    let (header, records) = support::csv(&path);
    let records = &records[..rows];
    let mut table = Table::new(rows);
    for name in [
        "day",
        "period",
        "nswdemand",
        "vicprice",
        "vicdemand",
        "transfer",
    ] {
        let at = header.iter().position(|it| it == name).unwrap();
        let numbers = records.iter().map(|row| row[at].parse().ok()).collect();
        table.add(name, Data::Numbers(numbers)).unwrap();
    }
    let class = header.iter().position(|it| it == "class").unwrap();
    let labels = records.iter().map(|row| Some(row[class].as_str()));
    table.label = Some(Data::texts(labels));
    // 1996-05-07 00:00 in New South Wales, half-hourly.
    let start_us = 831_391_200_000_000;
    table.times_us = Some(
        (0..rows as i64)
            .map(|row| start_us + row * HALF_HOUR_US)
            .collect(),
    );
    Some((table, onnx))
}

fn input<'a>(table: &'a Table, onnx: &'a [u8]) -> PackInput<'a> {
    let mut draft = Draft::new("elec2", "1.0.0", Task::Classification);
    draft.classes = vec!["DOWN".into(), "UP".into()];
    PackInput {
        draft,
        onnx,
        rows: table,
        made_from: "elec2.csv.gz rows 0..5000".into(),
        tenant: "default".into(),
        bins: BINS_DEFAULT,
        unlearned: Unlearned::default(),
        edges_from: None,
        now_us: 1_700_000_000_000_000,
    }
}

/// The whole way from rows to a checked bundle: what is inferred is what the data are.
#[test]
fn a_bundle_of_elec2_infers_resolution_season_and_error() {
    let Some((table, onnx)) = elec2(5_000) else {
        return;
    };
    let packed = pack(&input(&table, &onnx)).unwrap();
    let bundle = Bundle::from_files(packed.files.clone()).unwrap();
    let resolution = |at: usize| match bundle.manifest.features[at].kind {
        FeatureType::Numeric { resolution, .. } => resolution,
        FeatureType::Categorical { .. } => 0.0,
    };
    assert_eq!(resolution(0), 1.0, "days are whole");
    assert_eq!(resolution(2), 1e-6, "six digits");
    let reference = &bundle.reference;
    // 5,000 half hours are 104 days.
    assert_eq!(reference.season, Season::HourOfWeek);
    let total = reference.total().unwrap();
    assert_eq!(total.rows, 5_000);
    let (error, layout) = reference.layout.signal("error").unwrap();
    assert_eq!(layout.bins(), 2);
    let right = total.signals[error].bins[0] as f64 / 5_000.0;
    assert!(
        (right - 0.62).abs() < 1e-9,
        "models.json says accuracy 0.62: {right}"
    );
    let (demand, layout) = reference.layout.signal("nswdemand").unwrap();
    assert_eq!(layout.bins(), BINS_DEFAULT);
    let bins = &total.signals[demand].bins;
    assert!(
        bins.iter().all(|rows| (250..=400).contains(rows)),
        "sixteenths: {bins:?}"
    );
    let calibration = Calibration::from_json(bundle.file("calibration.json").unwrap()).unwrap();
    calibration.check_layout(reference.layout.digest()).unwrap();
    assert_eq!(calibration.windows, 2_500);
    let sbom: serde_json::Value =
        serde_json::from_slice(bundle.file("sbom.cdx.json").unwrap()).unwrap();
    assert_eq!(sbom["bomFormat"], "CycloneDX");
    assert_eq!(
        sbom["metadata"]["component"]["type"],
        "machine-learning-model"
    );
    assert_eq!(
        pack(&input(&table, &onnx)).unwrap().files,
        packed.files,
        "packing repeats"
    );
}

/// A new version packed from other rows keeps the edges of what has not changed, so that its
/// profiles compare with the old version's.
#[test]
fn edges_of_an_earlier_bundle_are_kept() {
    let (Some((old_rows, onnx)), Some((new_rows, _))) = (elec2(4_000), elec2(6_000)) else {
        return;
    };
    let old = Bundle::from_files(pack(&input(&old_rows, &onnx)).unwrap().files).unwrap();
    let mut again = input(&new_rows, &onnx);
    again.edges_from = Some(&old);
    let new = Bundle::from_files(pack(&again).unwrap().files).unwrap();
    assert_eq!(new.reference.layout, old.reference.layout);
    assert_ne!(new.reference.id(), old.reference.id());
    let fresh = Bundle::from_files(pack(&input(&new_rows, &onnx)).unwrap().files).unwrap();
    assert_ne!(
        fresh.reference.layout.digest(),
        old.reference.layout.digest()
    );
}
