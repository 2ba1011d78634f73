//! References that are promoted while windows are judged.

use std::sync::{Arc, Mutex};

use driftline_log::registry::references::Built;
use driftline_log::runner::StageError;
use driftline_schemas::bundle::{Bundle, CALIBRATION_FILE};
use driftline_schemas::clock::{HOUR_US, MINUTE_US};
use driftline_schemas::measure::FindingState;
use driftline_schemas::registry::{REGISTRY_FORMAT, ReferenceRecord};

use super::super::{DetectConfig, DetectStage, DetectStats};
use super::estate::{MODEL, T0_US, TENANT, VERSION};
use super::{final_measures, findings, in_order, log, run_at, story};
use crate::bundles::Bundles;

/// One bundle, and a reference that may be promoted.
struct Shelf {
    bundle: Arc<Bundle>,
    built: Built,
    from_us: Mutex<Option<i64>>,
}

impl Shelf {
    /// The other reference has the rows of the bundle's, so that nothing but its name differs.
    fn new(from_us: Option<i64>) -> Self {
        let bundle = Arc::clone(&story().0);
        let mut reference = bundle.reference.clone();
        reference.made_from = "the field".into();
        let calibration = bundle.file(CALIBRATION_FILE).unwrap().to_vec();
        Self {
            bundle,
            built: Built {
                reference,
                calibration,
            },
            from_us: Mutex::new(from_us),
        }
    }
}

impl Bundles for Shelf {
    fn bundle(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &str,
    ) -> Result<Option<Arc<Bundle>>, StageError> {
        Ok(Some(Arc::clone(&self.bundle)))
    }

    fn promotions(&self, _: &str, _: &str, _: &str) -> Vec<ReferenceRecord> {
        let record = |from_us: i64| ReferenceRecord {
            format: REGISTRY_FORMAT,
            tenant: TENANT.into(),
            model: MODEL.into(),
            version: VERSION.into(),
            from_us,
            id: Some(self.built.reference.id()),
            promoted_at_us: 0,
        };
        self.from_us
            .lock()
            .unwrap()
            .map(record)
            .into_iter()
            .collect()
    }

    fn reference(&self, _: &ReferenceRecord, _: &str) -> Result<Built, StageError> {
        Ok(self.built.clone())
    }

    fn revision(&self) -> u64 {
        u64::from(self.from_us.lock().unwrap().is_some())
    }
}

/// Scenario: a reference is promoted from a window on that lies in an open story; once it is known from
/// the start, once it becomes known when all windows have been judged, once after a restart on top.
/// Guarantee: the final measures are the same bit for bit; windows before name the bundle's reference,
/// those from then on the other one; and the story that was found against the first ends there.
#[test]
fn a_promotion_holds_from_its_window_on_whenever_it_is_heard_of() {
    let (bundle, hours) = story();
    let from_us = T0_US + 52 * HOUR_US;
    let config = DetectConfig::default();
    let stage = |log: &_, shelf: &Arc<Shelf>| {
        let shelf = Arc::clone(shelf) as Arc<dyn Bundles>;
        DetectStage::new(config.clone(), log, shelf, DetectStats::default()).unwrap()
    };
    let known = log(1);
    in_order(&known, hours, 1);
    let shelf = Arc::new(Shelf::new(Some(from_us)));
    run_at(&known, &mut stage(&known, &shelf), 16, T0_US);

    let (own, other) = (bundle.reference.id(), shelf.built.reference.id());
    let measures = final_measures(&known);
    assert_eq!(measures.len(), hours.len());
    for (window, measures) in &measures {
        let expected = if *window < from_us { &own } else { &other };
        assert!(measures.iter().all(|m| m.reference == *expected));
    }
    let found = findings(&known);
    let ended = found.iter().find(|f| f.state == FindingState::Recovered);
    let ended = ended.unwrap();
    assert_eq!(ended.window_start_us, from_us, "{ended:#?}");
    assert!(ended.explanation.contains("gave way"), "{ended:#?}");

    for restarts in [false, true] {
        let late = log(1);
        in_order(&late, hours, 1);
        let shelf = Arc::new(Shelf::new(None));
        let mut judging = stage(&late, &shelf);
        run_at(&late, &mut judging, 16, T0_US);
        let before = final_measures(&late);
        assert!(before.values().flatten().all(|m| m.reference == own));
        *shelf.from_us.lock().unwrap() = Some(from_us);
        if restarts {
            judging = stage(&late, &shelf);
            // A window more is what it hears first.
            super::finish(&late, hours.len() as i64 + 1, 1);
            super::append(&late, &one_more(hours));
        }
        run_at(&late, &mut judging, 16, T0_US + MINUTE_US);
        let mut after = final_measures(&late);
        after.retain(|window, _| measures.contains_key(window));
        assert_eq!(after, measures, "restarts: {restarts}");
    }
}

/// The last hour again, one hour later.
fn one_more(
    hours: &[Vec<driftline_schemas::profile::CellProfile>],
) -> driftline_schemas::profile::batch::ProfileBatch {
    let mut cells = hours[hours.len() - 1].clone();
    for cell in &mut cells {
        cell.key.pane_start_us += HOUR_US;
    }
    driftline_schemas::profile::batch::ProfileBatch {
        input_partition: 0,
        watermark_us: i64::MIN,
        cells,
    }
}
