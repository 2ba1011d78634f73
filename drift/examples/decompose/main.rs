//! How much of a loss of performance is put down to its true cause: worlds in which only the inputs moved,
//! or only the relation of inputs and truth changed. The target is a share of at least 0.8.
//!
//! ```text
//! cargo run -p driftline-drift --example decompose [-- RUNS [ROWS…]]
//! ```
//!
//! The example ends with 1 when the mean share of any world is below the target.

mod worlds;

use std::process::ExitCode;

use driftline_drift::performance::decomposition::{Labelled, decompose};
use driftline_drift::random::Random;
use worlds::{Cause, World, draw, worlds};

const TARGET: f64 = 0.8;

/// Shares of the true cause in the runs that gave any, sorted.
fn shares((_, cause, before, now): &World, rows: usize, runs: u64) -> Vec<f64> {
    let mut shares: Vec<f64> = (0..runs)
        .filter_map(|run| {
            let mut random = Random::new(1_000 * rows as u64 + run);
            let (inputs, losses) = draw(before, rows, &mut random);
            let (inputs_now, losses_now) = draw(now, rows, &mut random);
            let before = Labelled {
                inputs: &inputs,
                losses: &losses,
            };
            let now = Labelled {
                inputs: &inputs_now,
                losses: &losses_now,
            };
            // The worlds' columns fit by construction.
            let share = decompose(before, now).ok()??.inputs_share?;
            Some(if *cause == Cause::Relation {
                1.0 - share
            } else {
                share
            })
        })
        .collect();
    shares.sort_unstable_by(f64::total_cmp);
    shares
}

fn main() -> ExitCode {
    let mut numbers = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse::<u64>().ok());
    let runs = numbers.next().unwrap_or(100);
    let mut sizes: Vec<usize> = numbers.map(|rows| rows as usize).collect();
    if sizes.is_empty() {
        sizes = vec![2_000, 5_000];
    }
    let mut is_met = true;
    println!(
        "| world | rows a period | shares given | mean share of the true cause | lowest tenth | at least {TARGET} |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for world in worlds() {
        for rows in &sizes {
            let shares = shares(&world, *rows, runs);
            let given = shares.len();
            if world.1 == Cause::Nothing || given == 0 {
                println!("| {} | {rows} | {given} of {runs} | | | |", world.0);
                continue;
            }
            let mean = shares.iter().sum::<f64>() / given as f64;
            let good = shares.iter().filter(|share| **share >= TARGET).count();
            is_met &= mean >= TARGET;
            println!(
                "| {} | {rows} | {given} of {runs} | {mean:.2} | {:.2} | {good} |",
                world.0,
                shares[given / 10]
            );
        }
    }
    match is_met {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
