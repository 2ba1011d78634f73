//! False alarms of the detect stage on estates where nothing changes, beside the budget.
//!
//! Every model has a reference of four weeks; then its detect stage, with the default configuration
//! (one false alarm a month), is fed hour by hour with profiles as the profile stage would append
//! them. A finding that opens is an alarm, also when late data refute it afterwards.
//!
//! ```text
//! cargo run --profile bench -p driftline-processors --example detect_nulls -- --models 100 --months 10
//! … --family 2          # one family, as numbered in the table
//! … --wide --models 10  # 200 features and 50 cohorts
//! … --any               # with smallest effects of 0: what the budget alone lets through
//! ```
//!
//! Ends with 1 when a family has significantly more alarms than 1.3 times the budget (95 %).

#![allow(clippy::print_stdout, reason = "it prints its answer")]

#[allow(dead_code, reason = "shared with `detect_power`")]
mod estate;
#[path = "../hourly/mod.rs"]
mod hourly;

use std::collections::{BTreeMap, BTreeSet};

use driftline_drift::calibrate::SmallestEffect;
use driftline_processors::detect::DetectConfig;
use driftline_schemas::measure::{Finding, FindingKind, FindingState};

use estate::{Estate, Family, Size, T0_US};
use hourly::{Arguments, Result};

const MONTH_HOURS: i64 = 30 * 24;
const NARROW: Size = Size {
    numbers: 3,
    sites: 2,
    devices_per_site: 4,
    rows_per_hour: 25,
};
const WIDE: Size = Size {
    numbers: 200,
    sites: 49,
    devices_per_site: 2,
    rows_per_hour: 20,
};

/// Alarms by kind; those that late data refuted.
#[derive(Debug, Default)]
struct Alarms {
    by_kind: BTreeMap<FindingKind, u64>,
    refuted: u64,
    open: BTreeSet<String>,
}

impl Alarms {
    fn add(&mut self, other: Self) {
        self.refuted += other.refuted;
        for (kind, count) in other.by_kind {
            *self.by_kind.entry(kind).or_default() += count;
        }
    }

    fn hear(&mut self, finding: &Finding) {
        match finding.state {
            FindingState::Drifted => {
                if self.open.insert(finding.key.clone()) {
                    *self.by_kind.entry(finding.kind).or_default() += 1;
                }
            }
            FindingState::Recovered => {
                self.open.remove(&finding.key);
            }
            FindingState::Refuted => {
                self.refuted += u64::from(self.open.remove(&finding.key));
            }
        }
    }
}

/// One model over some months.
fn run(
    config: &DetectConfig,
    family: Family,
    size: Size,
    seed: u64,
    months: i64,
) -> Result<Alarms> {
    let mut estate = Estate::new(family, size, seed)?;
    let bundle = estate.bundle()?;
    let mut alarms = Alarms::default();
    hourly::findings(
        config.clone(),
        bundle,
        T0_US,
        months * MONTH_HOURS,
        |hour| estate.cells(hour),
    )?
    .iter()
    .for_each(|finding| alarms.hear(finding));
    Ok(alarms)
}

/// All models of a family.
fn family(
    config: &DetectConfig,
    family: Family,
    size: Size,
    models: u64,
    months: i64,
) -> Result<Alarms> {
    let mut all = Alarms::default();
    for alarms in hourly::on_all_cores(models, |model| run(config, family, size, model, months))? {
        all.add(alarms);
    }
    Ok(all)
}

/// Bounds of a 95 % interval of a Poisson count's mean (Byar's approximation, within 1 % from 5 on).
fn interval(count: u64) -> (f64, f64) {
    let bound = |count: f64, z: f64| {
        if count <= 0.0 {
            return 0.0;
        }
        count * (1.0 - 1.0 / (9.0 * count) + z / (3.0 * count.sqrt())).powi(3)
    };
    (bound(count as f64, -1.96), bound(count as f64 + 1.0, 1.96))
}

fn main() -> Result<()> {
    let arguments =
        Arguments::of_process(&["--models", "--months", "--family", "--wide", "--any"])?;
    let wide = arguments.has("--wide");
    let models = arguments.number("--models", 10)?;
    let months = arguments.number("--months", if wide { 1 } else { 10 })?;
    let chosen = arguments.number("--family", 0)?;
    let size = if wide { WIDE } else { NARROW };
    let all = if wide {
        &Family::ALL[..1]
    } else {
        &Family::ALL[..]
    };
    let mut config = DetectConfig::default();
    if arguments.has("--any") {
        config.smallest_effect = SmallestEffect {
            shift_sd: 0.0,
            spread: 0.0,
            total_variation: 0.0,
            rate: 0.0,
            error_rate: 0.0,
        };
    }
    println!(
        "|   | estates with | model-months | alarms | a month (95 %) | input | output | concept | refuted by late data |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut too_many = false;
    for (at, null) in all.iter().enumerate() {
        if chosen != 0 && chosen != at + 1 {
            continue;
        }
        let alarms = family(&config, *null, size, models, months)?;
        let count = |kind| alarms.by_kind.get(&kind).copied().unwrap_or(0);
        let total: u64 = alarms.by_kind.values().sum();
        let all_months = models as f64 * months as f64;
        let (low, high) = interval(total);
        too_many |= low / all_months > 1.3;
        println!(
            "| {} | {} | {all_months} | {total} | {:.3} ({:.3} to {:.3}) | {} | {} | {} | {} |",
            at + 1,
            null.name(),
            total as f64 / all_months,
            low / all_months,
            high / all_months,
            count(FindingKind::InputDrift),
            count(FindingKind::OutputDrift),
            count(FindingKind::ConceptDrift),
            alarms.refuted
        );
    }
    match too_many {
        true => Err("a family has more than 1.3 times the alarms that the budget allows".into()),
        false => Ok(()),
    }
}
