//! LabelEncoder: maps integers, floats or texts to integers, floats or texts by a table.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// A key; floats by their bits, with one NaN and one zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Int(i64),
    Float(u32),
    Text(String),
}

impl Key {
    fn float(value: f32) -> Self {
        let canonical = match value {
            value if value.is_nan() => f32::NAN,
            0.0 => 0.0,
            value => value,
        };
        Self::Float(canonical.to_bits())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelEncoder {
    keys: HashMap<Key, usize>,
    /// Type of the keys, which the input is cast to.
    key_type: DatumType,
    /// One value per key, then the one for what is not listed.
    values: Arc<Tensor>,
}

pub(super) fn label_encoder(
    ctx: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let (keys, values) = match node.get_attr_opt_tvec::<&str>("classes_strings")? {
        // Version 1 of the operator: texts to their indices.
        Some(texts) => (
            tensor1(&owned(&texts)),
            tensor1(&(0..texts.len() as i64).collect::<Vec<_>>()),
        ),
        None => (list(ctx, node, "keys")?, list(ctx, node, "values")?),
    };
    node.expect(
        keys.len() == values.len() && keys.len() > 0,
        "as many keys as values, and at least one",
    )?;
    let values = with_default(ctx, node, values)?;
    let key_type = keys.datum_type();
    // Where a key is there twice the first counts.
    let mut map = HashMap::new();
    for (index, key) in keys_of(&keys)?.into_iter().enumerate() {
        map.entry(key).or_insert(index);
    }
    let value_type = values.datum_type();
    let op = LabelEncoder {
        keys: map,
        key_type,
        values: values.into_arc_tensor(),
    };
    let op = inference_wrap(op, 1, move |_, s, inputs, outputs| {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, value_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    });
    Ok((op, vec![]))
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).into()).collect()
}

/// `keys_*` or `values_*`, whichever type is there.
fn list(ctx: &ParsingContext, node: &NodeProto, what: &str) -> TractResult<Tensor> {
    use tract_onnx::pb::TensorProto;
    if let Some(ints) = node.get_attr_opt_vec::<i64>(&format!("{what}_int64s"))? {
        return Ok(tensor1(&ints));
    }
    if let Some(floats) = node.get_attr_opt_vec::<f32>(&format!("{what}_floats"))? {
        return Ok(tensor1(&floats));
    }
    if let Some(texts) = node.get_attr_opt_tvec::<&str>(&format!("{what}_strings"))? {
        return Ok(tensor1(&owned(&texts)));
    }
    match node.get_attr_opt::<&TensorProto>(&format!("{what}_tensor"))? {
        Some(tensor) => narrow(ctx.load_tensor(tensor)?),
        None => bail!("LabelEncoder has no {what}"),
    }
}

/// Integers as 64 bits, floats as 32, as the operator's other forms have them.
fn narrow(tensor: Tensor) -> TractResult<Tensor> {
    let to = match tensor.datum_type() {
        DatumType::String => return Ok(tensor),
        dt if dt.is_float() => f32::datum_type(),
        _ => i64::datum_type(),
    };
    Ok(tensor.cast_to_dt(to)?.into_owned())
}

/// The values and, behind them, the one for keys that are not listed.
fn with_default(ctx: &ParsingContext, node: &NodeProto, values: Tensor) -> TractResult<Tensor> {
    use tract_onnx::pb::TensorProto;
    let default = if let Some(tensor) = node.get_attr_opt::<&TensorProto>("default_tensor")? {
        narrow(ctx.load_tensor(tensor)?)?.into_shape(&[1])?
    } else {
        match values.datum_type() {
            DatumType::String => {
                let text = node.get_attr_opt::<&str>("default_string")?;
                tensor1(&[text.unwrap_or("_Unused").to_string()])
            }
            DatumType::F32 => {
                tensor1(&[node.get_attr_opt::<f32>("default_float")?.unwrap_or(-0.0)])
            }
            _ => tensor1(&[node.get_attr_opt::<i64>("default_int64")?.unwrap_or(-1)]),
        }
    };
    node.expect(
        default.datum_type() == values.datum_type(),
        "default of the values' type",
    )?;
    Tensor::stack_tensors(0, &[values, default])
}

fn keys_of(tensor: &Tensor) -> TractResult<Vec<Key>> {
    let plain = tensor.try_as_plain_ram()?;
    Ok(match tensor.datum_type() {
        DatumType::String => plain
            .as_slice::<String>()?
            .iter()
            .cloned()
            .map(Key::Text)
            .collect(),
        DatumType::F32 => plain
            .as_slice::<f32>()?
            .iter()
            .map(|value| Key::float(*value))
            .collect(),
        _ => plain
            .as_slice::<i64>()?
            .iter()
            .map(|value| Key::Int(*value))
            .collect(),
    })
}

impl Op for LabelEncoder {
    fn name(&self) -> StaticName {
        "LabelEncoder".into()
    }

    op_as_typed_op!();
}

/// Picks entries of a table.
fn pick<T: Datum>(values: &Tensor, at: &[usize], shape: &[usize]) -> TractResult<Tensor> {
    let values = values.try_as_plain_ram()?;
    let values = values.as_slice::<T>()?;
    let picked: Vec<T> = at.iter().map(|at| values[*at].clone()).collect();
    tensor1(&picked).into_shape(shape)
}

impl EvalOp for LabelEncoder {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let cast = input.cast_to_dt(self.key_type)?;
        let default = self.values.len() - 1;
        let at: Vec<usize> = keys_of(&cast)?
            .iter()
            .map(|key| self.keys.get(key).copied().unwrap_or(default))
            .collect();
        let shape = input.shape();
        let output = match self.values.datum_type() {
            DatumType::String => pick::<String>(&self.values, &at, shape)?,
            DatumType::F32 => pick::<f32>(&self.values, &at, shape)?,
            _ => pick::<i64>(&self.values, &at, shape)?,
        };
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for LabelEncoder {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(
            self.values.datum_type().fact(inputs[0].shape.clone())
        ))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Attribute, attribute, floats, run_op};
    use super::*;

    #[test]
    fn texts_become_numbers_and_unknown_ones_the_default() {
        let table = vec![
            attribute("keys_strings", Attribute::Texts(&["low", "high"])),
            attribute("values_int64s", Attribute::Ints(&[0, 1])),
            attribute("default_int64", Attribute::Int(-7)),
        ];
        let input = tensor1(&["high", "none", "low"].map(String::from));
        let out = run_op("LabelEncoder", table, 1, input).unwrap();
        assert_eq!(floats(&out[0]), [1.0, -7.0, 0.0]);
    }

    #[test]
    fn integers_become_texts() {
        let table = vec![
            attribute("keys_int64s", Attribute::Ints(&[1, 2])),
            attribute("values_strings", Attribute::Texts(&["one", "two"])),
        ];
        let out = run_op("LabelEncoder", table, 1, tensor1(&[2i64, 3])).unwrap();
        let texts = out[0].try_as_plain_ram().unwrap();
        assert_eq!(texts.as_slice::<String>().unwrap(), ["two", "_Unused"]);
    }

    #[test]
    fn nan_is_a_key_like_any_other() {
        let table = vec![
            attribute("keys_floats", Attribute::Floats(&[f32::NAN, 0.0])),
            attribute("values_floats", Attribute::Floats(&[9.0, 1.0])),
        ];
        let input = tensor1(&[f32::NAN, -0.0, 5.0]);
        let out = run_op("LabelEncoder", table, 1, input).unwrap();
        assert_eq!(floats(&out[0]), [9.0, 1.0, 0.0]);
    }
}
