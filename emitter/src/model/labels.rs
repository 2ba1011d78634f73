//! Which classes a graph predicts, in the order of its scores.
//!
//! Exporters write them as an attribute of the classifier or of the ZipMap behind it; where the
//! classifier is spelt out in plain operators, they are a constant from which the winner's label is
//! picked (ArrayFeatureExtractor).

use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};

/// The classes, as text; `None` when the graph does not say.
pub(super) fn of(proto: &ModelProto) -> Option<Vec<String>> {
    let graph = proto.graph.as_ref()?;
    // The last node that names classes is the nearest to the output.
    graph
        .node
        .iter()
        .rev()
        .find_map(|node| from_attributes(node).or_else(|| from_constant(node, graph)))
}

fn from_attributes(node: &NodeProto) -> Option<Vec<String>> {
    node.attribute
        .iter()
        .filter(|attribute| attribute.name.starts_with("classlabels_"))
        .find_map(|attribute| {
            if !attribute.ints.is_empty() {
                return Some(attribute.ints.iter().map(i64::to_string).collect());
            }
            let texts: Vec<String> = attribute
                .strings
                .iter()
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect();
            (!texts.is_empty()).then_some(texts)
        })
}

fn from_constant(node: &NodeProto, graph: &GraphProto) -> Option<Vec<String>> {
    if node.op_type != "ArrayFeatureExtractor" {
        return None;
    }
    let name = node.input.first()?;
    let tensor = graph
        .initializer
        .iter()
        .find(|tensor| tensor.name == *name)?;
    texts(tensor).filter(|texts| texts.len() > 1)
}

fn texts(tensor: &TensorProto) -> Option<Vec<String>> {
    match DataType::try_from(tensor.data_type).ok()? {
        DataType::Int64 if !tensor.int64_data.is_empty() => {
            Some(tensor.int64_data.iter().map(i64::to_string).collect())
        }
        DataType::Int64 => Some(
            tensor
                .raw_data
                .as_chunks::<8>()
                .0
                .iter()
                .map(|bytes| i64::from_le_bytes(*bytes).to_string())
                .collect(),
        ),
        DataType::Int32 if !tensor.int32_data.is_empty() => {
            Some(tensor.int32_data.iter().map(i32::to_string).collect())
        }
        DataType::Int32 => Some(
            tensor
                .raw_data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| i32::from_le_bytes(*bytes).to_string())
                .collect(),
        ),
        DataType::String => Some(
            tensor
                .string_data
                .iter()
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect(),
        ),
        _ => None,
    }
}
