//! The numbers of one stream in one window.

use driftline_drift::calibrate::{Point, SignalCalibration, StreamVerdict, Worth};
use driftline_drift::distance::{Floor, Pair};
use driftline_drift::special::{chi_square_sf, kolmogorov_sf};
use driftline_schemas::measure::{Cohort, MEASURE_FORMAT, Measure};
use driftline_schemas::profile::{Profile, SignalProfile};

use super::rollup::RollUp;
use super::window::Context;

/// Name of the test that decides: the calibrated shift of a stream's scores.
pub(super) const SHIFT: &str = "shift";
/// Version of the methods' definitions.
const METHOD_VERSION: u32 = 1;

/// A stream as it was judged.
pub(super) struct Judgement<'a> {
    pub(super) cohort: &'a Cohort,
    pub(super) signal: usize,
    pub(super) profile: &'a Profile,
    pub(super) point: &'a Point,
    pub(super) verdict: StreamVerdict,
    pub(super) threshold: f64,
}

/// The deciding test, and for comparison the usual distances, with the p-values that the
/// calibration gives them: a distance of histograms is held against what rows of that worth show
/// by chance, never against a fixed number.
pub(super) fn measures(
    context: &Context<'_>,
    rollup: &RollUp,
    start_us: i64,
    judged: &Judgement<'_>,
) -> Vec<Measure> {
    let learned = &context.subject.calibration.signals[judged.signal];
    let expected = &rollup.expected.profile.signals[judged.signal];
    let found = &judged.profile.signals[judged.signal];
    let blank = Measure {
        format: MEASURE_FORMAT,
        tenant: context.id.tenant.to_string(),
        model: context.id.model.to_string(),
        version: context.id.version.to_string(),
        cohort: judged.cohort.clone(),
        signal: learned.signal.clone(),
        window_start_us: start_us,
        window_end_us: start_us + context.config.window.us(),
        revision: 0,
        method: String::new(),
        method_version: METHOD_VERSION,
        value: None,
        p_value: None,
        threshold: Some(judged.threshold),
        crossed: false,
        rows: found.rows(),
        devices: 1.0 / judged.point.devices.concentration(),
        reference_rows: expected.rows(),
        reference: context.subject.reference_id.clone(),
        config: context.digest.to_owned(),
    };
    let mut all = vec![Measure {
        method: SHIFT.into(),
        value: Some(judged.verdict.effect.value),
        p_value: Some(judged.verdict.decides_p),
        crossed: judged.verdict.crossed,
        ..blank.clone()
    }];
    let rows = rows_effective(context, rollup, judged, learned);
    for (method, value, p_value) in distances(learned.numeric, expected, found, rows) {
        all.push(Measure {
            method: method.into(),
            value: Some(value),
            p_value: Some(p_value),
            crossed: p_value <= judged.threshold,
            ..blank.clone()
        });
    }
    all
}

fn rows_effective(
    context: &Context<'_>,
    rollup: &RollUp,
    judged: &Judgement<'_>,
    learned: &SignalCalibration,
) -> f64 {
    let devices = &judged.point.devices;
    let worth = Worth {
        devices: devices.distance(&rollup.expected.devices),
        own: devices.concentration(),
        rows: 0.0,
        windows: context.windows_per_step(),
        spread: 1.0,
    };
    worth.rows_effective(learned, &judged.point.deviations)
}

/// PSI, and for numbers Kolmogorov-Smirnov, for categories chi-square, each with its p-value for so
/// many independent rows.
fn distances(
    numeric: bool,
    expected: &SignalProfile,
    found: &SignalProfile,
    rows: f64,
) -> Vec<(&'static str, f64, f64)> {
    let mut all = Vec::new();
    let Ok(pair) = Pair::new(&expected.bins, &found.bins) else {
        return all;
    };
    let used = expected.bins.iter().filter(|&&count| count > 0).count();
    let degrees = used.saturating_sub(1).max(1) as f64;
    if let Ok(psi) = pair.psi(Floor::NATIVE) {
        let statistic = pair.psi_smoothed() * rows;
        all.push(("psi", psi, chi_square_sf(statistic, degrees)));
    }
    if numeric {
        let d = pair.kolmogorov_smirnov().d;
        all.push(("ks", d, kolmogorov_sf(d * rows.sqrt())));
    } else {
        let statistic = rows * pearson(expected, found);
        all.push(("chi2", statistic, chi_square_sf(statistic, degrees)));
    }
    all
}

/// Pearson's Σ (q − p)² / p over the bins that the reference uses.
fn pearson(expected: &SignalProfile, found: &SignalProfile) -> f64 {
    let (all, now) = (expected.binned() as f64, found.binned() as f64);
    expected
        .bins
        .iter()
        .zip(&found.bins)
        .filter(|(reference, _)| **reference > 0)
        .map(|(&reference, &current)| {
            let p = reference as f64 / all;
            let q = current as f64 / now;
            (q - p) * (q - p) / p
        })
        .sum()
}
