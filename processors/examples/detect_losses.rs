//! How a loss of performance is shared out between inputs that moved and a changed relation of inputs and truth, by
//! the findings of the detect stage.
//!
//! A synthetic estate with probes that bring labels, and a model that is wrong as often as its confidence says, but for
//! what its devices are by nature. After three healthy days, at one site, either the inputs move to where the model is less sure
//! or the truth turns round in a share of the rows, for two days. Read off the last finding of that site in them.
//!
//! `cargo run --profile bench -p driftline-processors --example detect_losses -- --seeds 40`

#![allow(clippy::print_stdout, reason = "it prints its answer")]

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
#[allow(dead_code, reason = "shared with other measurements")]
mod hourly;

use driftline_processors::detect::DetectConfig;
use driftline_schemas::measure::{Finding, FindingKind, FindingState};
use estate::{Estate, Fault, Shape, T0_US, site_name};
use hourly::{Arguments, Result};

const HEALTHY_HOURS: i64 = 3 * 24;
const FAULTY_HOURS: i64 = 2 * 24;
const SITE: usize = 1;

/// A world: what is wrong in it, and whether it is the inputs.
const WORLDS: [(&str, bool, Fault); 5] = [
    (
        "inputs move by 1 sd",
        true,
        Fault::Shift {
            site: SITE,
            sd: 1.0,
        },
    ),
    (
        "inputs move by 1.5 sd",
        true,
        Fault::Shift {
            site: SITE,
            sd: 1.5,
        },
    ),
    (
        "the truth turns round in 20 % of the rows",
        false,
        Fault::Doubt {
            site: SITE,
            share: 0.2,
        },
    ),
    (
        "in 40 %",
        false,
        Fault::Doubt {
            site: SITE,
            share: 0.4,
        },
    ),
    ("in all", false, Fault::Flip { site: SITE }),
];

/// Share of the rise that went to the true cause; none when no finding told a clear rise.
fn share(seed: u64, inputs: bool, fault: Fault) -> Result<Option<f64>> {
    let shape = Shape {
        honest: true,
        probes_per_site: 4,
        ..Shape::default()
    };
    let mut estate = Estate::new(seed, shape);
    let bundle = estate.bundle();
    let config = DetectConfig::default();
    let hours = HEALTHY_HOURS + FAULTY_HOURS;
    let findings = hourly::findings(config, bundle, T0_US, hours, |hour| {
        Ok(estate.cells(hour, (hour >= HEALTHY_HOURS).then_some(fault)))
    })?;
    let scope = format!("site={}", site_name(SITE));
    let kind = match inputs {
        true => FindingKind::InputDrift,
        false => FindingKind::ConceptDrift,
    };
    let of_it =
        |it: &&Finding| it.kind == kind && it.scope == scope && it.state == FindingState::Drifted;
    let mut told = findings.iter().filter(of_it).filter_map(|it| it.error_rise);
    let foreseen = told.next_back().and_then(|rise| rise.foreseen_share());
    Ok(foreseen.map(|share| if inputs { share } else { 1.0 - share }))
}

fn main() -> Result<()> {
    let arguments = Arguments::of_process(&["--seeds"])?;
    let seeds: u64 = arguments.number("--seeds", 20)?;
    println!(
        "| world | runs | shares told | mean share of the true cause | lowest tenth | at least 0.8 |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, inputs, fault) in WORLDS {
        let shares = hourly::on_all_cores(seeds, |seed| share(seed, inputs, fault))?;
        let mut shares: Vec<f64> = shares.into_iter().flatten().collect();
        shares.sort_by(f64::total_cmp);
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        let tenth = shares.get(shares.len() / 10).copied().unwrap_or_default();
        let enough = shares.iter().filter(|share| **share >= 0.8).count();
        println!(
            "| {name} | {seeds} | {} | {mean:.2} | {tenth:.2} | {enough} |",
            shares.len()
        );
    }
    Ok(())
}
