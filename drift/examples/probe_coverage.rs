//! How often the interval of a post-stratified estimate holds the estate's true accuracy when probes stand in
//! three of ten strata only, and how wide it is where they do stand, beside that of an oracle which knows
//! each stratum's variance.
//!
//! ```text
//! cargo run -p driftline-drift --example probe_coverage [-- RUNS]
//! ```
//!
//! The targets are 90 of 100 runs, and twice the oracle's width. The example ends with 1 when one is missed.

use std::process::ExitCode;

use driftline_drift::performance::Interval;
use driftline_drift::performance::stratified::{Stratum, post_stratify};
use driftline_drift::random::Random;

const STRATA: usize = 10;
const WITH_PROBES: usize = 3;
const CONFIDENCE: f64 = 0.95;
const COVERAGE_MIN: f64 = 0.9;
const WIDER_MAX: f64 = 2.0;

/// What one run came to.
struct Run {
    holds_estate: bool,
    holds_covered: bool,
    width: f64,
    covered_width: f64,
    oracle_width: f64,
}

/// Strata of other sizes and accuracies (0.7 to 0.99); so many probe rows in each of the first three.
fn run(rows: usize, random: &mut Random) -> Option<Run> {
    let shares: Vec<f64> = (0..STRATA).map(|_| 0.2 + random.uniform()).collect();
    let truths: Vec<f64> = (0..STRATA).map(|_| 0.7 + 0.29 * random.uniform()).collect();
    let strata: Vec<Stratum> = (0..STRATA)
        .map(|at| {
            let rows = if at < WITH_PROBES { rows } else { 0 };
            let right = (0..rows).filter(|_| random.uniform() < truths[at]).count() as f64;
            let n = rows as f64;
            // One right and one wrong row more, so that a stratum without an error is not taken for one
            // that cannot err (Agresti and Coull 1998).
            let p = (right + 1.0) / (n + 2.0);
            Stratum {
                name: at.to_string(),
                share: shares[at],
                rows: n,
                mean: if n > 0.0 { right / n } else { 0.0 },
                variance: p * (1.0 - p),
            }
        })
        .collect();
    let estimate = post_stratify(&strata)?;
    let unit = Interval {
        low: 0.0,
        high: 1.0,
    };
    let whole = estimate.interval(CONFIDENCE, unit).ok()?;
    let covered = estimate.covered.interval(CONFIDENCE).ok()?;
    let mean = |strata: std::ops::Range<usize>| {
        let share: f64 = shares[strata.clone()].iter().sum();
        strata.map(|at| shares[at] * truths[at]).sum::<f64>() / share
    };
    let with: f64 = shares[..WITH_PROBES].iter().sum();
    let variance: f64 = (0..WITH_PROBES)
        .map(|at| (shares[at] / with).powi(2) * truths[at] * (1.0 - truths[at]) / rows as f64)
        .sum();
    Some(Run {
        holds_estate: whole.contains(mean(0..STRATA)),
        holds_covered: covered.contains(mean(0..WITH_PROBES)),
        width: whole.high - whole.low,
        covered_width: covered.high - covered.low,
        // The normal quantile of 0.975.
        oracle_width: 2.0 * 1.959_963_985 * variance.sqrt(),
    })
}

fn main() -> ExitCode {
    let runs = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let runs: u64 = runs.unwrap_or(2_000);
    let mut is_met = true;
    println!(
        "| probe rows a stratum | holds the estate's accuracy | holds that of the strata with probes | width, estate | width there | oracle's |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for rows in [30, 100, 300] {
        let all: Vec<Run> = (0..runs)
            .filter_map(|seed| run(rows, &mut Random::new(rows as u64 * 100_000 + seed)))
            .collect();
        let share = |of: fn(&Run) -> bool| {
            all.iter().filter(|run| of(run)).count() as f64 / all.len() as f64
        };
        let mean = |of: fn(&Run) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        let (estate, covered) = (share(|it| it.holds_estate), share(|it| it.holds_covered));
        let (width, oracle) = (mean(|it| it.covered_width), mean(|it| it.oracle_width));
        is_met &= estate >= COVERAGE_MIN && covered >= COVERAGE_MIN && width <= WIDER_MAX * oracle;
        println!(
            "| {rows} | {:.1} % of {} | {:.1} % | {:.3} | {width:.3} | {oracle:.3} |",
            100.0 * estate,
            all.len(),
            100.0 * covered,
            mean(|it| it.width)
        );
    }
    match is_met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
