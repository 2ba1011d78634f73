//! Sends what was planned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use driftline_emitter::uplink::{Delivery, deliver, http};
use driftline_emitter::{Batch, Device, DeviceConfig, HttpUplink, Reporting, Value};
use driftline_schemas::clock::{Clock as _, SystemClock};
use indicatif::{ProgressBar, ProgressStyle};

use super::plan::{Plan, Sender, Turn};
use super::{ReplayArgs, Replayed};

/// Threads that devices share: enough to hide the gateway's linger, few enough for a small machine.
const THREADS_MAX: usize = 16;
/// Longest that a row waits for its frame to fill when rows are paced.
const FLUSH: Duration = Duration::from_secs(1);
/// How often a thread that waits looks whether it is to stop.
const STOP_POLL: Duration = Duration::from_millis(100);

/// Sends all rows, each in its turn.
pub(super) fn drive(
    args: &ReplayArgs,
    plan: &Plan<'_>,
    quiet: bool,
    stop: &AtomicBool,
) -> Result<Replayed> {
    let threads = plan.senders.len().clamp(1, THREADS_MAX);
    let progress = progress(plan.turns.len() as u64, quiet);
    let started = Instant::now();
    let total = Mutex::new(Replayed::default());
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let (progress, total) = (&progress, &total);
                scope.spawn(move || {
                    let mut worker = Worker::new(args, plan, thread, threads, started, stop)?;
                    let worked = worker.work(progress);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    worker.add_to(&mut total);
                    worked
                })
            })
            .collect();
        let ended = handles.into_iter().map(|handle| match handle.join() {
            Ok(worked) => worked,
            Err(_) => bail!("a thread that drives devices ended early"),
        });
        ended.collect()
    });
    progress.finish_and_clear();
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.rows = plan.turns.len() as u64;
    total.devices = plan.senders.len() as u64;
    total.seconds = started.elapsed().as_secs_f64();
    let mut failed = results.into_iter().filter_map(Result::err);
    match failed.next() {
        // What was acknowledged before stands; the reason is said once.
        Some(error) => Err(error.context(format!(
            "{} of {} rows were acknowledged",
            total.acknowledged, total.rows
        ))),
        None => Ok(total),
    }
}

fn progress(rows: u64, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    // Drawn on standard error, and only where that is a terminal.
    let bar = ProgressBar::new(rows);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} rows, {per_sec}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// One device and the rows that it has not inferred yet.
struct Unit {
    device: Device,
    uplink: HttpUplink,
    batch: Batch,
    /// Row of the file for each row of the batch.
    rows: Vec<usize>,
}

/// A thread's devices.
struct Worker<'a> {
    args: &'a ReplayArgs,
    plan: &'a Plan<'a>,
    units: Vec<Option<Unit>>,
    turns: Vec<(usize, Turn)>,
    started: Instant,
    stop: &'a AtomicBool,
    /// Nothing is ever sent here: it is a wait that ends on time.
    never: std::sync::mpsc::Receiver<()>,
    _open: std::sync::mpsc::Sender<()>,
}

impl<'a> Worker<'a> {
    fn new(
        args: &'a ReplayArgs,
        plan: &'a Plan<'a>,
        thread: usize,
        threads: usize,
        started: Instant,
        stop: &'a AtomicBool,
    ) -> Result<Self> {
        let agent = http::agent();
        let units = plan
            .senders
            .iter()
            .enumerate()
            .map(|(at, sender)| {
                (at % threads == thread)
                    .then(|| unit(args, plan, sender, &agent))
                    .transpose()
            })
            .collect::<Result<Vec<_>>>()?;
        let (open, never) = std::sync::mpsc::channel();
        Ok(Self {
            args,
            plan,
            units,
            turns: plan
                .turns
                .iter()
                .copied()
                .enumerate()
                .filter(|(_, turn)| turn.sender % threads == thread)
                .collect(),
            started,
            stop,
            never,
            _open: open,
        })
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn work(&mut self, progress: &ProgressBar) -> Result<()> {
        let mut flushed = Instant::now();
        for (at, turn) in std::mem::take(&mut self.turns) {
            if self.args.rate > 0.0 {
                let due = Duration::from_secs_f64(at as f64 / self.args.rate);
                while self.started.elapsed() < due && !self.is_stopped() {
                    if flushed.elapsed() >= FLUSH {
                        self.flush(progress)?;
                        flushed = Instant::now();
                    }
                    let left = due.saturating_sub(self.started.elapsed());
                    let _ = self.never.recv_timeout(left.min(STOP_POLL));
                }
            }
            if self.is_stopped() {
                break;
            }
            if self.push(turn)? >= self.args.batch_rows.max(1) {
                self.send(turn.sender, progress)?;
            }
        }
        self.flush(progress)
    }

    /// Adds a row to its device's batch, which then has this many.
    fn push(&mut self, turn: Turn) -> Result<usize> {
        let values: Vec<Value<'_>> = self
            .plan
            .features
            .iter()
            .map(|data| data.value(turn.row))
            .collect();
        let time_us = turn.time_us.unwrap_or_else(|| SystemClock.now_us());
        let Some(unit) = &mut self.units[turn.sender] else {
            return Ok(0);
        };
        unit.batch
            .push(self.plan.runtime.encoders(), time_us, &values)?;
        unit.rows.push(turn.row);
        Ok(unit.batch.len())
    }

    fn flush(&mut self, progress: &ProgressBar) -> Result<()> {
        for sender in 0..self.units.len() {
            if self.units[sender]
                .as_ref()
                .is_some_and(|unit| !unit.batch.is_empty())
            {
                self.send(sender, progress)?;
            }
        }
        Ok(())
    }

    /// Infers a device's batch and sends it until it is acknowledged.
    fn send(&mut self, sender: usize, progress: &ProgressBar) -> Result<()> {
        let Some(unit) = &mut self.units[sender] else {
            return Ok(());
        };
        let name = std::sync::Arc::clone(&unit.device.origin().device);
        let rows = unit.batch.len();
        infer(self.args, self.plan, unit).with_context(|| format!("device {name}"))?;
        let patience = self.args.patience.duration();
        let (stop, never) = (self.stop, &self.never);
        let started = Instant::now();
        let mut wait = |span: Duration| {
            let until = started.elapsed() + span;
            while started.elapsed() < until {
                if stop.load(Ordering::SeqCst) || started.elapsed() > patience {
                    return false;
                }
                let left = until.saturating_sub(started.elapsed());
                let _ = never.recv_timeout(left.min(STOP_POLL));
            }
            true
        };
        let delivery = deliver(&mut unit.device, &mut unit.uplink, &SystemClock, &mut wait)
            .with_context(|| format!("device {name}"))?;
        progress.inc(rows as u64);
        match delivery {
            Delivery::Done => {}
            Delivery::Stopped if stop.load(Ordering::SeqCst) => {}
            Delivery::Stopped => bail!(
                "device {name}: nothing was acknowledged within {}: check that {} can be reached",
                self.args.patience,
                self.args.to
            ),
            Delivery::Denied { reason, .. } => {
                bail!("device {name}: the gateway does not let it in ({reason}): check its token")
            }
        }
        if let Some(refusal) = unit.device.refusals().last() {
            bail!(
                "device {name}: the gateway refused its rows ({})",
                refusal.reason
            );
        }
        Ok(())
    }

    fn add_to(&self, total: &mut Replayed) {
        for unit in self.units.iter().flatten() {
            let stats = unit.device.stats();
            total.acknowledged += stats.inferences_acknowledged;
            total.outcomes += stats.outcomes_acknowledged;
            total.rejected += stats.rows_rejected;
            total.refused += stats.rows_refused + stats.rows_of_refused_frames;
            total.frames += stats.frames_acknowledged;
            total.requests += stats.requests;
            total.retries += stats.retries;
            total.bytes += stats.bytes_sent;
        }
    }
}

fn unit(args: &ReplayArgs, plan: &Plan<'_>, sender: &Sender, agent: &http::Agent) -> Result<Unit> {
    let boot = rand::random();
    let config = DeviceConfig {
        frame_rows_max: args.batch_rows.max(1),
        reporting: match args.profiles {
            true => Reporting::PROFILES,
            false => Reporting::Rows,
        },
        ..DeviceConfig::new(sender.origin.clone(), boot)
    };
    Ok(Unit {
        device: Device::new(std::sync::Arc::clone(&plan.runtime), config),
        uplink: HttpUplink::sharing(agent, &args.to, &sender.token),
        batch: plan.runtime.batch(),
        rows: Vec::new(),
    })
}

fn infer(args: &ReplayArgs, plan: &Plan<'_>, unit: &mut Unit) -> Result<()> {
    let now_us = SystemClock.now_us();
    let inferred = unit.device.infer(&unit.batch, now_us)?;
    if let Some(label) = plan.label {
        for (at, id) in inferred.ids.iter().enumerate() {
            let truth = label.value(unit.rows[at]);
            if truth != Value::Missing {
                let observed_us = unit.batch.times_us()[at].saturating_add(args.label_after.us());
                unit.device.outcome(*id, truth, observed_us, now_us)?;
            }
        }
    }
    unit.batch.clear();
    unit.rows.clear();
    Ok(())
}
