//! Files that do not fit in memory: a bounded sample of a column, its running moments, and counts in
//! bins whose cuts the samples of both sides fix.

use crate::compat::numpy;
use crate::hypothesis::Moments;
use crate::random::Random;

use super::column::{SHARE_BINS, Sides};

/// Values up to which every one has its own bin.
const VALUES_MAX: usize = 512;
/// Bins that quantiles of the samples cut.
const BINS: usize = 1024;
/// A value that is at least this share of the samples has its own bin.
const HEAVY_SHARE: f64 = 1.0 / 256.0;
/// Values that moments are taken of at once: they stay in the first cache between two looks.
const BLOCK: usize = 1024;

/// A uniform sample of a stream in one pass and bounded memory (Li, "Reservoir-sampling algorithms of
/// time complexity O(n(1 + log(N/n)))", ACM TOMS 20, 1994, algorithm L). As long as nothing had to be
/// left out it is the stream itself, in order. The draws have a fixed seed: the same stream gives the same
/// sample.
#[derive(Clone, Debug)]
pub struct Reservoir {
    values: Vec<f64>,
    capacity: usize,
    seen: u64,
    /// Position of the next value that replaces one, once the sample is full.
    next: u64,
    w: f64,
    random: Random,
}

impl Reservoir {
    /// A sample of at most `capacity` values.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let mut this = Self {
            values: Vec::new(),
            capacity,
            seen: 0,
            next: capacity as u64 - 1,
            w: 1.0,
            random: Random::new(0x5EED),
        };
        this.skip();
        this
    }

    /// Takes the next values.
    pub fn extend(&mut self, values: &[f64]) {
        let room = self.capacity - self.values.len();
        let (kept, rest) = values.split_at(room.min(values.len()));
        self.values.extend_from_slice(kept);
        let begin = self.seen + kept.len() as u64;
        self.seen += values.len() as u64;
        while self.next < self.seen {
            let at = (self.random.uniform() * self.capacity as f64) as usize;
            // A full sample is what `next` counts from, so it lies in the rest.
            self.values[at.min(self.capacity - 1)] = rest[(self.next - begin) as usize];
            self.skip();
        }
    }

    /// Jumps to the next value that is taken.
    fn skip(&mut self) {
        self.w *= (self.random.uniform().ln() / self.capacity as f64).exp();
        let jump = (self.random.uniform().ln() / (-self.w).ln_1p()).floor();
        self.next = self.next.saturating_add(jump as u64).saturating_add(1);
    }

    /// Whether the sample is the whole stream, in order.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.seen <= self.capacity as u64
    }

    /// The sample.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The sample, given away.
    #[must_use]
    pub fn into_values(self) -> Vec<f64> {
        self.values
    }
}

/// Count, mean, variance and range of a stream of finite numbers, in blocks (Chan, Golub and LeVeque
/// 1979).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Running {
    rows: u64,
    mean: f64,
    squares: f64,
    /// Smallest value; infinite before there is one.
    pub min: f64,
    /// Largest value; infinite before there is one.
    pub max: f64,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            rows: 0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Running {
    /// Takes the next values, all finite.
    pub fn extend(&mut self, values: &[f64]) {
        for block in values.chunks(BLOCK) {
            let n = block.len() as f64;
            let mean = block.iter().sum::<f64>() / n;
            let squares: f64 = block.iter().map(|x| (x - mean) * (x - mean)).sum();
            let (before, all) = (self.rows as f64, self.rows as f64 + n);
            let gap = mean - self.mean;
            self.squares += squares + gap * gap * (before * n / all);
            self.mean += gap * (n / all);
            self.rows += block.len() as u64;
            for &x in block {
                self.min = self.min.min(x);
                self.max = self.max.max(x);
            }
        }
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// As moments.
    #[must_use]
    pub fn moments(&self) -> Moments {
        let variance = match self.rows > 1 {
            true => self.squares / (self.rows - 1) as f64,
            false => 0.0,
        };
        Moments {
            rows: self.rows,
            mean: self.mean,
            variance,
        }
    }
}

/// Where bins are cut: bin i holds cut i − 1 ≤ value < cut i, the outer ones are open.
#[derive(Clone, Debug, PartialEq)]
pub struct Cuts {
    cuts: Vec<f64>,
    is_value: Vec<bool>,
    share_edges: Vec<f64>,
}

impl Cuts {
    /// From samples of both sides: a bin for every value if there are at most 512, else 1,024 bins of about
    /// equal share, with values that recur and the reference's deciles cut out.
    #[must_use]
    pub fn new(samples: Sides<&[f64]>) -> Self {
        let mut reference = samples.reference.to_vec();
        reference.sort_unstable_by(f64::total_cmp);
        let mut pooled = [samples.reference, samples.current].concat();
        pooled.sort_unstable_by(f64::total_cmp);
        let runs: Vec<&[f64]> = pooled.chunk_by(|a, b| a == b).collect();
        let heavy = match runs.len() <= VALUES_MAX {
            true => 0.0,
            false => pooled.len() as f64 * HEAVY_SHARE,
        };
        let heavy = runs.iter().filter(|run| run.len() as f64 >= heavy.max(1.0));
        // next_up of the largest number is infinite, which cuts nothing off.
        let own: Vec<f64> = heavy.map(|run| run[0]).collect();
        let mut cuts: Vec<f64> = own.iter().flat_map(|x| [*x, x.next_up()]).collect();
        if runs.len() > VALUES_MAX {
            cuts.extend((1..BINS).map(|i| pooled[i * pooled.len() / BINS]));
        }
        let share_edges: Vec<f64> = match reference.is_empty() {
            true => Vec::new(),
            false => numpy::quantile_edges(&reference, SHARE_BINS),
        };
        cuts.extend(&share_edges);
        cuts.retain(|cut| cut.is_finite());
        cuts.sort_unstable_by(f64::total_cmp);
        cuts.dedup();
        let mut this = Self {
            is_value: vec![false; cuts.len() + 1],
            cuts,
            share_edges,
        };
        for value in own {
            let bin = this.bin(value);
            this.is_value[bin] = true;
        }
        this
    }

    /// The bin of a value.
    #[must_use]
    pub fn bin(&self, value: f64) -> usize {
        self.cuts.partition_point(|cut| *cut <= value)
    }

    /// Number of bins.
    #[must_use]
    pub fn bins(&self) -> usize {
        self.is_value.len()
    }

    pub(super) fn is_value(&self) -> &[bool] {
        &self.is_value
    }

    pub(super) fn share_edges(&self) -> &[f64] {
        &self.share_edges
    }

    /// Where each bin's rows lie: their mean, or the bin's edge where it holds none.
    pub(super) fn points(&self, reference: &Binned, current: &Binned) -> Vec<f64> {
        let mut points: Vec<f64> = (0..self.bins())
            .map(|bin| {
                let rows = (reference.counts[bin] + current.counts[bin]) as f64;
                let (low, high) = (
                    bin.checked_sub(1).map(|at| self.cuts[at]),
                    self.cuts.get(bin),
                );
                let edge = low.or(high.copied()).unwrap_or(0.0);
                match rows > 0.0 {
                    true => (reference.sums[bin] + current.sums[bin]) / rows,
                    false => edge,
                }
            })
            .collect();
        // Means are within their bins but for rounding.
        for at in 1..points.len() {
            points[at] = points[at].max(points[at - 1]);
        }
        points
    }
}

/// Counts, sums and weights of the values in each bin.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Binned {
    counts: Vec<u64>,
    sums: Vec<f64>,
    weights: Vec<f64>,
    weight: f64,
    weight_squares: f64,
}

impl Binned {
    /// Nothing yet.
    #[must_use]
    pub fn new(cuts: &Cuts) -> Self {
        Self {
            counts: vec![0; cuts.bins()],
            sums: vec![0.0; cuts.bins()],
            ..Self::default()
        }
    }

    /// Counts the next values, all finite.
    pub fn extend(&mut self, cuts: &Cuts, values: &[f64]) {
        for &value in values {
            let bin = cuts.bin(value);
            self.counts[bin] += 1;
            self.sums[bin] += value;
        }
    }

    /// Counts a value with its weight, which is finite and not negative.
    pub fn weigh(&mut self, cuts: &Cuts, value: f64, weight: f64) {
        self.weights.resize(cuts.bins(), 0.0);
        self.extend(cuts, &[value]);
        self.weights[cuts.bin(value)] += weight;
        self.weight += weight;
        self.weight_squares += weight * weight;
    }

    /// Rows in each bin.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Weight in each bin; of nothing where no row had one.
    pub(super) fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// (Σw)² / Σw².
    #[must_use]
    pub fn effective_rows(&self) -> f64 {
        match self.weight_squares > 0.0 {
            true => self.weight * self.weight / self.weight_squares,
            false => 0.0,
        }
    }
}
