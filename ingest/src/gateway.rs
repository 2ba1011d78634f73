//! The gateway as a whole.
//!
//! # Layout
//!
//! - here: [`Gateway`], its threads and its state of health
//! - `serve`, `tls`: listening, connections, shutdown, certificates
//! - `seed`: what a gateway that starts knows of the past

mod seed;
mod serve;
mod tls;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use driftline_log::registry::{Registry, RegistryError};
use driftline_log::{Log, LogError};
use driftline_schemas::clock::Clock;
use driftline_schemas::topic::{DEADLETTERS, TELEMETRY};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::admit::Admission;
use crate::config::{ConfigError, GatewayConfig};
use crate::http;
use crate::metrics::Metrics;
use crate::packer::{self, Failure, Queue};

/// After a failed append `/readyz` says so for this long: then requests must come again, since only
/// they can tell whether the log takes them.
const APPEND_FAILED_FOR: Duration = Duration::from_secs(5);

/// Why the gateway does not start or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be used.
    #[error("gateway: {0}")]
    Log(#[from] LogError),
    /// A thread cannot be started, or the socket cannot be used.
    #[error("gateway, {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What happened.
        source: std::io::Error,
    },
    /// Certificate, key or authorities cannot be used.
    #[error("gateway setting tls.{setting} ({path}): {problem}")]
    Tls {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
}

/// What all requests share.
pub(crate) struct Engine {
    pub(crate) config: GatewayConfig,
    pub(crate) admission: Admission,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) queue: Queue,
    /// Bytes that requests may still hold.
    pub(crate) bytes: Arc<Semaphore>,
    health: Arc<Health>,
}

impl Engine {
    /// Why requests would be refused at the moment; `None` when they would not.
    pub(crate) fn unready(&self) -> Option<String> {
        let reason = self.health.reason();
        self.metrics.ready.set(u64::from(reason.is_none()));
        reason
    }

    /// Bytes that requests under way hold.
    pub(crate) fn inflight(&self) -> u64 {
        let free = self.bytes.available_permits() as u64;
        self.config.bytes_in_flight.0.saturating_sub(free)
    }
}

/// What the threads last saw of the log.
#[derive(Debug, Default)]
struct Health {
    refresh: Mutex<Option<String>>,
    append: Mutex<Option<(Instant, String)>>,
}

impl Health {
    fn refreshed(&self, result: &Result<(), RegistryError>) {
        let mut refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        *refresh = result.as_ref().err().map(ToString::to_string);
    }

    fn appended(&self, result: &Result<(), Failure>) {
        let mut append = self.append.lock().unwrap_or_else(PoisonError::into_inner);
        *append = result
            .as_ref()
            .err()
            .map(|error| (Instant::now(), error.to_string()));
    }

    fn reason(&self) -> Option<String> {
        let refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
        let append = self.append.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = append
            .as_ref()
            .filter(|(at, _)| at.elapsed() < APPEND_FAILED_FOR)
            .map(|(_, error)| error.clone());
        refresh.clone().or(recent)
    }
}

/// The gateway. It takes requests through [`Self::router`] or [`Self::serve`] until it is dropped
/// or closed.
pub struct Gateway {
    engine: Arc<Engine>,
    packer: Option<JoinHandle<()>>,
    /// Dropped to end the thread that keeps the registry fresh.
    refresher: Option<(SyncSender<()>, JoinHandle<()>)>,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("config", &self.engine.config)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts the threads that write and that keep the registry fresh.
    ///
    /// # Errors
    /// [`GatewayError::Config`] names the setting; [`GatewayError::Log`] when a topic does not
    /// exist or the log cannot be written.
    pub fn new(
        config: GatewayConfig,
        log: Arc<dyn Log>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GatewayError> {
        config.check()?;
        let mut partitions = BTreeMap::new();
        for topic in TELEMETRY.into_iter().chain([DEADLETTERS]) {
            partitions.insert(topic, log.partitions(topic)?);
        }
        let metrics = Arc::new(Metrics::default());
        let health = Arc::new(Health::default());
        let (queue, packer) = packer::spawn(
            log.appender("gateway")?,
            &config,
            Arc::clone(&clock),
            Arc::clone(&metrics),
            Box::new({
                let health = Arc::clone(&health);
                move |result| health.appended(result)
            }),
        )
        .map_err(|source| GatewayError::Io {
            what: "starting the packer",
            source,
        })?;
        let admission = Admission::new(&config, registry, partitions);
        let frames = seed::seed(&*log, &admission.devices)?;
        tracing::info!(frames, "gateway knows the frames at the ends of the topics");
        let engine = Arc::new(Engine {
            admission,
            bytes: Arc::new(Semaphore::new(config.bytes_in_flight.0 as usize)),
            config,
            clock,
            metrics,
            queue,
            health,
        });
        let refresher = spawn_refresher(&engine).map_err(|source| GatewayError::Io {
            what: "starting the registry's refresher",
            source,
        })?;
        Ok(Self {
            engine,
            packer: Some(packer),
            refresher: Some(refresher),
        })
    }

    /// The routes, for a server of one's own.
    pub fn router(&self) -> Router {
        http::router(Arc::clone(&self.engine))
    }

    /// Serves until `shutdown` completes, lets requests under way end within
    /// [`GatewayConfig::drain_timeout`], writes what they brought, and closes.
    ///
    /// # Errors
    /// When the socket or the certificate cannot be used.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), GatewayError> {
        let served = serve::serve(&self.engine, self.router(), listener, shutdown).await;
        let closed = tokio::task::spawn_blocking(move || self.close()).await;
        if closed.is_err() {
            tracing::error!("the gateway did not close cleanly");
        }
        served
    }

    /// Takes nothing more, writes what waits, and ends the threads (blocks).
    pub fn close(mut self) {
        self.stop();
        let threads = [self.packer.take(), self.refresher.take().map(|it| it.1)];
        for thread in threads.into_iter().flatten() {
            if thread.join().is_err() {
                tracing::error!("a thread of the gateway panicked");
            }
        }
    }

    fn stop(&mut self) {
        self.engine.queue.close();
        if let Some((stop, thread)) = self.refresher.take() {
            drop(stop);
            // Kept for `close` to join, behind a sender that nobody listens to.
            self.refresher = Some((sync_channel(0).0, thread));
        }
    }
}

impl Drop for Gateway {
    /// Without [`Self::close`] the threads end by themselves, soon after.
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn_refresher(engine: &Arc<Engine>) -> std::io::Result<(SyncSender<()>, JoinHandle<()>)> {
    let (stop, stopped) = sync_channel(0);
    let period = engine.config.registry_refresh.duration();
    let registry = Arc::clone(&engine.admission.registry);
    let (health, metrics) = (Arc::clone(&engine.health), Arc::clone(&engine.metrics));
    let thread = std::thread::Builder::new()
        .name("gateway-registry".into())
        .spawn(move || {
            loop {
                let result = registry.refresh().map(|_| ());
                if let Err(error) = &result {
                    metrics.refresh_failures.inc();
                    tracing::warn!(%error, "registry not refreshed");
                }
                let stats = registry.stats();
                metrics.devices.set(stats.devices as i64);
                metrics
                    .bundles_unreadable
                    .set(stats.bundles_unreadable as i64);
                health.refreshed(&result);
                if stopped.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
    Ok((stop, thread))
}
