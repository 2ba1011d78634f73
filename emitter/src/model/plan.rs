//! Compiled models: one for any number of rows where the graph allows it, else one per size.

use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::pb::{ModelProto, tensor_shape_proto, type_proto};
use tract_onnx::prelude::*;

use super::ModelError;
use crate::limits::PLANS_MAX;

type Compiled = Arc<TypedRunnableModel>;

/// A model that can be run on some number of rows.
#[derive(Debug)]
pub(super) enum Plan {
    /// Compiled for any number of rows.
    Any(Compiled),
    /// Compiled for each number of rows that is asked for, the latest used last.
    PerSize {
        graph: Box<InferenceModel>,
        compiled: Mutex<Vec<(usize, Compiled)>>,
    },
}

impl Plan {
    pub(super) fn compile(
        framework: &tract_onnx::Onnx,
        proto: &ModelProto,
        features: usize,
    ) -> Result<Self, ModelError> {
        let graph = framework
            .model_for_proto_model(proto)
            .map_err(|error| ModelError::graph("read", error))?;
        if graph.inputs.len() != 1 {
            return Err(ModelError::Misfit {
                field: "features",
                problem: format!(
                    "the model has {} inputs, a bundle's model has one of shape [rows, features]: export it so",
                    graph.inputs.len()
                ),
            });
        }
        if let Some(declared) = declared_features(proto)
            && declared != features
        {
            return Err(ModelError::Misfit {
                field: "features",
                problem: format!(
                    "there are {features}, the model's input takes {declared}: list each column of the model's input once"
                ),
            });
        }
        // Some graphs analyse with an open number of rows and fail when run, so two sizes are tried.
        let any = any_size(&graph, features).and_then(|plan| {
            for rows in [2, 3] {
                run(&plan, &vec![0.0; rows * features], rows, features)?;
            }
            Ok(plan)
        });
        Ok(match any {
            Ok(plan) => Self::Any(plan),
            Err(error) => {
                tracing::debug!(
                    error = format!("{error:#}"),
                    "model is compiled per number of rows"
                );
                Self::PerSize {
                    graph: Box::new(graph),
                    compiled: Mutex::default(),
                }
            }
        })
    }

    pub(super) fn run(
        &self,
        rows: &[f32],
        n: usize,
        features: usize,
    ) -> Result<TVec<TValue>, ModelError> {
        let plan = match self {
            Self::Any(plan) => Arc::clone(plan),
            Self::PerSize { graph, compiled } => per_size(graph, compiled, n, features)?,
        };
        run(&plan, rows, n, features).map_err(|error| ModelError::graph("run", error))
    }
}

fn run(plan: &Compiled, rows: &[f32], n: usize, features: usize) -> TractResult<TVec<TValue>> {
    let input = Tensor::from_shape(&[n, features], rows)?;
    plan.run(tvec!(input.into_tvalue()))
}

fn any_size(graph: &InferenceModel, features: usize) -> TractResult<Compiled> {
    let rows = TDim::from(graph.symbols.sym("rows"));
    graph
        .clone()
        .with_input_fact(0, f32::fact(&[rows, TDim::from(features as i64)]).into())?
        .into_optimized()?
        .into_runnable()
}

fn per_size(
    graph: &InferenceModel,
    compiled: &Mutex<Vec<(usize, Compiled)>>,
    n: usize,
    features: usize,
) -> Result<Compiled, ModelError> {
    {
        // The list is whole between any two of its operations, also after a panic.
        let mut list = compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = list.iter().position(|(rows, _)| *rows == n) {
            let found = list.remove(at);
            let plan = Arc::clone(&found.1);
            list.push(found);
            return Ok(plan);
        }
    }
    // Compiled outside the lock: it takes milliseconds, and two threads may do it at once.
    let plan = graph
        .clone()
        .with_input_fact(0, f32::fact([n, features]).into())
        .and_then(|graph| graph.into_optimized())
        .and_then(|graph| graph.into_runnable())
        .map_err(|error| ModelError::graph("compiled", error))?;
    let mut list = compiled.lock().unwrap_or_else(PoisonError::into_inner);
    if list.len() >= PLANS_MAX {
        list.remove(0);
    }
    list.push((n, Arc::clone(&plan)));
    Ok(plan)
}

/// Width of the model's input, where the graph declares it as a number.
pub(super) fn declared_features(proto: &ModelProto) -> Option<usize> {
    let graph = proto.graph.as_ref()?;
    let input = graph.input.iter().find(|input| {
        graph
            .initializer
            .iter()
            .all(|tensor| tensor.name != input.name)
    })?;
    let type_proto::Value::TensorType(tensor) = input.r#type.as_ref()?.value.as_ref()?;
    let last = tensor.shape.as_ref()?.dim.last()?;
    match last.value.as_ref()? {
        tensor_shape_proto::dimension::Value::DimValue(width) => {
            usize::try_from(*width).ok().filter(|width| *width > 0)
        }
        tensor_shape_proto::dimension::Value::DimParam(_) => None,
    }
}
