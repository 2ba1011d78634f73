//! From readings to what the model and the frame want: a float per feature for the one, an integer
//! in the declared resolution for the other.
//!
//! A category goes into the frame as its index in the bundle's list. Into the model goes the number
//! that the category's name is, where all names of the list are numbers (`day` 1 to 7, as models
//! are trained on), and else the index; a category that is not listed is −1 there, a missing value
//! NaN.

use std::collections::HashMap;

use driftline_schemas::bundle::{FeatureType, Manifest};
use driftline_schemas::quantity;
use driftline_schemas::rows::Values;

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// Nothing was read.
    Missing,
    /// A number in the feature's unit, or a category's number or index.
    Number(f64),
    /// A category's name, or a number as text.
    Text(&'a str),
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

/// Codes values of one feature.
#[derive(Debug, Clone)]
pub struct Encoder {
    kind: EncoderKind,
}

#[derive(Debug, Clone)]
enum EncoderKind {
    Numeric {
        resolution: f64,
    },
    Categorical {
        codes: HashMap<String, i32>,
        /// The categories as numbers, where all of them are.
        numbers: Option<Vec<f64>>,
    },
}

impl Encoder {
    /// The coder of a feature's type.
    pub fn new(kind: &FeatureType) -> Self {
        let kind = match kind {
            FeatureType::Numeric { resolution, .. } => EncoderKind::Numeric {
                resolution: *resolution,
            },
            FeatureType::Categorical { categories } => EncoderKind::Categorical {
                // At most CATEGORIES_MAX = 1,024 of them.
                codes: categories.iter().cloned().zip(0..).collect(),
                numbers: categories
                    .iter()
                    .map(|category| category.trim().parse().ok())
                    .collect(),
            },
        };
        Self { kind }
    }

    /// What goes into the frame; `None` is missing.
    pub fn code(&self, value: Value<'_>) -> Option<i32> {
        match (&self.kind, value) {
            (_, Value::Missing) => None,
            (EncoderKind::Numeric { resolution }, value) => {
                Some(quantity::quantise(number(value), *resolution))
            }
            (EncoderKind::Categorical { codes, numbers }, value) => {
                Some(category(codes, numbers.as_deref(), value).unwrap_or(quantity::UNSEEN))
            }
        }
    }

    /// What goes into the model.
    pub fn input(&self, value: Value<'_>) -> f32 {
        match (&self.kind, value) {
            (_, Value::Missing) => f32::NAN,
            (EncoderKind::Numeric { .. }, value) => number(value) as f32,
            (
                EncoderKind::Categorical {
                    numbers: Some(_), ..
                },
                value,
            ) => number(value) as f32,
            (EncoderKind::Categorical { codes, .. }, value) => {
                category(codes, None, value).map_or(-1.0, |code| code as f32)
            }
        }
    }
}

fn number(value: Value<'_>) -> f64 {
    match value {
        Value::Missing => f64::NAN,
        Value::Number(number) => number,
        Value::Text(text) => text.trim().parse().unwrap_or(f64::NAN),
    }
}

/// Index of a category: by its name, by the number that its name is, or by the index itself where
/// names are no numbers.
fn category(
    codes: &HashMap<String, i32>,
    numbers: Option<&[f64]>,
    value: Value<'_>,
) -> Option<i32> {
    if let Value::Text(text) = value
        && let Some(code) = codes.get(text)
    {
        return Some(*code);
    }
    match (numbers, value) {
        (Some(numbers), value) => {
            let wanted = number(value);
            let at = numbers.iter().position(|number| *number == wanted)?;
            i32::try_from(at).ok()
        }
        (None, Value::Number(index)) if index >= 0.0 && index.fract() == 0.0 => {
            (index < codes.len() as f64).then_some(index as i32)
        }
        _ => None,
    }
}

/// The coders of a model's features, of its extra signals and of its truth.
#[derive(Debug, Clone)]
pub struct Encoders {
    /// One per feature.
    pub features: Vec<Encoder>,
    /// One per extra signal.
    pub signals: Vec<Encoder>,
    /// Of the predicted class or value.
    pub truth: Encoder,
}

impl Encoders {
    /// The coders that a manifest asks for.
    pub fn new(manifest: &Manifest) -> Self {
        let of = |features: &[driftline_schemas::bundle::Feature]| {
            features
                .iter()
                .map(|feature| Encoder::new(&feature.kind))
                .collect()
        };
        Self {
            features: of(&manifest.features),
            signals: of(&manifest.signals),
            truth: Encoder::new(&manifest.prediction_kind()),
        }
    }
}

/// A row has another number of values than the model has features and extra signals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a row has {got} values, the bundle declares {features} features and {signals} extra signals: give one value each, in that order"
)]
pub struct RowWidth {
    /// Values of the row.
    pub got: usize,
    /// Features of the manifest.
    pub features: usize,
    /// Extra signals of the manifest.
    pub signals: usize,
}

/// Rows that wait for one run of the model.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    pub(crate) times_us: Vec<i64>,
    /// Row-major, rows × features.
    pub(crate) inputs: Vec<f32>,
    /// Per feature, then per extra signal.
    pub(crate) codes: Vec<Values<i32>>,
}

impl Batch {
    /// Without rows yet.
    pub fn new(encoders: &Encoders) -> Self {
        let columns = encoders.features.len() + encoders.signals.len();
        Self {
            times_us: Vec::new(),
            inputs: Vec::new(),
            codes: (0..columns).map(|_| Values::default()).collect(),
        }
    }

    /// Adds a row: its event time (device's clock, microseconds) and one value per feature, then
    /// one per extra signal.
    ///
    /// # Errors
    /// [`RowWidth`] when the number of values is another; nothing is added then.
    pub fn push(
        &mut self,
        encoders: &Encoders,
        event_time_us: i64,
        values: &[Value<'_>],
    ) -> Result<(), RowWidth> {
        let (features, signals) = (encoders.features.len(), encoders.signals.len());
        if values.len() != features + signals || self.codes.len() != values.len() {
            return Err(RowWidth {
                got: values.len(),
                features,
                signals,
            });
        }
        self.times_us.push(event_time_us);
        for (encoder, value) in encoders.features.iter().zip(values) {
            self.inputs.push(encoder.input(*value));
        }
        let all = encoders.features.iter().chain(&encoders.signals);
        for ((encoder, value), column) in all.zip(values).zip(&mut self.codes) {
            column.push(encoder.code(*value));
        }
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.times_us.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.times_us.is_empty()
    }

    /// Event times, microseconds.
    pub fn times_us(&self) -> &[i64] {
        &self.times_us
    }

    /// Row-major inputs of the model.
    pub fn inputs(&self) -> &[f32] {
        &self.inputs
    }

    /// Forgets the rows, keeps the memory.
    pub fn clear(&mut self) {
        self.times_us.clear();
        self.inputs.clear();
        self.codes
            .iter_mut()
            .for_each(|column| *column = Values::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn categories(names: &[&str]) -> Encoder {
        Encoder::new(&FeatureType::Categorical {
            categories: names.iter().map(|name| (*name).into()).collect(),
        })
    }

    #[test]
    fn numbers_are_quantised_for_the_frame_and_plain_for_the_model() {
        let encoder = Encoder::new(&FeatureType::Numeric {
            resolution: 0.01,
            unit: String::new(),
            range: None,
        });
        assert_eq!(encoder.code(Value::Number(21.374)), Some(2137));
        assert_eq!(encoder.input(Value::Number(21.374)), 21.374);
        assert_eq!(encoder.code(Value::Text(" 1.5 ")), Some(150));
        assert_eq!(encoder.code(Value::Text("off")), Some(quantity::NAN));
        assert_eq!(encoder.code(Value::Missing), None);
        assert!(encoder.input(Value::Missing).is_nan());
    }

    #[test]
    fn categories_that_are_numbers_stay_numbers_for_the_model() {
        let day = categories(&["1", "2", "3"]);
        assert_eq!(day.code(Value::Number(2.0)), Some(1));
        assert_eq!(day.code(Value::Text("2.0")), Some(1));
        assert_eq!(day.input(Value::Number(2.0)), 2.0);
        assert_eq!(day.code(Value::Number(9.0)), Some(quantity::UNSEEN));
        let mode = categories(&["heat", "idle"]);
        assert_eq!(mode.code(Value::Text("idle")), Some(1));
        assert_eq!(mode.input(Value::Text("idle")), 1.0);
        assert_eq!(mode.code(Value::Number(1.0)), Some(1));
        assert_eq!(mode.code(Value::Number(2.0)), Some(quantity::UNSEEN));
        assert_eq!(mode.input(Value::Text("boil")), -1.0);
    }
}
