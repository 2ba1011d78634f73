//! Where stages find the bundle of a model version.

use std::sync::Arc;

use driftline_log::registry::{Registry, RegistryError};
use driftline_log::runner::StageError;
use driftline_schemas::bundle::Bundle;
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

    /// Changes whenever [`Bundles::attribute_values`] may.
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
