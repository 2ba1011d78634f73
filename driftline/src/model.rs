//! `driftline model pack|check|show|register|list`.

pub(crate) mod columns;
mod pack;
mod show;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use driftline_emitter::{Runtime, store};
use driftline_schemas::bundle::{Bundle, CALIBRATION_FILE};
use serde_json::{Value, json};

use crate::config::Config;
use crate::control::{self, Command};
use crate::output::{self, OutputFormat};

pub(crate) use pack::parse_pair;

/// Commands on bundles.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ModelCommand {
    /// Makes a bundle from an ONNX model and reference rows.
    Pack(Box<pack::PackArgs>),
    /// Checks a bundle: its files, its fields, and that the model runs and fits them.
    Check {
        /// Bundle: a folder, or a tar archive of it.
        bundle: PathBuf,
    },
    /// Shows what is in a bundle.
    Show {
        /// Bundle: a folder, or a tar archive of it.
        bundle: PathBuf,
    },
    /// Registers a bundle, so that devices may send for it.
    Register {
        /// Bundle: a folder, or a tar archive of it.
        bundle: PathBuf,
        /// Owner.
        #[arg(long, default_value = driftline_emitter::pack::TENANT_DEFAULT)]
        tenant: String,
    },
    /// Lists registered bundles.
    List,
}

/// Runs a command.
///
/// # Errors
/// Names the file, the field or the column that is wrong.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    command: ModelCommand,
    format: OutputFormat,
) -> anyhow::Result<()> {
    match command {
        ModelCommand::Pack(args) => {
            // Packing is all computation, and nothing else runs in this process meanwhile.
            let answer = tokio::task::spawn_blocking(move || pack::run(&args)).await??;
            output::write(&answer, format)
        }
        ModelCommand::Check { bundle: path } => {
            let bundle = check(&path)?;
            output::write(
                &json!({
                    "bundle": bundle.title(),
                    "digest": bundle.digest,
                    "ok": true,
                }),
                format,
            )
        }
        ModelCommand::Show { bundle } => show::write(&store::load(&bundle)?, format),
        ModelCommand::Register { bundle, tenant } => {
            check(&bundle)?;
            // The process that holds the log has a folder of its own to start from.
            let path = std::path::absolute(&bundle)?;
            let command = Command::ModelRegister { tenant, path };
            output::write(&control::send(config, dir, command).await?, format)
        }
        ModelCommand::List => output::write(
            &control::send(config, dir, Command::ModelList).await?,
            format,
        ),
    }
}

/// A model version: `name@version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) version: String,
}

pub(crate) fn parse_version(text: &str) -> Result<Version, String> {
    match text.split_once('@') {
        Some((name, version)) if !name.is_empty() && !version.is_empty() => Ok(Version {
            name: name.into(),
            version: version.into(),
        }),
        _ => Err("write NAME@VERSION, such as boiler@1.0.0".into()),
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// The registered bundle of a model version; of several variants the first.
///
/// # Errors
/// When there is none, or it cannot be read.
pub(crate) async fn registered(
    config: &Config,
    dir: &Path,
    tenant: &str,
    model: &Version,
) -> Result<Bundle> {
    let models = control::send(config, dir, Command::ModelList).await?;
    let is_it = |record: &&Value| {
        record["tenant"] == tenant
            && record["model"] == model.name.as_str()
            && record["version"] == model.version.as_str()
    };
    let found = models.as_array().into_iter().flatten().find(is_it);
    let Some(path) = found.and_then(|record| record["path"].as_str()) else {
        bail!(
            "tenant {tenant:?} has no {model} registered: `driftline model list` shows what there is"
        );
    };
    let folder = config.bundles(dir).join(path);
    store::load(&folder).with_context(|| folder.display().to_string())
}

/// Reads a bundle and makes sure that all of it can be used.
fn check(path: &Path) -> anyhow::Result<Arc<Bundle>> {
    let bundle = Arc::new(store::load(path)?);
    let place = || path.display().to_string();
    Runtime::load(Arc::clone(&bundle)).with_context(place)?;
    let calibration = bundle.file(CALIBRATION_FILE).unwrap_or_default();
    driftline_drift::calibrate::Calibration::from_json(calibration)
        .and_then(|calibration| calibration.check_layout(bundle.reference.layout.digest()))
        .with_context(place)?;
    Ok(bundle)
}
