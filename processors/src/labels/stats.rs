//! What the labels stage counts, for people and metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of the labels stage. Clones share them.
#[derive(Debug, Default, Clone)]
pub struct LabelsStats {
    /// Labels joined with their inferences.
    pub matched: Counter,
    /// Labels of inferences that had one already.
    pub duplicates: Counter,
    /// Labels without a value.
    pub empty: Counter,
    /// Labels whose inference never came.
    pub unmatched: Counter,
    /// Labels of inferences too old, or from too far ahead, to count.
    pub too_old: Counter,
    /// Labels given up because too many wait.
    pub overflowed: Counter,
    /// Looks into the lake.
    pub looks: Counter,
    /// Records that cannot be read.
    pub records_damaged: Counter,
}

impl LabelsStats {
    /// Makes the counters known under `driftline_labels_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("driftline_labels");
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        add("matched", "labels joined with inferences", &self.matched);
        add(
            "duplicates",
            "labels of inferences that had one",
            &self.duplicates,
        );
        add("empty", "labels without a value", &self.empty);
        add(
            "unmatched",
            "labels whose inference never came",
            &self.unmatched,
        );
        add(
            "too_old",
            "labels of inferences too old to count",
            &self.too_old,
        );
        add(
            "overflowed",
            "labels given up because too many wait",
            &self.overflowed,
        );
        add("looks", "looks into the lake", &self.looks);
        add(
            "records_damaged",
            "records that cannot be read",
            &self.records_damaged,
        );
    }
}
