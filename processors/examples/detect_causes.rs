//! How often the detect stage names the right cause.
//!
//! A synthetic estate of eight sites in two regions, with devices of two generations of hardware, two builds
//! of firmware and two kinds of link. After four healthy days a number moves by 0.6 to 1.2 standard
//! deviations of its noise wherever one attribute has one value; in one run of three a second attribute's
//! value does so at the same time, by another amount, in the same number or another, and the two share devices.
//! A day later it is read off what was told.
//!
//! ```text
//! cargo run --profile bench -p driftline-processors --example detect_causes -- --runs 100
//! ```

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
mod hourly;

use std::collections::BTreeSet;

use driftline_processors::detect::DetectConfig;
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::measure::{Finding, FindingKind, FindingState};
use driftline_schemas::source::ATTRIBUTES;
use estate::{Estate, Fault, Shape, T0_US, site_name};
use hourly::{Arguments, Result};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

const HEALTHY_HOURS: i64 = 4 * 24;
const FAULTY_HOURS: i64 = 24;
const SITES: [&str; 8] = [
    "north-1", "south-1", "north-2", "south-2", "north-3", "south-3", "north-4", "south-4",
];
/// Index into [`ATTRIBUTES`] and a value of it.
const CAUSES: [(usize, &[&str]); 5] = [
    (0, &["north", "south"]),
    (1, &SITES),
    (2, &["g1", "g2"]),
    (3, &["2.0", "2.1"]),
    (4, &["wifi", "cellular"]),
];

/// One or two faults, of different attributes.
fn faults(seed: u64) -> Vec<Fault> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut chosen: Vec<Fault> = Vec::new();
    let (mut taken, wanted) = (BTreeSet::new(), if seed % 3 == 2 { 2 } else { 1 });
    while chosen.len() < wanted {
        let (attribute, values) = CAUSES[random.random_range(0..CAUSES.len())];
        // A region is its sites: these two would not overlap but lie in one another.
        let place = usize::from(attribute == 1 || attribute == 0);
        if !taken.insert(if place == 1 { 0 } else { attribute }) {
            continue;
        }
        chosen.push(Fault::Moved {
            attribute,
            value: values[random.random_range(0..values.len())],
            number: random.random_range(0..3),
            sd: random.random_range(0.6..1.2),
        });
    }
    chosen
}

fn scope_of(fault: &Fault) -> String {
    match fault {
        Fault::Moved {
            attribute, value, ..
        } => format!("{}={value}", ATTRIBUTES[*attribute]),
        Fault::Shift { site, .. }
        | Fault::Flip { site }
        | Fault::Doubt { site, .. }
        | Fault::Together { site, .. } => format!("site={}", site_name(*site)),
    }
}

fn run(seed: u64, faults: &[Fault]) -> Result<Vec<Finding>> {
    let mut estate = Estate::new(seed, Shape::default());
    let bundle = estate.bundle();
    hourly::findings(
        DetectConfig::default(),
        bundle,
        T0_US,
        HEALTHY_HOURS + FAULTY_HOURS,
        |hour| {
            if hour == HEALTHY_HOURS {
                faults.iter().for_each(|fault| estate.stand(*fault));
            }
            Ok(estate.cells(hour, None))
        },
    )
}

#[derive(Default)]
struct Count {
    runs: u32,
    /// The first cause named is one that was injected.
    first: u32,
    /// Every injected cause was named.
    all: u32,
    /// Every one, and nothing else.
    exact: u32,
}

impl Count {
    fn add(&mut self, injected: &BTreeSet<String>, named: &[String]) {
        let set: BTreeSet<String> = named.iter().cloned().collect();
        self.runs += 1;
        self.first += u32::from(named.first().is_some_and(|name| injected.contains(name)));
        self.all += u32::from(injected.is_subset(&set));
        self.exact += u32::from(*injected == set);
    }

    fn row(&self, name: &str) {
        let Self {
            runs,
            first,
            all,
            exact,
        } = self;
        println!("| {name} | {runs} | {first} | {all} | {exact} |");
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::of_process(&["--runs", "--verbose"])?;
    let verbose = arguments.has("--verbose");
    let (mut one, mut two) = (Count::default(), Count::default());
    let runs = hourly::on_all_cores(arguments.number("--runs", 100)?, |seed| {
        let faults = faults(seed);
        let findings = run(seed, &faults)?;
        Ok((faults, findings))
    })?;
    for (seed, (faults, findings)) in runs.into_iter().enumerate() {
        let injected: BTreeSet<String> = faults.iter().map(scope_of).collect();
        let onset_us = T0_US + HEALTHY_HOURS * HOUR_US;
        let mut opened: Vec<&Finding> = findings
            .iter()
            .filter(|f| f.kind == FindingKind::InputDrift && f.state == FindingState::Drifted)
            .collect();
        opened.sort_by_key(|f| f.window_start_us);
        let mut named: Vec<String> = Vec::new();
        for finding in opened {
            if !named.contains(&finding.scope) {
                named.push(finding.scope.clone());
            }
        }
        let count = if faults.len() == 1 {
            &mut one
        } else {
            &mut two
        };
        count.add(&injected, &named);
        let early = findings.iter().any(|f| f.window_end_us <= onset_us);
        if verbose || early {
            println!("seed {seed}: {faults:?}, named {named:?}, before the faults: {early}");
        }
    }
    println!(
        "| faults at once | runs | first named is right | all named | all named and nothing else |"
    );
    println!("| --- | --- | --- | --- | --- |");
    one.row("one");
    two.row("two, overlapping");
    Ok(())
}
