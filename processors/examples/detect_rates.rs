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
use hourly::Result;

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

#[allow(clippy::print_stdout, reason = "it prints its answer")]
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, otherwise: f64| -> f64 {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok())
            .unwrap_or(otherwise)
    };
    let (from, seeds) = (number("--from", 0.0) as u64, number("--seeds", 20.0) as u64);
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let verbose = has("--verbose");
    let turn = has("--turn").then(|| number("--turn", -0.8));
    let shape = Shape {
        correlation: number("--correlation", 0.8),
        weather_sd: number("--weather", 0.1),
        device_sd: number("--device-sd", 0.3),
        together: match turn.is_some() {
            true => number("--together", 0.8),
            false => 0.0,
        },
        joint: turn.is_some() && !has("--blind"),
        ..Shape::default()
    };
    let (mut exact, mut false_alarms, mut missed, mut extra) = (0, 0, 0, 0);
    let mut delays = Vec::new();
    for seed in from..from + seeds {
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
        let findings = run(seed, shape, fault)?;
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
