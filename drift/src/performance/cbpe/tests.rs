//! Estimates, errors and refusals on a reference whose scores are the truth.

use super::*;

/// 4,000 rows with scores 0.1, 0.3, 0.6 and 0.9 that are the truth: every 10 rows of a score
/// have as many positives as it says.
fn reference() -> (Vec<f64>, Vec<bool>, Vec<bool>) {
    let (mut scores, mut actual) = (Vec::new(), Vec::new());
    for i in 0..4000 {
        let tenths = [1, 3, 6, 9][i % 4];
        scores.push(tenths as f64 / 10.0);
        actual.push(i / 4 % 10 < tenths);
    }
    let predicted = scores.iter().map(|s| *s > 0.5).collect();
    (scores, predicted, actual)
}

fn fit(definition: Definition) -> Cbpe {
    let (scores, predicted, actual) = reference();
    let reference = Reference {
        scores: &scores,
        predicted: &predicted,
        actual: &actual,
    };
    Cbpe::fit(reference, 400, definition).unwrap()
}

/// On the reference's own rows, whose scores are exact, every estimate is the realised metric.
#[test]
fn exact_scores_estimate_exactly() {
    let (scores, predicted, actual) = reference();
    let rows = Reference {
        scores: &scores,
        predicted: &predicted,
        actual: &actual,
    };
    let truth = realised(&rows).unwrap();
    let estimates = fit(Definition::Native)
        .estimate(&scores, &predicted)
        .unwrap();
    for (ours, truth) in estimates.iter().zip(truth) {
        let off = (ours.value.unwrap() - truth.unwrap()).abs();
        assert!(off < 1e-12, "{:?} is off by {off}", ours.metric);
        assert!(!ours.alert);
    }
}

/// Where nothing was predicted positive, precision is undefined; NannyML says 0.
#[test]
fn undefined_metrics() {
    let rows = ([0.1, 0.3], [false, false]);
    let precision = |definition| {
        let estimates = fit(definition).estimate(&rows.0, &rows.1).unwrap();
        estimates[3]
    };
    assert_eq!(precision(Definition::Native).metric, Metric::Precision);
    assert_eq!(precision(Definition::Native).value, None);
    assert!(!precision(Definition::Native).alert);
    assert_eq!(precision(Definition::Nannyml).value, Some(0.0));
}

/// Sampling errors are those of the metric over random samples of the reference: the standard
/// deviation over 400 resamples of 500 rows is within its own noise of every native one.
#[test]
fn sampling_errors_match_resampling() {
    let (scores, predicted, actual) = reference();
    let mut state = 11_u64;
    let mut draws: Vec<Vec<f64>> = vec![Vec::new(); 7];
    for _ in 0..400 {
        let at: Vec<usize> = (0..500)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) as usize % scores.len()
            })
            .collect();
        let scores: Vec<_> = at.iter().map(|i| scores[*i]).collect();
        let predicted: Vec<_> = at.iter().map(|i| predicted[*i]).collect();
        let actual: Vec<_> = at.iter().map(|i| actual[*i]).collect();
        let sample = Reference {
            scores: &scores,
            predicted: &predicted,
            actual: &actual,
        };
        for (draws, value) in draws.iter_mut().zip(realised(&sample).unwrap()) {
            draws.push(value.unwrap());
        }
    }
    let cbpe = fit(Definition::Native);
    let estimates = cbpe.estimate(&scores[..500], &predicted[..500]).unwrap();
    for (estimate, draws) in estimates.iter().zip(&draws) {
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let spread = (draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n).sqrt();
        let ratio = estimate.sampling_error.unwrap() / spread;
        // The resampled deviation's own error is 1/sqrt(800); the jackknife's is a tenth.
        let slack = if estimate.metric == Metric::AveragePrecision {
            0.3
        } else {
            0.12
        };
        assert!(
            (ratio - 1.0).abs() < slack,
            "{:?}: {ratio}",
            estimate.metric
        );
    }
}

/// A design effect of 4 doubles the error and leaves value and thresholds.
#[test]
fn design_effect_widens() {
    let (scores, predicted, _) = reference();
    let plain = fit(Definition::Native)
        .estimate(&scores, &predicted)
        .unwrap()[6];
    let wide = plain.with_design_effect(4.0);
    assert_eq!(wide.sampling_error, plain.sampling_error.map(|e| 2.0 * e));
    assert_eq!(
        (wide.value, wide.thresholds),
        (plain.value, plain.thresholds)
    );
    let (p, w) = (plain.bounds.unwrap(), wide.bounds.unwrap());
    assert!(w.low < p.low && w.high > p.high);
}

/// Each input that cannot be used is refused by name.
#[test]
fn refusals() {
    let cbpe = fit(Definition::Native);
    assert_eq!(cbpe.estimate(&[], &[]), Err(PerformanceError::Empty));
    assert!(matches!(
        cbpe.estimate(&[0.5, 1.5], &[true, true]),
        Err(PerformanceError::NotAProbability { row: 1, .. })
    ));
    assert!(matches!(
        cbpe.estimate(&[0.5], &[]),
        Err(PerformanceError::LengthsDiffer {
            name: "predicted",
            ..
        })
    ));
    let one = Reference {
        scores: &[0.5],
        predicted: &[true],
        actual: &[true],
    };
    assert_eq!(
        Cbpe::fit(one, 1, Definition::Native),
        Err(PerformanceError::OneClass { class: true })
    );
    let count = |score| ScoreCount {
        score,
        predicted_positive: 1,
        predicted_negative: 0,
    };
    assert!(cbpe.estimate_counts(&[count(0.5), count(0.4)]).is_err());
}
