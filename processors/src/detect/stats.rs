//! What the detect stage counts, for people and metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Counters of the detect stage. Clones share them. They count what was decided, so after a step
/// that was rolled back they have counted it twice.
#[derive(Debug, Default, Clone)]
pub struct DetectStats {
    /// Partial profiles merged.
    pub profiles: Counter,
    /// Records of the profiles topic that could not be read.
    pub malformed: Counter,
    /// Partial profiles for windows that are no longer kept.
    pub too_old: Counter,
    /// Cells of windows whose profiles have another layout than the bundle, which cannot be judged.
    pub foreign_layout: Counter,
    /// Windows that wait because no bundle of their model version can be found.
    pub unknown_bundle: Counter,
    /// Judgements of windows, counting again those that were judged again.
    pub judged: Counter,
    /// Cohorts left out of a window because there were too many.
    pub cohorts_dropped: Counter,
    /// Findings appended.
    pub findings: Counter,
}

impl DetectStats {
    /// Adds the counters to a registry of metrics.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("driftline_detect");
        for (name, help, counter) in [
            ("profiles", "partial profiles merged", &self.profiles),
            (
                "malformed",
                "records of profiles that could not be read",
                &self.malformed,
            ),
            (
                "too_old",
                "partial profiles for windows no longer kept",
                &self.too_old,
            ),
            (
                "foreign_layout",
                "cells of another layout than the bundle's",
                &self.foreign_layout,
            ),
            (
                "unknown_bundle",
                "windows that wait for a bundle",
                &self.unknown_bundle,
            ),
            ("judged", "judgements of windows", &self.judged),
            (
                "cohorts_dropped",
                "cohorts left out of a window",
                &self.cohorts_dropped,
            ),
            ("findings", "findings appended", &self.findings),
        ] {
            registry.register(name, help, counter.clone());
        }
    }
}
