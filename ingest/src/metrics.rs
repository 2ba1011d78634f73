//! What the gateway counts, for Prometheus.
//!
//! | name | labels | what |
//! | --- | --- | --- |
//! | `driftline_gateway_requests_total` | `route`, `status` | answers, by route pattern and HTTP status |
//! | `driftline_gateway_problems_total` | `problem` | refusals, by last part of the problem's type |
//! | `driftline_gateway_received_bytes_total` | | bytes of bodies read |
//! | `driftline_gateway_frames_acknowledged_total` | `kind` | frames whose rows the log has |
//! | `driftline_gateway_rows_acknowledged_total` | `kind` | rows that the log has |
//! | `driftline_gateway_rows_rejected_total` | `reason` | rows that went to the dead letters |
//! | `driftline_gateway_unseen_categories_total` | | values taken for a category that the bundle does not list |
//! | `driftline_gateway_clock_corrected_frames_total` | | frames whose times were corrected |
//! | `driftline_gateway_queue_requests` | | requests that wait to be written |
//! | `driftline_gateway_inflight_bytes` | | bytes that requests under way hold |
//! | `driftline_gateway_records_total` | | records appended, dead letters included |
//! | `driftline_gateway_record_bytes_total` | | bytes of those records |
//! | `driftline_gateway_append_failures_total` | | appends that the log refused |
//! | `driftline_gateway_append_seconds` | | histogram: how long an append took |
//! | `driftline_gateway_batch_rows` | | histogram: rows of one append |
//! | `driftline_gateway_registry_devices` | | devices known |
//! | `driftline_gateway_registry_bundles_unreadable` | | bundles registered that cannot be read |
//! | `driftline_gateway_registry_refresh_failures_total` | | refreshes of the registry that failed |
//! | `driftline_gateway_ready` | | 1 when `/readyz` answers 200 |

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Answer {
    pub(crate) route: String,
    pub(crate) status: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Refused {
    pub(crate) problem: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OfKind {
    pub(crate) kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Rejected {
    pub(crate) reason: &'static str,
}

/// The metrics and the registry that they are in. Label values come from fixed lists, so the number
/// of series is bounded.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<Answer, Counter>,
    pub(crate) problems: Family<Refused, Counter>,
    pub(crate) received_bytes: Counter,
    pub(crate) frames: Family<OfKind, Counter>,
    pub(crate) rows: Family<OfKind, Counter>,
    pub(crate) rejected: Family<Rejected, Counter>,
    pub(crate) unseen: Counter,
    pub(crate) corrected: Counter,
    pub(crate) queue: Gauge,
    pub(crate) inflight: Gauge,
    pub(crate) records: Counter,
    pub(crate) record_bytes: Counter,
    pub(crate) append_failures: Counter,
    pub(crate) append_seconds: Histogram,
    pub(crate) batch_rows: Histogram,
    pub(crate) devices: Gauge,
    pub(crate) bundles_unreadable: Gauge,
    pub(crate) refresh_failures: Counter,
    pub(crate) ready: Gauge<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("driftline_gateway"),
            requests: Family::default(),
            problems: Family::default(),
            received_bytes: Counter::default(),
            frames: Family::default(),
            rows: Family::default(),
            rejected: Family::default(),
            unseen: Counter::default(),
            corrected: Counter::default(),
            queue: Gauge::default(),
            inflight: Gauge::default(),
            records: Counter::default(),
            record_bytes: Counter::default(),
            append_failures: Counter::default(),
            append_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            batch_rows: Histogram::new(exponential_buckets(1.0, 4.0, 10)),
            devices: Gauge::default(),
            bundles_unreadable: Gauge::default(),
            refresh_failures: Counter::default(),
            ready: Gauge::default(),
        };
        metrics.register_traffic();
        metrics.register_log();
        metrics
    }
}

impl Metrics {
    fn register_traffic(&mut self) {
        let r = &mut self.registry;
        r.register(
            "requests",
            "Answers by route and status",
            self.requests.clone(),
        );
        r.register("problems", "Refusals by type", self.problems.clone());
        r.register(
            "received_bytes",
            "Bytes of bodies read",
            self.received_bytes.clone(),
        );
        r.register(
            "frames_acknowledged",
            "Frames that the log has",
            self.frames.clone(),
        );
        r.register(
            "rows_acknowledged",
            "Rows that the log has",
            self.rows.clone(),
        );
        r.register(
            "rows_rejected",
            "Rows that went to the dead letters",
            self.rejected.clone(),
        );
        r.register(
            "unseen_categories",
            "Values taken for a category that the bundle does not list",
            self.unseen.clone(),
        );
        r.register(
            "clock_corrected_frames",
            "Frames whose times were corrected",
            self.corrected.clone(),
        );
    }

    fn register_log(&mut self) {
        let r = &mut self.registry;
        r.register(
            "queue_requests",
            "Requests that wait to be written",
            self.queue.clone(),
        );
        r.register(
            "inflight_bytes",
            "Bytes held by requests under way",
            self.inflight.clone(),
        );
        r.register("records", "Records appended", self.records.clone());
        r.register(
            "record_bytes",
            "Bytes of records appended",
            self.record_bytes.clone(),
        );
        r.register(
            "append_failures",
            "Appends that the log refused",
            self.append_failures.clone(),
        );
        r.register(
            "append_seconds",
            "How long an append took",
            self.append_seconds.clone(),
        );
        r.register("batch_rows", "Rows of one append", self.batch_rows.clone());
        r.register("registry_devices", "Devices known", self.devices.clone());
        r.register(
            "registry_bundles_unreadable",
            "Bundles registered that cannot be read",
            self.bundles_unreadable.clone(),
        );
        r.register(
            "registry_refresh_failures",
            "Refreshes of the registry that failed",
            self.refresh_failures.clone(),
        );
        r.register("ready", "1 when ready", self.ready.clone());
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every metric is in the table of this module's docs, and every line of the table exists.
    #[test]
    fn the_table_is_true() {
        let metrics = Metrics::default();
        metrics
            .problems
            .get_or_create(&Refused { problem: "x" })
            .inc();
        let answer = Answer {
            route: "/v1/frames".into(),
            status: 200,
        };
        metrics.requests.get_or_create(&answer).inc();
        metrics.frames.get_or_create(&OfKind { kind: "x" }).inc();
        metrics.rows.get_or_create(&OfKind { kind: "x" }).inc();
        metrics
            .rejected
            .get_or_create(&Rejected { reason: "x" })
            .inc();
        let text = metrics.text();
        let documented: Vec<&str> = include_str!("metrics.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
            .collect();
        for name in &documented {
            assert!(text.contains(name), "{name} is not there:\n{text}");
        }
        let kept = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .count();
        assert_eq!(kept, documented.len(), "{text}");
    }
}
