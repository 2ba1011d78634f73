//! From quantised values to bins, by table.
//!
//! Where all edges lie within 2^16 steps of the resolution, the bin of a value is one look-up in a
//! table with an entry per value; that is the common case, as sensors have 8 to 16 bits. Wider
//! signals look up the bin of the value's coarse step and correct it by comparing with the edges
//! inside that step, of which there is almost always at most one.

use super::{Profile, ProfileError, SignalLayout, SignalProfile};

/// Most entries of a table: one byte each, so that the tables of tens of signals stay in the
/// second-level cache.
const TABLE_ENTRIES_MAX: i64 = 1 << 16;

/// Looks up bins of quantised numbers.
#[derive(Debug, Clone)]
pub struct Binner {
    edges: Vec<i32>,
    /// Value of the table's first entry.
    low: i64,
    /// Coarse step is `1 << shift` values wide; 0 is the direct table.
    shift: u32,
    table: Vec<u8>,
}

impl Binner {
    /// Makes the table of a signal's edges (rising, at most [`crate::limits::EDGES_MAX`]).
    pub fn new(edges: &[i32]) -> Self {
        let first = edges.first().map_or(0, |&edge| i64::from(edge));
        let last = edges.last().map_or(0, |&edge| i64::from(edge));
        let mut shift = 0;
        while ((last - first) >> shift) + 3 > TABLE_ENTRIES_MAX {
            shift += 1;
        }
        // One step below the first edge and one above the last, where clamped values fall.
        let low = ((first >> shift) - 1) << shift;
        let entries = ((last - low) >> shift) + 2;
        let table = (0..entries)
            .map(|entry| {
                let start = low + (entry << shift);
                // At most EDGES_MAX = 254 edges, so the number fits in a byte.
                edges.partition_point(|&edge| i64::from(edge) < start) as u8
            })
            .collect();
        Self {
            edges: edges.to_vec(),
            low,
            shift,
            table,
        }
    }

    /// Number of bins.
    pub fn bins(&self) -> usize {
        self.edges.len() + 1
    }

    /// Whether one look-up gives the bin.
    pub fn is_direct(&self) -> bool {
        self.shift == 0
    }

    /// Bin of a finite quantised value.
    #[inline]
    pub fn bin(&self, value: i32) -> usize {
        let step = (i64::from(value) - self.low) >> self.shift;
        let entry = step.clamp(0, self.table.len() as i64 - 1) as usize;
        let mut bin = usize::from(self.table[entry]);
        if self.shift != 0 {
            while bin < self.edges.len() && value > self.edges[bin] {
                bin += 1;
            }
        }
        bin
    }

    /// Calls `each(row, bin)` for every value of a column that has no code of non-finite numbers.
    #[inline]
    pub fn for_each(&self, values: &[i32], mut each: impl FnMut(usize, usize)) {
        if self.is_direct() {
            let last = self.table.len() as i64 - 1;
            for (row, &value) in values.iter().enumerate() {
                let entry = (i64::from(value) - self.low).clamp(0, last) as usize;
                each(row, usize::from(self.table[entry]));
            }
        } else {
            for (row, &value) in values.iter().enumerate() {
                each(row, self.bin(value));
            }
        }
    }
}

impl SignalProfile {
    /// Counts one value: `None` is null, codes of [`crate::quantity`] count as what they stand for.
    /// The plain way, for devices and tests; the pipeline counts whole columns.
    pub fn count(&mut self, layout: &SignalLayout, binner: &Binner, value: Option<i32>) {
        let Some(value) = value else {
            self.nulls += 1;
            return;
        };
        if !layout.is_numeric() {
            match usize::try_from(value)
                .ok()
                .and_then(|code| self.bins.get_mut(code))
            {
                Some(bin) => *bin += 1,
                None => self.unseen += 1,
            }
            return;
        }
        if !crate::quantity::is_finite(value) {
            self.non_finite += 1;
            return;
        }
        if let Some((low, high)) = layout.range()
            && !(low..=high).contains(&value)
        {
            self.out_of_range += 1;
        }
        self.bins[binner.bin(value)] += 1;
        self.min = Some(self.min.map_or(value, |min| min.min(value)));
        self.max = Some(self.max.map_or(value, |max| max.max(value)));
        self.sum += i128::from(value);
        self.sum_squares += u128::from(value.unsigned_abs()).pow(2);
    }
}

/// Counts rows into one profile, value by value: what a device does.
#[derive(Debug, Clone)]
pub struct Counter {
    layouts: Vec<SignalLayout>,
    binners: Vec<Binner>,
    profile: Profile,
}

impl Counter {
    /// Nothing counted yet.
    pub fn new(layout: &super::Layout) -> Self {
        Self {
            binners: layout
                .signals()
                .iter()
                .map(|signal| Binner::new(&signal.edges))
                .collect(),
            layouts: layout.signals().to_vec(),
            profile: Profile::empty(layout),
        }
    }

    /// Counts one value of a signal (index into the layout).
    ///
    /// # Errors
    /// [`ProfileError::Edges`] when there is no such signal.
    pub fn value(&mut self, signal: usize, value: Option<i32>) -> Result<(), ProfileError> {
        match (
            self.layouts.get(signal),
            self.binners.get(signal),
            self.profile.signals.get_mut(signal),
        ) {
            (Some(layout), Some(binner), Some(profile)) => {
                profile.count(layout, binner, value);
                Ok(())
            }
            _ => Err(ProfileError::Edges {
                signal: format!("#{signal}"),
                problem: "the layout has no such signal".into(),
            }),
        }
    }

    /// Counts rows of a device.
    pub fn rows(&mut self, device_hash: u64, rows: u64) {
        self.profile.rows += rows;
        self.profile.devices.add(device_hash, rows);
    }

    /// What was counted.
    pub fn finish(self) -> Profile {
        self.profile
    }
}

/// Edges that part values into `bins` shares as equal as ties allow: the quantiles of the sorted
/// values, each once, and never the greatest value (its bin would be empty above it). Where all values
/// are one, it gets a bin of its own between what is less and what is more, so that it is seen when it moves.
/// The values are reordered.
pub fn quantile_edges(values: &mut [i32], bins: usize) -> Vec<i32> {
    values.sort_unstable();
    let (Some(&greatest), true) = (values.last(), bins > 1) else {
        return Vec::new();
    };
    if values[0] == greatest {
        let mut around = vec![greatest.saturating_sub(1), greatest];
        around.dedup();
        around.truncate(bins - 1);
        return around;
    }
    let mut edges = Vec::with_capacity(bins - 1);
    for quantile in 1..bins {
        let edge = values[(values.len() * quantile / bins).saturating_sub(1)];
        if edge < greatest && edges.last().is_none_or(|&last| last < edge) {
            edges.push(edge);
        }
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_search(edges: &[i32], value: i32) -> usize {
        edges.partition_point(|&edge| edge < value)
    }

    proptest! {
        /// Any edges, any value: the table answers what a binary search answers.
        #[test]
        fn the_table_agrees_with_binary_search(
            mut edges in proptest::collection::vec(any::<i32>(), 0..40),
            values in proptest::collection::vec(any::<i32>(), 1..200),
            narrow in any::<bool>(),
        ) {
            if narrow {
                for edge in &mut edges { *edge %= 20_000; }
            }
            edges.sort_unstable();
            edges.dedup();
            let binner = Binner::new(&edges);
            let near = edges.iter().flat_map(|&edge| [edge.saturating_sub(1), edge, edge.saturating_add(1)]);
            let all: Vec<i32> = values.iter().copied().chain(near).collect();
            binner.for_each(&all, |row, bin| assert_eq!(bin, by_search(&edges, all[row])));
            for &value in &all {
                prop_assert_eq!(binner.bin(value), by_search(&edges, value));
            }
        }
    }

    #[test]
    fn quantile_edges_fall_on_values_and_skip_ties() {
        let mut values: Vec<i32> = (1..=100).collect();
        assert_eq!(quantile_edges(&mut values, 4), [25, 50, 75]);
        assert_eq!(quantile_edges(&mut [7; 50], 4), [6, 7]);
        assert_eq!(quantile_edges(&mut [i32::MIN; 5], 4), [i32::MIN]);
        assert_eq!(quantile_edges(&mut [0, 0, 0, 0, 0, 0, 1, 2], 4), [0]);
        assert_eq!(quantile_edges(&mut [], 4), Vec::<i32>::new());
    }
}
