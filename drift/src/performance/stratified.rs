//! Estimates for an estate from probes that are not spread like it.
//!
//! Post-stratification (Holt and Smith 1979): with the estate's share W_h of each stratum known and
//! n_h probe rows in it with mean ȳ_h and variance s_h², the estimate is Σ W_h ȳ_h with variance
//! Σ W_h² s_h²/n_h. Strata without probes are named, and widen the interval to whatever they could
//! hold.

use serde::{Deserialize, Serialize};

use super::PerformanceError;
use super::interval::{Estimate, Interval, two_sided_z};

/// Probe rows of one stratum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    /// What the stratum is, for people.
    pub name: String,
    /// Its part of the estate; shares are divided by their sum.
    pub share: f64,
    /// Effective probe rows in it (rows over their design effect).
    pub rows: f64,
    /// Mean of the metric over them.
    pub mean: f64,
    /// Variance of the metric over them, one row.
    pub variance: f64,
}

/// A post-stratified estimate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostStratified {
    /// Mean over the strata that have probes, and its standard error.
    pub covered: Estimate,
    /// Rows that simple random rows would be worth.
    pub effective_rows: f64,
    /// Strata without probes.
    pub missing: Vec<String>,
    /// Their part of the estate.
    pub missing_share: f64,
}

impl PostStratified {
    /// Interval for the whole estate, when the metric lies in `bounds`: the covered part's normal
    /// interval, and the missing part anywhere.
    ///
    /// # Errors
    /// A confidence outside of (0, 1).
    pub fn interval(
        &self,
        confidence: f64,
        bounds: Interval,
    ) -> Result<Interval, PerformanceError> {
        let reach = two_sided_z(confidence)? * self.covered.standard_error;
        let covered = 1.0 - self.missing_share;
        let at = |inside: f64, outside: f64| covered * inside + self.missing_share * outside;
        let value = self.covered.value;
        Ok(Interval {
            low: at((value - reach).max(bounds.low), bounds.low),
            high: at((value + reach).min(bounds.high), bounds.high),
        })
    }
}

/// Estimates the mean over the estate. None when no stratum has probes.
pub fn post_stratify(strata: &[Stratum]) -> Option<PostStratified> {
    let total: f64 = strata.iter().map(|s| s.share).sum();
    let (covered, missing): (Vec<_>, Vec<_>) = strata.iter().partition(|s| s.rows > 0.0);
    let share: f64 = covered.iter().map(|s| s.share).sum();
    if share <= 0.0 {
        return None;
    }
    let weight = |s: &Stratum| s.share / share;
    let value = covered.iter().map(|s| weight(s) * s.mean).sum();
    let variance: f64 = covered
        .iter()
        .map(|s| weight(s).powi(2) * s.variance / s.rows)
        .sum();
    let squares: f64 = covered.iter().map(|s| weight(s).powi(2) / s.rows).sum();
    Some(PostStratified {
        covered: Estimate {
            value,
            standard_error: variance.sqrt(),
        },
        effective_rows: 1.0 / squares,
        missing: missing.iter().map(|s| s.name.clone()).collect(),
        missing_share: missing.iter().map(|s| s.share).sum::<f64>() / total,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stratum(name: &str, share: f64, rows: f64, mean: f64) -> Stratum {
        Stratum {
            name: name.to_owned(),
            share,
            rows,
            mean,
            variance: mean * (1.0 - mean),
        }
    }

    /// Probes spread like the estate are worth their number; spread otherwise, less.
    #[test]
    fn effective_rows() {
        let even = post_stratify(&[stratum("a", 3.0, 75.0, 0.9), stratum("b", 1.0, 25.0, 0.5)]);
        let even = even.unwrap();
        assert!((even.effective_rows - 100.0).abs() < 1e-9);
        assert!((even.covered.value - 0.8).abs() < 1e-15);
        let odd = post_stratify(&[stratum("a", 3.0, 25.0, 0.9), stratum("b", 1.0, 75.0, 0.5)]);
        assert!(odd.unwrap().effective_rows < 50.0);
    }

    /// A stratum without probes is named, and its share of the interval is everything it could be.
    #[test]
    fn missing_stratum_widens() {
        let strata = [
            stratum("seen", 0.8, 1e12, 0.5),
            stratum("unseen", 0.2, 0.0, 0.0),
        ];
        let estimate = post_stratify(&strata).unwrap();
        assert_eq!(estimate.missing, ["unseen"]);
        let unit = Interval {
            low: 0.0,
            high: 1.0,
        };
        let interval = estimate.interval(0.95, unit).unwrap();
        assert!((interval.low - 0.4).abs() < 1e-5 && (interval.high - 0.6).abs() < 1e-5);
        assert_eq!(post_stratify(&strata[1..]), None);
    }
}
