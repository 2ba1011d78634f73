//! Why the registry could not do what was asked.

use super::store::StoreError;
use super::{BUNDLES_MAX, DEVICES_MAX};
use crate::error::LogError;

/// Why the registry could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The log could not be read or written.
    #[error("registry topic: {0}")]
    Log(#[from] LogError),
    /// The bundles' place could not be read or written.
    #[error("bundle {title}: {source}")]
    Store {
        /// The bundle.
        title: String,
        /// What happened.
        source: StoreError,
    },
    /// No such device.
    #[error(
        "tenant {tenant:?} has no device {device:?}: `driftline device list` shows those there \
         are, `driftline device add` adds one"
    )]
    UnknownDevice {
        /// Tenant asked for.
        tenant: String,
        /// Device asked for.
        device: String,
    },
    /// The device is there already.
    #[error(
        "tenant {tenant:?} already has a device {device:?}: choose another name, or revoke it \
         first with `driftline device revoke`"
    )]
    DeviceExists {
        /// Tenant.
        tenant: String,
        /// Device.
        device: String,
    },
    /// No more devices fit.
    #[error(
        "the registry is full with {DEVICES_MAX} devices: run a second installation for the others"
    )]
    DevicesFull,
    /// No more bundles fit.
    #[error("the registry is full with {BUNDLES_MAX} bundles: remove those that no device runs")]
    BundlesFull,
    /// No such bundle.
    #[error(
        "tenant {tenant:?} has no bundle {title} registered: register it with `driftline model \
         register`, or correct the name that the device sends"
    )]
    UnknownBundle {
        /// Tenant asked for.
        tenant: String,
        /// `name@version+variant` asked for.
        title: String,
    },
    /// The version is registered with other contents.
    #[error(
        "bundle {title} is already registered with {registered}, and this one has {offered}: a \
         version never changes what it is, so give this one a new version"
    )]
    BundleChanged {
        /// `name@version+variant`.
        title: String,
        /// Digest registered.
        registered: String,
        /// Digest offered.
        offered: String,
    },
    /// A reference cannot be used for a model version.
    #[error("reference {id} for {title}: {problem}")]
    Reference {
        /// [`driftline_schemas::profile::Reference::id`] asked for.
        id: String,
        /// `name@version`.
        title: String,
        /// What is wrong, and what would put it right.
        problem: String,
    },
    /// A name cannot be used.
    #[error("{field} {value:?}: {problem}")]
    Name {
        /// Which name.
        field: &'static str,
        /// What it is.
        value: String,
        /// What is wrong with it, and what would be right.
        problem: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes for a token: {0}")]
    Random(String),
}
