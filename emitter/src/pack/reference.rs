//! Layout, reference profile and calibration.

use driftline_drift::calibrate::{Calibration, ErrorsByConfidence, Learner, UNNAMED_DEVICE};
use driftline_schemas::bundle::{FeatureType, Manifest, SCORE_RESOLUTION, SignalRole, Task};
use driftline_schemas::clock::HOUR_US;
use driftline_schemas::limits::EDGES_MAX;
use driftline_schemas::profile::binning::{Binner, quantile_edges};
use driftline_schemas::profile::reference::Season;
use driftline_schemas::profile::{Layout, Profile, Reference, SignalLayout};
use driftline_schemas::quantity;
use driftline_schemas::rows::Values;
use driftline_schemas::source::device_hash;

use super::joint::{self, Made as JointMade};
use super::{PackError, PackInput};
use crate::features::{Encoders, Value};
use crate::model::Predictions;

/// What was made of the reference rows.
pub(super) struct Made {
    pub(super) reference: Reference,
    pub(super) calibration: Calibration,
}

/// Makes layout, reference and calibration.
pub(super) fn make(
    input: &PackInput<'_>,
    manifest: &Manifest,
    predictions: &Predictions,
    joint: Option<&JointMade>,
    notes: &mut Vec<String>,
) -> Result<Made, PackError> {
    let columns = columns(input, manifest, predictions, joint)?;
    let joint_is_new = joint.is_some_and(|joint| !joint.kept);
    let layout = layout(input, manifest, &columns, joint_is_new, notes)?;
    let groups = Groups::of(input);
    let season = season(input, notes);
    let counting = Counting::new(&layout, &columns);
    let mut slots: Vec<Profile> = (0..season.slots())
        .map(|_| Profile::empty(&layout))
        .collect();
    for group in groups.iter() {
        let slot = &mut slots[season.slot(group.hour_us)];
        counting.add(slot, group.rows, group.device);
    }
    let reference = Reference {
        made_from: input.made_from.clone(),
        layout: layout.clone(),
        season,
        slots,
    };
    let errors = errors_by_confidence(&layout, &columns, input.rows.len());
    let mut learner = Learner::new(&reference)?
        .assuming(input.unlearned)
        .foreseeing(errors.as_ref());
    for group in groups.iter() {
        let mut profile = Profile::empty(&reference.layout);
        counting.add(&mut profile, group.rows, group.device);
        learner.add(
            group.hour_us,
            group.device.unwrap_or(UNNAMED_DEVICE),
            &profile,
        )?;
    }
    let calibration = learner.finish();
    notes.extend(calibration.notes.iter().cloned());
    Ok(Made {
        reference,
        calibration,
    })
}

/// How often the model was wrong, by its confidence.
fn errors_by_confidence(
    layout: &Layout,
    columns: &[SignalColumn],
    rows: usize,
) -> Option<ErrorsByConfidence> {
    let mut errors = ErrorsByConfidence::of(layout)?;
    for row in 0..rows {
        errors.add(|signal| columns[signal].values.get(row).copied());
    }
    Some(errors)
}

/// One signal's values, and whether a missing one counts as null (else the row does not have the
/// signal).
struct SignalColumn {
    values: Values<i32>,
    counts_missing: bool,
}

/// Values of every signal of the manifest, in order.
fn columns(
    input: &PackInput<'_>,
    manifest: &Manifest,
    predictions: &Predictions,
    joint: Option<&JointMade>,
) -> Result<Vec<SignalColumn>, PackError> {
    let encoders = Encoders::new(manifest);
    let features = encoders.features.iter().chain(&encoders.signals);
    let coded = manifest
        .features
        .iter()
        .chain(&manifest.signals)
        .zip(features)
        .map(|(feature, encoder)| -> Result<Values<i32>, PackError> {
            Ok(input.rows.column(&feature.name)?.codes(encoder))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let together = joint.map(|made| {
        let features: Vec<&Values<i32>> = coded.iter().take(manifest.features.len()).collect();
        joint::values(&made.joint, &features, input)
    });
    let mut coded = coded.into_iter();
    let prediction = prediction_codes(manifest, predictions);
    Ok(manifest
        .signals()
        .iter()
        .map(|signal| {
            let counted = |values| SignalColumn {
                values,
                counts_missing: true,
            };
            match signal.role {
                SignalRole::Input | SignalRole::Extra => counted(
                    // One per feature and extra signal, which come in this order.
                    coded.next().unwrap_or_default(),
                ),
                SignalRole::Joint => counted(together.clone().unwrap_or_default()),
                SignalRole::Output => counted(prediction.clone()),
                SignalRole::Confidence => counted(
                    (0..input.rows.len())
                        .map(|row| {
                            let score = predictions.confidence(row)?;
                            Some(quantity::quantise(score.into(), SCORE_RESOLUTION))
                        })
                        .collect(),
                ),
                SignalRole::Error => SignalColumn {
                    values: errors(input, manifest, &encoders, &prediction),
                    counts_missing: false,
                },
            }
        })
        .collect())
}

fn prediction_codes(manifest: &Manifest, predictions: &Predictions) -> Values<i32> {
    let resolution = manifest.output.resolution.unwrap_or(1.0);
    match manifest.task {
        Task::Classification => predictions.classes.iter().map(|code| Some(*code)).collect(),
        Task::Regression | Task::Anomaly => predictions
            .values
            .iter()
            .map(|value| Some(quantity::quantise((*value).into(), resolution)))
            .collect(),
    }
}

/// Right or wrong, or prediction − truth; missing where there is no truth.
fn errors(
    input: &PackInput<'_>,
    manifest: &Manifest,
    encoders: &Encoders,
    prediction: &Values<i32>,
) -> Values<i32> {
    let Some(label) = &input.rows.label else {
        return (0..input.rows.len()).map(|_| None).collect();
    };
    let truths = label.codes(&encoders.truth);
    prediction
        .iter()
        .zip(truths.iter())
        .map(|(predicted, truth)| {
            let (predicted, truth) = (*predicted?, *truth?);
            Some(manifest.task.error(predicted, truth))
        })
        .collect()
}

fn layout(
    input: &PackInput<'_>,
    manifest: &Manifest,
    columns: &[SignalColumn],
    joint_is_new: bool,
    notes: &mut Vec<String>,
) -> Result<Layout, PackError> {
    let bins = input.bins.clamp(2, EDGES_MAX + 1);
    let old = input.edges_from.map(|bundle| &bundle.reference.layout);
    let signals = manifest
        .signals()
        .into_iter()
        .zip(columns)
        .map(|(signal, column)| {
            if !matches!(signal.kind, FeatureType::Numeric { .. }) {
                return SignalLayout {
                    signal,
                    edges: Vec::new(),
                };
            }
            if let Some((_, kept)) = old.and_then(|old| old.signal(&signal.name)) {
                let other = signal.role == SignalRole::Joint && joint_is_new;
                if kept.signal == signal && !other {
                    return kept.clone();
                }
                notes.push(format!(
                    "signal {:?} has changed its type, its resolution or what it looks at: it gets new edges, and its profiles do not compare with the old version's",
                    signal.name
                ));
            }
            let mut finite: Vec<i32> = column
                .values
                .iter()
                .flatten()
                .copied()
                .filter(|code| quantity::is_finite(*code))
                .collect();
            SignalLayout {
                edges: quantile_edges(&mut finite, bins),
                signal,
            }
        })
        .collect();
    Ok(Layout::new(signals)?)
}

fn season(input: &PackInput<'_>, notes: &mut Vec<String>) -> Season {
    let Some(times) = input.rows.times_us.as_deref() else {
        return Season::None;
    };
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
        return Season::None;
    };
    let rows = |season: Season| {
        let mut rows = vec![0; season.slots()];
        for time in times {
            rows[season.slot(*time)] += 1;
        }
        rows
    };
    let (season, said) = Season::suitable(last - first, rows);
    notes.extend(said);
    season
}

/// Rows of one device and hour.
struct Group<'a> {
    hour_us: i64,
    /// `None` where rows do not name devices.
    device: Option<u64>,
    rows: &'a [u32],
}

/// Rows by device and hour.
struct Groups {
    order: Vec<u32>,
    /// Hour, device, and where its rows end.
    ends: Vec<(i64, Option<u64>, usize)>,
}

impl Groups {
    fn of(input: &PackInput<'_>) -> Self {
        let rows = input.rows.len();
        let hour = |row: usize| match &input.rows.times_us {
            Some(times) => times[row].div_euclid(HOUR_US) * HOUR_US,
            None => 0,
        };
        let devices: Option<Vec<u64>> = input.rows.device.as_ref().map(|data| {
            let hash = |value: Value<'_>| match value {
                Value::Missing => device_hash(&input.tenant, ""),
                Value::Number(number) => device_hash(&input.tenant, &number.to_string()),
                Value::Text(text) => device_hash(&input.tenant, text),
            };
            (0..rows).map(|row| hash(data.value(row))).collect()
        });
        let device = |row: usize| devices.as_ref().map(|devices| devices[row]);
        // A table in memory has fewer rows than 32 bits count.
        let mut order: Vec<(i64, Option<u64>, u32)> = (0..rows)
            .map(|row| (hour(row), device(row), row as u32))
            .collect();
        order.sort_unstable();
        let mut ends: Vec<(i64, Option<u64>, usize)> = Vec::new();
        for (at, (hour, device, _)) in order.iter().enumerate() {
            match ends.last_mut() {
                Some(last) if (last.0, last.1) == (*hour, *device) => last.2 = at + 1,
                _ => ends.push((*hour, *device, at + 1)),
            }
        }
        Self {
            order: order.into_iter().map(|(.., row)| row).collect(),
            ends,
        }
    }

    fn iter(&self) -> impl Iterator<Item = Group<'_>> {
        let mut from = 0;
        self.ends.iter().map(move |(hour_us, device, to)| {
            let rows = &self.order[from..*to];
            from = *to;
            Group {
                hour_us: *hour_us,
                device: *device,
                rows,
            }
        })
    }
}

/// Counts rows into profiles.
struct Counting<'a> {
    layout: &'a Layout,
    binners: Vec<Binner>,
    columns: &'a [SignalColumn],
}

impl<'a> Counting<'a> {
    fn new(layout: &'a Layout, columns: &'a [SignalColumn]) -> Self {
        Self {
            binners: layout
                .signals()
                .iter()
                .map(|signal| Binner::new(&signal.edges))
                .collect(),
            layout,
            columns,
        }
    }

    fn add(&self, profile: &mut Profile, rows: &[u32], device: Option<u64>) {
        profile.rows += rows.len() as u64;
        if let Some(device) = device {
            profile.devices.add(device, rows.len() as u64);
        }
        let signals = profile.signals.iter_mut().zip(self.layout.signals());
        let how = self.binners.iter().zip(self.columns);
        for ((profile, layout), (binner, column)) in signals.zip(how) {
            for row in rows {
                match column.values.get(*row as usize) {
                    Some(value) => profile.count(layout, binner, Some(*value)),
                    None if column.counts_missing => profile.count(layout, binner, None),
                    None => {}
                }
            }
        }
    }
}
