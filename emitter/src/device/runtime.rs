//! What all devices with one bundle share.

use std::sync::Arc;

use driftline_schemas::bundle::Bundle;
use driftline_schemas::rows::{Kind, RowSchema};

use super::open;
use crate::features::{Batch, Encoders};
use crate::model::{Model, ModelError};

/// Kinds that are rows, in the order in which open frames are sealed: an event explains the rows
/// behind it.
const ROW_KINDS: [Kind; 4] = [Kind::Events, Kind::Inferences, Kind::Outcomes, Kind::Health];

/// What all devices with one bundle share: the model, compiled, and the columns of its rows.
#[derive(Debug)]
pub struct Runtime {
    pub(super) bundle: Arc<Bundle>,
    pub(super) model: Model,
    pub(super) encoders: Encoders,
    health: Arc<RowSchema>,
    events: Arc<RowSchema>,
    /// Most bytes of a row without its texts, by the kind's code.
    row_bytes: [usize; open::KINDS],
}

impl Runtime {
    /// Compiles a bundle's model.
    ///
    /// # Errors
    /// [`ModelError`] when the model cannot be used or does not fit the manifest.
    pub fn load(bundle: Arc<Bundle>) -> Result<Arc<Self>, ModelError> {
        let onnx = bundle
            .file(driftline_schemas::bundle::MODEL_FILE)
            .unwrap_or_default();
        let model = Model::load(onnx, &bundle.manifest)?;
        let mut runtime = Self {
            encoders: Encoders::new(&bundle.manifest),
            model,
            bundle,
            health: Arc::new(RowSchema::health()),
            events: Arc::new(RowSchema::events()),
            row_bytes: [1; open::KINDS],
        };
        for kind in ROW_KINDS {
            runtime.row_bytes[kind as usize] = open::row_bytes(runtime.schema(kind));
        }
        Ok(Arc::new(runtime))
    }

    /// Most bytes of a row of a kind, without its texts.
    pub(super) fn row_bytes(&self, kind: Kind) -> usize {
        self.row_bytes[kind as usize]
    }

    /// The bundle.
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The coders of features, extra signals and truth.
    pub fn encoders(&self) -> &Encoders {
        &self.encoders
    }

    /// A batch without rows.
    pub fn batch(&self) -> Batch {
        Batch::new(&self.encoders)
    }

    /// Columns of a kind of rows; those of inferences for [`Kind::Profiles`].
    pub fn schema(&self, kind: Kind) -> &Arc<RowSchema> {
        match kind {
            Kind::Inferences | Kind::Profiles => &self.bundle.inferences,
            Kind::Outcomes => &self.bundle.outcomes,
            Kind::Health => &self.health,
            Kind::Events => &self.events,
        }
    }
}
