//! Object stores that a lake may lie in, beside local folders: `s3://bucket/path`.
//!
//! Credentials, region and endpoint come from the usual environment variables (`AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …) or from `[lake.options]`, which win.
//! Two writers of one table version are told apart by a conditional put, which the store must know:
//! S3 itself, MinIO and others do.

use std::str::FromStr as _;
use std::sync::Arc;

use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore,
    logstore_factories, object_store_factories,
};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::ObjectStoreScheme;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use url::Url;

/// Makes stores of S3's kind.
#[derive(Debug, Clone, Copy)]
struct S3;

impl ObjectStoreFactory for S3 {
    fn parse_url_opts(
        &self,
        url: &Url,
        config: &StorageConfig,
    ) -> DeltaResult<(ObjectStoreRef, Path)> {
        let mut builder = AmazonS3Builder::from_env().with_url(url.as_str());
        for (name, value) in &config.raw {
            // Options of the lake itself are among them.
            if let Ok(key) = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()) {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.build()?;
        let (_, path) =
            ObjectStoreScheme::parse(url).map_err(|error| DeltaTableError::GenericError {
                source: Box::new(error),
            })?;
        Ok((Arc::new(store), path))
    }
}

impl LogStoreFactory for S3 {
    fn with_options(
        &self,
        prefixed_store: ObjectStoreRef,
        root_store: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<Arc<dyn LogStore>> {
        Ok(default_logstore(
            prefixed_store,
            root_store,
            location,
            options,
        ))
    }
}

/// Makes the stores known to the lake.
pub(crate) fn register() {
    for scheme in ["s3://", "s3a://"] {
        if let Ok(url) = Url::parse(scheme) {
            object_store_factories().insert(url.clone(), Arc::new(S3));
            logstore_factories().insert(url, Arc::new(S3));
        }
    }
}
