//! What the tests of stages share: a model, frames of a small estate, and records of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_log::runner::{Runner, StageError};
use driftline_log::{Log, Output, TopicSpec, memory::MemoryLog};
use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, MANIFEST_FILE, MODEL_FILE, Manifest,
    REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::clock::{Clock, ManualClock};
use driftline_schemas::joint::{JOINT_FILE, Joint};
use driftline_schemas::packed::{PackedBuilder, RecordHead};
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{Layout, Profile, Reference, SignalLayout};
use driftline_schemas::rows::{Column, Kind, Rows};
use driftline_schemas::source::{FrameHead, Origin};
use driftline_schemas::topic;

use crate::bundles::Bundles;

pub(crate) const TENANT: &str = "acme";
pub(crate) const MODEL: &str = "boiler";
pub(crate) const VERSION: &str = "1.0.0";
/// 2026-01-05 00:00 UTC, a Monday.
pub(crate) const T0: i64 = 1_767_571_200_000_000;

const MANIFEST: &str = r#"
format = 1
name = "boiler"
version = "1.0.0"
task = "classification"

[[features]]
name = "temp"
type = "numeric"
resolution = 0.01
unit = "°C"
range = [-40.0, 120.0]

[[features]]
name = "mode"
type = "categorical"
categories = ["heat", "idle", "off"]

[output]
classes = ["ok", "fail"]
"#;

/// A model with a numeric feature, a categorical one, a class and a confidence.
pub(crate) fn bundle() -> Arc<Bundle> {
    bundle_of(MANIFEST, &[])
}

/// A bundle of a manifest; numeric signals have these edges, or some that suit the test model.
pub(crate) fn bundle_of(manifest: &str, edges: &[i32]) -> Arc<Bundle> {
    bundle_with(manifest, edges, None)
}

/// The test model, its mode taken for a number, with the signal that looks at both features together.
pub(crate) fn bundle_with_joint(joint: &Joint) -> Arc<Bundle> {
    let categories = "type = \"categorical\"\ncategories = [\"heat\", \"idle\", \"off\"]";
    let manifest = MANIFEST.replace(categories, "type = \"numeric\"\nresolution = 1.0")
        + "\n[joint]\nfeatures = [\"temp\", \"mode\"]\n";
    bundle_with(&manifest, &[], Some(joint))
}

fn bundle_with(manifest: &str, edges: &[i32], joint: Option<&Joint>) -> Arc<Bundle> {
    let parsed = Manifest::parse(manifest).unwrap();
    let signals = parsed.signals().into_iter().map(|signal| {
        let numeric = matches!(
            signal.kind,
            driftline_schemas::bundle::FeatureType::Numeric { .. }
        );
        let edges = match (numeric, edges) {
            (false, _) => vec![],
            (true, []) => vec![-1_000, 0, 1_000, 2_000],
            (true, edges) => edges.to_vec(),
        };
        SignalLayout { signal, edges }
    });
    let layout = Layout::new(signals.collect()).unwrap();
    let reference = Reference {
        made_from: "test".into(),
        season: Season::None,
        slots: vec![Profile::empty(&layout)],
        layout,
    };
    let mut files = BTreeMap::from([
        (MANIFEST_FILE.to_owned(), manifest.as_bytes().to_vec()),
        (MODEL_FILE.to_owned(), b"not run here".to_vec()),
        (REFERENCE_FILE.to_owned(), reference.encode()),
        (CALIBRATION_FILE.to_owned(), b"{}".to_vec()),
        (SBOM_FILE.to_owned(), b"{}".to_vec()),
    ]);
    files.extend(joint.map(|joint| (JOINT_FILE.to_owned(), joint.to_json().into_bytes())));
    let digest = serde_json::to_vec(&Digest::of(&files)).unwrap();
    files.insert(DIGEST_FILE.to_owned(), digest);
    Arc::new(Bundle::from_files(files).unwrap())
}

/// Bundles by version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shelf(pub(crate) BTreeMap<String, Arc<Bundle>>);

impl Shelf {
    pub(crate) fn with(bundle: Arc<Bundle>) -> Self {
        Self(BTreeMap::from([(bundle.manifest.version.clone(), bundle)]))
    }
}

impl Bundles for Shelf {
    fn bundle(
        &self,
        _: &str,
        _: &str,
        version: &str,
        _: &str,
    ) -> Result<Option<Arc<Bundle>>, StageError> {
        Ok(self.0.get(version).cloned())
    }
}

/// A device of the estate; its site and firmware follow from its number.
pub(crate) fn origin(device: u32) -> Arc<Origin> {
    let text = format!(
        r#"{{"tenant":"acme","device":"d{device}","model":"boiler","version":"1.0.0",
            "site":"s{}","firmware":"{}","cadence_s":60}}"#,
        device % 3,
        device % 2,
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}

/// Event time, temperature in hundredths, mode, class.
pub(crate) type Row = (i64, Option<i32>, Option<i32>, i32);

/// One frame of a device.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) device: u32,
    pub(crate) sequence: u64,
    pub(crate) received_at_us: i64,
    pub(crate) rows: Vec<Row>,
}

impl Frame {
    pub(crate) fn head(&self) -> FrameHead {
        FrameHead {
            boot: 1,
            sequence: self.sequence,
            sent_at_us: Some(self.received_at_us),
            received_at_us: self.received_at_us,
            clock_correction_us: 0,
        }
    }

    pub(crate) fn columns(&self) -> Rows {
        let time = self.rows.iter().map(|row| Some(row.0)).collect();
        let numbers =
            |of: fn(&Row) -> Option<i32>| Column::Int32(self.rows.iter().map(of).collect());
        Rows {
            columns: vec![
                Column::Time(time),
                numbers(|row| row.1),
                numbers(|row| row.2),
                numbers(|row| Some(row.3)),
                numbers(|row| Some(9_000 + row.3)),
                numbers(|_| Some(1_500)),
                numbers(|_| None),
                numbers(|_| Some(0)),
            ],
        }
    }
}

/// A record of inferences, as the gateway would pack it.
pub(crate) fn packed(bundle: &Bundle, frames: &[Frame]) -> Vec<u8> {
    let head = RecordHead {
        tenant: TENANT.into(),
        model: MODEL.into(),
        version: bundle.manifest.version.as_str().into(),
        kind: Kind::Inferences,
        fingerprint: bundle.inferences.fingerprint(),
    };
    let mut builder = PackedBuilder::new(head, &bundle.inferences);
    for frame in frames {
        builder
            .push(&origin(frame.device), frame.head(), &frame.columns())
            .unwrap();
    }
    builder.finish().unwrap()
}

/// All topics, with as many partitions each.
pub(crate) fn log(partitions: u32) -> MemoryLog {
    let log = MemoryLog::new();
    let mut specs: Vec<TopicSpec> = topic::TELEMETRY
        .into_iter()
        .chain(topic::DERIVED)
        .chain([topic::DEADLETTERS])
        .map(|name| TopicSpec::new(name, partitions))
        .collect();
    specs.push(TopicSpec::new(topic::REGISTRY, 1));
    log.ensure_topics(&specs).unwrap();
    log
}

pub(crate) fn output(topic: &str, partition: u32, value: Vec<u8>, timestamp_us: i64) -> Output {
    Output {
        topic: topic.into(),
        partition,
        key: Vec::new(),
        value: Some(value),
        timestamp_us,
    }
}

pub(crate) fn append(log: &MemoryLog, outputs: Vec<Output>) {
    log.appender("test").unwrap().append(outputs).unwrap();
}

/// A runner that neither waits nor pauses.
pub(crate) fn runner(log: &MemoryLog, clock: &Arc<ManualClock>) -> Runner {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    let mut runner = Runner::new(Arc::new(log.clone()), clock);
    runner.options.linger = std::time::Duration::ZERO;
    runner.options.idle_tick = std::time::Duration::ZERO;
    runner.options.pause_min = std::time::Duration::ZERO;
    runner.options.pause_max = std::time::Duration::ZERO;
    runner
}
