//! Routes and their limits.

use driftline_schemas::measure::FindingKind;
use driftline_schemas::units::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::webhook::{Secret, WebhookError};

/// Configuration of alerting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertingConfig {
    /// Where alerts go. Without a route they still live in the `alerts` table.
    pub routes: Vec<Route>,
    /// An open alert is updated at most this often (event time) while nothing but its window moves.
    pub update_every: Span,
    /// A window that ended longer ago than this when its finding came is about the past.
    pub past_after: Span,
}

impl Default for AlertingConfig {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            update_every: Span::from_hours(24),
            past_after: Span::from_hours(24),
        }
    }
}

/// One receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Name, unique; part of the identity of every message.
    pub name: String,
    /// Address that messages are posted to, `http://` or `https://`.
    pub url: String,
    /// File with the signing secret (`whsec_` and base64 of 24 to 64 bytes). Messages of a route
    /// without one are not signed.
    #[serde(default)]
    pub secret_file: Option<std::path::PathBuf>,
    /// Kinds of findings that go here; empty is all.
    #[serde(default)]
    pub kinds: Vec<FindingKindName>,
    /// How long one attempt may take.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// After this long without success a message goes to the dead letters.
    #[serde(default = "default_give_up_after")]
    pub give_up_after: Span,
}

/// Name of a kind of finding, as in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names are the findings' own")]
pub enum FindingKindName {
    InputDrift,
    OutputDrift,
    ConceptDrift,
    StuckSensor,
    DeviceSilent,
}

impl FindingKindName {
    fn kind(self) -> FindingKind {
        match self {
            Self::InputDrift => FindingKind::InputDrift,
            Self::OutputDrift => FindingKind::OutputDrift,
            Self::ConceptDrift => FindingKind::ConceptDrift,
            Self::StuckSensor => FindingKind::StuckSensor,
            Self::DeviceSilent => FindingKind::DeviceSilent,
        }
    }
}

fn default_timeout() -> Span {
    Span::from_secs(15)
}

fn default_give_up_after() -> Span {
    Span::from_days(3)
}

/// What is wrong with the configuration of a route.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Two routes have one name.
    #[error(
        "alerting.routes: the name {0:?} is there twice; names are part of a message's identity"
    )]
    Twice(String),
    /// The address is none.
    #[error("alerting.routes, {route}: url {url:?} must begin with http:// or https://")]
    Url {
        /// Name of the route.
        route: String,
        /// The address.
        url: String,
    },
    /// The secret's file cannot be read.
    #[error("alerting.routes, {route}: secret_file {path}: {source}")]
    SecretFile {
        /// Name of the route.
        route: String,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The secret is none.
    #[error("alerting.routes, {route}: {source}")]
    Secret {
        /// Name of the route.
        route: String,
        /// Why.
        source: WebhookError,
    },
}

impl Route {
    /// Whether a kind of finding goes here.
    pub fn takes(&self, kind: FindingKind) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|name| name.kind() == kind)
    }

    /// Reads the signing secret.
    ///
    /// # Errors
    /// [`RouteError`] when there is a file and it holds no secret.
    pub fn secret(&self) -> Result<Option<Secret>, RouteError> {
        let Some(path) = &self.secret_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|source| RouteError::SecretFile {
            route: self.name.clone(),
            path: path.display().to_string(),
            source,
        })?;
        Secret::parse(text.trim())
            .map(Some)
            .map_err(|source| RouteError::Secret {
                route: self.name.clone(),
                source,
            })
    }
}

impl AlertingConfig {
    /// Checks names, addresses and secrets.
    ///
    /// # Errors
    /// [`RouteError`] names the route and the field.
    pub fn check(&self) -> Result<(), RouteError> {
        let mut names = std::collections::BTreeSet::new();
        for route in &self.routes {
            if !names.insert(&route.name) {
                return Err(RouteError::Twice(route.name.clone()));
            }
            if !route.url.starts_with("http://") && !route.url.starts_with("https://") {
                return Err(RouteError::Url {
                    route: route.name.clone(),
                    url: route.url.clone(),
                });
            }
            route.secret()?;
        }
        Ok(())
    }
}
