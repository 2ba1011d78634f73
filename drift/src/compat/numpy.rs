//! Bin edges, histograms and quantiles by NumPy's rules. Empty and non-finite input is refused where a
//! sample enters; these helpers expect finite values.

use crate::error::StatisticsError;

/// A guard: more bins than this from one of the rules means that one value dwarfs all others.
const BINS_MAX: f64 = 1e7;

fn range(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
            (low.min(value), high.max(value))
        })
}

/// `bins` + 1 evenly spaced edges from `low` to `high` (`linspace`); a range of no width is widened by
/// ½ to both sides.
#[must_use]
pub fn even_edges(low: f64, high: f64, bins: usize) -> Vec<f64> {
    let (low, high) = if low == high {
        (low - 0.5, high + 0.5)
    } else {
        (low, high)
    };
    let step = (high - low) / bins as f64;
    let mut edges: Vec<f64> = (0..=bins).map(|i| i as f64 * step + low).collect();
    edges[bins] = high;
    edges
}

fn edges_of_width(values: &[f64], width: f64, whole: bool) -> Result<Vec<f64>, StatisticsError> {
    let (low, high) = range(values);
    // NumPy's outer edges of a constant are half a unit away, but the width is that of the data.
    let span = if low == high { 1.0 } else { high - low };
    let bins = if width > 0.0 {
        (span / if whole { width.max(1.0) } else { width }).ceil()
    } else {
        1.0
    };
    if bins.is_nan() || bins > BINS_MAX {
        return Err(StatisticsError::BadParameter {
            parameter: "number of bins",
            value: bins,
            allowed: "up to ten million",
        });
    }
    Ok(even_edges(low, high, bins as usize))
}

/// Edges by Sturges' rule, range / (1 + log₂ n) wide. `whole` says that the column holds integers, for
/// which NumPy makes no bin narrower than 1.
///
/// # Errors
/// [`StatisticsError::BadParameter`] when the rule asks for more than ten million bins.
pub fn sturges_edges(values: &[f64], whole: bool) -> Result<Vec<f64>, StatisticsError> {
    let (low, high) = range(values);
    edges_of_width(
        values,
        (high - low) / ((values.len() as f64).log2() + 1.0),
        whole,
    )
}

/// Edges by Doane's rule: Sturges' with more bins for skewed values.
///
/// # Errors
/// [`StatisticsError::BadParameter`] when the rule asks for more than ten million bins.
pub fn doane_edges(values: &[f64]) -> Result<Vec<f64>, StatisticsError> {
    let n = values.len() as f64;
    let (low, high) = range(values);
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let deviation = variance.sqrt();
    let width = if n > 2.0 && deviation > 0.0 {
        let spread = (6.0 * (n - 2.0) / ((n + 1.0) * (n + 3.0))).sqrt();
        let skewness = values
            .iter()
            .map(|x| ((x - mean) / deviation).powi(3))
            .sum::<f64>()
            / n;
        (high - low) / (1.0 + n.log2() + (1.0 + skewness.abs() / spread).log2())
    } else {
        0.0
    };
    edges_of_width(values, width, false)
}

/// Counts between ascending edges: bin i holds edge i ≤ value < edge i + 1, the last one its upper
/// edge too. Values outside are not counted.
#[must_use]
pub fn histogram(values: &[f64], edges: &[f64]) -> Vec<u64> {
    let bins = edges.len().saturating_sub(1);
    let mut counts = vec![0; bins];
    let Some(&last) = edges.last() else {
        return counts;
    };
    for &value in values {
        if value == last && bins > 0 {
            counts[bins - 1] += 1;
            continue;
        }
        let bin = edges.partition_point(|&edge| edge <= value);
        if (1..=bins).contains(&bin) {
            counts[bin - 1] += 1;
        }
    }
    counts
}

/// Quantile p in [0, 1] of ascending values, by linear interpolation between order statistics (the
/// default of `quantile` and `percentile`). 0 for no values.
#[must_use]
pub fn quantile(ascending: &[f64], p: f64) -> f64 {
    let Some(top) = ascending.len().checked_sub(1) else {
        return 0.0;
    };
    let place = p.clamp(0.0, 1.0) * top as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(top);
    let (a, b) = (ascending[below], ascending[above]);
    let t = place - below as f64;
    // From the nearer end, as NumPy does to stay within both.
    if t >= 0.5 {
        b - (b - a) * (1.0 - t)
    } else {
        a + (b - a) * t
    }
}

/// Inner edges at the quantiles 1/bins … (bins − 1)/bins of ascending values, with −∞ and +∞ outside:
/// bins of about equal share that nothing falls out of. Repeated quantiles give one edge.
#[must_use]
pub fn quantile_edges(ascending: &[f64], bins: usize) -> Vec<f64> {
    let mut edges = vec![f64::NEG_INFINITY];
    for i in 1..bins {
        let edge = quantile(ascending, i as f64 / bins as f64);
        if edges.last().is_some_and(|&before| edge > before) {
            edges.push(edge);
        }
    }
    edges.push(f64::INFINITY);
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_belong_to_the_bin_above_them_but_the_last() {
        let counts = histogram(&[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, -0.1], &[0.0, 1.0, 2.0]);
        assert_eq!(counts, [2, 3]);
        let counts = histogram(
            &[-1e300, 0.0, 5.0],
            &[f64::NEG_INFINITY, 0.0, f64::INFINITY],
        );
        assert_eq!(counts, [1, 2]);
        assert_eq!(histogram(&[1.0], &[]), Vec::<u64>::new());
    }

    /// NumPy 2.4: `histogram_bin_edges` of these.
    #[test]
    fn rules_by_numpy() {
        let values = [1.0, 2.0, 2.5, 4.0, 9.0];
        // ceil(1 + log2 5) = 4 bins
        assert_eq!(
            sturges_edges(&values, false).unwrap(),
            [1.0, 3.0, 5.0, 7.0, 9.0]
        );
        assert_eq!(sturges_edges(&[3.0; 4], false).unwrap(), [2.5, 3.5]);
        let whole = [0.0, 1.0, 2.0, 2.0, 1.0, 0.0, 1.0, 1.0];
        assert_eq!(sturges_edges(&whole, true).unwrap(), [0.0, 1.0, 2.0]);
        assert_eq!(sturges_edges(&whole, false).unwrap().len(), 5);
        assert_eq!(doane_edges(&[3.0; 4]).unwrap(), [2.5, 3.5]);
        assert_eq!(doane_edges(&values).unwrap().len(), 6);
    }

    #[test]
    fn quantiles() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&values, 0.5), 3.0);
        assert_eq!(quantile(&values, 1.0), 8.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(
            quantile_edges(&[1.0, 1.0, 1.0, 5.0], 4),
            [f64::NEG_INFINITY, 1.0, 2.0, f64::INFINITY]
        );
    }
}
