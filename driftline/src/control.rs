//! What operators do to a running pipeline: devices, bundles.
//!
//! The embedded log belongs to one process, so while `serve` runs, commands go to its control
//! socket in the data folder (which is as private as the folder); else they open the log themselves.
//! Both ways execute the same [`Command`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use driftline_emitter::store;
use driftline_log::registry::{Registry, Token};
use driftline_log::{Log, LogError};
use driftline_schemas::clock::{Clock, DAY_US};
use driftline_schemas::registry::ReferenceRecord;
use driftline_schemas::source::Origin;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Config;
use crate::lake::time_text;
use crate::metrics::Metrics;
use crate::pipeline;
use crate::reference::TRAINING;

/// Name of the socket in the data folder.
const SOCKET: &str = "control.sock";
/// How long a serve may have the log without having its socket yet, and how often that is looked at.
const STARTING: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a command may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Largest command: as many devices as a registry holds, 400 bytes each. Only who may read the data folder
/// comes to the socket.
const BODY_BYTES_MAX: usize = 100 << 20;

/// Something to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Adds a device; the answer has its token, once.
    DeviceAdd {
        /// Identity and attributes.
        origin: Origin,
    },
    /// Adds devices, all or none; the answer has their tokens, once.
    DevicesAdd {
        /// Identities and attributes.
        origins: Vec<Origin>,
    },
    /// Lists devices.
    DeviceList {
        /// Of one tenant only.
        tenant: Option<String>,
    },
    /// Revokes a device.
    DeviceRevoke {
        /// Owner.
        tenant: String,
        /// Name.
        device: String,
    },
    /// Registers a bundle.
    ModelRegister {
        /// Owner.
        tenant: String,
        /// Folder or archive, absolute.
        path: PathBuf,
    },
    /// Lists bundles.
    ModelList,
    /// Puts a reference in force.
    ReferencePromote {
        /// Owner.
        tenant: String,
        /// Model name.
        model: String,
        /// Model version.
        version: String,
        /// Identity; none for the bundle's own.
        id: Option<String>,
        /// First window, microseconds of event time; none for the next day.
        from_us: Option<i64>,
    },
    /// Lists what is in force for a model version.
    ReferenceList {
        /// Owner.
        tenant: String,
        /// Model name.
        model: String,
        /// Model version.
        version: String,
    },
}

/// What a command needs.
#[derive(Clone)]
pub(crate) struct Scope {
    /// The log.
    pub(crate) log: Arc<dyn Log>,
    /// The registry.
    pub(crate) registry: Arc<Registry>,
    /// The clock.
    pub(crate) clock: Arc<dyn Clock>,
}

/// Executes a command (blocks).
///
/// # Errors
/// What the registry or the log said.
pub(crate) fn execute(scope: &Scope, command: Command) -> anyhow::Result<Value> {
    let now_us = scope.clock.now_us();
    let mut appender = scope.log.appender("control")?;
    match command {
        Command::DeviceAdd { origin } => {
            let device = Arc::clone(&origin.device);
            let token = scope.registry.add_device(&mut *appender, origin, now_us)?;
            Ok(json!({ "device": device, "token": token.expose() }))
        }
        Command::DevicesAdd { origins } => {
            let names: Vec<_> = origins.iter().map(|it| Arc::clone(&it.device)).collect();
            let tokens = scope
                .registry
                .add_devices(&mut *appender, origins, now_us)?;
            let answers = names.iter().zip(&tokens);
            let answer = |(device, token): (&Arc<str>, &Token)| json!({ "device": device, "token": token.expose() });
            Ok(answers.map(answer).collect())
        }
        Command::DeviceList { tenant } => {
            scope.registry.refresh()?;
            let devices: Vec<Value> = scope
                .registry
                .devices(tenant.as_deref())
                .iter()
                .map(|device| {
                    let mut row = serde_json::to_value(&*device.origin).unwrap_or_default();
                    row["added_at_us"] = json!(device.added_at_us);
                    row["revoked"] = json!(device.revoked_at_us.is_some());
                    row
                })
                .collect();
            Ok(Value::Array(devices))
        }
        Command::DeviceRevoke { tenant, device } => {
            scope
                .registry
                .revoke_device(&mut *appender, &tenant, &device, now_us)?;
            Ok(json!({ "device": device, "revoked": true }))
        }
        Command::ModelRegister { tenant, path } => {
            let bundle = store::load(&path)?;
            let record =
                scope
                    .registry
                    .register_bundle(&mut *appender, &tenant, &bundle, now_us)?;
            Ok(serde_json::to_value(record)?)
        }
        Command::ModelList => {
            scope.registry.refresh()?;
            let models: Vec<Value> = scope
                .registry
                .models()
                .iter()
                .map(|model| serde_json::to_value(&model.record).unwrap_or_default())
                .collect();
            Ok(Value::Array(models))
        }
        Command::ReferencePromote {
            tenant,
            model,
            version,
            id,
            from_us,
        } => {
            let record = scope.registry.promote_reference(
                &mut *appender,
                (&tenant, &model, &version),
                id.as_deref(),
                from_us.unwrap_or((now_us.div_euclid(DAY_US) + 1) * DAY_US),
                now_us,
            )?;
            Ok(promotion(&record))
        }
        Command::ReferenceList {
            tenant,
            model,
            version,
        } => references(scope, &tenant, &model, &version),
    }
}

fn references(scope: &Scope, tenant: &str, model: &str, version: &str) -> anyhow::Result<Value> {
    scope.registry.refresh()?;
    let promotions = scope.registry.promotions(tenant, model, version);
    Ok(promotions.iter().map(promotion).collect())
}

/// A reference in force, for people: `training` is the bundle's own.
fn promotion(record: &ReferenceRecord) -> Value {
    json!({
        "reference": record.id.as_deref().unwrap_or(TRAINING),
        "model": format!("{}@{}", record.model, record.version),
        "tenant": record.tenant,
        "from": time_text(record.from_us),
        "promoted_at": time_text(record.promoted_at_us),
    })
}

/// Sends a command to the `serve` that holds the data folder, or executes it on the log itself.
///
/// # Errors
/// What went wrong, on either side.
pub(crate) async fn send(config: &Config, dir: &Path, command: Command) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        if config.log.kafka.is_none()
            && tokio::net::UnixStream::connect(dir.join(SOCKET))
                .await
                .is_ok()
        {
            return ask(&dir.join(SOCKET), &command).await;
        }
        let (config, dir, own) = (config.clone(), dir.to_owned(), command.clone());
        match tokio::task::spawn_blocking(move || alone(&config, &dir, own)).await? {
            // A serve that is starting has the log before it has the socket.
            Err(error) if is_locked(&error) && started.elapsed() < STARTING => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            done => return done,
        }
    }
}

fn is_locked(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LogError::Locked { .. }))
}

/// Executes a command in this process, which has the log to itself or shares a broker.
fn alone(config: &Config, dir: &Path, command: Command) -> anyhow::Result<Value> {
    let log = pipeline::open_log(config, dir)?;
    let registry = pipeline::open_registry(config, dir, &log)?;
    let clock = Arc::new(driftline_schemas::clock::SystemClock);
    let scope = Scope {
        log,
        registry,
        clock,
    };
    execute(&scope, command)
}

/// Has the running serve execute a command.
async fn ask(socket: &Path, command: &Command) -> anyhow::Result<Value> {
    let client = reqwest::Client::builder()
        .unix_socket(socket)
        .timeout(TIMEOUT)
        .build()?;
    let response = client
        .post("http://control/v1/control")
        .json(command)
        .send()
        .await
        .context("control socket of the running serve")?;
    let ok = response.status().is_success();
    let answer: Value = response
        .json()
        .await
        .context("answer of the running serve")?;
    if ok {
        return Ok(answer);
    }
    bail!(
        "{}",
        answer["error"]
            .as_str()
            .unwrap_or("the running serve refused it")
    );
}

/// Serves commands and metrics on the data folder's socket until `shutdown` completes.
///
/// # Errors
/// When the socket cannot be made.
pub(crate) async fn serve(
    dir: &Path,
    scope: Scope,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let path = dir.join(SOCKET);
    // Left over from a process that was killed: the log's lock has shown that it is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("control socket {}", path.display()));
        }
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(&path)
        .with_context(|| format!("control socket {}", path.display()))?;
    let router = Router::new()
        .route("/v1/control", post(control))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .route("/metrics", get(move || async move { metrics.text() }))
        .with_state(scope);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await;
    // The next start removes it too.
    let _ = std::fs::remove_file(&path);
    Ok(served?)
}

async fn control(
    State(scope): State<Scope>,
    Json(command): Json<Command>,
) -> (StatusCode, Json<Value>) {
    let executed = tokio::task::spawn_blocking(move || execute(&scope, command)).await;
    match executed {
        Ok(Ok(answer)) => (StatusCode::OK, Json(answer)),
        Ok(Err(error)) => (
            StatusCode::BAD_REQUEST,
            Json(json!({ "error": format!("{error:#}") })),
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({ "error": error.to_string() })),
        ),
    }
}
