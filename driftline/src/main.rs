//! `driftline`: the one binary. See `driftline help`.

mod budget;
mod changes;
mod clock;
mod compare;
mod config;
mod control;
mod demo;
mod device;
mod files;
mod health;
mod lake;
mod metrics;
mod model;
mod output;
mod performance;
mod pipeline;
mod probes;
mod receiver;
mod reference;
mod replay;
mod serve;
mod simulate;
mod spells;
mod sql;
mod subsets;
mod telemetry;
mod times;
mod topics;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use config::{Config, Role, TelemetryConfig};
use output::{OutputFormat, Usage};

/// Exit code when a command failed.
const FAILED: u8 = 1;
/// Exit code for wrong usage or configuration; clap uses it as well.
const USAGE: u8 = 2;
/// Exit code when drift was found and the caller asked to be told.
const DRIFTED: u8 = 3;

/// Streaming telemetry and drift detection for machine-learning models on devices.
#[derive(Debug, Parser)]
#[command(name = "driftline", version, max_term_width = 100)]
struct Cli {
    /// Configuration file (TOML).
    #[arg(long, global = true, value_name = "FILE", env = "DRIFTLINE_CONFIG")]
    config: Option<PathBuf>,
    /// Data folder: the embedded log, the local lake, bundles [default: ./driftline-data].
    #[arg(long, global = true, value_name = "DIR", env = "DRIFTLINE_DIR")]
    dir: Option<PathBuf>,
    /// How answers are written: a table on a terminal, else JSON, unless said otherwise.
    #[arg(long, global = true, value_enum)]
    format: Option<OutputFormat>,
    /// Only errors on standard error.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one, for the life of the process"
)]
enum Command {
    /// The whole system on a simulated estate, with faults injected and found.
    Demo(demo::DemoArgs),
    /// Runs the roles of the pipeline until asked to end.
    Serve {
        /// Roles to run in place of the configured ones.
        #[arg(long, value_enum, value_delimiter = ',')]
        role: Vec<Role>,
        /// Name of this process in place of the configured one.
        #[arg(long, value_name = "NAME")]
        instance: Option<String>,
    },
    /// Asks the lake in SQL.
    Sql(sql::SqlArgs),
    /// Compares two files, or two time ranges of the lake, column by column.
    Compare(Box<compare::CompareArgs>),
    /// Finds where a stream of numbers changes.
    Changes(changes::ChangesArgs),
    /// Estimates the performance of a classifier without labels.
    Performance(performance::PerformanceArgs),
    /// Makes, checks, shows and registers bundles.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Builds and compares references, and puts them in force.
    #[command(subcommand)]
    Reference(reference::ReferenceCommand),
    /// Holds the false alarms that were promised against the alarms that came.
    Budget(budget::BudgetArgs),
    /// Estimates the estate's accuracy from the labels of probes, and where they see nothing.
    Probes(probes::ProbesArgs),
    /// Finds the cohorts whose error grows faster than the estate's.
    Subsets(subsets::SubsetsArgs),
    /// Adds, lists and revokes devices.
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Sends telemetry from a file through a model, as devices would.
    Replay(replay::ReplayArgs),
    /// Sends telemetry of an estate that the seed makes.
    Simulate(simulate::SimulateArgs),
    /// Shows and makes the topics on a Kafka cluster.
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// Takes webhooks and shows what came.
    Receive(receiver::ReceiveArgs),
    /// Asks an address such as http://127.0.0.1:9464/readyz; exit code 0 when it says yes.
    Ready {
        /// The address.
        url: String,
    },
    /// Checks and shows the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Checks the file and what the environment overrides.
    Check,
    /// Shows the configuration in force, as TOML.
    Show,
    /// Shows the JSON schema of the configuration.
    Schema,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Two providers are compiled in (deltalake brings the other), so one has to be named. It fails
    // only when one was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = match Config::load(cli.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("driftline: {error:#}");
            return ExitCode::from(USAGE);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("driftline: no threads can be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(run(cli, config)) {
        Ok(code) => code,
        // Whoever read the answer has seen enough of it, as `head` does.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("driftline: {error:#}");
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn run(cli: Cli, config: Config) -> anyhow::Result<ExitCode> {
    let dir = cli
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from("driftline-data"));
    let format = OutputFormat::or_suitable(cli.format);
    let telemetry = match &cli.command {
        // One-off commands speak for themselves.
        Command::Serve { .. } => config.telemetry.clone(),
        _ => TelemetryConfig {
            log: "warn,datafusion=error,delta_kernel=off,buoyant_kernel=off,deltalake=error,tract=error".into(),
            ..config.telemetry.clone()
        },
    };
    let _exporters = telemetry::init(&telemetry, cli.quiet)?;
    match cli.command {
        Command::Demo(args) => {
            let format = cli.format.unwrap_or(OutputFormat::Table);
            let matches = demo::run(args, cli.dir.as_deref(), format, cli.quiet).await?;
            return Ok(if matches {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FAILED)
            });
        }
        Command::Serve { role, instance } => {
            let mut config = config;
            config.instance = instance.or(config.instance);
            serve::run(config, &dir, role).await?;
        }
        Command::Sql(args) => sql::run(&config, &dir, args, format).await?,
        Command::Compare(args) => {
            let ranges = compare::fetch(&config, &dir, &args, cli.quiet).await?;
            let compare = || compare::run(&args, &ranges, format, cli.quiet);
            return Ok(match tokio::task::block_in_place(compare)? {
                true => ExitCode::from(DRIFTED),
                false => ExitCode::SUCCESS,
            });
        }
        Command::Changes(args) => tokio::task::block_in_place(|| changes::run(&args, format))?,
        Command::Performance(args) => {
            tokio::task::block_in_place(|| performance::run(&args, format))?;
        }
        Command::Model(command) => model::run(&config, &dir, command, format).await?,
        Command::Reference(command) => reference::run(&config, &dir, command, format).await?,
        Command::Budget(args) => budget::run(&config, &dir, &args, format).await?,
        Command::Probes(args) => probes::run(&config, &dir, &args, format).await?,
        Command::Subsets(args) => subsets::run(&config, &dir, &args, format).await?,
        Command::Device(command) => device::run(&config, &dir, command, format).await?,
        Command::Replay(args) => replay::run(args, format, cli.quiet).await?,
        Command::Simulate(args) => simulate::run(&config, &dir, args, format, cli.quiet).await?,
        Command::Topics(command) => return topics::run(&config, command, format).await,
        Command::Receive(args) => receiver::run(args).await?,
        Command::Ready { url } => health::ask(&url).await?,
        Command::Config(command) => show_config(&config, &command, cli.config.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show_config(
    config: &Config,
    command: &ConfigCommand,
    file: Option<&Path>,
) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match command {
        ConfigCommand::Check => {
            let what = file.map_or_else(
                || "the defaults".to_owned(),
                |file| file.display().to_string(),
            );
            writeln!(out, "{what}: all right")?;
        }
        ConfigCommand::Show => write!(out, "{}", toml::to_string_pretty(config)?)?,
        ConfigCommand::Schema => {
            let schema = schemars::schema_for!(Config);
            writeln!(out, "{}", serde_json::to_string_pretty(&schema)?)?;
        }
    }
    Ok(())
}
