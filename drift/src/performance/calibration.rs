//! Calibration: making a score of 0.8 mean that 8 of 10 are positive.

use serde::{Deserialize, Serialize};

use super::{PerformanceError, check_length, check_scores, part_of};

/// Parts of the cross-validation that decides whether calibration helps, and of the calibration
/// error that it compares (both as in NannyML).
const FOLDS: usize = 10;
const ERROR_BINS: usize = 10;

/// Area under the ROC curve from which on scores are left alone: classes that far apart leave
/// nothing to calibrate on (NannyML's rule).
const AUROC_SEPARATED: f64 = 0.999;

/// Isotonic regression: the non-decreasing function of the score with the least squared error,
/// linear between its steps and constant outside (Barlow et al. 1972, by pooling adjacent
/// violators).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Knots")]
pub struct Isotonic {
    /// Scores at which the function is known, ascending.
    scores: Vec<f64>,
    /// Its values there.
    values: Vec<f64>,
}

/// An [`Isotonic`] as it travels in a bundle, not yet checked.
#[derive(Deserialize)]
struct Knots {
    scores: Vec<f64>,
    values: Vec<f64>,
}

impl TryFrom<Knots> for Isotonic {
    type Error = String;

    fn try_from(k: Knots) -> Result<Self, String> {
        let unit = |x: &f64| (0.0..=1.0).contains(x);
        let sound = !k.scores.is_empty()
            && k.scores.len() == k.values.len()
            && k.scores.iter().chain(&k.values).all(unit)
            && k.scores.windows(2).all(|w| w[0] < w[1])
            && k.values.windows(2).all(|w| w[0] <= w[1]);
        if !sound {
            return Err("a calibration needs ascending scores and values from 0 to 1".to_owned());
        }
        Ok(Self {
            scores: k.scores,
            values: k.values,
        })
    }
}

/// Rows pooled so far: one value for scores `first` to `last`.
struct Pool {
    first: f64,
    last: f64,
    sum: f64,
    rows: f64,
}

impl Isotonic {
    /// Fits the share of positives as a function of the score.
    ///
    /// # Errors
    /// Columns that differ in length, no rows, or a score that is not a probability.
    pub fn fit(scores: &[f64], actual: &[bool]) -> Result<Self, PerformanceError> {
        check_scores(scores)?;
        check_length("actual", actual.len(), scores.len())?;
        let mut rows: Vec<_> = scores.iter().copied().zip(actual.iter().copied()).collect();
        rows.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Self::of_sorted(&rows))
    }

    fn of_sorted(rows: &[(f64, bool)]) -> Self {
        let mut pools: Vec<Pool> = Vec::new();
        for tied in rows.chunk_by(|a, b| a.0 == b.0) {
            let mut pool = Pool {
                first: tied[0].0,
                last: tied[0].0,
                sum: tied.iter().filter(|r| r.1).count() as f64,
                rows: tied.len() as f64,
            };
            // Counts, so the comparison of two shares is exact by cross-multiplication.
            while let Some(before) =
                pools.pop_if(|before| before.sum * pool.rows >= pool.sum * before.rows)
            {
                pool.first = before.first;
                pool.sum += before.sum;
                pool.rows += before.rows;
            }
            pools.push(pool);
        }
        let (mut scores, mut values) = (Vec::new(), Vec::new());
        for pool in &pools {
            scores.push(pool.first);
            values.push(pool.sum / pool.rows);
            if pool.last > pool.first {
                scores.push(pool.last);
                values.push(pool.sum / pool.rows);
            }
        }
        Self { scores, values }
    }

    /// The calibrated probability of a score.
    pub fn calibrate(&self, score: f64) -> f64 {
        let above = self.scores.partition_point(|s| *s < score);
        let end = self.scores.len() - 1;
        if above == 0 {
            return self.values[0];
        }
        if above > end {
            return self.values[end];
        }
        let (x0, x1) = (self.scores[above - 1], self.scores[above]);
        let (y0, y1) = (self.values[above - 1], self.values[above]);
        (y1 - y0) / (x1 - x0) * (score - x0) + y0
    }
}

/// Mean over rows of |mean score − share of positives| in [`ERROR_BINS`] bins of equally many rows
/// (Naeini, Cooper and Hauskrecht 2015); what remains joins the last bin.
fn calibration_error(rows: &mut [(f64, bool)]) -> f64 {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let bins = ERROR_BINS.min(rows.len() / 2).max(1);
    let width = rows.len() / bins;
    let mut error = 0.0;
    for bin in 0..bins {
        let end = if bin + 1 == bins {
            rows.len()
        } else {
            (bin + 1) * width
        };
        let part = &rows[bin * width..end];
        let scores: f64 = part.iter().map(|r| r.0).sum();
        let positives = part.iter().filter(|r| r.1).count() as f64;
        error += (scores - positives).abs();
    }
    error / rows.len() as f64
}

/// Whether isotonic calibration lowers the calibration error on rows it was not fitted on.
///
/// Ten folds, fixed by row number, so the answer is a function of the rows (NannyML draws ten random
/// tenths). Scores that separate the classes, and
/// labels of one class, are left alone.
///
/// # Errors
/// As [`Isotonic::fit`].
pub fn calibration_helps(scores: &[f64], actual: &[bool]) -> Result<bool, PerformanceError> {
    check_scores(scores)?;
    match super::auroc(scores, actual)? {
        None => return Ok(false),
        Some(a) if a.value > AUROC_SEPARATED => return Ok(false),
        Some(_) => {}
    }
    let mut rows: Vec<_> = scores.iter().copied().zip(actual.iter().copied()).collect();
    let folds: Vec<_> = (0..rows.len()).map(|row| part_of(row, FOLDS)).collect();
    let mut calibrated = Vec::with_capacity(rows.len());
    for fold in 0..FOLDS {
        let split = |inside: bool| {
            let rows = rows.iter().zip(&folds);
            rows.filter(move |(_, f)| (**f == fold) == inside)
                .map(|(r, _)| *r)
        };
        let mut train: Vec<_> = split(false).collect();
        if train.is_empty() {
            continue;
        }
        train.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let isotonic = Isotonic::of_sorted(&train);
        calibrated.extend(split(true).map(|(s, y)| (isotonic.calibrate(s), y)));
    }
    Ok(calibration_error(&mut rows) > calibration_error(&mut calibrated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pools worked by hand: 0.2 and 0.4 violate and become one half, which is a plateau; between
    /// plateaus the function is linear, outside constant.
    #[test]
    fn pools_violators() {
        let scores = [0.1, 0.2, 0.4, 0.6];
        let f = Isotonic::fit(&scores, &[false, true, false, true]).unwrap();
        assert_eq!(f.calibrate(0.1), 0.0);
        assert_eq!(f.calibrate(0.2), 0.5);
        assert_eq!(f.calibrate(0.3), 0.5);
        assert!((f.calibrate(0.5) - 0.75).abs() < 1e-15);
        assert!((f.calibrate(0.15) - 0.25).abs() < 1e-15);
        assert_eq!((f.calibrate(0.0), f.calibrate(1.0)), (0.0, 1.0));
    }

    proptest! {
        /// The fit never decreases and its mean over the rows is the share of positives.
        #[test]
        fn monotone_and_unbiased(rows in prop::collection::vec((0_u8..30, any::<bool>()), 1..100)) {
            let scores: Vec<_> = rows.iter().map(|r| f64::from(r.0) / 29.0).collect();
            let actual: Vec<_> = rows.iter().map(|r| r.1).collect();
            let f = Isotonic::fit(&scores, &actual).unwrap();
            let steps: Vec<_> = (0..=100).map(|i| f.calibrate(f64::from(i) / 100.0)).collect();
            prop_assert!(steps.windows(2).all(|w| w[0] <= w[1] + 1e-15));
            let fitted: f64 = scores.iter().map(|s| f.calibrate(*s)).sum();
            let positives = actual.iter().filter(|y| **y).count() as f64;
            prop_assert!((fitted - positives).abs() < 1e-9);
        }
    }

    /// A calibration goes through serde unchanged; one that is no function is refused.
    #[test]
    fn travels_checked() {
        let f = Isotonic::fit(&[0.1, 0.2, 0.4], &[false, true, true]).unwrap();
        let text = serde_json::to_string(&f).unwrap();
        assert_eq!(serde_json::from_str::<Isotonic>(&text).unwrap(), f);
        for bad in [
            r#"{"scores":[],"values":[]}"#,
            r#"{"scores":[0.1,0.1],"values":[0,1]}"#,
            r#"{"scores":[0.1,0.2],"values":[1,0]}"#,
            r#"{"scores":[0.1],"values":[0,1]}"#,
        ] {
            assert!(serde_json::from_str::<Isotonic>(bad).is_err(), "{bad}");
        }
    }

    /// Scores that are the truth gain nothing; the same scores squashed do.
    #[test]
    fn helps_only_where_it_does() {
        let mut state = 7_u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let truth: Vec<f64> = (0..20_000).map(|_| uniform()).collect();
        let actual: Vec<bool> = truth.iter().map(|p| uniform() < *p).collect();
        let squashed: Vec<f64> = truth.iter().map(|p| 0.4 + p / 5.0).collect();
        assert!(calibration_helps(&squashed, &actual).unwrap());
        assert!(!calibration_helps(&truth, &[true].repeat(20_000)).unwrap());
        let separated: Vec<f64> = actual.iter().map(|y| if *y { 0.7 } else { 0.3 }).collect();
        assert!(!calibration_helps(&separated, &actual).unwrap());
    }
}
