//! What a cohort's rows are worth: the variance of its mean score over a span.

use driftline_schemas::profile::DeviceSample;

use super::scores::{Deviation, ScoreKind};
use super::{Component, ScoreCalibration, SignalCalibration, SpanVariance};

/// Degrees of freedom of what is known as well as need be (the scatter of rows).
pub(super) const KNOWN: f64 = 1e6;

/// How the rows of a cohort are spread over its devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shares {
    /// Rows by device, hashes rising.
    rows: Vec<(u64, f64)>,
    total: f64,
    /// Devices beyond the sample's bound were left out; then numbers of devices have to do.
    truncated: bool,
    /// Effective number of devices where the sample is truncated.
    effective: f64,
}

impl Shares {
    /// The shares of a profile's devices.
    pub fn of(sample: &DeviceSample) -> Self {
        let rows: Vec<(u64, f64)> = sample.iter().map(|(d, n)| (d, n as f64)).collect();
        Self {
            total: rows.iter().map(|(_, n)| n).sum(),
            rows,
            truncated: sample.is_truncated(),
            effective: sample.effective(),
        }
    }

    /// Adds what another span or cohort has.
    pub fn add(&mut self, other: &Self) {
        self.total += other.total;
        self.truncated |= other.truncated;
        self.effective = self.effective.max(other.effective);
        if self.add_known(other) {
            return;
        }
        let mut merged = Vec::with_capacity(self.rows.len().max(other.rows.len()));
        let (mut left, mut right) = (self.rows.iter().peekable(), other.rows.iter().peekable());
        loop {
            match (left.peek(), right.peek()) {
                (Some(a), Some(b)) if a.0 == b.0 => {
                    merged.push((a.0, a.1 + b.1));
                    left.next();
                    right.next();
                }
                (Some(a), Some(b)) if a.0 < b.0 => {
                    merged.push(**a);
                    left.next();
                }
                (_, Some(b)) => {
                    merged.push(**b);
                    right.next();
                }
                (Some(a), None) => {
                    merged.push(**a);
                    left.next();
                }
                (None, None) => break,
            }
        }
        self.rows = merged;
    }

    /// Adds rows of devices that are all there, as they mostly are; else adds nothing.
    fn add_known(&mut self, other: &Self) -> bool {
        let mut rows = self.rows.iter();
        let is_known = |(device, _): &(u64, f64)| rows.any(|(there, _)| there == device);
        if !other.rows.iter().all(is_known) {
            return false;
        }
        let mut rows = self.rows.iter_mut();
        for (device, more) in &other.rows {
            if let Some((_, there)) = rows.find(|(there, _)| there == device) {
                *there += more;
            }
        }
        true
    }

    /// Whether nothing is known of devices, or only that there is one: then it says nothing about
    /// how other devices differ.
    fn is_blank(&self) -> bool {
        self.rows.len() < 2
    }

    /// Whether a device of the other is among these.
    fn has(&self, other: &Self) -> bool {
        let there = |device: &u64| self.rows.binary_search_by_key(device, |(d, _)| *d).is_ok();
        other.rows.iter().any(|(device, _)| there(device))
    }

    /// Σ w²: one over the effective number of devices.
    pub fn concentration(&self) -> f64 {
        if self.truncated {
            return 1.0 / self.effective.max(1.0);
        }
        if self.total <= 0.0 {
            return 1.0;
        }
        let share = |rows: f64| (rows / self.total).powi(2);
        self.rows.iter().map(|&(_, rows)| share(rows)).sum()
    }

    /// Σ (w − r)²: how much of what devices are by nature two groups do not have in common.
    pub fn distance(&self, other: &Self) -> f64 {
        let is_strange = other.is_blank() && !self.has(other);
        if is_strange || other.total <= 0.0 || self.total <= 0.0 {
            return self.concentration();
        }
        if self.truncated || other.truncated {
            return self.concentration() + other.concentration();
        }
        let (mut at, mut sum) = (0, 0.0);
        for &(device, rows) in &self.rows {
            while at < other.rows.len() && other.rows[at].0 < device {
                sum += (other.rows[at].1 / other.total).powi(2);
                at += 1;
            }
            let mut theirs = 0.0;
            if at < other.rows.len() && other.rows[at].0 == device {
                theirs = other.rows[at].1 / other.total;
                at += 1;
            }
            sum += (rows / self.total - theirs).powi(2);
        }
        let rest = &other.rows[at..];
        sum + rest
            .iter()
            .map(|(_, rows)| (rows / other.total).powi(2))
            .sum::<f64>()
    }

    /// The same devices with the rows scaled, for a checkpoint.
    pub(super) fn entries(&self) -> (&[(u64, f64)], bool, f64) {
        (&self.rows, self.truncated, self.effective)
    }

    pub(super) fn from_entries(rows: Vec<(u64, f64)>, truncated: bool, effective: f64) -> Self {
        Self {
            total: rows.iter().map(|(_, n)| n).sum(),
            rows,
            truncated,
            effective,
        }
    }
}

/// What V depends on, beside the score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// Σ (w − r)² over devices ([`Shares::distance`]).
    pub devices: f64,
    /// Σ w² over devices ([`Shares::concentration`]).
    pub own: f64,
    /// Rows.
    pub rows: f64,
    /// Length of the span in the calibration's windows, above 0.
    pub windows: f64,
    /// [`Deviation::spread`]: V scales with it.
    pub spread: f64,
}

impl Worth {
    /// V of one score of a signal. `reference` is the score's mean in the reference: the scatter of
    /// a share's rows depends on it. Without `shared`, what all devices share is left out: it moves
    /// all cohorts alike.
    pub fn variance(
        &self,
        signal: &SignalCalibration,
        score: usize,
        reference: f64,
        shared: bool,
    ) -> f64 {
        let score = &signal.scores[score];
        let scatter = super::judge::row_variance(score, reference, signal.rows, self.spread);
        let all = against_reference(signal, score, self, scatter).total;
        if shared {
            return all;
        }
        (all - self.spread * lasting(&score.spans, self.windows).0.variance).max(f64::MIN_POSITIVE)
    }

    /// Independent rows that the whole histogram is worth: of the scores of its bins, the least, so
    /// that a distance over all bins is not believed more than its shakiest direction (the
    /// first-order correction of Rao and Scott 1984 takes the mean). 0 without rows.
    pub fn rows_effective(&self, signal: &SignalCalibration, found: &[Deviation]) -> f64 {
        let mut least = f64::INFINITY;
        for (index, (score, at)) in signal.scores.iter().zip(found).enumerate() {
            // What is foreseen is no direction of its own: it follows from where the confidence lies.
            let follows = score.kind == ScoreKind::Foreseen;
            if follows || score.kind.is_rate() || at.rows <= 0.0 {
                continue;
            }
            let worth = Self {
                rows: at.rows,
                spread: at.spread,
                ..*self
            };
            let one = match score.kind.is_share() {
                true => super::judge::row_variance(score, at.reference, signal.rows, at.spread),
                false => at.spread,
            };
            least = least.min(one / worth.variance(signal, index, at.reference, true));
        }
        if least.is_finite() { least } else { 0.0 }
    }
}

/// A variance as the sum of estimated parts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Variance {
    pub(super) total: f64,
    /// Σ part² / degrees, for Satterthwaite's degrees of freedom.
    spread: f64,
}

impl Variance {
    pub(super) fn add(&mut self, coefficient: f64, part: Component) {
        let part_variance = coefficient * part.variance;
        self.total += part_variance;
        self.spread += part_variance * part_variance / part.degrees.max(1.0);
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            spread: self.spread + other.spread,
        }
    }

    pub(super) fn scaled(self, factor: f64) -> Self {
        Self {
            total: self.total * factor,
            spread: self.spread * factor * factor,
        }
    }

    pub(super) fn degrees(self) -> f64 {
        if self.spread > 0.0 {
            (self.total * self.total / self.spread).min(KNOWN)
        } else {
            KNOWN
        }
    }
}

/// V of one score. `row_variance` is the scatter of one row here (of a share it depends on the
/// share).
pub(super) fn variance(score: &ScoreCalibration, worth: &Worth, row_variance: f64) -> Variance {
    let mut sum = Variance::default();
    sum.add(worth.spread * worth.devices, score.device);
    let (shared, own) = lasting(&score.spans, worth.windows);
    sum.add(worth.spread, shared);
    sum.add(worth.spread * worth.own, own);
    let rows = Component {
        variance: row_variance,
        degrees: KNOWN,
    };
    sum.add(1.0 / worth.rows.max(1.0), rows);
    sum
}

/// V of one score less the reference's, whose rows are finitely many themselves.
pub(super) fn against_reference(
    signal: &SignalCalibration,
    score: &ScoreCalibration,
    worth: &Worth,
    row_variance: f64,
) -> Variance {
    let mut sum = variance(score, worth, row_variance);
    let rows = Component {
        variance: row_variance,
        degrees: KNOWN,
    };
    sum.add(1.0 / signal.rows.max(1) as f64, rows);
    sum
}

/// The variances at a length of time: those of the longest span learned that is not longer. Below
/// the shortest and beyond the longest they go as one over the length, which for the shorter is an
/// upper bound.
fn lasting(spans: &[SpanVariance], windows: f64) -> (Component, Component) {
    let none = Component {
        variance: 0.0,
        degrees: KNOWN,
    };
    let Some(first) = spans.first() else {
        return (none, none);
    };
    let at = spans
        .iter()
        .rev()
        .find(|span| f64::from(span.windows) <= windows)
        .unwrap_or(first);
    let last = spans.last().is_some_and(|last| last.windows == at.windows);
    let length = f64::from(at.windows);
    let factor = if windows < length || last {
        length / windows.max(1e-6)
    } else {
        1.0
    };
    let scaled = |part: Component| Component {
        variance: part.variance * factor,
        ..part
    };
    (scaled(at.shared), scaled(at.own))
}
