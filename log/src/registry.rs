//! Devices and bundles, as the compacted registry topic tells them.
//!
//! A [`Registry`] is a snapshot of the topic in memory. [`Registry::refresh`] reads what was
//! appended since the last one, which costs one read when nothing was. Lookups take a read lock
//! for as long as a hash lookup takes, never wait for the log or a disk, and are what the gateway
//! does for each request. Changes are appended to the topic; the snapshot changes when they are
//! read back, so that it never says what the log does not.
//!
//! Of a bundle, its manifest and columns ([`Model`]) are held for as long as it is registered; the
//! whole bundle (with its model and reference) is read when asked for and kept while
//! [`BUNDLE_CACHE_BYTES_MAX`] allows.
//!
//! # Layout
//!
//! - [`token`]: secrets of devices, and their hashes
//! - [`store`]: where bundles rest
//! - [`references`]: references beside the bundles' own, and what is in force
//! - `snapshot` (private): what the topic says, record by record
//! - `change`, `error` (private): adding, revoking and registering; what can go wrong

mod change;
mod error;
pub mod references;
mod snapshot;
pub mod store;
#[cfg(test)]
mod tests;
pub mod token;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use driftline_schemas::bundle::{Bundle, Manifest};
use driftline_schemas::registry::BundleRecord;
use driftline_schemas::rows::RowSchema;
use driftline_schemas::source::Origin;
use driftline_schemas::topic::REGISTRY;

use crate::api::{Log, ReadLimits};
pub use error::RegistryError;
use snapshot::{BundleKey, Snapshot};
use store::StoreError;
pub use store::{BundleStore, FolderStore};
pub use token::Token;
use token::TokenHash;

/// Most devices that the registry holds. A device takes [`DEVICE_BYTES`], so all of them take about
/// 125 MB; beyond it a device is not admitted, counted in [`RegistryStats::devices_over`], and
/// adding one is refused.
pub const DEVICES_MAX: usize = 250_000;

/// About what one device takes in memory: its origin with shared attribute texts (350 bytes), and
/// its places in two hash tables.
pub const DEVICE_BYTES: usize = 500;

/// Most bundles registered at once. Their manifests and columns are held in memory: about 100 kB
/// for a model of 500 features.
pub const BUNDLES_MAX: usize = 1_024;

/// Most bytes of whole bundles kept for those who ask for one again. A larger bundle is handed out
/// and not kept.
pub const BUNDLE_CACHE_BYTES_MAX: usize = 128 << 20;

/// Most promotions of references that are known of one model version: a weekly one for a year, and more.
/// The oldest gives way to the next one; windows that old are not judged again.
pub const PROMOTIONS_MAX: usize = 64;

/// Most refreshes that pass before a bundle that could not be read is tried again.
pub const BUNDLE_RETRY_MAX: u32 = 64;

/// A device as the gateway knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Identity and declared attributes.
    pub origin: Arc<Origin>,
    /// What its token hashes to.
    pub token: TokenHash,
    /// When it was added, microseconds.
    pub added_at_us: i64,
    /// When it was revoked, microseconds.
    pub revoked_at_us: Option<i64>,
}

/// What is always known of a registered bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What the topic says of it.
    pub record: BundleRecord,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// Columns of its inferences.
    pub inferences: Arc<RowSchema>,
    /// Columns of its outcomes.
    pub outcomes: Arc<RowSchema>,
    /// Digest of the layout that its profiles have.
    pub layout_digest: u64,
    /// Bins of each signal of that layout.
    pub layout_bins: Arc<[usize]>,
}

impl Model {
    fn new(record: BundleRecord, bundle: &Bundle) -> Self {
        Self {
            record,
            manifest: Arc::new(bundle.manifest.clone()),
            inferences: Arc::clone(&bundle.inferences),
            outcomes: Arc::clone(&bundle.outcomes),
            layout_digest: bundle.reference.layout.digest(),
            layout_bins: bundle
                .reference
                .layout
                .signals()
                .iter()
                .map(|signal| signal.bins())
                .collect(),
        }
    }
}

/// What a refresh found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Records read.
    pub records: u64,
    /// Bundles read from their place.
    pub bundles: u64,
}

/// How much the registry holds, and what it could not take in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegistryStats {
    /// Devices, revoked ones included.
    pub devices: usize,
    /// Bundles registered.
    pub bundles: usize,
    /// Bundles registered but not readable at the moment; they are tried again.
    pub bundles_unreadable: usize,
    /// Devices and bundles of the topic that were left out because the registry is full.
    pub devices_over: u64,
    /// Records of the topic that this version cannot read.
    pub records_unreadable: u64,
    /// Offset up to which the topic was read.
    pub next: u64,
}

/// The registry in memory. Share it in an [`Arc`].
pub struct Registry {
    log: Arc<dyn Log>,
    store: Arc<dyn BundleStore>,
    snapshot: RwLock<Snapshot>,
    /// Held by the one refresh under way.
    refreshing: Mutex<()>,
    cache: Mutex<VecDeque<Arc<Bundle>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Reads the whole topic and the manifests of all bundles.
    ///
    /// # Errors
    /// [`RegistryError::Log`] when the topic does not exist or cannot be read. A bundle that cannot
    /// be read is no error here: it is logged, tried again by later refreshes, and told to those
    /// who ask for it.
    pub fn open(log: Arc<dyn Log>, store: Arc<dyn BundleStore>) -> Result<Self, RegistryError> {
        let registry = Self {
            log,
            store,
            snapshot: RwLock::default(),
            refreshing: Mutex::default(),
            cache: Mutex::default(),
        };
        registry.refresh()?;
        Ok(registry)
    }

    /// Takes in what was appended since the last refresh; blocks on the log, and on the disk when
    /// there are new bundles.
    ///
    /// # Errors
    /// As [`Registry::open`]; what was known stays known.
    pub fn refresh(&self) -> Result<Refreshed, RegistryError> {
        let _only = lock(&self.refreshing);
        let mut refreshed = Refreshed::default();
        loop {
            let from = self.snapshot().next;
            let batch = self.log.read(REGISTRY, 0, from, ReadLimits::default())?;
            let mut snapshot = self.write();
            for record in &batch.records {
                snapshot.apply(&record.key, record.value.as_deref());
                refreshed.records += 1;
            }
            snapshot.next = batch.next;
            if batch.next >= batch.end {
                break;
            }
        }
        let due = self.write().due_bundles();
        for record in due {
            let key = BundleKey::of(&record);
            let read = self.read_bundle(&record);
            refreshed.bundles += u64::from(read.is_ok());
            if let Err(error) = &read {
                tracing::warn!(bundle = %key.title(), tenant = %record.tenant, %error, "bundle not readable");
            }
            let model = read.map(|bundle| Model::new(record, &bundle));
            self.write().loaded(&key, model);
        }
        Ok(refreshed)
    }

    /// The device that a bearer token belongs to, revoked ones included.
    pub fn by_token(&self, token: &str) -> Option<Arc<Device>> {
        self.by_token_hash(&TokenHash::of(token))
    }

    /// As [`Registry::by_token`], by the token's hash.
    pub fn by_token_hash(&self, hash: &TokenHash) -> Option<Arc<Device>> {
        self.snapshot().by_token(hash)
    }

    /// A device by name, revoked ones included.
    pub fn device(&self, tenant: &str, device: &str) -> Option<Arc<Device>> {
        self.snapshot().device(tenant, device)
    }

    /// All devices of a tenant, or of all, in name order.
    pub fn devices(&self, tenant: Option<&str>) -> Vec<Arc<Device>> {
        self.snapshot().devices(tenant)
    }

    /// Manifest and columns of a registered bundle.
    ///
    /// # Errors
    /// [`RegistryError::UnknownBundle`], or [`RegistryError::Store`] with the reason that it could
    /// not be read for.
    pub fn model(
        &self,
        tenant: &str,
        model: &str,
        version: &str,
        variant: &str,
    ) -> Result<Arc<Model>, RegistryError> {
        self.snapshot()
            .model(&BundleKey::new(tenant, model, version, variant))
    }

    /// The readable bundle, registered last, of a tenant whose inferences or outcomes have these
    /// columns. Versions with the same columns share a fingerprint.
    pub fn by_fingerprint(&self, tenant: &str, fingerprint: u32) -> Option<Arc<Model>> {
        self.snapshot().by_fingerprint(tenant, fingerprint)
    }

    /// All readable bundles, in the order of tenant, model, version and variant.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.snapshot().models()
    }

    /// A whole bundle: from the cache, or read and checked against the registered digest (blocks).
    ///
    /// # Errors
    /// [`RegistryError::UnknownBundle`] or [`RegistryError::Store`].
    pub fn bundle(
        &self,
        tenant: &str,
        model: &str,
        version: &str,
        variant: &str,
    ) -> Result<Arc<Bundle>, RegistryError> {
        let key = BundleKey::new(tenant, model, version, variant);
        let record = self.snapshot().bundle_record(&key)?;
        if let Some(kept) = self.cached(&record.digest) {
            return Ok(kept);
        }
        let bundle =
            Arc::new(
                self.read_bundle(&record)
                    .map_err(|source| RegistryError::Store {
                        title: key.title(),
                        source,
                    })?,
            );
        self.keep(&bundle);
        Ok(bundle)
    }

    /// How much is held.
    pub fn stats(&self) -> RegistryStats {
        self.snapshot().stats()
    }

    fn read_bundle(&self, record: &BundleRecord) -> Result<Bundle, StoreError> {
        let files = self.store.get(&record.path)?;
        let bundle = Bundle::from_files(files).map_err(|error| StoreError {
            path: record.path.clone(),
            problem: error.to_string(),
        })?;
        if bundle.digest == record.digest {
            return Ok(bundle);
        }
        Err(StoreError {
            path: record.path.clone(),
            problem: format!(
                "its digest is {}, but {} was registered: put the registered bundle back there",
                bundle.digest, record.digest
            ),
        })
    }

    fn cached(&self, digest: &str) -> Option<Arc<Bundle>> {
        let mut cache = lock(&self.cache);
        let at = cache.iter().position(|kept| kept.digest == digest)?;
        let found = cache.remove(at)?;
        cache.push_back(Arc::clone(&found));
        Some(found)
    }

    /// Keeps a bundle, and lets go of those not asked for longest.
    fn keep(&self, bundle: &Arc<Bundle>) {
        let size = |bundle: &Bundle| bundle.files().values().map(Vec::len).sum::<usize>();
        let mut left = BUNDLE_CACHE_BYTES_MAX;
        let mut cache = lock(&self.cache);
        cache.retain(|kept| kept.digest != bundle.digest);
        cache.push_back(Arc::clone(bundle));
        let fits = cache
            .iter()
            .rev()
            .take_while(|kept| {
                let fits = size(kept) <= left;
                left = left.saturating_sub(size(kept));
                fits
            })
            .count();
        let over = cache.len() - fits;
        cache.drain(..over);
    }

    fn snapshot(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.snapshot.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic elsewhere leaves the snapshot sound: every change is one call.
    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Snapshot> {
        self.snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
