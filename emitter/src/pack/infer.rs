//! Feature types and resolutions from values.
//!
//! Numbers are numeric and texts are categories, unless told otherwise. The resolution of numbers is
//! the greatest power of ten, at most 1, in which every value is whole, so that nothing is lost; when
//! 32 bits with head room cannot hold that, it is the power of ten just below a thousandth of the
//! standard deviation and a hundredth of the narrowest span that holds a tenth of the values: rounding
//! then moves no statistic worth looking at, and makes no equal neighbours where a skewed signal stays
//! low for long.

use driftline_schemas::bundle::{Feature, FeatureType};
use driftline_schemas::limits::CATEGORIES_MAX;
use driftline_schemas::quantity::VALUE_MAX;

use super::table::Data;
use super::{FeatureOverride, PackError, is_numeric};

/// Finest resolution that is tried for exactness, as a power of ten: sensors and files have no more
/// digits behind the point.
const DECIMALS_MAX: i32 = 9;
/// Values that the narrowest span is looked for in: enough for a tenth of them to be a thousand.
const SAMPLE_MAX: usize = 10_000;
/// How much greater than the greatest reference value a later value may be before it saturates.
const HEAD_ROOM: f64 = 8.0;

/// Type of a column: what was said of it, else what an earlier bundle has, else what its values say.
pub(super) fn kind(
    name: &str,
    data: &Data,
    told: Option<&FeatureOverride>,
    known: Option<&Feature>,
    notes: &mut Vec<String>,
) -> Result<FeatureType, PackError> {
    let nothing = FeatureOverride::default();
    let told = told.unwrap_or(&nothing);
    let known = known.map(|feature| &feature.kind);
    let is_text = matches!(data, Data::Texts { .. });
    let categorical = told.categorical.unwrap_or_else(|| {
        told.categories.is_some() || known.map_or(is_text, |kind| !is_numeric(kind))
    });
    if categorical {
        return categorical_kind(name, data, told, known, notes);
    }
    let Data::Numbers(values) = data else {
        return Err(PackError::Column {
            column: name.into(),
            problem: "holds texts, which are no numbers: declare it categorical, or leave it out"
                .into(),
        });
    };
    let (mut resolution, mut unit, mut range) = (None, String::new(), None);
    if let Some(FeatureType::Numeric {
        resolution: old,
        unit: old_unit,
        range: old_range,
    }) = known
    {
        (resolution, unit, range) = (Some(*old), old_unit.clone(), *old_range);
    }
    Ok(FeatureType::Numeric {
        resolution: told
            .resolution
            .or(resolution)
            .unwrap_or_else(|| numeric_resolution(values)),
        unit: told.unit.clone().unwrap_or(unit),
        range: told.range.or(range),
    })
}

fn categorical_kind(
    name: &str,
    data: &Data,
    told: &FeatureOverride,
    known: Option<&FeatureType>,
    notes: &mut Vec<String>,
) -> Result<FeatureType, PackError> {
    let found = || categories(data);
    let list = if let Some(told) = &told.categories {
        told.clone()
    } else if let Some(FeatureType::Categorical { categories: old }) = known {
        let mut list = old.clone();
        let new: Vec<String> = found().into_iter().filter(|it| !old.contains(it)).collect();
        if !new.is_empty() {
            notes.push(format!(
                "feature {name:?} has new categories {new:?}: its profiles do not compare with the old version's"
            ));
            list.extend(new);
        }
        list
    } else {
        found()
    };
    if list.is_empty() || list.len() > CATEGORIES_MAX {
        return Err(PackError::Column {
            column: name.into(),
            problem: format!(
                "has {} different texts, a categorical feature has 1 to {CATEGORIES_MAX}: leave it out, or declare it numeric",
                list.len()
            ),
        });
    }
    Ok(FeatureType::Categorical { categories: list })
}

/// The different values of a column, numbers in rising order before texts in alphabetical order.
pub(super) fn categories(data: &Data) -> Vec<String> {
    let mut all: Vec<String> = match data {
        Data::Texts { codes, dictionary } => {
            let mut used = vec![false; dictionary.len()];
            codes.iter().flatten().for_each(|code| {
                if let Some(used) = used.get_mut(*code as usize) {
                    *used = true;
                }
            });
            let used = dictionary.iter().zip(used).filter(|(_, used)| *used);
            used.map(|(text, _)| text.clone()).collect()
        }
        Data::Numbers(values) => {
            let mut numbers: Vec<f64> = values
                .iter()
                .flatten()
                .copied()
                .filter(|value| value.is_finite())
                .collect();
            numbers.sort_unstable_by(f64::total_cmp);
            numbers.dedup();
            numbers.iter().map(f64::to_string).collect()
        }
    };
    let number = |text: &String| text.trim().parse::<f64>().ok();
    all.sort_by(|a, b| match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    all.dedup();
    let texts = all.partition_point(|text| number(text).is_some());
    all[texts..].sort();
    all
}

/// Resolution of numbers, see the module.
fn numeric_resolution(values: &driftline_schemas::rows::Values<f64>) -> f64 {
    let finite: Vec<f64> = values
        .iter()
        .flatten()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    let greatest = finite.iter().fold(0f64, |max, value| max.max(value.abs()));
    // Values that came from 32-bit floats have digits that were never measured.
    let single = finite
        .iter()
        .all(|value| f64::from(*value as f32) == *value);
    let mut decimals = 0;
    let mut scale = 1f64;
    for value in &finite {
        while !is_whole(*value, scale, single) {
            decimals += 1;
            scale *= 10.0;
            if decimals > DECIMALS_MAX {
                return spread_resolution(&finite);
            }
        }
    }
    if greatest * scale * HEAD_ROOM > f64::from(VALUE_MAX) {
        return spread_resolution(&finite);
    }
    power_of_ten(-decimals)
}

/// Whether a value is a whole number of `1 / scale`, as exactly as its type can say.
#[inline]
fn is_whole(value: f64, scale: f64, single: bool) -> bool {
    let nearest = (value * scale).round() / scale;
    match single {
        true => nearest as f32 == value as f32,
        false => nearest == value,
    }
}

/// The power of ten just below what the module says, coarser where 32 bits do not hold the greatest
/// value in it.
pub(super) fn spread_resolution(values: &[f64]) -> f64 {
    let finite: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    let count = finite.len().max(1) as f64;
    let mean = finite.iter().sum::<f64>() / count;
    let variance = finite
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / count;
    let greatest = finite.iter().fold(0f64, |max, value| max.max(value.abs()));
    let spread = match variance.sqrt() {
        sd if sd > 0.0 => (sd / 1_000.0).min(narrowest_tenth(&finite) / 100.0),
        _ if greatest > 0.0 => greatest / 1e6,
        _ => 1.0,
    };
    let fits = (greatest * HEAD_ROOM / f64::from(VALUE_MAX)).log10().ceil();
    let exponent = spread.log10().floor().max(fits).clamp(-300.0, 300.0);
    power_of_ten(exponent as i32)
}

/// Width of the narrowest span that holds a tenth of the values, infinite where they are few or where
/// a tenth of them is one value.
fn narrowest_tenth(finite: &[f64]) -> f64 {
    let step = finite.len().div_ceil(SAMPLE_MAX).max(1);
    let mut sample: Vec<f64> = finite.iter().copied().step_by(step).collect();
    sample.sort_unstable_by(f64::total_cmp);
    let tenth = sample.len() / 10;
    if tenth < 2 {
        return f64::INFINITY;
    }
    let widths = sample
        .iter()
        .zip(&sample[tenth..])
        .map(|(low, high)| high - low);
    match widths.fold(f64::INFINITY, f64::min) {
        width if width > 0.0 => width,
        _ => f64::INFINITY,
    }
}

/// The number that is read where a person writes `1e-3`: dividing or multiplying tens does not
/// always give it.
fn power_of_ten(exponent: i32) -> f64 {
    format!("1e{exponent}").parse().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use driftline_schemas::rows::Values;
    use proptest::prelude::*;

    fn numbers(values: &[f64]) -> Data {
        Data::Numbers(values.iter().map(|value| Some(*value)).collect())
    }

    fn resolution_of(values: &[f64]) -> f64 {
        let Data::Numbers(values) = numbers(values) else {
            unreachable!("numbers are numbers")
        };
        numeric_resolution(&values)
    }

    #[test]
    fn the_resolution_is_the_power_of_ten_that_loses_nothing() {
        assert_eq!(resolution_of(&[1.0, 200.0, -3.0]), 1.0);
        assert_eq!(resolution_of(&[21.5, 21.25, 20.0]), 0.01);
        assert_eq!(resolution_of(&[0.439155, 0.415055]), 1e-6);
        assert_eq!(resolution_of(&[0.1f32.into(), 0.25]), 0.01);
        assert_eq!(resolution_of(&[]), 1.0);
    }

    #[test]
    fn values_with_too_many_digits_get_a_thousandth_of_their_spread() {
        // Standard deviation 1,000: a thousandth is 1.
        assert_eq!(resolution_of(&[14_596.1621003, 16_596.1621003]), 1.0);
        assert_eq!(resolution_of(&[1e12, 1e12 + 1.0]), 10_000.0);
    }

    /// A sensor that mostly reads low, with noise of a few units, and now and then a hundred thousand:
    /// what it reads low is told apart.
    #[test]
    fn a_skewed_signal_keeps_its_low_values_apart() {
        let values: Vec<f64> = (0..1_000u32)
            .map(|row| match row % 5 {
                0 => f64::from(row) * 333.333_333_3,
                _ => 2_500.0 + f64::from(row * 7_919 % 1_000) * 0.012_345_678_9,
            })
            .collect();
        assert_eq!(resolution_of(&values), 0.01);
    }

    proptest! {
        /// Any values with up to six decimals that fit: quantising and back gives the very values.
        #[test]
        fn nothing_is_lost_where_it_fits(
            whole in proptest::collection::vec(-200_000_000i64..200_000_000, 1..50),
            decimals in 0i32..7,
        ) {
            let scale = power_of_ten(decimals);
            let values: Vec<f64> = whole.iter().map(|value| *value as f64 / scale).collect();
            let resolution = resolution_of(&values);
            for value in values {
                let code = driftline_schemas::quantity::quantise(value, resolution);
                let back = driftline_schemas::quantity::dequantise(code, resolution);
                prop_assert!((back - value).abs() <= value.abs() * 1e-15, "{value} {back} {resolution}");
            }
        }
    }

    #[test]
    fn categories_are_sorted_as_people_would() {
        let data = Data::texts(["b", "10", "9", "a", "b"].map(Some));
        assert_eq!(categories(&data), ["9", "10", "a", "b"]);
        assert_eq!(
            categories(&numbers(&[2.0, 1.0, 2.0, 1.5])),
            ["1", "1.5", "2"]
        );
    }

    #[test]
    fn an_earlier_bundle_decides_and_what_is_said_decides_more() {
        let known = Feature {
            name: "x".into(),
            kind: FeatureType::Numeric {
                resolution: 0.5,
                unit: "V".into(),
                range: Some([0.0, 5.0]),
            },
        };
        let mut notes = Vec::new();
        let data = numbers(&[1.0, 2.0]);
        let kept = kind("x", &data, None, Some(&known), &mut notes).unwrap();
        assert_eq!(kept, known.kind);
        let told = FeatureOverride {
            resolution: Some(0.1),
            ..FeatureOverride::default()
        };
        let changed = kind("x", &data, Some(&told), Some(&known), &mut notes).unwrap();
        assert_eq!(
            changed,
            FeatureType::Numeric {
                resolution: 0.1,
                unit: "V".into(),
                range: Some([0.0, 5.0]),
            }
        );
    }

    #[test]
    fn numbers_can_be_categories_and_texts_cannot_be_numbers() {
        let told = FeatureOverride {
            categorical: Some(true),
            ..FeatureOverride::default()
        };
        let mut notes = Vec::new();
        let day = kind("day", &numbers(&[1.0, 3.0]), Some(&told), None, &mut notes).unwrap();
        assert_eq!(
            day,
            FeatureType::Categorical {
                categories: vec!["1".into(), "3".into()]
            }
        );
        let told = FeatureOverride {
            categorical: Some(false),
            ..FeatureOverride::default()
        };
        let texts = Data::texts([Some("a")]);
        assert!(kind("t", &texts, Some(&told), None, &mut notes).is_err());
        let empty = Data::Numbers(Values::default());
        assert!(kind("e", &empty, None, None, &mut notes).is_ok());
    }
}
