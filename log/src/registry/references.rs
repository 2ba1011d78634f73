//! References beside the bundles' own: where they rest, and which is in force from when on.
//!
//! A reference is built from the lake and put beside the bundles, in a folder by its identity. What is
//! in force is a record of the registry topic: from a time on, windows of a model version are compared
//! with it, and those before with what was in force then. So what a window is compared with follows from
//! the topic alone, and every measure names it.

use std::collections::BTreeMap;

use driftline_schemas::bundle::{CALIBRATION_FILE, REFERENCE_FILE};
use driftline_schemas::profile::Reference;
use driftline_schemas::registry::{REGISTRY_FORMAT, ReferenceRecord, RegistryRecord};

use super::snapshot::BundleKey;
use super::store::{BundleStore, StoreError, path_of};
use super::{PROMOTIONS_MAX, Registry, RegistryError};
use crate::api::{Appender, Output};

/// Top folder of references in the bundles' place. A tenant's folder never begins like that.
pub const REFERENCES_FOLDER: &str = "+references";

/// A reference with what was learned from the same rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// The reference.
    pub reference: Reference,
    /// The text of its calibration.
    pub calibration: Vec<u8>,
}

/// Where a reference rests in any store.
pub fn reference_path(tenant: &str, model: &str, version: &str, id: &str) -> String {
    format!(
        "{REFERENCES_FOLDER}/{}/{id}",
        path_of(tenant, model, version, "")
    )
}

/// Puts a reference where every role finds it (blocks); nothing is in force by that.
///
/// # Errors
/// When the place cannot be written.
pub fn put_reference(
    store: &dyn BundleStore,
    (tenant, model, version): (&str, &str, &str),
    built: &Built,
) -> Result<String, StoreError> {
    let path = reference_path(tenant, model, version, &built.reference.id());
    let files = BTreeMap::from([
        (REFERENCE_FILE.to_owned(), built.reference.encode()),
        (CALIBRATION_FILE.to_owned(), built.calibration.clone()),
    ]);
    store.put(&path, &files)?;
    Ok(path)
}

/// Reads a reference, and makes sure that it is the one asked for (blocks).
///
/// # Errors
/// When it is not there, or is another one.
pub fn get_reference(
    store: &dyn BundleStore,
    (tenant, model, version): (&str, &str, &str),
    id: &str,
) -> Result<Built, StoreError> {
    let path = reference_path(tenant, model, version, id);
    let mut files = store.get(&path)?;
    let wrong = |problem: String| StoreError {
        path: path.clone(),
        problem: format!("{problem}; build it again with `driftline reference build`"),
    };
    let mut file = |name: &str| {
        files
            .remove(name)
            .ok_or_else(|| wrong(format!("there is no {name}")))
    };
    let (reference, calibration) = (file(REFERENCE_FILE)?, file(CALIBRATION_FILE)?);
    let reference = Reference::decode(&reference).map_err(|error| wrong(error.to_string()))?;
    if reference.id() != id {
        return Err(wrong(format!("it holds reference {}", reference.id())));
    }
    Ok(Built {
        reference,
        calibration,
    })
}

impl Registry {
    /// What is in force for a model version, in the order of time; before the first, and without any,
    /// it is the bundle's own reference.
    pub fn promotions(&self, tenant: &str, model: &str, version: &str) -> Vec<ReferenceRecord> {
        self.snapshot()
            .promotions(&BundleKey::new(tenant, model, version, ""))
    }

    /// A reference that was built for a model version (blocks).
    ///
    /// # Errors
    /// [`RegistryError::Reference`] when it is not there or is another one.
    pub fn reference(
        &self,
        tenant: &str,
        model: &str,
        version: &str,
        id: &str,
    ) -> Result<Built, RegistryError> {
        get_reference(&*self.store, (tenant, model, version), id).map_err(|error| {
            RegistryError::Reference {
                id: id.into(),
                title: format!("{model}@{version}"),
                problem: error.to_string(),
            }
        })
    }

    /// Puts a reference in force for the windows of a model version that start at `from_us` or later;
    /// without an `id` the bundle's own. The same promotion again changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::UnknownBundle`]; [`RegistryError::Reference`] when it is not there, or has other
    /// edges than the profiles of the version; or when the log cannot be written.
    pub fn promote_reference(
        &self,
        appender: &mut dyn Appender,
        (tenant, model, version): (&str, &str, &str),
        id: Option<&str>,
        from_us: i64,
        now_us: i64,
    ) -> Result<ReferenceRecord, RegistryError> {
        self.refresh()?;
        let key = BundleKey::new(tenant, model, version, "");
        let bundle = self.snapshot().any_bundle(&key)?;
        if let Some(id) = id {
            self.check_edges(&key, &bundle.variant, id)?;
        }
        let record = ReferenceRecord {
            format: REGISTRY_FORMAT,
            tenant: key.tenant.clone(),
            model: key.model.clone(),
            version: key.version.clone(),
            from_us,
            id: id.map(str::to_owned),
            promoted_at_us: now_us,
        };
        let known = self.snapshot().promotions(&key);
        let same = |it: &&ReferenceRecord| (it.from_us, &it.id) == (from_us, &record.id);
        if let Some(same) = known.iter().find(same) {
            return Ok(same.clone());
        }
        let gives_way = known
            .into_iter()
            .next()
            .filter(|_| self.snapshot().promotions(&key).len() >= PROMOTIONS_MAX);
        if let Some(oldest) = gives_way.as_ref().filter(|it| it.from_us > from_us) {
            return Err(RegistryError::Reference {
                id: id.unwrap_or("of the bundle").into(),
                title: key.title(),
                problem: format!(
                    "{PROMOTIONS_MAX} promotions are known and all are of later windows: the earliest is from {} us",
                    oldest.from_us
                ),
            });
        }
        self.append(
            appender,
            &[RegistryRecord::Reference(record.clone())],
            now_us,
        )?;
        if let Some(oldest) = gives_way {
            appender.append(vec![Output {
                topic: driftline_schemas::topic::REGISTRY.into(),
                partition: 0,
                key: RegistryRecord::Reference(oldest).key().into_bytes(),
                value: None,
                timestamp_us: now_us.max(0),
            }])?;
            self.refresh()?;
        }
        Ok(record)
    }

    /// Whether a reference has the edges of the profiles that a version's devices make.
    fn check_edges(&self, key: &BundleKey, variant: &str, id: &str) -> Result<(), RegistryError> {
        let built = self.reference(&key.tenant, &key.model, &key.version, id)?;
        let bundle = self.bundle(&key.tenant, &key.model, &key.version, variant)?;
        let (found, wanted) = (&built.reference.layout, &bundle.reference.layout);
        if found == wanted {
            return Ok(());
        }
        Err(RegistryError::Reference {
            id: id.into(),
            title: key.title(),
            problem: format!(
                "it has layout {:016x} and the version's profiles have {:016x}: build it again from the lake's rows with `driftline reference build --model {}`",
                found.digest(),
                wanted.digest(),
                key.title()
            ),
        })
    }
}
