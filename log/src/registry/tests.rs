use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, MANIFEST_FILE, MODEL_FILE, Manifest,
    REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::profile::reference::{Reference, Season};
use driftline_schemas::profile::{Layout, Profile, SignalLayout};
use driftline_schemas::source::Origin;
use driftline_schemas::topic::REGISTRY;

use super::references::{Built, put_reference};
use super::store::FolderStore;
use super::{PROMOTIONS_MAX, Registry, RegistryError};
use crate::api::{Appender, Cleanup, Log, Output, TopicSpec};
use crate::memory::{Fault, MemoryLog};

const NOW: i64 = 1_700_000_000_000_000;

fn bundle(version: &str, model: &[u8]) -> Bundle {
    let manifest = Manifest::parse(&format!(
        "format = 1\nname = \"boiler\"\nversion = \"{version}\"\ntask = \"regression\"\n\
         output = {{ resolution = 0.1 }}\n\
         [[features]]\nname = \"temp\"\ntype = \"numeric\"\nresolution = 0.01\n"
    ))
    .unwrap();
    let signals = manifest
        .signals()
        .into_iter()
        .map(|signal| SignalLayout {
            signal,
            edges: vec![0, 10],
        })
        .collect();
    let layout = Layout::new(signals).unwrap();
    let reference = Reference {
        made_from: "a test".into(),
        season: Season::None,
        slots: vec![Profile::empty(&layout)],
        layout,
    };
    let mut files = BTreeMap::from([
        (
            MANIFEST_FILE.to_owned(),
            manifest.to_toml().unwrap().into_bytes(),
        ),
        (MODEL_FILE.to_owned(), model.to_vec()),
        (REFERENCE_FILE.to_owned(), reference.encode()),
        (CALIBRATION_FILE.to_owned(), b"{}".to_vec()),
        (SBOM_FILE.to_owned(), b"{}".to_vec()),
    ]);
    let digest = serde_json::to_vec(&Digest::of(&files)).unwrap();
    files.insert(DIGEST_FILE.to_owned(), digest);
    Bundle::from_files(files).unwrap()
}

fn origin(tenant: &str, device: &str) -> Origin {
    Origin {
        tenant: tenant.into(),
        device: device.into(),
        role: driftline_schemas::source::Role::Device,
        model: "boiler".into(),
        version: "1".into(),
        variant: "".into(),
        hardware: "h1".into(),
        firmware: "f1".into(),
        region: "eu".into(),
        site: "s1".into(),
        link: driftline_schemas::source::Link::Lpwan,
        cadence_s: 60,
    }
}

struct Bench {
    folder: tempfile::TempDir,
    log: MemoryLog,
    registry: Registry,
    appender: Box<dyn Appender>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = MemoryLog::new();
        log.ensure_topics(&[TopicSpec::new(REGISTRY, 1).with_cleanup(Cleanup::Compact)])
            .unwrap();
        let appender = log.appender("test").unwrap();
        let registry = open(&log, &folder);
        Self {
            folder,
            log,
            registry,
            appender,
        }
    }

    fn register(&mut self, bundle: &Bundle) -> Result<(), RegistryError> {
        self.registry
            .register_bundle(&mut *self.appender, "acme", bundle, NOW)
            .map(|_| ())
    }
}

fn open(log: &MemoryLog, folder: &tempfile::TempDir) -> Registry {
    let store = Arc::new(FolderStore::new(folder.path()));
    Registry::open(Arc::new(log.clone()), store).unwrap()
}

/// A device that was added is found by its token and its name, by this registry and by one opened
/// later; its token is not in the log.
#[test]
fn an_added_device_is_found_and_its_secret_is_not() {
    let mut b = Bench::new();
    let token = b
        .registry
        .add_device(&mut *b.appender, origin("acme", "d1"), NOW)
        .unwrap();
    for registry in [&b.registry, &open(&b.log, &b.folder)] {
        let device = registry.by_token(token.expose()).unwrap();
        assert_eq!(*device.origin, origin("acme", "d1"));
        assert_eq!(device.revoked_at_us, None);
        assert_eq!(registry.device("acme", "d1"), Some(device));
        assert_eq!(registry.device("acme", "d2"), None);
        assert_eq!(registry.device("other", "d1"), None);
        assert_eq!(registry.by_token("dltk_wrong"), None);
        assert_eq!(registry.by_token(""), None);
    }
    let secret = token
        .expose()
        .trim_start_matches(super::token::TOKEN_PREFIX);
    for record in b.log.all(REGISTRY).unwrap() {
        let text = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        assert!(!text.contains(secret));
    }
}

/// Many devices are added at once, more than one append takes; when one of them is known, or named
/// twice, none is.
#[test]
fn many_devices_are_added_or_none() {
    let mut b = Bench::new();
    let origins: Vec<Origin> = (0..1_200)
        .map(|at| origin("acme", &format!("d{at}")))
        .collect();
    let mut add = |origins: Vec<Origin>| b.registry.add_devices(&mut *b.appender, origins, NOW);
    let tokens = add(origins.clone()).unwrap();
    let refused = [
        vec![origin("acme", "new"), origin("acme", "d7")],
        vec![origin("acme", "new"), origin("acme", "new")],
    ];
    for refused in refused {
        let error = add(refused).unwrap_err();
        assert!(matches!(error, RegistryError::DeviceExists { .. }));
    }
    assert_eq!(b.registry.stats().devices, origins.len());
    for (origin, token) in origins.iter().zip(&tokens) {
        let device = b.registry.by_token(token.expose()).unwrap();
        assert_eq!(device.origin.device, origin.device);
    }
}

/// A revoked device is still known, as revoked; added again it has another token, and the old one
/// is unknown.
#[test]
fn a_revoked_device_stays_listed_and_can_be_added_again() {
    let mut b = Bench::new();
    let add = |b: &mut Bench| {
        b.registry
            .add_device(&mut *b.appender, origin("acme", "d1"), NOW)
    };
    let old = add(&mut b).unwrap();
    assert!(matches!(
        add(&mut b),
        Err(RegistryError::DeviceExists { .. })
    ));
    for _ in 0..2 {
        b.registry
            .revoke_device(&mut *b.appender, "acme", "d1", NOW + 1)
            .unwrap();
    }
    let revoked = b.registry.by_token(old.expose()).unwrap();
    assert_eq!(revoked.revoked_at_us, Some(NOW + 1));
    let new = add(&mut b).unwrap();
    assert_eq!(b.registry.by_token(old.expose()), None);
    let device = b.registry.by_token(new.expose()).unwrap();
    assert_eq!(device.revoked_at_us, None);
    assert_eq!(b.registry.devices(Some("acme")), [device]);
    assert_eq!(b.registry.devices(None).len(), 1);
    let error = b
        .registry
        .revoke_device(&mut *b.appender, "acme", "d9", NOW)
        .unwrap_err();
    assert!(error.to_string().contains("device list"), "{error}");
}

/// Names that would make keys ambiguous, and texts over the limit, are refused by name.
#[test]
fn names_that_cannot_be_used_are_refused() {
    let mut b = Bench::new();
    let long = "x".repeat(257);
    let mut site = origin("acme", "d1");
    site.site = long.as_str().into();
    let cases = [
        ("tenant", origin("", "d")),
        ("tenant", origin("a/b", "d")),
        ("device", origin("a", "d/e")),
        ("device", origin("a", &long)),
        ("device", origin("a", "d\n")),
        ("site", site),
    ];
    for (field, origin) in cases {
        let error = b
            .registry
            .add_device(&mut *b.appender, origin, NOW)
            .unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
    assert!(b.log.all(REGISTRY).unwrap().is_empty());
}

/// A registry takes in what others appended, and a refresh without news reads nothing.
#[test]
fn refresh_reads_on_from_the_last_offset() {
    let mut b = Bench::new();
    let other = open(&b.log, &b.folder);
    let token = b
        .registry
        .add_device(&mut *b.appender, origin("acme", "d1"), NOW)
        .unwrap();
    b.register(&bundle("1", b"onnx")).unwrap();
    assert_eq!(other.by_token(token.expose()), None);
    let refreshed = other.refresh().unwrap();
    assert_eq!((refreshed.records, refreshed.bundles), (2, 1));
    assert!(other.by_token(token.expose()).is_some());
    let refreshed = other.refresh().unwrap();
    assert_eq!((refreshed.records, refreshed.bundles), (0, 0));
    // A deleted key is gone.
    b.appender
        .append(vec![Output {
            topic: REGISTRY.into(),
            partition: 0,
            key: b"device/acme/d1".to_vec(),
            value: None,
            timestamp_us: NOW,
        }])
        .unwrap();
    other.refresh().unwrap();
    assert_eq!(other.by_token(token.expose()), None);
    assert_eq!(other.stats().devices, 0);
    assert_eq!(other.stats().bundles, 1);
}

/// A bundle is found by name and by its columns; it is the one that was registered, and a version
/// cannot be registered with other contents.
#[test]
fn a_registered_bundle_is_found_and_stays_what_it_is() {
    let mut b = Bench::new();
    let one = bundle("1", b"onnx");
    b.register(&one).unwrap();
    b.register(&one).unwrap();
    assert_eq!(b.log.all(REGISTRY).unwrap().len(), 1);
    let model = b.registry.model("acme", "boiler", "1", "").unwrap();
    assert_eq!(model.inferences, one.inferences);
    let found = b
        .registry
        .by_fingerprint("acme", one.outcomes.fingerprint());
    assert_eq!(found, Some(model));
    assert_eq!(
        b.registry
            .by_fingerprint("other", one.outcomes.fingerprint()),
        None
    );
    let whole = b.registry.bundle("acme", "boiler", "1", "").unwrap();
    assert_eq!(whole.digest, one.digest);
    let again = b.registry.bundle("acme", "boiler", "1", "").unwrap();
    assert!(Arc::ptr_eq(&whole, &again));
    let error = b.register(&bundle("1", b"other")).unwrap_err();
    assert!(error.to_string().contains("new version"), "{error}");
    let error = b.registry.model("acme", "boiler", "2", "").unwrap_err();
    assert!(error.to_string().contains("model register"), "{error}");
}

/// What is in the bundles' folder is held against the registered digest; the registry says what is
/// wrong, and takes the bundle in once it is right.
#[test]
fn a_bundle_that_changed_in_its_place_is_refused_until_it_is_right() {
    let mut b = Bench::new();
    let one = bundle("1", b"onnx");
    b.register(&one).unwrap();
    let place = b.folder.path().join("acme/boiler/1");
    std::fs::write(place.join(MODEL_FILE), b"tampered").unwrap();
    let later = open(&b.log, &b.folder);
    let error = later.model("acme", "boiler", "1", "").unwrap_err();
    assert!(error.to_string().contains(MODEL_FILE), "{error}");
    assert!(later.bundle("acme", "boiler", "1", "").is_err());
    assert_eq!(later.stats().bundles_unreadable, 1);
    // Whole, but not the one that was registered.
    b.registry
        .store
        .put("acme/boiler/1", bundle("1", b"other").files())
        .unwrap();
    let error = open(&b.log, &b.folder)
        .model("acme", "boiler", "1", "")
        .unwrap_err();
    assert!(error.to_string().contains("was registered"), "{error}");
    std::fs::remove_dir_all(&place).unwrap();
    assert!(open(&b.log, &b.folder).models().is_empty());
    b.registry.store.put("acme/boiler/1", one.files()).unwrap();
    let tries = (0..4).find(|_| later.refresh().unwrap().bundles == 1);
    assert!(tries.is_some());
    assert_eq!(later.models().len(), 1);
}

/// A record of a later version is counted and skipped; a log that fails is told, and nothing is
/// said to be added.
#[test]
fn what_cannot_be_read_or_written_is_said() {
    let mut b = Bench::new();
    b.appender
        .append(vec![Output {
            topic: REGISTRY.into(),
            partition: 0,
            key: b"device/acme/d1".to_vec(),
            value: Some(br#"{"what":"device","format":9}"#.to_vec()),
            timestamp_us: NOW,
        }])
        .unwrap();
    b.registry.refresh().unwrap();
    assert_eq!(b.registry.stats().records_unreadable, 1);
    b.log.fail_next_append(Fault::Before);
    let failed = b
        .registry
        .add_device(&mut *b.appender, origin("acme", "d1"), NOW);
    assert!(matches!(failed, Err(RegistryError::Log(_))));
    assert_eq!(b.registry.stats().devices, 0);
    let empty = MemoryLog::new();
    let store = Arc::new(FolderStore::new(b.folder.path()));
    let error = Registry::open(Arc::new(empty), store).unwrap_err();
    assert!(error.to_string().contains("registry"), "{error}");
}

/// A reference is promoted from a time on, found by a registry that is opened later, and once only;
/// another one from a later time stands beside it; the oldest of too many gives way.
#[test]
fn promotions_are_kept_by_the_time_they_hold_from() {
    let mut b = Bench::new();
    let bundle = bundle("1.0.0", b"model");
    b.register(&bundle).unwrap();
    let mut reference = bundle.reference.clone();
    reference.made_from = "the field".into();
    let built = Built {
        reference,
        calibration: b"{}".to_vec(),
    };
    let of = ("acme", "boiler", "1.0.0");
    let store = FolderStore::new(b.folder.path());
    put_reference(&store, of, &built).unwrap();
    let id = built.reference.id();
    for (at, name) in [(5, Some(&*id)), (9, None), (5, Some(&*id))] {
        let promoted = b
            .registry
            .promote_reference(&mut *b.appender, of, name, at, NOW);
        assert_eq!(promoted.unwrap().id.as_deref(), name);
    }
    let later = open(&b.log, &b.folder);
    let known = later.promotions("acme", "boiler", "1.0.0");
    let told: Vec<_> = known.iter().map(|it| (it.from_us, it.id.clone())).collect();
    assert_eq!(told, [(5, Some(id.clone())), (9, None)]);
    assert_eq!(
        later.reference("acme", "boiler", "1.0.0", &id).unwrap(),
        built
    );
    assert_eq!(later.stats().records_unreadable, 0);

    for at in 0..PROMOTIONS_MAX as i64 {
        b.registry
            .promote_reference(&mut *b.appender, of, None, 100 + at, NOW)
            .unwrap();
    }
    let known = b.registry.promotions("acme", "boiler", "1.0.0");
    assert_eq!((known.len(), known[0].from_us), (PROMOTIONS_MAX, 100));
    assert_eq!(
        open(&b.log, &b.folder).promotions("acme", "boiler", "1.0.0"),
        known
    );
    let early = b
        .registry
        .promote_reference(&mut *b.appender, of, None, 1, NOW);
    assert!(early.unwrap_err().to_string().contains("later windows"));
}

/// Other edges, a reference that is not there or is another one, and an unknown version are refused
/// with what to do.
#[test]
fn references_that_do_not_fit_are_refused() {
    let mut b = Bench::new();
    let bundle = bundle("1.0.0", b"model");
    b.register(&bundle).unwrap();
    let of = ("acme", "boiler", "1.0.0");
    let store = FolderStore::new(b.folder.path());
    let mut signals = bundle.reference.layout.signals().to_vec();
    signals[0].edges = vec![7];
    let layout = Layout::new(signals).unwrap();
    let coarse = Built {
        reference: Reference {
            made_from: String::new(),
            season: Season::None,
            slots: vec![Profile::empty(&layout)],
            layout,
        },
        calibration: b"{}".to_vec(),
    };
    put_reference(&store, of, &coarse).unwrap();
    let mut promote = |of, id: &str| {
        let promoted = b
            .registry
            .promote_reference(&mut *b.appender, of, Some(id), 5, NOW);
        promoted.unwrap_err().to_string()
    };
    let edges = promote(of, &coarse.reference.id());
    assert!(
        edges.contains("driftline reference build --model boiler@1.0.0"),
        "{edges}"
    );
    assert!(promote(of, "0123").contains("0123"));
    assert!(promote(("acme", "boiler", "2"), "0123").contains("model register"));
    let wrong = b.folder.path().join("+references/acme/boiler/1.0.0");
    std::fs::rename(wrong.join(coarse.reference.id()), wrong.join("0456")).unwrap();
    assert!(promote(of, "0456").contains("it holds reference"));
    assert!(b.registry.promotions("acme", "boiler", "1.0.0").is_empty());
}
