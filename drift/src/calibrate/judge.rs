//! One cohort's span against its reference.

use driftline_schemas::bundle::SignalRole;
use driftline_schemas::profile::Profile;
use serde::{Deserialize, Serialize};

use super::scores::{Deviation, Expectations, ScoreKind, deviations};
use super::worth::{Shares, Variance, Worth, against_reference};
use super::{Calibration, CalibrationError, ScoreCalibration, SignalCalibration, SmallestEffect};
use crate::special::student_t_two_sided;

/// Normal quantile of the one-sided bound on effects: 95 %.
const BOUND: f64 = 1.644_853_626_951_472_7;

/// Unit of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectUnit {
    /// Standard deviations of the reference.
    ReferenceSd,
    /// Share of the reference's standard deviation by which the spread changed.
    Spread,
    /// Share of rows; of a category it is a lower bound of the total variation.
    Share,
}

/// How far a score has moved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// With its sign.
    pub value: f64,
    /// Lower bound of its magnitude (one-sided 95 %), 0 where the sign is in doubt.
    pub lower: f64,
    /// Unit of both.
    pub unit: EffectUnit,
}

/// What came of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The score that decides: of those whose effect matters the one with the least p-value, else
    /// the one with the least p-value.
    pub score: ScoreKind,
    /// Its mean less its reference, over its standard error; for shares the signed root of the
    /// deviance.
    pub statistic: f64,
    /// p-value over all scores of the signal (Bonferroni).
    pub p_value: f64,
    /// How far it has moved.
    pub effect: Effect,
    /// Whether the effect's lower bound is at least the smallest that matters.
    pub matters: bool,
    /// Independent rows that would have the same variance.
    pub rows_effective: f64,
    /// Devices of equal share that would have the same variance between devices.
    pub devices_effective: f64,
    /// Degrees of freedom of the variance.
    pub degrees: f64,
}

/// One score's part of a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ScoreTest {
    pub(super) statistic: f64,
    pub(super) p_value: f64,
    pub(super) effect: Effect,
    pub(super) matters: bool,
    pub(super) rows_effective: f64,
    pub(super) degrees: f64,
}

/// Whether a score moves in the direction that its signal is judged for: errors only where they
/// get worse.
fn one_sided(signal: &SignalCalibration, kind: ScoreKind) -> bool {
    signal.role == SignalRole::Error && !kind.is_rate()
}

/// Scatter of one row of a score about its mean.
pub(super) fn row_variance(
    score: &ScoreCalibration,
    reference: f64,
    rows: u64,
    spread: f64,
) -> f64 {
    if score.kind.is_share() {
        let share = bounded_share(reference, rows);
        share * (1.0 - share)
    } else {
        score.row_variance * spread
    }
}

/// A share that was never seen, or always, has been so in finitely many rows only.
fn bounded_share(share: f64, rows: u64) -> f64 {
    let least = 0.5 / (rows as f64 + 1.0);
    share.clamp(least.min(0.5), 1.0 - least.min(0.5))
}

/// Holds a deviation against its variance. A statistic of no more than `negligible` gets the p-value 1 without
/// further ado.
pub(super) fn test(
    signal: &SignalCalibration,
    score: &ScoreCalibration,
    (deviation, reference): (f64, f64),
    (variance, negligible): (Variance, f64),
    smallest: &SmallestEffect,
) -> ScoreTest {
    let degrees = variance.degrees();
    let kind = score.kind;
    let error = signal.role == SignalRole::Error;
    let per_unit = kind.per_unit();
    let (statistic, rows_effective, spread) = if kind.is_share() {
        let expected = bounded_share(reference, signal.rows);
        let rows = expected * (1.0 - expected) / variance.total.max(f64::MIN_POSITIVE);
        // Half a row of continuity: shares of few rows move in steps.
        let moved = (deviation.abs() - 0.5 / rows).max(0.0) * deviation.signum();
        let found = (expected + moved).clamp(0.0, 1.0);
        let root = match moved == 0.0 {
            // As of most rates, most of the time; spares the logarithms.
            true => 0.0,
            false => (2.0 * rows * divergence(found, expected)).sqrt(),
        };
        // About what was found, not about the reference, since it is the effect's error.
        let about = (expected + deviation).clamp(0.0, 1.0);
        let smoothed = (about * rows + 0.5) / (rows + 1.0);
        let spread = (smoothed * (1.0 - smoothed) / rows).sqrt();
        (root.copysign(deviation), rows, spread)
    } else {
        let spread = variance.total.max(f64::MIN_POSITIVE).sqrt();
        let statistic = match kind {
            ScoreKind::Scale => magnitude_root(deviation, variance.total),
            _ => deviation / spread,
        };
        (
            statistic,
            score.row_variance / variance.total.max(f64::MIN_POSITIVE),
            spread,
        )
    };
    let two_sided = || student_t_two_sided(statistic, degrees);
    let p_value = match one_sided(signal, kind) {
        _ if statistic.abs() <= negligible => 1.0,
        false => two_sided(),
        true if statistic > 0.0 => two_sided() / 2.0,
        true => 1.0,
    };
    // Quantile of Student's t by Cornish and Fisher's expansion.
    let quantile = BOUND + (BOUND.powi(3) + BOUND) / (4.0 * degrees);
    let lower = ((deviation.abs() - quantile * spread) / per_unit).max(0.0);
    ScoreTest {
        statistic,
        p_value,
        effect: Effect {
            value: deviation / per_unit,
            lower,
            unit: match kind {
                ScoreKind::Location => EffectUnit::ReferenceSd,
                ScoreKind::Scale => EffectUnit::Spread,
                _ => EffectUnit::Share,
            },
        },
        matters: lower >= smallest.of(kind, error),
        rows_effective,
        degrees,
    }
}

/// Signed root of the deviance of a mean magnitude, taken to be gamma distributed: a mean of
/// magnitudes is skewed to the right, and a normal tail would call its excursions drift.
fn magnitude_root(deviation: f64, variance: f64) -> f64 {
    // In units of the score the magnitude of a normal has this mean.
    let mean = ScoreKind::Scale.per_unit();
    let shape = mean * mean / variance.max(f64::MIN_POSITIVE);
    let ratio = (1.0 + deviation / mean).max(0.05);
    let deviance = 2.0 * shape * (ratio - 1.0 - ratio.ln());
    deviance.max(0.0).sqrt().copysign(deviation)
}

/// Kullback-Leibler divergence between two Bernoulli shares, in nats.
fn divergence(found: f64, expected: f64) -> f64 {
    let term = |a: f64, b: f64| if a > 0.0 { a * (a / b).ln() } else { 0.0 };
    (term(found, expected) + term(1.0 - found, 1.0 - expected)).max(0.0)
}

/// Compares one window of a cohort with its reference (`current` and `reference` of the
/// calibration's layout), with the default smallest effects. `windows` is the current span's
/// length in the calibration's windows. `None` when the signal has no rows on one of the sides.
///
/// # Errors
/// [`CalibrationError::LayoutDiffers`].
pub fn judge(
    calibration: &Calibration,
    signal: usize,
    reference: &Profile,
    current: &Profile,
    windows: f64,
) -> Result<Option<Comparison>, CalibrationError> {
    calibration.check_layout(reference.layout)?;
    calibration.check_layout(current.layout)?;
    let (Some(learned), Some(expected), Some(found)) = (
        calibration.signals.get(signal),
        reference.signals.get(signal),
        current.signals.get(signal),
    ) else {
        return Ok(None);
    };
    let shares = Shares::of(&current.devices);
    let worth = Worth {
        devices: shares.distance(&Shares::of(&reference.devices)),
        own: shares.concentration(),
        rows: 0.0,
        windows,
        spread: 1.0,
    };
    let found = deviations(learned, &Expectations::of(learned, expected), found);
    Ok(compare(learned, &found, &worth, &SmallestEffect::default()))
}

/// All scores of a signal over one span.
fn compare(
    signal: &SignalCalibration,
    found: &[Deviation],
    worth: &Worth,
    smallest: &SmallestEffect,
) -> Option<Comparison> {
    let scores = signal.scores.len().max(1) as f64;
    let mut best: Option<(ScoreKind, ScoreTest)> = None;
    for (score, at) in signal.scores.iter().zip(found) {
        if at.rows <= 0.0 {
            continue;
        }
        let worth = Worth {
            rows: at.rows,
            spread: at.spread,
            ..*worth
        };
        let scatter = row_variance(score, at.reference, signal.rows, at.spread);
        let variance = against_reference(signal, score, &worth, scatter);
        let moved = (at.deviation, at.reference);
        let tested = test(signal, score, moved, (variance, 0.0), smallest);
        if best.is_none_or(|(_, best)| tested.is_before(&best)) {
            best = Some((score.kind, tested));
        }
    }
    best.map(|(kind, tested)| Comparison {
        score: kind,
        statistic: tested.statistic,
        p_value: (tested.p_value * scores).min(1.0),
        effect: tested.effect,
        matters: tested.matters,
        rows_effective: tested.rows_effective,
        devices_effective: 1.0 / worth.own,
        degrees: tested.degrees,
    })
}

impl ScoreTest {
    /// Whether this one decides rather than another.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        (other.matters, self.p_value) < (self.matters, other.p_value)
    }
}
