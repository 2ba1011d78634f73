//! Operators of `ai.onnx.ml` that tract lacks, or has in a form that trusts the file or is slow on
//! small rows.
//!
//! Definitions: <https://github.com/onnx/onnx/blob/main/docs/Operators-ml.md>. Attributes are
//! checked when the model is read, so that running cannot index out of bounds, and what is not
//! supported is refused there by name.
//!
//! # Layout of this module
//!
//! - [`classes`] – labels and scores of classifiers
//! - [`columns`] – Scaler, Imputer, Binarizer: each value by its column's parameters
//! - [`one_hot`] – OneHotEncoder
//! - [`label_encoder`] – LabelEncoder
//! - [`linear`] – LinearClassifier, LinearRegressor
//! - [`trees`] – TreeEnsembleClassifier, TreeEnsembleRegressor
//! - [`vectorizer`] – FeatureVectorizer
//! - [`zip_map`] – ZipMap

mod classes;
mod columns;
mod label_encoder;
mod linear;
mod one_hot;
mod trees;
mod vectorizer;
mod zip_map;

use tract_onnx::model::OnnxOpRegister;

/// Adds the operators; those of the same name are replaced.
pub(super) fn register(register: &mut OnnxOpRegister) {
    register.insert("Scaler", columns::scaler);
    register.insert("Imputer", columns::imputer);
    register.insert("Binarizer", columns::binarizer);
    register.insert("LinearClassifier", linear::classifier);
    register.insert("LinearRegressor", linear::regressor);
    register.insert("OneHotEncoder", one_hot::one_hot_encoder);
    register.insert("LabelEncoder", label_encoder::label_encoder);
    register.insert("TreeEnsembleClassifier", trees::classifier);
    register.insert("TreeEnsembleRegressor", trees::regressor);
    register.insert("FeatureVectorizer", vectorizer::feature_vectorizer);
    register.insert("ZipMap", zip_map::zip_map);
}

/// Floats that compare by their bits, so that operators have an equality, NaN included.
#[derive(Debug, Clone)]
struct Floats(Vec<f32>);

impl PartialEq for Floats {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .zip(&other.0)
                .all(|(a, b)| a.to_bits() == b.to_bits())
    }
}

impl Eq for Floats {}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto};
    use tract_onnx::prelude::*;

    /// Attribute of an operator, for tests.
    pub(super) fn attribute(name: &str, value: Attribute<'_>) -> AttributeProto {
        use tract_onnx::pb::attribute_proto::AttributeType;
        let mut made = AttributeProto {
            name: name.into(),
            ..AttributeProto::default()
        };
        let kind = match value {
            Attribute::Int(int) => {
                made.i = int;
                AttributeType::Int
            }
            Attribute::Float(float) => {
                made.f = float;
                AttributeType::Float
            }
            Attribute::Text(text) => {
                made.s = text.into();
                AttributeType::String
            }
            Attribute::Ints(ints) => {
                made.ints = ints.into();
                AttributeType::Ints
            }
            Attribute::Floats(floats) => {
                made.floats = floats.into();
                AttributeType::Floats
            }
            Attribute::Texts(texts) => {
                made.strings = texts.iter().map(|text| text.as_bytes().into()).collect();
                AttributeType::Strings
            }
        };
        made.set_type(kind);
        made
    }

    /// Value of an attribute, for tests.
    pub(super) enum Attribute<'a> {
        Int(i64),
        Float(f32),
        Text(&'a str),
        Ints(&'a [i64]),
        Floats(&'a [f32]),
        Texts(&'a [&'a str]),
    }

    /// Runs one operator on one input, through the same reading and compiling as a whole model.
    pub(super) fn run_op(
        op: &str,
        attributes: Vec<AttributeProto>,
        outputs: usize,
        input: Tensor,
    ) -> TractResult<TVec<TValue>> {
        run_op_on(op, attributes, outputs, vec![input])
    }

    /// Runs one operator on some inputs.
    pub(super) fn run_op_on(
        op: &str,
        attributes: Vec<AttributeProto>,
        outputs: usize,
        inputs: Vec<Tensor>,
    ) -> TractResult<TVec<TValue>> {
        use tract_onnx::pb::{GraphProto, ValueInfoProto};
        let names = |prefix: &str, count: usize| -> Vec<String> {
            (0..count).map(|index| format!("{prefix}{index}")).collect()
        };
        let info = |name: &String| ValueInfoProto {
            name: name.clone(),
            r#type: Some(tract_onnx::pb::TypeProto {
                value: Some(tract_onnx::pb::type_proto::Value::TensorType(
                    tract_onnx::pb::type_proto::Tensor {
                        elem_type: tract_onnx::pb::tensor_proto::DataType::Float as i32,
                        shape: None,
                    },
                )),
                ..tract_onnx::pb::TypeProto::default()
            }),
            ..ValueInfoProto::default()
        };
        let (from, to) = (names("in", inputs.len()), names("out", outputs));
        let proto = ModelProto {
            graph: Some(GraphProto {
                name: "test".into(),
                input: from.iter().map(info).collect(),
                output: to.iter().map(info).collect(),
                node: vec![NodeProto {
                    name: "op".into(),
                    op_type: op.into(),
                    domain: "ai.onnx.ml".into(),
                    input: from,
                    output: to,
                    attribute: attributes,
                    ..NodeProto::default()
                }],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        };
        let mut graph = crate::model::framework().model_for_proto_model(&proto)?;
        for (index, input) in inputs.iter().enumerate() {
            let fact = input.datum_type().fact(input.shape());
            graph.set_input_fact(index, fact.into())?;
        }
        let plan = graph.into_optimized()?.into_runnable()?;
        plan.run(inputs.into_iter().map(IntoTValue::into_tvalue).collect())
    }

    /// The floats of an output, row-major.
    pub(super) fn floats(value: &TValue) -> Vec<f32> {
        let cast = value.cast_to::<f32>().unwrap();
        cast.try_as_plain_ram()
            .unwrap()
            .as_slice::<f32>()
            .unwrap()
            .to_vec()
    }
}
