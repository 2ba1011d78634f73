//! Errors as senders get them: problem details (RFC 9457), with the place and the remedy.
//!
//! | type `urn:driftline:problem:…` | status | try again? |
//! | --- | --- | --- |
//! | `bad-request` | 400 | no: correct the request |
//! | `damaged-frame` | 400 | once: bytes were changed on the way, or the sender is wrong |
//! | `frame-version` | 400 | no: update one side |
//! | `unauthenticated` | 401 | no: no token, or one that no device has |
//! | `revoked` | 403 | no: the device was revoked |
//! | `another-device` | 403 | no: the token's device may not speak for that one |
//! | `not-found`, `method-not-allowed` | 404, 405 | no |
//! | `timeout` | 408 | yes: the body came too slowly |
//! | `frame-too-old` | 409 | no: it can no longer be told from a resend; drop it |
//! | `too-large` | 413 | no: send less at once |
//! | `media-type` | 415 | no: correct `Content-Type` or `Content-Encoding` |
//! | `unknown-model` | 422 | after the bundle was registered, or the name was corrected |
//! | `schema-mismatch` | 422 | after the device and the registered bundle were brought together |
//! | `invalid-rows` | 422 | no: correct the rows |
//! | `rate-limited` | 429 | yes, after `Retry-After` |
//! | `internal` | 500 | yes; tell the operator |
//! | `overloaded`, `log-unavailable` | 503 | yes, after `Retry-After` |
//! | `bundle-unavailable` | 503 | yes, once the operator has put the registered bundle in its place |
//!
//! A request is acknowledged as a whole or refused as a whole: after any of these, nothing of it was
//! written, except after `log-unavailable`, where it may have been, and a resend is removed later.
//! `frame` is the place of the refused frame in the request, from 0.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the table above says what each is")]
pub enum ProblemKind {
    BadRequest,
    DamagedFrame,
    FrameVersion,
    Unauthenticated,
    Revoked,
    AnotherDevice,
    NotFound,
    MethodNotAllowed,
    Timeout,
    FrameTooOld,
    TooLarge,
    MediaType,
    UnknownModel,
    SchemaMismatch,
    InvalidRows,
    RateLimited,
    Internal,
    Overloaded,
    LogUnavailable,
    BundleUnavailable,
}

impl ProblemKind {
    /// Last part of the type, HTTP status, and title.
    const fn facts(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (
                "bad-request",
                S::BAD_REQUEST,
                "the request is not understood",
            ),
            Self::DamagedFrame => ("damaged-frame", S::BAD_REQUEST, "a frame is damaged"),
            Self::FrameVersion => (
                "frame-version",
                S::BAD_REQUEST,
                "a frame is of an unknown version",
            ),
            Self::Unauthenticated => (
                "unauthenticated",
                S::UNAUTHORIZED,
                "the device is not known",
            ),
            Self::Revoked => ("revoked", S::FORBIDDEN, "the device was revoked"),
            Self::AnotherDevice => (
                "another-device",
                S::FORBIDDEN,
                "the device speaks for another one",
            ),
            Self::NotFound => ("not-found", S::NOT_FOUND, "there is nothing here"),
            Self::MethodNotAllowed => (
                "method-not-allowed",
                S::METHOD_NOT_ALLOWED,
                "the method does not fit the path",
            ),
            Self::Timeout => ("timeout", S::REQUEST_TIMEOUT, "the body came too slowly"),
            Self::FrameTooOld => ("frame-too-old", S::CONFLICT, "a frame is too old"),
            Self::TooLarge => ("too-large", S::PAYLOAD_TOO_LARGE, "a limit is exceeded"),
            Self::MediaType => (
                "media-type",
                S::UNSUPPORTED_MEDIA_TYPE,
                "the body's type is not accepted",
            ),
            Self::UnknownModel => (
                "unknown-model",
                S::UNPROCESSABLE_ENTITY,
                "the model is not registered",
            ),
            Self::SchemaMismatch => (
                "schema-mismatch",
                S::UNPROCESSABLE_ENTITY,
                "the columns are not the model's",
            ),
            Self::InvalidRows => (
                "invalid-rows",
                S::UNPROCESSABLE_ENTITY,
                "the rows cannot be read",
            ),
            Self::RateLimited => (
                "rate-limited",
                S::TOO_MANY_REQUESTS,
                "the device sends too fast",
            ),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "the gateway failed"),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "the gateway is busy"),
            Self::BundleUnavailable => (
                "bundle-unavailable",
                S::SERVICE_UNAVAILABLE,
                "the model's bundle cannot be read at the moment",
            ),
            Self::LogUnavailable => (
                "log-unavailable",
                S::SERVICE_UNAVAILABLE,
                "the log does not take rows at the moment",
            ),
        }
    }

    /// Last part of the type.
    pub const fn name(self) -> &'static str {
        self.facts().0
    }

    /// HTTP status.
    pub const fn status(self) -> StatusCode {
        self.facts().1
    }
}

/// An error as a sender gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.name())]
pub struct Problem {
    /// What kind of thing went wrong.
    pub kind: ProblemKind,
    /// What happened this time.
    pub detail: String,
    /// What to do about it.
    pub remedy: String,
    /// Where in the request: a header, a column, a byte.
    pub at: Option<String>,
    /// Which frame of the request, from 0.
    pub frame: Option<usize>,
    /// When to try again, seconds.
    pub retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem without a place.
    pub fn new(kind: ProblemKind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            remedy: remedy.into(),
            at: None,
            frame: None,
            retry_after_s: None,
        }
    }

    /// The same, at a place.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.at = Some(place.into());
        self
    }

    /// The same, in a frame of the request.
    #[must_use]
    pub fn in_frame(mut self, frame: usize) -> Self {
        self.frame = Some(frame);
        self
    }

    /// The same, to be tried again after so many seconds (at least one).
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<usize>,
    remedy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, status, title) = self.kind.facts();
        let document = Document {
            r#type: format!("urn:driftline:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            at: self.at.as_deref(),
            frame: self.frame,
            remedy: &self.remedy,
            retry_after_s: self.retry_after_s,
        };
        // Strings and numbers always have a JSON form.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == ProblemKind::Unauthenticated {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"driftline\""),
            );
        }
        response.extensions_mut().insert(self.kind);
        response
    }
}
