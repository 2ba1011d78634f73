//! Runs an estate on a clock that waits for it.
//!
//! Simulated time goes in ticks. Within a tick every unit that is due measures what it missed since
//! its last report, infers, and sends until it is acknowledged; only then does the clock go on. So
//! rows are never late because the machine was busy, and the same seed tells the same story at any
//! speed. The clock goes no faster than it was told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use driftline_emitter::device::{Device, DeviceConfig, DeviceError, Latency, Runtime, Stats};
use driftline_emitter::features::Value;
use driftline_emitter::uplink::{Delivery, Uplink, deliver};
use driftline_schemas::clock::{Clock, MINUTE_US};
use driftline_schemas::source::Role;

use crate::estate::{Estate, Unit};
use crate::fault::{Fault, FaultKind};
use crate::world::{self, CLASSES, FEATURES};

/// Length of a tick, microseconds: what comes in within it comes in at one time.
const TICK_US: i64 = 10 * MINUTE_US;
/// Units that send at the same time.
const SENDERS: usize = 8;
/// Longest that a unit tries to send one report, in real time.
const SEND_DEADLINE: Duration = Duration::from_secs(120);
/// Stream of a unit's present.
const PRESENT: u64 = 2;

/// Simulated time, which goes on only when its driver lets it.
#[derive(Debug)]
pub struct PacedClock {
    now_us: AtomicI64,
    factor: f64,
}

impl PacedClock {
    /// Stands at `start_us`; `factor` is how many simulated seconds a real one is worth, above 0.
    pub fn new(start_us: i64, factor: f64) -> Self {
        Self {
            now_us: AtomicI64::new(start_us),
            factor: factor.max(1e-6),
        }
    }

    /// Goes on to `now_us`, never back.
    pub fn advance_to(&self, now_us: i64) {
        self.now_us.fetch_max(now_us, Ordering::SeqCst);
    }
}

impl Clock for PacedClock {
    fn now_us(&self) -> i64 {
        self.now_us.load(Ordering::SeqCst)
    }

    fn real(&self, span_us: i64) -> Duration {
        Duration::from_secs_f64(span_us.max(0) as f64 / 1e6 / self.factor)
    }
}

/// Simulated time at the start of a report, and real time from there on, for pauses between attempts.
struct AttemptClock {
    base_us: i64,
    started: Instant,
}

impl Clock for AttemptClock {
    fn now_us(&self) -> i64 {
        self.base_us + self.started.elapsed().as_micros() as i64
    }
}

/// Why a simulation ended early.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A device failed.
    #[error("device {device}: {source}")]
    Device {
        /// The device.
        device: String,
        /// Why.
        source: DeviceError,
    },
    /// The gateway did not take a report.
    #[error("device {device}: the gateway did not take its report: {problem}")]
    Refused {
        /// The device.
        device: String,
        /// Why.
        problem: String,
    },
}

/// What a simulation sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Driven {
    /// Inference rows acknowledged.
    pub rows: u64,
    /// Outcome rows acknowledged.
    pub outcomes: u64,
    /// Frames acknowledged.
    pub frames: u64,
    /// Requests made again.
    pub retries: u64,
    /// Rows that were lost to a full spool or refused for good.
    pub refused: u64,
    /// Bytes of the requests' bodies.
    pub bytes: u64,
}

impl Driven {
    fn add(&mut self, stats: &Stats) {
        self.rows += stats.inferences_acknowledged;
        self.outcomes += stats.outcomes_acknowledged;
        self.frames += stats.frames_acknowledged;
        self.retries += stats.retries;
        self.refused += stats.rows_refused + stats.rows_of_refused_frames;
        self.bytes += stats.bytes_sent;
    }
}

fn device(runtime: &Arc<Runtime>, unit: &Unit, boot: u64) -> Device {
    let mut config = DeviceConfig::new(unit.origin.clone(), boot);
    // What the registry knows of the unit, so that frames need not repeat it.
    config.declared = Some(unit.origin.clone());
    config.latency = Latency::Fixed(850);
    Device::new(Arc::clone(runtime), config)
}

/// An estate under way.
pub struct Drive {
    clock: Arc<PacedClock>,
    start_us: i64,
    faults: Vec<Fault>,
    units: Vec<Running>,
}

/// What the units' clocks say when they send.
type SendClock = Option<Arc<dyn Clock>>;

struct Running {
    unit: Unit,
    /// `None`: simulated time.
    sends_at: SendClock,
    device: Device,
    uplink: Box<dyn Uplink + Send>,
    world: world::Unit,
    sample_us: i64,
    next_sample_us: i64,
    next_report_us: i64,
    /// What each stuck sensor repeats.
    stuck: BTreeMap<usize, f64>,
}

impl Drive {
    /// Boots all units at the clock's present. `uplink` makes each its way to the gateway.
    ///
    /// Boots are numbered by the seed, so that a run can be repeated.
    pub fn new(
        estate: &Estate,
        runtime: &Arc<Runtime>,
        clock: Arc<PacedClock>,
        faults: Vec<Fault>,
        mut uplink: impl FnMut(&Unit) -> Box<dyn Uplink + Send>,
    ) -> Self {
        let start_us = clock.now_us();
        let units = estate
            .units
            .iter()
            .map(|unit| {
                let boot = estate.config.seed.wrapping_mul(1_000_003) + unit.index as u64;
                Running {
                    device: device(runtime, unit, boot),
                    uplink: uplink(unit),
                    world: world::Unit::new(estate.config.seed, unit.index, PRESENT),
                    sample_us: estate.config.sample_us,
                    next_sample_us: start_us,
                    next_report_us: start_us + unit.phase_us + unit.report_us,
                    stuck: BTreeMap::new(),
                    unit: unit.clone(),
                    sends_at: None,
                }
            })
            .collect();
        Self {
            clock,
            start_us,
            faults,
            units,
        }
    }

    /// Lets the units send a past as a backlog: what they measure has simulated time, but they send it
    /// by another clock, that of the gateway, whose bound on wrong clocks would refuse them otherwise.
    /// `boot` tells this run from others of the same seed.
    #[must_use]
    pub fn as_backlog(mut self, sends_at: &Arc<dyn Clock>, boot: u64) -> Self {
        for running in &mut self.units {
            let boot = boot.wrapping_add(running.unit.index as u64);
            running.device = device(running.device.runtime(), &running.unit, boot);
            running.sends_at = Some(Arc::clone(sends_at));
        }
        self
    }

    /// Runs until `end_us`, or until `stop` says so. `each_tick` is told the time.
    ///
    /// # Errors
    /// [`DriveError`] names the device.
    pub fn run(
        &mut self,
        end_us: i64,
        stop: &AtomicBool,
        mut each_tick: impl FnMut(i64),
    ) -> Result<(), DriveError> {
        let (started, began_us) = (Instant::now(), self.clock.now_us());
        while self.clock.now_us() < end_us && !stop.load(Ordering::Relaxed) {
            let tick_us = (self.clock.now_us() + TICK_US).min(end_us);
            self.clock.advance_to(tick_us);
            self.report_due(tick_us)?;
            each_tick(tick_us);
            let due = started + self.clock.real(tick_us - began_us);
            std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    /// Lets every unit send what it still holds, whether it is its time or not.
    ///
    /// # Errors
    /// [`DriveError`] names the device.
    pub fn flush(&mut self) -> Result<(), DriveError> {
        let now_us = self.clock.now_us();
        for running in &mut self.units {
            running.send(now_us)?;
        }
        Ok(())
    }

    /// What was sent so far.
    pub fn driven(&self) -> Driven {
        let mut driven = Driven::default();
        for running in &self.units {
            driven.add(running.device.stats());
        }
        driven
    }

    fn report_due(&mut self, now_us: i64) -> Result<(), DriveError> {
        let (faults, start_us) = (&self.faults, self.start_us);
        let mut due: Vec<&mut Running> = self
            .units
            .iter_mut()
            .filter(|running| running.next_report_us <= now_us)
            .collect();
        let share = due.len().div_ceil(SENDERS).max(1);
        std::thread::scope(|scope| {
            let senders: Vec<_> = due
                .chunks_mut(share)
                .map(|units| {
                    scope.spawn(move || {
                        units
                            .iter_mut()
                            .try_for_each(|running| running.report(faults, start_us, now_us))
                    })
                })
                .collect();
            senders
                .into_iter()
                .try_for_each(|sender| match sender.join() {
                    Ok(result) => result,
                    // The sender's panic is this thread's, with its message.
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })
    }
}

impl Running {
    fn report(&mut self, faults: &[Fault], start_us: i64, now_us: i64) -> Result<(), DriveError> {
        let mine: Vec<&Fault> = faults
            .iter()
            .filter(|fault| fault.hits(&self.unit.origin))
            .collect();
        self.measure(&mine, start_us, now_us)?;
        while self.next_report_us <= now_us {
            self.next_report_us += self.unit.report_us;
        }
        let offline = mine.iter().any(|fault| {
            matches!(fault.kind, FaultKind::Offline { .. }) && fault.is_on(now_us - start_us)
        });
        if offline { Ok(()) } else { self.send(now_us) }
    }

    /// What the unit's clock says.
    fn clock_us(&self, simulated_us: i64) -> i64 {
        self.sends_at
            .as_ref()
            .map_or(simulated_us, |clock| clock.now_us())
    }

    /// Takes all samples up to now, infers them as one batch, and, on a probe, reports the truth.
    fn measure(&mut self, faults: &[&Fault], start_us: i64, now_us: i64) -> Result<(), DriveError> {
        let failed = |device: &Device, source| DriveError::Device {
            device: device.origin().device.to_string(),
            source,
        };
        let runtime = Arc::clone(self.device.runtime());
        let mut batch = runtime.batch();
        let mut truths = Vec::new();
        while self.next_sample_us <= now_us {
            let at_us = self.next_sample_us;
            self.next_sample_us += self.sample_us;
            let (shift, flip) = world_of(faults, at_us - start_us);
            let reading = self.world.next(at_us, &shift, flip);
            let values = self.sensed(faults, at_us - start_us, reading.values);
            let values = values.map(Value::Number);
            batch
                .push(runtime.encoders(), at_us, &values)
                .map_err(|error| failed(&self.device, error.into()))?;
            truths.push((reading.truth, at_us));
        }
        let now_us = self.clock_us(now_us);
        let inferred = self
            .device
            .infer(&batch, now_us)
            .map_err(|error| failed(&self.device, error))?;
        if self.unit.origin.role == Role::Probe {
            for (id, (truth, at_us)) in inferred.ids.iter().zip(truths) {
                self.device
                    .outcome(*id, Value::Text(CLASSES[truth]), at_us, now_us)
                    .map_err(|error| failed(&self.device, error))?;
            }
        }
        Ok(())
    }

    /// What the sensors read: a stuck one repeats what it read when it got stuck.
    fn sensed(
        &mut self,
        faults: &[&Fault],
        since_us: i64,
        mut values: [f64; FEATURES],
    ) -> [f64; FEATURES] {
        for fault in faults.iter().filter(|fault| fault.is_on(since_us)) {
            if let FaultKind::StuckSensor { feature } = fault.kind {
                values[feature] = *self.stuck.entry(feature).or_insert(values[feature]);
            }
        }
        values
    }

    fn send(&mut self, now_us: i64) -> Result<(), DriveError> {
        let clock = AttemptClock {
            base_us: self.clock_us(now_us),
            started: Instant::now(),
        };
        let name = self.unit.origin.device.to_string();
        let mut wait = |pause: Duration| {
            std::thread::park_timeout(pause);
            clock.started.elapsed() < SEND_DEADLINE
        };
        match deliver(&mut self.device, &mut *self.uplink, &clock, &mut wait) {
            Ok(Delivery::Done) => Ok(()),
            Ok(Delivery::Stopped) => Err(DriveError::Refused {
                device: name,
                problem: format!("not acknowledged within {} s", SEND_DEADLINE.as_secs()),
            }),
            Ok(Delivery::Denied { status, reason }) => Err(DriveError::Refused {
                device: name,
                problem: format!("{status}: {reason}"),
            }),
            Err(source) => Err(DriveError::Device {
                device: name,
                source,
            }),
        }
    }
}

/// What faults do to the world itself at a time since the start: shifts in `sd`, and the flip.
fn world_of(faults: &[&Fault], since_us: i64) -> ([f64; FEATURES], bool) {
    let mut shift = [0.0; FEATURES];
    let mut flip = false;
    for fault in faults.iter().filter(|fault| fault.is_on(since_us)) {
        match fault.kind {
            FaultKind::InputShift { feature, sd } => shift[feature] += sd,
            FaultKind::ConceptFlip => flip = !flip,
            FaultKind::StuckSensor { .. } | FaultKind::Offline { .. } => {}
        }
    }
    (shift, flip)
}
