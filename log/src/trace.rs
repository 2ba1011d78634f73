//! Whose telemetry a step took in, told to OpenTelemetry without the log carrying anything.
//!
//! A record is a span of its own, whose identity is a hash of the record's bytes. Whoever writes it tells
//! of it ([`written`]), with links to the requests that brought its frames; whoever reads it knows the
//! same identity and links to it ([`link`]). So a trace leads from a stage's step to the record, and
//! from there to the device's request, over any log and any number of processes.
//!
//! Nothing is hashed unless an exporter was configured ([`enable`]).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::api::{Output, Record};

/// Most links of one span: enough to find an example, little enough for any step.
pub const LINKS_MAX: usize = 32;

static ENABLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static NEXT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Makes [`written`] and [`link`] do something.
pub fn enable() {
    ENABLED.store(true, Ordering::Relaxed);
}

/// The identity that the span under construction on this thread must have; an exporter's generator of
/// identities asks for it first.
pub fn next_ids() -> Option<(TraceId, SpanId)> {
    NEXT.get()
}

/// The span that a request is in, for links to it.
pub fn request() -> Option<SpanContext> {
    if !ENABLED.load(Ordering::Relaxed) {
        return None;
    }
    let context = tracing::Span::current().context();
    Some(context.span().span_context().clone()).filter(SpanContext::is_valid)
}

/// The span of a record that is about to be written.
#[derive(Debug)]
pub struct Pending {
    ids: (TraceId, SpanId),
    topic: String,
    bytes: usize,
    requests: Vec<SpanContext>,
}

/// Prepares the span of a record; `None` where nobody listens.
pub fn pending(output: &Output, requests: impl Iterator<Item = SpanContext>) -> Option<Pending> {
    if !ENABLED.load(Ordering::Relaxed) {
        return None;
    }
    let value = output.value.as_deref()?;
    Some(Pending {
        ids: identity(value),
        topic: output.topic.to_string(),
        bytes: value.len(),
        requests: requests.take(LINKS_MAX).collect(),
    })
}

/// Tells that a record is in the log.
pub fn written(pending: Pending) {
    let tracer = opentelemetry::global::tracer("driftline");
    let links = pending.requests.into_iter().map(Link::with_context);
    let builder = tracer
        .span_builder("record")
        .with_attributes([
            KeyValue::new("topic", pending.topic),
            KeyValue::new("bytes", pending.bytes as i64),
        ])
        .with_links(links.collect());
    NEXT.set(Some(pending.ids));
    let mut span = tracer.build_with_context(builder, &Context::new());
    NEXT.set(None);
    span.end();
}

/// Links a step's span to the records that it takes in, the first [`LINKS_MAX`] of them.
pub fn link(span: &tracing::Span, records: &[Record]) {
    if !ENABLED.load(Ordering::Relaxed) {
        return;
    }
    let values = records.iter().filter_map(|record| record.value.as_deref());
    for value in values.take(LINKS_MAX) {
        let (trace, id) = identity(value);
        let state = TraceState::default();
        span.add_link(SpanContext::new(
            trace,
            id,
            TraceFlags::SAMPLED,
            true,
            state,
        ));
    }
}

fn identity(value: &[u8]) -> (TraceId, SpanId) {
    // All zeros would mean no identity; it is as unlikely as any other hash.
    (
        TraceId::from(xxh3_128(value).max(1)),
        SpanId::from(xxh3_64(value).max(1)),
    )
}
