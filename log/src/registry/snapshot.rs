//! What the registry topic says, record by record. No reading and no waiting: the caller does that.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use driftline_schemas::registry::{
    BundleRecord, DeviceRecord, REGISTRY_FORMAT, ReferenceRecord, RegistryRecord,
};
use driftline_schemas::source::Origin;

use super::store::StoreError;
use super::token::TokenHash;
use super::{
    BUNDLE_RETRY_MAX, BUNDLES_MAX, DEVICES_MAX, Device, Model, PROMOTIONS_MAX, RegistryError,
    RegistryStats,
};

/// Attribute texts that devices share. Beyond it each keeps its own.
const SHARED_TEXTS_MAX: usize = 65_536;

/// Which bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BundleKey {
    pub(super) tenant: Arc<str>,
    pub(super) model: Arc<str>,
    pub(super) version: Arc<str>,
    pub(super) variant: Arc<str>,
}

impl BundleKey {
    pub(super) fn new(tenant: &str, model: &str, version: &str, variant: &str) -> Self {
        Self {
            tenant: tenant.into(),
            model: model.into(),
            version: version.into(),
            variant: variant.into(),
        }
    }

    pub(super) fn of(record: &BundleRecord) -> Self {
        Self {
            tenant: Arc::clone(&record.tenant),
            model: Arc::clone(&record.model),
            version: Arc::clone(&record.version),
            variant: Arc::clone(&record.variant),
        }
    }

    /// `name@version`, with `+variant` where there is one.
    pub(super) fn title(&self) -> String {
        match &*self.variant {
            "" => format!("{}@{}", self.model, self.version),
            variant => format!("{}@{}+{variant}", self.model, self.version),
        }
    }

    fn unknown(&self) -> RegistryError {
        RegistryError::UnknownBundle {
            tenant: self.tenant.to_string(),
            title: self.title(),
        }
    }
}

/// A registered bundle, and what became of reading it.
#[derive(Debug)]
struct Entry {
    record: BundleRecord,
    state: State,
}

#[derive(Debug)]
enum State {
    /// To be read at the next refresh.
    New,
    Read(Arc<Model>),
    Unreadable {
        error: StoreError,
        /// Refreshes until it is tried again.
        wait: u32,
        /// Refreshes to wait after the next failure.
        wait_next: u32,
    },
}

/// The topic up to an offset.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Offset up to which the topic was read.
    pub(super) next: u64,
    by_token: HashMap<TokenHash, Arc<Device>>,
    by_name: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Device>>>,
    devices: usize,
    bundles: BTreeMap<BundleKey, Entry>,
    /// References in force by model version (a key without a variant) and the time from which on.
    promotions: BTreeMap<BundleKey, BTreeMap<i64, ReferenceRecord>>,
    texts: HashSet<Arc<str>>,
    devices_over: u64,
    records_unreadable: u64,
}

impl Snapshot {
    /// Takes in one record. What cannot be read is counted: a newer version may have written it.
    pub(super) fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        let done = match value {
            None => self.remove(key),
            Some(value) => match serde_json::from_slice(value) {
                Ok(RegistryRecord::Device(record)) if record.format == REGISTRY_FORMAT => {
                    self.put_device(record)
                }
                Ok(RegistryRecord::Bundle(record)) if record.format == REGISTRY_FORMAT => {
                    self.put_bundle(record)
                }
                Ok(RegistryRecord::Reference(record)) if record.format == REGISTRY_FORMAT => {
                    self.put_reference(record)
                }
                _ => None,
            },
        };
        if done.is_none() {
            self.records_unreadable += 1;
            tracing::warn!(
                key = %String::from_utf8_lossy(key),
                "registry record not readable by this version"
            );
        }
    }

    /// `None` where the key is not one of ours.
    fn remove(&mut self, key: &[u8]) -> Option<()> {
        let key = std::str::from_utf8(key).ok()?;
        match key.split_once('/')? {
            ("device", rest) => {
                let (tenant, device) = rest.split_once('/')?;
                self.take_device(tenant, device);
            }
            ("bundle", rest) => {
                let mut parts = rest.splitn(4, '/');
                let mut part = || parts.next();
                let key = BundleKey::new(part()?, part()?, part()?, part()?);
                self.bundles.remove(&key);
            }
            ("reference", rest) => {
                let mut parts = rest.splitn(4, '/');
                let mut part = || parts.next();
                let key = BundleKey::new(part()?, part()?, part()?, "");
                let from_us: i64 = part()?.parse().ok()?;
                if let Some(promotions) = self.promotions.get_mut(&key) {
                    promotions.remove(&from_us);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn take_device(&mut self, tenant: &str, device: &str) {
        let Some(known) = self
            .by_name
            .get_mut(tenant)
            .and_then(|devices| devices.remove(device))
        else {
            return;
        };
        self.devices -= 1;
        if self
            .by_token
            .get(&known.token)
            .is_some_and(|holder| Arc::ptr_eq(holder, &known))
        {
            self.by_token.remove(&known.token);
        }
    }

    fn put_device(&mut self, record: DeviceRecord) -> Option<()> {
        let token = TokenHash::parse(&record.token_sha256)?;
        let tenant = self.shared(&record.origin.tenant);
        self.take_device(&tenant, &record.origin.device);
        if self.devices >= DEVICES_MAX {
            self.devices_over += 1;
            tracing::warn!(%tenant, device = %record.origin.device, "device left out, the registry is full");
            return Some(());
        }
        let device = Arc::new(Device {
            origin: Arc::new(self.with_shared_texts(&record.origin)),
            token,
            added_at_us: record.added_at_us,
            revoked_at_us: record.revoked_at_us,
        });
        self.by_token.insert(token, Arc::clone(&device));
        self.by_name
            .entry(tenant)
            .or_default()
            .insert(Arc::clone(&device.origin.device), device);
        self.devices += 1;
        Some(())
    }

    fn put_bundle(&mut self, record: BundleRecord) -> Option<()> {
        let key = BundleKey::of(&record);
        if !self.bundles.contains_key(&key) && self.bundles.len() >= BUNDLES_MAX {
            self.devices_over += 1;
            tracing::warn!(bundle = %key.title(), tenant = %key.tenant, "bundle left out, the registry is full");
            return Some(());
        }
        let state = State::New;
        self.bundles.insert(key, Entry { record, state });
        Some(())
    }

    fn put_reference(&mut self, record: ReferenceRecord) -> Option<()> {
        let key = BundleKey::new(&record.tenant, &record.model, &record.version, "");
        let promotions = self.promotions.entry(key).or_default();
        promotions.insert(record.from_us, record);
        while promotions.len() > PROMOTIONS_MAX {
            promotions.pop_first();
        }
        Some(())
    }

    pub(super) fn promotions(&self, key: &BundleKey) -> Vec<ReferenceRecord> {
        let of = self.promotions.get(key);
        of.into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Any registered bundle of a model version: all of them have one layout or are not judged.
    pub(super) fn any_bundle(&self, key: &BundleKey) -> Result<BundleRecord, RegistryError> {
        let same = |it: &&BundleKey| {
            (&it.tenant, &it.model, &it.version) == (&key.tenant, &key.model, &key.version)
        };
        let found = self.bundles.range(key..).next().filter(|(it, _)| same(it));
        found
            .map(|(_, entry)| entry.record.clone())
            .ok_or_else(|| key.unknown())
    }

    fn shared(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() < SHARED_TEXTS_MAX {
            self.texts.insert(Arc::clone(text));
        }
        Arc::clone(text)
    }

    fn with_shared_texts(&mut self, origin: &Origin) -> Origin {
        Origin {
            tenant: self.shared(&origin.tenant),
            device: Arc::clone(&origin.device),
            model: self.shared(&origin.model),
            version: self.shared(&origin.version),
            variant: self.shared(&origin.variant),
            hardware: self.shared(&origin.hardware),
            firmware: self.shared(&origin.firmware),
            region: self.shared(&origin.region),
            site: self.shared(&origin.site),
            ..*origin
        }
    }

    /// Bundles to be read now.
    pub(super) fn due_bundles(&mut self) -> Vec<BundleRecord> {
        let mut due = Vec::new();
        for entry in self.bundles.values_mut() {
            match &mut entry.state {
                State::Read(_) => {}
                State::Unreadable { wait, .. } if *wait > 0 => *wait -= 1,
                State::New | State::Unreadable { .. } => due.push(entry.record.clone()),
            }
        }
        due
    }

    /// What became of reading a bundle; nothing when it was removed or changed meanwhile.
    pub(super) fn loaded(&mut self, key: &BundleKey, model: Result<Model, StoreError>) {
        let Some(entry) = self.bundles.get_mut(key) else {
            return;
        };
        let wait = match entry.state {
            State::Unreadable { wait_next, .. } => wait_next,
            _ => 1,
        };
        entry.state = match model {
            Ok(model) if model.record == entry.record => State::Read(Arc::new(model)),
            Ok(_) => State::New,
            Err(error) => State::Unreadable {
                error,
                wait,
                wait_next: (wait * 2).min(BUNDLE_RETRY_MAX),
            },
        };
    }

    pub(super) fn by_token(&self, hash: &TokenHash) -> Option<Arc<Device>> {
        self.by_token.get(hash).map(Arc::clone)
    }

    pub(super) fn device(&self, tenant: &str, device: &str) -> Option<Arc<Device>> {
        self.by_name.get(tenant)?.get(device).map(Arc::clone)
    }

    pub(super) fn devices(&self, tenant: Option<&str>) -> Vec<Arc<Device>> {
        let mut devices: Vec<_> = self
            .by_name
            .iter()
            .filter(|(name, _)| tenant.is_none_or(|tenant| tenant == &***name))
            .flat_map(|(_, devices)| devices.values().map(Arc::clone))
            .collect();
        let key = |device: &Arc<Device>| {
            let origin = &device.origin;
            (Arc::clone(&origin.tenant), Arc::clone(&origin.device))
        };
        devices.sort_by_cached_key(key);
        devices
    }

    pub(super) fn bundle_record(&self, key: &BundleKey) -> Result<BundleRecord, RegistryError> {
        let entry = self.bundles.get(key).ok_or_else(|| key.unknown())?;
        Ok(entry.record.clone())
    }

    pub(super) fn model(&self, key: &BundleKey) -> Result<Arc<Model>, RegistryError> {
        let unreadable = |source: StoreError| RegistryError::Store {
            title: key.title(),
            source,
        };
        let entry = self.bundles.get(key).ok_or_else(|| key.unknown())?;
        match &entry.state {
            State::Read(model) => Ok(Arc::clone(model)),
            State::Unreadable { error, .. } => Err(unreadable(error.clone())),
            State::New => Err(unreadable(StoreError {
                path: entry.record.path.clone(),
                problem: "it is being read: try again in a moment".into(),
            })),
        }
    }

    pub(super) fn models(&self) -> Vec<Arc<Model>> {
        self.read_models().map(Arc::clone).collect()
    }

    fn read_models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.bundles
            .values()
            .filter_map(|entry| match &entry.state {
                State::Read(model) => Some(model),
                _ => None,
            })
    }

    pub(super) fn by_fingerprint(&self, tenant: &str, fingerprint: u32) -> Option<Arc<Model>> {
        self.read_models()
            .filter(|model| {
                &*model.record.tenant == tenant
                    && (model.inferences.fingerprint() == fingerprint
                        || model.outcomes.fingerprint() == fingerprint)
            })
            .max_by_key(|model| model.record.registered_at_us)
            .map(Arc::clone)
    }

    pub(super) fn stats(&self) -> RegistryStats {
        RegistryStats {
            devices: self.devices,
            bundles: self.bundles.len(),
            bundles_unreadable: self.bundles.len() - self.read_models().count(),
            devices_over: self.devices_over,
            records_unreadable: self.records_unreadable,
            next: self.next,
        }
    }
}
