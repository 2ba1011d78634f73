//! Metrics of the stages' loops, beside those that stages and gateway register themselves.
//!
//! | name | meaning |
//! | --- | --- |
//! | `driftline_stage_records_total{stage}` | records taken in |
//! | `driftline_stage_bytes_total{stage}` | their bytes |
//! | `driftline_stage_steps_total{stage}` | steps committed |
//! | `driftline_stage_outputs_total{stage}` | records put out |
//! | `driftline_stage_failures_total{stage}` | failures that were tried again |
//! | `driftline_stage_partitions{stage}` | partitions held |
//! | `driftline_stage_rebalances_total{stage}` | times that partitions came or went |
//! | `driftline_stage_lag{stage}` | offsets of all partitions of the stage that are not committed yet |
//! | `driftline_stage_step_seconds{stage}` | time to decide a step |
//! | `driftline_stage_commit_seconds{stage}` | time to commit a step |
//! | `driftline_clock_set_total` | times that the machine's clock was set by 5 s or more while this process ran |
//! | `driftline_alert_open{tenant,model,kind,scope}` | 1 for each alert that is open |
//! | `driftline_webhook_attempts_total`, `_delivered_total`, `_given_up_total` | webhooks |

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use driftline_alerting::sender::DeliveryCounters;
use driftline_alerting::stage::OpenAlerts;
use driftline_log::Committed;
use driftline_log::runner::RunObserver;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter as OtelCounter, Histogram as OtelHistogram};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: String,
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

/// All metrics of this process but the gateway's.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    records: Family<StageLabel, Counter>,
    bytes: Family<StageLabel, Counter>,
    steps: Family<StageLabel, Counter>,
    outputs: Family<StageLabel, Counter>,
    failures: Family<StageLabel, Counter>,
    partitions: Family<StageLabel, Gauge>,
    rebalances: Family<StageLabel, Counter>,
    lag: Family<StageLabel, Gauge>,
    step_seconds: Family<StageLabel, Histogram, fn() -> Histogram>,
    commit_seconds: Family<StageLabel, Histogram, fn() -> Histogram>,
    clock_set: Counter,
    deliveries: OnceLock<Arc<DeliveryCounters>>,
    open: OnceLock<OpenAlerts>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let step_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        let commit_seconds = Family::new_with_constructor(seconds as fn() -> Histogram);
        let (records, bytes, steps) = (Family::default(), Family::default(), Family::default());
        let (outputs, failures, partitions) =
            (Family::default(), Family::default(), Family::default());
        let (rebalances, lag) = (Family::default(), Family::default());
        let clock_set = Counter::default();
        registry.register(
            "driftline_clock_set",
            "times that the machine's clock was set",
            clock_set.clone(),
        );
        let stage = registry.sub_registry_with_prefix("driftline_stage");
        stage.register("records", "records taken in", Family::clone(&records));
        stage.register("bytes", "bytes of records taken in", Family::clone(&bytes));
        stage.register("steps", "steps committed", Family::clone(&steps));
        stage.register("outputs", "records put out", Family::clone(&outputs));
        stage.register(
            "failures",
            "failures that were tried again",
            Family::clone(&failures),
        );
        stage.register("partitions", "partitions held", Family::clone(&partitions));
        stage.register(
            "rebalances",
            "times that partitions came or went",
            Family::clone(&rebalances),
        );
        stage.register(
            "lag",
            "offsets that the stage has not committed yet",
            Family::clone(&lag),
        );
        stage.register(
            "step_seconds",
            "time to decide a step",
            Family::clone(&step_seconds),
        );
        stage.register(
            "commit_seconds",
            "time to commit a step",
            Family::clone(&commit_seconds),
        );
        Self {
            registry: Mutex::new(registry),
            records,
            bytes,
            steps,
            outputs,
            failures,
            partitions,
            rebalances,
            lag,
            step_seconds,
            commit_seconds,
            clock_set,
            deliveries: OnceLock::new(),
            open: OnceLock::new(),
        }
    }
}

impl Metrics {
    /// Lets a stage register its own metrics.
    pub(crate) fn add(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts that the machine's clock was set.
    pub(crate) fn clock_set(&self) {
        self.clock_set.inc();
    }

    /// Says how far a stage is behind.
    pub(crate) fn behind(&self, stage: &str, offsets: u64) {
        let gauge = self.lag.get_or_create(&label(stage)).clone();
        gauge.set(i64::try_from(offsets).unwrap_or(i64::MAX));
    }

    /// Makes the webhooks' counters and the open alerts known.
    pub(crate) fn alerting(&self, counters: Arc<DeliveryCounters>, open: OpenAlerts) {
        // Alerting is started once per process; a second one would bring the same.
        let _ = self.deliveries.set(counters);
        let _ = self.open.set(open);
    }

    /// All metrics in the text format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        let end = text.rfind("# EOF").unwrap_or(text.len());
        text.truncate(end);
        if let Some(counters) = self.deliveries.get() {
            for (name, value) in [
                ("attempts", &counters.attempts),
                ("delivered", &counters.delivered),
                ("given_up", &counters.given_up),
            ] {
                let value = value.load(Ordering::Relaxed);
                text.push_str(&format!(
                    "# TYPE driftline_webhook_{name} counter\ndriftline_webhook_{name}_total {value}\n"
                ));
            }
        }
        if let Some(open) = self.open.get() {
            text.push_str("# TYPE driftline_alert_open gauge\n");
            for [tenant, model, kind, scope] in open.now().iter().map(|about| about.each_ref()) {
                let [tenant, model, scope] = [tenant, model, scope].map(|text| escaped(text));
                text.push_str(&format!(
                    "driftline_alert_open{{tenant=\"{tenant}\",model=\"{model}\",kind=\"{kind}\",scope=\"{scope}\"}} 1\n"
                ));
            }
        }
        text.push_str("# EOF\n");
        text
    }
}

/// A label's value as the text format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Counts what happens in the loops, here and through OpenTelemetry.
pub(crate) struct LogObserver {
    metrics: Arc<Metrics>,
    records: OtelCounter<u64>,
    failures: OtelCounter<u64>,
    commit_seconds: OtelHistogram<f64>,
}

impl LogObserver {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        let meter = opentelemetry::global::meter("driftline");
        Self {
            metrics,
            records: meter.u64_counter("driftline.stage.records").build(),
            failures: meter.u64_counter("driftline.stage.failures").build(),
            commit_seconds: meter
                .f64_histogram("driftline.stage.commit")
                .with_unit("s")
                .build(),
        }
    }
}

fn label(stage: &str) -> StageLabel {
    StageLabel {
        stage: stage.into(),
    }
}

fn attribute(stage: &str) -> [KeyValue; 1] {
    [KeyValue::new("stage", stage.to_owned())]
}

impl RunObserver for LogObserver {
    fn holding(&self, stage: &str, partitions: usize) {
        let gauge = self.metrics.partitions.get_or_create(&label(stage)).clone();
        gauge.set(i64::try_from(partitions).unwrap_or(i64::MAX));
        self.metrics.rebalances.get_or_create(&label(stage)).inc();
    }

    fn stepped(&self, stage: &str, records: usize, bytes: usize, took: Duration) {
        let label = label(stage);
        self.metrics
            .records
            .get_or_create(&label)
            .inc_by(records as u64);
        self.metrics
            .bytes
            .get_or_create(&label)
            .inc_by(bytes as u64);
        self.metrics
            .step_seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        self.records.add(records as u64, &attribute(stage));
    }

    fn committed(&self, stage: &str, _committed: Committed, outputs: usize, took: Duration) {
        let label = label(stage);
        self.metrics.steps.get_or_create(&label).inc();
        self.metrics
            .outputs
            .get_or_create(&label)
            .inc_by(outputs as u64);
        self.metrics
            .commit_seconds
            .get_or_create(&label)
            .observe(took.as_secs_f64());
        self.commit_seconds
            .record(took.as_secs_f64(), &attribute(stage));
    }

    fn failed(&self, stage: &str, error: &dyn std::fmt::Display, attempt: u32) {
        self.metrics.failures.get_or_create(&label(stage)).inc();
        self.failures.add(1, &attribute(stage));
        tracing::warn!(stage, %error, attempt, "step failed, tried again");
    }
}
