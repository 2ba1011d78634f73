//! Reading bodies into bounded memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gateway::Engine;
use crate::problem::{Problem, ProblemKind};

/// How long the body of a refused request is read on, and how much of it: enough for what a well-meaning
/// sender has under way, little for one that means harm.
const DISCARD_TIME: Duration = Duration::from_secs(2);
const DISCARD_BYTES_MAX: usize = 16 << 20;

/// What one request holds of the bytes in flight; given back when it is dropped.
pub(super) struct Share {
    all: Arc<Semaphore>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl Share {
    fn new(all: &Arc<Semaphore>) -> Self {
        Self {
            all: Arc::clone(all),
            permits: Vec::new(),
        }
    }

    /// Takes so many more.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(new) = Arc::clone(&self.all).try_acquire_many_owned(permits) else {
            return Err(Problem::new(
                ProblemKind::Overloaded,
                "requests under way hold as much memory as they may",
                "send the same again after the pause",
            )
            .retry_after(2));
        };
        match self.permits.last_mut() {
            Some(held) => held.merge(new),
            None => self.permits.push(new),
        }
        Ok(())
    }

    pub(super) fn into_permits(self) -> Vec<OwnedSemaphorePermit> {
        self.permits
    }
}

fn too_large(engine: &Engine) -> Problem {
    let most = engine.config.body_bytes;
    Problem::new(
        ProblemKind::TooLarge,
        format!("the body has more than {most}"),
        "send fewer frames or rows in one request",
    )
    .at("body")
}

/// Reads on for a while without keeping anything: a sender that is still writing when the connection
/// closes would see a reset connection in place of the answer.
async fn discard(mut stream: BodyDataStream) {
    let mut left = DISCARD_BYTES_MAX;
    let reading = async {
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whether it came to an end makes no difference.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// What was decided before the body was read; a refusal waits until the sender can see it.
pub(super) async fn unless_refused<T>(
    decided: Result<T, Problem>,
    body: Body,
) -> Result<(T, Body), Problem> {
    match decided {
        Ok(decided) => Ok((decided, body)),
        Err(problem) => {
            discard(body.into_data_stream()).await;
            Err(problem)
        }
    }
}

/// Reads a body, no faster than there is room for it, no longer than it may take.
pub(super) async fn read(
    engine: &Engine,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, Share), Problem> {
    let claimed = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<u64>().ok());
    if claimed.is_some_and(|claimed| claimed > engine.config.body_bytes.0) {
        discard(body.into_data_stream()).await;
        return Err(too_large(engine));
    }
    let mut share = Share::new(&engine.bytes);
    let reading = gather(engine, body, &mut share);
    let bytes = tokio::time::timeout(engine.config.body_timeout.duration(), reading)
        .await
        .map_err(|_| {
            Problem::new(
                ProblemKind::Timeout,
                format!(
                    "the body did not come within {}",
                    engine.config.body_timeout
                ),
                "send less in one request",
            )
            .retry_after(1)
        })??;
    engine.metrics.received_bytes.inc_by(bytes.len() as u64);
    Ok((bytes, share))
}

async fn gather(engine: &Engine, body: Body, share: &mut Share) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    // Charged as it comes: a slow sender that claims much must not hold what others could use.
    let mut bytes = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            Problem::new(
                ProblemKind::BadRequest,
                format!("the body broke off: {error}"),
                "send the request again",
            )
            .at("body")
        })?;
        if (bytes.len() + chunk.len()) as u64 > engine.config.body_bytes.0 {
            discard(stream).await;
            return Err(too_large(engine));
        }
        share.take(chunk.len() as u64)?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}
