//! `driftline simulate`: telemetry of an estate that the seed makes, sent to a gateway that runs
//! elsewhere.
//!
//! Simulated time begins in the past and ends now, so that the gateway's clock, which is the real one,
//! does not see the future: devices send what they measured as a backlog. Each run has boots of its
//! own, so that its rows are not taken for resends of another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail};
use driftline_emitter::device::Runtime;
use driftline_emitter::store;
use driftline_emitter::uplink::http::{HttpUplink, agent};
use driftline_schemas::clock::{Clock, SystemClock};
use driftline_schemas::units::Span;
use driftline_simulator::{Drive, Estate, EstateConfig, Fault, PacedClock};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Config;
use crate::control::{self, Command};
use crate::demo::bundle;
use crate::output::{self, OutputFormat};

/// How long the gateway may take to know devices that were just registered; it looks every second.
const KNOWN_MAX: Duration = Duration::from_secs(30);
/// How often it is asked.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Arguments of `driftline simulate`.
#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// Decides the estate.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Owner of the devices.
    #[arg(long, default_value = "demo")]
    tenant: String,
    /// Simulated time to send; it ends now.
    #[arg(long = "for", default_value = "2d")]
    length: Span,
    /// Simulated seconds per real second.
    #[arg(long, default_value_t = 3_600.0)]
    speed: f64,
    /// A fault to inject, KIND@AFTER,key=value,…; may be given again.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Gateway to send to.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    to: String,
    /// File with one `device token` per line, as --write-devices and `device add` give them.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["prepare", "register"])]
    tokens_file: Option<PathBuf>,
    /// Register the estate first, as `model register` and `device add` would, and keep its bundle and
    /// tokens in a folder; what the folder has from an earlier time is used again.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tokens_file", "prepare"])]
    register: Option<PathBuf>,
    /// Send nothing: write the bundle, and a script that registers it and all devices, to a folder.
    #[arg(long, value_name = "DIR")]
    prepare: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// When the gateway refuses, or a file cannot be read or written.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    mut args: SimulateArgs,
    format: OutputFormat,
    quiet: bool,
) -> anyhow::Result<()> {
    if let Some(folder) = args.register.clone() {
        args.tokens_file = Some(register(config, dir, &args, &folder).await?);
    }
    tokio::task::block_in_place(|| simulate(&args, format, quiet))
}

/// Registers the estate, as far as the folder does not say that it was; gives the file of tokens.
async fn register(
    config: &Config,
    dir: &Path,
    args: &SimulateArgs,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    let estate = estate(args);
    let (bundle, tokens) = (folder.join("bundle"), folder.join("tokens.txt"));
    if !tokens.exists() {
        std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
        let start_us = SystemClock.now_us() - args.length.us();
        bundle::make(&estate, start_us, &bundle)?;
        let register = Command::ModelRegister {
            tenant: args.tenant.clone(),
            path: bundle.canonicalize()?,
        };
        control::send(config, dir, register).await?;
        let origins = estate.units.iter().map(|unit| unit.origin.clone());
        let add = Command::DevicesAdd {
            origins: origins.collect(),
        };
        let answers = control::send(config, dir, add).await?;
        let answers = answers.as_array().map_or(&[][..], Vec::as_slice);
        let mut text = String::new();
        for answer in answers {
            let part = |name: &str| answer[name].as_str().unwrap_or_default();
            text.push_str(&format!("{} {}\n", part("device"), part("token")));
        }
        // Whole or not at all: a file with some of the tokens would be used the next time.
        let beside = folder.join(".tokens.new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, &tokens)?;
        if let Some(token) = answers.last().and_then(|answer| answer["token"].as_str()) {
            until_known(&args.to, token).await?;
        }
        eprintln!(
            "registered: {} devices of tenant {}",
            estate.units.len(),
            args.tenant
        );
    }
    Ok(tokens)
}

/// Waits until the gateway has read the registry up to the device that was added last.
async fn until_known(gateway: &str, token: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(KNOWN_MAX).build()?;
    let url = format!("{}/v1/frames", gateway.trim_end_matches('/'));
    let asked = async {
        let mut every = tokio::time::interval(ASK_AGAIN);
        loop {
            every.tick().await;
            // Nothing in it, so nothing is written whatever the answer.
            let request = client.post(&url).bearer_auth(token).send().await?;
            if request.status() != reqwest::StatusCode::UNAUTHORIZED {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(KNOWN_MAX, asked).await {
        Ok(asked) => asked,
        Err(_) => bail!(
            "{gateway} does not know the devices that were registered: check that it reads the same log"
        ),
    }
}

fn estate(args: &SimulateArgs) -> Estate {
    Estate::new(EstateConfig {
        seed: args.seed,
        tenant: args.tenant.clone(),
        ..EstateConfig::default()
    })
}

fn simulate(args: &SimulateArgs, format: OutputFormat, quiet: bool) -> anyhow::Result<()> {
    let estate = estate(args);
    let now_us = SystemClock.now_us();
    let start_us = now_us - args.length.us();
    if let Some(folder) = &args.prepare {
        return prepare(&estate, start_us, folder);
    }
    let path = args
        .tokens_file
        .as_deref()
        .context("--tokens-file is missing")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("file {}", path.display()))?;
    let tokens: std::collections::BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace))
        .map(|(device, token)| (device.trim(), token.trim()))
        .collect();
    if let Some(missing) = estate
        .units
        .iter()
        .find(|unit| !tokens.contains_key(&*unit.origin.device))
    {
        bail!(
            "{}: there is no token of {}",
            path.display(),
            missing.origin.device
        );
    }
    let work = tempfile::tempdir()?;
    let bundle = match &args.register {
        Some(folder) => folder.join("bundle"),
        None => {
            bundle::make(&estate, start_us, work.path())?;
            work.path().to_owned()
        }
    };
    let runtime = Runtime::load(Arc::new(store::load(&bundle)?))?;
    let clock = Arc::new(PacedClock::new(start_us, args.speed));
    let agent = agent();
    let sends_at: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut drive = Drive::new(
        &estate,
        &runtime,
        Arc::clone(&clock),
        args.faults.clone(),
        |unit| {
            let token = tokens
                .get(&*unit.origin.device)
                .copied()
                .unwrap_or_default();
            Box::new(HttpUplink::sharing(&agent, &args.to, token))
        },
    )
    .as_backlog(&sends_at, rand::random());
    let bar = match quiet {
        true => ProgressBar::hidden(),
        // Hidden as well where standard error is no terminal.
        false => ProgressBar::new(args.length.us().max(1) as u64),
    };
    if let Ok(style) = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {percent}% {msg}")
    {
        bar.set_style(style);
    }
    let stop = AtomicBool::new(false);
    drive.run(now_us, &stop, |at_us| {
        bar.set_position((at_us - start_us).max(0) as u64);
    })?;
    drive.flush()?;
    bar.finish_and_clear();
    output::write(&serde_json::to_value(drive.driven())?, format)
}

/// Writes what a pipeline needs to know of the estate before it sends.
fn prepare(estate: &Estate, start_us: i64, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    bundle::make(estate, start_us, &folder.join("bundle"))?;
    let tenant = &estate.config.tenant;
    let mut script = format!(
        "#!/bin/sh\n# Registers the simulated estate; writes tokens to tokens.txt. Arguments go to driftline.\nset -e\ncd \"$(dirname \"$0\")\"\ndriftline \"$@\" model register --tenant {tenant} bundle\n: > tokens.txt\n"
    );
    for unit in &estate.units {
        let origin = &unit.origin;
        let probe = match origin.role {
            driftline_schemas::source::Role::Probe => " --probe",
            driftline_schemas::source::Role::Device => "",
        };
        script.push_str(&format!(
            "driftline \"$@\" --format csv device add {} --tenant {tenant}{probe} --hardware {} --firmware {} --region {} --site {} --link {} --cadence {}s | tail -n 1 | tr ',' ' ' >> tokens.txt\n",
            origin.device, origin.hardware, origin.firmware, origin.region, origin.site, origin.link.name(), origin.cadence_s
        ));
    }
    std::fs::write(folder.join("register.sh"), script)?;
    eprintln!(
        "written: {0}/bundle and {0}/register.sh; run it with sh, then simulate with --tokens-file {0}/tokens.txt",
        folder.display()
    );
    Ok(())
}
