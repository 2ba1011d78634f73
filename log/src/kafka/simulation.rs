//! Stages under a seeded simulator: the real loop ([`crate::runner`]), the real decisions about a
//! transaction's outcome (`decide`) and the real rules of what a member holds (`holdings`), on a broker, a
//! network and a clock that a seed makes. Everything runs on one thread, so that a seed is a run.
//!
//! # What goes wrong
//!
//! - Processes are killed in the middle of any request, and start again; they leave and join.
//! - Requests are lost; replies are lost, so that the client asks again; a copy that was given up comes to
//!   the broker up to half a minute later, when the next transaction may have begun.
//! - A process stands still within a step (`SIGSTOP`) until others have its partitions, and goes on; or its
//!   network is slow while it stays in its group.
//! - The clock that stages take time from is stepped back an hour, now and then.
//! - Records of devices come in any order, late and twice: that is up to who calls
//!   [`Simulation::arrives`].
//!
//! Time passes only here. While a process waits, others run: the simulator takes turns of theirs from
//! within its call.
//!
//! # What is modelled, and what is not
//!
//! The broker (`broker`, `group`) knows transactions, last stable offsets, groups of the classic protocol and
//! the fencing of both; it never fails itself. Groups deal out partitions one by one, and in a quarter of the
//! seeds everything at once; what librdkafka does of it in the background is `session`. A member (`member`) does what the one on Kafka does, call by
//! call, with librdkafka's own repeating of requests; so what is found here is found in the logic, not in
//! the code that calls librdkafka, which the tests on a real broker cover.
//!
//! # Planted bugs
//!
//! [`Bug`] makes a member forget one thing. A simulator that does not find them would show nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driftline_schemas::clock::HOUR_US;

use super::lock;
use crate::api::{Log, Output, StageSpec};
use crate::runner::turn::{Turn, Turns};
use crate::runner::{Runner, Stage, StageError};

mod broker;
mod group;
mod log;
mod member;
mod network;
mod random;
mod session;
mod step;

use broker::{Broker, Request};
pub use log::SimulatedLog;
pub use random::Random;
use session::Session;

/// Where the simulated clock begins: 2026-01-05 00:00 UTC.
pub const BEGIN_US: i64 = 1_767_571_200_000_000;
/// Turns after which a run that does not come to rest has failed.
const TURNS_MAX: u64 = 20_000;
/// A run is at rest when every stage has had everything for this long: enough for what comes by the clock to
/// have come, less than the time between two watermarks.
const REST_MS: u64 = 8_000;
/// Times that the clock is stepped back in one run.
const CLOCK_STEPS_MAX: u64 = 2;
/// One seed in so many deals out everything anew at every change, as stages with several inputs do.
const EAGER_SEEDS: u64 = 4;
/// A process that ended starts again after this at most.
const RESTART_MS: u64 = 5_000;

/// What a member forgets on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Now and then a step commits its outputs without one of its offsets.
    DroppedOffset,
    /// What an aborted step wanted to write is kept and written with the next one as well.
    DoubledDelta,
    /// A step is committed as the group knows the member when it is written, not as it knew it when the
    /// partitions were assigned: one that was thrown out in between counts as nobody's.
    ZombieWrite,
    /// An answer to a commit is taken at its word, however late.
    StrayEnd,
    /// A step that was refused because its member was put out of the group, and of whose partitions others have
    /// become the owners, is written all the same, as of the generation in which the member is back.
    LostWrite,
    /// Only the end of a transaction is held against the clock: what was left behind before it is not
    /// thought of.
    LateGuard,
}

/// How often what goes wrong, in a thousand requests or turns.
#[derive(Debug, Clone, Copy)]
struct Chaos {
    crash: u64,
    leave: u64,
    stall: u64,
    lost: u64,
    /// In ten thousand, since an hour is long.
    clock: u64,
}

const CHAOS: Chaos = Chaos {
    crash: 8,
    leave: 6,
    stall: 12,
    lost: 40,
    clock: 20,
};
const CALM: Chaos = Chaos {
    crash: 0,
    leave: 0,
    stall: 0,
    lost: 0,
    clock: 0,
};

/// Stage and instance.
type Name = (Arc<str>, Arc<str>);

struct World {
    random: Random,
    /// Time that only passes.
    now_ms: u64,
    /// How far the clock that stages see was stepped back.
    back_us: i64,
    chaos: Chaos,
    bug: Option<Bug>,
    /// Groups deal out everything anew at every change, not one by one.
    eager: bool,
    broker: Broker,
    sessions: BTreeMap<Name, Session>,
    /// Requests that were given up and still come, by when.
    strays: Vec<(u64, Request)>,
    arrivals: VecDeque<(u64, Output)>,
    trace: Option<Vec<String>>,
    counts: Counts,
}

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Turns of processes.
    pub turns: u64,
    /// Processes killed.
    pub crashes: u64,
    /// Processes that left their group and joined again.
    pub leaves: u64,
    /// Times that a process stood still.
    pub stalls: u64,
    /// Requests or replies that were lost.
    pub lost: u64,
    /// Copies that came after they were given up.
    pub strays: u64,
    /// Times that the clock was stepped back.
    pub clock_steps: u64,
    /// Steps that were refused because their partitions were others'.
    pub fenced: u64,
    /// Steps that were refused because a generation had passed, and written in the next.
    pub renewed: u64,
    /// Partitions that were given up one by one, while others were kept.
    pub moved: u64,
    /// Commits in doubt.
    pub doubts: u64,
    /// Steps that were committed.
    pub steps: u64,
}

impl World {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        let now_ms = self.now_ms;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now_ms:>7} {}", what()));
        }
    }

    /// Lets time pass for the broker, the network and the members' background threads.
    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        let now_ms = self.now_ms;
        while self.arrivals.front().is_some_and(|(at, _)| *at <= now_ms) {
            if let Some((_, output)) = self.arrivals.pop_front() {
                self.broker.append(output);
            }
        }
        let mut at = 0;
        while at < self.strays.len() {
            if self.strays[at].0 > now_ms {
                at += 1;
                continue;
            }
            let (_, request) = self.strays.swap_remove(at);
            self.counts.strays += 1;
            let answer = self.broker.answer(request.clone(), &mut self.random);
            self.tell(|| format!("stray {request:?}: {answer:?}"));
        }
        for ((stage, _), session) in &mut self.sessions {
            session.beat(&mut self.broker, stage);
        }
        self.broker.tick(now_ms);
    }

    fn session(&mut self, name: &Name) -> &mut Session {
        self.sessions.entry(name.clone()).or_default()
    }
}

type MakeStage = dyn Fn() -> Result<Box<dyn Stage>, StageError> + Send;

struct Process {
    spec: StageSpec,
    make: Box<MakeStage>,
    /// `None` while it is down.
    life: Option<Turns<Box<dyn Stage>>>,
    starts_ms: u64,
}

/// What the log, the members and the simulation share.
struct Shared {
    world: Mutex<World>,
    /// One that is in the middle of its turn is `None`.
    processes: Mutex<Vec<Option<Process>>>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Lets time pass, and others run meanwhile.
    fn wait(self: &Arc<Self>, ms: u64) -> Result<(), String> {
        let mut left = ms;
        while left > 0 {
            let some = left.min(400);
            self.world().pass(some);
            left -= some;
            self.one_turn()?;
        }
        Ok(())
    }

    /// A turn of a process that is not in one.
    fn one_turn(self: &Arc<Self>) -> Result<(), String> {
        let taken = {
            let mut processes = lock(&self.processes);
            let mut world = self.world();
            let free: Vec<usize> = (0..processes.len())
                .filter(|at| processes[*at].is_some())
                .collect();
            let at = match free.len() {
                0 => return Ok(()),
                count => free[world.random.below(count as u64) as usize],
            };
            processes[at].take().map(|process| (at, process))
        };
        let Some((at, mut process)) = taken else {
            return Ok(());
        };
        let result = self.turn_of(&mut process);
        lock(&self.processes)[at] = Some(process);
        result
    }

    fn turn_of(self: &Arc<Self>, process: &mut Process) -> Result<(), String> {
        let name = (
            Arc::clone(&process.spec.name),
            Arc::clone(&process.spec.instance),
        );
        let Some(life) = &mut process.life else {
            return self.start(process, &name);
        };
        {
            let mut world = self.world();
            world.counts.turns += 1;
            let chaos = world.chaos;
            let steps = world.random.below(10_000) < chaos.clock;
            if steps && world.counts.clock_steps < CLOCK_STEPS_MAX {
                world.back_us += HOUR_US;
                world.counts.clock_steps += 1;
                world.tell(|| "the clock goes back an hour".to_owned());
            }
            if world.random.per_mille(chaos.leave) {
                world.counts.leaves += 1;
                world.tell(|| format!("{name:?} leaves"));
                drop(world);
                self.end(process);
                return Ok(());
            }
        }
        let turn = life.turn();
        if self.world().session(&name).crashed {
            self.world().counts.crashes += 1;
            self.end(process);
            return Ok(());
        }
        match turn {
            Ok(Turn::Quiet | Turn::Busy) => Ok(()),
            Err(error) => Err(format!("{name:?} gave up: {error}")),
        }
    }

    fn end(&self, process: &mut Process) {
        process.life = None;
        let mut world = self.world();
        process.starts_ms = world.now_ms + world.random.below(RESTART_MS);
    }

    fn start(self: &Arc<Self>, process: &mut Process, name: &Name) -> Result<(), String> {
        {
            let mut world = self.world();
            if world.now_ms < process.starts_ms {
                return Ok(());
            }
            world.tell(|| format!("{name:?} starts"));
        }
        let log = Arc::new(SimulatedLog {
            shared: Arc::clone(self),
        });
        let mut runner = Runner::new(Arc::clone(&log) as Arc<dyn Log>, log);
        runner.options.linger = Duration::ZERO;
        runner.options.idle_tick = Duration::ZERO;
        runner.options.pause_min = Duration::ZERO;
        runner.options.pause_max = Duration::ZERO;
        let stage = (process.make)().map_err(|error| error.to_string())?;
        match Turns::join(&runner, process.spec.clone(), stage) {
            Ok(life) => process.life = Some(life),
            // As a supervisor would, later.
            Err(error) => {
                self.world().tell(|| format!("{name:?}: {error}"));
                self.end(process);
            }
        }
        Ok(())
    }
}

/// A run that a seed makes.
pub struct Simulation {
    shared: Arc<Shared>,
    seed: u64,
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

impl Simulation {
    /// An empty log, nobody running.
    #[must_use]
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let world = World {
            random: Random::new(seed),
            now_ms: 0,
            back_us: 0,
            chaos: CHAOS,
            bug,
            eager: seed % EAGER_SEEDS == EAGER_SEEDS - 1,
            broker: Broker::default(),
            sessions: BTreeMap::new(),
            strays: Vec::new(),
            arrivals: VecDeque::new(),
            trace: None,
            counts: Counts::default(),
        };
        let shared = Shared {
            world: Mutex::new(world),
            processes: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            seed,
        }
    }

    /// Keeps what happens, for [`Simulation::trace`].
    pub fn keep_trace(&self) {
        self.shared.world().trace = Some(Vec::new());
    }

    /// Nothing goes wrong: the run that others are held against.
    pub fn calm(&self) {
        self.shared.world().chaos = CALM;
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> Arc<SimulatedLog> {
        Arc::new(SimulatedLog {
            shared: Arc::clone(&self.shared),
        })
    }

    /// Adds a process that runs one stage; `make` makes the stage whenever it starts.
    pub fn process(
        &self,
        spec: StageSpec,
        make: impl Fn() -> Result<Box<dyn Stage>, StageError> + Send + 'static,
    ) {
        lock(&self.shared.processes).push(Some(Process {
            spec,
            make: Box::new(make),
            life: None,
            starts_ms: 0,
        }));
    }

    /// Records that come to the log from outside, by simulated milliseconds.
    pub fn arrives(&self, mut records: Vec<(u64, Output)>) {
        records.sort_by_key(|(at_ms, _)| *at_ms);
        self.shared.world().arrivals = records.into();
    }

    /// Runs until everything has come and `chaos_ms` are over; then nothing goes wrong any more, and it
    /// runs on until nobody has anything to do.
    ///
    /// # Errors
    /// When a stage gives up, or the run does not come to rest.
    pub fn run(&self, chaos_ms: u64) -> Result<Counts, String> {
        let shared = &self.shared;
        let mut rests_since_ms = None;
        loop {
            let mut world = shared.world();
            // Nothing is to be missed while everything rests.
            let most_ms = if rests_since_ms.is_some() { 400 } else { 60 };
            let ms = world.random.below(most_ms);
            world.pass(ms);
            if world.now_ms >= chaos_ms && world.arrivals.is_empty() {
                world.chaos = CALM;
            }
            let over = world.chaos.lost == 0 && world.strays.is_empty();
            let now_ms = world.now_ms;
            if world.counts.turns > TURNS_MAX {
                return Err(format!(
                    "not at rest after {TURNS_MAX} turns: {:?}",
                    world.counts
                ));
            }
            drop(world);
            shared.one_turn()?;
            if !over || !self.has_all() {
                rests_since_ms = None;
            } else if now_ms - *rests_since_ms.get_or_insert(now_ms) >= REST_MS {
                return Ok(shared.world().counts);
            }
        }
    }

    /// Whether every stage has committed past every record.
    fn has_all(&self) -> bool {
        let processes = lock(&self.shared.processes);
        let specs: Vec<StageSpec> = processes.iter().flatten().map(|p| p.spec.clone()).collect();
        drop(processes);
        let mut world = self.shared.world();
        if !world.arrivals.is_empty() {
            return false;
        }
        for spec in &specs {
            for topic in &spec.inputs {
                let partitions = world.broker.topic(topic).map_or(0, |spec| spec.partitions);
                for partition in 0..partitions {
                    let at = (Arc::clone(topic), partition);
                    let next = world.broker.committed(&spec.name, &at);
                    let Ok(next) = next else { return false };
                    let from = next.map_or(0, |(next, _)| next);
                    let (written, stable) = world.broker.ends(&at);
                    if stable < written || !world.broker.read(&at, from, 1).0.is_empty() {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// What happened so far, where it is kept.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.shared.world().trace.clone().unwrap_or_default()
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // They hold the log, which holds them.
        let processes = std::mem::take(&mut *lock(&self.shared.processes));
        drop(processes);
    }
}
