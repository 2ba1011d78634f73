//! `/metrics`, `/healthz` and `/readyz` of a process, at `[telemetry] listen`, and asking for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes the address.
///
/// # Errors
/// When it cannot be used.
pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("[telemetry] listen: {address}"))
}

/// Serves until `shutdown` completes. `ready` says whether all roles run.
///
/// # Errors
/// When the address can no longer be listened on.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = move || async move { ([(header::CONTENT_TYPE, kind)], metrics.text()) };
    let readyz = move || async move {
        match ready.load(Ordering::SeqCst) {
            true => (StatusCode::OK, "ready\n"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "not all roles run\n"),
        }
    };
    let router = Router::new()
        .route("/metrics", get(text))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await?;
    Ok(())
}

/// Asks an address, for containers that hold nothing but this binary.
///
/// # Errors
/// When there is no answer, or the answer is no.
pub(crate) async fn ask(url: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let response = client.get(url).send().await.context("no answer")?;
    let status = response.status();
    if !status.is_success() {
        let reason = response.text().await.unwrap_or_default();
        bail!("{url} answers {status}: {}", reason.trim());
    }
    Ok(())
}
