//! OneHotEncoder: one column per category, 1 where the value is that category.

use std::collections::HashMap;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct OneHot {
    categories: Categories,
    /// Whether a value that is no category is all zeros; else it is an error.
    zeros: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Categories {
    Ints(HashMap<i64, usize>),
    Texts(HashMap<String, usize>),
}

pub(super) fn one_hot_encoder(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let zeros = node.get_attr_opt::<i64>("zeros")?.unwrap_or(1) != 0;
    let ints = node.get_attr_opt_vec::<i64>("cats_int64s")?;
    let texts = node.get_attr_opt_tvec::<&str>("cats_strings")?;
    let categories = match (ints, texts) {
        (Some(ints), None) => Categories::Ints(ints.into_iter().zip(0..).collect()),
        (None, Some(texts)) => {
            Categories::Texts(texts.iter().map(|text| (*text).into()).zip(0..).collect())
        }
        _ => bail!("OneHotEncoder needs one of cats_int64s and cats_strings"),
    };
    let op = OneHot { categories, zeros };
    node.expect(op.width() > 0, "at least one category")?;
    Ok((expand(Expand(op)), vec![]))
}

/// How shapes follow, while the graph is read.
#[derive(Debug, Clone)]
struct Expand(OneHot);

impl Expansion for Expand {
    fn name(&self) -> StaticName {
        "OneHotEncoder".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, DatumType::F32)?;
        s.given(&inputs[0].shape, move |s, mut shape| {
            shape.push(self.0.width().to_dim());
            s.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, self.0.clone(), inputs)
    }
}

impl OneHot {
    fn width(&self) -> usize {
        match &self.categories {
            Categories::Ints(map) => map.len(),
            Categories::Texts(map) => map.len(),
        }
    }

    fn positions(&self, input: &Tensor) -> TractResult<Vec<Option<usize>>> {
        match &self.categories {
            Categories::Ints(map) => {
                let floats = input.cast_to::<f64>()?;
                let floats = floats.try_as_plain_ram()?;
                // A value between two integers, or NaN, is no category.
                let whole = |value: &f64| (value.fract() == 0.0).then_some(*value as i64);
                Ok(floats
                    .as_slice::<f64>()?
                    .iter()
                    .map(|value| map.get(&whole(value)?).copied())
                    .collect())
            }
            Categories::Texts(map) => {
                let texts = input.cast_to::<String>()?;
                let texts = texts.try_as_plain_ram()?;
                Ok(texts
                    .as_slice::<String>()?
                    .iter()
                    .map(|text| map.get(text).copied())
                    .collect())
            }
        }
    }
}

impl Op for OneHot {
    fn name(&self) -> StaticName {
        "OneHotEncoder".into()
    }

    op_as_typed_op!();
}

impl EvalOp for OneHot {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let width = self.width();
        let positions = self.positions(&input)?;
        let mut values = vec![0f32; positions.len() * width];
        for (row, position) in positions.into_iter().enumerate() {
            match position {
                Some(position) => values[row * width + position] = 1.0,
                None => ensure!(self.zeros, "a value is none of OneHotEncoder's categories"),
            }
        }
        let mut shape: TVec<usize> = input.shape().into();
        shape.push(width);
        Ok(tvec!(Tensor::from_shape(&shape, &values)?.into_tvalue()))
    }
}

impl TypedOp for OneHot {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape: TVec<TDim> = inputs[0].shape.to_tvec();
        shape.push(self.width().to_dim());
        Ok(tvec!(f32::fact(shape)))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Attribute, attribute, floats, run_op};
    use super::*;

    #[test]
    fn each_category_has_its_column_and_others_have_none() {
        let cats = vec![attribute("cats_int64s", Attribute::Ints(&[3, 5]))];
        let out = run_op(
            "OneHotEncoder",
            cats,
            1,
            tensor2(&[[5f32], [3.0], [4.0], [f32::NAN]]),
        )
        .unwrap();
        assert_eq!(out[0].shape(), [4, 1, 2]);
        assert_eq!(floats(&out[0]), [0., 1., 1., 0., 0., 0., 0., 0.]);
    }

    #[test]
    fn texts_are_categories_too() {
        let cats = vec![attribute("cats_strings", Attribute::Texts(&["a", "b"]))];
        let input = tensor1(&["b".to_string(), "z".to_string()]);
        let out = run_op("OneHotEncoder", cats, 1, input).unwrap();
        assert_eq!(floats(&out[0]), [0., 1., 0., 0.]);
    }

    #[test]
    fn an_unknown_value_is_an_error_where_zeros_are_not_allowed() {
        let cats = vec![
            attribute("cats_int64s", Attribute::Ints(&[3])),
            attribute("zeros", Attribute::Int(0)),
        ];
        assert!(run_op("OneHotEncoder", cats, 1, tensor1(&[4f32])).is_err());
    }
}
