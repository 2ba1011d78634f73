//! A small bundle for tests: two features, two classes.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_schemas::bundle::{Bundle, Task};
use driftline_schemas::rows::Values;
use driftline_schemas::source::Origin;

use crate::device::{DeviceConfig, Latency, Runtime};
use crate::pack::{BINS_DEFAULT, Data, Draft, PackInput, TENANT_DEFAULT, Table, Unlearned, pack};

/// Logistic regression over two numbers, as scikit-learn exports it.
pub(crate) const THRESHOLD: &[u8] = include_bytes!("../fixtures/threshold.onnx");
/// Any moment of the year 2023.
pub(crate) const NOW_US: i64 = 1_700_000_000_000_000;

/// Rows of two features that are spread over what the model was trained on.
pub(crate) fn rows(count: usize) -> Table {
    let column = |scale: f64, offset: f64| -> Values<f64> {
        (0..count)
            .map(|row| Some(((row * 37 % 101) as f64 / 101.0 * scale + offset).round_to(100.0)))
            .collect()
    };
    let mut table = Table::new(count);
    table
        .add("temperature", Data::Numbers(column(20.0, 10.0)))
        .unwrap();
    table
        .add("pressure", Data::Numbers(column(-4.0, 2.0)))
        .unwrap();
    table
}

trait RoundTo {
    fn round_to(self, scale: f64) -> f64;
}

impl RoundTo for f64 {
    fn round_to(self, scale: f64) -> f64 {
        (self * scale).round() / scale
    }
}

/// Files of a bundle of that model.
pub(crate) fn files() -> BTreeMap<String, Vec<u8>> {
    files_with(None)
}

/// The same, with the signal that looks at features together where it is asked for.
pub(crate) fn files_with(joint: Option<Vec<String>>) -> BTreeMap<String, Vec<u8>> {
    let rows = rows(500);
    let mut draft = Draft::new("boiler", "1.0.0", Task::Classification);
    draft.classes = vec!["ok".into(), "hot".into()];
    draft.joint = joint;
    pack(&PackInput {
        draft,
        onnx: THRESHOLD,
        rows: &rows,
        made_from: "test".into(),
        tenant: TENANT_DEFAULT.into(),
        bins: BINS_DEFAULT,
        unlearned: Unlearned::default(),
        edges_from: None,
        now_us: NOW_US,
    })
    .unwrap()
    .files
}

/// The bundle's runtime.
pub(crate) fn runtime() -> Arc<Runtime> {
    runtime_of(files())
}

/// The runtime of a bundle.
pub(crate) fn runtime_of(files: BTreeMap<String, Vec<u8>>) -> Arc<Runtime> {
    let bundle = Bundle::from_files(files).unwrap();
    Runtime::load(Arc::new(bundle)).unwrap()
}

/// A device of site `north` with a latency that repeats.
pub(crate) fn config(boot: u64) -> DeviceConfig {
    let origin = Origin {
        site: "north".into(),
        ..Origin::new("t", "d1")
    };
    DeviceConfig {
        latency: Latency::Fixed(120),
        ..DeviceConfig::new(origin, boot)
    }
}
