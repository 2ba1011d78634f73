//! What the stages conclude, and what travels as JSON beside it: pinned texts.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_schemas::deadletter::DeadLetter;
use driftline_schemas::measure::{
    Alert, AlertChange, AlertState, Cohort, CohortMeasures, Contribution, ErrorRise, Finding,
    FindingKind, FindingState, Measure, MeasureBatch, MethodMeasure, SignalMeasures,
};
use driftline_schemas::registry::{BundleRecord, DeviceRecord, REGISTRY_FORMAT, RegistryRecord};
use driftline_schemas::rows::Kind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::golden::{self, golden};

pub(crate) fn measure() -> Measure {
    Measure {
        format: 1,
        tenant: "acme".into(),
        model: "boiler".into(),
        version: "1.4.0".into(),
        cohort: Cohort(BTreeMap::from([
            ("firmware".into(), "2.1".into()),
            ("region".into(), "eu".into()),
        ])),
        signal: "temperature".into(),
        window_start_us: golden::START_US,
        window_end_us: golden::START_US + 900_000_000,
        revision: 1,
        method: "psi".into(),
        method_version: 1,
        value: Some(0.3),
        p_value: None,
        threshold: Some(0.2),
        crossed: true,
        rows: 900,
        devices: 12.0,
        reference_rows: 10_000,
        reference: "abc".into(),
        config: "def".into(),
    }
}

pub(crate) fn finding() -> Finding {
    let share = |name: &str, share| Contribution {
        name: name.into(),
        share,
    };
    Finding {
        format: 1,
        key: "k".into(),
        tenant: "acme".into(),
        model: "boiler".into(),
        version: "1.4.0".into(),
        kind: FindingKind::InputDrift,
        scope: "estate".into(),
        state: FindingState::Drifted,
        revision: 0,
        window_start_us: golden::START_US,
        window_end_us: golden::START_US + 1,
        signals: vec![share("temperature", 0.8), share("pressure", 0.2)],
        attributes: vec![],
        changes: vec![],
        error_rise: None,
        evidence: "psi 0.3".into(),
        explanation: "temperature moved".into(),
        sql: "select 1".into(),
        reference: "abc".into(),
        config: "def".into(),
    }
}

pub(crate) fn alert() -> Alert {
    Alert {
        format: 1,
        id: "a1".into(),
        key: "k".into(),
        state: AlertState::Open,
        change: AlertChange::Updated,
        sequence: 2,
        at_us: golden::START_US,
        opened_window_us: golden::START_US,
        about_the_past: false,
        finding: finding(),
    }
}

/// A record is read from its pinned text, and written again with the same text.
fn pinned<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, record: &T) {
    let text = golden(name, || serde_json::to_vec(record).unwrap());
    assert_eq!(
        &serde_json::from_slice::<T>(&text).unwrap(),
        record,
        "{name}"
    );
    assert_eq!(serde_json::to_vec(record).unwrap(), text, "{name}");
}

fn measures() -> MeasureBatch {
    let of = measure();
    MeasureBatch {
        format: 2,
        tenant: of.tenant.as_str().into(),
        model: of.model.as_str().into(),
        version: of.version.as_str().into(),
        window_start_us: of.window_start_us,
        window_end_us: of.window_end_us,
        revision: of.revision,
        reference: of.reference.as_str().into(),
        config: of.config.as_str().into(),
        cohorts: vec![CohortMeasures {
            cohort: of.cohort.clone(),
            signals: vec![SignalMeasures {
                signal: of.signal.as_str().into(),
                rows: of.rows,
                devices: of.devices,
                reference_rows: of.reference_rows,
                threshold: 1e-5,
                methods: vec![
                    MethodMeasure {
                        method: "psi".into(),
                        version: 1,
                        value: Some(0.3),
                        p_value: Some(1e-6),
                        crossed: true,
                    },
                    MethodMeasure {
                        method: "foreseen_error".into(),
                        version: 1,
                        value: Some(0.125),
                        p_value: None,
                        crossed: false,
                    },
                ],
            }],
        }],
    }
}

/// The measures of a window, as format 2 wrote them.
#[test]
fn measures_of_format_2_are_read_and_written() {
    pinned("measures-v2.json", &measures());
    let bytes = golden::golden("measures-v2.json", Vec::new);
    assert_eq!(MeasureBatch::decode(&bytes).unwrap(), measures().measures());
}

/// Of a clear rise shares are given, never below 0 or above 1.
#[test]
fn a_clear_rise_of_errors_is_shared_out() {
    let share = |rise, foreseen| {
        let rise = ErrorRise {
            rise,
            rise_error: 0.01,
            foreseen,
            foreseen_error: 0.01,
        };
        rise.foreseen_share()
    };
    assert_eq!(share(0.1, 0.025), Some(0.25));
    assert_eq!(share(0.1, 0.2), Some(1.0));
    assert_eq!(share(0.1, -0.02), Some(0.0));
    assert_eq!(share(0.019, 0.01), None);
    assert_eq!(share(-0.1, -0.1), None);
}

/// Everything that travels as JSON, as format 1 wrote it.
#[test]
fn records_in_json_of_format_1_are_read_and_written() {
    pinned("measure-v1.json", &measure());
    pinned("finding-v1.json", &finding());
    pinned("alert-v1.json", &alert());
    let letter = DeadLetter::new("acme", "d17", "unknown_schema", "no bundle", b"DL\x01", 5);
    pinned("deadletter-v1.json", &letter.of_kind(Kind::Inferences));
    let device = DeviceRecord {
        format: REGISTRY_FORMAT,
        origin: golden::origin("d17"),
        token_sha256: "00ff".repeat(16),
        added_at_us: golden::START_US,
        revoked_at_us: Some(golden::START_US + 1),
    };
    pinned("registry-device-v1.json", &RegistryRecord::Device(device));
    let bundle = BundleRecord {
        format: REGISTRY_FORMAT,
        tenant: Arc::from("acme"),
        model: Arc::from("boiler"),
        version: Arc::from("1.4.0"),
        variant: Arc::from("int8"),
        digest: "sha256:00ff".into(),
        path: "acme/boiler/1.4.0".into(),
        registered_at_us: golden::START_US,
    };
    pinned("registry-bundle-v1.json", &RegistryRecord::Bundle(bundle));
}
