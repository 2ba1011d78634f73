//! References and calibrations of a model version, as windows are compared with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use driftline_drift::calibrate::{Calibration, Expectations, Shares};
use driftline_log::registry::references::Built;
use driftline_schemas::bundle::{Bundle, CALIBRATION_FILE};
use driftline_schemas::clock::DAY_US;
use driftline_schemas::joint::Joint;
use driftline_schemas::profile::{Layout, Profile, Reference};

/// What windows of one span of the season are compared with.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) profile: Profile,
    /// Of each signal.
    pub(super) scores: Vec<Expectations>,
    pub(super) devices: Shares,
}

/// What the windows of a model version are compared with: the bundle's own reference, and those that were
/// promoted, each from a time on. All have the bundle's layout.
#[derive(Debug)]
pub(super) struct Subjects {
    own: Arc<Subject>,
    from: BTreeMap<i64, Arc<Subject>>,
}

impl Subjects {
    pub(super) fn new(own: Subject) -> Self {
        Self {
            own: Arc::new(own),
            from: BTreeMap::new(),
        }
    }

    /// Puts a reference in force from a time on; none for the bundle's own.
    ///
    /// # Errors
    /// When it has other edges than the bundle's, or a calibration that cannot be used.
    pub(super) fn promote(&mut self, from_us: i64, built: Option<Built>) -> Result<(), String> {
        let subject = match built {
            None => Arc::clone(&self.own),
            Some(built) => {
                let id = built.reference.id();
                let wrong = |problem: String| format!("reference {id}: {problem}");
                if built.reference.layout != *self.layout() {
                    return Err(wrong(
                        "its edges are not the bundle's: build it again with `driftline reference build`".into(),
                    ));
                }
                let calibration = Calibration::from_json(&built.calibration)
                    .map_err(|error| wrong(error.to_string()))?;
                let joint = self.own.joint.clone();
                Arc::new(Subject::new(built.reference, calibration, joint).map_err(wrong)?)
            }
        };
        self.from.insert(from_us, subject);
        Ok(())
    }

    /// What a window that starts at a time is compared with.
    pub(super) fn at(&self, start_us: i64) -> &Arc<Subject> {
        let promoted = self.from.range(..=start_us).next_back();
        promoted.map_or(&self.own, |(_, subject)| subject)
    }

    /// The one with a reference, wherever it is in force.
    pub(super) fn with(&self, reference_id: &str) -> Option<&Arc<Subject>> {
        std::iter::once(&self.own)
            .chain(self.from.values())
            .find(|subject| subject.reference_id == reference_id)
    }

    pub(super) fn layout(&self) -> &Layout {
        self.own.layout()
    }
}

/// A model version as it is judged with one reference.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) reference: Reference,
    pub(super) reference_id: String,
    pub(super) calibration: Calibration,
    /// Of the signals.
    pub(super) names: Vec<Arc<str>>,
    /// What the signal `joint` is computed with, where the bundle has it.
    pub(super) joint: Option<Arc<Joint>>,
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
        Self::new(bundle.reference.clone(), calibration, bundle.joint.clone())
    }

    /// # Errors
    /// When the calibration is for another layout.
    pub(super) fn new(
        reference: Reference,
        calibration: Calibration,
        joint: Option<Arc<Joint>>,
    ) -> Result<Self, String> {
        calibration
            .check_layout(reference.layout.digest())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            reference_id: reference.id(),
            reference,
            names: calibration
                .signals
                .iter()
                .map(|it| it.signal.as_str().into())
                .collect(),
            calibration,
            joint,
            expected: Mutex::default(),
        })
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.reference.layout
    }

    /// The reference's identity as a number.
    pub(super) fn reference_hash(&self) -> Option<u64> {
        u64::from_str_radix(&self.reference_id, 16).ok()
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
            let signals = self.calibration.signals.iter().zip(&profile.signals);
            Arc::new(Expected {
                devices: Shares::of(&profile.devices),
                scores: signals
                    .map(|(learned, reference)| Expectations::of(learned, reference))
                    .collect(),
                profile,
            })
        }))
    }
}
