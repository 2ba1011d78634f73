//! Where stages find the bundle of a model version.

use std::sync::Arc;

use driftline_log::registry::references::Built;
use driftline_log::registry::{Registry, RegistryError};
use driftline_log::runner::StageError;
use driftline_schemas::bundle::Bundle;
use driftline_schemas::registry::ReferenceRecord;
use driftline_schemas::source::ATTRIBUTES;

/// What stages ask of the registry; a trait so that tests need no store of bundles.
pub trait Bundles: Send + Sync {
    /// The bundle of a model version, `None` when none is registered (and the registry has been
    /// read to its end to make sure).
    ///
    /// # Errors
    /// [`StageError::Retry`] when it is registered but cannot be read now.
    fn bundle(
        &self,
        tenant: &str,
        model: &str,
        version: &str,
        variant: &str,
    ) -> Result<Option<Arc<Bundle>>, StageError>;

    /// References in force for a model version in place of the bundle's own, in the order of time, as
    /// known by now.
    fn promotions(&self, tenant: &str, model: &str, version: &str) -> Vec<ReferenceRecord> {
        let _ = (tenant, model, version);
        Vec::new()
    }

    /// A reference that a record of [`Bundles::promotions`] names.
    ///
    /// # Errors
    /// [`StageError::Retry`] when it cannot be read now.
    fn reference(&self, record: &ReferenceRecord, id: &str) -> Result<Built, StageError> {
        let _ = record;
        Err(StageError::Retry(format!("there is no reference {id}")))
    }

    /// Changes whenever [`Bundles::attribute_values`] or [`Bundles::promotions`] may.
    fn revision(&self) -> u64 {
        0
    }

    /// Calls `each(tenant, attribute values, added at)` for every declared device, in any order.
    fn attribute_values(&self, each: &mut dyn FnMut(&str, [&str; ATTRIBUTES.len()], i64)) {
        let _ = each;
    }
}

impl Bundles for Registry {
    fn bundle(
        &self,
        tenant: &str,
        model: &str,
        version: &str,
        variant: &str,
    ) -> Result<Option<Arc<Bundle>>, StageError> {
        let retry = |error: RegistryError| StageError::Retry(error.to_string());
        match Self::bundle(self, tenant, model, version, variant) {
            Err(RegistryError::UnknownBundle { .. }) => {
                // The gateway knew it, so it is in the topic: this snapshot is behind.
                self.refresh().map_err(retry)?;
                match Self::bundle(self, tenant, model, version, variant) {
                    Err(RegistryError::UnknownBundle { .. }) => Ok(None),
                    found => found.map(Some).map_err(retry),
                }
            }
            found => found.map(Some).map_err(retry),
        }
    }

    fn promotions(&self, tenant: &str, model: &str, version: &str) -> Vec<ReferenceRecord> {
        Self::promotions(self, tenant, model, version)
    }

    fn reference(&self, record: &ReferenceRecord, id: &str) -> Result<Built, StageError> {
        Self::reference(self, &record.tenant, &record.model, &record.version, id)
            .map_err(|error| StageError::Retry(error.to_string()))
    }

    fn revision(&self) -> u64 {
        // When the topic cannot be read, what was known stays known.
        if let Err(error) = self.refresh() {
            tracing::warn!(%error, "registry not read, its last state is used");
        }
        self.stats().next
    }

    fn attribute_values(&self, each: &mut dyn FnMut(&str, [&str; ATTRIBUTES.len()], i64)) {
        for device in self.devices(None) {
            each(
                &device.origin.tenant,
                device.origin.attributes(),
                device.added_at_us,
            );
        }
    }
}
