//! The one configuration file, its defaults, and how the environment overrides it.
//!
//! A setting `[gateway] listen` is overridden by `DRIFTLINE_GATEWAY__LISTEN`: two underscores go one
//! level down. Unknown keys are refused wherever they stand.

mod log;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use driftline_alerting::AlertingConfig;
use driftline_ingest::GatewayConfig;
use driftline_lake::LakeConfig;
use driftline_processors::archive::ArchiveConfig;
use driftline_processors::detect::DetectConfig;
use driftline_processors::labels::LabelsConfig;
use driftline_processors::profile::ProfileConfig;
use driftline_processors::vitals::VitalsConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reference::Recipe;
pub(crate) use log::LogConfig;

/// What names of overriding variables begin with.
const ENV_PREFIX: &str = "DRIFTLINE_";
/// Variables with that prefix that are no settings.
const ENV_OTHERS: [&str; 7] = [
    "CONFIG",
    "DIR",
    "SHARED",
    "KAFKA",
    "FAILPOINT",
    "CLOCK_SHIFT",
    "CACHE",
];

/// A role of the pipeline.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The gateway.
    Ingest,
    /// Rows to profiles.
    Profile,
    /// Profiles to measures and findings.
    Detect,
    /// Devices that are silent, sensors that are stuck.
    Vitals,
    /// Outcomes joined with inferences.
    Labels,
    /// Everything to the lake.
    Archive,
    /// Findings to alerts and webhooks.
    Alerting,
}

impl Role {
    /// All roles.
    pub(crate) const ALL: [Self; 7] = [
        Self::Ingest,
        Self::Profile,
        Self::Detect,
        Self::Vitals,
        Self::Labels,
        Self::Archive,
        Self::Alerting,
    ];
}

/// Traces and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TelemetryConfig {
    /// Endpoint of an OpenTelemetry collector (OTLP over HTTP), such as `http://127.0.0.1:4318`.
    /// Without it traces and metrics stay here.
    pub otlp_endpoint: Option<String>,
    /// Address and port of `/metrics`, `/healthz` and `/readyz` of this process, for a trusted network:
    /// metrics of the stages are there, those of the gateway at its own address as well. Without it a
    /// process on an embedded log answers on its control socket only.
    pub listen: Option<SocketAddr>,
    /// What is logged, in the syntax of `RUST_LOG`.
    pub log: String,
    /// Log as JSON lines in place of text.
    pub log_json: bool,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            listen: None,
            log:
                "info,datafusion=warn,delta_kernel=off,buoyant_kernel=off,deltalake=warn,tract=warn"
                    .into(),
            log_json: false,
        }
    }
}

/// The configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Roles that `serve` runs; empty is all.
    pub roles: Vec<Role>,
    /// Name of this process among those that share its roles on Kafka; must be different for each, and
    /// the same after a restart. Without it the name of the machine.
    pub instance: Option<String>,
    /// The log.
    pub log: LogConfig,
    /// The lake; without it the folder `lake` in the data folder.
    pub lake: Option<LakeConfig>,
    /// Folder of registered bundles, readable by all roles; without it `bundles` in the data folder.
    pub bundles: Option<PathBuf>,
    /// The gateway.
    pub gateway: GatewayConfig,
    /// Rows to profiles.
    pub profile: ProfileConfig,
    /// Profiles to findings.
    pub detect: DetectConfig,
    /// By model name: the rows that `reference build` takes when it is not told. Without it a model is
    /// compared with its training data.
    pub references: BTreeMap<String, Recipe>,
    /// Silent devices and stuck sensors.
    pub vitals: VitalsConfig,
    /// Outcomes joined with inferences.
    pub labels: LabelsConfig,
    /// Everything to the lake.
    pub archive: ArchiveConfig,
    /// Findings to alerts.
    pub alerting: AlertingConfig,
    /// Traces and logs.
    pub telemetry: TelemetryConfig,
}

impl Config {
    /// Reads the file, if one is named, and what the environment overrides.
    ///
    /// # Errors
    /// Names the file, the line or the variable.
    pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let vars = std::env::vars().filter(|(name, _)| name.contains("__"));
        Self::from_parts(file, vars)
    }

    fn from_parts(
        file: Option<&Path>,
        vars: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let text = match file {
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("configuration file {}", file.display()))?,
            None => String::new(),
        };
        let place = file.map_or_else(
            || "configuration".to_owned(),
            |file| file.display().to_string(),
        );
        // Read as it is first, so that an error names the line of the file.
        let _: Self = toml::from_str(&text).with_context(|| place.clone())?;
        let mut table: toml::Table = toml::from_str(&text).with_context(|| place.clone())?;
        let mut overridden = Vec::new();
        for (name, value) in vars {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            if ENV_OTHERS.contains(&path) {
                continue;
            }
            set(&mut table, &path.to_lowercase(), &value)
                .with_context(|| format!("environment variable {name}"))?;
            overridden.push(name);
        }
        let config: Self = table
            .try_into()
            .with_context(|| match overridden.as_slice() {
                [] => place,
                names => format!("{place}, with {}", names.join(", ")),
            })?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types do not say.
    ///
    /// # Errors
    /// Names the setting.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let named = |section: &str, result: Result<(), String>| match result {
            Ok(()) => Ok(()),
            Err(problem) => bail!("[{section}] {problem}"),
        };
        named("profile", self.profile.check())?;
        named("detect", self.detect.check())?;
        named("archive", self.archive.check())?;
        self.alerting.check()?;
        named("log", self.log.check())?;
        if self.log.kafka.is_none() && !self.roles.is_empty() && self.roles.len() < Role::ALL.len()
        {
            tracing::warn!(
                "the embedded log belongs to one process: the roles left out run nowhere else"
            );
        }
        Ok(())
    }

    /// Whether a role is to run here.
    pub(crate) fn runs(&self, role: Role) -> bool {
        self.roles.is_empty() || self.roles.contains(&role)
    }

    /// Name of this process among those that share its roles.
    pub(crate) fn instance(&self) -> Option<String> {
        let of_machine = || {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
            Some(name.trim().to_owned()).filter(|name| !name.is_empty())
        };
        match (&self.instance, &self.log.kafka) {
            (Some(instance), _) => Some(instance.clone()),
            (None, Some(_)) => of_machine(),
            (None, None) => None,
        }
    }

    /// Where the lake is.
    pub(crate) fn lake(&self, dir: &Path) -> LakeConfig {
        self.lake.clone().unwrap_or_else(|| LakeConfig {
            url: dir.join("lake").display().to_string(),
            ..LakeConfig::default()
        })
    }

    /// Where bundles are.
    pub(crate) fn bundles(&self, dir: &Path) -> PathBuf {
        self.bundles.clone().unwrap_or_else(|| dir.join("bundles"))
    }
}

/// Sets one value by its path; the text is TOML where it is, else a string.
fn set(table: &mut toml::Table, path: &str, text: &str) -> anyhow::Result<()> {
    let mut parts = path.split("__").peekable();
    let mut here = table;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
                .ok()
                .and_then(|mut table| table.remove("v"))
                .unwrap_or_else(|| toml::Value::String(text.into()));
            here.insert(part.into(), value);
            return Ok(());
        }
        let next = here
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        here = match next {
            toml::Value::Table(table) => table,
            _ => bail!("{part} is a value, not a section"),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, vars: &[(&str, &str)]) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("driftline.toml");
        std::fs::write(&file, text).unwrap();
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_parts(Some(&file), vars)
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_the_defaults() {
        let text = "[gateway]\nlisten = \"127.0.0.1:1\"\n[log]\npartitions = 3\n";
        let config = load(
            text,
            &[
                ("DRIFTLINE_GATEWAY__LISTEN", "127.0.0.1:2"),
                ("DRIFTLINE_PROFILE__PANE", "5m"),
            ],
        )
        .unwrap();
        assert_eq!(config.gateway.listen.port(), 2);
        assert_eq!(config.log.partitions, 3);
        assert_eq!(config.profile.pane.to_string(), "5m");
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_by_name() {
        let problem =
            |text: &str, vars: &[(&str, &str)]| format!("{:#}", load(text, vars).unwrap_err());
        assert!(problem("[gateway]\nlistne = 1\n", &[]).contains("listne"));
        assert!(problem("gatway = 1\n", &[]).contains("gatway"));
        assert!(problem("[profile]\npane = \"7m\"\n", &[]).contains("does not divide"));
        assert!(
            problem("", &[("DRIFTLINE_DETECT__WINDW", "1h")]).contains("DRIFTLINE_DETECT__WINDW")
        );
        assert!(problem("[log]\npartitions = 0\n", &[]).contains("partitions"));
    }
}
