//! TreeEnsembleClassifier and TreeEnsembleRegressor.
//!
//! tract has the classifier, but it walks the file's node numbers unchecked. Here an ensemble is
//! checked when it is read: every child exists, no node is reached twice, every leaf's target
//! exists, so that a walk ends and stays inside. Scores of a classifier with one stored class follow
//! ONNX Runtime, which the exporters write for.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::Floats;

mod ensemble;
use ensemble::Ensemble;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// What is done to the sums of the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Post {
    None,
    Logistic,
    Softmax,
}

impl Post {
    fn of(node: &NodeProto) -> TractResult<Self> {
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

    fn apply(self, scores: &mut [f32]) {
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

fn logistic(score: f32) -> f32 {
    1.0 / (1.0 + (-score).exp())
}

/// Labels of the classes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Labels {
    Ints(Vec<i64>),
    Texts(Vec<String>),
}

impl Labels {
    fn of(node: &NodeProto) -> TractResult<Self> {
        let ints = node.get_attr_opt_vec::<i64>("classlabels_int64s")?;
        let texts = node.get_attr_opt_tvec::<&str>("classlabels_strings")?;
        match (ints, texts) {
            (Some(ints), None) => Ok(Self::Ints(ints)),
            (None, Some(texts)) => Ok(Self::Texts(
                texts.iter().map(|text| (*text).into()).collect(),
            )),
            _ => bail!("needs one of classlabels_int64s and classlabels_strings"),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Texts(labels) => labels.len(),
        }
    }

    fn datum_type(&self) -> DatumType {
        match self {
            Self::Ints(_) => i64::datum_type(),
            Self::Texts(_) => String::datum_type(),
        }
    }

    fn pick(&self, at: &[usize]) -> Tensor {
        match self {
            Self::Ints(labels) => tensor1(&at.iter().map(|at| labels[*at]).collect::<Vec<_>>()),
            Self::Texts(labels) => {
                tensor1(&at.iter().map(|at| labels[*at].clone()).collect::<Vec<_>>())
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Classifier {
    ensemble: Ensemble,
    labels: Labels,
    base: Floats,
    post: Post,
    /// Leaves store scores of one of two classes only.
    binary: bool,
    /// No leaf has a negative weight: the stored score is a probability.
    all_positive: bool,
}

pub(super) fn classifier(_: &ParsingContext, node: &NodeProto) -> Built {
    let labels = Labels::of(node)?;
    let ensemble = Ensemble::of(node, "class", labels.len(), "SUM")?;
    let base: Vec<f32> = node.get_attr_opt_vec("base_values")?.unwrap_or_default();
    let binary = labels.len() == 2 && ensemble.single_target().is_some();
    node.expect(
        base.is_empty() || base.len() == labels.len() || (binary && base.len() == 1),
        "base_values for each class",
    )?;
    let op = Classifier {
        all_positive: ensemble.all_weights_positive(),
        ensemble,
        base: Floats(base),
        post: Post::of(node)?,
        binary,
        labels,
    };
    let (width, label_type) = (op.labels.len(), op.labels.datum_type());
    let op = inference_wrap(op, 2, move |_, s, inputs, outputs| {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 2)?;
        s.equals(&outputs[0].datum_type, label_type)?;
        s.equals(&outputs[1].datum_type, DatumType::F32)?;
        s.equals(&outputs[0].rank, 1)?;
        s.equals(&outputs[1].rank, 2)?;
        s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[1].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[1].shape[1], width.to_dim())
    });
    Ok((op, vec![]))
}

impl Classifier {
    /// Turns the sums of the trees into scores, and names the winner.
    fn decide(&self, scores: &mut [f32]) -> usize {
        if let (true, Some(stored)) = (self.binary, self.ensemble.single_target()) {
            let base = match self.base.0.as_slice() {
                [] => 0.0,
                [one] => *one,
                many => many[stored.min(many.len() - 1)],
            };
            let score = scores[stored] + base;
            let (no, yes, winner) = if self.all_positive {
                (1.0 - score, score, score > 0.5)
            } else if self.post == Post::Logistic {
                (logistic(-score), logistic(score), score > 0.0)
            } else {
                (-score, score, score > 0.0)
            };
            scores.copy_from_slice(&[no, yes]);
            return usize::from(winner);
        }
        for (score, base) in scores.iter_mut().zip(&self.base.0) {
            *score += base;
        }
        let mut winner = 0;
        for (class, score) in scores.iter().enumerate() {
            if *score > scores[winner] {
                winner = class;
            }
        }
        self.post.apply(scores);
        winner
    }
}

impl Op for Classifier {
    fn name(&self) -> StaticName {
        "TreeEnsembleClassifier".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Classifier {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let width = self.labels.len();
        let (rows, mut scores) = self.ensemble.sum(&input)?;
        let winners: Vec<usize> = scores
            .chunks_mut(width)
            .map(|row| self.decide(row))
            .collect();
        Ok(tvec!(
            self.labels.pick(&winners).into_tvalue(),
            Tensor::from_shape(&[rows, width], &scores)?.into_tvalue()
        ))
    }
}

impl TypedOp for Classifier {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.ensemble.check_input(inputs[0])?;
        let rows = inputs[0].shape[0].clone();
        Ok(tvec!(
            self.labels.datum_type().fact([rows.clone()]),
            f32::fact(&[rows, self.labels.len().to_dim()])
        ))
    }

    as_op!();
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Regressor {
    ensemble: Ensemble,
    targets: usize,
    base: Floats,
    post: Post,
}

pub(super) fn regressor(_: &ParsingContext, node: &NodeProto) -> Built {
    let targets = usize::try_from(node.get_attr_opt::<i64>("n_targets")?.unwrap_or(1))?;
    let aggregate = node
        .get_attr_opt::<&str>("aggregate_function")?
        .unwrap_or("SUM");
    let ensemble = Ensemble::of(node, "target", targets, aggregate)?;
    let base: Vec<f32> = node.get_attr_opt_vec("base_values")?.unwrap_or_default();
    node.expect(
        base.is_empty() || base.len() == targets,
        "base_values for each target",
    )?;
    let op = Regressor {
        ensemble,
        targets,
        base: Floats(base),
        post: Post::of(node)?,
    };
    let op = inference_wrap(op, 1, move |_, s, inputs, outputs| {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        s.equals(&outputs[0].datum_type, DatumType::F32)?;
        s.equals(&outputs[0].rank, 2)?;
        s.equals(&outputs[0].shape[0], &inputs[0].shape[0])?;
        s.equals(&outputs[0].shape[1], targets.to_dim())
    });
    Ok((op, vec![]))
}

impl Op for Regressor {
    fn name(&self) -> StaticName {
        "TreeEnsembleRegressor".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Regressor {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let (rows, mut values) = self.ensemble.sum(&input)?;
        for row in values.chunks_mut(self.targets) {
            for (value, base) in row.iter_mut().zip(&self.base.0) {
                *value += base;
            }
            self.post.apply(row);
        }
        let output = Tensor::from_shape(&[rows, self.targets], &values)?;
        Ok(tvec!(output.into_tvalue()))
    }
}

impl TypedOp for Regressor {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.ensemble.check_input(inputs[0])?;
        let rows = inputs[0].shape[0].clone();
        Ok(tvec!(f32::fact(&[rows, self.targets.to_dim()])))
    }

    as_op!();
}

#[cfg(test)]
mod tests;
