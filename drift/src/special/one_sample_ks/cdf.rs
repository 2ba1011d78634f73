//! The body of the one-sample Kolmogorov-Smirnov distribution: P(D_n ≤ x) by four methods.

use crate::special::gamma::stirling_error;
use std::f64::consts::PI;

/// Intermediate values are kept within 2^±128 by exact scaling with this power of two.
const SCALE_EXPONENT: i32 = 128;
const SCALE: f64 = 340_282_366_920_938_463_463_374_607_431_768_211_456.0;

/// value × 2^exponent in steps that do not overflow before the result does.
fn scale_by(mut value: f64, mut exponent: i32) -> f64 {
    while exponent > 0 {
        let step = exponent.min(SCALE_EXPONENT);
        value *= 2f64.powi(step);
        exponent -= step;
    }
    while exponent < 0 && value != 0.0 {
        let step = (-exponent).min(SCALE_EXPONENT);
        value /= 2f64.powi(step);
        exponent += step;
    }
    value
}

/// For t = n x in [0, 1]: n! (2t − 1)^n / n^n (Ruben and Gambino 1982).
pub(super) fn smallest(n: u64, t: f64) -> f64 {
    if t <= 0.5 {
        return 0.0;
    }
    let size = n as f64;
    // n! / n^n = √(2πn) e^(−n + δ(n))
    let log =
        0.5 * (2.0 * PI * size).ln() - size + stirling_error(size) + size * (2.0 * t - 1.0).ln();
    log.exp()
}

/// Durbin's matrix in the form of Marsaglia, Tsang and Wang ("Evaluating Kolmogorov's
/// distribution", J. Stat. Software 8(18), 2003): an entry of (n! / n^n) H^n, with H of order 2k − 1.
pub(super) fn durbin(n: u64, x: f64) -> f64 {
    let size = n as f64;
    let t = size * x;
    let k = t.ceil() as usize;
    let h = k as f64 - t;
    let order = 2 * k - 1;
    let mut base = Matrix::durbin(order, h);
    let mut result = Matrix::identity(order);
    let mut scratch = Matrix::identity(order);
    let (mut base_exponent, mut exponent) = (0, 0);
    let mut power = n;
    while power > 0 {
        if power % 2 == 1 {
            result.multiply_into(&base, &mut scratch);
            std::mem::swap(&mut result, &mut scratch);
            exponent += base_exponent;
        }
        base.multiply_into(&base, &mut scratch);
        std::mem::swap(&mut base, &mut scratch);
        base_exponent *= 2;
        if base.at(k - 1, k - 1).abs() > SCALE {
            base.scale(1.0 / SCALE);
            base_exponent += SCALE_EXPONENT;
        }
        power /= 2;
    }
    let mut p = result.at(k - 1, k - 1);
    for i in 1..=n {
        p = i as f64 * p / size;
        if p.abs() < 1.0 / SCALE {
            p *= SCALE;
            exponent -= SCALE_EXPONENT;
        }
    }
    scale_by(p, exponent)
}

/// A square matrix of small order, by rows.
struct Matrix {
    order: usize,
    cells: Vec<f64>,
}

impl Matrix {
    fn identity(order: usize) -> Self {
        let mut cells = vec![0.0; order * order];
        for i in 0..order {
            cells[i * order + i] = 1.0;
        }
        Self { order, cells }
    }

    fn durbin(order: usize, h: f64) -> Self {
        let mut matrix = Self {
            order,
            cells: vec![0.0; order * order],
        };
        // Column j > 0 is 1/(i − j + 1)! from the row above the diagonal down.
        let mut inverse_factorial = 1.0;
        for gap in 0..order {
            for j in 1..order {
                let row = j + gap - 1;
                if row + 1 < order {
                    matrix.cells[row * order + j] = inverse_factorial;
                }
            }
            // First column and last row: (1 − h^(gap+1)) / (gap+1)!
            inverse_factorial /= (gap + 1) as f64;
            let mut edge = (1.0 - h.powi(gap as i32 + 1)) * inverse_factorial;
            if gap + 1 == order {
                let m = order as i32;
                edge =
                    (1.0 - 2.0 * h.powi(m) + (2.0 * h - 1.0).max(0.0).powi(m)) * inverse_factorial;
            }
            matrix.cells[gap * order] = edge;
            matrix.cells[(order - 1) * order + (order - 1 - gap)] = edge;
        }
        matrix
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.cells[row * self.order + column]
    }

    fn scale(&mut self, factor: f64) {
        for cell in &mut self.cells {
            *cell *= factor;
        }
    }

    fn multiply_into(&self, right: &Self, out: &mut Self) {
        let m = self.order;
        out.cells.fill(0.0);
        for i in 0..m {
            for l in 0..m {
                let factor = self.cells[i * m + l];
                if factor != 0.0 {
                    for j in 0..m {
                        out.cells[i * m + j] += factor * right.cells[l * m + j];
                    }
                }
            }
        }
    }
}

/// Pomeranz's recursion ("Exact cumulative distribution of the Kolmogorov-Smirnov statistic for small
/// samples", CACM 17(12), 1974): rows of a matrix, each the previous one folded with Poisson weights.
pub(super) fn pomeranz(n: u64, x: f64) -> f64 {
    let size = n as f64;
    let t = size * x;
    let whole = t.floor();
    let fraction = t - whole;
    let g = fraction.min(1.0 - fraction);
    let whole = whole as i64;
    let ceil_fraction = i64::from(fraction > 0.0);
    let round_fraction = i64::from(fraction > 0.5);
    let n = n as i64;
    let width = 2 * (whole as usize + 1);

    let powers = |step: f64| {
        let mut row = vec![1.0; width];
        for m in 1..width {
            row[m] = row[m - 1] * step / m as f64;
        }
        row
    };
    let outer = powers(g / size);
    let odd = powers(2.0 * g / size);
    let even = powers((1.0 - 2.0 * g) / size);

    // Columns of row i that can be non-zero.
    let span = |i: i64| {
        let half = (i + 1) / 2;
        let (from, to) = if i == 0 {
            (-whole - ceil_fraction - 1, whole + ceil_fraction - 1)
        } else if i % 2 == 1 && half == n + 1 {
            (n - whole - ceil_fraction - 1, n + whole + ceil_fraction - 1)
        } else if i % 2 == 1 {
            (
                half - 1 - whole - round_fraction - 1,
                half + whole - 1 + ceil_fraction - 1,
            )
        } else {
            (half - 1 - whole - 1, half + whole + round_fraction - 1)
        };
        ((from + 2).max(0), to.min(n))
    };

    let mut row = vec![0.0; width];
    let mut next = vec![0.0; width];
    row[0] = 1.0;
    let mut exponent = 0;
    let (mut from, mut to) = span(0);
    for i in 1..=2 * n + 1 {
        let (next_from, next_to) = span(i);
        let weights = if i == 1 || i == 2 * n + 1 {
            &outer
        } else if i % 2 == 1 {
            &odd
        } else {
            &even
        };
        next.fill(0.0);
        let mut largest: f64 = 0.0;
        for column in next_from..=next_to {
            let mut sum = 0.0;
            for source in from..=column.min(to) {
                let gap = (column - source) as usize;
                if gap < width {
                    sum += row[(source - from) as usize] * weights[gap];
                }
            }
            next[(column - next_from) as usize] = sum;
            largest = largest.max(sum);
        }
        if largest > 0.0 && largest < 1.0 / SCALE {
            for cell in &mut next {
                *cell *= SCALE;
            }
            exponent -= SCALE_EXPONENT;
        }
        std::mem::swap(&mut row, &mut next);
        (from, to) = (next_from, next_to);
    }
    let mut answer = row[(n - from) as usize];
    for m in 1..=n {
        if answer.abs() > SCALE {
            answer /= SCALE;
            exponent += SCALE_EXPONENT;
        }
        answer *= m as f64;
    }
    scale_by(answer, exponent)
}

/// The expansion K₀ + K₁/√n + K₂/n + K₃/n^1.5 of Pelz and Good ("Approximating the lower tail areas
/// of the Kolmogorov-Smirnov one-sample statistic", JRSS B 38(2), 1976), in theta-function form.
pub(super) fn pelz_good(n: f64, x: f64) -> f64 {
    let z = n.sqrt() * x;
    let (z2, pi2) = (z * z, PI * PI);
    let (z3, z4, z6, z8) = (z2 * z, z2 * z2, z2 * z2 * z2, z2 * z2 * z2 * z2);
    let log_q = -pi2 / (8.0 * z2);
    if log_q < -708.0 {
        return 0.0;
    }
    let terms = (16.0 * z / PI).ceil() as u32;
    let (mut k0, mut k1, mut k2, mut k3) = (0.0, 0.0, 0.0, 0.0);
    for k in (1..=terms).rev() {
        let m2 = f64::from((2 * k - 1) * (2 * k - 1));
        let (m4, m6) = (m2 * m2, m2 * m2 * m2);
        let weight = (log_q * m2).exp();
        k0 += weight;
        k1 += weight * (-z2 + pi2 / 4.0 * m2);
        k2 += weight
            * (6.0 * z6
                + 2.0 * z4
                + (2.0 * z4 - 5.0 * z2) * pi2 / 4.0 * m2
                + pi2 * pi2 * (1.0 - 2.0 * z2) / 16.0 * m4);
        k3 += weight
            * (-30.0 * z6 - 90.0 * z8
                + pi2 * (135.0 * z4 - 96.0 * z6) / 4.0 * m2
                + pi2 * pi2 * (-60.0 * z2 + 212.0 * z4) / 16.0 * m4
                + pi2 * pi2 * pi2 * (5.0 - 30.0 * z2) / 64.0 * m6);
    }
    let root = (2.0 * PI).sqrt();
    k0 *= root / z;
    k1 *= root / (6.0 * z4);
    k2 *= root / (72.0 * z6 * z);
    k3 *= root / (6480.0 * z8 * z2);
    for k in 1..=terms {
        let square = f64::from(k * k);
        let weight = (4.0 * log_q * square).exp();
        k2 -= pi2 * root / (36.0 * z3) * square * weight;
        k3 += pi2 * root / (216.0 * z6) * (3.0 * z2 - pi2 * square) * square * weight;
    }
    k0 + k1 / n.sqrt() + k2 / n + k3 / (n * n.sqrt())
}
