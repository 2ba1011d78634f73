//! Takes webhooks as somebody else's server would, and checks their signatures.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use driftline_alerting::webhook::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER};
use driftline_schemas::clock::{Clock as _, SECOND_US, SystemClock};
use serde_json::Value;

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
pub(super) struct Counts {
    /// Different messages.
    pub(super) delivered: u64,
    /// Those of them whose signature was right.
    pub(super) verified: u64,
    /// Messages that came again.
    pub(super) duplicates: u64,
}

struct Shared {
    secret: Secret,
    taken: Mutex<Taken>,
}

/// A receiver on a port of its own.
pub(super) struct Receiver {
    url: String,
    shared: Arc<Shared>,
    /// Removed with the receiver.
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    /// Draws a secret and listens.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let (secret, text) = Secret::from_random(rand::random());
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("secret"), text)?;
        let shared = Arc::new(Shared {
            secret,
            taken: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/alerts", listener.local_addr()?);
        let router = Router::new()
            .route("/alerts", post(take))
            .with_state(Arc::clone(&shared));
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
    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// File with the signing secret.
    pub(super) fn secret_file(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// What came so far.
    pub(super) fn counts(&self) -> Counts {
        self.taken().counts
    }

    /// Messages, for people, from one on.
    pub(super) fn since(&self, index: usize) -> Vec<String> {
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
        taken.told.push(format!("webhook ({signature}): {told}"));
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
