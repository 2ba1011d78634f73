//! The numbers of one stream in one window.

use std::sync::Arc;

use driftline_drift::calibrate::{Point, ScoreKind, SignalCalibration, StreamVerdict, Worth};
use driftline_drift::distance::{Floor, Pair};
use driftline_drift::special::{chi_square_sf, kolmogorov_sf};
use driftline_schemas::measure::{MethodMeasure, SignalMeasures};
use driftline_schemas::profile::{Profile, SignalProfile};

use super::rollup::RollUp;
use super::window::Context;

/// Name of the number that is told of a confidence: how often the model is wrong, as it foresees itself.
pub(super) const FORESEEN: &str = "foreseen_error";
/// Name of the test that decides: the calibrated shift of a stream's scores.
pub(super) const SHIFT: &str = "shift";
/// Version of the methods' definitions.
const METHOD_VERSION: u32 = 1;

/// A stream as it was judged.
pub(super) struct Judgement<'a> {
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
    judged: &Judgement<'_>,
) -> SignalMeasures {
    let learned = &context.subject.calibration.signals[judged.signal];
    let expected = &rollup.expected.profile.signals[judged.signal];
    let found = &judged.profile.signals[judged.signal];
    let method =
        |name: &'static str, value: f64, p_value: Option<f64>, crossed: bool| MethodMeasure {
            method: name.into(),
            version: METHOD_VERSION,
            value: Some(value),
            p_value,
            crossed,
        };
    let verdict = &judged.verdict;
    let mut methods = Vec::with_capacity(4);
    methods.push(method(
        SHIFT,
        verdict.effect.value,
        Some(verdict.decides_p),
        verdict.crossed,
    ));
    methods
        .extend(foreseen(learned, judged.point).map(|value| method(FORESEEN, value, None, false)));
    let rows = rows_effective(context, rollup, judged, learned);
    distances(
        learned.numeric,
        expected,
        found,
        rows,
        |name, value, p_value| {
            let crossed = p_value <= judged.threshold;
            methods.push(method(name, value, Some(p_value), crossed));
        },
    );
    SignalMeasures {
        signal: Arc::clone(&context.subject.names[judged.signal]),
        rows: found.rows(),
        devices: 1.0 / judged.point.devices.concentration(),
        reference_rows: expected.rows(),
        threshold: judged.threshold,
        methods,
    }
}

/// The share of wrong answers that a confidence foresees, where the reference's rows had a truth.
fn foreseen(learned: &SignalCalibration, point: &Point) -> Option<f64> {
    let mut scores = learned.scores.iter();
    let at = scores.position(|score| score.kind == ScoreKind::Foreseen)?;
    let found = point.deviations.get(at).filter(|found| found.rows > 0.0)?;
    Some(found.reference + found.deviation)
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

/// PSI, and for numbers Kolmogorov-Smirnov, for categories chi-square, each with its name, value and p-value for so
/// many independent rows.
fn distances(
    numeric: bool,
    expected: &SignalProfile,
    found: &SignalProfile,
    rows: f64,
    mut each: impl FnMut(&'static str, f64, f64),
) {
    let Ok(pair) = Pair::new(&expected.bins, &found.bins) else {
        return;
    };
    let used = expected.bins.iter().filter(|&&count| count > 0).count();
    let degrees = used.saturating_sub(1).max(1) as f64;
    if let Ok(psi) = pair.psi(Floor::NATIVE) {
        let statistic = pair.psi_smoothed() * rows;
        each("psi", psi, chi_square_sf(statistic, degrees));
    }
    if numeric {
        let d = pair.kolmogorov_smirnov().d;
        each("ks", d, kolmogorov_sf(d * rows.sqrt()));
    } else {
        let statistic = rows * pearson(expected, found);
        each("chi2", statistic, chi_square_sf(statistic, degrees));
    }
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
