//! Object stores that a lake may lie in, beside local folders: `s3://bucket/path`.
//!
//! Credentials, region and endpoint come from the usual environment variables (`AWS_ACCESS_KEY_ID`,
//! `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, …), from the file that
//! `AWS_SHARED_CREDENTIALS_FILE` names (profile `AWS_PROFILE`, else `default`), or from
//! `[lake.options]`; the last of these that says something wins.
//! Two writers of one table version are told apart by a conditional put, which the store must know:
//! S3 itself, MinIO and others do.

use std::str::FromStr as _;
use std::sync::{Arc, Once};
use std::time::Duration;

use deltalake::logstore::{
    LogStore, LogStoreFactory, ObjectStoreFactory, ObjectStoreRef, StorageConfig, default_logstore,
    logstore_factories, object_store_factories,
};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStoreScheme, RetryConfig};
use url::Url;

/// How long a request is repeated in silence. After that the step fails, which logs and metrics tell, and is tried
/// again for as long as it takes: a store that is away shows within this time.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause between two of those repetitions.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

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
        if let Some(file) = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE") {
            let text = std::fs::read_to_string(&file).map_err(|error| {
                let named = format!("AWS_SHARED_CREDENTIALS_FILE {}: {error}", file.display());
                DeltaTableError::generic(named)
            })?;
            let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".into());
            for (name, value) in credentials(&text, &profile) {
                if let Ok(key) = AmazonS3ConfigKey::from_str(name) {
                    builder = builder.with_config(key, value);
                }
            }
        }
        for (name, value) in &config.raw {
            // Options of the lake itself are among them.
            if let Ok(key) = AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase()) {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.with_retry(retries()).build()?;
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

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            max_backoff: LONGEST_PAUSE,
            ..BackoffConfig::default()
        },
        // Time is what bounds them.
        max_retries: usize::MAX,
        retry_timeout: STORE_PATIENCE,
    }
}

/// Names and values of one profile of a credentials file.
fn credentials<'a>(text: &'a str, profile: &str) -> Vec<(&'a str, &'a str)> {
    let mut mine = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            mine = section.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| mine) {
            found.push((name.trim(), value.trim()));
        }
    }
    found
}

/// Makes the stores known to Delta, once.
pub(crate) fn register() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        for scheme in ["s3://", "s3a://"] {
            if let Ok(url) = Url::parse(scheme) {
                object_store_factories().insert(url.clone(), Arc::new(S3));
                logstore_factories().insert(url, Arc::new(S3));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the profile that is asked for counts, whatever the spaces.
    #[test]
    fn a_profile_of_a_credentials_file() {
        let text = "[other]\naws_access_key_id=no\n\n[default]\naws_access_key_id = K\n# c\naws_secret_access_key=S=\n";
        let found = credentials(text, "default");
        assert_eq!(
            found,
            [("aws_access_key_id", "K"), ("aws_secret_access_key", "S=")]
        );
        assert!(credentials(text, "nobody").is_empty());
    }
}
