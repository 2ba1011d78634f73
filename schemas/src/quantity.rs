//! Numbers as integers in a declared resolution.
//!
//! A feature declares its unit of last place (`resolution`, in the feature's unit); from the device
//! to the profile a value travels as `round_ties_even(value / resolution)` in 32 bits, so that
//! counts and sums are exact integers that merge in any order. What is not a finite number keeps a
//! code of its own at the bottom of the range, and what lies beyond the range saturates.

/// Code of NaN.
pub const NAN: i32 = i32::MIN;
/// Code of negative infinity.
pub const NEGATIVE_INFINITY: i32 = i32::MIN + 1;
/// Code of positive infinity.
pub const POSITIVE_INFINITY: i32 = i32::MIN + 2;
/// Code of a category that the bundle does not list.
pub const UNSEEN: i32 = i32::MIN + 3;
/// Smallest quantised number; what is below it saturates here.
pub const VALUE_MIN: i32 = i32::MIN + 16;
/// Largest quantised number; what is above it saturates here.
pub const VALUE_MAX: i32 = i32::MAX;

/// Whether a code stands for a finite number (and not for one of the codes above).
#[inline]
pub const fn is_finite(code: i32) -> bool {
    code >= VALUE_MIN
}

/// The code of a value in a resolution (same unit as the value, above 0).
#[inline]
pub fn quantise(value: f64, resolution: f64) -> i32 {
    if value.is_nan() {
        return NAN;
    }
    if value.is_infinite() {
        return if value > 0.0 {
            POSITIVE_INFINITY
        } else {
            NEGATIVE_INFINITY
        };
    }
    let scaled = (value / resolution).round_ties_even();
    // `as` saturates at the ends of i32, and the lower end is cut off for the codes.
    (scaled as i32).max(VALUE_MIN)
}

/// The value of a code in a resolution; codes of non-finite numbers give those numbers.
#[inline]
pub fn dequantise(code: i32, resolution: f64) -> f64 {
    match code {
        NAN | UNSEEN => f64::NAN,
        NEGATIVE_INFINITY => f64::NEG_INFINITY,
        POSITIVE_INFINITY => f64::INFINITY,
        _ => f64::from(code) * resolution,
    }
}

/// The value of a finite code as people write it: 3155 in thousandths is 3.155, the double next to that decimal, where
/// [`dequantise`] gives 3.1550000000000002.
pub fn decimal(code: i32, resolution: f64) -> f64 {
    let per_unit = (1.0 / resolution).round();
    match per_unit >= 1.0 && (per_unit * resolution - 1.0).abs() < 1e-9 {
        true => f64::from(code) / per_unit,
        false => f64::from(code) * resolution,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_as_people_write_them() {
        assert_eq!(decimal(3_155, 0.001), 3.155);
        assert_eq!(decimal(-7, 0.1), -0.7);
        assert_eq!(decimal(3, 0.25), 0.75);
        assert_eq!(decimal(3, 0.3), 0.3 * 3.0);
        assert_eq!(decimal(12, 5.0), 60.0);
    }

    #[test]
    fn codes_of_what_is_not_finite_survive() {
        assert_eq!(quantise(f64::NAN, 0.1), NAN);
        assert!(dequantise(NAN, 0.1).is_nan());
        assert_eq!(dequantise(quantise(f64::INFINITY, 0.1), 0.1), f64::INFINITY);
        assert_eq!(
            dequantise(quantise(f64::NEG_INFINITY, 0.1), 0.1),
            f64::NEG_INFINITY
        );
        assert!(!is_finite(UNSEEN));
    }

    #[test]
    fn values_saturate_and_ties_go_to_even() {
        assert_eq!(quantise(1e300, 1.0), VALUE_MAX);
        assert_eq!(quantise(-1e300, 1.0), VALUE_MIN);
        assert_eq!(quantise(2.5, 1.0), 2);
        assert_eq!(quantise(3.5, 1.0), 4);
        assert_eq!(quantise(21.37, 0.01), 2137);
    }
}
