//! `driftline serve`: the roles named in the configuration, until asked to end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use driftline_schemas::clock::{Clock, SECOND_US};

use crate::clock::{MachineClock, Watch};
use crate::config::{Config, Role};
use crate::control::{self, Scope};
use crate::health;
use crate::pipeline::{self, Pipeline};

/// How often it is checked that all roles still run.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked how far the stages are behind.
const LAG_EVERY: Duration = Duration::from_secs(10);
/// How often what all stages have read leaves the log.
const TRIM_EVERY: Duration = Duration::from_secs(60);

/// Runs the roles until SIGINT or SIGTERM.
///
/// # Errors
/// When a role cannot start, or ended by itself.
pub(crate) async fn run(mut config: Config, dir: &Path, roles: Vec<Role>) -> anyhow::Result<()> {
    if !roles.is_empty() {
        config.roles = roles;
        config.check()?;
    }
    let clock: Arc<dyn Clock> = Arc::new(MachineClock::from_environment());
    let listener = match config.telemetry.listen {
        Some(address) => Some(health::bind(address).await?),
        None => None,
    };
    let log = {
        let (config, dir) = (config.clone(), dir.to_owned());
        tokio::task::spawn_blocking(move || pipeline::open_log(&config, &dir)).await??
    };
    let pipeline = Pipeline::start(&config, dir, Arc::clone(&log), Arc::clone(&clock)).await?;
    let (stop, _) = tokio::sync::watch::channel(false);
    let stopped = || {
        let mut stop = stop.subscribe();
        async move {
            // A sender that was dropped asks as well.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    };
    let mut servers = Vec::new();
    if config.log.kafka.is_none() {
        let scope = Scope {
            log: Arc::clone(&log),
            registry: Arc::clone(&pipeline.registry),
            clock: Arc::clone(&clock),
        };
        let (metrics, dir, stopped) = (Arc::clone(&pipeline.metrics), dir.to_owned(), stopped());
        servers.push(tokio::spawn(async move {
            control::serve(&dir, scope, metrics, stopped).await
        }));
    }
    let ready = Arc::new(AtomicBool::new(true));
    if let Some(listener) = listener {
        let (metrics, ready) = (Arc::clone(&pipeline.metrics), Arc::clone(&ready));
        servers.push(tokio::spawn(health::serve(
            listener,
            metrics,
            ready,
            stopped(),
        )));
    }
    let ended = wait(&pipeline, &log, &*clock).await;
    ready.store(false, Ordering::SeqCst);
    stop.send_replace(true);
    let stopped = pipeline.stop().await;
    for server in servers {
        server.await??;
    }
    stopped?;
    match ended? {
        None => Ok(()),
        Some(role) => bail!("{role} ended by itself; its reason is in the log above"),
    }
}

/// Waits for a signal, or for a role that ended by itself, whose name it gives.
async fn wait(
    pipeline: &Pipeline,
    log: &Arc<dyn driftline_log::Log>,
    clock: &dyn Clock,
) -> anyhow::Result<Option<String>> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut check = tokio::time::interval(CHECK_EVERY);
    let mut trim = tokio::time::interval(TRIM_EVERY);
    let mut lag = tokio::time::interval(LAG_EVERY);
    lag.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut watch, began) = (Watch::default(), Instant::now());
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                tracing::info!("interrupted, ending");
                return Ok(None);
            }
            _ = terminate.recv() => {
                tracing::info!("asked to end");
                return Ok(None);
            }
            _ = check.tick() => {
                if let Some(role) = pipeline.ended() {
                    return Ok(Some(role));
                }
                if let Some(step_us) = watch.look(clock.now_us(), began.elapsed()) {
                    pipeline.metrics.clock_set();
                    tracing::warn!(
                        seconds = step_us / SECOND_US,
                        "the machine's clock was set; devices' clocks are held against it, so see that it is right"
                    );
                }
            }
            _ = lag.tick() => {
                let (log, metrics) = (Arc::clone(log), Arc::clone(&pipeline.metrics));
                let stages = pipeline.stages.clone();
                // Not waited for: a broker that does not answer must not hold up the end.
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = pipeline::measure_lag(&*log, &stages, &metrics) {
                        tracing::debug!(%error, "lag not measured");
                    }
                });
            }
            _ = trim.tick() => {
                let (log, now_us) = (Arc::clone(log), clock.now_us());
                match tokio::task::spawn_blocking(move || log.trim(now_us)).await? {
                    Ok(trimmed) => tracing::debug!(records = trimmed.records, "log trimmed"),
                    Err(error) => tracing::warn!(%error, "log not trimmed, tried again later"),
                }
            }
        }
    }
}
