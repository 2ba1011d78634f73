//! Rows as columns.

use driftline_schemas::bundle::Manifest;
use driftline_schemas::rows::Values;

use super::PackError;
use crate::features::{Encoder, Encoders, Value};

/// Values of one column.
#[derive(Debug, Clone)]
pub enum Data {
    /// Numbers; missing is not NaN.
    Numbers(Values<f64>),
    /// Texts, as indices into a list of the different ones.
    Texts {
        /// One per row.
        codes: Values<u32>,
        /// The different texts.
        dictionary: Vec<String>,
    },
}

impl Data {
    /// Texts, each different one once.
    pub fn texts<'a>(texts: impl IntoIterator<Item = Option<&'a str>>) -> Self {
        let mut index = std::collections::HashMap::<String, u32>::new();
        let mut dictionary = Vec::new();
        let mut codes = Values::default();
        for text in texts {
            codes.push(text.map(|text| match index.get(text) {
                Some(code) => *code,
                None => {
                    // A table in memory has fewer rows than that.
                    let code = dictionary.len() as u32;
                    dictionary.push(text.to_owned());
                    index.insert(text.to_owned(), code);
                    code
                }
            }));
        }
        Self::Texts { codes, dictionary }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbers(values) => values.len(),
            Self::Texts { codes, .. } => codes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a row.
    pub fn value(&self, row: usize) -> Value<'_> {
        match self {
            Self::Numbers(values) => values
                .get(row)
                .map_or(Value::Missing, |v| Value::Number(*v)),
            Self::Texts { codes, dictionary } => codes
                .get(row)
                .and_then(|code| dictionary.get(*code as usize))
                .map_or(Value::Missing, |text| Value::Text(text)),
        }
    }

    /// What goes into frames and profiles.
    pub fn codes(&self, encoder: &Encoder) -> Values<i32> {
        match self {
            Self::Numbers(values) => values
                .iter()
                .map(|value| value.and_then(|value| encoder.code(Value::Number(*value))))
                .collect(),
            Self::Texts { codes, dictionary } => {
                let known: Vec<Option<i32>> = dictionary
                    .iter()
                    .map(|text| encoder.code(Value::Text(text)))
                    .collect();
                codes
                    .iter()
                    .map(|code| code.and_then(|code| known.get(*code as usize).copied().flatten()))
                    .collect()
            }
        }
    }
}

/// Rows to make a reference from. All columns are equally long.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<(String, Data)>,
    /// The truth of each row.
    pub label: Option<Data>,
    /// The device that each row is from.
    pub device: Option<Data>,
    /// Event times, microseconds.
    pub times_us: Option<Vec<i64>>,
    rows: usize,
}

impl Table {
    /// A table of `rows` rows without columns yet.
    pub fn new(rows: usize) -> Self {
        Self {
            rows,
            ..Self::default()
        }
    }

    /// Adds a column that may be a feature or an extra signal.
    ///
    /// # Errors
    /// [`PackError::Column`] when it is not as long as the table, or its name is there.
    pub fn add(&mut self, name: &str, data: Data) -> Result<(), PackError> {
        let problem = if data.len() != self.rows {
            format!("has {} rows, the table has {}", data.len(), self.rows)
        } else if self.columns.iter().any(|(it, _)| it == name) {
            "is there twice".into()
        } else {
            self.columns.push((name.into(), data));
            return Ok(());
        };
        Err(PackError::Column {
            column: name.into(),
            problem,
        })
    }

    /// Number of rows.
    #[allow(clippy::len_without_is_empty, reason = "an empty table is refused")]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Names of the columns, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// A column by its name.
    ///
    /// # Errors
    /// [`PackError::Column`] lists the columns that there are.
    pub fn column(&self, name: &str) -> Result<&Data, PackError> {
        self.columns
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, data)| data)
            .ok_or_else(|| PackError::Column {
                column: name.into(),
                problem: format!(
                    "is not there; the rows have {}",
                    self.names().collect::<Vec<_>>().join(", ")
                ),
            })
    }

    /// Row-major inputs of the model.
    pub(super) fn inputs(
        &self,
        manifest: &Manifest,
        encoders: &Encoders,
    ) -> Result<Vec<f32>, PackError> {
        let width = manifest.features.len();
        let mut inputs = vec![0f32; self.rows * width];
        for (at, (feature, encoder)) in manifest.features.iter().zip(&encoders.features).enumerate()
        {
            let data = self.column(&feature.name)?;
            let column = inputs.iter_mut().skip(at).step_by(width);
            match data {
                Data::Numbers(values) => {
                    for (input, value) in column.zip(values.iter()) {
                        let value = value.map_or(Value::Missing, |value| Value::Number(*value));
                        *input = encoder.input(value);
                    }
                }
                Data::Texts { codes, dictionary } => {
                    let known: Vec<f32> = dictionary
                        .iter()
                        .map(|text| encoder.input(Value::Text(text)))
                        .collect();
                    for (input, code) in column.zip(codes.iter()) {
                        *input = code.map_or(f32::NAN, |code| known[*code as usize]);
                    }
                }
            }
        }
        Ok(inputs)
    }
}
