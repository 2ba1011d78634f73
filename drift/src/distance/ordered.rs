//! Distances between cumulative shares: they need bins in order, and most need to know where.

use super::Pair;
use crate::error::StatisticsError;

/// Where the rows of a histogram's bins are taken to lie. Positions must be finite and must not
/// decrease.
#[derive(Clone, Copy, Debug)]
pub enum Placement<'a> {
    /// All rows of bin i lie at position i (one position a bin): the middle of the bin, its mean, or
    /// the value itself where each value has its own bin.
    Points(&'a [f64]),
    /// Rows spread evenly between edge i and edge i + 1 (one edge more than bins). Open-ended bins
    /// need a finite outer edge, such as the minimum and maximum that were seen.
    Edges(&'a [f64]),
}

/// The Kolmogorov-Smirnov statistic of two histograms, with what is exact about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KolmogorovSmirnov {
    /// The largest |F_ref − F_cur| at a bin's upper edge, 0 to 1.
    pub d: f64,
    /// d n_ref n_cur: a whole number, which exact p-values are computed from.
    pub crossed: u128,
    /// The bin after which the largest difference is reached.
    pub bin: usize,
    /// Whether the reference's distribution function is the larger one there: the present has moved
    /// up.
    pub reference_above: bool,
    /// The largest F_ref − F_cur, at least 0.
    pub d_plus: f64,
    /// The largest F_cur − F_ref, at least 0; d_plus + d_minus is Kuiper's statistic.
    pub d_minus: f64,
}

impl<'a> Placement<'a> {
    fn checked(self, bins: usize) -> Result<&'a [f64], StatisticsError> {
        let (what, values, expected) = match self {
            Self::Points(values) => ("bin positions", values, bins),
            Self::Edges(values) => ("bin edges", values, bins + 1),
        };
        if values.len() != expected {
            return Err(StatisticsError::WrongLength {
                what,
                expected,
                got: values.len(),
            });
        }
        let mut before = f64::NEG_INFINITY;
        for (index, &value) in values.iter().enumerate() {
            if !value.is_finite() {
                return Err(StatisticsError::NonFinite { what, index });
            }
            if value < before {
                return Err(StatisticsError::NotIncreasing { what, index });
            }
            before = value;
        }
        Ok(values)
    }
}

impl Pair<'_> {
    /// The Kolmogorov-Smirnov statistic at the upper edges of the bins, 0 to 1 (Smirnov 1939). Bins
    /// must be in the order of the values. It is a lower bound of the statistic of the raw values, and
    /// equal to it where no bin mixes different values.
    #[must_use]
    pub fn kolmogorov_smirnov(&self) -> KolmogorovSmirnov {
        let mut up = (0_i128, 0);
        let mut down = (0_i128, 0);
        for (bin, gap) in self.cumulative().enumerate() {
            if gap > up.0 {
                up = (gap, bin);
            }
            if -gap > down.0 {
                down = (-gap, bin);
            }
        }
        let (largest, reference_above) = if down.0 > up.0 {
            (down, false)
        } else {
            (up, true)
        };
        let product = self.product();
        KolmogorovSmirnov {
            d: largest.0 as f64 / product,
            crossed: largest.0 as u128,
            bin: largest.1,
            reference_above,
            d_plus: up.0 as f64 / product,
            d_minus: down.0 as f64 / product,
        }
    }

    /// F_ref n_ref n_cur − F_cur n_ref n_cur after each bin, exact.
    fn cumulative(&self) -> impl Iterator<Item = i128> + '_ {
        let narrow = self.is_narrow();
        let (mut r, mut c) = (0_u64, 0_u64);
        self.reference
            .iter()
            .zip(self.current)
            .map(move |(&dr, &dc)| {
                r += dr;
                c += dc;
                if narrow {
                    i128::from((r * self.current_rows) as i64 - (c * self.reference_rows) as i64)
                } else {
                    let a = u128::from(r) * u128::from(self.current_rows);
                    let b = u128::from(c) * u128::from(self.reference_rows);
                    a as i128 - b as i128
                }
            })
    }

    /// Wasserstein-1 (earth mover's) distance ∫ |F_ref − F_cur|, in the unit of the positions: how far
    /// the average row moved (Vallender 1974). 0 to the span of the positions.
    ///
    /// # Errors
    /// When the placement does not fit the bins or is not finite and ascending.
    pub fn wasserstein(&self, placement: Placement<'_>) -> Result<f64, StatisticsError> {
        let positions = placement.checked(self.bins())?;
        let mut sum = 0.0;
        let mut before = 0.0;
        for (bin, gap) in self.cumulative().enumerate() {
            let after = gap as f64;
            match placement {
                Placement::Points(_) => {
                    if let Some(next) = positions.get(bin + 1) {
                        sum += after.abs() * (next - positions[bin]);
                    }
                }
                Placement::Edges(_) => {
                    let width = positions[bin + 1] - positions[bin];
                    sum += width * mean_magnitude(before, after);
                }
            }
            before = after;
        }
        Ok(sum / self.product())
    }

    /// Energy distance √(2 ∫ (F_ref − F_cur)²), in the root of the positions' unit (Székely and Rizzo
    /// 2013; as in SciPy).
    ///
    /// # Errors
    /// When the placement does not fit the bins or is not finite and ascending.
    pub fn energy(&self, placement: Placement<'_>) -> Result<f64, StatisticsError> {
        let positions = placement.checked(self.bins())?;
        let product = self.product();
        let mut sum = 0.0;
        let mut before = 0.0;
        for (bin, gap) in self.cumulative().enumerate() {
            let after = gap as f64 / product;
            match placement {
                Placement::Points(_) => {
                    if let Some(next) = positions.get(bin + 1) {
                        sum += after * after * (next - positions[bin]);
                    }
                }
                Placement::Edges(_) => {
                    let width = positions[bin + 1] - positions[bin];
                    sum += width * (before * before + before * after + after * after) / 3.0;
                }
            }
            before = after;
        }
        Ok((2.0 * sum).sqrt())
    }

    /// Standard deviation of the reference (population form) as its bins tell it, in the unit of the
    /// positions. An exact one from the profile's moments is better where there is one.
    ///
    /// # Errors
    /// When the placement does not fit the bins or is not finite and ascending.
    pub fn reference_deviation(&self, placement: Placement<'_>) -> Result<f64, StatisticsError> {
        let positions = placement.checked(self.bins())?;
        let rows = self.reference_rows as f64;
        let middle = |bin: usize| match placement {
            Placement::Points(_) => positions[bin],
            Placement::Edges(_) => 0.5 * (positions[bin] + positions[bin + 1]),
        };
        let within = |bin: usize| match placement {
            Placement::Points(_) => 0.0,
            Placement::Edges(_) => {
                let width = positions[bin + 1] - positions[bin];
                width * width / 12.0
            }
        };
        let counts = || self.reference.iter().enumerate();
        let mean: f64 = counts()
            .map(|(bin, &r)| r as f64 / rows * middle(bin))
            .sum();
        let variance: f64 = counts()
            .map(|(bin, &r)| {
                let gap = middle(bin) - mean;
                r as f64 / rows * (gap * gap + within(bin))
            })
            .sum();
        Ok(variance.sqrt())
    }
}

/// Mean of |f| where f goes straight from `a` to `b`.
fn mean_magnitude(a: f64, b: f64) -> f64 {
    let (x, y) = (a.abs(), b.abs());
    if a * b >= 0.0 {
        0.5 * (x + y)
    } else {
        0.5 * (x * x + y * y) / (x + y)
    }
}

/// A distance in units of a standard deviation, so that signals with different units compare.
///
/// # Errors
/// [`StatisticsError::NoSpread`] when the deviation is 0 (or not a positive number) and the distance
/// is not: a signal that never varied has no unit to measure a change in. A distance of 0 is 0.
pub fn in_deviations(distance: f64, deviation: f64) -> Result<f64, StatisticsError> {
    if distance == 0.0 {
        return Ok(0.0);
    }
    let scaled = distance / deviation;
    if deviation > 0.0 && scaled.is_finite() {
        Ok(scaled)
    } else {
        Err(StatisticsError::NoSpread {
            what: "a distance in reference standard deviations",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair<'a>(reference: &'a [u64], current: &'a [u64]) -> Pair<'a> {
        Pair::new(reference, current).unwrap()
    }

    /// All rows move by two positions: distance 2, in deviations by the reference's.
    #[test]
    fn wasserstein_of_a_shift() {
        let p = pair(&[5, 10, 5, 0, 0], &[0, 0, 1, 2, 1]);
        let at = [0.0, 1.0, 2.0, 3.0, 4.0];
        assert_eq!(p.wasserstein(Placement::Points(&at)).unwrap(), 2.0);
        let edges = [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5];
        assert_eq!(p.wasserstein(Placement::Edges(&edges)).unwrap(), 2.0);
        let deviation = p.reference_deviation(Placement::Points(&at)).unwrap();
        assert_eq!(deviation, 0.5_f64.sqrt());
        assert!((in_deviations(2.0, deviation).unwrap() - 8_f64.sqrt()).abs() < 1e-15);
    }

    /// Within a bin where the two functions cross, the area is that of two triangles.
    #[test]
    fn crossing_inside_a_bin() {
        let p = pair(&[1, 2, 1], &[2, 0, 2]);
        let edges = [0.0, 1.0, 2.0, 3.0];
        // gaps after the bins: −1/4, +1/4, 0
        let want = 0.125 + 0.125 + 0.125;
        assert!((p.wasserstein(Placement::Edges(&edges)).unwrap() - want).abs() < 1e-15);
    }

    /// Energy distance of unit masses at 0 and 1 is √2, as SciPy documents.
    #[test]
    fn energy_of_two_points() {
        let p = pair(&[1, 0], &[0, 1]);
        assert_eq!(
            p.energy(Placement::Points(&[0.0, 1.0])).unwrap(),
            2_f64.sqrt()
        );
    }

    #[test]
    fn statistic_says_where_and_which_way() {
        let p = pair(&[8, 1, 1], &[2, 2, 6]);
        let ks = p.kolmogorov_smirnov();
        assert_eq!(
            (ks.d, ks.crossed, ks.bin, ks.reference_above),
            (0.6, 60, 0, true)
        );
        let ks = p.swapped().kolmogorov_smirnov();
        assert_eq!(
            (ks.d, ks.reference_above, ks.d_plus, ks.d_minus),
            (0.6, false, 0.0, 0.6)
        );
    }

    /// Placements that do not fit are refused with their place.
    #[test]
    fn bad_placements_are_refused() {
        let p = pair(&[1, 1], &[1, 1]);
        let bad = |placement| p.wasserstein(placement).unwrap_err();
        assert!(matches!(
            bad(Placement::Points(&[0.0])),
            StatisticsError::WrongLength {
                expected: 2,
                got: 1,
                ..
            }
        ));
        assert!(matches!(
            bad(Placement::Edges(&[0.0, 1.0])),
            StatisticsError::WrongLength { expected: 3, .. }
        ));
        assert!(matches!(
            bad(Placement::Points(&[1.0, 0.0])),
            StatisticsError::NotIncreasing { index: 1, .. }
        ));
        assert!(matches!(
            bad(Placement::Edges(&[0.0, 1.0, f64::INFINITY])),
            StatisticsError::NonFinite { index: 2, .. }
        ));
        assert!(p.energy(Placement::Points(&[f64::NAN, 0.0])).is_err());
        assert!(in_deviations(1.0, 0.0).is_err());
        assert_eq!(in_deviations(0.0, 0.0).unwrap(), 0.0);
    }
}
