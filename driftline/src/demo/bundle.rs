//! The model of the simulated boilers, packed from a simulated past.

use std::path::Path;

use anyhow::Context as _;
use driftline_emitter::pack::{BINS_DEFAULT, Draft, FeatureOverride, PackInput, Unlearned, pack};
use driftline_emitter::store;
use driftline_schemas::bundle::{Bundle, Task};
use driftline_simulator::world::{CLASSES, QUANTITIES};
use driftline_simulator::{Estate, reference};

/// A logistic regression on the world of the simulator; `models/boiler/README.md` says how it was
/// made.
const ONNX: &[u8] = include_bytes!("../../../models/boiler/boiler.onnx");
/// Name of the model.
pub(super) const MODEL: &str = "boiler";
/// Days of the past that the reference is made from.
const DAYS: i64 = 28;

/// Makes the bundle and writes it to a folder.
pub(crate) fn make(estate: &Estate, start_us: i64, dir: &Path) -> anyhow::Result<Bundle> {
    let rows = reference::table(estate, start_us, DAYS)?;
    let mut draft = Draft::new(MODEL, "1.0.0", Task::Classification);
    draft.classes = CLASSES.map(String::from).to_vec();
    draft.features = QUANTITIES
        .iter()
        .map(|quantity| quantity.name.to_owned())
        .collect();
    for quantity in QUANTITIES {
        let said = FeatureOverride {
            resolution: Some(quantity.resolution),
            unit: Some(quantity.unit.into()),
            ..FeatureOverride::default()
        };
        draft.overrides.insert(quantity.name.into(), said);
    }
    let packed = pack(&PackInput {
        draft,
        onnx: ONNX,
        rows: &rows,
        made_from: format!("{DAYS} simulated days"),
        tenant: estate.config.tenant.clone(),
        bins: BINS_DEFAULT,
        unlearned: Unlearned::default(),
        edges_from: None,
        now_us: start_us,
    })
    .context("bundle of the demo")?;
    store::write_dir(dir, &packed.files)?;
    Ok(store::load(dir)?)
}
