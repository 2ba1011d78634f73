//! How much a metric varies with the rows that happen to be in a chunk: c, where the standard error
//! of n rows is c/√n.

use super::super::{Auroc, BinaryCounts};
use super::super::{PerformanceError, part_of, ratio, roc::average_precision_of, roc::group};
use super::{Definition, Metric, Reference};

/// Parts of the delete-a-group jackknife: enough that its own error (1/sqrt(2 · 49)) is a tenth.
const GROUPS: usize = 50;

/// c of every metric, in the order of [`Metric::ALL`].
pub(super) fn unit_errors(
    reference: &Reference<'_>,
    definition: Definition,
) -> Result<[Option<f64>; 7], PerformanceError> {
    let pairs = reference.predicted.iter().zip(reference.actual);
    let counts = BinaryCounts::of(pairs.map(|(p, a)| (*p, *a)));
    let groups = group(reference.scores, reference.actual)?;
    let precision_error = average_precision_error(reference);
    Ok(Metric::ALL.map(|metric| match metric {
        Metric::RocAuc => match definition {
            Definition::Native => delong_error(&groups),
            Definition::Nannyml => rank_error(reference),
        },
        Metric::AveragePrecision => precision_error,
        Metric::F1 => match definition {
            Definition::Native => f1_error(&counts),
            Definition::Nannyml => f1_error_scaled(&counts),
        },
        other => share_error(&counts, other),
    }))
}

/// A share of the rows that match a condition: standard deviation of the outcome among these, over
/// the root of their part of all rows.
fn share_error(c: &BinaryCounts, metric: Metric) -> Option<f64> {
    let (hits, of) = match metric {
        Metric::Precision => (c.true_positives, c.true_positives + c.false_positives),
        Metric::Recall => (c.true_positives, c.true_positives + c.false_negatives),
        Metric::Specificity => (c.true_negatives, c.true_negatives + c.false_positives),
        _ => (c.true_positives + c.true_negatives, c.total()),
    };
    let share = ratio(hits as f64, of as f64)?;
    let part = of as f64 / c.total() as f64;
    Some((share * (1.0 - share) / part).sqrt())
}

/// F1 is a ratio Σa/Σb with a = TP and b = TP + (FP + FN)/2 of a row; the delta method gives
/// c² = E(a − F1 b)²/E(b)².
fn f1_error(c: &BinaryCounts) -> Option<f64> {
    let f1 = c.f1()?;
    let n = c.total() as f64;
    let right = c.true_positives as f64 / n;
    let wrong = (c.false_positives + c.false_negatives) as f64 / n;
    let square = right * (1.0 - f1).powi(2) + wrong * (f1 / 2.0).powi(2);
    ratio(square.sqrt(), right + wrong / 2.0)
}

/// NannyML: rows that are TP, FP or FN, worth 1 or 0 and scaled so that their mean is F1.
fn f1_error_scaled(c: &BinaryCounts) -> Option<f64> {
    let right = c.true_positives as f64;
    let wrong = (c.false_positives + c.false_negatives) as f64;
    let relevant = right + wrong;
    let scale = ratio(relevant, right + wrong / 2.0)?;
    let share = right / relevant;
    let deviation = (share * (1.0 - share)).sqrt() * scale;
    Some(deviation / (relevant / c.total() as f64).sqrt())
}

fn delong_error(groups: &[(u64, u64)]) -> Option<f64> {
    let area = Auroc::of_groups(groups)?;
    let rows = area.positives + area.negatives;
    Some((area.variance? * rows as f64).sqrt())
}

/// NannyML: standard deviation of the share of negatives ranked below each row of the rarer class,
/// over the root of its part of all rows. The row ranked first is left out, as there.
fn rank_error(reference: &Reference<'_>) -> Option<f64> {
    let n = reference.actual.len();
    let positives = reference.actual.iter().filter(|y| **y).count();
    let turned = 2 * positives > n;
    let mut rows: Vec<_> = reference
        .scores
        .iter()
        .zip(reference.actual)
        .map(|(s, y)| if turned { (1.0 - s, !*y) } else { (*s, *y) })
        .collect();
    // Stable: tied rows stay in time order.
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rare = if turned { n - positives } else { positives };
    let common = (n - rare) as f64;
    let ranks = rows.iter().enumerate().skip(1).filter(|(_, r)| r.1);
    let below: Vec<_> = ranks
        .enumerate()
        .map(|(earlier, (rank, _))| (rank - earlier) as f64 / common)
        .collect();
    let count = below.len() as f64;
    let mean = ratio(below.iter().sum(), count)?;
    let variance = below.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    Some((variance / (rare as f64 / n as f64)).sqrt())
}

/// Delete-a-group jackknife (Kott 2001), groups fixed by row number, so that it is a function of the
/// rows.
fn average_precision_error(reference: &Reference<'_>) -> Option<f64> {
    let mut rows: Vec<_> = reference
        .scores
        .iter()
        .zip(reference.actual)
        .enumerate()
        .map(|(i, (s, y))| (*s, *y, part_of(i, GROUPS)))
        .collect();
    rows.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let without = |left_out: usize| {
        let scores = rows.chunk_by(|a, b| a.0 == b.0).map(|tied| {
            let kept = tied.iter().filter(|r| r.2 != left_out);
            let (positives, all) = kept.fold((0.0, 0.0), |(p, n), r| {
                (p + f64::from(u8::from(r.1)), n + 1.0)
            });
            (positives, all - positives)
        });
        average_precision_of(scores)
    };
    let parts = (0..GROUPS).map(without).collect::<Option<Vec<_>>>()?;
    let groups = GROUPS as f64;
    let mean = parts.iter().sum::<f64>() / groups;
    let squares: f64 = parts.iter().map(|p| (p - mean).powi(2)).sum();
    let variance = (groups - 1.0) / groups * squares;
    Some((variance * rows.len() as f64).sqrt())
}
