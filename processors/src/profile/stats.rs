//! What the profile stage counts, for people and metrics.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::rows::Age;
use crate::once::Verdict;

/// Rows by age, before they are added to the counters.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Ages {
    on_time: u64,
    late: u64,
    too_old: u64,
    future: u64,
}

impl Ages {
    pub(super) fn add(&mut self, age: Age, rows: u64) {
        match age {
            Age::OnTime => self.on_time += rows,
            Age::Late => self.late += rows,
            Age::TooOld => self.too_old += rows,
            Age::Future => self.future += rows,
        }
    }
}

/// Counters of the profile stage. Clones share them. They count what was decided, so after a step
/// that was rolled back they have counted its rows twice; what is promised exactly is in the log.
#[derive(Debug, Default, Clone)]
pub struct ProfileStats {
    /// Rows that came in time.
    pub rows_on_time: Counter,
    /// Rows that came late and count.
    pub rows_late: Counter,
    /// Rows too old to count.
    pub rows_too_old: Counter,
    /// Rows from too far in the future to count.
    pub rows_future: Counter,
    /// Rows of model versions without a bundle.
    pub rows_without_bundle: Counter,
    /// Frames that were sent again.
    pub frames_resent: Counter,
    /// Frames too far behind to tell from resends.
    pub frames_beyond: Counter,
    /// Profiles made on devices that were merged.
    pub device_profiles: Counter,
    /// Profiles made on devices that fit no known layout.
    pub device_profiles_unfit: Counter,
    /// Records of the log that cannot be read.
    pub records_damaged: Counter,
    /// Partial profiles appended.
    pub profiles: Counter,
}

impl ProfileStats {
    /// Makes the counters known under `driftline_profile_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("driftline_profile");
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        add("rows_on_time", "rows in time", &self.rows_on_time);
        add(
            "rows_late",
            "rows that came late and count",
            &self.rows_late,
        );
        add("rows_too_old", "rows too old to count", &self.rows_too_old);
        add(
            "rows_future",
            "rows too far ahead to count",
            &self.rows_future,
        );
        add(
            "rows_without_bundle",
            "rows of model versions without a bundle",
            &self.rows_without_bundle,
        );
        add("frames_resent", "frames sent again", &self.frames_resent);
        add(
            "frames_beyond",
            "frames too far behind to tell from resends",
            &self.frames_beyond,
        );
        add(
            "device_profiles",
            "profiles made on devices",
            &self.device_profiles,
        );
        add(
            "device_profiles_unfit",
            "profiles made on devices that fit no known layout",
            &self.device_profiles_unfit,
        );
        add(
            "records_damaged",
            "records that cannot be read",
            &self.records_damaged,
        );
        add("profiles", "partial profiles appended", &self.profiles);
    }

    pub(super) fn count_ages(&self, ages: Ages) {
        self.rows_on_time.inc_by(ages.on_time);
        self.rows_late.inc_by(ages.late);
        self.rows_too_old.inc_by(ages.too_old);
        self.rows_future.inc_by(ages.future);
    }

    pub(super) fn count_frame(&self, verdict: Verdict) {
        match verdict {
            Verdict::New => 0,
            Verdict::Resent => self.frames_resent.inc(),
            Verdict::Beyond => self.frames_beyond.inc(),
        };
    }
}
