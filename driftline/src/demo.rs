//! `driftline demo`: the whole system on a simulated estate, in one process.
//!
//! A healthy estate starts, faults are injected, and what the pipeline found is held against what was
//! injected. The pipeline is the one of `serve`, with `serve`'s defaults; only its addresses and its
//! clock are the demo's. It ends with exit code 1 when what was found is not what was injected.
//!
//! # Layout
//!
//! - here: the course of a demo
//! - [`bundle`]: the model of the simulated boilers, packed from a simulated past
//! - [`verdict`]: what was injected against what was found

pub(crate) mod bundle;
mod verdict;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use driftline_alerting::config::Route;
use driftline_emitter::device::Runtime;
use driftline_emitter::uplink::http::{HttpUplink, agent};
use driftline_lake::Lake;
use driftline_queries::{Format, Session, answer};
use driftline_schemas::clock::{Clock, DAY_US, HOUR_US, MINUTE_US};
use driftline_schemas::units::Span;
use driftline_simulator::{Drive, Driven, Estate, EstateConfig, Fault, PacedClock};

use crate::config::{Config, LogConfig};
use crate::control::{self, Command, Scope};
use crate::output::OutputFormat;
use crate::pipeline::{self, Pipeline};
use crate::receiver::Receiver;
use verdict::{Rows, Summary};

/// When the simulated present begins: Monday, 2026-01-05, midnight UTC.
const START_US: i64 = 1_767_571_200_000_000;
/// Simulated time of the whole demo.
const SIMULATED_US: i64 = 5 * DAY_US;
/// Simulated time before faults begin.
const HEALTHY_US: i64 = 2 * DAY_US + 12 * HOUR_US;
/// Simulated time after the last report, in which windows close; shorter than any device is patient.
const CLOSING_US: i64 = 90 * MINUTE_US;
/// Longest, in real time, that the stages may take to come to the end of the log.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How long everything must have been read before the demo believes that nothing follows.
const DRAINED_FOR: Duration = Duration::from_secs(2);
/// Marks a folder that a demo made and may empty.
const MARKER: &str = ".driftline-demo";

/// Arguments of `driftline demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// How long the simulation should run, in real time; it takes longer when the machine is slow.
    #[arg(long = "for", default_value = "60s")]
    length: Span,
    /// Decides the estate and the faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kafka broker in place of the embedded log.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// `default` (one of each kind, drawn from the seed), `none`, or KIND@AFTER,key=value,… for each
    /// fault (separated by spaces).
    #[arg(long, default_value = "default")]
    faults: String,
}

/// Tells a person what is going on; silent when JSON is asked for.
struct Teller {
    quiet: bool,
    started: Instant,
}

impl Teller {
    fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("[{:5.1} s] {text}", self.started.elapsed().as_secs_f64());
        }
    }
}

/// Runs the demo; `Ok(false)` when what was found is not what was injected.
///
/// # Errors
/// When it could not be run to its end.
pub(crate) async fn run(
    args: DemoArgs,
    dir: Option<&Path>,
    format: OutputFormat,
    quiet: bool,
) -> anyhow::Result<bool> {
    let teller = Teller {
        quiet: quiet || format == OutputFormat::Json,
        started: Instant::now(),
    };
    let dir = fresh_dir(dir)?;
    let estate = Estate::new(EstateConfig {
        seed: args.seed,
        ..EstateConfig::default()
    });
    let faults = faults(&args.faults, &estate)?;
    teller.say(&format!(
        "an estate of {} devices and probes at 8 sites; packing its model from four simulated weeks",
        estate.units.len()
    ));
    let bundle_dir = dir.join("bundle");
    let bundle = {
        let (estate, dir) = (estate.clone(), bundle_dir.clone());
        tokio::task::spawn_blocking(move || bundle::make(&estate, START_US, &dir)).await??
    };
    let receiver = Receiver::start().await?;
    let config = config(&args, &dir, &receiver);
    let factor = SIMULATED_US as f64 / args.length.us().max(1) as f64;
    let clock = Arc::new(PacedClock::new(START_US, factor));
    let log = {
        let (config, dir) = (config.clone(), dir.clone());
        tokio::task::spawn_blocking(move || pipeline::open_log(&config, &dir)).await??
    };
    let pipeline = Pipeline::start(
        &config,
        &dir,
        Arc::clone(&log),
        Arc::clone(&clock) as Arc<dyn Clock>,
    )
    .await?;
    let scope = Scope {
        log,
        registry: Arc::clone(&pipeline.registry),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
    };
    let tokens = register(&scope, &estate, &bundle_dir).await?;
    let address = pipeline.address().context("the gateway does not run")?;
    teller.say(&format!(
        "gateway at http://{address}, webhooks to {}",
        receiver.url()
    ));

    let agent = agent();
    let base = format!("http://{address}");
    let runtime = Runtime::load(Arc::new(bundle))?;
    let mut drive = Drive::new(
        &estate,
        &runtime,
        Arc::clone(&clock),
        faults.clone(),
        |unit| Box::new(HttpUplink::sharing(&agent, &base, &tokens[unit.index])),
    );
    let driven = simulate(&mut drive, &clock, &faults, &pipeline, &receiver, &teller).await?;
    drain(&pipeline, &receiver, &teller).await?;

    let lake = Lake::new(&config.lake(&dir));
    let session = Session::open(lake).await?;
    let rows = Rows::count(&session, driven.rows).await?;
    let alerts = verdict::alerts(&*pipeline.log)?;
    let summary = Summary::new(
        args.seed,
        &dir,
        rows,
        &estate,
        &faults,
        START_US,
        &alerts,
        &receiver.counts(),
    );
    pipeline.stop().await?;
    if format == OutputFormat::Json {
        crate::output::write(&serde_json::to_value(&summary)?, format)?;
    } else {
        show(&session, &summary, &dir, &driven).await?;
    }
    Ok(summary.matches())
}

/// The folder of the demo, empty.
fn fresh_dir(dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = dir.map_or_else(|| PathBuf::from("driftline-data/demo"), Path::to_owned);
    let named = || format!("folder {}", dir.display());
    if dir.join(MARKER).exists() {
        std::fs::remove_dir_all(&dir).with_context(named)?;
    } else if dir
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        bail!(
            "{} is not empty and no demo made it; name another with --dir",
            named()
        );
    }
    std::fs::create_dir_all(&dir).with_context(named)?;
    std::fs::write(
        dir.join(MARKER),
        "made by `driftline demo`, which may empty this folder\n",
    )
    .with_context(named)?;
    Ok(dir.canonicalize()?)
}

fn faults(text: &str, estate: &Estate) -> anyhow::Result<Vec<Fault>> {
    match text {
        "none" => Ok(Vec::new()),
        "default" => Ok(Fault::drawn(estate, HEALTHY_US)),
        text => text
            .split_whitespace()
            .map(|fault| Ok(fault.parse()?))
            .collect(),
    }
}

/// `serve`'s defaults, at the demo's addresses.
fn config(args: &DemoArgs, _dir: &Path, receiver: &Receiver) -> Config {
    let mut config = Config {
        log: LogConfig {
            kafka: args.kafka.clone(),
            // So that a broker that has seen a demo before does not mix it with this one.
            prefix: format!("driftline-demo-{}-{:08x}.", args.seed, std::process::id()),
            ..LogConfig::default()
        },
        ..Config::default()
    };
    config.gateway.listen.set_port(0);
    config.alerting.routes = vec![Route {
        name: "demo".into(),
        url: receiver.url(),
        secret_file: Some(receiver.secret_file()),
        kinds: Vec::new(),
        timeout: Span::from_secs(15),
        give_up_after: Span::from_secs(60),
    }];
    config
}

/// Registers the bundle and all devices; their tokens by index.
async fn register(scope: &Scope, estate: &Estate, bundle: &Path) -> anyhow::Result<Vec<String>> {
    let (scope, estate, path) = (scope.clone(), estate.clone(), bundle.to_owned());
    tokio::task::spawn_blocking(move || {
        let tenant = estate.config.tenant.clone();
        control::execute(&scope, Command::ModelRegister { tenant, path })?;
        estate
            .units
            .iter()
            .map(|unit| {
                let origin = unit.origin.clone();
                let answer = control::execute(&scope, Command::DeviceAdd { origin })?;
                let token = answer["token"]
                    .as_str()
                    .context("a device without a token")?;
                Ok(token.to_owned())
            })
            .collect()
    })
    .await?
}

/// Runs the simulation on a thread of its own, and tells of alerts as they come.
async fn simulate(
    drive: &mut Drive,
    clock: &Arc<PacedClock>,
    faults: &[Fault],
    pipeline: &Pipeline,
    receiver: &Receiver,
    teller: &Teller,
) -> anyhow::Result<Driven> {
    let stop = AtomicBool::new(false);
    let faults_told = AtomicBool::new(faults.is_empty());
    let days = std::sync::atomic::AtomicI64::new(0);
    let mut told = 0;
    let mut each_tick = |now_us: i64| {
        let day = (now_us - START_US) / DAY_US;
        if days.swap(day, Ordering::Relaxed) < day {
            teller.say(&format!("day {day} is over"));
        }
        if now_us - START_US >= HEALTHY_US && !faults_told.swap(true, Ordering::Relaxed) {
            for fault in faults {
                teller.say(&format!(
                    "injected: {} at {}",
                    fault.kind.name(),
                    fault.scope()
                ));
            }
        }
        for webhook in receiver.since(told) {
            told += 1;
            teller.say(&webhook);
        }
        if let Some(role) = pipeline.ended() {
            teller.say(&format!("{role} has ended by itself"));
            stop.store(true, Ordering::Relaxed);
        }
    };
    let end_us = START_US + SIMULATED_US;
    tokio::task::block_in_place(|| -> anyhow::Result<()> {
        drive.run(end_us, &stop, &mut each_tick)?;
        drive.flush()?;
        // The day after: nobody reports any more, and windows close.
        let pause = clock.real(10 * MINUTE_US).max(Duration::from_millis(20));
        let mut now_us = end_us;
        while now_us < end_us + CLOSING_US {
            now_us += 10 * MINUTE_US;
            clock.advance_to(now_us);
            std::thread::park_timeout(pause);
        }
        Ok(())
    })?;
    if let Some(role) = pipeline.ended() {
        bail!("{role} ended by itself; its reason is in the log above");
    }
    Ok(drive.driven())
}

/// Waits until every stage has read everything, and every webhook has arrived.
async fn drain(pipeline: &Pipeline, receiver: &Receiver, teller: &Teller) -> anyhow::Result<()> {
    teller.say("the simulation is over; waiting for the stages to come to the end");
    let deadline = Instant::now() + DRAIN_MAX;
    let mut quiet_since = None;
    let mut every = tokio::time::interval(Duration::from_millis(100));
    let mut seen = receiver.counts().delivered;
    loop {
        every.tick().await;
        let now = receiver.counts().delivered;
        let behind = tokio::task::block_in_place(|| pipeline.behind())?;
        let drained = behind.is_none() && now == seen;
        seen = now;
        if !drained {
            quiet_since = None;
        } else if quiet_since.get_or_insert_with(Instant::now).elapsed() >= DRAINED_FOR {
            return Ok(());
        }
        if Instant::now() > deadline {
            let behind = behind.unwrap_or_else(|| "webhooks still arrive".into());
            bail!(
                "the stages did not come to the end of the log within {} s: {behind}",
                DRAIN_MAX.as_secs()
            );
        }
    }
}

/// Questions that the demo asks at the end, as a person would.
const QUESTIONS: [(&str, &str); 2] = [
    (
        "how right was the model, day by day?",
        "SELECT date_trunc('day', i.event_time) AS day, count(*) AS labelled, \
         round(avg(CASE WHEN o.truth_code = i.predicted_code THEN 1.0 ELSE 0.0 END), 3) AS accuracy \
         FROM inferences i JOIN outcomes o ON o.inference_id = i.inference_id GROUP BY 1 ORDER BY 1",
    ),
    (
        "which measures crossed most often?",
        "SELECT signal, cohort, count(*) AS windows FROM final_measures WHERE crossed \
         GROUP BY signal, cohort ORDER BY windows DESC, signal, cohort LIMIT 8",
    ),
];

async fn show(
    session: &Session,
    summary: &Summary,
    dir: &Path,
    driven: &Driven,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (question, sql) in QUESTIONS {
        use std::io::Write as _;
        writeln!(out, "\n{question}\n  {sql}")?;
        answer::write(&session.run(sql).await?, Format::Table, &mut out)?;
    }
    summary.write(&mut out, driven)?;
    use std::io::Write as _;
    writeln!(
        out,
        "\nask more: driftline sql --dir {} -c \"SELECT * FROM alerts\"",
        dir.display()
    )?;
    Ok(())
}
