//! Logs to standard error; traces and metrics to an OpenTelemetry collector where one is configured.

use anyhow::Context as _;
use opentelemetry::trace::{SpanId, TraceId, TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::TelemetryConfig;

/// Sends what is left when it is dropped.
#[derive(Default)]
pub(crate) struct Exporters {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Drop for Exporters {
    fn drop(&mut self) {
        // The collector may be gone; there is nobody left to tell.
        if let Some(traces) = self.traces.take() {
            let _ = traces.shutdown();
        }
        if let Some(metrics) = self.metrics.take() {
            let _ = metrics.shutdown();
        }
    }
}

/// Sets up logs, and exporters where an endpoint is configured.
///
/// # Errors
/// When the filter or the endpoint is wrong.
pub(crate) fn init(config: &TelemetryConfig, quiet: bool) -> anyhow::Result<Exporters> {
    let directives = std::env::var("RUST_LOG").unwrap_or_else(|_| match quiet {
        true => "error,delta_kernel=off,buoyant_kernel=off".into(),
        false => config.log.clone(),
    });
    let filter = EnvFilter::try_new(&directives)
        .with_context(|| format!("[telemetry] log: {directives:?}"))?;
    let text = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let text = match config.log_json {
        true => text.json().boxed(),
        false => text
            .with_ansi(
                std::env::var_os("NO_COLOR").is_none()
                    && std::io::IsTerminal::is_terminal(&std::io::stderr()),
            )
            .boxed(),
    };
    let mut exporters = Exporters::default();
    let traces = match &config.otlp_endpoint {
        None => None,
        Some(endpoint) => {
            exporters = connect(endpoint)?;
            exporters.traces.as_ref().map(|provider| {
                tracing_opentelemetry::layer().with_tracer(provider.tracer("driftline"))
            })
        }
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(text)
        .with(traces)
        .try_init()
        .context("logs are set up twice")?;
    Ok(exporters)
}

/// Random identities, but for spans whose identity is known to others.
#[derive(Debug, Default)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        driftline_log::trace::next_ids().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        driftline_log::trace::next_ids().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

fn connect(endpoint: &str) -> anyhow::Result<Exporters> {
    let base = endpoint.trim_end_matches('/');
    let resource = Resource::builder()
        .with_service_name("driftline")
        .with_attribute(opentelemetry::KeyValue::new(
            "service.version",
            env!("CARGO_PKG_VERSION"),
        ))
        .build();
    let wrong = || format!("[telemetry] otlp_endpoint: {endpoint}");
    let spans = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{base}/v1/traces"))
        .build()
        .with_context(wrong)?;
    let metrics = opentelemetry_otlp::MetricExporter::builder()
        .with_http()
        .with_endpoint(format!("{base}/v1/metrics"))
        .build()
        .with_context(wrong)?;
    let traces = SdkTracerProvider::builder()
        .with_batch_exporter(spans)
        .with_id_generator(Ids::default())
        .with_resource(resource.clone())
        .build();
    let metrics = SdkMeterProvider::builder()
        .with_periodic_exporter(metrics)
        .with_resource(resource)
        .build();
    opentelemetry::global::set_meter_provider(metrics.clone());
    opentelemetry::global::set_tracer_provider(traces.clone());
    driftline_log::trace::enable();
    Ok(Exporters {
        traces: Some(traces),
        metrics: Some(metrics),
    })
}
