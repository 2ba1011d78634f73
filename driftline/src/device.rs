//! `driftline device add|import|list|revoke`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use driftline_schemas::source::{Link, Origin, Role};
use driftline_schemas::units::Span;

use crate::config::Config;
use crate::control::{self, Command};
use crate::output::{self, OutputFormat};

/// Commands on devices.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum DeviceCommand {
    /// Adds a device and prints its token, once.
    Add(AddArgs),
    /// Adds the devices of a file and prints their tokens, once: a JSON object per line, with `device`
    /// and any of `tenant`, `role`, `model`, `version`, `variant`, `hardware`, `firmware`, `region`,
    /// `site`, `link`, `cadence_s`. All of them are added, or none when one is refused.
    Import {
        /// The file.
        file: PathBuf,
    },
    /// Lists devices.
    List {
        /// Of one tenant only.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Revokes a device: its token is refused from now on.
    Revoke {
        /// Name of the device.
        device: String,
        /// Owner.
        #[arg(long, default_value = "default")]
        tenant: String,
    },
}

/// What is declared of a device.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// Name of the device, unique within the tenant.
    device: String,
    /// Owner.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// A probe also reports ground truth.
    #[arg(long)]
    probe: bool,
    /// Model that runs there.
    #[arg(long, default_value = "")]
    model: String,
    /// Version of the model.
    #[arg(long, default_value = "")]
    version: String,
    /// Variant of the version.
    #[arg(long, default_value = "")]
    variant: String,
    /// Hardware generation.
    #[arg(long, default_value = "")]
    hardware: String,
    /// Firmware version.
    #[arg(long, default_value = "")]
    firmware: String,
    /// Region.
    #[arg(long, default_value = "")]
    region: String,
    /// Site within the region.
    #[arg(long, default_value = "")]
    site: String,
    /// Kind of link.
    #[arg(long, value_parser = parse_link, default_value = "unknown")]
    link: Link,
    /// How often it means to report, such as 1h.
    #[arg(long)]
    cadence: Option<Span>,
}

fn parse_link(text: &str) -> Result<Link, String> {
    Link::ALL
        .into_iter()
        .find(|link| link.name() == text)
        .ok_or_else(|| {
            let names: Vec<_> = Link::ALL.iter().map(|link| link.name()).collect();
            format!("write one of {}", names.join(", "))
        })
}

impl AddArgs {
    fn origin(self) -> Origin {
        Origin {
            tenant: self.tenant.into(),
            device: self.device.into(),
            role: if self.probe {
                Role::Probe
            } else {
                Role::Device
            },
            model: self.model.into(),
            version: self.version.into(),
            variant: self.variant.into(),
            hardware: self.hardware.into(),
            firmware: self.firmware.into(),
            region: self.region.into(),
            site: self.site.into(),
            link: self.link,
            cadence_s: self.cadence.map_or(0, |cadence| {
                u32::try_from(cadence.us() / 1_000_000).unwrap_or(u32::MAX)
            }),
        }
    }
}

/// Runs a command.
///
/// # Errors
/// What the registry said.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    command: DeviceCommand,
    format: OutputFormat,
) -> anyhow::Result<()> {
    let command = match command {
        DeviceCommand::Import { file } => Command::DevicesAdd {
            origins: read_devices(&file)?,
        },
        DeviceCommand::Add(args) => Command::DeviceAdd {
            origin: args.origin(),
        },
        DeviceCommand::List { tenant } => Command::DeviceList { tenant },
        DeviceCommand::Revoke { device, tenant } => Command::DeviceRevoke { tenant, device },
    };
    let answer = control::send(config, dir, command).await?;
    output::write(&answer, format)
}

fn read_devices(file: &Path) -> anyhow::Result<Vec<Origin>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            let wrong = || format!("{}, line {}", file.display(), at + 1);
            let mut origin: serde_json::Value = serde_json::from_str(line).with_context(wrong)?;
            if let Some(fields) = origin.as_object_mut() {
                fields.entry("tenant").or_insert_with(|| "default".into());
            }
            serde_json::from_value(origin).with_context(wrong)
        })
        .collect()
}
