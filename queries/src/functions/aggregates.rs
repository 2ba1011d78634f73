//! Aggregates that make lists of counts from values, and merge them.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use driftline_schemas::limits::CATEGORIES_MAX;
use driftline_schemas::quantity;

/// Every function of this module.
pub(super) fn all() -> Vec<AggregateUDF> {
    [Kind::Profile, Kind::Merge]
        .into_iter()
        .map(|kind| {
            AggregateUDF::from(Counts {
                kind,
                signature: Signature::user_defined(Volatility::Immutable),
            })
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// `profile(column, edges [, resolution])`.
    Profile,
    /// `merge_bins(counts)`.
    Merge,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Counts {
    kind: Kind,
    signature: Signature,
}

fn list_of(ty: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(ty, true)))
}

fn is_list(ty: &DataType) -> bool {
    matches!(
        ty,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Null
    )
}

impl AggregateUDFImpl for Counts {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Profile => "profile",
            Kind::Merge => "merge_bins",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Int64))
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, arguments) {
            (Kind::Merge, [counts]) if is_list(counts) => Ok(vec![list_of(DataType::Int64)]),
            (Kind::Profile, [_, edges]) if is_list(edges) => {
                Ok(vec![DataType::Float64, list_of(DataType::Float64)])
            }
            (Kind::Profile, [_, edges, _]) if is_list(edges) => Ok(vec![
                DataType::Float64,
                list_of(DataType::Float64),
                DataType::Float64,
            ]),
            (Kind::Merge, _) => plan_err!("merge_bins(counts) takes one list of counts"),
            (Kind::Profile, _) => plan_err!(
                "profile(column, edges [, resolution]) takes a number, a list of rising edges and, to count exactly as the pipeline does, the signal's resolution"
            ),
        }
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Accumulate {
            kind: self.kind,
            counts: None,
            binning: None,
        }))
    }

    fn state_fields(&self, _arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(
            "counts",
            list_of(DataType::Int64),
            true,
        ))])
    }
}

/// Edges as they came, and in the units that values are compared in.
#[derive(Debug, Clone, PartialEq)]
struct Binning {
    edges: Vec<f64>,
    /// Unit of last place; `None` compares the values as they are.
    resolution: Option<f64>,
}

impl Binning {
    fn new(edges: Vec<f64>, resolution: Option<f64>) -> Result<Self> {
        if edges.len() >= CATEGORIES_MAX || edges.windows(2).any(|pair| pair[0] >= pair[1]) {
            return exec_err!("profile: edges must rise, and be fewer than {CATEGORIES_MAX}");
        }
        if resolution.is_some_and(|resolution| resolution.is_nan() || resolution <= 0.0) {
            return exec_err!("profile: the resolution must be above 0");
        }
        let edges = match resolution {
            None => edges,
            Some(resolution) => edges
                .into_iter()
                .map(|edge| f64::from(quantity::quantise(edge, resolution)))
                .collect(),
        };
        Ok(Self { edges, resolution })
    }

    /// Bin of a value; NaN and infinities have none.
    fn bin(&self, value: f64) -> Option<usize> {
        if !value.is_finite() {
            return None;
        }
        // Quantised as on the device, so that the last place of a 32-bit float does not decide.
        let value = match self.resolution {
            None => value,
            Some(resolution) => f64::from(quantity::quantise(value, resolution)),
        };
        Some(self.edges.partition_point(|&edge| edge < value))
    }
}

#[derive(Debug)]
struct Accumulate {
    kind: Kind,
    counts: Option<Vec<i64>>,
    binning: Option<Binning>,
}

impl Accumulate {
    fn add_lists(&mut self, lists: &ListArray) -> Result<()> {
        for list in lists.iter().flatten() {
            let list = list.as_primitive::<Int64Type>();
            let counts = self.counts.get_or_insert_with(|| vec![0; list.len()]);
            if counts.len() != list.len() {
                return exec_err!(
                    "merge_bins: lists of {} and {} counts do not merge; only bins of one layout do",
                    counts.len(),
                    list.len()
                );
            }
            for (mine, theirs) in counts.iter_mut().zip(list.iter()) {
                *mine += theirs.unwrap_or(0);
            }
        }
        Ok(())
    }

    fn add_values(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let values = columns[0].as_primitive::<Float64Type>();
        let edges = columns[1].as_list::<i32>();
        for row in 0..values.len() {
            if values.is_null(row) || edges.is_null(row) {
                continue;
            }
            if self.binning.is_none() {
                let list = edges
                    .value(row)
                    .as_primitive::<Float64Type>()
                    .values()
                    .to_vec();
                let resolution = columns
                    .get(2)
                    .map(|column| column.as_primitive::<Float64Type>().value(row));
                let binning = Binning::new(list, resolution)?;
                self.counts
                    .get_or_insert_with(|| vec![0; binning.edges.len() + 1]);
                self.binning = Some(binning);
            }
            if let (Some(binning), Some(counts)) = (&self.binning, &mut self.counts)
                && let Some(bin) = binning.bin(values.value(row))
            {
                counts[bin] += 1;
            }
        }
        Ok(())
    }
}

impl Accumulator for Accumulate {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        match self.kind {
            Kind::Merge => self.add_lists(columns[0].as_list::<i32>()),
            Kind::Profile => self.add_values(columns),
        }
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add_lists(states[0].as_list::<i32>())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let values = self
            .counts
            .as_ref()
            .map(|counts| counts.iter().map(|&count| Some(count)).collect::<Vec<_>>());
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([values]);
        Ok(ScalarValue::List(Arc::new(list)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.as_ref().map_or(0, |counts| counts.len() * 8)
    }
}
