//! What both sides of a comparison hold in one column.

use super::sketch::{Binned, Cuts};
use crate::compat::numpy;
use crate::distance::Pair;
use crate::error::{Side, StatisticsError};
use crate::hypothesis::Moments;
use crate::sample::Samples;

/// Bins of numbers that distances between shares are taken on: the reference's deciles.
pub(super) const SHARE_BINS: usize = 10;
/// Effective rows that a bin of weighted numbers holds at least, so that rounding to whole rows is
/// small beside chance.
const WEIGHTED_BIN_ROWS_MIN: f64 = 8.0;

/// Something of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sides<T> {
    /// Of the reference.
    pub reference: T,
    /// Of the present.
    pub current: T,
}

/// A column of both tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Rows, with or without a value. Where rows have weights all counts are effective ones.
    pub rows: Sides<u64>,
    /// Rows without a value.
    pub missing: Sides<u64>,
    /// Rows whose value is NaN or infinite.
    pub not_finite: Sides<u64>,
    /// The values.
    pub values: Values,
}

/// The values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Finite numbers.
    Numbers(Numbers),
    /// Categories.
    Categories(Categories),
}

/// Finite numbers of both sides, in ascending bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// Where the rows of each bin lie.
    pub points: Vec<f64>,
    /// Whether a bin holds a single value.
    pub is_value: Vec<bool>,
    /// Rows in each bin.
    pub counts: Sides<Vec<u64>>,
    /// The bin at which each share bin (a tenth of the reference) begins; the first is 0.
    pub share_bins: Vec<usize>,
    /// Moments of the values.
    pub moments: Sides<Moments>,
    /// The values themselves in their order, where they were kept.
    pub raw: Option<Sides<Vec<f64>>>,
}

/// Categories of both sides.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Categories {
    /// Their names.
    pub names: Vec<String>,
    /// Rows of each.
    pub counts: Sides<Vec<u64>>,
    /// The category of every row in its order, where that was kept.
    pub codes: Option<Sides<Vec<u32>>>,
}

impl<T> Sides<T> {
    /// Of both.
    pub fn new(reference: T, current: T) -> Self {
        Self { reference, current }
    }

    /// The same as references.
    pub fn as_ref(&self) -> Sides<&T> {
        Sides::new(&self.reference, &self.current)
    }

    /// What a function makes of both.
    pub fn map<U>(self, mut of: impl FnMut(T) -> U) -> Sides<U> {
        Sides::new(of(self.reference), of(self.current))
    }
}

impl Sides<u64> {
    /// Of both together.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.reference + self.current
    }
}

impl Numbers {
    /// Every value, a bin each. A side may be empty.
    ///
    /// # Errors
    /// [`StatisticsError::NonFinite`]: count such values apart.
    pub fn of_values(reference: Vec<f64>, current: Vec<f64>) -> Result<Self, StatisticsError> {
        let moments = Sides::new(
            Moments::from_values(&reference)?,
            Moments::from_values(&current)?,
        );
        // An empty side has no distribution, but the other's values are still worth showing.
        let (values, counts) = match (reference.is_empty(), current.is_empty()) {
            (false, false) => {
                let samples = Samples::new(&reference, &current)?;
                let pair = samples.pair();
                let counts = Sides::new(pair.reference().to_vec(), pair.current().to_vec());
                (samples.values().to_vec(), counts)
            }
            (true, true) => (Vec::new(), Sides::default()),
            (empty, _) => {
                let side = if empty { &current } else { &reference };
                let samples = Samples::new(side, side)?;
                let counts = samples.pair().reference().to_vec();
                let none = vec![0; counts.len()];
                let counts = match empty {
                    true => Sides::new(none, counts),
                    false => Sides::new(counts, none),
                };
                (samples.values().to_vec(), counts)
            }
        };
        let mut ascending = reference.clone();
        ascending.sort_unstable_by(f64::total_cmp);
        let edges = match ascending.is_empty() {
            true => Vec::new(),
            false => numpy::quantile_edges(&ascending, SHARE_BINS),
        };
        Ok(Self {
            is_value: vec![true; values.len()],
            share_bins: begins(&edges, |edge| values.partition_point(|value| *value < edge)),
            points: values,
            counts,
            moments,
            raw: Some(Sides::new(reference, current)),
        })
    }

    /// Counts between cuts.
    #[must_use]
    pub fn of_bins(cuts: &Cuts, binned: Sides<&Binned>, moments: Sides<Moments>) -> Self {
        let (r, c) = (binned.reference, binned.current);
        Self {
            points: cuts.points(r, c),
            is_value: cuts.is_value().to_vec(),
            counts: Sides::new(r.counts().to_vec(), c.counts().to_vec()),
            share_bins: begins(cuts.share_edges(), |edge| cuts.bin(edge)),
            moments,
            raw: None,
        }
    }

    /// Weights between cuts, as the rows that they are worth: shares times (Σw)² / Σw² (Kish 1965) in bins
    /// of eight such rows or more. Tests on these are approximate.
    #[must_use]
    pub fn of_weights(cuts: &Cuts, binned: Sides<&Binned>) -> Self {
        let worth = binned.map(Binned::effective_rows);
        let total = binned.map(|it| it.weights().iter().sum::<f64>());
        let share = |side: &Binned, bin: usize, total: f64, worth: f64| match total > 0.0 {
            true => side.weights()[bin] / total * worth,
            false => 0.0,
        };
        let none = Moments::from_sums(0, 0, 0, 1.0);
        let fine = Self::of_bins(cuts, binned, Sides::new(none, none));
        let mut this = Self {
            points: Vec::new(),
            is_value: Vec::new(),
            counts: Sides::default(),
            share_bins: Vec::new(),
            ..fine.clone()
        };
        let (mut rows, mut place, mut begin) = (Sides::<f64>::default(), 0.0, 0);
        // What rounding took from earlier bins, so that the sums keep.
        let mut rest = Sides::<f64>::default();
        for bin in 0..fine.points.len() {
            let r = share(binned.reference, bin, total.reference, worth.reference);
            let c = share(binned.current, bin, total.current, worth.current);
            rows.reference += r;
            rows.current += c;
            place += fine.points[bin] * (r + c);
            let both = rows.reference + rows.current;
            let ends = bin + 1 == fine.points.len() || fine.share_bins.contains(&(bin + 1));
            if both < WEIGHTED_BIN_ROWS_MIN && !ends {
                continue;
            }
            if fine.share_bins.contains(&begin) {
                this.share_bins.push(this.points.len());
            }
            let point = if both > 0.0 {
                place / both
            } else {
                fine.points[bin]
            };
            this.points.push(point);
            this.is_value.push(begin == bin && fine.is_value[bin]);
            let whole = |rows: f64, rest: &mut f64| {
                let rounded = (rows + *rest).round().max(0.0);
                *rest += rows - rounded;
                rounded as u64
            };
            let (r, c) = (rows.reference, rows.current);
            this.counts.reference.push(whole(r, &mut rest.reference));
            this.counts.current.push(whole(c, &mut rest.current));
            (rows, place, begin) = (Sides::default(), 0.0, bin + 1);
        }
        let points = &this.points;
        this.moments = this
            .counts
            .as_ref()
            .map(|counts| moments_of(points, counts));
        this
    }

    /// The finest counts.
    ///
    /// # Errors
    /// [`StatisticsError::Empty`] when a side has no values.
    pub fn pair(&self) -> Result<Pair<'_>, StatisticsError> {
        Pair::new(&self.counts.reference, &self.counts.current)
    }

    /// Counts in the reference's deciles.
    #[must_use]
    pub fn shares(&self) -> Sides<Vec<u64>> {
        self.counts.as_ref().map(|counts| {
            let ends = self.share_bins.iter().skip(1).copied();
            let ends = ends.chain([counts.len()]);
            let ranges = self.share_bins.iter().zip(ends);
            ranges
                .map(|(begin, end)| counts[*begin..end].iter().sum())
                .collect()
        })
    }
}

/// Moments of rows that lie at their bins' points.
fn moments_of(points: &[f64], counts: &[u64]) -> Moments {
    let rows: u64 = counts.iter().sum();
    let n = (rows as f64).max(1.0);
    let placed = || points.iter().zip(counts).map(|(x, c)| (*x, *c as f64));
    let mean = placed().map(|(x, c)| x * (c / n)).sum::<f64>();
    let squares = placed()
        .map(|(x, c)| (x - mean) * (x - mean) * c)
        .sum::<f64>();
    Moments {
        rows,
        mean,
        variance: if rows > 1 { squares / (n - 1.0) } else { 0.0 },
    }
}

/// The bins at which share bins begin, by inner edges; those that begin nowhere new are dropped.
fn begins(edges: &[f64], bin: impl Fn(f64) -> usize) -> Vec<usize> {
    let inner = edges.iter().copied().filter(|edge| edge.is_finite());
    let mut begins: Vec<usize> = std::iter::once(0).chain(inner.map(bin)).collect();
    begins.dedup();
    begins
}

impl Categories {
    /// The counts.
    ///
    /// # Errors
    /// [`StatisticsError::Empty`] when a side has no values.
    pub fn pair(&self) -> Result<Pair<'_>, StatisticsError> {
        Pair::new(&self.counts.reference, &self.counts.current)
    }
}

impl Column {
    /// Whether both sides have values to compare.
    #[must_use]
    pub fn has_values(&self) -> bool {
        let (reference, current) = match &self.values {
            Values::Numbers(it) => (&it.counts.reference, &it.counts.current),
            Values::Categories(it) => (&it.counts.reference, &it.counts.current),
        };
        reference.iter().any(|count| *count > 0) && current.iter().any(|count| *count > 0)
    }

    /// Distinct values or categories of the reference, as far as bins tell them apart.
    #[must_use]
    pub fn reference_distinct(&self) -> usize {
        let counts = match &self.values {
            Values::Numbers(it) => &it.counts.reference,
            Values::Categories(it) => &it.counts.reference,
        };
        counts.iter().filter(|count| **count > 0).count()
    }

    /// The values' counts in share bins, which distances between shares are taken on.
    ///
    /// # Errors
    /// [`StatisticsError::Empty`] when a side has no values.
    pub fn shares(&self) -> Result<Sides<Vec<u64>>, StatisticsError> {
        let shares = match &self.values {
            Values::Numbers(it) => it.shares(),
            Values::Categories(it) => it.counts.clone(),
        };
        for (counts, side) in [
            (&shares.reference, Side::Reference),
            (&shares.current, Side::Current),
        ] {
            crate::distance::rows(counts, side)?;
        }
        Ok(shares)
    }
}
