//! A synthetic estate, straight as profiles: what detection is measured on.
//!
//! Devices differ (random effects), their rows are autocorrelated, the day has a cycle, and all
//! share some weather; two probes a site bring labels. The seed makes everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use driftline_drift::calibrate::{ErrorsByConfidence, Learner};
use driftline_drift::joint::{JointColumn, learn};
use driftline_schemas::bundle::{
    Bundle, CALIBRATION_FILE, DIGEST_FILE, Digest, FeatureType, MANIFEST_FILE, MODEL_FILE,
    Manifest, REFERENCE_FILE, SBOM_FILE,
};
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::joint::{JOINT_FILE, Joint};
use driftline_schemas::profile::binning::quantile_edges;
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{
    Binner, Cell, CellProfile, Layout, Profile, ProfileKey, Reference, SignalLayout,
};
use driftline_schemas::quantity::quantise;
use driftline_schemas::source::device_hash;

/// 2026-01-05 00:00 UTC, a Monday.
pub const T0_US: i64 = 1_767_571_200_000_000;
pub const TENANT: &str = "acme";
pub const MODEL: &str = "boiler";
pub const VERSION: &str = "1.0.0";
const BINS: usize = 16;

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

[[features]]
name = "humidity"
type = "numeric"
resolution = 0.1
unit = "%"

[[features]]
name = "vibration"
type = "numeric"
resolution = 0.001
unit = "g"

[[features]]
name = "mode"
type = "categorical"
categories = ["heat", "idle", "off"]

[output]
classes = ["ok", "fail"]
"#;
/// What a row has: the features, prediction, confidence and error.
const VALUES: usize = 7;
/// Numbers that are looked at together, by their place and unit of last place.
const NUMBERS: [(&str, f64); 3] = [("temp", 0.01), ("humidity", 0.1), ("vibration", 0.001)];

/// How the estate is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub sites: usize,
    pub devices_per_site: usize,
    pub probes_per_site: usize,
    pub rows_per_hour: usize,
    pub reference_days: i64,
    /// Standard deviation of what a device is by nature, in units of the noise's.
    pub device_sd: f64,
    /// Correlation of neighbouring rows.
    pub correlation: f64,
    /// Amplitude of the day's cycle.
    pub cycle: f64,
    /// Standard deviation of what all devices share from hour to hour.
    pub weather_sd: f64,
    /// Correlation of temperature and humidity but for what devices are by nature. Where there is one the model
    /// takes no notice of humidity, so that its answers do not tell when it turns round.
    pub together: f64,
    /// Whether the bundle looks at the features together.
    pub joint: bool,
    /// Whether the model is wrong as often as its confidence says; else its errors have nothing to do with it, and the
    /// bundle foresees none.
    pub honest: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            sites: 8,
            devices_per_site: 6,
            probes_per_site: 2,
            rows_per_hour: 30,
            reference_days: 28,
            device_sd: 0.3,
            correlation: 0.8,
            cycle: 0.8,
            weather_sd: 0.1,
            together: 0.0,
            joint: false,
            honest: false,
        }
    }
}

/// What goes wrong at a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The temperature reads so many reference standard deviations higher.
    Shift { site: usize, sd: f64 },
    /// The truth turns round.
    Flip { site: usize },
    /// The truth turns round in a share of the rows, whatever the inputs.
    Doubt { site: usize, share: f64 },
    /// Where an attribute ([`Cell::values`]' index) has a value, one of the three numbers reads so many
    /// standard deviations of its noise higher.
    Moved {
        attribute: usize,
        value: &'static str,
        number: usize,
        sd: f64,
    },
    /// Temperature and humidity get another correlation; each by itself stays as it was.
    Together { site: usize, correlation: f64 },
}

/// SplitMix64 and the polar method: small, seeded, the same everywhere.
struct Random {
    state: u64,
    spare: Option<f64>,
}

impl Random {
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        loop {
            let (u, v) = (2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0);
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                let scale = (-2.0 * s.ln() / s).sqrt();
                self.spare = Some(v * scale);
                return u * scale;
            }
        }
    }
}

struct Device {
    hash: u64,
    cell: Cell,
    site: usize,
    probe: bool,
    /// By nature, per feature and for errors.
    nature: [f64; 4],
    /// Autocorrelated noise, per feature.
    noise: [f64; 3],
}

/// The estate, hour by hour.
pub struct Estate {
    shape: Shape,
    random: Random,
    devices: Vec<Device>,
    weather: f64,
    layout: Layout,
    binners: Vec<Binner>,
    manifest: String,
    joint: Option<Joint>,
    /// Errors of the reference, while it is made.
    errors: Option<ErrorsByConfidence>,
    /// Standard deviation of the temperature over everything.
    temp_sd: f64,
    /// Faults that stay, beside the one of the hour.
    standing: Vec<Fault>,
}

pub fn site_name(site: usize) -> String {
    format!(
        "{}-{}",
        if site.is_multiple_of(2) {
            "north"
        } else {
            "south"
        },
        site / 2 + 1
    )
}

/// What rows' numbers are looked at together with; `values` by signal.
fn joint_of(values: &[Vec<i32>], times_us: &[i64]) -> Joint {
    let codes: Vec<_> = values[..NUMBERS.len()]
        .iter()
        .map(|values| values.iter().map(|value| Some(*value)).collect())
        .collect();
    let columns = NUMBERS.iter().zip(&codes).enumerate();
    let columns = columns.map(|(at, ((name, resolution), codes))| JointColumn {
        name,
        at,
        resolution: *resolution,
        codes,
    });
    learn(&columns.collect::<Vec<_>>(), Some(times_us))
        .unwrap()
        .joint
}

fn cell_of(site: usize, index: usize, probe: bool) -> Cell {
    let text = |value: &str| Arc::from(value);
    Cell {
        values: [
            text(if site.is_multiple_of(2) {
                "north"
            } else {
                "south"
            }),
            text(&site_name(site)),
            text(["g1", "g2"][index % 2]),
            text(["2.0", "2.1", "2.1"][(index + site) % 3]),
            text(["wifi", "cellular"][(site / 2) % 2]),
            text("fp32"),
            text(if probe { "probe" } else { "device" }),
        ],
        cadence_s: 60,
    }
}

impl Estate {
    pub fn new(seed: u64, shape: Shape) -> Self {
        let mut random = Random {
            state: seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d,
            spare: None,
        };
        let mut devices = Vec::new();
        for site in 0..shape.sites {
            for index in 0..shape.devices_per_site {
                let probe = index < shape.probes_per_site;
                let nature = [(); 4].map(|()| random.normal() * shape.device_sd);
                devices.push(Device {
                    hash: device_hash(TENANT, &format!("d{site}-{index}")),
                    cell: cell_of(site, index, probe),
                    site,
                    probe,
                    nature,
                    noise: [(); 3].map(|()| random.normal()),
                });
            }
        }
        let text = match shape.joint {
            true => {
                let names = NUMBERS.map(|(name, _)| format!("{name:?}"));
                format!("{MANIFEST}[joint]\nfeatures = [{}]\n", names.join(", "))
            }
            false => MANIFEST.to_owned(),
        };
        let manifest = Manifest::parse(&text).unwrap();
        let blank = |edges: Vec<Vec<i32>>| {
            let signals = manifest.signals().into_iter().zip(edges);
            Layout::new(
                signals
                    .map(|(signal, edges)| SignalLayout { signal, edges })
                    .collect(),
            )
            .unwrap()
        };
        let layout = blank(vec![Vec::new(); manifest.signals().len()]);
        let mut estate = Self {
            shape,
            random,
            devices,
            weather: 0.0,
            layout,
            binners: Vec::new(),
            manifest: text,
            joint: None,
            errors: None,
            temp_sd: 1.0,
            standing: Vec::new(),
        };
        // A pilot week of few rows fixes the edges; a day more tells the hours of the day apart.
        let pilot_hours = 7 * 24 + 24 * i64::from(shape.joint);
        let mut values: Vec<Vec<i32>> = vec![Vec::new(); VALUES];
        let rows = std::mem::replace(&mut estate.shape.rows_per_hour, 2);
        let mut times = Vec::new();
        for hour in 0..pilot_hours {
            estate.rows(hour, None, |_, signals| {
                times.push(T0_US + hour * HOUR_US);
                for (values, value) in values.iter_mut().zip(signals) {
                    values.extend(value);
                }
            });
        }
        estate.shape.rows_per_hour = rows;
        let temps: Vec<f64> = values[0].iter().map(|&v| f64::from(v) * 0.01).collect();
        let mean = temps.iter().sum::<f64>() / temps.len() as f64;
        let squares: f64 = temps.iter().map(|t| (t - mean).powi(2)).sum();
        estate.temp_sd = (squares / temps.len() as f64).sqrt();
        if shape.joint {
            let joint = joint_of(&values, &times);
            let of_row = |row: usize| joint.value(times[row], |it| Some(values[it.at][row]));
            let distances = (0..values[0].len()).filter_map(of_row).collect();
            values.insert(VALUES - 1, distances);
            estate.joint = Some(joint);
        }
        let signals = manifest.signals();
        let edges = values.iter_mut().zip(&signals).map(|(values, signal)| {
            match matches!(signal.kind, FeatureType::Numeric { .. }) {
                true => quantile_edges(values, BINS),
                false => Vec::new(),
            }
        });
        estate.layout = blank(edges.collect());
        estate.binners = estate
            .layout
            .signals()
            .iter()
            .map(|s| Binner::new(&s.edges))
            .collect();
        estate
    }

    /// From now on this is wrong as well.
    pub fn stand(&mut self, fault: Fault) {
        self.standing.push(fault);
    }

    /// From now on the devices of a site have this value of an attribute ([`Cell::values`]' index).
    pub fn update(&mut self, site: usize, attribute: usize, value: &str) {
        let there = self.devices.iter_mut().filter(|it| it.site == site);
        there.for_each(|device| device.cell.values[attribute] = Arc::from(value));
    }

    /// Makes the rows of an hour: calls `each(device, values of the signals)`.
    fn rows(
        &mut self,
        hour: i64,
        fault: Option<Fault>,
        mut each: impl FnMut(usize, [Option<i32>; VALUES]),
    ) {
        let shape = self.shape;
        let kept = (1.0 - shape.correlation * shape.correlation).sqrt();
        self.weather = 0.9 * self.weather + 0.436 * shape.weather_sd * self.random.normal();
        let cycle = (std::f64::consts::TAU * (hour.rem_euclid(24) as f64 - 8.0) / 24.0).sin();
        for index in 0..self.devices.len() {
            for _ in 0..shape.rows_per_hour {
                let device = &mut self.devices[index];
                for noise in &mut device.noise {
                    *noise = shape.correlation * *noise + kept * self.random.normal();
                }
                let [mut a, own, mut c] = device.noise;
                let together = match fault {
                    Some(Fault::Together { site, correlation }) if site == device.site => {
                        correlation
                    }
                    _ => shape.together,
                };
                let mut b = together * a + (1.0 - together * together).sqrt() * own;
                for fault in &self.standing {
                    if let Fault::Moved {
                        attribute,
                        value,
                        number,
                        sd,
                    } = *fault
                        && &*device.cell.values[attribute] == value
                    {
                        *[&mut a, &mut b, &mut c][number] += sd;
                    }
                }
                let [na, nb, nc, ne] = device.nature;
                let mut temp = 20.0 + 4.0 * (shape.cycle * cycle + na + a + self.weather);
                if let Some(Fault::Shift { site, sd }) = fault
                    && site == device.site
                {
                    temp += sd * self.temp_sd;
                }
                let humidity = 50.0 + 10.0 * (nb + b - 0.5 * shape.cycle * cycle);
                let vibration = (0.4 * (nc + c)).exp();
                let u = self.random.uniform();
                let heat = 0.5 + 0.25 * cycle;
                let mode = if u < heat {
                    0
                } else {
                    1 + i32::from(u > heat + 0.6 * (1.0 - heat))
                };
                let of_humidity = match shape.together == 0.0 {
                    true => 0.05 * (humidity - 50.0),
                    false => 0.0,
                };
                let score = 0.15 * (temp - 20.0) + of_humidity + 0.4 * (vibration - 1.0);
                // One whose confidence is to say something is mostly sure.
                let middle = if shape.honest { 1.6 } else { 0.6 };
                let margin = score - middle + 0.3 * self.random.normal();
                let prediction = i32::from(margin > 0.0);
                let confidence = 1.0 / (1.0 + (-2.0 * margin.abs()).exp());
                let sure = match shape.honest {
                    true => 2.0 * margin.abs(),
                    false => 2.4,
                };
                let wrong = 1.0 / (1.0 + (sure - ne).exp());
                let turned = match fault {
                    Some(Fault::Flip { site }) if site == device.site => 1.0,
                    Some(Fault::Doubt { site, share }) if site == device.site => share,
                    _ => 0.0,
                };
                let wrong = wrong + turned * (1.0 - 2.0 * wrong);
                let error = device
                    .probe
                    .then(|| i32::from(self.random.uniform() < wrong));
                each(
                    index,
                    [
                        Some(quantise(temp, 0.01)),
                        Some(quantise(humidity, 0.1)),
                        Some(quantise(vibration, 0.001)),
                        Some(mode),
                        Some(prediction),
                        Some(quantise(confidence, 1e-4)),
                        error,
                    ],
                );
            }
        }
    }

    /// One profile per device for an hour (counted from [`T0_US`], may be negative).
    pub fn hour(&mut self, hour: i64, fault: Option<Fault>) -> Vec<Profile> {
        let layout = self.layout.clone();
        let binners = std::mem::take(&mut self.binners);
        let joint = self.joint.take();
        let mut errors = self.errors.take();
        let mut profiles = vec![Profile::empty(&layout); self.devices.len()];
        self.rows(hour, fault, |device, values| {
            let profile = &mut profiles[device];
            profile.rows += 1;
            let time_us = T0_US + hour * HOUR_US;
            let together = joint.as_ref();
            let together = together.map(|it| it.value(time_us, |of| values[of.at]));
            let [.., error] = values;
            let before = values.into_iter().take(VALUES - 1);
            let all: Vec<_> = before.chain(together).chain([error]).collect();
            if let Some(errors) = &mut errors {
                errors.add(|signal| all[signal]);
            }
            for (signal, value) in all.into_iter().enumerate() {
                // No truth is no null: labels come by themselves.
                if value.is_some() {
                    let layout = &layout.signals()[signal];
                    profile.signals[signal].count(layout, &binners[signal], value);
                }
            }
        });
        self.binners = binners;
        self.joint = joint;
        self.errors = errors;
        for (profile, device) in profiles.iter_mut().zip(&self.devices) {
            profile.devices.add(device.hash, profile.rows);
        }
        profiles
    }

    /// Runs the reference's weeks and packs the bundle. What comes after is `hour(0, …)`.
    pub fn bundle(&mut self) -> Arc<Bundle> {
        let season = Season::HourOfWeek;
        let mut reference = Reference {
            made_from: "four weeks of a synthetic estate".into(),
            season,
            slots: vec![Profile::empty(&self.layout); season.slots()],
            layout: self.layout.clone(),
        };
        let honest = self.shape.honest;
        self.errors = honest.then(|| ErrorsByConfidence::of(&self.layout).unwrap());
        let mut all = Vec::new();
        for hour in -self.shape.reference_days * 24..0 {
            let start_us = T0_US + hour * HOUR_US;
            for (device, profile) in self.hour(hour, None).into_iter().enumerate() {
                reference.slots[season.slot(start_us)]
                    .merge(&profile)
                    .unwrap();
                all.push((start_us, self.devices[device].hash, profile));
            }
        }
        let errors = self.errors.take();
        let learner = Learner::new(&reference).unwrap();
        let mut learner = learner.foreseeing(errors.as_ref());
        for (start_us, device, profile) in &all {
            learner.add(*start_us, *device, profile).unwrap();
        }
        let calibration = learner.finish();
        let mut files = BTreeMap::from([
            (MANIFEST_FILE.to_owned(), self.manifest.as_bytes().to_vec()),
            (MODEL_FILE.to_owned(), b"not run here".to_vec()),
            (REFERENCE_FILE.to_owned(), reference.encode()),
            (
                CALIBRATION_FILE.to_owned(),
                calibration.to_json().into_bytes(),
            ),
            (SBOM_FILE.to_owned(), b"{}".to_vec()),
        ]);
        let joint = self.joint.as_ref().map(Joint::to_json);
        files.extend(joint.map(|text| (JOINT_FILE.to_owned(), text.into_bytes())));
        let digest = serde_json::to_vec(&Digest::of(&files)).unwrap();
        files.insert(DIGEST_FILE.to_owned(), digest);
        Arc::new(Bundle::from_files(files).unwrap())
    }

    /// The partial profiles of an hour, one per cell, as the profile stage would append them.
    pub fn cells(&mut self, hour: i64, fault: Option<Fault>) -> Vec<CellProfile> {
        let profiles = self.hour(hour, fault);
        let mut cells: BTreeMap<Cell, Profile> = BTreeMap::new();
        for (device, profile) in self.devices.iter().zip(profiles) {
            match cells.get_mut(&device.cell) {
                Some(there) => there.merge(&profile).unwrap(),
                None => {
                    cells.insert(device.cell.clone(), profile);
                }
            }
        }
        cells
            .into_iter()
            .map(|(cell, profile)| CellProfile {
                key: ProfileKey {
                    tenant: TENANT.into(),
                    model: MODEL.into(),
                    version: VERSION.into(),
                    pane_start_us: T0_US + hour * HOUR_US,
                    pane_length_us: HOUR_US,
                    cell,
                },
                profile,
            })
            .collect()
    }
}
