//! What the compacted registry topic says: devices, bundles that were registered, and references that
//! were promoted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::source::Origin;

/// Version of the records below.
pub const REGISTRY_FORMAT: u32 = 1;

/// A device that may send, and what is declared of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// [`REGISTRY_FORMAT`].
    pub format: u32,
    /// Identity and declared attributes; a frame may override attributes, never the identity.
    pub origin: Arc<Origin>,
    /// Hexadecimal SHA-256 of the bearer token (256 random bits, so a plain hash cannot be guessed
    /// back).
    pub token_sha256: String,
    /// When it was added, microseconds.
    pub added_at_us: i64,
    /// When it was revoked; a revoked device is refused, and stays listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_us: Option<i64>,
}

/// A bundle that every role can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRecord {
    /// [`REGISTRY_FORMAT`].
    pub format: u32,
    /// Owner.
    pub tenant: Arc<str>,
    /// Model name.
    pub model: Arc<str>,
    /// Model version.
    pub version: Arc<str>,
    /// Variant.
    pub variant: Arc<str>,
    /// Digest over the bundle; what is read from `path` must have it.
    pub digest: String,
    /// Folder below the bundles' place that every role can read.
    pub path: String,
    /// When it was registered, microseconds.
    pub registered_at_us: i64,
}

/// What a model version's windows are compared with from a time on, until the next such record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceRecord {
    /// [`REGISTRY_FORMAT`].
    pub format: u32,
    /// Owner.
    pub tenant: Arc<str>,
    /// Model name.
    pub model: Arc<str>,
    /// Model version.
    pub version: Arc<str>,
    /// Windows that start at this time or later, microseconds of event time.
    pub from_us: i64,
    /// [`crate::profile::Reference::id`], which what is read must have; none for the bundle's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it was promoted, microseconds.
    pub promoted_at_us: i64,
}

/// One record of the registry topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum RegistryRecord {
    /// A device.
    Device(DeviceRecord),
    /// A bundle.
    Bundle(BundleRecord),
    /// A reference in force.
    Reference(ReferenceRecord),
}

impl RegistryRecord {
    /// Key in the compacted topic.
    pub fn key(&self) -> String {
        match self {
            Self::Device(record) => {
                format!("device/{}/{}", record.origin.tenant, record.origin.device)
            }
            Self::Bundle(record) => format!(
                "bundle/{}/{}/{}/{}",
                record.tenant, record.model, record.version, record.variant
            ),
            Self::Reference(record) => format!(
                "reference/{}/{}/{}/{}",
                record.tenant, record.model, record.version, record.from_us
            ),
        }
    }
}
