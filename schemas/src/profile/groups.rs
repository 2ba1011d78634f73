//! Counts whole columns into many profiles at once: what the profile stage and SQL do.
//!
//! One flat array holds the bins of all groups, `[group][signal][bin]`, and one the other counts,
//! `[group][signal]`. Rows of one frame stand together and share a group, so columns are counted in
//! runs of equal groups: minimum, maximum and sums of a run are plain loops that the compiler
//! vectorises, and only the look-up of the bin is left per value. The result is the same, bit for
//! bit, as counting row by row with [`Counter`](super::binning::Counter).

use std::sync::Arc;

use arrow::buffer::NullBuffer;

use super::{Binner, DeviceSample, Layout, Profile, SignalProfile};
use crate::quantity::VALUE_MIN;

/// Runs from this length on are counted in parts of a histogram that are added up afterwards:
/// equal neighbours would otherwise wait for each other's counter.
const WIDE_RUN_ROWS: usize = 512;
/// Bins of such a part.
const WIDE_BINS: usize = 256;
/// Rows per device are folded when this many entries have come together (24 bytes each).
const DEVICE_ENTRIES_MAX: usize = 1 << 18;

/// Rows `start..end` that belong to one group.
#[derive(Debug, Clone, Copy)]
struct Run {
    group: usize,
    start: usize,
    end: usize,
}

/// What is counted of a signal besides its bins.
#[derive(Debug, Clone, Copy)]
struct Stats {
    nulls: u64,
    non_finite: u64,
    unseen: u64,
    out_of_range: u64,
    min: i32,
    max: i32,
    sum: i128,
    sum_squares: u128,
}

const NO_STATS: Stats = Stats {
    nulls: 0,
    non_finite: 0,
    unseen: 0,
    out_of_range: 0,
    min: i32::MAX,
    max: i32::MIN,
    sum: 0,
    sum_squares: 0,
};

#[derive(Debug)]
enum Kernel {
    Numeric { binner: Binner, low: i32, high: i32 },
    Categorical,
}

#[derive(Debug)]
struct Column {
    kernel: Kernel,
    /// First of its bins within a group's.
    first: usize,
    bins: usize,
}

/// Profiles of many groups under way.
#[derive(Debug)]
pub struct ProfileGroups {
    layout: Arc<Layout>,
    columns: Vec<Column>,
    /// Bins of all signals together.
    stride: usize,
    groups: usize,
    bins: Vec<u64>,
    stats: Vec<Stats>,
    rows: Vec<u64>,
    /// (group, device, rows); the first `folded` are sorted and single.
    devices: Vec<(usize, u64, u64)>,
    folded: usize,
    /// Device samples that were merged in whole, where any were.
    samples: Vec<Option<DeviceSample>>,
    runs: Vec<Run>,
}

impl ProfileGroups {
    /// No groups yet.
    pub fn new(layout: Arc<Layout>) -> Self {
        let mut first = 0;
        let columns = layout
            .signals()
            .iter()
            .map(|signal| {
                let bins = signal.bins();
                let kernel = if signal.is_numeric() {
                    let (low, high) = signal.range().unwrap_or((i32::MIN, i32::MAX));
                    Kernel::Numeric {
                        binner: Binner::new(&signal.edges),
                        low,
                        high,
                    }
                } else {
                    Kernel::Categorical
                };
                first += bins;
                Column {
                    kernel,
                    first: first - bins,
                    bins,
                }
            })
            .collect();
        Self {
            layout,
            columns,
            stride: first,
            groups: 0,
            bins: Vec::new(),
            stats: Vec::new(),
            rows: Vec::new(),
            devices: Vec::new(),
            folded: 0,
            samples: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// The layout counted in.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Bytes that one group takes, for a layout.
    pub fn group_bytes(layout: &Layout) -> usize {
        let bins: usize = layout.signals().iter().map(super::SignalLayout::bins).sum();
        bins * size_of::<u64>() + layout.signals().len() * size_of::<Stats>()
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        self.bins.capacity() * size_of::<u64>()
            + self.stats.capacity() * size_of::<Stats>()
            + self.rows.capacity() * size_of::<u64>()
            + self.devices.capacity() * size_of::<(usize, u64, u64)>()
            + self.samples.capacity() * size_of::<Option<DeviceSample>>()
    }

    /// Makes room for groups `0..groups`.
    pub fn grow(&mut self, groups: usize) {
        if groups > self.groups {
            self.groups = groups;
            self.bins.resize(groups * self.stride, 0);
            self.stats.resize(groups * self.columns.len(), NO_STATS);
            self.rows.resize(groups, 0);
            self.samples.resize(groups, None);
        }
    }

    /// Begins a batch: row `i` belongs to group `groups[i]`, all below what [`Self::grow`] was told.
    /// Rows are counted, and, where `devices` says whose they are, per device. Columns follow.
    pub fn begin(&mut self, groups: &[usize], devices: Option<&[u64]>) {
        self.runs.clear();
        let mut start = 0;
        for run in groups.chunk_by(|a, b| a == b) {
            let end = start + run.len();
            let group = run[0];
            self.runs.push(Run { group, start, end });
            self.rows[group] += run.len() as u64;
            for same in devices
                .map_or(&[][..], |devices| &devices[start..end])
                .chunk_by(|a, b| a == b)
            {
                self.devices.push((group, same[0], same.len() as u64));
            }
            start = end;
        }
        if self.devices.len() - self.folded > DEVICE_ENTRIES_MAX {
            self.fold_devices();
        }
    }

    /// Counts a column of the batch begun last; `signal` is the index in the layout, and `values`
    /// has as many rows as the batch.
    pub fn column(&mut self, signal: usize, values: &[i32], nulls: Option<&NullBuffer>) {
        let column = &self.columns[signal];
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let signals = self.columns.len();
        for run in &self.runs {
            let first = run.group * self.stride + column.first;
            let bins = &mut self.bins[first..first + column.bins];
            let stats = &mut self.stats[run.group * signals + signal];
            let rows = &values[run.start..run.end];
            match (&column.kernel, nulls) {
                (Kernel::Numeric { binner, low, high }, None) => {
                    numeric(rows, binner, (*low, *high), bins, stats);
                }
                (Kernel::Numeric { binner, low, high }, Some(nulls)) => {
                    for (row, value) in (run.start..run.end).zip(rows) {
                        if nulls.is_null(row) {
                            stats.nulls += 1;
                        } else {
                            one(*value, binner, (*low, *high), bins, stats);
                        }
                    }
                }
                (Kernel::Categorical, _) => {
                    for (row, &code) in (run.start..run.end).zip(rows) {
                        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                            stats.nulls += 1;
                        } else if let Some(bin) = bins.get_mut(code as u32 as usize) {
                            // Codes below 0 turn into numbers far above any bin.
                            *bin += 1;
                        } else {
                            stats.unseen += 1;
                        }
                    }
                }
            }
        }
    }

    /// Adds a profile made elsewhere to a group. It must fit the layout
    /// ([`Profile::fits`]).
    pub fn merge(&mut self, group: usize, profile: &Profile) {
        self.rows[group] += profile.rows;
        self.samples[group]
            .get_or_insert_default()
            .merge(&profile.devices);
        let signals = self.columns.len();
        for (signal, (column, theirs)) in self.columns.iter().zip(&profile.signals).enumerate() {
            let first = group * self.stride + column.first;
            for (mine, count) in self.bins[first..first + column.bins]
                .iter_mut()
                .zip(&theirs.bins)
            {
                *mine += count;
            }
            let stats = &mut self.stats[group * signals + signal];
            stats.nulls += theirs.nulls;
            stats.non_finite += theirs.non_finite;
            stats.unseen += theirs.unseen;
            stats.out_of_range += theirs.out_of_range;
            stats.min = stats.min.min(theirs.min.unwrap_or(i32::MAX));
            stats.max = stats.max.max(theirs.max.unwrap_or(i32::MIN));
            stats.sum += theirs.sum;
            stats.sum_squares += theirs.sum_squares;
        }
    }

    /// Takes the profiles of the first `count` groups out; the others move up.
    pub fn take(&mut self, count: usize) -> Vec<Profile> {
        let count = count.min(self.groups);
        self.fold_devices();
        let of_taken = self.devices.partition_point(|entry| entry.0 < count);
        let mut devices = self.devices.drain(..of_taken).peekable();
        let signals = self.columns.len();
        let mut taken = Vec::with_capacity(count);
        for group in 0..count {
            let mut sample = self.samples[group].take().unwrap_or_default();
            while let Some((_, device, rows)) = devices.next_if(|entry| entry.0 == group) {
                sample.add(device, rows);
            }
            let of_group = self.columns.iter().enumerate().map(|(signal, column)| {
                let first = group * self.stride + column.first;
                let stats = &self.stats[group * signals + signal];
                let numbers = stats.min <= stats.max;
                SignalProfile {
                    bins: self.bins[first..first + column.bins].to_vec(),
                    nulls: stats.nulls,
                    non_finite: stats.non_finite,
                    unseen: stats.unseen,
                    out_of_range: stats.out_of_range,
                    min: numbers.then_some(stats.min),
                    max: numbers.then_some(stats.max),
                    sum: stats.sum,
                    sum_squares: stats.sum_squares,
                }
            });
            taken.push(Profile {
                layout: self.layout.digest(),
                rows: self.rows[group],
                devices: sample,
                signals: of_group.collect(),
            });
        }
        drop(devices);
        self.bins.drain(..count * self.stride);
        self.stats.drain(..count * signals);
        self.rows.drain(..count);
        self.samples.drain(..count);
        self.groups -= count;
        for entry in &mut self.devices {
            entry.0 -= count;
        }
        self.folded = self.devices.len();
        taken
    }

    /// Takes the profiles of all groups out.
    pub fn take_all(&mut self) -> Vec<Profile> {
        self.take(self.groups)
    }

    /// Sorts the rows per device by group and device, one entry each.
    fn fold_devices(&mut self) {
        self.devices.sort_unstable();
        self.devices.dedup_by(|next, kept| {
            let same = next.0 == kept.0 && next.1 == kept.1;
            if same {
                kept.2 += next.2;
            }
            same
        });
        self.folded = self.devices.len();
    }
}

/// Counts one value of a number.
#[inline]
fn one(value: i32, binner: &Binner, (low, high): (i32, i32), bins: &mut [u64], stats: &mut Stats) {
    if value < VALUE_MIN {
        stats.non_finite += 1;
        return;
    }
    stats.out_of_range += u64::from(value < low || value > high);
    bins[binner.bin(value)] += 1;
    stats.min = stats.min.min(value);
    stats.max = stats.max.max(value);
    stats.sum += i128::from(value);
    stats.sum_squares += u128::from(u64::from(value.unsigned_abs()).pow(2));
}

/// Counts the numbers of a run in which none is null.
fn numeric(
    values: &[i32],
    binner: &Binner,
    (low, high): (i32, i32),
    bins: &mut [u64],
    stats: &mut Stats,
) {
    let (mut least, mut most) = (i32::MAX, i32::MIN);
    for &value in values {
        least = least.min(value);
        most = most.max(value);
    }
    if least < VALUE_MIN || values.len() < 4 {
        for &value in values {
            one(value, binner, (low, high), bins, stats);
        }
        return;
    }
    // A batch has fewer than 2^32 rows, so this cannot overflow.
    stats.sum += i128::from(values.iter().map(|&value| i64::from(value)).sum::<i64>());
    let greatest = u64::from(least.unsigned_abs().max(most.unsigned_abs()));
    let squares = values
        .iter()
        .map(|&value| u64::from(value.unsigned_abs()).pow(2));
    stats.sum_squares += match greatest.pow(2).checked_mul(values.len() as u64) {
        Some(_) => u128::from(squares.sum::<u64>()),
        None => squares.map(u128::from).sum::<u128>(),
    };
    if least < low || most > high {
        let outside = values
            .iter()
            .filter(|value| **value < low || **value > high);
        stats.out_of_range += outside.count() as u64;
    }
    stats.min = stats.min.min(least);
    stats.max = stats.max.max(most);
    if values.len() >= WIDE_RUN_ROWS && bins.len() <= WIDE_BINS {
        let mut parts = [[0u32; WIDE_BINS]; 4];
        binner.for_each(values, |row, bin| parts[row & 3][bin] += 1);
        for (bin, count) in bins.iter_mut().enumerate() {
            *count += parts.iter().map(|part| u64::from(part[bin])).sum::<u64>();
        }
    } else {
        binner.for_each(values, |_, bin| bins[bin] += 1);
    }
}

#[cfg(test)]
mod tests;
