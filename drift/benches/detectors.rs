//! Updates a second of every detector at its defaults, on a million values whose mean drifts now and
//! then: `cargo bench -p driftline-drift --bench detectors`.
//!
//! Plain timing: a run is seconds long, which no statistics of a harness would make clearer.

use std::time::Instant;

use driftline_drift::detector::{Compat, Kind, Params, Verdict};

const VALUES: usize = 1_000_000;

/// Slow detectors get fewer values: BOCPD weighs hundreds of runs for each.
fn values_for(kind: Kind) -> usize {
    match kind {
        Kind::Bocpd => VALUES / 100,
        Kind::Kswin => VALUES / 10,
        _ => VALUES,
    }
}

/// Best of this many passes: the machine's other work only ever slows one down.
const PASSES: usize = 5;

/// Errors with a rate of 0.2, 0.3 for the second half of every 200,000 values; from a linear
/// congruential generator, so that every run has the same.
fn stream() -> Vec<f64> {
    let mut state = 42_u64;
    (0..VALUES)
        .map(|i| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let rate = if i / 100_000 % 2 == 0 { 0.2 } else { 0.3 };
            let u = (state >> 11) as f64 / (1_u64 << 53) as f64;
            f64::from(u8::from(u < rate))
        })
        .collect()
}

#[allow(clippy::print_stdout, reason = "printing is what a benchmark is for")]
fn main() -> Result<(), driftline_drift::detector::DetectorError> {
    let stream = stream();
    println!("{:<14}{:>16}{:>10}", "detector", "updates/s", "alarms");
    for kind in Kind::ALL {
        let values = &stream[..values_for(kind)];
        let (mut best, mut alarms) = (f64::INFINITY, 0);
        for _ in 0..PASSES {
            let mut detector = kind.build(Compat::Native, &Params::new())?;
            alarms = 0;
            let start = Instant::now();
            detector.update_all(values, |_, verdict| {
                alarms += usize::from(verdict == Verdict::Drift);
            });
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{:<14}{:>16.0}{alarms:>10}",
            kind.name(),
            values.len() as f64 / best
        );
    }
    Ok(())
}
