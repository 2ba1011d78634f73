//! Shares for people: how much of a drift is whose.

use driftline_schemas::measure::Contribution;

use super::{Part, attribute_values, mean, members};

/// Most entries of a ranking.
const RANKED_MAX: usize = 8;
/// Shares below this are not worth naming.
const SHARE_MIN: f64 = 0.05;

/// Attribute values by how much of the estate's deviation goes away without them (profiles
/// subtract, and so do the score sums that these parts hold): 1 when nothing is left, 0 when
/// nothing changes. A value that all cells share has no share of its own.
pub fn rank_attributes(parts: &[Part]) -> Vec<Contribution> {
    let (all, _) = mean(parts, |_| true);
    let mut ranked: Vec<Contribution> = Vec::new();
    if all == 0.0 {
        return ranked;
    }
    for cohort in attribute_values(parts.iter().map(|part| &part.cell)) {
        let inside = members(&cohort, parts);
        let (rest, rows) = mean(parts, |index| !inside[index]);
        if rows == 0.0 {
            continue;
        }
        let share = (1.0 - rest * all.signum() / all.abs()).clamp(0.0, 1.0);
        if share >= SHARE_MIN {
            ranked.push(Contribution {
                name: cohort.to_string(),
                share,
            });
        }
    }
    ranked.sort_by(|a, b| {
        b.share
            .total_cmp(&a.share)
            .then_with(|| a.name.cmp(&b.name))
    });
    ranked.truncate(RANKED_MAX);
    ranked
}

/// Signals by their share of the evidence (squared standard errors), the strongest first.
pub fn rank_signals(evidence: &[(&str, f64)]) -> Vec<Contribution> {
    let total: f64 = evidence.iter().map(|(_, squares)| squares).sum();
    let mut ranked: Vec<Contribution> = evidence
        .iter()
        .map(|(name, squares)| Contribution {
            name: (*name).into(),
            share: if total > 0.0 { squares / total } else { 0.0 },
        })
        .collect();
    ranked.sort_by(|a, b| {
        b.share
            .total_cmp(&a.share)
            .then_with(|| a.name.cmp(&b.name))
    });
    ranked.truncate(RANKED_MAX);
    ranked
}
