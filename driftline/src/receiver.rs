//! Takes webhooks as somebody else's server would, checks their signatures, and shows what came: for
//! the demo, and as `driftline receive` for stacks that want to see their alerts arrive.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use driftline_alerting::webhook::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER};
use driftline_schemas::clock::{Clock as _, SECOND_US, SystemClock};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Webhooks that are kept for telling; the counts go on.
const KEPT_MAX: usize = 10_000;

#[derive(Debug, Default)]
struct Taken {
    told: Vec<String>,
    ids: std::collections::BTreeSet<String>,
    counts: Counts,
}

/// What came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Counts {
    /// Different messages.
    pub(crate) delivered: u64,
    /// Those of them whose signature was right.
    pub(crate) verified: u64,
    /// Messages that came again.
    pub(crate) duplicates: u64,
}

struct Shared {
    secret: Secret,
    /// Each message is written to standard output as it comes.
    echo: bool,
    taken: Mutex<Taken>,
}

/// Arguments of `driftline receive`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReceiveArgs {
    /// Address and port to listen on: POST `/alerts` takes webhooks, GET `/` shows what came.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// File with the secret that they are signed with.
    #[arg(long, value_name = "FILE")]
    secret_file: PathBuf,
}

/// Takes webhooks until asked to end.
///
/// # Errors
/// When the secret cannot be read or the address not be used.
pub(crate) async fn run(args: ReceiveArgs) -> anyhow::Result<()> {
    let secret = read_secret(&args.secret_file)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen {}", args.listen))?;
    let shared = Arc::new(Shared {
        secret,
        echo: true,
        taken: Mutex::default(),
    });
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let ended = async move {
        tokio::select! {
            // A signal that cannot be waited for ends it as well.
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    };
    axum::serve(listener, router(shared))
        .with_graceful_shutdown(ended)
        .await?;
    Ok(())
}

fn read_secret(file: &Path) -> anyhow::Result<Secret> {
    let named = || format!("--secret-file {}", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    Secret::parse(text.trim()).with_context(named)
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/alerts", post(take))
        .route("/", get(show))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(shared)
}

/// What came, as JSON.
async fn show(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let taken = shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!({ "webhooks": taken.counts, "messages": taken.told }))
}

/// A receiver on a port of its own.
pub(crate) struct Receiver {
    url: String,
    shared: Arc<Shared>,
    /// Removed with the receiver.
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Draws a secret and listens.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (secret, text) = Secret::from_random(rand::random());
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("secret"), text)?;
        let shared = Arc::new(Shared {
            secret,
            echo: false,
            taken: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let router = router(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the webhook receiver ended");
            }
        });
        Ok(Self {
            url,
            shared,
            folder,
            task,
        })
    }

    /// Where messages are posted to.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// File with the signing secret.
    pub(crate) fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// What came so far.
    pub(crate) fn counts(&self) -> Counts {
        self.taken().counts
    }

    /// Messages, for people, from one on.
    pub(crate) fn since(&self, index: usize) -> Vec<String> {
        self.taken().told.get(index..).unwrap_or_default().to_vec()
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.shared
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let id = header(ID_HEADER);
    let now_s = SystemClock.now_us() / SECOND_US;
    let verified = shared.secret.verify(
        id,
        header(TIMESTAMP_HEADER),
        header(SIGNATURE_HEADER),
        &body,
        now_s,
    );
    let mut taken = shared.taken.lock().unwrap_or_else(PoisonError::into_inner);
    if !taken.ids.insert(id.to_owned()) {
        taken.counts.duplicates += 1;
        return StatusCode::NO_CONTENT;
    }
    taken.counts.delivered += 1;
    taken.counts.verified += u64::from(verified.is_ok());
    if taken.told.len() < KEPT_MAX {
        let signature = match &verified {
            Ok(()) => "signature verified".to_owned(),
            Err(error) => format!("NOT VERIFIED: {error}"),
        };
        let told = tell(&body).unwrap_or_else(|| "a body that is no alert".into());
        let told = format!("webhook ({signature}): {told}");
        if shared.echo {
            use std::io::Write as _;
            // Whoever reads it may be gone; it is shown over HTTP all the same.
            let _ = writeln!(std::io::stdout().lock(), "{told}");
        }
        taken.told.push(told);
    }
    StatusCode::NO_CONTENT
}

fn tell(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let finding = &body["data"]["finding"];
    Some(format!(
        "{} {} at {}: {}",
        body["type"].as_str()?,
        finding["kind"].as_str()?,
        finding["scope"].as_str()?,
        finding["explanation"].as_str()?
    ))
}
