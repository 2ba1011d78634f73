//! FeatureVectorizer: puts columns side by side, as floats.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::ops::{array::TypedConcat, cast::cast};
use tract_onnx::tract_hir::internal::*;

#[derive(Debug, Clone)]
struct FeatureVectorizer {
    inputs: usize,
}

pub(super) fn feature_vectorizer(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    node.expect(!node.input.is_empty(), "at least one input")?;
    let inputs = node.input.len();
    Ok((expand(FeatureVectorizer { inputs }), vec![]))
}

impl Expansion for FeatureVectorizer {
    fn name(&self) -> StaticName {
        "FeatureVectorizer".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.inputs)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, DatumType::F32)?;
        s.equals(&outputs[0].rank, 2)?;
        s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        s.given_all(
            inputs.iter().map(|input| &input.shape),
            move |s, shapes: Vec<TVec<TDim>>| {
                let width = shapes.iter().map(|shape| match shape.as_slice() {
                    [_, width] => width.clone(),
                    _ => 1.to_dim(),
                });
                s.equals(&outputs[0].shape[1], width.sum::<TDim>())
            },
        )
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let mut columns = tvec!();
        for (index, input) in inputs.iter().enumerate() {
            let mut wire = *input;
            let fact = model.outlet_fact(wire)?.clone();
            if fact.datum_type != f32::datum_type() {
                let name = format!("{prefix}.float{index}");
                wire = model.wire_node(name, cast(f32::datum_type()), &[wire])?[0];
            }
            if fact.rank() == 1 {
                let name = format!("{prefix}.column{index}");
                wire = model.wire_node(name, AxisOp::Add(1), &[wire])?[0];
            }
            columns.push(wire);
        }
        model.wire_node(format!("{prefix}.concat"), TypedConcat::new(1), &columns)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{floats, run_op_on};
    use super::*;

    #[test]
    fn columns_stand_side_by_side() {
        let inputs = vec![tensor2(&[[1f32, 2.0], [3.0, 4.0]]), tensor2(&[[5i64], [6]])];
        let out = run_op_on("FeatureVectorizer", vec![], 1, inputs).unwrap();
        assert_eq!(out[0].shape(), [2, 3]);
        assert_eq!(floats(&out[0]), [1., 2., 5., 3., 4., 6.]);
    }
}
