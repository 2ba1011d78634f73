//! LinearClassifier and LinearRegressor.
//!
//! tract has both, in general tensor operators whose cost per row dwarfs a handful of products; most
//! models on small devices are of this kind.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::Floats;
use super::classes::{self, Labels, Post, greatest, logistic, wrap, wrap_values};

type Built = TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Sums that run side by side, which the compiler makes vectors of. Products of two `f32` are exact in
/// `f64`, so a score carries no rounding of ours that the order of the features would decide.
const LANES: usize = 8;

/// Rows of weights, and what is added.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Weights {
    weights: Floats,
    intercepts: Floats,
    features: usize,
}

impl Weights {
    fn of(node: &NodeProto, rows: usize) -> TractResult<Self> {
        let weights: Vec<f32> = node.get_attr_vec("coefficients")?;
        let intercepts: Vec<f32> = node.get_attr_opt_vec("intercepts")?.unwrap_or_default();
        node.expect(
            rows > 0 && !weights.is_empty() && weights.len().is_multiple_of(rows),
            "as many coefficients for each output, and at least one",
        )?;
        node.expect(
            intercepts.is_empty() || intercepts.len() == rows,
            "an intercept for each output",
        )?;
        Ok(Self {
            features: weights.len() / rows,
            intercepts: Floats(match intercepts.is_empty() {
                true => vec![0.0; rows],
                false => intercepts,
            }),
            weights: Floats(weights),
        })
    }

    fn outputs(&self) -> usize {
        self.intercepts.0.len()
    }

    fn check(&self, input: &TypedFact) -> TractResult<()> {
        ensure!(input.rank() == 2, "a linear model takes rows of features");
        if let Ok(width) = input.shape[1].to_usize() {
            self.check_width(width)?;
        }
        Ok(())
    }

    fn check_width(&self, width: usize) -> TractResult<()> {
        ensure!(
            width == self.features,
            "the linear model has coefficients for {} features, a row has {width}",
            self.features
        );
        Ok(())
    }

    /// Number of rows, and the outputs of each.
    fn apply(&self, input: &Tensor) -> TractResult<(usize, Vec<f32>)> {
        let shape = input.shape();
        ensure!(shape.len() == 2, "a linear model takes rows of features");
        self.check_width(shape[1])?;
        let cast = input.cast_to::<f32>()?;
        let plain = cast.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        let mut sums = Vec::with_capacity(shape[0] * self.outputs());
        for row in values.chunks_exact(self.features) {
            let all = self.weights.0.chunks_exact(self.features);
            for (weights, intercept) in all.zip(&self.intercepts.0) {
                sums.push((dot(row, weights) + f64::from(*intercept)) as f32);
            }
        }
        Ok((shape[0], sums))
    }
}

#[inline]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0f64; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += f64::from(*a) * f64::from(*b);
        }
    }
    let rest: f64 = a_rest
        .iter()
        .zip(b_rest)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    sums.iter().sum::<f64>() + rest
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Classifier {
    weights: Weights,
    labels: Labels,
    post: Post,
}

pub(super) fn classifier(_: &ParsingContext, node: &NodeProto) -> Built {
    let labels = Labels::of(node, "classlabels_ints")?;
    let classes = labels.len();
    let intercepts: Option<Vec<f32>> = node.get_attr_opt_vec("intercepts")?;
    // One row of weights is enough for two classes.
    let rows = intercepts.map_or(classes, |intercepts| intercepts.len());
    node.expect(
        rows == classes || (rows == 1 && classes == 2),
        "a row of coefficients for each class, or one for two classes",
    )?;
    let op = Classifier {
        weights: Weights::of(node, rows)?,
        post: Post::of(node)?,
        labels,
    };
    let label_type = op.labels.datum_type();
    Ok((wrap(op, classes, label_type), vec![]))
}

impl Classifier {
    /// Scores of the two classes from that of the second alone.
    fn both(&self, score: f32) -> [f32; 2] {
        match self.post {
            Post::None => [-score, score],
            Post::Logistic => {
                let p = logistic(score);
                [1.0 - p, p]
            }
            Post::Softmax => {
                let mut both = [-score, score];
                self.post.apply(&mut both);
                both
            }
        }
    }
}

impl Op for Classifier {
    fn name(&self) -> StaticName {
        "LinearClassifier".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Classifier {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let width = self.labels.len();
        let (_, mut scores) = self.weights.apply(&input)?;
        let winners: Vec<usize> = if self.weights.outputs() < width {
            let winners = scores
                .iter()
                .map(|score| usize::from(*score > 0.0))
                .collect();
            scores = scores.iter().flat_map(|score| self.both(*score)).collect();
            winners
        } else {
            let decide = |row: &mut [f32]| {
                let winner = greatest(row);
                self.post.apply(row);
                winner
            };
            scores.chunks_mut(width).map(decide).collect()
        };
        self.labels.outputs(&winners, &scores)
    }
}

impl TypedOp for Classifier {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.weights.check(inputs[0])?;
        Ok(self.labels.facts(&inputs[0].shape[0]))
    }

    as_op!();
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Regressor {
    weights: Weights,
    post: Post,
}

pub(super) fn regressor(_: &ParsingContext, node: &NodeProto) -> Built {
    let targets = usize::try_from(node.get_attr_opt::<i64>("targets")?.unwrap_or(1))?;
    let op = Regressor {
        weights: Weights::of(node, targets)?,
        post: Post::of(node)?,
    };
    Ok((wrap_values(op, targets), vec![]))
}

impl Op for Regressor {
    fn name(&self) -> StaticName {
        "LinearRegressor".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Regressor {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let width = self.weights.outputs();
        let (rows, mut values) = self.weights.apply(&input)?;
        values
            .chunks_mut(width)
            .for_each(|row| self.post.apply(row));
        classes::values(rows, width, &values)
    }
}

impl TypedOp for Regressor {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        self.weights.check(inputs[0])?;
        let rows = inputs[0].shape[0].clone();
        Ok(tvec!(f32::fact(&[rows, self.weights.outputs().to_dim()])))
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Attribute, attribute, floats, run_op};
    use super::*;

    #[test]
    fn one_row_of_weights_decides_between_two_classes() {
        let attributes = |post| {
            vec![
                attribute("coefficients", Attribute::Floats(&[1.0, -2.0])),
                attribute("intercepts", Attribute::Floats(&[0.5])),
                attribute("classlabels_ints", Attribute::Ints(&[3, 4])),
                attribute("post_transform", Attribute::Text(post)),
            ]
        };
        let rows = || tensor2(&[[1f32, 0.0], [0.0, 1.0]]);
        let out = run_op("LinearClassifier", attributes("NONE"), 2, rows()).unwrap();
        assert_eq!(floats(&out[0]), [4.0, 3.0]);
        assert_eq!(floats(&out[1]), [-1.5, 1.5, 1.5, -1.5]);
        let out = run_op("LinearClassifier", attributes("LOGISTIC"), 2, rows()).unwrap();
        let p = 1.0 / (1.0 + (-1.5f32).exp());
        assert_eq!(floats(&out[1])[..2], [1.0 - p, p]);
    }

    #[test]
    fn a_row_of_weights_for_each_class_lets_the_greatest_win() {
        let attributes = vec![
            attribute(
                "coefficients",
                Attribute::Floats(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
            ),
            attribute("intercepts", Attribute::Floats(&[0.0, 0.0, -10.0])),
            attribute("classlabels_strings", Attribute::Texts(&["a", "b", "c"])),
            attribute("post_transform", Attribute::Text("SOFTMAX")),
        ];
        let rows = tensor2(&[[2f32, 1.0], [9.0, 9.5]]);
        let out = run_op("LinearClassifier", attributes, 2, rows).unwrap();
        let labels = out[0].try_as_plain_ram().unwrap();
        assert_eq!(labels.as_slice::<String>().unwrap(), ["a", "b"]);
        let scores = floats(&out[1]);
        assert!((scores[..3].iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_regressor_adds_up_and_refuses_rows_of_another_width() {
        let attributes = || {
            vec![
                attribute("coefficients", Attribute::Floats(&[0.5; 19])),
                attribute("intercepts", Attribute::Floats(&[1.0])),
            ]
        };
        let row = tensor1(&[2f32; 19]).into_shape(&[1, 19]).unwrap();
        let out = run_op("LinearRegressor", attributes(), 1, row).unwrap();
        assert_eq!(floats(&out[0]), [20.0]);
        let narrow = run_op("LinearRegressor", attributes(), 1, tensor2(&[[1f32, 2.0]]));
        assert!(format!("{:?}", narrow.unwrap_err()).contains("19 features"));
    }
}
