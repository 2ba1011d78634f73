//! Traces and metrics, as a collector receives them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::{harness, serve};

/// What came in.
#[derive(Clone, Default)]
struct Taken {
    spans: Arc<Mutex<Vec<Span>>>,
    metrics: Arc<Mutex<BTreeSet<String>>>,
}

async fn traces(State(taken): State<Taken>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request
        .resource_spans
        .into_iter()
        .flat_map(|r| r.scope_spans);
    taken
        .spans
        .lock()
        .unwrap()
        .extend(scopes.flat_map(|scope| scope.spans));
}

async fn metrics(State(taken): State<Taken>, body: Bytes) {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let resources = request.resource_metrics.into_iter();
    let scopes = resources.flat_map(|resource| resource.scope_metrics);
    let names = scopes
        .flat_map(|scope| scope.metrics)
        .map(|metric| metric.name);
    taken.metrics.lock().unwrap().extend(names);
}

/// A collector on a free port.
fn collector() -> (String, Taken) {
    let taken = Taken::default();
    let router = Router::new()
        .route("/v1/traces", post(traces))
        .route("/v1/metrics", post(metrics))
        .with_state(taken.clone());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    (url, taken)
}

/// Scenario: one device sends one row to a pipeline that exports to a collector; then it ends.
/// Guarantee: from the step of a stage links lead to the record that it took in and from there to the
/// request of the device; the stages' metrics came as well.
#[test]
fn a_step_leads_back_to_the_request() {
    let (url, taken) = collector();
    let folder = tempfile::tempdir().unwrap();
    let (pipeline, token) = serve::started(
        folder.path(),
        serve::SETTINGS,
        &[("DRIFTLINE_TELEMETRY__OTLP_ENDPOINT", &url)],
    );
    let answer = serve::inferences(&pipeline.url, &token, "one", &serve::line(61.2));
    assert_eq!(answer.status, 200);
    harness::until("the row", || match serve::count(&pipeline.dir) {
        1.0 => Ok(()),
        rows => Err(rows.to_string()),
    });
    let (status, said) = pipeline.terminate();
    assert!(status.success(), "{said}");

    let spans = taken.spans.lock().unwrap().clone();
    let attribute = |span: &Span, key: &str| {
        let found = span.attributes.iter().find(|it| it.key == key);
        found.map(|it| format!("{:?}", it.value))
    };
    let request = spans
        .iter()
        .find(|span| span.name == "gateway.request")
        .unwrap();
    assert!(attribute(request, "device").unwrap().contains("boiler-17"));
    let leads = |span: &Span, to: &Span| {
        let mut links = span.links.iter();
        links.any(|link| link.span_id == to.span_id && link.trace_id == to.trace_id)
    };
    let record = spans
        .iter()
        .find(|span| span.name == "record" && leads(span, request))
        .unwrap();
    let stages: BTreeSet<String> = spans
        .iter()
        .filter(|span| span.name == "step" && leads(span, record))
        .filter_map(|span| attribute(span, "stage"))
        .collect();
    for stage in ["profile", "archive"] {
        assert!(stages.iter().any(|it| it.contains(stage)), "{stages:?}");
    }
    let metrics = taken.metrics.lock().unwrap();
    assert!(metrics.contains("driftline.stage.records"), "{metrics:?}");
}
