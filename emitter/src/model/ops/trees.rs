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
use super::classes::{self, Labels, Post, greatest, logistic, wrap, wrap_values};

mod ensemble;
use ensemble::Ensemble;

/// Most targets of a regressor: memory is taken for each, whatever the leaves say.
const TARGETS_MAX: usize = 1_024;

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Classifier {
    ensemble: Ensemble,
    labels: Labels,
    base: Floats,
    post: Post,
    /// The class whose scores leaves store, where it is one of two classes only.
    stored: Option<usize>,
    /// No leaf has a negative weight: the stored score is a probability.
    all_positive: bool,
}

pub(super) fn classifier(_: &ParsingContext, node: &NodeProto) -> Built {
    let labels = Labels::of(node, "classlabels_int64s")?;
    let ensemble = Ensemble::of(node, "class", labels.len(), "SUM")?;
    let base: Vec<f32> = node.get_attr_opt_vec("base_values")?.unwrap_or_default();
    let stored = ensemble.single_target().filter(|_| labels.len() == 2);
    node.expect(
        base.is_empty() || base.len() == labels.len() || (stored.is_some() && base.len() == 1),
        "base_values for each class",
    )?;
    let op = Classifier {
        all_positive: ensemble.all_weights_positive(),
        ensemble,
        base: Floats(base),
        post: Post::of(node)?,
        stored,
        labels,
    };
    let (width, label_type) = (op.labels.len(), op.labels.datum_type());
    Ok((wrap(op, width, label_type), vec![]))
}

impl Classifier {
    /// Turns the sums of the trees into scores, and names the winner.
    fn decide(&self, scores: &mut [f32]) -> usize {
        if let Some(stored) = self.stored {
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
        let winner = greatest(scores);
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
        let (_, mut scores) = self.ensemble.sum(&input)?;
        let winners: Vec<usize> = scores
            .chunks_mut(width)
            .map(|row| self.decide(row))
            .collect();
        self.labels.outputs(&winners, &scores)
    }
}

impl TypedOp for Classifier {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.ensemble.check_input(inputs[0])?;
        Ok(self.labels.facts(&inputs[0].shape[0]))
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
    node.expect(
        (1..=TARGETS_MAX).contains(&targets),
        "n_targets from 1 to 1,024",
    )?;
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
    Ok((wrap_values(op, targets), vec![]))
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
        classes::values(rows, self.targets, &values)
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
