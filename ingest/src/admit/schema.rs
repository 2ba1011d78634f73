//! Which columns a frame or a table of rows has.

use std::sync::Arc;

use driftline_log::registry::{Model, RegistryError};
use driftline_schemas::rows::{Kind, RowSchema};
use driftline_schemas::source::Origin;

use super::{Admission, Sender};
use crate::problem::{Problem, ProblemKind};

impl Admission {
    /// The schema that a frame claims to be of: that of the sender's declared model, of another
    /// registered one, or the one that its kind always has.
    pub(super) fn schema_of_frame(
        &self,
        sender: &Sender,
        kind: Kind,
        fingerprint: u32,
    ) -> Result<Arc<RowSchema>, Problem> {
        let fixed = match kind {
            Kind::Health => Some(&self.health),
            Kind::Events => Some(&self.events),
            Kind::Inferences | Kind::Outcomes | Kind::Profiles => None,
        };
        if let Some(schema) = fixed {
            // A frame of another schema is refused by decoding, which says so.
            return Ok(Arc::clone(schema));
        }
        let declared = self.model(&sender.device.origin);
        let fits = |model: &Model| schema_of(model, kind).fingerprint() == fingerprint;
        if let Ok(model) = &declared
            && fits(model)
        {
            return Ok(Arc::clone(schema_of(model, kind)));
        }
        let tenant = &sender.device.origin.tenant;
        match self.registry.by_fingerprint(tenant, fingerprint) {
            Some(model) if fits(&model) => Ok(Arc::clone(schema_of(&model, kind))),
            _ => Err(match declared {
                Ok(model) => mismatch(&model, kind, fingerprint),
                Err(problem) => problem,
            }),
        }
    }

    /// The model that rows are of, where their kind has one.
    pub(super) fn model_of(
        &self,
        origin: &Origin,
        kind: Kind,
        schema: &RowSchema,
    ) -> Result<Option<Arc<Model>>, Problem> {
        if matches!(kind, Kind::Health | Kind::Events) {
            return Ok(None);
        }
        let model = self.model(origin)?;
        if schema_of(&model, kind).fingerprint() != schema.fingerprint() {
            return Err(mismatch(&model, kind, schema.fingerprint()));
        }
        Ok(Some(model))
    }

    /// Columns and model of rows that come without a frame.
    pub(crate) fn schema_of_rows(
        &self,
        origin: &Origin,
        kind: Kind,
    ) -> Result<(Arc<RowSchema>, Option<Arc<Model>>), Problem> {
        match kind {
            Kind::Health => Ok((Arc::clone(&self.health), None)),
            Kind::Events => Ok((Arc::clone(&self.events), None)),
            Kind::Inferences | Kind::Outcomes | Kind::Profiles => {
                let model = self.model(origin)?;
                Ok((Arc::clone(schema_of(&model, kind)), Some(model)))
            }
        }
    }

    fn model(&self, origin: &Origin) -> Result<Arc<Model>, Problem> {
        if origin.model.is_empty() {
            return Err(Problem::new(
                ProblemKind::UnknownModel,
                format!("device {:?} names no model", origin.device),
                "register the device with its model, or have it say name and version",
            ));
        }
        self.registry
            .model(
                &origin.tenant,
                &origin.model,
                &origin.version,
                &origin.variant,
            )
            .map_err(|error| match error {
                RegistryError::Store { .. } => Problem::new(
                    ProblemKind::BundleUnavailable,
                    error.to_string(),
                    "the operator must put the bundle in its place; send the same again later",
                )
                .retry_after(30),
                error => {
                    let text = error.to_string();
                    let (detail, remedy) = text.split_once(": ").unwrap_or((&text, ""));
                    Problem::new(ProblemKind::UnknownModel, detail, remedy)
                }
            })
    }
}

fn schema_of(model: &Model, kind: Kind) -> &Arc<RowSchema> {
    match kind {
        Kind::Outcomes => &model.outcomes,
        _ => &model.inferences,
    }
}

fn mismatch(model: &Model, kind: Kind, fingerprint: u32) -> Problem {
    let schema = schema_of(model, kind);
    Problem::new(
        ProblemKind::SchemaMismatch,
        format!(
            "the frame has columns {fingerprint:08x}; {} of {}@{} have {:08x}, {} columns of which {} are features",
            kind.name(),
            model.record.model,
            model.record.version,
            schema.fingerprint(),
            schema.fields().len(),
            model.manifest.features.len()
        ),
        "register the bundle that the device runs, or bring the device to the registered one",
    )
    .at("frame at byte 4")
}
