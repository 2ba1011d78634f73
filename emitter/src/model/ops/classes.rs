//! What classifiers have in common: their labels, and what is done to their scores.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// What is done to the scores of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Post {
    None,
    Logistic,
    Softmax,
}

impl Post {
    pub(super) fn of(node: &NodeProto) -> TractResult<Self> {
        match node
            .get_attr_opt::<&str>("post_transform")?
            .unwrap_or("NONE")
        {
            "NONE" => Ok(Self::None),
            "LOGISTIC" => Ok(Self::Logistic),
            "SOFTMAX" => Ok(Self::Softmax),
            other => {
                bail!("post_transform {other} is not supported, NONE, LOGISTIC and SOFTMAX are")
            }
        }
    }

    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores
                .iter_mut()
                .for_each(|score| *score = logistic(*score)),
            Self::Softmax => {
                let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores
                    .iter_mut()
                    .for_each(|score| *score = (*score - greatest).exp());
                let sum: f32 = scores.iter().sum();
                scores.iter_mut().for_each(|score| *score /= sum);
            }
        }
    }
}

pub(super) fn logistic(score: f32) -> f32 {
    1.0 / (1.0 + (-score).exp())
}

/// Index of the greatest score, the first of equals.
pub(super) fn greatest(scores: &[f32]) -> usize {
    let mut winner = 0;
    for (class, score) in scores.iter().enumerate() {
        if *score > scores[winner] {
            winner = class;
        }
    }
    winner
}

/// Labels of the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    /// From `classlabels_strings`, or the integers under the operator's own name for them.
    pub(super) fn of(node: &NodeProto, ints: &str) -> TractResult<Self> {
        let numbers = node.get_attr_opt_vec::<i64>(ints)?;
        let texts = node.get_attr_opt_tvec::<&str>("classlabels_strings")?;
        match (numbers, texts) {
            (Some(numbers), None) => Ok(Self::Ints(numbers)),
            (None, Some(texts)) => Ok(Self::Texts(
                texts.iter().map(|text| (*text).into()).collect(),
            )),
            _ => bail!("needs one of {ints} and classlabels_strings"),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    pub(super) fn datum_type(&self) -> DatumType {
        match self {
            Self::Ints(_) => i64::datum_type(),
            Self::Texts(_) => String::datum_type(),
        }
    }

    /// What a classifier gives: the label of each row's winner, and the rows of scores.
    pub(super) fn outputs(&self, winners: &[usize], scores: &[f32]) -> TractResult<TVec<TValue>> {
        Ok(tvec!(
            self.pick(winners).into_tvalue(),
            Tensor::from_shape(&[winners.len(), self.len()], scores)?.into_tvalue()
        ))
    }

    /// Types and shapes of [`Self::outputs`] for so many rows.
    pub(super) fn facts(&self, rows: &TDim) -> TVec<TypedFact> {
        tvec!(
            self.datum_type().fact([rows.clone()]),
            f32::fact(&[rows.clone(), self.len().to_dim()])
        )
    }

    /// The labels at some indices, each below [`Self::len`].
    fn pick(&self, at: &[usize]) -> Tensor {
        match self {
            Self::Ints(labels) => tensor1(&at.iter().map(|at| labels[*at]).collect::<Vec<_>>()),
            Self::Texts(labels) => {
                tensor1(&at.iter().map(|at| labels[*at].clone()).collect::<Vec<_>>())
            }
        }
    }
}

/// What a regressor gives: rows of values.
pub(super) fn values(rows: usize, width: usize, values: &[f32]) -> TractResult<TVec<TValue>> {
    Ok(tvec!(
        Tensor::from_shape(&[rows, width], values)?.into_tvalue()
    ))
}

/// Wraps a classifier with `width` classes: labels and scores, one row each per row of its input.
pub(super) fn wrap<O: TypedOp>(op: O, width: usize, label_type: DatumType) -> Box<dyn InferenceOp> {
    inference_wrap(op, 2, move |_, s, inputs, outputs| {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 2)?;
        s.equals(&outputs[0].datum_type, label_type)?;
        s.equals(&outputs[1].datum_type, DatumType::F32)?;
        s.equals(&outputs[0].rank, 1)?;
        s.equals(&outputs[1].rank, 2)?;
        s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[1].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[1].shape[1], width.to_dim())
    })
}

/// Wraps a regressor with `width` targets: one row per row of its input.
pub(super) fn wrap_values<O: TypedOp>(op: O, width: usize) -> Box<dyn InferenceOp> {
    inference_wrap(op, 1, move |_, s, inputs, outputs| {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, DatumType::F32)?;
        s.equals(&outputs[0].rank, 2)?;
        s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[0].shape[1], width.to_dim())
    })
}
