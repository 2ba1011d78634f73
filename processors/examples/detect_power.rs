//! Windows until the detect stage finds a change, on estates of independent rows, beside Lorden's bound.
//!
//! A reference of four weeks, three healthy days, then a change that lasts. Counted are windows of an hour
//! from the change on until a finding opens whose signals and cohort it concerns; a finding that opens
//! before the change is a false alarm and is listed, and so is one that names another cohort.
//!
//! ```text
//! cargo run --profile bench -p driftline-processors --example detect_power -- --runs 20
//! ```
//!
//! Lorden (1971): whatever detects, with false alarms this rare, takes ln(ARL) / KL windows on average in the
//! worst case, where KL is the divergence of a window's rows after the change from before. ARL is that of
//! the budget: one alarm a month, 720 windows.

#![allow(clippy::print_stdout, reason = "it prints its answer")]

#[path = "detect_nulls/estate.rs"]
#[allow(dead_code, reason = "shared with the families of nulls")]
mod estate;
#[path = "hourly/mod.rs"]
#[allow(
    dead_code,
    reason = "shared with measurements that have more arguments"
)]
mod hourly;

use driftline_processors::detect::DetectConfig;
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::measure::{FindingKind, FindingState};

use estate::{Change, Estate, Family, Size, T0_US};
use hourly::{Arguments, Result};

const HEALTHY_HOURS: i64 = 3 * 24;
/// What is not found within a week counts as missed.
const CHANGED_HOURS: i64 = 7 * 24;
/// Windows in a month.
const ARL: f64 = 720.0;

struct Case {
    name: &'static str,
    change: Change,
    size: Size,
    /// Sites at which it happens, of the size's.
    sites: usize,
    /// Kullback-Leibler divergence of a row, where it has a form: (after, before).
    divergence: Option<f64>,
}

const fn narrow(rows_per_hour: usize) -> Size {
    Size {
        numbers: 3,
        sites: 2,
        devices_per_site: 4,
        rows_per_hour,
    }
}

/// Fifty cohorts of two devices each.
const fn fifty(rows_per_hour: usize) -> Size {
    Size {
        numbers: 3,
        sites: 50,
        devices_per_site: 2,
        rows_per_hour,
    }
}

fn cases() -> Vec<Case> {
    let normal = |shift: f64, scale: f64| {
        // KL(N(μ, σ²) ‖ N(0, 1)).
        (scale * scale + shift * shift - 1.0) / 2.0 - scale.ln()
    };
    let category = |more: f64| {
        let first = 1.0 / (1.0 + 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0);
        let after: f64 = first + more;
        after * (after / first).ln() + (1.0 - after) * ((1.0 - after) / (1.0 - first)).ln()
    };
    let changes = [
        ("mean +0.1 sd", Change::Shift(0.1), Some(normal(0.1, 1.0))),
        (
            "mean +0.25 sd",
            Change::Shift(0.25),
            Some(normal(0.25, 1.0)),
        ),
        ("mean +0.5 sd", Change::Shift(0.5), Some(normal(0.5, 1.0))),
        ("spread × 1.5", Change::Scale(1.5), Some(normal(0.0, 1.5))),
        ("°C to °F", Change::Unit, Some(normal(9.6, 1.8))),
        (
            "a share +5 points",
            Change::Share(0.05),
            Some(category(0.05)),
        ),
        (
            "a share +15 points",
            Change::Share(0.15),
            Some(category(0.15)),
        ),
        ("classes: half of `no` gone", Change::Labels(0.5), None),
    ];
    let mut cases = Vec::new();
    for rows in [25, 250] {
        cases.extend(changes.map(|(name, change, divergence)| Case {
            name,
            change,
            size: narrow(rows),
            sites: 2,
            divergence,
        }));
    }
    // 200 and 2,000 rows a window in the cohort.
    cases.extend([100, 1_000].map(|rows| Case {
        name: "mean +0.5 sd in one cohort of fifty",
        change: Change::Shift(0.5),
        size: fifty(rows),
        sites: 1,
        divergence: Some(normal(0.5, 1.0)),
    }));
    cases
}

impl Case {
    /// Rows of a window in which the change is.
    fn rows(&self) -> usize {
        self.sites * self.size.devices_per_site * self.size.rows_per_hour
    }

    fn bound(&self) -> Option<f64> {
        let window = self.divergence? * self.rows() as f64;
        Some((ARL.ln() / window).max(1.0))
    }
}

#[derive(Default)]
struct Seen {
    /// Windows until found.
    delays: Vec<i64>,
    missed: u32,
    /// Findings before the change.
    early: u32,
    /// Runs in which another cohort was named as well or instead.
    elsewhere: u32,
}

fn run(case: &Case, seed: u64, config: &DetectConfig) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut estate = Estate::new(Family::Iid, case.size, seed)?;
    let bundle = estate.bundle()?;
    let hours = HEALTHY_HOURS + CHANGED_HOURS;
    let findings = hourly::findings(config.clone(), bundle, T0_US, hours, |hour| {
        if hour == HEALTHY_HOURS {
            estate.change(case.change, case.sites);
        }
        estate.cells(hour)
    })?;
    let onset_us = T0_US + HEALTHY_HOURS * HOUR_US;
    let opened = |f: &&driftline_schemas::measure::Finding| f.state == FindingState::Drifted;
    let scope = match case.sites {
        1 => "site=s0",
        _ => "estate",
    };
    seen.early += u32::from(
        findings
            .iter()
            .filter(opened)
            .any(|f| f.window_end_us <= onset_us),
    );
    let after = || {
        findings
            .iter()
            .filter(opened)
            .filter(|f| f.window_end_us > onset_us)
    };
    seen.elsewhere += u32::from(after().any(|f| f.scope != scope));
    let right = after()
        .filter(|f| f.scope == scope)
        .filter(|f| matches!(f.kind, FindingKind::InputDrift | FindingKind::OutputDrift));
    match right.map(|f| f.window_end_us).min() {
        Some(end_us) => seen.delays.push((end_us - onset_us) / HOUR_US),
        None => seen.missed += 1,
    }
    Ok(seen)
}

fn measure(case: &Case, runs: u64, config: &DetectConfig) -> Result<Seen> {
    let mut all = Seen::default();
    for seen in hourly::on_all_cores(runs, |seed| run(case, seed, config))? {
        all.delays.extend(seen.delays);
        all.missed += seen.missed;
        all.early += seen.early;
        all.elsewhere += seen.elsewhere;
    }
    all.delays.sort_unstable();
    Ok(all)
}

fn main() -> Result<()> {
    let arguments = Arguments::of_process(&["--runs", "--case"])?;
    let runs = arguments.number("--runs", 20)?;
    let chosen = arguments.number("--case", 0)?;
    println!(
        "| change | rows a window | smallest effect | windows until found: median, longest | missed in a week | Lorden's bound | another cohort named | false alarms before |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (at, case) in cases().iter().enumerate() {
        if chosen != 0 && chosen != at + 1 {
            continue;
        }
        let mut any = DetectConfig::default();
        let smallest = &mut any.smallest_effect;
        smallest.shift_sd = 0.0;
        smallest.spread = 0.0;
        smallest.total_variation = 0.0;
        for (name, config) in [("default", DetectConfig::default()), ("any", any)] {
            let seen = measure(case, runs, &config)?;
            let found = match (seen.delays.get(seen.delays.len() / 2), seen.delays.last()) {
                (Some(median), Some(longest)) => format!("{median}, {longest}"),
                _ => "none".to_owned(),
            };
            println!(
                "| {} | {} | {name} | {found} | {} of {runs} | {} | {} | {} |",
                case.name,
                case.rows(),
                seen.missed,
                case.bound()
                    .map_or_else(String::new, |bound| format!("{bound:.1}")),
                seen.elsewhere,
                seen.early
            );
        }
    }
    Ok(())
}
