//! Routes, headers and bodies.

mod body;
mod telemetry;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use driftline_log::LogError;
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::admit::{Admitted, Arrival, Sender};
use crate::devices::Stop;
use crate::gateway::Engine;
use crate::limits::INLINE_BODY_BYTES_MAX;
use crate::metrics::{Answer, OfKind, Refused, Rejected};
use crate::packer::{Failure, QueueError, Work};
use crate::problem::{Problem, ProblemKind};
use crate::reply::Reply;
use body::Share;

/// Content type of a body of frames.
pub(crate) const FRAMES_TYPE: &str = "application/vnd.driftline.frames";
/// When the request is made, by the device's clock, microseconds.
const SENT_AT: &str = "driftline-sent-at";

type Shared = State<Arc<Engine>>;

pub(crate) fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/v1/frames", post(frames))
        .route("/v1/telemetry/{kind}", post(telemetry::telemetry))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(|| async {
            Problem::new(
                ProblemKind::MethodNotAllowed,
                "this path takes another method",
                "POST telemetry, GET everything else",
            )
        })
        .fallback(|| async {
            Problem::new(
                ProblemKind::NotFound,
                "there is no such path",
                "send frames to /v1/frames, rows to /v1/telemetry/{kind}",
            )
        })
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&engine),
            count,
        ))
        .with_state(engine)
}

/// Counts answers; the labels come from the routes, never from what a sender wrote.
async fn count(State(engine): Shared, request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", MatchedPath::as_str)
        .to_owned();
    let response = next.run(request).await;
    let status = u32::from(response.status().as_u16());
    let answer = Answer { route, status };
    engine.metrics.requests.get_or_create(&answer).inc();
    if let Some(kind) = response.extensions().get::<ProblemKind>() {
        let problem = kind.name();
        engine
            .metrics
            .problems
            .get_or_create(&Refused { problem })
            .inc();
    }
    response
}

async fn readyz(State(engine): Shared) -> Response {
    match engine.unready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(engine): Shared) -> Response {
    engine.metrics.inflight.set(engine.inflight() as i64);
    engine.unready();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], engine.metrics.text()).into_response()
}

async fn frames(
    State(engine): Shared,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Reply>, Problem> {
    let head = || {
        let sender = authenticate(&engine, &headers)?;
        content_type(&headers, &[FRAMES_TYPE])?;
        Ok((sender, sent_at(&headers)?))
    };
    let ((sender, sent_at_us), body) = body::unless_refused(head(), body).await?;
    let span = span_of(&sender);
    let handled = async {
        let (bytes, share) = body::read(&engine, &headers, body).await?;
        let arrival = Arrival {
            received_at_us: engine.clock.now_us(),
            sent_at_us,
        };
        let is_small = bytes.len() <= INLINE_BODY_BYTES_MAX;
        let (decoder, from) = (Arc::clone(&engine), sender.clone());
        let decode = move |mut share: Share| {
            let mut charge = |bytes| share.take(bytes);
            let admitted = decoder
                .admission
                .frames(&from, &bytes, arrival, &mut charge)?;
            Ok((admitted, share))
        };
        let (admitted, share) = decoded(is_small, share, decode).await?;
        write(&engine, &sender, admitted, share).await
    };
    handled.instrument(span).await
}

fn span_of(sender: &Sender) -> tracing::Span {
    let origin = &sender.device.origin;
    tracing::info_span!(
        "gateway.request",
        tenant = %origin.tenant,
        device = %origin.device,
        frames = tracing::field::Empty,
        rows = tracing::field::Empty,
        rejected = tracing::field::Empty,
    )
}

/// Decodes here what is small, and where one may block what is not.
async fn decoded(
    is_small: bool,
    share: Share,
    decode: impl FnOnce(Share) -> Result<(Admitted, Share), Problem> + Send + 'static,
) -> Result<(Admitted, Share), Problem> {
    if is_small {
        return decode(share);
    }
    let span = tracing::Span::current();
    let task = tokio::task::spawn_blocking(move || span.in_scope(|| decode(share)));
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "decoding failed");
        Err(Problem::new(
            ProblemKind::Internal,
            "the request could not be decoded",
            "send it again; if it stays like this, tell the operator",
        ))
    })
}

/// Who sends, if the device is known, not revoked, and not too fast.
fn authenticate(engine: &Engine, headers: &HeaderMap) -> Result<Sender, Problem> {
    let unknown = |detail: &str| {
        let remedy = "send `Authorization: Bearer <token>` with the token that `driftline device add` printed";
        Problem::new(ProblemKind::Unauthenticated, detail, remedy).at("header Authorization")
    };
    let value = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| unknown("no token was sent"))?;
    let token = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| unknown("the header is not a bearer token"))?;
    let device = engine
        .admission
        .registry
        .by_token(token)
        .ok_or_else(|| unknown("no device has this token"))?;
    if device.revoked_at_us.is_some() {
        return Err(Problem::new(
            ProblemKind::Revoked,
            format!("device {:?} was revoked", device.origin.device),
            "add it again with `driftline device add`, and give it the new token",
        ));
    }
    let sender = Sender::new(device);
    engine
        .admission
        .devices
        .request(sender.hash, engine.clock.now_us())
        .map_err(|stop| {
            let wait_s = match stop {
                Stop::Rate { wait_s, .. } => wait_s,
                Stop::TooOld { .. } => 1,
            };
            Problem::new(
                ProblemKind::RateLimited,
                "the device makes more requests than its rate allows",
                "send more frames in one request, and wait between requests",
            )
            .retry_after(wait_s)
        })?;
    Ok(sender)
}

/// The one of the accepted types that the body has.
fn content_type(
    headers: &HeaderMap,
    accepted: &'static [&'static str],
) -> Result<&'static str, Problem> {
    let refuse = |detail: String, place: &str| {
        let remedy = format!("send {} without Content-Encoding", accepted.join(" or "));
        Err(Problem::new(ProblemKind::MediaType, detail, remedy).at(place))
    };
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let detail = format!("the encoding {encoding:?} is not accepted");
        return refuse(detail, "header Content-Encoding");
    }
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let bare = given.split(';').next().unwrap_or_default().trim();
    let found = accepted.iter().find(|it| bare.eq_ignore_ascii_case(it));
    match found {
        Some(found) => Ok(found),
        None => {
            let given: String = given.chars().take(100).collect();
            refuse(
                format!("the type {given:?} is not accepted"),
                "header Content-Type",
            )
        }
    }
}

/// What `Driftline-Sent-At` says.
fn sent_at(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(SENT_AT) else {
        return Ok(None);
    };
    let parsed = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| {
        Problem::new(
            ProblemKind::BadRequest,
            "the header is no whole number",
            "send the present of the device's clock in microseconds since 1970, or leave it out",
        )
        .at("header Driftline-Sent-At")
    })
}

/// Hands what was admitted to the packer, and answers when the log has it.
async fn write(
    engine: &Engine,
    sender: &Sender,
    mut admitted: Admitted,
    share: Share,
) -> Result<Json<Reply>, Problem> {
    let span = tracing::Span::current();
    let (acknowledged, rejected) = (admitted.reply.acknowledged, admitted.reply.rejected.rows);
    span.record("frames", acknowledged.frames);
    span.record("rows", acknowledged.rows);
    span.record("rejected", rejected);
    let parts = std::mem::take(&mut admitted.parts);
    let letters = std::mem::take(&mut admitted.letters);
    if !parts.is_empty() || !letters.is_empty() {
        let (done, answer) = oneshot::channel();
        let work = Work {
            parts,
            letters,
            bytes: admitted.bytes,
            permits: share.into_permits(),
            span: driftline_log::trace::request(),
            done,
        };
        engine.queue.push(work).map_err(queue_problem)?;
        let waited = tokio::time::timeout(engine.config.append_timeout.duration(), answer).await;
        match waited {
            Ok(Ok(result)) => result.map_err(|failure| append_problem(&failure))?,
            Ok(Err(_)) => return Err(log_problem("the writer ended before it answered", 5)),
            Err(_) => return Err(log_problem("the log did not answer in time", 10)),
        }
    }
    let now_us = engine.clock.now_us();
    engine
        .admission
        .devices
        .acknowledged(sender.hash, &admitted.told, now_us);
    count_admitted(engine, &admitted);
    Ok(Json(admitted.reply))
}

fn count_admitted(engine: &Engine, admitted: &Admitted) {
    let metrics = &engine.metrics;
    for (kind, (frames, rows)) in &admitted.kinds {
        let label = OfKind { kind: kind.name() };
        metrics.frames.get_or_create(&label).inc_by(*frames);
        metrics.rows.get_or_create(&label).inc_by(*rows);
    }
    for (reason, rows) in &admitted.rejected {
        let label = Rejected {
            reason: reason.name(),
        };
        metrics.rejected.get_or_create(&label).inc_by(*rows);
    }
    metrics.unseen.inc_by(admitted.unseen);
    metrics.corrected.inc_by(admitted.corrected);
}

fn queue_problem(error: QueueError) -> Problem {
    match error {
        QueueError::Full => Problem::new(
            ProblemKind::Overloaded,
            "too many requests wait to be written",
            "send the same again after the pause",
        )
        .retry_after(2),
        QueueError::Closed => log_problem("the gateway is shutting down", 5),
    }
}

fn append_problem(failure: &Failure) -> Problem {
    match failure {
        Failure::Packing(problem) => Problem::new(
            ProblemKind::Internal,
            format!("the rows could not be packed: {problem}"),
            "send fewer rows in one frame; if it stays like this, tell the operator",
        ),
        // A disk that is full, a broker that is away: outside, and it may pass.
        Failure::Log(error @ LogError::Storage { retryable, .. }) => {
            log_problem(&error.to_string(), if *retryable { 5 } else { 60 })
        }
        Failure::Log(error) => log_problem(&error.to_string(), 30),
    }
}

fn log_problem(detail: &str, wait_s: u64) -> Problem {
    let remedy = "keep the frames and send the same again after the pause; what the log has already is counted once";
    Problem::new(ProblemKind::LogUnavailable, detail, remedy).retry_after(wait_s)
}
