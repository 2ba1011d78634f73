//! Our profile aggregate as a DataFusion aggregate function.
//!
//! `profile(device, column, …)` counts all columns of a model into one profile per group and gives
//! its bytes ([`driftline_schemas::profile::codec`]). The counting is
//! [`driftline_schemas::profile::groups`]; this is the wrapper. Partial states are profiles too, so
//! plans with several partitions merge to the same bytes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray};
use arrow::datatypes::{DataType, Int32Type, UInt64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_datafusion_err, plan_err};
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};
use driftline_schemas::profile::codec::Reader;
use driftline_schemas::profile::groups::ProfileGroups;
use driftline_schemas::profile::{Layout, Profile, ProfileError};

/// Name of the function.
pub const NAME: &str = "profile";

/// The function for one layout: `profile(device: UInt64, value: Int32, …) → Binary`, with one value
/// for each of the signals named at construction.
#[derive(Debug)]
pub struct ProfileFunction {
    layout: Arc<Layout>,
    signals: Arc<[usize]>,
    signature: Signature,
}

impl ProfileFunction {
    /// Argument `i + 1` is counted as the layout's signal `signals[i]`; signals that are not named
    /// stay empty. Argument 0 is the device ([`driftline_schemas::source::device_hash`]).
    ///
    /// # Errors
    /// When the layout has no such signal.
    pub fn new(layout: Arc<Layout>, signals: impl Into<Arc<[usize]>>) -> Result<Self> {
        let signals = signals.into();
        let known = layout.signals().len();
        if let Some(wrong) = signals.iter().find(|signal| **signal >= known) {
            return plan_err!("the layout has {known} signals, so there is no signal {wrong}");
        }
        let mut types = vec![DataType::UInt64];
        types.extend(signals.iter().map(|_| DataType::Int32));
        Ok(Self {
            layout,
            signals,
            signature: Signature::exact(types, Volatility::Immutable),
        })
    }

    fn groups(&self) -> Groups {
        Groups {
            groups: ProfileGroups::new(Arc::clone(&self.layout)),
            count: 0,
            signals: Arc::clone(&self.signals),
        }
    }
}

impl PartialEq for ProfileFunction {
    fn eq(&self, other: &Self) -> bool {
        self.layout.digest() == other.layout.digest() && self.signals == other.signals
    }
}

impl Eq for ProfileFunction {}

impl Hash for ProfileFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.layout.digest().hash(state);
        self.signals.hash(state);
    }
}

impl AggregateUDFImpl for ProfileFunction {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let mut groups = self.groups();
        groups.grow(1);
        Ok(Box::new(Single(groups)))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        _args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups()))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Profiles under way, by DataFusion's group numbers.
struct Groups {
    groups: ProfileGroups,
    count: usize,
    signals: Arc<[usize]>,
}

impl Groups {
    fn grow(&mut self, groups: usize) {
        self.count = self.count.max(groups);
        self.groups.grow(groups);
    }

    fn update(&mut self, values: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let (devices, columns) = values
            .split_first()
            .ok_or_else(|| exec_datafusion_err!("profile needs the device and a column"))?;
        let devices = devices
            .as_primitive_opt::<UInt64Type>()
            .ok_or_else(|| wrong_type("UInt64", devices))?;
        self.groups.begin(groups, Some(devices.values()));
        for (column, &signal) in columns.iter().zip(self.signals.iter()) {
            let column = column
                .as_primitive_opt::<Int32Type>()
                .ok_or_else(|| wrong_type("Int32", column))?;
            self.groups.column(signal, column.values(), column.nulls());
        }
        Ok(())
    }

    fn merge(&mut self, states: &ArrayRef, group_of: impl Fn(usize) -> usize) -> Result<()> {
        let states = states
            .as_binary_opt::<i32>()
            .ok_or_else(|| wrong_type("Binary", states))?;
        for row in (0..states.len()).filter(|row| states.is_valid(*row)) {
            let mut reader = Reader::new(states.value(row));
            let profile = Profile::decode(&mut reader).map_err(external)?;
            let layout = self.groups.layout();
            if !profile.fits(layout) {
                return Err(external(ProfileError::LayoutDiffers {
                    left: layout.digest(),
                    right: profile.layout,
                }));
            }
            self.groups.merge(group_of(row), &profile);
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> ArrayRef {
        let profiles = self.groups.take(count);
        self.count -= profiles.len();
        let mut out = BinaryBuilder::with_capacity(profiles.len(), profiles.len() * 256);
        let mut bytes = Vec::new();
        for profile in profiles {
            bytes.clear();
            profile.encode_to(&mut bytes);
            out.append_value(&bytes);
        }
        Arc::new(out.finish())
    }
}

fn external(error: ProfileError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn wrong_type(expected: &str, array: &ArrayRef) -> DataFusionError {
    exec_datafusion_err!("profile: expected {expected}, got {}", array.data_type())
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let Some(filter) = opt_filter else {
            return self.update(values, group_indices);
        };
        let kept = values
            .iter()
            .map(|array| arrow::compute::filter(array, filter))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        // A filter that is null keeps nothing, as in SQL.
        let groups: Vec<usize> = (0..filter.len())
            .filter(|&row| filter.is_valid(row) && filter.value(row))
            .map(|row| group_indices[row])
            .collect();
        self.update(&kept, &groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let count = match emit_to {
            EmitTo::All => self.count,
            EmitTo::First(count) => count,
        };
        Ok(self.take(count))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        self.grow(total_num_groups);
        let states = values
            .first()
            .ok_or_else(|| exec_datafusion_err!("profile has one state"))?;
        self.merge(states, |row| group_indices[row])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |array| array.len());
        let mut each = Self {
            groups: ProfileGroups::new(Arc::clone(self.groups.layout())),
            count: 0,
            signals: Arc::clone(&self.signals),
        };
        let groups: Vec<usize> = (0..rows).collect();
        each.update_batch(values, &groups, opt_filter, rows)?;
        Ok(vec![each.take(rows)])
    }

    fn size(&self) -> usize {
        self.groups.size()
    }
}

/// Without `GROUP BY`: one group.
struct Single(Groups);

impl std::fmt::Debug for Single {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Single").finish_non_exhaustive()
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |array| array.len());
        self.0.update(values, &vec![0; rows])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let profile = self.0.take(1);
        self.0.grow(1);
        ScalarValue::try_from_array(&profile, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = states
            .first()
            .ok_or_else(|| exec_datafusion_err!("profile has one state"))?;
        self.0.merge(states, |_| 0)
    }

    fn size(&self) -> usize {
        self.0.groups.size()
    }
}

#[cfg(test)]
mod tests;
