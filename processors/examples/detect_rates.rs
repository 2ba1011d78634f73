//! How often detection is right on a synthetic estate: no finding in six healthy days, then one
//! fault at one site, found with exactly that scope.
//!
//! `cargo run -p driftline-processors --example detect_rates -- --seeds 200 [--from 0] [--verbose]`
//!
//! With `--turn -0.8` the fault is always that temperature and humidity, which go together by 0.8 (`--together`),
//! do so by −0.8 at the site, while each by itself stays as it was; `--blind` packs the bundle without the signal
//! that looks at them together.

#[path = "../src/detect/tests/estate.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "shared with tests"
)]
mod estate;

#[path = "hourly/mod.rs"]
mod hourly;

use driftline_processors::detect::DetectConfig;
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::measure::{Finding, FindingKind};
use estate::{Estate, Fault, Shape, T0_US, site_name};
use hourly::{Arguments, Result};

const KNOWN: [&str; 9] = [
    "--seeds",
    "--from",
    "--verbose",
    "--turn",
    "--together",
    "--blind",
    "--correlation",
    "--weather",
    "--device-sd",
];
const HEALTHY_HOURS: i64 = 6 * 24;
const FAULTY_HOURS: i64 = 12;

fn run(seed: u64, shape: Shape, fault: Fault) -> Result<Vec<Finding>> {
    let mut estate = Estate::new(seed, shape);
    let bundle = estate.bundle();
    hourly::findings(
        DetectConfig::default(),
        bundle,
        T0_US,
        HEALTHY_HOURS + FAULTY_HOURS,
        |hour| {
            let fault = (hour >= HEALTHY_HOURS).then_some(fault);
            Ok(estate.cells(hour, fault))
        },
    )
}

/// A fault, where it is, and what is to be found of it.
#[derive(Clone, Copy)]
struct Injected {
    site: usize,
    kind: FindingKind,
    fault: Fault,
}

fn injected(seed: u64, turn: Option<f64>) -> Injected {
    let site = (seed % 8) as usize;
    let (kind, fault) = match (turn, seed % 4) {
        (Some(correlation), _) => {
            let fault = Fault::Together { site, correlation };
            (FindingKind::InputDrift, fault)
        }
        (None, 3) => (FindingKind::ConceptDrift, Fault::Flip { site }),
        (None, n) => {
            let sd = 0.8 + 0.1 * n as f64;
            (FindingKind::InputDrift, Fault::Shift { site, sd })
        }
    };
    Injected { site, kind, fault }
}

#[allow(clippy::print_stdout, reason = "it prints its answer")]
fn main() -> Result<()> {
    let arguments = Arguments::of_process(&KNOWN)?;
    let (from, seeds) = (
        arguments.number("--from", 0)?,
        arguments.number("--seeds", 20)?,
    );
    let verbose = arguments.has("--verbose");
    let turn = match arguments.has("--turn") {
        true => Some(arguments.number("--turn", -0.8)?),
        false => None,
    };
    let shape = Shape {
        correlation: arguments.number("--correlation", 0.8)?,
        weather_sd: arguments.number("--weather", 0.1)?,
        device_sd: arguments.number("--device-sd", 0.3)?,
        together: match turn.is_some() {
            true => arguments.number("--together", 0.8)?,
            false => 0.0,
        },
        joint: turn.is_some() && !arguments.has("--blind"),
        ..Shape::default()
    };
    let (mut exact, mut false_alarms, mut missed, mut extra) = (0, 0, 0, 0);
    let mut delays = Vec::new();
    let runs = hourly::on_all_cores(seeds, |at| {
        let injected = injected(from + at, turn);
        Ok((injected, run(from + at, shape, injected.fault)?))
    })?;
    for (seed, (Injected { site, kind, fault }, findings)) in (from..).zip(runs) {
        let scope = format!("site={}", site_name(site));
        let onset_us = T0_US + HEALTHY_HOURS * HOUR_US;
        let hit =
            |f: &&Finding| f.kind == kind && f.scope == scope && f.window_start_us >= onset_us;
        let before = findings.iter().any(|f| f.window_start_us < onset_us);
        let found = findings.iter().find(hit);
        let other = findings
            .iter()
            .any(|f| f.window_start_us >= onset_us && !hit(&f));
        false_alarms += u32::from(before);
        missed += u32::from(found.is_none());
        extra += u32::from(other);
        exact += u32::from(!before && found.is_some() && !other);
        delays.extend(found.map(|f| (f.window_start_us - onset_us) / HOUR_US + 1));
        if verbose || before || found.is_none() || other {
            println!("seed {seed}: {fault:?} {scope}");
            for f in &findings {
                let hour = (f.window_start_us - T0_US) / HOUR_US;
                println!(
                    "  hour {hour:>3} {:?} {:?} {} | {} | {}",
                    f.state, f.kind, f.scope, f.evidence, f.explanation
                );
            }
        }
    }
    delays.sort_unstable();
    println!(
        "{exact} of {seeds} exact; {false_alarms} with a false alarm in six healthy days, {missed} missed, {extra} with something else as well; windows to the finding: median {:?}, longest {:?}",
        delays.get(delays.len() / 2),
        delays.last()
    );
    Ok(())
}
