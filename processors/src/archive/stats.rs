//! What the archive stage counts, for people and metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Label of counters by topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TopicLabel {
    /// Name of the topic.
    pub topic: String,
}

/// Counters of the archive stage. Clones share them.
#[derive(Debug, Default, Clone)]
pub struct ArchiveStats {
    /// Rows written, by topic.
    pub rows: Family<TopicLabel, Counter>,
    /// Delta commits, by topic.
    pub commits: Family<TopicLabel, Counter>,
    /// Frames that were sent again, and so not written.
    pub frames_resent: Counter,
    /// Records that cannot be read.
    pub records_damaged: Counter,
    /// Tables compacted.
    pub compactions: Counter,
}

impl ArchiveStats {
    /// Makes the counters known under `driftline_archive_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("driftline_archive");
        registry.register("rows", "rows written", self.rows.clone());
        registry.register("commits", "commits of tables", self.commits.clone());
        registry.register(
            "frames_resent",
            "frames sent again",
            self.frames_resent.clone(),
        );
        registry.register(
            "records_damaged",
            "records that cannot be read",
            self.records_damaged.clone(),
        );
        registry.register("compactions", "tables compacted", self.compactions.clone());
    }

    pub(super) fn archived(&self, topic: &str, rows: u64) {
        let label = TopicLabel {
            topic: topic.into(),
        };
        self.rows.get_or_create(&label).inc_by(rows);
        self.commits.get_or_create(&label).inc();
    }
}
