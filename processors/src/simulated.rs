//! Stages under the seeded simulator of the log (`driftline_log::kafka::simulation`): killed, stopped, cut
//! off and fenced in the middle of any request, with records that come late, in any order and twice.
//!
//! `DRIFTLINE_SEEDS=n` runs so many seeds, `DRIFTLINE_SEED=n` that one alone, and prints what happened in it.

mod pipeline;
mod small;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use driftline_log::kafka::simulation::{Bug, Counts, Simulation};

/// What a seed came to: what happened, or what is wrong.
type Outcome = Result<Counts, String>;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// Runs seeds on all processors, and fails with the least seed found wrong, its trace printed. What happened
/// in all of them.
fn seeds(what: &str, default: u64, run: impl Fn(&Simulation, u64) -> Outcome + Sync) -> Counts {
    let one = number("DRIFTLINE_SEED");
    let (first, count) = match one {
        Some(seed) => (seed, 1),
        None => (0, number("DRIFTLINE_SEEDS").unwrap_or(default)),
    };
    let next = AtomicU64::new(first);
    let total = Mutex::new(Counts::default());
    let wrong: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let simulation = Simulation::new(seed, None);
            match run(&simulation, seed) {
                Ok(counts) => add(
                    &mut total.lock().unwrap_or_else(PoisonError::into_inner),
                    counts,
                ),
                Err(problem) => {
                    let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
                    if wrong.as_ref().is_none_or(|(least, _)| seed < *least) {
                        *wrong = Some((seed, problem));
                    }
                    // What is under way is finished; nothing new begins.
                    next.store(first + count, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let counts = *total.lock().unwrap_or_else(PoisonError::into_inner);
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    if wrong.is_some() || one.is_some() {
        let seed = wrong.as_ref().map_or(first, |(seed, _)| *seed);
        println!("{}", trace(seed, None, &run).join("\n"));
    }
    if let Some((seed, problem)) = wrong {
        panic!("{what}, seed {seed} (DRIFTLINE_SEED={seed} replays it): {problem}");
    }
    println!("{what}: seeds {first} to {}, {counts:?}", first + count - 1);
    counts
}

fn add(total: &mut Counts, counts: Counts) {
    total.turns += counts.turns;
    total.crashes += counts.crashes;
    total.leaves += counts.leaves;
    total.stalls += counts.stalls;
    total.lost += counts.lost;
    total.strays += counts.strays;
    total.clock_steps += counts.clock_steps;
    total.fenced += counts.fenced;
    total.renewed += counts.renewed;
    total.moved += counts.moved;
    total.doubts += counts.doubts;
    total.steps += counts.steps;
}

/// What happens in a seed, and how it ends.
fn trace(seed: u64, bug: Option<Bug>, run: &impl Fn(&Simulation, u64) -> Outcome) -> Vec<String> {
    let simulation = Simulation::new(seed, bug);
    simulation.keep_trace();
    let outcome = run(&simulation, seed);
    let mut trace = simulation.trace();
    trace.push(format!("{outcome:?}"));
    trace
}

/// The first of so many seeds that comes to a wrong end with a planted bug, and how.
fn found(bug: Bug, seeds: u64, run: impl Fn(&Simulation, u64) -> Outcome) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let simulation = Simulation::new(seed, Some(bug));
        run(&simulation, seed).err().map(|problem| (seed, problem))
    })
}
