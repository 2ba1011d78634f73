//! What the benchmarks count: a bundle of 16 features, and stored records of seeded rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_log::runner::StageError;
use driftline_processors::bundles::Bundles;
use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, FeatureType, MANIFEST_FILE, MODEL_FILE,
    Manifest, REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::packed::{PackedBuilder, RecordHead};
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{Layout, Profile, Reference, SignalLayout};
use driftline_schemas::rows::{Column, FieldType, Kind, Rows, Values};
use driftline_schemas::source::{FrameHead, Origin};

pub(crate) const FEATURES: usize = 16;
pub(crate) const DEVICES: u32 = 2_000;
pub(crate) const ROWS_PER_RECORD: usize = 1_000;
pub(crate) const T0: i64 = 1_767_571_200_000_000;

/// A small generator, so that the benchmark needs no crate for it (SplitMix64, Steele et al. 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Roughly normal around 2,000 with a spread of 580.
    pub(crate) fn value(&mut self) -> i32 {
        (0..4).map(|_| (self.next() % 1_000) as i32).sum()
    }
}

/// A bundle whose features have these edges.
pub(crate) fn bundle(edges: &[i32]) -> Arc<Bundle> {
    let mut text =
        String::from("format = 1\nname = \"bench\"\nversion = \"1\"\ntask = \"classification\"\n");
    for feature in 0..FEATURES {
        text.push_str(&format!(
            "[[features]]\nname = \"f{feature}\"\ntype = \"numeric\"\nresolution = 0.01\nrange = [0.0, 40.0]\n"
        ));
    }
    text.push_str("[output]\nclasses = [\"a\", \"b\", \"c\", \"d\"]\n");
    let manifest = Manifest::parse(&text).unwrap();
    let signals = manifest.signals().into_iter().map(|signal| SignalLayout {
        edges: match signal.kind {
            FeatureType::Numeric { .. } => edges.to_vec(),
            FeatureType::Categorical { .. } => Vec::new(),
        },
        signal,
    });
    let layout = Layout::new(signals.collect()).unwrap();
    let reference = Reference {
        made_from: "bench".into(),
        season: Season::None,
        slots: vec![Profile::empty(&layout)],
        layout,
    };
    let mut files = BTreeMap::from([
        (MANIFEST_FILE.to_owned(), text.into_bytes()),
        (MODEL_FILE.to_owned(), Vec::new()),
        (REFERENCE_FILE.to_owned(), reference.encode()),
        (CALIBRATION_FILE.to_owned(), b"{}".to_vec()),
        (SBOM_FILE.to_owned(), b"{}".to_vec()),
    ]);
    let digest = serde_json::to_vec(&Digest::of(&files)).unwrap();
    files.insert(DIGEST_FILE.to_owned(), digest);
    Arc::new(Bundle::from_files(files).unwrap())
}

/// The only bundle there is.
pub(crate) struct One(pub(crate) Arc<Bundle>);

impl Bundles for One {
    fn bundle(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: &str,
    ) -> Result<Option<Arc<Bundle>>, StageError> {
        Ok(Some(Arc::clone(&self.0)))
    }
}

/// 20 sites and three firmwares, which make 60 cohorts.
fn origin(device: u32) -> Arc<Origin> {
    let text = format!(
        r#"{{"tenant":"t","device":"d{device}","model":"bench","version":"1","site":"s{}","firmware":"{}"}}"#,
        device % 20,
        device % 3
    );
    Arc::new(serde_json::from_str(&text).unwrap())
}

/// Makes stored records, one after the other.
pub(crate) struct Estate<'a> {
    bundle: &'a Bundle,
    rows_per_frame: usize,
    /// Event time from record to record.
    spacing_us: i64,
    origins: Vec<Arc<Origin>>,
    sequences: Vec<u64>,
    random: Random,
    /// Of each partition, the device that comes next.
    next: Vec<usize>,
    made: usize,
}

/// One record, not yet in a log.
pub(crate) struct Made {
    pub(crate) partition: u32,
    pub(crate) received_at_us: i64,
    pub(crate) value: Vec<u8>,
}

impl<'a> Estate<'a> {
    /// `partitions` (which must divide the number of sites) are filled in turn, each with sites of its
    /// own. `rows_per_frame` must divide a record's rows, so that records are full.
    pub(crate) fn new(
        bundle: &'a Bundle,
        rows_per_frame: usize,
        spacing_us: i64,
        partitions: usize,
    ) -> Self {
        Self {
            bundle,
            rows_per_frame,
            spacing_us,
            origins: (0..DEVICES).map(origin).collect(),
            sequences: vec![0; DEVICES as usize],
            random: Random(7),
            next: (0..partitions).collect(),
            made: 0,
        }
    }

    pub(crate) fn record(&mut self) -> Made {
        let schema = &self.bundle.inferences;
        let head = RecordHead {
            tenant: "t".into(),
            model: "bench".into(),
            version: "1".into(),
            kind: Kind::Inferences,
            fingerprint: schema.fingerprint(),
        };
        let mut builder = PackedBuilder::new(head, schema);
        let received_at_us = T0 + self.made as i64 * self.spacing_us;
        let partition = self.made % self.next.len();
        for _ in 0..ROWS_PER_RECORD / self.rows_per_frame {
            let device = self.next[partition];
            self.next[partition] = (device + self.next.len()) % self.origins.len();
            let head = FrameHead {
                boot: 1,
                sequence: self.sequences[device],
                sent_at_us: None,
                received_at_us,
                clock_correction_us: 0,
            };
            self.sequences[device] += 1;
            let rows = self.rows(received_at_us);
            builder.push(&self.origins[device], head, &rows).unwrap();
        }
        self.made += 1;
        Made {
            partition: partition as u32,
            received_at_us,
            value: builder.finish().unwrap(),
        }
    }

    /// One frame's, a row a millisecond.
    fn rows(&mut self, received_at_us: i64) -> Rows {
        let columns = self.bundle.inferences.fields().iter().map(|field| {
            let rows = 0..self.rows_per_frame;
            let random = &mut self.random;
            match (field.ty, field.categories) {
                (FieldType::Time, _) => Column::Time(
                    rows.map(|row| Some(received_at_us - row as i64 * 1_000))
                        .collect(),
                ),
                (_, Some(categories)) => Column::Int32(
                    rows.map(|_| Some((random.next() % u64::from(categories)) as i32))
                        .collect::<Values<i32>>(),
                ),
                _ => Column::Int32(rows.map(|_| Some(random.value())).collect()),
            }
        });
        Rows {
            columns: columns.collect(),
        }
    }
}
