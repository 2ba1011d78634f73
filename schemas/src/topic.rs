//! Names of the log's topics, and who goes to which partition.
//!
//! Raw telemetry is partitioned by device, so that what removes resends sees all frames of a device
//! in one place; what is derived is partitioned by model, so that one writer judges a model.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Predictions with their features.
pub const INFERENCES: &str = "inferences";
/// Ground truth.
pub const OUTCOMES: &str = "outcomes";
/// Power and connectivity readings.
pub const HEALTH: &str = "health";
/// Boots, changes of firmware, model, SBOM, link or place.
pub const EVENTS: &str = "events";
/// Partial profiles and watermarks.
pub const PROFILES: &str = "profiles";
/// Comparisons.
pub const MEASURES: &str = "measures";
/// Measures that crossed their thresholds, explained.
pub const FINDINGS: &str = "findings";
/// Lives of alerts.
pub const ALERTS: &str = "alerts";
/// What was refused, with the reason.
pub const DEADLETTERS: &str = "deadletters";
/// Compacted: devices, tokens' hashes and bundles.
pub const REGISTRY: &str = "registry";

/// Topics that come from devices, partitioned by [`device_partition`].
pub const TELEMETRY: [&str; 4] = [INFERENCES, OUTCOMES, HEALTH, EVENTS];
/// Topics that are derived, partitioned by [`model_partition`].
pub const DERIVED: [&str; 4] = [PROFILES, MEASURES, FINDINGS, ALERTS];

/// Partition of a device's telemetry; it never changes while the partition count stands.
pub fn device_partition(device_hash: u64, partitions: u32) -> u32 {
    (device_hash % u64::from(partitions.max(1))) as u32
}

/// Partition of what is derived for a model.
pub fn model_partition(tenant: &str, model: &str, partitions: u32) -> u32 {
    let hash = xxh3_64_with_seed(model.as_bytes(), xxh3_64_with_seed(tenant.as_bytes(), 1));
    (hash % u64::from(partitions.max(1))) as u32
}
