//! Estates, straight as profiles: healthy ones, one family of nulls each, until told to change.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_drift::calibrate::Learner;
use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, MANIFEST_FILE, MODEL_FILE, Manifest,
    REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::profile::binning::quantile_edges;
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{
    Binner, Cell, CellProfile, Layout, Profile, ProfileKey, Reference, SignalLayout,
};
use driftline_schemas::quantity::quantise;
use driftline_schemas::source::device_hash;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, StandardNormal, StudentT};

use super::hourly::Result;

/// 2026-01-05 00:00 UTC, a Monday.
pub(crate) const T0_US: i64 = 1_767_571_200_000_000;
const TENANT: &str = "acme";
const MODEL: &str = "m";
const VERSION: &str = "1";
const REFERENCE_HOURS: i64 = 28 * 24;
const BINS: usize = 16;
/// Longest delay of a late row, hours.
const LATE_HOURS_MAX: i64 = 6;

/// What makes a healthy estate look as if it were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Independent, alike.
    Iid,
    /// A device's neighbouring rows are correlated by 0.9.
    Ar90,
    /// By 0.99.
    Ar99,
    /// A cycle of the day and one of the week.
    Season,
    /// Every device is another by nature: a standard deviation of 0.5 between them.
    Devices,
    /// Student's t with two degrees of freedom: no variance.
    HeavyTails,
    /// Sixty categories by Zipf's law, most of them rare.
    SparseCategories,
    /// Of the rows above the mean, three in ten come up to six hours late.
    LateByValue,
    /// Devices differ, and how much each of them sends wanders.
    Mix,
}

impl Family {
    pub(crate) const ALL: [Self; 9] = [
        Self::Iid,
        Self::Ar90,
        Self::Ar99,
        Self::Season,
        Self::Devices,
        Self::HeavyTails,
        Self::SparseCategories,
        Self::LateByValue,
        Self::Mix,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Iid => "independent rows",
            Self::Ar90 => "AR(1), 0.9",
            Self::Ar99 => "AR(1), 0.99",
            Self::Season => "season of day and week",
            Self::Devices => "devices differ",
            Self::HeavyTails => "heavy tails (t, 2 degrees)",
            Self::SparseCategories => "60 categories (Zipf)",
            Self::LateByValue => "lateness goes with the value",
            Self::Mix => "mix of devices wanders",
        }
    }

    fn correlation(self) -> f64 {
        match self {
            Self::Ar90 => 0.9,
            Self::Ar99 => 0.99,
            _ => 0.0,
        }
    }

    fn device_sd(self) -> f64 {
        match self {
            Self::Devices | Self::Mix => 0.5,
            _ => 0.0,
        }
    }

    fn categories(self) -> usize {
        match self {
            Self::SparseCategories => 60,
            _ => 4,
        }
    }
}

/// What goes wrong with the first number, the category or the classes, for a number of mean 0 and
/// standard deviation 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// The number's mean moves by so many standard deviations.
    Shift(f64),
    /// Its spread is so many times what it was.
    Scale(f64),
    /// It reads in °F what was in °C, of mean 20 °C and standard deviation 5.
    Unit,
    /// The commonest category's share is so much larger.
    Share(f64),
    /// Of the rows of the first class so many are not there: the classes' shares move, what rows of a
    /// class look like does not.
    Labels(f64),
}

impl Change {
    fn number(self, value: f64) -> f64 {
        match self {
            Self::Shift(sd) => value + sd,
            Self::Scale(factor) => value * factor,
            Self::Unit => value * 1.8 + (1.8 * 20.0 + 32.0 - 20.0) / 5.0,
            Self::Share(_) | Self::Labels(_) => value,
        }
    }
}

/// How large an estate is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) numbers: usize,
    pub(crate) sites: usize,
    pub(crate) devices_per_site: usize,
    pub(crate) rows_per_hour: usize,
}

struct Device {
    hash: u64,
    site: usize,
    nature: Vec<f64>,
    noise: Vec<f64>,
    /// Logarithm of how much it sends, of the usual.
    rate: f64,
}

struct LateRow {
    due: i64,
    hour: i64,
    device: usize,
    values: Vec<i32>,
}

/// The estate, hour by hour.
pub(crate) struct Estate {
    family: Family,
    size: Size,
    random: SmallRng,
    devices: Vec<Device>,
    late: Vec<LateRow>,
    manifest: String,
    layout: Layout,
    binners: Vec<Binner>,
    /// Upper ends of the categories' shares.
    shares: Vec<f64>,
    /// What has changed, and at how many sites, from the first on.
    change: Option<(Change, usize)>,
}

impl Estate {
    pub(crate) fn new(family: Family, size: Size, seed: u64) -> Result<Self> {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut normals = |sd: f64| -> Vec<f64> {
            (0..size.numbers)
                .map(|_| sd * random.sample::<f64, _>(StandardNormal))
                .collect()
        };
        let devices = (0..size.sites * size.devices_per_site)
            .map(|index| Device {
                hash: device_hash(TENANT, &format!("d{index}")),
                site: index / size.devices_per_site,
                nature: normals(family.device_sd()),
                noise: normals(1.0),
                rate: 0.0,
            })
            .collect();
        let manifest = manifest(size.numbers, family.categories());
        let layout = layout(&manifest, |_| Vec::new())?;
        let weights: Vec<f64> = (1..=family.categories())
            .map(|rank| 1.0 / rank as f64)
            .collect();
        let all: f64 = weights.iter().sum();
        let mut upto = 0.0;
        let shares = weights
            .iter()
            .map(|weight| {
                upto += weight / all;
                upto
            })
            .collect();
        let mut estate = Self {
            family,
            size,
            random,
            devices,
            late: Vec::new(),
            manifest,
            layout,
            binners: Vec::new(),
            shares,
            change: None,
        };
        estate.fix_edges()?;
        Ok(estate)
    }

    /// From now on something is not as it was, at so many sites.
    pub(crate) fn change(&mut self, change: Change, sites: usize) {
        self.change = Some((change, sites));
    }

    /// A pilot week of few rows fixes the edges.
    fn fix_edges(&mut self) -> Result<()> {
        let mut values: Vec<Vec<i32>> = vec![Vec::new(); self.layout.signals().len()];
        let rows = std::mem::replace(&mut self.size.rows_per_hour, 3);
        for hour in 0..7 * 24 {
            self.rows(hour, |_, row| {
                for (all, value) in values.iter_mut().zip(row) {
                    all.push(*value);
                }
            });
        }
        self.size.rows_per_hour = rows;
        let numeric: Vec<bool> = self
            .layout
            .signals()
            .iter()
            .map(SignalLayout::is_numeric)
            .collect();
        self.layout = layout(&self.manifest, |signal| match numeric[signal] {
            true => quantile_edges(&mut values[signal], BINS),
            false => Vec::new(),
        })?;
        let signals = self.layout.signals().iter();
        self.binners = signals.map(|signal| Binner::new(&signal.edges)).collect();
        Ok(())
    }

    /// Makes the rows of an hour: calls `each(device, values of the signals)`.
    fn rows(&mut self, hour: i64, mut each: impl FnMut(usize, &[i32])) {
        let heavy = StudentT::new(2.0).ok();
        let correlation = self.family.correlation();
        let kept = (1.0 - correlation * correlation).sqrt();
        let cycle = match self.family {
            Family::Season => {
                let turn = |period: i64| {
                    (std::f64::consts::TAU * hour.rem_euclid(period) as f64 / period as f64).sin()
                };
                0.8 * turn(24) + 0.4 * turn(168)
            }
            _ => 0.0,
        };
        let mut row = Vec::new();
        for index in 0..self.devices.len() {
            let random = &mut self.random;
            let device = &mut self.devices[index];
            if self.family == Family::Mix {
                // Within a week it wanders by a factor of about two up and down.
                device.rate = 0.99 * device.rate + 0.1 * random.sample::<f64, _>(StandardNormal);
            }
            let rows = (self.size.rows_per_hour as f64 * device.rate.exp()).round() as usize;
            let change = self.change.filter(|(_, sites)| device.site < *sites);
            let change = change.map(|(change, _)| change);
            let mut made = 0;
            while made < rows {
                row.clear();
                for (noise, nature) in device.noise.iter_mut().zip(&device.nature) {
                    let drawn: f64 = match (self.family, &heavy) {
                        (Family::HeavyTails, Some(heavy)) => heavy.sample(random),
                        _ => random.sample(StandardNormal),
                    };
                    *noise = correlation * *noise + kept * drawn;
                    let number = cycle + nature + *noise;
                    let number = match (row.is_empty(), change) {
                        (true, Some(change)) => change.number(number),
                        _ => number,
                    };
                    row.push(quantise(number, 0.001));
                }
                let place = random.random::<f64>();
                let mut category = self.shares.partition_point(|&upto| upto < place) as i32;
                if let Some(Change::Share(more)) = change {
                    // What the first gains the others lose in proportion.
                    let moves = more / (1.0 - self.shares[0]);
                    if category > 0 && random.random::<f64>() < moves {
                        category = 0;
                    }
                }
                row.push(category);
                let margin =
                    f64::from(row[0]) * 0.001 - 0.5 + 0.5 * random.sample::<f64, _>(StandardNormal);
                if let Some(Change::Labels(gone)) = change
                    && margin <= 0.0
                    && random.random::<f64>() < gone
                {
                    continue;
                }
                made += 1;
                row.push(i32::from(margin > 0.0));
                row.push(quantise(1.0 / (1.0 + (-margin.abs()).exp()), 1e-4));
                row.push(i32::from(random.random::<f64>() < 0.1));
                each(index, &row);
            }
        }
    }

    /// Partial profiles per hour and device of what comes in within an hour.
    fn arrive(&mut self, hour: i64) -> BTreeMap<(i64, usize), Profile> {
        let layout = self.layout.clone();
        let binners = std::mem::take(&mut self.binners);
        let mut profiles: BTreeMap<(i64, usize), Profile> = BTreeMap::new();
        let mut count = |hour: i64, device: usize, values: &[i32]| {
            let profile = profiles
                .entry((hour, device))
                .or_insert_with(|| Profile::empty(&layout));
            profile.rows += 1;
            let signals = layout.signals().iter().zip(&binners).zip(values);
            for (found, ((signal, binner), value)) in profile.signals.iter_mut().zip(signals) {
                found.count(signal, binner, Some(*value));
            }
        };
        let mut late = std::mem::take(&mut self.late);
        late.retain(|row| {
            let due = row.due <= hour;
            if due {
                count(row.hour, row.device, &row.values);
            }
            !due
        });
        let by_value = self.family == Family::LateByValue;
        let mut delays = SmallRng::seed_from_u64(self.random.random());
        self.rows(hour, |device, values| {
            if by_value && values[0] > 0 && delays.random::<f64>() < 0.3 {
                late.push(LateRow {
                    due: hour + delays.random_range(1..=LATE_HOURS_MAX),
                    hour,
                    device,
                    values: values.to_vec(),
                });
            } else {
                count(hour, device, values);
            }
        });
        self.late = late;
        self.binners = binners;
        for ((_, device), profile) in &mut profiles {
            profile
                .devices
                .add(self.devices[*device].hash, profile.rows);
        }
        profiles
    }

    /// Runs the reference's four weeks and packs the bundle.
    pub(crate) fn bundle(&mut self) -> Result<Arc<Bundle>> {
        let season = Season::HourOfWeek;
        let mut reference = Reference {
            made_from: "four weeks of a healthy estate".into(),
            season,
            slots: vec![Profile::empty(&self.layout); season.slots()],
            layout: self.layout.clone(),
        };
        let mut all: BTreeMap<(i64, usize), Profile> = BTreeMap::new();
        for hour in -REFERENCE_HOURS..0 {
            for (key, profile) in self.arrive(hour) {
                match all.get_mut(&key) {
                    Some(there) => there.merge(&profile)?,
                    None => {
                        all.insert(key, profile);
                    }
                }
            }
        }
        for ((hour, _), profile) in &all {
            reference.slots[season.slot(T0_US + hour * HOUR_US)].merge(profile)?;
        }
        let mut learner = Learner::new(&reference)?;
        for ((hour, device), profile) in &all {
            learner.add(T0_US + hour * HOUR_US, self.devices[*device].hash, profile)?;
        }
        let mut files = BTreeMap::from([
            (MANIFEST_FILE.to_owned(), self.manifest.as_bytes().to_vec()),
            (MODEL_FILE.to_owned(), b"not run here".to_vec()),
            (REFERENCE_FILE.to_owned(), reference.encode()),
            (
                CALIBRATION_FILE.to_owned(),
                learner.finish().to_json().into_bytes(),
            ),
            (SBOM_FILE.to_owned(), b"{}".to_vec()),
        ]);
        let digest = serde_json::to_vec(&Digest::of(&files))?;
        files.insert(DIGEST_FILE.to_owned(), digest);
        Ok(Arc::new(Bundle::from_files(files)?))
    }

    /// The partial profiles of what comes in within an hour, as the profile stage would append them.
    pub(crate) fn cells(&mut self, hour: i64) -> Result<Vec<CellProfile>> {
        let mut cells: BTreeMap<(i64, usize), Profile> = BTreeMap::new();
        for ((hour, device), profile) in self.arrive(hour) {
            let key = (hour, self.devices[device].site);
            match cells.get_mut(&key) {
                Some(there) => there.merge(&profile)?,
                None => {
                    cells.insert(key, profile);
                }
            }
        }
        let cells = cells
            .into_iter()
            .map(|((hour, site), profile)| CellProfile {
                key: ProfileKey {
                    tenant: TENANT.into(),
                    model: MODEL.into(),
                    version: VERSION.into(),
                    pane_start_us: T0_US + hour * HOUR_US,
                    pane_length_us: HOUR_US,
                    cell: cell(site),
                },
                profile,
            });
        Ok(cells.collect())
    }
}

fn cell(site: usize) -> Cell {
    let site = format!("s{site}");
    Cell {
        values: ["", &site, "", "", "", "", ""].map(Arc::from),
        cadence_s: 60,
    }
}

fn manifest(numbers: usize, categories: usize) -> String {
    let mut text =
        "format = 1\nname = \"m\"\nversion = \"1\"\ntask = \"classification\"\n".to_owned();
    for number in 0..numbers {
        text += &format!(
            "\n[[features]]\nname = \"x{number}\"\ntype = \"numeric\"\nresolution = 0.001\n"
        );
    }
    let names: Vec<String> = (0..categories).map(|c| format!("\"c{c}\"")).collect();
    text += &format!(
        "\n[[features]]\nname = \"mode\"\ntype = \"categorical\"\ncategories = [{}]\n\n[output]\nclasses = [\"no\", \"yes\"]\n",
        names.join(", ")
    );
    text
}

fn layout(manifest: &str, mut edges: impl FnMut(usize) -> Vec<i32>) -> Result<Layout> {
    let signals = Manifest::parse(manifest)?.signals().into_iter().enumerate();
    let signals = signals.map(|(index, signal)| SignalLayout {
        signal,
        edges: edges(index),
    });
    Ok(Layout::new(signals.collect())?)
}
