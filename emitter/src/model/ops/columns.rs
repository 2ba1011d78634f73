//! Scaler, Imputer, Binarizer: operators that map each value by its column's parameters.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::Floats;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// What is done to a value; lists have one entry for all columns or one per column.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Map {
    /// `(x − offset) · scale`
    Scale { offset: Floats, scale: Floats },
    /// The column's replacement for values that are the replaced one (or NaN, where that is NaN).
    Impute { replaced: Floats, with: Floats },
    /// 1 above the threshold, else 0.
    Binarize { threshold: Floats },
}

/// See [`Map`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct Columns {
    map: Map,
}

pub(super) fn scaler(_: &ParsingContext, node: &NodeProto) -> Built {
    let offset: Vec<f32> = node
        .get_attr_opt_vec("offset")?
        .unwrap_or_else(|| vec![0.0]);
    let scale: Vec<f32> = node.get_attr_opt_vec("scale")?.unwrap_or_else(|| vec![1.0]);
    node.expect(
        !offset.is_empty() && !scale.is_empty(),
        "offset and scale are not empty",
    )?;
    build(Map::Scale {
        offset: Floats(offset),
        scale: Floats(scale),
    })
}

pub(super) fn imputer(_: &ParsingContext, node: &NodeProto) -> Built {
    if let Some(with) = node.get_attr_opt_vec::<f32>("imputed_value_floats")? {
        let replaced = node
            .get_attr_opt::<f32>("replaced_value_float")?
            .unwrap_or(f32::NAN);
        node.expect(!with.is_empty(), "imputed values are not empty")?;
        return build(Map::Impute {
            replaced: Floats(vec![replaced]),
            with: Floats(with),
        });
    }
    let with = node.get_attr_vec::<i64>("imputed_value_int64s")?;
    let replaced = node
        .get_attr_opt::<i64>("replaced_value_int64")?
        .unwrap_or(0);
    node.expect(!with.is_empty(), "imputed values are not empty")?;
    build(Map::Impute {
        replaced: Floats(vec![replaced as f32]),
        with: Floats(with.into_iter().map(|value| value as f32).collect()),
    })
}

pub(super) fn binarizer(_: &ParsingContext, node: &NodeProto) -> Built {
    let threshold = node.get_attr_opt::<f32>("threshold")?.unwrap_or(0.0);
    build(Map::Binarize {
        threshold: Floats(vec![threshold]),
    })
}

fn build(map: Map) -> Built {
    let op = inference_wrap(Columns { map }, 1, |_, s, inputs, outputs| {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, DatumType::F32)?;
        s.equals(&inputs[0].shape, &outputs[0].shape)
    });
    Ok((op, vec![]))
}

impl Columns {
    /// Lists with one entry per column must have as many as there are columns.
    fn check(&self, width: usize) -> TractResult<()> {
        let lists: &[&Floats] = match &self.map {
            Map::Scale { offset, scale } => &[offset, scale],
            Map::Impute { with, .. } => &[with],
            Map::Binarize { .. } => &[],
        };
        for list in lists {
            ensure!(
                list.0.len() == 1 || list.0.len() == width,
                "{} has parameters for {} columns, there are {width}",
                self.name(),
                list.0.len()
            );
        }
        Ok(())
    }

    fn apply(&self, values: &mut [f32], width: usize) {
        for row in values.chunks_mut(width.max(1)) {
            match &self.map {
                Map::Scale { offset, scale } => {
                    for (column, value) in row.iter_mut().enumerate() {
                        *value = (*value - at(offset, column)) * at(scale, column);
                    }
                }
                Map::Impute { replaced, with } => {
                    let replaced = at(replaced, 0);
                    for (column, value) in row.iter_mut().enumerate() {
                        if *value == replaced || (replaced.is_nan() && value.is_nan()) {
                            *value = at(with, column);
                        }
                    }
                }
                Map::Binarize { threshold } => {
                    for value in row {
                        *value = f32::from(*value > at(threshold, 0));
                    }
                }
            }
        }
    }
}

/// The column's entry, or the one for all; lists are never empty.
#[inline]
fn at(list: &Floats, column: usize) -> f32 {
    match list.0.as_slice() {
        [all] => *all,
        list => list[column],
    }
}

impl Op for Columns {
    fn name(&self) -> StaticName {
        match self.map {
            Map::Scale { .. } => "Scaler",
            Map::Impute { .. } => "Imputer",
            Map::Binarize { .. } => "Binarizer",
        }
        .into()
    }

    op_as_typed_op!();
}

impl EvalOp for Columns {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let width = input.shape().last().copied().unwrap_or(1);
        self.check(width)?;
        let mut output = input.cast_to::<f32>()?.into_owned();
        self.apply(output.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?, width);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Columns {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        if let Some(width) = inputs[0]
            .shape
            .last()
            .and_then(|width| width.to_usize().ok())
        {
            self.check(width)?;
        }
        Ok(tvec!(f32::fact(inputs[0].shape.clone())))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Attribute, attribute, floats, run_op};
    use super::*;

    #[test]
    fn scaler_scales_each_column_or_all_alike() {
        let input = || tensor2(&[[1f32, 10.0], [3.0, 20.0]]);
        let per_column = vec![
            attribute("offset", Attribute::Floats(&[1.0, 10.0])),
            attribute("scale", Attribute::Floats(&[0.5, 0.1])),
        ];
        let out = run_op("Scaler", per_column, 1, input()).unwrap();
        assert_eq!(floats(&out[0]), [0.0, 0.0, 1.0, 1.0]);
        let alike = vec![attribute("scale", Attribute::Floats(&[2.0]))];
        let out = run_op("Scaler", alike, 1, input()).unwrap();
        assert_eq!(floats(&out[0]), [2.0, 20.0, 6.0, 40.0]);
    }

    #[test]
    fn scaler_for_another_number_of_columns_is_refused() {
        let three = vec![attribute("offset", Attribute::Floats(&[1.0, 2.0, 3.0]))];
        let error = run_op("Scaler", three, 1, tensor2(&[[1f32, 2.0]])).unwrap_err();
        assert!(format!("{error:?}").contains("3 columns"), "{error:?}");
    }

    #[test]
    fn imputer_replaces_nan_or_the_value_that_it_is_told() {
        let nan = vec![attribute(
            "imputed_value_floats",
            Attribute::Floats(&[7.0, 8.0]),
        )];
        let input = tensor2(&[[f32::NAN, 1.0], [2.0, f32::NAN]]);
        let out = run_op("Imputer", nan, 1, input).unwrap();
        assert_eq!(floats(&out[0]), [7.0, 1.0, 2.0, 8.0]);
        let minus_one = vec![
            attribute("imputed_value_floats", Attribute::Floats(&[5.0])),
            attribute("replaced_value_float", Attribute::Float(-1.0)),
        ];
        let out = run_op("Imputer", minus_one, 1, tensor2(&[[-1f32, 3.0]])).unwrap();
        assert_eq!(floats(&out[0]), [5.0, 3.0]);
    }

    #[test]
    fn binarizer_is_one_above_its_threshold() {
        let threshold = vec![attribute("threshold", Attribute::Float(0.5))];
        let out = run_op("Binarizer", threshold, 1, tensor2(&[[0.5f32, 0.6]])).unwrap();
        assert_eq!(floats(&out[0]), [0.0, 1.0]);
    }
}
