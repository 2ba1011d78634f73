//! Two tables, column by column: has anything changed, at a chance of a false answer that is chosen for
//! the whole comparison.
//!
//! A [`Column`] is what both sides hold, as counts over common bins: one bin a value where the values
//! were kept, bins between [`Cuts`] where there were too many to keep, one bin a category. [`judge`]
//! measures columns by [`Method`]s and holds the p-values of all of them together against one rate, by
//! [Holm's](crate::hypothesis::holm) procedure: the chance that *any* column is called drifted when
//! nothing has changed is at most that rate, whatever the columns' dependence.
//!
//! That is only as true as the p-values are right at rate / (columns × methods), where limit theorems
//! are not to be trusted. So the methods that are used when none is named are valid by dealing (see
//! [`rank_test`](crate::hypothesis::rank_test)) or conservative:
//!
//! | method | of | looks for | p-value |
//! | --- | --- | --- | --- |
//! | `location` | numbers | values moved up or down | rank sum, saddlepoint of the dealing |
//! | `spread` | numbers | values spread or drew together | Mood's, saddlepoint of the dealing |
//! | `ks` | numbers | any change of shape | exact up to 10,000 rows a side, then the limit; conservative with ties |
//! | `shares` | both | one value's or category's share | Fisher's exact, times the shares asked |
//! | `missing` | both | missing values; values that are not finite | Fisher's exact |
//!
//! A test that could not answer whatever the sides were (nothing is missing, no value recurs) is not
//! asked and costs nothing; whether it could is decided on pooled rows, so that is no second look. The
//! Jensen-Shannon distance stands beside them as a size, without a verdict. Distances that are asked
//! for by name get their p-value by dealing the pooled counts to both sides at random, with a fixed seed,
//! until the answer is clear (Besag and Clifford, "Sequential Monte Carlo p-values", Biometrika 78,
//! 1991). Tests that are asked for by name have the p-values that SciPy gives.
//!
//! # Layout
//!
//! - `column`: what is compared
//! - `sketch`: a bounded sample, running moments, and bins for what is not kept
//! - `method`: methods and whose definitions
//! - `measure`: one method on one column, native or SciPy's; `peers`: Evidently's and NannyML's
//! - `deal`: p-values of distances

mod column;
mod deal;
mod measure;
mod method;
mod peers;
mod sketch;

pub use column::{Categories, Column, Numbers, Sides, Values};
pub use measure::KS_LATTICE_MAX;
pub use method::{Definitions, Method};
pub use sketch::{Binned, Cuts, Reservoir, Running};

use crate::error::StatisticsError;
use crate::hypothesis::holm;

/// What to measure, and how sure to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Methods asked for; none for those of the module's table.
    pub methods: Vec<Method>,
    /// Whose definitions and thresholds.
    pub definitions: Definitions,
    /// Chance that anything at all is called drifted when nothing has changed, between 0 and 1. Not
    /// kept by Evidently's and NannyML's own thresholds.
    pub false_alarm_rate: f64,
}

/// One method's answer for one column.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The method.
    pub method: Method,
    /// Its statistic or distance.
    pub value: f64,
    /// Chance of one at least as large when nothing has changed; none for a size without a verdict.
    pub p_value: Option<f64>,
    /// What the p-value was held against or, by a peer's definition, the value.
    pub threshold: Option<f64>,
    /// Whether it crossed that.
    pub drifted: bool,
    /// The value or category that the answer is about, where it is about one.
    pub at: Option<String>,
}

/// Measures every column, and judges all p-values as one family.
///
/// # Errors
/// A method that cannot be computed on a column, with the column's name; Evidently's and NannyML's
/// definitions need the values themselves.
pub fn judge(columns: &[&Column], plan: &Plan) -> Result<Vec<Vec<Measure>>, ColumnError> {
    let deals_max = deal::deals_max(plan.false_alarm_rate, columns.len());
    let mut answers = Vec::with_capacity(columns.len());
    for column in columns {
        let measures = match plan.definitions {
            Definitions::Native | Definitions::Scipy => measure::all(column, plan, deals_max),
            Definitions::Evidently | Definitions::Nannyml => peers::all(column, plan),
        };
        answers.push(measures.map_err(|source| ColumnError {
            column: column.name.clone(),
            source,
        })?);
    }
    if matches!(plan.definitions, Definitions::Native | Definitions::Scipy) {
        let p_values: Vec<f64> = answers.iter().flatten().filter_map(|m| m.p_value).collect();
        let mut fates = holm(&p_values, plan.false_alarm_rate).into_iter();
        let tested = answers.iter_mut().flatten().filter(|m| m.p_value.is_some());
        for (measure, fate) in tested.zip(&mut fates) {
            measure.threshold = Some(fate.level);
            measure.drifted = fate.rejected;
        }
    }
    Ok(answers)
}

/// A column that could not be measured.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("column {column}: {source}")]
pub struct ColumnError {
    /// Its name.
    pub column: String,
    /// Why.
    pub source: StatisticsError,
}

#[cfg(test)]
mod tests;
