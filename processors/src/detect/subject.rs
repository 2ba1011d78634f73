//! Reference and calibration of a model version, as windows are compared with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use driftline_drift::calibrate::{Calibration, Shares};
use driftline_schemas::bundle::{Bundle, CALIBRATION_FILE};
use driftline_schemas::clock::DAY_US;
use driftline_schemas::profile::{Layout, Profile, Reference};

/// What windows of one span of the season are compared with.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) profile: Profile,
    pub(super) devices: Shares,
}

/// A model version as it is judged.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) reference: Reference,
    pub(super) reference_id: String,
    pub(super) calibration: Calibration,
    /// Span of the season (start within the week, length) to what is expected there.
    expected: Mutex<BTreeMap<(i64, i64), Arc<Expected>>>,
}

impl Subject {
    /// Reads what judging needs out of a bundle.
    ///
    /// # Errors
    /// What is wrong with the calibration, and the remedy.
    pub(super) fn of(bundle: &Bundle) -> Result<Self, String> {
        let bytes = bundle.file(CALIBRATION_FILE).unwrap_or_default();
        let calibration = Calibration::from_json(bytes)
            .map_err(|error| format!("{}: {error}", bundle.title()))?;
        Self::new(bundle.reference.clone(), calibration)
    }

    /// # Errors
    /// When the calibration is for another layout.
    pub(super) fn new(reference: Reference, calibration: Calibration) -> Result<Self, String> {
        calibration
            .check_layout(reference.layout.digest())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            reference_id: reference.id(),
            reference,
            calibration,
            expected: Mutex::default(),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.reference.layout
    }

    /// What a window is compared with; kept, since the season repeats.
    pub(super) fn expected(&self, start_us: i64, end_us: i64) -> Arc<Expected> {
        // The season's slots are hours of the day or the week.
        let key = (start_us.rem_euclid(7 * DAY_US), end_us - start_us);
        let mut kept = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(kept.entry(key).or_insert_with(|| {
            // The reference was checked when it was read: its slots are of its layout.
            let profile = self
                .reference
                .for_window(start_us, end_us)
                .unwrap_or_else(|_| Profile::empty(&self.reference.layout));
            Arc::new(Expected {
                devices: Shares::of(&profile.devices),
                profile,
            })
        }))
    }
}
