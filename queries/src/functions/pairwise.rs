//! Distances and tests between two lists of counts.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StructArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use driftline_drift::distance::{Floor, LogBase, Pair, Placement};
use driftline_drift::error::StatisticsError;
use driftline_drift::hypothesis::{self, Divergence, KsMode};

/// What a function computes from the two sides, and where it needs them the bins' positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Compute {
    Psi,
    JensenShannon,
    KullbackLeibler,
    Hellinger,
    TotalVariation,
    LInfinity,
    KolmogorovSmirnov,
    Wasserstein,
    Energy,
    KsTest,
    Chi2Test,
    GTest,
}

const ALL: [(&str, Compute); 12] = [
    ("psi", Compute::Psi),
    ("js", Compute::JensenShannon),
    ("kl", Compute::KullbackLeibler),
    ("hellinger", Compute::Hellinger),
    ("tv", Compute::TotalVariation),
    ("linf", Compute::LInfinity),
    ("ks", Compute::KolmogorovSmirnov),
    ("wasserstein", Compute::Wasserstein),
    ("energy", Compute::Energy),
    ("ks_test", Compute::KsTest),
    ("chi2_test", Compute::Chi2Test),
    ("g_test", Compute::GTest),
];

/// Every function of this module.
pub(super) fn all() -> Vec<ScalarUDF> {
    ALL.into_iter()
        .map(|(name, compute)| {
            ScalarUDF::from(Pairwise {
                name,
                compute,
                signature: Signature::user_defined(Volatility::Immutable),
            })
        })
        .collect()
}

impl Compute {
    fn wants_positions(self) -> bool {
        matches!(self, Self::Wasserstein | Self::Energy)
    }

    fn is_test(self) -> bool {
        matches!(self, Self::KsTest | Self::Chi2Test | Self::GTest)
    }

    /// Statistic and p-value; distances have no p-value of their own.
    fn apply(self, pair: Pair<'_>, positions: &[f64]) -> Result<(f64, f64), StatisticsError> {
        let distance = |value: f64| (value, f64::NAN);
        let placement = Placement::Points(positions);
        Ok(match self {
            Self::Psi => distance(pair.psi(Floor::NATIVE)?),
            Self::JensenShannon => distance(pair.jensen_shannon(LogBase::Two)),
            Self::KullbackLeibler => distance(pair.kullback_leibler(Some(Floor::NATIVE))?),
            Self::Hellinger => distance(pair.hellinger()),
            Self::TotalVariation => distance(pair.total_variation()),
            Self::LInfinity => distance(pair.l_infinity()),
            Self::KolmogorovSmirnov => distance(pair.kolmogorov_smirnov().d),
            Self::Wasserstein => distance(pair.wasserstein(placement)?),
            Self::Energy => distance(pair.energy(placement)?),
            Self::KsTest => {
                let outcome = hypothesis::kolmogorov_smirnov(pair, KsMode::Limit)?;
                (outcome.statistic, outcome.p_value)
            }
            Self::Chi2Test | Self::GTest => {
                let divergence = match self {
                    Self::GTest => Divergence::LikelihoodRatio,
                    _ => Divergence::Pearson,
                };
                let outcome = hypothesis::contingency(pair, divergence);
                (outcome.statistic, outcome.p_value)
            }
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Pairwise {
    name: &'static str,
    compute: Compute,
    signature: Signature,
}

fn outcome_fields() -> Fields {
    Fields::from(vec![
        Field::new("statistic", DataType::Float64, true),
        Field::new("p_value", DataType::Float64, true),
    ])
}

fn list_of(ty: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(ty, true)))
}

impl ScalarUDFImpl for Pairwise {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(if self.compute.is_test() {
            DataType::Struct(outcome_fields())
        } else {
            DataType::Float64
        })
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = if self.compute.wants_positions() { 3 } else { 2 };
        let lists = arguments.iter().all(|ty| {
            matches!(
                ty,
                DataType::List(_)
                    | DataType::LargeList(_)
                    | DataType::ListView(_)
                    | DataType::FixedSizeList(..)
                    | DataType::Null
            )
        });
        if arguments.len() != wanted || !lists {
            let positions = if wanted == 3 { ", positions" } else { "" };
            return plan_err!(
                "{}(reference, current{positions}) takes {wanted} lists: counts per bin, as profile(column, edges) or the profiles table's bins give them",
                self.name
            );
        }
        let mut types = vec![list_of(DataType::Int64); 2];
        types.extend((wanted == 3).then(|| list_of(DataType::Float64)));
        Ok(types)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let lists: Vec<&ListArray> = columns
            .iter()
            .map(|column| column.as_list::<i32>())
            .collect();
        let mut statistics = Vec::with_capacity(rows);
        let mut p_values = Vec::with_capacity(rows);
        for row in 0..lists.first().map_or(0, |list| list.len()) {
            let outcome = self.row(&lists, row)?;
            statistics.push(outcome.map(|(statistic, _)| statistic));
            p_values.push(outcome.map(|(_, p_value)| p_value));
        }
        let statistics = Float64Array::from(statistics);
        let result: ArrayRef = if self.compute.is_test() {
            let nulls: Option<NullBuffer> = statistics.nulls().cloned();
            let columns: Vec<ArrayRef> =
                vec![Arc::new(statistics), Arc::new(Float64Array::from(p_values))];
            Arc::new(StructArray::try_new(outcome_fields(), columns, nulls)?)
        } else {
            Arc::new(statistics)
        };
        Ok(ColumnarValue::Array(result))
    }
}

impl Pairwise {
    fn row(&self, lists: &[&ListArray], row: usize) -> Result<Option<(f64, f64)>> {
        if lists.iter().any(|list| list.is_null(row)) {
            return Ok(None);
        }
        let reference = self.counts(&lists[0].value(row))?;
        let current = self.counts(&lists[1].value(row))?;
        let positions: Vec<f64> = match lists.get(2) {
            Some(list) => list
                .value(row)
                .as_primitive::<Float64Type>()
                .values()
                .to_vec(),
            None => Vec::new(),
        };
        let outcome =
            Pair::new(&reference, &current).and_then(|pair| self.compute.apply(pair, &positions));
        match outcome {
            Ok(outcome) => Ok(Some(outcome)),
            Err(StatisticsError::Empty(_)) => Ok(None),
            Err(error) => exec_err!("{}: {error}", self.name),
        }
    }

    fn counts(&self, values: &ArrayRef) -> Result<Vec<u64>> {
        let values = values.as_primitive::<Int64Type>();
        values
            .iter()
            .map(|count| match u64::try_from(count.unwrap_or(0)) {
                Ok(count) => Ok(count),
                Err(_) => exec_err!(
                    "{}: a count is negative; counts per bin are 0 or more",
                    self.name
                ),
            })
            .collect()
    }
}
