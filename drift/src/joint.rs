//! Learns from training rows what the signal `joint` is computed with ([`driftline_schemas::joint`]).
//!
//! The second moments are exact: sums of products of the integers that rows travel as, so they do not depend
//! on the order of the rows. From them come means, correlations and the inverse of the Cholesky factor.
//!
//! - **Season.** Means are those of the hour of the day, and covariances are about them, where the rows have times
//!   over a week or more, rows in every hour, and enough of them; else of the whole.
//! - **Garbage.** A feature's values are taken no farther out than its own quantiles of one and of 999 in a
//!   thousand, so that a few absurd ones do not make its scale.
//! - **Features that do not vary** between those quantiles are left out: their own signals watch them.
//! - **Features that follow from others.** [`RIDGE`] is added to every variance of the correlation matrix
//!   (Hoerl and Kennard 1970), which keeps it regular: relations that are tighter than the root of it, 3 % of
//!   a standard deviation, count as that loose, and a break of such a relation is seen all the same.
//! - **Missing values.** Only rows with all of the features are taken.
//! - **Few rows.** Rows that means and covariance were learned from lie closer to them than others do, for n normal
//!   features and s slots of the season by about (n + 3 + 2 s)/rows of the distance. [`rows_needed`] keeps that below a tenth of the distance's
//!   standard deviation, a third of the smallest effect that matters.

use driftline_schemas::joint::{
    CENTER_PARTS, JOINT_FEATURES_MAX, JOINT_FORMAT, JOINT_TIES_MAX, Joint, JointFeature, Tie,
};
use driftline_schemas::profile::reference::Season;
use driftline_schemas::quantity;
use driftline_schemas::rows::Values;

/// What is added to the variance of each standardised feature.
pub const RIDGE: f64 = 1e-3;
/// One value in so many at each end does not count with its size.
const TAIL: usize = 1_000;
/// Pairs with a smaller correlation did not go together.
const TIE_MIN: f64 = 0.1;
/// How far rows that were not learned from may lie farther out, in standard deviations of the distance.
const BIAS_MAX: f64 = 0.1;

/// Why nothing can be learned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// There is nothing to look at together.
    #[error("it takes two numeric features that vary, there are {0}: pack without --joint")]
    TooFewFeatures(usize),
    /// There is too much.
    #[error(
        "it looks at no more than {JOINT_FEATURES_MAX} features together, there are {0} that vary: name the ones that matter with --joint=A,B,…"
    )]
    TooManyFeatures(usize),
    /// Few rows have all features.
    #[error(
        "{rows} rows have a value of all {features} features, it takes {needed}: give more rows, or name fewer features with --joint=A,B,…; {emptiest:?} has the fewest values"
    )]
    TooFewRows {
        /// Rows that have all.
        rows: usize,
        /// Features.
        features: usize,
        /// Rows that are needed.
        needed: usize,
        /// The feature with most values missing.
        emptiest: String,
    },
}

/// One numeric feature of the training rows.
#[derive(Debug, Clone, Copy)]
pub struct JointColumn<'a> {
    /// Name of the feature.
    pub name: &'a str,
    /// Its position among the manifest's features.
    pub at: usize,
    /// Its unit of last place.
    pub resolution: f64,
    /// One code per row.
    pub codes: &'a Values<i32>,
}

/// What was learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// What the signal is computed with.
    pub joint: Joint,
    /// Features that do not vary and were left out.
    pub left_out: Vec<String>,
    /// Rows that have all features.
    pub rows: usize,
}

/// Rows with all features that it takes for so many of them and a season.
pub fn rows_needed(features: usize, season: Season) -> usize {
    let n = features as f64;
    let means = match season {
        Season::None => 0.0,
        _ => 2.0 * season.slots() as f64,
    };
    ((n / 2.0).sqrt() * (n + 3.0 + means) / BIAS_MAX).ceil() as usize
}

/// Learns from equally long columns; `times_us` are the rows' event times, where they have some.
///
/// # Errors
/// [`LearnError`] says what is missing.
pub fn learn(columns: &[JointColumn<'_>], times_us: Option<&[i64]>) -> Result<Learned, LearnError> {
    let mut left_out = Vec::new();
    let mut kept: Vec<(JointColumn<'_>, Span)> = Vec::new();
    for column in columns {
        match Span::of(column.codes) {
            Some(span) if span.low < span.high => kept.push((*column, span)),
            _ => left_out.push(column.name.to_owned()),
        }
    }
    if kept.len() < 2 {
        return Err(LearnError::TooFewFeatures(kept.len()));
    }
    if kept.len() > JOINT_FEATURES_MAX {
        return Err(LearnError::TooManyFeatures(kept.len()));
    }
    let whole = whole_rows(&kept);
    let season = season(&whole, times_us, kept.len());
    let moments = Moments::of(&kept, &whole, season, times_us.unwrap_or_default());
    let needed = rows_needed(kept.len(), Season::None);
    let emptiest = kept.iter().min_by_key(|(_, span)| span.values);
    if let (true, Some((column, _))) = (moments.rows < needed, emptiest) {
        return Err(LearnError::TooFewRows {
            rows: moments.rows,
            features: kept.len(),
            needed,
            emptiest: column.name.to_owned(),
        });
    }
    let features = kept.iter().enumerate().map(|(at, (column, span))| {
        let center = |slot: &Slot| {
            let sum = i128::from(span.low) * slot.rows as i128 + slot.sums[at] as i128;
            nearest(sum * i128::from(CENTER_PARTS), slot.rows as i128)
        };
        JointFeature {
            name: column.name.to_owned(),
            at: column.at,
            resolution: column.resolution,
            centers: moments.slots.iter().map(center).collect(),
        }
    });
    let correlations = Correlations::of(&moments);
    Ok(Learned {
        joint: Joint {
            format: JOINT_FORMAT,
            season,
            features: features.collect(),
            weights: correlations.weights(),
            ties: correlations.ties(),
        },
        left_out,
        rows: moments.rows,
    })
}

/// `a / b`, rounded to the nearest; of a mean of codes, so it fits.
fn nearest(a: i128, b: i128) -> i64 {
    (2 * a + b).div_euclid(2 * b) as i64
}

/// Where a feature's values lie but for the tails.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    low: i32,
    high: i32,
    /// How many there are.
    values: usize,
}

impl Span {
    fn of(codes: &Values<i32>) -> Option<Self> {
        let present = codes.iter().flatten().copied();
        let mut present: Vec<i32> = present.filter(|code| quantity::is_finite(*code)).collect();
        present.sort_unstable();
        let values = present.len();
        let tail = values / TAIL;
        Some(Self {
            low: *present.get(tail)?,
            high: *present.get(values - 1 - tail)?,
            values,
        })
    }
}

/// Rows that have all features.
fn whole_rows(columns: &[(JointColumn<'_>, Span)]) -> Vec<usize> {
    let rows = columns.first().map_or(0, |(column, _)| column.codes.len());
    let finite = |row: usize, column: &JointColumn<'_>| {
        let code = column.codes.get(row);
        code.is_some_and(|code| quantity::is_finite(*code))
    };
    (0..rows)
        .filter(|row| columns.iter().all(|(column, _)| finite(*row, column)))
        .collect()
}

/// The season whose means can be told from so many features of these rows: hours of the day at the finest,
/// since hours of the week recur but a few times.
fn season(whole: &[usize], times_us: Option<&[i64]>, features: usize) -> Season {
    let times = || whole.iter().filter_map(|row| times_us?.get(*row).copied());
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return Season::None;
    };
    let rows = |season: Season| {
        let mut rows = vec![0; season.slots()];
        times().for_each(|time| rows[season.slot(time)] += 1);
        rows
    };
    match Season::suitable(last.saturating_sub(first), rows).0 {
        Season::None => Season::None,
        _ if whole.len() < rows_needed(features, Season::HourOfDay) => Season::None,
        _ => Season::HourOfDay,
    }
}

/// Exact sums over the rows of one slot of the season, each value less the least of its feature.
#[derive(Debug)]
struct Slot {
    rows: usize,
    sums: Vec<u128>,
    /// Sums of products, row j with j + 1 of them.
    products: Vec<Vec<u128>>,
}

impl Slot {
    fn of(columns: &[(JointColumn<'_>, Span)], rows: &[usize]) -> Self {
        let above: Vec<Vec<u64>> = columns
            .iter()
            .map(|(column, span)| {
                let codes = rows.iter().map(|row| column.codes.values[*row]);
                codes
                    .map(|code| u64::from(code.clamp(span.low, span.high).abs_diff(span.low)))
                    .collect()
            })
            .collect();
        let products = above.iter().enumerate().map(|(at, column)| {
            let others = above[..=at].iter();
            others.map(|other| product(column, other)).collect()
        });
        Self {
            rows: rows.len(),
            sums: above
                .iter()
                .map(|column| column.iter().map(|value| u128::from(*value)).sum())
                .collect(),
            products: products.collect(),
        }
    }

    /// Sum of the products of two features (a ≥ b) about their means, in squared codes.
    fn about(&self, a: usize, b: usize) -> f64 {
        // Values are below 2^32 and rows as well, so this stays below 2^128.
        let (whole, apart) = (
            self.products[a][b] * self.rows as u128,
            self.sums[a] * self.sums[b],
        );
        let difference = whole.abs_diff(apart) as f64;
        difference.copysign(if whole < apart { -1.0 } else { 1.0 }) / self.rows as f64
    }
}

/// Moments of the rows that have all features.
#[derive(Debug)]
struct Moments {
    rows: usize,
    slots: Vec<Slot>,
}

impl Moments {
    /// Every slot of the season has rows.
    fn of(
        columns: &[(JointColumn<'_>, Span)],
        whole: &[usize],
        season: Season,
        times_us: &[i64],
    ) -> Self {
        let mut rows = vec![Vec::new(); season.slots()];
        for row in whole {
            let time = times_us.get(*row).copied().unwrap_or_default();
            rows[season.slot(time)].push(*row);
        }
        Self {
            rows: whole.len(),
            slots: rows.iter().map(|rows| Slot::of(columns, rows)).collect(),
        }
    }

    /// Covariance of two features (a ≥ b) about the means of the season, in squared codes.
    fn covariance(&self, a: usize, b: usize) -> f64 {
        let sum: f64 = self.slots.iter().map(|slot| slot.about(a, b)).sum();
        sum / self.rows as f64
    }
}

/// Sum of the products of two columns, exactly.
fn product(a: &[u64], b: &[u64]) -> u128 {
    let greatest = |column: &[u64]| column.iter().copied().max().unwrap_or(0);
    // Values are below 2^32, so one product always fits.
    let most = u128::from(greatest(a)) * u128::from(greatest(b)) * a.len() as u128;
    let pairs = a.iter().zip(b).map(|(a, b)| a * b);
    match u64::try_from(most) {
        Ok(_) => u128::from(pairs.sum::<u64>()),
        Err(_) => pairs.map(u128::from).sum(),
    }
}

/// The correlation matrix, row j with j + 1 entries, and the standard deviations, in codes.
#[derive(Debug)]
struct Correlations {
    matrix: Vec<Vec<f64>>,
    deviations: Vec<f64>,
}

impl Correlations {
    fn of(moments: &Moments) -> Self {
        let count = moments.slots.first().map_or(0, |slot| slot.sums.len());
        let deviations: Vec<f64> = (0..count)
            .map(|at| moments.covariance(at, at).sqrt())
            .collect();
        let entry = |a: usize, b: usize| match deviations[a] * deviations[b] {
            // A feature that varies only where another is missing, or with the hour alone.
            none if none <= 0.0 => f64::from(u8::from(a == b)),
            both => moments.covariance(a, b) / both,
        };
        Self {
            matrix: (0..count)
                .map(|a| (0..=a).map(|b| entry(a, b)).collect())
                .collect(),
            deviations,
        }
    }

    /// Inverse of the Cholesky factor of the matrix with the ridge, by codes in parts of their unit.
    fn weights(&self) -> Vec<Vec<f32>> {
        let count = self.matrix.len();
        let mut factor: Vec<Vec<f64>> = Vec::with_capacity(count);
        let mut inverse: Vec<Vec<f64>> = Vec::with_capacity(count);
        for a in 0..count {
            let mut row = vec![0.0; a + 1];
            for b in 0..a {
                let known: f64 = (0..b).map(|k| row[k] * factor[b][k]).sum();
                row[b] = (self.matrix[a][b] - known) / factor[b][b];
            }
            let known: f64 = row[..a].iter().map(|it| it * it).sum();
            // At least the ridge, but for rounding.
            let pivot = (1.0 + RIDGE - known).max(RIDGE).sqrt();
            row[a] = pivot;
            let mut of = vec![0.0; a + 1];
            for (b, of) in of.iter_mut().enumerate().take(a) {
                *of = -(b..a).map(|k| row[k] * inverse[k][b]).sum::<f64>() / pivot;
            }
            of[a] = 1.0 / pivot;
            factor.push(row);
            inverse.push(of);
        }
        let unit = |at: usize| match self.deviations[at] {
            none if none <= 0.0 => 0.0,
            deviation => 1.0 / (deviation * CENTER_PARTS as f64),
        };
        inverse
            .into_iter()
            .map(|row| {
                let row = row.iter().enumerate();
                row.map(|(at, weight)| (weight * unit(at)) as f32).collect()
            })
            .collect()
    }

    fn ties(&self) -> Vec<Tie> {
        let pairs = self.matrix.iter().enumerate().flat_map(|(b, row)| {
            let others = row.iter().take(b).enumerate();
            others.map(move |(a, correlation)| Tie {
                a,
                b,
                correlation: (correlation * 1e3).round() / 1e3,
            })
        });
        let mut ties: Vec<Tie> = pairs
            .filter(|tie| tie.correlation.abs() >= TIE_MIN)
            .collect();
        ties.sort_by(|x, y| {
            let closest = y.correlation.abs().total_cmp(&x.correlation.abs());
            closest.then((x.a, x.b).cmp(&(y.a, y.b)))
        });
        ties.truncate(JOINT_TIES_MAX);
        ties
    }
}

#[cfg(test)]
mod tests;
