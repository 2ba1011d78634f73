//! The units of an estate, their attributes and how often they report.

use std::sync::Arc;

use driftline_schemas::clock::MINUTE_US;
use driftline_schemas::source::{Link, Origin, Role};

/// Regions; each has two sites.
const REGIONS: [&str; 4] = ["north", "east", "south", "west"];
/// Sites of one region.
const SITES_PER_REGION: usize = 2;

/// Shape of an estate.
#[derive(Debug, Clone)]
pub struct EstateConfig {
    /// Decides everything that is drawn.
    pub seed: u64,
    /// Owner of all units.
    pub tenant: String,
    /// Devices of each of the eight sites.
    pub devices_per_site: usize,
    /// Probes of each site.
    pub probes_per_site: usize,
    /// Time between two inferences of a unit, microseconds.
    pub sample_us: i64,
}

impl Default for EstateConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            tenant: "demo".into(),
            devices_per_site: 6,
            probes_per_site: 2,
            sample_us: 4 * MINUTE_US,
        }
    }
}

/// One unit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Index within the estate; decides what is drawn for it.
    pub index: usize,
    /// Identity and attributes.
    pub origin: Origin,
    /// Time between two reports, microseconds.
    pub report_us: i64,
    /// When within that time it reports, so that not all report at once.
    pub phase_us: i64,
}

/// All units.
#[derive(Debug, Clone)]
pub struct Estate {
    /// The configuration that it was made from.
    pub config: EstateConfig,
    /// The units, site by site.
    pub units: Vec<Unit>,
}

impl Estate {
    /// Makes the units.
    pub fn new(config: EstateConfig) -> Self {
        let mut units = Vec::new();
        for site in sites() {
            for number in 0..config.devices_per_site + config.probes_per_site {
                let probe = number >= config.devices_per_site;
                units.push(unit(&config, &site, number, probe, units.len()));
            }
        }
        Self { config, units }
    }

    /// Names of the units of a site.
    pub fn devices_of(&self, site: &str) -> Vec<&str> {
        self.units
            .iter()
            .filter(|unit| &*unit.origin.site == site && unit.origin.role == Role::Device)
            .map(|unit| &*unit.origin.device)
            .collect()
    }
}

/// Names of all sites.
pub fn sites() -> Vec<String> {
    REGIONS
        .iter()
        .flat_map(|region| (1..=SITES_PER_REGION).map(move |number| format!("{region}-{number}")))
        .collect()
}

fn unit(config: &EstateConfig, site: &str, number: usize, probe: bool, index: usize) -> Unit {
    let region = site.split('-').next().unwrap_or_default();
    // The last device of a site is a meter that reports once a day, which is normal.
    let daily = !probe && number + 1 == config.devices_per_site;
    let (cadence_min, link) = match (probe, daily) {
        (true, _) => (30, Link::Ethernet),
        (false, true) => (24 * 60, Link::Lpwan),
        (false, false) => (60, Link::Cellular),
    };
    let report_us = cadence_min * MINUTE_US;
    let kind = if probe { "probe" } else { "dev" };
    Unit {
        index,
        origin: Origin {
            tenant: config.tenant.as_str().into(),
            device: format!("{site}-{kind}{number}").into(),
            role: if probe { Role::Probe } else { Role::Device },
            model: Arc::from(""),
            version: Arc::from(""),
            variant: Arc::from(""),
            // Crossed with sites, so that a cause at a site is not one of hardware or firmware too.
            hardware: if number.is_multiple_of(2) {
                "gen1"
            } else {
                "gen2"
            }
            .into(),
            firmware: if (number / 2).is_multiple_of(2) {
                "2.0"
            } else {
                "2.1"
            }
            .into(),
            region: region.into(),
            site: site.into(),
            link,
            cadence_s: (cadence_min * 60) as u32,
        },
        report_us,
        phase_us: (index as i64 * 7 % cadence_min) * MINUTE_US,
    }
}
