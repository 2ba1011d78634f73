//! What is known of each device, in sums that merge.

use std::collections::HashMap;
use std::sync::Arc;

use driftline_schemas::profile::Cell;
use driftline_schemas::source::ATTRIBUTES;

use super::SubsetsError;

/// Most devices held, those that change their attributes once for each; about 250 bytes a device with the
/// groups that it is in.
pub const UNITS_MAX: usize = 500_000;
/// Attributes of a unit.
pub(super) const WIDTH: usize = ATTRIBUTES.len();

/// Values of one unit over time, as sums: what a straight line through them needs. Times are panes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Trend {
    rows: u64,
    time: i128,
    time_squares: i128,
    sum: f64,
    cross: f64,
}

impl Trend {
    /// Adds the rows of one pane: how many, and the sum of their values.
    pub fn add(&mut self, pane: i64, rows: u64, sum: f64) {
        let (at, n) = (i128::from(pane), i128::from(rows));
        self.rows += rows;
        self.time += n * at;
        self.time_squares += n * at * at;
        self.sum += sum;
        self.cross += pane as f64 * sum;
    }

    /// Adds what another counted. Exact, whatever the order, where the sums are whole numbers.
    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.time += other.time;
        self.time_squares += other.time_squares;
        self.sum += other.sum;
        self.cross += other.cross;
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Sum of squares of the rows' times about their mean, panes squared.
    pub(super) fn weight(&self) -> f64 {
        let n = i128::from(self.rows);
        if n == 0 {
            return 0.0;
        }
        (n * self.time_squares - self.time * self.time) as f64 / n as f64
    }

    /// Sum of products of times and values about their means; over the weight it is the slope.
    pub(super) fn product(&self) -> f64 {
        match self.rows {
            0 => 0.0,
            rows => self.cross - self.time as f64 / rows as f64 * self.sum,
        }
    }
}

/// Devices by cell, each with its trend. A device that changes an attribute is a unit before and another
/// after, so that a step between the two is no trend.
#[derive(Debug, Default)]
pub struct Units {
    /// Values of each attribute, in the order they came.
    values: [Vec<Arc<str>>; WIDTH],
    codes: [HashMap<Arc<str>, u32>; WIDTH],
    at: HashMap<([u32; WIDTH], u64), usize>,
    keys: Vec<([u32; WIDTH], u64)>,
    trends: Vec<Trend>,
}

/// A unit as the search takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Index of its value of each attribute in the sorted values.
    pub(super) values: [u32; WIDTH],
    pub(super) rows: u64,
    pub(super) weight: f64,
    pub(super) product: f64,
}

/// Units in an order of their own, and the sorted values of each attribute.
pub(super) struct Sorted {
    pub(super) units: Vec<Unit>,
    pub(super) values: [Vec<Arc<str>>; WIDTH],
    /// Units whose rows all lie in one pane.
    pub(super) without_trend: usize,
}

impl Units {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the rows that a device (by its hash) had in a cell and pane: how many, and the sum of their
    /// values. Panes are best counted from the first, so that numbers stay small.
    ///
    /// # Errors
    /// [`SubsetsError::TooManyUnits`]; [`SubsetsError::NonFinite`].
    pub fn add(
        &mut self,
        cell: &Cell,
        device: u64,
        pane: i64,
        rows: u64,
        sum: f64,
    ) -> Result<(), SubsetsError> {
        if !sum.is_finite() {
            return Err(SubsetsError::NonFinite);
        }
        let values = std::array::from_fn(|attribute| self.code(attribute, &cell.values[attribute]));
        let key = (values, device);
        let at = match self.at.get(&key) {
            Some(at) => *at,
            None if self.keys.len() >= UNITS_MAX => return Err(SubsetsError::TooManyUnits),
            None => {
                self.at.insert(key, self.keys.len());
                self.keys.push(key);
                self.trends.push(Trend::default());
                self.keys.len() - 1
            }
        };
        self.trends[at].add(pane, rows, sum);
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn code(&mut self, attribute: usize, value: &Arc<str>) -> u32 {
        if let Some(code) = self.codes[attribute].get(value) {
            return *code;
        }
        let code = self.values[attribute].len() as u32;
        self.values[attribute].push(Arc::clone(value));
        self.codes[attribute].insert(Arc::clone(value), code);
        code
    }

    /// The same units in the same order, whatever the order in which they came; products by `sign`.
    pub(super) fn sorted(&self, sign: f64) -> Sorted {
        let mut values = self.values.clone();
        values.iter_mut().for_each(|values| values.sort_unstable());
        let rank: [Vec<u32>; WIDTH] = std::array::from_fn(|attribute| {
            let place = |value| values[attribute].binary_search(value).unwrap_or_default() as u32;
            self.values[attribute].iter().map(place).collect()
        });
        let mut order: Vec<([u32; WIDTH], u64, usize)> = self
            .keys
            .iter()
            .enumerate()
            .map(|(at, (codes, device))| {
                let ranks = std::array::from_fn(|it| rank[it][codes[it] as usize]);
                (ranks, *device, at)
            })
            .collect();
        order.sort_unstable();
        let units: Vec<Unit> = order
            .into_iter()
            .map(|(values, _, at)| Unit {
                values,
                rows: self.trends[at].rows(),
                weight: self.trends[at].weight(),
                product: sign * self.trends[at].product(),
            })
            .filter(|unit| unit.weight > 0.0)
            .collect();
        Sorted {
            without_trend: self.keys.len() - units.len(),
            units,
            values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A straight line through panes of other sizes has the slope that least squares on the rows gives.
    #[test]
    fn a_line_is_found() {
        let mut trend = Trend::default();
        for (pane, rows) in [(0, 10), (1, 3), (5, 7)] {
            trend.add(pane, rows, rows as f64 * (0.2 + 0.05 * pane as f64));
        }
        assert!((trend.product() / trend.weight() - 0.05).abs() < 1e-12);
        let mut one = Trend::default();
        one.add(9, 4, 2.0);
        assert_eq!((one.weight(), one.product()), (0.0, 0.0));
    }

    proptest! {
        /// Counts split over any two parts merge to the same sums, exactly.
        #[test]
        fn trends_merge_exactly(
            panes in prop::collection::vec((0_i64..400, 0_u64..1000, 0.0..1.0), 1..30),
            cut in 0_usize..30,
        ) {
            let of = |panes: &[(i64, u64, f64)]| {
                let mut trend = Trend::default();
                for (pane, rows, share) in panes {
                    trend.add(*pane, *rows, (share * *rows as f64).round());
                }
                trend
            };
            let (first, second) = panes.split_at(cut.min(panes.len()));
            let mut merged = of(second);
            merged.merge(&of(first));
            prop_assert_eq!(merged, of(&panes));
        }
    }
}
