//! Changes: checked, appended to the topic, and read back.

use std::collections::HashSet;
use std::sync::Arc;

use driftline_schemas::bundle::Bundle;
use driftline_schemas::limits::STRING_BYTES_MAX;
use driftline_schemas::registry::{BundleRecord, DeviceRecord, REGISTRY_FORMAT, RegistryRecord};
use driftline_schemas::source::Origin;
use driftline_schemas::topic::REGISTRY;

use super::snapshot::BundleKey;
use super::token::Token;
use super::{BUNDLES_MAX, DEVICES_MAX, Registry, RegistryError, store};
use crate::api::{Appender, Output};
use crate::error::LogError;

/// Records of one append: few enough for any log's limit on a step, many enough that a quarter of a million
/// devices take minutes.
const APPEND_RECORDS: usize = 1_000;

impl Registry {
    /// Adds a device, or one again that was revoked, with a new token. The token is in the answer
    /// and nowhere else: only its hash is kept.
    ///
    /// # Errors
    /// [`RegistryError::DeviceExists`], [`RegistryError::DevicesFull`], [`RegistryError::Name`],
    /// or when the log cannot be written.
    pub fn add_device(
        &self,
        appender: &mut dyn Appender,
        origin: Origin,
        now_us: i64,
    ) -> Result<Token, RegistryError> {
        let mut tokens = self.add_devices(appender, vec![origin], now_us)?;
        // One device, one token.
        tokens.pop().ok_or(RegistryError::DevicesFull)
    }

    /// Adds many devices, all of them or, when one of them is refused, none; their tokens in the same
    /// order.
    ///
    /// # Errors
    /// As [`Registry::add_device`]; when the log cannot be written, some may have been added.
    pub fn add_devices(
        &self,
        appender: &mut dyn Appender,
        origins: Vec<Origin>,
        now_us: i64,
    ) -> Result<Vec<Token>, RegistryError> {
        self.refresh()?;
        let mut names = HashSet::new();
        let mut room = DEVICES_MAX.saturating_sub(self.stats().devices);
        for origin in &origins {
            check_origin(origin)?;
            let twice = !names.insert((&origin.tenant, &origin.device));
            match self.device(&origin.tenant, &origin.device) {
                Some(known) if known.revoked_at_us.is_none() => return Err(exists(origin)),
                _ if twice => return Err(exists(origin)),
                Some(_) => {}
                None => room = room.checked_sub(1).ok_or(RegistryError::DevicesFull)?,
            }
        }
        let mut tokens = Vec::with_capacity(origins.len());
        let mut records = Vec::with_capacity(origins.len());
        for origin in origins {
            let token = Token::generate()?;
            records.push(RegistryRecord::Device(DeviceRecord {
                format: REGISTRY_FORMAT,
                origin: Arc::new(origin),
                token_sha256: token.hash().to_string(),
                added_at_us: now_us,
                revoked_at_us: None,
            }));
            tokens.push(token);
        }
        self.append(appender, &records, now_us)?;
        Ok(tokens)
    }

    /// Revokes a device: its token is refused from now on. Revoking it again changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::UnknownDevice`], or when the log cannot be written.
    pub fn revoke_device(
        &self,
        appender: &mut dyn Appender,
        tenant: &str,
        device: &str,
        now_us: i64,
    ) -> Result<(), RegistryError> {
        self.refresh()?;
        let Some(known) = self.device(tenant, device) else {
            return Err(RegistryError::UnknownDevice {
                tenant: tenant.into(),
                device: device.into(),
            });
        };
        if known.revoked_at_us.is_some() {
            return Ok(());
        }
        let record = RegistryRecord::Device(DeviceRecord {
            format: REGISTRY_FORMAT,
            origin: Arc::clone(&known.origin),
            token_sha256: known.token.to_string(),
            added_at_us: known.added_at_us,
            revoked_at_us: Some(now_us),
        });
        self.append(appender, &[record], now_us)
    }

    /// Puts a bundle in the bundles' place and announces it. Registering the same bundle again
    /// changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::BundleChanged`] when the version is there with other contents,
    /// [`RegistryError::BundlesFull`], [`RegistryError::Name`], or when the place or the log cannot
    /// be written.
    pub fn register_bundle(
        &self,
        appender: &mut dyn Appender,
        tenant: &str,
        bundle: &Bundle,
        now_us: i64,
    ) -> Result<BundleRecord, RegistryError> {
        self.refresh()?;
        let manifest = &bundle.manifest;
        let key = BundleKey::new(tenant, &manifest.name, &manifest.version, &manifest.variant);
        check_name("tenant", &key.tenant)?;
        check_name("model", &key.model)?;
        check_name("version", &key.version)?;
        check_attribute("variant", &key.variant)?;
        match self.snapshot().bundle_record(&key) {
            Ok(known) if known.digest == bundle.digest => return Ok(known),
            Ok(known) => {
                return Err(RegistryError::BundleChanged {
                    title: key.title(),
                    registered: known.digest,
                    offered: bundle.digest.clone(),
                });
            }
            Err(_) if self.stats().bundles >= BUNDLES_MAX => {
                return Err(RegistryError::BundlesFull);
            }
            Err(_) => {}
        }
        let path = store::path_of(&key.tenant, &key.model, &key.version, &key.variant);
        self.store
            .put(&path, bundle.files())
            .map_err(|source| RegistryError::Store {
                title: key.title(),
                source,
            })?;
        let record = BundleRecord {
            format: REGISTRY_FORMAT,
            tenant: key.tenant,
            model: key.model,
            version: key.version,
            variant: key.variant,
            digest: bundle.digest.clone(),
            path,
            registered_at_us: now_us,
        };
        self.append(appender, &[RegistryRecord::Bundle(record.clone())], now_us)?;
        Ok(record)
    }

    pub(super) fn append(
        &self,
        appender: &mut dyn Appender,
        records: &[RegistryRecord],
        now_us: i64,
    ) -> Result<(), RegistryError> {
        for records in records.chunks(APPEND_RECORDS) {
            let outputs: Result<Vec<Output>, LogError> = records
                .iter()
                .map(|record| {
                    let value = serde_json::to_vec(record).map_err(|error| {
                        LogError::invalid(format!("registry record {}: {error}", record.key()))
                    })?;
                    Ok(Output {
                        topic: REGISTRY.into(),
                        partition: 0,
                        key: record.key().into_bytes(),
                        value: Some(value),
                        timestamp_us: now_us.max(0),
                    })
                })
                .collect();
            appender.append(outputs?)?;
        }
        self.refresh()?;
        Ok(())
    }
}

fn exists(origin: &Origin) -> RegistryError {
    RegistryError::DeviceExists {
        tenant: origin.tenant.to_string(),
        device: origin.device.to_string(),
    }
}

/// Names that are parts of keys: the key is split at `/` again.
fn check_name(field: &'static str, value: &str) -> Result<(), RegistryError> {
    let problem = if value.is_empty() {
        "must not be empty"
    } else if value.contains('/') {
        "must not contain '/'"
    } else {
        return check_attribute(field, value);
    };
    Err(RegistryError::Name {
        field,
        value: value.into(),
        problem,
    })
}

fn check_attribute(field: &'static str, value: &str) -> Result<(), RegistryError> {
    let problem = if value.len() > STRING_BYTES_MAX {
        "is longer than 256 bytes"
    } else if value.chars().any(char::is_control) {
        "must not contain control characters"
    } else {
        return Ok(());
    };
    Err(RegistryError::Name {
        field,
        value: value.chars().take(64).collect(),
        problem,
    })
}

fn check_origin(origin: &Origin) -> Result<(), RegistryError> {
    check_name("tenant", &origin.tenant)?;
    check_name("device", &origin.device)?;
    for (field, value) in [
        ("model", &origin.model),
        ("version", &origin.version),
        ("variant", &origin.variant),
        ("hardware", &origin.hardware),
        ("firmware", &origin.firmware),
        ("region", &origin.region),
        ("site", &origin.site),
    ] {
        check_attribute(field, value)?;
    }
    Ok(())
}
