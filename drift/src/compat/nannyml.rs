//! NannyML 0.13: its bins, and its estimates for large references.
//!
//! Same as native or SciPy, and so not repeated: L-infinity, and chi-square
//! ([`super::scipy::chi2_contingency`]). NannyML alarms when a distance leaves mean ± 3 standard
//! deviations over reference chunks, except for chi-square and its p-value of 0.05.

use super::numpy;
use crate::distance::{LogBase, Pair};
use crate::error::{Side, StatisticsError};
use crate::sample::Samples;

/// From this many reference rows on, NannyML estimates Kolmogorov-Smirnov and Wasserstein.
pub const ESTIMATED_ROWS_MIN: usize = 10_000;
/// Bins of those estimates.
const ESTIMATE_BINS: usize = 10_000;

/// Counts of both sides in NannyML's bins. What the reference's bins do not hold is in one bin more.
#[derive(Clone, Debug, PartialEq)]
pub struct Binned {
    reference: Vec<u64>,
    current: Vec<u64>,
}

impl Binned {
    /// A continuous column: Doane's bins over the reference.
    ///
    /// # Errors
    /// [`StatisticsError::Empty`] and [`StatisticsError::NonFinite`] as [`Samples::new`], and when Doane's
    /// rule asks for too many bins.
    pub fn of_numbers(reference: &[f64], current: &[f64]) -> Result<Self, StatisticsError> {
        check(reference, Side::Reference)?;
        check(current, Side::Current)?;
        let edges = numpy::doane_edges(reference)?;
        let counts = |values: &[f64]| {
            let mut counts = numpy::histogram(values, &edges);
            let outside = values.len() as u64 - counts.iter().sum::<u64>();
            counts.push(outside);
            counts
        };
        Ok(Self {
            reference: counts(reference),
            current: counts(current),
        })
    }

    /// A categorical column: categories that the reference lacks count as one.
    ///
    /// # Errors
    /// As [`Pair::new`].
    pub fn of_categories(reference: &[u64], current: &[u64]) -> Result<Self, StatisticsError> {
        Pair::new(reference, current)?;
        let unseen = reference
            .iter()
            .zip(current)
            .filter(|(r, _)| **r == 0)
            .map(|(_, c)| c)
            .sum();
        let known = reference.iter().zip(current).filter(|(r, _)| **r > 0);
        let (mut r, mut c): (Vec<u64>, Vec<u64>) = known.unzip();
        r.push(0);
        c.push(unseen);
        Ok(Self {
            reference: r,
            current: c,
        })
    }

    fn pair(&self) -> Result<Pair<'_>, StatisticsError> {
        Pair::new(&self.reference, &self.current)
    }

    /// Jensen-Shannon distance, base 2.
    ///
    /// # Errors
    /// None that a constructor has not refused already.
    pub fn jensen_shannon(&self) -> Result<f64, StatisticsError> {
        Ok(self.pair()?.jensen_shannon(LogBase::Two))
    }

    /// Hellinger distance.
    ///
    /// # Errors
    /// None that a constructor has not refused already.
    pub fn hellinger(&self) -> Result<f64, StatisticsError> {
        Ok(self.pair()?.hellinger())
    }
}

fn check(values: &[f64], side: Side) -> Result<(), StatisticsError> {
    let what = match side {
        Side::Reference => "the reference sample",
        Side::Current => "the current sample",
    };
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(StatisticsError::NonFinite { what, index });
    }
    if values.is_empty() {
        Err(StatisticsError::Empty(side))
    } else {
        Ok(())
    }
}

/// A reference on NannyML's even grid: cumulative shares after each of 10,000 bins.
struct Grid {
    edges: Vec<f64>,
    cumulative: Vec<f64>,
}

impl Grid {
    fn of(reference: &[f64]) -> Self {
        let low = reference.iter().copied().fold(f64::INFINITY, f64::min);
        let high = reference.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let edges = numpy::even_edges(low, high, ESTIMATE_BINS);
        let cumulative = cumulative(reference, &edges, 0.0);
        Self { edges, cumulative }
    }
}

/// Shares up to the end of each bin, on top of `below`.
fn cumulative(values: &[f64], edges: &[f64], below: f64) -> Vec<f64> {
    let rows = values.len() as f64;
    let mut sum = 0.0;
    numpy::histogram(values, edges)
        .into_iter()
        .map(|count| {
            sum += count as f64 / rows;
            below + sum
        })
        .collect()
}

/// NannyML's Kolmogorov-Smirnov D.
///
/// Below 10,000 reference rows it is the two-sample D; from there on the largest difference on an even
/// grid of 10,000 bins over the reference's range.
///
/// # Errors
/// [`StatisticsError::Empty`] and [`StatisticsError::NonFinite`] as [`Samples::new`].
pub fn kolmogorov_smirnov(reference: &[f64], current: &[f64]) -> Result<f64, StatisticsError> {
    check(reference, Side::Reference)?;
    check(current, Side::Current)?;
    if reference.len() < ESTIMATED_ROWS_MIN {
        return Ok(Samples::new(reference, current)?
            .pair()
            .kolmogorov_smirnov()
            .d);
    }
    let grid = Grid::of(reference);
    let below = current
        .iter()
        .filter(|&&value| value < grid.edges[0])
        .count();
    let shares = cumulative(current, &grid.edges, below as f64 / current.len() as f64);
    Ok(largest_gap(&grid.cumulative, &shares))
}

fn largest_gap(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

/// NannyML's Wasserstein-1 distance, in the unit of the values.
///
/// Below 10,000 reference rows it is the exact one; from there on the area between the two functions on
/// an even grid of 10,000 bins over the reference's range, and exactly outside it. NannyML counts the
/// reference's minimum among the rows below it when it joins both parts; so does this.
///
/// # Errors
/// [`StatisticsError::Empty`] and [`StatisticsError::NonFinite`] as [`Samples::new`].
pub fn wasserstein(reference: &[f64], current: &[f64]) -> Result<f64, StatisticsError> {
    check(reference, Side::Reference)?;
    check(current, Side::Current)?;
    if reference.len() < ESTIMATED_ROWS_MIN {
        return Samples::new(reference, current)?.wasserstein();
    }
    let grid = Grid::of(reference);
    let (low, high) = (grid.edges[0], grid.edges[ESTIMATE_BINS]);
    let rows = current.len() as f64;
    // Area below the grid: rows below, by how far; above it likewise.
    let below = current.iter().filter(|&&value| value < low);
    let count_below = below.clone().count();
    let area_below: f64 = below.map(|value| low - value).sum::<f64>() / rows;
    let area_above: f64 = current
        .iter()
        .filter(|&&value| value > high)
        .map(|value| value - high)
        .sum::<f64>()
        / rows;
    let joined = if count_below > 0 {
        (count_below + 1) as f64 / rows
    } else {
        0.0
    };
    let shares = cumulative(current, &grid.edges, joined);
    let width = grid.edges[1] - grid.edges[0];
    let within: f64 = grid
        .cumulative
        .iter()
        .zip(&shares)
        .map(|(a, b)| (a - b).abs() * width)
        .sum();
    Ok(within + area_below + area_above)
}
