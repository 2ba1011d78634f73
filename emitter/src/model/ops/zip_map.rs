//! ZipMap: names the columns of a score matrix. A bundle names its classes in the manifest, so the
//! matrix passes through.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

#[derive(Debug, Clone)]
struct ZipMap;

pub(super) fn zip_map(
    _: &ParsingContext,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(ZipMap), vec![]))
}

impl Expansion for ZipMap {
    fn name(&self) -> StaticName {
        "ZipMap".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        _: &str,
        _: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        Ok(inputs.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Attribute, attribute, floats, run_op};
    use super::*;

    #[test]
    fn scores_pass_through() {
        let labels = vec![attribute(
            "classlabels_strings",
            Attribute::Texts(&["a", "b"]),
        )];
        let out = run_op("ZipMap", labels, 1, tensor2(&[[0.25f32, 0.75]])).unwrap();
        assert_eq!(floats(&out[0]), [0.25, 0.75]);
    }
}
