//! `driftline replay`: drives many devices from a file, in its order.
//!
//! Rows are shared out over devices (by a column, or in turn), each device is an emitter of its own
//! with its own token, and labels come back as outcomes. Devices are driven by a few threads; the
//! rows of one device keep the file's order.

mod drive;
mod plan;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use driftline_schemas::source::Link;
use driftline_schemas::units::Span;
use serde_json::Value;

use crate::model::columns::Columns;
use crate::output::{self, OutputFormat};

/// What is replayed, by whom and to where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReplayArgs {
    /// Bundle that the devices run: a folder, or a tar archive of it.
    #[arg(long)]
    pub(crate) bundle: PathBuf,
    /// Rows: CSV (plain, .gz, .zst) or Parquet.
    #[arg(long)]
    pub(crate) input: PathBuf,
    /// Devices that the rows are shared out to in turn.
    #[arg(long, default_value_t = 1)]
    pub(crate) devices: usize,
    /// Rows a second of all devices together; 0 is as fast as they are acknowledged.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Gateway, as `http://host:port`.
    #[arg(long)]
    pub(crate) to: String,
    /// Token of the one device.
    #[arg(long, conflicts_with = "tokens_file")]
    pub(crate) token: Option<String>,
    /// File with a line per device: its name and its token, or the JSON of `device add`.
    #[arg(long, required_unless_present = "token")]
    pub(crate) tokens_file: Option<PathBuf>,
    /// Name of the one device, as registered.
    #[arg(long, default_value = "replay")]
    pub(crate) name: String,
    /// Owner of the devices, as registered.
    #[arg(long, default_value = driftline_emitter::pack::TENANT_DEFAULT)]
    pub(crate) tenant: String,
    /// Column with the truth, which is reported as outcomes.
    #[arg(long, value_name = "COL")]
    pub(crate) label: Option<String>,
    /// How long after the inference the truth is observed.
    #[arg(long, default_value = "0s")]
    pub(crate) label_after: Span,
    /// Column with event times: RFC 3339, or seconds since 1970.
    #[arg(long, value_name = "COL", conflicts_with_all = ["start", "interval"])]
    pub(crate) time: Option<String>,
    /// Column with the name of the device that a row belongs to.
    #[arg(long, value_name = "COL", conflicts_with = "devices")]
    pub(crate) device: Option<String>,
    /// Column of a feature, where it has another name.
    #[arg(long, value_name = "FEATURE=COL", value_parser = crate::model::parse_pair)]
    pub(crate) map: Vec<(String, String)>,
    /// Only rows with this value; may be given several times.
    #[arg(long = "where", value_name = "COL=VALUE", value_parser = crate::model::parse_pair)]
    pub(crate) only: Vec<(String, String)>,
    /// Shuffle the rows, the same way for the same number.
    #[arg(long, value_name = "SEED")]
    pub(crate) shuffle_seed: Option<u64>,
    /// Event time of the first row; with an interval alone the last row is now.
    #[arg(long, value_name = "RFC3339")]
    pub(crate) start: Option<jiff::Timestamp>,
    /// Event time from row to row. Without it, rows are measured when they are sent.
    #[arg(long)]
    pub(crate) interval: Option<Span>,
    /// Hardware generation of the devices.
    #[arg(long)]
    pub(crate) hardware: Option<String>,
    /// Firmware version of the devices.
    #[arg(long)]
    pub(crate) firmware: Option<String>,
    /// Region of the devices.
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Site of the devices.
    #[arg(long)]
    pub(crate) site: Option<String>,
    /// Kind of link of the devices.
    #[arg(long, value_parser = parse_link)]
    pub(crate) link: Option<Link>,
    /// Rows of one run of the model and of one frame.
    #[arg(long, default_value_t = 256)]
    pub(crate) batch_rows: usize,
    /// Send profiles of a minute in place of rows.
    #[arg(long, conflicts_with = "label")]
    pub(crate) profiles: bool,
    /// How long one device may go without an acknowledgement before it gives up.
    #[arg(long, default_value = "2m")]
    pub(crate) patience: Span,
}

fn parse_link(text: &str) -> Result<Link, String> {
    let quoted = serde_json::Value::String(text.into());
    serde_json::from_value(quoted)
        .map_err(|_| "write unknown, ethernet, wifi, cellular, lpwan or satellite".into())
}

/// What was sent, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Replayed {
    /// Rows of the file that were to be sent.
    pub(crate) rows: u64,
    /// Inference rows that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Outcomes that were acknowledged.
    pub(crate) outcomes: u64,
    /// Rows among both that went to the dead letters.
    pub(crate) rejected: u64,
    /// Rows and outcomes in frames that were refused, or that found no room.
    pub(crate) refused: u64,
    /// Frames that were acknowledged.
    pub(crate) frames: u64,
    /// Requests that were made.
    pub(crate) requests: u64,
    /// Requests that were made again.
    pub(crate) retries: u64,
    /// Bytes of the requests' bodies.
    pub(crate) bytes: u64,
    /// Devices that sent.
    pub(crate) devices: u64,
    /// How long it took, seconds.
    pub(crate) seconds: f64,
}

/// Replays a file and prints what came of it. Ends early, and cleanly, on Ctrl-C.
///
/// # Errors
/// When something is wrong with the file, the bundle or the tokens, or not all rows were
/// acknowledged.
pub(crate) async fn run(args: ReplayArgs, format: OutputFormat, quiet: bool) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let watch = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stopped.store(true, Ordering::SeqCst);
        }
    });
    let flag = Arc::clone(&stop);
    let replayed = tokio::task::spawn_blocking(move || replay(&args, quiet, &flag)).await??;
    watch.abort();
    let document: Value = serde_json::to_value(replayed)?;
    output::write(&document, format)?;
    if stop.load(Ordering::SeqCst) {
        bail!(
            "stopped: {} of {} rows were acknowledged",
            replayed.acknowledged,
            replayed.rows
        );
    }
    if replayed.acknowledged < replayed.rows {
        bail!(
            "{} of {} rows were acknowledged, {} refused; see the log for the reasons",
            replayed.acknowledged,
            replayed.rows,
            replayed.refused
        );
    }
    Ok(())
}

/// Replays a file (blocks).
///
/// # Errors
/// As [`run`].
pub(crate) fn replay(args: &ReplayArgs, quiet: bool, stop: &AtomicBool) -> Result<Replayed> {
    use anyhow::Context as _;
    let columns = Columns::read(&args.input).with_context(|| args.input.display().to_string())?;
    let plan = plan::Plan::make(args, &columns)?;
    drive::drive(args, &plan, quiet, stop)
}

#[cfg(test)]
mod tests;
