//! How many cohort-panes a second the detect stage takes in, judges and tells on one core.
//!
//! A cohort-pane is the profile of one cohort over one window of an hour, all its signals. An estate where nothing changes, every
//! site with two devices; the profiles are made and encoded before the clock starts. Beside it stands what decoding the
//! same records alone takes, which nothing that reads them can be below.
//!
//! ```text
//! cargo run --profile bench -p driftline-processors --example detect_speed -- --sites 100 --numbers 36 --hours 48
//! ```

#![allow(clippy::print_stdout, reason = "it prints its answer")]

#[path = "detect_nulls/estate.rs"]
#[allow(dead_code, reason = "shared with the families of nulls")]
mod estate;
#[path = "hourly/mod.rs"]
#[allow(dead_code, reason = "shared with measurements of many runs")]
mod hourly;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use driftline_processors::detect::DetectConfig;
use driftline_schemas::measure::MeasureBatch;
use driftline_schemas::profile::batch::ProfileBatch;
use driftline_schemas::topic;
use estate::{Estate, Family, Size, T0_US};
use hourly::{Arguments, Fed, Result};

fn main() -> Result<()> {
    let arguments = Arguments::of_process(&["--sites", "--numbers", "--hours"])?;
    let size = Size {
        numbers: arguments.number("--numbers", 36)?,
        sites: arguments.number("--sites", 100)?,
        devices_per_site: 2,
        rows_per_hour: 20,
    };
    let hours: i64 = arguments.number("--hours", 48)?;
    let mut estate = Estate::new(Family::Devices, size, 1)?;
    let bundle = estate.bundle()?;
    let signals = bundle.reference.layout.signals().len();
    let mut fed = Fed::new(DetectConfig::default(), bundle, T0_US)?;
    let mut all = Vec::new();
    for hour in 0..hours {
        all.push(fed.record(hour, estate.cells(hour)?));
    }
    let bytes: usize = all
        .iter()
        .filter_map(|it| it.value.as_ref())
        .map(|it| it.len())
        .sum();

    let begin = Instant::now();
    let mut cells = 0;
    for value in all.iter().filter_map(|it| it.value.as_deref()) {
        cells += ProfileBatch::decode(value)?.cells.len();
    }
    let decoded = begin.elapsed();

    let (mut took, mut measures, mut panes) = (Duration::ZERO, 0, 0);
    for (hour, record) in (0..).zip(all) {
        let begin = Instant::now();
        let step = fed.step(hour, record)?;
        took += begin.elapsed();
        let mut cohorts = BTreeSet::new();
        for output in step.outputs.iter().filter(|o| &*o.topic == topic::MEASURES) {
            let told = MeasureBatch::decode(output.value.as_deref().unwrap_or_default())?;
            measures += told.len();
            cohorts.extend(told.into_iter().map(|it| (it.window_start_us, it.cohort)));
        }
        panes += cohorts.len();
    }
    println!(
        "{} sites, {signals} signals, {hours} windows: {cells} cells of {:.0} bytes, {panes} cohort-panes, {measures} measures\n\
         {:.0} cohort-panes/s, {:.0} cells/s; decoding alone {:.0} cells/s",
        size.sites,
        bytes as f64 / cells as f64,
        panes as f64 / took.as_secs_f64(),
        cells as f64 / took.as_secs_f64(),
        cells as f64 / decoded.as_secs_f64(),
    );
    Ok(())
}
