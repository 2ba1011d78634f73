//! How much likelier a row is in the present than in the past, given its inputs: a logistic regression
//! that tells the periods apart.
//!
//! Numbers enter as deviations from the pooled median in pooled quartile distances, held to ±4 so that
//! one garbage value changes nothing, with their squares, with their products where there are few
//! numbers, and with a flag where values are missing; categories as flags of the most frequent ones. So
//! shifts of means, spreads, correlations, shares and gaps are seen; a change of shape that leaves all of
//! these is not.
//!
//! Each row is weighed by a fit on four fifths of the rows that it is not in: a fit that has seen a row
//! believes too much in its difference.

use super::super::{PerformanceError, part_of};

/// Rows below which a side cannot be told from another one.
pub const ROWS_MIN: usize = 100;
/// Most columns of the regression: a fit takes rows × columns² steps.
pub const COLUMNS_MAX: usize = 256;
/// Numbers up to which their products enter.
pub const PRODUCTS_OF_MAX: usize = 8;
/// Categories with a flag of their own; the rest are those without one.
pub const CATEGORIES_OWN_MAX: usize = 20;
/// Where deviations are held, in quartile distances.
const DEVIATION_MAX: f64 = 4.0;
/// Parts that rows are dealt to for fitting.
const PARTS: usize = 5;
/// Penalty on squared coefficients: one row's worth, so that columns that do not vary do no harm.
const RIDGE: f64 = 1.0;
/// Steps of Newton's method; it takes five to eight.
const STEPS_MAX: usize = 30;
/// Log-ratios are held here: beyond it a row is of one period only.
const LOG_RATIO_MAX: f64 = 12.0;

/// A column of inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Numbers; not a number and infinities are missing.
    Numbers(Vec<f64>),
    /// Codes of categories, the same in both periods; none is missing.
    Categories(Vec<Option<u32>>),
}

impl Input {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(values) => values.len(),
            Self::Categories(codes) => codes.len(),
        }
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Density of the present over that of the past, at the rows of each.
#[derive(Debug, Clone, PartialEq)]
pub struct Ratios {
    /// At the past's rows.
    pub before: Vec<f64>,
    /// At the present's rows.
    pub now: Vec<f64>,
}

/// Estimates q / p at all rows.
///
/// # Errors
/// [`PerformanceError::Setting`] with fewer than [`ROWS_MIN`] rows a side or more than [`COLUMNS_MAX`]
/// columns; [`PerformanceError::LengthsDiffer`] when the sides have other columns.
pub fn density_ratios(before: &[Input], now: &[Input]) -> Result<Ratios, PerformanceError> {
    if before.len() != now.len() {
        return Err(PerformanceError::LengthsDiffer {
            name: "the list of inputs",
            found: now.len(),
            expected: before.len(),
        });
    }
    let rows = |side: &[Input]| side.first().map_or(0, Input::len);
    let (n, m) = (rows(before), rows(now));
    if n.min(m) < ROWS_MIN {
        return Err(PerformanceError::Setting {
            name: "the number of rows with inputs",
            value: n.min(m) as f64,
            expected: "at least 100 a period, and one input at least",
        });
    }
    let design = Design::of(before, now)?;
    let is_now = |row: usize| row >= n;
    // Odds of the prior go out of the posterior's: what is left is the ratio of densities.
    let prior = (m as f64 / n as f64).ln();
    let mut ratios = vec![1.0; n + m];
    for part in 0..PARTS {
        let mine = |row: &usize| part_of(*row, PARTS) == part;
        let others: Vec<usize> = (0..n + m).filter(|row| !mine(row)).collect();
        let coefficients = fit(&design, &others, is_now, prior);
        for row in (0..n + m).filter(mine) {
            let log = design.predict(&coefficients, row) - prior;
            ratios[row] = log.clamp(-LOG_RATIO_MAX, LOG_RATIO_MAX).exp();
        }
    }
    let now = ratios.split_off(n);
    Ok(Ratios {
        before: ratios,
        now,
    })
}

/// Columns of the regression, row by row, the first being the constant.
struct Design {
    columns: usize,
    values: Vec<f64>,
}

impl Design {
    fn of(before: &[Input], now: &[Input]) -> Result<Self, PerformanceError> {
        let mut columns: Vec<Vec<f64>> = Vec::new();
        let mut numbers: Vec<usize> = Vec::new();
        for (before, now) in before.iter().zip(now) {
            match (before, now) {
                (Input::Numbers(before), Input::Numbers(now)) => {
                    let (deviations, missing) = deviations(before, now);
                    let Some(deviations) = deviations else {
                        continue;
                    };
                    numbers.push(columns.len());
                    columns.push(deviations);
                    columns.extend(missing);
                }
                (Input::Categories(before), Input::Categories(now)) => {
                    columns.extend(flags(before, now));
                }
                _ => {
                    return Err(PerformanceError::LengthsDiffer {
                        name: "an input that is numbers in one period only",
                        found: now.len(),
                        expected: before.len(),
                    });
                }
            }
        }
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect();
        let products: Vec<Vec<f64>> = (0..numbers.len())
            .flat_map(|i| (i..numbers.len()).map(move |j| (i, j)))
            .filter(|(i, j)| i == j || numbers.len() <= PRODUCTS_OF_MAX)
            .map(|(i, j)| product(&columns[numbers[i]], &columns[numbers[j]]))
            .collect();
        columns.extend(products);
        if columns.len() >= COLUMNS_MAX {
            return Err(PerformanceError::Setting {
                name: "the number of columns that the inputs take",
                value: columns.len() as f64,
                expected: "below 256: name fewer inputs, or a score of them",
            });
        }
        let rows = columns.first().map_or(0, Vec::len);
        columns.iter_mut().for_each(|column| standardise(column));
        let mut values = Vec::with_capacity(rows * (columns.len() + 1));
        for row in 0..rows {
            values.push(1.0);
            values.extend(columns.iter().map(|column| column[row]));
        }
        Ok(Self {
            columns: columns.len() + 1,
            values,
        })
    }

    fn row(&self, row: usize) -> &[f64] {
        // Inputs that never vary leave no column but the constant, and no values.
        let start = row * self.columns;
        self.values.get(start..start + self.columns).unwrap_or(&[])
    }

    fn predict(&self, coefficients: &[f64], row: usize) -> f64 {
        match self.row(row) {
            [] => coefficients[0],
            values => values.iter().zip(coefficients).map(|(x, b)| x * b).sum(),
        }
    }
}

/// To mean 0 and variance 1, where it varies.
fn standardise(column: &mut [f64]) {
    let rows = column.len() as f64;
    let mean = column.iter().sum::<f64>() / rows;
    let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / rows;
    let scale = if variance > 1e-12 {
        variance.sqrt()
    } else {
        1.0
    };
    column.iter_mut().for_each(|x| *x = (*x - mean) / scale);
}

/// Deviations from the median in quartile distances, 0 where a value is missing, and a flag of those
/// where there are any; no deviations when the column never varies.
fn deviations(before: &[f64], now: &[f64]) -> (Option<Vec<f64>>, Option<Vec<f64>>) {
    let all = || before.iter().chain(now).copied();
    let mut sorted: Vec<f64> = all().filter(|x| x.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| sorted.get(((sorted.len().max(1) - 1) as f64 * share) as usize);
    let (Some(low), Some(middle), Some(high)) = (at(0.25), at(0.5), at(0.75)) else {
        return (None, None);
    };
    // Where half of the values are equal, the ends tell what varies.
    let spread = [high - low, sorted[sorted.len() - 1] - sorted[0]];
    let Some(spread) = spread.into_iter().find(|spread| *spread > 0.0) else {
        return (None, None);
    };
    let deviation = |x: f64| match x.is_finite() {
        true => ((x - middle) / spread).clamp(-DEVIATION_MAX, DEVIATION_MAX),
        false => 0.0,
    };
    let is_missing = sorted.len() < before.len() + now.len();
    let missing = is_missing.then(|| all().map(|x| f64::from(u8::from(!x.is_finite()))).collect());
    (Some(all().map(deviation).collect()), missing)
}

/// A flag for each of the most frequent categories but the first, and for those that are missing.
fn flags(before: &[Option<u32>], now: &[Option<u32>]) -> Vec<Vec<f64>> {
    let all = || before.iter().chain(now);
    let mut counts: std::collections::BTreeMap<Option<u32>, usize> =
        std::collections::BTreeMap::new();
    for code in all() {
        *counts.entry(*code).or_default() += 1;
    }
    let mut codes: Vec<(usize, Option<u32>)> = counts
        .into_iter()
        .map(|(code, rows)| (rows, code))
        .collect();
    codes.sort_unstable_by(|a, b| b.cmp(a));
    codes.truncate(CATEGORIES_OWN_MAX + 1);
    let flag = |code: Option<u32>| all().map(|it| f64::from(u8::from(*it == code))).collect();
    codes
        .into_iter()
        .skip(1)
        .map(|(_, code)| flag(code))
        .collect()
}

/// Coefficients of the penalised logistic regression on some rows, by Newton's method with halved steps.
fn fit(design: &Design, rows: &[usize], is_now: impl Fn(usize) -> bool, prior: f64) -> Vec<f64> {
    let columns = design.columns;
    let mut coefficients = vec![0.0; columns];
    coefficients[0] = prior;
    let penalised = |coefficients: &[f64]| -> f64 {
        let likelihood: f64 = rows
            .iter()
            .map(|&row| {
                let log_odds = design.predict(coefficients, row);
                let signed = if is_now(row) { log_odds } else { -log_odds };
                // ln(1 / (1 + e^-s)) without overflow.
                signed.min(0.0) - (-signed.abs()).exp().ln_1p()
            })
            .sum();
        likelihood - RIDGE / 2.0 * coefficients[1..].iter().map(|b| b * b).sum::<f64>()
    };
    let mut reached = penalised(&coefficients);
    for _ in 0..STEPS_MAX {
        let (gradient, curvature) = derivatives(design, rows, &is_now, &coefficients);
        let Some(step) = solve(curvature, gradient) else {
            break;
        };
        let mut length = 1.0;
        let mut gained = 0.0;
        while length > 1e-4 {
            let tried: Vec<f64> = coefficients
                .iter()
                .zip(&step)
                .map(|(b, s)| b + length * s)
                .collect();
            let value = penalised(&tried);
            if value > reached {
                gained = value - reached;
                (coefficients, reached) = (tried, value);
                break;
            }
            length /= 2.0;
        }
        if gained < 1e-8 * rows.len() as f64 {
            break;
        }
    }
    coefficients
}

/// Gradient and (negated) curvature of the penalised likelihood, row-major.
fn derivatives(
    design: &Design,
    rows: &[usize],
    is_now: impl Fn(usize) -> bool,
    coefficients: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let columns = design.columns;
    let mut gradient = vec![0.0; columns];
    let mut curvature = vec![0.0; columns * columns];
    for &row in rows {
        let p = 1.0 / (1.0 + (-design.predict(coefficients, row)).exp());
        let residual = f64::from(u8::from(is_now(row))) - p;
        let weight = p * (1.0 - p);
        let values = match design.row(row) {
            [] => &[1.0],
            values => values,
        };
        for (i, x) in values.iter().enumerate() {
            gradient[i] += residual * x;
            let scaled = weight * x;
            for (to, y) in curvature[i * columns..].iter_mut().zip(&values[..=i]) {
                *to += scaled * y;
            }
        }
    }
    for i in 0..columns {
        // The constant is not penalised; what keeps it from 0 only keeps it solvable.
        let ridge = if i == 0 { 1e-9 } else { RIDGE };
        curvature[i * columns + i] += ridge;
        gradient[i] -= if i == 0 { 0.0 } else { RIDGE * coefficients[i] };
    }
    (gradient, curvature)
}

/// Solves A x = b for a symmetric positive A (its lower triangle), by Cholesky; none when it is not.
fn solve(mut a: Vec<f64>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let n = b.len();
    for i in 0..n {
        for j in 0..=i {
            let (upper, row) = a.split_at(i * n);
            let other = if j == i {
                &row[..j]
            } else {
                &upper[j * n..j * n + j]
            };
            let sum: f64 = row[..j].iter().zip(other).map(|(x, y)| x * y).sum();
            let left = a[i * n + j] - sum;
            a[i * n + j] = if i == j {
                if left <= 0.0 {
                    return None;
                }
                left.sqrt()
            } else {
                left / a[j * n + j]
            };
        }
    }
    for i in 0..n {
        let sum: f64 = (0..i).map(|k| a[i * n + k] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i * n + i];
    }
    for i in (0..n).rev() {
        let sum: f64 = (i + 1..n).map(|k| a[k * n + i] * b[k]).sum();
        b[i] = (b[i] - sum) / a[i * n + i];
    }
    Some(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Normal laws whose mean and spread differ: the log-ratio is a square, which the regression can
    /// express, and is found where both have rows.
    #[test]
    fn ratios_of_normal_laws() {
        let mut random = Random::new(5);
        let mut draw = |mean: f64, sd: f64, rows: usize| -> Vec<f64> {
            (0..rows).map(|_| mean + sd * random.normal()).collect()
        };
        let (before, now) = (draw(0.0, 1.0, 4_000), draw(0.6, 1.3, 2_000));
        let ratios =
            density_ratios(&[Input::Numbers(before.clone())], &[Input::Numbers(now)]).unwrap();
        for (x, ratio) in before
            .iter()
            .zip(&ratios.before)
            .filter(|(x, _)| x.abs() < 1.5)
        {
            let exact = (-(x - 0.6).powi(2) / (2.0 * 1.69) + x * x / 2.0).exp() / 1.3;
            assert!((ratio / exact).ln().abs() < 0.25, "{x}: {ratio} {exact}");
        }
    }

    /// Shares of categories, gaps, a column that never varies and one garbage value do no harm.
    #[test]
    fn what_is_no_ordinary_number() {
        let rows = 1_000;
        let category = |share: usize| {
            let code =
                |row: usize| (!row.is_multiple_of(97)).then_some(u32::from(row % 100 < share));
            Input::Categories((0..rows).map(code).collect())
        };
        let number = |gaps: usize| {
            let value = |row: usize| match row {
                7 => 1e300,
                row if row % 100 < gaps => f64::NAN,
                row => (row % 13) as f64,
            };
            Input::Numbers((0..rows).map(value).collect())
        };
        let still = || Input::Numbers(vec![3.0; rows]);
        let before = [category(50), number(0), still()];
        let same = density_ratios(&before, &before).unwrap();
        let logs: Vec<f64> = same.before.iter().map(|ratio| ratio.ln().abs()).collect();
        assert!(logs.iter().sum::<f64>() / (rows as f64) < 0.1);
        // Row 7 is the garbage: nothing but itself is like it.
        let ordinary = logs.iter().enumerate().filter(|(row, _)| *row != 7);
        assert!(ordinary.map(|(_, log)| *log).fold(0.0, f64::max) < 0.7);
        let now = [category(25), number(10), still()];
        let moved = density_ratios(&before, &now).unwrap();
        // Code 1 with a number was half of the rows, and is 15 of 100: 0.3 times as likely.
        let middle = moved.before[110];
        assert!((0.2..0.45).contains(&middle), "{middle}");
        let none = density_ratios(&[still()], &[still()]).unwrap();
        assert!(none.now.iter().all(|ratio| (ratio - 1.0).abs() < 0.1));
    }

    /// Too few rows, other kinds, too many columns.
    #[test]
    fn what_cannot_be() {
        let few = [Input::Numbers(vec![1.0; 10])];
        assert!(
            density_ratios(&few, &few)
                .unwrap_err()
                .to_string()
                .contains("100")
        );
        assert!(density_ratios(&few, &[]).is_err());
        let other = [Input::Categories(vec![None; 200])];
        assert!(density_ratios(&[Input::Numbers(vec![1.0; 200])], &other).is_err());
        let mut random = Random::new(1);
        let many: Vec<Input> = (0..200)
            .map(|_| Input::Numbers((0..200).map(|_| random.uniform()).collect()))
            .collect();
        assert!(
            density_ratios(&many, &many)
                .unwrap_err()
                .to_string()
                .contains("fewer inputs")
        );
    }
}
