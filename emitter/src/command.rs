//! The command line of the device program.

mod input;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use driftline_emitter::device::journal::DiskJournal;
use driftline_emitter::uplink::{self, Delivery};
use driftline_emitter::{Batch, Device, DeviceConfig, HttpUplink, Reply, Runtime, Uplink, store};
use driftline_schemas::clock::{Clock, SystemClock};
use driftline_schemas::source::Origin;
use driftline_schemas::units::Span;

/// Rows that were read and wait for the model.
const ROWS_QUEUED_MAX: usize = 4_096;

/// Runs a bundle's model on rows from standard input and sends what it saw to a gateway.
#[derive(Debug, Parser)]
#[command(name = "driftline-emitter", version)]
pub(crate) struct Args {
    /// Bundle: a folder, or a tar archive of it.
    #[arg(long)]
    bundle: PathBuf,
    /// Gateway, as `http://host:port`.
    #[arg(long)]
    to: String,
    /// File with the device's token.
    #[arg(long)]
    token_file: PathBuf,
    /// Read rows from standard input, which is the only place there is.
    #[arg(long)]
    stdin: bool,
    /// Owner of the device, as registered.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// Name of the device, as registered.
    #[arg(long, default_value = "device")]
    device: String,
    /// Hardware generation.
    #[arg(long, default_value = "")]
    hardware: String,
    /// Firmware version.
    #[arg(long, default_value = "")]
    firmware: String,
    /// Region.
    #[arg(long, default_value = "")]
    region: String,
    /// Site.
    #[arg(long, default_value = "")]
    site: String,
    /// Column with event times (RFC 3339, or seconds since 1970); else the time of reading.
    #[arg(long)]
    time: Option<String>,
    /// Column with the truth, which is reported as an outcome.
    #[arg(long)]
    label: Option<String>,
    /// Folder where frames survive a restart; else they are kept in memory.
    #[arg(long)]
    spool: Option<PathBuf>,
    /// Rows of one run of the model.
    #[arg(long, default_value_t = 256)]
    batch_rows: usize,
    /// Longest that a row waits for its batch and its frame to fill.
    #[arg(long, default_value = "1s")]
    every: Span,
    /// How long to go on sending after the end of the input.
    #[arg(long, default_value = "60s")]
    drain: Span,
    /// Form of the summary.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line for people.
    Table,
    /// One JSON object.
    Json,
}

/// Reads until the end of the input, then sends what is left.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let clock = SystemClock;
    let bundle = store::load(&args.bundle)?;
    let runtime =
        Runtime::load(Arc::new(bundle)).with_context(|| args.bundle.display().to_string())?;
    let token = std::fs::read_to_string(&args.token_file)
        .with_context(|| format!("token file {}", args.token_file.display()))?;
    let mut uplink = HttpUplink::new(&args.to, &token);
    let mut device = device(args, Arc::clone(&runtime))?;
    let denied = pump(args, &mut device, &mut uplink, &clock)?;
    let ended = match denied {
        Some(reason) => Delivery::Denied { status: 0, reason },
        None => drain(args, &mut device, &mut uplink, &clock)?,
    };
    summary(args, &device)?;
    let left = device.pending().rows;
    match ended {
        Delivery::Done if device.stats().frames_refused == 0 => Ok(ExitCode::SUCCESS),
        Delivery::Done => bail!(
            "the gateway refused {} frames: {}",
            device.stats().frames_refused,
            device
                .refusals()
                .last()
                .map_or("", |refusal| refusal.reason.as_str())
        ),
        Delivery::Stopped => bail!(
            "{left} rows were not acknowledged within {}: check that {} can be reached, or give more time with --drain",
            args.drain,
            args.to
        ),
        Delivery::Denied { reason, .. } => bail!(
            "the gateway does not let this device in ({reason}); {left} rows were not sent: check the token and the address"
        ),
    }
}

fn device(args: &Args, runtime: Arc<Runtime>) -> Result<Device> {
    let origin = Origin {
        hardware: args.hardware.as_str().into(),
        firmware: args.firmware.as_str().into(),
        region: args.region.as_str().into(),
        site: args.site.as_str().into(),
        ..Origin::new(&args.tenant, &args.device)
    };
    let boot = getrandom::u64().context("no random number for the boot")?;
    let config = DeviceConfig::new(origin, boot);
    Ok(match &args.spool {
        Some(dir) => Device::with_journal(runtime, config, Box::new(DiskJournal::open(dir)?))?,
        None => Device::new(runtime, config),
    })
}

/// Infers and sends until the input ends. Says why when the gateway does not let the device in.
fn pump(
    args: &Args,
    device: &mut Device,
    uplink: &mut HttpUplink,
    clock: &SystemClock,
) -> Result<Option<String>> {
    let runtime = Arc::clone(device.runtime());
    let mut reader = input::Reader::new(
        std::io::stdin(),
        &runtime.bundle().manifest,
        args.time.as_deref(),
        args.label.as_deref(),
    )?;
    let (sender, receiver) = sync_channel(ROWS_QUEUED_MAX);
    // Reading blocks, and rows that were read must not wait for rows that were not. The thread ends
    // with its input or, when the gateway does not let the device in, with the process.
    std::thread::spawn(move || {
        loop {
            let row = reader.next().transpose();
            let is_last = !matches!(row, Some(Ok(_)));
            if let Some(row) = row
                && sender.send(row).is_err()
            {
                return;
            }
            if is_last {
                return;
            }
        }
    });
    let mut batch = runtime.batch();
    let mut labels = Vec::new();
    let every = Duration::from_micros(u64::try_from(args.every.us()).unwrap_or(0));
    let mut flushed = Instant::now();
    loop {
        let received = receiver.recv_timeout(every.saturating_sub(flushed.elapsed()));
        let is_late = flushed.elapsed() >= every;
        let is_over = matches!(received, Err(RecvTimeoutError::Disconnected));
        if let Ok(row) = received {
            let row = row?;
            let time_us = row.time_us.unwrap_or_else(|| clock.now_us());
            batch.push(runtime.encoders(), time_us, &row.values())?;
            labels.push(row.label);
        }
        let is_full = batch.len() >= args.batch_rows.max(1);
        if is_full || ((is_late || is_over) && !batch.is_empty()) {
            infer(device, &mut batch, &mut labels, clock)?;
        }
        if is_late {
            device.seal(clock.now_us())?;
            flushed = Instant::now();
        }
        if let Some(request) = device.next_request(clock.now_us())? {
            let reply = uplink.send(&request.body);
            device.on_reply(clock.now_us(), &reply)?;
            if let Reply::Denied { reason, .. } = reply {
                return Ok(Some(reason));
            }
        }
        if is_over {
            return Ok(None);
        }
    }
}

fn infer(
    device: &mut Device,
    batch: &mut Batch,
    labels: &mut Vec<Option<String>>,
    clock: &SystemClock,
) -> Result<()> {
    let now_us = clock.now_us();
    let inferred = device.infer(batch, now_us)?;
    for (id, label) in inferred.ids.iter().zip(labels.iter()) {
        if let Some(label) = label {
            device.outcome(*id, label.as_str().into(), now_us, now_us)?;
        }
    }
    batch.clear();
    labels.clear();
    Ok(())
}

fn drain(
    args: &Args,
    device: &mut Device,
    uplink: &mut HttpUplink,
    clock: &SystemClock,
) -> Result<Delivery> {
    let until_us = clock.now_us().saturating_add(args.drain.us());
    // Nothing is ever sent here: it is a wait that ends on time.
    let (_open, never) = std::sync::mpsc::channel::<()>();
    let mut wait = |span: Duration| {
        let left = u64::try_from(until_us - clock.now_us()).unwrap_or(0);
        let left = Duration::from_micros(left);
        let _ = never.recv_timeout(span.min(left));
        span < left
    };
    Ok(uplink::deliver(device, uplink, clock, &mut wait)?)
}

fn summary(args: &Args, device: &Device) -> Result<()> {
    let stats = device.stats();
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Json => {
            let mut document = serde_json::to_value(stats)?;
            document["pending_rows"] = device.pending().rows.into();
            writeln!(out, "{document}")?;
        }
        Format::Table => writeln!(
            out,
            "{} inferences, {} rows taken, {} acknowledged in {} frames and {} requests ({} retries, {} bytes), {} refused for lack of room, {} refused by the gateway",
            stats.inferences,
            stats.rows_taken,
            stats.rows_acknowledged,
            stats.frames_acknowledged,
            stats.requests,
            stats.retries,
            stats.bytes_sent,
            stats.rows_refused,
            stats.rows_of_refused_frames
        )?,
    }
    Ok(())
}
