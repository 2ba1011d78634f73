//! Rows that come without frames: JSON lines and Arrow streams.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Json;
use bytes::Bytes;
use driftline_schemas::frame::{self, Overrides, Sent};
use driftline_schemas::rows::Kind;
use driftline_schemas::source::Origin;
use driftline_schemas::telemetry::{Intake, Taken, TelemetryError};
use sha2::{Digest, Sha256};
use tracing::Instrument;

use super::body::{self, Share};
use super::{Shared, authenticate, content_type, decoded, sent_at, span_of, write};
use crate::admit::{Admission, Admitted, Arrival, Incoming, Invalid, Sender};
use crate::check::bytes_of;
use crate::limits::{IDEMPOTENCY_KEY_BYTES_MAX, INLINE_BODY_BYTES_MAX};
use crate::problem::{Problem, ProblemKind};
use crate::reply::Reply;

const JSON_LINES: &str = "application/x-ndjson";
const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
const MODEL: &str = "driftline-model";
const KEY: &str = "idempotency-key";

/// A table of rows, before it is read.
struct Table {
    kind: Kind,
    is_arrow: bool,
    bytes: Bytes,
    key: Option<String>,
    overrides: Overrides,
}

pub(super) async fn telemetry(
    State(engine): Shared,
    Path(kind): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Reply>, Problem> {
    let head = || {
        let sender = authenticate(&engine, &headers)?;
        let kind = kind_of(&kind)?;
        let content_type = content_type(&headers, &[JSON_LINES, ARROW_STREAM])?;
        let said = (sent_at(&headers)?, key(&headers)?, model(&headers)?);
        Ok((sender, kind, content_type == ARROW_STREAM, said))
    };
    let (head, body) = body::unless_refused(head(), body).await?;
    let (sender, kind, is_arrow, (sent_at_us, key, overrides)) = head;
    let span = span_of(&sender);
    let handled = async {
        let (bytes, share) = body::read(&engine, &headers, body).await?;
        let arrival = Arrival {
            received_at_us: engine.clock.now_us(),
            sent_at_us,
        };
        let is_small = bytes.len() <= INLINE_BODY_BYTES_MAX;
        let (decoder, from) = (Arc::clone(&engine), sender.clone());
        let table = Table {
            kind,
            is_arrow,
            bytes,
            key,
            overrides,
        };
        let decode = move |mut share: Share| {
            let admitted = table.read(&decoder.admission, &from, arrival, &mut share)?;
            Ok((admitted, share))
        };
        let (admitted, share) = decoded(is_small, share, decode).await?;
        write(&engine, &sender, admitted, share).await
    };
    handled.instrument(span).await
}

fn kind_of(name: &str) -> Result<Kind, Problem> {
    [Kind::Inferences, Kind::Outcomes, Kind::Health, Kind::Events]
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| {
            Problem::new(
                ProblemKind::NotFound,
                "there is no such kind of rows",
                "send inferences, outcomes, health or events; profiles come in frames",
            )
            .at("path")
        })
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    if !headers.contains_key(KEY) {
        return Ok(None);
    }
    header_text(headers, KEY)
        .filter(|key| (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()))
        .map(|key| Some(key.to_owned()))
        .ok_or_else(|| {
            Problem::new(
                ProblemKind::BadRequest,
                format!("the key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} ASCII characters"),
                "send a UUID, a new one for new rows and the same one for a resend",
            )
            .at("header Idempotency-Key")
        })
}

/// What `Driftline-Model: name@version[+variant]` says.
fn model(headers: &HeaderMap) -> Result<Overrides, Problem> {
    if !headers.contains_key(MODEL) {
        return Ok(Overrides::default());
    }
    let parsed = header_text(headers, MODEL).and_then(|text| {
        let (name, rest) = text.trim().split_once('@')?;
        let (version, variant) = rest.split_once('+').unwrap_or((rest, ""));
        (!name.is_empty() && !version.is_empty()).then(|| Overrides {
            model: Some(name.into()),
            version: Some(version.into()),
            variant: Some(variant.into()),
            ..Overrides::default()
        })
    });
    parsed.ok_or_else(|| {
        Problem::new(
            ProblemKind::BadRequest,
            "the header names no model",
            "write name@version, with +variant where there is one",
        )
        .at("header Driftline-Model")
    })
}

impl Table {
    fn read(
        self,
        admission: &Admission,
        sender: &Sender,
        arrival: Arrival,
        share: &mut Share,
    ) -> Result<Admitted, Problem> {
        let origin = Arc::new(self.overrides.apply(&sender.device.origin));
        let (schema, model) = admission.schema_of_rows(&origin, self.kind)?;
        let manifest = model.as_ref().map(|model| &*model.manifest);
        let intake = Intake::new(&schema, manifest);
        let taken = match self.is_arrow {
            true => intake.arrow_stream(&self.bytes, &admission.limits),
            false => intake.json_lines(&self.bytes, &admission.limits),
        }
        .map_err(telemetry_problem)?;
        if let (true, Some(first)) = (taken.rows.is_empty(), taken.errors.first()) {
            return Err(Problem::new(
                ProblemKind::InvalidRows,
                format!("no row can be read; the first: {}", first.reason),
                "name the fields as the registered bundle does, and send values of their types",
            )
            .at(format!("row {}", first.row)));
        }
        share.take(bytes_of(&taken.rows))?;
        let Taken {
            rows,
            errors,
            refused,
            ..
        } = taken;
        let boot = self.boot(&origin);
        let invalid = Invalid {
            count: refused as u64,
            errors,
            lines: (!self.is_arrow).then_some(&*self.bytes),
        };
        let incoming = Incoming {
            kind: self.kind,
            boot,
            sequence: 0,
            sent: arrival.sent_at_us.map_or(Sent::Unsaid, Sent::At),
            origin,
            schema,
            model,
            body: frame::Body::Rows(rows),
        };
        admission.rows(sender, incoming, &invalid, arrival)
    }

    /// The boot of the frame that these rows are counted as: made from the key, so that a request
    /// that comes again is a frame that comes again.
    fn boot(&self, origin: &Origin) -> u64 {
        let mut hash = Sha256::new();
        for part in [&*origin.tenant, &*origin.device, self.kind.name()] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        match &self.key {
            Some(key) => {
                hash.update(b"key");
                hash.update(key.as_bytes());
            }
            None => {
                hash.update(b"body");
                hash.update(&self.bytes);
            }
        }
        let digest = hash.finalize();
        digest
            .iter()
            .take(8)
            .fold(0, |boot, byte| boot << 8 | u64::from(*byte))
    }
}

fn telemetry_problem(error: TelemetryError) -> Problem {
    let text = error.to_string();
    match error {
        TelemetryError::Limit { .. } => {
            let (detail, remedy) = text.split_once("; ").unwrap_or((&text, "send less"));
            Problem::new(ProblemKind::TooLarge, detail, remedy).at("body")
        }
        TelemetryError::Stream { at, what } => Problem::new(
            ProblemKind::InvalidRows,
            what,
            "send an Arrow IPC stream with the columns of the registered bundle",
        )
        .at(format!("body at byte {at}")),
    }
}
