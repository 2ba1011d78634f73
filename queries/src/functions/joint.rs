//! The signal `joint` of raw rows, as profiles count it.

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, AsArray as _, Float64Array};
use datafusion::arrow::datatypes::{
    DataType, Field, Float64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use driftline_schemas::joint::{JOINT_RESOLUTION, Joint};
use driftline_schemas::quantity::{dequantise, quantise};

/// The function of this module.
pub(super) fn function() -> ScalarUDF {
    ScalarUDF::from(OfRows {
        signature: Signature::user_defined(Volatility::Immutable),
    })
}

/// `joint(event_time, features, text)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfRows {
    signature: Signature,
}

impl ScalarUDFImpl for OfRows {
    fn name(&self) -> &str {
        "joint"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let list = |ty: &DataType| {
            matches!(
                ty,
                DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)
            )
        };
        match arguments {
            [_, features, _] if list(features) => Ok(vec![
                DataType::Timestamp(TimeUnit::Microsecond, None),
                DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))),
                DataType::Utf8,
            ]),
            _ => plan_err!(
                "joint(event_time, features, text) takes the columns of these names and the text that `driftline model show` prints under joint"
            ),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text)))) = arguments.args.get(2)
        else {
            return exec_err!("joint: the text must stand in the statement");
        };
        let joint = Joint::from_json(text.as_bytes())
            .map_err(|error| exec_datafusion_err!("joint: {error}"))?;
        let times = arguments.args[0].to_array(arguments.number_rows)?;
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let lists = arguments.args[1].to_array(arguments.number_rows)?;
        let lists = lists.as_list::<i32>();
        let values = times.iter().zip(lists.iter()).map(|(time, list)| {
            let (time, list) = (time?, list?);
            let list = list.as_primitive::<Float64Type>();
            let code = joint.value(time, |feature| {
                let there = feature.at < list.len() && list.is_valid(feature.at);
                there.then(|| quantise(list.value(feature.at), feature.resolution))
            })?;
            Some(dequantise(code, JOINT_RESOLUTION))
        });
        Ok(ColumnarValue::Array(Arc::new(
            values.collect::<Float64Array>(),
        )))
    }
}
