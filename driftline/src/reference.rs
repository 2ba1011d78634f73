//! `driftline reference build|promote|diff|list`: what a model version is compared with.
//!
//! A bundle brings the reference of its training data. Another one is built from the lake's rows (of
//! this or an earlier version, over a span of time, of a cohort, by hour of the week), rests beside the
//! bundles where every role finds it, and is in force once it is promoted: for windows from a time on.
//! Windows before keep what they were compared with, and every measure names it.
//!
//! # Layout
//!
//! - `build`: references from rows
//! - `rows`: rows of the lake, quantised again as their devices did
//! - `stable`: the first days in the field on which nothing was found
//! - `diff`: two references, signal by signal
//! - `recipe`: how a model's reference is chosen, in configuration

mod build;
mod diff;
mod recipe;
mod rows;
mod stable;

use std::path::Path;

use anyhow::Result;
use driftline_log::registry::FolderStore;
use driftline_schemas::clock::{Clock as _, DAY_US, SystemClock};
use jiff::Timestamp;
use serde_json::Value;

use crate::config::Config;
use crate::control::{self, Command};
use crate::model::{Version, parse_version};
use crate::output::{self, OutputFormat, Usage};
pub(crate) use recipe::Recipe;

/// Commands on references.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ReferenceCommand {
    /// Builds a reference from the lake's rows; nothing is compared with it before it is promoted.
    Build(Box<build::BuildArgs>),
    /// Puts a reference in force for the windows of a model version from a time on.
    Promote(PromoteArgs),
    /// Compares two references of a model version, signal by signal.
    Diff(diff::DiffArgs),
    /// Lists what is in force for a model version, and from when on.
    List {
        #[command(flatten)]
        of: ModelArgs,
    },
}

/// Which model version.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model version whose windows are meant.
    #[arg(long, value_name = "NAME@VERSION", value_parser = parse_version)]
    model: Version,
    /// Owner.
    #[arg(long, default_value = driftline_emitter::pack::TENANT_DEFAULT)]
    tenant: String,
}

/// Arguments of `driftline reference promote`.
#[derive(Debug, clap::Args)]
pub(crate) struct PromoteArgs {
    /// Identity of the reference as `build` printed it, or `training` for the bundle's own.
    reference: String,
    #[command(flatten)]
    of: ModelArgs,
    /// First window (event time) that is compared with it [default: the next day, UTC].
    #[arg(long, value_name = "TIME", value_parser = crate::times::parse)]
    from: Option<Timestamp>,
}

/// The name that stands for the bundle's own reference.
pub(crate) const TRAINING: &str = "training";

/// Columns of tables, the first of them.
const COLUMNS: [&str; 10] = [
    "signal",
    "role",
    "psi",
    "js",
    "ks",
    "left_mean",
    "right_mean",
    "left_sd",
    "right_sd",
    "reference",
];

/// Runs a command.
///
/// # Errors
/// Names the model, the reference, the column or the time that is wrong.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    command: ReferenceCommand,
    format: OutputFormat,
) -> Result<()> {
    let answer = match command {
        ReferenceCommand::Build(args) => build::run(config, dir, &args).await?,
        ReferenceCommand::Diff(args) => diff::run(config, dir, &args).await?,
        ReferenceCommand::Promote(args) => promote(config, dir, args).await?,
        ReferenceCommand::List { of } => {
            let list = Command::ReferenceList {
                tenant: of.tenant,
                model: of.model.name,
                version: of.model.version,
            };
            control::send(config, dir, list).await?
        }
    };
    output::write_in_order(&answer, &COLUMNS, format)
}

async fn promote(config: &Config, dir: &Path, args: PromoteArgs) -> Result<Value> {
    let from_us = args.from.map(Timestamp::as_microsecond);
    let now_us = SystemClock.now_us();
    // A day later than windows are dropped, so that none goes while this is under way.
    let oldest_us = (now_us - config.detect.keep.us()).div_euclid(DAY_US) * DAY_US + DAY_US;
    if from_us.is_some_and(|from_us| from_us < oldest_us) {
        let oldest = Timestamp::from_microsecond(oldest_us)?;
        return Err(Usage(format!(
            "--from: windows before {oldest} are not judged again ([detect] keep = \"{}\"): take that time or a later one",
            config.detect.keep
        ))
        .into());
    }
    let promote = Command::ReferencePromote {
        tenant: args.of.tenant,
        model: args.of.model.name,
        version: args.of.model.version,
        id: (args.reference != TRAINING).then_some(args.reference),
        from_us,
    };
    control::send(config, dir, promote).await
}

/// Where references rest.
fn shelf(config: &Config, dir: &Path) -> FolderStore {
    FolderStore::new(config.bundles(dir))
}
