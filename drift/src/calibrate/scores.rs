//! Scores of a signal: numbers that are linear in the shares of its bins.

use driftline_schemas::bundle::SignalRole;
use driftline_schemas::profile::{SignalLayout, SignalProfile};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use statrs::function::erf::erfc_inv;

/// Largest normal score of a bin, in standard deviations: what lies in a bin that the reference
/// never used counts as three standard deviations away, however far it is, so one garbage value in
/// a thousand moves the mean score by 0.003.
const NORMAL_SCORE_MAX: f64 = 3.0;
/// Most categories whose share is a score of its own (the most frequent of the reference); the
/// rest together are one more. Each score costs a share of the budget.
pub(super) const SHARE_SCORES_MAX: usize = 8;
/// Least standard deviation of a score over the reference's bins for it to say anything.
const SCORE_SD_MIN: f64 = 1e-6;

/// Mean magnitude of a standard normal over the standard deviation of that magnitude: a spread
/// that grows by a share s moves the standardised scale score by this much times s.
const SCALE_PER_SPREAD: f64 = 1.323_6;

/// What a score looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreKind {
    /// Where the numbers lie: the mid-quantile normal score of each bin, standardised over the
    /// reference. A shift of one reference standard deviation is about 1.
    Location,
    /// How far they spread: the magnitude of the normal score, made orthogonal to the location and
    /// standardised.
    Scale,
    /// Share of a category, by its code.
    Share(u32),
    /// Share of all categories that have no score of their own.
    OtherShares,
    /// Of a number that was always the same in the reference: share of rows in which it is another.
    Elsewhere,
    /// Of a confidence: the share of wrong answers that it foresees ([`super::foreseen`]).
    Foreseen,
    /// Share of rows without a value.
    Missing,
    /// Share of rows with NaN or an infinity.
    NonFinite,
    /// Share of rows with a category that the bundle does not list.
    Unseen,
}

impl ScoreKind {
    /// Whether the score counts rows, each as 0 or 1.
    pub const fn is_share(self) -> bool {
        !matches!(self, Self::Location | Self::Scale | Self::Foreseen)
    }

    /// Whether the score counts rows that are in no bin.
    pub const fn is_rate(self) -> bool {
        matches!(self, Self::Missing | Self::NonFinite | Self::Unseen)
    }

    /// How far the score's mean moves when its effect is one unit: effects of spreads are told as a
    /// share of the standard deviation.
    pub const fn per_unit(self) -> f64 {
        match self {
            Self::Scale => SCALE_PER_SPREAD,
            _ => 1.0,
        }
    }

    /// Name for measures and people (`location`, `share:3`).
    pub fn name(self) -> String {
        match self {
            Self::Location => "location".into(),
            Self::Scale => "scale".into(),
            Self::Share(code) => format!("share:{code}"),
            Self::OtherShares => "share:other".into(),
            Self::Elsewhere => "elsewhere".into(),
            Self::Foreseen => "foreseen".into(),
            Self::Missing => "missing".into(),
            Self::NonFinite => "non_finite".into(),
            Self::Unseen => "unseen".into(),
        }
    }
}

/// A score with its weight for each bin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Score {
    pub(super) kind: ScoreKind,
    pub(super) weights: Vec<f64>,
}

/// The scores of a signal, from its reference.
pub(super) fn scores_of(layout: &SignalLayout, reference: &SignalProfile) -> Vec<Score> {
    let mut scores = if reference.binned() == 0 {
        Vec::new()
    } else if layout.is_numeric() {
        numeric(reference)
    } else {
        categorical(reference)
    };
    // A missing truth is no property of the estate's errors, and a row without a joint value lacks a feature,
    // whose own signal says so.
    if !matches!(layout.signal.role, SignalRole::Error | SignalRole::Joint) {
        let other = match layout.is_numeric() {
            true => ScoreKind::NonFinite,
            false => ScoreKind::Unseen,
        };
        for kind in [ScoreKind::Missing, other] {
            let weights = Vec::new();
            scores.push(Score { kind, weights });
        }
    }
    scores
}

fn numeric(reference: &SignalProfile) -> Vec<Score> {
    let total = reference.binned() as f64;
    let shares: Vec<f64> = reference.bins.iter().map(|&n| n as f64 / total).collect();
    let mut below = 0.0;
    let normal: Vec<f64> = shares
        .iter()
        .map(|share| {
            // −√2 erfc⁻¹(2p) is the normal quantile of p.
            let quantile = -std::f64::consts::SQRT_2 * erfc_inv(2.0 * (below + share / 2.0));
            below += share;
            quantile.clamp(-NORMAL_SCORE_MAX, NORMAL_SCORE_MAX)
        })
        .collect();
    let mut scores = Vec::new();
    let Some(location) = standardised(normal.clone(), &shares) else {
        scores.extend(elsewhere(reference));
        return scores;
    };
    let magnitude: Vec<f64> = normal.iter().map(|score| score.abs()).collect();
    let slope = sum(&shares, |bin| magnitude[bin] * location[bin]);
    let magnitude = (0..shares.len())
        .map(|bin| magnitude[bin] - slope * location[bin])
        .collect();
    let scale = standardised(magnitude, &shares);
    scores.push(Score {
        kind: ScoreKind::Location,
        weights: location,
    });
    scores.extend(scale.map(|weights| Score {
        kind: ScoreKind::Scale,
        weights,
    }));
    scores
}

/// Where all rows of the reference are in one of several bins, the others' share: nothing else can be said of
/// a number that never moved.
fn elsewhere(reference: &SignalProfile) -> Option<Score> {
    let weight = |&count: &u64| f64::from(u8::from(count == 0));
    let weights: Vec<f64> = reference.bins.iter().map(weight).collect();
    (weights.len() > 1).then_some(Score {
        kind: ScoreKind::Elsewhere,
        weights,
    })
}

fn sum(shares: &[f64], value: impl Fn(usize) -> f64) -> f64 {
    (0..shares.len()).map(|bin| shares[bin] * value(bin)).sum()
}

/// Mean 0 and variance 1 over the reference; `None` when nothing varies.
fn standardised(mut score: Vec<f64>, shares: &[f64]) -> Option<Vec<f64>> {
    let mean = sum(shares, |bin| score[bin]);
    let sd = sum(shares, |bin| (score[bin] - mean).powi(2)).sqrt();
    if sd.is_nan() || sd <= SCORE_SD_MIN {
        return None;
    }
    for value in &mut score {
        *value = (*value - mean) / sd;
    }
    Some(score)
}

fn categorical(reference: &SignalProfile) -> Vec<Score> {
    let categories = reference.bins.len();
    let mut by_share: Vec<usize> = (0..categories).collect();
    by_share.sort_by_key(|&code| (std::cmp::Reverse(reference.bins[code]), code));
    // Shares add to one, so the last of them says nothing new.
    let own = match categories {
        0 | 1 => 0,
        n if n <= SHARE_SCORES_MAX => n,
        _ => SHARE_SCORES_MAX,
    };
    // Of two, the second: for errors it is `wrong`.
    let chosen: Vec<usize> = match categories {
        2 => vec![1],
        _ => by_share[..own].to_vec(),
    };
    let indicator = |within: &dyn Fn(usize) -> bool| {
        (0..categories)
            .map(|code| f64::from(u8::from(within(code))))
            .collect::<Vec<f64>>()
    };
    let mut scores: Vec<Score> = chosen
        .iter()
        .map(|&chosen| Score {
            kind: ScoreKind::Share(chosen as u32),
            weights: indicator(&|code| code == chosen),
        })
        .collect();
    if categories > SHARE_SCORES_MAX {
        scores.push(Score {
            kind: ScoreKind::OtherShares,
            weights: indicator(&|code| !chosen.contains(&code)),
        });
    }
    scores
}

/// Rows that a score is a mean over, the mean, and the variance of a row about it.
pub(super) fn mean_of(
    kind: ScoreKind,
    weights: &[f64],
    profile: &SignalProfile,
) -> (f64, f64, f64) {
    let counted = match kind {
        ScoreKind::Missing => profile.nulls,
        ScoreKind::NonFinite => profile.non_finite,
        ScoreKind::Unseen => profile.unseen,
        _ => {
            let rows = profile.binned() as f64;
            if rows == 0.0 {
                return (0.0, 0.0, 0.0);
            }
            let (mut mean, mut square) = (0.0, 0.0);
            for (&count, weight) in profile.bins.iter().zip(weights) {
                let share = count as f64 / rows;
                mean += share * weight;
                square += share * weight * weight;
            }
            return (rows, mean, (square - mean * mean).max(0.0));
        }
    };
    let rows = profile.rows() as f64;
    if rows == 0.0 {
        return (0.0, 0.0, 0.0);
    }
    let share = counted as f64 / rows;
    (rows, share, share * (1.0 - share))
}

/// How far one score of a cohort is from its reference, for one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// Rows that it is a mean over.
    pub rows: f64,
    /// Mean score less the reference's.
    pub deviation: f64,
    /// Mean score of the reference for this window.
    pub reference: f64,
    /// Variance of the reference's rows at this time of the season over what it is on average: at
    /// noon, when half of the answers are `yes`, their share wanders further than at night.
    pub spread: f64,
}

/// Scores that need no memory of their own: those of numbers.
pub(super) const SCORES_INLINE: usize = 4;

/// One per score of a signal.
pub type Deviations = SmallVec<[Deviation; SCORES_INLINE]>;

/// What a reference has of each score of a signal: the half of [`deviations`] that does not change while the season
/// repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expectations {
    scores: Vec<Expectation>,
    /// By how much the scale moves with the location.
    slope: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Expectation {
    rows: f64,
    mean: f64,
    spread: f64,
}

impl Expectations {
    /// Those of a signal, from its reference at a time of the season.
    pub fn of(signal: &super::SignalCalibration, reference: &SignalProfile) -> Self {
        let slope = match signal.scores.as_slice() {
            [location, scale, ..] if scale.kind == ScoreKind::Scale => {
                slope(&scale.weights, &location.weights, reference)
            }
            _ => 0.0,
        };
        let of = |score: &super::ScoreCalibration| {
            let (rows, mean, mut variance) = mean_of(score.kind, &score.weights, reference);
            if let (ScoreKind::Scale, Some(location)) = (score.kind, signal.scores.first()) {
                let (_, _, of_location) = mean_of(location.kind, &location.weights, reference);
                variance -= slope * slope * of_location;
            }
            Expectation {
                rows,
                mean,
                spread: spread(score.kind, variance, score.slot_variance),
            }
        };
        Self {
            scores: signal.scores.iter().map(of).collect(),
            slope,
        }
    }
}

/// How far each score of a signal is from its reference. The profile and the reference are of the calibration's
/// layout. A score without rows on either side has 0 rows.
pub fn deviations(
    signal: &super::SignalCalibration,
    expected: &Expectations,
    current: &SignalProfile,
) -> Deviations {
    let mut found = Deviations::with_capacity(signal.scores.len());
    for (score, expected_of) in signal.scores.iter().zip(&expected.scores) {
        let (rows, mean, _) = mean_of(score.kind, &score.weights, current);
        if expected_of.rows == 0.0 || rows == 0.0 {
            found.push(Deviation::default());
            continue;
        }
        let mut deviation = mean - expected_of.mean;
        if score.kind == ScoreKind::Scale {
            // The location is the score before the scale.
            deviation -= expected.slope * found.first().map_or(0.0, |it| it.deviation);
        }
        found.push(Deviation {
            rows,
            deviation,
            reference: expected_of.mean,
            spread: expected_of.spread,
        });
    }
    found
}

/// Largest factor by which a time of the season is taken to be calmer or wilder than the average,
/// since that is estimated as well.
const SPREAD_MAX: f64 = 4.0;

/// Variance of a slot's rows over the average of the slots.
pub(super) fn spread(kind: ScoreKind, slot: f64, average: f64) -> f64 {
    if kind.is_rate() || average <= 0.0 {
        return 1.0;
    }
    (slot / average).clamp(1.0 / SPREAD_MAX, SPREAD_MAX)
}

/// By how much the mean of one score moves with that of another when the reference is shifted a
/// little: the regression of the one on the other within it. The scale is orthogonal to the location
/// over the whole reference, but not within an hour that lies off its middle; without this, a shift
/// at night would read as a spread.
pub(super) fn slope(of: &[f64], on: &[f64], reference: &SignalProfile) -> f64 {
    let rows = reference.binned() as f64;
    if rows == 0.0 {
        return 0.0;
    }
    let (mut a, mut b, mut ab, mut bb) = (0.0, 0.0, 0.0, 0.0);
    for ((&count, x), y) in reference.bins.iter().zip(of).zip(on) {
        let share = count as f64 / rows;
        a += share * x;
        b += share * y;
        ab += share * x * y;
        bb += share * y * y;
    }
    let variance = bb - b * b;
    if variance > SCORE_SD_MIN {
        (ab - a * b) / variance
    } else {
        0.0
    }
}
